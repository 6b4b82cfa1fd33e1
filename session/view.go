package session

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// View answers from memory which sessions are over. Memory and the stores add the cuts. A
// View does not know where they come from, or how many there may be.
//
// A cut takes at most 96 bytes. Cuts are kept in shards with locks of their own, so
// that a reader never waits for a sweep of all of them.
type View struct {
	before atomic.Int64        // everybody who signed in at this moment or earlier is over
	number atomic.Uint32       // that of the cut that before is from: see Heard
	count  [kinds]atomic.Int64 // of the cuts of each kind
	heard  atomic.Uint32       // see Heard
	shards [64]shard

	mu   sync.Mutex // held by writers
	seed maphash.Seed
	// perPerson counts, roughly, the cuts of each person's sign-ins and sessions at the
	// provider: several people share one counter.
	perPerson []uint32
}

type shard struct {
	mu sync.RWMutex
	m  map[CutKey]entry
}

// entry is a Record without its key.
type entry struct {
	before int64
	whose  uint64 // the first bytes of a person's key
	// below is Record.Below of a cut of a sign-in. Other cuts have no such thing: of them
	// it is what Heard returned when they came.
	below uint32
	// untilKind is until when it is kept, in minutes since 1970, and in the lowest
	// three bits the kind.
	untilKind uint32
}

// ends reports whether a cut of a sign-in ends the session of this generation.
func (e *entry) ends(generation uint32) bool { return e.below == 0 || generation < e.below }

func (e *entry) kind() Kind   { return Kind(e.untilKind & 7) }
func (e *entry) until() int64 { return int64(e.untilKind>>3) * minute }

// minute is in milliseconds.
const minute = 60_000

// NewView returns an empty view that is meant for about this many cuts.
func NewView(cuts int) *View {
	v := &View{seed: maphash.MakeSeed(), perPerson: make([]uint32, max(cuts/8, 1))}
	v.before.Store(math.MinInt64)
	for i := range v.shards {
		v.shards[i].m = map[CutKey]entry{}
	}
	return v
}

// Add puts r into the view and reports whether that ends something that had not
// ended.
func (v *View) Add(r Record) (news bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case r.Before <= v.before.Load():
		return false
	case r.Kind == KindAll:
		v.number.Store(v.heard.Add(1))
		v.before.Store(r.Before)
		v.drop(func(e *entry) bool { return e.before <= r.Before })
		return true
	case !r.Kind.Valid():
		return false
	}
	sh := v.shard(r.Key)
	sh.mu.Lock()
	old, known := sh.m[r.Key]
	if known {
		was := old.record(r.Key)
		was.Whose = r.Whose
		news = r.Wider(was)
		r = r.Join(was)
	}
	e := entry{before: r.Before, whose: r.Whose.short(), below: r.Below, untilKind: lasting(r)}
	if known && old.whose != 0 {
		e.whose = old.whose
	}
	if r.Kind != KindRoot {
		e.below = old.below
		if news || !known {
			e.below = v.heard.Add(1)
		}
	}
	sh.m[r.Key] = e
	sh.mu.Unlock()
	if !known {
		v.count[r.Kind].Add(1)
		if e.whose != 0 {
			v.perPerson[v.counterOf(e.whose)]++
		}
	}
	if r.Kind == KindPerson && v.perPerson[v.counterOf(r.Key.short())] > CrowdMax/2 {
		v.dropPerson(r.Key.short(), r.Before)
	}
	return news || !known
}

// Covers reports whether what r ends, of a sign-in, has ended as far as is known here.
func (v *View) Covers(r Record) bool {
	if r.Kind != KindRoot {
		return false
	}
	if r.Before <= v.before.Load() {
		return true
	}
	if e, ok := v.get(r.Whose); ok && e.kind() == KindPerson && r.Before <= e.before {
		return true
	}
	e, ok := v.get(r.Key)
	return ok && e.kind() == KindRoot && !r.Wider(e.record(r.Key))
}

// Ended reports whether s is over.
func (v *View) Ended(s *Session) bool {
	signedIn := s.SignedIn.UnixMilli()
	if signedIn <= v.before.Load() {
		return true
	}
	if v.count[KindRoot].Load() > 0 {
		if e, ok := v.get(s.names().key); ok && e.ends(s.generation) {
			return true
		}
	}
	return signedIn <= v.newest(&s.Identity)
}

// EndedEntry reports whether the sign-in of e is over, whichever organization is active by
// now.
func (v *View) EndedEntry(e *Entry) bool {
	signedIn := e.Since.UnixMilli()
	if signedIn <= v.before.Load() {
		return true
	}
	if key, ok := KeyOfSID(e.SID); ok {
		if cut, ok := v.get(key); ok && cut.kind() == KindRoot && cut.below == 0 {
			return true
		}
	}
	id := e.identity()
	return signedIn <= v.newest(&id)
}

// Earliest is the first moment at which the person of s can sign in so that no cut
// matches the new session.
func (v *View) Earliest(s *Session) time.Time {
	newest := max(v.before.Load(), v.newest(&s.Identity))
	if newest == math.MinInt64 {
		return time.Time{}
	}
	return time.UnixMilli(newest + 1).UTC()
}

// Heard counts the cuts that came so far and can match more than one sign-in, or a wider
// form of one.
func (v *View) Heard() uint32 { return v.heard.Load() }

// EndedSince reports whether s is over by something that came after Heard returned heard.
func (v *View) EndedSince(s *Session, heard uint32) bool {
	signedIn := s.SignedIn.UnixMilli()
	// Add writes them in the other order: who sees the cut sees its number.
	ended := signedIn <= v.before.Load() && after(v.number.Load(), heard)
	v.each(&s.Identity, func(e entry) {
		ended = ended || signedIn <= e.before && after(e.below, heard)
	})
	return ended
}

// after reports whether number came after heard. The count begins anew after four
// billions, and no sign-in takes half as many.
func after(number, heard uint32) bool { return int32(number-heard) > 0 }

// newest is the last moment of a sign-in, by who id is, that a cut matches.
func (v *View) newest(id *identity.Identity) int64 {
	newest := int64(math.MinInt64)
	v.each(id, func(e entry) { newest = max(newest, e.before) })
	return newest
}

// each calls do with the cuts that match sign-ins by who id is.
func (v *View) each(id *identity.Identity, do func(entry)) {
	cut := func(key CutKey) {
		if e, ok := v.get(key); ok {
			do(e)
		}
	}
	if v.count[KindPerson].Load() > 0 {
		cut(personKey(id.ID()))
	}
	if v.count[KindSID].Load() > 0 && id.ProviderSID != "" {
		cut(sidKey(id.Provider, id.ProviderSID))
		cut(personSIDKey(id.ID(), id.ProviderSID))
	}
	if v.count[KindOrg].Load() > 0 {
		if id.Org.ID != "" {
			cut(orgKey(id.Org.ID))
		}
		for i := range id.Orgs {
			if other := id.Orgs[i].ID; other != id.Org.ID {
				cut(orgKey(other))
			}
		}
	}
}

// Len is how many cuts there are, without those for everybody.
func (v *View) Len() int {
	n := int64(0)
	for i := range v.count {
		n += v.count[i].Load()
	}
	return int(n)
}

// Count is how many cuts there are of a kind.
func (v *View) Count(k Kind) int { return int(v.count[k].Load()) }

// Sweep drops what is over in any case.
func (v *View) Sweep(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// A minute more: a replica's clock may be behind.
	late := now.UnixMilli() - minute
	v.drop(func(e *entry) bool { return e.until() < late })
}

// MakeRoom sweeps a view that is full. If that does not help, it replaces the older
// half by one cut: everybody who signed in by then is over, and the result says so.
func (v *View) MakeRoom(now time.Time, most int) (m Merge, merged bool) {
	if v.Len() < most {
		return m, false
	}
	v.Sweep(now)
	kept := v.Len()
	if kept < most-most/8 { // enough room that sweeping stays rare
		return m, false
	}
	before, _, until := v.half(func(*entry) bool { return true })
	v.Add(Record{Kind: KindAll, Before: before, Until: until})
	return Merge{Before: time.UnixMilli(before).UTC(), Entries: kept - v.Len()}, true
}

// crowded reports whether a person may have too many cuts.
func (v *View) crowded(whose CutKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return whose.short() != 0 && v.perPerson[v.counterOf(whose.short())] > CrowdMax
}

// half looks at the older half of the cuts that match: it returns the last moment of
// sign-in that they reach, how many they are at least, and until when the longest of
// them is kept.
func (v *View) half(match func(*entry) bool) (before int64, n int, until int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var times []int64
	for i := range v.shards {
		sh := &v.shards[i]
		sh.mu.RLock()
		for _, e := range sh.m {
			if match(&e) {
				times = append(times, e.before)
				until = max(until, e.until())
			}
		}
		sh.mu.RUnlock()
	}
	if len(times) == 0 {
		return math.MinInt64, 0, 0
	}
	slices.Sort(times)
	return times[len(times)/2], len(times), until
}

// dropPerson drops the cuts of a person's that one of the person covers.
func (v *View) dropPerson(whose uint64, before int64) {
	v.drop(func(e *entry) bool { return e.whose == whose && e.before <= before })
}

// drop is called with mu held. Readers wait for one shard at most.
func (v *View) drop(match func(*entry) bool) {
	for i := range v.shards {
		sh := &v.shards[i]
		sh.mu.Lock()
		for key, e := range sh.m {
			if !match(&e) {
				continue
			}
			delete(sh.m, key)
			v.count[e.kind()].Add(-1)
			if e.whose != 0 {
				v.perPerson[v.counterOf(e.whose)]--
			}
		}
		sh.mu.Unlock()
	}
}

func (v *View) get(key CutKey) (entry, bool) {
	sh := v.shard(key)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	e, ok := sh.m[key]
	return e, ok
}

func (v *View) shard(key CutKey) *shard { return &v.shards[key[0]%64] }

// counterOf returns the index of a person's counter. It depends on a secret. Otherwise
// somebody could choose accounts that share a counter with another person.
func (v *View) counterOf(whose uint64) int {
	return int(maphash.Comparable(v.seed, whose) % uint64(len(v.perPerson)))
}

func (k CutKey) short() uint64 { return binary.BigEndian.Uint64(k[:]) }

func (e entry) record(key CutKey) Record {
	r := Record{Kind: e.kind(), Key: key, Before: e.before, Until: e.until()}
	if r.Kind == KindRoot {
		r.Below = e.below
	}
	return r
}

// lasting rounds up: no cut is dropped before its time.
func lasting(r Record) uint32 {
	return uint32(min(max((r.Until+minute-1)/minute, 0), math.MaxUint32>>3))<<3 | uint32(r.Kind)
}
