package session

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// A line of the list says who, since when and from where, and nothing that would
// open the session.
func TestALineOfTheListOpensNothing(t *testing.T) {
	m := newManager(t, newClock())
	who := alice()
	who.Orgs = []identity.Org{{ID: "acme"}, {ID: "beta"}}
	s := m.Start(who)
	e := s.Entry("192.0.2.1", "Firefox on Linux")
	if e.SID != s.SID() || e.Person != who.ID() || !e.Since.Equal(s.SignedIn) || !e.Until.Equal(s.Expires) ||
		e.ProviderSID != who.ProviderSID || strings.Join(e.Orgs, " ") != "acme beta" {
		t.Errorf("%+v", e)
	}
	for _, secret := range []string{s.Root, s.ID} {
		if strings.Contains(e.SID+e.Person+e.Org+e.From+e.Browser, secret) {
			t.Error("the line has a secret of the session")
		}
	}
	for which, want := range map[*Which]bool{
		{}: true, {Person: e.Person}: true, {Person: "x"}: false, {Org: "beta"}: true, {Org: "x"}: false,
		{Person: e.Person, Org: e.Org}: true, {Person: "x", Org: "beta"}: false,
	} {
		if got := which.Matches(&e); got != want {
			t.Errorf("%+v: %v", *which, got)
		}
	}
}

// To end a line of the list ends that sign-in, the sessions of all its organizations
// included, and nothing else.
func TestALineOfTheListEndsItsSignIn(t *testing.T) {
	clock := newClock()
	m := newManager(t, clock)
	list := m.ended.(*Memory)
	s, other := m.Start(alice()), m.Start(alice())
	e, of := s.Entry("", ""), other.Entry("", "")
	if list.view.EndedEntry(&e) || list.view.EndedEntry(&of) {
		t.Fatal("over before it ended")
	}
	if err := list.End(t.Context(), e.Cut(clock.Now())); err != nil {
		t.Fatal(err)
	}
	if !m.HasEnded(&s) || !list.view.EndedEntry(&e) || m.HasEnded(&other) || list.view.EndedEntry(&of) {
		t.Error("the wrong sign-in is over")
	}
	if cut := e.Cut(e.Until.Add(time.Hour)); !cut.Until.Equal(e.Until.Add(time.Hour)) {
		t.Errorf("kept until %s", cut.Until)
	}
}

func TestASidThatIsNoneEndsNothing(t *testing.T) {
	good := (&Session{Root: "x"}).SID()
	if key, ok := KeyOfSID(good); !ok || key != rootKey("x") || key.SID() != good {
		t.Fatal("a sid is not read as it was written")
	}
	for _, sid := range []string{"", "x", good + "A", good[:21], good[:21] + "=", good[:21] + "\n", "\n" + good,
		good[:21] + "B"} {
		if _, ok := KeyOfSID(sid); ok {
			t.Errorf("%q is taken for a sid", sid)
		}
	}
	for _, c := range []Cut{{SID: "x"}, {SID: good, Root: "x"}, {SID: good, Org: "o"}, {SID: good, Provider: "p"}} {
		c.Until = time.Now().Add(time.Hour)
		if _, err := c.Record(time.Now()); !errors.Is(err, ErrCut) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
