package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

const backchannel = prefix + "/backchannel-logout/main"

// withLogouts makes a site with a store whose provider sends logout tokens.
func withLogouts(o setup) setup {
	o.SignIn = true
	o.Tuned = func(options *Options) {
		options.Durable = true
		for i := range options.Providers {
			if l, ok := options.Providers[i].Login.(*login.Provider); ok {
				if v, err := l.LogoutVerifier(); err == nil {
					options.Providers[i].Logouts = v
				}
			}
		}
	}
	return o
}

// logoutToken is a good one, but for what bend changes.
func (s *testSite) logoutToken(tb testing.TB, jti string, bend ...func(map[string]any)) string {
	tb.Helper()
	now := s.clock.Now()
	c := map[string]any{
		"iss": s.provider.URL, "aud": devClient, "sub": "alice-1", "jti": jti,
		"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for _, b := range bend {
		b(c)
	}
	token, err := s.provider.Provider.Sign(map[string]any{"typ": "logout+jwt"}, c)
	testenv.Check(tb, err)
	return token
}

func (s *testSite) logout(tb testing.TB, token string) answer {
	tb.Helper()
	return s.ask(tb, "POST", backchannel, url.Values{"logout_token": {token}}.Encode(),
		"Content-Type: application/x-www-form-urlencoded")
}

// aliceIn is alice with a session at the provider.
func aliceIn(sid string) identity.Identity {
	who := alice()
	who.ProviderSID = sid
	return who
}

func (s *testSite) lives(tb testing.TB, cookie string) bool {
	tb.Helper()
	return s.get(tb, prefix+"/session", "Cookie: "+cookie).status == http.StatusOK
}

// Who signs out at the provider is signed out here at the next request: everywhere, or
// in one session there.
func TestP10_WhoSignsOutAtTheProviderIsSignedOutHere(t *testing.T) {
	t.Parallel()
	with, without := testenv.With, testenv.Without
	bob := func() identity.Identity { b := bob(); b.ProviderSID = "s-1"; return b }()
	for name, row := range map[string]struct {
		bend func(map[string]any)
		ends []string
		kind string
	}{
		"sub": {func(map[string]any) {}, []string{"alice s-1", "alice s-2", "alice"}, "person"},
		"sid": {func(c map[string]any) { delete(c, "sub"); c["sid"] = "s-1" },
			[]string{"alice s-1", "bob s-1"}, "sid"},
		"sid of sub":                {with("sid", "s-1"), []string{"alice s-1"}, "sid"},
		"a sid that is nowhere":     {with("sid", "s-9"), nil, "sid"},
		"somebody who is not here":  {with("sub", "carol"), nil, "person"},
		"sub in another's spelling": {with("sub", "Alice-1"), nil, "person"},
		"typ and nbf":               {with("nbf", 1), []string{"alice s-1", "alice s-2", "alice"}, "person"},
		"no more than is needed":    {without("nothing"), []string{"alice s-1", "alice s-2", "alice"}, "person"},
	} {
		s := newTestSite(t, withLogouts(setup{}))
		cookies := map[string]string{"alice s-1": s.mint(t, aliceIn("s-1")), "alice s-2": s.mint(t, aliceIn("s-2")),
			"alice": s.mint(t, alice()), "bob s-1": s.mint(t, bob)}
		a := s.logout(t, s.logoutToken(t, "j-1", row.bend))
		if a.status != http.StatusOK || a.body != "" || a.header.Get("Cache-Control") != "no-store" ||
			a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %q %v", name, a.status, a.body, a.header)
		}
		for who, cookie := range cookies {
			if lives := s.lives(t, cookie); lives == slices.Contains(row.ends, who) {
				t.Errorf("%s: the session of %s lives: %v", name, who, lives)
			}
		}
		if n := testutil.ToFloat64(s.proxy.metrics.ended.WithLabelValues(row.kind, "provider")); n != 1 {
			t.Errorf("%s: counted %v times", name, n)
		}
		s.clock.Advance(time.Second)
		if !s.lives(t, s.mint(t, alice())) {
			t.Errorf("%s: who signs in again is not signed in", name)
		}
	}
}

// From the sign-in at the provider to the page that asks for the next one.
func TestASessionBegunAtTheProviderEndsFromThere(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	b := s.browser(t)
	if page := s.signIn(t, b, "/page", "mira"); page.Status != http.StatusOK {
		t.Fatalf("sign in: %d", page.Status)
	}
	var cookie string
	for _, c := range b.Cookies(s.url) {
		cookie += "; " + c.String()
	}
	read, err := s.sessions.Read(strings.TrimPrefix(cookie, "; "), s.routeHost)
	testenv.Check(t, err)
	if read.Identity.ProviderSID == "" {
		t.Fatal("the session does not know the provider's")
	}
	if a := s.logout(t, s.logoutToken(t, "j-1", func(c map[string]any) {
		c["sub"], c["sid"] = read.Identity.Subject, read.Identity.ProviderSID
	})); a.status != http.StatusOK {
		t.Fatalf("logout: %d %s", a.status, a.body)
	}
	if page := b.Open(s.url + "/page"); !strings.HasPrefix(page.URL.String(), s.provider.URL) {
		t.Errorf("the next page is %s, not the provider's", page.URL)
	}
}

// Each row is a request that is not a logout. None of them ends anything, none of them
// is told why, and the log says so.
func TestRequestsThatAreNoLogout(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	cookie := s.mint(t, alice())
	good := s.logoutToken(t, "j-1")
	const form = "Content-Type: application/x-www-form-urlencoded"
	body := "logout_token=" + good
	other := func(bend func(map[string]any)) string { return "logout_token=" + s.logoutToken(t, "j-2", bend) }
	for name, row := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		says               string // in the log
	}{
		"an unknown provider": {"POST", prefix + "/backchannel-logout/nobody", body, []string{form}, 404,
			"no provider"},
		"no provider": {"POST", prefix + "/backchannel-logout/", body, []string{form}, 404,
			"no provider"},
		"something behind it": {"POST", backchannel + "/x", body, []string{form}, 404, "no provider"},
		"GET":                 {"GET", backchannel + "?" + body, "", nil, 405, "method"},
		"HEAD":                {"HEAD", backchannel, "", nil, 405, "method"},
		"PUT":                 {"PUT", backchannel, body, []string{form}, 405, "method"},
		"OPTIONS":             {"OPTIONS", backchannel, "", nil, 405, "method"},
		"JSON": {"POST", backchannel, `{"logout_token":"` + good + `"}`,
			[]string{"Content-Type: application/json"}, 400, "not a form"},
		"the token as it is": {"POST", backchannel, good, []string{"Content-Type: application/logout+jwt"},
			400, "not a form"},
		"parts": {"POST", backchannel, body, []string{"Content-Type: multipart/form-data; " +
			"boundary=x"}, 400, "not a form"},
		"no type":           {"POST", backchannel, body, nil, 400, "not a form"},
		"in the query":      {"POST", backchannel + "?" + body, "", []string{form}, 400, "exactly one"},
		"nothing":           {"POST", backchannel, "", []string{form}, 400, "exactly one"},
		"twice":             {"POST", backchannel, body + "&" + body, []string{form}, 400, "exactly one"},
		"another parameter": {"POST", backchannel, "token=" + good, []string{form}, 400, "exactly one"},
		"not to be decoded": {"POST", backchannel, body + "&x=%zz", []string{form}, 400, "exactly one"},
		"semicolons":        {"POST", backchannel, body + ";a=b", []string{form}, 400, "exactly one"},
		"an empty token":    {"POST", backchannel, "logout_token=", []string{form}, 400, "three parts"},
		"more than 16 KiB": {"POST", backchannel, body + "&x=" + strings.Repeat("x", 16<<10), []string{form},
			413, "16 KiB"},
		"an ID token": {"POST", backchannel, other(func(c map[string]any) { delete(c, "events"); c["nonce"] = "n" }),
			[]string{form}, 400, "events is missing"},
		"for another client": {"POST", backchannel, other(testenv.With("aud", "another")), []string{form}, 400,
			"another client"},
		"old": {"POST", backchannel,
			other(testenv.With("iat", s.clock.Now().Add(-11*time.Minute).Unix())), []string{form}, 400, "was issued"},
		"without jti": {"POST", backchannel, other(testenv.Without("jti")), []string{form}, 400,
			"jti is missing"},
		"the session, and no address": {"POST", prefix + "/backchannel-logout", body, []string{form}, 404,
			"no such endpoint"},
	} {
		a := s.ask(t, row.method, row.path, row.body, row.header...)
		if a.status != row.status || a.header.Get("Set-Cookie") != "" ||
			!strings.Contains(a.header.Get("Cache-Control"), "no-store") {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
		if (row.status == 400 || row.status == 413) && a.body != `{"error":"invalid_request"}`+"\n" {
			t.Errorf("%s: %q", name, a.body)
		}
		if row.status == 405 && a.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", name, a.header.Get("Allow"))
		}
		line := s.log.event(t, a.header.Get("X-Request-Id"))
		if why, _ := line["error"].(string); !strings.Contains(why, row.says) || strings.Contains(why, good[:20]) {
			t.Errorf("%s: the log says %v", name, line)
		}
	}
	if !s.lives(t, cookie) {
		t.Fatal("something ended the session")
	}
	if a := s.logout(t, good); a.status != 200 || s.lives(t, cookie) {
		t.Errorf("the good one: %d", a.status)
	}
}

// Where ended sessions are not kept, a promise to the provider would not be kept either.
func TestWithoutAStoreNoLogoutIsTaken(t *testing.T) {
	t.Parallel()
	o := withLogouts(setup{})
	tuned := o.Tuned
	o.Tuned = func(options *Options) { tuned(options); options.Durable = false }
	s := newTestSite(t, o)
	if a := s.logout(t, s.logoutToken(t, "j-1")); a.status != http.StatusNotFound {
		t.Errorf("%d %s", a.status, a.body)
	}
	o.Tuned = func(options *Options) { options.Durable = true }
	s = newTestSite(t, o)
	if a := s.logout(t, s.logoutToken(t, "j-1")); a.status != http.StatusNotFound {
		t.Errorf("a provider that sends none: %d %s", a.status, a.body)
	}
}

// A cookie that comes along has no say, and is not answered.
func TestALogoutReadsNoCookie(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	bobs := s.mint(t, bob())
	a := s.ask(t, "POST", backchannel, "logout_token="+s.logoutToken(t, "j-1"), "Cookie: "+bobs,
		"Content-Type: application/x-www-form-urlencoded; charset=utf-8", "Origin: https://evil.example",
		"Sec-Fetch-Site: cross-site")
	if a.status != 200 || a.header.Get("Set-Cookie") != "" || !s.lives(t, bobs) {
		t.Errorf("%d %v", a.status, a.header)
	}
	line := s.log.event(t, a.header.Get("X-Request-Id"))
	if line["user"] != "main:alice-1" {
		t.Errorf("the log says %v", line)
	}
}

// A token counts once, whoever sends it again and however many do so at the same time.
func TestALogoutTokenCountsOnce(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	token := s.logoutToken(t, "j-1")
	var ok, used atomic.Int32
	var crowd sync.WaitGroup
	for range 30 {
		crowd.Go(func() {
			switch a := s.logout(t, token); a.status {
			case 200:
				ok.Add(1)
			case 400:
				used.Add(1)
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	crowd.Wait()
	if ok.Load() != 1 || used.Load() != 29 {
		t.Errorf("%d taken, %d used before", ok.Load(), used.Load())
	}
	s.clock.Advance(30 * time.Second)
	again := s.mint(t, alice())
	if a := s.logout(t, token); a.status != 400 || !s.lives(t, again) {
		t.Errorf("replayed: %d, the next session lives: %v", a.status, s.lives(t, again))
	}
	s.clock.Advance(20 * time.Minute) // long after it was forgotten
	if a := s.logout(t, token); a.status != 400 {
		t.Errorf("replayed late: %d", a.status)
	}
}

// A token that arrives late, sent again by the provider, does not end a session that
// began after somebody signed out.
func TestALateLogoutEndsNoLaterSignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	before := s.mint(t, alice())
	token := s.logoutToken(t, "j-1")
	s.clock.Advance(5 * time.Minute)
	after := s.mint(t, alice())
	if a := s.logout(t, s.logoutToken(t, "j-2", testenv.With("iat", s.clock.Now().Add(-5*time.Minute).Unix()))); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if s.lives(t, before) || !s.lives(t, after) {
		t.Errorf("the one before lives: %v, the one after: %v", s.lives(t, before), s.lives(t, after))
	}
	if a := s.logout(t, token); a.status != 400 { // exp was 2 minutes
		t.Errorf("expired: %d", a.status)
	}
}

// failingStore cannot be written while it is broken.
type failingStore struct {
	*session.Memory
	broken atomic.Bool
}

func (f *failingStore) EndOnce(ctx context.Context, c session.Cut, value string, until time.Time) (bool, error) {
	if f.broken.Load() {
		return false, fmt.Errorf("%w: disk full", session.ErrStore)
	}
	return f.Memory.EndOnce(ctx, c, value, until)
}

// What cannot be written, or not be checked, is not taken: the provider sends it again,
// and then it counts.
func TestALogoutThatCannotBeTakenNowCanComeAgain(t *testing.T) {
	t.Parallel()
	list := &failingStore{Memory: session.NewMemory(session.MemoryOptions{})}
	s := newTestSite(t, withLogouts(setup{Ended: list}))
	cookie := s.mint(t, alice())
	retry := func(what string, a answer) {
		t.Helper()
		if a.status != 503 || a.header.Get("Retry-After") != "5" || a.header.Get("Cache-Control") != "no-store" ||
			a.body != `{"error":"temporarily_unavailable"}`+"\n" {
			t.Errorf("%s: %d %v %s", what, a.status, a.header, a.body)
		}
	}
	token := s.logoutToken(t, "j-1")
	for _, endpoint := range []string{testenv.Discovery, testenv.JWKS} {
		s.provider.Set(testenv.Fault{Endpoint: endpoint, Status: 500})
		retry("no "+endpoint, s.logout(t, token))
		s.provider.Set()
		s.clock.Advance(31 * time.Second)
	}
	token = s.logoutToken(t, "j-2")
	list.broken.Store(true)
	for range 3 {
		retry("no store", s.logout(t, token))
	}
	list.broken.Store(false)
	if a := s.logout(t, token); a.status != 200 || s.lives(t, cookie) {
		t.Errorf("sent again: %d %s", a.status, a.body)
	}
}

// Fifty logouts in a second are written, and the others told to come again. What
// nobody signed does not count among them.
func TestP17_AFloodOfLogoutsIsHeldOff(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	s.clock = testenv.StandingClock(s.clock.Now())
	s.proxy.now = s.clock.Now
	options := []Provider{{ID: "main", Logouts: s.verifier(t)}}
	s.proxy.own.prefixed["backchannel-logout/"] = endpoint{path: "backchannel-logout/{provider}",
		post: newBackchannelEndpoint(s.proxy.Process, s.sessions, options).serve}
	for range 200 {
		if a := s.logout(t, "a.b.c"); a.status != 400 {
			t.Fatalf("made up: %d", a.status)
		}
	}
	count := map[int]int{}
	for i := range 100 {
		a := s.logout(t, s.logoutToken(t, fmt.Sprint("j-", i)))
		count[a.status]++
		if a.status == 429 && (a.header.Get("Retry-After") != "1" ||
			!strings.Contains(a.header.Get("Cache-Control"), "no-store")) {
			t.Errorf("%v", a.header)
		}
	}
	if count[200] != logoutRate || count[429] != 100-logoutRate {
		t.Errorf("of 100 in a moment: %v", count)
	}
	s.clock.Advance(time.Second)
	if a := s.logout(t, s.logoutToken(t, "j-99")); a.status != 200 {
		t.Errorf("the one that was held off, a second later: %d", a.status)
	}
}

func (s *testSite) verifier(tb testing.TB) LogoutVerifier {
	tb.Helper()
	v, err := s.login(tb, "main", 0).LogoutVerifier()
	testenv.Check(tb, err)
	return v
}

// Peers that break off, hang, or say less than they announced keep nobody waiting, and
// who has said all is heard.
func TestLogoutPeersThatBreakOffOrHang(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	cookie := s.mint(t, alice())
	form := "logout_token=" + s.logoutToken(t, "j-1")
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: "+
		"application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n",
		backchannel, s.host, len(form))
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.addr)
		testenv.Check(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range 100 { // they hang in the middle
		_, err := io.WriteString(dial(), head+form[:100])
		testenv.Check(t, err)
	}
	broken := dial()
	_, err := io.WriteString(broken, head+form[:100])
	testenv.Check(t, err)
	testenv.Check(t, broken.(*net.TCPConn).CloseWrite())
	res, err := http.ReadResponse(bufio.NewReader(broken), nil)
	if err != nil || res.StatusCode != 400 || !s.lives(t, cookie) {
		t.Errorf("broken off: %v %v", res, err)
	}
	gone := dial() // does not wait for the answer
	_, err = io.WriteString(gone, head+form)
	testenv.Check(t, err)
	gone.Close()
	testenv.Eventually(t, "who hung up after the token signed out", func() bool { return !s.lives(t, cookie) })
}

// heldVerifier answers when it is let go.
type heldVerifier struct {
	entered chan struct{}
	release chan struct{}
}

func (h heldVerifier) Verify(ctx context.Context, token string) (identity.ProviderLogout, error) {
	if token == "quick" {
		return identity.ProviderLogout{Person: "main:alice-1", ID: "quick", Issued: time.Now(), Until: time.Now()}, nil
	}
	h.entered <- struct{}{}
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return identity.ProviderLogout{}, &identity.SignInError{Failure: identity.Unavailable, Err: errors.New("held")}
}

// A provider that hangs while its keys are fetched holds a bounded number of requests.
func TestP17_LogoutsThatWaitForKeysAreBounded(t *testing.T) {
	t.Parallel()
	held := heldVerifier{make(chan struct{}, 2*logoutsChecked), make(chan struct{})}
	s := newTestSite(t, setup{SignIn: true, Tuned: func(o *Options) { o.Durable, o.Providers[0].Logouts = true, held }})
	var waiting sync.WaitGroup
	for range logoutsChecked {
		waiting.Go(func() {
			if a := s.logout(t, "x"); a.status != 503 {
				t.Errorf("held: %d", a.status)
			}
		})
	}
	for range logoutsChecked {
		<-held.entered
	}
	if a := s.logout(t, "x"); a.status != 503 || a.header.Get("Retry-After") != "5" {
		t.Errorf("one more: %d %v", a.status, a.header)
	}
	close(held.release)
	waiting.Wait()
	if a := s.logout(t, "quick"); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestAuditTellsWhoseSessionsAProviderEnded(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, withLogouts(setup{}))
	var mu sync.Mutex
	var told []string
	s.proxy.observers = append(s.proxy.observers, observerFunc(func(e *observe.Event) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(e.Action, " ", e.User, " ", e.Provider, " ", e.Status))
	}))
	token := s.logoutToken(t, "j-1")
	s.logout(t, token)
	s.logout(t, token)
	s.logout(t, s.logoutToken(t, "j-2", func(c map[string]any) { delete(c, "sub"); c["sid"] = "s" }))
	testenv.Eventually(t, "three events", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 3 })
	want := []string{"sessions_ended main:alice-1 main 200", "  main 400", "sessions_ended  main 200"}
	if !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
}

type observerFunc func(*observe.Event)

func (f observerFunc) Observe(_ context.Context, e *observe.Event) { f(e) }
