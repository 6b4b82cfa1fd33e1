package grant

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/identity"
)

var errConnecting = errors.New("too many connect it at a time")

const (
	// OfflineTime is for how long an app may use a grant while the person is away, after
	// their newest sign-in.
	OfflineTime = 30 * day
	// OfflineDays is for how many days somebody agrees to that unless they say otherwise,
	// and MostOfflineDays for how many at most.
	OfflineDays     = 30
	MostOfflineDays = 90

	day = 24 * time.Hour
	// connectTime is for how long a connection may take: the token endpoint, and then who
	// the account is.
	connectTime = 2 * CallTime
	// mostConnecting is how many connections of a connector are under way at a time, and mostOwn
	// how many of one person. Each may take connectTime, and a person may name the host.
	mostConnecting = 256
	mostOwn        = 4
	// mostChanges is how often something is tried again that somebody else changed meanwhile.
	mostChanges = 4
	// mostLooks is how often it is looked, saveEvery after another, whether a grant was
	// stored.
	mostLooks = 3
)

// Ask is what somebody is asked to agree to.
type Ask struct {
	Connector string
	App       string   // "": nobody; the person reconnects a grant on the account page
	Access    []string // empty: all that the app is configured for
	Offline   bool
	// Days is for how many days Offline holds, 1 to MostOfflineDays; 0: OfflineDays.
	Days int
}

// offlineTime is how long an offline consent holds that follows from a.
func (a Ask) offlineTime() time.Duration {
	if a.Days == 0 {
		return OfflineDays * day
	}
	return time.Duration(a.Days) * day
}

// Proposal is an Ask as the configuration and the grant that is there make it, for a page.
type Proposal struct {
	Ask
	About   About
	AppName string
	// Accesses are what the app may do afterwards: what is asked for, and what it may do now.
	Accesses []Access
	// Scopes are what the third party is asked for: those of Accesses, and of what other
	// apps may do now, which must not lose it.
	Scopes  []string
	Owner   Owner
	Current *Kept // nil: there is none
	// Trip says that the third party has to be asked, or a key pasted: what is there does
	// not suffice. Agree is enough otherwise.
	Trip            bool
	OfflinePossible bool
	OfSome          bool // it is an organization's, and apps may use it for some of its people only
	// Events says that the app gets events of the third party, also while the person is away.
	Events bool

	offer   *Offer
	request Request
}

// Prepare checks an Ask against the configuration, for somebody who is signed in.
func (b *Broker) Prepare(ctx context.Context, who identity.Identity, a Ask) (Proposal, error) {
	offer := b.offers[a.Connector]
	if offer == nil {
		return Proposal{}, ErrNoConnector
	}
	owner, err := offer.managed(who)
	if err != nil {
		return Proposal{}, err
	}
	about := offer.Connector.About()
	if a.Days < 0 || a.Days > MostOfflineDays || a.Days != 0 && !a.Offline {
		return Proposal{}, ErrDays
	}
	p := Proposal{Ask: a, About: about, Owner: owner, offer: offer,
		OfSome: owner.Kind == OwnedByOrg && offer.UsableBy != nil}
	if err := b.checkApp(&p); err != nil {
		return Proposal{}, err
	}
	kept, err := b.Store.Get(ctx, Key{a.Connector, owner})
	switch {
	case err == nil:
		p.Current = &kept
	case !errors.Is(err, ErrNotFound):
		return Proposal{}, fmt.Errorf("read the grant: %w", err)
	case a.App == "":
		return Proposal{}, ErrNoApp // there is nothing that could be connected again
	}
	b.widen(&p)
	if len(p.request.Access) == 0 {
		return Proposal{}, ErrNoApp // no app may do anything with it
	}
	return p, nil
}

// checkApp judges an Ask by what its app is configured for.
func (b *Broker) checkApp(p *Proposal) error {
	if p.App == "" {
		if len(p.Access) > 0 || p.Offline {
			return ErrNoApp
		}
		return nil
	}
	app := b.apps[p.App]
	if app == nil || len(app.Connectors[p.Connector]) == 0 {
		return ErrNoApp
	}
	p.AppName = app.Name
	configured := app.Connectors[p.Connector]
	if len(p.Access) == 0 {
		p.Access = slices.Clone(configured)
	}
	if len(without(p.Access, configured)) > 0 {
		return ErrNotOffered
	}
	p.OfflinePossible = app.Offline && p.About.Offline
	p.Events = app.Told && b.Receives(p.Connector)
	if p.Offline && !p.OfflinePossible {
		return ErrNoOffline
	}
	return nil
}

// widen adds what the grant serves now to what is asked for, so that nobody loses
// anything by it, and says whether the grant that is there suffices.
func (b *Broker) widen(p *Proposal) {
	mine, all := slices.Clone(p.Access), slices.Clone(p.Access)
	if p.Current != nil {
		for _, c := range p.Current.Consents {
			names := namesOf(b.effective(*p.Current, c))
			if c.App == p.App {
				mine = append(mine, names...)
			}
			if p.App == "" {
				names = b.configured(p.Connector, c) // the grant may have lost what it is to get back
			}
			all = append(all, names...)
		}
	}
	p.Accesses = p.offer.accesses(mine)
	requested := p.offer.accesses(all)
	p.Scopes = scopesOf(requested)
	p.Trip = p.App == "" || p.Current == nil || !b.statusOf(p.Current.Record).Usable() ||
		len(without(p.Scopes, p.Current.Scopes)) > 0 || p.Offline && !p.Current.Offline
	// A token to refresh with is asked for wherever there can be one: without it a grant
	// ends within the hour, under the eyes of the person too. Whether an app may use the
	// grant while the person is away is a matter of its consent.
	p.request = Request{RedirectURI: b.Redirect(p.Connector), Access: namesOf(requested), Scopes: p.Scopes,
		Offline: p.About.Offline}
	if p.Current != nil {
		p.request.LoginHint = p.Current.Account.Name
	}
}

// AuthURL is where the browser goes next.
func (b *Broker) AuthURL(p Proposal, h identity.Handshake) (string, error) {
	connector, ok := p.offer.Connector.(OAuth)
	if !ok {
		return "", ErrNoConnector
	}
	return connector.AuthURL(h, p.request)
}

// Agree stores a consent to a grant that suffices for it, as Prepare said.
func (b *Broker) Agree(ctx context.Context, who identity.Identity, p Proposal) error {
	for range mostChanges {
		now, err := b.Prepare(ctx, who, p.Ask)
		if err != nil {
			return err
		}
		if now.Trip {
			return &RequiredError{Connector: p.Connector, Missing: []string{MissingReconnect},
				Status: b.statusOfCurrent(now)}
		}
		err = b.Store.Agree(ctx, now.Current.ID, b.consent(who, now), now.Current.Version)
		if errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			b.emit(ctx, Event{Name: EventAgreed, Connector: p.Connector, Owner: now.Owner, App: p.App, By: who.ID()})
		}
		return err
	}
	return ErrChanged
}

func (b *Broker) statusOfCurrent(p Proposal) Status {
	if p.Current == nil {
		return NotConnected
	}
	return b.statusOf(p.Current.Record)
}

func (b *Broker) consent(who identity.Identity, p Proposal) Consent {
	if p.App == "" {
		return Consent{}
	}
	now := b.Store.Now()
	c := Consent{App: p.App, Access: namesOf(p.Accesses), By: who.ID(), At: now}
	if p.Offline {
		c.Offline, c.Until, c.Lapses = true, now.Add(p.offlineTime()), now.Add(OfflineTime)
	}
	return c
}

// Connect redeems what a browser brought back from the third party, and stores the grant
// and the consent. confirm says that the person knows that the account is another one.
func (b *Broker) Connect(ctx context.Context, who identity.Identity, a Ask, callback url.Values,
	h identity.Handshake, confirm bool,
) (Kept, error) {
	p, err := b.Prepare(ctx, who, a)
	if err != nil {
		return Kept{}, err
	}
	connector, ok := p.offer.Connector.(OAuth)
	if !ok {
		return Kept{}, ErrNoConnector
	}
	// An error connects nothing, so it is told as what it is also without iss, which Keycloak and
	// others leave out of errors.
	iss, present := callback["iss"]
	want := connector.Issuer()
	if want != "" && (present || !callback.Has("error")) && !slices.Equal(iss, []string{want}) {
		return Kept{}, ErrIssuer
	}
	return b.finish(ctx, who, p, confirm, func(ctx context.Context) (Result, error) {
		return connector.Redeem(ctx, callback, h, p.request)
	})
}

// ConnectKey is Connect for a key that was pasted.
func (b *Broker) ConnectKey(ctx context.Context, who identity.Identity, a Ask, key string, confirm bool) (Kept, error) {
	p, err := b.Prepare(ctx, who, a)
	if err != nil {
		return Kept{}, err
	}
	connector, ok := p.offer.Connector.(Keyed)
	if !ok {
		return Kept{}, ErrNoConnector
	}
	return b.finish(ctx, who, p, confirm, func(ctx context.Context) (Result, error) {
		return connector.Accept(ctx, key, p.request)
	})
}

// finish goes on to its end where the browser goes away meanwhile: what the third party
// granted is kept or ended, and not forgotten.
func (b *Broker) finish(ctx context.Context, who identity.Identity, p Proposal, confirm bool,
	get func(context.Context) (Result, error),
) (Kept, error) {
	if !b.begin() {
		return Kept{}, &LaterError{time.Second, errClosed}
	}
	defer b.work.Done()
	end, ok := b.beginConnecting(p.Connector, who.ID())
	if !ok {
		b.Metrics.connected(p.Connector, string(Later))
		return Kept{}, &LaterError{time.Second, errConnecting}
	}
	defer end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTime)
	result, err := get(ctx)
	cancel()
	if err != nil {
		b.Metrics.connected(p.Connector, string(ClassOf(err)))
		return Kept{}, withApproval(err, p)
	}
	kept, err := b.keep(context.WithoutCancel(ctx), who, p, confirm, result)
	outcome := "kept"
	if err != nil {
		outcome = "refused"
	}
	b.Metrics.connected(p.Connector, outcome)
	return kept, err
}

// connecting is what connections that are under way are counted by.
type connecting struct{ connector, person string } // "": of everybody

// beginConnecting counts a connection until end is called; false where there are too many.
func (b *Broker) beginConnecting(connector, person string) (end func(), ok bool) {
	own, all := connecting{connector, person}, connecting{connector, ""}
	count := func(n int) {
		for _, of := range [...]connecting{own, all} {
			if b.connects[of] += n; b.connects[of] == 0 {
				delete(b.connects, of)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connects[own] >= mostOwn || b.connects[all] >= mostConnecting {
		return nil, false
	}
	count(1)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		count(-1)
	}, true
}

// withApproval adds to a refusal where an administrator can agree. Somebody who says no may
// have been told by the third party that they may not say yes.
func withApproval(err error, p Proposal) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Class != AdminTheir && e.Class != Yours {
		return err
	}
	with := *e
	with.ApproveURL = approveURL(p.offer.Connector, p.Current, p.request)
	return &with
}

// approveURL is where an administrator agrees to a request; kept may be nil.
func approveURL(c Connector, kept *Kept, r Request) string {
	approver, ok := c.(Approver)
	if !ok {
		return ""
	}
	var account Account
	if kept != nil {
		account = kept.Account
	}
	return approver.ApproveURL(account, r)
}

// keep stores a result, or ends it at the third party.
func (b *Broker) keep(ctx context.Context, who identity.Identity, p Proposal, confirm bool, result Result,
) (Kept, error) {
	result.Account.Name = shownName(result.Account.Name)
	record := Record{Key: Key{p.Connector, p.Owner}, Account: result.Account, ClientID: p.About.ClientID,
		Destinations: noted(Destinations(p.offer.Connector, result.Account))}
	result.Tokens.Destinations = record.Destinations
	refuse := func(err error) (Kept, error) {
		b.revoking().tokens(ctx, record, result.Tokens)
		return Kept{}, err
	}
	if missing := without(p.request.Scopes, result.Scopes); len(missing) > 0 {
		return refuse(&NarrowError{missing})
	}
	if excess := without(result.Scopes, p.request.Scopes); len(excess) > 0 {
		b.Log.Info("more was granted than was asked for; apps get no further than their rules",
			"connector", p.Connector, "excess", excess)
	}
	lasts := result.Tokens.Refresh != "" || result.Tokens.AccessExpires.IsZero()
	if p.Offline && !lasts {
		return refuse(&NarrowError{[]string{MissingOffline}})
	}
	now := b.Store.Now()
	result.Tokens = b.inStoreTime(result.Tokens)
	record.Access, record.Requested, record.Scopes = p.request.Access, p.request.Scopes, result.Scopes
	record.Offline, record.Status = lasts, Active
	record.ConnectedBy, record.ConnectedAt, record.RefreshedAt = who.ID(), now, now
	if result.Tokens.AccessIssued.IsZero() {
		result.Tokens.AccessIssued = now
	}
	record.AccessExpires, record.Reconsent = result.Tokens.AccessExpires, result.Tokens.Reconsent
	seal := func(r Record) (Record, error) { return b.Keys.Seal(r, result.Tokens) }
	for range mostChanges {
		was, version, err := b.before(ctx, &record)
		if err != nil {
			return refuse(err)
		}
		other := was != nil && was.Account.ID != "" && was.Account.ID != result.Account.ID
		if other && !confirm {
			return refuse(&OtherAccountError{was.Account, result.Account})
		}
		stored, err := b.Store.Connect(ctx, record, b.consent(who, p), version, seal)
		switch {
		case errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound):
			continue
		case errors.Is(err, ErrChain):
			return Kept{}, err // to end it would end the other owner's
		case err != nil:
			err = fmt.Errorf("store the grant: %w", err)
			kept, unknown := b.readStored(ctx, record.Key, result.Tokens)
			if unknown != nil {
				b.Log.Error("a grant may have been stored or not; it was not ended at the third party",
					"connector", p.Connector, "error", unknown.Error())
				return Kept{}, err
			}
			if kept == nil {
				return refuse(err)
			}
			stored = kept.Record
		}
		b.emit(ctx, Event{Name: EventConnected, Connector: p.Connector, Owner: p.Owner, App: p.App, By: who.ID()})
		if other {
			b.revoking().record(ctx, was.Record)
		}
		kept, err := b.Store.Get(ctx, stored.Key)
		if err != nil {
			kept = Kept{Record: stored} // it is stored; somebody may have ended it already
		}
		return kept, nil
	}
	return refuse(ErrChanged)
}

// mostName is how long the name of an account is that people are shown, in bytes.
const mostName = 254

// shownName is the name of an account if people and apps can be shown it: whoever manages the
// account at the third party may choose it, and it stands in the middle of sentences of ours. ""
// for one that is long, has controls, or would have what is around it read in another order
// (Unicode TR 9, §2); the account's ID is shown then.
func shownName(name string) string {
	bad := func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}
	if len(name) > mostName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return ""
	}
	return name
}

// readStored looks whether these tokens were stored with a grant although the store said
// that it failed: its answer may have been lost, or come later. nil: they were not.
func (b *Broker) readStored(ctx context.Context, k Key, t Tokens) (*Kept, error) {
	var err error
	for try := range mostLooks {
		if try > 0 {
			time.Sleep(saveEvery)
		}
		var kept Kept
		if kept, err = b.Store.Get(ctx, k); err != nil {
			if errors.Is(err, ErrNotFound) {
				err = nil
			}
			continue
		}
		there, opened := b.Keys.Open(kept.Record)
		if opened == nil && there.Access == t.Access && there.Refresh == t.Refresh {
			return &kept, nil
		}
	}
	return nil, err
}

// before reads the grant that r is to replace, and lets r keep its ID and its own key.
func (b *Broker) before(ctx context.Context, r *Record) (*Kept, int64, error) {
	was, err := b.Store.Get(ctx, r.Key)
	r.ID, r.Wrapped, r.KeyID = "", nil, ""
	if errors.Is(err, ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the grant: %w", err)
	}
	r.ID = was.ID
	// A row that does not open is mended by connecting again, with a new key of its own. A
	// key of the ring that only this process lacks is not: others would lose the grant.
	switch _, err := b.Keys.unwrap(was.Record); {
	case err == nil:
		r.Wrapped, r.KeyID = was.Wrapped, was.KeyID
	case errors.Is(err, ErrKeyUnknown):
		return nil, 0, err
	}
	return &was, was.Version, nil
}

// Withdraw ends what an app may do with a grant; the grant stays.
func (b *Broker) Withdraw(ctx context.Context, who identity.Identity, connector, app string) error {
	offer := b.offers[connector]
	if offer == nil {
		return ErrNoConnector
	}
	owner, err := offer.managed(who)
	if err != nil {
		return err
	}
	there, err := b.Store.Withdraw(ctx, Key{connector, owner}, app)
	if err != nil {
		return fmt.Errorf("end the consent: %w", err)
	}
	if there {
		b.emit(ctx, Event{Name: EventWithdrawn, Connector: connector, Owner: owner, App: app, By: who.ID()})
	}
	return nil
}

// End ends a grant: here first, and then at the third party where that can be asked for.
func (b *Broker) End(ctx context.Context, who identity.Identity, connector string) (Revocation, error) {
	offer := b.offers[connector]
	if offer == nil {
		return "", ErrNoConnector
	}
	owner, err := offer.managed(who)
	if err != nil {
		return "", err
	}
	ctx = context.WithoutCancel(ctx)
	was, err := b.Store.Get(ctx, Key{connector, owner})
	if err == nil {
		was, err = disconnect(ctx, b.Store, was)
	}
	if err != nil {
		return "", fmt.Errorf("end the grant: %w", err)
	}
	became := b.revoking().record(ctx, was.Record)
	b.emit(ctx, Event{Name: EventDisconnected, Connector: connector, Owner: owner, By: who.ID(),
		Detail: string(became)})
	return became, nil
}

// disconnect ends a grant here, as it was read before, and returns what it was. Where the store says
// that it failed, it is looked whether it did: of a grant that is gone nobody could ask the third
// party any more to end what it was.
func disconnect(ctx context.Context, s Store, before Kept) (Kept, error) {
	was, failed := s.Disconnect(ctx, before.ID)
	if failed == nil || errors.Is(failed, ErrNotFound) {
		return was, failed
	}
	for try := range mostLooks {
		if try > 0 {
			time.Sleep(saveEvery)
		}
		if _, err := keptByID(ctx, s, before.ID); errors.Is(err, ErrNotFound) {
			return before, nil
		}
	}
	return Kept{}, failed
}

// SignedIn makes the offline consents of somebody last on from a sign-in, and ends those
// of apps that would not let them in any more, and of grants that they no longer manage:
// what the app may do for people who are there is another consent, and stays.
// Who has yet to choose an organization is judged after that; what this configuration does
// not have, where it is had.
func (b *Broker) SignedIn(ctx context.Context, who identity.Identity) error {
	if who.MustPick() {
		return nil
	}
	ended, err := b.Store.SignedIn(ctx, who.ID(), b.Store.Now().Add(OfflineTime), func(k Key, c Consent) bool {
		app, offer := b.apps[c.App], b.offers[k.Connector]
		if app == nil || offer == nil {
			return true // another replica may have them already, and this one next
		}
		if k.Owner.Kind == OwnedByOrg {
			if k.Owner.ID != who.Org.ID {
				return true // judged when they sign in with that organization
			}
			if offer.ManagedBy == nil || !offer.ManagedBy(who) {
				return false
			}
		}
		return app.Admits == nil || app.Admits(who)
	})
	if err != nil {
		return fmt.Errorf("prolong offline consents: %w", err)
	}
	for _, e := range ended {
		b.emit(ctx, Event{Name: EventWithdrawn, Connector: e.Connector, Owner: e.Owner, App: e.App, By: who.ID(),
			Detail: "sign_in"})
	}
	return nil
}
