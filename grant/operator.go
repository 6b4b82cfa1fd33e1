package grant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// ErrOccupied: the organization has a grant of the same connector already.
var ErrOccupied = errors.New("the organization has a grant of the same connector")

// operatorPage is how many grants an Operator reads at a time.
const operatorPage = 200

// Operator is what people who run Sallyport can do with the grants that are kept, in a
// process of its own beside the servers that share the Store. It shows no refresh token to
// anybody, and starts nothing that goes on when a method has returned.
type Operator struct {
	Store Store
	// Keys open and seal; List and Show need none.
	Keys Keyring
	// Connectors are those of the configuration. Only Revoke has them ask anything.
	Connectors []Connector
	Name       string       // who it is, for the audit
	Log        *slog.Logger // nil: none
	Audit      func(Event)  // nil: none
}

// Entry is a grant in an operator's list. Nothing of it is secret.
type Entry struct {
	ID        string
	Connector string
	Owner     Owner
	Account   Account
	ClientID  string
	Status    Status
	Reason    string // why, from a closed list; "" with Active
	Access    []string
	Requested []string
	Scopes    []string
	Offline   bool   // it can be refreshed while the person is away
	KeyID     string // the key of the ring that seals it
	// Destinations are where the credential may be sent; none: it is from before they were
	// noted, or the credential itself says where.
	Destinations []Destination
	// Moved: it is not lent because the configuration has another address, as MovedError says;
	// "": that is not so, or Connectors does not have its connector.
	Moved string

	ConnectedBy              string // identity.Identity.ID
	ConnectedAt, RefreshedAt time.Time
	RetryAt                  time.Time // no refresh before; zero: now
	AccessExpires, Reconsent time.Time // zero: not known
	UsedAt                   time.Time // when any app last used it, give or take some minutes; zero: never
	Consents                 []Consent // by App
}

func (o *Operator) entryOf(k Kept) Entry {
	e := Entry{ID: k.ID, Connector: k.Connector, Owner: k.Owner, Account: k.Account, ClientID: k.ClientID,
		Status: k.Status, Reason: k.Reason, Access: k.Access, Requested: k.Requested, Scopes: k.Scopes,
		Offline: k.Offline, KeyID: k.KeyID, ConnectedBy: k.ConnectedBy, ConnectedAt: k.ConnectedAt,
		RefreshedAt: k.RefreshedAt, RetryAt: k.RetryAt, AccessExpires: k.AccessExpires, Reconsent: k.Reconsent,
		Destinations: k.Destinations, Consents: k.Consents}
	for _, c := range k.Consents {
		if c.UsedAt.After(e.UsedAt) {
			e.UsedAt = c.UsedAt
		}
	}
	if c := o.connector(k.Connector); c != nil && k.Status.Usable() {
		if other := moved(k.Destinations, Destinations(c, k.Account), ToAPI, ToRefresh); other != nil {
			e.Moved = other.Error()
		}
	}
	return e
}

// List returns the grants that f asks for, in the order of their IDs. Filter.After and
// Filter.Most page through them: fewer than Most are the last ones.
func (o *Operator) List(ctx context.Context, f Filter) ([]Entry, error) {
	kept, err := o.Store.List(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("list the grants: %w", err)
	}
	entries := make([]Entry, 0, len(kept))
	for _, k := range kept {
		entries = append(entries, o.entryOf(k))
	}
	return entries, nil
}

// Show returns one grant by its ID; ErrNotFound where it is not there or is disconnected.
func (o *Operator) Show(ctx context.Context, id string) (Entry, error) {
	k, err := keptByID(ctx, o.Store, id)
	if err != nil {
		return Entry{}, err
	}
	return o.entryOf(k), nil
}

func keptByID(ctx context.Context, s Store, id string) (Kept, error) {
	if id == "" {
		return Kept{}, ErrNotFound
	}
	list, err := s.List(ctx, Filter{ID: id, Most: 1})
	switch {
	case err != nil:
		return Kept{}, fmt.Errorf("read the grant: %w", err)
	case len(list) == 0:
		return Kept{}, ErrNotFound
	}
	return list[0], nil
}

// Ended is a grant that an Operator ended.
type Ended struct {
	Entry
	Name      string     // of the third party, for people; "": the configuration has no such connector
	There     Revocation // what became of it at the third party
	FinishURL string     // where to end it there where that was not done; "": nobody said where
}

// Revoke ends a grant here, for all replicas at once, and then asks the third party to end
// it too, unless forget is set. Where that needs a key that the ring does not have, it
// returns ErrKeyUnknown and ends nothing: afterwards nobody could ask any more.
func (o *Operator) Revoke(ctx context.Context, id string, forget bool) (Ended, error) {
	k, err := keptByID(ctx, o.Store, id)
	if err != nil {
		return Ended{}, err
	}
	connector := o.connector(k.Connector)
	if _, ok := connector.(Revoker); ok && !forget {
		if _, err := o.Keys.Open(k.Record); errors.Is(err, ErrKeyUnknown) {
			return Ended{}, err
		}
	}
	ctx = context.WithoutCancel(ctx) // what was ended here is told to the third party, and told truly
	was, err := disconnect(ctx, o.Store, k)
	if err != nil {
		return Ended{}, fmt.Errorf("end the grant: %w", err)
	}
	ended := Ended{Entry: o.entryOf(was), There: NotAsked}
	if connector != nil {
		ended.Name = connector.About().Name
	}
	if connector != nil && !forget {
		ended.There = revoking{o.Store, o.Keys, o.log(), o.connector}.record(ctx, was.Record)
	}
	if finish, ok := connector.(Finish); ok && ended.There != Revoked {
		ended.FinishURL = finish.FinishURL(was.Account)
	}
	o.audit(Event{Name: EventDisconnected, Connector: was.Connector, Owner: was.Owner, Detail: string(ended.There)})
	return ended, nil
}

// Rekeyed says how far Rekey came.
type Rekeyed struct {
	Key  string // the id of the key that seals now
	Done int    // grants that were wrapped with it by this call
	// Left are grants that still have another key. Keys says how many have which: a key
	// that is not in it opens nothing any more and can be taken from the configuration,
	// once all replicas seal with Key.
	Left int
	Keys map[string]int
	// Newest is the id of a key that is newer than Key, and seals from SealsFrom on: until
	// then a replica may not know it. Rekey has to be called again then. "": there is none.
	Newest    string
	SealsFrom time.Time
}

// Rekey wraps the keys of all grants with the key of the ring that seals now. It can be
// stopped at any moment and called again, beside servers that lend and refresh. What it
// cannot open it leaves, and logs. With an error it tells how far it came.
func (o *Operator) Rekey(ctx context.Context) (Rekeyed, error) {
	if len(o.Keys.keys) == 0 {
		return Rekeyed{}, ErrKeyUnknown
	}
	became := Rekeyed{Key: o.Keys.sealing().id}
	if newest := o.Keys.keys[len(o.Keys.keys)-1]; newest.id != became.Key {
		became.Newest, became.SealsFrom = newest.id, newest.sealsFrom
	}
	var err error
	// Somebody who connects a grant again may put back the key that it had a moment before.
	for range mostChanges {
		before := became.Done
		if err = o.rekeyOnce(ctx, &became); err != nil || became.Done == before {
			break
		}
	}
	if became.Done > 0 {
		o.audit(Event{Name: EventRekeyed, Detail: became.Key})
	}
	return became, err
}

// rekeyOnce goes through all grants once.
func (o *Operator) rekeyOnce(ctx context.Context, became *Rekeyed) error {
	became.Left, became.Keys = 0, map[string]int{}
	for f := (Filter{Most: operatorPage}); ; {
		page, err := o.Store.List(ctx, f)
		if err != nil {
			return fmt.Errorf("list the grants: %w", err)
		}
		for _, k := range page {
			f.After = k.ID
			keyID, err := o.rewrap(ctx, k.Record)
			switch {
			case errors.Is(err, ErrNotFound):
				continue
			case errors.Is(err, ErrKeyUnknown), errors.Is(err, ErrSealed), errors.Is(err, ErrChanged):
				o.log().Warn("a grant keeps the key that it has", "connector", k.Connector, "grant", k.ID,
					"key", keyID, "error", err.Error())
			case err != nil:
				return fmt.Errorf("wrap the key of a grant: %w", err)
			case keyID != k.KeyID:
				became.Done++
			}
			became.Keys[keyID]++
			if keyID != became.Key {
				became.Left++
			}
		}
		if len(page) < f.Most {
			return nil
		}
	}
}

// rewrap wraps the key of one grant with the key that seals now, and returns which key it
// has afterwards.
func (o *Operator) rewrap(ctx context.Context, r Record) (keyID string, err error) {
	for range mostChanges {
		wrapped, keyID, changed, err := o.Keys.Rewrap(r)
		if err != nil || !changed {
			return r.KeyID, err
		}
		if err = o.Store.Rewrap(ctx, r, wrapped, keyID); err == nil {
			return keyID, nil
		}
		if !errors.Is(err, ErrChanged) {
			return r.KeyID, err
		}
		k, err := keptByID(ctx, o.Store, r.ID)
		if err != nil {
			return r.KeyID, err
		}
		r = k.Record
	}
	return r.KeyID, ErrChanged
}

// Move gives the grants of an organization to another one, with their consents, all or
// none, and returns how many: for the day on which the configuration folds an organization
// or gives it another id. ErrOccupied where both have a grant of the same connector. A
// refresh that is under way is waited for.
func (o *Operator) Move(ctx context.Context, from, to string) (int, error) {
	if from == "" || to == "" || from == to {
		return 0, errors.New("grants are moved from one organization to another one")
	}
	was, next := Owner{OwnedByOrg, from}, Owner{OwnedByOrg, to}
	var connectors []string
	reseal := func(was, becomes Record) (Record, error) {
		tokens, err := o.Keys.Open(was)
		if err != nil {
			return Record{}, err
		}
		connectors = append(connectors, was.Connector)
		becomes.Wrapped, becomes.KeyID = nil, ""
		return o.Keys.Seal(becomes, tokens)
	}
	for deadline := time.Now().Add(LeaseTime + callMargin); ; {
		connectors = nil
		n, err := o.Store.Move(ctx, was, next, reseal)
		switch {
		case err == nil:
			slices.Sort(connectors)
			for _, c := range slices.Compact(connectors) { // a store may have had to begin again
				o.audit(Event{Name: EventMoved, Connector: c, Owner: next, Detail: from})
			}
			return n, nil
		case errors.Is(err, ErrChanged):
			return 0, o.occupied(ctx, was, next)
		case !errors.Is(err, ErrHeld) && !errors.Is(err, ErrNotFound) || !time.Now().Before(deadline):
			return 0, fmt.Errorf("move the grants: %w", err)
		} // held, or one of them has ended meanwhile
		timer := time.NewTimer(pollHeld)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, fmt.Errorf("wait for a refresh: %w", context.Cause(ctx))
		}
	}
}

// occupied names the connectors of which both owners have a grant.
func (o *Operator) occupied(ctx context.Context, from, to Owner) error {
	list, err := o.Store.List(ctx, Filter{Owners: []Owner{from, to}})
	if err != nil {
		return fmt.Errorf("%w; which one could not be read: %w", ErrOccupied, err)
	}
	var both []string
	for i, k := range list {
		if slices.ContainsFunc(list[:i], func(other Kept) bool { return other.Connector == k.Connector }) {
			both = append(both, k.Connector)
		}
	}
	if both == nil {
		return ErrChanged // one of them has ended meanwhile
	}
	return fmt.Errorf("%w: %s", ErrOccupied, strings.Join(both, ", "))
}

func (o *Operator) connector(id string) Connector {
	for _, c := range o.Connectors {
		if c.About().ID == id {
			return c
		}
	}
	return nil
}

func (o *Operator) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

func (o *Operator) audit(e Event) {
	if o.Audit != nil {
		e.Operator = o.Name
		o.Audit(e)
	}
}
