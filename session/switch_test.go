package session

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// P11: a switch is a new session of the old sign-in; P10: the old one is over.
func TestP11_SwitchKeepsTheSignInAndEndsTheSession(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	old, oldCookie := signedIn(t, m)
	c.Advance(40 * time.Minute)
	who := alice()
	who.Org = identity.Org{ID: "birch", Name: "Birch Bank", Source: identity.SourceConfig}
	w := httptest.NewRecorder()
	got, err := m.Switch(t.Context(), w, testHost, old, who)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID == old.ID || got.Identity.Org != who.Org || !got.SignedIn.Equal(old.SignedIn) ||
		!got.Expires.Equal(old.Expires) ||
		!got.Seen.Equal(c.Now()) || !got.IdleExpires.Equal(c.Now().Add(time.Hour)) {
		t.Errorf("switched to %+v", got)
	}
	set := w.Header()["Set-Cookie"]
	if len(set) != 1 || !strings.Contains(set[0], "; Max-Age=40800;") { // what is left of 12 hours
		t.Errorf("Set-Cookie %q", set)
	}
	if read, err := m.Read(pair(set[0]), testHost); err != nil || read.ID != got.ID {
		t.Errorf("the new one: %v", err)
	}
	if _, err := m.Read(oldCookie, testHost); !errors.Is(err, ErrEnded) {
		t.Errorf("the old one: %v", err)
	}
}

func TestSwitchThatFailsChangesNothing(t *testing.T) {
	m := newManager(t, newClock())
	old, oldCookie := signedIn(t, m)
	who := alice()
	who.Org = identity.Org{ID: "birch", Name: strings.Repeat("x", maxCookie)}
	w := httptest.NewRecorder()
	if got, err := m.Switch(t.Context(), w, testHost, old, who); !errors.Is(err, ErrTooLarge) || got.ID != old.ID ||
		w.Header()["Set-Cookie"] != nil {
		t.Errorf("%v, %v", err, w.Header())
	}
	if _, err := m.Read(oldCookie, testHost); err != nil {
		t.Errorf("the old session: %v", err)
	}
}
