package testenv

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

const (
	callback = "http://127.0.0.1:4180/callback"
	verifier = "0123456789-0123456789-0123456789-0123456789"
)

func startProvider(t *testing.T) *Faults {
	return StartProvider(t, demo.ProviderOptions{ClientID: "c", ClientSecret: "s", RedirectURIs: []string{callback}})
}

// answer is what the provider's HTTP said, read as far as it came.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func fetch(t *testing.T, req *http.Request) answer {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body), err}
}

func get(t *testing.T, target string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fetch(t, req)
}

// tokens signs mira in silently and exchanges the code.
func tokens(t *testing.T, f *Faults) answer {
	t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"client_id": {"c"}, "redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"openid email"},
		"state": {"s"}, "nonce": {"n"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
		"code_challenge_method": {"S256"}, "prompt": {"none"}, "login_hint": {"mira"}}
	to, err := url.Parse(get(t, f.URL+demo.AuthorizePath+"?"+q.Encode()).header.Get("Location"))
	if err != nil || to.Query().Get("code") == "" {
		t.Fatalf("no code: %v %v", to, err)
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")},
		"redirect_uri":  {callback},
		"code_verifier": {verifier}, "client_id": {"c"}, "client_secret": {"s"}}
	req, err := http.NewRequest(http.MethodPost, f.URL+demo.TokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return fetch(t, req)
}

func object(t *testing.T, body string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("no JSON object: %q", body)
	}
	return v
}

func idToken(t *testing.T, f *Faults) (token string, header, claims map[string]any) {
	t.Helper()
	a := tokens(t, f)
	token, _ = object(t, a.body)["id_token"].(string)
	header, claims, err := parseJWT(token)
	if err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return token, header, claims
}

// signedBy reports whether the key the provider serves signed the token.
func signedBy(p *demo.Provider, token string) bool {
	i := strings.LastIndex(token, ".")
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	digest := sha256.Sum256([]byte(token[:i]))
	key, _ := p.PublicJWKS().Keys[0].Key.(*rsa.PublicKey)
	return err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sig) == nil
}

func TestWithoutFaultsItIsTheProvider(t *testing.T) {
	f := startProvider(t)
	token, header, claims := idToken(t, f)
	if !signedBy(f.Provider, token) || header["kid"] != f.Provider.PublicJWKS().Keys[0].KeyID ||
		claims["sub"] != "mira" {
		t.Errorf("header %v, claims %v", header, claims)
	}
	if f.Hits(Authorize) != 1 || f.Hits(Token) != 1 || f.Hits(JWKS) != 0 {
		t.Errorf("counted %d, %d, %d", f.Hits(Authorize), f.Hits(Token), f.Hits(JWKS))
	}
	if sent := f.Requests(Token)[0]; sent.Method != http.MethodPost ||
		!strings.Contains(string(sent.Body), "code_verifier="+verifier) {
		t.Errorf("recorded %s %s", sent.Method, sent.Body)
	}
}

func TestBentClaimsAreSignedAgain(t *testing.T) {
	f := startProvider(t)
	f.Set(Fault{Endpoint: Token, Claims: With("aud", "other")}, Fault{Endpoint: Token, Claims: Without("nonce")})
	token, _, claims := idToken(t, f)
	if !signedBy(f.Provider, token) {
		t.Error("the bent token does not verify")
	}
	if _, there := claims["nonce"]; there || claims["aud"] != "other" || claims["sub"] != "mira" {
		t.Errorf("claims %v", claims)
	}
	if exp, ok := claims["exp"].(json.Number); !ok || strings.ContainsAny(exp.String(), ".eE") {
		t.Errorf("exp went through a float: %v", claims["exp"])
	}
}

func TestTokensCanBeSignedWrongly(t *testing.T) {
	f := startProvider(t)
	publicPEM := func() []byte {
		der, err := x509.MarshalPKIXPublicKey(f.Provider.PublicJWKS().Keys[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	hs256 := func(token string, secret []byte) bool {
		i := strings.LastIndex(token, ".")
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(token[:i]))
		return token[i+1:] == base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	kid := f.Provider.PublicJWKS().Keys[0].KeyID
	for name, c := range map[string]struct {
		resign   Signer
		alg, kid any
		good     func(token string) bool
	}{
		"unsigned": {Unsigned, "none", kid, func(token string) bool { return strings.HasSuffix(token, ".") }},
		"public key": {SignedWithPublicKey, "HS256", kid,
			func(token string) bool { return hs256(token, publicPEM()) }},
		"client's secret": {SignedHS256([]byte("s")), "HS256", kid,
			func(token string) bool { return hs256(token, []byte("s")) }},
		"stranger": {SignedByStranger, "RS256", kid,
			func(token string) bool { return !signedBy(f.Provider, token) }},
		"no kid":      {WithKid(""), "RS256", nil, func(token string) bool { return signedBy(f.Provider, token) }},
		"unknown kid": {WithKid("x"), "RS256", "x", func(token string) bool { return signedBy(f.Provider, token) }},
	} {
		t.Run(name, func(t *testing.T) {
			f.Set(Fault{Endpoint: Token, Resign: c.resign})
			token, header, claims := idToken(t, f)
			if header["alg"] != c.alg || header["kid"] != c.kid || claims["sub"] != "mira" || !c.good(token) {
				t.Errorf("header %v, claims %v, token %s", header, claims, token)
			}
		})
	}
}

func TestKeySetsCanBeStrange(t *testing.T) {
	f := startProvider(t)
	keys := func() []any { return object(t, get(t, f.URL+demo.JWKSPath).body)["keys"].([]any) }
	f.Set(Fault{Endpoint: JWKS, JSON: MoreKeys})
	if got := keys(); len(got) != 3 || got[2].(map[string]any)["kid"] != f.Provider.PublicJWKS().Keys[0].KeyID {
		t.Errorf("serves %v", got)
	}
	f.Set(Fault{Endpoint: JWKS, JSON: NamelessKeys})
	if got := keys(); len(got) != 1 || got[0].(map[string]any)["kid"] != nil {
		t.Errorf("serves %v", got)
	}
	before := f.Provider.PublicJWKS().Keys[0].KeyID
	f.Set(Fault{Endpoint: JWKS, Times: 1, Before: func(p *demo.Provider) {
		if err := p.RotateKeys(); err != nil {
			t.Error(err)
		}
	}})
	first, second := keys()[0].(map[string]any)["kid"], keys()[0].(map[string]any)["kid"]
	if first == before || first != second {
		t.Errorf("before %s, then %s, then %s", before, first, second)
	}
}

func TestEndpointsCanAnswerWrongly(t *testing.T) {
	f, attacker := startProvider(t), NewAttacker(t)
	discovery := f.URL + demo.DiscoveryPath
	for name, c := range map[string]struct {
		fault Fault
		good  func(answer) bool
	}{
		"503": {Fault{Status: 503},
			func(a answer) bool { return a.status == 503 && strings.Contains(a.body, `"error"`) }},
		"429": {Fault{Status: 429, Header: map[string]string{"Retry-After": "7"}},
			func(a answer) bool { return a.status == 429 && a.header.Get("Retry-After") == "7" }},
		"own body": {Fault{Status: 400, Body: `{"error":"invalid_grant"}`},
			func(a answer) bool { return a.status == 400 && a.body == `{"error":"invalid_grant"}` }},
		"not JSON": {Fault{Body: "<html>", ContentType: "text/html"}, func(a answer) bool {
			return a.status == 200 && a.body == "<html>" && a.header.Get("Content-Type") == "text/html"
		}},
		"302": {Fault{Redirect: attacker.URL},
			func(a answer) bool { return a.status == 302 && a.header.Get("Location") == attacker.URL }},
		"307": {Fault{Redirect: attacker.URL, Status: 307},
			func(a answer) bool { return a.status == 307 && a.header.Get("Location") == attacker.URL }},
		"huge": {Fault{Pad: 2 << 20},
			func(a answer) bool { return len(a.body) > 2<<20 && object(t, a.body)["issuer"] == f.URL }},
		"truncated": {Fault{Truncate: true},
			func(a answer) bool { return errors.Is(a.err, io.ErrUnexpectedEOF) && len(a.body) > 0 }},
		"content type": {Fault{ContentType: "text/plain"}, func(a answer) bool {
			return a.header.Get("Content-Type") == "text/plain" && object(t, a.body)["issuer"] == f.URL
		}},
		"wrong issuer": {Fault{JSON: With("issuer", "https://evil.example")},
			func(a answer) bool { return object(t, a.body)["issuer"] == "https://evil.example" }},
		"no jwks_uri": {Fault{JSON: Without("jwks_uri")}, func(a answer) bool {
			return !strings.Contains(a.body, "jwks_uri") && object(t, a.body)["issuer"] == f.URL
		}},
		"other endpoint": {Fault{Endpoint: Token, Status: 503}, func(a answer) bool { return a.status == 200 }},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fault.Endpoint == "" {
				c.fault.Endpoint = Discovery
			}
			f.Set(c.fault)
			if a := get(t, discovery); !c.good(a) {
				t.Errorf("answered %d %v, %d bytes, %v: %.300s", a.status, a.header, len(a.body), a.err, a.body)
			}
			f.Set()
			if a := get(t, discovery); a.status != 200 || object(t, a.body)["issuer"] != f.URL {
				t.Errorf("after mending: %d", a.status)
			}
		})
	}
	if got := attacker.Requests(); len(got) != 0 {
		t.Errorf("somebody followed: %v", got)
	}
}

func TestTokenAnswerCanLackTheIDToken(t *testing.T) {
	f := startProvider(t)
	f.Set(Fault{Endpoint: Token, JSON: Without("id_token")})
	v := object(t, tokens(t, f).body)
	if _, there := v["id_token"]; there || v["access_token"] == nil {
		t.Errorf("answered %v", v)
	}
}

func TestFaultHappensAsOftenAsSaid(t *testing.T) {
	f := startProvider(t)
	f.Set(Fault{Endpoint: Discovery, Status: 500, Times: 2})
	var got []int
	for range 4 {
		got = append(got, get(t, f.URL+demo.DiscoveryPath).status)
	}
	if want := []int{500, 500, 200, 200}; !slices.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
}

func TestStallLastsUntilTheClientGivesUp(t *testing.T) {
	f := startProvider(t)
	arrived := make(chan struct{})
	f.Set(Fault{Endpoint: Token, Before: func(*demo.Provider) { close(arrived) }, Stall: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL+demo.TokenPath,
		strings.NewReader("grant_type=x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("a stalled endpoint answered: %v", err)
	}
}

func TestAttackerWritesDownWhoCame(t *testing.T) {
	a := NewAttacker(t)
	req, err := http.NewRequest(http.MethodPost, a.URL+"/steal?x=1", strings.NewReader("secret"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer y")
	fetch(t, req)
	got := a.Requests()
	if len(got) != 1 || got[0].Target != "/steal?x=1" || string(got[0].Body) != "secret" ||
		got[0].Header.Get("Authorization") != "Bearer y" {
		t.Errorf("wrote down %+v", got)
	}
}

// A refresh whose answer is lost has been counted, and the next one is answered.
func TestFaultsOfThePretendGoogle(t *testing.T) {
	f := StartCalendar(t, demo.CalendarOptions{Clients: []demo.CalendarClient{{ID: "c", Secret: "s"}}})
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {"c"},
		"client_secret": {"s"}}
	post := func(path string) (*http.Response, error) {
		t.Helper()
		return http.PostForm(f.URL+path, form)
	}
	f.Set(Fault{Endpoint: Token, Lose: true, Times: 1}, Fault{Endpoint: Revoke, Status: 503, Times: 1},
		Fault{Endpoint: FreeBusy, Stall: true})
	if _, err := post(demo.GoogleTokenPath); err == nil {
		t.Error("a lost answer arrived")
	}
	for path, want := range map[string]int{demo.GoogleTokenPath: 400, demo.GoogleRevokePath: 503} {
		res, err := post(path)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if f.Hits(Token) != 2 || f.Hits(Revoke) != 1 || len(f.Answers(Token)) != 2 ||
		!strings.Contains(f.Answers(Token)[0], "invalid_grant") {
		t.Errorf("asked %d and %d times, answered %q", f.Hits(Token), f.Hits(Revoke), f.Answers(Token))
	}
	for path, want := range map[string]string{demo.GoogleAuthorizePath: Authorize, demo.GoogleCertsPath: JWKS,
		demo.CalendarListPath: CalendarList, demo.CalendarPath + "/calendars/en.usa%23x/events": Events} {
		get(t, f.URL+path)
		if f.Hits(want) != 1 {
			t.Errorf("%s is not counted as %s", path, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", f.URL+demo.FreeBusyPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := http.DefaultClient.Do(req)
		failed <- err
	}()
	Eventually(t, "it is asked", func() bool { return f.Hits(FreeBusy) == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("a stalled answer: %v", err)
	}
}

// Any handler can misbehave.
func TestFaultsOverAnyHandler(t *testing.T) {
	f := NewFaults(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"a":1}`) }))
	srv := httptest.NewServer(f)
	defer srv.Close()
	f.Set(Fault{Endpoint: Token, Times: 1, JSON: With("a", 2)}, Fault{Endpoint: Revoke, Claims: With("sub", "x")})
	for _, want := range []string{`{"a":2}`, `{"a":1}`} {
		if got := get(t, srv.URL+"/token").body; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := get(t, srv.URL+"/revoke"); got.status != http.StatusNotImplemented {
		t.Errorf("a token that is not there was changed: %d %s", got.status, got.body)
	}
}
