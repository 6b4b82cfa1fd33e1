package demo

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	testRedirect = "http://127.0.0.1:4180/.sallyport/callback/demo"
	testVerifier = "0123456789-0123456789-0123456789-0123456789"
	testSecret   = "s3cret+/= %&ü" // every character that encoders disagree on
)

// op is a provider behind a real server, with a clock that tests move.
type op struct {
	t *testing.T
	*Provider
	url    string
	now    time.Time
	client *http.Client
}

func newOP(t *testing.T) *op { return newOPOfKind(t, Standard) }

func newOPOfKind(t *testing.T, kind string) *op {
	t.Helper()
	o := &op{t: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		o.ServeHTTP(w, r)
	}))
	o.url = "http://" + srv.Listener.Addr().String()
	var err error
	o.Provider, err = NewProvider(ProviderOptions{
		Issuer: o.url, ClientID: "demo client", ClientSecret: testSecret,
		RedirectURIs: []string{testRedirect}, PostLogoutURIs: []string{"http://127.0.0.1:4180/"},
		Now: func() time.Time { return o.now }, Kind: kind,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(srv.Close)
	o.client = srv.Client()
	o.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return o
}

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func goodRequest() url.Values {
	return url.Values{
		"client_id": {"demo client"}, "redirect_uri": {testRedirect}, "response_type": {"code"},
		"scope": {"openid email profile groups org"}, "state": {"st&te"}, "nonce": {"n0nce"},
		"code_challenge": {challenge(testVerifier)}, "code_challenge_method": {"S256"},
	}
}

func (o *op) do(req *http.Request) (*http.Response, string) {
	o.t.Helper()
	res, err := o.client.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return res, string(body)
}

func (o *op) request(method, path string, form url.Values) *http.Request {
	o.t.Helper()
	req, err := http.NewRequest(method, o.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		o.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

func (o *op) authorize(q url.Values) (*http.Response, string) {
	o.t.Helper()
	return o.do(o.request(http.MethodGet, AuthorizePath+"?"+q.Encode(), nil))
}

// code signs person in by the page's form and returns the code.
func (o *op) code(q url.Values, person string) string {
	o.t.Helper()
	res, body := o.do(o.request(http.MethodPost, AuthorizePath+"?"+q.Encode(), url.Values{"person": {person}}))
	if res.StatusCode != http.StatusSeeOther {
		o.t.Fatalf("choosing %s answered %d: %s", person, res.StatusCode, body)
	}
	return answerOf(o.t, res).Get("code")
}

func answerOf(t *testing.T, res *http.Response) url.Values {
	t.Helper()
	to, err := res.Location()
	if err != nil {
		t.Fatalf("no redirect, but %d", res.StatusCode)
	}
	if got := to.Scheme + "://" + to.Host + to.Path; got != testRedirect {
		t.Fatalf("redirected to %s, want %s", got, testRedirect)
	}
	return to.Query()
}

func goodExchange(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testRedirect},
		"code_verifier": {testVerifier}}
}

// exchange posts form with the client's Basic credentials.
func (o *op) exchange(form url.Values) (int, map[string]any) {
	o.t.Helper()
	req := o.request(http.MethodPost, TokenPath, form)
	req.SetBasicAuth(url.QueryEscape("demo client"), url.QueryEscape(testSecret))
	return o.json(req)
}

func (o *op) json(req *http.Request) (int, map[string]any) {
	o.t.Helper()
	res, body := o.do(req)
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		o.t.Fatalf("%s answered no JSON: %s", req.URL, body)
	}
	return res.StatusCode, v
}

// verified checks the signature against the served JWKS.
func (o *op) verified(token string) (kid string, claims map[string]any) {
	o.t.Helper()
	_, body := o.do(o.request(http.MethodGet, JWKSPath, nil))
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		o.t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		o.t.Fatal(err)
	}
	kid = jws.Signatures[0].Header.KeyID
	payload, err := jws.Verify(set)
	if err != nil {
		o.t.Fatalf("the ID token does not verify: %v", err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		o.t.Fatal(err)
	}
	return kid, claims
}

func TestSignsAPersonIn(t *testing.T) {
	o := newOP(t)
	res, page := o.authorize(goodRequest())
	if res.StatusCode != http.StatusOK || !strings.Contains(page, `name="person" value="mira"`) {
		t.Fatalf("the chooser answered %d: %s", res.StatusCode, page)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp,
		"form-action 'self' http://127.0.0.1:4180") {
		t.Errorf("Chromium would not follow the redirect back: %s", csp)
	}
	res, _ = o.do(o.request(http.MethodPost, AuthorizePath+"?"+goodRequest().Encode(), url.Values{"person": {"mira"}}))
	back := answerOf(t, res)
	if back.Get("state") != "st&te" || back.Get("iss") != o.url || back.Get("code") == "" {
		t.Fatalf("came back with %v", back)
	}
	status, tokens := o.exchange(goodExchange(back.Get("code")))
	if status != http.StatusOK {
		t.Fatalf("the exchange answered %d %v", status, tokens)
	}
	access := tokens["access_token"].(string)
	if !strings.HasPrefix(access, "demo-at-") || !strings.HasPrefix(tokens["refresh_token"].(string), "demo-rt-") {
		t.Errorf("tokens are not recognisable: %v", tokens)
	}

	_, claims := o.verified(tokens["id_token"].(string))
	half := sha256.Sum256([]byte(access))
	want := map[string]any{"iss": o.url, "sub": "mira", "aud": "demo client", "nonce": "n0nce",
		"iat": float64(o.now.Unix()), "auth_time": float64(o.now.Unix()), "exp": float64(o.now.Unix() + 300),
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:16]),
		"email":   "mira@acme.example", "email_verified": true, "name": "Mira Okafor", "preferred_username": "mira",
		"org_id": "acme", "org_name": "Acme Rockets", "org_domain": "acme.example"}
	for name, v := range want {
		if claims[name] != v {
			t.Errorf("%s is %v, want %v", name, claims[name], v)
		}
	}
	if sid, _ := claims["sid"].(string); len(sid) < 20 {
		t.Errorf("sid is %q", sid)
	}

	req := o.request(http.MethodGet, UserinfoPath, nil)
	req.Header.Set("Authorization", "Bearer "+access)
	if status, info := o.json(req); status != http.StatusOK || info["sub"] != "mira" || info["org_id"] != "acme" {
		t.Errorf("userinfo answered %d %v", status, info)
	}
}

func TestTellsOnlyWhatTheScopeCovers(t *testing.T) {
	o := newOP(t)
	q := goodRequest()
	q.Set("scope", "openid groups unheard-of")
	_, tokens := o.exchange(goodExchange(o.code(q, "zoe")))
	if tokens["scope"] != "openid groups" {
		t.Errorf("granted %q", tokens["scope"])
	}
	_, claims := o.verified(tokens["id_token"].(string))
	if groups, ok := claims["groups"].([]any); !ok || len(groups) != 0 {
		t.Errorf("groups of a person without any are %#v, want an empty list", claims["groups"])
	}
	for _, name := range []string{"email", "email_verified", "name", "preferred_username", "org_id"} {
		if _, there := claims[name]; there {
			t.Errorf("%s was not asked for", name)
		}
	}
}

// A real provider stays on its own page if it can't trust the redirect URI.
func TestRefusesOnItsOwnPageWhatMustNotRedirect(t *testing.T) {
	for name, bend := range map[string]func(url.Values){
		"no client":             func(q url.Values) { q.Del("client_id") },
		"another client":        func(q url.Values) { q.Set("client_id", "other") },
		"two clients":           func(q url.Values) { q.Add("client_id", "demo client") },
		"no redirect URI":       func(q url.Values) { q.Del("redirect_uri") },
		"another redirect URI":  func(q url.Values) { q.Set("redirect_uri", "https://attacker.example/") },
		"a longer redirect URI": func(q url.Values) { q.Set("redirect_uri", testRedirect+"/x") },
		"one with a query":      func(q url.Values) { q.Set("redirect_uri", testRedirect+"?a=b") },
		"other spelling": func(q url.Values) {
			q.Set("redirect_uri",
				strings.Replace(testRedirect, "http:", "HTTP:", 1))
		},
		"two redirect URIs": func(q url.Values) { q.Add("redirect_uri", testRedirect) },
	} {
		t.Run(name, func(t *testing.T) {
			o, q := newOP(t), goodRequest()
			bend(q)
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				res, body := o.do(o.request(method, AuthorizePath+"?"+q.Encode(), url.Values{"person": {"mira"}}))
				if res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" ||
					!strings.Contains(body, "<h1>") {
					t.Errorf("%s answered %d to %q: %s", method, res.StatusCode, res.Header.Get("Location"), body)
				}
			}
		})
	}
}

func TestRefusesEachOmissionToTheClient(t *testing.T) {
	o := newOP(t)
	for name, c := range map[string]struct {
		bend func(url.Values)
		want string
	}{
		"no response type": {func(q url.Values) { q.Del("response_type") }, "unsupported_response_type"},
		"implicit":         {func(q url.Values) { q.Set("response_type", "id_token") }, "unsupported_response_type"},
		"fragment":         {func(q url.Values) { q.Set("response_mode", "fragment") }, "invalid_request"},
		"no scope":         {func(q url.Values) { q.Del("scope") }, "invalid_scope"},
		"no openid":        {func(q url.Values) { q.Set("scope", "email openidx") }, "invalid_scope"},
		"no state":         {func(q url.Values) { q.Del("state") }, "invalid_request"},
		"two states":       {func(q url.Values) { q.Add("state", "x") }, "invalid_request"},
		"no nonce":         {func(q url.Values) { q.Del("nonce") }, "invalid_request"},
		"two nonces":       {func(q url.Values) { q.Add("nonce", "x") }, "invalid_request"},
		"endless nonce": {func(q url.Values) { q.Set("nonce", strings.Repeat("x", maxParam+1)) },
			"invalid_request"},
		"no PKCE": {func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") },
			"invalid_request"},
		"plain PKCE":          {func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		"PKCE without method": {func(q url.Values) { q.Del("code_challenge_method") }, "invalid_request"},
		"short challenge":     {func(q url.Values) { q.Set("code_challenge", "short") }, "invalid_request"},
		"padded challenge": {func(q url.Values) { q.Set("code_challenge", challenge("x")[:42]+"=") },
			"invalid_request"},
		"request object": {func(q url.Values) { q.Set("request", "e30.e30.") }, "request_not_supported"},
		"request URI": {func(q url.Values) { q.Set("request_uri", "https://x.example/") },
			"request_uri_not_supported"},
		"none and login": {func(q url.Values) { q.Set("prompt", "none login") }, "invalid_request"},
		"silent, nobody": {func(q url.Values) { q.Set("prompt", "none") }, "login_required"},
		"silent, a stranger": {func(q url.Values) { q.Set("prompt", "none"); q.Set("login_hint", "eve@x.example") },
			"login_required"},
	} {
		t.Run(name, func(t *testing.T) {
			q := goodRequest()
			c.bend(q)
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				res, _ := o.do(o.request(method, AuthorizePath+"?"+q.Encode(), url.Values{"person": {"mira"}}))
				back := answerOf(t, res)
				if method == http.MethodPost && c.want == "login_required" {
					continue // there somebody did choose
				}
				if back.Get("error") != c.want || back.Has("code") {
					t.Errorf("%s came back with %v, want %s", method, back, c.want)
				}
				if back.Get("iss") != o.url { // RFC 9207 §2
					t.Errorf("%s: the refusal does not say who refuses: %v", method, back)
				}
			}
		})
	}
}

func TestSignsInSilentlyByHint(t *testing.T) {
	o := newOP(t)
	for _, hint := range []string{"tomoko", "tomoko@birch.example"} {
		q := goodRequest()
		q.Set("prompt", "none")
		q.Set("login_hint", hint)
		res, _ := o.authorize(q)
		_, tokens := o.exchange(goodExchange(answerOf(t, res).Get("code")))
		if _, claims := o.verified(tokens["id_token"].(string)); claims["sub"] != "tomoko" {
			t.Errorf("hint %s signed in %v", hint, claims["sub"])
		}
	}
}

func TestCancelGoesBackWithAccessDenied(t *testing.T) {
	o := newOP(t)
	res, _ := o.do(o.request(http.MethodPost, AuthorizePath+"?"+goodRequest().Encode(), url.Values{"cancel": {"1"}}))
	if back := answerOf(t, res); back.Get("error") != "access_denied" || back.Get("state") != "st&te" ||
		back.Has("code") {
		t.Errorf("came back with %v", back)
	}
}

func TestChoosesOnlyFromItsOwnPage(t *testing.T) {
	o := newOP(t)
	for name, c := range map[string]struct {
		header, value, person string
		want                  int
	}{
		"own page":         {"Origin", o.url, "mira", http.StatusSeeOther},
		"another site":     {"Origin", "https://attacker.example", "mira", http.StatusForbidden},
		"another port":     {"Sec-Fetch-Site", "same-site", "mira", http.StatusForbidden},
		"cross-site":       {"Sec-Fetch-Site", "cross-site", "mira", http.StatusForbidden},
		"nobody":           {"Origin", o.url, "", http.StatusBadRequest},
		"somebody unknown": {"Origin", o.url, "eve", http.StatusBadRequest},
		"by address":       {"Origin", o.url, "mira@acme.example", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			req := o.request(http.MethodPost, AuthorizePath+"?"+goodRequest().Encode(),
				url.Values{"person": {c.person}})
			req.Header.Set(c.header, c.value)
			if res, _ := o.do(req); res.StatusCode != c.want {
				t.Errorf("answered %d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

func TestExchangeRefusesEachDeviation(t *testing.T) {
	o := newOP(t)
	for name, c := range map[string]struct {
		bend func(url.Values)
		want string
	}{
		"no code":            {func(f url.Values) { f.Del("code") }, "invalid_grant"},
		"another code":       {func(f url.Values) { f.Set("code", "demo-code-x") }, "invalid_grant"},
		"two codes":          {func(f url.Values) { f.Add("code", "x") }, "invalid_request"},
		"no redirect URI":    {func(f url.Values) { f.Del("redirect_uri") }, "invalid_grant"},
		"other redirect URI": {func(f url.Values) { f.Set("redirect_uri", testRedirect+"/") }, "invalid_grant"},
		"no verifier":        {func(f url.Values) { f.Del("code_verifier") }, "invalid_grant"},
		"other verifier":     {func(f url.Values) { f.Set("code_verifier", testVerifier+"x") }, "invalid_grant"},
		"challenge as it was": {func(f url.Values) { f.Set("code_verifier", challenge(testVerifier)) },
			"invalid_grant"},
		"no grant type":   {func(f url.Values) { f.Del("grant_type") }, "unsupported_grant_type"},
		"refresh":         {func(f url.Values) { f.Set("grant_type", "refresh_token") }, "unsupported_grant_type"},
		"two credentials": {func(f url.Values) { f.Set("client_secret", testSecret) }, "invalid_request"},
		"two names":       {func(f url.Values) { f.Set("client_id", "other") }, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			form := goodExchange(o.code(goodRequest(), "mira"))
			c.bend(form)
			status, body := o.exchange(form)
			if status != http.StatusBadRequest || body["error"] != c.want || body["access_token"] != nil {
				t.Errorf("answered %d %v, want %s", status, body, c.want)
			}
		})
	}
}

func TestExchangeRefusesFormsThatAreNone(t *testing.T) {
	o := newOP(t)
	for name, bend := range map[string]func(*http.Request){
		"JSON":                func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
		"no type":             func(r *http.Request) { r.Header.Del("Content-Type") },
		"parameters in query": func(r *http.Request) { r.URL.RawQuery = "code=x" },
	} {
		t.Run(name, func(t *testing.T) {
			req := o.request(http.MethodPost, TokenPath, goodExchange(o.code(goodRequest(), "mira")))
			req.SetBasicAuth(url.QueryEscape("demo client"), url.QueryEscape(testSecret))
			bend(req)
			if status, body := o.json(req); status != http.StatusBadRequest || body["error"] != "invalid_request" {
				t.Errorf("answered %d %v", status, body)
			}
		})
	}
	huge := goodExchange("x")
	huge.Set("code_verifier", strings.Repeat("x", maxBody))
	if status, body := o.exchange(huge); status != http.StatusBadRequest || body["error"] != "invalid_request" {
		t.Errorf("a body above the limit answered %d %v", status, body)
	}
}

func TestClientProvesItself(t *testing.T) {
	o := newOP(t)
	esc := url.QueryEscape
	for name, c := range map[string]struct {
		user, pass string // Basic, if user is set
		post       url.Values
		want       int
	}{
		"basic": {user: esc("demo client"), pass: esc(testSecret), want: 200},
		"basic, client named": {user: esc("demo client"), pass: esc(testSecret),
			post: url.Values{"client_id": {"demo client"}}, want: 200},
		"post": {post: url.Values{"client_id": {"demo client"}, "client_secret": {testSecret}},
			want: 200},
		"nobody":       {want: 401},
		"no secret":    {post: url.Values{"client_id": {"demo client"}}, want: 401},
		"empty secret": {post: url.Values{"client_id": {"demo client"}, "client_secret": {""}}, want: 401},
		"wrong secret": {post: url.Values{"client_id": {"demo client"}, "client_secret": {testSecret + "x"}},
			want: 401},
		"another client":       {user: "other", pass: esc(testSecret), want: 401},
		"basic, not encoded":   {user: "demo client", pass: testSecret, want: 401},
		"basic, encoded twice": {user: esc("demo client"), pass: esc(esc(testSecret)), want: 401},
	} {
		t.Run(name, func(t *testing.T) {
			form := goodExchange(o.code(goodRequest(), "mira"))
			for k, v := range c.post {
				form[k] = v
			}
			req := o.request(http.MethodPost, TokenPath, form)
			if c.user != "" {
				req.SetBasicAuth(c.user, c.pass)
			}
			status, body := o.json(req)
			if status != c.want || (status == 401 && body["error"] != "invalid_client") {
				t.Errorf("answered %d %v, want %d", status, body, c.want)
			}
		})
	}
}

func TestCodeIsSpentByTheFirstUse(t *testing.T) {
	o := newOP(t)
	code := o.code(goodRequest(), "mira")
	_, tokens := o.exchange(goodExchange(code))
	if status, body := o.exchange(goodExchange(code)); status != 400 || body["error"] != "invalid_grant" {
		t.Fatalf("a replayed code answered %d %v", status, body)
	}
	req := o.request(http.MethodGet, UserinfoPath, nil) // RFC 6749 §4.1.2: the replay revokes
	req.Header.Set("Authorization", "Bearer "+tokens["access_token"].(string))
	if res, _ := o.do(req); res.StatusCode != 401 ||
		!strings.Contains(res.Header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("after a replay the access token still answers %d", res.StatusCode)
	}

	code = o.code(goodRequest(), "mira")
	wrong := goodExchange(code)
	wrong.Set("code_verifier", testVerifier+"x")
	o.exchange(wrong)
	if status, _ := o.exchange(goodExchange(code)); status != 400 {
		t.Error("after a failed proof the code is still good")
	}
}

func TestCodeLivesAMinute(t *testing.T) {
	o := newOP(t)
	young, old := o.code(goodRequest(), "mira"), o.code(goodRequest(), "mira")
	o.now = o.now.Add(codeLife - time.Second)
	if status, body := o.exchange(goodExchange(young)); status != 200 {
		t.Errorf("before a minute is over: %d %v", status, body)
	}
	o.now = o.now.Add(time.Second)
	if status, body := o.exchange(goodExchange(old)); status != 400 || body["error"] != "invalid_grant" {
		t.Errorf("after a minute: %d %v", status, body)
	}
}

func TestAnswersOnlyToItsOwnHost(t *testing.T) {
	o := newOP(t)
	port := o.url[strings.LastIndex(o.url, ":"):]
	for _, host := range []string{"attacker.example" + port, "localhost" + port, "127.0.0.1", "127.0.0.1:1"} {
		for _, path := range []string{DiscoveryPath, AuthorizePath, JWKSPath, "/", "/nowhere"} {
			req := o.request(http.MethodGet, path, nil)
			req.Host = host
			if res, body := o.do(req); res.StatusCode != http.StatusMisdirectedRequest || strings.Contains(body, "{") {
				t.Errorf("Host %s, path %s: answered %d %s", host, path, res.StatusCode, body)
			}
		}
	}
}

func TestDiscoveryNamesEveryEndpoint(t *testing.T) {
	o := newOP(t)
	_, d := o.json(o.request(http.MethodGet, DiscoveryPath, nil))
	want := map[string]any{"issuer": o.url, "authorization_endpoint": o.url + "/authorize", "token_endpoint": o.url +
		"/token",
		"userinfo_endpoint": o.url + "/userinfo", "jwks_uri": o.url + "/jwks", "end_session_endpoint": o.url +
			"/end_session",
		"authorization_response_iss_parameter_supported": true}
	for name, v := range want {
		if d[name] != v {
			t.Errorf("%s is %v, want %v", name, d[name], v)
		}
	}
}

func TestRotationReplacesTheKey(t *testing.T) {
	o := newOP(t)
	before, err := o.Sign(nil, map[string]any{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	oldKid, _ := o.verified(before)
	if err := o.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	after, err := o.Sign(nil, map[string]any{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	newKid, _ := o.verified(after)
	if newKid == oldKid {
		t.Error("the new key has the old name")
	}
	set := o.PublicJWKS()
	if len(set.Keys) != 1 || set.Keys[0].KeyID != newKid || !set.Keys[0].IsPublic() {
		t.Errorf("the set holds %d keys", len(set.Keys))
	}
	if _, ok := set.Keys[0].Key.(*rsa.PublicKey); !ok {
		t.Errorf("the set holds a %T", set.Keys[0].Key)
	}
}

func TestSignWritesTheHeaderItIsGiven(t *testing.T) {
	o := newOP(t)
	token, err := o.Sign(map[string]any{"kid": nil, "alg": "HS256", "x": 1}, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil || string(raw) != `{"alg":"HS256","typ":"JWT","x":1}` {
		t.Errorf("the header is %s (%v)", raw, err)
	}
}

func TestEndSessionReturnsOnlyToRegisteredAddresses(t *testing.T) {
	o := newOP(t)
	for name, c := range map[string]struct {
		q        url.Values
		status   int
		location string
	}{
		"back": {url.Values{"client_id": {"demo client"},
			"post_logout_redirect_uri": {"http://127.0.0.1:4180/"}, "state": {"a b"}}, 303,
			"http://127.0.0.1:4180/?state=a+b"},
		"nowhere": {nil, 200, ""},
		"elsewhere": {url.Values{"client_id": {"demo client"},
			"post_logout_redirect_uri": {"https://attacker.example/"}}, 400, ""},
		"deeper": {url.Values{"client_id": {"demo client"},
			"post_logout_redirect_uri": {"http://127.0.0.1:4180/x"}}, 400, ""},
		"no client":      {url.Values{"post_logout_redirect_uri": {"http://127.0.0.1:4180/"}}, 400, ""},
		"another client": {url.Values{"client_id": {"other"}}, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				path, form := EndSessionPath, c.q
				if method == http.MethodGet {
					path, form = path+"?"+c.q.Encode(), nil
				}
				res, _ := o.do(o.request(method, path, form))
				if res.StatusCode != c.status || res.Header.Get("Location") != c.location {
					t.Errorf("%s answered %d to %q", method, res.StatusCode, res.Header.Get("Location"))
				}
			}
		})
	}
}

func TestServesOnLoopbackOnly(t *testing.T) {
	good := ProviderOptions{Issuer: "http://127.0.0.1:4190", ClientID: "c", ClientSecret: "s",
		RedirectURIs: []string{testRedirect}}
	for _, issuer := range []string{"", "127.0.0.1:4190", "http://0.0.0.0:4190", "http://10.0.0.1",
		"https://id.example.com",
		"http://localhost.example.com", "http://127.0.0.1:4190/", "http://127.0.0.1:4190/x", "http://127.0.0.1:4190?x",
		"http://u@127.0.0.1", "ftp://127.0.0.1"} {
		o := good
		o.Issuer = issuer
		if _, err := NewProvider(o); err == nil {
			t.Errorf("serves as %q", issuer)
		}
	}
	for _, issuer := range []string{"http://127.0.0.1:4190", "https://127.0.0.1:4190", "http://[::1]:4190",
		"http://localhost:4190"} {
		o := good
		o.Issuer = issuer
		if _, err := NewProvider(o); err != nil {
			t.Errorf("refuses %q: %v", issuer, err)
		}
	}
}

func TestRefusesOptionsThatCannotWork(t *testing.T) {
	for name, bend := range map[string]func(*ProviderOptions){
		"no client":         func(o *ProviderOptions) { o.ClientID = "" },
		"no secret":         func(o *ProviderOptions) { o.ClientSecret = "" },
		"relative redirect": func(o *ProviderOptions) { o.RedirectURIs = []string{"/callback"} },
		"CSP in the host":   func(o *ProviderOptions) { o.RedirectURIs = []string{"http://a;script-src/"} },
		"fragment":          func(o *ProviderOptions) { o.PostLogoutURIs = []string{"http://127.0.0.1/#x"} },
		"person twice":      func(o *ProviderOptions) { o.People = []Person{{Key: "a"}, {Key: "a"}} },
		"person unnamed":    func(o *ProviderOptions) { o.People = []Person{{Name: "A"}} },
	} {
		o := ProviderOptions{Issuer: "http://127.0.0.1:4190", ClientID: "c", ClientSecret: "s",
			RedirectURIs: []string{testRedirect}}
		bend(&o)
		if _, err := NewProvider(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDemoPeopleCoverEveryCase(t *testing.T) {
	var noOrg, unverified, several int
	orgs, keys := map[string]bool{}, map[string]bool{}
	for _, p := range slices.Concat(People(), PartnerPeople()) {
		keys[p.Key] = true
		switch {
		case len(p.Orgs) > 1:
			several++
		case p.OrgID == "" && p.EmailVerified:
			noOrg++
		}
		if !p.EmailVerified {
			unverified++
		}
		orgs[p.OrgID] = true
		if p.Note == "" {
			t.Errorf("%s has no note", p.Key)
		}
	}
	if len(keys) < 5 || len(orgs) < 3 || noOrg == 0 || unverified == 0 || several == 0 {
		t.Errorf("keys %v, orgs %v, without org %d, unverified %d, with several orgs %d", keys, orgs, noOrg, unverified,
			several)
	}
}

// Thousands of abandoned sign-ins must not fill the memory.
func TestShelfStaysBounded(t *testing.T) {
	s, now := newCodeStore[int](100, time.Minute), time.Unix(0, 0)
	for i := range 1000 {
		s.put(now, strconv.Itoa(i), i)
	}
	if len(s.items) != 100 || len(s.order) != 100 {
		t.Fatalf("keeps %d items, %d names", len(s.items), len(s.order))
	}
	if _, ok := s.get(now, "899"); ok {
		t.Error("the oldest did not make room")
	}
	if v, ok := s.get(now, "900"); !ok || *v != 900 {
		t.Error("a younger one is gone")
	}
	s.put(now.Add(time.Minute), "late", 1)
	if len(s.items) != 1 || len(s.order) != 1 {
		t.Errorf("expired values stay: %d items, %d names", len(s.items), len(s.order))
	}
}
