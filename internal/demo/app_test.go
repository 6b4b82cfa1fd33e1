package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const sallyport = "http://127.0.0.1:4180"

// signer stands for Sallyport: it serves a key set and signs assertions.
type signer struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	kid     string
	status  int
	fetches atomic.Int32
	url     string
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{t: t, kid: "k1", status: http.StatusOK}
	s.rotate("k1")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &s.key.PublicKey, KeyID: s.kid, Use: "sig",
			Algorithm: "ES256"}}}
		if err := writeJSON(w, s.status, set); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *signer) rotate(kid string) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	s.key, s.kid = key, kid
}

func (s *signer) sign(alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	s.t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: s.kid}}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

func show(t *testing.T, app http.Handler, target string, headers map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RequestURI = target
	for name, v := range headers {
		r.Header.Set(name, v)
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	return w
}

func newTestApp(t *testing.T, jwksURL string, now func() time.Time) http.Handler {
	t.Helper()
	app, err := NewApp(AppOptions{JWKSURL: jwksURL, Issuer: sallyport, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func TestAppShowsWhoIsAsking(t *testing.T) {
	app := newTestApp(t, "http://127.0.0.1:1/", nil)
	w := show(t, app, "/reports/2026?team=blue", map[string]string{
		"X-Forwarded-User": "demo:zoe", "X-Forwarded-Name": "Zo%C3%AB Mart%C3%ADn",
		"X-Forwarded-Email":  "zoe@mail.example",
		"X-Forwarded-Groups": "on-call,a%2Cb", "X-Forwarded-Org-Name": "Acme", "X-Forwarded-Org-Id": "demo:acme",
		"X-Other": "x",
	})
	page := w.Body.String()
	for _, want := range []string{"Hello, Zoë Martín", "<code>demo:zoe</code>", "<dd>zoe@mail.example",
		`<span class="tag">on-call</span><span class="tag">a,b</span>`,
		"<dd>Acme", "GET /reports/2026?team=blue",
		"<code>X-Forwarded-Name</code></th><td class=\"mono\">Zo%C3%AB Mart%C3%ADn", "<code>X-Other</code>",
		"Other headers (1)",
		`action="/.sallyport/logout"`, `href="/.sallyport/account"`, "No assertion came"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestAppSaysSoWhereNobodyIsNamed(t *testing.T) {
	page := show(t, newTestApp(t, "http://127.0.0.1:1/", nil), "/public", nil).Body.String()
	if !strings.Contains(page, "This request named nobody") || !strings.Contains(page, "Public page") {
		t.Errorf("shows %s", page)
	}
}

// A page that asks for a recent sign-in says how to see that it does.
func TestAppSaysWhatItsPayrollAsks(t *testing.T) {
	app := newTestApp(t, "http://127.0.0.1:1/", nil)
	if page := show(t, app, "/", nil).Body.String(); !strings.Contains(page, `<a href="/payroll">Recent sign-in only</a>`) {
		t.Errorf("no link: %s", page)
	}
	page := show(t, app, "/payroll", map[string]string{"X-Forwarded-User": "demo:mira"}).Body.String()
	if !strings.Contains(page, "Open this page again two minutes after you signed in") {
		t.Errorf("shows %s", page)
	}
}

// The app is on two hosts, and its pages lead from each to the other.
func TestAppLeadsToItsOtherHostAndBack(t *testing.T) {
	app, err := NewApp(AppOptions{JWKSURL: "http://127.0.0.1:1/", Issuer: "http://localhost:4180",
		Second: "http://127.0.0.1:4180"})
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string) string {
		return show(t, app, "/", map[string]string{"X-Forwarded-User": "demo:mira", "X-Forwarded-Host": host}).Body.String()
	}
	first, second := at("localhost:4180"), at("127.0.0.1:4180")
	if !strings.Contains(first, `<a href="http://127.0.0.1:4180/">Second host</a>`) {
		t.Errorf("the first host: %s", first)
	}
	if !strings.Contains(second, `<a href="http://localhost:4180/">First host</a>`) ||
		!strings.Contains(second, "Who is signed in at localhost:4180 came here without signing in again.") ||
		strings.Contains(second, `href="/hospital"`) {
		t.Errorf("the second host: %s", second)
	}
}

func TestAppEscapesWhatItShows(t *testing.T) {
	evil := `<script>alert(1)</script>`
	page := show(t, newTestApp(t, "http://127.0.0.1:1/", nil), `/x?"><script>`, map[string]string{
		"X-Forwarded-User": evil, "X-Forwarded-Name": evil, "X-Forwarded-Groups": "%3Cscript%3E", "X-Evil": evil,
	}).Body.String()
	if strings.Contains(page, "<script") {
		t.Errorf("unescaped: %s", page)
	}
}

func TestAppVerifiesTheAssertion(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newSigner(t)
	claims := func(changes map[string]any) map[string]any {
		c := map[string]any{"iss": sallyport, "sub": "demo:mira", "exp": now.Unix() + 60,
			"org": map[string]any{"name": "Acme <Rockets>"}}
		for name, v := range changes {
			c[name] = v
		}
		return c
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := s.sign(jose.ES256, s.key, claims(nil))
	for name, c := range map[string]struct{ assertion, want string }{
		"good":    {good, ">verified<"},
		"none":    {"", "No assertion came"},
		"garbage": {"x.y.z", "not a token signed with ES256"},
		"HS256": {s.sign(jose.HS256, []byte("0123456789abcdef0123456789abcdef"), claims(nil)),
			"not a token signed with ES256"},
		"stranger": {s.sign(jose.ES256, stranger, claims(nil)), "signature does not match"},
		"changed":  {good[:len(good)-8] + "AAAAAAAA", "signature does not match"},
		"other issuer": {s.sign(jose.ES256, s.key, claims(map[string]any{"iss": "https://x.example"})),
			"issued by https://x.example"},
		"expired": {s.sign(jose.ES256, s.key, claims(map[string]any{"exp": now.Unix()})),
			"good until 22 Nov 2026, 12:00:00 UTC only"},
		"without end":   {s.sign(jose.ES256, s.key, claims(map[string]any{"exp": nil})), "until when it holds"},
		"end in words":  {s.sign(jose.ES256, s.key, claims(map[string]any{"exp": "tomorrow"})), "until when it holds"},
		"issuer absent": {s.sign(jose.ES256, s.key, claims(map[string]any{"iss": nil})), "issued by"},
	} {
		t.Run(name, func(t *testing.T) {
			app := newTestApp(t, s.url, func() time.Time { return now })
			page := show(t, app, "/", map[string]string{"X-Sallyport-Assertion": c.assertion}).Body.String()
			if !strings.Contains(page, c.want) {
				t.Errorf("does not say %q: %s", c.want, page)
			}
			if shown := strings.Contains(page, "demo:mira"); shown != (name == "good") {
				t.Errorf("claims shown: %v", shown)
			}
		})
	}
}

func TestAppFetchesKeysSparingly(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newSigner(t)
	app := newTestApp(t, s.url, func() time.Time { return now })
	ask := func(want bool, fetches int32) {
		t.Helper()
		raw := s.sign(jose.ES256, s.key, map[string]any{"iss": sallyport, "exp": now.Unix() + 600})
		page := show(t, app, "/", map[string]string{"X-Sallyport-Assertion": raw}).Body.String()
		if strings.Contains(page, ">verified<") != want || s.fetches.Load() != fetches {
			t.Errorf("verified %v after %d fetches, want %v after %d", !want, s.fetches.Load(), want, fetches)
		}
	}
	ask(true, 1)
	ask(true, 1)
	s.rotate("k2")
	ask(false, 1) // just asked: an unknown kid must not make every request a fetch
	now = now.Add(keysAgain + time.Second)
	ask(true, 2)
	now = now.Add(keysFresh + time.Second)
	ask(true, 3)
	s.status = http.StatusInternalServerError
	now = now.Add(keysFresh + time.Second)
	ask(false, 4)
}

func TestAppTellsHeadersAsJSON(t *testing.T) {
	w := show(t, newTestApp(t, "http://127.0.0.1:1/", nil), "/api/me",
		map[string]string{"X-Forwarded-User": "demo:mira"})
	var got http.Header
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Get("X-Forwarded-User") != "demo:mira" {
		t.Errorf("answered %s", w.Body)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
}

func TestPagesAllowNoScriptAndNoFrame(t *testing.T) {
	o := newOP(t)
	chooser, _ := o.authorize(goodRequest())
	failure, _ := o.authorize(nil)
	app := show(t, newTestApp(t, "http://127.0.0.1:1/", nil), "/", nil).Result()
	for name, h := range map[string]http.Header{"chooser": chooser.Header, "failure": failure.Header,
		"app": app.Header} {
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "style-src 'sha256-", "frame-ancestors 'none'",
			"base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: no %s in %q", name, want, csp)
			}
		}
		if h.Get("X-Frame-Options") != "DENY" || h.Get("Cache-Control") != "no-store" ||
			h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", name, h)
		}
	}
}

// What Sallyport answers an app that lends is shown, whatever it is, and never ends the page.
func TestAppShowsWhatBecomesOfALentCalendar(t *testing.T) {
	problem := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer app-token" || r.Header.Get("X-Sallyport-Assertion") != "a" {
				t.Errorf("it was asked with %v", r.Header)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body)) // the app has gone
		}
	}
	for name, row := range map[string]struct {
		lender http.HandlerFunc
		want   []string
	}{
		"nothing lent": {problem(409, `{"title":"A person has to agree first",
			"connect_url":"http://localhost:4180/.sallyport/connect/calendar?access=freebusy&access=events&app=demo-app"}`),
			[]string{"not connected",
				`href="http://localhost:4180/.sallyport/connect/calendar?access=freebusy&amp;app=demo-app&amp;` +
					`return_to=http%3A%2F%2F127.0.0.1%3A4180%2Fcalendar"`}},
		"busy":           {problem(503, `{"title":"Not possible now"}`), []string{"503 Not possible now", "not now"}},
		"no problem":     {problem(502, `<html>`), []string{"502 Bad Gateway", "not now"}},
		"another answer": {problem(200, `[`), []string{"the answer could not be read", "not now"}},
		"nobody": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			[]string{"the gateway could not be asked", "not now"}},
	} {
		srv := httptest.NewServer(row.lender)
		app, err := NewApp(AppOptions{JWKSURL: "http://127.0.0.1:1/", Issuer: sallyport,
			Grants: &AppGrants{URL: srv.URL, Token: "app-token", Connector: "calendar"}})
		if err != nil {
			t.Fatal(err)
		}
		page := show(t, app, "/calendar", map[string]string{"X-Forwarded-User": "demo:mira", "X-Sallyport-Assertion": "a"})
		for _, want := range row.want {
			if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), want) {
				t.Errorf("%s: %d, the page lacks %s: %s", name, page.Code, want, page.Body)
			}
		}
		srv.Close()
	}
}
