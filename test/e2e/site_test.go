package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"text/template"
)

// site is a running Sallyport.
type site struct {
	url     string // as browsers write it, without a slash at the end
	cookie  string // the names of its two cookies
	flow    string
	process *process
}

var serving = regexp.MustCompile(`msg"?[=:]"?serving.*public_url"?[=:]"?([^" ]+)`)

func newSite(p *process, cookie string) (*site, error) {
	m, err := p.says(serving)
	if err != nil {
		p.stop()
		return nil, err
	}
	s := &site{url: m[1], process: p, cookie: cookie}
	if cookie == "" {
		_, port, _ := strings.Cut(strings.TrimPrefix(s.url, "http://"), ":")
		s.cookie = "sallyport-dev-" + port
	}
	s.flow = s.cookie + "-flow"
	return s, nil
}

func (s *shared) startDemo() (*site, error) {
	p, err := start(s.dir, s.binary, "demo", "-v", "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.atEnd(p.stop)
	return newSite(p, "")
}

// theDemo is `sallyport demo`, shared by all tests that need no other.
func theDemo(t *testing.T) *site {
	t.Helper()
	s := need(t, world.demo)
	s.process.showIfFailed(t)
	return s
}

// ownDemo is `sallyport demo` for one test alone.
func ownDemo(t *testing.T) *site {
	t.Helper()
	p, err := start(t.TempDir(), world.binary, "demo", "-v", "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	s, err := newSite(p, "")
	if err != nil {
		t.Fatal(err)
	}
	s.process.showIfFailed(t)
	return s
}

// setup is a configuration for `sallyport serve`.
type setup struct {
	PublicURL, Listen     string                 // Listen is for plain http; "" means https with the test's certificate
	Address               string                 // then the address
	H2C                   bool                   // with Listen: HTTP/2 without TLS, too
	Lane                  bool                   // with Listen: listen.lane
	TwoProviders          bool                   // the one provider, under two names
	Broker                string                 // with TwoProviders: an origin by which the second one is reached
	Organizations         bool                   // people may belong to several
	Stored                bool                   // with a store, so that the provider can say who signed out there
	Operators             string                 // as the configuration has them
	Admin, Trusted        string                 // listen.admin (off if empty) and trusted_proxies, as in the file
	Hosts                 []string               // other hosts of the app
	CookieDomain          string                 // whose hosts have one session cookie
	Idle                  string                 // session.idle_timeout, for another than the usual
	GrantsAt              string                 // listen.grants, with Stored and
	GrantsCert, GrantsKey string                 // files; "": in the clear
	Grants                func(*provider) string // what is lent, as the configuration has it
	Log                   string                 // keys of log, for others than the usual
	Routes                []string               // as the configuration has them; those of App if there are none
	Provider              *provider
	App                   *app
	Cert, Key, Secrets    string
	Store                 string
}

// inLane reports whether sites without TLS, and the fronts' questions, are answered by
// listen.lane: `make campaigns` runs all in both ways.
func inLane() bool { return os.Getenv("SALLYPORT_TEST_LANE") != "" }

const setupConfig = `version: 1
public_url: {{.PublicURL}}
listen:
{{- if .Listen}}
  http: "{{.Listen}}"
{{- if .H2C}}
  h2c: true
{{- end}}
{{- if .Lane}}
  lane: true
{{- end}}
{{- else}}
  https: {address: "{{.Address}}", cert: "file:{{.Cert}}", key: "file:{{.Key}}"}
{{- end}}
  admin: {{or .Admin "\"\""}}
{{- if .GrantsCert}}
  grants: {address: "{{.GrantsAt}}", cert: "file:{{.GrantsCert}}", key: "file:{{.GrantsKey}}"}
{{- else if .GrantsAt}}
  grants: "{{.GrantsAt}}"
{{- end}}
trusted_proxies: {{or .Trusted "[]"}}
session:
  keys: ["file:{{.Secrets}}"]
{{- with .Idle}}
  idle_timeout: {{.}}
{{- end}}
{{- with .CookieDomain}}
  cookie_domain: {{.}}
{{- end}}
{{- if .Stored}}
store: "sqlite:{{.Store}}"
{{- end}}
providers:
  - id: corp
    name: Corp Login
    type: oidc
    issuer: {{.Provider.Issuer}}
    client_id: {{.Provider.ClientID}}
    client_secret: "literal:{{.Provider.ClientSecret}}"
    scopes: [openid, profile, email, groups{{if .Organizations}}, orgs{{end}}]
    email_domains: [corp.example]
{{- if .Organizations}}
    claims: {orgs: orgs}
{{- end}}
{{- if .TwoProviders}}
  - id: partner
    name: Partner Login
    type: oidc
    issuer: {{.Provider.Issuer}}
    client_id: {{.Provider.ClientID}}
    client_secret: "literal:{{.Provider.ClientSecret}}"
    scopes: [openid, profile, email, groups]
    email_domains: [partner.example]
{{- with .Broker}}
    endpoints: {authorization: "{{.}}/authorize"}
{{- end}}
{{- end}}
{{- if .Organizations}}
organizations:
  - {id: acme, name: Acme Rockets, domain: acme.example, match: {org_ids: ["corp:7c", "corp:acme-us"]}}
{{- end}}
{{- with .Operators}}
operators: {{.}}
{{- end}}
{{- with .Grants}}
grants: {{call . $.Provider}}
{{- end}}
pages: {name: Corp}
log: {{or .Log "{level: info, format: text}"}}
routes:
{{- range .Routes}}
  - {{.}}
{{- else}}
  - {name: app, path: /, upstream: {{.App.URL}}, allow: authenticated}
  - {name: ops, path: /ops, upstream: {{.App.URL}}, allow: [{groups: [ops]}]}
{{- range $i, $host := $.Hosts}}
  - {name: host{{$i}}, host: "{{$host}}", path: /, upstream: {{$.App.URL}}, allow: authenticated}
{{- end}}
{{- if .Organizations}}
  - {name: bank, path: /bank, upstream: {{.App.URL}}, allow: [{orgs: ["corp:birch"]}]}
{{- end}}
{{- end}}
`

// serve runs `sallyport serve`, with files in dir.
func serve(dir string, s setup) (*site, error) {
	key, err := exec.Command(world.binary, "genkey").Output()
	if err != nil {
		return nil, fmt.Errorf("genkey: %w", err)
	}
	s.Secrets, s.Store = filepath.Join(dir, "session-key"), filepath.Join(dir, "ended.db")
	cookie := ""
	if s.Listen == "" {
		cert, err := world.cert()
		if err != nil {
			return nil, err
		}
		s.Cert, s.Key, cookie = cert.certFile, cert.keyFile, "__Host-sallyport"
	}
	var config strings.Builder
	s.Lane = inLane()
	if err := template.Must(template.New("").Parse(setupConfig)).Execute(&config, s); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "sallyport.yaml")
	if err := errors.Join(os.WriteFile(s.Secrets, key, 0o600),
		os.WriteFile(file, []byte(config.String()), 0o600)); err != nil {
		return nil, err
	}
	p, err := start(dir, world.binary, "serve", "-c", file)
	if err != nil {
		return nil, err
	}
	return newSite(p, cookie)
}

// corp is a site behind `sallyport serve`, with its provider and its app.
type corp struct {
	*site
	provider *provider
	app      *app
}

// newCorp starts all three. What runs when something fails is stopped.
func newCorp(s setup) (*corp, error) {
	c := &corp{app: startApp()}
	s.App = c.app
	dir, err := os.MkdirTemp(world.dir, "corp-")
	if err == nil {
		c.provider, err = startProvider(s.PublicURL, s.Stored)
		s.Provider = c.provider
	}
	if err == nil {
		c.site, err = serve(dir, s)
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *corp) stop() {
	if c.site != nil {
		c.site.process.stop()
	}
	if c.provider != nil {
		c.provider.stop()
	}
	c.app.server.Close()
}

// ownCorp is for tests that break things.
func ownCorp(t *testing.T, s setup) *corp {
	t.Helper()
	c := need(t, func() (*corp, error) { return newCorp(s) })
	t.Cleanup(c.stop)
	c.showIfFailed(t)
	return c
}

// overHTTP is a site on localhost at address, or wherever there is room.
func overHTTP(address string) setup {
	return setup{PublicURL: "http://localhost" + portOf(address), Listen: address}
}

func overTLS(address string) setup {
	return setup{PublicURL: "https://" + publicHost + portOf(address), Address: address}
}

// theCorp is shared by all tests that only look; theSecureCorp likewise.
func theCorp(t *testing.T) *corp       { t.Helper(); return shareCorp(t, world.corp) }
func theSecureCorp(t *testing.T) *corp { t.Helper(); return shareCorp(t, world.secureCorp) }

func shareCorp(t *testing.T, get func() (*corp, error)) *corp {
	t.Helper()
	c := need(t, get)
	c.showIfFailed(t)
	return c
}

func (s *shared) startCorp(over func(string) setup) func() (*corp, error) {
	return func() (*corp, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		c, err := newCorp(over(address))
		if err == nil {
			s.atEnd(c.stop)
		}
		return c, err
	}
}

func (c *corp) showIfFailed(t *testing.T) {
	c.site.process.showIfFailed(t)
	c.provider.process.showIfFailed(t)
}

// portOf is the port of an address, with its colon.
func portOf(address string) string { return address[strings.LastIndexByte(address, ':'):] }

// app is what stands behind Sallyport in a test: it says whom it was told about,
// and forbids nobody to keep its pages.
type app struct {
	URL    string
	server *httptest.Server

	mu       sync.Mutex   // guards what follows
	cookies  []string     // every Cookie header that arrived
	requests int          // without those for the picture of a page, which browsers fetch in their own time
	ws       http.Handler // who answers at /ws, if anybody
}

// sendWebSockets has what comes to /ws answered by another app.
func (a *app) sendWebSockets(t *testing.T, upstream string) {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ws = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
}

func startApp() *app {
	a := &app{}
	a.server = httptest.NewServer(a)
	a.URL = a.server.URL
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.cookies = append(a.cookies, r.Header["Cookie"]...)
	if r.URL.Path != "/favicon.ico" {
		a.requests++
	}
	ws := a.ws
	a.mu.Unlock()
	if r.URL.Path == "/ws" && ws != nil {
		ws.ServeHTTP(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/headers") {
		_ = json.NewEncoder(w).Encode(r.Header) // the browser has gone
		return
	}
	if r.URL.Path == "/sw.js" { // the first service worker that people write
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, `self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', e => e.waitUntil(self.clients.claim()));
self.addEventListener('fetch', e => e.respondWith(fetch(e.request)));`)
		return
	}
	if r.URL.Path == "/tunnel" { // what follows an upgrade comes back as it was sent
		conn, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+
			r.Header.Get("Upgrade")+"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		_, _ = io.Copy(conn, in)
		return
	}
	if r.URL.Path == "/form" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><html lang="en"><title>Form</title><h1>A form</h1>
<form method="post" action="/saved"><input name="note" id="note"><button id="save">Save</button></form></html>`)
		return
	}
	if r.URL.Path == "/saved" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Saved</title><h1>Saved</h1><p>%s: %s</p><p>Origin: %s</p></html>`,
			html.EscapeString(r.Method), html.EscapeString(r.PostFormValue("note")),
			html.EscapeString(r.Header.Get("Origin")))
		return
	}
	if r.URL.Path == "/favicon.ico" {
		http.NotFound(w, r)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "app", Value: "own", Path: "/"})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "private, max-age=600") // as careless as apps are
	fmt.Fprintf(w, `<!doctype html><html lang="en"><title>App</title><h1>The app</h1><p>You asked for %s</p><dl>`,
		html.EscapeString(r.RequestURI))
	for _, name := range []string{"User", "Name", "Email", "Groups", "Org-Id", "Org-Name", "Org-Domain"} {
		fmt.Fprintf(w, "<dt>%s</dt><dd>%s: %s</dd>", name, name, html.EscapeString(r.Header.Get("X-Forwarded-"+name)))
	}
	fmt.Fprint(w, `</dl><p><a href="/.sallyport/account">Account</a></p></html>`)
}

func (a *app) sawCookie(part string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Contains(strings.Join(a.cookies, "\n"), part)
}

// seen is how many requests have arrived.
func (a *app) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}
