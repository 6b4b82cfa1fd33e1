package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// pendingCallback is a browser that stands before its callback: it can ask for it as
// often as a test likes, and hang up.
type pendingCallback struct {
	s        *testSite
	b        *testenv.Browser
	callback string
}

// arrives signs in at the provider as person, and stops before the callback.
func (s *testSite) arrives(t *testing.T, b *testenv.Browser, person string) pendingCallback {
	t.Helper()
	page := b.Open(s.url + "/deep?x=1")
	hops := b.MaxHops
	b.MaxHops = 0
	to := b.SignIn(page, person).Header.Get("Location")
	b.MaxHops = hops
	if !strings.HasPrefix(to, s.url+prefix+"/callback/main?") {
		t.Fatalf("the provider leads to %q", to)
	}
	return pendingCallback{s, b, to}
}

// ask sends one request, without following redirects. An error is one of leaving.
func (v pendingCallback) ask(ctx context.Context) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.callback, nil)
	if err != nil {
		return answer{}, err
	}
	for _, line := range navigate() {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	for _, c := range v.b.Cookies(v.s.url) {
		req.AddCookie(c)
	}
	res, err := v.s.transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	return answer{status: res.StatusCode, header: res.Header}, nil
}

// leaves asks, and hangs up once it has come to what redeems; it returns when the
// server has noticed.
func (v pendingCallback) leaves(t *testing.T, asked <-chan struct{}) {
	t.Helper()
	before := v.s.left()
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if a, err := v.ask(ctx); err == nil {
			t.Errorf("who left was answered %d", a.status)
		}
	}()
	receive(t, asked)
	cancel()
	<-gone
	testenv.Eventually(t, "the server notices that the browser left", func() bool { return v.s.left() > before })
}

// left counts the requests that ended because their client had left.
func (s *testSite) left() int {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return strings.Count(s.log.buf.String(), `"status":499`)
}

func receive(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(15 * time.Second):
		t.Fatal("waited for 15 s")
	}
}

// held makes the token endpoint wait: asked tells of each request, and each close
// or send of release lets one go on.
func held() (fault testenv.Fault, asked, release chan struct{}) {
	asked, release = make(chan struct{}, 1000), make(chan struct{})
	return testenv.Fault{Endpoint: testenv.Token, Before: func(*demo.Provider) { asked <- struct{}{}; <-release }},
		asked, release
}

// waiting counts the results that wait to be fetched, and what is redeemed.
func (s *testSite) waiting() (kept, all int) {
	s.proxy.redeemed.mu.Lock()
	defer s.proxy.redeemed.mu.Unlock()
	return s.proxy.redeemed.kept.Len(), len(s.proxy.redeemed.byTrip)
}

func signedIn(a answer) bool {
	for _, line := range a.header["Set-Cookie"] {
		if !strings.Contains(line, "-flow=") {
			return a.status == http.StatusSeeOther && strings.HasSuffix(a.header.Get("Location"), "/deep?x=1")
		}
	}
	return false
}

// Safari cancels the request for a callback and sends it again, and people reload
// what is slow. The code works once: the first request has spent it.
func TestP06_ACallbackThatWasCancelledAndAskedAgainSignsIn(t *testing.T) {
	t.Parallel()
	for _, o := range []setup{{SignIn: true}, {SignIn: true, TLS: true}} {
		for name, late := range map[string]bool{"before the answer": false, "after the answer": true} {
			t.Run(fmt.Sprint(name, ", TLS ", o.TLS), func(t *testing.T) {
				s := newTestSite(t, o)
				fault, asked, release := held()
				s.provider.Set(fault)
				v := s.arrives(t, s.browser(t), "mira")
				v.leaves(t, asked)
				if late {
					close(release)
					testenv.Eventually(t, "the result waits", func() bool { kept, _ := s.waiting(); return kept == 1 })
				}
				if got := s.signIns(t); len(got) != 0 {
					t.Errorf("before a cookie was written %v were counted", got)
				}
				if text := s.log.text(t); strings.Contains(text, "mira") {
					t.Errorf("before a cookie was written the log names somebody:\n%s", text)
				}
				done := make(chan answer)
				go func() {
					a, err := v.ask(t.Context())
					if err != nil {
						t.Error(err)
					}
					done <- a
				}()
				if !late {
					time.Sleep(50 * time.Millisecond) // let it come to wait; nothing depends on it
					close(release)
				}
				if a := <-done; !signedIn(a) {
					t.Errorf("asked again: %d %v", a.status, a.header)
				}
				if n := s.provider.Hits(testenv.Token); n != 1 {
					t.Errorf("the provider was asked to redeem %d codes", n)
				}
				if got := s.signIns(t); got["ok"] != 1 || len(got) != 1 {
					t.Errorf("counted %v", got)
				}
				// It was delivered once: a third request gets nobody, and begins afresh.
				a, err := v.ask(t.Context())
				testenv.Check(t, err)
				if signedIn(a) || a.status != 302 || !strings.HasPrefix(a.header.Get("Location"), s.provider.URL) {
					t.Errorf("the third time: %d %v", a.status, a.header)
				}
				if kept, all := s.waiting(); kept != 0 || all != 0 {
					t.Errorf("%d results are kept, of %d", kept, all)
				}
				if n := s.provider.Hits(testenv.Token); n != 1 {
					t.Errorf("the provider was asked to redeem %d codes", n)
				}
			})
		}
	}
}

// Many requests for one callback at once: one redemption, one session. Those that
// a later one has taken over from do not pile up.
func TestP06_OfManyRequestsForOneCallbackOneSignsIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	fault, asked, release := held()
	s.provider.Set(fault)
	v := s.arrives(t, s.browser(t), "mira")
	var crowd sync.WaitGroup
	var in, afresh atomic.Int32
	for range 20 {
		crowd.Go(func() {
			switch a, err := v.ask(t.Context()); {
			case err != nil:
				t.Error(err)
			case signedIn(a):
				in.Add(1)
			case a.status == 302 && strings.HasPrefix(a.header.Get("Location"), s.provider.URL):
				afresh.Add(1)
			default:
				t.Errorf("answered %d", a.status)
			}
		})
	}
	receive(t, asked)
	testenv.Eventually(t, "all but one are let go", func() bool { return afresh.Load() == 19 })
	close(release)
	crowd.Wait()
	if in.Load() != 1 || s.provider.Hits(testenv.Token) != 1 || s.signIns(t)["ok"] != 1 {
		t.Errorf("%d signed in, %d codes, counted %v", in.Load(), s.provider.Hits(testenv.Token), s.signIns(t))
	}
}

// What waits is for the browser that left: for half a minute, and not once it has
// signed out, or the server has stopped. Nobody else gets it, and there is a bound.
func TestP06_AResultWaitsForItsBrowserAlone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, s *testSite, v pendingCallback)
		signedIn  bool
	}{
		"29 seconds": {func(_ *testing.T, s *testSite, _ pendingCallback) { s.clock.Advance(29 * time.Second) }, true},
		"30 seconds": {func(_ *testing.T, s *testSite, _ pendingCallback) { s.clock.Advance(30 * time.Second) }, false},
		"another browser asks": {func(t *testing.T, s *testSite, v pendingCallback) {
			for _, b := range []*testenv.Browser{s.browser(t), s.browser(t)} {
				if page := b.Open(v.callback); page.Status != 400 || s.sessionOf(b) != nil {
					t.Errorf("a stranger: %d", page.Status)
				}
				b.Open(s.url + "/deep?x=1") // with a flow cookie of its own
				if b.Open(v.callback); s.sessionOf(b) != nil {
					t.Error("a stranger is signed in")
				}
			}
		}, true},
		"it signs out": {func(t *testing.T, s *testSite, v pendingCallback) {
			cookie := v.b.Cookies(s.url)[0]
			s.ask(t, "POST", prefix+"/logout", "", "Cookie: "+cookie.Name+"="+cookie.Value)
		}, false},
		"another one signs out": {func(t *testing.T, s *testSite, _ pendingCallback) {
			s.ask(t, "POST", prefix+"/logout", "", "Cookie: "+s.mint(t, bob()))
		}, true},
		"the server stops": {func(t *testing.T, s *testSite, _ pendingCallback) { s.proxy.EndSignIns(t.Context()) },
			false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, setup{SignIn: true})
			fault, asked, release := held()
			s.provider.Set(fault)
			v := s.arrives(t, s.browser(t), "mira")
			v.leaves(t, asked)
			close(release)
			testenv.Eventually(t, "the result waits", func() bool { kept, _ := s.waiting(); return kept == 1 })
			tt.meanwhile(t, s, v)
			a, err := v.ask(t.Context())
			testenv.Check(t, err)
			if signedIn(a) != tt.signedIn {
				t.Errorf("signed in: %t; answered %d", signedIn(a), a.status)
			}
			if kept, all := s.waiting(); kept != 0 || all != 0 {
				t.Errorf("%d results are kept, of %d", kept, all)
			}
			if n := s.provider.Hits(testenv.Token); n != 1 {
				t.Errorf("the provider was asked to redeem %d codes", n)
			}
		})
	}
}

func TestP17_ResultsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Flows: 4, SignIn: true})
	fault, asked, release := held()
	close(release)
	s.provider.Set(fault)
	var all []pendingCallback
	for range 6 {
		v := s.arrives(t, s.browser(t), "mira")
		all = append(all, v)
		// As after leaving, without the race of who is quicker.
		trip, err := s.sessions.Return(requestWith(t, v), stateOf(t, v))
		testenv.Check(t, err)
		_, err = s.proxy.redeemed.join(trip, "", 4, func() (redeemFunc, error) {
			return func(context.Context) (redeemed, error) {
				return redeemed{who: alice(), began: s.sessions.Beginning()}, nil
			}, nil
		}, func(error) {})
		testenv.Check(t, err)
		testenv.Eventually(t, "it ends", func() bool { kept, all := s.waiting(); return kept == all })
	}
	if kept, _ := s.waiting(); kept != 4 {
		t.Errorf("%d results are kept", kept)
	}
	for i, v := range all {
		a, err := v.ask(t.Context())
		testenv.Check(t, err)
		if signedIn(a) != (i >= 2) {
			t.Errorf("%d: signed in: %t", i, signedIn(a))
		}
	}
	if len(asked) != 0 {
		t.Errorf("%d codes were redeemed", len(asked))
	}
}

func stateOf(t *testing.T, v pendingCallback) string {
	t.Helper()
	u, err := url.Parse(v.callback)
	testenv.Check(t, err)
	return u.Query().Get("state")
}

func requestWith(t *testing.T, v pendingCallback) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", v.callback, nil)
	testenv.Check(t, err)
	for _, c := range v.b.Cookies(v.s.url) {
		r.AddCookie(c)
	}
	return r
}

// A sign-in that failed is over: to load its page again begins afresh, once, and
// then there is a button. Each code reaches the provider once.
func TestReloadingASignInThatFailedBeginsAfreshOnce(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{SignIn: true})
	s.provider.Set(testenv.Fault{Endpoint: testenv.Token, Status: 503})
	b := s.browser(t)
	v := s.arrives(t, b, "mira")
	if page := b.Open(v.callback); page.Status != 503 {
		t.Fatalf("answered %d", page.Status)
	}
	page := b.Open(v.callback)
	if !strings.HasPrefix(page.URL.String(), s.provider.URL) {
		t.Fatalf("loaded again, it ends at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	page = b.SignIn(page, "mira")
	if page.Status != 503 {
		t.Fatalf("answered %d", page.Status)
	}
	page = b.Open(page.URL.String())
	if page.Status != 400 || !strings.Contains(page.Body, "The address of a sign-in works once, and this one was "+
		"used before.") {
		t.Fatalf("loaded again, it ends at %s with %d\n%s", page.URL, page.Status, page.Body)
	}
	if n := s.provider.Hits(testenv.Token); n != 2 {
		t.Errorf("%d codes for two sign-ins", n)
	}
	s.provider.Set()
	if page := b.SignIn(b.Click(page, prefix+"/login?return_to=%2Fdeep%3Fx%3D1"), "mira"); page.URL.String() != s.url+"/deep?x=1" || s.sessionOf(b) == nil {
		t.Errorf("mended, it ends at %s", page.URL)
	}
}

// The browser leaves, and then the token endpoint breaks off, refuses or talks
// nonsense: the operator and the auditor read so, and the browser begins afresh when it is back.
func TestAFailureThatNobodyWaitsForIsLoggedAndCountedOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault         testenv.Fault
		result, words string
	}{
		"breaks off": {testenv.Fault{Endpoint: testenv.Token, Truncate: true}, "rejected", "cut off"},
		"503":        {testenv.Fault{Endpoint: testenv.Token, Status: 503}, "unavailable", "status 503"},
		"nonsense":   {testenv.Fault{Endpoint: testenv.Token, Body: "<html>"}, "rejected", "/token: rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestSite(t, setup{SignIn: true})
			records := s.audited(t)
			fault, asked, release := held()
			s.provider.Set(fault, tt.fault)
			v := s.arrives(t, s.browser(t), "mira")
			v.leaves(t, asked)
			close(release)
			testenv.Eventually(t, "it is logged", func() bool {
				return strings.Contains(s.log.text(t), "a sign-in "+
					"failed after its browser had left")
			})
			if !strings.Contains(s.log.text(t), tt.words) {
				t.Errorf("logged\n%s", s.log.text(t))
			}
			a, err := v.ask(t.Context())
			testenv.Check(t, err)
			if a.status != 302 || !strings.HasPrefix(a.header.Get("Location"), s.provider.URL) {
				t.Errorf("back again: %d", a.status)
			}
			if got := s.signIns(t); got[tt.result] != 1 || len(got) != 1 {
				t.Errorf("counted %v", got)
			}
			if n := s.provider.Hits(testenv.Token); n != 1 {
				t.Errorf("%d codes were redeemed", n)
			}
			if all := records(); len(all) != 1 || all[0].Event != "sign_in_failed" || all[0].RequestID == "" ||
				all[0].Provider != "main" || all[0].Path != prefix+"/callback/main" || all[0].Client != "127.0.0.1" ||
				all[0].Status != statusClientGone || !strings.Contains(all[0].Detail, tt.words) {
				t.Errorf("the audit stream has %+v", all)
			}
		})
	}
}

// A token endpoint that hangs: what outlives its browser has a deadline, keeps
// its slot, and ends when the server stops.
func TestP17_ARedemptionWithoutABrowserHasADeadlineAndItsSlot(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	contexts := make(chan context.Context, 1)
	s := newTestSite(t, setup{Flows: 1, Login: fixedLogin{who: alice(), redeem: func(ctx context.Context) error {
		contexts <- ctx
		asked <- struct{}{}
		<-ctx.Done()
		return &identity.SignInError{Failure: identity.Unavailable, Err: ctx.Err()}
	}}})
	b := s.browser(t)
	state := s.begin(t, b, "/deep?x=1")
	v := pendingCallback{s, b, s.callback("main", url.Values{"code": {"c"}, "state": {state}})}
	v.leaves(t, asked)
	ctx := <-contexts
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > flowTime || ctx.Err() != nil {
		t.Errorf("deadline %v, %v", deadline, ctx.Err())
	}
	if page := s.browser(t).Open(s.url + "/deep"); page.Status != 503 {
		t.Errorf("its slot was given away: %d at %s", page.Status, page.URL)
	}
	s.proxy.EndSignIns(t.Context())
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("stopped, and it still runs: %v", ctx.Err())
	}
	if kept, all := s.waiting(); kept != 0 || all != 0 {
		t.Errorf("%d results are kept, of %d", kept, all)
	}
}

// A bug in what redeems has no request any more that would catch it.
func TestAPanicWhileACodeIsRedeemedEndsOneSignIn(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{Flows: 1, Login: fixedLogin{redeem: func(context.Context) error { panic("a bug of ours") }}})
	for range 2 {
		b := s.browser(t)
		page := b.Open(s.callback("main", url.Values{"code": {"c"}, "state": {s.begin(t, b, "/deep")}}))
		if line := s.log.event(t, page.Header.Get("X-Request-Id")); page.Status != 500 ||
			!strings.Contains(fmt.Sprint(line["error"]), "panic: a bug of ours") {
			t.Errorf("%d, logged %v", page.Status, line)
		}
	}
}
