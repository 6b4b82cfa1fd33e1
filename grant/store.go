package grant

import (
	"context"
	"errors"
	"time"
)

// What a Store answers that callers handle.
var (
	// ErrNotFound: there is no such grant, or it is disconnected.
	ErrNotFound = errors.New("there is no such grant")
	// ErrChanged: somebody else changed it meanwhile. Read it again.
	ErrChanged = errors.New("the grant was changed meanwhile")
	// ErrHeld: somebody else is at it, refreshing a grant or handing on an event.
	ErrHeld = errors.New("it is being done elsewhere")
	// ErrFenced: the lease was taken over, or the grant ended or changed. Nothing was stored.
	ErrFenced = errors.New("the lease is over")
	// ErrNoRoom: there is no room to keep the result of a refresh, so none is begun.
	ErrNoRoom = errors.New("there is no room to keep the result of a refresh")
	// ErrRolledBack: the row is older than what was committed once. It was restored from a
	// copy, or swapped.
	ErrRolledBack = errors.New("the grant is older than it was")
	// ErrChain: another owner has a grant of this connector with the same Account.Chain.
	ErrChain = errors.New("the account is connected by another owner")
	// ErrUnavailable is wrapped by what a database did not answer.
	ErrUnavailable = errors.New("the store of grants cannot be reached or written")
)

const (
	// LeaseTime is for how long a lease lasts unless it is renewed, RenewEvery how often
	// that happens, and CallTime the longest time that a call to a third party takes.
	LeaseTime  = 30 * time.Second
	RenewEvery = 5 * time.Second
	CallTime   = 10 * time.Second
)

// ClocksApart is what the clocks of replicas may differ by.
const ClocksApart = time.Minute

// Lease is the right to refresh one grant. Of all that ask, on all replicas, one has it.
type Lease struct {
	ID      string // the Record's
	Attempt string // random, of this lease alone
	// Generation is that of the credential that is shown. A result counts for it only.
	Generation int64
	// Shown is how often the refresh token of this generation was shown before, with an
	// outcome that is not known.
	Shown int
	// Since is when the oldest of those attempts began; zero where Shown is 0.
	Since time.Time
	Until time.Time
}

// IsAhead reports whether the end of a lease is further away than it can be: it is from before the
// clock of the store was set back, and may be taken over. A holder that lives notes a nearer end
// with the next Renew, or finds that it was too late.
func (l Lease) IsAhead(now time.Time) bool { return l.Until.Sub(now) > LeaseTime+ClocksApart }

// Filter says which grants List returns. What is empty of it does not matter.
type Filter struct {
	ID        string
	Connector string
	Owners    []Owner // of any of them
	Chain     string
	Account   string // Account.ID
	// After is the ID of the last one that was seen, Most how many more; 0: 1,000.
	After string
	Most  int
}

// Ending is a consent that ended.
type Ending struct {
	Key
	App string
}

// Store keeps grants, for all replicas that share it. Time is its own (Now), not that of
// the machine that asks, and is kept in milliseconds. Every change is durable when it
// returns nil; where it returns an error, nothing was changed, unless the answer of the
// database was lost. Implementations are safe for concurrent use; grant/granttest is the
// contract as tests.
//
// Version grows with each change that a person could see: with all methods but Used,
// Rewrap, Bind, Lease, Renew, and SignedIn where it ends nothing of the grant.
type Store interface {
	// Now is the store's time.
	Now() time.Time
	// Get returns a grant; ErrNotFound also for one that is disconnected.
	Get(ctx context.Context, k Key) (Kept, error)
	// List returns grants in the order of their IDs, without those that are disconnected.
	List(ctx context.Context, f Filter) ([]Kept, error)

	// Connect stores r and c, both or neither, and returns r with the ID, the Generation and
	// the Version it got. A c without an App is no consent. was is the Version of the grant
	// that the caller has read, 0 for none: where it is another one meanwhile, ErrChanged. A
	// grant that is there keeps its ID and its other consents, and loses its lease. A new one
	// gets an ID of the store's making, whatever r.ID is. seal is called with the ID and the
	// Generation that the grant gets, before anything is written; of what it returns the
	// sealed fields count.
	Connect(ctx context.Context, r Record, c Consent, was int64, seal Seal) (Record, error)
	// Agree stores a consent to a grant whose Version is was, in place of the one that the
	// app had; ErrChanged or ErrNotFound otherwise.
	Agree(ctx context.Context, id string, c Consent, was int64) error
	// Withdraw deletes the consent of an app, and reports whether there was one.
	Withdraw(ctx context.Context, k Key, app string) (bool, error)
	// Disconnect makes a tombstone of a grant: what is sealed of it, its account, its
	// consents and its lease are gone. It returns what it was; ErrNotFound where it is not there:
	// one that took its place has another ID.
	Disconnect(ctx context.Context, id string) (Kept, error)
	// Move gives the grants of one owner to another, with their IDs and consents, all or
	// none, and returns how many. Where both have one of the same connector it returns
	// ErrChanged, where one is being refreshed, ErrHeld. Each gets a new Generation, so that
	// a copy of its row that comes back is noticed, and how often its refresh token was shown
	// still counts. reseal opens a grant as it was and seals it as it becomes; of what it
	// returns the sealed fields count.
	Move(ctx context.Context, from, to Owner, reseal func(was, becomes Record) (Record, error)) (int, error)
	// SetStatus changes the status of a grant of this Generation that nobody has leased:
	// ErrChanged where the Generation is another one, ErrHeld where it is leased.
	SetStatus(ctx context.Context, id string, generation int64, s Status, reason string, retryAt time.Time) error
	// Used notes when apps used a grant. It never makes a time older, and does nothing where
	// there is no such consent.
	Used(ctx context.Context, id, app string, at time.Time) error
	// Rewrap replaces Wrapped and KeyID where both are still those of r, and nothing else;
	// ErrChanged otherwise.
	Rewrap(ctx context.Context, r Record, wrapped []byte, keyID string) error
	// Bind notes where the credential of a grant may be sent of which nobody has: Sealed and
	// Destinations become those of bound, if Generation and Sealed are still those of was and
	// there are no Destinations; ErrChanged otherwise. It does not matter who has the lease.
	Bind(ctx context.Context, was, bound Record) error
	// SignedIn goes through the offline consents that a person gave, to any grant: those for
	// which keep reports false are offline no more, without Until and Lapses, and Lapses of the
	// others becomes lapses. It returns the first. keep must not call the store.
	SignedIn(ctx context.Context, person string, lapses time.Time, keep func(Key, Consent) bool) ([]Ending, error)

	// Lease commits that the caller is about to show the refresh token of a grant of this
	// generation, reserves room for the result, and leaves no transaction open. ErrHeld
	// comes with a Lease of which Until alone counts; ErrChanged where the generation is
	// another one; ErrRolledBack and ErrNoRoom as they say. With any other error may come the
	// Lease that was given if only the answer of the database was lost: it is to be given back.
	// An attempt whose lease is over without Commit, Late or Abandon has an outcome that is not
	// known.
	Lease(ctx context.Context, id string, generation int64) (Lease, Record, error)
	// Renew makes a lease last for LeaseTime from now; ErrFenced where it is over. One that
	// IsAhead is over for all but its holder.
	Renew(ctx context.Context, l Lease) (Lease, error)
	// Commit stores the result of a refresh and ends the lease; ErrFenced where it is over.
	// r is the Record of Lease with what has changed: Scopes, Status, Reason, the times, and
	// the sealed fields that seal fills in as in Connect. The rest stays as it is.
	Commit(ctx context.Context, l Lease, r Record, seal Seal) (Record, error)
	// Abandon ends a lease without a result. Unless known, the attempt stays as one whose
	// outcome is not known, and the next Lease counts it in Shown; status is set as in
	// SetStatus, and left where it is "". ErrFenced where the lease is over.
	Abandon(ctx context.Context, l Lease, known bool, s Status, reason string, retryAt time.Time) error
	// Late is Commit of a holder whose lease is over. It is accepted if the generation is
	// still that of the lease and the grant is neither disconnected nor connected anew nor
	// moved: ErrFenced otherwise. It revives a grant that was given up because the outcome
	// was not known, and ends the lease of who has taken over.
	Late(ctx context.Context, l Lease, r Record, seal Seal) (Record, error)

	// Every change stores in the same transaction what apps are to be told of it: where the
	// status changes, by NoticeOf, each app that has a consent; where a consent is deleted,
	// its app. Agree and Move tell nobody.

	// Notices returns the oldest of an app, in their order, and no more than most: those that
	// are not older than NoticeLife. They are the caller's for NoticeLease; meanwhile, and
	// while the app is left alone, nobody gets any of that app.
	Notices(ctx context.Context, app string, most int) ([]Notice, error)
	// Noticed deletes a notice.
	Noticed(ctx context.Context, n Notice) error
	// NoticesLater gives back those of n's app that somebody was given, and leaves the app
	// alone until then; failed counts in Tries of n.
	NoticesLater(ctx context.Context, n Notice, failed bool, until time.Time) error
	// Claim gives the right to hand on what value names, until that time, to one of all that
	// ask, on all replicas; ErrHeld where another has it, who may give it back or be killed. One
	// that would end more than ClocksApart after this one is from before the clock of the store
	// was set back, and nobody's.
	// taken says that nobody needs to: it was handed on. A value begins with its purpose and a
	// slash.
	Claim(ctx context.Context, value string, until time.Time) (taken bool, err error)
	// Taken notes that what Claim gave until then was handed on, and ends the claim. It is
	// forgotten some time after keep. It counts also where the claim is over meanwhile.
	Taken(ctx context.Context, value string, until, keep time.Time) error
	// Unclaim gives back what Claim gave until then, if nobody has taken it over.
	Unclaim(ctx context.Context, value string, until time.Time) error

	// ForgetNotices deletes those that are older than age, and returns how many by app.
	ForgetNotices(ctx context.Context, age time.Duration) (map[string]int, error)
}

// Seal fills in the sealed fields of a Record whose ID, Key and Generation are final.
type Seal func(Record) (Record, error)
