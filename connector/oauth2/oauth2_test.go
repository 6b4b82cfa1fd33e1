package oauth2

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const secret = "canary-client-secret"

func options(t *testing.T) Options {
	t.Helper()
	client, err := oauth.NewClient(oauth.Options{Provider: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		ID: "tickets", ClientID: "me", ClientSecret: secret, Auth: oauth.Basic,
		Authorization: "https://as.test/authorize", Token: "https://as.test/token",
		Revocation: "https://as.test/revoke", BaseURL: "https://api.test/v2/",
		Accesses: []grant.Access{{Name: "read", Scopes: []string{"tickets:read"}, Rules: rules(t, "GET /tickets/*")}},
		OAuth:    client,
	}
}

func rules(t *testing.T, texts ...string) (list []grant.Rule) {
	t.Helper()
	for _, text := range texts {
		rule, err := grant.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rule)
	}
	return list
}

func TestAConfigurationThatCannotWorkIsRefusedWithItsKey(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Options)
	}{
		{"endpoints.authorization", func(o *Options) { o.Authorization = "http://as.test/authorize" }},
		{"endpoints.authorization", func(o *Options) { o.Authorization = "" }},
		{"endpoints.token", func(o *Options) { o.Token = "/token" }},
		{"endpoints.revocation", func(o *Options) { o.Revocation = "https://as.test/#revoke" }},
		{"base_url", func(o *Options) { o.BaseURL = "http://api.test" }},
		{"base_url", func(o *Options) { o.BaseURL = "https://api.test/?q" }},
		{"base_url", func(o *Options) { o.BaseURL = "https://me:pw@api.test/" }},
		{"base_url", func(o *Options) { o.BaseURL = "https://api.test/a/../b" }},
		{"base_url", func(o *Options) { o.BaseURL = "https://api.test/a%2fb" }},
		{"client_id", func(o *Options) { o.ClientID = "" }},
		{"client_id", func(o *Options) { o.ClientID, o.Auth = "a:b", oauth.BasicRaw }},
		{"client_secret", func(o *Options) { o.ClientSecret = "" }},
		{"client_secret", func(o *Options) { o.Auth = oauth.None }},
		{"client_auth", func(o *Options) { o.Auth = "" }},
		{"client_auth", func(o *Options) { o.Auth = oauth.Assertion }},
		{"authorization_params.state", func(o *Options) { o.AuthorizationParams = map[string]string{"state": "x"} }},
		{"authorization_params.request_uri", func(o *Options) {
			o.AuthorizationParams = map[string]string{"request_uri": "https://evil.test/"}
		}},
		{"forward_headers", func(o *Options) { o.Forward = []string{"X-Ok", "Cookie"} }},
		{"forward_headers", func(o *Options) { o.Forward = []string{"X-HTTP-Method-Override"} }},
		{"forward_headers", func(o *Options) { o.Forward = []string{"a b"} }},
		{"ended_codes", func(o *Options) { o.EndedCodes = []string{"unauthorized_client", "a b"} }},
		{"ended_codes", func(o *Options) { o.EndedCodes = []string{strings.Repeat("a", 65)} }},
		{"ended_codes", func(o *Options) { o.EndedCodes = []string{"invalid_client"} }},
		{"ended_codes", func(o *Options) { o.EndedCodes = []string{"temporarily_unavailable"} }},
		{"rules", func(o *Options) { o.Accesses = nil }},
		{"rules.read", func(o *Options) { o.Accesses[0].Rules = nil }},
		{"scopes.read", func(o *Options) { o.Accesses[0].Scopes = []string{"a b"} }},
		{"access", func(o *Options) { o.Accesses = append(o.Accesses, o.Accesses[0]) }},
		{"access", func(o *Options) { o.Accesses[0].Name = "Read it" }},
	} {
		o := options(t)
		c.change(&o)
		_, err := New(o)
		if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != c.key {
			t.Errorf("want a fault of %s: %v", c.key, err)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "pw") {
			t.Errorf("the text is %q", err)
		}
	}
}

func TestWhatFollowsFromAConfiguration(t *testing.T) {
	o := options(t)
	o.Accesses = append(o.Accesses, grant.Access{Name: "write", Rules: rules(t, "GET /tickets/*", "POST /tickets")})
	o.AuthorizationParams = map[string]string{"audience": "api"}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	about := c.About()
	if got := c.Origin(grant.Account{}); got != "https://api.test/v2" {
		t.Errorf("the API is at %s", got)
	}
	if about.Authorize != "https://as.test" || !about.Resend || about.Owner != grant.OwnedByUser {
		t.Errorf("about %+v", about)
	}
	if got := about.Accesses[0].Means; got != "read data at tickets (read)" {
		t.Errorf("an app may %s", got)
	}
	if got := about.Accesses[1].Means; got != "read and change data at tickets (write)" {
		t.Errorf("an app may %s", got)
	}
	o.Accesses[0].Name, about.Accesses[0].Name = "changed", "changed"
	if c.About().Accesses[0].Name != "read" {
		t.Error("what others hold changes the connector")
	}
	address, err := c.AuthURL(identity.Handshake{State: "s", Verifier: "v"},
		grant.Request{RedirectURI: "https://sallyport.test/cb", Scopes: []string{"tickets:read"}})
	if u, _ := url.Parse(address); err != nil || u.Query().Get("audience") != "api" {
		t.Errorf("%s, %v", address, err)
	}
	o.Reconnect = true
	if c, err = New(o); err != nil || c.About().Resend {
		t.Errorf("a lost refresh is sent again, %v", err)
	}
}

func TestP08_AClientSecretDoesNotPrint(t *testing.T) {
	o := options(t)
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb+verb+verb, o, c, *c); strings.Contains(text, secret) {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}
