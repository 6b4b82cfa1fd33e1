package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// addresses are those that the guides of fronts name, as they are in a test.
type addresses struct {
	front, public, asked, app string
	dir                       string // for files of the front
}

// behindFront is a site whose front asks Sallyport, with the first configuration in YAML of
// the front's guide. Its hosts are those of the test's certificate: app.example.com is
// publicHost, wiki.example.com is otherSite. runs starts the front.
func behindFront(t *testing.T, guide string, runs func(*testing.T, addresses) *process) *corp {
	t.Helper()
	return behindFrontWith(t, guide, "", "", runs)
}

// behindFrontWith is behindFront with another app, unless that is "", more routes, and more
// in Sallyport's configuration that is not as in the guide.
func behindFrontWith(t *testing.T, guide, app, routes string, runs func(*testing.T, addresses) *process,
	replace ...string,
) *corp {
	t.Helper()
	dir, err := os.MkdirTemp(world.dir, "front-")
	if err != nil {
		t.Fatal(err)
	}
	at := addresses{need(t, freeAddress), need(t, freeAddress), need(t, freeAddress), app, dir}
	url := "https://" + publicHost + portOf(at.front)
	routes += "  - {name: near, path: /near, public: {from: [10.0.0.0/8]}}\n" // no peer of this test
	c := serveGuide(t, dir, guide, url, routes, append(replace, "wiki.example.com", otherSite, "127.0.0.1:4180",
		at.public, "127.0.0.1:4182", at.asked, "groups: [ops]", "groups: [board]")...)
	if app == "" {
		at.app = strings.TrimPrefix(c.app.URL, "http://")
	}
	f := runs(t, at)
	t.Cleanup(f.stop)
	f.showIfFailed(t)
	f.listens(t, at.front)
	return c
}

// plainListener is one without TLS: only there may listen.lane be set.
var plainListener = regexp.MustCompile(`(?m)^  (http|external_auth):`)

// serveGuide runs Sallyport at url until the test ends, with the first configuration in YAML
// of a guide, more routes, files in dir, and a provider and an app. replace are pairs: what
// else is not as in the guide.
func serveGuide(t *testing.T, dir, guide, url, routes string, replace ...string) *corp {
	t.Helper()
	c := &corp{app: startApp()}
	t.Cleanup(c.app.server.Close)
	c.provider = need(t, func() (*provider, error) { return startProvider(url, false) })
	t.Cleanup(c.provider.stop)
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	keyFile, file := filepath.Join(dir, "key"), filepath.Join(dir, "sallyport.yaml")
	listen := "listen:\n  admin: \"\"\n"
	if inLane() && plainListener.MatchString(guideBlock(t, guide, "yaml")) {
		listen += "  lane: true\n"
	}
	config := guideBlock(t, guide, "yaml", append(replace, "https://app.example.com", url,
		"/run/secrets/session-key", keyFile, "listen:\n", listen,
		"https://sso.example.com", c.provider.Issuer, "client_id: sallyport", "client_id: "+c.provider.ClientID,
		"client_secret: env:CLIENT_SECRET", fmt.Sprintf("client_secret: %q, scopes: [openid, profile, email, groups]",
			"literal:"+c.provider.ClientSecret))...) + routes + "log: {format: text}\n"
	if err := errors.Join(os.WriteFile(keyFile, key, 0o600), os.WriteFile(file, []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	p, err := start(dir, world.binary, "serve", "-c", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	cookie := "" // the name is found by the port
	if strings.HasPrefix(url, "https:") {
		cookie = "__Host-sallyport"
	}
	if c.site, err = newSite(p, cookie); err != nil {
		t.Fatal(err)
	}
	c.showIfFailed(t)
	return c
}

// dialRaw is a connection to the site over which a test writes bytes of its own.
func (c *corp) dialRaw(t *testing.T) net.Conn {
	t.Helper()
	scheme, host, _ := strings.Cut(c.url, "://")
	var conn net.Conn
	var err error
	if scheme == "https" {
		conn, err = tls.Dial("tcp", "127.0.0.1"+portOf(host), &tls.Config{RootCAs: need(t, world.cert).pool,
			ServerName: publicHost, NextProtos: []string{"http/1.1"}})
	} else {
		conn, err = net.Dial("tcp", host)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// raw sends one request as it stands, and returns the answer and the headers that the
// app got, if it is the app's.
func (c *corp) raw(t *testing.T, request string) (*http.Response, http.Header) {
	t.Helper()
	conn := c.dialRaw(t)
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request[:min(len(request), 300)], err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	var told http.Header
	_ = json.Unmarshal(body, &told) // else it is not the app's list
	return resp, told
}

// writes is a request for the site, without its blank line.
func (c *corp) writes(method, target string, lines ...string) string {
	_, host, _ := strings.Cut(c.url, "://")
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" +
		strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

// writesUpgrade asks for a WebSocket.
func (c *corp) writesUpgrade(target string, lines ...string) string {
	return strings.Replace(c.writes("GET", target, append([]string{"Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, lines...)...), "Connection: close", "Connection: Upgrade", 1)
}

// shown is what people and programs see through a front of Sallyport's refusals: the headings
// of its pages and whether its JSON arrives.
type shown struct {
	forbidden, formLost string
	json                bool
}

// asSallyportSays is what a front shows that passes Sallyport's answers on.
func asSallyportSays() shown {
	return shown{"This is not for you", "You were signed out; your form was not sent", true}
}

// frontSignsIn is a browser that signs in through a front: once for two hosts, with deep
// links, a form, the account page, and the end of it all.
func frontSignsIn(t *testing.T, c *corp, sees shown) {
	b := newPerson(t)
	const deep = "/deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b"
	b.says(b.signInAtProvider(c.url+deep, "mira"), "You asked for "+deep, "User: corp:mira", "Email: mira@corp.example",
		"Groups: engineering,ops")
	wiki := "https://" + otherSite + portOf(c.url)
	b.open(wiki + deep)
	b.says(b.at(wiki+deep), "You asked for "+deep, "User: corp:mira")

	b.open(c.url + "/form")
	b.heading("A form")
	eval[bool](b, `(document.querySelector('#note').value = 'hello', true)`)
	b.click("#save")
	b.says(b.heading("Saved"), "POST: hello", "Origin: "+c.url)

	b.open(c.url + "/admin")
	b.heading(sees.forbidden)
	b.open(c.url + "/form")
	b.heading("A form")
	page := b.another() // the form is left open while its person signs out
	page.open(c.url + "/.sallyport/account")
	page.says(page.heading("Your account"), "mira@corp.example")
	page.press("Sign out")
	page.heading("You are signed out")
	got := eval[string](b, `fetch('/headers').then(async r => r.status + ' ' + r.redirected + ' ' +
		/login_required/.test(await r.text()) + ' ' + r.headers.get('WWW-Authenticate').includes('/.sallyport/login'))`)
	if want := fmt.Sprint("401 false ", sees.json, " true"); got != want {
		t.Errorf("after signing out a program of the page gets %s, want %s", got, want)
	}
	before := c.app.seen()
	b.click("#save")
	b.heading(sees.formLost)
	if n := c.app.seen() - before; n != 0 {
		t.Errorf("after signing out the app got %d requests", n)
	}
	b.forget(c.provider.Issuer)
	for _, host := range []string{c.url, wiki} {
		b.open(host + "/new")
		b.heading(atProvider)
	}
}

// frontTellsWhatSallyportSays looks at what an app is told behind a front when a client
// writes headers that would say something else. drops: the front itself takes out names
// with other signs than letters, digits and "-", so that they are not refused.
func frontTellsWhatSallyportSays(t *testing.T, c *corp, drops bool) {
	cookie := c.signIn(t, "mira")
	for _, name := range []string{"X-Forwarded-User", "x-forwarded-groups", "X_Forwarded_User", "X.Forwarded.User",
		"X-Forwarded_Groups", "x_forwarded.email", "X-Forwarded-Org-Id", "X-Sallyport-Assertion", "X_Sallyport_Assertion"} {
		for _, also := range [][]string{{}, {name + ": evil two"}, {"Connection: " + name},
			{"Connection: keep-alive, X-Forwarded-User, X-Forwarded-Email"}, {"Connection: Cookie"}} {
			for _, target := range []string{"/headers", "/open/headers"} {
				lines := append([]string{name + ": evil", "Cookie: a={env.HOME}; " + cookie + "; b=2"}, also...)
				resp, told := c.raw(t, c.writes("GET", target, lines...))
				about := fmt.Sprintf("%s %q", target, lines)
				for seen, values := range told {
					all := strings.Join(values, " ")
					if strings.Contains(all, "evil") || strings.Contains(all, c.cookie) || len(values) > 1 {
						t.Errorf("%s: the app got %s: %q", about, seen, values)
					}
				}
				signedOut := target == "/headers" && strings.HasSuffix(about, `Cookie"]`)
				alias := strings.ContainsAny(name, "_.") && !strings.HasSuffix(about, name+`"]`)
				switch {
				case alias && !drops:
					if resp.StatusCode != 403 {
						t.Errorf("%s: %s", about, resp.Status)
					}
				case signedOut && resp.StatusCode == 401: // Caddy obeys the client before it asks, HAProxy does not
				case resp.StatusCode != 200:
					t.Errorf("%s: %s", about, resp.Status)
				case target == "/headers" && (told.Get("X-Forwarded-User") != "corp:mira" ||
					told.Get("X-Forwarded-Email") != "mira@corp.example" || told.Get("Cookie") != "a={env.HOME}; b=2"):
					t.Errorf("%s: the app was told %q", about, told)
				case target == "/open/headers" && told.Get("X-Forwarded-User") != "":
					t.Errorf("%s: the app was told of %q", about, told.Get("X-Forwarded-User"))
				}
			}
		}
	}
}

// statuses are answers of a site, by request.
type statuses map[string]int

// check sends each request, and sees that only those with 200 reach the app.
func (want statuses) check(t *testing.T, c *corp) {
	t.Helper()
	for request, status := range want {
		before := c.app.seen()
		resp, _ := c.raw(t, request)
		reached := c.app.seen() != before
		if resp.StatusCode != status || reached != (status == 200) {
			t.Errorf("%.200q: %s, want %d; reached the app: %v", request, resp.Status, status, reached)
		}
	}
}

// frontStatuses are the answers behind every front.
func frontStatuses(c *corp, cookie string) statuses {
	_, host, _ := strings.Cut(c.url, "://")
	get := func(target string, lines ...string) string { return c.writes("GET", target, lines...) }
	session := "Cookie: " + cookie
	page := []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	return statuses{
		get("/headers", page...):                    302,
		get("/headers", "Accept: */*"):              401,
		get("/headers", session):                    200,
		get("/admin", session):                      403,
		get("/open/x"):                              200,
		get("/near/x", "X-Forwarded-For: 10.0.0.1"): 403,
		get("/near/x", "X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1"):                              403,
		get("/headers?x=%2F&allowed_groups=board", session):                                           200,
		get("/admin", session, "X-Forwarded-Uri: /open/x"):                                            403,
		get("/admin", session, "X-Forwarded-Uri: /open/x", "Connection: X-Forwarded-Uri"):             403,
		get("/admin", session, "X-Forwarded-Host: "+otherSite, "X-Forwarded-Proto: http"):             403,
		get("/admin", session, "X-Original-URL: "+c.url+"/open/x", "X-Rewrite-URL: /open/x"):          403,
		get("/headers", "X-Forwarded-Uri: /open/x", "X-Forwarded-Method: OPTIONS"):                    401,
		get("/headers", session+"; big="+strings.Repeat("a", 7000)):                                   200,
		get("/headers", session, "X-Forwarded-Prefix: /open"):                                         200,
		c.writes("POST", "/headers", "Content-Length: 5") + "abcde":                                   401,
		c.writes("POST", "/headers", session, "Content-Length: 5") + "abcde":                          200,
		c.writes("POST", "/headers", session, "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n": 200,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y"):                                   200,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/admin/y"):                             403,
		c.writes("MOVE", "/x", session):                                                               403,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y z"):                                 403,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y", "Destination: /admin/y"):          403,
		c.writes("TRACE", "/headers", session):                                                        403,
		strings.Replace(get("/headers", session), "Host: "+host, "Host: "+otherSite+portOf(c.url), 1): 401,
	}
}

// frontRefusesWhatIsAmbiguous sends targets that two programs may read in two ways: none
// of them reaches the app.
func frontRefusesWhatIsAmbiguous(t *testing.T, c *corp, cookie string) {
	_, host, _ := strings.Cut(c.url, "://")
	get := c.writes("GET", "/admin", "Cookie: "+cookie)
	requests := []string{
		strings.Replace(get, "Host: "+host, "Host: "+host+"/open", 1),
		strings.Replace(get, "Host: "+host, "Host: "+host+"?/open", 1),
		strings.Replace(get, "Host: "+host, "Host: x@"+host, 1),
		strings.Replace(get, "Host: "+host, "Host: elsewhere.example", 1),
		strings.Replace(get, "/admin", "https://"+host+"/admin", 1),
		c.writes("OPTIONS", "*", "Cookie: "+cookie),
		strings.Replace(get, "GET /admin", "CONNECT "+host, 1),
	}
	for _, target := range []string{"/open/../admin", "/open/%2e%2e/admin", "//admin", "/open//../admin", "/%61dmin",
		"/ADMIN/../admin", "/open/..%2fadmin", "/open%2f..%2fadmin", "/open/..;/admin", "/open\\..\\admin", "/admin%00",
		"/admin%09", "/admin%20", "/%2fadmin", "/\\admin", "/open/%252e%252e/admin", "/open/%c0%ae%c0%ae/admin",
		"/.sallyport/../admin", "/.sallyport/%2e%2e/admin", "/.sallyport/..%2fadmin", "//.sallyport/../admin",
		"/.sallyport", "/%2esallyport/../admin", "/.sallyport%2f../admin", "/open/x/../../.sallyport/../admin"} {
		requests = append(requests, c.writes("GET", target, "Cookie: "+cookie))
	}
	for _, request := range requests {
		before := c.app.seen()
		resp, _ := c.raw(t, request)
		if n := c.app.seen() - before; n != 0 {
			body, _ := io.ReadAll(resp.Body)
			t.Errorf("%q reached the app: %s %s", request[:min(len(request), 200)], resp.Status, body)
		}
	}
}

// frontPassesWebSockets holds a front to what is said of them: a signed-in person's, from a
// page of the site itself.
func frontPassesWebSockets(t *testing.T, c *corp, cookie string) {
	for _, tt := range []struct {
		cookie, origin string
		status         int
	}{
		{cookie, "Origin: " + c.url, 200}, // the app's list of headers is no WebSocket, but shows what arrived
		{cookie, "Origin: https://evil.example", 403},
		{cookie, "Accept: */*", 403},
		{"a=1", "Origin: " + c.url, 401},
	} {
		resp, told := c.raw(t, c.writesUpgrade("/headers", "Cookie: "+tt.cookie, tt.origin))
		if resp.StatusCode != tt.status || tt.status == 200 && (told.Get("Upgrade") != "websocket" ||
			told.Get("X-Forwarded-User") != "corp:mira") {
			t.Errorf("%s: %s, the app got %v", tt.origin, resp.Status, told)
		}
	}
	conn := c.dialRaw(t)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, c.writesUpgrade("/tunnel", "Cookie: "+cookie, "Origin: "+c.url))
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("a WebSocket is answered %+v, %v", resp, err)
	}
	for range 2 {
		const said = "there and back\n"
		_, _ = io.WriteString(conn, said)
		if line, err := in.ReadString('\n'); line != said {
			t.Fatalf("what is sent comes back as %q, %v", line, err)
		}
	}
}

// frontOpensNoOtherTunnel is about what Upgrade may ask for besides a WebSocket. An app that
// agrees to h2c would get requests through the front about which nobody was asked, with the
// identity that the client writes (h2csmuggler).
func frontOpensNoOtherTunnel(t *testing.T, c *corp, cookie string) {
	for _, protocol := range []string{"h2c", "H2C", "h2c, websocket", "websocket, h2c", "websocket/h2c", "TLS/1.2"} {
		for target, who := range map[string]string{"/tunnel": cookie, "/headers": cookie, "/open/headers": "a=1"} {
			resp, told := c.raw(t, strings.Replace(c.writes("GET", target, "Upgrade: "+protocol, "Cookie: "+who,
				"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", "Origin: "+c.url), "Connection: close",
				"Connection: Upgrade, HTTP2-Settings", 1))
			asked := told.Get("Upgrade")
			if resp.StatusCode == 101 && resp.Header.Get("Upgrade") != "websocket" || asked != "" &&
				asked != "websocket" && strings.Contains(strings.ToLower(told.Get("Connection")), "upgrade") {
				t.Errorf("Upgrade: %s at %s: %s, the app was asked for %q", protocol, target, resp.Status, asked)
			}
		}
	}
}

// sendWho opens a WebSocket of the page's own host, or of another one, and is what the app
// says to it first.
const sendWho = `new Promise(done => {
	const ws = new WebSocket((%q || location.origin.replace('http', 'ws')) + '/ws');
	ws.onopen = () => { window.held = ws; ws.send('who'); };
	ws.onmessage = e => done(e.data); ws.onerror = () => done('refused'); })`

// frontOpensWebSockets is a browser that opens WebSockets through a front: of its own page,
// for a page of another site, of a host whose route has none, and after signing out. What is
// open then stays open, because its bytes pass the front alone.
func frontOpensWebSockets(t *testing.T, c *corp) {
	c.app.sendWebSockets(t, need(t, world.upstreams).ws["http"])
	b := newPerson(t)
	b.signInAtProvider(c.url+"/form", "mira")
	own, wiki := strings.Replace(c.url, "http", "ws", 1), "wss://"+otherSite+portOf(c.url)
	opens := func(from *tab, address, want string) {
		t.Helper()
		if got := eval[string](from, fmt.Sprintf(sendWho, address)); got != want {
			t.Errorf("a WebSocket of %q says %q, want %q", address, got, want)
		}
	}
	opens(b, "", "corp:mira")
	opens(b, wiki, "refused")
	stranger := b.another()
	stranger.open(otherOrigin(t, ""))
	stranger.heading("Another origin")
	opens(stranger, own, "refused")
	c.signOut(t, c.cookie+"="+b.cookies(c.url)[c.cookie].Value)
	const still = `new Promise(done => { held.onclose = () => done('closed'); held.onmessage = e => done(e.data); held.send('x'); })`
	if got := eval[string](b, still); got != "x" {
		t.Errorf("signed out, the open WebSocket says %q", got)
	}
	opens(b, "", "refused")
}

// frontAnswersPagesOfOtherSites is about the guide's route with cors. preflights are how the
// front answers those of the listed site and of another one.
func frontAnswersPagesOfOtherSites(t *testing.T, c *corp, cookie string, preflights [2]int) {
	const partner = "https://partner.example.com"
	for _, tt := range []struct {
		method, target, origin, cookie string
		status                         int
		allowed                        string
	}{
		{"OPTIONS", "/api/x", partner, "", preflights[0], partner},
		{"OPTIONS", "/api/x", "https://evil.example", cookie, preflights[1], ""},
		{"OPTIONS", "/x", partner, cookie, 200, ""}, // an app's own
		{"GET", "/api/x", partner, cookie, 200, partner},
		{"GET", "/api/x", partner, "", 401, partner},
		{"GET", "/api/x", "https://evil.example", cookie, 200, ""},
		{"GET", "/x", partner, cookie, 200, ""},
	} {
		before := c.app.seen()
		lines := []string{"Origin: " + tt.origin, "Cookie: " + tt.cookie}
		if tt.method == "OPTIONS" {
			lines = append(lines, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type")
		}
		resp, _ := c.raw(t, c.writes(tt.method, tt.target, lines...))
		preflight := tt.method == "OPTIONS" && tt.target == "/api/x"
		allowed := strings.Join(resp.Header["Access-Control-Allow-Origin"], "|")
		if resp.StatusCode != tt.status || allowed != tt.allowed || (c.app.seen() != before) != (tt.status == 200 && !preflight) {
			t.Errorf("%s %s of %s: %s, allowed %q, the app got %d", tt.method, tt.target, tt.origin, resp.Status,
				allowed, c.app.seen()-before)
		}
		methods := strings.ReplaceAll(resp.Header.Get("Access-Control-Allow-Methods"), " ", "")
		if preflight && tt.allowed != "" && (methods != "GET,PUT" ||
			!strings.EqualFold(resp.Header.Get("Access-Control-Allow-Headers"), "content-type") ||
			resp.Header.Get("Access-Control-Allow-Credentials") != "true") {
			t.Errorf("the preflight is answered %v", resp.Header)
		}
	}
}

// frontWithoutSallyport stops Sallyport: what cannot be asked about reaches nobody.
func frontWithoutSallyport(t *testing.T, c *corp, cookie string) {
	c.process.stop()
	for _, target := range []string{"/headers", "/open/x", "/admin", "/.sallyport/login"} {
		before := c.app.seen()
		resp, _ := c.raw(t, c.writes("GET", target, "Cookie: "+cookie))
		if resp.StatusCode < 500 || c.app.seen() != before {
			t.Errorf("%s: %s, and the app got %d requests", target, resp.Status, c.app.seen()-before)
		}
	}
}
