package oauth2_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/oauth2"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestTheContractOfConnectors(t *testing.T) {
	t.Run("with everything", func(t *testing.T) {
		granttest.TestConnector(t, granttest.ThirdParty{
			New: newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Basic,
				Revocation: "/revoke",
				Accesses: []grant.Access{{Name: "read", Scopes: []string{"a:read", "b:read"}}, {Name: "write",
					Scopes: []string{"a:write"}}}}),
			Token: "/token", Revocation: "/revoke",
		})
	})
	t.Run("with an issuer that says whose account it is", func(t *testing.T) {
		granttest.TestConnector(t, granttest.ThirdParty{
			New: newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Post, Issuer: issuer,
				Accesses: []grant.Access{{Name: "read", Scopes: []string{"openid", "a:read"}}}}),
			Token: "/token", Account: grant.Account{ID: "248289761001", Name: "mira@example.com"},
			Answer: func(i granttest.Issue) map[string]any {
				answer := map[string]any{"access_token": i.Access, "token_type": "Bearer", "expires_in": i.Expires}
				if i.Refresh != "" {
					answer["refresh_token"] = i.Refresh
				}
				if i.Scopes != nil {
					answer["scope"] = strings.Join(i.Scopes, " ")
				}
				if i.First {
					answer["id_token"] = idToken(t, i.ClientID, i.Handshake.Nonce)
				}
				return answer
			},
		})
	})
	t.Run("a public client, without scopes and revocation", func(t *testing.T) {
		granttest.TestConnector(t, granttest.ThirdParty{
			New:   newConnector(oauth2.Options{Auth: oauth.None, Accesses: []grant.Access{{Name: "all"}}}),
			Token: "/token",
		})
	})
}

const issuer = "https://as.test"

func idToken(t *testing.T, clientID, nonce string) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"iss": issuer, "aud": clientID, "sub": "248289761001",
		"email": "mira@example.com", "nonce": nonce, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(claims) + "." + encode([]byte("signature"))
}

// An ID token counts only where the configuration has an issuer to compare it with, and is
// checked then.
func TestWhoseAccountItIsIsToldByTheIssuer(t *testing.T) {
	var answer map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer srv.Close()
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	h := identity.Handshake{State: "s", Nonce: "n", Verifier: "v"}
	for name, tt := range map[string]struct {
		issuer, scope, nonce string // of the configuration; the nonce of the ID token
		account, reason      string
	}{
		"its own":            {issuer, "openid", "n", "248289761001", ""},
		"another connection": {issuer, "openid", "other", "", connector.IDTokenRefused},
		"another issuer":     {"https://other.test", "openid", "n", "", connector.IDTokenRefused},
		"no ID token":        {issuer, "openid", "", "", connector.NoAccount},
		"no issuer":          {"", "openid", "other", "", ""},
		"not asked for":      {issuer, "read", "other", "", ""},
	} {
		answer = map[string]any{"access_token": "a", "token_type": "Bearer"}
		if tt.nonce != "" {
			answer["id_token"] = idToken(t, "me", tt.nonce)
		}
		c := newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Basic, Issuer: tt.issuer,
			Accesses: []grant.Access{{Name: "read", Scopes: []string{tt.scope}}}})(t, srv.URL, client).(grant.OAuth)
		r := grant.Request{RedirectURI: "https://sallyport.test/cb", Scopes: []string{tt.scope}}
		address, err := c.AuthURL(h, r)
		u, _ := url.Parse(address)
		if asked := tt.issuer != "" && tt.scope == "openid"; err != nil || u.Query().Has("nonce") != asked {
			t.Errorf("%s: sent to %s, %v", name, address, err)
		}
		got, err := c.Redeem(t.Context(), url.Values{"code": {"c"}}, h, r)
		e, _ := errors.AsType[*grant.Error](err)
		if got.Account.ID != tt.account || (e != nil) != (tt.reason != "") || e != nil && e.Reason != tt.reason {
			t.Errorf("%s: %+v, %v", name, got.Account, err)
		}
		plain := grant.Request{RedirectURI: r.RedirectURI, Scopes: []string{"read"}}
		if address, err := c.AuthURL(h, plain); err != nil || strings.Contains(address, "nonce") {
			t.Errorf("%s: a later trip without openid has the nonce of another one: %s, %v", name, address, err)
		}
		if _, err := c.AuthURL(identity.Handshake{State: "s", Verifier: "v"}, r); (err != nil) != u.Query().Has("nonce") {
			t.Errorf("%s: without a nonce: %v", name, err)
		}
	}
}

// OIDC Core §11: whether the wish for a refresh token was fulfilled that token tells. What
// else is missing among the scopes that an answer names is missing, at each answer.
func TestOfflineAccessNeedNotBeNamedAmongWhatWasGranted(t *testing.T) {
	var scope string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": 60,
			"refresh_token": "r", "scope": scope})
	}))
	defer srv.Close()
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	wants := []string{"offline_access", "read"}
	c := newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Basic,
		Accesses: []grant.Access{{Name: "read", Scopes: wants}}})(t, srv.URL, client).(grant.OAuth)
	for answered, want := range map[string][]string{"read": wants, "read offline_access": wants, "": wants,
		"offline_access": nil, "write": nil} {
		scope = answered
		got, err := c.Redeem(t.Context(), url.Values{"code": {"c"}}, identity.Handshake{Verifier: "v"},
			grant.Request{RedirectURI: "https://sallyport.test/cb", Scopes: wants, Offline: true})
		if (err == nil) != (want != nil) || !slices.Equal(got.Scopes, want) {
			t.Errorf("connected with %q: %q, %v", answered, got.Scopes, err)
		}
	}
	scope = "read"
	if got, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, wants); err != nil ||
		!slices.Equal(got.Scopes, wants) {
		t.Errorf("refreshed: %q, %v", got.Scopes, err)
	}
}

// newConnector completes options whose endpoints are paths and whose accesses have no rules.
func newConnector(o oauth2.Options) func(*testing.T, string, *oauth.Client) grant.Connector {
	return func(t *testing.T, base string, client *oauth.Client) grant.Connector {
		t.Helper()
		rule, err := grant.ParseRule("GET /things/*")
		if err != nil {
			t.Fatal(err)
		}
		o := o
		o.ID, o.Name, o.ClientID, o.OAuth = "things", "Things", "me", client
		o.Authorization, o.Token, o.BaseURL = base+"/authorize", base+"/token", base+"/api"
		if o.Revocation != "" {
			o.Revocation = base + o.Revocation
		}
		o.Accesses = slices.Clone(o.Accesses)
		for i := range o.Accesses {
			o.Accesses[i].Rules = []grant.Rule{rule}
		}
		c, err := oauth2.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// A refresh that brings an ID token of somebody else says so (OpenID Connect Core §12.2), and
// one that proves nothing says nothing: the tokens came, and must not be lost for it.
func TestP12_ARefreshSaysWhoseTheGrantIs(t *testing.T) {
	var answer map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer srv.Close()
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for name, tt := range map[string]struct{ issuer, token, account string }{
		"whose it was, or another": {issuer, idToken(t, "me", ""), "248289761001"},
		"with a nonce":             {issuer, idToken(t, "me", "some"), "248289761001"},
		"for another client":       {issuer, idToken(t, "other", ""), ""},
		"of another issuer":        {"https://other.test", idToken(t, "me", ""), ""},
		"no issuer to compare":     {"", idToken(t, "me", ""), ""},
		"no JWT":                   {issuer, "a.b.c", ""},
		"none":                     {issuer, "", ""},
	} {
		answer = map[string]any{"access_token": "a", "token_type": "Bearer", "refresh_token": "r2", "id_token": tt.token}
		if tt.token == "" {
			delete(answer, "id_token")
		}
		c := newConnector(oauth2.Options{ClientSecret: granttest.ClientSecret, Auth: oauth.Basic, Issuer: tt.issuer,
			Accesses: []grant.Access{{Name: "read", Scopes: []string{"openid"}}}})(t, srv.URL, client).(grant.OAuth)
		got, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		if err != nil || got.Tokens.Refresh != "r2" || got.Account.ID != tt.account {
			t.Errorf("%s: %+v, %v", name, got.Account, err)
		}
	}
}
