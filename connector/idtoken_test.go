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

// Where a third party names its API in the audience too, exactly one of those that are known
// has to be there, beside this client.
func TestP06_AFurtherAudienceIsOneOfThoseThatAreKnown(t *testing.T) {
	c := check()
	c.Nonce, c.NoNonce = "", true
	c.Audiences, c.Has = []string{"https://us.test", "https://eu.test"}, map[string]string{"purpose": "id"}
	good := func() map[string]any {
		claims := tokenClaims()
		delete(claims, "nonce")
		claims["aud"], claims["purpose"] = []string{"https://eu.test", "me"}, "id"
		return claims
	}
	for _, aud := range [][]string{{"https://eu.test", "me"}, {"me", "https://eu.test"}} {
		claims := good()
		claims["aud"] = aud
		got, err := c.Read(jwt(t, claims), tokenTime)
		if err != nil || got.Audience != "https://eu.test" {
			t.Errorf("%q: %+v, %v", aud, got, err)
		}
	}
	for name, change := range map[string]func(map[string]any){
		"none":                func(c map[string]any) { c["aud"] = []string{"me"} },
		"this client alone":   func(c map[string]any) { c["aud"] = "me" },
		"one that is unknown": func(c map[string]any) { c["aud"] = []string{"me", "https://other.test"} },
		"two of them":         func(c map[string]any) { c["aud"] = []string{"https://us.test", "https://eu.test"} },
		"both":                func(c map[string]any) { c["aud"] = []string{"me", "https://us.test", "https://eu.test"} },
		"this client twice":   func(c map[string]any) { c["aud"] = []string{"me", "me"} },
		"another client":      func(c map[string]any) { c["aud"] = []string{"other", "https://eu.test"} },
		"a nonce":             func(c map[string]any) { c["nonce"] = canary },
		"a nonce of null":     func(c map[string]any) { c["nonce"] = nil },
		"another purpose":     func(c map[string]any) { c["purpose"] = "access" },
		"a purpose in a list": func(c map[string]any) { c["purpose"] = []string{"id"} },
		"no purpose":          func(c map[string]any) { delete(c, "purpose") },
	} {
		claims := good()
		change(claims)
		refused(t, name, c, jwt(t, claims), IDTokenRefused)
	}
}

// Keys may be at another address of the same third party, over TLS, and nowhere else.
func TestP06_KeysOfAnotherSiteDoNotCount(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		same     bool
	}{
		{"https://identity.pagerduty.com", "https://identity.pagerduty.com/keys", true},
		{"https://identity.pagerduty.com", "https://app.pagerduty.com/keys?a=b", true},
		{"http://127.0.0.1:4192", "http://127.0.0.1:4192/keys", true},
		{"http://127.0.0.1:4192", "http://127.0.0.1:4193/keys", false},
		{"https://identity.pagerduty.com", "http://identity.pagerduty.com/keys", false},
		{"https://identity.pagerduty.com", "https://pagerduty.com.evil.test/keys", false},
		{"https://identity.pagerduty.com", "https://evilpagerduty.com/keys", false},
		{"https://identity.pagerduty.com", "https://app.pagerduty.com:8443/keys", false},
		{"https://identity.pagerduty.com", "https://me@app.pagerduty.com/keys", false},
		{"https://identity.pagerduty.com", "https://app.pagerduty.com/keys#a", false},
		{"https://identity.pagerduty.com", "/keys", false},
		{"https://identity.pagerduty.com", "https://169.254.169.254/keys", false},
		{"http://127.0.0.1:4192", "https://app.pagerduty.com/keys", false},
		{"", "", false},
	} {
		if got := SameSite(tt.from, tt.to, ".pagerduty.com"); got != tt.same {
			t.Errorf("from %s to %s: %v", tt.from, tt.to, got)
		}
	}
}
