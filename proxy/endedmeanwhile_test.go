package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// A provider takes its time with a code, and meanwhile the person is signed out: by the
// provider, or on another device. The sign-in that is on its way ends with the others; one
// that begins after the sign-out does not, whatever the clock did.
func TestP10_ASignInThatIsOnItsWayEndsWithTheOthers(t *testing.T) {
	t.Parallel()
	type devices struct{ phone, stranger *testenv.Browser }
	everywhere := func(b func(devices) *testenv.Browser) func(*testing.T, *testSite, devices) {
		return func(t *testing.T, s *testSite, d devices) {
			page := b(d).Post(s.account(t, b(d)), prefix+"/logout", url.Values{"everywhere": {"1"}})
			if page.Status != 200 {
				t.Fatalf("sign out everywhere: %d", page.Status)
			}
		}
	}
	nothing := func(*testing.T, *testSite, devices) {}
	phone := everywhere(func(d devices) *testenv.Browser { return d.phone })
	provider := func(t *testing.T, s *testSite, d devices) {
		sub := s.sessionOf(d.phone).Identity.Subject
		if a := s.logout(t, s.logoutToken(t, "j-1", testenv.With("sub", sub))); a.status != 200 {
			t.Fatalf("back-channel logout: %d %s", a.status, a.body)
		}
	}
	stranger := everywhere(func(d devices) *testenv.Browser { return d.stranger })
	later := func(by time.Duration, do func(*testing.T, *testSite, devices)) func(*testing.T, *testSite, devices) {
		return func(t *testing.T, s *testSite, d devices) {
			s.clock.Advance(by)
			do(t, s, d)
		}
	}
	for name, tt := range map[string]struct {
		before, during, after func(*testing.T, *testSite, devices)
		ended                 bool
	}{
		"the provider says so in the same moment":  {during: provider, ended: true},
		"the provider says so a second later":      {during: later(time.Second, provider), ended: true},
		"another device, in the same moment":       {during: phone, ended: true},
		"another device, a second later":           {during: later(time.Second, phone), ended: true},
		"the result waits for its browser":         {after: phone, ended: true},
		"somebody else signs out everywhere":       {during: stranger},
		"the provider said so before":              {before: provider},
		"another device did so before":             {before: phone},
		"before, and the clock was set back since": {before: phone, during: later(-20*time.Second, nothing)},
		"before, by a clock that was half a minute on": {before: func(t *testing.T, s *testSite, d devices) {
			later(30*time.Second, phone)(t, s, d)
			s.clock.Advance(-30 * time.Second)
		}, during: later(40*time.Second, nothing)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSite(t, withLogouts(setup{}))
			d := devices{s.browser(t), s.browser(t)}
			s.signIn(t, d.phone, "/x", "mira")
			s.signIn(t, d.stranger, "/x", "jonas")
			fault, asked, release := held()
			s.provider.Set(fault)
			v := s.arrives(t, s.browser(t), "mira")
			s.clock.Advance(time.Second)
			run := func(step func(*testing.T, *testSite, devices)) {
				if step != nil {
					step(t, s, d)
				}
			}
			run(tt.before)
			if tt.after != nil {
				v.leaves(t, asked)
				close(release)
				testenv.Eventually(t, "the result waits", func() bool { kept, _ := s.waiting(); return kept == 1 })
				run(tt.after)
			}
			page := make(chan testenv.Page)
			go func() { page <- v.b.Open(v.callback) }()
			if tt.after == nil {
				receive(t, asked)
				run(tt.during)
				close(release)
			}
			got, reached := <-page, len(s.app.Requests())
			if tt.ended {
				if got.Status != http.StatusForbidden || s.sessionOf(v.b) != nil || s.lives(t, cookiesOf(v.b, s)) ||
					!strings.Contains(got.Body, "You were signed out while you were signing in") {
					t.Errorf("the sign-in ends at %s with %d, session %v\n%s", got.URL, got.Status, s.sessionOf(v.b),
						got.Body)
				}
				if n := s.signIns(t); n["rejected"] != 1 {
					t.Errorf("counted %v", n)
				}
				// Nothing is left over that keeps the person out.
				got = v.b.SignIn(v.b.Click(got, prefix+"/login?return_to=%2Fdeep%3Fx%3D1"), "mira")
			}
			if got.Status != 200 || got.URL.Path != "/deep" || s.sessionOf(v.b) == nil ||
				tt.ended && len(s.app.Requests()) != reached+1 {
				t.Errorf("the sign-in ends at %s with %d, session %v", got.URL, got.Status, s.sessionOf(v.b))
			}
		})
	}
}

func cookiesOf(b *testenv.Browser, s *testSite) (header string) {
	for _, c := range b.Cookies(s.url) {
		header += "; " + c.Name + "=" + c.Value
	}
	return strings.TrimPrefix(header, "; ")
}
