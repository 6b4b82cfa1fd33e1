package proxy

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
)

// leaving is a provider with a sign-out of its own.
type leaving struct {
	LoginProvider
	address string
	post    bool
	err     error
	asked   *string // to return to
}

func (l leaving) Logout(_ context.Context, returnTo, _ string) (string, url.Values, bool, error) {
	if l.asked != nil {
		*l.asked = returnTo
	}
	return l.address, url.Values{"client_id": {"sally&port"}}, l.post, l.err
}

// OpenID Connect RP-Initiated Logout 1.0: offered once the session here is over,
// as a link, or as a form where the provider takes it by POST only.
func TestSigningOutAtTheProviderIsOfferedWhereItCanBe(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		login LoginProvider
		query string
		want  string // in the page; "" for no offer
		forms string // form-action beside 'self'
	}{
		"a link": {leaving{address: "https://sso.example.com/end"}, "?provider=main",
			`<a class="button plain" href="https://sso.example.com/end?client_id=sally%26port">Sign out of Main Street too</a>`, ""},
		"a link with query": {leaving{address: "https://sso.example.com/end?a=b"}, "?provider=main",
			`href="https://sso.example.com/end?a=b&amp;client_id=sally%26port"`, ""},
		"a form": {leaving{address: "https://sso.example.com/end", post: true}, "?provider=main",
			`<form method="post" action="https://sso.example.com/end" class="actions">`, " https://sso.example.com"},
		"no such place": {leaving{}, "?provider=main", "", ""},
		"not to be found": {leaving{address: "https://sso.example.com/end", err: errors.New("down")},
			"?provider=main", "", ""},
		"a script":           {leaving{address: "javascript:alert(1)"}, "?provider=main", `href="#ZgotmplZ"`, ""},
		"another provider":   {leaving{address: "https://sso.example.com/end"}, "?provider=other", "", ""},
		"nobody's":           {leaving{address: "https://sso.example.com/end"}, "", "", ""},
		"a broken query":     {leaving{address: "https://sso.example.com/end"}, "?provider=%zz", "", ""},
		"a simpler provider": {fixedLogin{who: alice()}, "?provider=main", "", ""},
	} {
		s := newTestSite(t, setup{Login: tc.login})
		a := s.get(t, prefix+"/logout"+tc.query, navigate()...)
		if a.status != 200 || !strings.Contains(a.body, "You are signed out") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if offered := strings.Contains(a.body, "Sign out of Main Street too"); offered != (tc.want != "") ||
			!strings.Contains(a.body, tc.want) {
			t.Errorf("%s: %s", name, a.body)
		}
		if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self'"+tc.forms+";") {
			t.Errorf("%s: %s", name, csp)
		}
		// Before the session is over there is nothing to offer.
		if a := s.get(t, prefix+"/logout"+tc.query, navigate("Cookie: "+s.mint(t, alice()))...); strings.Contains(a.body, "too</") {
			t.Errorf("%s, signed in: %s", name, a.body)
		}
	}
}

// The provider sends people back to the page that says that they are signed out.
func TestAfterSigningOutAtTheProviderPeopleComeBackToAPageOfOurs(t *testing.T) {
	t.Parallel()
	var asked string
	s := newTestSite(t, setup{Login: leaving{address: "https://sso.example.com/end", asked: &asked}})
	s.get(t, prefix+"/logout?provider=main", navigate()...)
	if asked != s.server.URL+prefix+"/logout" {
		t.Errorf("to return to: %q", asked)
	}
	if a := s.get(t, prefix+"/logout", navigate("Sec-Fetch-Site: cross-site")...); a.status != 200 ||
		!strings.Contains(a.body, "You are signed out") {
		t.Errorf("back: %d %s", a.status, a.body)
	}
}
