package proxy

import (
	"maps"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The modules of the OpenID Foundation's conformance suite for clients that are about
// signing out (the plans oidcc-client-back-channel-logout-rp-basic and -rp-init-logout),
// by their public names, and what our endpoint answers. What a logout token may and may
// not be is tried in login, row by row. Front-channel logout is not offered: there is no
// endpoint for it (oidcc-client-test-rp-frontchannel-opinitlogout and -rpinitlogout).
func TestP10_ModulesOfTheConformanceSuiteForBackChannelLogout(t *testing.T) {
	t.Parallel()
	const module = "oidcc-client-test-rp-backchannel-rpinitlogout"
	with, without := testenv.With, testenv.Without
	for name, tt := range map[string]struct {
		bend   func(map[string]any)
		sign   testenv.Signer // nil: the provider's own
		status int
		ends   bool
	}{
		module:                  {status: 200, ends: true},
		module + "-alg-none":    {sign: testenv.Unsigned, status: 400},
		module + "-no-event":    {bend: without("events"), status: 400},
		module + "-with-nonce":  {bend: with("nonce", "n-1"), status: 400},
		module + "-wrong-alg":   {sign: testenv.SignedHS256([]byte(devClient)), status: 400},
		module + "-wrong-aud":   {bend: with("aud", "another"), status: 400},
		module + "-wrong-event": {bend: with("events", map[string]any{"urn:other": map[string]any{}}), status: 400},
		module + "-wrong-iss":   {bend: with("iss", "https://evil.example"), status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, withLogouts(setup{}))
			cookie, bobs := s.mint(t, aliceIn("s-1")), s.mint(t, bob())
			now := s.clock.Now()
			c := map[string]any{"iss": s.provider.URL, "aud": devClient, "sub": "alice-1", "sid": "s-1", "jti": "j-1",
				"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
				"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
			if tt.bend != nil {
				tt.bend(c)
			}
			sign := tt.sign
			if sign == nil {
				sign = testenv.SignedAgain
			}
			token, err := sign(s.provider.Provider, map[string]any{"typ": "logout+jwt"}, maps.Clone(c))
			testenv.Check(t, err)
			a := s.logout(t, token)
			if a.status != tt.status || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("answered %d %q %v", a.status, a.body, a.header)
			}
			if s.lives(t, cookie) == tt.ends {
				t.Errorf("is alice signed out? %v, want %v", !s.lives(t, cookie), tt.ends)
			}
			if !s.lives(t, bobs) {
				t.Error("bob is signed out")
			}
		})
	}
	s := newTestSite(t, withLogouts(setup{}))
	cookie := s.mint(t, aliceIn("s-1"))
	for _, method := range []string{"GET", "POST"} {
		if a := s.ask(t, method, prefix+"/frontchannel-logout/main?sid=s-1", "",
			"Cookie: "+cookie); a.status != 404 || !s.lives(t, cookie) {
			t.Errorf("front-channel logout by %s: %d", method, a.status)
		}
	}
}

// After the provider has signed somebody out, it sends the browser to the page for those
// who are signed out, with a state or without: oidcc-client-test-rp-init-logout and its
// forms -no-state and -other-state. No state of ours is in the request, so none counts.
func TestP10_ComingBackFromTheProvidersSignOutSignsNobodyInOrOut(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	cookie := s.mint(t, alice())
	for _, query := range []string{"", "?state=another", "?state=x&state=y", "?state=%zz"} {
		for _, line := range []string{"Accept: text/html", "Cookie: " + cookie} {
			a := s.get(t, prefix+"/logout"+query, navigate(line)...)
			if a.status != 200 || len(a.header["Set-Cookie"]) > 0 && line[0] == 'C' || !s.lives(t, cookie) {
				t.Errorf("%q, %s: %d %v", query, line, a.status, a.header)
			}
		}
	}
}
