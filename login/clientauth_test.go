package login

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// trustingWorld is one whose provider takes an assertion and no secret.
func trustingWorld(t *testing.T, trust demo.ClientTrust, edit ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Trust: &trust})
	w.use(append([]func(*Options){func(o *Options) { o.ClientSecret = "" }}, edit...)...)
	return w
}

func keyPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// tokenForm is what was sent to the token endpoint last.
func (w *world) tokenForm() (url.Values, http.Header) {
	w.t.Helper()
	sent := w.op.Requests(testenv.Token)
	last := sent[len(sent)-1]
	form, err := url.ParseQuery(string(last.Body))
	if err != nil {
		w.t.Fatal(err)
	}
	return form, last.Header
}

// OIDC Core §9: the provider takes assertions once, for itself alone, for five
// minutes at most, and signed by the key that is registered.
func TestAClientSignsInPeopleWithAKeyInsteadOfASecret(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384 := ecKey(t, elliptic.P384())
	der, err := x509.MarshalECPrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		key  crypto.Signer
		text string
		alg  string
	}{
		"RSA, where PS256 is announced": {rsaKey, keyPEM(t, rsaKey), "PS256"},
		"P-256":                         {nil, "", "ES256"},
		"P-384, as openssl ec writes it": {p384,
			string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), "ES384"},
		"Ed25519": {edKey, keyPEM(t, edKey), "EdDSA"},
	} {
		t.Run(name, func(t *testing.T) {
			if row.key == nil {
				key := ecKey(t, elliptic.P256())
				row.key, row.text = key, keyPEM(t, key)
			}
			w := trustingWorld(t, demo.ClientTrust{Key: row.key.Public(), Issuer: clientID, Subject: clientID},
				func(o *Options) {
					o.ClientAuth, o.ClientKey, o.ClientKeyID = ClientAuthPrivateKey, row.text, "key-7"
				})
			w.want()
			w.want() // each assertion counts once
			form, head := w.tokenForm()
			jws, err := jose.ParseSignedCompact(form.Get("client_assertion"),
				[]jose.SignatureAlgorithm{jose.SignatureAlgorithm(row.alg)})
			if err != nil || jws.Signatures[0].Header.KeyID != "key-7" || form.Has("client_secret") ||
				head.Get("Authorization") != "" {
				t.Errorf("%v, kid %v, %v", err, jws, head)
			}
		})
	}
	// Another key: the line in the log says what was sent, what is offered, and the key to look at.
	w := trustingWorld(t, demo.ClientTrust{Key: rsaKey.Public(), Issuer: clientID, Subject: clientID},
		func(o *Options) {
			o.ClientAuth, o.ClientKey = ClientAuthPrivateKey, keyPEM(t, ecKey(t, elliptic.P256()))
		})
	err = w.refuse(identity.Misconfigured)
	for _, says := range []string{"token request to " + w.op.URL + "/token: ", "status 401, invalid_client",
		"client_auth assertion", `offers "private_key_jwt"`, "client_key"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// RFC 7523: somebody else vouches for us, in a file that they renew.
func TestAnAssertionIsReadAgainForEachSignIn(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	const cluster, account = "https://cluster.example", "system:serviceaccount:web:sallyport"
	var token string
	var missing error
	w := trustingWorld(t, demo.ClientTrust{Key: key.Public(), Issuer: cluster, Subject: account}, func(o *Options) {
		o.ClientAuth = ClientAuthAssertion
		o.ClientAssertion = func() (string, error) { return token, missing }
	})
	issue := func(exp time.Time) {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign([]byte(mustJSON(t,
			map[string]any{"iss": cluster, "sub": account, "aud": w.op.URL, "exp": exp.Unix(), "c4nary": 1})))
		if err != nil {
			t.Fatal(err)
		}
		if token, err = jws.CompactSerialize(); err != nil {
			t.Fatal(err)
		}
	}
	issue(epoch().Add(10 * time.Minute))
	w.want()
	first, _ := w.tokenForm()
	w.want() // such a token counts until it ends
	issue(epoch().Add(20 * time.Minute))
	w.want()
	if renewed, _ := w.tokenForm(); renewed.Get("client_assertion") == first.Get("client_assertion") ||
		renewed.Get("client_assertion") != token {
		t.Error("the renewed token was not sent")
	}
	issue(epoch().Add(-time.Minute))
	if err := w.refuse(identity.Misconfigured); !strings.Contains(err.Error(),
		"client_assertion (its iss, sub and aud") {
		t.Errorf("expired: %v", err)
	}
	// What is no token is sent to nobody, and not logged either.
	before := w.op.Hits(testenv.Token)
	for _, text := range []string{"", "c4nary", "-----BEGIN PRIVATE KEY-----\nc4nary", "a.b.c", "eyJ.b.c\n",
		strings.Repeat("ey", maxToken) + "..", "eyJ.c4nary"} {
		token = text
		if err := w.refuse(identity.Misconfigured); !strings.Contains(err.Error(),
			"client_auth is assertion: must be a JWT") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	missing = errors.New("file /run/token does not exist")
	if err := w.refuse(identity.Misconfigured); !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("%v", err)
	}
	if w.op.Hits(testenv.Token) != before {
		t.Error("it was sent")
	}
}

// auto must not give the secret to a provider that asks for none; and what is not
// supported is said before anybody is sent there.
func TestWhatAProviderDemandsAndWeCannotIsSaidAtDiscovery(t *testing.T) {
	w := newWorld(t)
	methods := func(offered ...string) bend { return testenv.With("token_endpoint_auth_methods_supported", offered) }
	for name, row := range map[string]struct {
		fault bend
		says  []string
	}{
		"private_key_jwt alone": {methods("private_key_jwt"),
			[]string{`"private_key_jwt"`, "`client_auth: private_key_jwt` with a client_key"}},
		"a certificate alone": {methods("tls_client_auth"),
			[]string{`"tls_client_auth"`, "none of these is supported"}},
		"pushed requests": {testenv.With("require_pushed_authorization_requests", true),
			[]string{"PAR", "not supported"}},
		"signed requests": {testenv.With("require_signed_request_object", true),
			[]string{"JAR", "not supported"}},
	} {
		w.use()
		w.op.Set(testenv.Fault{Endpoint: testenv.Discovery, JSON: row.fault})
		_, err := w.p.AuthURL(t.Context(), handshake(), identity.AuthParams{})
		w.failed(err, identity.Misconfigured)
		_, err = w.p.Redeem(t.Context(), url.Values{"code": {"c4nary"}}, handshake(), identity.AuthParams{})
		w.failed(err, identity.Misconfigured)
		for _, says := range row.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", name, err, says)
			}
		}
	}
	if n := w.op.Hits(testenv.Token); n != 0 {
		t.Errorf("%d requests with the secret", n)
	}
	w.use()
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery,
		JSON: testenv.With("require_pushed_authorization_requests", false)})
	w.want()
}

// What a failed exchange says leads to the key that mends it, and holds no secret.
func TestAFailedExchangeSaysWhereWhatAndWhatHelps(t *testing.T) {
	w := newWorld(t)
	for name, row := range map[string]struct {
		fault testenv.Fault
		want  identity.SignInFailure
		says  []string
	}{
		"wrong client authentication": {testenv.Fault{Status: 401,
			Body: `{"error":"invalid_client","error_description":"c4nary"}`}, identity.Misconfigured,
			[]string{"/token: ", "401", "invalid_client", "client_auth basic",
				`offers "client_secret_basic", "client_secret_post"`, "client_secret"}},
		"401 and no word": {testenv.Fault{Status: 401, Body: "c4nary"}, identity.Misconfigured,
			[]string{"401", "client_auth basic"}},
		"not for this client": {testenv.Fault{Status: 400, Body: `{"error":"unauthorized_client"}`},
			identity.Misconfigured, []string{"unauthorized_client", "authorization code flow"}},
		"a spent code": {testenv.Fault{Status: 400, Body: `{"error":"invalid_grant"}`}, identity.Rejected,
			[]string{"invalid_grant", "redirect URI"}},
		"not there": {testenv.Fault{Status: 404, Body: "c4nary"}, identity.Misconfigured,
			[]string{"404", "endpoints.token"}},
		"down": {testenv.Fault{Status: 503, Body: "c4nary"}, identity.Unavailable,
			[]string{w.op.URL + "/token: unavailable, status 503"}},
	} {
		w.use()
		row.fault.Endpoint = testenv.Token
		w.op.Set(row.fault)
		err := w.refuse(row.want)
		for _, says := range row.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", name, err, says)
			}
		}
	}
	w.use(func(o *Options) { o.IdentityFrom = FromUserinfo })
	w.op.Set(testenv.Fault{Endpoint: testenv.Userinfo, Body: "eyJ.a.b.c.c4nary", ContentType: "application/jwt"})
	if err := w.refuse(identity.Rejected); !strings.Contains(err.Error(), "userinfo is encrypted") {
		t.Errorf("%v", err)
	}
}

func TestWaysOfClientAuthenticationThatDoNotGoTogether(t *testing.T) {
	private := keyPEM(t, ecKey(t, elliptic.P256()))
	file := func() (string, error) { return "", nil }
	for name, row := range map[string]struct {
		edit func(*Options)
		key  string
	}{
		"assertion without a file": {func(o *Options) { o.ClientAuth = ClientAuthAssertion }, "client_assertion"},
		"a file without assertion": {func(o *Options) { o.ClientAssertion = file }, "client_assertion"},
		"private_key_jwt, no key":  {func(o *Options) { o.ClientAuth = ClientAuthPrivateKey }, "client_key"},
		"a key without it":         {func(o *Options) { o.ClientKey = private }, "client_key"},
		"an id without a key":      {func(o *Options) { o.ClientKeyID = "k" }, "client_key_id"},
		"Google": {func(o *Options) {
			o.Type, o.ClientAuth, o.ClientAssertion = TypeGoogle,
				ClientAuthAssertion, file
		}, "client_auth"},
		"Microsoft with a key": {func(o *Options) {
			o.Type, o.Tenant, o.ClientAuth, o.ClientKey = TypeMicrosoft, TenantCommon, ClientAuthPrivateKey, private
		}, "client_auth"},
		"raw basic": {func(o *Options) {
			o.ClientAuth, o.ClientAssertion, o.Quirks = ClientAuthAssertion, file, []string{quirkRawBasic}
		}, "client_auth"},
	} {
		o := Options{ID: "corp", Issuer: "https://op.example", ClientID: "x", ClientSecret: "s",
			RedirectURL: callbackURL}
		row.edit(&o)
		if found := o.Conflicts(); len(found) != 1 || found[0].Key != row.key {
			t.Errorf("%s: %v", name, found)
		}
	}
	o := Options{ID: "corp", Type: TypeMicrosoft, Tenant: "organizations", ClientID: "x", RedirectURL: callbackURL,
		ClientAuth: ClientAuthAssertion, ClientAssertion: file}
	if _, err := New(o); err != nil {
		t.Errorf("federated credentials of Entra: %v", err)
	}
	for text, says := range map[string]string{
		"": "private key in PEM", "hunter2": "private key in PEM", private + private: "must be one",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "cannot be read",
		keyPEM(t, ecKey(t, elliptic.P224())):                             "P-256",
	} {
		if err := CheckClientKey(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}
