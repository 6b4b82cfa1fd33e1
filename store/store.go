// Package store shares between replicas, and keeps over restarts, what ended
// before its time, what counts once, the list of who is signed in, what directories
// say of organizations, and the rows of grants, whose credentials it only knows sealed.
//
// It owns the tables, their migrations and the transactions, in SQL that SQLite
// and PostgreSQL both read, and it feeds a session.View from them, so that whether
// a session is over is answered from memory. Reading and writing have a goroutine
// each: what this process knows stays fresh while a write hangs. It never answers
// from the view when it is asked to write, never forgets what it could not write,
// and knows no root, cookie or token. What has ended it knows by hashes; who is
// signed in, from where and since when, stands in the list until the session is
// over. Drivers are its neighbours' above, store/sqlite and store/postgres; what all
// of this must keep to is tested by store/storetest.
package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/recent"
	"github.com/sallyport-proxy/sallyport/session"
)

// ErrNewer is what opening returns for tables of a later version, which this
// program cannot read.
var ErrNewer = errors.New("store: written by a newer version")

// ErrNoTables is what a Brief store returns where the tables are not there, or are
// of an older version.
var ErrNoTables = errors.New("store: it has no tables of this version yet, which are made by `sallyport serve`")

// errStandby: what the address leads to by now is a copy that follows another one.
var errStandby = errors.New("a standby answers, which learns late of who signed out, or never: see that the " +
	"address, or the pooler behind it, leads to the primary")

const (
	defaultMax     = 1_000_000
	defaultTimeout = 5 * time.Second
	// wholeTimeout bounds what has to do with all rows.
	wholeTimeout = time.Minute
	// pendingMax bounds the cuts that wait for a store that cannot be written.
	pendingMax = 10_000
	// usedMax bounds the values that are remembered as consumed, of some 100 bytes each.
	usedMax = 20_000
	// readAnyway is how old the view may become where nothing seems to have changed.
	readAnyway = 5 * time.Second
	pruneEvery = time.Minute
	// workEvery is how often to look for something to write, and again after a failure.
	workEvery = time.Second
	lastTime  = 2 * time.Second // for what waits when the store is closed
	lostNamed = 100             // sign-outs that are lost are named, at most
	// replicasEvery is how often to read which replicas there are.
	replicasEvery = 10 * time.Second
	clockApart    = 2 * time.Second // is told as a warning
	clockAsks     = 4               // how often the time is asked for at a start, at most
	clockQuick    = 2 * time.Millisecond
)

// Options configure a Store. All of them may be left out.
type Options struct {
	// Max is how many cuts are kept apart; beyond it the older half becomes one.
	Max int
	// Merged is told when this process has made one cut of many.
	Merged func(session.Merge)
	// Timeout bounds each call to the database, however the caller's context ends.
	Timeout time.Duration
	// Absolute is for how long sessions last that begin here: see SetAbsolute.
	Absolute time.Duration
	// Version is this program's, for who looks into the table of replicas.
	Version string
	// Brief is for a command that asks or ends something and is done. It makes no
	// tables, follows nobody, and does not try again: what fails has failed. Until and
	// the clock are those of the moment at which it was opened.
	Brief bool
	Log   *slog.Logger
	Now   func() time.Time
}

// Store is a session.Ended and a session.Once for all replicas that open the same
// database.
type Store struct {
	d       Database
	o       Options
	view    *session.View
	stop    context.CancelFunc
	grantBy atomic.Pointer[sql.Stmt] // see Grants.Get
	running sync.WaitGroup           // follow, write, and what watches
	kick    chan struct{}            // there may be something to read
	waits   chan struct{}            // there is something to write
	// used are values that were consumed, as far as this process knows: none of them is
	// written again.
	used *recent.Cache[[32]byte, struct{}]

	// Every request asks for these, so no lock is held for them.
	fresh  atomic.Pointer[time.Time] // nil: never
	offset atomic.Int64              // of the database's clock to ours, in nanoseconds
	// standby: a copy that may not be asked answered the last look. A pooler keeps our connections
	// when it leads them elsewhere, so that none is tried anew.
	standby atomic.Bool

	mu      sync.Mutex    // guards what follows
	every   time.Duration // between two looks for something new
	pending map[place]waiting
	full    bool // there was too much, and the tables have not been looked at since
	signIns []session.Entry
	dropped int // sign-ins that the list lacks because too many waited
	refused int // and because the database did not take them
	self    replica
	longest time.Duration // the longest absolute timeout of all replicas

	// Only one goroutine reads: New, then follow.
	migrated     bool
	last         int64     // the newest row that is in the view
	read, others time.Time // when the tables were, and the replicas
	clock        *timed    // the best answer about the database's clock; nil: there was none
	copy         string    // which copy of the database answered last; "": none, or there is one only
	moved        bool      // it is another one than before: what it has is not what was read
	apart        bool      // so are the clocks, and that was told
	reads        health

	// Only one writes what waits.
	pruned  time.Time
	covered covered
	writes  health
}

// covered are rows that a cut of everybody covers, and how far they are deleted.
type covered struct{ before, at, last int64 }

// place is where a cut is kept.
type place struct {
	kind session.Kind
	key  session.CutKey
}

// waiting is a cut that could not be written yet.
type waiting struct {
	record session.Record
	person string
}

var (
	_ session.Ended   = (*Store)(nil)
	_ session.Once    = (*Store)(nil)
	_ session.Listing = (*Store)(nil)
)

// New migrates the tables, reads all of them and follows what other replicas
// write. Where the database is not embedded and cannot be reached, it returns all
// the same, Fresh is zero and New's Store goes on trying. Close ends it.
func New(ctx context.Context, d Database, o Options) (*Store, error) {
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Merged == nil {
		o.Merged = func(session.Merge) {}
	}
	if d.Follow == nil {
		d.Follow = d.DB
	}
	if d.Refuses == nil {
		d.Refuses = func(error) bool { return false }
	}
	if d.Usable == nil {
		d.Usable = func() error { return nil }
	}
	if d.Lists == nil {
		d.Lists = d.DB
	}
	following, stop := context.WithCancel(context.Background())
	s := &Store{d: d, o: o, view: session.NewView(o.Max), stop: stop, used: recent.New[[32]byte, struct{}](usedMax),
		kick: make(chan struct{}, 1), waits: make(chan struct{}, 1), every: d.Every, pending: map[place]waiting{},
		reads: health{log: o.Log,
			bad:  "the store fails: sign-outs on other servers are not known here until it works again",
			good: "the store works again"},
		writes: health{log: o.Log,
			bad:  "the store cannot be written: sign-outs here are not known on other servers until it can be again",
			good: "the store can be written again"},
	}
	if o.Brief {
		if err := s.openBriefly(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	s.SetAbsolute(o.Absolute)
	err := s.catchUp(ctx)
	if err != nil && (d.Embedded || errors.Is(err, ErrNewer)) {
		_ = s.Close()
		return nil, err
	}
	s.reads.report(err)
	if d.Watch != nil {
		s.running.Go(func() { d.Watch(following, s.Kick, s.setPollInterval) })
	}
	s.running.Go(func() { s.follow(following) })
	s.running.Go(func() { s.writeWhatWaits(following) })
	return s, nil
}

// openBriefly looks whether the tables are there, and what a cut needs to know.
func (s *Store) openBriefly(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if err := s.d.Follow.PingContext(limited); err != nil {
		return fmt.Errorf("reach the database: %w", err)
	}
	there, err := s.current(ctx)
	if errors.Is(err, ErrNewer) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoTables, err)
	}
	if !there {
		return ErrNoTables
	}
	s.migrated = true
	if err := s.measureClock(limited, s.d.Follow); err != nil {
		return err
	}
	return s.readReplicas(limited)
}

// WriteEndings waits until the cuts that could not be written before are written, or ctx
// is done. It is for a process that stops: what is not written by Close is lost.
func (s *Store) WriteEndings(ctx context.Context) {
	const checkEvery = 50 * time.Millisecond
	waiting := len(s.unwritten())
	if waiting == 0 {
		return
	}
	s.o.Log.Warn("stopping waits for the store, which does not know yet of all sign-outs here", "count", waiting)
	s.wake()
	for len(s.unwritten()) > 0 && wait(ctx, checkEvery, nil) {
	}
}

// unwritten are the cuts that wait to be written and end something that may be left.
func (s *Store) unwritten() (list []session.Record) {
	now := s.Now().UnixMilli()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.pending {
		if w.record.Until > now {
			list = append(list, w.record)
		}
	}
	return list
}

// tellLost names the cuts that are lost with this process: an operator can end the
// sign-ins among them again, which are told by the names that apps and the list have for
// them. Whose the others were says the audit stream alone.
func (s *Store) tellLost() {
	lost := s.unwritten()
	if len(lost) == 0 {
		return
	}
	sids, others := []string{}, 0
	for _, r := range lost {
		switch {
		case r.Kind != session.KindRoot:
			others++
		case len(sids) < lostNamed:
			sids = append(sids, r.Key.SID())
		}
	}
	slices.Sort(sids)
	s.o.Log.Error("sign-outs are lost, because the store could not be written until the end: other servers never "+
		"learn of them, nor does this one when it starts again", "count", len(lost), "sids", sids, "others", others)
}

// Close stops what runs, and closes the database. It tells of cuts that are not written.
func (s *Store) Close() error {
	s.stop()
	s.running.Wait()
	s.tellLost()
	return errors.Join(s.d.DB.Close(), s.d.Follow.Close(), s.d.Lists.Close())
}

// End ends what c matches: in this process at once, and everywhere before it
// returns nil. What cannot be written is tried again until it is over in any case.
func (s *Store) End(ctx context.Context, c session.Cut) error {
	r, err := c.Record(s.Now())
	if err != nil {
		return err
	}
	covered := s.view.Covers(r)
	s.add(s.lasting(r))
	if covered && s.written(ctx, r) {
		return nil
	}
	if _, err := s.write(ctx, r, c.Person); err != nil {
		err = fmt.Errorf("%w: %w", session.ErrStore, err)
		if s.o.Brief {
			return err
		}
		return errors.Join(err, s.keep(waiting{r, c.Person}))
	}
	return nil
}

// EndOnce ends what c matches, if value is consumed for the first time, in one
// transaction. If that fails, c is over in this process at once and on the others as
// soon as it can be written, as with End, because not everybody who has a message sends
// it again; value is not consumed, for those who do.
func (s *Store) EndOnce(ctx context.Context, c session.Cut, value string, until time.Time) (first bool, err error) {
	r, err := c.Record(s.Now())
	if err != nil {
		return false, err
	}
	limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	key := sha256.Sum256([]byte(value))
	if _, known := s.used.Get(key); known {
		return false, nil
	}
	var merged personMerge
	err = s.transact(limited, func(tx *sql.Tx) error {
		if first, err = insertOnce(limited, tx, key, until.UnixMilli()); err != nil || !first {
			return err
		}
		lasting, err := s.keepLong(limited, tx, r)
		if err == nil {
			_, merged, err = s.putCut(limited, tx, lasting)
		}
		return err
	})
	if err != nil {
		s.add(s.lasting(r))
		return false, errors.Join(fmt.Errorf("%w: %w", session.ErrStore, err), s.keep(waiting{r, c.Person}))
	}
	s.used.Put(key, struct{}{}, 1)
	if first {
		s.add(s.lasting(r))
		s.reportMerge(merged, c.Person)
	}
	return first, nil
}

// Supersede ends what c matches and reports whether nobody had done so before.
func (s *Store) Supersede(ctx context.Context, c session.Cut) (first bool, err error) {
	r, err := c.Record(s.Now())
	if err != nil {
		return false, err
	}
	first, err = s.write(ctx, r, c.Person)
	if err != nil {
		return false, fmt.Errorf("%w: %w", session.ErrStore, err)
	}
	s.add(s.lasting(r))
	return first, nil
}

// Ended reports whether s is over, as far as this process knows.
func (s *Store) Ended(of session.Session) bool { return s.view.Ended(&of) }

// Earliest is the first moment at which a session of the same person is not over
// at once.
func (s *Store) Earliest(of session.Session) time.Time { return s.view.Earliest(&of) }

// Heard counts what this process has come to know that can end several sign-ins.
func (s *Store) Heard() uint32 { return s.view.Heard() }

// EndedSince reports whether of is over by something that came after heard.
func (s *Store) EndedSince(of session.Session, heard uint32) bool {
	return s.view.EndedSince(&of, heard)
}

// Fresh is when the last complete read of the tables began; zero if there was none.
func (s *Store) Fresh() time.Time {
	if fresh := s.fresh.Load(); fresh != nil {
		return *fresh
	}
	return time.Time{}
}

// Writable tells that the last attempt to write what waits did not fail.
func (s *Store) Writable() bool { return !s.writes.failing.Load() }

// Age is how long ago that was; the longest of all times if there was none.
func (s *Store) Age() time.Duration {
	fresh := s.Fresh()
	if fresh.IsZero() {
		return math.MaxInt64
	}
	return s.o.Now().Sub(fresh)
}

// Consume reports whether value is consumed for the first time.
func (s *Store) Consume(ctx context.Context, value string, until time.Time) (first bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	key := sha256.Sum256([]byte(value))
	if _, known := s.used.Get(key); known {
		return false, nil
	}
	if first, err = s.consume(ctx, key, until.UnixMilli()); err != nil {
		return false, fmt.Errorf("%w: %w", session.ErrStore, err)
	}
	s.used.Put(key, struct{}{}, 1)
	return first, nil
}

// Now is the time of the database's clock, which all replicas share.
func (s *Store) Now() time.Time { return s.o.Now().Add(s.Offset()) }

// Offset is how far the database's clock is ahead of this machine's.
func (s *Store) Offset() time.Duration {
	return time.Duration(s.offset.Load())
}

// Len is how many cuts this process knows of a kind.
func (s *Store) Len(k session.Kind) int { return s.view.Count(k) }

// Kick has the Store look for something new at once.
func (s *Store) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Store) setPollInterval(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.every = d
}

// wake has the Store write at once what waits.
func (s *Store) wake() {
	select {
	case s.waits <- struct{}{}:
	default:
	}
}

// add puts r into the view. While the database cannot be written nobody merges
// there what is too much for it, so that it is done here.
func (s *Store) add(r session.Record) {
	s.view.Add(r)
	if s.view.Len() >= s.o.Max {
		s.setFull(true)
		s.wake()
	}
	if merge, full := s.view.MakeRoom(s.Now(), s.o.Max+s.o.Max/8); full {
		s.o.Merged(merge)
	}
}

func (s *Store) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// keep has a cut written later.
func (s *Store) keep(w waiting) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := place{w.record.Kind, w.record.Key}
	old, known := s.pending[at]
	if !known && len(s.pending) >= pendingMax {
		return errors.New("too much waits for the store already: other servers will not learn of this")
	}
	if known {
		w.record = w.record.Join(old.record)
	}
	s.pending[at] = w
	s.wake()
	return nil
}

// follow keeps the view up to date until ctx ends. It writes nothing, so that it
// waits for nobody who does.
func (s *Store) follow(ctx context.Context) {
	for began := time.Now(); ; {
		s.mu.Lock()
		every := s.every
		s.mu.Unlock()
		// Counted from when the last look began: how long the database takes to answer would be
		// added to the age of the view otherwise. It is left alone for a while all the same.
		if !wait(ctx, max(every-time.Since(began), every/4), s.kick) {
			return
		}
		began = time.Now()
		if err := s.catchUp(ctx); ctx.Err() == nil {
			s.reads.report(err)
		}
	}
}

// writeWhatWaits writes until ctx ends what nobody waits for: cuts that could not be
// written before, sign-ins for the list, that this replica is there; and deletes.
func (s *Store) writeWhatWaits(ctx context.Context) {
	defer s.writeLast(ctx)
	for {
		if !wait(ctx, workEvery, s.waits) {
			return
		}
		if s.Fresh().IsZero() { // there may be no tables yet
			continue
		}
		err := s.writeAll(ctx)
		if ctx.Err() == nil {
			s.writes.report(err)
		}
		if err != nil && !wait(ctx, workEvery, nil) { // who signs in meanwhile does not hurry it
			return
		}
	}
}

// writeAll goes on behind what the database refuses: that holds up nothing else. With any other
// error it is most likely away, and each further question would wait for its answer.
func (s *Store) writeAll(ctx context.Context) (all error) {
	for _, write := range [...]func(context.Context) error{s.writePending, s.writeSignIns, s.announce, s.tidy} {
		err := write(ctx)
		all = errors.Join(all, err)
		if err != nil && !s.d.Refuses(err) {
			break
		}
	}
	return all
}

// writeLast writes what waits when the process ends, if that can be done quickly.
func (s *Store) writeLast(ctx context.Context) {
	if s.writes.failing.Load() || s.Fresh().IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	if err := errors.Join(s.writePending(ctx), s.writeSignIns(ctx)); err != nil {
		s.writes.report(err)
	}
}

// wait waits for so long, or for early, and reports whether ctx goes on.
func wait(ctx context.Context, long time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-early:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// health tells of the first of several failures, of another one after it, and of their end. The
// first may only say that a connection was closed, and the next why none can be made.
type health struct {
	log       *slog.Logger
	bad, good string
	failing   atomic.Bool
	told      string // the newest failure that was told
	again     bool   // it was not the first one
	at        time.Time
}

// tellAgain is how often further failures are told, the second of them aside: their texts may have
// times and ports.
const tellAgain = time.Minute

func (h *health) report(err error) {
	was := h.failing.Swap(err != nil)
	if err == nil {
		if was {
			h.log.Info(h.good)
		}
		return
	}
	text := err.Error()
	if was && (text == h.told || h.again && time.Since(h.at) < tellAgain) {
		return
	}
	h.told, h.again, h.at = text, was, time.Now()
	h.log.Error(h.bad, "error", err)
}

// catchUp reads what is new. After a failure it reads everything: what answers now
// may be another copy of the database.
func (s *Store) catchUp(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			s.last, s.read, s.others = 0, time.Time{}, time.Time{}
		}
	}()
	if err := s.d.Usable(); err != nil {
		return err
	}
	if !s.migrated {
		there, err := s.current(ctx)
		if errors.Is(err, ErrNewer) {
			return err
		}
		if !there { // or it could not be asked: to migrate says why
			if err := s.migrate(ctx); err != nil {
				return err
			}
		}
		s.migrated = true
	}
	began := s.o.Now()
	changed := s.last == 0 || began.Sub(s.read) > readAnyway
	if s.d.Changed != nil {
		limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
		there, err := s.d.Changed(limited)
		if err != nil {
			return err
		}
		changed = changed || there
	}
	if changed || s.d.Changed == nil {
		if err := s.readNew(ctx); err != nil {
			return err
		}
		s.read = began
	}
	s.fresh.Store(&began)
	s.mu.Lock()
	full := s.full || s.view.Len() >= s.o.Max
	s.mu.Unlock()
	if full {
		s.wake()
	}
	if began.Sub(s.others) < replicasEvery {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if err := s.readReplicas(limited); err != nil {
		return err
	}
	s.others = began
	return nil
}

// timed is what one answer of the database said of its clock.
type timed struct{ offset, took time.Duration }

// askLast asks for the last key that was given, and what time it is with it.
func (s *Store) askLast(ctx context.Context, q querier) (given int64, err error) {
	if s.d.Clock == "" {
		err = q.QueryRowContext(ctx, s.d.Last).Scan(&given)
		return given, err
	}
	var ms int64
	which := "-"
	asked, began := s.o.Now(), time.Now()
	question, places := `select (`+s.d.Last+`), (`+s.d.Clock+`)`, []any{&given, &ms}
	if s.d.Copy != "" {
		question, places = question+`, (`+s.d.Copy+`)`, append(places, &which)
	}
	if err = q.QueryRowContext(ctx, question).Scan(places...); err != nil {
		return 0, err
	}
	s.standby.Store(which == "")
	if which == "" {
		return 0, errStandby
	}
	s.moved, s.copy = s.moved || s.copy != which, which
	s.noteTime(asked, time.Since(began), time.UnixMilli(ms))
	return given, nil
}

// usable says why the database may not be asked, or written to; nil: it may.
func (s *Store) usable() error {
	if s.standby.Load() {
		return errStandby
	}
	return s.d.Usable()
}

// noteTime takes the middle of a question as the moment of its answer, which errs by up to half
// of what the question took. So what is known stays, unless the answer was about as quick, or
// says that it is wrong, as after this machine's clock was set (RFC 5905 §10).
func (s *Store) noteTime(asked time.Time, took time.Duration, said time.Time) {
	const rounded = time.Millisecond
	now := timed{said.Sub(asked.Add(took / 2)).Round(rounded), took}
	if s.clock != nil && took > s.clock.took*3/2+rounded && (now.offset-s.clock.offset).Abs() <= took/2+rounded {
		return
	}
	s.clock = &now
	s.offset.Store(int64(now.offset))
	apart := now.offset.Abs() > clockApart
	if apart && !s.apart {
		s.o.Log.Warn("the clocks of this machine and of the database are apart; the database's counts for sessions",
			"offset", now.offset.String())
	}
	s.apart = apart
}

// measureClock asks until an answer was quick. Where none is, because this machine or the
// database is busy or was stopped, or is far away, the quickest counts.
func (s *Store) measureClock(ctx context.Context, q querier) error {
	for asks := 0; s.d.Clock != "" && asks < clockAsks && (s.clock == nil || s.clock.took > clockQuick); asks++ {
		if _, err := s.askLast(ctx, q); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
	}
	return nil
}

// writePending writes what could not be written before. What the database refuses goes on to
// wait: it is not forgotten.
func (s *Store) writePending(ctx context.Context) (refused error) {
	s.mu.Lock()
	var list []waiting
	for _, w := range s.pending {
		list = append(list, w)
	}
	s.mu.Unlock()
	now := s.Now().UnixMilli()
	for _, w := range list {
		if w.record.Until > now {
			_, err := s.write(ctx, w.record, w.person)
			if s.d.Refuses(err) {
				refused = err
				continue
			}
			if err != nil {
				return err
			}
		}
		s.mu.Lock()
		if at := (place{w.record.Kind, w.record.Key}); s.pending[at] == w { // else it has grown meanwhile
			delete(s.pending, at)
		}
		s.mu.Unlock()
	}
	return refused
}

// tidy deletes what is over in any case, and merges what is too much; a piece at a
// time, so that others can write in between.
func (s *Store) tidy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	more, err := s.deleteCovered(ctx)
	if err != nil {
		return err
	}
	now := s.o.Now()
	s.mu.Lock()
	full := s.full || s.view.Len() >= s.o.Max
	s.mu.Unlock()
	if full || now.Sub(s.pruned) >= pruneEvery {
		// It waits for the lock: not for long, and not again at once where somebody hangs
		// who holds it.
		s.pruned = now
		limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
		there, over, err := s.prune(limited)
		cancel()
		if err != nil {
			return err
		}
		s.view.Sweep(there)
		if over {
			more, s.pruned = true, time.Time{}
		}
	}
	if more {
		s.wake()
		return nil
	}
	if !full {
		return nil
	}
	merge, merged, err := s.merge(ctx)
	if err != nil {
		return err
	}
	s.setFull(false)
	if merged {
		s.o.Merged(merge)
		s.wake()
	}
	return nil
}
