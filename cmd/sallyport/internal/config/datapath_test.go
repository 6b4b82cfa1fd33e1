package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// faultOf is the only fault of a file, without its place.
func faultOf(t *testing.T, text string) string {
	t.Helper()
	_, faults := Parse("config.yaml", []byte(text))
	if len(faults) != 1 {
		t.Fatalf("%d faults, want one:\n%v", len(faults), faults)
	}
	_, message, _ := strings.Cut(faults[0].Error(), ": ")
	return message
}

func TestAnUpstreamIsReadAsItIsUsed(t *testing.T) {
	for in, want := range map[string]string{
		"http://App.Internal:8080":       "http://app.internal:8080",
		"HTTP://app:80/":                 "http://app",
		"https://app":                    "https://app",
		"https://app:443":                "https://app",
		"https://app:8443":               "https://app:8443",
		"https://[0:0:0:0:0:0:0:1]:8443": "https://[::1]:8443",
		"h2c://127.0.0.1:50051":          "h2c://127.0.0.1:50051",
		"H2C://App:80/":                  "h2c://app",
		"unix:/run/App.sock":             "unix:///run/App.sock",
	} {
		for _, form := range []string{"'" + in + "'", "{url: '" + in + "'}"} {
			c := parse(t, with(t, "http://127.0.0.1:8080", form))
			up := c.Routes[0].Upstream
			if up.URL.String() != want || up.Connect != 5*time.Second || up.Header != 30*time.Second ||
				up.Idle != 5*time.Minute {
				t.Errorf("%s is read as %+v, want %s with the default timeouts", form, up, want)
			}
		}
	}
	for _, in := range []string{"http:app", "http://", "http://:80", "http://app:0", "http://app:", "http://app?",
		"http://app#", "http://app//", "//app",
		"https://app/x", "https://app?x", "https://a_b c", "https://[::1%25lo]", "h2c://app:8080/x", "h2c:app:8080",
		"h2c://", "h2cs://app",
		"unix:run/app.sock", "unix:", "unix:/", "unix://app", "unix:/run/../app.sock", "unix:/run/app.sock/",
		"unix:/run//app.sock", "unix:/run/app sock",
		"Unix:/run/app.sock", "unix:@abstract", "tcp://app:80", "env:APP", "file:/app"} {
		for _, form := range []string{"'" + in + "'", "{url: '" + in + "'}"} {
			if got := faultOf(t, with(t, "http://127.0.0.1:8080", form)); !strings.Contains(got, "must be") {
				t.Errorf("%s: %s", form, got)
			}
		}
	}
}

func TestTheWayToAnAppIsReadAsItIsUsed(t *testing.T) {
	c := parse(t, string(read(t, "testdata/good/data-path.yaml")))
	app := c.Routes[0]
	up := app.Upstream
	if up.URL.String() != "https://app.internal:8443" || up.Host != "app.internal" ||
		up.ServerName != "app.cluster.local" || up.CA.String() != "file:/etc/sallyport/app-ca.pem" {
		t.Errorf("upstream: %+v", up)
	}
	if up.Connect != 100*time.Millisecond || up.Header != 24*time.Hour || up.Idle != time.Second {
		t.Errorf("timeouts: %+v", up)
	}
	if want := []string{"https://app.example.com", "https://other.example.com:8443",
		"http://localhost:3000"}; !app.WebSocket.Allowed || !slices.Equal(app.WebSocket.Origins, want) {
		t.Errorf("websocket: %+v", app.WebSocket)
	}
	if !app.Encoded || app.MaxBody != 1<<40 {
		t.Errorf("encoded %v, max_body %d", app.Encoded, app.MaxBody)
	}
	grpc := c.Routes[2]
	if !grpc.WebSocket.Allowed || grpc.WebSocket.Origins != nil || grpc.MaxBody != 1 || grpc.Encoded {
		t.Errorf("grpc: %+v", grpc)
	}
	if up.Transport != TransportLean || grpc.Upstream.Transport != TransportLean {
		t.Errorf("transports %q, %q", up.Transport, grpc.Upstream.Transport)
	}
	socket := c.Routes[4].Upstream
	if socket.URL.Scheme != "unix" || socket.URL.Path != "/run/app.sock" || socket.Host != "[::1]:8080" ||
		socket.Transport != TransportStandard || socket.Idle != time.Hour || socket.Connect != 5*time.Second {
		t.Errorf("socket: %+v", socket)
	}
}

func TestAnAppsAuthorityIsReadFromWhereItIs(t *testing.T) {
	certificate := certificatePEM(t)
	c := parse(t, string(read(t, "testdata/good/data-path.yaml")))
	fsys := disk()
	fsys["run/secrets/session-key"] = aFile(0o600, "key")
	env := func(name string) (string, bool) {
		value, ok := map[string]string{"CLIENT_SECRET": "secret", "TWIN_CA": certificate}[name]
		return value, ok
	}
	faults := c.Resolve(env, fsys)
	if len(faults) != 1 || faults[0].Path != "routes[0].upstream.ca" || faults[0].Line != 22 {
		t.Fatalf("without the file: %v", faults)
	}
	fsys["etc/sallyport/app-ca.pem"] = aFile(0o644, certificate+"\n")
	if faults := c.Resolve(env, fsys); faults != nil {
		t.Fatal(faults)
	}
	if app, twin := c.Routes[0].Upstream.CA.Value(), c.Routes[1].Upstream.CA.Value(); app != certificate ||
		twin != certificate {
		t.Errorf("read %q and %q", app, twin)
	}
}

func TestValuesOfTheWayToAnAppThatAreRefused(t *testing.T) {
	for change, want := range map[string]string{
		"host: ''":               "routes[0].upstream.host: is empty; must be a host in lower case",
		"host: App":              "routes[0].upstream.host: must be a host in lower case",
		"host: app.":             "routes[0].upstream.host: must be a host in lower case",
		"host: 'app:'":           "routes[0].upstream.host: must be a host in lower case",
		"host: 'app:0'":          "routes[0].upstream.host: must be a host in lower case",
		"host: 'app:080'":        "routes[0].upstream.host: must be a host in lower case",
		"host: '*.app'":          "routes[0].upstream.host: must be a host in lower case",
		"host: 'app/x'":          "routes[0].upstream.host: must be a host in lower case",
		"host: 'a@b'":            "routes[0].upstream.host: must be a host in lower case",
		"host: '[fe80::1%25lo]'": "routes[0].upstream.host: must be a host in lower case",
		"host: '[::FFFF]'":       "routes[0].upstream.host: must be a host in lower case",
		"host: '[0:0::1]'":       "routes[0].upstream.host: must have its IPv6 address",
		"server_name: App":       "routes[0].upstream.server_name: must be a DNS name",
		"server_name: 'app:443'": "routes[0].upstream.server_name: must be a DNS name",
		"server_name: '*.app'":   "routes[0].upstream.server_name: must be a DNS name",
		"server_name: '::1'": "routes[0].upstream.server_name: must be a DNS name in lower case such as " +
			"app.example.com, not the address",
		"ca: literal:x": "routes[0].upstream.ca: must be a reference: file:/path or env:NAME",
		"ca: [file:/a, file:/b]": "routes[0].upstream.ca: must be a reference: file:/path or env:NAME, not a " +
			"list",
		"timeouts: 5s":                       "routes[0].upstream.timeouts: must be a mapping",
		"timeouts: {connect: 99ms}":          "routes[0].upstream.timeouts.connect: must be from 100ms to 1m",
		"timeouts: {connect: 61s}":           "routes[0].upstream.timeouts.connect: must be from 100ms to 1m",
		"timeouts: {header: 99ms}":           "routes[0].upstream.timeouts.header: must be from 100ms to 24h",
		"timeouts: {header: 24h1s}":          "routes[0].upstream.timeouts.header: must be from 100ms to 24h",
		"timeouts: {keep_alive: 99ms}":       "routes[0].upstream.timeouts.keep_alive: must be from 100ms to 1h",
		"timeouts: {keep_alive: 0s}":         "routes[0].upstream.timeouts.keep_alive: must be from 100ms to 1h",
		"timeouts: {idle: 999ms}":            "routes[0].upstream.timeouts.idle: must be from 1s to 24h",
		"timeouts: {idle: 25h}":              "routes[0].upstream.timeouts.idle: must be from 1s to 24h",
		"timeouts: {idle: 60}":               "routes[0].upstream.timeouts.idle: must be a duration",
		"timeouts: {conect: 1s}":             `routes[0].upstream.timeouts.conect: unknown field (did you mean "connect"?)`,
		"servername: app":                    `routes[0].upstream.servername: unknown field (did you mean "server_name"?)`,
		"insecure_skip_verify: true":         "routes[0].upstream.insecure_skip_verify: unknown field",
		"transport: plain":                   "routes[0].upstream.transport: must be lean or standard, not",
		"url: 'http://b'":                    "routes[0].upstream.url: is already given in line 14",
		"host: app.example.com:99999":        "routes[0].upstream.host: must be a host in lower case",
		"host: 'app.example.com, b.example'": "routes[0].upstream.host: must be a host in lower case",
	} {
		if got := faultOf(t, with(t, "http://127.0.0.1:8080", "{url: 'https://app:8443', "+
			""+change+"}")); !strings.HasPrefix(got, want) {
			t.Errorf("%s:\ngot  %s\nwant %s…", change, got, want)
		}
	}
	for change, want := range map[string]string{
		"websocket: 'true'":                                  "must be true or left out",
		"websocket: {origins: []}":                           "must be a list with at least 1 entry",
		"websocket: {origins: 'https://a.example'}":          "must be a list",
		"websocket: {origins: ['*']}":                        "must be one origin",
		"websocket: {origins: ['null']}":                     "must be an absolute URL",
		"websocket: {origins: ['a.example']}":                "must be an absolute URL",
		"websocket: {origins: ['wss://a.example']}":          "must be an absolute URL",
		"websocket: {origins: ['https://a.example/x']}":      "must be a URL without path",
		"websocket: {origins: ['https://a.example?']}":       "must be a URL without path",
		"websocket: {origins: ['http://a.example']}":         "must be https",
		"websocket: {origins: ['http://127.0.0.1.example']}": "must be https",
		"websocket: {origins: ['http://localhost:80']}":      `must be written as browsers write it, not "http://localhost:80" (did you mean "http://localhost"?)`,
		"websocket: {origins: ['https://a.example:443']}":    `must be written as browsers write it, not "https://a.example:443" (did you mean "https://a.example"?)`,
		"websocket: {origin: 'https://a.example'}":           `unknown field (did you mean "origins"?)`,
		"encoded: true":          "must be forward or left out, not true",
		"encoded: Forward":       `must be forward or left out, not "Forward" (did you mean "forward"?)`,
		"via: true":              "must be false or left out",
		"via: \"false\"":         "must be false or left out",
		"site_headers: []":       "must be a list with at least 1",
		"site_headers: [Server]": "must be Alt-Svc or NEL",
		"max_body: 10":           "must be a size such as",
		"max_body: 10MB":         "must be a size such as",
		"max_body: 1TiB":         "must be a size such as",
		"max_body: 1.5GiB":       "must be a size such as",
		"max_body: 0GiB":         "must be from 1B to 1024GiB",
		"max_body: 1025GiB":      "must be from 1B to 1024GiB",
		"max_body: 999999999GiB": "must be from 1B to 1024GiB",
	} {
		_, faults := Parse("config.yaml", []byte(valid+"    "+change+"\n"))
		if len(faults) == 0 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant …%s", change, faults, want)
		}
	}
}

func TestAdminIsAnAddressOrAMapping(t *testing.T) {
	for in, want := range map[string]string{
		`":9"`:                            ":9 []",
		`""`:                              " []",
		`{address: ":9"}`:                 ":9 []",
		`{address: ":9", app_probes: {}}`: ":9 []",
		`{address: ":9", app_probes: {/z: "http://b", /a: "http://[::1]:8/x?y=1", /~.a-_/..b: "HTTP://B:80/"}}`: ":9 [/z=http://b /a=http://[::1]:8/x?y=1 /~.a-_/..b=http://B:80/]",
	} {
		c := parse(t, valid+"listen: {admin: "+in+"}\n")
		probes := []string{}
		for _, p := range c.Listen.Admin.Probes {
			probes = append(probes, p.Path+"="+p.Target.String())
		}
		if got := fmt.Sprint(c.Listen.Admin.Address, " ", probes); got != want {
			t.Errorf("%s is read as %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{`[":9"]`, `9`, `{}`, `{address: ""}`, `{address: "9"}`,
		`{address: ":9", app_probes: []}`,
		`{app_probes: {/a: "http://b"}}`} {
		faultOf(t, valid+"listen: {admin: "+in+"}\n")
	}
	for _, name := range []string{"/", "a", "''", "/a/", "//a", "/a//b", "/.", "/..", "/a/./b", "/a/..", "/a b",
		"/a%20b",
		"/a?b", "'/a#b'", "/ä", "'/{$}'", "/metrics", "/healthz", "/readyz", "/log-level"} {
		got := faultOf(t, valid+"listen: {admin: {address: ':9', app_probes: {"+name+": 'http://b'}}}\n")
		if !strings.Contains(got, "path") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, target := range []string{"'https://b'", "'unix:/run/app.sock'", "'http://'", "'http://b#x'", "'http://b/x#'",
		"'http://ann@b'", "'http://b/a b'", "'http://b:0/'", "'b:80/x'", "'/x'", "'http:/b'", "'http://b/%zz'", "''",
		"7", "{url: 'http://b'}", ""} {
		faultOf(t, valid+"listen: {admin: {address: ':9', app_probes: {/a: "+target+"}}}\n")
	}
}

func TestTrustedProxiesAreAddressesAndRanges(t *testing.T) {
	c := parse(t, valid+"trusted_proxies: [10.0.0.0/8, 192.0.2.7, fd00::/8, '::1', 'FD00:0::2']\n")
	want := []string{"10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "::1/128", "fd00::2/128"}
	for i, p := range c.TrustedProxies {
		if p.String() != want[i] {
			t.Errorf("%d is %s, want %s", i, p, want[i])
		}
	}
	if !c.TrustedProxies[0].Contains(netip.MustParseAddr("10.9.8.7")) ||
		c.TrustedProxies[1].Contains(netip.MustParseAddr("192.0.2.8")) {
		t.Error("a range covers something else than it says")
	}
	for in, want := range map[string]string{
		"10.0.0.1/8":             `must begin with the first address of the range, not "10.0.0.1/8" (did you mean "10.0.0.0/8"?)`,
		"fd00::1/8":              `(did you mean "fd00::/8"?)`,
		"::ffff:10.0.0.1":        `must be written as IPv4, as it is compared, not "::ffff:10.0.0.1" (did you mean "10.0.0.1"?)`,
		"::ffff:10.0.0.1/104":    `(did you mean "10.0.0.0/8"?)`,
		"::ffff:0.0.0.0/96":      `must be written as IPv4, as it is compared, not "::ffff:0.0.0.0/96"`,
		"0.0.0.0/0":              "must not be all addresses",
		"10.0.0.0/0":             "must not be all addresses",
		"::/0":                   "must not be all addresses",
		"::1/0":                  "must not be all addresses",
		"fe80::1%eth0":           "must be an address such as",
		"fe80::%eth0/64":         "must be an address such as",
		"10.0.0.0/33":            "must be an address such as",
		"10.0.0.0/08":            "must be an address such as",
		"10.0.0.0/":              "must be an address such as",
		"10.0.0.0/-1":            "must be an address such as",
		"10.0.0":                 "must be an address such as",
		"010.0.0.1":              "must be an address such as",
		"[::1]":                  "must be an address such as",
		"10.0.0.1:80":            "must be an address such as",
		"10.0.0.1-10.0.0.9":      "must be an address such as",
		"*":                      "must be an address such as",
		"proxy.example.com":      "must be an address such as",
		"10.0.0.0/8, 11.0.0.0/8": "must be an address such as",
	} {
		if got := faultOf(t, valid+"trusted_proxies: ['"+in+"']\n"); !strings.Contains(got, want) {
			t.Errorf("%s:\ngot  %s\nwant …%s", in, got, want)
		}
	}
	for _, in := range []string{"10", "10.5", "true", "[10.0.0.1]", "{}", ""} {
		faultOf(t, valid+"trusted_proxies:\n  - "+in+"\n")
	}
}

func TestH2CIsForPlainHTTP(t *testing.T) {
	for _, in := range []string{"{h2c: true}", "{http: ':80', h2c: true}"} {
		if c := parse(t, valid+"listen: "+in+"\n"); !c.Listen.H2C || c.Listen.HTTP.Address == "" {
			t.Errorf("%s: %+v", in, c.Listen)
		}
	}
	faultOf(t, valid+"listen: {h2c: true, https: {address: ':443', cert: file:/a, key: file:/b}}\n")
	faultOf(t, valid+"listen: {h2c: false}\n")
}

// Faults are no longer collected after the hundredth; what they were about is
// missing all the same.
func TestP17_AFaultBeyondTheLastOneIsStillAFault(t *testing.T) {
	text := valid
	for i := range 2 * yamltable.MaxFaults {
		text = fmt.Sprintf("key%d: 1\n", i) + text
	}
	text = strings.Replace(text, "upstream: http://127.0.0.1:8080", "upstream: {url: 'ftp://app', ca: file:/ca.pem}",
		1) +
		"    websocket: {origins: ['ftp://x']}\n" +
		"listen: {h2c: true, https: {address: 1, cert: x, key: y}, admin: {address: 1, app_probes: {x: " +
		"ftp://y}}}\ntrusted_proxies: [x]\n"
	if c, faults := Parse("config.yaml", []byte(text)); c != nil || len(faults) != yamltable.MaxFaults {
		t.Errorf("config %v, %d faults", c != nil, len(faults))
	}
}

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for n, want := range map[int64]string{1: "1B", 1023: "1023B", 1024: "1KiB", 1025: "1025B", 64 << 10: "64KiB",
		3 << 20: "3MiB", 1 << 30: "1GiB", 1 << 40: "1024GiB", 0: "0B"} {
		if got := yamltable.Size(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
		if n == 0 {
			continue
		}
		if c := parse(t, valid+"    max_body: "+want+"\n"); c.Routes[0].MaxBody != n {
			t.Errorf("%s is read as %d, want %d", want, c.Routes[0].MaxBody, n)
		}
	}
}

// wrongWay says what no configuration that was accepted may hold.
func wrongWay(r Route) string {
	up := r.Upstream
	if up.URL == nil { // for external authorization only
		return ""
	}
	bare := url.URL{Scheme: up.URL.Scheme, Host: up.URL.Host}
	switch {
	case up.URL.Scheme == "unix" && (up.URL.Path != path.Clean(up.URL.Path) || up.URL.Path[0] != '/' ||
		up.URL.Host != ""):
		return "a socket without a clean path"
	case up.URL.Scheme != "unix" && (*up.URL != bare || up.URL.Hostname() == "" ||
		!slices.Contains([]string{"http", "https", "h2c"}, up.URL.Scheme)):
		return "more or less than a scheme and a host"
	case up.URL.Scheme != "https" && (!up.CA.IsZero() || up.ServerName != ""):
		return "TLS without TLS"
	case min(up.Connect, up.Header) < 100*time.Millisecond || up.Connect > time.Minute ||
		max(up.Header, up.Idle) > 24*time.Hour || up.Idle < time.Second:
		return "a timeout out of bounds"
	case !r.WebSocket.Allowed && len(r.WebSocket.Origins) > 0:
		return "origins for nobody"
	case r.MaxBody < 0 || r.MaxBody > 1<<40:
		return "a body out of bounds"
	}
	for _, o := range r.WebSocket.Origins {
		if u, err := url.Parse(o); err != nil || u.Scheme+"://"+u.Host != o || o != strings.ToLower(o) ||
			strings.Contains(o, "*") {
			return "an origin that no browser sends"
		}
	}
	return ""
}

func TestViaAndSiteHeadersAreRead(t *testing.T) {
	r := parse(t, valid+"    via: false\n    site_headers: [NEL, Alt-Svc]\n").Routes[0]
	if !r.NoVia || !slices.Equal(r.SiteHeaders, []string{"NEL", "Alt-Svc"}) {
		t.Errorf("via off %v, site_headers %v", r.NoVia, r.SiteHeaders)
	}
}

// TestP04_EverybodyMayNameTheirAddressIsWarnedOf, and a list is read for both listeners.
func TestP04_EverybodyMayNameTheirAddressIsWarnedOf(t *testing.T) {
	for in, warned := range map[string]bool{
		"http: {address: ':80', proxy_protocol: [10.0.0.0/8, 192.0.2.7]}":                                    false,
		"http: {address: ':80', proxy_protocol: [10.0.0.0/8, 0.0.0.0/0]}":                                    true,
		"https: {address: ':443', cert: file:/a, key: file:/b, proxy_protocol: [10.0.0.0/8, '::/0']}":        true,
		"https: {address: ':443', cert: file:/a, key: file:/b, proxy_protocol: ['fd00::/8', '2001:db8::7']}": false,
	} {
		c := parse(t, valid+"listen: {"+in+"}\n")
		if len(c.Listen.HTTP.ProxyProtocol)+len(c.Listen.HTTPS.ProxyProtocol) != 2 {
			t.Errorf("%s: %+v", in, c.Listen)
		}
		got := c.Warnings()
		if len(got) > 0 != warned || warned && !strings.Contains(got[0].Error(), "proxy_protocol[1]: is all "+
			"addresses") {
			t.Errorf("%s: %v", in, got)
		}
	}
}

// TestARouteThatLeadsBackHereIsWarnedOf: every request for it would be a loop.
func TestARouteThatLeadsBackHereIsWarnedOf(t *testing.T) {
	for _, tt := range []struct {
		listen, upstream string
		warned           bool
	}{
		{"http: ':4180'", "http://127.0.0.1:4180", true},
		{"http: '127.0.0.1:4180'", "http://localhost:4180", true},
		{"http: 'localhost:4180'", "h2c://127.0.0.1:4180", true},
		{"https: {address: ':443', cert: file:/a, key: file:/b}", "https://127.0.0.1", true},
		{"http: '127.0.0.1:4180'", "http://127.0.0.1:8080", false},
		{"http: '127.0.0.1:4180'", "http://127.0.0.2:4180", false},
		{"http: ':4180'", "http://app.example.com:4180", false},
		{"http: ':4180'", "http://127.0.0.1:4181", false}, // metrics for people who are signed in
		{"http: ':4180'", "unix:/run/app.sock", false},
	} {
		c := parse(t, strings.Replace(valid, "http://127.0.0.1:8080", tt.upstream, 1)+"listen: {"+tt.listen+"}\n")
		got := c.Warnings()
		if len(got) > 0 != tt.warned || tt.warned && (got[0].Path != "routes[0].upstream" ||
			!strings.Contains(got[0].Error(), "leads back to Sallyport itself")) {
			t.Errorf("%s, %s: %v", tt.listen, tt.upstream, got)
		}
	}
}
