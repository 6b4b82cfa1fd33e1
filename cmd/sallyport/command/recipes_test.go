package command

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

const recipeSecret = "a channel secret of 32 bytes or more"

// recipe is what a provider publishes of its tokens: the claims beside those of
// the protocol, and what its userinfo says.
type recipe struct {
	token, info string
	aud         []string // beside the client
	hs256       bool
	email       string // that counts as verified; "" if none does
	username    string
	groups      string
	org         identity.Org
	asked       int // times that userinfo is asked
}

func recipes() map[string]recipe {
	const ann = `"email":"ann@example.com","name":"Ann","preferred_username":"ann"`
	const verified = `{"email_verified":true,` + ann + `}`
	return map[string]recipe{
		"keycloak": {token: `{"email_verified":true,` + ann +
			`,"azp":"CLIENT","realm_access":{"roles":["staff","offline_access"]},"organization":{"acme":{"id":"42c3"}}}`,
			aud: []string{"account"}, email: "ann@example.com", username: "ann", groups: "staff offline_access",
			org: identity.Org{ID: "keycloak:42c3", Name: "acme", Source: "claim"}},
		"okta": {token: `{` + ann + `,"amr":["pwd"],"idp":"00o1","ver":1}`, info: `{"email_verified":true,` + ann +
			`,"groups":["Everyone","staff"],"zoneinfo":"Europe/Berlin"}`,
			email: "ann@example.com", username: "ann", groups: "Everyone staff", asked: 1},
		"auth0": {token: `{"email_verified":true,"email":"ann@example.com","name":"Ann","nickname":"ann","org_id":"org_1","org_name":"acme","https://app.example.com/roles":["admin"]}`,
			info:  `{"email_verified":true,"email":"ann@example.com","name":"Ann","nickname":"ann"}`,
			email: "ann@example.com", groups: "admin",
			org: identity.Org{ID: "auth0:org_1", Name: "acme", Source: "claim"}, asked: 1},
		"zitadel": {token: `{"azp":"CLIENT","client_id":"CLIENT","amr":["pwd"]}`, aud: []string{"284100000000000002"},
			info: `{"email_verified":true,` + ann + `,"urn:zitadel:iam:user:resourceowner:id":"2839","urn:zitadel:iam:user:resourceowner:name":"Acme",
				"urn:zitadel:iam:user:resourceowner:primary_domain":"acme.zitadel.cloud",
				"urn:zitadel:iam:org:project:roles":{"admin":{"2839":"acme.zitadel.cloud"},"owner":{"9999":"birch.zitadel.cloud"}}}`,
			email: "ann@example.com", username: "ann", groups: "admin",
			org:   identity.Org{ID: "zitadel:2839", Name: "Acme", Domain: "acme.zitadel.cloud", Source: "claim"},
			asked: 1},
		"authentik": {token: `{"email_verified":false,` + ann +
			`,"groups":["staff"],"uid":"x","acr":"goauthentik.io/providers/oauth2/default"}`,
			info: `{"email_verified":false,` + ann + `}`, username: "ann", groups: "staff", asked: 1},
		"authelia": {token: `{"amr":["pwd","otp"],"azp":"CLIENT"}`, info: `{"email_verified":true,"alt_emails":[],` +
			ann + `,"groups":["staff"]}`,
			email: "ann@example.com", username: "ann", groups: "staff", asked: 1},
		"dex": {token: `{"email_verified":true,` + ann + `,"groups":["acme:staff"]}`, info: verified,
			email: "ann@example.com", username: "ann", groups: "acme:staff", asked: 1},
		"hydra": {token: `{"amr":null,"rat":1,"jti":"x"}`, info: verified, email: "ann@example.com", username: "ann",
			asked: 1},
		"cognito": {token: `{"email_verified":true,"email":"ann@example.com","cognito:username":"ann","cognito:groups":["staff"],"token_use":"id","event_id":"x"}`,
			info:  `{"email_verified":"true","email":"ann@example.com","name":"Ann","username":"ann"}`,
			email: "ann@example.com", username: "ann", groups: "staff", asked: 1},
		"adfs": {token: `{"email":"ann@example.com","upn":"ann@corp.example.com","unique_name":"CORP\\ann","group":["staff"],"apptype":"Confidential","pwd_exp":"100"}`,
			info: `{}`, email: "ann@example.com", username: "ann@corp.example.com", groups: "staff"},
		"ping": {token: `{` + ann + `,"acr":"Single_Factor","env":"x","org":"y"}`, info: `{` + ann + `}`,
			email: "ann@example.com", username: "ann", asked: 1},
		"onelogin": {token: `{}`, info: `{` + ann + `,"groups":["staff"]}`, email: "ann@example.com", username: "ann",
			groups: "staff", asked: 1},
		"jumpcloud": {token: `{"email_verified":"true",` + ann + `,"groups":"staff"}`,
			info:  `{"email_verified":"true",` + ann + `}`,
			email: "ann@example.com", username: "ann", groups: "staff", asked: 1},
		"gitlab": {token: `{"email_verified":true,` + ann + `,"groups_direct":["acme"]}`,
			info:  `{"email_verified":true,` + ann + `,"groups":["acme","acme/staff"]}`,
			email: "ann@example.com", username: "ann", groups: "acme acme/staff", asked: 1},
		"line": {token: `{"name":"Ann","picture":"https://example.com/x","amr":["linesso"],"email":"ann@example.com"}`,
			info: `{"name":"Ann"}`, hs256: true, asked: 1},
		"twitch": {token: `{"azp":"CLIENT","preferred_username":"Ann"}`, info: `{"preferred_username":"Ann"}`,
			username: "Ann", asked: 1},
	}
}

// TestRecipesSignInWithWhatTheirProvidersSend takes each provider of the recipes
// as docs/providers/oidc.md has it, and a provider that sends what that one
// publishes. Only addresses and credentials are those of the pretend one.
func TestRecipesSignInWithWhatTheirProvidersSend(t *testing.T) {
	text := read(t, root+"/docs/providers/oidc.md")
	_, text, _ = strings.Cut(text, "## Recipes")
	cfg, _, err := parseConfig("oidc.md", []byte(blocks(text, "yaml")[0]))
	if err != nil {
		t.Fatal(err)
	}
	published := recipes()
	if len(cfg.Providers) != len(published) {
		t.Errorf("%d recipes, and %d shapes of providers", len(cfg.Providers), len(published))
	}
	for _, p := range cfg.Providers {
		r, ok := published[p.ID]
		if !ok {
			t.Errorf("nobody tries the recipe of %s", p.ID)
			continue
		}
		t.Run(p.ID, func(t *testing.T) { tryRecipe(t, cfg, p, r) })
	}
}

func tryRecipe(t *testing.T, cfg *config.Config, p config.Provider, r recipe) {
	const callback = "https://app.example.com/.sallyport/callback/x"
	now := func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	op := testenv.StartProvider(t, demo.ProviderOptions{ClientID: "client", ClientSecret: recipeSecret,
		RedirectURIs: []string{callback}, Now: now})
	token := testenv.Fault{Endpoint: testenv.Token,
		Claims: func(c map[string]any) { replace(t, c, r.token); c["aud"] = append([]string{"client"}, r.aud...) }}
	if r.hs256 {
		token.Resign = testenv.SignedHS256([]byte(recipeSecret))
	}
	op.Set(token, testenv.Fault{Endpoint: testenv.Userinfo, JSON: func(c map[string]any) { replace(t, c, r.info) }})
	o := p.Options()
	o.Needs = cfg.Needs()
	o.Issuer, o.ClientID, o.ClientSecret, o.RedirectURL, o.Now = op.URL, "client", recipeSecret, callback, now
	l, err := login.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := identity.Handshake{State: "state", Nonce: "nonce", Verifier: strings.Repeat("v", 43)}
	to, err := l.AuthURL(context.Background(), h, identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := browser.PostForm(to, url.Values{"person": {"mira"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		t.Fatal(err)
	}
	id, err := l.Redeem(context.Background(), back.Query(), h, identity.AuthParams{})
	if err != nil {
		t.Fatal(err)
	}
	id = (*identity.Organizations)(nil).Fold(id)
	if id.VerifiedEmail() != r.email || id.Username != r.username ||
		!slices.Equal(id.Groups, strings.Fields(r.groups)) || id.GroupsUnknown || id.Org != r.org || id.OrgUnknown {
		t.Errorf("signed in %+v", id)
	}
	if n := op.Hits(testenv.Userinfo); n != r.asked {
		t.Errorf("userinfo was asked %d times, want %d", n, r.asked)
	}
}

// replace leaves the claims of the protocol and puts those of text beside them.
func replace(t *testing.T, c map[string]any, text string) {
	protocol := []string{"iss", "sub", "aud", "exp", "iat", "nonce", "at_hash", "auth_time", "sid"}
	for name := range c {
		if !slices.Contains(protocol, name) {
			delete(c, name)
		}
	}
	var more map[string]any
	if text == "" {
		text = "{}"
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(text, "CLIENT", "client")), &more); err != nil {
		t.Errorf("%s: %v", filepath.Base(text), err)
	}
	for name, value := range more {
		c[name] = value
	}
}
