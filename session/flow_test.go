package session

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// browser keeps the flow cookie as a browser does.
type browser struct {
	t       testing.TB
	m       *Manager
	trips   *Trips   // nil: none was used up yet
	cookies []string // "name=value"
	set     int      // Set-Cookie lines so far
}

func (b *browser) request() *http.Request {
	r := httptest.NewRequest("GET", "https://"+testHost+"/", nil)
	r.Header["Cookie"] = append([]string(nil), b.cookies...)
	return r
}

func (b *browser) begin(f Flow) identity.Handshake {
	b.t.Helper()
	w := httptest.NewRecorder()
	h, err := b.m.Begin(w, b.request(), f)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range w.Header()["Set-Cookie"] {
		b.cookies, b.set = []string{pair(line)}, b.set+1
	}
	return h
}

func (b *browser) end(state string) (Flow, identity.Handshake, error) {
	trip, err := b.m.Return(b.request(), state)
	if err != nil {
		return trip.Flow, trip.Handshake, err
	}
	if b.trips == nil {
		b.trips = NewTrips()
	}
	if err := b.trips.Use(trip); err != nil {
		return trip.Flow, identity.Handshake{}, err
	}
	return trip.Flow, trip.Handshake, nil
}

var aFlow = Flow{Purpose: "login", Provider: "google", ReturnTo: "/deep/link?x=1#y", Restarts: 2,
	Detail: "\x00root\xff"}

func TestP06_SignInEndsInTheBrowserThatBeganIt(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	h := b.begin(aFlow)
	f, got, err := b.end(h.State)
	if err != nil {
		t.Fatal(err)
	}
	if f != aFlow {
		t.Errorf("flow %+v", f)
	}
	if got != h {
		t.Errorf("handshake %+v, began with %+v", got, h)
	}
}

// Login CSRF (RFC 9700 §4.7): the attacker's complete callback URL, opened in the
// victim's browser.
func TestP06_CallbackOfAnotherBrowserSignsNobodyIn(t *testing.T) {
	m := newManager(t, newClock())
	attacker, victim := &browser{t: t, m: m}, &browser{t: t, trips: NewTrips(), m: m}
	h := attacker.begin(aFlow)

	f, got, err := victim.end(h.State)
	if !errors.Is(err, ErrNoFlow) || got != (identity.Handshake{}) || f != (Flow{}) {
		t.Errorf("without a flow cookie: %v %+v", err, f)
	}
	victim.begin(Flow{Purpose: "login", Provider: "google", ReturnTo: "/mine"})
	f, got, err = victim.end(h.State)
	if !errors.Is(err, ErrOtherBrowser) || got != (identity.Handshake{}) {
		t.Errorf("with one of their own: %v", err)
	}
	if f.ReturnTo != aFlow.ReturnTo || f.Restarts != aFlow.Restarts {
		t.Errorf("cannot start afresh from %+v", f)
	}
	if _, _, err := attacker.end(h.State); err != nil {
		t.Errorf("the victim's tries consumed the flow: %v", err)
	}
}

func TestP06_FlowEndsOnce(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	h := b.begin(aFlow)
	if _, _, err := b.end(h.State); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f, got, err := b.end(h.State)
		if !errors.Is(err, ErrConsumed) || got != (identity.Handshake{}) || f.ReturnTo != aFlow.ReturnTo {
			t.Errorf("again: %v %+v %+v", err, f, got)
		}
	}
}

func TestP06_FlowIsLateAfterTenMinutes(t *testing.T) {
	c := newClock()
	b := &browser{t: t, m: newManager(t, c)}
	early, late := b.begin(aFlow), b.begin(aFlow)
	c.Advance(10*time.Minute - time.Second)
	if _, _, err := b.end(early.State); err != nil {
		t.Error(err)
	}
	c.Advance(time.Second)
	f, got, err := b.end(late.State)
	if !errors.Is(err, ErrLate) || got != (identity.Handshake{}) || f.ReturnTo != aFlow.ReturnTo {
		t.Errorf("%v %+v", err, f)
	}
}

// A cookie for each tab would end in a header that no server accepts
// (oauth2-proxy #2615).
func TestP06_ThirtyTabsShareOneCookieAndAllArrive(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	var hs []identity.Handshake
	cookie := ""
	for i := range 30 {
		hs = append(hs, b.begin(Flow{Purpose: "login", Provider: "google", ReturnTo: fmt.Sprint("/tab/", i)}))
		if cookie != "" && b.cookies[0] != cookie {
			t.Fatal("another cookie")
		}
		cookie = b.cookies[0]
	}
	if b.set != 1 { // sent again, it would undo what another tab has just agreed on
		t.Errorf("the cookie was set %d times", b.set)
	}
	if len(cookie) > 100 {
		t.Errorf("the cookie has %d bytes", len(cookie))
	}
	for _, i := range rand.Perm(30) {
		f, h, err := b.end(hs[i].State)
		if err != nil || h != hs[i] || f.ReturnTo != fmt.Sprint("/tab/", i) {
			t.Errorf("tab %d: %v %+v", i, err, f)
		}
	}
}

// RFC 7636 §4.1: 43 to 128 characters, unreserved, at least 256 bits.
func validVerifier(v string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(v)
	return len(v) >= 43 && len(v) <= 128 && err == nil && len(raw) >= 32 &&
		strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") == ""
}

// Envoy's state was a timestamp (Envoy #35232, #36276). RFC 9700 §2.1.1 wants
// values that belong to one transaction.
func TestP06_StatesNoncesAndVerifiersAreNeverTheSame(t *testing.T) {
	m := newManager(t, newClock()) // the clock stands still
	one := &browser{t: t, m: m}
	seen := map[string]bool{}
	for i := range 1000 {
		b := one
		if i%2 == 0 {
			b = &browser{t: t, m: m}
		}
		h := b.begin(aFlow)
		for _, v := range []string{h.State, h.Nonce, h.Verifier} {
			if seen[v] {
				t.Fatalf("twice: %q", v)
			}
			seen[v] = true
		}
		if !validVerifier(h.Verifier) {
			t.Fatalf("verifier %q", h.Verifier)
		}
		if len(h.Nonce) < 22 {
			t.Fatalf("nonce %q", h.Nonce)
		}
		if strings.Contains(h.State, h.Nonce) || strings.Contains(h.State, h.Verifier) {
			t.Fatal("the state tells a secret")
		}
	}
}

// What a provider, a log or a Referer sees is the state alone. It must tell
// nothing, and two managers with different keys must not agree on secrets.
func TestP06_StateTellsNothing(t *testing.T) {
	c := newClock()
	b := &browser{t: t, m: newManager(t, c)}
	h := b.begin(Flow{Purpose: "login", Provider: "google", ReturnTo: "/secret-page"})
	raw, err := base64.RawURLEncoding.DecodeString(h.State)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.RawURLEncoding.DecodeString(strings.SplitN(b.cookies[0], "=", 2)[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"secret-page", "google", "login", string(secret), string(secret[:16])} {
		if strings.Contains(string(raw), s) {
			t.Errorf("the state tells %q", s)
		}
	}
	if strings.Contains(b.cookies[0], h.Nonce) || strings.Contains(b.cookies[0], h.Verifier) {
		t.Error("the cookie alone tells a secret")
	}
}

func TestP06_KeyRotationLosesNoSignIn(t *testing.T) {
	c := newClock()
	before := newManager(t, c, func(o *Options) { o.Keys = c.ring(5) })
	overlap := newManager(t, c, func(o *Options) { o.Keys = c.ring(5, 2) })
	after := newManager(t, c, func(o *Options) { o.Keys = c.ring(2) })
	b := &browser{t: t, m: before}
	h := b.begin(aFlow)

	b.m = after
	if _, _, err := b.end(h.State); !errors.Is(err, ErrNoFlow) {
		t.Errorf("with the key retired: %v", err)
	}
	b.m = overlap
	f, got, err := b.end(h.State)
	if err != nil || got != h || f != aFlow {
		t.Errorf("with the key still there: %v", err)
	}
	// The cookie, which no key sealed, goes on being the browser's.
	h2 := b.begin(aFlow)
	b.m = after
	if _, got, err := b.end(h2.State); err != nil || got != h2 {
		t.Errorf("the newer key did not sign: %v", err)
	}
}

func TestP06_TamperedStateIsNone(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	h := b.begin(aFlow)
	other := b.begin(aFlow)
	refuse := func(state string) {
		t.Helper()
		if state == h.State || state == other.State {
			return
		}
		f, got, err := b.end(state)
		if !errors.Is(err, ErrNoFlow) || got != (identity.Handshake{}) || f != (Flow{}) {
			t.Errorf("%.40q…: %v %+v", state, err, f)
		}
	}
	for i := range len(h.State) {
		for bit := range 8 {
			s := []byte(h.State)
			s[i] ^= 1 << bit
			refuse(string(s))
		}
		refuse(h.State[:i])
		refuse(h.State[i+1:])
		refuse(h.State[:i] + other.State[i:])
		refuse(h.State[:i] + "\n" + h.State[i:])
	}
	for _, s := range []string{"", "login", h.State + "=", h.State + "A", h.State + "AAAA", h.State + h.State,
		" " + h.State,
		strings.Repeat("A", 3000), strings.Repeat("A", 1<<20), h.Nonce, h.Verifier, "1795338000", "null"} {
		refuse(s)
	}
	if _, _, err := b.end(h.State); err != nil {
		t.Errorf("the true one after all that: %v", err)
	}
}

func TestP06_FlowCookieMustBeTheOne(t *testing.T) {
	m := newManager(t, newClock())
	b := &browser{t: t, m: m}
	h := b.begin(aFlow)
	own := b.cookies[0]
	name, value, _ := strings.Cut(own, "=")
	other := &browser{t: t, m: m}
	other.begin(aFlow)
	_, session := signedIn(t, m)
	for what, tc := range map[string]struct {
		cookies []string
		want    error
	}{
		"planted after":     {[]string{own + "; " + other.cookies[0]}, ErrNoFlow},
		"planted before":    {[]string{other.cookies[0] + "; " + own}, ErrNoFlow},
		"planted, own line": {[]string{other.cookies[0], own}, ErrNoFlow},
		"same twice":        {[]string{own + "; " + own}, ErrNoFlow},
		"other case":        {[]string{strings.ToUpper(name) + "=" + value}, ErrNoFlow},
		"nameless":          {[]string{"=" + own}, ErrNoFlow},
		"empty":             {[]string{name + "="}, ErrNoFlow},
		"short":             {[]string{own[:len(own)-1]}, ErrNoFlow},
		"long":              {[]string{own + "A"}, ErrNoFlow},
		"padded":            {[]string{own + "="}, ErrNoFlow},
		"session's value":   {[]string{name + "=" + valueOf(session)}, ErrNoFlow},
		"zeros":             {[]string{name + "=" + strings.Repeat("A", 43)}, ErrOtherBrowser},
		"somebody else's":   {other.cookies, ErrOtherBrowser},
	} {
		b.cookies = tc.cookies
		if _, got, err := b.end(h.State); !errors.Is(err, tc.want) || got != (identity.Handshake{}) {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.cookies = []string{"a=1; " + own, "b=2"}
	if _, _, err := b.end(h.State); err != nil {
		t.Errorf("among others: %v", err)
	}
}

func TestP17_StateOfTheLongestReturnAddressFitsAURL(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	f := Flow{Purpose: "login", Provider: strings.Repeat("p", 64), ReturnTo: "/" + strings.Repeat("x", MaxReturnTo-1)}
	h := b.begin(f)
	t.Logf("state of a %d-byte return address: %d bytes", len(f.ReturnTo), len(h.State))
	if len(h.State) >= 2048 {
		t.Errorf("%d bytes", len(h.State))
	}
	if got, _, err := b.end(h.State); err != nil || got != f {
		t.Errorf("%v %+v", err, got)
	}
	f.ReturnTo += "x"
	h = b.begin(f)
	if got, _, err := b.end(h.State); err != nil || got.ReturnTo != "/" {
		t.Errorf("a longer one: %v %.20q", err, got.ReturnTo)
	}
	w := httptest.NewRecorder()
	if _, err := b.m.Begin(w, b.request(), Flow{Provider: strings.Repeat("p", 1<<17)}); err == nil ||
		len(w.Header()) != 0 {
		t.Errorf("a state that is too long: %v %v", err, w.Header())
	}
}

func TestRestartsAreCountedUpTo255(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	for in, want := range map[int]int{0: 0, 1: 1, 255: 255, 256: 255, 1 << 40: 255} {
		f, _, err := b.end(b.begin(Flow{Purpose: "login", Restarts: in}).State)
		if err != nil || f.Restarts != want {
			t.Errorf("%d: %d %v", in, f.Restarts, err)
		}
	}
}

func TestBrowserIDNamesTheBrowserWithoutItsCookie(t *testing.T) {
	m := newManager(t, newClock())
	a, b := &browser{t: t, m: m}, &browser{t: t, trips: NewTrips(), m: m}
	if id := m.BrowserID(a.request()); id != "" {
		t.Errorf("without a cookie: %q", id)
	}
	a.begin(aFlow)
	b.begin(aFlow)
	id := m.BrowserID(a.request())
	a.begin(aFlow)
	if id == "" || id != m.BrowserID(a.request()) || id == m.BrowserID(b.request()) {
		t.Error("not the browser's")
	}
	secret, err := base64.RawURLEncoding.DecodeString(valueOf(a.cookies[0]))
	if err != nil || strings.Contains(string(secret), id) {
		t.Errorf("tells the cookie: %v", err)
	}
}

func TestP06_FlowOfAnotherInstanceIsNone(t *testing.T) {
	c := newClock()
	dev := newManager(t, c, func(o *Options) { o.Secure, o.Port = false, "4180" })
	b := &browser{t: t, m: dev}
	h := b.begin(aFlow)
	secret := valueOf(b.cookies[0])
	b.m = newManager(t, c)
	if _, _, err := b.end(h.State); !errors.Is(err, ErrNoFlow) {
		t.Errorf("plain http's flow cookie at https: %v", err)
	}
	b.m = newManager(t, c, func(o *Options) { o.Keys = c.ring(9) })
	b.cookies = []string{"__Host-sallyport-flow=" + secret}
	if _, _, err := b.end(h.State); !errors.Is(err, ErrNoFlow) {
		t.Errorf("another key: %v", err)
	}
}

// What belongs to a purpose fits beside the longest address and the longest ids,
// and is refused whole where it is longer: a part of it would mean something else.
func TestTheDetailOfAFlowIsWholeOrRefused(t *testing.T) {
	b := &browser{t: t, m: newManager(t, newClock())}
	f := Flow{Purpose: "reauth", Provider: strings.Repeat("p", 63), ReturnTo: "/" + strings.Repeat("x", MaxReturnTo-1),
		Restarts: 3, Detail: strings.Repeat("d", MaxDetail)}
	h := b.begin(f)
	if got, _, err := b.end(h.State); err != nil || got != f {
		t.Errorf("%v %+v", err, got)
	}
	f.Detail += "d"
	if _, err := b.m.Begin(httptest.NewRecorder(), b.request(), f); !errors.Is(err, ErrDetail) {
		t.Errorf("a longer one: %v", err)
	}
}
