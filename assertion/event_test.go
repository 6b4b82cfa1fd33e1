package assertion

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// An event verifies with the published keys, and cannot be taken for an assertion.
func TestAnEventIsSignedAndIsNoAssertion(t *testing.T) {
	s := newSigner(t, newClock())
	at := time.Date(2026, 11, 29, 9, 0, 0, 0, time.UTC)
	token, err := s.SignEvent(Event{ID: "7", Audience: "planner", At: at, Kind: "https://events.test/ended",
		About: map[string]string{"owner": "corp:ann"}})
	testenv.Check(t, err)
	var keys jose.JSONWebKeySet
	testenv.Check(t, json.Unmarshal(s.JWKS(), &keys))
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	testenv.Check(t, err)
	payload, err := signed.Verify(keys.Key(signed.Signatures[0].Header.KeyID)[0])
	testenv.Check(t, err)
	var got map[string]any
	testenv.Check(t, json.Unmarshal(payload, &got))
	events, _ := json.Marshal(got["events"])
	if got["jti"] != "7" || got["aud"] != "planner" || got["iss"] != s.issuer || got["toe"] != float64(at.Unix()) ||
		got["iat"] == nil || string(events) != `{"https://events.test/ended":{"owner":"corp:ann"}}` || len(got) != 6 {
		t.Errorf("it says %s", payload)
	}
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil || !strings.Contains(string(header), `"typ":"secevent+jwt"`) {
		t.Errorf("header %s, %v", header, err)
	}
	if _, err := s.Verify(token, "planner"); !errors.Is(err, ErrMalformed) {
		t.Errorf("taken for an assertion: %v", err)
	}
}
