package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Our cookies are not passed on; all others arrive byte for byte and in order.
func TestP09_OurCookiesNeverReachTheApp(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	w, ours := s.wire(t), s.mint(t, alice())
	for name, tt := range map[string]struct{ in, want []string }{
		"alone":                {[]string{ours}, nil},
		"first":                {[]string{ours + "; a=b; c=d"}, []string{"a=b; c=d"}},
		"last":                 {[]string{"a=b; c=d; " + ours}, []string{"a=b; c=d"}},
		"in the middle":        {[]string{"a=b; " + ours + "; c=d"}, []string{"a=b; c=d"}},
		"without blanks":       {[]string{"a=b;" + ours + ";c=d"}, []string{"a=b;c=d"}},
		"several lines":        {[]string{"a=b", ours, "c=d; e=f"}, []string{"a=b", "c=d; e=f"}},
		"order and repetition": {[]string{"z=1; a=2; z=3; " + ours + "; a=4"}, []string{"z=1; a=2; z=3; a=4"}},
		"odd but legal": {[]string{"a=\"b c\"; =v; novalue; e=; x=a=b=c; " + ours + "; j={\"k\":[1,2]}; " +
			"p=%20%zz"}, []string{"a=\"b c\"; =v; novalue; e=; x=a=b=c; j={\"k\":[1,2]}; p=%20%zz"}},
		"not ASCII": {[]string{"a=é; " + ours}, []string{"a=é"}},
		"the flow's": {[]string{ours + "; " + strings.Split(ours, "=")[0] + "-flow=x; a=b"},
			[]string{"a=b"}},
		"of another instance": {[]string{ours + "; sallyport-dev-1=x; SALLYPORT-DEV-2=y; a=b"}, []string{"a=b"}},
		"the https names": {[]string{ours + "; __Host-sallyport=x; __host-Sallyport-flow=y; " +
			"__Secure-sallyport=z; a=b"}, []string{"a=b"}},
		"nameless":             {[]string{"=__Host-sallyport=x; a=b; ==__Host-sallyport=y; " + ours}, []string{"a=b"}},
		"a name without value": {[]string{"__Host-sallyport; a=b; " + ours}, []string{"a=b"}},
		"blanks around":        {[]string{ours + "; \t __Host-sallyport \t =x; a=b"}, []string{"a=b"}},
		"lookalikes are others": {[]string{ours + "; sallyport=x; my__Host-sallyport=y; Host-sallyport=z"},
			[]string{"sallyport=x; my__Host-sallyport=y; Host-sallyport=z"}},
		"in a value": {[]string{"a=" + ours + "; " + ours}, []string{"a=" + ours}},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			lines := []string{}
			for _, line := range tt.in {
				lines = append(lines, "Cookie: "+line)
			}
			for _, path := range []string{"/x", "/open/x"} {
				if a := w.do("GET", rawRequest("GET", path, s.host, lines...)); a.status != 200 {
					t.Fatalf("%s: answered %d", path, a.status)
				}
				if got := headerOf(s.app.Last(t))["cookie"]; !slices.Equal(got, tt.want) {
					t.Errorf("%s: the app received %q, want %q", path, got, tt.want)
				}
			}
		})
	}
}

// An app must not sign anybody in or out by setting or clearing our cookies.
func TestP09_AppsCannotSetOrClearOurCookies(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, alice())
	name, _, _ := strings.Cut(s.mint(t, alice()), "=")
	bad := []string{
		name + "=evil", name + "=; Max-Age=0", name + "-flow=evil; Path=/", strings.ToUpper(name) + "=evil",
		"sallyport-dev-1=x",
		"__Host-sallyport=evil; Secure; Path=/", "__HOST-SALLYPORT=evil", "__host-sallyport-flow=x",
		"__Secure-sallyport=x; Domain=example.com",
		" \t" + name + "=evil", name + " =evil", "=" + name + "=evil", "==" + name + "=evil", " = " + name + "=evil",
		name, "__Host-sallyport", name + ";Path=/",
	}
	good := []string{
		"a=b; Path=/; HttpOnly", "a=b", "sallyport=x", "x=__Host-sallyport=evil", "__Host-app=x; Secure; Path=/",
		"a=\"quoted; not\"", "b=" + strings.Repeat("x", 3000),
		"novalue", "=nameless", "c=d; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "é=ü",
	}
	var lines []string
	for i := range max(len(bad), len(good)) { // mixed, so that order shows
		if i < len(bad) {
			lines = append(lines, "Set-Cookie: "+bad[i])
		}
		if i < len(good) {
			lines = append(lines, "sEt-CoOkIe: "+good[i])
		}
	}
	s.app.Respond(reply(strings.Join(lines, "\r\n")+"\r\n", "ok"))
	for _, path := range []string{"/x", "/open"} {
		if a := s.get(t, path, cookie); a.status != 200 || !slices.Equal(a.header["Set-Cookie"], good) {
			t.Errorf("%s: %d, the browser gets\n%s", path, a.status, strings.Join(a.header["Set-Cookie"], "\n"))
		}
	}
	for _, line := range bad {
		s.app.Respond(reply("Set-Cookie: "+line+"\r\n", "ok"))
		if a := s.get(t, "/x", cookie); a.header["Set-Cookie"] != nil {
			t.Errorf("%q passed: %q", line, a.header["Set-Cookie"])
		}
	}
	for in, want := range map[string]string{
		`"cookies"`: "", `"cache"`: `"cache"`, `"*"`: `"cache", "storage", "executionContexts"`,
		`"cache", "cookies", "storage"`:               `"cache", "storage"`,
		"\"cookies\"\r\nClear-Site-Data: \"storage\"": `"storage"`, `"COOKIES"`: "",
	} {
		s.app.Respond(reply("Clear-Site-Data: "+in+"\r\n", "ok"))
		if a := s.get(t, "/x", cookie); strings.Join(a.header["Clear-Site-Data"], "|") != want {
			t.Errorf("Clear-Site-Data %q passed as %q", in, a.header["Clear-Site-Data"])
		}
	}
}

// Early hints carry headers too; and what is ours on the final answer survives them.
func TestP09_EarlyHintsCarryNoCookiesOfOurs(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	ours := s.mint(t, alice())
	name, _, _ := strings.Cut(ours, "=")
	hints := "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nSet-Cookie: " + name + "=evil\r\nSet-Cookie: a=b\r\nX-Request-Id: theirs\r\n\r\n"
	s.app.Respond(func(raw []byte) []byte {
		return append([]byte(hints+hints), reply("X-Request-Id: theirs\r\n", "ok")(raw)...)
	})
	got := s.talk(t, rawRequest("GET", "/x", s.host, "Cookie: "+ours, "Connection: close"))
	if !slices.Equal(statuses(got), []int{103, 103, 200}) {
		t.Fatalf("answered %v", statuses(got))
	}
	for _, hint := range got[:2] {
		if !slices.Equal(hint.header["Set-Cookie"], []string{"a=b"}) || hint.header.Get("Link") == "" ||
			hint.header.Get("X-Request-Id") == "theirs" {
			t.Errorf("the hints are %v", hint.header)
		}
	}
	id := got[2].header["X-Request-Id"]
	if len(id) != 1 || id[0] == "theirs" || got[2].header["Set-Cookie"] != nil || got[2].header["Link"] != nil {
		t.Errorf("the answer is %v", got[2].header)
	}
	s.log.event(t, id[0])

	s.app.Respond(func([]byte) []byte {
		return []byte(strings.Replace(hints, "Link", "Connection: close\r\nLink",
			1))
	}) // and then it dies
	got = s.talk(t, rawRequest("GET", "/x", s.host, "Cookie: "+ours, "Connection: close"))
	last := got[len(got)-1]
	if last.status != 502 || len(last.header["X-Request-Id"]) != 1 || last.header.Get("X-Request-Id") == "theirs" ||
		last.header["Set-Cookie"] != nil {
		t.Errorf("after hints and no answer: %d %v", last.status, last.header)
	}
}

// A page that polls must not keep a session alive that nobody looks at.
func TestP09_OnlyNavigationsRenewASession(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	sess := s.sessions.Start(alice())
	cookie := s.seal(t, sess)
	s.app.Respond(reply("Cache-Control: public, max-age=600\r\nExpires: Thu, 01 Jan 2099 00:00:00 GMT\r\nPragma: "+
		"cache\r\nCDN-Cache-Control: max-age=600\r\nSurrogate-Control: max-age=600\r\nSet-Cookie: a=b\r\n", "ok"))
	ask := func(path string, lines ...string) answer { return s.get(t, path, append(lines, "Cookie: "+cookie)...) }
	if a := ask("/x", navigate()...); len(a.header["Set-Cookie"]) != 1 ||
		a.header.Get("Cache-Control") != "public, max-age=600" {
		t.Errorf("renewed right away: %v", a.header)
	}
	s.clock.Advance(7 * time.Minute) // more than a tenth of an hour
	for name, lines := range map[string][]string{
		"fetch": {"Sec-Fetch-Mode: cors"}, "an image": {"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"},
		"curl":       {"Accept: */*"},
		"a prefetch": append(navigate(), "Sec-Purpose: prefetch"),
	} {
		if a := ask("/x", lines...); a.status != 200 || len(a.header["Set-Cookie"]) != 1 ||
			a.header.Get("Cache-Control") != "public, max-age=600" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if a := ask("/open", navigate()...); len(a.header["Set-Cookie"]) != 1 {
		t.Errorf("a public route renewed: %v", a.header)
	}
	a := ask("/x", navigate()...)
	set := a.header["Set-Cookie"]
	if a.status != 200 || len(set) != 2 || set[0] != "a=b" || a.header.Get("Cache-Control") != "private, no-cache" ||
		len(a.header["Cache-Control"]) != 1 {
		t.Fatalf("not renewed: %v", a.header)
	}
	for _, other := range []string{"Expires", "Pragma", "Cdn-Cache-Control", "Surrogate-Control"} {
		if a.header[other] != nil {
			t.Errorf("%s: %q would let a cache keep somebody's cookie", other, a.header[other])
		}
	}
	pair, _, _ := strings.Cut(set[1], ";")
	renewed, err := s.sessions.Read(pair, s.routeHost)
	if err != nil || renewed.ID != sess.ID || !renewed.Expires.Equal(sess.Expires) ||
		!renewed.IdleExpires.After(sess.IdleExpires) {
		t.Errorf("renewed to %+v (%v), from %+v", renewed, err, sess)
	}
	if !strings.Contains(set[1], "; HttpOnly; SameSite=Lax") || strings.Contains(set[1], "Domain") {
		t.Errorf("set %s", set[1])
	}
	for in, want := range map[string]string{
		"": "private, no-cache", "Cache-Control: max-age=600, immutable\r\n": "private, no-cache",
		"Cache-Control: no-store\r\n":                              "private, no-store",
		"Cache-Control: private\r\nCache-Control: x, No-Store\r\n": "private, no-store",
	} {
		s.app.Respond(reply(in, "ok"))
		a := ask("/x", navigate()...)
		if len(a.header["Set-Cookie"]) != 1 || strings.Join(a.header["Cache-Control"], "|") != want {
			t.Errorf("renewed where the app says %q: %v", in, a.header)
		}
	}
	s.clock.Advance(54 * time.Minute) // the first cookie is idle now, the second is not
	if a := ask("/x"); a.status != 401 {
		t.Errorf("idle: %d", a.status)
	}
	if a := s.get(t, "/x", "Cookie: "+pair); a.status != 200 {
		t.Errorf("renewed and idle: %d", a.status)
	}
	for range 20 { // renewing does not move the absolute end
		s.clock.Advance(50 * time.Minute)
		if a := s.get(t, "/x", navigate("Cookie: "+pair)...); a.status == 200 {
			pair, _, _ = strings.Cut(a.header["Set-Cookie"][1], ";")
		}
	}
	if a := s.get(t, "/x", "Cookie: "+pair); a.status != 401 {
		t.Errorf("after 12 hours: %d", a.status)
	}
}

// CVE-2026-34403: an app that switches to a protocol nobody asked for opens no
// tunnel, and on a route without WebSockets nobody can ask.
func TestP01_ASwitchOfProtocolsNobodyAskedForIsRefused(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := "Cookie: " + s.mint(t, alice())
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Sec-WebSocket-Version: 13"}
	for name, first := range map[string]string{
		"no upgrade named": "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"websocket":        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"h2c":              "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
	} {
		for _, lines := range [][]string{{cookie}, {cookie, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
			"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, {cookie, "Connection: Upgrade", "Upgrade: websocket, h2c"}} {
			s.app.Respond(func([]byte) []byte { return []byte(first + "secret-of-the-app") })
			w := s.wire(t)
			a := w.do("GET", rawRequest("GET", "/ws", s.host, lines...))
			if a.status != 502 || strings.Contains(a.body, "secret-of-the-app") {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
			if h := headerOf(s.app.Last(t)); h["upgrade"] != nil || h["connection"] != nil ||
				h["http2-settings"] != nil {
				t.Errorf("%s: the app was asked %v", name, h)
			}
		}
	}
	hits := len(s.app.Requests())
	if a := s.get(t, "/ws", append(upgrade, cookie)...); a.status != 403 || len(s.app.Requests()) != hits {
		t.Errorf("on a route without WebSockets: %d, %d requests", a.status, len(s.app.Requests())-hits)
	}
	if a := s.get(t, "/ws", upgrade...); a.status != 401 {
		t.Errorf("without a session: %d", a.status)
	}
}

// With cookies of ten thousand names, a header of the limit's size is all there is.
func TestP17_ManyCookiesAreCheap(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	many := strings.Repeat("a=b; ", 12000)
	if a := s.get(t, "/x", "Cookie: "+many+s.mint(t, alice())); a.status != 200 {
		t.Errorf("answered %d", a.status)
	}
	if got := headerOf(s.app.Last(t))["cookie"]; len(got) != 1 || got[0] != strings.TrimRight(many, "; ") {
		t.Errorf("%d cookie lines of %d bytes arrived", len(got), len(fmt.Sprint(got)))
	}
}

// The browser's own view of it, over https: the jar keeps two cookies, the app none.
func TestP09_SessionCookiesAreHostOnly(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{TLS: true, Login: fixedLogin{who: alice()}})
	b := s.browser(t)
	state := s.begin(t, b, "/x")
	page := b.Open(s.url + prefix + "/callback/main?code=c&state=" + state)
	for _, hop := range page.Hops {
		for _, c := range hop.SetCookie {
			if !strings.HasPrefix(c.Name, "__Host-sallyport") || !c.Secure || !c.HttpOnly ||
				c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
				t.Errorf("set %s", c)
			}
		}
	}
	if page.Body != "ok" || testenv.HeaderLines(s.app.Last(t), "Cookie") != nil {
		t.Errorf("the app received\n%s", s.app.Last(t))
	}
	// A cookie of http must not count on https, nor one name for the other.
	name, value, _ := strings.Cut(s.mint(t, alice()), "=")
	for _, other := range []string{"sallyport-dev-443", "sallyport-dev-" + s.host[strings.LastIndexByte(s.host,
		':')+1:], "__Secure-sallyport", "__Host-sallyport-flow", "sallyport"} {
		if a := s.get(t, "/x", "Cookie: "+other+"="+value); a.status != 401 {
			t.Errorf("%s for %s: %d", other, name, a.status)
		}
	}
}
