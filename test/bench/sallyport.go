package main

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// sallyport is a process of the program, with somebody who is signed in.
type sallyport struct {
	*process
	public, asked, grpc, grants string // addresses; the last one is empty without a store
	cookie                      string // of the person
	keys                        session.Keyring
}

// site is what differs between the configurations that are measured.
type site struct {
	upstream string // address
	routes   string // more of them, as YAML has it in a list
	allow    string // of the route for people; groups: [staff] if empty
	store    string // its URL; none if empty
	third    string // the address of the third party, for which there is a grant; needs a store
	person   identity.Identity
	lane     bool        // listen.lane
	key      session.Key // made anew if zero, for replicas that share it
	serve    []string    // more arguments
	env      []string
}

// ann is who is signed in.
func ann() identity.Identity {
	return identity.Identity{Provider: "sso", Subject: "ann", Email: "ann@acme.example", EmailVerified: true,
		Name: "Ann", Groups: []string{"staff", "on-call", "platform"},
		Org: identity.Org{ID: "sso:acme", Name: "Acme", Source: "claim"}}
}

// appToken proves the app that uses a grant.
const appToken = "bench-token-bench-token-bench-token-0"

func startSallyport(c cores, binary, dir string, s site) (*sallyport, error) {
	at, err := freeAddresses(5)
	if err != nil {
		return nil, err
	}
	if s.key == (session.Key{}) {
		s.key = session.NewKey(time.Now().Add(-time.Hour))
	}
	if s.allow == "" {
		s.allow = "[{groups: [staff]}]"
	}
	text := fmt.Sprintf(`version: 1
public_url: http://%[1]s
listen: {http: %[1]q, admin: %[2]q, external_auth: {address: %[3]q, grpc: %[4]q, peers: [127.0.0.1]}`,
		at[0], at[1], at[2], at[3])
	listens := at[:4]
	if s.third != "" {
		text += fmt.Sprintf(", grants: %q", at[4])
		listens = at
	}
	if s.lane {
		text += ", lane: true"
	}
	text += fmt.Sprintf(`}
log: {level: info, format: json}
session: {keys: ["literal:%s"]}
providers:
  - {id: sso, type: oidc, issuer: "https://127.0.0.1:1", client_id: x, client_secret: "literal:secret-of-a-test"}
routes:
  - {name: app, path: /, upstream: "http://%s", websocket: true, allow: %s}
%s`, s.key.Text(), s.upstream, s.allow, s.routes)
	if s.store != "" {
		text += fmt.Sprintf("store: %q\n", s.store)
	}
	if s.third != "" {
		text += fmt.Sprintf(`grants:
  encryption_keys: ["literal:%s"]
  connectors:
    - {id: status, type: api_key, base_url: "http://%s", probe: GET /me, rules: {read: ["GET /*"]}}
  apps: [{id: planner, name: Planner, token: "literal:%s", routes: [app], connectors: [status]}]
`, session.NewKey(time.Now().Add(-time.Hour)).Text(), s.third, appToken)
	}
	file := filepath.Join(dir, "sallyport-"+strings.ReplaceAll(at[0], ":", "-")+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command(binary, "check", "--values", file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the configuration is refused: %w\n%s", err, out)
	}
	cmd := exec.Command(binary, append([]string{"serve", "-c", file}, s.serve...)...)
	cmd.Env = append(os.Environ(), s.env...)
	p, err := launch(c, "sallyport", cmd, listens...)
	if err != nil {
		return nil, err
	}
	p.metrics = "http://" + at[1] + "/metrics"
	sp := &sallyport{process: p, public: at[0], asked: at[2], grpc: at[3], grants: at[4]}
	if sp.keys, err = session.NewKeyring([]session.Key{s.key}); err == nil {
		sp.cookie, err = sp.signIn(s.person)
	}
	if err == nil && s.third != "" {
		err = sp.lend()
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return sp, nil
}

// signIn is the cookie of somebody for whom a session was sealed here.
func (sp *sallyport) signIn(who identity.Identity) (cookie string, err error) {
	if who.Subject == "" {
		who = ann()
	}
	_, port, err := net.SplitHostPort(sp.public)
	if err != nil {
		return "", err
	}
	m, err := session.New(session.Options{Keys: sp.keys, Port: port, AbsoluteTimeout: 12 * time.Hour,
		IdleTimeout: time.Hour})
	if err != nil {
		return "", err
	}
	w := httptest.NewRecorder()
	if err := m.Write(w, "127.0.0.1", m.Start(who)); err != nil {
		return "", err
	}
	var all []string
	for _, line := range w.Header().Values("Set-Cookie") {
		one, _, _ := strings.Cut(line, ";")
		all = append(all, one)
	}
	return strings.Join(all, "; "), nil
}

// lend connects a key for the app, on the page on which people agree to that.
func (sp *sallyport) lend() error {
	at := "http://" + sp.public + "/.sallyport/connect/status?app=planner&return_to=%2Fdone"
	page, err := sp.browse(http.MethodGet, at, "", "")
	if err != nil {
		return fmt.Errorf("open the page that asks: %w", err)
	}
	_, secret, ok := strings.Cut(page, `name="form" value="`)
	secret, _, _ = strings.Cut(secret, `"`)
	if !ok {
		return fmt.Errorf("the page that asks has no form:\n%s", page)
	}
	form := url.Values{"answer": {"yes"}, "form": {html.UnescapeString(secret)}, "key": {"a-key-of-the-third-party"}}
	if _, err := sp.browse(http.MethodPost, at, form.Encode(), "http://"+sp.public); err != nil {
		return fmt.Errorf("agree: %w", err)
	}
	return nil
}

// browse does what a browser does in a window. A redirect is not followed.
func (sp *sallyport) browse(method, at, form, origin string) (body string, err error) {
	req, err := http.NewRequest(method, at, strings.NewReader(form))
	if err != nil {
		return "", err
	}
	header := map[string]string{"Cookie": sp.cookie, "Accept": "text/html", "Sec-Fetch-Mode": "navigate",
		"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin"}
	if origin != "" {
		header["Origin"], header["Content-Type"] = origin, "application/x-www-form-urlencoded"
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 400 {
		err = fmt.Errorf("%s:\n%s", res.Status, text)
	}
	return string(text), err
}

// browserHeader is the rest of a browser's header.
const browserHeader = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: */*\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n\r\n"

// request is a GET of a browser.
func request(host, path, cookie string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nCookie: " + cookie + "\r\n" + browserHeader)
}

// reports is what is asked for where somebody is signed in.
const reports = "/reports/2026?team=blue"

// signedIn is a request of the person.
func (sp *sallyport) signedIn() []byte { return request(sp.public, reports, "theme=dark; "+sp.cookie) }

// verify is the question about it by which nginx asks.
func (sp *sallyport) verify() []byte {
	return []byte("GET /verify HTTP/1.1\r\nHost: s\r\nX-Original-URL: http://" + sp.public + reports + "\r\n" +
		"X-Original-Method: GET\r\nX-Forwarded-For: 192.0.2.9\r\n" +
		"Cookie: theme=dark; " + sp.cookie + "\r\n" + browserHeader)
}

// check is the question about it by which Envoy asks.
func (sp *sallyport) check() ([]byte, error) {
	header := map[string]string{"cookie": "theme=dark; " + sp.cookie}
	for line := range strings.SplitSeq(strings.TrimSpace(browserHeader), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		header[strings.ToLower(name)] = value
	}
	return checkRequest(sp.public, reports, header)
}

// use is a request of the app that uses what the person lends it, with an assertion that was made
// just now: they are good for five minutes.
func (sp *sallyport) use(l *loop, u *upstream) ([]byte, error) {
	head, err := seen(l, u, sp.public, sp.signedIn())
	if err != nil {
		return nil, err
	}
	assertion := headerValue(head, "X-Sallyport-Assertion")
	if assertion == "" {
		return nil, errors.New("the upstream was sent no assertion")
	}
	return []byte("GET /gateway/status/calendars/a/busy HTTP/1.1\r\nHost: " + sp.grants + "\r\n" +
		"Authorization: Bearer " + appToken + "\r\nX-Sallyport-Assertion: " + assertion + "\r\n" +
		"User-Agent: planner/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"), nil
}

// seen is the head that the upstream gets for a request.
func seen(l *loop, u *upstream, address string, request []byte) (head []byte, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	l.do(func() { u.last, u.keep = nil, true })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	if err != nil {
		return nil, err
	}
	l.do(func() { head = bytes.Clone(u.last) })
	if len(head) == 0 {
		return nil, fmt.Errorf("the upstream saw nothing of a request; it was answered with %q", answer[:n])
	}
	return head, nil
}

// headerValue is that of the first line with a name.
func headerValue(head []byte, name string) string {
	at := indexFold(head, []byte("\r\n"+strings.ToLower(name)+": "))
	if at < 0 {
		return ""
	}
	value, _, _ := bytes.Cut(head[at+len(name)+4:], []byte("\r"))
	return string(value)
}
