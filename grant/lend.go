package grant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

const (
	// mostWaiting is how many calls may wait for refreshes of one connector, in one Broker, and
	// waitTime how long each of them does.
	mostWaiting = 256
	waitTime    = 10 * time.Second
	// forceEvery is how often a grant is refreshed because the third party refused its
	// credential, at most: an address that always answers 401 must not use up refreshes.
	forceEvery = time.Minute
	// usedEvery is how often the store is told that an app uses a grant.
	usedEvery = 5 * time.Minute
)

// Party is who an app acts for. One of its members is set.
type Party struct {
	Session *identity.Identity // of a session, proved by an assertion or a lease
	Person  string             // identity.Identity.ID, named by the app while they are away
	Org     string             // the same for an organization
}

// Use is what an app wants to do with a grant. That the app is who it says has been proved.
type Use struct {
	App, Connector string
	Who            Party
}

// Loan is a credential and what may be done with it. It prints as "<loan>".
type Loan struct {
	Connector string
	Place
	Inject   Injection
	Accesses []Access // that the consent has and that are granted; their rules count
	Wider    []Access // that the app is configured for, and a person could agree to
	Scopes   []string
	Expires  time.Time // zero: not known
	// From is who makes a change, for the header From; "": nothing is said of that.
	From string

	use        Use
	of         Record // the grant that was lent
	credential string
	refuser    Refuser // nil: the status of an answer says it
	renewable  bool
}

// Format implements fmt.Formatter: no verb prints the credential.
func (Loan) Format(s fmt.State, _ rune) { io.WriteString(s, "<loan>") }

// LogValue implements slog.LogValuer.
func (Loan) LogValue() slog.Value { return slog.StringValue("<loan>") }

// Credential is the access token or the key. It belongs in a request to Origin, and into
// the answer of an app that may have raw tokens, and nowhere else.
func (l Loan) Credential() string { return l.credential }

// MayBeRefused reports whether answers of status 200 have to be shown to Refused.
func (l Loan) MayBeRefused() bool { return l.refuser != nil }

// Refused reports whether an answer says that the credential is not taken, as status 401
// would; see Refuser.
func (l Loan) Refused(answer []byte) bool {
	return l.refuser != nil && l.refuser.Refused(answer, l.renewable)
}

// Header is the header that carries the credential; name is "" where it is the address itself.
func (l Loan) Header() (name, value string) { return l.Inject.Header, l.Inject.Value(l.credential) }

// Secrets are the texts by which the credential could be known again in an answer. Of an
// address those are what opens it too: as servers and pages write it, and each long part.
func (l Loan) Secrets() []string {
	secrets := []string{l.credential}
	if _, password, ok := strings.Cut(l.credential, ":"); ok && l.Inject.Basic {
		return append(secrets, password, strings.TrimPrefix(l.Inject.Value(l.credential), l.Inject.Prefix))
	}
	if l.Target == "" {
		return secrets
	}
	path, query, _ := strings.Cut(l.Target, "?")
	_, withoutScheme, _ := strings.Cut(l.credential, "://")
	parts := append(strings.Split(path, "/"), withoutScheme, l.Target, path, query)
	parts = append(parts, strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == '=' })...)
	for _, text := range parts {
		if len(text) < minSecretPart {
			continue
		}
		secrets = append(secrets, text)
		if plain, err := url.PathUnescape(text); err == nil && plain != text {
			secrets = append(secrets, plain)
		}
	}
	return secrets
}

// minSecretPart is how long a part of an address is, at least, that opens something. A
// shorter one would be found by chance.
const minSecretPart = 16

// Rules are those of the loan's accesses.
func (l Loan) Rules() []Rule {
	var rules []Rule
	for _, a := range l.Accesses {
		rules = append(rules, a.Rules...)
	}
	return rules
}

// Lend returns a credential that is good now, refreshed where that is due. Errors that
// callers handle: *RequiredError, *LaterError, ErrNoApp, ErrNoConnector, ErrNotUser,
// ErrNoOrg, ErrNoPerson.
func (b *Broker) Lend(ctx context.Context, u Use) (Loan, error) { return b.lend(ctx, u, 0) }

// Rejected is Lend after the third party answered 401 to l, or as Loan.Refused has it: it
// refreshes the credential once, unless somebody did so already. A pasted key is shown to its
// connector, which asks the third party whether it works; any other credential that cannot be
// refreshed has ended with that answer. Where nothing can be made better, and the grant has
// not ended, ErrStillRejected says so: the answer of the third party is then for the app.
func (b *Broker) Rejected(ctx context.Context, l Loan) (Loan, error) {
	return b.lend(ctx, l.use, l.of.Generation)
}

// lend lends a credential of another generation than rejected.
func (b *Broker) lend(ctx context.Context, u Use, rejected int64) (Loan, error) {
	app, offer, key, err := b.find(u)
	if err != nil {
		return Loan{}, err
	}
	for range mostChanges {
		kept, err := b.Store.Get(ctx, key)
		if errors.Is(err, ErrNotFound) {
			return Loan{}, &RequiredError{key.Connector, app.Connectors[key.Connector], NotConnected}
		}
		if err != nil {
			return Loan{}, &LaterError{time.Second, fmt.Errorf("read the grant: %w", err)}
		}
		accesses, err := b.mayUse(u, app, kept)
		if err != nil && b.askAgainFor(ctx, u, kept) {
			continue
		}
		if err != nil {
			return Loan{}, err
		}
		tokens, err := b.open(kept.Record)
		if err == nil {
			tokens, err = b.bound(ctx, kept.Record, tokens)
		}
		if errors.Is(err, ErrChanged) {
			continue
		}
		if err != nil {
			return Loan{}, err
		}
		again, err := b.freshen(ctx, kept.Record, tokens, kept.Generation == rejected)
		if err != nil {
			return Loan{}, err
		}
		if again {
			continue
		}
		b.noteUse(kept.ID, u.App)
		about := offer.Connector.About()
		place, err := b.place(offer.Connector, kept.Record, tokens)
		if err != nil {
			return Loan{}, err
		}
		refuser, _ := offer.Connector.(Refuser)
		return Loan{Connector: key.Connector, Place: place, Inject: about.Inject,
			Accesses: accesses, Scopes: kept.Scopes, Expires: tokens.AccessExpires,
			From: fromOf(offer.Connector, kept.Account, u.Who),
			Wider: slices.DeleteFunc(offer.accesses(app.Connectors[key.Connector]), func(a Access) bool {
				return slices.Contains(namesOf(accesses), a.Name)
			}),
			use: u, of: kept.Record, credential: tokens.Access, refuser: refuser, renewable: tokens.Refresh != ""}, nil
	}
	return Loan{}, &LaterError{time.Second, ErrChanged}
}

// fromOf is who makes a change with an account, where the third party wants to be told.
func fromOf(c Connector, a Account, p Party) string {
	sender, ok := c.(Sender)
	if !ok {
		return ""
	}
	from := sender.From(a)
	if from == "" && p.Session != nil {
		from = p.Session.VerifiedEmail()
	}
	if !strings.Contains(from, "@") || len(from) > 254 ||
		strings.ContainsFunc(from, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "" // a header could not carry it, or it is no address
	}
	return from
}

// place is where the requests of a grant go. That this is nowhere now is told of when it begins,
// and not at each use.
func (b *Broker) place(c Connector, r Record, t Tokens) (Place, error) {
	located, ok := c.(Located)
	if !ok {
		return Place{Origin: c.Origin(r.Account)}, nil
	}
	place, err := located.Locate(t)
	was, _ := b.misplaced.Get(r.ID)
	if err == nil {
		if was != "" {
			b.misplaced.Put(r.ID, "", 1)
		}
		return place, nil
	}
	if was != err.Error() {
		b.misplaced.Put(r.ID, err.Error(), 1)
		b.Log.Warn("a grant is not for an address that this connector allows now", "connector", r.Connector,
			"grant", r.ID, "error", err.Error())
	}
	return Place{}, &RequiredError{r.Connector, []string{MissingReconnect}, NeedsReconnect}
}

// Lends is nil where what l was made from is still lent, with every access that it had, and
// else what Lend would say now; a *LaterError where that would lend another account. It is for
// answers that go on. A store that cannot be read ends none of them: nothing new is lent
// meanwhile.
func (b *Broker) Lends(ctx context.Context, l Loan) error {
	app, _, key, err := b.find(l.use)
	if err != nil {
		return err
	}
	kept, err := b.Store.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return &RequiredError{key.Connector, app.Connectors[key.Connector], NotConnected}
	}
	if err != nil {
		return nil
	}
	accesses, err := b.mayUse(l.use, app, kept)
	if err != nil {
		return err
	}
	if missing := without(namesOf(l.Accesses), namesOf(accesses)); len(missing) > 0 {
		return &RequiredError{key.Connector, missing, b.statusOf(kept.Record)}
	}
	if isReplaced(l.of, kept.Record) {
		return &LaterError{time.Second, ErrChanged}
	}
	return nil
}

// isReplaced reports whether a grant was ended, or connected again with another account, and now
// is another one's. Where the third party does not tell whose it is, a new credential may be
// anybody's.
func isReplaced(was, now Record) bool {
	return was.ID != now.ID || was.Account.ID != now.Account.ID ||
		now.Account.ID == "" && !was.ConnectedAt.Equal(now.ConnectedAt)
}

// find is who lends what, by the configuration.
func (b *Broker) find(u Use) (*App, *Offer, Key, error) {
	app, offer := b.apps[u.App], b.offers[u.Connector]
	switch {
	case offer == nil:
		return nil, nil, Key{}, ErrNoConnector
	case app == nil || len(app.Connectors[u.Connector]) == 0:
		return nil, nil, Key{}, ErrNoApp
	}
	owner, err := offer.ownerOf(u.Who)
	return app, offer, Key{u.Connector, owner}, err
}

// ownerOf is whose grant is lent for p.
func (o *Offer) ownerOf(p Party) (Owner, error) {
	switch {
	case p.Session != nil:
		owner, err := o.ownerFor(*p.Session)
		if err == nil && owner.Kind == OwnedByOrg && o.UsableBy != nil && !o.UsableBy(*p.Session) {
			return Owner{}, ErrNotUser
		}
		return owner, err
	case o.Owner == OwnedByOrg && p.Org == "":
		return Owner{}, ErrNoOrg
	case o.Owner == OwnedByOrg:
		return Owner{OwnedByOrg, p.Org}, nil
	case p.Person == "":
		return Owner{}, ErrNoPerson
	}
	return Owner{OwnedByUser, p.Person}, nil
}

// mayUse returns the accesses of a grant that the consent of an app lends, or what a
// person has to do first.
func (b *Broker) mayUse(u Use, app *App, k Kept) ([]Access, error) {
	status := b.statusOf(k.Record)
	consent, ok := k.Consent(app.ID)
	if !ok {
		return nil, &RequiredError{k.Connector, app.Connectors[k.Connector], status}
	}
	accesses := b.effective(k, consent)
	switch {
	case status == TooNarrow || status.Usable() && len(accesses) == 0:
		missing := without(app.Connectors[k.Connector], namesOf(accesses))
		if len(missing) == 0 {
			missing = []string{MissingReconnect}
		}
		return nil, &RequiredError{k.Connector, missing, status}
	case !status.Usable():
		if e := b.moved(k.Record); e != nil && k.Status.Usable() {
			return nil, b.elsewhere(k.Record, e)
		}
		return nil, &RequiredError{k.Connector, []string{MissingReconnect}, status}
	case u.Who.Session == nil && (!app.Offline || !b.offlineNow(k, consent)):
		return nil, &RequiredError{k.Connector, []string{MissingOffline}, status}
	}
	return accesses, nil
}

// offlineNow reports whether an app may use a grant while the person is away.
func (b *Broker) offlineNow(k Kept, c Consent) bool {
	return c.Offline && b.Store.Now().Before(c.OfflineUntil()) && !b.Ended(c.By, k.organization(), c.At)
}

// open opens what is sealed of a grant.
func (b *Broker) open(r Record) (Tokens, error) {
	tokens, err := b.Keys.Open(r)
	switch {
	case errors.Is(err, ErrKeyUnknown):
		b.Log.Error("a grant is sealed with a key that this process does not have: see that all replicas have the "+
			"same grants.encryption_keys", "connector", r.Connector, "grant", r.ID, "key", r.KeyID)
		return Tokens{}, &LaterError{10 * time.Second, err}
	case err != nil:
		b.Log.Error("a grant cannot be opened: its row was swapped, put back to an older state, or damaged",
			"connector", r.Connector, "grant", r.ID)
		required := &RequiredError{r.Connector, []string{MissingReconnect}, NeedsReconnect}
		return Tokens{}, fmt.Errorf("%w: %w", required, err)
	}
	return tokens, nil
}

// bound returns t with the places at which the grant was connected, if those are where the
// connector would send it now. Of a grant from before they were noted they become what the
// configuration says at its first use, once and for all replicas; ErrChanged where somebody
// else did that, or changed it otherwise.
func (b *Broker) bound(ctx context.Context, r Record, t Tokens) (Tokens, error) {
	now := Destinations(b.offers[r.Connector].Connector, r.Account)
	at := connectedAt(r, t)
	if e := moved(at, now, ToAPI, ToRefresh); e != nil {
		return Tokens{}, b.elsewhere(r, e)
	}
	if t.Destinations = at; len(at) > 0 || len(now) == 0 {
		return t, nil
	}
	t.Destinations = noted(now)
	bound, err := b.Keys.Seal(r, t)
	if err == nil {
		err = b.Store.Bind(ctx, r, bound)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return Tokens{}, ErrChanged
	case err != nil && !errors.Is(err, ErrChanged):
		return Tokens{}, &LaterError{time.Second, fmt.Errorf("note where a grant may be sent: %w", err)}
	}
	return t, err
}

// elsewhere says that a grant has to be connected again because of e, and tells the log of it
// once for all grants of the connector.
func (b *Broker) elsewhere(r Record, e *MovedError) error {
	key := r.Connector + ": " + e.Error()
	if _, known := b.misplaced.Get(key); !known {
		b.misplaced.Put(key, "", 1)
		b.Log.Warn("grants of a connector are not lent, because its address is another one than when they were "+
			"connected: put it back, or have people connect again", "connector", r.Connector, "error", e.Error())
	}
	return fmt.Errorf("%w: %w", &RequiredError{r.Connector, []string{MissingReconnect}, NeedsReconnect}, e)
}

// freshen refreshes the credential of a grant where that is due, or where it was refused.
// It returns true where the grant has to be read again.
func (b *Broker) freshen(ctx context.Context, r Record, t Tokens, refused bool) (bool, error) {
	now := b.Store.Now()
	valid := t.AccessExpires.IsZero() || now.Before(t.AccessExpires)
	if t.Refresh == "" {
		switch {
		case refused && valid:
			return b.refusedForGood(ctx, r, t)
		case valid:
			return false, nil
		}
		return false, &RequiredError{r.Connector, []string{MissingReconnect}, NeedsReconnect}
	}
	if refused && !b.mayForce(r) {
		return false, ErrStillRejected
	}
	if !refused && !due(r, t, now) {
		return false, nil
	}
	f, err := b.startRefresh(r, now)
	if !refused && valid && (err != nil || t.AccessExpires.Sub(now) > CallTime) {
		return false, nil // it is good for longer than the call lasts that fetches the next one
	}
	if err != nil {
		return false, err
	}
	err = b.await(ctx, f, r.Connector)
	if err != nil && !refused && b.Store.Now().Before(t.AccessExpires) {
		return false, nil
	}
	return true, err
}

// mayForce reports whether a refused credential may be refreshed now. For one and the same
// credential it may be: whoever is late finds that it was, and nothing is sent.
func (b *Broker) mayForce(r Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, ok := b.lastForced(r.ID); ok && last.generation != r.Generation {
		return false
	}
	b.forced[r.ID] = forcing{r.Generation, time.Now()}
	return true
}

// lastForced is when the credential of a grant was refused last, within forceEvery. It is called
// with mu held.
func (b *Broker) lastForced(id string) (forcing, bool) {
	maps.DeleteFunc(b.forced, func(_ string, last forcing) bool { return time.Since(last.at) >= forceEvery })
	last, ok := b.forced[id]
	return last, ok
}

// refusedForGood finds out whether a credential that cannot be refreshed has ended, and
// returns true where the grant has to be read again. An app may reach an address that
// always answers 401, so that a key is judged by the probe with which it was accepted.
func (b *Broker) refusedForGood(ctx context.Context, r Record, t Tokens) (bool, error) {
	if !b.mayProbe(r) || !b.begin() {
		return false, ErrStillRejected
	}
	defer b.work.Done()
	status, reason := NeedsReconnect, ReasonRejected
	ctx = context.WithoutCancel(ctx)
	connector := b.offers[r.Connector].Connector
	if keyed, ok := connector.(Keyed); ok {
		asked, cancel := context.WithTimeout(ctx, CallTime)
		result, err := keyed.Accept(asked, t.Access, Request{Access: r.Access, Scopes: r.Requested})
		cancel()
		if err == nil && result.Tokens.Access == t.Access {
			return false, ErrStillRejected
		}
		// Without an error it is good, but not as it is kept: a calendar has moved.
		if status, ok = endBy(ClassOf(err)); err == nil {
			status = NeedsReconnect
		} else if !ok {
			b.Log.Warn("a key was refused, and could not be checked", "connector", r.Connector, "grant", r.ID,
				"error", err.Error())
			return false, ErrStillRejected
		}
		if e, ok := errors.AsType[*Error](err); ok {
			reason = e.Reason
		}
	}
	err := b.Store.SetStatus(ctx, r.ID, r.Generation, status, reason, time.Time{})
	switch {
	case err == nil:
		b.answered.Put(r.ID, r.Version+1, 1)
		b.changed(ctx, r, status, reason)
		return true, nil
	case errors.Is(err, ErrChanged), errors.Is(err, ErrNotFound):
		return true, nil
	}
	return false, &LaterError{time.Second, fmt.Errorf("note that a credential is refused: %w", err)}
}

// mayProbe reports whether a refused credential may be checked now.
func (b *Broker) mayProbe(r Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, ok := b.lastForced(r.ID); ok && last.generation == r.Generation {
		return false
	}
	b.forced[r.ID] = forcing{r.Generation, time.Now()}
	return true
}

// await waits for a refresh, not longer than waitTime, and not among too many.
func (b *Broker) await(ctx context.Context, f *flight, connector string) error {
	waiting := b.waiting[connector]
	select {
	case waiting <- struct{}{}:
		defer func() { <-waiting }()
	default:
		return &LaterError{time.Second, errCrowd}
	}
	timer := time.NewTimer(waitTime)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.err
	case <-timer.C:
		return &LaterError{time.Second, errSlow}
	case <-ctx.Done():
		return fmt.Errorf("wait for a refresh: %w", context.Cause(ctx))
	}
}

// noteUse tells the store now and then that an app uses a grant.
func (b *Broker) noteUse(grant, app string) {
	now := b.Store.Now()
	b.mu.Lock()
	last, known := b.used[use{grant, app}]
	if known && time.Since(last) < usedEvery || b.closed {
		b.mu.Unlock()
		return
	}
	maps.DeleteFunc(b.used, func(_ use, last time.Time) bool { return time.Since(last) >= usedEvery })
	b.used[use{grant, app}] = time.Now()
	b.work.Add(1)
	b.mu.Unlock()
	go func() {
		defer b.work.Done()
		ctx, cancel := context.WithTimeout(context.Background(), CallTime)
		defer cancel()
		if err := b.Store.Used(ctx, grant, app, now); err != nil {
			b.Log.Warn("the use of a grant could not be noted", "grant", grant, "error", err.Error())
		}
	}()
}

// ByManager reports whether p is not known to be somebody who connects a connector: it is an
// organization's, and they may not manage it, or what is known of them does not tell, as where
// a lease stands for them or nobody is there.
func (b *Broker) ByManager(connector string, p Party) bool {
	offer := b.offers[connector]
	return offer != nil && offer.Owner == OwnedByOrg && (p.Session == nil || !offer.ManagedBy(*p.Session))
}

// Line is a connector of an app and what may be done with it, for a party.
type Line struct {
	Connector string
	Owner     OwnerKind
	Status    Status
	Access    []string // of this app's consent, never what the grant could do
	Scopes    []string // those of Access
	Offline   bool
	Until     time.Time // of Offline
	Account   Account
	Missing   []string // what a person has to agree to or do for all that the app is configured for
}

// List returns one Line for each connector of an app, in the order of their ids.
func (b *Broker) List(ctx context.Context, app string, who Party) ([]Line, error) {
	if b.apps[app] == nil {
		return nil, ErrNoApp
	}
	var lines []Line
	for _, connector := range slices.Sorted(maps.Keys(b.apps[app].Connectors)) {
		use := Use{app, connector, who}
		a, offer, key, err := b.find(use)
		if err != nil {
			continue // another kind of owner, or not theirs to use
		}
		line := Line{Connector: connector, Owner: offer.Owner, Status: NotConnected, Missing: a.Connectors[connector]}
		kept, err := b.Store.Get(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, &LaterError{time.Second, fmt.Errorf("read the grant: %w", err)}
		default:
			b.fill(&line, use, a, kept)
			if !line.Status.Usable() {
				go b.askAgainFor(context.WithoutCancel(ctx), use, kept)
			}
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func (b *Broker) fill(line *Line, u Use, app *App, kept Kept) {
	consent, agreed := kept.Consent(app.ID)
	if !agreed {
		return // the app learns nothing of a grant that nobody agreed to lend it
	}
	line.Status, line.Account = b.statusOf(kept.Record), kept.Account
	accesses := b.effective(kept, consent)
	line.Access, line.Scopes = namesOf(accesses), scopesOf(accesses)
	line.Missing = without(app.Connectors[line.Connector], line.Access)
	if !line.Status.Usable() && line.Status != TooNarrow {
		line.Missing = append(line.Missing, MissingReconnect)
	}
	if app.Offline && b.offlineNow(kept, consent) {
		line.Offline, line.Until = true, consent.OfflineUntil()
	} else if u.Who.Session == nil {
		line.Missing = append(line.Missing, MissingOffline)
	}
}
