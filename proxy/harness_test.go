package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/assertion"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/lane"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
	"github.com/sallyport-proxy/sallyport/session"
	"github.com/sallyport-proxy/sallyport/upstream"
)

const (
	prefix    = "/.sallyport"
	devClient = "sallyport-client"
	devSecret = "canary-client-secret"
)

// What relay promises, as numbers.
const (
	bodyTimeout   = 5 * time.Second  // for what nobody reads
	answerTimeout = 30 * time.Second // for a page of ours to be read
	replayable    = 4 << 10          // bytes of a body that can be sent again
	maxHops       = 8                // that a request may pass through here
)

// setup says how a site differs from the usual one.
type setup struct {
	TLS       bool                       // https with HTTP/2 and __Host- cookies
	H2C       bool                       // http that takes HTTP/2 too
	Public    string                     // public URL; "": the server's own address
	SignIn    bool                       // start a provider; else the one configured does not answer
	Second    *Provider                  // one more provider
	Several   func(*testSite) []Provider // instead of all these; the site has its address by then
	Login     LoginProvider
	Bearer    func(*testSite) admission.TokenVerifier // of the routes whose names begin with api
	Keep      []string                                // groups that sessions keep; nil: all
	Orgs      *identity.Organizations
	Claims    login.ClaimNames
	People    []demo.Person
	Routes    []authz.Route
	Fields    map[string][]identity.Field // by route; else preset "forwarded"
	Passes    map[string][]string         // by route: headers that it keeps
	CORS      map[string]*admission.CORS  // by route
	Apps      map[string]string           // by route: the app's name, where there are several
	Transport http.RoundTripper           // instead of the raw app
	App       *upstream.Upstream          // likewise, with an address of its own
	Header    time.Duration               // how long an app may think
	Idle      time.Duration               // how long nothing may move
	MaxBody   int64
	Trusted   []netip.Prefix
	Bent      func(*Upstream) // changes each route's
	Call      time.Duration   // how long a call to the provider may take
	Flows     int
	Key       session.Key
	Port      string
	Domain    string // of the session cookie
	Brand     Branding
	Tuned     func(*Options) // changes what New is given
	Ended     session.Ended  // nil: in memory
	Reauth    time.Duration  // how long a sign-in is believed; 0: for as long as the session lasts
	Once      session.Once   // likewise
}

// testSite is a whole front door on loopback, between a provider and an app that
// sees bytes. The server is set up as `sallyport serve` sets it up.
type testSite struct {
	url, host string // as browsers and raw requests name it
	addr      string // of the listener
	routeHost string
	proxy     *Proxy
	app       *testenv.RawUpstream
	provider  *testenv.Faults
	sessions  *session.Manager
	log       *logSink
	metrics   *prometheus.Registry
	clock     *testenv.Clock
	server    *httptest.Server
	lane      *lane.Lane // instead of the server's Start; nil: the tests are run without
	close     func()     // waits for handlers
	transport http.RoundTripper
	key       session.Key
	once      session.Once
	claims    login.ClaimNames
	reauth    time.Duration
}

// usualRoutes: everybody, admins, and nobody asked, on one host.
func usualRoutes(host string) []authz.Route {
	return []authz.Route{
		{Name: "app", Host: host, Path: "/", Access: authz.Access{Authenticated: true}},
		{Name: "admin", Host: host, Path: "/admin",
			Access: authz.Access{Rules: []authz.Rule{{Groups: []string{"admins"}}}}},
		{Name: "open", Host: host, Path: "/open", Access: authz.Access{Public: true}},
		{Name: "logo", Host: host, Path: "/logo.svg", Exact: true, Access: authz.Access{Public: true}},
	}
}

func alice() identity.Identity {
	return identity.Identity{
		Provider: "main", Subject: "alice-1", Email: "alice@acme.example", EmailVerified: true,
		Name: "Alice Ämter", Username: "alice", Groups: []string{"admins", "on-call"},
		Org: identity.Org{ID: "main:acme", Name: "Acme Rockets", Domain: "acme.example", Source: "claim"},
	}
}

// bob is in no group that opens anything.
func bob() identity.Identity {
	return identity.Identity{Provider: "main", Subject: "bob-1", Username: "bob", Name: "Bob"}
}

func newTestSite(tb testing.TB, o setup) *testSite {
	tb.Helper()
	s := &testSite{claims: o.Claims, reauth: cmp.Or(o.Reauth, login.NoReauth), clock: testenv.NewClock(),
		log: newLogSink(), metrics: prometheus.NewRegistry()}
	s.server = httptest.NewUnstartedServer(nil)
	s.addr = s.server.Listener.Addr().String()
	s.url = o.Public
	if s.url == "" {
		s.url = map[bool]string{false: "http://", true: "https://"}[o.TLS] + s.addr
	}
	public, err := url.Parse(s.url)
	testenv.Check(tb, err)
	s.host = public.Host
	s.routeHost, err = authz.CanonicalHost(public.Host)
	testenv.Check(tb, err)
	s.app = testenv.NewRawUpstream(tb)
	s.app.Respond(reply("", "ok"))
	if o.SignIn {
		s.provider = testenv.StartProvider(tb, demo.ProviderOptions{ClientID: devClient, ClientSecret: devSecret,
			RedirectURIs: []string{s.url + prefix + "/callback/main", s.url + prefix + "/callback/other"},
			People:       o.People, Now: s.clock.Now})
	}
	if s.key = o.Key; s.key == (session.Key{}) {
		s.key = session.NewKey(time.Now().Add(-time.Hour))
	}
	s.build(tb, o, public)
	s.start(tb, o)
	return s
}

// build assembles the front door as cmd does.
func (s *testSite) build(tb testing.TB, o setup, public *url.URL) {
	tb.Helper()
	ring, err := session.NewKeyring([]session.Key{s.key})
	testenv.Check(tb, err)
	port := public.Port()
	if o.Port != "" {
		port = o.Port
	}
	s.sessions, err = session.New(session.Options{Keys: ring, Secure: public.Scheme == "https", Port: port,
		Domain:          o.Domain,
		AbsoluteTimeout: 12 * time.Hour, IdleTimeout: time.Hour, Now: s.clock.Now, KeepGroups: o.Keep, Ended: o.Ended})
	testenv.Check(tb, err)
	signer, err := assertion.New(assertion.Options{Issuer: s.url,
		Seeds:   [][]byte{s.key.Derive("assertion signing", assertion.SeedBytes)},
		Signing: ring.Signing, Now: s.clock.Now})
	testenv.Check(tb, err)
	routes := o.Routes
	if routes == nil {
		routes = usualRoutes(s.routeHost)
	}
	table, err := authz.NewTable(routes)
	testenv.Check(tb, err)
	headers := identity.NewHeaders()
	transport := o.Transport
	appURL, err := url.Parse(s.app.URL())
	testenv.Check(tb, err)
	if transport == nil {
		up, err := upstream.New(upstream.Options{URL: appURL})
		testenv.Check(tb, err)
		tb.Cleanup(up.Close)
		transport = up
	}
	var upstreams []Upstream
	var admitted []admission.Route
	for _, r := range table.Routes() {
		fields, ok := o.Fields[r.Name]
		if !ok {
			fields, _ = identity.Preset(identity.PresetForwarded)
		}
		set, err := headers.Set(fields)
		testenv.Check(tb, err)
		kept, err := headers.Keep(o.Passes[r.Name])
		testenv.Check(tb, err)
		admit := admission.Route{Route: r, Headers: set, Keep: kept, App: o.Apps[r.Name], CORS: o.CORS[r.Name]}
		if o.Bearer != nil && strings.HasPrefix(r.Name, "api") {
			admit.Tokens = &admission.Tokens{TokenVerifier: o.Bearer(s)}
			if s.provider != nil {
				admit.Tokens.Issuer = s.provider.URL
			}
		}
		b := Upstream{Scheme: "http", Addr: appURL.Host, Transport: transport, Header: o.Header, Idle: o.Idle,
			MaxBody: o.MaxBody}
		if o.App != nil {
			b.Scheme, b.Addr, b.Transport = o.App.Scheme(), o.App.Host(), o.App
		}
		if b.Header == 0 {
			b.Header = 2 * time.Minute
		}
		if b.Idle == 0 {
			b.Idle = 5 * time.Minute
		}
		if o.Bent != nil {
			o.Bent(&b)
		}
		admit.AppHost = b.Host
		upstreams, admitted = append(upstreams, b), append(admitted, admit)
	}
	providers := []Provider{{ID: "main", Name: "Main Street", Login: o.Login}}
	if o.Login == nil {
		providers[0].Login = s.login(tb, "main", o.Call)
	}
	if o.Second != nil {
		providers = append(providers, *o.Second)
	}
	if o.Several != nil {
		providers = o.Several(s)
	}
	if o.Flows == 0 {
		o.Flows = 256
	}
	var ids []string
	for _, p := range providers {
		ids = append(ids, p.ID)
	}
	admit, err := admission.New(admission.Options{PublicHost: s.routeHost, Prefix: prefix, Table: table,
		Routes: admitted, Headers: headers,
		Sessions: s.sessions, Providers: ids, Orgs: o.Orgs, Assertions: signer, Now: s.clock.Now})
	testenv.Check(tb, err)
	if s.once = o.Once; s.once == nil {
		s.once = session.NewMemory(session.MemoryOptions{Now: s.clock.Now})
	}
	process := NewProcess(ProcessOptions{Observers: []observe.Observer{observe.Log{Logger: s.log.logger()}},
		Log:        s.log.logger(),
		Registerer: s.metrics, Now: s.clock.Now})
	options := Options{
		PublicURL: public, Prefix: prefix, Admission: admit, Sessions: s.sessions, Table: table, Upstreams: upstreams,
		Headers:    headers,
		Assertions: signer, Providers: providers, Once: s.once, Orgs: o.Orgs, Branding: o.Brand, MaxFlows: o.Flows,
		MaxURL: 8 << 10, MaxHeader: 64 << 10, Trusted: o.Trusted,
	}
	if o.Tuned != nil {
		o.Tuned(&options)
	}
	s.proxy, err = New(process, options)
	testenv.Check(tb, err)
}

// login makes a real login provider of s.provider, or of one that does not answer.
func (s *testSite) login(tb testing.TB, id string, call time.Duration) *login.Provider {
	tb.Helper()
	issuer := "http://127.0.0.1:1" // nobody listens on tcpmux
	if s.provider != nil {
		issuer = s.provider.URL
	}
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	client, err := oauth.NewClient(oauth.Options{Provider: id, Transport: transport, Timeout: call})
	testenv.Check(tb, err)
	l, err := login.New(login.Options{ID: id, Issuer: issuer, ClientID: devClient, ClientSecret: devSecret,
		RedirectURL: s.url + prefix + "/callback/" + id, Scopes: []string{"openid", "profile", "email", "groups",
			"org"}, Claims: s.claims,
		Needs: login.Needs{Email: true}, ReauthAfter: s.reauth, Client: client, Log: s.log.logger(), Now: s.clock.Now})
	testenv.Check(tb, err)
	return l
}

func (s *testSite) start(tb testing.TB, o setup) {
	s.server.Config = &http.Server{
		Handler: s.proxy, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 128 << 10,
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 100},
		DisableGeneralOptionsHandler: true,
	}
	if o.H2C {
		protocols := &http.Protocols{}
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
		s.server.Config.Protocols = protocols
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, DisableCompression: true}
	s.close = s.server.Close
	if o.TLS {
		s.server.EnableHTTP2 = true
		s.server.StartTLS()
		transport.TLSClientConfig = s.server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		transport.TLSClientConfig.NextProtos = nil
	} else if testenv.InLane() {
		s.server.URL = "http://" + s.addr
		s.lane, s.close = testenv.ServeInLane(s.server.Config, s.server.Listener)
	} else {
		s.server.Start()
	}
	s.transport = transport
	tb.Cleanup(func() { // once nothing is served
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.proxy.EndSignIns(ctx)
	})
	tb.Cleanup(s.close)
	tb.Cleanup(transport.CloseIdleConnections)
}

// mint makes the session cookie of somebody, as "name=value".
func (s *testSite) mint(tb testing.TB, who identity.Identity) string {
	tb.Helper()
	return s.seal(tb, s.sessions.Start(who))
}

func (s *testSite) seal(tb testing.TB, sess session.Session) string {
	tb.Helper()
	h := headerWriter{}
	testenv.Check(tb, s.sessions.Write(h, s.routeHost, sess))
	pair, _, _ := strings.Cut(http.Header(h).Get("Set-Cookie"), ";")
	return pair
}

func (s *testSite) browser(tb testing.TB) *testenv.Browser {
	return testenv.NewBrowser(tb, s.transport)
}

// signIn walks through the provider as person, from a deep link.
func (s *testSite) signIn(tb testing.TB, b *testenv.Browser, path, person string) testenv.Page {
	tb.Helper()
	return b.SignIn(b.Open(s.url+path), person)
}

// answer is a response, read whole.
type answer struct {
	status int
	proto  string
	header http.Header
	body   string
}

// get asks with headers given as "Name: value"; no redirect is followed.
func (s *testSite) get(tb testing.TB, path string, headers ...string) answer {
	tb.Helper()
	return s.ask(tb, http.MethodGet, path, "", headers...)
}

func (s *testSite) ask(tb testing.TB, method, path, body string, headers ...string) answer {
	tb.Helper()
	target := path
	if !strings.Contains(path, "://") {
		target = s.url + path
	}
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, target, in)
	testenv.Check(tb, err)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header[name] = append(req.Header[name], value) // spelled as given
	}
	return s.send(tb, req)
}

func (s *testSite) send(tb testing.TB, req *http.Request) answer {
	tb.Helper()
	res, err := s.transport.RoundTrip(req)
	testenv.Check(tb, err)
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	testenv.Check(tb, err)
	return answer{res.StatusCode, res.Proto, res.Header, string(got)}
}

// navigate are the headers of a page being opened.
func navigate(more ...string) []string {
	return append([]string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none",
		"Accept: text/html,*/*;q=0.8"}, more...)
}

// wire is a raw connection to the site. It is opened anew once it was closed.
type wire struct {
	tb   testing.TB
	addr string
	conn net.Conn
	in   *bufio.Reader
}

func (s *testSite) wire(tb testing.TB) *wire {
	w := &wire{tb: tb, addr: s.addr}
	tb.Cleanup(w.close)
	return w
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

func (w *wire) dial() {
	w.tb.Helper()
	w.close()
	conn, err := net.Dial("tcp", w.addr)
	testenv.Check(w.tb, err)
	testenv.Check(w.tb, conn.SetDeadline(time.Now().Add(20*time.Second)))
	w.conn, w.in = conn, bufio.NewReader(conn)
}

// dialSite is dial, over TLS where the site has it.
func (w *wire) dialSite(s *testSite) {
	w.tb.Helper()
	w.dial()
	if strings.HasPrefix(s.url, "https") {
		secure := tls.Client(w.conn, insecureTLS("http/1.1"))
		w.conn, w.in = secure, bufio.NewReader(secure)
	}
}

// do sends one raw request and reads its answer.
func (w *wire) do(method, raw string) answer {
	w.tb.Helper()
	if w.conn == nil {
		w.dial()
	}
	// For this answer; hundreds may have come before.
	testenv.Check(w.tb, w.conn.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.WriteString(w.conn, raw); err != nil {
		w.tb.Fatalf("send %.80q: %v", raw, err)
	}
	res, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.tb.Fatalf("no answer to %.200q: %v", raw, err)
	}
	body, err := io.ReadAll(res.Body)
	testenv.Check(w.tb, err)
	if res.Close {
		w.close()
	}
	return answer{res.StatusCode, res.Proto, res.Header, string(body)}
}

// talk sends bytes on a connection of their own and returns every answer until
// the server closes it, which all callers ask for or deserve.
func (s *testSite) talk(tb testing.TB, raw string) []answer {
	tb.Helper()
	w := s.wire(tb)
	w.dial()
	defer w.close()
	if _, err := io.WriteString(w.conn, raw); err != nil {
		tb.Fatalf("send: %v", err)
	}
	return w.rest()
}

func (w *wire) rest() []answer {
	w.tb.Helper()
	var out []answer
	for {
		if _, err := w.in.Peek(1); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				w.tb.Fatalf("the connection was not closed after %d answers", len(out))
			}
			return out
		}
		res, err := http.ReadResponse(w.in, nil)
		testenv.Check(w.tb, err)
		body, err := io.ReadAll(res.Body)
		testenv.Check(w.tb, err)
		out = append(out, answer{res.StatusCode, res.Proto, res.Header, string(body)})
	}
}

func statuses(all []answer) (out []int) {
	for _, a := range all {
		out = append(out, a.status)
	}
	return out
}

// reply makes an app that answers 200 with header lines and a body, which HEAD
// does not get.
func reply(header, body string) func([]byte) []byte {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n" + header + "\r\n"
	return func(request []byte) []byte {
		if bytes.HasPrefix(request, []byte("HEAD ")) {
			return []byte(head)
		}
		return []byte(head + body)
	}
}

// hits are the requests that reached the app since the last call with the same
// counter, which starts at 0.
func (s *testSite) hits(from *int) [][]byte {
	all := s.app.Requests()
	fresh := all[*from:]
	*from = len(all)
	return fresh
}

// headerOf returns the lines of a raw request by folded name.
func headerOf(raw []byte) map[string][]string {
	out := map[string][]string{}
	for _, name := range testenv.HeaderNames(raw) {
		if folded := foldName(name); out[folded] == nil {
			for _, spelled := range slices.Compact(slices.Sorted(slices.Values(testenv.HeaderNames(raw)))) {
				if foldName(spelled) == folded {
					out[folded] = append(out[folded], testenv.HeaderLines(raw, spelled)...)
				}
			}
		}
	}
	return out
}

// foldName is how the least careful app reads a header's name.
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// logSink keeps every log line, as text and by request.
type logSink struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	faults []string             // lines that are not one JSON object
	byID   map[string][]logLine // by request id
}

type logLine = map[string]any

func newLogSink() *logSink {
	return &logSink{byID: map[string][]logLine{}}
}

func (l *logSink) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write takes one line: slog's handlers write each at once.
func (l *logSink) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line logLine
	if json.Unmarshal(b, &line) != nil || bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' {
		l.faults = append(l.faults, string(b))
	}
	if id, ok := line["request_id"].(string); ok {
		l.byID[id] = append(l.byID[id], line)
	}
	return l.buf.Write(b)
}

// text is all that was logged. Every line must be one JSON object.
func (l *logSink) text(tb testing.TB) string {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		tb.Errorf("no line of JSON: %q", f)
	}
	return l.buf.String()
}

// event waits for the one line about a request: it is written after the answer.
func (l *logSink) event(tb testing.TB, requestID string) logLine {
	tb.Helper()
	if requestID == "" {
		tb.Fatal("the answer has no request id")
	}
	var lines []logLine
	testenv.Eventually(tb, "something is logged about request "+requestID, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		lines = l.byID[requestID]
		return len(lines) > 0
	})
	if len(lines) > 1 {
		tb.Fatalf("logged twice: %v", lines)
	}
	return lines[0]
}

// timeOf is when the first line was logged that matches.
func (l *logSink) timeOf(tb testing.TB, line *regexp.Regexp) time.Time {
	tb.Helper()
	var logged struct{ Time time.Time }
	for text := range strings.Lines(l.text(tb)) {
		if line.MatchString(text) {
			testenv.Check(tb, json.Unmarshal([]byte(text), &logged))
			return logged.Time
		}
	}
	tb.Fatalf("no line matches %s", line)
	return time.Time{}
}

// jsonOf reads a JSON object with string members.
func jsonOf(tb testing.TB, body string) map[string]any {
	tb.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		tb.Fatalf("no JSON object: %q", body)
	}
	return v
}

// insecureTLS is for raw connections to the test server, whose name they leave out.
func insecureTLS(protos ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protos}
}
