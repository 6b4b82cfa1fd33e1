package extauthz

import (
	"bufio"
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// reader is a Door as far as questions are read.
func reader(tb testing.TB) *Door {
	tb.Helper()
	headers := identity.NewHeaders()
	fields, _ := identity.Preset(identity.PresetForwarded)
	_, err := headers.Set(append(fields, identity.Field{Header: "X_Old_Name", Claim: identity.ClaimUser}))
	testenv.Check(tb, err)
	return &Door{headers: headers, maxURL: 100, maxHeader: 2000}
}

func request(tb testing.TB, target string, lines ...string) *http.Request {
	tb.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\n" +
		strings.Join(append([]string{"Host: sallyport"}, lines...), "\r\n") + "\r\n\r\n")))
	testenv.Check(tb, err)
	return r
}

// asked reads a question by the dialect of its path.
func asked(tb testing.TB, target string, lines ...string) (question, error) {
	tb.Helper()
	r := request(tb, target, lines...)
	return dialectAt(r.RequestURI).ask(reader(tb), r)
}

var (
	verifyLines = []string{"X-Original-URL: https://app.example.com/x?a,b", "X-Original-Method: PUT",
		"X-Forwarded-For: 192.0.2.9"}
	forwardLines = []string{"X-Forwarded-Uri: /x?a,b", "X-Forwarded-Method: PUT", "X-Forwarded-Proto: https",
		"X-Forwarded-Host: app.example.com", "X-Forwarded-For: 192.0.2.9"}
	envoyLines = []string{"X-Forwarded-Proto: https", "X-Envoy-External-Address: 192.0.2.9"}
)

// Each dialect reads its own headers. What another dialect's say counts for nothing
// (CVE-2026-40575), and neither does the query of the endpoint.
func TestP04_EachDialectReadsItsOwnHeadersOnly(t *testing.T) {
	for target, own := range map[string][]string{"/verify?allowed_groups=evil": verifyLines,
		"/forward?X-Forwarded-Uri=/open": forwardLines, "/envoy/x?a,b": envoyLines} {
		lines := own
		if !strings.HasPrefix(target, "/verify") {
			lines = append([]string{"X-Original-URL: https://evil.example/open", "X-Original-Method: OPTIONS"}, lines...)
		} else {
			lines = append([]string{"X-Forwarded-Uri: /open", "X-Forwarded-Method: OPTIONS", "X-Forwarded-Proto: http",
				"X-Forwarded-Host: evil.example", "X-Envoy-External-Address: 10.0.0.1"}, lines...)
		}
		lines = append(lines, "X-Original-Uri: /open", "X-Real-Ip: 10.0.0.1", "Forwarded: for=10.0.0.1;host=evil.example")
		q, err := asked(t, target, lines...)
		testenv.Check(t, err)
		method, host := "PUT", "app.example.com"
		if strings.HasPrefix(target, "/envoy") {
			method, host = "GET", "sallyport"
		}
		f := q.facts
		if q.method != method || f.Host != host || f.Path != "/x" || f.RawQuery != "a,b" || f.Scheme != "https" ||
			q.client != netip.MustParseAddr("192.0.2.9") {
			t.Errorf("%s: %+v", target, q)
		}
		for _, name := range []string{"X-Original-Url", "X-Forwarded-Uri", "X-Forwarded-For", "X-Original-Uri"} {
			if q.header[name] != nil {
				t.Errorf("%s: %s is passed to admission", target, name)
			}
		}
	}
}

// What is missing, there twice or not to be parsed is refused, never guessed
// (CVE-2021-32777, CVE-2021-32637).
func TestP04_WhatIsNotClearIsRefused(t *testing.T) {
	for target, own := range map[string][]string{"/verify": verifyLines, "/forward": forwardLines,
		"/envoy/x": envoyLines[:1]} {
		for i, line := range own {
			name, value, _ := strings.Cut(line, ": ")
			if name == "X-Forwarded-For" {
				continue // it may be missing
			}
			others := append(append([]string{}, own[:i]...), own[i+1:]...)
			for why, lines := range map[string][]string{
				"missing": nil, "empty": {name + ":"}, "twice": {line, line}, "twice, differently": {line, name + ": x"},
				"twice, once empty": {line, name + ":"}, "in another spelling": {strings.ReplaceAll(name, "-", "_") + ": " + value},
				"with a blank before": {name + ": x " + value}, "folded": {name + ": " + value + "\r\n x"},
				"folded, with nothing before": {name + ":\r\n x\r\n " + value},
				"twice, in two cases":         {line, strings.ToLower(name) + ": " + value},
			} {
				if q, err := asked(t, target, append(others, lines...)...); err == nil {
					t.Errorf("%s: %s %s: %+v", target, name, why, q.facts)
				}
			}
		}
	}
	for _, bad := range []string{"X-Original-URL: /x", "X-Original-URL: app.example.com/x",
		"X-Original-URL: //app.example.com/x", "X-Original-URL: ftp://app.example.com/x",
		"X-Original-URL: HTTPS://app.example.com/x", "X-Original-URL: https://app.example.com",
		"X-Original-URL: https:///x", "X-Original-URL: https://ann@app.example.com/x",
		"X-Original-URL: https://app.example.com?x=/open", "X-Original-URL: https://app.example.com#/open",
		"X-Original-URL: https://app.example.com\\/open", "X-Original-URL: https://[::1/x",
		"X-Original-URL: https://app.example.com/x y", "X-Original-URL: https://app.example.com/x\ty",
		"X-Original-URL: https://app.example.com/%zz", "X-Original-URL: https://app.example.com/x#y",
		"X-Original-URL: https://app.example.com/" + strings.Repeat("x", 100),
		"X-Original-URL: https://a.example,b.example/x", "X-Original-URL: javascript:alert(1)"} {
		if q, err := asked(t, "/verify", bad, "X-Original-Method: GET"); err == nil {
			t.Errorf("%s: %+v", bad, q.facts)
		}
	}
	for _, bad := range []string{"X-Forwarded-Uri: x", "X-Forwarded-Uri: //x", "X-Forwarded-Uri: http://app.example.com/x",
		"X-Forwarded-Uri: *", "X-Forwarded-Uri: /x#y", "X-Forwarded-Method: GET,POST", "X-Forwarded-Method: G(T",
		"X-Forwarded-Method: CONNECT", "X-Forwarded-Method: TRACE", "X-Forwarded-Proto: http,https",
		"X-Forwarded-Proto: HTTPS", "X-Forwarded-Proto: h2", "X-Forwarded-Host: a.example, b.example",
		"X-Forwarded-Host: a@b", "X-Forwarded-Host: a.example/x", "X-Forwarded-Host: a.example:port"} {
		name, _, _ := strings.Cut(bad, ":")
		var lines []string
		for _, line := range forwardLines {
			if !strings.HasPrefix(line, name+":") {
				lines = append(lines, line)
			}
		}
		if q, err := asked(t, "/forward", append(lines, bad)...); err == nil {
			t.Errorf("%s: %+v", bad, q.facts)
		}
	}
	for _, bad := range []string{"/envoy", "/envoyx", "/envoy?x", "/envoy//x", "/envoy/../x", "/envoyhttp://x/"} {
		if q, err := asked(t, bad, envoyLines...); err == nil {
			t.Errorf("%s: %+v", bad, q.facts)
		}
	}
}

// Envoy joins lines with commas, so that there a comma may be two addresses, of which an
// app has both. Of the others it is a part of one.
func TestP02_AJoinedDestinationIsRefused(t *testing.T) {
	const to = "Destination: /dav/b,/dav/vault/c"
	if q, err := asked(t, "/envoy/dav/a", envoyLines[0], to); err == nil {
		t.Errorf("%+v", q)
	}
	q, err := asked(t, "/verify", append(verifyLines[:2:2], to)...)
	if err != nil || q.header.Get("Destination") == "" {
		t.Errorf("%+v, %v", q, err)
	}
}

// Where a request comes from is known by one address or not at all.
func TestTheClientIsOneAddressOrNobody(t *testing.T) {
	for line, want := range map[string]string{
		"X-Forwarded-For: 192.0.2.9": "192.0.2.9", "X-Forwarded-For: ::ffff:10.0.0.1": "10.0.0.1",
		"X-Forwarded-For: 2001:db8::1": "2001:db8::1", "X-Forwarded-For: 10.0.0.1, 10.0.0.2": "",
		"X-Forwarded-For: a": "", "X-Forwarded-For:": "", "X-Forwarded-For: 10.0.0.1:99999": "", "X-Other: 10.0.0.1": "",
		"X-Forwarded-For: fe80::1%eth0": "", "X-Forwarded-For: 010.0.0.1": "", "X-Forwarded-For: unknown": "",
		"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2": "",
	} {
		q, err := asked(t, "/verify", verifyLines[0], verifyLines[1], line)
		testenv.Check(t, err)
		if got := q.client.String(); got != want && !(want == "" && !q.client.IsValid()) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// The schemes of WebSockets are those of their handshakes.
func TestTraefikNamesTheSchemesOfWebSockets(t *testing.T) {
	for proto, want := range map[string]string{"ws": "http", "wss": "https"} {
		q, err := asked(t, "/envoy/x", "X-Forwarded-Proto: "+proto)
		testenv.Check(t, err)
		if q.facts.Scheme != want {
			t.Errorf("%s is %s", proto, q.facts.Scheme)
		}
	}
}

// Another spelling of a header that is set passes a proxy that cannot remove it, so the
// request is refused. What the operator has named so is no other spelling.
func TestP02_OtherSpellingsOfOurHeadersAreRefused(t *testing.T) {
	for name, refused := range map[string]bool{
		"X_Forwarded_User": true, "X.Forwarded.User": true, "X-Forwarded_Groups": true, "x_forwarded_whatever": true,
		"X_Original_Url": true, "X.Sallyport.Assertion": true, "X-Old-Name": false, "X.Old.Name": true, "X_Old_Name": false,
		"X_Other": false, "X-Forwarded-User": false, "Accept.Encoding": false,
	} {
		if _, err := asked(t, "/envoy/x", envoyLines[0], name+": evil"); (err != nil) != refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A header that is larger than the front door for browsers would take passes nowhere.
func TestP17_AHeaderOverTheLimitIsRefused(t *testing.T) {
	for size, ok := range map[int]bool{1900: true, 2100: false} {
		if _, err := asked(t, "/envoy/x", envoyLines[0], "X-Big: "+strings.Repeat("a", size)); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Any remains of a handshake are one; without an Origin nobody can tell whose page it is.
func TestAWebSocketIsRecognisedHoweverItArrives(t *testing.T) {
	for lines, want := range map[string]string{
		"Upgrade: websocket": "none", "Upgrade: WebSocket\r\nOrigin: https://a.example": "https://a.example",
		"Upgrade: websocket, WebSocket": "none", "Sec-WebSocket-Key: x": "none", "Sec-WebSocket-Version: 13": "none",
		"Upgrade:": "", "Sec-WebSocket-Protocol: x": "", "Origin: https://a.example": "",
	} {
		q, err := asked(t, "/envoy/x", envoyLines[0], lines)
		testenv.Check(t, err)
		if q.facts.Origin != want || q.facts.WebSocket != (want != "") {
			t.Errorf("%q: %v %q", lines, q.facts.WebSocket, q.facts.Origin)
		}
	}
}

// Nobody is asked about what follows another protocol's beginning: whatever a proxy passes on of
// that is refused.
func TestP01_OnlyAWebSocketMayBegin(t *testing.T) {
	for _, upgrade := range []string{"h2c", "H2C", "h2c, websocket", "websocket, h2c", "websocket/h2c", "TLS/1.2", "x",
		"websocket\r\nUpgrade: h2c", ",h2c", "websocket,\th2c", "\r\nHTTP2-Settings: AAMAAABk",
		"websocket\r\nHTTP2-Settings: AAMAAABk"} {
		for target, lines := range map[string][]string{"/verify": verifyLines, "/forward": forwardLines,
			"/envoy/x": envoyLines} {
			_, err := asked(t, target, append([]string{"Upgrade: " + upgrade, "Origin: https://a.example"}, lines...)...)
			if !errors.Is(err, errUpgrade) {
				t.Errorf("%s: Upgrade: %q: %v", target, upgrade, err)
			}
		}
	}
}

// Who is not on the list is told nothing, and the log names them once a minute.
func TestP04_OnlyPeersMayAsk(t *testing.T) {
	clock := testenv.StandingClock(time.Now())
	var log bytes.Buffer
	d := &Door{Process: NewProcess(ProcessOptions{Now: clock.Now, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Registerer: prometheus.NewRegistry()}), peers: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for remote, ok := range map[string]bool{"10.1.2.3:1": true, "[::ffff:10.1.2.3]:1": true, "192.0.2.1:1": false,
		"[2001:db8::1]:1": false, "": false, "@": false} {
		if _, got := d.peer(remote); got != ok {
			t.Errorf("%q: %v", remote, got)
		}
	}
	w := &answer{header: http.Header{}}
	ask := func(remote string) {
		r := request(t, "/verify", verifyLines...)
		r.RemoteAddr = remote
		d.ServeHTTP(w, r)
	}
	for range 3 {
		ask("192.0.2.1:1")
	}
	ask("192.0.2.2:1")
	if n := strings.Count(log.String(), "peers asked"); w.status != http.StatusForbidden || w.body.Len() > 0 || n != 2 {
		t.Errorf("%d, %d lines:\n%s", w.status, n, log.String())
	}
	clock.Advance(time.Minute)
	ask("192.0.2.1:1")
	if n := strings.Count(log.String(), "peers asked"); n != 3 {
		t.Errorf("a minute later: %d lines", n)
	}
}

// A bug of ours denies, and is no status that a proxy could be told to let pass.
func TestP01_APanicDenies(t *testing.T) {
	d := &Door{Process: NewProcess(ProcessOptions{Registerer: prometheus.NewRegistry()}),
		peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, headers: identity.NewHeaders(), maxURL: 100,
		maxHeader: 1000} // without an Admission
	r := request(t, "/envoy/x", envoyLines...)
	r.RemoteAddr = "127.0.0.1:1"
	w := &answer{header: http.Header{}}
	d.ServeHTTP(w, r)
	if w.status != http.StatusForbidden || w.body.Len() > 0 {
		t.Errorf("%d %s", w.status, &w.body)
	}
}

// Nothing that can stand in a header makes a reader panic, and what it reads is what a
// request line can say: a target that a client could not have sent is none.
func FuzzRequestLine(f *testing.F) {
	for _, seed := range [][3]string{{"GET", "https://app.example.com/x?a", "/x"}, {"G T", "https://a@b/", "//x"},
		{"GET", "https://[::1]:1/%2e%2e/", "/%zz"}, {"", "://", ""}, {"GET", "http:///", "/\x00"}, {"get", "https://a", "*"},
		{"GET", "https://app.example.com?x=/open", "/x#y"}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	d := reader(f)
	f.Fuzz(func(t *testing.T, method, address, target string) {
		for path, header := range map[string]http.Header{
			"/verify": {"X-Original-Url": {address}, "X-Original-Method": {method}},
			"/forward": {"X-Forwarded-Uri": {target}, "X-Forwarded-Method": {method}, "X-Forwarded-Proto": {"https"},
				"X-Forwarded-Host": {address}},
			"/envoy" + target: {"X-Forwarded-Proto": {"https"}},
		} {
			r := &http.Request{Method: method, RequestURI: path, Host: "app.example.com", Header: header}
			by := dialectAt(path)
			if by == nil {
				continue
			}
			q, err := by.ask(d, r)
			if err != nil {
				continue
			}
			again, err := authz.NewFacts(q.method, q.facts.Scheme, q.facts.Authority, q.facts.Target())
			again.WebSocket, again.Origin = q.facts.WebSocket, q.facts.Origin
			if err != nil || again != q.facts {
				t.Errorf("%q %q %q: %+v is read again as %+v, %v", method, address, target, q.facts, again, err)
			}
			if strings.ContainsAny(q.facts.Path+q.facts.RawQuery, " \t\r\n#") || !identity.IsToken(q.method) {
				t.Errorf("%q %q %q passes as %+v", method, address, target, q)
			}
		}
	})
}
