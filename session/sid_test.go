package session

import (
	"encoding/base64"
	"testing"
	"time"
)

// What an app knows of a session is the key of the cut that ends it, and not the
// secret that the cookie holds.
func TestTheSidOfASessionIsTheKeyOfItsCut(t *testing.T) {
	s := Session{Root: "hM1hGGnWR0m1kYFRE3XeAg", Identity: alice()}
	later := Session{Root: s.Root, ID: s.Root + ".2", generation: 2}
	record, err := Cut{Root: s.Root, Until: time.Now().Add(time.Hour)}.Record(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.SID(); got != base64.RawURLEncoding.EncodeToString(record.Key[:]) || len(got) != 22 || got == s.Root {
		t.Errorf("sid %q", got)
	}
	if s.SID() != later.SID() || s.SID() == (&Session{Root: "x"}).SID() {
		t.Error("the sid must be one for all sessions of a sign-in, and differ between sign-ins")
	}
}

// Each request asks for it, so it is worked out when the cookie is opened.
func TestTheSidOfASessionThatWasReadCostsNothing(t *testing.T) {
	m := newManager(t, newClock())
	started := m.Start(alice())
	s, err := m.Read(pair(write(t, m, testHost, started)), testHost)
	if err != nil {
		t.Fatal(err)
	}
	if s.SID() != started.SID() || s.SID() != rootKey(s.Root).SID() {
		t.Errorf("sid %q, at first %q", s.SID(), started.SID())
	}
	if n := testing.AllocsPerRun(100, func() { _ = s.SID() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
