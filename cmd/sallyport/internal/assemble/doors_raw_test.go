package assemble

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/server"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// listening is the listener for proxies that ask, and its address.
func listening(tb testing.TB, d *doors) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Check(tb, err)
	s := server.NewExternalAuthHTTP(http.HandlerFunc(d.process.ServeExternalAuth), time.Minute,
		slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(l) }()
	tb.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// converse sends bytes and reads the answers to n requests.
func converse(tb testing.TB, address, raw string, n int) (codes []int, last *http.Response) {
	tb.Helper()
	c, err := net.Dial("tcp", address)
	testenv.Check(tb, err)
	tb.Cleanup(func() { _ = c.Close() })
	testenv.Check(tb, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, raw)
	testenv.Check(tb, err)
	in := bufio.NewReader(c)
	for range n {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return append(codes, 0), last
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		codes, last = append(codes, resp.StatusCode), resp
	}
	return codes, last
}

const about = "X-Original-URL: https://app.example.com/open\r\nX-Original-Method: GET\r\n"

// Whatever a peer does to the framing of its question, the answer is a refusal or the
// answer to that question: never an error that a proxy could let pass, and never the
// answer to bytes that were hidden in a body.
func TestP02_ABodyIsNeverReadAndNeverAnswered(t *testing.T) {
	address := listening(t, newDoors(t))
	hidden := "GET /verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n"
	for name, tt := range map[string]struct {
		raw  string
		want []int // 0: the connection ends
	}{
		"plain, twice": {strings.Repeat("GET /verify HTTP/1.1\r\nHost: s\r\n"+about+"\r\n", 2), []int{200, 200}},
		"HEAD":         {"HEAD /verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{200}},
		"any method":   {"REPORT /verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{200}},
		"HTTP/1.0":     {"GET /verify HTTP/1.0\r\n" + about + "\r\n", []int{200, 0}},
		"a body that never comes": {"POST /verify HTTP/1.1\r\nHost: s\r\nContent-Length: 1000000\r\n" + about + "\r\n",
			[]int{200}},
		"chunks that never end": {"POST /verify HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n" + about +
			"\r\n5\r\nabcde\r\n", []int{200}},
		"a body with a question in it": {fmt.Sprintf("POST /verify HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n%s\r\n%s",
			len(hidden), about, hidden), []int{200, 0}},
		"a length that lies": {"POST /verify HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\n" + about + "\r\n" + hidden,
			[]int{200, 0}},
		"length and chunks": {"POST /verify HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n" +
			about + "\r\n0\r\n\r\n" + hidden, []int{200, 0}},
		"two lengths": {"POST /verify HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\nContent-Length: 4\r\n" + about + "\r\n",
			[]int{400, 0}},
		"Expect": {"POST /verify HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + about + "\r\n",
			[]int{200}},
		"two hosts":          {"GET /verify HTTP/1.1\r\nHost: s\r\nHost: t\r\n" + about + "\r\n", []int{400, 0}},
		"two URLs":           {"GET /verify HTTP/1.1\r\nHost: s\r\n" + about + about + "\r\n", []int{403}},
		"an absolute target": {"GET http://s/verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"another path":       {"GET /verify/ HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"an encoded path":    {"GET /%76erify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"OPTIONS *":          {"OPTIONS * HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"CONNECT":            {"CONNECT /verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{200}}, // the endpoint's method
		"our own prefix":     {"GET /.sallyport/login HTTP/1.1\r\nHost: app.example.com\r\n\r\n", []int{404}},
		"NUL":                {"GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: https://app.example.com/open\x00\r\n\r\n", []int{400, 0}},
		"200 KiB of header":  {"GET /verify HTTP/1.1\r\nHost: s\r\n" + about + "X-A: " + strings.Repeat("a", 200<<10) + "\r\n\r\n", []int{403}},
		"a folded URL": {"GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: https://app.example.com/open\r\n " +
			"/../admin\r\nX-Original-Method: GET\r\n\r\n", []int{403}},
		"a folded line before all": {"GET /verify HTTP/1.1\r\n Host: s\r\n" + about + "\r\n", []int{400, 0}},
		"a name in two cases": {"GET /verify HTTP/1.1\r\nHost: s\r\n" + about +
			"x-original-url: https://app.example.com/open\r\n\r\n", []int{403}},
		"a method in two cases": {"GET /verify HTTP/1.1\r\nHost: s\r\n" + about + "X-ORIGINAL-METHOD: GET\r\n\r\n",
			[]int{403}},
		"a blank after a name": {"GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL : https://app.example.com/open\r\n" +
			"X-Original-Method: GET\r\n\r\n", []int{400, 0}},
		"CR in a value": {"GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: https://app.example.com/open\rx\r\n" +
			"X-Original-Method: GET\r\n\r\n", []int{400, 0}},
		"tabs around values": {"GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL:\thttps://app.example.com/open\t\r\n" +
			"X-Original-Method: \tGET \r\n\r\n", []int{200}}, // RFC 9110 §5.5: not a part of them
		"a parameter":         {"GET /verify;x HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"a doubled slash":     {"GET //verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"a dot segment":       {"GET /x/../verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"another case":        {"GET /Verify HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"an escaped end":      {"GET /verify%00 HTTP/1.1\r\nHost: s\r\n" + about + "\r\n", []int{404}},
		"h2c, upgraded":       {"GET /verify HTTP/1.1\r\nHost: s\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n" + about + "\r\n", []int{403}},
		"h2c, from the start": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{404, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, last := converse(t, address, tt.raw, len(tt.want))
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if hasBody := strings.Contains(tt.raw, "Content-Length") || strings.Contains(tt.raw, "chunked"); hasBody &&
				last != nil && !last.Close {
				t.Error("the connection is used again behind a body that was not read")
			}
			if last != nil && len(last.TransferEncoding) > 0 || last != nil && last.Header.Get("Set-Cookie") != "" {
				t.Errorf("%v %v", last.TransferEncoding, last.Header)
			}
		})
	}
}

// A peer that hangs in the middle of its question keeps nobody else from an answer.
func TestP17_APeerThatHangsIsAlone(t *testing.T) {
	address := listening(t, newDoors(t))
	for _, begun := range []string{"", "GET /ver", "GET /verify HTTP/1.1\r\nHost: s\r\n" + about} {
		c, err := net.Dial("tcp", address)
		testenv.Check(t, err)
		defer c.Close()
		_, err = io.WriteString(c, begun)
		testenv.Check(t, err)
	}
	got, _ := converse(t, address, "GET /verify HTTP/1.1\r\nHost: s\r\n"+about+"\r\n", 1)
	if got[0] != 200 {
		t.Error(got)
	}
}

// FuzzDialects: no door that other proxies ask lets anything pass that the front door for
// browsers would not, or tells the app of somebody else.
func FuzzDialects(f *testing.F) {
	f.Add("GET", "app.example.com", "/admin/x", "X-Forwarded-User", "root", uint8(1))
	f.Add("MOVE", "app.example.com", "/dav/a", "Destination", "/dav/vault/x", uint8(1))
	f.Add("GET", "wiki.example.com:443", "/%2e%2e/x?a#b", "Cookie", "__Host-sallyport=x", uint8(2))
	f.Add("GET", "app.example.com", "/api/x", "Authorization", "Bearer good", uint8(0))
	f.Add("POST", "static.example.com", "/", "Upgrade", "websocket", uint8(0))
	f.Add("GET", "app.example.com", "//admin", "X_Forwarded_User", "root", uint8(2))
	d := newDoors(f)
	f.Fuzz(func(t *testing.T, method, host, target, name, value string, who uint8) {
		c := doorCase{method: method, host: host, target: target, who: [...]string{"", "ann", "root"}[who%3]}
		if name != "" {
			c.lines = []string{name + ": " + value}
		}
		if strings.ContainsAny(strings.Join(append(c.lines, host, target, method), ""), "\r\n") {
			return // another request than the one that is meant
		}
		verdict, told := c.throughProxy(d)
		for dialect := range fronts {
			r := fronts[dialect](c, c.header(d))
			if r == nil {
				continue
			}
			w := httptest.NewRecorder()
			d.process.ServeExternalAuth(w, r)
			switch got := asked(w); {
			case w.Code == 404 && dialect == "envoy" && !strings.HasPrefix(r.RequestURI, "/envoy"):
			case w.Code != 200 && w.Code != 302 && w.Code != 401 && w.Code != 403:
				t.Errorf("%s: %s answers %d", c, dialect, w.Code)
			case got == "forward" && verdict != "forward":
				t.Errorf("%s: %s lets pass what the front door answers with %s", c, dialect, verdict)
			case got == "forward":
				for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Groups", "Remote-User", "Cookie"} {
					if a, b := w.Header().Get(name), strings.Join(told[name], "; "); a != b {
						t.Errorf("%s: %s says %s %q, and the front door %q", c, dialect, name, a, b)
					}
				}
			}
		}
	})
}
