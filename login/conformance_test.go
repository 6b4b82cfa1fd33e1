package login

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The modules for clients of the OpenID Foundation's conformance suite that are about
// what we do: the code flow, discovery, ID tokens and userinfo. Each has its public name,
// and does to a sign-in what the module does. "" in fails: somebody is signed in.
//
// Not here, because there is nothing of ours that they could try: refresh tokens, dynamic
// registration, WebFinger, request objects, sessions watched in a frame, front-channel
// logout, sign-ins that a third party begins, the hybrid flow (c_hash), answers by form_post
// and access tokens in a form. Those about signing out are in package proxy.
func TestP07_ModulesOfTheConformanceSuiteForClients(t *testing.T) {
	const fapi = "fapi2-security-profile-final-client-test-"
	with, without := testenv.With, testenv.Without
	claims := func(b bend) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Token, Claims: b}} }
	signed := func(s testenv.Signer) []testenv.Fault { return []testenv.Fault{{Endpoint: testenv.Token, Resign: s}} }
	rotated := func(p *demo.Provider) {
		if err := p.RotateKeys(); err != nil {
			t.Error(err)
		}
	}
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	userinfo := func(o *Options) { o.IdentityFrom = FromUserinfo }
	attacker := testenv.NewAttacker(t)
	ec := newKey(t, "ec")
	es256 := func(_ *demo.Provider, _, c map[string]any) (string, error) { // an RSA key signs
		return ec.sign(t, `{"alg":"ES256","kid":"ec"}`, mustJSON(t, c)), nil
	}
	type module struct {
		faults   []testenv.Fault
		callback func(url.Values)
		options  []func(*Options)
		rotates  bool // between two sign-ins
		fails    identity.SignInFailure
	}
	rejected := func(faults []testenv.Fault) module { return module{faults: faults, fails: identity.Rejected} }
	bent := func(callback func(url.Values)) module { return module{callback: callback, fails: identity.Rejected} }
	for name, module := range map[string]module{
		"oidcc-client-test":                         {},
		"oidcc-client-test-client-secret-basic":     {},
		"oidcc-client-test-idtoken-sig-rs256":       {},
		"oidcc-client-test-scope-userinfo-claims":   {options: []func(*Options){userinfo}},
		"oidcc-client-test-userinfo-bearer-header":  {options: []func(*Options){userinfo}},
		"oidcc-client-test-discovery-openid-config": {},
		"oidcc-client-test-discovery-jwks-uri-keys": {},
		"oidcc-client-test-missing-athash":          {faults: claims(without("at_hash"))},
		"oidcc-client-test-aggregated-claims": {
			faults: claims(with("_claim_names", map[string]string{"address": "src1"}))},
		"oidcc-client-test-distributed-claims": {faults: claims(func(c map[string]any) {
			c["_claim_names"] = map[string]string{"groups": "src1"}
			c["_claim_sources"] = map[string]any{"src1": map[string]string{"endpoint": attacker.URL, "access_token": "t"}}
		})},
		"oidcc-client-test-mtls-endpoint-aliases": {faults: []testenv.Fault{{Endpoint: testenv.Discovery,
			JSON: with("mtls_endpoint_aliases", map[string]string{"token_endpoint": attacker.URL + "/token"})}}},
		"oidcc-client-test-nonce-unless-code-flow": {}, // we always send one, and want it back
		"oidcc-client-test-signing-key-rotation":   {rotates: true},
		"oidcc-client-test-kid-absent-single-jwks": {faults: signed(testenv.WithKid(""))},
		"oidcc-client-test-kid-absent-multiple-jwks": rejected(append(signed(testenv.WithKid("")),
			testenv.Fault{Endpoint: testenv.JWKS, JSON: testenv.MoreKeys})),
		"oidcc-client-test-signing-key-rotation-just-before-signing": {
			faults: []testenv.Fault{{Endpoint: testenv.Token, Times: 1, Before: rotated}}},
		fapi + "valid-aud-as-array": {faults: claims(with("aud", []string{clientID}))},
		fapi + "token-type-case-insensitivity": {
			faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: with("token_type", "bEARER")}}},
		fapi + "token-endpoint-response-without-expires_in": {
			faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: without("expires_in")}}},

		"oidcc-client-test-invalid-iss":       rejected(claims(with("iss", "https://evil.example"))),
		"oidcc-client-test-missing-sub":       rejected(claims(without("sub"))),
		"oidcc-client-test-invalid-aud":       rejected(claims(with("aud", "another"))),
		"oidcc-client-test-missing-aud":       rejected(claims(without("aud"))),
		"oidcc-client-test-missing-iat":       rejected(claims(without("iat"))),
		"oidcc-client-test-nonce-invalid":     rejected(claims(with("nonce", "another"))),
		"oidcc-client-test-invalid-athash":    rejected(claims(with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"))),
		"oidcc-client-test-idtoken-sig-none":  rejected(signed(testenv.Unsigned)),
		"oidcc-client-test-invalid-sig-rs256": rejected(signed(testenv.SignedByStranger)),
		"oidcc-client-test-invalid-sig-hs256": rejected(signed(testenv.SignedHS256([]byte("another secret")))),
		"oidcc-client-test-invalid-sig-es256": rejected(signed(es256)),
		"oidcc-client-test-userinfo-invalid-sub": {options: []func(*Options){userinfo},
			faults: []testenv.Fault{{Endpoint: testenv.Userinfo, JSON: with("sub", "tomoko")}},
			fails:  identity.Rejected},
		"oidcc-client-test-userinfo-signed": {options: []func(*Options){userinfo},
			faults: []testenv.Fault{{Endpoint: testenv.Userinfo, ContentType: "application/jwt"}},
			fails:  identity.Rejected}, // we ask for JSON
		"oidcc-client-test-discovery-issuer-mismatch": {
			faults: []testenv.Fault{{Endpoint: testenv.Discovery, JSON: with("issuer", "https://evil.example")}},
			fails:  identity.Misconfigured},
		fapi + "invalid-secondary-aud": rejected(claims(with("aud", []string{clientID, "another"}))),

		fapi + "invalid-expired-exp": {
			faults: claims(with("exp", in(-5*time.Minute))),
			fails:  identity.ClockSkew},
		fapi + "invalid-missing-exp":                rejected(claims(without("exp"))),
		fapi + "invalid-missing-iss":                rejected(claims(without("iss"))),
		fapi + "invalid-missing-aud":                rejected(claims(without("aud"))),
		fapi + "invalid-missing-nonce":              rejected(claims(without("nonce"))),
		fapi + "invalid-null-alg":                   rejected(signed(withHeader("alg", json.RawMessage("null")))),
		fapi + "invalid-alternate-alg":              rejected(signed(withHeader("alg", "RS512"))),
		fapi + "invalid-authorization-response-iss": bent(set("iss", "https://evil.example")),
		fapi + "remove-authorization-response-iss":  bent(func(q url.Values) { q.Del("iss") }),

		fapi + "ensure-authorization-response-with-invalid-state-fails": bent(set("state", "another")),
		fapi + "invalid-missing-state-fails":                            bent(func(q url.Values) { q.Del("state") }),
	} {
		t.Run(strings.TrimPrefix(name, "oidcc-client-"), func(t *testing.T) {
			w := newWorld(t, module.options...)
			if module.rotates {
				w.want()
				w.pass(31 * time.Second) // keys are not asked for more often
				if err := w.op.Provider.RotateKeys(); err != nil {
					t.Fatal(err)
				}
			}
			w.op.Set(module.faults...)
			h := handshake()
			q, err := w.authorize("mira", h, identity.AuthParams{})
			var who identity.Identity
			if err == nil {
				if module.callback != nil {
					module.callback(q)
				}
				who, err = w.p.Redeem(t.Context(), q, h, identity.AuthParams{})
			}
			if module.fails != "" {
				w.failed(err, module.fails)
			} else if err != nil || who.Subject != "mira" {
				t.Errorf("signed in as %q: %v", who.Subject, err)
			}
		})
	}
	if n := len(attacker.Requests()); n != 0 {
		t.Errorf("%d requests to where a module pointed", n)
	}
}
