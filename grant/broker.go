package grant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
)

// What the Broker answers that callers handle, beside what is in Store and connector.go.
var (
	ErrNoConnector = errors.New("there is no such connector")
	ErrNoApp       = errors.New("there is no such app, or it is not configured for the connector")
	ErrNotOffered  = errors.New("the app is not configured for this access")
	ErrNoOffline   = errors.New("the app or the connector cannot be used while the person is away")
	ErrDays        = errors.New("an app may use a grant for 1 to 90 days while the person is away")
	ErrNotManager  = errors.New("who asks may not manage the organization's grant")
	ErrNotUser     = errors.New("who asks may not use the organization's grant")
	ErrNoOrg       = errors.New("the grant is an organization's, and none is named")
	ErrNoPerson    = errors.New("the grant is a person's, and none is named")
	// ErrIssuer: the callback came from another authorization server (RFC 9207).
	ErrIssuer = errors.New("the callback names another issuer")
	// ErrStillRejected: the third party refuses a credential that cannot be made better now.
	ErrStillRejected = errors.New("the credential is refused, and was refreshed just now")
)

// NarrowError: less was granted than is needed, so that nothing was stored.
type NarrowError struct{ Missing []string } // scopes, as the third party spells them

func (e *NarrowError) Error() string {
	return "less was granted than is needed: " + strings.Join(e.Missing, " ")
}

// OtherAccountError: the account is not the one that was connected before, and nobody
// confirmed that. Nothing was stored, and what came was ended; the person begins anew.
type OtherAccountError struct{ Was, Now Account }

func (*OtherAccountError) Error() string { return "another account is connected" }

// RequiredError: a person has to do something first.
type RequiredError struct {
	Connector string
	Missing   []string // names of accesses, MissingOffline or MissingReconnect
	Status    Status
}

// What RequiredError.Missing may have beside the names of accesses.
const (
	MissingOffline   = "offline"
	MissingReconnect = "reconnect"
)

func (e *RequiredError) Error() string {
	return fmt.Sprintf("%s (%s) needs a person: %s", e.Connector, e.Status, strings.Join(e.Missing, ", "))
}

// LaterError: it cannot be done now, and nobody has to do anything but wait.
type LaterError struct {
	After time.Duration
	Err   error // why; it holds no secret
}

func (e *LaterError) Error() string { return fmt.Sprintf("not possible before %v: %v", e.After, e.Err) }
func (e *LaterError) Unwrap() error { return e.Err }

// Offer is a connector as the configuration offers it.
type Offer struct {
	Connector Connector
	Owner     OwnerKind // About.Owner is the connector's default; this one counts
	Offered   []string  // names of About.Accesses
	// ManagedBy says who connects and ends the organization's grant. It judges somebody in
	// their active organization. With OwnedByUser it is not asked.
	ManagedBy func(identity.Identity) bool
	// UsableBy says who may use the organization's grant; nil: everybody of it.
	UsableBy func(identity.Identity) bool
	// SigningSecrets are those of the third party's events, if the Connector is a
	// WebhookReceiver; none: no events are taken.
	SigningSecrets []string
}

// App is a program that uses grants.
type App struct {
	ID, Name           string
	Routes             []string            // whose assertions name people to it
	Connectors         map[string][]string // names of accesses by connector
	Offline, RawTokens bool
	// Told: it is told what becomes of grants, by Options.Notify, and gets the events of third
	// parties, by Options.Relay.
	Told bool
	// Admits reports whether a route of the app would let somebody in; nil: it would.
	Admits func(identity.Identity) bool
}

// Event is a step in the life of a grant, for the audit.
type Event struct {
	Name      string // one of EventNames
	Connector string
	Owner     Owner
	App       string
	By        string // identity.Identity.ID; "": no person did it
	Operator  string // Operator.Name, where it was done with that
	Caller           // of the request in which it happened; empty where it happened in none
	Detail    string // what EventNames say: from a closed list, or the id of a key or an organization
}

// Caller is the request of a browser or an app in which something happens, for the audit.
type Caller struct {
	RequestID string
	Client    string // the address that it came from
}

type callerKey struct{}

// WithCaller returns a context for calls of a Broker in a request.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// emit hands the audit what happened in the request of ctx.
func (b *Broker) emit(ctx context.Context, e Event) {
	e.Caller, _ = ctx.Value(callerKey{}).(Caller)
	b.Audit(e)
}

// Options are what a Broker is made from.
type Options struct {
	Store    Store
	Keys     Keyring
	Offers   []Offer
	Apps     []App
	Redirect func(connector string) string // the absolute callback address
	// Ended reports whether sessions of a person or an organization that began at that time
	// have been ended; what they agreed to for the time in which they are away ends with
	// them. nil: nothing is ever ended.
	Ended   func(person, org string, at time.Time) bool
	Log     *slog.Logger // nil: none
	Metrics *Metrics     // made once for all brokers of a process; nil: none
	Audit   func(Event)  // nil: none
	// Notify tells an app; nil: none is told. Where it fails it is called again later, unless
	// the error wraps ErrNoticeRefused. An app may be told the same twice.
	Notify func(context.Context, Notice) error
	// Relay hands an app an event of a third party, once, and returns nil when it has taken
	// it; nil: none gets any.
	Relay func(ctx context.Context, app string, e Relayed) error
}

// Broker lets people connect, keeps what they lent, and lends it. There is one for each
// configuration; several work on one Store, in one process and in many. It is safe for
// concurrent use.
type Broker struct {
	Options
	offers map[string]*Offer
	apps   map[string]*App

	background context.Context // of what is done unasked; a refresh has none that ends it
	stop       context.CancelFunc
	work       sync.WaitGroup // refreshes up to their commit, and what else must be finished
	// waiting are the calls that wait for a refresh, by connector: a third party that hangs
	// holds up nobody who waits for another one.
	waiting map[string]chan struct{}

	// Times in what follows are this process's own, which go on whatever becomes of the clock.
	mu         sync.Mutex
	closed     bool
	connects   map[connecting]int   // under way
	flights    map[string]*flight   // refreshes by the grant's ID
	trouble    map[string]*trouble  // by connector whose client is refused
	fails      map[string]int       // refreshes that failed in a row, by the grant's ID
	forced     map[string]forcing   // the last forced refresh, by the grant's ID
	used       map[use]time.Time    // when Store.Used was called last
	reportedAt map[string]time.Time // by connector and message: when report logged it last

	// misplaced is why the newest Locate of a grant failed, by the grant's ID; "": it did not.
	// Its other keys are connectors and why their grants are not sent to what they are now.
	misplaced *recent.Cache[string, string]
	// answered is the Version of a grant, by its ID, at which the third party refused its key, as it
	// was asked by this Broker. See mayAskAgain.
	answered *recent.Cache[string, int64]
}

// mostMisplaced is how many grants are remembered in misplaced, at least half of it. Of others
// it is logged again.
const mostMisplaced = 1000

// report logs what an operator has to mend and each use of a connector finds anew: once in
// shoutEvery, however many uses there are.
func (b *Broker) report(message string, r Record, args ...any) {
	b.mu.Lock()
	now, key := time.Now(), r.Connector+" "+message
	silent := now.Sub(b.reportedAt[key]) < shoutEvery
	if !silent {
		b.reportedAt[key] = now
	}
	b.mu.Unlock()
	if !silent {
		b.Log.Error(message, append([]any{"connector", r.Connector, "grant", r.ID}, args...)...)
	}
}

// forcing is a refresh because a credential of this generation was refused.
type forcing struct {
	generation int64
	at         time.Time
}

type use struct{ grant, app string }

// New makes a Broker and starts its sweep.
func New(o Options) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = func(Event) {}
	}
	if o.Ended == nil {
		o.Ended = func(string, string, time.Time) bool { return false }
	}
	b := &Broker{Options: o, offers: map[string]*Offer{}, apps: map[string]*App{},
		waiting: map[string]chan struct{}{}, flights: map[string]*flight{}, trouble: map[string]*trouble{},
		fails: map[string]int{}, forced: map[string]forcing{}, used: map[use]time.Time{},
		reportedAt: map[string]time.Time{}, connects: map[connecting]int{},
		misplaced: recent.New[string, string](mostMisplaced), answered: recent.New[string, int64](mostAnswered)}
	if err := b.configure(); err != nil {
		return nil, err
	}
	b.background, b.stop = context.WithCancel(context.Background())
	go b.sweep(b.background)
	for id, app := range b.apps {
		if app.Told && b.Notify != nil {
			go b.notify(b.background, id)
		}
	}
	return b, nil
}

func (b *Broker) configure() error {
	if b.Store == nil || len(b.Keys.keys) == 0 || b.Redirect == nil {
		return errors.New("a broker needs a store, keys and callback addresses")
	}
	for i := range b.Offers {
		offer := &b.Offers[i]
		about := offer.Connector.About()
		if b.offers[about.ID] != nil {
			return fmt.Errorf("two connectors are called %s", about.ID)
		}
		_, oauth := offer.Connector.(OAuth)
		_, keyed := offer.Connector.(Keyed)
		if !oauth && !keyed {
			return fmt.Errorf("connector %s can neither be connected nor take a key", about.ID)
		}
		if oauth && !isOrigin(about.Refresh) || about.Revoke != "" && !isOrigin(about.Revoke) {
			return fmt.Errorf("connector %s does not say where its refresh tokens are sent", about.ID)
		}
		if offer.Owner != OwnedByUser && offer.Owner != OwnedByOrg {
			return fmt.Errorf("connector %s is neither each person's own nor an organization's", about.ID)
		}
		if offer.Owner == OwnedByOrg && offer.ManagedBy == nil {
			return fmt.Errorf("connector %s is an organization's, and nobody manages it", about.ID)
		}
		for _, name := range offer.Offered {
			if !slices.ContainsFunc(about.Accesses, func(a Access) bool { return a.Name == name }) {
				return fmt.Errorf("connector %s has no access %s", about.ID, name)
			}
		}
		b.offers[about.ID], b.waiting[about.ID] = offer, make(chan struct{}, mostWaiting)
		b.Metrics.expect(about.ID)
	}
	for i := range b.Apps {
		app := &b.Apps[i]
		if app.ID == "" || b.apps[app.ID] != nil {
			return fmt.Errorf("two apps are called %q, or one has no name", app.ID)
		}
		for id, names := range app.Connectors {
			offer := b.offers[id]
			if offer == nil {
				return fmt.Errorf("app %s: there is no connector %s", app.ID, id)
			}
			for _, name := range names {
				if !slices.Contains(offer.Offered, name) {
					return fmt.Errorf("app %s: connector %s does not offer %s", app.ID, id, name)
				}
			}
		}
		b.apps[app.ID] = app
	}
	return nil
}

// Retire ends what b does unasked, for another Broker does that from here on: it refreshes what
// nothing else refreshes, and tells apps. Calls that began with b are still lent to, until Close.
func (b *Broker) Retire() { b.stop() }

// Close begins no further refresh. Those under way go on until their result is kept, and
// credentials that are still good are lent. Wait waits for them.
func (b *Broker) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
}

// Wait waits until nothing is under way. It comes after Close.
func (b *Broker) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		b.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for refreshes: %w", context.Cause(ctx))
	}
}

// begin counts work that Wait waits for; false after Close.
func (b *Broker) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.work.Add(1)
	return true
}

// ownerFor is whose grant of a connector somebody who is signed in connects and uses.
func (o *Offer) ownerFor(who identity.Identity) (Owner, error) {
	if o.Owner == OwnedByUser {
		return Owner{OwnedByUser, who.ID()}, nil
	}
	if who.Org.ID == "" {
		return Owner{}, ErrNoOrg
	}
	return Owner{OwnedByOrg, who.Org.ID}, nil
}

// managed is ownerFor for who connects and ends it.
func (o *Offer) managed(who identity.Identity) (Owner, error) {
	owner, err := o.ownerFor(who)
	if err == nil && owner.Kind == OwnedByOrg && !o.ManagedBy(who) {
		return Owner{}, ErrNotManager
	}
	return owner, err
}

// accesses returns those of names, in the connector's order.
func (o *Offer) accesses(names []string) []Access {
	var list []Access
	for _, a := range o.Connector.About().Accesses {
		if slices.Contains(names, a.Name) {
			list = append(list, a)
		}
	}
	return list
}

// effective are the accesses of a consent that count: the app is configured for them, and
// all of their scopes are granted.
func (b *Broker) effective(k Kept, c Consent) []Access {
	offer := b.offers[k.Connector]
	if offer == nil {
		return nil
	}
	return slices.DeleteFunc(offer.accesses(b.configured(k.Connector, c)), func(a Access) bool {
		return len(without(a.Scopes, k.Scopes)) > 0
	})
}

// configured are the names of the accesses of a consent for which its app is configured.
func (b *Broker) configured(connector string, c Consent) []string {
	app := b.apps[c.App]
	if app == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Access), func(name string) bool {
		return !slices.Contains(app.Connectors[connector], name)
	})
}

// statusOf is what has become of a grant, as the configuration and this process see it.
func (b *Broker) statusOf(r Record) Status {
	offer := b.offers[r.Connector]
	switch {
	case offer == nil:
		return NotConnected
	case r.Status.Usable() && isOther(r, offer.Connector.About()):
		return NeedsReconnect // another client's refresh tokens are not ours to show
	case r.Status.Usable() && b.moved(r) != nil:
		return NeedsReconnect
	case r.Status.Usable() && b.inTrouble(r.Connector):
		return OperatorError
	}
	return r.Status
}

// isOther reports whether a grant was made with another client than a connector has. Of pasted
// keys that is the third party, and one whose address we ship stays what it is when that changes.
func isOther(r Record, about About) bool {
	return r.ClientID != about.ClientID && (about.Refresh != "" || about.Shipped == "" ||
		!slices.ContainsFunc(r.Destinations, func(d Destination) bool { return d.Shipped == about.Shipped }))
}

// moved says, by what the row has of it, that a grant was connected at another place than its
// connector has now; nil: it was not.
func (b *Broker) moved(r Record) *MovedError {
	offer := b.offers[r.Connector]
	if offer == nil || len(r.Destinations) == 0 {
		return nil
	}
	return moved(r.Destinations, Destinations(offer.Connector, r.Account), ToAPI, ToRefresh)
}

// without returns what is in list and not in others.
func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

func namesOf(list []Access) []string {
	names := make([]string, 0, len(list))
	for _, a := range list {
		names = append(names, a.Name)
	}
	return names
}

// scopesOf are the scopes of all in list, each once.
func scopesOf(list []Access) []string {
	var scopes []string
	for _, a := range list {
		for _, s := range a.Scopes {
			if !slices.Contains(scopes, s) {
				scopes = append(scopes, s)
			}
		}
	}
	return scopes
}
