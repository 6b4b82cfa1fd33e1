package admission

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// The assertion of somebody who signed in names the session and its end; that of a
// program with an access token rests on none.
func TestOnlyASessionHasASidInTheAssertion(t *testing.T) {
	h := newHouse(t, tokens{"good": nil})
	for _, tt := range []struct {
		path, line string
		session    bool
	}{
		{"/", "Cookie: " + h.cookie(t, person("ines")), true},
		{"/api", "Cookie: " + h.cookie(t, person("ines")), true},
		{"/api", "Authorization: Bearer good", false},
	} {
		ans, header, err := h.ask(t, "GET", tt.path, tt.line)
		testenv.Check(t, err)
		said, err := h.assertions.Verify(header.Get(identity.AssertionHeader), ans.Route.Name)
		testenv.Check(t, err)
		sid := ""
		if tt.session {
			sid = ans.Principal.Session.SID()
		}
		if said.SID != sid || said.SessionEnd.IsZero() == tt.session ||
			tt.session && !said.SessionEnd.Equal(ans.Principal.Expires) {
			t.Errorf("%s: sid %q, want %q; it ends %v", tt.line, said.SID, sid, said.SessionEnd)
		}
	}
}
