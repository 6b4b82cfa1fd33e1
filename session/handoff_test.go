package session

import (
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

const otherHost = "wiki.example.com"

// ask is the first step of a hand-off: a Want of the browser at otherHost.
func (b *browser) ask(want Want) string {
	b.t.Helper()
	if want.Host == "" {
		want.Host = otherHost
	}
	w := httptest.NewRecorder()
	sealed, err := b.m.SealWant(w, b.request(), want)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range w.Header()["Set-Cookie"] {
		b.cookies, b.set = []string{pair(line)}, b.set+1
	}
	return sealed
}

// grant is the second: what the host of the sign-in makes of it.
func grant(t testing.TB, m *Manager, want string, s Session, org string) string {
	t.Helper()
	w, err := m.OpenWant(want)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := m.SealGrant(w, s, org)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestAHandOffGivesAnotherHostTheSameSignIn(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	b := &browser{t: t, m: m}
	s := m.Start(alice())
	c.Advance(20 * time.Minute)
	g, err := m.OpenGrant(b.request(), otherHost, grant(t, m, b.ask(Want{ReturnTo: "/deep?x=1"}), s, ""))
	if !errors.Is(err, ErrNoFlow) || g.ReturnTo != "/deep?x=1" { // asked for before the cookie was there
		t.Errorf("without a flow cookie: %v %+v", err, g)
	}
	want := b.ask(Want{ReturnTo: "/deep?x=1"})
	if b.set != 1 {
		t.Errorf("the flow cookie was set %d times", b.set)
	}
	if g, err = m.OpenGrant(b.request(), otherHost, grant(t, m, want, s, "")); err != nil {
		t.Fatal(err)
	}
	if g.ReturnTo != "/deep?x=1" {
		t.Errorf("return to %q", g.ReturnTo)
	}
	got, err := m.Read(pair(write(t, m, otherHost, g.Session)), otherHost)
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != s.Root || got.ID == s.ID || got.ID != g.Session.ID || !got.SignedIn.Equal(s.SignedIn) ||
		!got.Expires.Equal(s.Expires) ||
		!got.Seen.Equal(c.Now()) || !got.Handed.Equal(c.Now()) || got.Identity.ID() != s.Identity.ID() {
		t.Errorf("handed over %+v\nof %+v", got, s)
	}
	if m.HandOverDue(&got) {
		t.Error("due at once")
	}
	if c.Advance(HandOverTime); !m.HandOverDue(&got) {
		t.Error("never due")
	}
	if _, err := m.Read(pair(write(t, m, otherHost, got)), testHost); !errors.Is(err, ErrForged) {
		t.Errorf("at the host of the sign-in it is %v", err)
	}
	if err := m.EndSignIn(t.Context(), got); err != nil || !m.HasEnded(&s) {
		t.Errorf("signed out on one host, not on the other: %v", err)
	}
}

// What a thief may do with a grant, and what becomes of it.
func TestP06_AGrantIsForOneBrowserHostAndMoment(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	b, thief := &browser{t: t, m: m}, &browser{t: t, m: m}
	thief.ask(Want{}) // has a flow cookie of that host
	s := m.Start(alice())
	sealed := grant(t, m, b.ask(Want{}), s, "")
	for name, tc := range map[string]struct {
		b       *browser
		m       *Manager
		host, g string
		want    error
	}{
		"another browser":                {thief, m, otherHost, sealed, ErrOtherBrowser},
		"a browser that was never there": {&browser{t: t, m: m}, m, otherHost, sealed, ErrNoFlow},
		"another host":                   {b, m, "files.example.com", sealed, ErrGrant},
		"the host of the sign-in":        {b, m, testHost, sealed, ErrGrant},
		"a want":                         {b, m, otherHost, b.ask(Want{}), ErrGrant},
		"another key": {b, newManager(t, c, func(o *Options) { o.Keys = c.ring(9) }), otherHost,
			sealed, ErrGrant},
		"another instance": {b, newManager(t, c, func(o *Options) { o.Name = "sallyport-two" }),
			otherHost, sealed, ErrGrant},
		"cut short":         {b, m, otherHost, sealed[:len(sealed)-4], ErrGrant},
		"nothing":           {b, m, otherHost, "", ErrGrant},
		"with a line break": {b, m, otherHost, sealed + "\n", ErrGrant},
		"far too long":      {b, m, otherHost, strings.Repeat("A", 1<<20), ErrGrant},
	} {
		if _, err := tc.m.OpenGrant(tc.b.request(), tc.host, tc.g); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw { // every bit counts
		raw[i] ^= 1
		if _, err := m.OpenGrant(b.request(), otherHost, base64.RawURLEncoding.EncodeToString(raw)); !errors.Is(err,
			ErrGrant) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		raw[i] ^= 1
	}
	c.Advance(29 * time.Second)
	g, err := m.OpenGrant(b.request(), otherHost, sealed)
	if err != nil {
		t.Fatal(err)
	}
	once := NewMemory(MemoryOptions{Now: c.Now})
	if err := ConsumeGrant(t.Context(), once, g); err != nil {
		t.Errorf("the first time: %v", err)
	}
	if err := ConsumeGrant(t.Context(), once, g); !errors.Is(err, ErrConsumed) {
		t.Errorf("the second time: %v", err)
	}
	c.Advance(time.Second)
	if _, err := m.OpenGrant(b.request(), otherHost, sealed); !errors.Is(err, ErrLate) {
		t.Errorf("after half a minute: %v", err)
	}
	if _, err := m.OpenWant(sealed); !errors.Is(err, ErrNoFlow) {
		t.Errorf("a grant as a want: %v", err)
	}
}

func TestASignOutMeanwhileEndsTheHandOff(t *testing.T) {
	m := newManager(t, newClock())
	b := &browser{t: t, m: m}
	s := m.Start(alice())
	sealed := grant(t, m, b.ask(Want{}), s, "")
	if err := m.EndSignIn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenGrant(b.request(), otherHost, sealed); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
}

// A want is open to everybody who carries it for ten minutes, and says what was asked.
func TestAWantComesBackWhole(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	b := &browser{t: t, m: m}
	s := m.Start(alice())
	in := Want{Host: otherHost, ReturnTo: "/" + strings.Repeat("x", MaxReturnTo-1), Restarts: 2, Switch: true,
		Root: s.Root, Seen: s.Seen}
	sealed := b.ask(in)
	got, err := m.OpenWant(sealed)
	if err != nil || got.Host != in.Host || got.ReturnTo != in.ReturnTo || got.Restarts != 2 || !got.Switch ||
		got.Root != s.Root || !got.Seen.Equal(s.Seen) {
		t.Errorf("%v %+v", err, got)
	}
	in.Host = strings.Repeat("h", 253)
	if got, err = m.OpenWant(b.ask(in)); err != nil || got.Host != in.Host {
		t.Errorf("the longest host: %v %+v", err, got)
	}
	c.Advance(wantTime)
	if got, err = m.OpenWant(sealed); !errors.Is(err, ErrLate) || got.Host != otherHost {
		t.Errorf("ten minutes later: %v %+v", err, got)
	}
}

// The name of a host says for which organization somebody is there. A switch on the
// host of the sign-in ends the sessions of other hosts, but not that one.
func TestAHostOfAnOrganizationKeepsItThroughASwitch(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	b := &browser{t: t, m: m}
	who := alice()
	who.Orgs = []identity.Org{who.Org, {ID: "birch", Name: "Birch"}}
	s := m.Start(who)
	open := func(org string) Session {
		t.Helper()
		g, err := m.OpenGrant(b.request(), otherHost, grant(t, m, b.ask(Want{}), s, org))
		if err != nil {
			t.Fatal(err)
		}
		return g.Session
	}
	b.ask(Want{})
	plain, birch := open(""), open("birch")
	if plain.Identity.Org.ID != who.Org.ID || birch.Identity.Org.ID != "birch" || plain.ID == birch.ID {
		t.Errorf("%+v\n%+v", plain, birch)
	}
	want, err := m.OpenWant(b.ask(Want{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.SealGrant(want, s, "cedar"); !errors.Is(err, ErrNotTheirs) {
		t.Errorf("an organization that is not theirs: %v", err)
	}
	other, _ := who.WithOrg("birch")
	if s, err = m.Switch(t.Context(), httptest.NewRecorder(), testHost, s, other); err != nil {
		t.Fatal(err)
	}
	if !m.HasEnded(&plain) || m.HasEnded(&birch) {
		t.Errorf("after the switch: the plain host's session ended %t, the organization's %t", m.HasEnded(&plain),
			m.HasEnded(&birch))
	}
	if err := m.EndSignIn(t.Context(), birch); err != nil || !m.HasEnded(&s) || !m.HasEnded(&birch) {
		t.Errorf("signed out on the organization's host: %v", err)
	}
}

// Somebody who works on one host is not signed out for being idle on another.
func TestASessionIsKeptByTheUseOfAnotherHost(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	cookie := pair(write(t, m, testHost, s))
	c.Advance(50 * time.Minute)
	used := m.HandedOver(s, otherHost)
	c.Advance(30 * time.Minute)
	idle, err := m.Read(cookie, testHost)
	if !errors.Is(err, ErrExpired) {
		t.Fatal(err)
	}
	if got, ok := m.KeptInUse(idle, Want{Root: used.Root, Seen: used.Seen}); !ok || !got.Seen.Equal(c.Now()) ||
		!got.IdleExpires.After(c.Now()) {
		t.Errorf("kept %t %+v", ok, got)
	}
	other := m.Start(alice())
	for name, want := range map[string]Want{
		"nobody was there":            {},
		"another sign-in was":         {Root: other.Root, Seen: used.Seen},
		"somebody was there long ago": {Root: used.Root, Seen: s.Seen},
	} {
		if _, ok := m.KeptInUse(idle, want); ok {
			t.Error(name)
		}
	}
	c.Advance(11 * time.Hour)
	if _, ok := m.KeptInUse(idle, Want{Root: used.Root, Seen: c.Now()}); ok {
		t.Error("after the end of the sign-in")
	}
	if err := m.EndSignIn(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.KeptInUse(idle, Want{Root: used.Root, Seen: c.Now()}); ok {
		t.Error("after the sign-out")
	}
}

// What fits a cookie fits a grant, whatever is in it.
func TestTheLargestSessionCanBeHandedOver(t *testing.T) {
	m := newManager(t, newClock())
	b := &browser{t: t, m: m}
	s := m.Start(alice())
	for n := 1; ; n++ {
		s.Identity.Groups = append(s.Identity.Groups, strings.Repeat("g", 29)+string(rune('a'+n%26)))
		if value, err := m.seal(testHost, s); err != nil || len(value) > maxCookie {
			s.Identity.Groups = s.Identity.Groups[:len(s.Identity.Groups)-1]
			break
		}
	}
	b.ask(Want{})
	want := b.ask(Want{Host: strings.Repeat("h", 253), ReturnTo: "/" + strings.Repeat("x", MaxReturnTo-1)})
	sealed := grant(t, m, want, s, "")
	if len(sealed) > 5000 {
		t.Errorf("%d bytes", len(sealed))
	}
	g, err := m.OpenGrant(b.request(), strings.Repeat("h", 253), sealed)
	if err != nil || len(g.Session.Identity.Groups) != len(s.Identity.Groups) {
		t.Errorf("%v: %d of %d groups", err, len(g.Session.Identity.Groups), len(s.Identity.Groups))
	}
	if _, err := m.Read(pair(write(t, m, otherHost, g.Session)), otherHost); err != nil {
		t.Error(err)
	}
}

// FuzzHandOff: what we did not seal is no want and no grant, and what is read is
// written in one form.
func FuzzHandOff(f *testing.F) {
	m := newManager(f, newClock())
	b := &browser{t: f, m: m}
	s := m.Start(alice())
	sealed := b.ask(Want{ReturnTo: "/x", Root: s.Root, Seen: s.Seen})
	want, err := m.OpenWant(sealed)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := want.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(plain))
	f.Add(sealed[:len(sealed)-8])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := m.OpenWant(text); err == nil {
			t.Errorf("%q is a want", text)
		}
		if _, err := m.OpenGrant(b.request(), otherHost, text); err == nil {
			t.Errorf("%q is a grant", text)
		}
		got, rest, ok := parseWant([]byte(text))
		if !ok {
			return
		}
		if again, err := got.append(nil); err != nil || string(again)+string(rest) != text {
			t.Errorf("%q is read, but would be written %q (%v)", text, again, err)
		}
	})
}
