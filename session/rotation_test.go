package session

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// replica is one of several processes, whose configuration is read again as keys
// come and go.
type replica struct {
	t    *testing.T
	c    *clock
	keys []Key
	m    *Manager
}

func newReplica(t *testing.T, c *clock, keys ...Key) *replica {
	t.Helper()
	r := &replica{t: t, c: c}
	r.sees(keys...)
	return r
}

// sees is a reload: the replica knows these keys and no others.
func (r *replica) sees(keys ...Key) {
	r.t.Helper()
	ring, err := NewKeyring(keys)
	if err != nil {
		r.t.Fatal(err)
	}
	r.keys = keys
	r.m = newManager(r.t, r.c, func(o *Options) { o.Keys, o.IdleTimeout = ring, o.AbsoluteTimeout })
}

// isSealedBy reports whether k alone opens a cookie.
func (r *replica) isSealedBy(k Key, cookie string) bool {
	return newReplica(r.t, r.c, k).m.open(valueOf(cookie), testHost) != nil
}

// The key files of two replicas need not change at once: nobody is signed out, and
// no sign-in is lost, while one knows the new key for nine minutes and the other does
// not, nor when the old key goes.
func TestReplicasThatSeeANewKeyNineMinutesApartRefuseNobody(t *testing.T) {
	c := newClock()
	old := c.key(5)
	next := keyOf('n', c.Now())
	first, second := newReplica(t, c, old), newReplica(t, c, old)
	replicas := []*replica{first, second}
	type signIn struct {
		at      time.Duration
		cookie  string
		browser browser
		state   string
	}
	var all []signIn
	check := func(since time.Duration, some []signIn) {
		t.Helper()
		for _, r := range replicas {
			for _, s := range some {
				if _, err := r.m.Read(s.cookie, testHost); err != nil && since-s.at < 12*time.Hour {
					t.Fatalf("%v after the key was made a cookie of %v is refused: %v", since, s.at, err)
				}
				s.browser.m = r.m
				if _, _, err := s.browser.end(s.state); err != nil && since-s.at < FlowTime {
					t.Fatalf("%v after the key was made a sign-in is lost: %v", since, err)
				}
			}
		}
	}
	for since := time.Duration(0); since < 13*time.Hour; {
		some := all[max(0, len(all)-30):]
		switch since {
		case time.Minute:
			first.sees(old, next)
		case 10 * time.Minute: // nine minutes after the first
			second.sees(next, old)
		case 12*time.Hour + 10*time.Minute: // what it signed has expired
			first.sees(next)
			some = all
		case 12*time.Hour + 19*time.Minute:
			second.sees(next)
			some = all
		}
		check(since, some)
		for _, r := range replicas {
			b := browser{t: t, m: r.m}
			_, cookie := signedIn(t, r.m)
			state := b.begin(aFlow).State
			all = append(all, signIn{since, cookie, b, state})
		}
		check(since, all[len(all)-2:])
		step := time.Minute
		if since >= 30*time.Minute && since < 12*time.Hour {
			step = 10 * time.Minute
		}
		c.Advance(step)
		since += step
	}
	if !first.isSealedBy(old, all[0].cookie) || !first.isSealedBy(next, all[len(all)-1].cookie) {
		t.Error("the key did not change")
	}
}

// Nobody restarts or reloads anything ten minutes after a key was made.
func TestNewKeySignsTenMinutesAfterItWasMadeByItself(t *testing.T) {
	c := newClock()
	old, next := c.key(5), keyOf('n', c.Now())
	r := newReplica(t, c, old, next)
	for _, step := range []struct {
		after time.Duration
		signs Key
	}{{0, old}, {10*time.Minute - time.Second, old}, {time.Second, next}, {time.Hour, next}} {
		c.Advance(step.after)
		_, cookie := signedIn(t, r.m)
		b := &browser{t: t, m: r.m}
		state := b.begin(aFlow).State
		b.m = newReplica(t, c, step.signs).m
		if _, _, err := b.end(state); err != nil || !r.isSealedBy(step.signs, cookie) {
			t.Errorf("after %v the wrong key signs: %v", step.after, err)
		}
	}
}

// Somebody has a copy of a key: once it is removed, nothing that it signed is good,
// also what this process has opened a moment ago.
func TestRemovedKeyRefusesItsCookiesAndSignInsAtOnce(t *testing.T) {
	c := newClock()
	old, next := c.key(5), keyOf('n', c.Now())
	r := newReplica(t, c, old, next)
	_, cookie := signedIn(t, r.m)
	b := &browser{t: t, m: r.m}
	state := b.begin(aFlow).State
	read, err := r.m.Read(cookie, testHost)
	if err != nil {
		t.Fatal(err)
	}
	r.sees(old, next, keyOf('o', c.Now().Add(time.Second)))
	if err := r.m.Holds(&read); err != nil {
		t.Errorf("a key was added, and a stream ends: %v", err)
	}
	r.sees(next)
	mustRefuse(t, r.m, cookie, testHost, ErrForged)
	b.m = r.m
	if _, _, err := b.end(state); !errors.Is(err, ErrNoFlow) {
		t.Errorf("a sign-in of the removed key goes on: %v", err)
	}
	// So does a stream that was opened with it.
	if err := r.m.Holds(&read); err != ErrForged {
		t.Errorf("a stream of the removed key: %v", err)
	}
	// The new key is not ten minutes old, but there is no other.
	_, fresh := signedIn(t, r.m)
	if !r.isSealedBy(next, fresh) {
		t.Error("the key that is left does not sign at once")
	}
}

// What check says of each key is what happens.
func TestTimesAtWhichKeysSignAreThoseThatAreTold(t *testing.T) {
	c := newClock()
	start := c.Now()
	keys := []Key{keyOf('d', start.Add(30*time.Minute)), keyOf('a', start.Add(-time.Hour)), keyOf('b', start),
		keyOf('c', start)} // two of one second
	ring, err := NewKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	for now := start.Add(-2 * time.Hour); now.Before(start.Add(2 * time.Hour)); now = now.Add(time.Minute) {
		for i := range keys {
			from, until := ring.Signs(i)
			told := !now.Before(from) && (until.IsZero() || now.Before(until))
			if signs := ring.Signing(now) == i; signs != told {
				t.Fatalf("at %v key %d: signs %v, told from %v until %v", now, i, signs, from, until)
			}
		}
	}
}

// The text of a key is the whole of it, whoever wrote it, and what is refused is
// not shown.
func FuzzParseKey(f *testing.F) {
	k := keyOf('k', time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	for _, text := range []string{
		k.Text(), k.Text() + "\n", strings.Replace(k.Text(), "Z", "+01:00", 1),
		strings.Replace(k.Text(), "Z", ",5Z", 1),
		strings.Replace(k.Text(), "2026", "0000", 1), strings.Replace(k.Text(), "2026", "9999", 1), "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseKey(text)
		if err != nil {
			for _, word := range strings.Fields(text) {
				if len(word) > 20 && strings.Contains(err.Error(), word) {
					t.Errorf("the error shows the text: %v", err)
				}
			}
			return
		}
		if year := key.Created().Year(); year < 0 || year > 9999 {
			return // another zone's first or last day, which RFC 3339 cannot write
		}
		again, err := ParseKey(key.Text())
		if err != nil || again != key {
			t.Errorf("%q is read as another key: %v", text, err)
		}
	})
}
