package session

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const testHost = "app.example.com"

// clock is the time that a test moves by hand.
type clock struct{ *testenv.Clock }

func newClock() *clock {
	return &clock{testenv.StandingClock(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))}
}

func (c *clock) key(age int) (k Key) {
	return keyOf(byte(age), c.Now().Add(-time.Duration(age)*time.Hour))
}
func (c *clock) ring(ages ...int) Keyring {
	var keys []Key
	for _, age := range ages {
		keys = append(keys, c.key(age))
	}
	r, err := NewKeyring(keys)
	if err != nil {
		panic(err)
	}
	return r
}

// keyOf makes the same key for the same seed.
func keyOf(seed byte, created time.Time) Key {
	k := Key{created: created}
	for i := range k.secret {
		k.secret[i] = seed + byte(i)
	}
	return k
}

func newManager(t testing.TB, c *clock, change ...func(*Options)) *Manager {
	t.Helper()
	o := Options{Keys: c.ring(1), Secure: true, AbsoluteTimeout: 12 * time.Hour, IdleTimeout: time.Hour, Now: c.Now}
	for _, f := range change {
		f(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func alice() identity.Identity {
	return identity.Identity{
		Provider: "google", Subject: "110169484474386276334",
		Email: "alice.example-person@acme.test", EmailVerified: true,
		Name: "Alice Example", Username: "alice",
		Groups: []string{"oncall", "eng"},
		Org: identity.Org{ID: "google:6f9619ff-8b86-d011-b42d-00cf4fc964ff", Name: "Acme", Domain: "acme.test",
			Source: "claim"},
		AuthTime: time.Unix(1795338000, 0).UTC(),
	}
}

// write seals s and returns the one Set-Cookie line.
func write(t testing.TB, m *Manager, host string, s Session) string {
	t.Helper()
	w := httptest.NewRecorder()
	if err := m.Write(w, host, s); err != nil {
		t.Fatal(err)
	}
	lines := w.Header()["Set-Cookie"]
	if len(lines) != 1 {
		t.Fatalf("%d Set-Cookie lines: %q", len(lines), lines)
	}
	return lines[0]
}

// pair is what a browser sends back of a Set-Cookie line.
func pair(setCookie string) string {
	p, _, _ := strings.Cut(setCookie, ";")
	return p
}

func valueOf(setCookie string) string {
	_, v, _ := strings.Cut(pair(setCookie), "=")
	return v
}

// signedIn returns a sealed session of alice and its cookie pair.
func signedIn(t testing.TB, m *Manager) (Session, string) {
	t.Helper()
	s := m.Start(alice())
	return s, pair(write(t, m, testHost, s))
}

func TestSessionSurvivesTheRoundTrip(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	guid := "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
	for name, id := range map[string]identity.Identity{
		"alice":        alice(),
		"only the key": {Provider: "oidc", Subject: "1"},
		"everything": {
			Provider: "microsoft", Subject: guid, Email: "a@b.test", Name: "Zoë 😀", Username: "z|o;e",
			Groups: []string{guid, strings.ToUpper(guid), "microsoft:" + guid, "microsoft:x", "", "a,b",
				"microsoft:"},
			Org:      identity.Org{ID: "microsoft:" + guid},
			Orgs:     []identity.Org{{ID: "acme", Name: "Acme"}, {}, {ID: "microsoft:" + guid, Source: "config"}},
			AuthTime: time.Unix(0, 0).UTC(), ACR: "phr", ProviderSID: guid,
		},
		"groups unknown": {Provider: "p", Subject: "s", GroupsUnknown: true},
		"groups dropped": {Provider: "p", Subject: "s", GroupsUnknown: true, GroupsDropped: true},
		"org unknown":    {Provider: "p", Subject: "s", OrgUnknown: true},
		"org groups": {Provider: "p", Subject: "s", Org: identity.Org{ID: "p:a"},
			Orgs: []identity.Org{{ID: "p:a"}, {ID: "b"}}, Groups: []string{"x", "y"},
			OrgGroups: []identity.OrgGroup{{Org: "p:a", Group: "x"}, {Org: "b", Group: guid}}},
		"org by name":  {Provider: "p", Subject: "s", Org: identity.Org{Source: "claim"}},
		"odd provider": {Provider: ":p:", Subject: ":p::s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.Start(id)
			got, err := m.Read(pair(write(t, m, testHost, s)), testHost)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, s) {
				t.Errorf("got  %+v\nwant %+v", got, s)
			}
			length := len(pair(write(t, m, testHost, s)))
			s.Checked, s.Tried, s.Handed = s.SignedIn.Add(90*time.Minute), s.SignedIn.Add(91*time.Minute), s.SignedIn
			s.ID = handedID(&s, testHost) // tells it from the one of another host
			renewed := pair(write(t, m, testHost, s))
			if got, err = m.Read(renewed, testHost); err != nil || !reflect.DeepEqual(got, s) {
				t.Errorf("checked and handed over: got  %+v\nwant %+v (%v)", got, s, err)
			}
			if len(renewed) != length {
				t.Errorf("the cookie changes its length from %d to %d", length, len(renewed))
			}
		})
	}
}

func TestEverySignInHasAFreshUnpredictableID(t *testing.T) {
	m := newManager(t, newClock())
	seen := map[string]bool{}
	for range 1000 {
		id := m.Start(alice()).ID
		raw, err := base64.RawURLEncoding.DecodeString(id)
		if err != nil || len(raw) != 16 || seen[id] {
			t.Fatalf("id %q: not 128 fresh bits", id)
		}
		seen[id] = true
	}
}

// The attributes byte for byte: Secure, HttpOnly, SameSite=Lax, Path=/ and no
// Domain are what __Host- and P9 rest on (RFC 6265bis §4.1.3.2).
func TestP09_SetCookieByteForByte(t *testing.T) {
	c := newClock()
	secure := newManager(t, c)
	dev := newManager(t, c, func(o *Options) { o.Secure, o.Port = false, "4180" })
	none := httptest.NewRequest("GET", "/", nil)
	for _, tc := range []struct {
		name string
		do   func(http.ResponseWriter) error
		want string // with the value as *
	}{
		{"write", func(w http.ResponseWriter) error { return secure.Write(w, testHost, secure.Start(alice())) },
			"__Host-sallyport=*; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure"},
		{"write dev", func(w http.ResponseWriter) error { return dev.Write(w, "localhost", dev.Start(alice())) },
			"sallyport-dev-4180=*; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax"},
		{"clear", func(w http.ResponseWriter) error { secure.Clear(w); return nil },
			"__Host-sallyport=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"},
		{"clear dev", func(w http.ResponseWriter) error { dev.Clear(w); return nil },
			"sallyport-dev-4180=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"},
		{"sign out", func(w http.ResponseWriter) error { return secure.SignOut(context.Background(), w, Session{}) },
			"__Host-sallyport=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"},
		{"begin", func(w http.ResponseWriter) error { _, err := secure.Begin(w, none, Flow{}); return err },
			"__Host-sallyport-flow=*; Path=/; HttpOnly; SameSite=Lax; Secure"},
		{"begin dev", func(w http.ResponseWriter) error { _, err := dev.Begin(w, none, Flow{}); return err },
			"sallyport-dev-4180-flow=*; Path=/; HttpOnly; SameSite=Lax"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if err := tc.do(w); err != nil {
				t.Fatal(err)
			}
			got := w.Header().Get("Set-Cookie")
			if before, after, star := strings.Cut(tc.want, "*"); star {
				if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) || len(got) <= len(tc.want) {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			} else if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if cc := w.Header().Get("Cache-Control"); cc != "private, no-store" {
				t.Errorf("Cache-Control %q", cc)
			}
			if strings.ContainsAny(valueOf(got), "\",\\ \t") {
				t.Errorf("value %q needs quoting", valueOf(got))
			}
		})
	}
}

// A cookie that is written again does not live past the session.
func TestP11_MaxAgeCountsFromTheSignIn(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	c.Advance(11 * time.Hour)
	if line := write(t, m, testHost, s); !strings.Contains(line, "; Max-Age=3600;") {
		t.Error(line)
	}
	c.Advance(2 * time.Hour) // too late: never a cookie for the browser's whole session
	if line := write(t, m, testHost, s); !strings.Contains(line, "; Max-Age=1;") {
		t.Error(line)
	}
}

// groupsOf makes n groups by a pattern.
func groupsOf(n int, pattern string) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(pattern, i))
	}
	return out
}

func TestP17_ReferencePersonFitsIntoOneKibibyte(t *testing.T) {
	m := newManager(t, newClock())
	for _, tc := range []struct {
		name   string
		groups []string
	}{
		{"0 groups", nil},
		{"20 groups of 12 characters", groupsOf(20, "team-%07d")},
		{"20 groups that are GUIDs", groupsOf(20, "6f9619ff-8b86-d011-b42d-00cf4fc9%04x")},
	} {
		id := alice()
		id.Groups = tc.groups
		if len(id.Email) != 30 {
			t.Fatalf("the reference e-mail has %d bytes", len(id.Email))
		}
		line := write(t, m, testHost, m.Start(id))
		payload, err := compact{}.Serialize(&Session{Root: m.Start(id).Root, Identity: id, SignedIn: m.now(),
			Seen: m.now()})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of cookie value, %d of payload", tc.name, len(valueOf(line)), len(payload))
		if len(valueOf(line)) > 1024 {
			t.Errorf("%s: %d bytes", tc.name, len(valueOf(line)))
		}
	}
}

// Above the cap groups become unknown as a whole: a rule must not take a cut
// list for all there is.
func TestP17_GroupsAboveTheCapBecomeUnknownNeverCut(t *testing.T) {
	m := newManager(t, newClock())
	last := 0
	for n := 1; n <= 400; n++ {
		id := alice()
		id.Groups = groupsOf(n, "group-%09d")
		line := write(t, m, testHost, m.Start(id))
		if size := len(pair(line)); size > 4000 {
			t.Fatalf("%d groups: %d bytes of name and value", n, size)
		}
		got, err := m.Read(pair(line), testHost)
		if err != nil {
			t.Fatalf("%d groups: %v", n, err)
		}
		switch {
		case slices.Equal(got.Identity.Groups, id.Groups) && !got.Identity.GroupsUnknown && last == n-1:
			last = n
		case got.Identity.Groups == nil && got.Identity.GroupsUnknown && got.Identity.GroupsDropped:
			got.Identity.Groups, got.Identity.GroupsUnknown, got.Identity.GroupsDropped = id.Groups, false, false
			if !reflect.DeepEqual(got.Identity, id) {
				t.Fatalf("%d groups: something else was lost: %+v", n, got.Identity)
			}
		default:
			t.Fatalf("%d groups: %d kept, unknown %v", n, len(got.Identity.Groups), got.Identity.GroupsUnknown)
		}
	}
	t.Logf("%d groups of 15 characters are kept", last)
	if last < 50 || last == 400 {
		t.Errorf("%d groups fit; the cap is not where it should be", last)
	}
}

// What fitted at the sign-in fits at every renewal, to the byte: nobody loses
// their groups in the middle of a session.
func TestP17_IdentityAtTheCapKeepsItsGroupsToTheEnd(t *testing.T) {
	const life = 100 * 24 * time.Hour
	c := newClock()
	m := newManager(t, c, func(o *Options) { o.AbsoluteTimeout, o.IdleTimeout = life, 10*24*time.Hour })
	grown := func(n int) Session {
		id := alice()
		id.Groups = append(groupsOf(100, "group-%09d"), strings.Repeat("g", n))
		return m.Start(id)
	}
	largest := 0
	for n := 1; n < 1000; n++ {
		if _, err := m.seal(testHost, grown(n)); err == nil {
			largest = n
		}
	}
	if _, err := m.seal(testHost, grown(largest+1)); err == nil || largest == 0 {
		t.Fatal("no session is at the cap")
	}
	s := grown(largest)
	first := len(write(t, m, testHost, s))
	for _, after := range []time.Duration{time.Second, 127 * time.Second, 128 * time.Second, 5 * time.Hour,
		10 * time.Hour, 23 * 24 * time.Hour, 25 * 24 * time.Hour, life - time.Second} {
		c.Advance(s.SignedIn.Add(after).Sub(c.Now()))
		s.Seen = c.Now()
		line := write(t, m, testHost, s)
		got, err := m.Read(pair(line), testHost)
		if err != nil || len(got.Identity.Groups) != 101 || got.Identity.GroupsUnknown {
			t.Errorf("after %v: %d groups, unknown %v (%v)", after, len(got.Identity.Groups),
				got.Identity.GroupsUnknown, err)
		}
		if maxAge := int((life - after) / time.Second); len(line)-len(strconv.Itoa(maxAge)) != first-len(strconv.Itoa(int(life/time.Second))) {
			t.Errorf("after %v: the cookie has another length: %d, then %d", after, first, len(line))
		}
	}
}

// Two reasons why groups are not known, and neither is told for the other.
func TestGroupsThatWereNeverToldAreNotCalledDropped(t *testing.T) {
	m := newManager(t, newClock())
	id := alice()
	id.Groups, id.GroupsUnknown = groupsOf(400, "group-%09d"), true // a part, as the provider said
	got, err := m.Read(pair(write(t, m, testHost, m.Start(id))), testHost)
	if err != nil || !got.Identity.GroupsUnknown || got.Identity.GroupsDropped {
		t.Errorf("%v: %+v", err, got.Identity)
	}
}

func TestP17_TooLargeWithoutGroupsIsAnErrorAndNoCookie(t *testing.T) {
	m := newManager(t, newClock())
	for name, change := range map[string]func(*identity.Identity){
		"name":    func(id *identity.Identity) { id.Name = strings.Repeat("n", 4000) },
		"subject": func(id *identity.Identity) { id.Subject = strings.Repeat("s", 1<<20) },
		"many org": func(id *identity.Identity) {
			id.Orgs = slices.Repeat([]identity.Org{{ID: "google:organization"}},
				300)
		},
	} {
		for _, groups := range [][]string{nil, {"a"}} {
			id := alice()
			id.Groups = groups
			change(&id)
			w := httptest.NewRecorder()
			if err := m.Write(w, testHost, m.Start(id)); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %v", name, err)
			}
			if len(w.Header()) != 0 {
				t.Errorf("%s: headers %v", name, w.Header())
			}
		}
	}
}

// mustRefuse fails unless header brings no session, by one of errs.
func mustRefuse(t *testing.T, m *Manager, header, host string, errs ...error) {
	t.Helper()
	s, err := m.Read(header, host)
	if err == nil {
		t.Errorf("a session of %s came out of %.80q", s.Identity.ID(), header)
		return
	}
	if !slices.ContainsFunc(errs, func(want error) bool { return errors.Is(err, want) }) {
		t.Errorf("%.80q: %v, want one of %v", header, err, errs)
	}
}

// authentik CVE-2026-25748: a cookie that could not be loaded was a 200.
// What Read would refuse is not written: somebody would sign in for ever.
func TestWriteRefusesWhatCannotBeReadBack(t *testing.T) {
	m := newManager(t, newClock())
	for _, id := range []identity.Identity{{Provider: "p"}, {Provider: "p", Subject: "s", Name: "\xff"}} {
		w := httptest.NewRecorder()
		if err := m.Write(w, testHost, m.Start(id)); err == nil || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("%+v was written (%v)", id, err)
		}
	}
}

func TestP01_DamagedCookieIsNobody(t *testing.T) {
	m := newManager(t, newClock())
	_, cookie := signedIn(t, m)
	name, value, _ := strings.Cut(cookie, "=")
	whole, err := base64.URLEncoding.DecodeString(value)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(value) {
		mustRefuse(t, m, name+"="+value[:i], testHost, ErrForged, ErrNone)
		mustRefuse(t, m, name+"="+value[i+1:], testHost, ErrForged, ErrNone)
		for _, bit := range []byte{1, 2, 4, 8, 16, 32, 64, 128} {
			b := []byte(value)
			b[i] ^= bit
			if b[i] == ';' || b[i] == ' ' || b[i] == '\t' {
				continue // another cookie, not another value
			}
			// Bits that base64 does not use are no part of what is sealed.
			if raw, err := base64.URLEncoding.DecodeString(string(b)); i == len(strings.TrimRight(value, "="))-1 &&
				err == nil && string(raw) == string(whole) {
				continue
			}
			mustRefuse(t, m, name+"="+string(b), testHost, ErrForged)
		}
	}
}

func TestP01_CookieThatIsNotOursIsNobody(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s, cookie := signedIn(t, m)
	name, value, _ := strings.Cut(cookie, "=")
	flow := httptest.NewRecorder()
	if _, err := m.Begin(flow, httptest.NewRequest("GET", "/", nil), Flow{}); err != nil {
		t.Fatal(err)
	}
	other := newManager(t, c, func(o *Options) { o.Keys = c.ring(7) })
	dev := newManager(t, c, func(o *Options) { o.Secure, o.Port = false, "4180" })
	dev2 := newManager(t, c, func(o *Options) { o.Secure, o.Port = false, "4181" })
	version := func(v byte) string {
		b, _ := compact{}.Serialize(&s)
		b[0] = v
		return sealRaw(t, m, testHost, b)
	}
	mac := func(v string) string { // bytes moved from one field of the MAC's input to the next: CVE-2023-35941
		raw, _ := base64.URLEncoding.DecodeString(v)
		return base64.URLEncoding.EncodeToString([]byte(strings.Replace(string(raw), "|", "", 1)))
	}
	for _, tc := range []struct {
		name, header, host string
		want               error
	}{
		{"nothing", "", testHost, ErrNone},
		{"others only", "a=1; b=2", testHost, ErrNone},
		{"empty", name + "=", testHost, ErrNone},
		{"no equals sign", name, testHost, ErrNone},
		{"blank", name + "= ", testHost, ErrNone},
		{"nameless", "=" + name + "=" + value, testHost, ErrNone},
		{"nameless without name", "=" + value, testHost, ErrNone},
		{"upper-case prefix", "__HOST-sallyport=" + value, testHost, ErrNone},
		{"lower-case prefix", "__host-sallyport=" + value, testHost, ErrNone},
		{"other case", "__Host-Sallyport=" + value, testHost, ErrNone},
		{"a blank before the equals sign", name + " =" + value, testHost, ErrNone},
		{"Unicode blank before the name", "\u2003" + cookie, testHost, ErrNone},
		{"no-break space before the name", "\xa0" + cookie, testHost, ErrNone},
		{"in another cookie's quotes", `a="` + "; " + cookie[:20] + `"`, testHost, ErrForged},
		{"quoted", name + `="` + value + `"`, testHost, ErrForged},
		{"escaped", name + "=" + strings.ReplaceAll(value, "=", "%3D") + "%20", testHost, ErrForged},
		{"something after it", cookie + "A", testHost, ErrForged},
		{"another after a comma", cookie + ", a=1", testHost, ErrForged},
		{"other cookie's name", strings.Replace(name, "__Host-", "__Secure-", 1) + "=" + value, testHost, ErrNone},
		{"the flow cookie's value", name + "=" + valueOf(flow.Header().Get("Set-Cookie")), testHost, ErrForged},
		{"another host", cookie, "other.example.com", ErrForged},
		{"a host below", cookie, "x." + testHost, ErrForged},
		{"no host", cookie, "", ErrForged},
		{"host in another case", cookie, "App.example.com", ErrForged},
		{"another key", pair(write(t, other, testHost, s)), testHost, ErrForged},
		{"a plain http instance's value", name + "=" + valueOf(write(t, dev, testHost, s)), testHost, ErrForged},
		{"a plain http instance's cookie", pair(write(t, dev, testHost, s)), testHost, ErrNone},
		{"not base64", name + "=%%%", testHost, ErrForged},
		{"JSON", name + `={"sub":"alice"}`, testHost, ErrForged},
		{"huge", name + "=" + strings.Repeat("A", 1<<20), testHost, ErrForged},
		{"above the cap", name + "=" + strings.Repeat("A", maxCookie+1), testHost, ErrForged},
		{"version 0", name + "=" + version(0), testHost, ErrForged},
		{"version 1, which was never released", name + "=" + version(1), testHost, ErrForged},
		{"version 2, which was never released", name + "=" + version(2), testHost, ErrForged},
		{"version 4", name + "=" + version(4), testHost, ErrForged},
		{"version 255", name + "=" + version(255), testHost, ErrForged},
		{"empty payload", name + "=" + sealRaw(t, m, testHost, nil), testHost, ErrForged},
		{"moved delimiter", name + "=" + mac(value), testHost, ErrForged},
		{"date in the host", cookie, testHost + "|1795338000", ErrForged},
	} {
		t.Run(tc.name, func(t *testing.T) { mustRefuse(t, m, tc.header, tc.host, tc.want) })
	}
	t.Run("dev instance of another port", func(t *testing.T) {
		mustRefuse(t, dev2, "sallyport-dev-4181="+valueOf(write(t, dev, "localhost", s)), "localhost", ErrForged)
		mustRefuse(t, dev2, pair(write(t, dev, "localhost", s)), "localhost", ErrNone)
	})
	t.Run("https instance's cookie on plain http", func(t *testing.T) {
		mustRefuse(t, dev, cookie, testHost, ErrNone)
		mustRefuse(t, dev, "sallyport-dev-4180="+value, testHost, ErrForged)
	})
}

// sealRaw seals bytes as if they were a payload.
func sealRaw(t *testing.T, m *Manager, host string, payload []byte) string {
	t.Helper()
	c := *m.codecs[0]
	v, err := c.SetSerializer(rawSerializer{}).Encode(m.boundName(host), payload)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type rawSerializer struct{}

func (rawSerializer) Serialize(src any) ([]byte, error) { return slices.Clone(src.([]byte)), nil }
func (rawSerializer) Deserialize([]byte, any) error     { return errCodec }

// A payload has one form: who could write it another way would have
// two cookies for one session.
func TestP01_PayloadInAnotherFormIsRefused(t *testing.T) {
	guid := "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
	head := func(flags byte) []byte { return append([]byte{codecVersion, flags}, make([]byte, idBytes+4)...) }
	str := func(b []byte, vs ...string) []byte {
		for _, v := range vs { // plainly: no prefix left out, no GUID packed
			b = append(binary.AppendUvarint(b, uint64(len(v))<<2), v...)
		}
		return b
	}
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	millis := func(at time.Time) []byte { return binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))[2:] }
	times := cat(millis(time.Unix(1, 0)), make([]byte, 5*3))
	year9999 := millis(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))
	rest := []byte{0, 0, 0, 0, 0, 0, 0} // e-mail, name, username, acr, sid, orgs, groups
	plain := cat(head(0), times, str(nil, "p", "s"), rest)
	if err := (compact{}).Deserialize(plain, new(Session)); err != nil {
		t.Fatalf("the plain form: %v", err)
	}
	for name, b := range map[string][]byte{
		"long number": cat(head(flagHasAuthTime), times, []byte{0x81, 0x00}, str(nil, "p", "s"), rest),
		"long length": cat(head(0), times, []byte{0x84, 0x00, 'p'}, str(nil, "s"), rest),
		"number without an end": cat(head(flagHasAuthTime), times,
			[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
		"a time before 1970": cat(head(flagHasAuthTime), times,
			[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, str(nil, "p", "s"), rest),
		"the year 10000": cat(head(0), year9999, []byte{0, 0, 0, 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			str(nil, "p", "s"), rest),
		"until the year 10000": cat(head(0), year9999, []byte{2, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			str(nil, "p", "s"), rest),
		"begun in the year 10889": cat(head(0), bytes.Repeat([]byte{0xff}, 6), make([]byte, 4*3), str(nil, "p", "s"),
			rest),
		"something after it": cat(plain, []byte{0}),
		"unknown flag":       cat(head(flagsKnown+1), times, str(nil, "p", "s"), rest),
		"dropped, yet known": cat(head(flagGroupsDropped), times, str(nil, "p", "s"), rest),
		"empty organization": cat(head(flagHasOrg), times, str(nil, "p", "s"), make([]byte, 5), make([]byte, 4),
			[]byte{0, 0}),
		"a digest of nothing":    cat(head(flagGroupsKept), times, make([]byte, 8), str(nil, "p", "s"), rest),
		"a digest cut short":     cat(head(flagGroupsKept), times, make([]byte, 7)),
		"GUID written out":       cat(head(0), times, str(nil, "p", guid), rest),
		"prefix written out":     cat(head(0), times, str(nil, "p", "p:s"), rest),
		"prefix on the provider": cat(head(0), times, []byte{1<<2 | tagPrefix, 'p'}, str(nil, "s"), rest),
		"GUID of another length": cat(head(0), times, str(nil, "p"), []byte{4 | tagGUID}, make([]byte, 16), rest),
		"GUID cut short":         cat(head(0), times, str(nil, "p"), []byte{tagGUID}, make([]byte, 5)),
		"no subject":             cat(head(0), times, str(nil, "p", ""), rest),
		"broken UTF-8":           cat(head(0), times, str(nil, "p", "s\xff"), rest),
		"more groups than bytes": cat(head(0), times, str(nil, "p", "s"), rest[:6], []byte{200, 1}),
		"2^64 groups": cat(head(0), times, str(nil, "p", "s"), rest[:6],
			[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}),
		"2^62 bytes of name": cat(head(0), times, str(nil, "p", "s"),
			[]byte{0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}),
		"other version": cat([]byte{codecVersion + 1}, plain[1:]),
		"version 1":     cat([]byte{1}, head(0)[1:18], []byte{1, 0}, str(nil, "p", "s"), rest),
		"version 2":     cat([]byte{2}, head(0)[1:18], times, str(nil, "p", "s"), rest),
	} {
		var s Session
		if err := (compact{}).Deserialize(b, &s); err == nil || !reflect.DeepEqual(s, Session{}) {
			t.Errorf("%s: %v, %+v", name, err, s)
		}
	}
	for i := range plain {
		if err := (compact{}).Deserialize(plain[:i], new(Session)); err == nil {
			t.Errorf("cut after %d bytes, it is read", i)
		}
	}
	if err := (compact{}).Deserialize(plain, new(string)); err == nil {
		t.Error("reads into anything")
	}
}

// Cookie tossing: a neighbour plants a second cookie of our name, or one whose
// prefix only looks different to us (RFC 6265bis §8.6).
func TestP09_PlantedSecondCookieMeansNobody(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	_, cookie := signedIn(t, m)
	mallory := alice()
	mallory.Subject = "mallory"
	evil := pair(write(t, m, testHost, m.Start(mallory)))
	for _, header := range []string{
		cookie + "; " + cookie,
		cookie + "; " + evil,
		evil + "; " + cookie,
		cookie + ";" + evil,
		"a=1; " + evil + ";\t" + cookie + "; b=2",
		"__HOST-sallyport=" + valueOf(evil) + "; " + cookie,
		cookie + "; __host-SALLYPORT=" + valueOf(evil),
		cookie + "; __Host-sallyport=",
		cookie + "; __host-sallyport=x",
	} {
		mustRefuse(t, m, header, testHost, ErrTwice)
	}
	// These do not count as ours, and must not win over ours either.
	for _, odd := range []string{"=" + evil, "==" + evil, evil[:16], "x" + evil, "__Host-sallyport-flow=" +
		valueOf(evil), "$Version=1; $" + evil, `q="` + evil + `"`} {
		for _, header := range []string{odd + "; " + cookie, cookie + "; " + odd} {
			s, err := m.Read(header, testHost)
			if err != nil || s.Identity.Subject != alice().Subject {
				t.Errorf("%.60q: %v %v", header, s.Identity.ID(), err)
			}
		}
	}
}

// The cookie of another Sallyport, for a domain above or below, or of the domain that was
// configured before, comes along with ours. It opens nothing here, and does not keep ours
// from doing so.
func TestP09_ACookieOfAnotherDomainDoesNotHideOurs(t *testing.T) {
	c := newClock()
	key := c.ring(5)
	of := func(domain string, keys Keyring) *Manager {
		return newManager(t, c, func(o *Options) { o.Domain, o.Keys = domain, keys })
	}
	const host = "app.staging.example.com"
	m, before, above := of("staging.example.com", key), of("example.com", key), of("example.com", c.ring(9))
	cookie := func(m *Manager, subject string) string {
		who := alice()
		who.Subject = subject
		w := httptest.NewRecorder()
		if err := m.Write(w, host, m.Start(who)); err != nil {
			t.Fatal(err)
		}
		return pair(w.Header().Get("Set-Cookie"))
	}
	ours, old, theirs, evil := cookie(m, "ours"), cookie(before, "old"), cookie(above, "theirs"), cookie(m, "evil")
	for _, header := range []string{ours + "; " + old, theirs + "; " + ours, old + "; a=1; " + ours + ";" + theirs,
		ours + "; __Secure-sallyport=", ours + "; __Secure-sallyport=" + strings.Repeat("x", 5000)} {
		s, err := m.Read(header, host)
		if err != nil || s.Identity.Subject != "ours" {
			t.Errorf("%.300q: %s %v", header, s.Identity.ID(), err)
		}
	}
	if s, err := above.Read(ours+"; "+theirs, host); err != nil || s.Identity.Subject != "theirs" {
		t.Errorf("the other one reads %s, %v", s.Identity.ID(), err)
	}
	for _, header := range []string{ours + "; " + evil, evil + "; " + old + "; " + ours, ours + "; " + ours,
		old + "; " + theirs, ours + "; __secure-sallyport=x", "__SECURE-sallyport=" + valueOf(evil) + "; " + ours,
		ours + strings.Repeat("; __Secure-sallyport=x", maxTwins)} {
		mustRefuse(t, m, header, host, ErrTwice)
	}
	c.Advance(2 * time.Hour)
	mustRefuse(t, m, ours+"; "+old, host, ErrExpired)
}

func TestP01_RetiredKeyOpensNothing(t *testing.T) {
	c := newClock()
	before := newManager(t, c, func(o *Options) { o.Keys = c.ring(5) })
	overlap := newManager(t, c, func(o *Options) { o.Keys = c.ring(5, 2) })
	after := newManager(t, c, func(o *Options) { o.Keys = c.ring(2) })
	_, old := signedIn(t, before)
	_, fresh := signedIn(t, overlap)
	if _, err := overlap.Read(old, testHost); err != nil {
		t.Errorf("during the overlap: %v", err)
	}
	if _, err := after.Read(fresh, testHost); err != nil {
		t.Errorf("the newer key did not sign: %v", err)
	}
	mustRefuse(t, after, old, testHost, ErrForged)
	mustRefuse(t, before, fresh, testHost, ErrForged)
}

func TestP11_TimeoutsEndASession(t *testing.T) {
	for _, tc := range []struct {
		name           string
		absolute, idle time.Duration
		renewEvery     time.Duration // 0: never
		lasts          time.Duration
	}{
		{"idle", 12 * time.Hour, time.Hour, 0, time.Hour},
		{"absolute, used all the time", 12 * time.Hour, time.Hour, 30 * time.Minute, 12 * time.Hour},
		{"idle longer than absolute", time.Hour, 12 * time.Hour, 0, time.Hour},
		{"last renewal before the absolute end", 90 * time.Minute, time.Hour, 50 * time.Minute, 90 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock()
			m := newManager(t, c, func(o *Options) { o.AbsoluteTimeout, o.IdleTimeout = tc.absolute, tc.idle })
			_, cookie := signedIn(t, m)
			start := c.Now()
			for c.Now().Sub(start) < tc.lasts-time.Second {
				step := tc.lasts - time.Second - c.Now().Sub(start)
				if tc.renewEvery > 0 {
					step = min(step, tc.renewEvery)
				}
				c.Advance(step)
				s, err := m.Read(cookie, testHost)
				if err != nil {
					t.Fatalf("after %v: %v", c.Now().Sub(start), err)
				}
				if want := start.Add(tc.absolute); !s.Expires.Equal(want) || s.IdleExpires.After(want) {
					t.Fatalf("expires %v, idle %v, want %v", s.Expires, s.IdleExpires, want)
				}
				if s, ok := m.Renew(s); ok && tc.renewEvery > 0 {
					cookie = pair(write(t, m, testHost, s))
				}
			}
			c.Advance(time.Second)
			mustRefuse(t, m, cookie, testHost, ErrExpired)
			c.Advance(100 * 365 * 24 * time.Hour)
			mustRefuse(t, m, cookie, testHost, ErrExpired)
		})
	}
}

func TestRenewalIsWorthACookieAfterATenthOfTheIdleTime(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(alice())
	c.Advance(6*time.Minute - time.Second)
	if same, ok := m.Renew(s); ok || !reflect.DeepEqual(same, s) {
		t.Error("renewed too early")
	}
	c.Advance(time.Second)
	r, ok := m.Renew(s)
	if !ok || !r.Seen.Equal(c.Now()) || !r.IdleExpires.Equal(c.Now().Add(time.Hour)) {
		t.Errorf("not renewed: %v %+v", ok, r)
	}
	if r.ID != s.ID || !r.SignedIn.Equal(s.SignedIn) || !r.Expires.Equal(s.Expires) {
		t.Error("renewal changed more than the idle timeout")
	}
	c.Advance(-time.Hour)
	if _, ok := m.Renew(r); ok {
		t.Error("renewed backwards")
	}
}

// Whatever the clock does, no session outlives its timeouts, counted from what the
// clock said at the sign-in.
func TestP11_ClockThatStepsLengthensNoSession(t *testing.T) {
	t.Run("forward", func(t *testing.T) {
		c := newClock()
		m := newManager(t, c)
		_, cookie := signedIn(t, m)
		c.Advance(13 * time.Hour)
		mustRefuse(t, m, cookie, testHost, ErrExpired)
	})
	t.Run("back", func(t *testing.T) {
		c := newClock()
		m := newManager(t, c)
		_, cookie := signedIn(t, m)
		c.Advance(-time.Minute) // two replicas may differ by that
		if _, err := m.Read(cookie, testHost); err != nil {
			t.Errorf("one minute back: %v", err)
		}
		c.Advance(-time.Second)
		mustRefuse(t, m, cookie, testHost, ErrExpired)
		c.Advance(-time.Hour)
		mustRefuse(t, m, cookie, testHost, ErrExpired)
	})
	t.Run("forward, renewed, and back", func(t *testing.T) {
		c := newClock()
		m := newManager(t, c)
		s, _ := signedIn(t, m)
		c.Advance(45 * time.Minute) // a wrong clock
		s, ok := m.Renew(s)
		if !ok {
			t.Fatal("not renewed")
		}
		cookie := pair(write(t, m, testHost, s))
		c.Advance(-40 * time.Minute)
		mustRefuse(t, m, cookie, testHost, ErrExpired)
	})
}

// Times that do not fit a calendar are nobody's.
func TestP01_ImpossibleTimesAreNobody(t *testing.T) {
	m := newManager(t, newClock())
	for _, s := range []Session{
		{SignedIn: time.Unix(-1, 0), Seen: time.Unix(-1, 0)},
		{SignedIn: time.Unix(1<<62, 0), Seen: time.Unix(1<<62, 0)},
		{SignedIn: m.now(), Seen: m.now().Add(-time.Hour)},
		{SignedIn: m.now(), Seen: time.Unix(1<<60, 0)},
		{SignedIn: time.Unix(0, 0), Seen: time.Unix(0, 0)},
	} {
		s.Root, s.Identity = m.Start(alice()).Root, alice()
		payload, err := compact{}.Serialize(&s)
		if err != nil {
			continue // it cannot even be written
		}
		mustRefuse(t, m, "__Host-sallyport="+sealRaw(t, m, testHost, payload), testHost, ErrForged, ErrExpired)
	}
	m.now = func() time.Time { return time.Date(2039, 1, 1, 0, 0, 0, 0, time.UTC) } // past 2^31 seconds
	if _, cookie := signedIn(t, m); cookie != "" {
		if _, err := m.Read(cookie, testHost); err != nil {
			t.Errorf("in 2039: %v", err)
		}
	}
}

// caddy-security CVE-2024-21492: the cookie of before the sign-out still worked.
func TestP10_SignOutEndsTheSessionInThisProcess(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s, cookie := signedIn(t, m)
	other, otherCookie := signedIn(t, m)
	w := httptest.NewRecorder()
	m.SignOut(context.Background(), w, s)
	if got := w.Header().Get("Set-Cookie"); !strings.HasPrefix(got, "__Host-sallyport=;") ||
		!strings.Contains(got, "Max-Age=0") || !strings.Contains(got, "; Secure") {
		t.Errorf("not taken from the browser: %q", got)
	}
	mustRefuse(t, m, cookie, testHost, ErrEnded)
	renewed := s
	renewed.Seen = c.Now().Add(time.Second)
	mustRefuse(t, m, pair(write(t, m, testHost, renewed)), testHost, ErrEnded) // a renewal that raced it
	if got, err := m.Read(otherCookie, testHost); err != nil || got.ID != other.ID {
		t.Errorf("the other session of the same person: %v", err)
	}
}

// isKept reports whether the cookie in a "name=value" pair is kept open.
func isKept(m *Manager, pair, host string) bool {
	_, value, _ := strings.Cut(pair, "=")
	_, ok := m.opened.Get(cookieOf{host, value})
	return ok
}

// A cookie that was opened once is judged anew at every request: it is only not
// opened again.
func TestP11_CookieThatIsKeptOpenIsJudgedAtEveryRead(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(c *clock, m *Manager, s Session)
		host string
		want error
	}{
		{"idle", func(c *clock, _ *Manager, _ Session) { c.Advance(time.Hour) }, testHost, ErrExpired},
		{"long over", func(c *clock, _ *Manager, _ Session) { c.Advance(24 * time.Hour) }, testHost, ErrExpired},
		{"a clock that steps back", func(c *clock, _ *Manager, _ Session) { c.Advance(-2 * time.Minute) }, testHost,
			ErrExpired},
		{"ended", func(_ *clock, m *Manager, s Session) { m.SignOut(context.Background(), httptest.NewRecorder(), s) },
			testHost, ErrEnded},
		{"another host", func(*clock, *Manager, Session) {}, "other.example.com", ErrForged},
		{"no host", func(*clock, *Manager, Session) {}, "", ErrForged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClock()
			m := newManager(t, c)
			s, cookie := signedIn(t, m)
			for range 3 {
				if got, err := m.Read(cookie, testHost); err != nil || !reflect.DeepEqual(got, s) {
					t.Fatalf("%v: %+v", err, got)
				}
			}
			if !isKept(m, cookie, testHost) {
				t.Fatal("not kept open")
			}
			tc.then(c, m, s)
			mustRefuse(t, m, cookie, tc.host, tc.want)
			mustRefuse(t, m, cookie+"; "+cookie, testHost, ErrTwice)
			_, value, _ := strings.Cut(cookie, "=")
			mustRefuse(t, m, m.cookie+"="+value[:len(value)-1], testHost, ErrForged)
		})
	}
}

// What a stranger sends takes no room from those who are signed in, and neither
// does a session that is over.
func TestP17_OnlyLiveSessionsAreKeptOpen(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s, cookie := signedIn(t, m)
	other := newManager(t, c, func(o *Options) { o.Keys = c.ring(7) })
	stranger := pair(write(t, other, testHost, s))
	mustRefuse(t, m, stranger, testHost, ErrForged)
	mustRefuse(t, m, cookie, "other.example.com", ErrForged)
	_, gone := signedIn(t, m)
	c.Advance(time.Hour)
	mustRefuse(t, m, gone, testHost, ErrExpired)
	out, ended := signedIn(t, m)
	m.SignOut(context.Background(), httptest.NewRecorder(), out)
	mustRefuse(t, m, ended, testHost, ErrEnded)
	for name, kept := range map[string]bool{
		"forged": isKept(m, stranger, testHost), "of another host": isKept(m, cookie, "other.example.com"),
		"expired": isKept(m, gone, testHost), "ended": isKept(m, ended, testHost),
	} {
		if kept {
			t.Errorf("%s, and kept", name)
		}
	}
}

// Two requests of one person share what the cookie held. What one of them adds
// must not show up in the other.
func TestReadersOfOneCookieDoNotDisturbEachOther(t *testing.T) {
	m := newManager(t, newClock())
	id := alice()
	id.Groups = groupsOf(5, "team-%d")
	id.Orgs = []identity.Org{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	cookie := pair(write(t, m, testHost, m.Start(id)))
	var read [3]Session
	for i := range read {
		var err error
		if read[i], err = m.Read(cookie, testHost); err != nil {
			t.Fatal(err)
		}
		mine := &read[i].Identity
		mine.Groups = append(mine.Groups, fmt.Sprint(i))
		mine.Orgs = append(mine.Orgs, identity.Org{ID: fmt.Sprint(i)})
		mine.Name, mine.GroupsUnknown = "changed", true
	}
	for i, s := range read {
		if s.Identity.Groups[5] != fmt.Sprint(i) || s.Identity.Orgs[3].ID != fmt.Sprint(i) {
			t.Errorf("reader %d has %q and %v", i, s.Identity.Groups, s.Identity.Orgs)
		}
	}
	if s, err := m.Read(cookie, testHost); err != nil || !reflect.DeepEqual(s.Identity, id) {
		t.Errorf("%v: the next one reads %+v", err, s.Identity)
	}
}

// However many sign in and whatever their providers call them: what is kept open
// stays within the stated bytes.
func TestP17_CookiesThatAreKeptOpenAreBounded(t *testing.T) {
	guid := "6f9619ff-8b86-d011-b42d-00cf4fc9%04x"
	for _, tc := range []struct {
		name   string
		many   int
		change func(*identity.Identity)
	}{
		{"the usual person", 25_000, func(*identity.Identity) {}},
		{"groups that are GUIDs", 6000, func(id *identity.Identity) { id.Groups = groupsOf(100, guid) }},
		{"groups without a name", 3000, func(id *identity.Identity) { id.Groups = make([]string, 1800) }},
		{"groups with the provider's name alone", 3000,
			func(id *identity.Identity) { id.Groups = slices.Repeat([]string{"google:"}, 1800) }},
		{"organizations without a name", 3000, func(id *identity.Identity) { id.Orgs = make([]identity.Org, 400) }},
		{"a long name", 12_000, func(id *identity.Identity) { id.Name = strings.Repeat("n", 1900) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, newClock())
			id := alice()
			tc.change(&id)
			s := m.Start(id)
			large := strings.Repeat("x", 30<<10)
			before := heap()
			for range tc.many {
				value, err := m.seal(testHost, s)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.Read("a="+large+"; "+m.cookie+"="+value, testHost); err != nil {
					t.Fatal(err)
				}
			}
			grown := heap() - before
			t.Logf("%d KiB", grown>>10)
			if grown > openedBytes*5/4 {
				t.Errorf("%d bytes are kept, and %d are stated", grown, openedBytes)
			}
			if grown < openedBytes/4 {
				t.Errorf("only %d bytes are kept", grown)
			}
			runtime.KeepAlive(m)
		})
	}
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestReadOfAKnownCookieAllocatesNothing(t *testing.T) {
	m := newManager(t, newClock())
	_, cookie := signedIn(t, m)
	header := "theme=dark; " + cookie + "; a=1"
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.Read(header, testHost); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReservedCookieNames(t *testing.T) {
	for name, want := range map[string]bool{
		"__Host-sallyport": true, "__HOST-SALLYPORT": true, "__host-sallyport-flow": true, "__Host-sallyportx": true,
		"__Secure-sallyport": true, "__secure-Sallyport-x": true,
		"sallyport-dev-4180": true, "Sallyport-Dev-1": true, "sallyport-dev-": true, "SALLYPORT-DEV-4180-FLOW": true,
		"": false, "sallyport": false, "sallyport-dev": false, "__Host-sallypor": false, "__Host_sallyport": false,
		"x__Host-sallyport": false,
		"__Host-session":    false, "__Secure-": false, "session": false,
	} {
		if got := ReservedCookie(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// Our cookies stay here, all others stay as they are.
func TestP09_AppNeverSeesOurCookies(t *testing.T) {
	const own, flow = "__Host-sallyport=S", "__Host-sallyport-flow=F"
	for _, tc := range []struct {
		name     string
		in, want []string
	}{
		{"none", nil, nil},
		{"others only", []string{"a=1; b=2"}, []string{"a=1; b=2"}},
		{"odd others only", []string{" ;;a==1;  b ; =c;\t"}, []string{" ;;a==1;  b ; =c;\t"}},
		{"ours only", []string{own}, nil},
		{"ours only, both", []string{own + "; " + flow}, nil},
		{"first", []string{own + "; a=1; b=2"}, []string{"a=1; b=2"}},
		{"middle", []string{"a=1; " + own + "; b=2"}, []string{"a=1; b=2"}},
		{"last", []string{"a=1; b=2; " + own}, []string{"a=1; b=2"}},
		{"without blanks", []string{"a=1;" + own + ";b=2"}, []string{"a=1;b=2"}},
		{"many lines", []string{"a=1", own, "b=2; " + flow, "c=3"}, []string{"a=1", "b=2", "c=3"}},
		{"other case", []string{"a=1; __HOST-SALLYPORT=S; __host-sallyport-FLOW=F"}, []string{"a=1"}},
		{"plain http's", []string{"sallyport-dev-4180=S; a=1; sallyport-dev-4180-flow=F"}, []string{"a=1"}},
		{"the domain-wide one", []string{"__Secure-sallyport=S; a=1"}, []string{"a=1"}},
		{"twice", []string{own + "; a=1; " + own}, []string{"a=1"}},
		{"nameless", []string{"=" + own + "; a=1"}, []string{"a=1"}},
		{"nameless twice", []string{"==" + own + "; a=1"}, []string{"a=1"}},
		{"nameless with blanks", []string{" = " + own + "; a=1"}, []string{"a=1"}},
		{"without a value", []string{"a=1; __Host-sallyport"}, []string{"a=1"}},
		{"blank before the equals sign", []string{"a=1; __Host-sallyport =S"}, []string{"a=1"}},
		{"tab before the name", []string{"a=1;\t" + own}, []string{"a=1"}},
		{"in somebody's quotes", []string{`a="x; ` + own + `; y"; b=2`}, []string{`a="x; y"; b=2`}},
		{"the value of another", []string{"a=" + own + "; b=" + own}, []string{"a=" + own + "; b=" + own}},
		{"odd others kept", []string{`a="q;"; ` + own + `; b=é%00; =v; novalue; c=1=2; ; d="`},
			[]string{`a="q;"; b=é%00; =v; novalue; c=1=2; ; d="`}},
		{"JSON and commas", []string{own + `; p={"a":1,"b":[2]}; q=x, y`}, []string{`p={"a":1,"b":[2]}; q=x, y`}},
		{"similar names kept", []string{"sallyport=1; " + own + "; x__Host-sallyport=2; __Host-session=3"},
			[]string{"sallyport=1; x__Host-sallyport=2; __Host-session=3"}},
		{"empty parts", []string{";" + own + ";"}, []string{";"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := slices.Clone(tc.in)
			got := StripCookies(in)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if !slices.Equal(in, tc.in) {
				t.Errorf("the input was changed to %q", in)
			}
		})
	}
}

func TestNewRefusesWhatCannotBeSafe(t *testing.T) {
	c := newClock()
	for name, o := range map[string]Options{
		"no keys":     {AbsoluteTimeout: time.Hour, IdleTimeout: time.Hour},
		"no absolute": {Keys: c.ring(1), IdleTimeout: time.Hour},
		"no idle":     {Keys: c.ring(1), AbsoluteTimeout: time.Hour},
		"negative":    {Keys: c.ring(1), AbsoluteTimeout: -1, IdleTimeout: time.Hour},
	} {
		if _, err := New(o); err == nil {
			t.Error(name)
		}
	}
	m, err := New(Options{Keys: c.ring(1), AbsoluteTimeout: time.Hour, IdleTimeout: time.Hour})
	if err != nil || m.now == nil {
		t.Errorf("the clock is not optional: %v", err)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{0, 20} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			m := newManager(b, newClock())
			id := alice()
			id.Groups = groupsOf(n, "team-%07d")
			header := "theme=dark; " + pair(write(b, m, testHost, m.Start(id)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Read(header, testHost); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReadFirst is the request that opens the cookie.
func BenchmarkReadFirst(b *testing.B) {
	for _, n := range []int{0, 20} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			m := newManager(b, newClock())
			m.opened = recent.New[cookieOf, *Session](0) // keeps nothing
			id := alice()
			id.Groups = groupsOf(n, "team-%07d")
			header := "theme=dark; " + pair(write(b, m, testHost, m.Start(id)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Read(header, testHost); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The usual request: our cookie and two of the app's.
var usualCookies = []string{"theme=dark; __Host-sallyport=" + strings.Repeat("A", 600) +
	"; _ga=GA1.2.1234567890.1700000000"}

func TestTakingOurCookieOutAllocatesTwiceAtMost(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if len(StripCookies(usualCookies)) != 1 {
			t.Error("all cookies are gone")
		}
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStripCookies(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if len(StripCookies(usualCookies)) != 1 {
			b.Fatal("all cookies are gone")
		}
	}
}

func BenchmarkReadParallel(b *testing.B) {
	m := newManager(b, newClock())
	header := "theme=dark; " + pair(write(b, m, testHost, m.Start(alice())))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := m.Read(header, testHost); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// An answer on its way when somebody signs out must not bring the cookie back.
func TestP10_AnEndedSessionIsNotRenewed(t *testing.T) {
	c := newClock()
	m := newManager(t, c)
	s := m.Start(identity.Identity{Provider: "p", Subject: "s"})
	c.Advance(30 * time.Minute)
	if _, due := m.Renew(s); !due {
		t.Fatal("a renewal was due")
	}
	m.SignOut(context.Background(), httptest.NewRecorder(), s)
	if _, due := m.Renew(s); due {
		t.Error("an ended session is renewed")
	}
}
