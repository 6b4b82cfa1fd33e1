package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

// GitHub cannot be asked silently. Where reauth_after says so, a page that is opened leads by
// its own pages, and memberships are read again: who left the organization is signed out, and
// who did not stays where they were.
func TestP11_AMembershipThatEndedAtGitHubEndsTheSession(t *testing.T) {
	t.Parallel()
	gh := some(t, "gh")[0]
	edit := gh.edit
	gh.edit = func(o *login.Options, op *testenv.Faults) {
		edit(o, op)
		o.ReauthAfter = time.Hour
	}
	m := newSeveral(t, setup{}, gh)
	op := m.ops["gh"]
	b := m.browser(t)
	if page := b.SignIn(b.Open(m.url+"/"), "mira"); page.Status != 200 || m.sessionOf(b) == nil {
		t.Fatalf("the sign-in ends with %d\n%s", page.Status, page.Body)
	}
	due := func() testenv.Page {
		t.Helper()
		for range 5 { // its sessions idle out in an hour
			m.clock.Advance(20 * time.Minute)
			if page := b.Open(m.url + "/"); page.Status != 200 {
				t.Fatalf("%d at %s", page.Status, page.URL)
			} else if strings.HasPrefix(page.URL.String(), op.URL) {
				return page
			}
			provider := m.proxy.signIns.providers[0].Login.(Reauthenticator)
			testenv.Eventually(t, "GitHub to answer", func() bool { return provider.Answering(t.Context()) })
			if page := b.Open(m.url + "/deep?x=1"); strings.HasPrefix(page.URL.String(), op.URL) {
				return page
			}
		}
		t.Fatal("nobody was sent to GitHub again")
		return testenv.Page{}
	}
	page := due()
	if q := page.URL.Query(); q.Has("prompt") || q.Get("scope") != "read:org user:email" {
		t.Errorf("GitHub was asked with %v", q)
	}
	before := m.sessionOf(b)
	if page := b.SignIn(page, "mira"); page.Status != 200 || page.URL.RequestURI() != "/deep?x=1" ||
		m.sessionOf(b) == nil || m.sessionOf(b).ID != before.ID {
		t.Fatalf("a member is at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	page = due()
	op.Set(testenv.Fault{Endpoint: testenv.Memberships, Body: `[]`})
	if page := b.SignIn(page, "mira"); page.Status != 403 || m.sessionOf(b) != nil ||
		!strings.Contains(page.Body, "You have been signed out") {
		t.Errorf("who left is at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
}
