package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// cluster is what a Kubernetes API server shows of its service accounts, as its
// documentation has it (Service Account Token Volume Projection, "Service account issuer
// discovery"): two documents, for those who show a token of the cluster. The second has
// an address that the first names.
type cluster struct {
	URL  string
	key  *ecdsa.PrivateKey
	keys string // the address of the key set

	mu    sync.Mutex
	token string              // who asks must show it
	shown map[string][]string // of each path, the tokens that came
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Check(t, err)
	c := &cluster{key: key, token: "first", shown: map[string][]string{}}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	c.URL, c.keys = srv.URL, srv.URL+"/openid/v1/jwks"
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown[r.URL.Path] = append(c.shown[r.URL.Path], strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if r.Header.Get("Authorization") != "Bearer "+c.token {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","status":"Failure","reason":"Forbidden","code":403}`)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": c.URL, "jwks_uri": c.keys,
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"}})
	case "/openid/v1/jwks":
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: &c.key.PublicKey, KeyID: "k8s", Algorithm: "ES256", Use: "sig"}}})
	default:
		http.NotFound(w, r)
	}
}

func (c *cluster) change(f func()) { c.mu.Lock(); defer c.mu.Unlock(); f() }

func (c *cluster) shownAt(path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.shown[path], " ")
}

// serviceAccount is a projected token of a service account.
func (c *cluster) serviceAccount(t *testing.T, bend ...func(map[string]any)) string {
	t.Helper()
	claims := map[string]any{"aud": []string{api}, "exp": in(time.Hour), "iat": in(-time.Minute),
		"nbf": in(-time.Minute),
		"iss": c.URL, "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a", "sub": "system:serviceaccount:prod:worker",
		"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": "worker",
			"uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}},
		"email": "root@acme.example", "email_verified": true}
	for _, b := range bend {
		b(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256,
		Key: jose.JSONWebKey{Key: c.key, KeyID: "k8s"}}, nil)
	testenv.Check(t, err)
	payload, err := json.Marshal(claims)
	testenv.Check(t, err)
	jws, err := signer.Sign(payload)
	testenv.Check(t, err)
	out, err := jws.CompactSerialize()
	testenv.Check(t, err)
	return out
}

func (c *cluster) verifier(t *testing.T, clock *testenv.Clock, change ...func(*Options)) *TokenVerifier {
	t.Helper()
	o := Options{ID: "cluster", Use: UseTokens, Issuer: c.URL, Now: clock.Now,
		DiscoveryCredential: func() (string, error) { c.mu.Lock(); defer c.mu.Unlock(); return c.token, nil }}
	for _, f := range change {
		f(&o)
	}
	p, err := New(o)
	testenv.Check(t, err)
	b, err := p.TokenVerifier(BearerOptions{Audiences: []string{api}, Quirks: []string{quirkAnyTyp}})
	testenv.Check(t, err)
	return b
}

// A program of the cluster comes with the token of its service account. Who it is stands
// in the subject; an address in its token counts for nothing, unless email_domains
// allows it.
func TestAServiceAccountOfAClusterIsKnownByItsSubject(t *testing.T) {
	t.Parallel()
	c, clock := startCluster(t), testenv.StandingClock(epoch())
	b := c.verifier(t, clock)
	id, _, err := b.Verify(t.Context(), c.serviceAccount(t))
	if err != nil || id.ID() != "cluster:system:serviceaccount:prod:worker" || id.VerifiedEmail() != "" ||
		id.Groups != nil {
		t.Fatalf("%+v, %v", id, err)
	}
	for name, bend := range map[string]func(map[string]any){
		"for another":       testenv.With("aud", []string{"https://kubernetes.default.svc"}),
		"of another issuer": testenv.With("iss", c.URL+"/"),
		"expired":           testenv.With("exp", in(-time.Minute)),
		"without a subject": testenv.Without("sub"),
	} {
		if id, _, err := b.Verify(t.Context(), c.serviceAccount(t, bend)); err == nil {
			t.Errorf("%s: taken for %+v", name, id)
		}
	}
	if b.Issuer() != c.URL {
		t.Errorf("programs are sent to %s", b.Issuer())
	}
	vouched := c.verifier(t, clock, func(o *Options) { o.EmailDomains = []string{"acme.example"} })
	if id, _, err := vouched.Verify(t.Context(), c.serviceAccount(t)); err != nil ||
		id.VerifiedEmail() != "root@acme.example" {
		t.Errorf("%+v, %v", id, err)
	}
}

// The token that the cluster asks for is read anew each time, because it is renewed every
// few minutes, and a refusal is an outage and no verdict on anybody's token.
func TestTheDiscoveryTokenIsReadForEachRequest(t *testing.T) {
	t.Parallel()
	c, clock := startCluster(t), testenv.StandingClock(epoch())
	shown := "wrong"
	b := c.verifier(t, clock, func(o *Options) { o.DiscoveryCredential = func() (string, error) { return shown, nil } })
	_, _, err := b.Verify(t.Context(), c.serviceAccount(t))
	if identity.FailureOf(err) != identity.Unavailable && identity.FailureOf(err) != identity.Misconfigured {
		t.Errorf("a refused discovery is %v", err)
	}
	clock.Advance(time.Minute)
	shown = "first"
	if _, _, err := b.Verify(t.Context(), c.serviceAccount(t)); err != nil {
		t.Fatal(err)
	}
	if got := c.shownAt("/.well-known/openid-configuration"); got != "wrong first" {
		t.Errorf("shown for the document: %s", got)
	}
	// The cluster has a new signing key, and takes only a newer token.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testenv.Check(t, err)
	c.change(func() { c.key, c.token = key, "second" })
	shown = "second"
	clock.Advance(time.Minute)
	token := c.serviceAccount(t)
	if _, _, err := b.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
	if got := c.shownAt("/openid/v1/jwks"); got != "first second" {
		t.Errorf("shown for the keys: %s", got)
	}
	unreadable := c.verifier(t, clock, func(o *Options) {
		o.DiscoveryCredential = func() (string, error) {
			return "", errors.New("open /var/run/token: permission " +
				"denied")
		}
	})
	if _, _, err := unreadable.Verify(t.Context(), token); identity.FailureOf(err) != identity.Unavailable ||
		!strings.Contains(err.Error(), "discovery_token: open /var/run/token: permission denied") {
		t.Errorf("%v", err)
	}
}

// A document may name any address for the keys. The token of the cluster is not sent there.
func TestP08_TheDiscoveryTokenIsSentToNobodyElse(t *testing.T) {
	t.Parallel()
	c, thief, clock := startCluster(t), startCluster(t), testenv.StandingClock(epoch())
	c.keys = thief.keys
	if _, _, err := c.verifier(t, clock).Verify(t.Context(), c.serviceAccount(t)); err == nil {
		t.Error("keys that were refused verify nothing")
	}
	if got := thief.shownAt("/openid/v1/jwks"); got != "" {
		t.Errorf("shown elsewhere: %q", got)
	}
	// The operator names that address: then it is asked for with the token, and nobody
	// asks for the document.
	b := c.verifier(t, clock, func(o *Options) { o.Endpoints.JWKSURL = thief.keys })
	thief.change(func() { thief.key = c.key })
	if _, _, err := b.Verify(t.Context(), c.serviceAccount(t)); err != nil {
		t.Error(err)
	}
	if got := thief.shownAt("/openid/v1/jwks"); got != " first" {
		t.Errorf("shown at the configured address: %q", got)
	}
	if got := c.shownAt("/.well-known/openid-configuration"); got != "first" {
		t.Errorf("the document was asked for with %q", got)
	}
}

// What is for signing in has no meaning where nobody signs in.
func TestP21_ATokensOnlyProviderTakesNothingForSigningIn(t *testing.T) {
	t.Parallel()
	good := Options{ID: "cluster", Type: TypeOIDC, Use: UseTokens, Issuer: "https://kubernetes.default.svc"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	token := func() (string, error) { return "", nil }
	for key, bend := range map[string]func(*Options){
		"client_secret":           func(o *Options) { o.ClientSecret = "s" },
		"client_auth":             func(o *Options) { o.ClientAuth = ClientAuthPost },
		"scopes":                  func(o *Options) { o.Scopes = []string{"openid"} },
		"identity_from":           func(o *Options) { o.IdentityFrom = FromUserinfo },
		"trusted_audiences":       func(o *Options) { o.TrustedAudiences = []string{"x"} },
		"quirks":                  func(o *Options) { o.Quirks = []string{quirkUncheckedIssuer} },
		"logout":                  func(o *Options) { o.SignOut.Off = true },
		"endpoints.authorization": func(o *Options) { o.Endpoints.AuthorizationURL = "https://a.example" },
		"use":                     func(o *Options) { o.Type, o.Issuer = TypeGoogle, "" },
		"issuer":                  func(o *Options) { o.Issuer = "" },
		"discovery_token": func(o *Options) {
			o.Use, o.ClientID, o.ClientSecret, o.RedirectURL, o.DiscoveryCredential = "", "c", "s",
				"https://a.example/c", token
		},
	} {
		o := good
		bend(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
