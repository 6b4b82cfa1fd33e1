package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// What differs between asking an app directly and asking it through us. This is
// the whole list: every other header, byte and trailer is compared.
var (
	// addedToRequests are request headers only we write; a client's own never arrive.
	addedToRequests = []string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via", "x-request-id",
		"x-sallyport-assertion",
		"x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-username", "x-forwarded-name",
		"x-forwarded-groups",
		"x-forwarded-org-id", "x-forwarded-org-name", "x-forwarded-org-domain"}
	addedToAnswers = []string{"x-request-id", "date"}
	// perConnection are about one connection; bodies are compared without their framing.
	perConnection = []string{"connection", "keep-alive", "transfer-encoding", "trailer", "proxy-connection", "upgrade"}
	// Also: our own cookie among others in Cookie; a reason phrase, which net/http
	// does not keep; the case of names; "Content-Length: 0" where there is no body
	// (net/http adds it to POST, PUT and PATCH, and drops it elsewhere); a
	// Content-Length added to a short answer without one; Content-Type and
	// Content-Length of a 304 and Content-Length of a 204, which net/http's server
	// drops; a Content-Length dropped from an HTTP/2 app's answer that announces
	// trailers, for a client of HTTP/1.1; "Expect: 100-continue" of a client of
	// HTTP/2, which net/http's server keeps for itself.
)

// message is a request or an answer in a form that can be compared.
type message struct {
	first          string
	header, tail   map[string][]string
	body           string
	interim        []string
	framed, broken bool
}

// readMessage reads bytes as they were sent. Only head, empty and close say what
// the message itself does not.
func readMessage(in *bufio.Reader, bodiless bool) (m message, err error) {
	m.header, m.tail = map[string][]string{}, map[string][]string{}
	if m.first, err = textproto.NewReader(in).ReadLine(); err != nil {
		return m, err
	}
	if err := readFields(in, m.header); err != nil {
		return m, err
	}
	length := m.header["content-length"]
	switch {
	case bodiless:
	case slices.Equal(m.header["transfer-encoding"], []string{"chunked"}):
		b, err := io.ReadAll(httputil.NewChunkedReader(in))
		m.body, m.framed, m.broken = string(b), true, err != nil
		if err == nil {
			return m, readFields(in, m.tail)
		}
	case len(length) == 1:
		n, err := strconv.Atoi(length[0])
		if err != nil {
			return m, err
		}
		b := make([]byte, n)
		k, err := io.ReadFull(in, b)
		m.body, m.framed, m.broken = string(b[:k]), true, err != nil
	case strings.HasPrefix(m.first, "HTTP/"):
		b, err := io.ReadAll(in)
		m.body, m.broken = string(b), err != nil
	}
	return m, nil
}

func readFields(in *bufio.Reader, into map[string][]string) error {
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line == "" || err != nil {
			return err
		}
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(name)
		into[name] = append(into[name], strings.Trim(value, " \t"))
	}
}

// readAnswer reads the interim answers and the final one.
func readAnswer(in *bufio.Reader, method string) (message, error) {
	var interim []string
	for {
		if _, err := in.Peek(12); err != nil {
			return message{}, err
		}
		status, _ := in.Peek(12)
		code := string(status[9:])
		m, err := readMessage(in, method == "HEAD" || code[0] == '1' || code == "204" || code == "304")
		if err != nil || code[0] != '1' {
			m.interim = interim
			m.first = code
			return m, err
		}
		interim = append(interim, fmt.Sprint(code, without(m.header, perConnection...)))
	}
}

func without(h map[string][]string, names ...string) map[string][]string {
	out := maps.Clone(h)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// rawExchanges are recorded ones: what is asked, and what the app says. {h} is
// the Host line.
func rawExchanges() map[string][2]string {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	with := func(lines string) string {
		return "HTTP/1.1 200 OK\r\n" + strings.ReplaceAll(lines, "\n", "\r\n") + "\r\nContent-Length: 2\r\n\r\nok"
	}
	return map[string][2]string{
		"GET":             {"GET / HTTP/1.1\r\n{h}\r\n", ok},
		"GET with a body": {"GET /s HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\nquery", ok},
		"GET in chunks": {"GET /s HTTP/1.1\r\n{h}Transfer-Encoding: " +
			"chunked\r\n\r\n3\r\nque\r\n2\r\nry\r\n0\r\n\r\n", ok},
		"POST": {"POST /s HTTP/1.1\r\n{h}Content-Type: a/b\r\nContent-Length: " +
			"4\r\n\r\n\x00\xff\r\n", ok},
		"POST of nothing":   {"POST /s HTTP/1.1\r\n{h}Content-Length: 0\r\n\r\n", ok},
		"DELETE of nothing": {"DELETE /s HTTP/1.1\r\n{h}Content-Length: 0\r\n\r\n", ok},
		"a method nobody knows": {"BREW /pot HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 418 Teapot\r\nContent-Length: " +
			"0\r\n\r\n"},
		"a method in lower case": {"get /pot HTTP/1.1\r\n{h}\r\n", ok},
		"PROPFIND": {"PROPFIND /dav/ HTTP/1.1\r\n{h}Depth: 1\r\nContent-Length: 2\r\n\r\n<>",
			"HTTP/1.1 207 Multi\r\nContent-Length: 2\r\n\r\n<>"},
		"HEAD": {"HEAD /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nContent-Length: " +
			"12345\r\nContent-Type: x/y\r\n\r\n"},
		"HEAD without a length": {"HEAD /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n"},
		"OPTIONS": {"OPTIONS /s HTTP/1.1\r\n{h}Origin: " +
			"https://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n", "HTTP/1.1 204 " +
			"OK\r\nAccess-Control-Allow-Origin: *\r\n\r\n"},
		"204 with a length": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 204 None\r\nContent-Length: " +
			"0\r\nX-A: b\r\n\r\n"},
		"304": {"GET /s HTTP/1.1\r\n{h}If-None-Match: \"x\"\r\n\r\n", "HTTP/1.1 304 " +
			"Same\r\nETag: \"x\"\r\nContent-Length: 99\r\nContent-Type: a/b\r\n\r\n"},
		"205": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 205 Reset\r\nContent-Length: " +
			"0\r\n\r\n"},
		"206": {"GET /s HTTP/1.1\r\n{h}Range: bytes=0-1,-1\r\nIf-Range: \"x\"\r\n\r\n",
			"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab"},
		"multipart ranges": {"GET /s HTTP/1.1\r\n{h}Range: bytes=0-0,2-2\r\n\r\n", "HTTP/1.1 206 " +
			"Part\r\nContent-Type: multipart/byteranges; boundary=B\r\nContent-Length: 11\r\n\r\n--B\r\n\r\na\r\n--"},
		"416": {"GET /s HTTP/1.1\r\n{h}Range: bytes=9-\r\n\r\n", "HTTP/1.1 416 " +
			"No\r\nContent-Range: bytes */3\r\nContent-Length: 0\r\n\r\n"},
		"compressed": {"GET /s HTTP/1.1\r\n{h}Accept-Encoding: gzip, br;q=0.5\r\n\r\n", "HTTP/1.1 " +
			"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08x"},
		"no Accept-Encoding": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: " +
			"gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08x"},
		"no type is guessed": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nContent-Length: " +
			"15\r\n\r\n<html><script>x"},
		"an empty type": {"GET /s HTTP/1.1\r\n{h}\r\n", with("Content-Type:")},
		"repeated, empty, foreign": {"GET /s HTTP/1.1\r\n{h}X-A: 1\r\nX-B: 2\r\nX-A: \r\nx-a: 3\r\nX-C: " +
			"J\xc3\xa4\xff\r\nX-D: a,b;\"c\r\n\r\n", with("X-A: 1\nX-B: 2\nX-A:\nx-a: 3\nX-C: J\xc3\xa4\xff\nX-D: " +
			"a,b;\"c")},
		"large headers": {"GET /s HTTP/1.1\r\n{h}X-A: " + strings.Repeat("a", 40000) + "\r\n\r\n",
			with("X-A: " + strings.Repeat("b", 100000))},
		"many cookies": {"GET /s HTTP/1.1\r\n{h}Cookie: a=b;c=d;  e\r\nCookie: f=\"g; h\"\r\n\r\n",
			with("Set-Cookie: a=b; Path=/\nSet-Cookie: c=d\nSet-Cookie: e")},
		"credentials": {"GET /s HTTP/1.1\r\n{h}Authorization: Bearer x\r\n\r\n", "HTTP/1.1 401 " +
			"No\r\nWWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n"},
		"an odd query":         {"GET /s?a=1;b=%zz&&=&%&?&{}|^`\"<>[] HTTP/1.1\r\n{h}\r\n", ok},
		"an empty query":       {"GET /s? HTTP/1.1\r\n{h}\r\n", ok},
		"a path of everything": {"GET /a-b._~!$&'()*+,=:@/%20%C3%A4/x HTTP/1.1\r\n{h}\r\n", ok},
		"chunks back": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"},
		"announced trailers": {"POST /s HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nTrailer: " +
			"X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " +
			"chunked\r\nTrailer: X-Sum, X-None\r\n\r\n1\r\na\r\n0\r\nX-Sum: 2\r\n\r\n"},
		"trailers by surprise": {"POST /s HTTP/1.1\r\n{h}Transfer-Encoding: " +
			"chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 3\r\nX-Sum: 4\r\n\r\n"},
		"a trailer that is a header": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nX-Sum: " +
			"head\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\n\r\n"},
		"trailers of nothing": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " +
			"chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: 2\r\n\r\n"},
		"299": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 299 Odd\r\nContent-Length: " +
			"1\r\n\r\nx"},
		"499": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 499 Odd\r\nContent-Length: " +
			"1\r\n\r\nx"},
		"599": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 599 Odd\r\nContent-Length: " +
			"1\r\n\r\nx"},
		"999": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 999 Odd\r\nContent-Length: " +
			"1\r\n\r\nx"},
		"a redirect elsewhere": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 302 Go\r\nLocation: " +
			"../x?y=//z\r\nContent-Length: 0\r\n\r\n"},
		"a date of its own": {"GET /s HTTP/1.1\r\n{h}\r\n", with("Date: Thu, 01 Jan 1970 00:00:00 " +
			"GMT\nServer: x\nAge: 3")},
		"one hint": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 103 Early\r\nLink: " +
			"</a.css>\r\n\r\n" + ok},
		"hints and 102": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 103 " +
			"Early\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 103 Early\r\nLink: </c>\r\n\r\n" + ok},
		"until the connection closes": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nConnection: " +
			"close\r\n\r\n" + strings.Repeat("long ", 5000)},
		"an app of HTTP/1.0": {"GET /s HTTP/1.1\r\n{h}\r\n", "HTTP/1.0 200 OK\r\nConnection: " +
			"close\r\nContent-Type: a/b\r\n\r\nbody"},
		"a client of HTTP/1.0": {"GET /s HTTP/1.0\r\n{h}\r\n", ok},
		"a client of HTTP/1.0 and more": {"GET /s HTTP/1.0\r\n{h}\r\n", "HTTP/1.1 200 OK\r\nConnection: " +
			"close\r\n\r\n" + strings.Repeat("long ", 5000)},
	}
}

// Byte for byte, over HTTP/1.1 to an app that sees bytes, over TCP.
func TestExchangesThroughTheProxyEqualDirectOnes(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := s.mint(t, alice())
	for name, e := range rawExchanges() {
		t.Run(name, func(t *testing.T) {
			raw := strings.Replace(e[0], "{h}", "Host: "+s.host+"\r\nConnection: close\r\n", 1)
			method, _, _ := strings.Cut(raw, " ")
			s.app.Respond(func([]byte) []byte { return []byte(e[1]) })
			ask := func(addr, raw string) (asked, answered message) {
				before := len(s.app.Requests())
				conn, err := net.Dial("tcp", addr)
				testenv.Check(t, err)
				defer conn.Close()
				testenv.Check(t, conn.SetDeadline(time.Now().Add(2*soon)))
				_, err = io.WriteString(conn, raw)
				testenv.Check(t, err)
				answered, err = readAnswer(bufio.NewReader(conn), method)
				testenv.Check(t, err)
				all := s.app.Requests()
				if len(all) != before+1 {
					t.Fatalf("%d requests at the app, answered %v", len(all)-before, answered)
				}
				asked, err = readMessage(bufio.NewReader(bytes.NewReader(all[before])), false)
				testenv.Check(t, err)
				return asked, answered
			}
			wantAsked, wantAnswered := ask(s.app.Addr(), raw)
			line := "Cookie: " + cookie + "\r\n"
			if strings.Contains(raw, "Cookie: a=b;") {
				raw, line = strings.Replace(raw, "Cookie: a=b;", "Cookie: "+cookie+"; a=b;", 1), ""
			}
			gotAsked, gotAnswered := ask(s.addr, strings.Replace(raw, "Connection:", line+"Connection:", 1))
			compareRequests(t, gotAsked, wantAsked)
			compareAnswers(t, gotAnswered, wantAnswered, method)
		})
	}
}

func compareRequests(t *testing.T, got, want message) {
	t.Helper()
	want.first = strings.Replace(want.first, " HTTP/1.0", " HTTP/1.1", 1)
	if strings.Contains(want.first, "HTTP/1.1") && got.first != want.first {
		t.Errorf("the app was asked %q, directly %q", got.first, want.first)
	}
	drop := append(slices.Clone(perConnection), addedToRequests...)
	g, w := without(got.header, drop...), without(want.header, drop...)
	for _, h := range []map[string][]string{g, w} {
		if slices.Equal(h["content-length"], []string{"0"}) {
			delete(h, "content-length")
		}
	}
	compareFields(t, "the app's header", g, w)
	compareFields(t, "the app's trailers", got.tail, want.tail)
	if got.body != want.body || got.broken != want.broken {
		t.Errorf("the app got %d bytes (broken %v), directly %d (%v)", len(got.body), got.broken, len(want.body),
			want.broken)
	}
}

func compareAnswers(t *testing.T, got, want message, method string) {
	t.Helper()
	if got.first != want.first || !slices.Equal(got.interim, want.interim) {
		t.Errorf("answered %s after %q, directly %s after %q", got.first, got.interim, want.first, want.interim)
	}
	drop := slices.Clone(perConnection)
	for _, name := range addedToAnswers {
		if name != "date" || want.header[name] == nil {
			drop = append(drop, name)
		}
	}
	switch {
	case got.first == "304":
		drop = append(drop, "content-length", "content-type")
	case got.first == "204", len(want.tail) > 0, want.header["content-length"] == nil && method != "HEAD":
		drop = append(drop, "content-length")
	}
	compareFields(t, "the client's header", without(got.header, drop...), without(want.header, drop...))
	compareFields(t, "the client's trailers", got.tail, want.tail)
	if got.body != want.body || got.broken != want.broken {
		t.Errorf("the client got %d bytes (broken %v), directly %d (%v)", len(got.body), got.broken, len(want.body),
			want.broken)
	}
}

func compareFields(t *testing.T, what string, got, want map[string][]string) {
	t.Helper()
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %s is %.200q, directly %.200q", what, name, got[name], want[name])
		}
	}
	for name := range got {
		if want[name] == nil {
			t.Errorf("%s: %s is %.200q, directly there is none", what, name, got[name])
		}
	}
}

// generated is an exchange made at random, for any protocol.
type generated struct {
	method, target  string
	header, trailer http.Header
	body            []byte
	chunked         bool
	status          int
	back, tail      http.Header
	answer          []byte
	sized           bool
	hints           []string
}

func generate(r *rand.Rand) generated {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	fields := func(names ...string) http.Header {
		h := http.Header{}
		for range r.IntN(6) {
			name := http.CanonicalHeaderKey(pick(names...))
			h[name] = append(h[name], pick("", "a", "a, b", "J\xc3\xa4", strings.Repeat("z", r.IntN(3000)),
				"\"q\"; x=1"))
		}
		return h
	}
	data := func() []byte {
		b := make([]byte, []int{0, 1, 4095, 4096, 4097, 32 << 10, r.IntN(200000)}[r.IntN(7)])
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	g := generated{
		method: pick("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "REPORT", "M-SEARCH"),
		target: "/" + pick("a", "a/b/", "%20x", "x;y=1", "~u/.well-known/x", "%E2%82%AC") + pick("", "?", "?a=b&a=c",
			"?%zz;", "?a=%2F..%2f"),
		header: fields("x-a", "x-b", "accept", "x-empty", "if-match", "accept-language", "content-type"),
		back:   fields("x-a", "x-b", "etag", "vary", "cache-control", "content-type", "link", "content-language"),
		status: []int{200, 200, 200, 201, 204, 206, 299, 302, 304, 400, 404, 418, 499, 500, 503, 599}[r.IntN(16)],
	}
	if g.method != "HEAD" && r.IntN(2) == 0 {
		g.body, g.chunked = data(), r.IntN(2) == 0
	}
	if g.chunked && g.method != "GET" && len(g.body) > 0 && r.IntN(2) == 0 {
		g.trailer = http.Header{"X-Sum": {"1"}, "X-Other": {"a", "b"}}
	}
	if g.status != 204 && g.status != 304 {
		g.answer, g.sized = data(), r.IntN(2) == 0
		if !g.sized && g.method != "HEAD" && r.IntN(2) == 0 {
			g.tail = http.Header{"X-End": {"z"}, "X-Late": {"1", "2"}}
		}
	}
	for range r.IntN(3) {
		g.hints = append(g.hints, "</"+pick("a", "b")+">; rel=preload")
	}
	return g
}

// serve answers as told.
func (g *generated) serve(w http.ResponseWriter) {
	h := w.Header()
	for _, link := range g.hints {
		h["Link"] = []string{link}
		w.WriteHeader(http.StatusEarlyHints)
	}
	clear(h)
	maps.Copy(h, g.back)
	h.Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil
	}
	if g.sized {
		h.Set("Content-Length", strconv.Itoa(len(g.answer)))
	}
	announced := slices.Sorted(maps.Keys(g.tail))
	if len(announced) > 0 {
		h["Trailer"] = announced[:1] // the other one comes by surprise
	}
	w.WriteHeader(g.status)
	half := len(g.answer) / 2
	_, _ = w.Write(g.answer[:half])
	if half > 0 && !g.sized {
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = w.Write(g.answer[half:])
	for i, name := range announced {
		if i > 0 {
			name = http.TrailerPrefix + name
		}
		h[name] = g.tail[strings.TrimPrefix(name, http.TrailerPrefix)]
	}
}

// ask sends g and returns what came back.
func (g *generated) ask(ctx context.Context, rt http.RoundTripper, origin, host, cookie string) (message, error) {
	var hints []string
	ctx = httptrace.WithClientTrace(ctx,
		&httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h["Link"]))
			return nil
		}})
	var body io.Reader
	if len(g.body) > 0 {
		body = bytes.NewReader(g.body)
		if g.chunked {
			body = io.MultiReader(body)
		}
	}
	req, err := http.NewRequestWithContext(ctx, g.method, origin+g.target, body)
	if err != nil {
		return message{}, err
	}
	req.Host, req.Header = host, g.header.Clone()
	req.Header["User-Agent"] = nil
	req.Header.Set("Cookie", cookie)
	req.Trailer = g.trailer.Clone()
	res, err := rt.RoundTrip(req)
	if err != nil {
		return message{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return message{first: strconv.Itoa(res.StatusCode), header: lower(res.Header), tail: lower(res.Trailer),
		body: string(b), interim: hints, broken: err != nil}, nil
}

func lower(h http.Header) map[string][]string {
	out := map[string][]string{}
	for name, values := range h {
		if len(values) > 0 {
			out[strings.ToLower(name)] = values
		}
	}
	return out
}

// The same with what nobody thought of, over every protocol in front and behind.
func TestGeneratedExchangesThroughTheProxyEqualDirectOnes(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, o setup, way string) {
		const rounds = 60
		var mu sync.Mutex // guards now and asked
		var now generated
		var asked message
		o.App = serveApp(t, way, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			b, err := io.ReadAll(r.Body)
			asked = message{first: r.Method + " " + r.RequestURI + " " + r.Host, header: lower(r.Header),
				tail: lower(r.Trailer), body: string(b), broken: err != nil}
			if len(r.TransferEncoding) > 0 {
				asked.header["transfer-encoding"] = r.TransferEncoding
			}
			now.serve(w)
		})
		s := newTestSite(t, o)
		cookie := s.mint(t, alice())
		r := rand.New(rand.NewPCG(3, 1118))
		for i := range rounds {
			mu.Lock()
			now = generate(r)
			g := now
			mu.Unlock()
			direct := roundTrip(func(r *http.Request) (*http.Response, error) { return o.App.RoundTrip(r) })
			want, err := g.ask(t.Context(), direct, o.App.Scheme()+"://"+o.App.Host(), s.host, "a=b")
			testenv.Check(t, err)
			wantAsked := asked
			got, err := g.ask(t.Context(), s.transport, s.url, s.host, "a=b; "+cookie)
			if err != nil {
				t.Fatalf("exchange %d, %s %s: %v", i, g.method, g.target, err)
			}
			compareRequests(t, asked, wantAsked)
			if asked.first != wantAsked.first {
				t.Errorf("the app was asked %q, directly %q", asked.first, wantAsked.first)
			}
			compareAnswers(t, got, want, g.method)
			if t.Failed() {
				t.Fatalf("exchange %d: %s %s, %d bytes up (chunked %v), %d back (sized %v), %d, trailers %v, %v", i,
					g.method, g.target,
					len(g.body), g.chunked, len(g.answer), g.sized, g.status, g.trailer, g.tail)
			}
		}
	})
}
