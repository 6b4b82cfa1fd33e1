// Package granttest is what every part around grants must keep to, as tests, and what
// stands in for the parts that a test is not about.
//
// It owns the contract suites of grant.Store (TestStore) and of connectors (TestConnector),
// and a Store in memory (NewStore) that keeps the same contract and can be broken. Only
// tests link it. It never decides what becomes of a grant: that is package grant's; the
// databases are store's.
package granttest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// Store is a grant.Store in memory, for one process.
type Store struct {
	now func() time.Time

	mu          sync.Mutex
	rows        map[string]*row  // by ID; tombstones too
	newest      map[string]int64 // the newest generation by ID
	notices     []notice         // in the order of their IDs
	lastNotice  int64
	claims      map[string]*claim
	unavailable error
	noRoom      bool
	before      func(ctx context.Context, method string) error
}

// row is a grant with what the store knows of its refreshes.
type row struct {
	grant.Record
	consents []grant.Consent // by App

	attempt      string // of the lease; "": there is none, nor was there one without an outcome
	began, until time.Time
	shown        int
	shownSince   time.Time
}

var _ grant.Store = (*Store)(nil)

// NewStore returns an empty store whose time is now's; nil: the real one.
func NewStore(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, rows: map[string]*row{}, newest: map[string]int64{}}
}

// SetUnavailable has every call fail as where a database does not answer, or answer again.
func (s *Store) SetUnavailable(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unavailable = nil
	if is {
		s.unavailable = fmt.Errorf("%w: a test broke it", grant.ErrUnavailable)
	}
}

// SetNoRoom has Lease fail as on a full disk. What is leased can be committed.
func (s *Store) SetNoRoom(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noRoom = is
}

// SetBefore has f called at the beginning of every call, with the name of the method. An
// error of f is returned, and nothing done. f may hold the call.
func (s *Store) SetBefore(f func(ctx context.Context, method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Keep makes a copy of a row, and returns what puts it back, as who restores a part of a
// database does.
func (s *Store) Keep(id string) (putBack func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := *s.rows[id]
	kept.consents = slices.Clone(kept.consents)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		again := kept
		again.consents = slices.Clone(kept.consents)
		s.rows[id] = &again
	}
}

// begin locks the store, unless it is broken.
func (s *Store) begin(ctx context.Context, method string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, method); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", grant.ErrUnavailable, err)
	}
	s.mu.Lock()
	if s.unavailable != nil {
		defer s.mu.Unlock()
		return s.unavailable
	}
	return nil
}

// Now implements grant.Store.
func (s *Store) Now() time.Time { return ms(s.now()) }

// ms is a time as it is kept.
func ms(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// byKey finds a grant that is not disconnected.
func (s *Store) byKey(k grant.Key) *row {
	for _, r := range s.rows {
		if r.Key == k && r.Status != grant.Disconnected {
			return r
		}
	}
	return nil
}

// byID finds a grant that is not disconnected.
func (s *Store) byID(id string) *row {
	if r := s.rows[id]; r != nil && r.Status != grant.Disconnected {
		return r
	}
	return nil
}

// kept is a copy that its receiver may change.
func (r *row) kept() grant.Kept {
	k := grant.Kept{Record: copied(r.Record)}
	for _, c := range r.consents {
		c.Access = slices.Clone(c.Access)
		k.Consents = append(k.Consents, c)
	}
	return k
}

func copied(r grant.Record) grant.Record {
	r.Access, r.Requested, r.Scopes = slices.Clone(r.Access), slices.Clone(r.Requested), slices.Clone(r.Scopes)
	r.Sealed, r.Wrapped = slices.Clone(r.Sealed), slices.Clone(r.Wrapped)
	r.Destinations = slices.Clone(r.Destinations)
	for _, t := range [...]*time.Time{&r.AccessExpires, &r.Reconsent, &r.ConnectedAt, &r.RefreshedAt, &r.RetryAt} {
		*t = ms(*t)
	}
	return r
}

// Get implements grant.Store.
func (s *Store) Get(ctx context.Context, k grant.Key) (grant.Kept, error) {
	if err := s.begin(ctx, "Get"); err != nil {
		return grant.Kept{}, err
	}
	defer s.mu.Unlock()
	r := s.byKey(k)
	if r == nil {
		return grant.Kept{}, grant.ErrNotFound
	}
	return r.kept(), nil
}

// List implements grant.Store.
func (s *Store) List(ctx context.Context, f grant.Filter) ([]grant.Kept, error) {
	if err := s.begin(ctx, "List"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if f.Most <= 0 {
		f.Most = 1000
	}
	var list []grant.Kept
	for _, r := range s.rows {
		if r.Status != grant.Disconnected && r.ID > f.After &&
			(f.ID == "" || f.ID == r.ID) &&
			(f.Connector == "" || f.Connector == r.Connector) &&
			(len(f.Owners) == 0 || slices.Contains(f.Owners, r.Owner)) &&
			(f.Chain == "" || f.Chain == r.Account.Chain) &&
			(f.Account == "" || f.Account == r.Account.ID) {
			list = append(list, r.kept())
		}
	}
	slices.SortFunc(list, func(a, b grant.Kept) int { return cmp.Compare(a.ID, b.ID) })
	return list[:min(len(list), f.Most)], nil
}

// Connect implements grant.Store.
func (s *Store) Connect(ctx context.Context, r grant.Record, c grant.Consent, was int64, seal grant.Seal) (
	grant.Record, error) {
	if err := s.begin(ctx, "Connect"); err != nil {
		return grant.Record{}, err
	}
	defer s.mu.Unlock()
	var tomb *row
	there := s.byKey(r.Key)
	for _, other := range s.rows {
		switch {
		case other.Key == r.Key && other.Status == grant.Disconnected:
			tomb = other
		case other.Connector == r.Connector && other.Key != r.Key && r.Account.Chain != "" &&
			other.Account.Chain == r.Account.Chain:
			return grant.Record{}, grant.ErrChain
		}
	}
	next := &row{}
	switch {
	case there != nil && there.Version != was, there == nil && was != 0:
		return grant.Record{}, grant.ErrChanged
	case there != nil:
		r.ID, r.Version = there.ID, there.Version+1
		r.Generation = max(there.Generation, s.newest[r.ID]) + 1
		next.consents = slices.Clone(there.consents)
	case tomb != nil:
		r.ID, r.Version, r.Generation = rand.Text(), tomb.Version+1, tomb.Generation+1
	default:
		r.ID, r.Version, r.Generation = rand.Text(), 1, 1
	}
	sealed, err := seal(copied(r))
	if err != nil {
		return grant.Record{}, err
	}
	next.Record = copied(withSealed(r, sealed))
	if there != nil {
		s.notice(there, r.Status)
	}
	next.agree(c)
	if tomb != nil {
		delete(s.rows, tomb.ID)
	}
	s.rows[r.ID], s.newest[r.ID] = next, r.Generation
	return copied(next.Record), nil
}

func withSealed(r, sealed grant.Record) grant.Record {
	r.Sealed, r.Wrapped, r.KeyID = sealed.Sealed, sealed.Wrapped, sealed.KeyID
	r.Destinations = sealed.Destinations
	return r
}

// agree puts a consent in the place of the one that its app has.
func (r *row) agree(c grant.Consent) {
	if c.App == "" {
		return
	}
	c.Access = slices.Clone(c.Access)
	for _, t := range [...]*time.Time{&c.Until, &c.Lapses, &c.At, &c.UsedAt} {
		*t = ms(*t)
	}
	i, there := slices.BinarySearchFunc(r.consents, c.App, byApp)
	if !there {
		r.consents = slices.Insert(r.consents, i, c)
		return
	}
	if old := r.consents[i].UsedAt; old.After(c.UsedAt) {
		c.UsedAt = old
	}
	r.consents[i] = c
}

func byApp(c grant.Consent, app string) int { return cmp.Compare(c.App, app) }

// Agree implements grant.Store.
func (s *Store) Agree(ctx context.Context, id string, c grant.Consent, was int64) error {
	if err := s.begin(ctx, "Agree"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.byID(id)
	switch {
	case r == nil:
		return grant.ErrNotFound
	case r.Version != was:
		return grant.ErrChanged
	}
	r.agree(c)
	r.Version++
	return nil
}

// Withdraw implements grant.Store.
func (s *Store) Withdraw(ctx context.Context, k grant.Key, app string) (bool, error) {
	if err := s.begin(ctx, "Withdraw"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	r := s.byKey(k)
	if r == nil {
		return false, nil
	}
	i, there := slices.BinarySearchFunc(r.consents, app, byApp)
	if there {
		r.consents = slices.Delete(r.consents, i, i+1)
		r.Version++
		s.put(r.Key, app, grant.NoticeDisconnected, grant.Disconnected)
	}
	return there, nil
}

// Disconnect implements grant.Store.
func (s *Store) Disconnect(ctx context.Context, id string) (grant.Kept, error) {
	if err := s.begin(ctx, "Disconnect"); err != nil {
		return grant.Kept{}, err
	}
	defer s.mu.Unlock()
	r := s.byID(id)
	if r == nil {
		return grant.Kept{}, grant.ErrNotFound
	}
	s.notice(r, grant.Disconnected)
	s.newest[r.ID] = max(s.newest[r.ID], r.Generation) + 1 // a copy of the row that comes back is none
	s.rows[r.ID] = &row{Record: grant.Record{ID: r.ID, Key: r.Key, Status: grant.Disconnected,
		Generation: s.newest[r.ID], Version: r.Version + 1}}
	return r.kept(), nil
}

// Move implements grant.Store.
func (s *Store) Move(ctx context.Context, from, to grant.Owner,
	reseal func(was, becomes grant.Record) (grant.Record, error)) (int, error) {
	if err := s.begin(ctx, "Move"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	moved := map[string]grant.Record{}
	for id, r := range s.rows {
		if r.Owner != from || r.Status == grant.Disconnected || from == to {
			continue
		}
		key := grant.Key{Connector: r.Connector, Owner: to}
		switch {
		case s.byKey(key) != nil:
			return 0, grant.ErrChanged
		case s.leased(r):
			return 0, grant.ErrHeld
		}
		next := copied(r.Record)
		next.Key = key
		next.Version++
		next.Generation = max(r.Generation, s.newest[id]) + 1
		sealed, err := reseal(copied(r.Record), copied(next))
		if err != nil {
			return 0, err
		}
		moved[id] = copied(withSealed(next, sealed))
	}
	for id, r := range moved {
		for other, tomb := range s.rows {
			if tomb.Key == r.Key && tomb.Status == grant.Disconnected {
				delete(s.rows, other)
			}
		}
		s.rows[id].Record, s.newest[id] = r, r.Generation
	}
	return len(moved), nil
}

// leased reports whether somebody may show the refresh token of r now.
func (s *Store) leased(r *row) bool {
	return r.attempt != "" && r.until.After(s.Now()) && !grant.Lease{Until: r.until}.IsAhead(s.Now())
}

// SetStatus implements grant.Store.
func (s *Store) SetStatus(ctx context.Context, id string, generation int64, status grant.Status, reason string,
	retryAt time.Time) error {
	if err := s.begin(ctx, "SetStatus"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.byID(id)
	switch {
	case r == nil:
		return grant.ErrNotFound
	case r.Generation != generation:
		return grant.ErrChanged
	case s.leased(r):
		return grant.ErrHeld
	}
	s.set(r, status, reason, retryAt)
	return nil
}

func (s *Store) set(r *row, status grant.Status, reason string, retryAt time.Time) {
	s.notice(r, status)
	r.Status, r.Reason, r.RetryAt = status, reason, ms(retryAt)
	r.Version++
}

// Used implements grant.Store.
func (s *Store) Used(ctx context.Context, id, app string, at time.Time) error {
	if err := s.begin(ctx, "Used"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.byID(id)
	if r == nil {
		return nil
	}
	i, there := slices.BinarySearchFunc(r.consents, app, byApp)
	if there && ms(at).After(r.consents[i].UsedAt) {
		r.consents[i].UsedAt = ms(at)
	}
	return nil
}

// Rewrap implements grant.Store.
func (s *Store) Rewrap(ctx context.Context, was grant.Record, wrapped []byte, keyID string) error {
	if err := s.begin(ctx, "Rewrap"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.byID(was.ID)
	switch {
	case r == nil:
		return grant.ErrNotFound
	case r.KeyID != was.KeyID || !slices.Equal(r.Wrapped, was.Wrapped):
		return grant.ErrChanged
	}
	r.Wrapped, r.KeyID = slices.Clone(wrapped), keyID
	return nil
}

// Bind implements grant.Store.
func (s *Store) Bind(ctx context.Context, was, bound grant.Record) error {
	if err := s.begin(ctx, "Bind"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.byID(was.ID)
	switch {
	case r == nil:
		return grant.ErrNotFound
	case r.Generation != was.Generation || !slices.Equal(r.Sealed, was.Sealed) || len(r.Destinations) > 0:
		return grant.ErrChanged
	}
	r.Sealed, r.Destinations = slices.Clone(bound.Sealed), slices.Clone(bound.Destinations)
	return nil
}

// SignedIn implements grant.Store.
func (s *Store) SignedIn(ctx context.Context, person string, lapses time.Time,
	keep func(grant.Key, grant.Consent) bool) (ended []grant.Ending, err error) {
	if err := s.begin(ctx, "SignedIn"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for _, r := range s.rows {
		before := len(ended)
		for i := range r.consents {
			switch c := &r.consents[i]; {
			case !c.Offline || c.By != person:
			case keep(r.Key, *c):
				c.Lapses = ms(lapses)
			default:
				ended = append(ended, grant.Ending{Key: r.Key, App: c.App})
				c.Offline, c.Until, c.Lapses = false, time.Time{}, time.Time{}
			}
		}
		if len(ended) > before {
			r.Version++
		}
	}
	return ended, nil
}

// Lease implements grant.Store.
func (s *Store) Lease(ctx context.Context, id string, generation int64) (grant.Lease, grant.Record, error) {
	if err := s.begin(ctx, "Lease"); err != nil {
		return grant.Lease{}, grant.Record{}, err
	}
	defer s.mu.Unlock()
	r := s.byID(id)
	switch {
	case r == nil:
		return grant.Lease{}, grant.Record{}, grant.ErrNotFound
	case r.Generation < s.newest[id]:
		return grant.Lease{}, grant.Record{}, grant.ErrRolledBack
	case r.Generation != generation:
		return grant.Lease{}, grant.Record{}, grant.ErrChanged
	case s.leased(r):
		return grant.Lease{Until: r.until}, grant.Record{}, grant.ErrHeld
	case s.noRoom:
		return grant.Lease{}, grant.Record{}, grant.ErrNoRoom
	}
	r.countAttempt() // of a holder that went without a word
	r.attempt, r.began, r.until = rand.Text(), s.Now(), s.Now().Add(grant.LeaseTime)
	return grant.Lease{ID: id, Attempt: r.attempt, Generation: generation, Shown: r.shown, Since: r.shownSince,
		Until: r.until}, copied(r.Record), nil
}

// countAttempt ends a lease whose outcome is not known.
func (r *row) countAttempt() {
	if r.attempt == "" {
		return
	}
	if r.shown++; r.shownSince.IsZero() {
		r.shownSince = r.began
	}
	r.attempt = ""
}

// held finds the grant of a lease that is not over.
func (s *Store) held(l grant.Lease) *row {
	r := s.byID(l.ID)
	if r == nil || r.Generation != l.Generation || r.attempt != l.Attempt || r.attempt == "" ||
		!r.until.After(s.Now()) {
		return nil
	}
	return r
}

// Renew implements grant.Store.
func (s *Store) Renew(ctx context.Context, l grant.Lease) (grant.Lease, error) {
	if err := s.begin(ctx, "Renew"); err != nil {
		return l, err
	}
	defer s.mu.Unlock()
	r := s.held(l)
	if r == nil {
		return l, grant.ErrFenced
	}
	r.until = s.Now().Add(grant.LeaseTime)
	l.Until = r.until
	return l, nil
}

// Commit implements grant.Store.
func (s *Store) Commit(ctx context.Context, l grant.Lease, result grant.Record, seal grant.Seal) (grant.Record, error) {
	if err := s.begin(ctx, "Commit"); err != nil {
		return grant.Record{}, err
	}
	defer s.mu.Unlock()
	return s.commit(s.held(l), result, seal)
}

// Late implements grant.Store.
func (s *Store) Late(ctx context.Context, l grant.Lease, result grant.Record, seal grant.Seal) (grant.Record, error) {
	if err := s.begin(ctx, "Late"); err != nil {
		return grant.Record{}, err
	}
	defer s.mu.Unlock()
	r := s.byID(l.ID)
	if r != nil && r.Generation != l.Generation {
		r = nil
	}
	return s.commit(r, result, seal)
}

// commit stores a result; nil stands for a grant that no longer waits for it.
func (s *Store) commit(r *row, result grant.Record, seal grant.Seal) (grant.Record, error) {
	if r == nil || r.Key != result.Key || r.Generation < s.newest[r.ID] {
		return grant.Record{}, grant.ErrFenced
	}
	next := r.Record
	next.Scopes, next.Status, next.Reason = result.Scopes, result.Status, result.Reason
	next.AccessExpires, next.Reconsent = result.AccessExpires, result.Reconsent
	next.RefreshedAt, next.RetryAt = result.RefreshedAt, result.RetryAt
	next.Generation++
	next.Version++
	sealed, err := seal(copied(next))
	if err != nil {
		return grant.Record{}, err
	}
	s.notice(r, next.Status)
	s.rows[r.ID] = &row{Record: copied(withSealed(next, sealed)), consents: r.consents}
	s.newest[r.ID] = next.Generation
	return copied(s.rows[r.ID].Record), nil
}

// Abandon implements grant.Store.
func (s *Store) Abandon(ctx context.Context, l grant.Lease, known bool, status grant.Status, reason string,
	retryAt time.Time) error {
	if err := s.begin(ctx, "Abandon"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	r := s.held(l)
	if r == nil {
		return grant.ErrFenced
	}
	if !known {
		r.countAttempt()
	}
	r.attempt = ""
	if status != "" {
		s.set(r, status, reason, retryAt)
	}
	return nil
}
