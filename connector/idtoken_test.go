package connector

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

var tokenTime = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func check() IDTokenCheck {
	return IDTokenCheck{Issuers: []string{"https://as.test", "as.test"}, ClientID: "me", Nonce: canary + "-nonce"}
}

func tokenClaims() map[string]any {
	return map[string]any{"iss": "https://as.test", "aud": "me", "sub": "248289761001", "email": "mira@example.com",
		"nonce": canary + "-nonce", "exp": tokenTime.Add(time.Second).Unix()}
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return encode(`{"alg":"RS256"}`) + "." + encode(string(payload)) + "." + encode("signature")
}

func TestAnIDTokenOfThisConnectionSaysWhoseItIs(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"as it is":           func(map[string]any) {},
		"the other issuer":   func(c map[string]any) { c["iss"] = "as.test" },
		"aud in a list":      func(c map[string]any) { c["aud"] = []string{"me"} },
		"azp":                func(c map[string]any) { c["azp"] = "me" },
		"part of a second":   func(c map[string]any) { c["exp"] = float64(tokenTime.Unix()) + 1.5 },
		"claims of its own":  func(c map[string]any) { c["hd"], c["n"] = "example.com", map[string]any{"a": 1} },
		"no signing time":    func(c map[string]any) { delete(c, "iat") },
		"an access token id": func(c map[string]any) { c["at_hash"] = "x" },
	} {
		claims := tokenClaims()
		change(claims)
		got, err := check().Read(jwt(t, claims), tokenTime)
		if err != nil || got != (IDToken{Subject: "248289761001", Name: "mira@example.com"}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Each claim is broken alone, in all the ways in which it can be. The token itself is good,
// as the test above shows.
func TestP06_AnIDTokenOfAnotherConnectionIsRefused(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another issuer":        func(c map[string]any) { c["iss"] = "https://evil.test" },
		"an issuer with more":   func(c map[string]any) { c["iss"] = "https://as.test/" },
		"issuers in a list":     func(c map[string]any) { c["iss"] = []string{"https://as.test"} },
		"no issuer":             func(c map[string]any) { delete(c, "iss") },
		"for another client":    func(c map[string]any) { c["aud"] = "other" },
		"for two clients":       func(c map[string]any) { c["aud"] = []string{"me", "other"} },
		"for us twice":          func(c map[string]any) { c["aud"] = []string{"me", "me"} },
		"for nobody":            func(c map[string]any) { c["aud"] = []string{} },
		"no audience":           func(c map[string]any) { delete(c, "aud") },
		"to another client":     func(c map[string]any) { c["azp"] = "other" },
		"to no client":          func(c map[string]any) { c["azp"] = nil },
		"over just now":         func(c map[string]any) { c["exp"] = tokenTime.Unix() },
		"over":                  func(c map[string]any) { c["exp"] = tokenTime.Add(-time.Hour).Unix() },
		"no end":                func(c map[string]any) { delete(c, "exp") },
		"an end in words":       func(c map[string]any) { c["exp"] = "2033-01-01" },
		"an end beyond all":     func(c map[string]any) { c["exp"] = 1e300 },
		"an end in ms":          func(c map[string]any) { c["exp"] = tokenTime.Add(time.Hour).UnixMilli() },
		"of another connection": func(c map[string]any) { c["nonce"] = canary + "-other" },
		"an empty nonce":        func(c map[string]any) { c["nonce"] = "" },
		"no nonce":              func(c map[string]any) { delete(c, "nonce") },
		"of nobody":             func(c map[string]any) { delete(c, "sub") },
		"of an empty name":      func(c map[string]any) { c["sub"] = "" },
		"of a number":           func(c map[string]any) { c["sub"] = 248289761001 },
		"of a long name":        func(c map[string]any) { c["sub"] = strings.Repeat("1", 256) },
		"of two lines":          func(c map[string]any) { c["sub"] = "1\n2" },
	} {
		claims := tokenClaims()
		change(claims)
		refused(t, name, check(), jwt(t, claims), IDTokenRefused)
	}
	good := jwt(t, tokenClaims())
	head, rest, _ := strings.Cut(good, ".")
	body, signature, _ := strings.Cut(rest, ".")
	claims := string(mustDecode(t, body))
	for name, raw := range map[string]string{
		"words":            canary,
		"no signature":     head + "." + body,
		"an empty one":     head + "." + body + ".",
		"no header":        "." + body + "." + signature,
		"encrypted":        good + "." + head + "." + head,
		"padding":          head + "." + body + "=." + signature,
		"no JSON":          head + "." + encode(canary) + "." + signature,
		"a claim twice":    head + "." + encode(strings.Replace(claims, "{", `{"sub":"1",`, 1)) + "." + signature,
		"more than one":    head + "." + encode(claims+claims) + "." + signature,
		"a list":           head + "." + encode("["+claims+"]") + "." + signature,
		"a name of others": head + "." + encode(strings.Replace(claims, `"sub"`, `"Sub"`, 1)) + "." + signature,
	} {
		refused(t, name, check(), raw, IDTokenRefused)
	}
	refused(t, "nothing", check(), "", NoAccount)
	for name, c := range map[string]IDTokenCheck{
		"no nonce was sent":  {Issuers: check().Issuers, ClientID: "me"},
		"there is no client": {Issuers: check().Issuers, Nonce: check().Nonce},
		"nobody is trusted":  {ClientID: "me", Nonce: check().Nonce},
	} {
		claims := tokenClaims()
		if c.Nonce == "" {
			claims["nonce"] = ""
		}
		if c.ClientID == "" {
			claims["aud"] = ""
		}
		refused(t, name, c, jwt(t, claims), IDTokenRefused)
	}
}

func refused(t *testing.T, name string, c IDTokenCheck, raw, reason string) {
	t.Helper()
	got, err := c.Read(raw, tokenTime)
	e, ok := errors.AsType[*grant.Error](err)
	if !ok || e.Reason != reason || e.Class != grant.Lost || got != (IDToken{}) {
		t.Errorf("%s: %+v, %v", name, got, err)
	}
	if err != nil && strings.Contains(err.Error(), canary) {
		t.Errorf("%s: the text is %q", name, err)
	}
}

func mustDecode(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What cannot be shown to people is left out; whose the account is does not rest on it.
func TestAnOddAddressIsNotShown(t *testing.T) {
	for _, email := range []any{"", nil, 7, "a b@example.com", "a@example.com\r\nX: 1", strings.Repeat("a", 255)} {
		claims := maps.Clone(tokenClaims())
		claims["email"] = email
		if got, err := check().Read(jwt(t, claims), tokenTime); err != nil || got.Name != "" || got.Subject == "" {
			t.Errorf("%q: %+v, %v", email, got, err)
		}
	}
}
