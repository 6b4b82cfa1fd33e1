package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Somebody opens a page with a form when their cookie is due to be renewed, types, follows a
// link and comes back. Firefox forgets what was typed on a page that came with no-store, so the
// renewal must not make it one.
func TestARenewedSessionCostsNobodyWhatTheyTyped(t *testing.T) {
	s := overHTTP(need(t, freeAddress))
	s.Idle = "1m" // a cookie is renewed once a tenth of it has passed
	c := ownCorp(t, s)
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			r := reader{t, e.start(t), false}
			r.atCorp(c.url+"/form", "mira")
			time.Sleep(7 * time.Second)
			r.goTo(c.url + "/form?second=1")
			r.run(`void (document.querySelector('#note').value = 'an hour of work')`)
			r.begin(c.url + "/saved")
			r.heading("Saved")
			back := func() { // WebKit says of such a page now and then that it is still loading
				r.back()
				r.until("the page before", func() bool {
					v, err := r.look()
					return err == nil && v.H1 == "A form"
				})
			}
			back()
			var typed string
			r.check("read the form", r.script(`document.querySelector('#note').value`, &typed))
			if typed != "an hour of work" {
				t.Errorf("the form holds %q after Back", typed)
			}
			// What the browser has kept of the page must not bring the cookie back.
			r.loseCookies()
			r.begin(c.provider.Issuer + "/nothing")
			r.sees("another site", func(v view) bool { return strings.HasPrefix(v.URL, c.provider.Issuer) })
			back()
			if names, err := r.cookies(); err != nil || slices.Contains(names, c.cookie) {
				t.Errorf("the cookies are %q (%v)", names, err)
			}
		})
	}
}
