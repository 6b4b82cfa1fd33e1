package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// framing is one way to make two readers disagree about where a request ends.
type framing struct {
	raw  string
	want []int // statuses, in order; the connection is closed after the last
	app  []string
}

// framings are requests whose end two readers may see in different places: the
// smuggling techniques of CVE-2019-16276, CVE-2020-15586, CVE-2022-1705,
// CVE-2025-22871 and others, bytes pipelined behind an upgrade, and 100-continue
// (CVE-2024-24791); RFC 9112 §2.2, §3.2, §5.1, §5.2, §6. {c} stands for a valid
// Cookie line and {h} for a valid Host line. Every request that is answered with
// 200 says Connection: close, or is followed by one that does, or has chunks:
// after chunks we close the connection, whatever the client wants.
func framings() map[string]framing {
	const (
		head  = "POST /first HTTP/1.1\r\n{h}{c}"
		inner = "GET /smuggled HTTP/1.1\r\n{h}{c}\r\n"
		next  = "GET /next HTTP/1.1\r\n{h}{c}Connection: close\r\n\r\n"
	)
	bad := []int{400}
	first, firstNext := []string{"POST /first"}, []string{"POST /first", "GET /next"}
	firstNextGet := []string{"GET /first", "GET /next"}
	return map[string]framing{
		"length": {head + "Content-Length: 5\r\n\r\nhello" + next, []int{200, 200},
			firstNext},
		"chunks": {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next, []int{200},
			first},
		"chunks in capitals": {head + "Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next, []int{200},
			first},
		"a request inside a length": {head + "Content-Length: {inner}\r\n\r\n" + inner + next, []int{200, 200},
			firstNext},
		"a request inside a chunk": {head + "Transfer-Encoding: chunked\r\n\r\n{INNER}\r\n" + inner + "\r\n0\r\n\r\n" + next, []int{200}, first},
		"a body on GET": {"GET /first HTTP/1.1\r\n{h}{c}Content-Length: {inner}\r\n\r\n" + inner + next,
			[]int{200, 200}, []string{"GET /first", "GET /next"}},
		"pipelining": {"GET /first HTTP/1.1\r\n{h}{c}\r\n" + next, []int{200, 200},
			[]string{"GET /first", "GET /next"}},
		"a blank line before the request": {"\r\n" + next, bad, nil},
		"length and chunks": {head + "Content-Length: 5\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n\r\n" + next, []int{200}, first},
		"chunks and length": {head + "Transfer-Encoding: chunked\r\nContent-Length: " +
			"5\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next, []int{200}, first},
		"length hides a request, chunks end": {head + "Content-Length: {inner}\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n\r\n" + next, []int{200}, first},
		"two lengths": {head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + inner,
			bad, nil},
		"one length twice": {head + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + next,
			[]int{200, 200}, firstNext},
		"a list of lengths":        {head + "Content-Length: 5, 5\r\n\r\nhello" + inner, bad, nil},
		"a signed length":          {head + "Content-Length: +5\r\n\r\nhello" + inner, bad, nil},
		"a negative length":        {head + "Content-Length: -1\r\n\r\n" + inner, bad, nil},
		"a hexadecimal length":     {head + "Content-Length: 0x5\r\n\r\nhello" + inner, bad, nil},
		"an underscored length":    {head + "Content-Length: 1_0\r\n\r\nhello" + inner, bad, nil},
		"a length with a fraction": {head + "Content-Length: 5.0\r\n\r\nhello" + inner, bad, nil},
		"an endless length":        {head + "Content-Length: 99999999999999999999\r\n\r\n" + inner, bad, nil},
		"an empty length":          {head + "Content-Length: \r\n\r\n" + inner, bad, nil},
		"a length with a blank":    {head + "Content-Length: 5 5\r\n\r\nhello" + inner, bad, nil},
		"blank before the colon":   {head + "Content-Length : 5\r\n\r\nhello" + inner, bad, nil},
		// CVE-2019-16276
		"tab before the colon": {head + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + inner, bad,
			nil},
		"control in a name": {head + "Transfer\x01-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, bad,
			nil},
		"vertical tab before chunked": {head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + inner, bad,
			nil},
		"chunked, identity": {head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner,
			[]int{501}, nil},
		"identity, chunked": {head + "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + inner,
			[]int{501}, nil},
		"identity": {head + "Transfer-Encoding: identity\r\n\r\n" + inner, []int{501}, nil},
		"gzip, chunked": {head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + inner,
			[]int{501}, nil},
		"xchunked": {head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner,
			[]int{501}, nil},
		"quoted chunked": {head + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + inner,
			[]int{501}, nil},
		"chunked twice": {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n\r\n" + inner, []int{501}, nil},
		"chunked and another": {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: " +
			"x\r\n\r\n0\r\n\r\n" + inner, []int{501}, nil},
		"empty transfer encoding": {head + "Transfer-Encoding: \r\n\r\n0\r\n\r\n" + inner, []int{501}, nil},
		"chunked folded": {head + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + next,
			[]int{200}, first}, // a blank for the fold: RFC 9112 §5.2
		"a folded header": {head + "X-A: b\r\n\tc\r\nContent-Length: 0\r\n\r\n" + next,
			[]int{200, 200}, firstNext},
		"a fold on the first line": {"POST /first HTTP/1.1\r\n X: y\r\n{h}{c}\r\n" + inner, bad, nil},
		"TE hidden in a fold": {head + "X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: " +
			"0\r\n\r\n" + next, []int{200, 200}, firstNext},
		"a chunk size with an extension": {head + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n" + next, []int{200}, first},
		"an extension with a bare LF": {head + "Transfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n" + inner,
			bad, nil}, // CVE-2025-22871
		"a bare LF after a size": {head + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + inner,
			bad, nil},
		"a bare LF after a chunk": {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n" + inner,
			bad, nil},
		"a chunk that is longer": {head + "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n" + inner, bad,
			nil},
		"a signed chunk size": {head + "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" + inner, bad,
			nil},
		"a 0x chunk size": {head + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + inner, bad,
			nil},
		"an empty chunk size": {head + "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" + inner, bad, nil},
		"an endless chunk size": {head + "Transfer-Encoding: " +
			"chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + inner, bad, nil},
		"a blank after a chunk size": {head + "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" + next,
			[]int{200}, first},
		"long extensions": {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 40) + "0\r\n\r\n" + inner, bad, nil}, // CVE-2023-39326
		"trailers": {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: " +
			"v\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + next, []int{200}, first},
		"a malformed trailer": {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX : " +
			"v\r\n\r\n" + next, []int{200}, first},
		"bare LF for line ends": {strings.ReplaceAll("GET /first HTTP/1.1\r\n{h}{c}\r\n", "\r\n",
			"\n") + next, []int{200, 200}, []string{"GET /first", "GET /next"}}, // RFC 9112 §2.2 allows it
		"a lone CR in a value": {head + "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: " +
			"0\r\n\r\n" + inner, bad, nil},
		"a lone CR for line ends": {"GET /first HTTP/1.1\r{h}{c}\r\r" + inner, bad, nil},
		"NUL in a value":          {head + "X-A: b\x00c\r\nContent-Length: 0\r\n\r\n" + inner, bad, nil},
		"a name without a colon":  {head + "Content-Length\r\n\r\n" + inner, bad, nil},
		"an empty name":           {head + ": x\r\n\r\n" + inner, bad, nil},
		"a name that is no token": {head + "X(Y): z\r\n\r\n" + inner, bad, nil},
		"no Host":                 {"GET /first HTTP/1.1\r\n{c}\r\n" + inner, bad, nil},
		"an empty Host": {"GET /first HTTP/1.1\r\nHost:\r\n{c}Connection: close\r\n\r\n", bad,
			nil},
		"two Hosts":           {"GET /first HTTP/1.1\r\n{h}{h}{c}\r\n" + inner, bad, nil},
		"two different Hosts": {"GET /first HTTP/1.1\r\n{h}Host: evil\r\n{c}\r\n" + inner, bad, nil},
		"a bad Host":          {"GET /first HTTP/1.1\r\nHost: a b\r\n{c}\r\n" + inner, bad, nil},
		"absolute form, bad Host": {"GET http://evil.example/first HTTP/1.1\r\n{h}{c}Connection: " +
			"close\r\n\r\n", []int{404}, nil},
		"absolute form": {"GET http://{host}/first HTTP/1.1\r\n{h}{c}\r\n" + next, []int{200, 200},
			firstNextGet},
		"absolute form beats Host": {"GET http://{host}/first HTTP/1.1\r\nHost: evil.example\r\n{c}\r\n" + next,
			[]int{200, 200}, firstNextGet}, // RFC 9112 §3.2.2
		"authority form": {"GET {host} HTTP/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"three in a row, with bodies": {head + "Content-Length: 5\r\n\r\nhello" + head + "Content-Length: " +
			"0\r\n\r\n" + next, []int{200, 200, 200}, []string{"POST /first", "POST /first", "GET /next"}},
		"an expectation nobody knows": {head + "Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello" + inner,
			[]int{417}, nil},
		"an expectation within chunks": {head + "Expect: 100-continue\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next, []int{100, 200}, first},
		"HTTP/1.0": {"GET /first HTTP/1.0\r\n{h}{c}\r\n" + inner, []int{200},
			[]string{"GET /first"}},
		"HTTP/1.0 without Host": {"GET /first HTTP/1.0\r\n{c}\r\n" + inner, bad, nil},
		"HTTP/1.0 and chunks": {"POST /first HTTP/1.0\r\n{h}{c}Transfer-Encoding: " +
			"chunked\r\nConnection: keep-alive\r\n\r\n0 /smuggled HTTP/1.1\r\n{h}{c}\r\n0\r\n\r\n", []int{200}, first},
		// RFC 9112 §6.1: faulty framing
		"HTTP/0.9": {"GET /first\r\n", bad, nil},
		"HTTP/1.2": {"GET /first HTTP/1.2\r\n{h}{c}Connection: close\r\n\r\n", []int{200},
			[]string{"GET /first"}},
		"HTTP/2.0 by name":          {"GET /first HTTP/2.0\r\n{h}{c}\r\n" + inner, []int{505}, nil},
		"http in lower case":        {"GET /first http/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"a version with a blank":    {"GET /first HTTP/1.1 x\r\n{h}{c}\r\n" + inner, bad, nil},
		"a blank in the target":     {"GET /first HTTP/1.1 HTTP/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"a tab for a blank":         {"GET\t/first\tHTTP/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"a method that is no token": {"G(T /first HTTP/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"an empty method":           {" /first HTTP/1.1\r\n{h}{c}\r\n" + inner, bad, nil},
		"Upgrade: h2c": {"GET /first HTTP/1.1\r\n{h}{c}Connection: Upgrade, " +
			"HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + next, []int{200},
			[]string{"GET /first"}},
		"Upgrade: websocket": {"GET /first HTTP/1.1\r\n{h}{c}Connection: Upgrade\r\nUpgrade: " +
			"websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" + next,
			[]int{403}, nil},
		"connection-close and a request": {"GET /first HTTP/1.1\r\n{h}{c}Connection: close\r\n\r\n" + inner,
			[]int{200}, []string{"GET /first"}},
		"a body after a refusal": {"POST /first HTTP/1.1\r\n{h}Content-Length: {inner}\r\n\r\n" + inner + next,
			[]int{401}, nil}, // nobody reads it, so nothing after it counts
		"chunks after a refusal": {"POST /first HTTP/1.1\r\n{h}Transfer-Encoding: " +
			"chunked\r\n\r\n{INNER}\r\n" + inner + "\r\n0\r\n\r\n" + next, []int{401}, nil},
		"a large body after a refusal": {"POST /first HTTP/1.1\r\n{h}Content-Length: 300000\r\n\r\n" + strings.Repeat(inner, 4000), []int{401}, nil},
		"Connection names the framing": {head + "Connection: Content-Length, Transfer-Encoding, " +
			"Host\r\nContent-Length: {inner}\r\n\r\n" + inner + next, []int{200, 200}, firstNext},
		"a huge header": {head + "X: " + strings.Repeat("x", 80<<10) + "\r\n\r\n" + inner,
			[]int{431}, nil},
		"too many headers": {head + strings.Repeat("X: y\r\n", 20<<10) + "\r\n" + inner, []int{431},
			nil},
		"expectation with a smuggled body": {head + "Expect: 100-continue\r\nContent-Length: {inner}\r\n\r\n" + inner + next, []int{100, 200, 200}, firstNext},
		"a name with a form feed":          {head + "Content-Length\x0c: 5\r\n\r\nhello" + inner, bad, nil},
		"0 bytes and chunks": {head + "Content-Length: 0\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + next, []int{200}, first},
	}
}

// Never two requests for one, never a body read as a head, and a clear end.
func TestP03_FramingCannotBeReadTwoWays(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	host, cookie := "Host: "+s.host+"\r\n", "Cookie: "+s.mint(t, alice())+"\r\n"
	fill := func(raw string) string {
		inner := strings.NewReplacer("{h}", host, "{c}", cookie).Replace("GET /smuggled HTTP/1.1\r\n{h}{c}\r\n")
		return strings.NewReplacer("{h}", host, "{host}", s.host, "{c}", cookie, "{inner}", fmt.Sprint(len(inner)),
			"{INNER}", fmt.Sprintf("%X", len(inner))).Replace(raw)
	}
	seen := 0
	for name, f := range framings() {
		t.Run(name, func(t *testing.T) {
			if got := statuses(s.talk(t, fill(f.raw))); !slices.Equal(got, f.want) {
				t.Errorf("answered %v, want %v", got, f.want)
			}
			var app []string
			for _, raw := range s.hits(&seen) {
				app = append(app, strings.TrimSuffix(testenv.RequestLine(raw), " HTTP/1.1"))
				checkOneFraming(t, raw)
			}
			if !slices.Equal(app, f.app) {
				t.Errorf("the app received %q, want %q", app, f.app)
			}
		})
	}
	for _, fault := range s.app.Faults() { // a body that was bad breaks off; nothing else may be odd
		if !errors.Is(fault, io.EOF) && !errors.Is(fault, io.ErrUnexpectedEOF) {
			t.Errorf("the app was sent %v", fault)
		}
	}
}

func checkOneFraming(t *testing.T, raw []byte) {
	t.Helper()
	h := headerOf(raw)
	if n := len(h["content-length"]) + len(h["transfer-encoding"]); n > 1 {
		t.Errorf("%d framing headers:\n%s", n, raw)
	}
	for _, hop := range []string{"connection", "upgrade", "http2-settings", "keep-alive", "te", "trailer",
		"proxy-connection"} {
		if h[hop] != nil {
			t.Errorf("%s: %q reached the app", hop, h[hop])
		}
	}
	if strings.Contains(string(testenv.Body(raw)), "/smuggled") &&
		len(h["content-length"])+len(h["transfer-encoding"]) == 0 {
		t.Errorf("a body without framing:\n%s", raw)
	}
}

// A body that breaks off is the client's fault, not the app's, and the app must
// not take the half for the whole.
func TestP03_ABrokenBodyNeverLooksWhole(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, alice())
	for name, raw := range map[string]string{
		"chunks": rawRequest("POST", "/x", s.host, cookie, "Accept: text/html",
			"Transfer-Encoding: chunked") + "5\r\nhello\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := s.talk(t, raw)
			if len(got) != 1 || got[0].status != 400 || !strings.Contains(got[0].body, "This did not arrive whole") {
				t.Fatalf("answered %v", got)
			}
			if line := s.log.event(t, got[0].header.Get("X-Request-Id")); line["level"] != "INFO" {
				t.Errorf("logged %v", line)
			}
		})
	}
	// A client that goes away in the middle of an upload.
	w := s.wire(t)
	w.dial()
	_, err := io.WriteString(w.conn, rawRequest("POST", "/gone", s.host, cookie, "Content-Length: 1000")+"half")
	testenv.Check(t, err)
	w.close()
	s.close() // waits for the handler
	if got := s.app.Requests(); len(got) > 0 {
		t.Errorf("the app took this for a request:\n%s", got[0])
	}
	if text := s.log.text(t); strings.Contains(text, `"level":"ERROR"`) {
		t.Errorf("logged as an error of ours or the app's:\n%s", text)
	}
}

// The other direction: what an app sends beyond its answer must not become the
// answer to another request, which may be another person's (RFC 9112 §9.2).
func TestP03_AnAppsSurplusIsNobodysAnswer(t *testing.T) {
	t.Parallel()
	const good, evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: " +
		"4\r\n\r\nevil"
	for name, tt := range map[string]struct{ method, raw string }{
		"two answers":          {"GET", good + evil},
		"a body to HEAD":       {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 61\r\n\r\n" + evil},
		"a body of 204":        {"GET", "HTTP/1.1 204 None\r\nContent-Length: 61\r\n\r\n" + evil},
		"a body of 304":        {"GET", "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n" + evil},
		"more than the length": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" + evil},
		"chunks and a length": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n\r\n" + evil},
		"an interim answer behind": {"GET", good + "HTTP/1.1 103 Early\r\nX: evil\r\n\r\n" + evil},
		"a fold in a header": {"GET", "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 61\r\nContent-Length: " +
			"2\r\n\r\nok" + evil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, setup{})
			cookie := s.mint(t, alice())
			for range 10 {
				s.app.Respond(func([]byte) []byte { return []byte(tt.raw) })
				res := s.ask(t, tt.method, "/x", "", "Cookie: "+cookie)
				if strings.Contains(res.body, "evil") || strings.Contains(fmt.Sprint(res.header), "evil") {
					t.Errorf("answered %v", res)
				}
				s.app.Respond(func([]byte) []byte { return []byte(good) })
				if next := s.ask(t, "POST", "/next", "order", "Cookie: "+s.mint(t, bob())); next.body != "ok" {
					t.Errorf("the next request is answered with %v", next)
				}
			}
		})
	}
}

// Malformed pseudo-header fields (RFC 9113 §8.3; grpc-go CVE-2026-33186 took a
// :path without a slash), sent as frames that no client library would write.
func TestP03_HTTP2PseudoHeadersAreChecked(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{TLS: true})
	cookie := s.mint(t, alice())
	usual := [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", s.host}, {":path", "/x"},
		{"cookie", cookie}}
	with := func(name, value string, more ...[2]string) [][2]string {
		out := slices.Clone(usual)
		for i := range out {
			if out[i][0] == name {
				out[i][1] = value
			}
		}
		return append(out, more...)
	}
	for name, tt := range map[string]struct {
		headers [][2]string
		targets []string // that the app may see
	}{
		"usual":                {usual, []string{"GET /x"}},
		"path without a slash": {with(":path", "admin"), nil},
		"path *":               {with(":path", "*"), nil},
		"empty path":           {with(":path", ""), nil},
		"path of two slashes":  {with(":path", "//admin"), nil},
		"absolute path":        {with(":path", "http://other/admin"), nil},
		"dots":                 {with(":path", "/open/../admin"), nil},
		"fragment":             {with(":path", "/admin#/open"), nil},
		"blank in path":        {with(":path", "/x HTTP/1.1\r\nX: y"), nil},
		"scheme in capitals":   {with(":scheme", "HTTPS"), []string{"GET /x", ""}},
		"CONNECT": {[][2]string{{":method", "CONNECT"}, {":authority", "internal:22"},
			{"cookie", cookie}}, nil},
		"TRACE":               {with(":method", "TRACE"), nil},
		"method with a blank": {with(":method", "GET /admin HTTP/1.1\r\nX:"), nil},
		"no authority, a Host": {append(slices.DeleteFunc(slices.Clone(usual),
			func(h [2]string) bool { return h[0] == ":authority" }), [2]string{"host", s.host}), []string{"GET /x"}},
		"authority and other Host": {with("", "", [2]string{"host", "evil.example"}), nil},
		"foreign authority":        {with(":authority", "evil.example"), nil},
		"authority with a user":    {with(":authority", "a@"+s.host), nil},
		"two paths":                {append([][2]string{{":path", "/open"}}, usual...), nil},
		"late pseudo header":       {append(slices.Clone(usual), [2]string{":path", "/open"}), nil},
		"upper-case name":          {with("", "", [2]string{"X-Forwarded-User", "forged"}), nil},
		"connection":               {with("", "", [2]string{"connection", "x-forwarded-user"}), []string{"GET /x", ""}},
		"transfer-encoding":        {with("", "", [2]string{"transfer-encoding", "chunked"}), []string{"GET /x", ""}},
		"te":                       {with("", "", [2]string{"te", "gzip"}), []string{"GET /x", ""}},
		"length without a body":    {with("", "", [2]string{"content-length", "5"}), nil},
		"line break in a value":    {with("", "", [2]string{"x-a", "b\r\nX-Forwarded-User: forged"}), nil},
		"NUL in a value":           {with("", "", [2]string{"x-a", "b\x00c"}), nil},
		"cookie crumbs": {with("cookie", "a=b", [2]string{"cookie", cookie}, [2]string{"cookie", "c=d"}),
			[]string{"GET /x"}},
		"forged identity": {with("", "", [2]string{"x-forwarded-user", "forged"},
			[2]string{"x_forwarded_user", "forged"}), []string{"GET /x"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.app.Requests())
			sendHTTP2(t, s.addr, tt.headers)
			fresh := s.app.Requests()[before:]
			got := ""
			if len(fresh) > 0 {
				got = strings.TrimSuffix(testenv.RequestLine(fresh[0]), " HTTP/1.1")
				if strings.Contains(string(fresh[0]), "forged") {
					t.Errorf("a forged header arrived:\n%s", fresh[0])
				}
				if host := testenv.HeaderLines(fresh[0], "Host"); !slices.Equal(host, []string{s.host}) {
					t.Errorf("Host at the app: %q", host)
				}
				checkOneFraming(t, fresh[0])
			}
			if len(fresh) > 1 || (tt.targets == nil && got != "") ||
				(tt.targets != nil && !slices.Contains(tt.targets, got)) {
				t.Errorf("the app received %d requests, first %q; allowed %q", len(fresh), got, tt.targets)
			}
		})
	}
}

// Some servers answer 411 to a request that may have a body and does not tell
// its length. What the client told is kept.
func TestContentLengthZeroReachesTheApp(t *testing.T) {
	t.Parallel()
	for _, front := range []setup{{}, {TLS: true}} {
		s := newTestSite(t, front)
		cookie := s.mint(t, alice())
		for _, method := range []string{"DELETE", "MKCOL", "PROPFIND", "REPORT", "LOCK", "POST", "PUT", "PATCH"} {
			for _, told := range []bool{true, false} {
				before := len(s.app.Requests())
				if front.TLS {
					headers := [][2]string{{":method", method}, {":scheme", "https"}, {":authority", s.host},
						{":path", "/x"}, {"cookie", cookie}}
					if told {
						headers = append(headers, [2]string{"content-length", "0"})
					}
					sendHTTP2(t, s.addr, headers)
				} else {
					head := method + " /x HTTP/1.1\r\nHost: " + s.host + "\r\nCookie: " + cookie + "\r\nConnection: " +
						"close\r\n"
					if told {
						head += "Content-Length: 0\r\n"
					}
					s.talk(t, head+"\r\n")
				}
				fresh := s.app.Requests()[before:]
				if len(fresh) != 1 {
					t.Fatalf("%s: the app received %d requests", method, len(fresh))
				}
				checkOneFraming(t, fresh[0])
				always := method == "POST" || method == "PUT" ||
					method == "PATCH" // RFC 9110 §8.6: these should have one
				if got := testenv.HeaderLines(fresh[0], "Content-Length"); slices.Equal(got, []string{"0"}) != (told ||
					always) {
					t.Errorf("%s, TLS %v, told %v: Content-Length at the app: %q", method, front.TLS, told, got)
				}
			}
		}
	}
}

// framingHTTP2 is one way to announce a body in HTTP/2 and to send another.
type framingHTTP2 struct {
	fields [][2]string // besides the usual ones
	bodies []string    // DATA frames; nil: the stream ends with its header
	want   string      // "app " and the body it gets, "refused" before the app is asked, or "broken": what it gets never looks whole
}

func framingsHTTP2(host string) map[string]framingHTTP2 {
	length := func(values ...string) (fields [][2]string) {
		for _, v := range values {
			fields = append(fields, [2]string{"content-length", v})
		}
		return fields
	}
	hosts := func(values ...string) (fields [][2]string) {
		for _, v := range values {
			fields = append(fields, [2]string{"host", v})
		}
		return fields
	}
	ten := []string{"0123456789"}
	const chunked = "app a\r\n0123456789\r\n0\r\n\r\n"
	all := map[string]framingHTTP2{
		"length":                           {length("10"), ten, "app 0123456789"},
		"length, several frames":           {length("10"), []string{"01234", "56789", ""}, "app 0123456789"},
		"zeros before the length":          {length("0010"), ten, "app 0123456789"},
		"no length":                        {nil, ten, chunked},
		"no length, no body":               {nil, nil, "app "},
		"length 0, no body":                {length("0"), nil, "app "},
		"length 0, an empty frame":         {length("0"), []string{""}, "app "},
		"length 0 and a body":              {length("0"), ten, "refused"},
		"less than the length":             {length("10"), []string{"012"}, "broken"},
		"more than the length":             {length("3"), ten, "broken"},
		"two lengths":                      {length("10", "3"), ten, "refused"},
		"two lengths, the other first":     {length("3", "10"), ten, "refused"},
		"one length twice":                 {length("10", "10"), ten, "refused"},
		"a length and none":                {length("10", ""), ten, "refused"},
		"a body after a length of no body": {length("5"), nil, "refused"},
		"the same host":                    {hosts(host), ten, chunked},
		"the same host in capitals":        {hosts(strings.ToUpper(host)), ten, chunked},
		"another host":                     {hosts("evil.example"), ten, "refused"},
		"a part of the host":               {hosts(host[:len(host)-1]), ten, "refused"},
		"another port":                     {hosts(strings.Split(host, ":")[0] + ":1"), ten, "refused"},
		"two hosts":                        {hosts(host, "evil.example"), ten, "refused"},
		"the same host twice":              {hosts(host, host), ten, "refused"},
		"an empty host":                    {hosts(""), ten, "refused"},
		"a list of hosts":                  {hosts(host + ", evil.example"), ten, "refused"},
		"a host with a user":               {hosts("a@" + host), ten, "refused"},
		"chunked":                          {[][2]string{{"transfer-encoding", "chunked"}}, ten, "refused"},
		"an extended CONNECT":              {[][2]string{{":protocol", "websocket"}}, ten, "refused"},
	}
	for _, v := range []string{"+10", "-1", "0x0a", "10, 10", "10,3", "", "1e1", "1_0", "10.0", " ", "abc",
		"99999999999999999999", "9223372036854775808"} {
		all[fmt.Sprintf("length %q", v)] = framingHTTP2{length(v), ten, "refused"}
		all[fmt.Sprintf("length %q, no body", v)] = framingHTTP2{length(v), nil, "refused"}
	}
	return all
}

// net/http takes a length of HTTP/2 that it cannot read for 0: the app was asked
// to store an empty file, and the client told that all was well.
func TestP03_HTTP2FramingCannotBeReadTwoWays(t *testing.T) {
	t.Parallel()
	for front, o := range map[string]setup{"TLS": {TLS: true}, "h2c": {H2C: true}} {
		t.Run(front, func(t *testing.T) {
			t.Parallel()
			s := newTestSite(t, o)
			scheme, cookie := strings.Split(s.url, ":")[0], s.mint(t, alice())
			answers, paths := map[string]string{}, map[string]string{}
			for name, f := range framingsHTTP2(s.host) {
				paths[name] = fmt.Sprintf("/row/%d", len(paths))
				answers[name] = s.talkHTTP2(t,
					append([][2]string{{":method", "PUT"}, {":scheme", scheme}, {":authority", s.host},
						{":path", paths[name]}, {"cookie", cookie}}, f.fields...), f.bodies)
			}
			s.close() // waits for the handlers
			app := map[string]string{}
			for _, raw := range s.app.Requests() {
				checkOneFraming(t, raw)
				if _, again := app[testenv.RequestLine(raw)]; again {
					t.Errorf("twice: %s", raw)
				}
				app[testenv.RequestLine(raw)] = string(testenv.Body(raw))
			}
			for name, f := range framingsHTTP2(s.host) {
				body, asked := app["PUT "+paths[name]+" HTTP/1.1"]
				switch got := answers[name]; f.want {
				case "refused":
					if asked || got != "400" && got != "reset" {
						t.Errorf("%s: answered %s, the app was asked: %v", name, got, asked)
					}
				case "broken":
					if asked && len(body) == 10 || got != "400" && got != "reset" {
						t.Errorf("%s: answered %s, the app received %q", name, got, body)
					}
				default:
					if !asked || got != "200" || "app "+body != f.want {
						t.Errorf("%s: answered %s, the app received %q", name, got, body)
					}
				}
			}
		})
	}
}

// sendHTTP2 sends a request that ends with its header.
func sendHTTP2(t *testing.T, addr string, headers [][2]string) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, insecureTLS("h2"))
	testenv.Check(t, err)
	defer conn.Close()
	exchangeHTTP2(t, conn, headers, nil)
}

// talkHTTP2 sends a request and says how it ended.
func (s *testSite) talkHTTP2(t *testing.T, headers [][2]string, bodies []string) string {
	t.Helper()
	if strings.HasPrefix(s.url, "https:") {
		conn, err := tls.Dial("tcp", s.addr, insecureTLS("h2"))
		testenv.Check(t, err)
		defer conn.Close()
		return exchangeHTTP2(t, conn, headers, bodies)
	}
	conn, err := net.Dial("tcp", s.addr)
	testenv.Check(t, err)
	defer conn.Close()
	return exchangeHTTP2(t, conn, headers, bodies)
}

// exchangeHTTP2 sends one request in frames of its own and waits until its
// stream, or the connection, ends: with a status, or "reset".
func exchangeHTTP2(t *testing.T, conn net.Conn, headers [][2]string, bodies []string) (ended string) {
	t.Helper()
	testenv.Check(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	var block bytes.Buffer
	for _, h := range headers { // RFC 7541 §6.2.2: literals, not indexed, no Huffman
		block.WriteByte(0)
		writeHPACK(&block, h[0])
		writeHPACK(&block, h[1])
	}
	out := bytes.NewBufferString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	writeFrame(out, 4, 0, 0, nil) // SETTINGS
	end := func(last bool) byte { return map[bool]byte{true: 1}[last] }
	writeFrame(out, 1, 4|end(bodies == nil), 1, block.Bytes()) // HEADERS, END_HEADERS
	for i, body := range bodies {
		writeFrame(out, 0, end(i == len(bodies)-1), 1, []byte(body)) // DATA
	}
	_, err := conn.Write(out.Bytes())
	testenv.Check(t, err)
	status := ""
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the stream did not end")
			}
			return "reset"
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return "reset"
		}
		kind, flags := head[3], head[4]
		if kind == 1 && status == "" {
			status = statusHTTP2(payload)
		}
		switch {
		case kind == 3 || kind == 7: // RST_STREAM, GOAWAY
			return "reset"
		case kind <= 1 && flags&1 != 0: // END_STREAM
			return status
		}
	}
}

// statusHTTP2 is the status of a block of fields if it is one of the static
// table (RFC 7541 Appendix A). net/http sends it first.
func statusHTTP2(block []byte) string {
	for len(block) > 0 && block[0]&0xe0 == 0x20 { // a change of the table's size, RFC 7541 §6.3
		block = block[1:]
	}
	names := map[byte]string{0x88: "200", 0x89: "204", 0x8c: "400", 0x8d: "404", 0x8e: "500"}
	if len(block) == 0 || names[block[0]] == "" {
		return "other"
	}
	return names[block[0]]
}

func writeHPACK(w *bytes.Buffer, s string) {
	if len(s) < 127 {
		w.WriteByte(byte(len(s)))
	} else { // RFC 7541 §5.1
		w.WriteByte(127)
		rest := len(s) - 127
		for ; rest >= 128; rest /= 128 {
			w.WriteByte(byte(rest%128 + 128))
		}
		w.WriteByte(byte(rest))
	}
	w.WriteString(s)
}

func writeFrame(w *bytes.Buffer, kind, flags byte, stream uint32, payload []byte) {
	w.Write([]byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags})
	_ = binary.Write(w, binary.BigEndian, stream) // a bytes.Buffer takes everything
	w.Write(payload)
}
