package grant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
)

// provider is a pretend third party that rotates refresh tokens, and counts how often each
// is shown.
type provider struct {
	mu      sync.Mutex
	about   grant.About
	account grant.Account
	granted []string // scopes; nil: all that are asked for
	issuer  string
	n       int
	good    string // the refresh token that it takes
	keeps   bool   // it does not rotate
	bare    bool   // it gives out no refresh tokens
	deaf    bool   // its revocation endpoint fails
	// forgets is after how long it forgets a refresh token, as it says; 0: never. final: with
	// it all ends, however often it was refreshed.
	forgets time.Duration
	final   bool
	over    time.Time // when it forgets good
	shown   map[string]int
	revoked []grant.Tokens
	sibling []int
	shares  bool // it ends the grants of other clients too
	// before is called with each refresh, after its token was counted and before it is
	// judged; answer is called with the result, which may get lost.
	before func(ctx context.Context, token string) error
	answer func(ctx context.Context, r grant.Result) (grant.Result, error)
}

const life = time.Hour

func newProvider() *provider {
	rule := func(text string) []grant.Rule {
		r, err := grant.ParseRule(text)
		if err != nil {
			panic(err)
		}
		return []grant.Rule{r}
	}
	return &provider{shown: map[string]int{}, account: grant.Account{ID: "1", Name: "ann@calendar.test"},
		about: grant.About{ID: "calendar", Name: "Calendar", ClientID: "client", Owner: grant.OwnedByUser,
			Offline: true, Refresh: "https://login.calendar.test", Revoke: "https://login.calendar.test",
			Resend: true, Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "},
			Accesses: []grant.Access{
				{Name: "freebusy", Scopes: []string{"busy"}, Rules: rule("GET /busy")},
				{Name: "events", Scopes: []string{"events"}, Rules: rule("GET /events")},
			}}}
}

func (p *provider) About() grant.About {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.about
}

func (p *provider) Origin(grant.Account) string { return "https://calendar.test" }
func (p *provider) Issuer() string              { return p.issuer }

func (p *provider) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	return "https://calendar.test/authorize?state=" + h.State + "&scope=" + strings.Join(r.Scopes, "+"), nil
}

func (p *provider) issue() grant.Tokens {
	p.n++
	t := grant.Tokens{Access: fmt.Sprint("canary-access-", p.n), AccessIssued: time.Now(),
		AccessExpires: time.Now().Add(life)}
	if p.bare {
		t.AccessExpires = time.Time{}
	} else if !p.keeps || p.good == "" {
		t.Refresh = fmt.Sprint("canary-refresh-", p.n)
		p.good = t.Refresh
	}
	if p.forgets > 0 {
		if !p.final || p.over.IsZero() {
			p.over = time.Now().Add(p.forgets)
		}
		if t.RefreshExpires = p.over; p.final {
			t.Reconsent = p.over
		}
	}
	return t
}

func (p *provider) Redeem(_ context.Context, callback url.Values, _ identity.Handshake, r grant.Request) (
	grant.Result, error) {
	if callback.Has("error") {
		return grant.Result{}, failure(grant.Yours, "denied")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	scopes := r.Scopes
	if p.granted != nil {
		scopes = p.granted
	}
	p.good = ""
	return grant.Result{Tokens: p.issue(), Account: p.account, Scopes: scopes}, nil
}

func (p *provider) Refresh(ctx context.Context, t grant.Tokens, _ []string) (grant.Result, error) {
	p.mu.Lock()
	p.shown[t.Refresh]++
	before, answer := p.before, p.answer
	p.mu.Unlock()
	if before != nil {
		if err := before(ctx, t.Refresh); err != nil {
			return grant.Result{}, err
		}
	}
	p.mu.Lock()
	if t.Refresh != p.good || !p.over.IsZero() && !time.Now().Before(p.over) {
		p.mu.Unlock()
		return grant.Result{}, failure(grant.Yours, "invalid_grant")
	}
	r := grant.Result{Tokens: p.issue()}
	p.mu.Unlock()
	if answer != nil {
		return answer(ctx, r)
	}
	return r, nil
}

func (p *provider) Revoke(_ context.Context, t grant.Tokens, siblings int) (grant.Revocation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked, p.sibling = append(p.revoked, t), append(p.sibling, siblings)
	if p.deaf {
		return grant.RevokeFailed, failure(grant.Later, "busy")
	}
	return grant.Revoked, nil
}

func (p *provider) Shares(clientID, other string) bool { return p.shares && clientID != other }

func (p *provider) set(before func(context.Context, string) error,
	answer func(context.Context, grant.Result) (grant.Result, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.answer = before, answer
}

func (p *provider) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, times := range p.shown {
		n += times
	}
	return n
}

func (p *provider) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := 0
	for _, times := range p.shown {
		most = max(most, times)
	}
	return most
}

func failure(class grant.Class, reason string) error {
	return &grant.Error{Class: class, Reason: reason, Err: errors.New("a test did it")}
}

func always(err error) func(context.Context, string) error {
	return func(context.Context, string) error { return err }
}

func loseOnce() func(context.Context, grant.Result) (grant.Result, error) {
	lost := false
	return func(_ context.Context, r grant.Result) (grant.Result, error) {
		if lost {
			return r, nil
		}
		lost = true
		return grant.Result{}, failure(grant.Lost, "no_answer")
	}
}

// lines is a log that is read while the broker still writes.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

type rig struct {
	*testing.T
	store    *granttest.Store
	provider *provider
	broker   *grant.Broker
	options  grant.Options
	log      *lines
	admits   bool
	ended    atomic.Bool
	mu       sync.Mutex // guards events where brokers still work
	events   []grant.Event
}

var ann = identity.Identity{Provider: "corp", Subject: "ann", Org: identity.Org{ID: "acme"}}

// inBubble runs f with a broker whose time is the bubble's.
func inBubble(t *testing.T, change func(*rig), f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, store: granttest.NewStore(nil), provider: newProvider(), log: &lines{}, admits: true}
		k := grant.SealingKey{ID: "k"}
		copy(k.Secret[:], "canary-key")
		ring, err := grant.NewKeyring([]grant.SealingKey{k})
		if err != nil {
			t.Fatal(err)
		}
		r.options = grant.Options{Store: r.store, Keys: ring, Log: slog.New(slog.NewTextHandler(r.log, nil)),
			Offers: []grant.Offer{{Connector: r.provider, Owner: grant.OwnedByUser,
				Offered: []string{"freebusy", "events"}}},
			Apps: []grant.App{
				{ID: "a", Name: "A", Connectors: map[string][]string{"calendar": {"freebusy", "events"}}, Offline: true,
					Admits: func(identity.Identity) bool { return r.admits }},
				{ID: "b", Name: "B", Connectors: map[string][]string{"calendar": {"events"}}},
			},
			Redirect: func(c string) string { return "https://sallyport.test/connect/" + c + "/callback" },
			Ended:    func(string, string, time.Time) bool { return r.ended.Load() },
			Audit: func(e grant.Event) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.events = append(r.events, e)
			},
		}
		if change != nil {
			change(r)
		}
		r.broker = r.another()
		f(r)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, text := range []string{r.log.String(), fmt.Sprintf("%+v", r.events)} {
			if strings.Contains(text, "canary") {
				t.Errorf("a secret is told: %s", text)
			}
		}
	})
}

// another is a further replica.
func (r *rig) another() *grant.Broker {
	r.Helper()
	b, err := grant.New(r.options)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		b.Close()
		if err := b.Wait(context.Background()); err != nil {
			r.Error(err)
		}
	})
	return b
}

func TestP12_AConnectorBelongsToPeopleOrToAnOrganization(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		for _, owner := range []grant.OwnerKind{"", "team", grant.OwnedByOrg} { // the last one without a manager
			o := r.options
			o.Offers = []grant.Offer{{Connector: r.provider, Owner: owner, Offered: []string{"freebusy", "events"}}}
			if b, err := grant.New(o); err == nil {
				b.Close()
				t.Errorf("a broker with a connector of %q", owner)
			}
		}
	})
}

func (r *rig) ask(app string, access ...string) grant.Ask {
	return grant.Ask{Connector: "calendar", App: app, Access: access}
}

func (r *rig) connect(a grant.Ask) grant.Kept {
	r.Helper()
	k, err := r.broker.Connect(r.Context(), ann, a, url.Values{}, identity.Handshake{}, false)
	if err != nil {
		r.Fatal(err)
	}
	return k
}

func use(app string) grant.Use {
	return grant.Use{App: app, Connector: "calendar", Who: grant.Party{Session: &ann}}
}

func (r *rig) lend(u grant.Use) grant.Loan {
	r.Helper()
	l, err := r.broker.Lend(r.Context(), u)
	if err != nil {
		r.Fatal(err)
	}
	return l
}

func (r *rig) kept() grant.Kept {
	r.Helper()
	k, err := r.store.Get(r.Context(), key())
	if err != nil {
		r.Fatal(err)
	}
	return k
}

func key() grant.Key {
	return grant.Key{Connector: "calendar", Owner: grant.Owner{Kind: grant.OwnedByUser, ID: "corp:ann"}}
}

func needs(t *testing.T, err error, missing ...string) {
	t.Helper()
	e, ok := errors.AsType[*grant.RequiredError](err)
	if !ok || !slices.Equal(e.Missing, missing) {
		t.Errorf("%v, want a need of %v", err, missing)
	}
}

func later(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*grant.LaterError](err); !ok {
		t.Errorf("%v, want a later", err)
	}
}

func TestP14_FiftyClientsAtOnceRefreshOnce(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		brokers := []*grant.Broker{r.broker, r.another(), r.another()}
		for round := range 5 {
			time.Sleep(life + time.Second)
			r.provider.set(func(context.Context, string) error {
				time.Sleep(2 * time.Second)
				return nil
			}, nil)
			var all sync.WaitGroup
			for i := range 50 {
				all.Go(func() {
					l, err := brokers[i%3].Lend(r.Context(), use("a"))
					if want := fmt.Sprint("canary-access-", round+2); err != nil || l.Credential() != want {
						t.Errorf("got %s, %v; want %s", l.Credential(), err, want)
					}
				})
			}
			all.Wait()
			if n := r.provider.calls(); n != round+1 {
				t.Fatalf("%d refreshes after %d expirations", n, round+1)
			}
		}
	})
}

func TestP14_AValidTokenIsLentWhileItIsRefreshed(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life / 2)
		r.lend(use("a"))
		synctest.Wait()
		if r.provider.calls() != 0 {
			t.Error("refreshed with half of the life left")
		}
		time.Sleep(life/2 - time.Minute)
		if l := r.lend(use("a")); l.Credential() != "canary-access-1" {
			t.Error(l.Credential())
		}
		synctest.Wait()
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" || r.provider.calls() != 1 {
			t.Error(l.Credential(), r.provider.calls())
		}
	})
}

// The database's clock is hours behind this machine's, or ahead of it. A credential lasts as
// long as the third party says all the same: it is refreshed once in its life, and not lent
// after it.
func TestP14_AClockThatIsWrongChangesNothing(t *testing.T) {
	for _, apart := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		t.Run(apart.String(), func(t *testing.T) {
			other := func(r *rig) {
				r.store = granttest.NewStore(func() time.Time { return time.Now().Add(apart) })
				r.options.Store = r.store
			}
			inBubble(t, other, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				for n := 1; n <= 3; n++ { // the first is of a connection, the others are of refreshes
					want := fmt.Sprint("canary-access-", n)
					for range 3 {
						if l := r.lend(use("a")); l.Credential() != want || r.provider.calls() != n-1 {
							t.Fatal(l.Credential(), r.provider.calls())
						}
						synctest.Wait()
					}
					time.Sleep(life / 2)
					if l := r.lend(use("a")); l.Credential() != want || r.provider.calls() != n-1 {
						t.Fatal("with half of its life left", l.Credential(), r.provider.calls())
					}
					synctest.Wait()
					time.Sleep(life/2 + time.Second)
				}
			})
		})
	}
}

// setBack has the store's clock, and this machine's as far as the broker can see it, go back by
// what is stored in the result.
func setBack(r *rig) *atomic.Int64 {
	back := &atomic.Int64{}
	r.store = granttest.NewStore(func() time.Time { return time.Now().Add(-time.Duration(back.Load())) })
	r.options.Store = r.store
	return back
}

// The clock is set back by a day after a refresh has failed, as where a machine began with a wrong
// one. What was noted to be tried in a moment is not left alone for that day.
func TestP14_AClockThatIsSetBackHoldsUpNoRefresh(t *testing.T) {
	for name, tt := range map[string]struct {
		fault error
		lost  bool // the answer, and with it the process that waited
	}{
		"the client is refused":      {fault: failure(grant.Ours, "invalid_client")},
		"the third party is busy":    {fault: failure(grant.Later, "busy")},
		"nothing could be sent":      {fault: failure(grant.Unsent, "unreachable")},
		"an answer that nobody read": {lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			var back *atomic.Int64
			inBubble(t, func(r *rig) { back = setBack(r) }, func(r *rig) {
				k := r.connect(r.ask("a", "freebusy"))
				time.Sleep(life + time.Second)
				if tt.lost {
					if _, _, err := r.store.Lease(r.Context(), k.ID, k.Generation); err != nil {
						t.Fatal(err)
					}
					time.Sleep(grant.LeaseTime + time.Second)
				} else {
					r.provider.set(always(tt.fault), nil)
					_, err := r.broker.Lend(r.Context(), use("a"))
					later(t, err)
					r.provider.set(nil, nil)
				}
				calls := r.provider.calls()
				back.Store(int64(24 * time.Hour))
				// By that clock the token is good for a day more. The third party knows better.
				l, err := r.broker.Rejected(r.Context(), r.lend(use("a")))
				for begun := time.Now(); err != nil && time.Since(begun) < 20*time.Second; time.Sleep(time.Second) {
					l, err = r.broker.Rejected(r.Context(), r.lend(use("a")))
				}
				if err != nil || l.Credential() != "canary-access-2" || r.provider.calls() != calls+1 {
					t.Errorf("%v, %d calls", err, r.provider.calls()-calls)
				}
			})
		})
	}
}

// The token endpoint answers with tokens that have expired when they come. Each request causes one
// call at most, and all of them together one a second; the newest refresh token is kept, and what
// is good is lent as soon as it comes.
func TestP14_ATokenThatIsOverWhenItComesIsNotAskedForAgainAndAgain(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.provider.set(nil, func(_ context.Context, is grant.Result) (grant.Result, error) {
			is.Tokens.AccessExpires = is.Tokens.AccessIssued.Add(-time.Second)
			return is, nil
		})
		time.Sleep(life + time.Second)
		for n := 1; n <= 5; n++ {
			for range 20 {
				_, err := r.broker.Lend(r.Context(), use("a"))
				later(t, err)
			}
			if calls := r.provider.calls(); calls != n {
				t.Fatalf("%d calls in %d s", calls, n)
			}
			if k := r.kept(); k.Status != grant.Degraded || k.Reason != grant.ReasonOver {
				t.Fatal(k.Status, k.Reason)
			}
			time.Sleep(time.Second)
		}
		r.provider.set(nil, nil)
		if l := r.lend(use("a")); l.Credential() != "canary-access-7" || r.kept().Status != grant.Active {
			t.Error(l.Credential(), r.kept().Status)
		}
		if r.provider.most() != 1 {
			t.Error("a refresh token was shown twice")
		}
	})
}

func TestP14_AWrongClientSecretHarmsNoGrant(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(always(failure(grant.Ours, "invalid_client")), nil)
		for range 600 {
			_, err := r.broker.Lend(r.Context(), use("a"))
			later(t, err)
			_, err = r.broker.Lend(r.Context(), use("a"))
			later(t, err)
			time.Sleep(time.Second)
		}
		if n := r.provider.calls(); n > 601 {
			t.Errorf("%d calls in 600 s", n)
		}
		lines, err := r.broker.List(r.Context(), "a", use("a").Who)
		if err != nil || len(lines) != 1 || lines[0].Status != grant.OperatorError {
			t.Errorf("%+v, %v", lines, err)
		}
		if n := strings.Count(r.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d shouts", n)
		}
		r.provider.set(nil, nil)
		time.Sleep(time.Second)
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" || r.kept().Status != grant.Active {
			t.Error("not back after a second", l.Credential(), r.kept().Status)
		}
	})
}

func TestP14_ARefusedClientIsTriedOnceASecondForAllGrants(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		var people []identity.Identity
		for i := range 20 {
			who := identity.Identity{Provider: "corp", Subject: fmt.Sprint(i)}
			_, err := r.broker.Connect(r.Context(), who, r.ask("a"), url.Values{}, identity.Handshake{}, false)
			if err != nil {
				t.Fatal(err)
			}
			people = append(people, who)
		}
		time.Sleep(life)
		r.provider.set(always(failure(grant.Ours, "invalid_client")), nil)
		for range 60 {
			for i := range people {
				u := use("a")
				u.Who.Session = &people[i]
				_, err := r.broker.Lend(r.Context(), u)
				later(t, err)
			}
			time.Sleep(time.Second)
		}
		if n := r.provider.calls(); n < 50 || n > 61 {
			t.Errorf("%d calls in 60 s", n)
		}
	})
}

func TestP14_ABusyThirdPartyIsLeftAloneAndTheGrantKept(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(always(&grant.Error{Class: grant.Later, Reason: "busy", RetryAfter: time.Minute,
			Err: errors.New("503")}), nil)
		for range 120 {
			_, err := r.broker.Lend(r.Context(), use("a"))
			later(t, err)
			time.Sleep(time.Second)
		}
		if n := r.provider.calls(); n != 2 {
			t.Errorf("%d calls in two minutes, with a Retry-After of one", n)
		}
		if s := r.kept().Status; s != grant.Degraded {
			t.Error(s)
		}
		r.provider.set(nil, nil)
		time.Sleep(time.Minute)
		r.lend(use("a"))
	})
}

func TestP14_WhatWasNotSentIsSentAgainAtOnce(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		n := 0
		r.provider.set(func(context.Context, string) error {
			if n++; n < 3 {
				return failure(grant.Unsent, "dial")
			}
			return nil
		}, nil)
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" {
			t.Error(l.Credential())
		}
	})
}

func TestP14_ALostAnswerIsAskedForOnceMore(t *testing.T) {
	for name, c := range map[string]struct {
		resend, keeps, rotates bool // what the connector says, and what the third party does
		status                 grant.Status
		most                   int
	}{
		"lost before it got there": {resend: true, status: grant.Active, most: 2},
		"lost after it rotated":    {resend: true, rotates: true, status: grant.NeedsReconnect, most: 2},
		"never shown again":        {resend: false, status: grant.NeedsReconnect, most: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) { r.provider.about.Resend = c.resend }, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				lost := failure(grant.Lost, "no_answer")
				if c.rotates {
					r.provider.set(nil, loseOnce())
				} else {
					once := false
					r.provider.set(func(context.Context, string) error {
						if once {
							return nil
						}
						once = true
						return lost
					}, nil)
				}
				begun := time.Now()
				_, err := r.broker.Lend(r.Context(), use("a"))
				if c.status == grant.Active && err != nil {
					t.Error(err)
				} else if c.status != grant.Active {
					needs(t, err, grant.MissingReconnect)
				}
				if s := r.kept().Status; s != c.status || time.Since(begun) > 13*time.Second {
					t.Errorf("%s after %v", s, time.Since(begun))
				}
				if n := r.provider.most(); n != c.most {
					t.Errorf("a token was shown %d times", n)
				}
			})
		})
	}
}

func TestP14_ATokenThatDoesNotRotateIsShownAgainUnderEveryRule(t *testing.T) {
	inBubble(t, func(r *rig) { r.provider.about.Resend = false }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.provider.keeps = true
		time.Sleep(life)
		r.lend(use("a"))
		time.Sleep(life)
		r.provider.set(nil, loseOnce())
		if l := r.lend(use("a")); r.kept().Status != grant.Active {
			t.Error(l, r.kept().Status)
		}
	})
}

func TestP14_ATokenIsNeverShownAThirdTime(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(always(failure(grant.Lost, "no_answer")), nil)
		for range 60 {
			_, _ = r.broker.Lend(r.Context(), use("a"))
			time.Sleep(time.Second)
		}
		if n := r.provider.most(); n != 2 {
			t.Errorf("shown %d times", n)
		}
		_, err := r.broker.Lend(r.Context(), use("a"))
		needs(t, err, grant.MissingReconnect)
		if k := r.kept(); k.Reason != grant.ReasonLostResponse {
			t.Error(k.Reason)
		}
	})
}

// Who waits for the refresh of another replica takes part in what came of it: a token that
// was refused is not shown once more, nor one for which the third party asked to wait.
func TestP14_WhoWaitedForARefreshDoesNotRepeatWhatFailed(t *testing.T) {
	for class, status := range map[grant.Class]grant.Status{grant.Yours: grant.NeedsReconnect,
		grant.AdminTheir: grant.NeedsAdmin, grant.Narrow: grant.TooNarrow, grant.Later: grant.Degraded,
		grant.Ours: grant.OperatorError} {
		t.Run(string(class), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				r.provider.set(func(context.Context, string) error {
					time.Sleep(2*time.Second + 100*time.Millisecond)
					return failure(class, "a test")
				}, nil)
				var all sync.WaitGroup
				for _, b := range []*grant.Broker{r.broker, r.another(), r.another()} {
					all.Go(func() {
						if l, err := b.Lend(r.Context(), use("a")); err == nil {
							t.Errorf("lent %v", l)
						}
					})
				}
				all.Wait()
				if n := r.provider.calls(); n != 1 || r.kept().Status != status {
					t.Errorf("%d calls, %s", n, r.kept().Status)
				}
			})
		})
	}
}

// hung holds the store of one broker as a process that is stopped does.
type hung struct {
	grant.Store
	mu   sync.Mutex
	till chan struct{} // nil: it does not hang
}

func (h *hung) wait() {
	h.mu.Lock()
	till := h.till
	h.mu.Unlock()
	if till != nil {
		<-till
	}
}

func (h *hung) Renew(ctx context.Context, l grant.Lease) (grant.Lease, error) {
	h.wait()
	return h.Store.Renew(ctx, l)
}

func (h *hung) Commit(ctx context.Context, l grant.Lease, r grant.Record, s grant.Seal) (grant.Record, error) {
	h.wait()
	return h.Store.Commit(ctx, l, r, s)
}

// stopped lets a broker refresh, and stops it between the answer and the commit.
func (r *rig) stopped() (goOn func()) {
	h := &hung{Store: r.store, till: make(chan struct{})}
	o := r.options
	o.Store = h
	r.options.Store, o = o.Store, r.options
	b := r.another()
	r.options = o
	go func() { _, _ = b.Lend(context.Background(), use("a")) }()
	synctest.Wait()
	return func() {
		close(h.till)
		synctest.Wait()
	}
}

func TestP14_ALateResultRevivesAGrantThatWasGivenUp(t *testing.T) {
	for name, resend := range map[string]bool{"resend": true, "reconnect": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) { r.provider.about.Resend = resend }, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				goOn := r.stopped() // it has the only good token
				if r.provider.calls() != 1 {
					t.Fatal(r.provider.calls())
				}
				begun := time.Now()
				for r.kept().Status != grant.NeedsReconnect {
					_, err := r.broker.Lend(r.Context(), use("a"))
					if err == nil {
						t.Fatal("somebody got a token that nobody has")
					}
					if time.Since(begun) > 45*time.Second {
						t.Fatal("not decided after", time.Since(begun))
					}
					time.Sleep(time.Second)
				}
				goOn()
				if l := r.lend(use("a")); l.Credential() != "canary-access-2" {
					t.Error(l.Credential())
				}
				time.Sleep(life)
				r.lend(use("a"))
				most := 1
				if resend {
					most = 2
				}
				if n := r.provider.most(); n != most {
					t.Errorf("a token was shown %d times", n)
				}
			})
		})
	}
}

func TestP14_AResultThatComesAfterTheEndIsRevoked(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		goOn := r.stopped()
		if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
			t.Fatal(err)
		}
		goOn()
		_, err := r.broker.Lend(r.Context(), use("a"))
		needs(t, err, "freebusy", "events")
		revoked := r.provider.revoked
		if len(revoked) != 2 || revoked[1].Access != "canary-access-2" {
			t.Errorf("%d were revoked", len(revoked))
		}
	})
}

// Whoever took the lease over has refreshed with the same token meanwhile. What comes late
// is of the same chain: to revoke it would end the grant that is lent.
func TestP14_AResultThatComesAfterAnotherRefreshIsNotRevoked(t *testing.T) {
	for name, keeps := range map[string]bool{"the refresh token stays": true, "it rotates, and both are good": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) { r.provider.keeps = keeps }, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				shown := r.provider.good
				goOn := r.stopped()
				r.provider.set(func(context.Context, string) error {
					r.provider.mu.Lock()
					defer r.provider.mu.Unlock()
					r.provider.good = shown
					return nil
				}, nil)
				for r.kept().Generation == 1 {
					_, _ = r.broker.Lend(r.Context(), use("a"))
					time.Sleep(time.Second)
				}
				goOn()
				time.Sleep(2 * time.Second)
				if n := len(r.provider.revoked); n != 0 {
					t.Errorf("%d were revoked, of a grant that is lent", n)
				}
				if l := r.lend(use("a")); l.Credential() != "canary-access-3" || r.provider.calls() != 2 {
					t.Error(l.Credential(), r.provider.calls())
				}
			})
		})
	}
}

func TestP14_OnAFullDiskTheResultWaitsInMemory(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		var full atomic.Bool
		full.Store(true)
		r.store.SetBefore(func(_ context.Context, method string) error {
			if full.Load() && (method == "Commit" || method == "Late" || method == "Renew") {
				return grant.ErrUnavailable
			}
			return nil
		})
		for range 10 {
			_, err := r.broker.Lend(r.Context(), use("a"))
			later(t, err)
		}
		if n := strings.Count(r.log.String(), "kept in memory"); n < 2 {
			t.Errorf("%d shouts in 100 s", n)
		}
		full.Store(false)
		time.Sleep(2 * time.Second)
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" || r.provider.calls() != 1 {
			t.Error(l.Credential(), r.provider.calls())
		}
	})
}

// unanswered is a store that does what it is asked, and whose first answer to Commit is lost,
// as where a database is killed just then. Afterwards it is away for one call of List.
type unanswered struct {
	*granttest.Store
	commits, lists atomic.Int64
	before         func() // of the call after the one whose answer was lost
}

func (s *unanswered) Commit(ctx context.Context, l grant.Lease, r grant.Record, seal grant.Seal) (
	grant.Record, error) {
	n := s.commits.Add(1)
	if n == 2 && s.before != nil {
		s.before()
	}
	next, err := s.Store.Commit(ctx, l, r, seal)
	if n == 1 && err == nil {
		return grant.Record{}, grant.ErrUnavailable
	}
	return next, err
}

func (s *unanswered) List(ctx context.Context, f grant.Filter) ([]grant.Kept, error) {
	if s.commits.Load() > 1 && s.lists.Add(1) == 1 {
		return nil, grant.ErrUnavailable
	}
	return s.Store.List(ctx, f)
}

func TestP14_AResultThatWasStoredWithoutAnAnswerIsNotRevoked(t *testing.T) {
	s := &unanswered{}
	inBubble(t, func(r *rig) { s.Store, r.options.Store = r.store, s }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		l := r.lend(use("a"))
		if l.Credential() != "canary-access-2" || r.kept().Generation != 2 || r.provider.calls() != 1 {
			t.Error(l.Credential(), r.kept().Generation, r.provider.calls())
		}
		if n := len(r.provider.revoked); n != 0 {
			t.Errorf("what was stored was revoked %d times", n)
		}
		if s.commits.Load() != 3 || s.lists.Load() < 2 {
			t.Errorf("%d commits, and looked %d times", s.commits.Load(), s.lists.Load())
		}
	})
}

func TestP14_AResultThatWasStoredAndMovedIsNotRevoked(t *testing.T) {
	s := &unanswered{}
	inBubble(t, func(r *rig) { s.Store, r.options.Store = r.store, s; organizations(r) }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		s.before = func() {
			if n, err := r.ops().Move(context.Background(), "acme", "globex"); n != 1 || err != nil {
				t.Error(n, err)
			}
		}
		r.refused(use("a"), "freebusy", "events")
		moved := use("a")
		there := inOrg(ann, "globex")
		moved.Who.Session = &there
		if l := r.lend(moved); l.Credential() != "canary-access-2" || len(r.provider.revoked) != 0 {
			t.Error(l.Credential(), len(r.provider.revoked))
		}
	})
}

// What comes when the grant is another owner's is not kept, and not revoked either: with a
// refresh token that stays the same that would end the grant where it is now.
func TestP14_AResultThatComesAfterAMoveIsNotRevoked(t *testing.T) {
	inBubble(t, func(r *rig) { organizations(r); r.provider.keeps = true }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		goOn := r.stopped()
		time.Sleep(grant.LeaseTime)
		if n, err := r.ops().Move(r.Context(), "acme", "globex"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		goOn()
		time.Sleep(2 * time.Second)
		moved := use("a")
		there := inOrg(ann, "globex")
		moved.Who.Session = &there
		if l := r.lend(moved); l.Credential() != "canary-access-3" || len(r.provider.revoked) != 0 {
			t.Error(l.Credential(), len(r.provider.revoked))
		}
	})
}

// slow is the store of a process that is stopped for a while as soon as it has a lease.
type slow struct {
	grant.Store
	stop time.Duration
}

func (s *slow) Lease(ctx context.Context, id string, generation int64) (grant.Lease, grant.Record, error) {
	l, r, err := s.Store.Lease(ctx, id, generation)
	if err == nil {
		time.Sleep(s.stop)
		s.stop = 0
	}
	return l, r, err
}

// failingOver is a store that gives leases, and whose answers are lost.
type failingOver struct {
	grant.Store
	lost int // how many
}

func (s *failingOver) Lease(ctx context.Context, id string, generation int64) (grant.Lease, grant.Record, error) {
	l, r, err := s.Store.Lease(ctx, id, generation)
	if err == nil && s.lost > 0 {
		s.lost--
		return l, grant.Record{}, grant.ErrUnavailable
	}
	return l, r, err
}

// A refresh token that nobody showed has not been shown: also where the third party takes none
// twice, a database that fails over, again and again, costs nobody a grant.
func TestP14_ALeaseWhoseAnswerWasLostIsNoAttempt(t *testing.T) {
	store := &failingOver{lost: 3}
	inBubble(t, func(r *rig) {
		store.Store, r.options.Store = r.store, store
		r.provider.about.Resend = false
	}, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		for range 3 {
			_, err := r.broker.Lend(r.Context(), use("a"))
			later(t, err)
			time.Sleep(time.Second)
		}
		if l := r.lend(use("a")); l.Credential() != "canary-access-2" || r.provider.calls() != 1 {
			t.Errorf("%s, %d calls", l.Credential(), r.provider.calls())
		}
	})
}

// Somebody else has the lease meanwhile, and refreshes: what this one has would be shown a
// second time, and a third party that rotates tokens would take that for theft.
func TestP14_WhoWasStoppedBeforeItSentDoesNotSendAfterItsLease(t *testing.T) {
	for _, stop := range []time.Duration{grant.LeaseTime + 5*time.Second, grant.LeaseTime - time.Second} {
		t.Run(stop.String(), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				o := r.options
				o.Store = &slow{r.store, stop}
				stopped, err := grant.New(o)
				if err != nil {
					t.Fatal(err)
				}
				var asked, ended atomic.Int64
				r.provider.set(func(context.Context, string) error {
					asked.Add(1)
					defer ended.Add(1)
					if asked.Load()-ended.Load() > 1 {
						t.Error("two refreshes at the same time")
					}
					time.Sleep(9 * time.Second)
					return nil
				}, nil)
				go func() { _, _ = stopped.Lend(context.Background(), use("a")) }()
				synctest.Wait()
				for {
					if l, err := r.broker.Lend(r.Context(), use("a")); err == nil {
						if l.Credential() != "canary-access-2" {
							t.Error(l.Credential())
						}
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				stopped.Close()
				if err := stopped.Wait(r.Context()); err != nil {
					t.Error(err)
				}
				if n := r.provider.calls(); n != 1 || r.kept().Status != grant.Active {
					t.Errorf("the token was shown %d times, and the grant is %s", n, r.kept().Status)
				}
			})
		})
	}
}

func TestP14_ACallBeginsOnlyWhereItsLeaseOutlastsIt(t *testing.T) {
	for name, tt := range map[string]struct {
		renews, ends bool
		calls        int
	}{"the lease is renewed": {true, false, 3}, "it is not": {false, false, 2}, "the grant ends": {true, true, 1}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				r.store.SetBefore(func(_ context.Context, method string) error {
					if method == "Renew" && !tt.renews {
						return grant.ErrUnavailable
					}
					return nil
				})
				r.provider.set(func(context.Context, string) error {
					time.Sleep(grant.CallTime)
					return failure(grant.Unsent, "unreachable")
				}, nil)
				go func() { _, _ = r.broker.Lend(context.Background(), use("a")) }()
				time.Sleep(time.Second)
				if tt.ends {
					if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(4 * grant.CallTime)
				if n := r.provider.calls(); n != tt.calls {
					t.Errorf("%d calls, want %d", n, tt.calls)
				}
			})
		})
	}
}

func TestP14_WithoutRoomNoTokenIsShown(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.store.SetNoRoom(true)
		_, err := r.broker.Lend(r.Context(), use("a"))
		later(t, err)
		if r.provider.calls() != 0 {
			t.Error("a refresh without room for its result")
		}
	})
}

func TestP14_ARefusedCredentialIsRefreshedOnce(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		old := r.lend(use("a"))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if l, err := r.broker.Rejected(r.Context(), old); err != nil || l.Credential() != "canary-access-2" {
					t.Error(l.Credential(), err)
				}
			})
		}
		all.Wait()
		next := r.lend(use("a"))
		if _, err := r.broker.Rejected(r.Context(), next); !errors.Is(err, grant.ErrStillRejected) {
			t.Error(err)
		}
		if n := r.provider.calls(); n != 1 {
			t.Errorf("%d refreshes", n)
		}
	})
}

func TestP15_ARefreshGoesOnWhenTheClientAndTheConfigurationGo(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(func(context.Context, string) error {
			time.Sleep(5 * time.Second)
			return nil
		}, nil)
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if _, err := r.broker.Lend(ctx, use("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		r.broker.Close()
		if err := r.broker.Wait(r.Context()); err != nil {
			t.Error(err)
		}
		if r.kept().Generation != 2 {
			t.Error("the result was dropped")
		}
	})
}

// Where the third party says when it forgets a refresh token, a grant that apps use is refreshed
// before that: an app that is used once in two weeks would else find it over.
func TestP14_AGrantIsRefreshedBeforeItsRefreshTokenIsForgotten(t *testing.T) {
	for _, forgets := range []time.Duration{30 * time.Minute, 24 * time.Hour, 5 * 24 * time.Hour} {
		t.Run(forgets.String(), func(t *testing.T) {
			inBubble(t, func(r *rig) { r.provider.forgets = forgets }, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				r.lend(use("a"))
				time.Sleep(14 * 24 * time.Hour)
				r.lend(use("a"))
				if n, most := r.provider.calls(), int(3*14*24*time.Hour/forgets); n > most {
					t.Errorf("%d refreshes in two weeks, at most %d", n, most)
				}
			})
		})
	}
}

// Where no refresh moves the end, none is made for it.
func TestAnEndThatNoRefreshMovesCausesNone(t *testing.T) {
	inBubble(t, func(r *rig) { r.provider.forgets, r.provider.final = 5*24*time.Hour, true }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lend(use("a"))
		time.Sleep(6 * 24 * time.Hour)
		if n := r.provider.calls(); n > 1 { // that of seven days may be due a quarter earlier
			t.Errorf("%d refreshes", n)
		}
	})
}

func TestP14_AnIdleGrantThatAppsUseIsRefreshedBeforeItDies(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.lend(use("a"))
		time.Sleep(8 * 24 * time.Hour)
		if r.provider.calls() != 1 {
			t.Errorf("%d refreshes in eight days", r.provider.calls())
		}
		time.Sleep(60 * 24 * time.Hour)
		if n := r.provider.calls(); n < 4 || n > 6 {
			t.Errorf("%d refreshes of a grant that is not used any more", n)
		}
	})
}

func TestP14_WhatEndsAGrantSaysWhoCanHelp(t *testing.T) {
	for class, status := range map[grant.Class]grant.Status{grant.Yours: grant.NeedsReconnect,
		grant.Gone: grant.RevokedUpstream, grant.AdminTheir: grant.NeedsAdmin, grant.Narrow: grant.TooNarrow} {
		t.Run(string(class), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.connect(r.ask("a", "freebusy"))
				time.Sleep(life)
				r.provider.set(always(failure(class, "a_code")), nil)
				if l, err := r.broker.Lend(r.Context(), use("a")); err == nil {
					t.Error("lent", l)
				}
				time.Sleep(time.Hour)
				_, _ = r.broker.Lend(r.Context(), use("a"))
				if k := r.kept(); k.Status != status || k.Reason != "a_code" || r.provider.calls() != 1 {
					t.Errorf("%s %s after %d calls", k.Status, k.Reason, r.provider.calls())
				}
			})
		})
	}
}

// A store without room refuses each lend, and fills no log beside it.
func TestAFullStoreIsToldOnceInTenSeconds(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.store.SetNoRoom(true)
		told := func() int { return strings.Count(r.log.String(), "has no room for the result") }
		for range 50 {
			if _, err := r.broker.Lend(r.Context(), use("a")); !errors.Is(err, grant.ErrNoRoom) {
				t.Fatalf("lent with %v", err)
			}
		}
		if told() != 1 {
			t.Errorf("told %d times of 50 refusals at once", told())
		}
		time.Sleep(11 * time.Second)
		if _, err := r.broker.Lend(r.Context(), use("a")); err == nil || told() != 2 {
			t.Errorf("told %d times 11 s later; %v", told(), err)
		}
	})
}
