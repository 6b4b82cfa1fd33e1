package grant_test

import (
	"context"
	"errors"
	"fmt"
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

var bob = identity.Identity{Provider: "corp", Subject: "bob", Org: identity.Org{ID: "acme"}}

func away() grant.Use {
	return grant.Use{App: "a", Connector: "calendar", Who: grant.Party{Person: ann.ID()}}
}

func (r *rig) refused(u grant.Use, missing ...string) {
	r.Helper()
	_, err := r.broker.Lend(r.Context(), u)
	needs(r.T, err, missing...)
}

func accesses(l grant.Loan) []string {
	var names []string
	for _, a := range l.Accesses {
		names = append(names, a.Name)
	}
	return names
}

func TestP12_AnAppIsLentWhatWasAgreedAndNothingElse(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.refused(use("a"), "freebusy", "events")
		r.connect(r.ask("a", "freebusy"))
		r.refused(use("b"), "events")
		l := r.lend(use("a"))
		name, value := l.Header()
		if name != "Authorization" || value != "Bearer canary-access-1" || l.Origin != "https://calendar.test" {
			t.Error(name, value, l.Origin)
		}
		if rules := l.Rules(); len(rules) != 1 || !rules[0].Match("GET", "/busy") || len(l.Wider) != 1 {
			t.Error(rules, l.Wider)
		}
		other := use("a")
		other.Who.Session = &bob
		r.refused(other, "freebusy", "events")
	})
}

func TestP12_AStaysNarrowAfterBWidens(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		p, err := r.broker.Prepare(r.Context(), ann, r.ask("b"))
		if err != nil || !p.Trip || !slices.Equal(p.Scopes, []string{"busy", "events"}) {
			t.Fatalf("%+v, %v", p.Scopes, err)
		}
		if l := r.lend(use("a")); l.Credential() != "canary-access-1" {
			t.Error("the narrow grant is gone before the wider one is there")
		}
		id := r.kept().ID
		k := r.connect(r.ask("b"))
		if k.ID != id || len(k.Consents) != 2 {
			t.Error("reconnecting makes another grant", k.Consents)
		}
		if got := accesses(r.lend(use("a"))); !slices.Equal(got, []string{"freebusy"}) {
			t.Error("A was widened:", got)
		}
		if got := accesses(r.lend(use("b"))); !slices.Equal(got, []string{"events"}) {
			t.Error(got)
		}
		// Now that the grant suffices, A's wider consent takes no trip.
		p, err = r.broker.Prepare(r.Context(), ann, r.ask("a", "events"))
		if err != nil || p.Trip {
			t.Fatal(p.Trip, err)
		}
		if err := r.broker.Agree(r.Context(), ann, p); err != nil {
			t.Fatal(err)
		}
		if got := accesses(r.lend(use("a"))); !slices.Equal(got, []string{"freebusy", "events"}) {
			t.Error(got)
		}
	})
}

func TestP12_AgreeNeedsAGrantThatSuffices(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		p, err := r.broker.Prepare(r.Context(), ann, r.ask("b"))
		if err != nil {
			t.Fatal(err)
		}
		needs(t, r.broker.Agree(r.Context(), ann, p), grant.MissingReconnect)
		r.refused(use("b"), "events")
	})
}

func TestP12_LessThanIsNeededIsNotStored(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		before := r.kept()
		r.provider.granted = []string{"busy"}
		_, err := r.broker.Connect(r.Context(), ann, r.ask("b"), url.Values{}, identity.Handshake{}, false)
		if e, ok := errors.AsType[*grant.NarrowError](err); !ok || !slices.Equal(e.Missing, []string{"events"}) {
			t.Error(err)
		}
		now := r.kept()
		if now.Version != before.Version || len(r.provider.revoked) != 1 || r.provider.sibling[0] != 1 {
			t.Error("something was stored, or what came was left alone", r.provider.sibling)
		}
	})
}

// Two people have connected one account, with two clients; the one that ends theirs may end
// the other's there.
func TestGrantsOfClientsThatEndTogetherAreCounted(t *testing.T) {
	for shares, want := range map[bool]int{false: 0, true: 1} {
		inBubble(t, nil, func(r *rig) {
			r.provider.shares = shares
			r.connectOf(bob)
			r.provider.about.ClientID = "another client"
			r.connectOf(ann)
			if _, err := r.broker.End(r.Context(), ann, "calendar"); err != nil {
				t.Fatal(err)
			}
			if got := r.provider.sibling; !slices.Equal(got, []int{want}) {
				t.Errorf("shared %v: %v other grants were counted", shares, got)
			}
		})
	}
}

func TestP06_AnotherAccountNeedsAConfirmation(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.provider.account = grant.Account{ID: "2", Name: "bob@calendar.test"}
		_, err := r.broker.Connect(r.Context(), ann, r.ask("a"), url.Values{}, identity.Handshake{}, false)
		e, ok := errors.AsType[*grant.OtherAccountError](err)
		if !ok || e.Was.ID != "1" || e.Now.ID != "2" || r.kept().Account.ID != "1" {
			t.Fatal(err)
		}
		k, err := r.broker.Connect(r.Context(), ann, r.ask("a"), url.Values{}, identity.Handshake{}, true)
		if err != nil || k.Account.ID != "2" {
			t.Error(k.Account, err)
		}
		var ended []string
		for _, tokens := range r.provider.revoked {
			ended = append(ended, tokens.Access)
		}
		// What was refused, and then the account that was there before.
		if !slices.Equal(ended, []string{"canary-access-2", "canary-access-1"}) {
			t.Error(ended)
		}
	})
}

// Whoever manages an account chooses what it is called. A name that could not stand in a sentence of
// ours is left out, where it is kept and where somebody is asked about it.
func TestP06_ANameOfAnAccountThatWouldMisleadIsLeftOut(t *testing.T) {
	for name, shown := range map[string]bool{
		"ann@calendar.test": true, "Acme, Inc. (東京　支店) 👩‍💻": true, strings.Repeat("x", 254): true,
		strings.Repeat("x", 255): false, "Acme\r\nX-Admin: yes": false, "Acme\u2028is connected": false,
		"Acme\u202etset": false, "Acme\x1b[2J": false, "Acme\xff": false, "Acme\u2067": false,
	} {
		inBubble(t, nil, func(r *rig) {
			r.provider.account = grant.Account{ID: "1", Name: name}
			k := r.connect(r.ask("a", "freebusy"))
			if want := map[bool]string{true: name}[shown]; k.Account.Name != want || k.Account.ID != "1" {
				t.Errorf("%q is kept as %q", name, k.Account.Name)
			}
			r.provider.account.ID = "2"
			_, err := r.broker.Connect(r.Context(), ann, r.ask("a", "freebusy"), url.Values{}, identity.Handshake{}, false)
			if other, ok := errors.AsType[*grant.OtherAccountError](err); !ok || other.Now.Name != k.Account.Name {
				t.Errorf("%q is asked about: %v", name, err)
			}
		})
	}
}

func TestP06_ACallbackOfAnotherIssuerIsNotRedeemed(t *testing.T) {
	inBubble(t, func(r *rig) { r.provider.issuer = "https://calendar.test" }, func(r *rig) {
		another, both := []string{"https://evil.test"}, []string{"https://calendar.test", "https://evil.test"}
		for name, callback := range map[string]url.Values{
			"none": {"code": {"c"}}, "another": {"code": {"c"}, "iss": another}, "both": {"code": {"c"}, "iss": both},
			"another's error": {"error": {"access_denied"}, "iss": another},
		} {
			_, err := r.broker.Connect(r.Context(), ann, r.ask("a"), callback, identity.Handshake{}, false)
			if !errors.Is(err, grant.ErrIssuer) || r.provider.n != 0 {
				t.Error(name, err)
			}
		}
		// Who says no at a server that names itself with codes only is not told of somebody else.
		for name, callback := range map[string]url.Values{
			"an error": {"error": {"access_denied"}}, "with iss": {"error": {"access_denied"}, "iss": both[:1]},
		} {
			_, err := r.broker.Connect(r.Context(), ann, r.ask("a"), callback, identity.Handshake{}, false)
			if grant.ClassOf(err) != grant.Yours || errors.Is(err, grant.ErrIssuer) || r.provider.n != 0 {
				t.Error(name, err)
			}
		}
	})
}

func TestP12_WhatIsNotConfiguredCannotBeAskedFor(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		offline := r.ask("b")
		offline.Offline = true
		for want, a := range map[error]grant.Ask{
			grant.ErrNoConnector: {Connector: "x", App: "a"},
			grant.ErrNoApp:       {Connector: "calendar", App: "x"},
			grant.ErrNotOffered:  r.ask("b", "freebusy"),
			grant.ErrNoOffline:   offline,
		} {
			if _, err := r.broker.Prepare(r.Context(), ann, a); !errors.Is(err, want) {
				t.Errorf("%+v: %v, want %v", a, err, want)
			}
		}
		_, err := r.broker.Prepare(r.Context(), ann, grant.Ask{Connector: "calendar"})
		if !errors.Is(err, grant.ErrNoApp) {
			t.Error("a reconnect of nothing:", err)
		}
	})
}

func TestP12_UseWhileAwayIsAConsentOfItsOwn(t *testing.T) {
	day := 24 * time.Hour
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.refused(away(), grant.MissingOffline)
		agree := func() {
			t.Helper()
			a := r.ask("a", "freebusy")
			a.Offline = true
			p, err := r.broker.Prepare(r.Context(), ann, a)
			if err != nil || p.Trip {
				t.Fatal(p.Trip, err)
			}
			if err := r.broker.Agree(r.Context(), ann, p); err != nil {
				t.Fatal(err)
			}
			r.lend(away())
		}
		signIn := func() {
			t.Helper()
			if err := r.broker.SignedIn(r.Context(), ann); err != nil {
				t.Fatal(err)
			}
		}

		agree()
		time.Sleep(grant.OfflineTime - time.Hour)
		r.lend(away())
		time.Sleep(2 * time.Hour)
		r.refused(away(), grant.MissingOffline)
		r.lend(use("a"))

		agree()
		time.Sleep(20 * day)
		signIn()
		time.Sleep(11 * day) // a sign-in prolongs Lapses, and not Until
		r.refused(away(), grant.MissingOffline)

		agree()
		r.ended.Store(true) // a cut
		r.refused(away(), grant.MissingOffline)
		r.ended.Store(false)
		r.lend(away())

		r.admits = false
		signIn()
		r.refused(away(), grant.MissingOffline)
		r.lend(use("a")) // who is not let in has no assertion to show
	})
}

func TestP12_UseWhileAwayLapsesBeforeALaterUntil(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		c, _ := k.Consent("a")
		c.Offline, c.Until, c.Lapses = true, time.Now().Add(2*grant.OfflineTime), time.Now().Add(grant.OfflineTime)
		if err := r.store.Agree(r.Context(), k.ID, c, k.Version); err != nil {
			t.Fatal(err)
		}
		r.lend(away())
		time.Sleep(grant.OfflineTime)
		r.refused(away(), grant.MissingOffline)
	})
}

func TestP15_WhatTheConfigurationTakesBackIsNotLentAnyMore(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy", "events"))
		r.options.Apps[0].Connectors = map[string][]string{"calendar": {"freebusy"}}
		l, err := r.another().Lend(r.Context(), use("a"))
		if got := accesses(l); err != nil || !slices.Equal(got, []string{"freebusy"}) || len(l.Wider) != 0 {
			t.Error(got, l.Wider, err)
		}
	})
}

func TestP12_AnOrganizationsGrantIsManagedByItsManagersOnly(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.options.Offers[0].Owner = grant.OwnedByOrg
		r.options.Offers[0].ManagedBy = func(who identity.Identity) bool { return who.ID() == ann.ID() }
		r.options.Offers[0].UsableBy = func(who identity.Identity) bool { return who.Subject != "eve" }
	}, func(r *rig) {
		if _, err := r.broker.Prepare(r.Context(), bob, r.ask("a")); !errors.Is(err, grant.ErrNotManager) {
			t.Error(err)
		}
		homeless := ann
		homeless.Org = identity.Org{}
		if _, err := r.broker.Prepare(r.Context(), homeless, r.ask("a")); !errors.Is(err, grant.ErrNoOrg) {
			t.Error(err)
		}
		r.connect(r.ask("a"))
		bobs := use("a")
		bobs.Who.Session = &bob
		r.lend(bobs)
		eve := bob
		eve.Subject = "eve"
		eves := use("a")
		eves.Who.Session = &eve
		if _, err := r.broker.Lend(r.Context(), eves); !errors.Is(err, grant.ErrNotUser) {
			t.Error(err)
		}
		elsewhere := bob
		elsewhere.Org.ID = "other"
		others := use("a")
		others.Who.Session = &elsewhere
		r.refused(others, "freebusy", "events")
		if _, err := r.broker.End(r.Context(), bob, "calendar"); !errors.Is(err, grant.ErrNotManager) {
			t.Error(err)
		}
		if err := r.broker.Withdraw(r.Context(), bob, "calendar", "a"); !errors.Is(err, grant.ErrNotManager) {
			t.Error(err)
		}
		views, err := r.broker.View(r.Context(), bob)
		if err != nil || len(views) != 1 || views[0].MayManage {
			t.Errorf("%+v, %v", views, err)
		}
		if views, err = r.broker.View(r.Context(), eve); err != nil || len(views) != 0 {
			t.Errorf("%+v, %v", views, err)
		}
	})
}

// A manager who is none any more takes along what apps may do while nobody is there, which was
// for as long as they vouch for it, and nothing else of what is the organization's.
func TestP12_AnOrganizationKeepsItsGrantWhenAManagerIsNoneAnyMore(t *testing.T) {
	manages := true
	inBubble(t, func(r *rig) {
		r.options.Offers[0].Owner = grant.OwnedByOrg
		r.options.Offers[0].ManagedBy = func(who identity.Identity) bool { return manages || who.ID() == bob.ID() }
	}, func(r *rig) {
		ask := r.ask("a")
		ask.Offline = true
		r.connect(ask)
		absent := grant.Use{App: "a", Connector: "calendar", Who: grant.Party{Org: ann.Org.ID}}
		bobs := use("a")
		bobs.Who.Session = &bob
		r.lend(absent)
		manages = false
		if err := r.broker.SignedIn(r.Context(), ann); err != nil {
			t.Fatal(err)
		}
		r.lend(bobs)
		r.refused(absent, grant.MissingOffline)
		p, err := r.broker.Prepare(r.Context(), bob, ask)
		if err != nil || p.Trip {
			t.Fatalf("another manager cannot simply agree: %v, %v", p.Trip, err)
		}
		if err := r.broker.Agree(r.Context(), bob, p); err != nil {
			t.Fatal(err)
		}
		r.lend(absent)
	})
}

func TestP12_DisconnectingEndsItForAllReplicasAndAtTheThirdParty(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		r.connect(r.ask("b"))
		other := r.another()
		if err := r.broker.Withdraw(r.Context(), ann, "calendar", "a"); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Lend(r.Context(), use("a")); err == nil || len(r.provider.revoked) != 0 {
			t.Error("the app is still lent it, or all was ended", err)
		}
		if _, err := other.Lend(r.Context(), use("b")); err != nil {
			t.Error(err)
		}
		became, err := r.broker.End(r.Context(), ann, "calendar")
		if err != nil || became != grant.Revoked || len(r.provider.revoked) != 1 {
			t.Error(became, err)
		}
		_, err = other.Lend(r.Context(), use("b"))
		needs(t, err, "events")
		if _, err := r.broker.End(r.Context(), ann, "calendar"); !errors.Is(err, grant.ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestP13_ARowThatWasPutBackIsRefused: the store notices it when the token is about to be
// shown, and it is not.
func TestP13_ARowThatWasPutBackIsRefused(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		k := r.connect(r.ask("a", "freebusy"))
		putBack := r.store.Keep(k.ID)
		time.Sleep(life)
		r.lend(use("a"))
		putBack()
		r.refused(use("a"), grant.MissingReconnect)
		if k := r.kept(); k.Reason != grant.ReasonRolledBack || r.provider.most() != 1 {
			t.Error(k.Reason, r.provider.most())
		}
		r.connect(r.ask("a", "freebusy"))
		r.lend(use("a"))
	})
}

// swapping answers with the sealed fields of another grant.
type swapping struct {
	grant.Store
	sealed grant.Record
}

func (s swapping) Get(ctx context.Context, k grant.Key) (grant.Kept, error) {
	kept, err := s.Store.Get(ctx, k)
	kept.Sealed, kept.Wrapped = s.sealed.Sealed, s.sealed.Wrapped
	return kept, err
}

func TestP13_ASwappedRowIsRefused(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		bobs, err := r.broker.Connect(r.Context(), bob, r.ask("a"), url.Values{}, identity.Handshake{}, false)
		if err != nil {
			t.Fatal(err)
		}
		r.options.Store = swapping{r.store, bobs.Record}
		_, err = r.another().Lend(r.Context(), use("a"))
		needs(t, err, grant.MissingReconnect)
		if !errors.Is(err, grant.ErrSealed) || !strings.Contains(r.log.String(), "swapped") {
			t.Error(err)
		}
	})
}

func TestP15_AGrantOfAnotherClientIsNotShownToThisOne(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.mu.Lock()
		r.provider.about.ClientID = "another" // as another configuration has it
		r.provider.mu.Unlock()
		r.refused(use("a"), grant.MissingReconnect)
		if r.provider.calls() != 0 {
			t.Error("a refresh token of one client was shown for another")
		}
		became, err := r.broker.End(r.Context(), ann, "calendar")
		if err != nil || became != grant.NotSupported || len(r.provider.revoked) != 0 {
			t.Errorf("it was shown for another one to be ended: %s, %d times, %v", became, len(r.provider.revoked), err)
		}
	})
}

func TestP12_ReconnectingFromTheAccountPageKeepsTheConsents(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		time.Sleep(life)
		r.provider.set(always(failure(grant.Yours, "invalid_grant")), nil)
		r.refused(use("a"), grant.MissingReconnect)
		views, err := r.broker.View(r.Context(), ann)
		if err != nil || len(views) != 1 || views[0].Status != grant.NeedsReconnect || len(views[0].Apps) != 2 {
			t.Fatalf("%+v, %v", views, err)
		}
		if _, next := views[0].Status.Words("Google"); next == "" {
			t.Error("the page names no next step")
		}
		k := r.connect(grant.Ask{Connector: "calendar"})
		if len(k.Consents) != 1 {
			t.Error(k.Consents)
		}
		if got := accesses(r.lend(use("a"))); !slices.Equal(got, []string{"freebusy"}) {
			t.Error(got)
		}
	})
}

// A grant is connected again, from the account page, for what its apps may do by the configuration
// of now. Where that is nothing, the third party is asked for nothing: without a scope some would
// grant all that they have (RFC 6749 §3.3).
func TestP12_ReconnectingFromTheAccountPageAsksForNothingThatNobodyNeeds(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy", "events"))
		b := func(access ...string) *grant.Broker {
			o := r.options
			o.Apps = slices.Clone(o.Apps)
			if o.Apps[0].Connectors = map[string][]string{"calendar": access}; len(access) == 0 {
				o.Apps = o.Apps[1:]
			}
			r.options, o = o, r.options
			defer func() { r.options = o }()
			return r.another()
		}
		p, err := b("freebusy").Prepare(r.Context(), ann, grant.Ask{Connector: "calendar"})
		if err != nil || !slices.Equal(p.Scopes, []string{"busy"}) {
			t.Errorf("an access was taken away: %v, %v", p.Scopes, err)
		}
		p, err = b().Prepare(r.Context(), ann, grant.Ask{Connector: "calendar"})
		if !errors.Is(err, grant.ErrNoApp) {
			t.Errorf("the app was taken away: %v, %v", p.Scopes, err)
		}
		if err := r.broker.Withdraw(r.Context(), ann, "calendar", "a"); err != nil {
			t.Fatal(err)
		}
		p, err = r.broker.Prepare(r.Context(), ann, grant.Ask{Connector: "calendar"})
		if !errors.Is(err, grant.ErrNoApp) {
			t.Errorf("no app has a consent: %v, %v", p.Scopes, err)
		}
	})
}

func TestP12_AnAppLearnsNothingOfAGrantThatIsNotLentToIt(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		lines, err := r.broker.List(r.Context(), "b", use("b").Who)
		if err != nil || len(lines) != 1 || lines[0].Status != grant.NotConnected || lines[0].Account.ID != "" {
			t.Errorf("%+v, %v", lines, err)
		}
		lines, err = r.broker.List(r.Context(), "a", use("a").Who)
		if err != nil || !slices.Equal(lines[0].Access, []string{"freebusy"}) || lines[0].Offline ||
			!slices.Equal(lines[0].Scopes, []string{"busy"}) || !slices.Equal(lines[0].Missing, []string{"events"}) {
			t.Errorf("%+v, %v", lines, err)
		}
	})
}

func TestP08_NoVerbPrintsALoan(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		l := r.lend(use("a"))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			text := fmt.Sprintf(verb+verb, l, &l)
			if strings.Contains(text, "canary") || strings.Contains(text, "63616e") {
				t.Error(verb, text)
			}
		}
	})
}

// keyOnly is a third party that takes pasted keys.
type keyOnly struct {
	about grant.About
	probe *probe
}

// probe is how a third party answers to one key after another.
type probe struct {
	mu    sync.Mutex
	asked int
	now   error         // nil: it takes the key
	meet  func()        // called while it is asked
	takes time.Duration // to answer
}

func (p *probe) answer() error {
	if p == nil {
		return nil
	}
	time.Sleep(p.takes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.meet != nil {
		p.meet()
	}
	return p.now
}

func (k keyOnly) About() grant.About        { return k.about }
func (keyOnly) Origin(grant.Account) string { return "https://pager.test" }
func (k keyOnly) Accept(_ context.Context, key string, r grant.Request) (grant.Result, error) {
	if key != "canary-good" {
		return grant.Result{}, failure(grant.Yours, "key_refused")
	}
	if err := k.probe.answer(); err != nil {
		return grant.Result{}, err
	}
	return grant.Result{Tokens: grant.Tokens{Access: key}, Scopes: r.Scopes}, nil
}

func TestP12_APastedKeyIsKeptWhenTheThirdPartyTakesIt(t *testing.T) {
	inBubble(t, func(r *rig) {
		about := r.provider.about
		about.ClientID = ""
		r.options.Offers[0].Connector = keyOnly{about, nil}
	}, func(r *rig) {
		_, err := r.broker.ConnectKey(r.Context(), ann, r.ask("a"), "canary-bad", false)
		if grant.ClassOf(err) != grant.Yours || strings.Contains(err.Error(), "canary") {
			t.Error(err)
		}
		r.refused(use("a"), "freebusy", "events")
		if _, err := r.broker.ConnectKey(r.Context(), ann, r.ask("a"), "canary-good", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)
		l := r.lend(use("a"))
		if l.Credential() != "canary-good" {
			t.Error("another key")
		}
		if _, err := r.broker.Rejected(r.Context(), l); !errors.Is(err, grant.ErrStillRejected) {
			t.Error(err)
		}
		if became, err := r.broker.End(r.Context(), ann, "calendar"); err != nil || became != grant.NotSupported {
			t.Error(became, err)
		}
	})
}

// Somebody who signed in pastes one key after another, and the third party, which they may have
// named themselves, takes its time. A few are tried at a time; other people connect meanwhile, as
// many as there is room for, and all can go on when there is some again.
func TestP17_ConnectionsThatAreUnderWayAreBounded(t *testing.T) {
	p := &probe{takes: 15 * time.Second}
	inBubble(t, func(r *rig) {
		about := r.provider.about
		about.ClientID = ""
		r.options.Offers[0].Connector = keyOnly{about, p}
	}, func(r *rig) {
		begin := func(who identity.Identity) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := r.broker.ConnectKey(context.Background(), who, r.ask("a"), "canary-good", true)
				done <- err
			}()
			return done
		}
		var own []<-chan error
		for range 20 {
			own = append(own, begin(ann))
		}
		synctest.Wait()
		others := []<-chan error{}
		for n := range 300 {
			others = append(others, begin(person(n)))
		}
		refused := func(list []<-chan error) (n int) {
			for _, done := range list {
				if err := <-done; err != nil {
					later(t, err)
					n++
				}
			}
			return n
		}
		if n := refused(own); n != 16 {
			t.Errorf("%d of 20 of one person were refused", n)
		}
		if n := refused(others); n != 300-(256-4) {
			t.Errorf("%d of 300 people were refused", n)
		}
		if p.asked != 256 {
			t.Errorf("asked %d times", p.asked)
		}
		if err := <-begin(ann); err != nil {
			t.Error(err)
		}
	})
}

// withKey runs f with a key that was pasted, which the third party judges by p.
func withKey(t *testing.T, f func(*rig, *probe, grant.Loan)) {
	t.Helper()
	p := &probe{}
	inBubble(t, func(r *rig) {
		about := r.provider.about
		about.ClientID = ""
		r.options.Offers[0].Connector = keyOnly{about, p}
	}, func(r *rig) {
		if _, err := r.broker.ConnectKey(r.Context(), ann, r.ask("a"), "canary-good", false); err != nil {
			t.Fatal(err)
		}
		p.asked = 0
		f(r, p, r.lend(use("a")))
	})
}

func TestP12_ARefusedKeyIsCheckedOnceAndEndsTheGrantOnlyIfItIsRefusedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		status grant.Status
		reason string
	}{
		"it works":                      {nil, grant.Active, ""},
		"refused":                       {failure(grant.Yours, "key_refused"), grant.NeedsReconnect, "key_refused"},
		"ended there":                   {failure(grant.Gone, "key_deleted"), grant.RevokedUpstream, "key_deleted"},
		"an administrator has to agree": {failure(grant.AdminTheir, "policy"), grant.NeedsAdmin, "policy"},
		"busy":                          {failure(grant.Later, "busy"), grant.Active, ""},
		"our probe is wrong":            {failure(grant.Ours, "wrong_endpoint"), grant.Active, ""},
		"no answer":                     {failure(grant.Lost, "no_answer"), grant.Active, ""},
	} {
		t.Run(name, func(t *testing.T) {
			withKey(t, func(r *rig, p *probe, l grant.Loan) {
				p.now, p.takes = tt.err, time.Second
				events := len(r.events)
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() { _, _ = r.broker.Rejected(r.Context(), l) })
				}
				all.Wait()
				k := r.kept()
				if k.Status != tt.status || k.Reason != tt.reason || p.asked != 1 {
					t.Errorf("%s %s, asked %d times", k.Status, k.Reason, p.asked)
				}
				_, err := r.broker.Rejected(r.Context(), l)
				if tt.status == grant.Active {
					if !errors.Is(err, grant.ErrStillRejected) {
						t.Error(err)
					}
					r.lend(use("a"))
					time.Sleep(time.Minute)
					_, _ = r.broker.Rejected(r.Context(), l)
					if p.asked != 2 {
						t.Errorf("asked %d times a minute later", p.asked)
					}
					return
				}
				needs(t, err, grant.MissingReconnect)
				r.refused(use("a"), grant.MissingReconnect)
				if e := r.lastEvent(); len(r.events) != events+1 || e.Name != grant.EventFailing {
					t.Errorf("%+v", r.events[events:])
				}
				p.now = nil
				if _, err := r.broker.ConnectKey(r.Context(), ann, r.ask("a"), "canary-good", false); err != nil {
					t.Error(err)
				}
				r.lend(use("a"))
			})
		})
	}
}

func TestP12_AKeyThatWasReplacedMeanwhileIsNotEnded(t *testing.T) {
	withKey(t, func(r *rig, p *probe, l grant.Loan) {
		p.now = failure(grant.Yours, "key_refused")
		p.meet = func() {
			p.meet, p.now = nil, nil
			p.mu.Unlock()
			defer p.mu.Lock()
			if _, err := r.broker.ConnectKey(context.Background(), ann, r.ask("a"), "canary-good", false); err != nil {
				t.Error(err)
			}
			p.now = failure(grant.Yours, "key_refused")
		}
		if l, err := r.broker.Rejected(r.Context(), l); err != nil || l.Credential() != "canary-good" {
			t.Error(err)
		}
		if k := r.kept(); k.Status != grant.Active || k.Generation != 2 {
			t.Error(k.Status, k.Generation)
		}
	})
}

// There is nothing with which to ask whether such a token works, beside the API itself.
func TestP12_ARefusedTokenThatCannotBeRefreshedNeedsAPerson(t *testing.T) {
	inBubble(t, func(r *rig) { r.provider.bare = true }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		l := r.lend(use("a"))
		_, err := r.broker.Rejected(r.Context(), l)
		needs(t, err, grant.MissingReconnect)
		if k := r.kept(); k.Status != grant.NeedsReconnect || k.Reason != grant.ReasonRejected {
			t.Error(k.Status, k.Reason)
		}
		r.connect(r.ask("a", "freebusy"))
		if _, err := r.broker.Rejected(r.Context(), l); err != nil {
			t.Error("the answer to an older credential ends a newer one:", err)
		}
	})
}

// forgetful is a store that does what it is asked, and whose answer to Connect is lost.
type forgetful struct {
	*granttest.Store
	stores bool          // it does what it is asked
	later  time.Duration // and only then
	blind  bool          // and it cannot be read afterwards
	asleep bool          // it answers
}

func (s *forgetful) Connect(ctx context.Context, r grant.Record, c grant.Consent, was int64, seal grant.Seal) (
	grant.Record, error) {
	if s.asleep {
		return s.Store.Connect(ctx, r, c, was, seal)
	}
	if s.stores && s.later == 0 {
		if _, err := s.Store.Connect(ctx, r, c, was, seal); err != nil {
			return grant.Record{}, err
		}
	} else if s.stores {
		go func() {
			time.Sleep(s.later)
			_, _ = s.Store.Connect(context.WithoutCancel(ctx), r, c, was, seal)
		}()
	}
	s.SetBefore(func(_ context.Context, method string) error {
		if method == "Get" && s.blind {
			return grant.ErrUnavailable
		}
		return nil
	})
	return grant.Record{}, grant.ErrUnavailable
}

func TestP14_WhatWasConnectedWithoutAnAnswerOfTheStoreIsNotRevoked(t *testing.T) {
	for name, tt := range map[string]struct {
		store            forgetful
		connected, known bool
		revoked          int
	}{
		"stored":                     {forgetful{stores: true}, true, true, 0},
		"stored a moment later":      {forgetful{stores: true, later: time.Second / 2}, true, true, 0},
		"not stored":                 {forgetful{}, false, true, 1},
		"stored, and nobody can see": {forgetful{stores: true, blind: true}, true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				tt.store.Store = r.store
				r.options.Store = &tt.store
			}, func(r *rig) {
				k, err := r.broker.Connect(r.Context(), ann, r.ask("a", "freebusy"), url.Values{}, identity.Handshake{},
					false)
				if told := err == nil; told != (tt.connected && tt.known) || told && k.ID == "" {
					t.Errorf("%+v, %v", k, err)
				}
				if n := len(r.provider.revoked); n != tt.revoked {
					t.Errorf("revoked %d times", n)
				}
				r.store.SetBefore(nil)
				if l, err := r.broker.Lend(r.Context(), use("a")); (err == nil) != tt.connected {
					t.Error(l, err)
				}
				if told := len(r.events) == 1 && r.events[0].Name == grant.EventConnected; told != (err == nil) {
					t.Errorf("%+v", r.events)
				}
			})
		})
	}
}

// mute is a store whose answer to Disconnect gets lost, as where a database fails over.
type mute struct {
	*granttest.Store
	ends  bool          // it does what it is asked
	later time.Duration // and only then
}

func (s *mute) Disconnect(ctx context.Context, id string) (grant.Kept, error) {
	if s.ends && s.later == 0 {
		if _, err := s.Store.Disconnect(ctx, id); err != nil {
			return grant.Kept{}, err
		}
	} else if s.ends {
		go func() {
			time.Sleep(s.later)
			_, _ = s.Store.Disconnect(context.WithoutCancel(ctx), id)
		}()
	}
	return grant.Kept{}, grant.ErrUnavailable
}

// A grant that was ended here is ended at the third party too, though the store did not say that it
// was; one that is still there is not, so that it can be ended once more.
func TestP12_WhatEndedWithoutAnAnswerOfTheStoreIsEndedAtTheThirdParty(t *testing.T) {
	for name, tt := range map[string]mute{
		"ended":                {ends: true},
		"ended a moment later": {ends: true, later: time.Second / 2},
		"not ended":            {},
	} {
		for _, by := range []string{"the person", "an operator"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				store := tt
				inBubble(t, func(r *rig) { store.Store, r.options.Store = r.store, &store }, func(r *rig) {
					k := r.connect(r.ask("a", "freebusy"))
					var became grant.Revocation
					var err error
					if by == "the person" {
						became, err = r.broker.End(r.Context(), ann, "calendar")
					} else {
						ops := r.ops()
						ops.Store = &store
						var ended grant.Ended
						ended, err = ops.Revoke(r.Context(), k.ID, false)
						became = ended.There
					}
					if told := err == nil && became == grant.Revoked; told != tt.ends ||
						!told && !errors.Is(err, grant.ErrUnavailable) {
						t.Errorf("%q, %v", became, err)
					}
					if revoked := r.provider.revoked; tt.ends != (len(revoked) == 1 && revoked[0].Access == "canary-access-1") {
						t.Errorf("%d ended at the third party", len(revoked))
					}
					if _, err := r.store.Get(r.Context(), key()); errors.Is(err, grant.ErrNotFound) != tt.ends {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestP14_AGrantThatWasThereIsNotTakenForTheOneThatWasNotStored(t *testing.T) {
	s := &forgetful{asleep: true}
	inBubble(t, func(r *rig) { s.Store, r.options.Store = r.store, s }, func(r *rig) {
		r.connect(r.ask("a", "freebusy"))
		s.asleep = false
		_, err := r.broker.Connect(r.Context(), ann, r.ask("b"), url.Values{}, identity.Handshake{}, false)
		if !errors.Is(err, grant.ErrUnavailable) || len(r.events) != 1 || len(r.provider.revoked) != 1 {
			t.Errorf("%v, %+v, %d revoked", err, r.events, len(r.provider.revoked))
		}
		r.lend(use("a"))
		r.refused(use("b"), "events")
	})
}

func TestP12_UseWhileAwayIsForTheDaysThatWereAgreed(t *testing.T) {
	for days, want := range map[int]int{0: 30, 1: 1, 30: 30, 90: 90} {
		t.Run(fmt.Sprint(days), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				ask := r.ask("a", "freebusy")
				ask.Offline, ask.Days = true, days
				r.connect(ask)
				until := time.Now().Add(time.Duration(want) * 24 * time.Hour)
				if c := r.kept().Consents[0]; !c.Until.Equal(until) {
					t.Error(c.Until)
				}
				for range want - 1 {
					time.Sleep(24 * time.Hour)
					if err := r.broker.SignedIn(r.Context(), ann); err != nil {
						t.Error(err)
					}
				}
				r.lend(away())
				time.Sleep(time.Until(until) - time.Second)
				r.lend(away())
				time.Sleep(time.Second)
				r.refused(away(), grant.MissingOffline)
			})
		})
	}
	inBubble(t, nil, func(r *rig) {
		for _, ask := range []grant.Ask{{Offline: true, Days: -1}, {Offline: true, Days: 91}, {Days: 30}} {
			ask.Connector, ask.App = "calendar", "a"
			if _, err := r.broker.Prepare(r.Context(), ann, ask); !errors.Is(err, grant.ErrDays) {
				t.Errorf("%+v: %v", ask, err)
			}
		}
		r.connect(r.ask("a", "freebusy"))
		long := r.ask("a", "freebusy")
		long.Offline, long.Days = true, 90
		p, err := r.broker.Prepare(r.Context(), ann, long)
		if err != nil || p.Trip {
			t.Fatal(p.Trip, err)
		}
		if err := r.broker.Agree(r.Context(), ann, p); err != nil {
			t.Error(err)
		}
		c := r.kept().Consents[0]
		if !c.Until.Equal(time.Now().Add(90*24*time.Hour)) || !c.Lapses.Equal(time.Now().Add(grant.OfflineTime)) {
			t.Errorf("until %v, and %v after the sign-in", c.Until, c.Lapses)
		}
	})
}

func TestP12_TheAuditKnowsTheRequestInWhichSomethingHappened(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		caller := grant.Caller{RequestID: "request-1", Client: "192.0.2.7"}
		ctx := grant.WithCaller(r.Context(), caller)
		agree := func(a grant.Ask) {
			t.Helper()
			p, err := r.broker.Prepare(ctx, ann, a)
			if err == nil {
				err = r.broker.Agree(ctx, ann, p)
			}
			if err != nil {
				t.Error(err)
			}
		}
		_, err := r.broker.Connect(ctx, ann, r.ask("a"), url.Values{}, identity.Handshake{}, false)
		if err != nil {
			t.Fatal(err)
		}
		agree(r.ask("b"))
		if err := r.broker.Withdraw(ctx, ann, "calendar", "b"); err != nil {
			t.Error(err)
		}
		away := r.ask("a")
		away.Offline = true
		agree(away)
		r.admits = false
		if err := r.broker.SignedIn(ctx, ann); err != nil {
			t.Error(err)
		}
		if _, err := r.broker.End(ctx, ann, "calendar"); err != nil {
			t.Error(err)
		}
		var names []string
		for _, e := range r.events {
			names = append(names, e.Name)
			if e.Caller != caller || e.By != ann.ID() {
				t.Errorf("%+v", e)
			}
		}
		if !slices.Equal(names, []string{grant.EventConnected, grant.EventAgreed, grant.EventWithdrawn,
			grant.EventAgreed, grant.EventWithdrawn, grant.EventDisconnected}) {
			t.Error(names)
		}
		r.connect(r.ask("a")) // what happens in no request has none
		if e := r.lastEvent(); e.Caller != (grant.Caller{}) {
			t.Errorf("%+v", e)
		}
	})
}

// What ended is remembered for as long as sessions last: a day, and not the thirty of an
// offline consent.
func TestP12_UseWhileAwayDoesNotComeBackWhenItIsForgottenWhatEnded(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		ask := r.ask("a", "freebusy")
		ask.Offline = true
		r.connect(ask)
		time.Sleep(24 * time.Hour)
		r.lend(away())
		events := len(r.events)
		r.ended.Store(true)
		r.refused(away(), grant.MissingOffline)
		time.Sleep(time.Hour)
		r.ended.Store(false)
		r.refused(away(), grant.MissingOffline)
		r.lend(use("a")) // what they agreed to for the time in which they are there stays
		if e := r.lastEvent(); len(r.events) != events+1 || e != (grant.Event{Name: grant.EventWithdrawn,
			Connector: "calendar", Owner: key().Owner, App: "a", Detail: "sessions_ended"}) {
			t.Errorf("%+v", r.events[events:])
		}
		r.connect(ask)
		time.Sleep(time.Hour)
		r.lend(away())
	})
}

func TestP12_WhatIsAgreedToAfterAnEndStays(t *testing.T) {
	var cut atomic.Int64
	inBubble(t, func(r *rig) {
		r.options.Apps[1].Offline = true
		r.options.Ended = func(_, _ string, at time.Time) bool { return at.UnixMilli() <= cut.Load() }
	}, func(r *rig) {
		for _, app := range []string{"a", "b"} {
			ask := r.ask(app, "events")
			ask.Offline = true
			r.connect(ask)
		}
		agree := func(app string) {
			ask := r.ask(app, "events")
			ask.Offline = true
			p, err := r.broker.Prepare(context.Background(), ann, ask)
			if err == nil {
				err = r.broker.Agree(context.Background(), ann, p)
			}
			if err != nil {
				t.Error(err)
			}
		}
		time.Sleep(12 * time.Minute)
		r.store.SetBefore(func(_ context.Context, method string) error {
			if method == "Agree" { // of the sweep: it has just read both consents
				r.store.SetBefore(nil)
				agree("b")
			}
			return nil
		})
		cut.Store(time.Now().UnixMilli())
		time.Sleep(time.Hour)
		r.refused(away(), grant.MissingOffline)
		other := away()
		other.App = "b"
		r.lend(other)
		cut.Store(0)
		r.refused(away(), grant.MissingOffline)
		r.lend(other)
	})
}

// What no app has used for 30 days is proposed for removal, and not before: neither when it was
// used since, nor when somebody agreed to something since.
func TestWhatNobodyUsesIsProposedForRemoval(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.connect(r.ask("a"))
		proposed := func(when string, want bool) {
			r.Helper()
			views, err := r.broker.View(r.Context(), ann)
			if err != nil || views[0].Unused != want {
				r.Errorf("%s: proposed %t, %v", when, views[0].Unused, err)
			}
		}
		const almost = 30*24*time.Hour - time.Minute
		time.Sleep(almost)
		proposed("almost 30 days after it was connected", false)
		r.lend(use("a"))
		time.Sleep(almost)
		proposed("almost 30 days after its use", false)
		if p, err := r.broker.Prepare(r.Context(), ann, r.ask("b")); err != nil || r.broker.Agree(r.Context(), ann, p) != nil {
			r.Fatal(err)
		}
		time.Sleep(almost)
		proposed("almost 30 days after somebody agreed to more", false)
		time.Sleep(time.Minute)
		proposed("30 days after that", true)
		r.lend(use("a"))
		time.Sleep(time.Second) // until it is noted
		proposed("used", false)
	})
}
