package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// traced is a way to an app that tells which connections are used.
type traced struct {
	http.RoundTripper
	got func(reused bool)
}

func (t traced) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		t.got(i.Reused)
	}})
	return t.RoundTripper.RoundTrip(r.WithContext(ctx))
}

// An app hangs up on an idle connection just when it is used again. The request goes out once
// more, and the app dies in the middle of its body: that is seen at once, as on a first attempt.
func TestAnAppThatHangsUpOnASecondAttemptIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	t.Cleanup(func() { l.Close() })
	leave, left := make(chan struct{}), make(chan struct{})
	heads := make(chan string, 9)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			r, err := http.ReadRequest(in)
			if err == nil {
				heads <- r.Method
			}
			if n == 0 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				<-leave
				c.Close()
				close(left)
				continue
			}
			_, _ = io.ReadFull(r.Body, make([]byte, 5))
			c.Close()
		}
	}()
	target, err := url.Parse("http://" + l.Addr().String())
	testenv.Check(t, err)
	up, err := upstream.New(upstream.Options{URL: target})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	attempts := 0
	d := newDoor(t, nil, func(o *Order) {
		o.URL = url.URL{Scheme: up.Scheme(), Host: up.Host()}
		o.Header, o.Idle = time.Minute, time.Minute
		o.Transport = traced{up, func(reused bool) {
			if attempts++; reused {
				close(leave)
				<-left
				time.Sleep(20 * time.Millisecond) // until the end is here
			}
		}}
	})
	conn, in := d.dial(t, "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n") // a GET has connections of its own
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello") // and waits
	testenv.Check(t, err)
	res, err = http.ReadResponse(in, nil)
	testenv.Check(t, err)
	if res.StatusCode != 502 || attempts != 3 || len(heads) != 2 {
		t.Errorf("answered %d after %d attempts; the app was asked %d times", res.StatusCode, attempts, len(heads))
	}
	if r := d.result(t, 1); r.outcome.Attempts != 2 || strings.Contains(r.err.Error(), "slow") {
		t.Errorf("%+v", r)
	}
}

// hasty is a way to an app that closes the body while it is read, as after the app has hung
// up, and returns what the end of the request's context says.
type hasty struct{}

func (hasty) RoundTrip(r *http.Request) (*http.Response, error) {
	u, ok := r.Body.(*upload)
	if !ok {
		return nil, errors.New("the body is no upload")
	}
	go func() { _, _ = u.Read(make([]byte, 1)) }()
	for !u.is(uploadWaiting) {
		time.Sleep(time.Millisecond)
	}
	_ = u.Close()
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// Once the read of a body is ended because the app has hung up, net/http's server takes the
// client for gone, and ends the request's context. The client is there, and is answered.
func TestAClientWhoseAppHangsUpIsNotTakenForGone(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil, func(o *Order) { o.Header, o.Idle, o.Transport = time.Minute, time.Minute, hasty{} })
	_, in := d.dial(t, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") // and waits
	res, err := http.ReadResponse(in, nil)
	testenv.Check(t, err)
	r := d.result(t, 0)
	if res.StatusCode != 502 || !errors.Is(r.err, upstream.ErrUnreachable) || !errors.Is(r.err, errHungUp) {
		t.Errorf("answered %d: %v", res.StatusCode, r.err)
	}
}

// When the client goes, the exchange ends, and the transport closes the body then too.
func TestABodyThatIsClosedAfterTheExchangeIsNoHangUp(t *testing.T) {
	t.Parallel()
	for _, over := range []bool{false, true} {
		done := make(chan struct{})
		if over {
			close(done)
		}
		u := uploadOf(strings.NewReader("x"), Order{})
		u.done = done
		u.enter(uploadWaiting)
		if err := u.Close(); err != nil || !u.is(uploadAbandoned) || u.deserted() == over {
			t.Errorf("over %v: %v, deserted %v", over, err, u.deserted())
		}
	}
}

// moody is an app that treats each upload as its header Mood says, and counts what arrived.
type moody struct {
	mu   sync.Mutex // guards seen
	seen map[string]int
}

func (m *moody) serve(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		id := r.Header.Get("Id")
		m.mu.Lock()
		m.seen[id]++
		m.mu.Unlock()
		say := func(status, more string) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nId: %s\r\n%sContent-Length: %d\r\n\r\n%s",
				status, id, more, len(id), id)
		}
		switch mood := r.Header.Get("Mood"); mood {
		case "early":
			say("401 Unauthorized", "")
		case "early, all the same":
			_, _ = io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n")
			say("417 Expectation Failed", "")
			continue // what is left of the body is no request
		case "early and gone":
			say("413 Content Too Large", "Connection: close\r\n")
			_, _ = io.CopyN(io.Discard, in, 64<<10)
			return
		case "reset":
			_, _ = io.ReadFull(r.Body, make([]byte, 3))
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		case "half":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nId:")
			return
		case "interim and gone":
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			return
		case "gone":
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if r.Header.Get("Mood") != "early" {
			say("200 OK", "")
		}
		if r.Header.Get("Mood") == "last" {
			return // without a word: what is sent next finds nobody
		}
	}
}

// Whatever apps do to uploads, no order arrives twice, and everybody reads the answer to what
// they asked, or that there is none, or the end of their connection.
func TestP22_UploadsToAMoodyAppArriveOnceAndAnswersStayApart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(t, err)
	t.Cleanup(func() { l.Close() })
	app := &moody{seen: map[string]int{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go app.serve(c)
		}
	}()
	up, err := upstream.New(upstream.Options{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}})
	testenv.Check(t, err)
	t.Cleanup(up.Close)
	d := newDoor(t, nil, func(o *Order) {
		o.Transport, o.URL = up, url.URL{Scheme: up.Scheme(), Host: up.Host()}
		o.Header, o.Idle = time.Minute, time.Minute
	})
	moods := []string{"", "early", "early, all the same", "early and gone", "reset", "half", "interim and gone", "gone",
		"last"}
	var all sync.WaitGroup
	var answered atomic.Int64
	for n := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			for round := range 15 {
				conn, err := net.Dial("tcp", d.server.Listener.Addr().String())
				testenv.Check(t, err)
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				in := bufio.NewReader(conn)
				for k := range 4 {
					id, mood := fmt.Sprintf("%d-%d-%d", n, round, k), moods[random.IntN(len(moods))]
					size := random.IntN(300 << 10)
					waits := random.IntN(2) == 0
					head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nId: %s\r\nMood: %s\r\n"+
						"Content-Length: %d\r\n\r\n", id, mood, size)
					first := random.IntN(size + 1)
					go func() {
						_, _ = io.WriteString(conn, head+strings.Repeat("x", first))
						if !waits || mood == "" || mood == "last" {
							_, _ = io.WriteString(conn, strings.Repeat("x", size-first))
						}
					}()
					res, err := http.ReadResponse(in, nil)
					for err == nil && res.StatusCode < 200 {
						res, err = http.ReadResponse(in, nil)
					}
					if err != nil {
						break // the connection ended under what was still sent
					}
					body, err := io.ReadAll(res.Body)
					switch {
					case res.StatusCode == 502: // the app hung up, perhaps on the connection's last request
					case res.Header.Get("Id") != id, err == nil && string(body) != id:
						t.Errorf("%s (%s) was answered %d %q: %q", id, mood, res.StatusCode, res.Header, body)
					default:
						answered.Add(1)
					}
					if err != nil || res.Close || size > first && waits {
						break
					}
				}
				conn.Close()
			}
		})
	}
	all.Wait()
	if answered.Load() < 50 {
		t.Errorf("%d answers of the app: the test shows nothing", answered.Load())
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	for id, times := range app.seen {
		if times > 1 {
			t.Errorf("%q arrived %d times", id, times)
		}
	}
}

// The same over HTTP/2, whatever the app says when it gives a call up whose client waits.
func TestAnHTTP2AppThatGivesUpAnUploadIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer func(uint32) []byte
		most   int // attempts
	}{
		// It has done nothing then, so that once more is harmless (RFC 9113 §8.7): that happens
		// if the client's silence is not being waited for at that moment.
		"REFUSED_STREAM": {testenv.Reset(7), 2},
		"GOAWAY below":   {testenv.GoAway(false, 0), 2},
		"CANCEL":         {testenv.Reset(8), 1},
		"hangs up":       {testenv.HangUp, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := testenv.StartHTTP2Peer(t, false, func(int) func(uint32) []byte { return tt.answer })
			p.AnswerEarly()
			target, err := url.Parse(p.URL)
			testenv.Check(t, err)
			target.Scheme = "h2c"
			up, err := upstream.New(upstream.Options{URL: target})
			testenv.Check(t, err)
			t.Cleanup(up.Close)
			d := newDoor(t, nil, func(o *Order) {
				o.Transport, o.URL = up, url.URL{Scheme: up.Scheme(), Host: up.Host()}
				o.Header, o.Idle = time.Minute, time.Minute
			})
			_, in := d.dial(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello") // and waits
			res, err := http.ReadResponse(in, nil)
			testenv.Check(t, err)
			if got := p.Got(); res.StatusCode != 502 || got < 1 || got > tt.most {
				t.Errorf("answered %d, and the app was asked %d times", res.StatusCode, got)
			}
		})
	}
}
