package session

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// lease is one that an app gets for s, with an assertion that was made now.
func lease(c *clock, s *Session) Lease {
	return Lease{App: "board", Asserted: Asserted{Person: s.Identity.ID(), Org: s.Identity.Org.ID, SID: s.SID(),
		IssuedAt: c.Now()}, Idle: c.Now().Add(time.Hour), End: s.Expires}
}

func sealLease(t *testing.T, m *Manager, l Lease) string {
	t.Helper()
	sealed, err := m.SealLease(l)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestP12_ALeaseComesBackAsItWasUntilItIsOver(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	c.Advance(time.Minute)
	want := lease(c, &s)
	sealed := sealLease(t, m, want)
	got, err := m.OpenLease(sealed)
	if err != nil || got != want {
		t.Errorf("opened: %v\n got %+v\nwant %+v", err, got, want)
	}
	c.Advance(59 * time.Minute)
	if _, err := m.OpenLease(sealed); err != nil {
		t.Errorf("a minute before it idles out: %v", err)
	}
	c.Advance(time.Minute)
	if got, err := m.OpenLease(sealed); !errors.Is(err, ErrExpired) || got != want {
		t.Errorf("idled out: %v %+v", err, got)
	}
	want.Idle, want.End = c.Now().Add(time.Hour), c.Now().Add(time.Second)
	sealed = sealLease(t, m, want)
	c.Advance(time.Second)
	if _, err := m.OpenLease(sealed); !errors.Is(err, ErrExpired) {
		t.Errorf("after the end of the session: %v", err)
	}
}

func TestP12_ALeaseEndsWithWhatEndsItsSession(t *testing.T) {
	bob := identity.Identity{Provider: "google", Subject: "bob"}
	for name, tt := range map[string]struct {
		end  func(*Manager, Session) error
		over bool
	}{
		"sign-out":   {func(m *Manager, s Session) error { return m.EndSignIn(t.Context(), s) }, true},
		"everywhere": {func(m *Manager, s Session) error { return m.EndPerson(t.Context(), &s) }, true},
		"organization": {func(m *Manager, s Session) error {
			return m.ended.End(t.Context(), Cut{Org: s.Identity.Org.ID, Before: m.now(), Until: m.now().Add(time.Hour)})
		}, true},
		"another session of the person": {func(m *Manager, s Session) error {
			return m.EndSignIn(t.Context(), m.Start(s.Identity))
		}, false},
		"another person": {func(m *Manager, _ Session) error {
			s := m.Start(bob)
			return m.EndPerson(t.Context(), &s)
		}, false},
		"a switch": {func(m *Manager, s Session) error {
			_, err := m.Switch(t.Context(), httptest.NewRecorder(), testHost, s, s.Identity)
			return err
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			m := newManager(t, c)
			s := m.Start(alice())
			c.Advance(time.Minute)
			l := lease(c, &s)
			sealed := sealLease(t, m, l)
			c.Advance(time.Minute)
			if err := tt.end(m, s); err != nil {
				t.Fatal(err)
			}
			_, err := m.OpenLease(sealed)
			if errors.Is(err, ErrEnded) != tt.over || err != nil && !tt.over {
				t.Errorf("the lease: %v, over is %v", err, tt.over)
			}
			signInOver := tt.over && name != "a switch"
			if got := m.AssertionEnded(l.Asserted); got != signInOver {
				t.Errorf("the assertion is over: %v, want %v", got, signInOver)
			}
			if _, err := m.SealLease(l); errors.Is(err, ErrEnded) != signInOver {
				t.Errorf("a new lease with the same assertion: %v", err)
			}
		})
	}
}

// A lease that is made after a switch belongs to the session after it.
func TestP12_ALeaseAfterASwitchLasts(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	for range 3 {
		c.Advance(time.Minute)
		next, err := m.Switch(t.Context(), httptest.NewRecorder(), testHost, s, s.Identity)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	sealed := sealLease(t, m, lease(c, &s))
	if _, err := m.OpenLease(sealed); err != nil {
		t.Error(err)
	}
	if _, err := m.Switch(t.Context(), httptest.NewRecorder(), testHost, s, s.Identity); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenLease(sealed); !errors.Is(err, ErrEnded) {
		t.Errorf("after the next switch: %v", err)
	}
}

func TestP12_WhatSomebodyAgreedToEndsWithTheirSessions(t *testing.T) {
	const org = "acme"
	who := alice()
	for name, tt := range map[string]struct {
		cut      Cut
		own, its bool // what is theirs ends, and what they agreed to for the organization
	}{
		"the person":               {Cut{Person: who.ID()}, true, true},
		"the organization":         {Cut{Org: org}, false, true},
		"everybody":                {Cut{}, true, true},
		"another person":           {Cut{Person: who.ID() + "x"}, false, false},
		"another organization":     {Cut{Org: org + "x"}, false, false},
		"one sign-in":              {Cut{Root: "root", Person: who.ID()}, false, false},
		"a session there":          {Cut{Provider: who.Provider, ProviderSID: "s"}, false, false},
		"a session there, of them": {Cut{Provider: who.Provider, ProviderSID: "s", Person: who.ID()}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			m := newManager(t, c)
			agreed := c.Now()
			c.Advance(time.Minute)
			tt.cut.Before, tt.cut.Until = c.Now(), c.Now().Add(time.Hour)
			if err := m.ended.End(t.Context(), tt.cut); err != nil {
				t.Fatal(err)
			}
			own, its := EndedAfter(m.ended, who.ID(), "", agreed), EndedAfter(m.ended, who.ID(), org, agreed)
			if own != tt.own || its != tt.its {
				t.Errorf("ended: %v, and for the organization %v", own, its)
			}
			c.Advance(time.Millisecond)
			if EndedAfter(m.ended, who.ID(), org, c.Now()) {
				t.Error("what was agreed to afterwards has ended")
			}
		})
	}
}

func TestP13_WhatAppsCarryIsSealedForOneUse(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	person, leased := m.SealPerson(s.Identity.ID()), sealLease(t, m, lease(c, &s))
	for _, sealed := range []string{person, leased} {
		if strings.Contains(sealed, "alice") || strings.Contains(sealed, s.Identity.Subject) {
			t.Errorf("it can be read: %s", sealed)
		}
	}
	if got, err := m.OpenPerson(person); err != nil || got != s.Identity.ID() {
		t.Errorf("person: %q %v", got, err)
	}
	if got, err := m.OpenOrg(m.SealOrg("acme")); err != nil || got != "acme" {
		t.Errorf("organization: %q %v", got, err)
	}
	other := newManager(t, c, func(o *Options) { o.Name = "sallyport-b" })
	foreign := newManager(t, c, func(o *Options) { o.Keys = c.ring(3) })
	older := newManager(t, c, func(o *Options) { o.Keys = c.ring(1, 2) })
	flipped := person[:len(person)-2] + string(person[len(person)-2]^1) + person[len(person)-1:]
	for name, open := range map[string]func() (string, error){
		"a lease as a person": func() (string, error) { return m.OpenPerson(leased) },
		"a person as an org":  func() (string, error) { return m.OpenOrg(person) },
		"an org as a person":  func() (string, error) { return m.OpenPerson(m.SealOrg(s.Identity.ID())) },
		"changed":             func() (string, error) { return m.OpenPerson(flipped) },
		"with a line break":   func() (string, error) { return m.OpenPerson(person + "\n") },
		"empty":               func() (string, error) { return m.OpenPerson("") },
		"too long":            func() (string, error) { return m.OpenPerson(strings.Repeat("A", MaxLend+1)) },
		"another instance's":  func() (string, error) { return other.OpenPerson(person) },
		"another key":         func() (string, error) { return foreign.OpenPerson(person) },
		"a person as a lease": func() (string, error) { l, err := m.OpenLease(person); return l.Person, err },
	} {
		if got, err := open(); !errors.Is(err, ErrLend) || got != "" {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if _, err := older.OpenLease(leased); err != nil { // another replica, with one more key
		t.Errorf("on another replica: %v", err)
	}
	for name, l := range map[string]Lease{"no app": {Asserted: Asserted{Person: "a:b", SID: s.SID()}},
		"no person": {App: "board", Asserted: Asserted{SID: s.SID()}},
		"no sid":    {App: "board", Asserted: Asserted{Person: "a:b"}},
		"too long":  {App: strings.Repeat("a", 1<<16), Asserted: Asserted{Person: "a:b", SID: s.SID()}}} {
		if _, err := m.SealLease(l); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

func FuzzLease(f *testing.F) {
	c := newClock()
	m := newManager(f, c)
	s := m.Start(alice())
	if sealed, err := m.SealLease(lease(c, &s)); err == nil {
		b, _ := m.openLend("lease", sealed)
		f.Add(b)
	}
	f.Add([]byte{lendVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLease(b); ok && len(l.App)+len(l.Person)+len(l.Org)+len(l.SID) > len(b) {
			t.Errorf("more than there was: %+v", l)
		}
	})
}
