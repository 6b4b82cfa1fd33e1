package oauth2_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/oauth2"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// speaking is a connector of an authorization server that answers as said says, and how often
// that was asked.
func speaking(t *testing.T, said *string, status *int, o oauth2.Options) (grant.OAuth, *atomic.Int32) {
	t.Helper()
	asked := new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(*status)
		fmt.Fprint(w, *said)
	}))
	t.Cleanup(srv.Close)
	client, err := oauth.NewClient(oauth.Options{Provider: "it"})
	testenv.Check(t, err)
	t.Cleanup(client.CloseIdleConnections)
	o.ClientSecret, o.Auth = granttest.ClientSecret, oauth.Post
	return newConnector(o)(t, srv.URL, client).(grant.OAuth), asked
}

// GitHub takes scopes with blanks between them and names them with commas ("Authorizing OAuth
// apps": "scope":"repo,gist"). A comma is a part of a scope for who has configured such a one.
func TestScopesThatAreAnsweredWithCommasBetweenThem(t *testing.T) {
	for _, tt := range []struct {
		wants  []string
		scope  string
		scopes []string // nil: it is too little
	}{
		{[]string{"gist", "repo"}, "repo,gist", []string{"gist", "repo"}},
		{[]string{"gist", "repo"}, "repo, gist", []string{"gist", "repo"}},
		{[]string{"gist", "repo"}, "gist repo", []string{"gist", "repo"}},
		{[]string{"repo"}, "gist,repo,user", []string{"gist", "repo", "user"}},
		{[]string{"gist", "repo"}, "repo", nil},
		{[]string{"gist", "repo"}, "repo,gists", nil},
		{[]string{"gist", "repo"}, "", []string{"gist", "repo"}}, // of a GitHub App it is always empty
		{[]string{"a,b"}, "a,b", []string{"a,b"}},
		{[]string{"a,b"}, "a b", nil},
	} {
		said, status := fmt.Sprintf(`{"access_token":"a","token_type":"bearer","scope":%q}`, tt.scope), http.StatusOK
		c, _ := speaking(t, &said, &status, oauth2.Options{Accesses: []grant.Access{{Name: "read", Scopes: tt.wants}}})
		got, err := c.Redeem(t.Context(), url.Values{"code": {"c"}}, identity.Handshake{Verifier: "v"},
			grant.Request{RedirectURI: "https://sallyport.test/cb", Scopes: tt.wants})
		if (err == nil) != (tt.scopes != nil) || !slices.Equal(got.Scopes, tt.scopes) ||
			err != nil && grant.ClassOf(err) != grant.Narrow {
			t.Errorf("%q for %q: %q, %v", tt.scope, tt.wants, got.Scopes, err)
		}
	}
}

// What GitHub answers, with status 200, where a refresh token is over, a code was used, or the
// client is not right ("Troubleshooting OAuth app access token request errors").
func TestP14_WhatGitHubSaysOfTokensEndsOneGrantOrNone(t *testing.T) {
	for code, want := range map[string]connector.Meaning{
		"bad_refresh_token":            {Class: grant.Yours, Reason: connector.GrantRefused},
		"bad_verification_code":        {Class: grant.Yours, Reason: connector.GrantRefused},
		"incorrect_client_credentials": {Class: grant.Ours, Reason: connector.ClientRefused},
		"redirect_uri_mismatch":        {Class: grant.Ours, Reason: connector.RequestRefused},
		"unverified_user_email":        {Class: grant.Later, Reason: connector.UnknownCode},
	} {
		said, status := fmt.Sprintf(`{"error":%q,"error_description":"canary"}`, code), http.StatusOK
		c, asked := speaking(t, &said, &status, oauth2.Options{Accesses: []grant.Access{{Name: "read"}}})
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		if e, ok := errors.AsType[*grant.Error](err); !ok || e.Class != want.Class || e.Reason != want.Reason ||
			asked.Load() != 1 {
			t.Errorf("%s: %v, asked %d times", code, err, asked.Load())
		}
	}
}

// Some authorization servers have words of their own for a refresh token that is over; Atlassian's
// answers {"error":"unauthorized_client","error_description":"refresh_token is invalid"} with 403.
// Whoever says so in the configuration has people connect again. What is no word about a grant
// ends none, and neither does the same word when somebody connects.
func TestP14_CodesOfTheConfigurationEndAGrantThatIsRefused(t *testing.T) {
	accesses := []grant.Access{{Name: "read"}}
	for _, tt := range []struct {
		codes  []string
		status int
		code   string
		class  grant.Class
	}{
		{nil, 403, "unauthorized_client", grant.Ours},
		{[]string{"unauthorized_client"}, 403, "unauthorized_client", grant.Yours},
		{[]string{"unauthorized_client"}, 400, "invalid_grant", grant.Yours},
		{[]string{"unauthorized_client"}, 401, "invalid_client", grant.Ours},
		{[]string{"unauthorized_client"}, 503, "unauthorized_client", grant.Later},
		{[]string{"unauthorized_client"}, 429, "unauthorized_client", grant.Later},
		{[]string{"TOKEN.gone"}, 400, "TOKEN.gone", grant.Yours},
		{[]string{"TOKEN.gone"}, 400, "token.gone", grant.Later},
	} {
		said, status := fmt.Sprintf(`{"error":%q,"error_description":"refresh_token is invalid"}`, tt.code), tt.status
		c, asked := speaking(t, &said, &status, oauth2.Options{Accesses: accesses, EndedCodes: tt.codes})
		_, err := c.Refresh(t.Context(), grant.Tokens{Refresh: "r"}, nil)
		if grant.ClassOf(err) != tt.class || asked.Load() != 1 {
			t.Errorf("%+v: %v, asked %d times", tt, err, asked.Load())
		}
	}
	said, status := `{"error":"unauthorized_client"}`, http.StatusForbidden
	c, _ := speaking(t, &said, &status, oauth2.Options{Accesses: accesses, EndedCodes: []string{"unauthorized_client"}})
	_, err := c.Redeem(t.Context(), url.Values{"code": {"c"}}, identity.Handshake{Verifier: "v"},
		grant.Request{RedirectURI: "https://sallyport.test/cb"})
	if grant.ClassOf(err) != grant.Ours {
		t.Errorf("when somebody connects: %v", err)
	}
}
