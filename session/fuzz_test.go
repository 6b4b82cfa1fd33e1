package session

import (
	"bytes"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/identity"
)

// FuzzCookie: a value that we did not seal brings nobody, and a payload is read
// only in the one form in which we would have written it.
func FuzzCookie(f *testing.F) {
	m := newManager(f, newClock())
	s := m.Start(alice())
	s.Identity.Orgs = []identity.Org{s.Identity.Org, {ID: "acme"}}
	s.Identity.Groups = append(groupsOf(3, "6f9619ff-8b86-d011-b42d-00cf4fc9%04x"), "google:x", "")
	payload, err := compact{}.Serialize(&s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	sealed := valueOf(write(f, m, testHost, s))
	f.Add([]byte(sealed[:len(sealed)-44] + strings.Repeat("A", 44))) // no MAC: nobody can mutate it back
	short, _ := compact{}.Serialize(&Session{Root: s.Root, SignedIn: s.SignedIn, Seen: s.Seen,
		Identity: identity.Identity{Provider: "p", Subject: "s"}})
	f.Add(short)
	f.Add([]byte{codecVersion})
	s = newManager(f, newClock(), keeping("eng")).Start(alice())
	kept, _ := compact{}.Serialize(&s)
	f.Add(kept)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := m.Read(m.cookie+"="+string(b), testHost); err == nil {
			t.Errorf("%q was taken for a session", b)
		}
		var s Session
		if err := (compact{}).Deserialize(b, &s); err != nil {
			return
		}
		again, err := compact{}.Serialize(&s)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is read, but would be written as %x (%v)", b, again, err)
		}
		if s.Identity.Subject == "" || s.Seen.Before(s.SignedIn) || s.Seen.Year() > 9999 ||
			!utf8.ValidString(s.Identity.Name) {
			t.Errorf("impossible: %+v", s)
		}
	})
}

// FuzzIdentitySurvives: who goes into a cookie comes out of it.
func FuzzIdentitySurvives(f *testing.F) {
	f.Add("google", "1", "a@b.test", "google:6f9619ff-8b86-d011-b42d-00cf4fc964ff", "eng\x00ops", int64(1), true)
	f.Add("p", "p:", "", "", "", int64(-1), false)
	m := newManager(f, newClock())
	f.Fuzz(func(t *testing.T, provider, subject, email, org, group string, at int64, flag bool) {
		if subject == "" || at < 0 || at >= 253402300800 || len(provider+subject+email+org+group) > 300 {
			t.Skip()
		}
		for _, v := range []string{provider, subject, email, org, group} {
			if !utf8.ValidString(v) {
				t.Skip()
			}
		}
		id := identity.Identity{Provider: provider, Subject: subject, Email: email, EmailVerified: flag, Name: org,
			Username: subject,
			Groups:   []string{group, org, group + org}, Org: identity.Org{ID: org, Name: group},
			Orgs:     []identity.Org{{}, {Domain: org}},
			AuthTime: time.Unix(at, 0).UTC(), ACR: group, ProviderSID: provider + ":" + org}
		got, err := m.Read(pair(write(t, m, testHost, m.Start(id))), testHost)
		if err != nil {
			t.Fatal(err)
		}
		a, b := got.Identity, id
		if !slices.Equal(a.Groups, b.Groups) || !slices.Equal(a.Orgs, b.Orgs) || !a.AuthTime.Equal(b.AuthTime) {
			t.Fatalf("got %+v, want %+v", a, b)
		}
		if a.ID() != b.ID() || a.Email != b.Email || a.EmailVerified != b.EmailVerified || a.Org != b.Org ||
			a.Name != b.Name || a.Username != b.Username || a.ACR != b.ACR || a.ProviderSID != b.ProviderSID {
			t.Fatalf("got %+v, want %+v", a, b)
		}
	})
}

// FuzzState: a state that we did not seal ends no flow.
func FuzzState(f *testing.F) {
	m := newManager(f, newClock())
	b := &browser{t: f, m: m}
	h := b.begin(aFlow)
	f.Add(h.State[:len(h.State)-24])
	f.Add("")
	f.Fuzz(func(t *testing.T, state string) {
		flow, got, err := b.end(state)
		if err != ErrNoFlow || got != (identity.Handshake{}) || flow != (Flow{}) {
			t.Errorf("%q: %v %+v", state, err, flow)
		}
		if p, ok := parseFlow([]byte(state)); ok && len(p.salt) != saltBytes {
			t.Errorf("%q: %+v", state, p)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Cookie"] = []string{m.flowCookie + "=" + state}
		if trip, err := m.Return(r, h.State); err == nil && trip.Handshake.Nonce != h.Nonce {
			t.Errorf("cookie %q ends the flow", state)
		}
	})
}

// FuzzStripCookies: part by part, what is left is what was not ours.
func FuzzStripCookies(f *testing.F) {
	for _, line := range []string{"a=1; __Host-sallyport=S; b=2", ";__Host-sallyport=S;",
		"sallyport-dev-1=S;sallyport-dev-1=S", "a; =__HOST-sallyport;;__secure-sallyport;",
		"\t__Host-sallyport-flow=F;c"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var kept []string
		ours := false
		for part := range strings.SplitSeq(line, ";") {
			if ReservedCookie(cookieName(part)) {
				ours = true
			} else {
				kept = append(kept, part)
			}
		}
		want := []string{line}
		if ours {
			want = slices.DeleteFunc([]string{strings.TrimLeft(strings.Join(kept, ";"), " \t")},
				func(s string) bool { return s == "" })
		}
		if line == "" {
			return // no header line is empty
		}
		if got := StripCookies([]string{line}); !slices.Equal(got, want) {
			t.Errorf("%q became %q, want %q", line, got, want)
		}
	})
}
