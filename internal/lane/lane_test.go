package lane_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/lane"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// site is a handler behind a lane, and behind net/http alone.
type site struct {
	lane       *lane.Lane
	server     *http.Server // that the lane is in front of
	plain      *http.Server // alone
	addr, bare string
	said       lockedBuffer // what both have logged
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newSite(tb testing.TB, h http.Handler, change ...func(*http.Server)) *site {
	tb.Helper()
	return newSiteOn(tb, func(l testenv.Unreading) net.Listener { return l }, h, change...)
}

// newSiteOn is newSite where both accept what accepting makes of their listeners.
func newSiteOn(tb testing.TB, accepting func(testenv.Unreading) net.Listener, h http.Handler,
	change ...func(*http.Server)) *site {
	tb.Helper()
	s := &site{}
	server := func() *http.Server {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
			ErrorLog: log.New(&s.said, "", 0)}
		for _, f := range change {
			f(srv)
		}
		return srv
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(tb, err)
		return l
	}
	on, bare := listen(), listen()
	s.addr, s.bare = on.Addr().String(), bare.Addr().String()
	s.server = server()
	s.lane = lane.New(s.server, accepting(testenv.Unreading{Listener: on}))
	go func() { _ = s.lane.Serve() }()
	s.plain = server()
	go func() { _ = s.plain.Serve(accepting(testenv.Unreading{Listener: bare})) }()
	tb.Cleanup(func() {
		_ = on.Close()
		s.lane.Close()
		_ = s.server.Close()
		_ = s.plain.Close()
	})
	return s
}

// dial is a client of the lane.
func (s *site) dial(tb testing.TB) (net.Conn, *bufio.Reader) {
	tb.Helper()
	return dialTo(tb, s.addr)
}

func dialTo(tb testing.TB, addr string) (net.Conn, *bufio.Reader) {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	check(tb, err)
	tb.Cleanup(func() { _ = c.Close() })
	check(tb, c.SetDeadline(time.Now().Add(time.Minute)))
	return c, bufio.NewReader(c)
}

func send(tb testing.TB, c net.Conn, raw string) {
	tb.Helper()
	_, err := io.WriteString(c, raw)
	check(tb, err)
}

// receive reads one answer whole.
func receive(tb testing.TB, in *bufio.Reader) (*http.Response, string) {
	tb.Helper()
	res, err := http.ReadResponse(in, nil)
	check(tb, err)
	body, err := io.ReadAll(res.Body)
	check(tb, err)
	return res, string(body)
}

func (s *site) counts(tb testing.TB, answered, handed uint64) {
	tb.Helper()
	if a, h := s.lane.Counts(); a != answered || h != handed {
		tb.Errorf("the lane has answered %d requests and handed over %d connections, want %d and %d", a, h, answered,
			handed)
	}
}

var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %q", r.Method, r.RequestURI, r.Host, body)
})

const get = "GET /a?b=c HTTP/1.1\r\nHost: app.example\r\n\r\n"

// Plain requests are answered one after the other, also where several come at once or in
// pieces, and from the first that is not plain the server goes on, with every byte.
func TestPlainRequestsAreAnsweredAndOthersHandedOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, echo)
	c, in := s.dial(t)
	want := func(body string) {
		t.Helper()
		if res, is := receive(t, in); res.StatusCode != 200 || is != body {
			t.Fatalf("%d %q, want %q", res.StatusCode, is, body)
		}
	}
	send(t, c, get+get+"GET /x HT")
	want(`GET /a?b=c app.example ""`)
	want(`GET /a?b=c app.example ""`)
	send(t, c, "TP/1.1\r\nHost: b\r")
	send(t, c, "\n\r\nHEAD /a HTTP/1.1\r\nHost: app.example\r\n\r\n")
	want(`GET /x b ""`)
	res, err := http.ReadResponse(in, &http.Request{Method: "HEAD"})
	check(t, err)
	if res.ContentLength != 22 {
		t.Errorf("HEAD: %d bytes", res.ContentLength)
	}
	s.counts(t, 4, 0)
	send(t, c, get+"POST /p HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5\r\n\r\nhel")
	want(`GET /a?b=c app.example ""`)
	send(t, c, "lo"+get)
	want(`POST /p app.example "hello"`)
	want(`GET /a?b=c app.example ""`)
	s.counts(t, 5, 1)
}

// What the lane does not take is net/http's to answer, or to refuse.
func TestWhatIsNotPlainIsHandedOver(t *testing.T) {
	t.Parallel()
	fill := strings.Repeat("x", 8<<10)
	for name, raw := range map[string]string{
		"POST":              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"a method's prefix": "GETS / HTTP/1.1\r\nHost: a\r\n\r\n",
		"lower case":        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
		"an empty line":     "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute":          "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"asterisk":          "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
		"two spaces":        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
		"a tab":             "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
		"no version":        "GET /\r\nHost: a\r\n\r\n",
		"HTTP/1.0":          "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
		"HTTP/1.10":         "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
		"no host":           "GET / HTTP/1.1\r\nA: b\r\n\r\n",
		"no field":          "GET / HTTP/1.1\r\n\r\n",
		"an empty host":     "GET / HTTP/1.1\r\nHost: \r\n\r\n",
		"two hosts":         "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"two hosts in one":  "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
		"user info":         "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
		"a bare LF":         "GET / HTTP/1.1\nHost: a\r\n\r\n",
		"a bare LF in it":   "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
		"a bare CR":         "GET / HTTP/1.1\r\nHost: a\r\nB: c\rd\r\n\r\n",
		"a NUL":             "GET / HTTP/1.1\r\nHost: a\r\nB: c\x00d\r\n\r\n",
		"folded":            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
		"folded first":      "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
		"a space in a name": "GET / HTTP/1.1\r\nHost: a\r\nB : c\r\n\r\n",
		"no colon":          "GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
		"no name":           "GET / HTTP/1.1\r\nHost: a\r\n: c\r\n\r\n",
		"a length":          "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"chunks":            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"an upgrade":        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"closing":           "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"hop-by-hop fields": "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-A\r\n\r\n",
		"an expectation":    "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
		"trailers":          "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
		"h2c by upgrade":    "GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"a proxy's field":   "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: keep-alive\r\n\r\n",
		"a long head":       "GET / HTTP/1.1\r\nHost: a\r\nB: " + fill + "\r\n\r\n",
		"a bad escape":      "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/2":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TLS":               "\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, echo)
			send2 := func(addr string) string {
				c, err := net.Dial("tcp", addr)
				check(t, err)
				defer c.Close()
				check(t, c.SetDeadline(time.Now().Add(time.Minute)))
				send(t, c, raw)
				check(t, c.(*net.TCPConn).CloseWrite())
				answer, err := io.ReadAll(c)
				check(t, err)
				return dateLess(string(answer))
			}
			if mine, theirs := send2(s.addr), send2(s.bare); mine != theirs {
				t.Errorf("by the lane %q, by net/http %q", mine, theirs)
			}
			s.counts(t, 0, 1)
		})
	}
}

// Where a head cannot become one that the lane takes, net/http does not wait for its end, and
// nor does the client for an answer.
func TestAHeadThatIsBadIsRefusedBeforeItEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t, echo)
	for raw, status := range map[string]int{"GET /\r\n": 400, "GET / HTTP/1.1\r\nHost: a\r\nno field\r\n": 400,
		"GET / HTTP/1.1\nHost: a\n\n": 200, "GET / HTTP/1.1\r\nHost: a\r\n b\r\nC: d\n\n": 400} {
		c, in := s.dial(t)
		send(t, c, raw)
		if res, _ := receive(t, in); res.StatusCode != status {
			t.Errorf("%q: %s", raw, res.Status)
		}
	}
	s.counts(t, 0, 4)
}

// dateLess is what was answered without dates, which may be others a second later.
func dateLess(answers string) string { return dateLine.ReplaceAllString(answers, "") }

var dateLine = regexp.MustCompile("Date: [A-Z][^\r\n]*GMT\r\n")

// FuzzAnswers has one handler do the same for both, by a little program: each byte is a step.
func FuzzAnswers(f *testing.F) {
	for _, program := range []string{"", "w", "hw", "Lw", "HLw", "fww", "wfwf", "i1hw", "2", "3w", "4", "Bw", "BB", "Bf", "Tww",
		"tBw", "cw", "Cw", "dw", "ew", "nw", "hhh", "SwS", "LB", "sw", "a", "wa", "Ba", "fa", "iiw", "vw", "x"} {
		f.Add(program, false)
		f.Add(program, true)
	}
	s := newSite(f, http.HandlerFunc(programmed))
	f.Fuzz(func(t *testing.T, program string, head bool) {
		if len(program) <= 30 {
			answersAlike(t, s, program, head)
		}
	})
}

func TestAnyTwoStepsAnswerAlike(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(programmed))
	eachOfAnyTwo(t, strings.Split(steps, ""), func(t *testing.T, program string) {
		answersAlike(t, s, program, false)
		answersAlike(t, s, program, true)
	})
}

// eachOfAnyTwo tries all texts of two words, and of three with SALLYPORT_CAMPAIGN=1.
func eachOfAnyTwo(t *testing.T, words []string, try func(t *testing.T, text string)) {
	t.Helper()
	last := []string{""}
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		last = append(last, words...)
	}
	for _, one := range words {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for _, other := range words {
				for _, third := range last {
					try(t, one+other+third)
				}
			}
		})
	}
}

// The type of an answer that names none is found in its beginning, in however many pieces its
// handler writes that.
func TestTheTypeOfAnAnswerDoesNotDependOnItsPieces(t *testing.T) {
	t.Parallel()
	binary := "\x00\x01\x02"
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		whole := 0
		pieces := strings.Split(r.URL.Query().Get("pieces"), ",")
		for _, piece := range pieces {
			whole += len(piece)
		}
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", strconv.Itoa(whole))
		}
		for _, piece := range pieces {
			_, _ = io.WriteString(w, piece)
			if r.URL.Query().Has("flush") {
				_ = http.NewResponseController(w).Flush()
			}
		}
	}))
	text, long := strings.Repeat("t", 100), strings.Repeat("l", 2000)
	for _, pieces := range [][]string{{text, binary}, {text, binary + long}, {text, binary + long + long},
		{long, binary}, {long, binary + long + long}, {text, text, text, text, text, text, binary + long + long},
		{"<", "html>" + long + long}, {long + long, binary}, {"<", "html>"}} {
		for _, how := range []string{"", "length&", "flush&", "length&flush&"} {
			for _, method := range []string{"GET", "HEAD"} {
				raw := fmt.Sprintf("%s /?%spieces=%s HTTP/1.1\r\nHost: a\r\n\r\n", method, how,
					url.QueryEscape(strings.Join(pieces, ",")))
				mine, theirs := exchange(t, s.addr, method, raw), exchange(t, s.bare, method, raw)
				if mine != theirs {
					t.Errorf("%s %s%.30q by the lane:\n%s\nby net/http:\n%s", method, how, pieces, mine, theirs)
				}
			}
		}
	}
}

func programmed(w http.ResponseWriter, r *http.Request) { run(w, r.URL.Query().Get("p")) }

// answersAlike fails where a handler that runs the program is not answered for alike.
func answersAlike(t *testing.T, s *site, program string, head bool) {
	t.Helper()
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	switch {
	case head && strings.ContainsAny(program, "la"):
		return // net/http sends a wrong length then, and as much of a header as it has
	case strings.Contains(program, "L") && strings.Contains(program, "R"):
		return // net/http sends more than the declared length where a handler copies from a reader
	}
	raw := method + " /?p=" + url.QueryEscape(program) + " HTTP/1.1\r\nHost: a\r\n\r\n"
	mine, theirs := exchange(t, s.addr, method, raw), exchange(t, s.bare, method, raw)
	if mine != theirs {
		t.Errorf("%s %q by the lane:\n%s\nby net/http:\n%s", method, program, mine, theirs)
	}
}

// steps are all that programs are made of.
const steps = "wB0RMbfh234si1LlCkcnedDTtSvxa"

func run(w http.ResponseWriter, program string) {
	h, control := w.Header(), http.NewResponseController(w)
	for i, step := range program {
		switch step {
		case 'w':
			_, err := io.WriteString(w, "hello, "+string(rune('a'+i)))
			note(h, err)
		case 'B':
			_, err := w.Write(bytes.Repeat([]byte("<p>big"), 1000))
			note(h, err)
		case 'M': // what may be held, to the byte
			_, err := w.Write(bytes.Repeat([]byte("m"), 2048))
			note(h, err)
		case 'b': // what is not text
			_, err := w.Write([]byte{0, 1, 2})
			note(h, err)
		case '0':
			_, err := w.Write(nil)
			note(h, err)
		case 'R':
			_, err := io.Copy(w, struct{ io.Reader }{strings.NewReader("what a reader has")})
			note(h, err)
		case 'f':
			_ = control.Flush()
		case 'h':
			w.WriteHeader(http.StatusOK)
		case '2':
			w.WriteHeader(http.StatusNoContent)
		case '3':
			w.WriteHeader(http.StatusNotModified)
		case '4':
			w.WriteHeader(http.StatusNotFound)
		case 's':
			w.WriteHeader(299)
		case 'i':
			w.WriteHeader(http.StatusEarlyHints)
		case '1':
			w.WriteHeader(http.StatusProcessing)
		case 'L':
			h.Set("Content-Length", "8")
		case 'l':
			h.Set("Content-Length", "-1")
		case 'C':
			h.Set("Connection", "close")
		case 'k':
			h.Set("Connection", "keep-alive")
		case 'c':
			h.Set("Content-Type", "text/plain")
		case 'n':
			h["Content-Type"] = nil
		case 'e':
			h.Set("Content-Encoding", "br")
		case 'd':
			h.Set("Date", "never")
		case 'D':
			h["Date"] = nil
		case 'T':
			h.Set(http.TrailerPrefix+"X-T", "late")
		case 't':
			h.Add("Trailer", "X-Sum, Content-Length")
			h.Set("X-Sum", "early")
		case 'S':
			h.Add("X-Sum", fmt.Sprint(i))
		case 'v':
			h.Set("X-V", " a\r\nSet-Cookie: b ")
		case 'x':
			h["x y"] = []string{"1"}
			h["lower"] = []string{"2"}
		case 'a':
			panic(http.ErrAbortHandler)
		}
	}
}

func note(h http.Header, err error) {
	if err != nil {
		h.Add("X-Err", err.Error())
	}
}

// exchange is all that comes back for a request, and whether a second one is answered.
func exchange(t *testing.T, addr, method, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	in := bufio.NewReader(c)
	send(t, c, raw)
	var out strings.Builder
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return "broken off"
		}
		body, err := io.ReadAll(res.Body)
		if res.Header.Get("Date") != "never" && res.StatusCode >= 200 && res.Header.Get("Date") != "" {
			res.Header.Set("Date", "now")
		}
		if err != nil {
			return "broken off" // where, may differ
		}
		fmt.Fprintf(&out, "%s %v length %d %v close %t\nbody %d bytes, %.40q\ntrailer %v\n", res.Status, res.Header,
			res.ContentLength, res.TransferEncoding, res.Close, len(body), body, res.Trailer)
		if res.StatusCode >= 200 {
			break
		}
	}
	send2, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if err != nil || send2 == 0 {
		return out.String() + "closed\n"
	}
	if _, err := http.ReadResponse(in, nil); err != nil {
		return out.String() + "closed\n"
	}
	return out.String() + "open\n"
}

// Who waits for the client's end learns of it, and who only asks, too; somebody who has
// hung up is not taken for somebody who has sent the next request already.
func TestAClientThatIsGoneEndsTheRequest(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		begun, over := make(chan struct{}), make(chan error, 1)
		s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			if !waits {
				cancel()
				ctx, cancel = r.Context(), func() {}
			}
			defer cancel()
			close(begun)
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if waits {
					select {
					case <-ctx.Done():
					case <-time.After(20 * time.Second):
					}
				}
				if err := ctx.Err(); err != nil {
					over <- err
					return
				}
			}
			over <- nil
		}))
		c, _ := s.dial(t)
		send(t, c, get)
		<-begun
		check(t, c.Close())
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("waits %t: %v", waits, err)
		}
	}
}

// A context that somebody keeps is over when the handler has returned, and nobody reads on
// the connection then: the next request is whole.
func TestAContextEndsWithItsHandler(t *testing.T) {
	t.Parallel()
	kept := make(chan context.Context, 4)
	s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/waits" {
			_ = r.Context().Done()
		}
		kept <- r.Context()
	}))
	c, in := s.dial(t)
	for _, path := range []string{"/waits", "/asks", "/waits", "/asks"} {
		send(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		receive(t, in)
		ctx := <-kept
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(context.Cause(ctx), context.Canceled) {
			t.Errorf("%s: %v", path, ctx.Err())
		}
	}
	s.counts(t, 4, 0)
}

// Contexts made of a request's end with it, and find its values.
func TestAContextHasWhatTheServerPutsIntoIt(t *testing.T) {
	t.Parallel()
	type key struct{}
	seen := make(chan string, 1)
	s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		local, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
		server, _ := ctx.Value(http.ServerContextKey).(*http.Server)
		seen <- fmt.Sprint(ctx.Value(key{}), local, server != nil, r.RemoteAddr != "")
	}), func(s *http.Server) {
		s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "v") }
	})
	c, in := s.dial(t)
	send(t, c, get)
	receive(t, in)
	if is := <-seen; is != "v"+s.addr+" true true" {
		t.Error(is)
	}
}

// Where the server's own context for a connection ends, or has a time, so have its requests.
func TestAContextEndsWithThatOfItsConnection(t *testing.T) {
	t.Parallel()
	type key struct{}
	far := time.Now().Add(time.Hour)
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		early := ctx.Err()
		ctx.Value(key{}).(context.CancelFunc)()
		by, _ := ctx.Deadline()
		late := ctx.Err()
		<-ctx.Done()
		_, _ = fmt.Fprint(w, early, late, by.Equal(far), ctx.Err(), context.Cause(ctx),
			ctx.Value(http.LocalAddrContextKey) != nil)
	}), func(s *http.Server) {
		s.ConnContext = func(context.Context, net.Conn) context.Context {
			ctx, cancel := context.WithDeadline(context.Background(), far)
			return context.WithValue(ctx, key{}, cancel)
		}
	})
	var told [2]string
	for i, addr := range []string{s.addr, s.bare} {
		c, in := dialTo(t, addr)
		send(t, c, get)
		_, told[i] = receive(t, in)
	}
	if told[0] != told[1] {
		t.Errorf("by the lane %q, by net/http %q", told[0], told[1])
	}
}

// Slow clients are cut off as net/http does it: a head that does not end, and a connection
// on which nothing comes any more.
func TestP17_SlowClientsOfTheLaneAreCutOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, echo, func(s *http.Server) {
		s.ReadHeaderTimeout, s.IdleTimeout = 300*time.Millisecond, 600*time.Millisecond
	})
	for name, first := range map[string]string{"nothing": "", "half a head": "GET / HTTP/1.1\r\nHo", "then nothing": get,
		"then half a head": get + "GET / HTT"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, in := s.dial(t)
			begun := time.Now()
			if send(t, c, first); strings.HasPrefix(first, get) {
				receive(t, in)
			}
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("%q %v", rest, err)
			}
			if took := time.Since(begun); took < 250*time.Millisecond || took > 20*time.Second {
				t.Errorf("after %v", took)
			}
		})
	}
}

// One byte at a time does not prolong the time of a head.
func TestP17_AHeadThatComesByteByByteHasOneTime(t *testing.T) {
	t.Parallel()
	s := newSite(t, echo, func(s *http.Server) { s.ReadHeaderTimeout = 300 * time.Millisecond })
	c, in := s.dial(t)
	send(t, c, get)
	receive(t, in)
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(gone)
	}()
	for begun := time.Now(); ; {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX: "[:1])
		select {
		case <-gone:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("the connection stays open")
		}
	}
}

// A stop lets answers be finished, each the last on its connection, and closes what waits.
func TestP16_AStopLetsTheLaneFinishItsAnswers(t *testing.T) {
	t.Parallel()
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-goOn
		}
		fmt.Fprint(w, "done")
	}))
	idle, idleIn := s.dial(t)
	send(t, idle, get)
	receive(t, idleIn)
	slow, slowIn := s.dial(t)
	send(t, slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- s.lane.Shutdown(t.Context()) }()
	if rest, err := io.ReadAll(idleIn); err != nil || len(rest) > 0 {
		t.Errorf("the idle connection: %q %v", rest, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if res, body := receive(t, slowIn); body != "done" || !res.Close {
		t.Errorf("%q, close %t", body, res.Close)
	}
	check(t, <-ended)
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	check(t, s.lane.Shutdown(short)) // nothing is left
}

// A client that does not read is cut off by the handler's deadline, and the request ends.
func TestP17_AClientOfTheLaneThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	var cut atomic.Bool
	over := make(chan error, 1)
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		piece := make([]byte, 1<<20)
		for range 200 {
			if _, err := w.Write(piece); err != nil {
				cut.Store(true)
				break
			}
		}
		over <- r.Context().Err()
	}))
	c, _ := s.dial(t)
	send(t, c, get)
	if err := <-over; !cut.Load() || !errors.Is(err, context.Canceled) {
		t.Errorf("cut off %t, the request %v", cut.Load(), err)
	}
}

// A deadline is of the answer for which a handler has set it, also where another server writes
// the next one.
func TestADeadlineDoesNotMeetTheNextAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(400 * time.Millisecond)
		} else {
			check(t, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		}
		fmt.Fprint(w, r.Method)
	}))
	c, in := s.dial(t)
	for _, begins := range []string{"GET /", "GET /slow", "GET /", "POST /slow"} {
		send(t, c, begins+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := receive(t, in); !strings.HasPrefix(begins, body) || body == "" {
			t.Errorf("%s: %q", begins, body)
		}
	}
	s.counts(t, 3, 1)
}

// A bug of a handler ends its connection and is logged; others go on.
func TestAPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/a" {
			panic("a bug")
		}
	}))
	c, in := s.dial(t)
	send(t, c, get)
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
	if said := s.said.String(); !strings.Contains(said, "a bug") || !strings.Contains(said, "lane_test.go") {
		t.Errorf("the log: %q", said)
	}
	c, in = s.dial(t)
	send(t, c, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, _ := receive(t, in); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

// An answer that breaks off has begun for its client where it has for net/http's: who got nothing
// would send the request again.
func TestAnAnswerThatBreaksOffHasBegun(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", "100000")
		}
		_, _ = w.Write(make([]byte, n/2))
		_, _ = w.Write(make([]byte, n-n/2))
		panic(http.ErrAbortHandler)
	}))
	for _, query := range []string{"n=0", "n=100", "n=2048", "n=2049", "n=3000", "n=5000", "n=50000", "length&n=0",
		"length&n=100", "length&n=2048", "length&n=2049", "length&n=3000", "length&n=5000", "length&n=50000"} {
		for _, method := range []string{"GET", "HEAD"} {
			var begun [2]bool
			for i, addr := range []string{s.addr, s.bare} {
				c, in := dialTo(t, addr)
				send(t, c, method+" /?"+query+" HTTP/1.1\r\nHost: a\r\n\r\n")
				all, err := io.ReadAll(in)
				check(t, err)
				begun[i] = len(all) > 0
			}
			if begun[0] != begun[1] {
				t.Errorf("%s %s: begun %t, by net/http %t", method, query, begun[0], begun[1])
			}
		}
	}
}

// Whatever ends the goroutine of a connection ends the connection, and not the process: a client
// learns of it, and a stop does not wait for it.
func TestNoConnectionStaysBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/goexit" {
			runtime.Goexit()
		}
	}), func(s *http.Server) {
		s.ConnState = func(_ net.Conn, is http.ConnState) {
			if is == http.StateIdle {
				panic("a bug of a hook")
			}
		}
	})
	for _, addr := range []string{s.addr, s.bare} {
		for _, path := range []string{"/goexit", "/"} {
			c, in := dialTo(t, addr)
			send(t, c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			if all, err := io.ReadAll(in); err != nil || (len(all) > 0) != (path == "/") {
				t.Errorf("%s, lane %t: %q %v", path, addr == s.addr, all, err)
			}
		}
	}
	check(t, s.lane.Shutdown(t.Context()))
}

// Many connections at once, several requests on each, some of which break off: every answer is
// the one to its request, in the order of the requests.
func TestP23_EveryAnswerOfTheLaneIsTheOneToItsRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.Header.Get("Cookie")
		w.Header().Set("X-Who", who)
		n := len(who) * 331 % 5000 // in one piece, in chunks, with and without a flush
		if n%3 == 0 {
			_ = http.NewResponseController(w).Flush()
		}
		fmt.Fprint(w, strings.Repeat(who+";", 1+n/10))
		if n%7 == 0 {
			panic(http.ErrAbortHandler)
		}
	}))
	var people sync.WaitGroup
	var whole atomic.Int64
	for p := range 40 {
		people.Go(func() {
			for round := range 40 {
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				in := bufio.NewReader(c)
				name := func(i int) string { return fmt.Sprintf("p%d-%d-%s", p, i, strings.Repeat("x", (p+round+i)%50)) }
				var raw strings.Builder
				for i := range 5 {
					fmt.Fprintf(&raw, "GET /%d HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n", i, name(i))
				}
				_, _ = io.WriteString(c, raw.String())
				for i := range 1 + (p+round)%5 { // and then this client is gone
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						break
					}
					body, err := io.ReadAll(res.Body)
					if res.Header.Get("X-Who") != name(i) ||
						!strings.HasPrefix(strings.Repeat(name(i)+";", 600), string(body)) {
						t.Errorf("%s got %.80q of %q", name(i), body, res.Header.Get("X-Who"))
					}
					if err != nil {
						break
					}
					whole.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	people.Wait()
	if whole.Load() < 1000 {
		t.Errorf("only %d answers were whole", whole.Load())
	}
}

// Who keeps a request has kept what it was.
func TestARequestIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	var kept []*http.Request
	s := newSite(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { kept = append(kept, r) }))
	c, in := s.dial(t)
	for i := range 20 {
		send(t, c, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h%d\r\nX-N: %d\r\n\r\n", i, i, i))
		receive(t, in)
	}
	for i, r := range kept {
		if is := fmt.Sprint(r.URL.Path, r.RequestURI, r.Host, r.Header); is != fmt.Sprintf("/%d/%dh%dmap[X-N:[%d]]", i, i, i, i) {
			t.Error(is)
		}
	}
}

// A process that has run out of files can accept again once some are closed: until then the
// lane waits, as net/http does. It ended, and with it the process that has its listener.
func TestP17_ALaneOutlivesTooManyOpenFiles(t *testing.T) {
	t.Parallel()
	s := newSiteOn(t, func(l testenv.Unreading) net.Listener { return short{l, new(atomic.Int32)} }, http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }))
	c, in := s.dial(t)
	send(t, c, get)
	if res, body := receive(t, in); res.StatusCode != http.StatusOK || body != "served" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if said := s.said.String(); strings.Count(said, "lane: accept") != 3 {
		t.Errorf("the log says %q", said)
	}
}

// short is a listener of a process that has no file left for its first connections.
type short struct {
	testenv.Unreading
	vain *atomic.Int32
}

// Accept implements net.Listener.
func (l short) Accept() (net.Conn, error) {
	if l.vain.Add(1) <= 3 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Unreading.Accept()
}
