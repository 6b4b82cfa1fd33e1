package grant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
)

const signingSecret = "canary-signing-secret"

// relays are the apps of a rig, as they get events.
type relays struct {
	counts *prometheus.Registry

	mu     sync.Mutex
	got    []string                                    // app and body, in the order in which they came
	answer func(ctx context.Context, app string) error // nil: all take everything
}

func (l *relays) relay(ctx context.Context, app string, e grant.Relayed) error {
	l.mu.Lock()
	l.got = append(l.got, app+" "+e.Connector+" "+string(e.Body))
	answer := l.answer
	l.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx, app)
}

func (l *relays) set(answer func(context.Context, string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// apps are those that got something since the last call.
func (l *relays) apps() (apps []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range l.got {
		app, _, _ := strings.Cut(text, " ")
		apps = append(apps, app)
	}
	l.got = nil
	slices.Sort(apps)
	return apps
}

func (l *relays) counted(t *testing.T, want string) {
	t.Helper()
	text := ""
	if want != "" {
		text = "# HELP sallyport_grant_events_total Signed events of third parties, by connector and outcome: " +
			"answered, ended (grants that are over there are marked), relayed to apps, repeated, nobody (no app has a " +
			"consent), failed (and has to come again) or refused.\n# TYPE sallyport_grant_events_total counter\n" + want
	}
	if err := testutil.GatherAndCompare(l.counts, strings.NewReader(text), "sallyport_grant_events_total"); err != nil {
		t.Error(err)
	}
}

// withEvents has the rig's third party sign events, of which both apps are told.
func withEvents(t *testing.T, f func(*rig, *relays)) {
	t.Helper()
	l := &relays{counts: prometheus.NewRegistry()}
	inBubble(t, func(r *rig) {
		r.options.Offers[0].Connector = granttest.Signing{OAuth: r.provider}
		r.options.Offers[0].SigningSecrets = []string{"canary-older-secret", signingSecret}
		r.options.Relay, r.options.Metrics = l.relay, grant.NewMetrics(l.counts)
		for i := range r.options.Apps {
			r.options.Apps[i].Told = true
		}
	}, func(r *rig) { f(r, l) })
}

func (r *rig) receive(b *grant.Broker, body granttest.SignedBody) error {
	h, text := granttest.Sign(signingSecret, body, time.Now())
	_, err := b.Receive(r.Context(), "calendar", h, text)
	return err
}

// comesAgain fails unless the third party is to send a message again.
func comesAgain(t *testing.T, what string, err error) {
	t.Helper()
	if _, ok := errors.AsType[*grant.LaterError](err); !ok {
		t.Errorf("%s: %v, want that it comes again", what, err)
	}
}

// The two events with which a third party says that it is over there come in any order, each
// as often as it likes, and late: also when the account was connected again meanwhile, which
// they are not about.
func TestWhatEndedThereIsMarkedInWhateverOrderItIsTold(t *testing.T) {
	steps := map[string]string{"r": "tokens_revoked", "u": "app_uninstalled"}
	for _, order := range []string{"ru", "ur", "rru", "urr", "rurur", "u", "r", "cru", "rcu", "ucr", "ruc", "rucru", "rcucr",
		"dru", "rdu", "rudcru"} {
		t.Run(order, func(t *testing.T) {
			withEvents(t, func(r *rig, l *relays) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(10 * time.Second)
				ended := time.Now() // at the third party
				time.Sleep(10 * time.Second)
				want := grant.Active
				for i, step := range order {
					time.Sleep(time.Second)
					switch step {
					case 'c': // the person connects it again, which works there as ever
						r.connect(r.ask("a", "freebusy"))
						want = grant.Active
						continue
					case 'd':
						if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
							t.Fatal(err)
						}
						want = grant.NotConnected
						continue
					}
					if err := r.receive(r.broker, granttest.SignedBody{ID: fmt.Sprint("Ev", i), At: ended.Unix(),
						Accounts: []string{"1"}, Ended: steps[string(step)]}); err != nil {
						t.Errorf("step %d: %v", i, err)
					}
					if want == grant.Active && !strings.Contains(order[:i], "c") {
						want = grant.RevokedUpstream
					}
					if got := r.status(); got != want {
						t.Errorf("after step %d of %s it is %s, want %s", i, order, got, want)
					}
				}
				if n := r.count(grant.EventFailing); n > 1 {
					t.Errorf("told %d times that it ended", n)
				}
				if want == grant.RevokedUpstream {
					needs(t, second(r.broker.Lend(r.Context(), use("a"))), grant.MissingReconnect)
				}
				if apps := l.apps(); apps != nil {
					t.Errorf("handed on to %v", apps)
				}
			})
		})
	}
}

func second(_ grant.Loan, err error) error { return err }

func (r *rig) status() grant.Status {
	r.Helper()
	k, err := r.store.Get(r.Context(), key())
	if errors.Is(err, grant.ErrNotFound) {
		return grant.NotConnected
	}
	if err != nil {
		r.Fatal(err)
	}
	return k.Status
}

// count is how many events of the audit have a name.
func (r *rig) count(name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == name {
			n++
		}
	}
	return n
}

// An end that is told concerns the account, the client and the connector that it names, and
// leaves alone what the third party has refreshed since.
func TestP12_AnEndThatIsToldEndsNothingElse(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*rig)
		bend   func(*granttest.SignedBody)
		want   grant.Status
	}{
		"as it is":        {nil, nil, grant.RevokedUpstream},
		"another account": {nil, func(b *granttest.SignedBody) { b.Accounts = []string{"2", "11", "%"} }, grant.Active},
		"two accounts":    {nil, func(b *granttest.SignedBody) { b.Accounts = []string{"2", "1"} }, grant.RevokedUpstream},
		"it needed a person already": {func(r *rig) {
			k := r.kept()
			if err := r.store.SetStatus(r.Context(), k.ID, k.Generation, grant.NeedsReconnect, "x", time.Time{}); err != nil {
				r.Fatal(err)
			}
		}, nil, grant.RevokedUpstream},
		"the second of the connection": {nil,
			func(b *granttest.SignedBody) { b.At -= 10 }, grant.Active},
		"what the connection replaced": {nil, func(b *granttest.SignedBody) { b.Lag = 10 }, grant.Active},
		"long after the connection":    {nil, func(b *granttest.SignedBody) { b.Lag = 9 }, grant.RevokedUpstream},
		"what a refresh replaced": {func(r *rig) {
			time.Sleep(life)
			r.lend(use("a"))
			time.Sleep(10 * time.Second)
		}, func(b *granttest.SignedBody) { b.Lag = 10 }, grant.Active},
		"refreshed since": {func(r *rig) {
			time.Sleep(life)
			r.lend(use("a"))
		}, func(b *granttest.SignedBody) { b.At -= 5 }, grant.Active},
		"refreshed before": {func(r *rig) {
			time.Sleep(life)
			r.lend(use("a"))
			time.Sleep(2 * time.Second)
		}, nil, grant.RevokedUpstream},
		"made with another client": {func(r *rig) {
			r.provider.mu.Lock()
			defer r.provider.mu.Unlock()
			r.provider.about.ClientID = "client-2"
		}, nil, grant.Active},
	} {
		t.Run(name, func(t *testing.T) {
			withEvents(t, func(r *rig, _ *relays) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(10 * time.Second)
				if tt.before != nil {
					tt.before(r)
				}
				b := granttest.SignedBody{ID: "Ev1", At: time.Now().Unix(), Accounts: []string{"1"}, Ended: "app_uninstalled"}
				if tt.bend != nil {
					tt.bend(&b)
				}
				if err := r.receive(r.broker, b); err != nil {
					t.Error(err)
				}
				if got := r.status(); got != tt.want {
					t.Errorf("it is %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// While a refresh is under way its result decides: what comes later than the end that is told
// lives, and what is refused has ended.
func TestAnEndThatIsToldDuringARefresh(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		err   error
		again bool // it has to come again
		want  grant.Status
	}{
		"it lives":                {time.Second, nil, false, grant.Active},
		"it is refused":           {time.Second, failure(grant.Yours, "invalid_grant"), false, grant.RevokedUpstream},
		"for longer than we wait": {8 * time.Second, nil, true, grant.Active},
	} {
		t.Run(name, func(t *testing.T) {
			withEvents(t, func(r *rig, _ *relays) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				r.provider.set(func(context.Context, string) error {
					time.Sleep(tt.takes)
					return tt.err
				}, nil)
				go func() { _, _ = r.broker.Lend(context.Background(), use("a")) }()
				synctest.Wait()
				err := r.receive(r.broker, granttest.SignedBody{ID: "Ev1", At: time.Now().Unix(), Accounts: []string{"1"},
					Ended: "app_uninstalled"})
				if tt.again {
					comesAgain(t, name, err)
				} else if err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				if got := r.status(); got != tt.want {
					t.Errorf("it is %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// Events go to the apps that somebody has agreed to lend such an account to, to each once, as
// they came.
func TestP12_EventsGoToAppsWithAConsentAlone(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		h, body := granttest.Sign(signingSecret, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}, time.Now())
		send := func(what string, want ...string) {
			t.Helper()
			body := bytes.Replace(body, []byte("Ev1"), []byte(what), 1)
			h := h.Clone()
			at := h.Get(granttest.SignedAtHeader)
			h.Set(granttest.SignatureHeader, signatureOf(at, body))
			h.Set("Cookie", "session=canary")
			if _, err := r.broker.Receive(r.Context(), "calendar", h, body); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if got := l.apps(); !slices.Equal(got, want) {
				t.Errorf("%s: %v got it, want %v", what, got, want)
			}
		}
		send("nobody has connected it")
		r.connect(r.ask("a", "freebusy"))
		send("one app", "a")
		send("one app") // again
		r.connect(r.ask("b", "events"))
		send("two apps", "a", "b")
		if err := r.broker.Withdraw(r.Context(), ann, "calendar", "a"); err != nil {
			t.Fatal(err)
		}
		send("the other one has the consent", "b")
		r.provider.mu.Lock()
		r.provider.about.ClientID = "client-2"
		r.provider.mu.Unlock()
		send("the grant is another client's")
		r.provider.mu.Lock()
		r.provider.about.ClientID = "client"
		r.provider.mu.Unlock()
		if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
			t.Fatal(err)
		}
		send("nothing is connected any more")
		l.counted(t, `sallyport_grant_events_total{connector="calendar",outcome="nobody"} 3
			sallyport_grant_events_total{connector="calendar",outcome="relayed"} 3
			sallyport_grant_events_total{connector="calendar",outcome="repeated"} 1
			`)
	})
}

func signatureOf(at string, body []byte) string { return granttest.Signature(signingSecret, at, body) }

// An event of another account than those that are connected is nobody's, and one that names
// none is for all apps of the connector.
func TestP12_EventsOfOtherAccountsAreNobodys(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		for i, tt := range []struct {
			accounts, want []string
		}{{[]string{"2"}, nil}, {[]string{"2", "1"}, []string{"a"}}, {nil, []string{"a"}}} {
			if err := r.receive(r.broker, granttest.SignedBody{ID: fmt.Sprint("Ev", i), Accounts: tt.accounts}); err != nil {
				t.Error(err)
			}
			if got := l.apps(); !slices.Equal(got, tt.want) {
				t.Errorf("%v: %v got it, want %v", tt.accounts, got, tt.want)
			}
		}
	})
}

// Of the events of one installation each app gets those alone for which somebody agreed: what
// is told of events is no way around the accesses.
func TestP12_AnEventIsCoveredByAnAccessOfItsApp(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		r.connect(r.ask("b", "events"))
		for i, tt := range []struct {
			access, want []string
		}{
			{nil, []string{"a", "b"}}, {[]string{"freebusy"}, []string{"a"}}, {[]string{"events"}, []string{"b"}},
			{[]string{"events", "freebusy"}, []string{"a", "b"}}, {[]string{"other"}, nil},
		} {
			if err := r.receive(r.broker, granttest.SignedBody{ID: fmt.Sprint("Ev", i), Accounts: []string{"1"},
				Access: tt.access}); err != nil {
				t.Error(err)
			}
			if got := l.apps(); !slices.Equal(got, tt.want) {
				t.Errorf("%v: %v got it, want %v", tt.access, got, tt.want)
			}
		}
		r.options.Apps = slices.Clone(r.options.Apps)
		r.options.Apps[0].Told = false // it has no address
		if err := r.receive(r.another(), granttest.SignedBody{ID: "Ev9", Accounts: []string{"1"}}); err != nil {
			t.Error(err)
		}
		if got := l.apps(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("where one has no address: %v got it", got)
		}
	})
}

// What an app did not take comes again, and then goes to those that do not have it.
func TestAnEventIsUsedUpOnlyWhenItsAppHasTakenIt(t *testing.T) {
	ill := errors.New("canary: what the app said")
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		r.connect(r.ask("b", "events"))
		event := granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}
		l.set(func(_ context.Context, app string) error {
			if app == "b" {
				return errors.New("it answered 500")
			}
			return nil
		})
		for _, want := range [][]string{{"a", "b"}, {"b"}, {"b"}} {
			err := r.receive(r.broker, event)
			comesAgain(t, "an app is ill", err)
			if strings.Contains(fmt.Sprint(err), ill.Error()) {
				t.Errorf("it tells too much: %v", err)
			}
			if got := l.apps(); !slices.Equal(got, want) {
				t.Errorf("%v got it, want %v", got, want)
			}
		}
		l.set(nil)
		for _, want := range [][]string{{"b"}, nil, nil} {
			if err := r.receive(r.another(), event); err != nil {
				t.Error(err)
			}
			if got := l.apps(); !slices.Equal(got, want) {
				t.Errorf("%v got it, want %v", got, want)
			}
		}
		l.counted(t, `sallyport_grant_events_total{connector="calendar",outcome="failed"} 3
			sallyport_grant_events_total{connector="calendar",outcome="relayed"} 1
			sallyport_grant_events_total{connector="calendar",outcome="repeated"} 2
			`)
	})
}

// An app that says nothing is given up in time for the answer that the third party waits for,
// and the third party's own haste changes nothing.
func TestP17_AnAppThatHangsHoldsUpNoEvent(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		l.set(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		gone, cancel := context.WithCancel(r.Context())
		cancel()
		h, body := granttest.Sign(signingSecret, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}, time.Now())
		began := time.Now()
		_, err := r.broker.Receive(gone, "calendar", h, body)
		comesAgain(t, "an app hangs", err)
		if took := time.Since(began); took != 2500*time.Millisecond {
			t.Errorf("given up after %v", took)
		}
		l.set(nil)
		if err := r.receive(r.broker, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}); err != nil {
			t.Error(err)
		}
		if got := l.apps(); len(got) != 2 {
			t.Errorf("it was handed over %d times, want 2", len(got))
		}
	})
}

// Replicas that get the same event at the same time hand it over once; where that fails, the
// one that waited tries.
func TestP22_ReplicasHandAnEventOverOnce(t *testing.T) {
	for name, fails := range map[string]int{"taken": 0, "the first attempt fails": 1} {
		t.Run(name, func(t *testing.T) {
			withEvents(t, func(r *rig, l *relays) {
				r.connect(r.ask("a", "freebusy"))
				var mu sync.Mutex
				left, at, most := fails, 0, 0
				l.set(func(context.Context, string) error {
					mu.Lock()
					at++
					most = max(most, at)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					defer mu.Unlock()
					at--
					if left--; left >= 0 {
						return errors.New("it answered 500")
					}
					return nil
				})
				replicas := []*grant.Broker{r.broker, r.another(), r.another()}
				errs := make([]error, len(replicas))
				var all sync.WaitGroup
				for i, b := range replicas {
					all.Go(func() { errs[i] = r.receive(b, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}) })
				}
				all.Wait()
				again := 0
				for _, err := range errs {
					if err != nil {
						again++
						comesAgain(t, name, err)
					}
				}
				if got := len(l.apps()); got != fails+1 || most != 1 || again != fails {
					t.Errorf("handed over %d times, %d at one time; %d of 3 have to come again", got, most, again)
				}
			})
		})
	}
}

// A replica that is killed while it hands an event over leaves a claim, which ends by itself:
// the event comes again and arrives.
func TestAnEventOutlivesTheReplicaThatHandedItOver(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		killed := make(chan struct{})
		defer close(killed)
		r.store.SetBefore(func(_ context.Context, method string) error {
			if method == "Taken" || method == "Unclaim" {
				<-killed // as of a process that is stopped
				return grant.ErrUnavailable
			}
			return nil
		})
		event := granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}
		go func() { _ = r.receive(r.broker, event) }()
		synctest.Wait()
		r.store.SetBefore(nil)
		comesAgain(t, "at once", r.receive(r.another(), event))
		if got := l.apps(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%v got it before", got)
		}
		time.Sleep(3 * time.Second)
		for range 2 {
			if err := r.receive(r.another(), event); err != nil {
				t.Error(err)
			}
		}
		if got := l.apps(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%v got it afterwards", got)
		}
	})
}

// What an app has is not sent again because the store could not note it.
func TestP22_WhatAnAppHasTakenIsAnsweredAlsoWhenTheStoreFails(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		l.set(func(context.Context, string) error {
			r.store.SetUnavailable(true)
			return nil
		})
		if err := r.receive(r.broker, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}); err != nil {
			t.Error(err)
		}
		if !strings.Contains(r.log.String(), "may get it twice") {
			t.Errorf("nobody is told:\n%s", r.log)
		}
		l.apps()
		comesAgain(t, "the store is away", r.receive(r.broker, granttest.SignedBody{ID: "Ev2", Accounts: []string{"1"}}))
		comesAgain(t, "an end, the store is away", r.receive(r.broker, granttest.SignedBody{ID: "Ev3",
			At: time.Now().Unix() + 10, Accounts: []string{"1"}, Ended: "x"}))
		r.store.SetUnavailable(false)
		if got := l.apps(); got != nil || r.status() != grant.Active {
			t.Errorf("%v got something, it is %s", got, r.status())
		}
	})
}

// What is not signed, late, garbled or for nobody is refused before the store is asked, and
// nothing of it is told.
func TestP17_WhatIsNotSignedIsNotLookedUp(t *testing.T) {
	now := time.Now
	for name, tt := range map[string]struct {
		bend func(h http.Header, body *[]byte, connector *string)
		want error
	}{
		"another secret": {func(h http.Header, body *[]byte, _ *string) {
			h.Set(granttest.SignatureHeader, granttest.Signature("another", h.Get(granttest.SignedAtHeader), *body))
		}, grant.ErrEventSignature},
		"no signature": {func(h http.Header, _ *[]byte, _ *string) { h.Del(granttest.SignatureHeader) },
			grant.ErrEventUnsigned},
		"tampered":        {func(_ http.Header, body *[]byte, _ *string) { (*body)[9]++ }, grant.ErrEventSignature},
		"another time":    {func(h http.Header, _ *[]byte, _ *string) { h.Set(granttest.SignedAtHeader, "1") }, grant.ErrEventSignature},
		"late":            {resigned(-5*time.Minute-time.Second, ""), grant.ErrEventTooOld},
		"from the future": {resigned(5*time.Minute+time.Second, ""), grant.ErrEventTooOld},
		"in time":         {resigned(-5*time.Minute+time.Second, ""), nil},
		"no event":        {resigned(0, "canary"), grant.ErrEventGarbled},
		"no id":           {resigned(0, `{"accounts":["1"]}`), grant.ErrEventGarbled},
		"an end of all":   {resigned(0, `{"id":"Ev1","ended":"x"}`), grant.ErrEventGarbled},
		"no connector":    {func(_ http.Header, _ *[]byte, c *string) { *c = "canary" }, grant.ErrNoConnector},
	} {
		t.Run(name, func(t *testing.T) {
			withEvents(t, func(r *rig, l *relays) {
				r.connect(r.ask("a", "freebusy"))
				h, body := granttest.Sign(signingSecret, granttest.SignedBody{ID: "Ev1", Accounts: []string{"1"}}, now())
				connector := "calendar"
				tt.bend(h, &body, &connector)
				asked := 0
				r.store.SetBefore(func(context.Context, string) error { asked++; return nil })
				_, err := r.broker.Receive(r.Context(), connector, h, body)
				if !errors.Is(err, tt.want) || strings.Contains(fmt.Sprint(err), "canary") {
					t.Errorf("%v, want %v", err, tt.want)
				}
				if got := l.apps(); (asked == 0) != (tt.want != nil) || (got == nil) != (tt.want != nil) {
					t.Errorf("the store was asked %d times, %v got it", asked, got)
				}
			})
		})
	}
}

// resigned has a message signed at another time, and with another body.
func resigned(after time.Duration, text string) func(http.Header, *[]byte, *string) {
	return func(h http.Header, body *[]byte, _ *string) {
		if text != "" {
			*body = []byte(text)
		}
		at := fmt.Sprint(time.Now().Add(after).Unix())
		h.Set(granttest.SignedAtHeader, at)
		h.Set(granttest.SignatureHeader, signatureOf(at, *body))
	}
}

// Both secrets of a rotation count, a question is answered here, and connectors that have no
// secrets, or no events, take nothing.
func TestASignedQuestionIsAnsweredHere(t *testing.T) {
	withEvents(t, func(r *rig, l *relays) {
		r.connect(r.ask("a", "freebusy"))
		for _, secret := range []string{signingSecret, "canary-older-secret"} {
			h, body := granttest.Sign(secret, granttest.SignedBody{Answer: "3eZbrw1aB"}, time.Now())
			got, err := r.broker.Receive(r.Context(), "calendar", h, body)
			if err != nil || string(got.Answer) != "3eZbrw1aB" || got.AnswerType != "text/plain" || l.apps() != nil {
				t.Errorf("%q %s %v", got.Answer, got.AnswerType, err)
			}
		}
		for name, change := range map[string]func(*grant.Offer){
			"no secrets": func(o *grant.Offer) { o.SigningSecrets = nil },
			"no events":  func(o *grant.Offer) { o.Connector = r.provider },
		} {
			was := r.options.Offers
			r.options.Offers = slices.Clone(was)
			change(&r.options.Offers[0])
			b := r.another()
			r.options.Offers = was
			if err := r.receive(b, granttest.SignedBody{ID: "Ev1"}); b.Receives("calendar") || !r.broker.Receives("calendar") ||
				!errors.Is(err, grant.ErrNoConnector) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Who connects reads that events reach an app also while they are away: where the third party
// has events, and that app is told.
func TestWhoConnectsIsToldThatEventsReachTheApp(t *testing.T) {
	for name, tt := range map[string]struct {
		signs, told, want bool
	}{
		"events, and the app is told": {true, true, true},
		"no events":                   {false, true, false},
		"the app is told nothing":     {true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.options.Offers[0].Connector = granttest.Signing{OAuth: r.provider}
				if tt.signs {
					r.options.Offers[0].SigningSecrets = []string{signingSecret}
				}
				r.options.Relay = new(relays).relay
				r.options.Apps[0].Told = tt.told
			}, func(r *rig) {
				p, err := r.broker.Prepare(r.Context(), ann, r.ask("a"))
				if err != nil || p.Events != tt.want {
					t.Errorf("%t, %v", p.Events, err)
				}
			})
		})
	}
}
