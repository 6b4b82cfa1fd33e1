package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

func prefixes(tb testing.TB, all ...string) (out []netip.Prefix) {
	tb.Helper()
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		testenv.Check(tb, err)
		out = append(out, p)
	}
	return out
}

// What a proxy in front of us says counts only if that proxy is on the list, and
// of a chain only what proxies on the list wrote. Taking the leftmost address was
// caddy-defender CVE-2026-46415; IPv4-mapped addresses are CVE-2024-24790.
func TestP04_TheClientIsTheRightmostAddressNobodyVouchesFor(t *testing.T) {
	t.Parallel()
	trusted := prefixes(t, "10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32", "fe80::/10")
	many := strings.Repeat("10.0.0.9, ", 10000) + "10.0.0.8"
	for name, tt := range map[string]struct {
		peer  string
		chain []string
		want  string
	}{
		"no chain":            {"10.0.0.1:1", nil, "10.0.0.1"},
		"one address":         {"10.0.0.1:1", []string{"203.0.113.7"}, "203.0.113.7"},
		"a stranger's chain":  {"203.0.113.9:1", []string{"203.0.113.7"}, "203.0.113.9"},
		"a spoofed left part": {"10.0.0.1:1", []string{"10.9.9.9, 203.0.113.7"}, "203.0.113.7"},
		"a spoofed stranger": {"10.0.0.1:1", []string{"198.51.100.1, 203.0.113.7, 10.0.0.2"},
			"203.0.113.7"},
		"all trusted": {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"several lines": {"10.0.0.1:1", []string{"198.51.100.1", "203.0.113.7, 10.0.0.3", "10.0.0.2"},
			"203.0.113.7"},
		"an empty line last":              {"10.0.0.1:1", []string{"203.0.113.7", ""}, "10.0.0.1"},
		"garbage":                         {"10.0.0.1:1", []string{"a"}, "10.0.0.1"},
		"garbage left of a stranger":      {"10.0.0.1:1", []string{"a, 203.0.113.7"}, "203.0.113.7"},
		"garbage left of a proxy":         {"10.0.0.1:1", []string{"203.0.113.7, a, 10.0.0.2"}, "10.0.0.2"},
		"empty":                           {"10.0.0.1:1", []string{""}, "10.0.0.1"},
		"a comma":                         {"10.0.0.1:1", []string{","}, "10.0.0.1"},
		"unknown":                         {"10.0.0.1:1", []string{"unknown"}, "10.0.0.1"},
		"a name":                          {"10.0.0.1:1", []string{"client.example"}, "10.0.0.1"},
		"an address that is none":         {"10.0.0.1:1", []string{"256.1.1.1"}, "10.0.0.1"},
		"leading zeroes":                  {"10.0.0.1:1", []string{"010.0.0.1"}, "10.0.0.1"},
		"a port":                          {"10.0.0.1:1", []string{"203.0.113.7:4711"}, "203.0.113.7"},
		"a port that is none":             {"10.0.0.1:1", []string{"203.0.113.7:99999"}, "10.0.0.1"},
		"blanks and tabs":                 {"10.0.0.1:1", []string{" \t203.0.113.7\t "}, "203.0.113.7"},
		"IPv6":                            {"10.0.0.1:1", []string{"2001:470::1"}, "2001:470::1"},
		"IPv6 in brackets":                {"10.0.0.1:1", []string{"[2001:470::1]"}, "2001:470::1"},
		"IPv6 and a port":                 {"10.0.0.1:1", []string{"[2001:470::1]:443"}, "2001:470::1"},
		"half a bracket":                  {"10.0.0.1:1", []string{"[2001:470::1"}, "10.0.0.1"},
		"brackets the wrong way":          {"10.0.0.1:1", []string{"]203.0.113.7["}, "10.0.0.1"},
		"brackets around IPv4":            {"10.0.0.1:1", []string{"[203.0.113.7]"}, "10.0.0.1"},
		"a zone":                          {"10.0.0.1:1", []string{"2001:470::1%eth0"}, "2001:470::1"},
		"v4 within v6 is v4":              {"10.0.0.1:1", []string{"203.0.113.7, ::ffff:10.0.0.2"}, "203.0.113.7"},
		"a peer within v6":                {"[::ffff:10.0.0.1]:1", []string{"203.0.113.7"}, "203.0.113.7"},
		"a stranger within v6":            {"[::ffff:203.0.113.9]:1", []string{"203.0.113.7"}, "203.0.113.9"},
		"a peer of IPv6":                  {"[2001:db8::1]:1", []string{"203.0.113.7"}, "203.0.113.7"},
		"a stranger of IPv6":              {"[2001:db9::1]:1", []string{"203.0.113.7"}, "2001:db9::1"},
		"quotes":                          {"10.0.0.1:1", []string{`"203.0.113.7"`}, "10.0.0.1"},
		"for= of another header":          {"10.0.0.1:1", []string{"for=203.0.113.7"}, "10.0.0.1"},
		"10,000 entries end":              {"10.0.0.1:1", []string{"203.0.113.7, " + many}, "10.0.0.9"},
		"10,000 entries and a stranger":   {"10.0.0.1:1", []string{many + ", 203.0.113.7"}, "203.0.113.7"},
		"10,000 lines":                    {"10.0.0.1:1", strings.Split(many, ", "), "10.0.0.9"},
		"a unix socket has no address":    {"@", []string{"203.0.113.7"}, ""},
		"X-Real-IP and Forwarded are not": {"10.0.0.1:1", nil, "10.0.0.1"},
	} {
		p := peers{scheme: "https", trusted: trusted}
		r := &http.Request{RemoteAddr: tt.peer, Host: "app.example", Header: http.Header{"X-Forwarded-For": tt.chain,
			"X-Real-Ip": {"198.51.100.77"}, "Forwarded": {"for=198.51.100.78;proto=http;host=evil.example"},
			"True-Client-Ip": {"198.51.100.79"}}}
		got, err := p.of(r)
		if err != nil || got.client != tt.want || got.host != "app.example" || got.scheme != "https" {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, tt.want)
		}
		if got, _ := (peers{scheme: "https"}).of(r); tt.peer != "@" &&
			got.client != netip.MustParseAddrPort(tt.peer).Addr().Unmap().String() {
			t.Errorf("%s: with nobody trusted the client is %s", name, got.client)
		}
	}
}

// The same through the front door: whom the app and the log are told of, and
// which host and scheme are judged. Nobody is trusted by default.
func TestP04_ForwardedFactsCountOnlyFromTheList(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                 string
		trusted              []string
		lines                []string
		status               int
		client, host, scheme string
	}{
		{"nobody is trusted by default", nil, []string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-Host: " +
			"evil.example", "X-Forwarded-Proto: https"}, 200, "127.0.0.1", "{host}", "http"},
		{"another peer is", []string{"10.0.0.0/8"}, []string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-Host: " +
			"evil.example", "X-Forwarded-Proto: https"}, 200, "127.0.0.1", "{host}", "http"},
		{"this peer is", []string{"127.0.0.0/8"}, []string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-Host: {host}",
			"X-Forwarded-Proto: https"}, 200, "203.0.113.7", "{host}", "https"},
		{"a WebSocket behind Traefik", []string{"127.0.0.0/8"},
			[]string{"X-Forwarded-Host: {host}", "X-Forwarded-Proto: wss"}, 200, "127.0.0.1", "{host}", "https"},
		{"the same without TLS", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto: ws"}, 200, "127.0.0.1", "{host}",
			"http"},
		{"and says nothing", []string{"127.0.0.0/8"}, nil, 200, "127.0.0.1", "{host}", "http"},
		{"a host that is not served", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Host: evil.example"}, 404, "", "",
			""},
		{"two hosts", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Host: {host}, evil.example"}, 400, "", "", ""},
		{"two lines of hosts", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Host: {host}",
			"X-Forwarded-Host: {host}"}, 400, "", "", ""},
		{"a host that is none", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Host: a;for=1.2.3.4"}, 400, "", "", ""},
		{"two schemes", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto: https,http"}, 400, "", "", ""},
		{"a scheme that is none", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto: javascript"}, 400, "", "", ""},
		{"a scheme in capitals", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto: HTTPS"}, 400, "", "", ""},
		{"an empty scheme", []string{"127.0.0.0/8"}, []string{"X-Forwarded-Proto:"}, 200, "127.0.0.1", "{host}",
			"http"},
		{"other dialects", []string{"127.0.0.0/8"}, []string{"Forwarded: " +
			"for=203.0.113.7;host=evil.example;proto=https", "X-Real-IP: 203.0.113.7", "X-Forwarded-Ssl: on",
			"X-Forwarded-Uri: /admin", "X-Original-Url: /admin", "X_Forwarded_For: 203.0.113.7",
			"X-Forwarded_Proto: https"}, 200, "127.0.0.1", "{host}", "http"},
		{"named in Connection", []string{"127.0.0.0/8"}, []string{"X-Forwarded-For: 203.0.113.7", "Connection: " +
			"x-forwarded-for, x-forwarded-proto"}, 200, "203.0.113.7", "{host}", "http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestSite(t, setup{Trusted: prefixes(t, tt.trusted...)})
			fill := strings.NewReplacer("{host}", s.host).Replace
			lines := []string{"Cookie: " + s.mint(t, alice())}
			for _, l := range tt.lines {
				lines = append(lines, fill(l))
			}
			a := s.wire(t).do("GET", rawRequest("GET", "/x", s.host, lines...))
			if a.status != tt.status {
				t.Fatalf("answered %d, want %d", a.status, tt.status)
			}
			if tt.status != 200 {
				if n := len(s.app.Requests()); n != 0 {
					t.Errorf("%d requests reached the app", n)
				}
				return
			}
			raw := s.app.Last(t)
			for name, want := range map[string]string{"X-Forwarded-For": tt.client, "X-Forwarded-Host": fill(tt.host),
				"X-Forwarded-Proto": tt.scheme, "Host": s.host} {
				if got := testenv.HeaderLines(raw, name); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if strings.Contains(string(raw), "evil") ||
				len(headerOf(raw)["x-real-ip"])+len(headerOf(raw)["forwarded"]) > 0 {
				t.Errorf("the app received\n%s", raw)
			}
			if line := s.log.event(t, a.header.Get("X-Request-Id")); line["client"] != tt.client ||
				line["host"] != fill(tt.host) {
				t.Errorf("logged client %v, host %v", line["client"], line["host"])
			}
		})
	}
}

// Behind a proxy that asks us by another name, both the log and the page that
// explains a loop speak of the address that the browser used.
func TestPagesNameTheAddressThatTheBrowserUsed(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Public: "http://app.example.com", Login: fixedLogin{},
		Trusted: prefixes(t, "127.0.0.0/8")})
	lines := navigate("Host: sallyport.internal:4180", "X-Forwarded-Host: app.example.com")
	first := s.ask(t, "GET", "http://"+s.addr+prefix+"/login", "", lines...)
	flow, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
	browser := s.proxy.sessions.BrowserID(&http.Request{Header: http.Header{"Cookie": {flow}}})
	for range loopLimit - 1 {
		s.proxy.loops.completed(browser)
		s.proxy.loops.looping(browser)
	}
	s.proxy.loops.completed(browser)
	a := s.ask(t, "GET", "http://"+s.addr+prefix+"/login", "", append(lines, "Cookie: "+flow)...)
	if a.status != 400 || !strings.Contains(a.body, "<dd><code>http://app.example.com</code></dd>") ||
		strings.Contains(a.body, "internal") || strings.Contains(a.body, "not the same") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	if line := s.log.event(t, a.header.Get("X-Request-Id")); line["host"] != "app.example.com" {
		t.Errorf("logged host %v", line["host"])
	}
}

// A link-local peer comes with the name of our network interface.
func TestP04_ALinkLocalProxyIsOnTheList(t *testing.T) {
	t.Parallel()
	p := peers{trusted: prefixes(t, "fe80::/10")}
	r := &http.Request{RemoteAddr: "[fe80::1%eth0]:4000", Host: "a.example",
		Header: http.Header{"X-Forwarded-Host": {"b.example"}}}
	if at, err := p.of(r); err != nil || at.client != "fe80::1" || at.host != "b.example" {
		t.Errorf("%+v, %v", at, err)
	}
}
