package login

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// assertionLife is how long an assertion that we sign is valid: long enough for one
// request, and for clocks that differ a little.
const assertionLife = time.Minute

// Names of RFC 8414 and OIDC Core §9 for client authentication.
const (
	methodBasic      = "client_secret_basic"
	methodPost       = "client_secret_post"
	methodPrivateKey = "private_key_jwt"
)

// clientAuthConflicts finds settings of one kind of client authentication that stand
// beside another kind.
func (o Options) clientAuthConflicts(add func(wrong bool, key, why string)) {
	signs, asserts := o.ClientAuth == ClientAuthPrivateKey, o.ClientAuth == ClientAuthAssertion
	add(asserts && o.ClientAssertion == nil, "client_assertion",
		"is required with `client_auth: assertion`: the file that holds the token")
	add(!asserts && o.ClientAssertion != nil, "client_assertion", "has a meaning with `client_auth: assertion` only")
	add(signs && o.ClientKey == "", "client_key", "is required with `client_auth: private_key_jwt`")
	add(!signs && o.ClientKey != "", "client_key", "has a meaning with `client_auth: private_key_jwt` only")
	add(!signs && o.ClientKeyID != "", "client_key_id", "has a meaning with `client_auth: private_key_jwt` only")
	add(signs && o.Issuer == "", "client_auth", "private_key_jwt needs the issuer, which is whom an assertion is for")
	add(signs && o.Type == TypeMicrosoft, "client_auth",
		"private_key_jwt is not for type microsoft, which wants to know a certificate; "+
			"federate an identity there and use `client_auth: assertion`")
	add((signs || asserts) && slices.Contains([]string{TypeGoogle, TypePagerDuty, TypeSlack}, o.Type), "client_auth",
		"must be auto, basic or post for type "+o.Type+", which takes a client secret only")
}

// chooseClientAuth decides how we authenticate, before anything is sent.
func (p *Provider) chooseClientAuth(offered []string) (oauth.ClientAuth, error) {
	switch {
	case p.dialect.clientAuth == oauth.BasicRaw:
		return oauth.BasicRaw, nil
	case p.clientAuth == ClientAuthPrivateKey:
		return oauth.Assertion, nil
	case p.clientAuth != ClientAuthAuto:
		return oauth.ClientAuth(p.clientAuth), nil
	case p.clientSecret == "":
		return oauth.None, nil
	case p.dialect.clientAuth != "":
		return p.dialect.clientAuth, nil
	case len(offered) == 0 || slices.Contains(offered, methodBasic): // OIDC Discovery §3: the default
		return oauth.Basic, nil
	case slices.Contains(offered, methodPost):
		return oauth.Post, nil
	}
	// A secret must not be sent to a provider that does not ask for it.
	help := "; none of these is supported"
	if slices.Contains(offered, methodPrivateKey) {
		help = "; write `client_auth: private_key_jwt` with a client_key, or `assertion` with a client_assertion"
	}
	return "", fail(identity.Misconfigured, "discovery: client_auth is auto with a client_secret, and the provider "+
		"offers no way to send one (token_endpoint_auth_methods_supported is %s)%s; "+
		"if that list is not true, `client_auth: basic` or `post` sends it", quoted(offered...), help)
}

// tokenRequest makes a token request that authenticates us as the client.
func (p *Provider) tokenRequest(m *metadata, form url.Values) (oauth.TokenRequest, error) {
	r := oauth.TokenRequest{
		URL: m.TokenURL, ClientID: p.clientID, ClientSecret: p.clientSecret, Auth: m.clientAuth, Form: form,
	}
	if m.clientAuth != oauth.Assertion {
		return r, nil
	}
	var err error
	if p.clientKey != nil {
		r.Assertion, err = p.clientKey.assertion(p.clientID, or(m.issuer, p.issuer), m.clientAlgs, p.now())
	} else if r.Assertion, err = p.clientAssertion(); err == nil {
		err = CheckClientAssertion(r.Assertion)
	}
	if err != nil {
		return r, fail(identity.Misconfigured, "token request: client_auth is %s: %w", p.clientAuth, err)
	}
	return r, nil
}

// CheckClientAssertion reports why a text is not a JWT. Anything else that the file of a
// client assertion holds is not sent to the provider.
func CheckClientAssertion(text string) error {
	switch {
	case len(text) > maxToken:
		return errors.New("must be a JWT, and is longer than 64 KiB")
	case strings.Count(text, ".") != 2 || strings.ContainsFunc(text, notCompact) || !strings.HasPrefix(text, "ey"):
		return errors.New("must be a JWT and nothing else")
	}
	return nil
}

// clientKey signs our own assertions.
type clientKey struct {
	key  any
	kid  string
	algs []jose.SignatureAlgorithm // those it can sign with, the usual one first
}

// CheckClientKey reports why a text is not a private key in PEM that we can sign with.
func CheckClientKey(text string) error {
	_, err := parseClientKey(text, "")
	return err
}

func parseClientKey(text, kid string) (*clientKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("must be one private key in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, errors.New("must be one private key in PEM, not encrypted")
	}
	if err != nil {
		// The parser's own error speaks of ASN.1, and helps nobody.
		return nil, errors.New("must be one private key in PEM, and cannot be read")
	}
	k := &clientKey{key: key, kid: kid}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if !weak(&key.PublicKey) {
			k.algs = []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
		}
	case *ecdsa.PrivateKey:
		k.algs = algorithmsOf(signingKey{JSONWebKey: jose.JSONWebKey{Key: &key.PublicKey}})
	case ed25519.PrivateKey:
		k.algs = []jose.SignatureAlgorithm{jose.EdDSA}
	}
	if len(k.algs) == 0 {
		return nil, errors.New("must be an RSA key of at least 2048 bits, or a key on P-256, P-384, P-521 or Ed25519")
	}
	return k, nil
}

// assertion signs an assertion for one request. Its audience is the issuer alone, and
// not the token endpoint: a dishonest provider could name the endpoint of another one,
// and use the assertion there (CVE-2025-27370, RFC 7523bis).
func (k *clientKey) assertion(client, issuer string, announced []string, now time.Time) (string, error) {
	alg := k.algs[0]
	for _, a := range k.algs {
		if slices.Contains(announced, string(a)) {
			alg = a
			break
		}
	}
	claims, err := json.Marshal(map[string]any{
		"iss": client, "sub": client, "aud": issuer,
		"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	key := jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: k.key, KeyID: k.kid}}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", errors.New("the key does not sign")
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", errors.New("the key does not sign")
	}
	return jws.CompactSerialize()
}

// failExchange makes a sign-in error from an error of the token endpoint, and adds what
// the operator can do about it.
func (p *Provider) failExchange(err error, m *metadata) error {
	var e *oauth.Error
	if !errors.As(err, &e) {
		return failCall(err)
	}
	help := githubHelp(e.OwnCode)
	switch {
	case help != "":
	case e.Code == "invalid_client", e.Code == "bad_client_secret", e.Code == "" && e.Status == http.StatusUnauthorized:
		help = fmt.Sprintf("the provider does not take the client's authentication: it was sent by client_auth %s, "+
			"and %s; see client_auth, client_id and %s",
			m.clientAuth, offers(m.offered), p.clientProof())
	case e.Code == "unauthorized_client":
		help = "the client may not redeem codes so; allow it the authorization code flow there, and see client_auth"
	case e.Code == "unsupported_grant_type":
		help = "allow the client the authorization code flow there"
	case e.Code == "invalid_grant", e.Code == "invalid_code", e.Code == "code_already_used":
		help = "the code is too old, spent, another client's, for another redirect URI, " +
			"or its PKCE verifier was not taken"
	case e.Status == http.StatusNotFound, e.Status == http.StatusMethodNotAllowed, e.Status >= 300 && e.Status < 400:
		help = "see endpoints.token, or issuer"
	}
	failed, _ := failCall(err).(*identity.SignInError)
	if help != "" {
		failed.Err = fmt.Errorf("%w; %s", failed.Err, help)
	}
	if e.OwnCode == githubUnverified { // about the person, and no fault of GitHub's or ours
		return &identity.SignInError{Failure: identity.NotAdmitted,
			Err: &identity.NotAdmittedError{Why: identity.UnverifiedAddress, Err: failed.Err}}
	}
	return failed
}

func offers(methods []string) string {
	if len(methods) == 0 {
		return "the provider does not say what it offers"
	}
	return "the provider offers " + quoted(methods...)
}

// clientProof names the configuration key that holds the client's credential.
func (p *Provider) clientProof() string {
	switch p.clientAuth {
	case ClientAuthPrivateKey:
		return "client_key"
	case ClientAuthAssertion:
		return "client_assertion (its iss, sub and aud are what the provider must trust)"
	}
	return "client_secret"
}
