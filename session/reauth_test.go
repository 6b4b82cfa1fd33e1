package session

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// When it is time to ask again: not before nine tenths, and after eleven at the latest;
// at one moment for one sign-in, and at others for others.
func TestTheTimeToAskAgainIsSpreadOverATenth(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newManager(t, clock)
	const after = 100 * time.Minute
	moments := map[int]bool{}
	for range 50 {
		s := m.Start(identity.Identity{Provider: "p", Subject: "s"})
		from := clock.Now()
		minute := 0
		for ; !m.Due(&s, after); minute++ {
			clock.Advance(time.Minute)
		}
		if minute < 90 || minute > 110 {
			t.Fatalf("due after %d minutes of %v", minute, after)
		}
		moments[minute] = true
		s.Tried = m.seenNow(&s) // who was sent there is not due, whether they came back or not
		clock.Advance(89 * time.Minute)
		if m.Due(&s, after) {
			t.Error("who was sent there a moment ago is sent there again")
		}
		clock.Advance(22 * time.Minute)
		if !m.Due(&s, after) {
			t.Error("it never becomes due again")
		}
		clock.Advance(from.Sub(clock.Now()))
	}
	if len(moments) < 5 {
		t.Errorf("50 people are due at %d moments", len(moments))
	}
}

// A browser that was sent away while the clock was ahead is not left alone for as long as
// the clock went back; clocks of replicas that differ by seconds send nobody there twice.
func TestP11_AClockThatIsSetBackHoldsUpNoAskingAgain(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newManager(t, clock)
	const after = 100 * time.Minute
	s := m.Start(identity.Identity{Provider: "p", Subject: "s"})
	clock.Advance(111 * time.Minute)
	for ahead, due := range map[time.Duration]bool{0: false, 30 * time.Second: false, 5 * time.Hour: true} {
		clock.Advance(ahead)
		tried := s
		tried.Tried = m.seenNow(&tried)
		if clock.Advance(-ahead); m.Due(&tried, after) != due {
			t.Errorf("sent there by a clock %v ahead: due is %v", ahead, !due)
		}
	}
}

// What rules and apps are told has not changed if only the way of signing in has, or if
// groups that never fitted the cookie came again.
func TestP11_OnlyWhatAppsAreToldIsAChange(t *testing.T) {
	t.Parallel()
	was := identity.Identity{Provider: "p", Subject: "s", Email: "a@x.test", Groups: []string{"a"},
		Orgs: []identity.Org{{ID: "p:1"}}}
	for name, tt := range map[string]struct {
		bend func(*identity.Identity)
		same bool
	}{
		"nothing": {func(*identity.Identity) {}, true},
		"how they did": {func(id *identity.Identity) {
			id.ACR, id.AuthTime, id.ProviderSID = "mfa", time.Unix(9, 0),
				"x"
		}, true},
		"a group fewer":   {func(id *identity.Identity) { id.Groups = nil }, false},
		"another group":   {func(id *identity.Identity) { id.Groups = []string{"b"} }, false},
		"unknown groups":  {func(id *identity.Identity) { id.GroupsUnknown = true }, false},
		"another address": {func(id *identity.Identity) { id.Email = "b@x.test" }, false},
		"not verified":    {func(id *identity.Identity) { id.EmailVerified = true }, false},
		"an organization": {func(id *identity.Identity) { id.Orgs = append(id.Orgs[:1:1], identity.Org{ID: "p:2"}) },
			false},
		"another name": {func(id *identity.Identity) { id.Name = "Ann" }, false},
	} {
		now := was
		tt.bend(&now)
		if sameFacts(was, now) != tt.same {
			t.Errorf("%s: the same is %v, want %v", name, !tt.same, tt.same)
		}
	}
	dropped := was
	dropped.Groups, dropped.GroupsUnknown, dropped.GroupsDropped = nil, true, true
	if !sameFacts(dropped, was) {
		t.Error("groups that did not fit are a change each time")
	}
}

// Who has proved something does not have to do so again because the provider, asked
// whether it is still them, says nothing of it; what it does say counts.
func TestAnAnswerThatSaysNothingOfASignInForgetsNothing(t *testing.T) {
	t.Parallel()
	then, now := time.Unix(1_790_000_000, 0).UTC(), time.Unix(1_790_000_600, 0).UTC()
	for name, tt := range map[string]struct {
		says, want identity.Identity
	}{
		"nothing": {identity.Identity{}, identity.Identity{AuthTime: then, ACR: "mfa", ProviderSID: "one"}},
		"all": {identity.Identity{AuthTime: now, ACR: "phr", ProviderSID: "two"},
			identity.Identity{AuthTime: now, ACR: "phr", ProviderSID: "two"}},
		"a later sign-in, not how": {identity.Identity{AuthTime: now}, identity.Identity{AuthTime: now, ProviderSID: "one"}},
		"the same sign-in, not how": {identity.Identity{AuthTime: then},
			identity.Identity{AuthTime: then, ACR: "mfa", ProviderSID: "one"}},
		"other means, not when":   {identity.Identity{ACR: "phr"}, identity.Identity{AuthTime: then, ACR: "phr", ProviderSID: "one"}},
		"means that nobody wants": {identity.Identity{ACR: "pwd"}, identity.Identity{AuthTime: then, ProviderSID: "one"}},
		"an earlier sign-in": {identity.Identity{AuthTime: then.Add(-time.Hour)},
			identity.Identity{AuthTime: then.Add(-time.Hour), ProviderSID: "one"}},
	} {
		for _, groups := range [][]string{{"a"}, {"b"}} { // the same facts, and others
			clock := newClock()
			m := newManager(t, clock)
			m.anyACR, m.acr = false, []string{"mfa", "phr"}
			s := m.Start(identity.Identity{Provider: "p", Subject: "s", Groups: []string{"a"}, AuthTime: then, ACR: "mfa",
				ProviderSID: "one"})
			who := tt.says
			who.Provider, who.Subject, who.Groups = "p", "s", groups
			next, _, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, who)
			got := next.Identity
			if err != nil || !got.AuthTime.Equal(tt.want.AuthTime) || got.ACR != tt.want.ACR ||
				got.ProviderSID != tt.want.ProviderSID {
				t.Errorf("%s: %v %q %q, %v", name, got.AuthTime, got.ACR, got.ProviderSID, err)
			}
		}
	}
}

// Who is asked again may be in another session at the provider than when they signed in, and
// signs out of that one. What was opened before ends with it: streams, copies of the cookie,
// and what other hosts were handed.
func TestP10_ASignOutAtTheProviderEndsWhatWasOpenedInAnEarlierSessionThere(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newManager(t, clock)
	who := identity.Identity{Provider: "p", Subject: "s", ProviderSID: "one"}
	s := m.Start(who)
	same, changed, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, who)
	if err != nil || changed || m.HasEnded(&s) {
		t.Fatalf("asked again in the same one: changed %v, %v", changed, err)
	}
	elsewhere := m.HandedOver(same, "b.example")
	who.ProviderSID = "two"
	next, _, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", same, who)
	if err != nil || m.HasEnded(&next) {
		t.Fatalf("asked again in another one: %v", err)
	}
	clock.Advance(time.Second)
	first, err := m.EndFromProvider(t.Context(), "p", identity.ProviderLogout{Person: who.ID(), ProviderSID: "two",
		ID: "1", Issued: clock.Now(), Until: clock.Now().Add(time.Minute)})
	if !first || err != nil {
		t.Fatal(first, err)
	}
	for name, of := range map[string]Session{"the session": next, "what was opened with the cookie of before": s,
		"the session of another host": elsewhere} {
		if !m.HasEnded(&of) {
			t.Errorf("%s goes on", name)
		}
	}
}

// A confirmed session lasts no longer than it would have, and of two answers at once that
// change it one counts.
func TestP11_AConfirmedSessionLastsNoLonger(t *testing.T) {
	t.Parallel()
	clock := newClock()
	m := newManager(t, clock)
	who := identity.Identity{Provider: "p", Subject: "s", Groups: []string{"a"}}
	s := m.Start(who)
	clock.Advance(20 * time.Minute)
	same, changed, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, who)
	if err != nil || changed || same.ID != s.ID || !same.Expires.Equal(s.Expires) ||
		same.Checked.Sub(s.SignedIn) != 20*time.Minute {
		t.Errorf("%+v, %v, %v", same, changed, err)
	}
	who.Groups = nil
	next, changed, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, who)
	if err != nil || !changed || next.ID == s.ID || next.Root != s.Root || !next.Expires.Equal(s.Expires) ||
		!m.HasEnded(&s) {
		t.Errorf("%+v, %v, %v", next, changed, err)
	}
	if _, _, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, who); err != ErrEnded {
		t.Errorf("the second of two changes: %v", err)
	}
	if _, _, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, s.Identity); err != ErrEnded {
		t.Errorf("an ended session that is confirmed: %v", err)
	}
}

// On the host of an organization a session ends with what the provider no longer says of
// the person, as on all hosts, and not because another organization was chosen elsewhere.
func TestP11_WhatTheProviderSaysReachesTheHostsOfOrganizations(t *testing.T) {
	t.Parallel()
	m := newManager(t, newClock())
	acme, birch := identity.Org{ID: "acme"}, identity.Org{ID: "birch"}
	s := m.Start(identity.Identity{Provider: "p", Subject: "s", Groups: []string{"a"}, Org: acme,
		Orgs: []identity.Org{acme, birch}})
	bound, ok := m.inOrg(s, "birch")
	if !ok {
		t.Fatal("not theirs")
	}
	for range 3 { // switches, one after the other
		next, err := m.Switch(t.Context(), httptest.NewRecorder(), "a.example", s, s.Identity)
		if err != nil || !m.HasEnded(&s) || m.HasEnded(&next) || m.HasEnded(&bound) {
			t.Fatalf("a switch: %v; ended: the old one %t, the new one %t, that of the organization's host %t", err,
				m.HasEnded(&s), m.HasEnded(&next), m.HasEnded(&bound))
		}
		s = next
	}
	fewer := s.Identity
	fewer.Groups = nil
	next, changed, err := m.Confirm(t.Context(), httptest.NewRecorder(), "a.example", s, fewer)
	if err != nil || !changed || m.HasEnded(&next) || !m.HasEnded(&s) {
		t.Errorf("%+v, %v, %v", next, changed, err)
	}
	if !m.HasEnded(&bound) || m.SignInEnded(bound) {
		t.Errorf("of the organization's host: ended %t, and the whole sign-in %t", m.HasEnded(&bound),
			m.SignInEnded(bound))
	}
	again, _ := m.inOrg(next, "birch")
	if m.HasEnded(&again) {
		t.Error("what is handed over after that is over")
	}
	after, err := m.Switch(t.Context(), httptest.NewRecorder(), "a.example", next, next.Identity)
	if err != nil || m.HasEnded(&after) || m.HasEnded(&again) {
		t.Errorf("a switch after that: %v", err)
	}
	if err := m.EndSignIn(t.Context(), after); err != nil || !m.HasEnded(&again) {
		t.Errorf("signed out: %v", err)
	}
}

// A sign-in with more switches than are counted goes on; no session of before comes back.
func TestGenerationsOnlyGrow(t *testing.T) {
	t.Parallel()
	for from, want := range map[uint32]uint64{0: 1, boundGeneration - 2: boundGeneration - 1,
		boundGeneration - 1: choices, choices: choices + 1, 2*choices + boundGeneration - 1: 3 * choices,
		1<<32 - 2: 1 << 32} {
		if got := nextGeneration(from); got != want {
			t.Errorf("after %d comes %d, want %d", from, got, want)
		}
		if got := nextFacts(from); got <= uint64(from|boundGeneration) || got%choices != 0 {
			t.Errorf("a change after %d is %d", from, got)
		}
	}
	m := newManager(t, newClock())
	s := m.Start(identity.Identity{Provider: "p", Subject: "s"})
	s.generation = 1<<32 - 2
	if _, err := m.Switch(t.Context(), httptest.NewRecorder(), "a.example", s, s.Identity); err != ErrEnded {
		t.Errorf("after the last one: %v", err)
	}
}
