package login

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// moveKeys has the provider sign with another key, which it publishes at another address from now
// on, as its discovery document says. What is at the old one is left says.
func (w *world) moveKeys(left testenv.Fault) {
	w.t.Helper()
	testenv.Check(w.t, w.op.Provider.RotateKeys())
	set := mustJSON(w.t, w.op.Provider.PublicJWKS())
	at := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte(set))
	}))
	w.t.Cleanup(at.Close)
	left.Endpoint = testenv.JWKS
	w.op.Set(left, testenv.Fault{Endpoint: testenv.Discovery, JSON: testenv.With("jwks_uri", at.URL)})
}

// A provider that publishes its keys at another address says so in its discovery document. It is
// read again where a token's key is not known, and not only once a day.
func TestSigningInGoesOnWhenTheProviderMovesItsKeys(t *testing.T) {
	old := newKey(t, "old").public()
	stays, err := json.Marshal(map[string]any{"keys": []any{old}})
	testenv.Check(t, err)
	for name, left := range map[string]testenv.Fault{"gone": {Status: 404}, "left as it was": {Body: string(stays)}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.want()
			w.pass(61 * time.Second)
			w.moveKeys(left)
			w.want()

			w = newWorld(t)
			w.want()
			tokens := w.bearer()
			w.pass(61 * time.Second)
			w.moveKeys(left)
			if _, _, err := tokens.Verify(t.Context(), w.signed(atJWT(), w.accessClaims())); err != nil {
				t.Errorf("an access token: %v", err)
			}

			w = newWorld(t)
			w.want()
			logouts := w.logouts()
			w.pass(61 * time.Second)
			w.moveKeys(left)
			if _, err := logouts.Verify(t.Context(), w.signed(logoutJWT(), w.logoutClaims())); err != nil {
				t.Errorf("a logout: %v", err)
			}
		})
	}
}

// The same for a provider that begins to sign with an algorithm that it did not announce before.
func TestSigningInGoesOnWhenTheProviderChangesItsAlgorithm(t *testing.T) {
	w := newWorld(t)
	w.op.Set(testenv.Fault{Endpoint: testenv.Discovery,
		JSON: testenv.With("id_token_signing_alg_values_supported", []string{"ES256"})})
	w.refuse("rejected")
	w.op.Set()
	w.pass(61 * time.Second)
	w.want()
}

// Tokens that anybody can make up cause one more question a minute.
func TestP17_TokensOfUnknownKeysCauseOneDiscoveryAMinute(t *testing.T) {
	w := newWorld(t)
	w.want()
	tokens := w.bearer()
	before := w.op.Hits(testenv.Discovery)
	for range 3 {
		w.pass(61 * time.Second)
		for range 100 {
			made := w.signed(map[string]any{"typ": "at+jwt", "kid": rand.Text()}, w.accessClaims())
			if _, _, err := tokens.Verify(t.Context(), made); err == nil {
				t.Fatal("a token of an unknown key was taken")
			}
		}
	}
	if n := w.op.Hits(testenv.Discovery) - before; n != 3 {
		t.Errorf("the discovery document was read %d times in three minutes", n)
	}
}
