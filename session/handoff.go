package session

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// A hand-off gives another host of the same site a session cookie of its own: host
// cookies do not reach further (RFC 6265bis §4.1.3.2). The other host sends the
// browser to the one where people sign in, with a Want; that sends it back with a
// Grant. Both are sealed, so browsers only carry them. A Want gives nobody anything.
// A Grant is good for one use, within grantTime, at the host that the Want was made
// by, in the browser that has that host's flow cookie.
//
// The session that is handed over has the same Root: to end the sign-in ends it on
// every host.
const (
	wantTime  = FlowTime // somebody may have to sign in first
	grantTime = 30 * time.Second
	// HandOverTime is how old what a host was handed over may get.
	HandOverTime = 15 * time.Minute

	handoffVersion = 1
	// MaxWant is the longest sealed Want, in bytes.
	MaxWant     = 1400
	maxGrant    = 3750                          // 5,000 bytes in an address
	handoffHead = 3 + 8 + saltBytes + bindBytes // version, flags, restarts, until, salt, binding
)

const (
	wantSwitch = 1 << iota
	wantUsed
	wantFlags = 1<<iota - 1
)

// ErrGrant: this is no grant that was made for this host and browser.
var ErrGrant = errors.New("the grant is not for this host, or not ours")

// ErrNotTheirs: somebody does not belong to the organization that a host is for.
var ErrNotTheirs = errors.New("the person does not belong to the organization of the host")

// Want is what a host asks for.
type Want struct {
	Host     string // canonical
	ReturnTo string // a path of Host, made by ReturnTo
	Restarts int    // how often it was begun afresh, 0 to 255
	Switch   bool   // the sign-in is to be as somebody else than before
	// Root and Seen are those of the session that Host has; "": it has none.
	Root string
	Seen time.Time

	until         time.Time
	salt, binding []byte
}

// Grant is what a host is given.
type Grant struct {
	Want    // without Root, Seen and Switch
	Session Session
}

func newHandoffKeys(k Key) carriedKeys { return newCarriedKeys(k, "hand-off", "hand-off secrets") }

// handoffBinding ties a hand-off to the flow cookie of the host that asks.
func (k carriedKeys) handoffBinding(secret, salt []byte) []byte {
	return k.derive(secret, salt, "")[:bindBytes]
}

// sealedFor is what is authenticated beside a Want or Grant: instances with cookies of
// their own do not take each other's.
func (m *Manager) sealedFor(purpose string) []byte { return []byte(purpose + "\x00" + m.cookie) }

// SealWant binds want to the browser and seals it. The browser keeps the flow cookie
// of this host; SealWant sets it where it is not there.
func (m *Manager) SealWant(w http.ResponseWriter, r *http.Request, want Want) (string, error) {
	secret, ok := m.flowSecret(r)
	if !ok {
		secret = make([]byte, secretBytes)
		rand.Read(secret)
	}
	keys := m.handoffs[m.ring.Signing(m.now())]
	want.salt = make([]byte, saltBytes)
	rand.Read(want.salt)
	want.binding = keys.handoffBinding(secret, want.salt)
	want.until = m.now().Add(wantTime)
	b, err := want.append(nil)
	if err != nil || len(b) > MaxWant-keys.seal.Overhead() {
		want.ReturnTo = "/"
		if b, err = want.append(nil); err != nil {
			return "", fmt.Errorf("seal want: %w", err)
		}
	}
	if !ok {
		m.setCookie(w, m.flowCookie, base64.RawURLEncoding.EncodeToString(secret), untilClosed)
	}
	return base64.RawURLEncoding.EncodeToString(keys.seal.Seal(nil, nil, b, m.sealedFor("want"))), nil
}

// OpenWant opens what SealWant made. ErrLate comes with the Want: it was ours.
func (m *Manager) OpenWant(sealed string) (Want, error) {
	b, ok := m.openHandoff("want", sealed, MaxWant)
	if !ok {
		return Want{}, ErrNoFlow
	}
	want, rest, ok := parseWant(b)
	if !ok || len(rest) > 0 {
		return Want{}, ErrNoFlow
	}
	if !m.now().Before(want.until) {
		return want, ErrLate
	}
	return want, nil
}

// SealGrant seals a grant of s for the host that wants it. With an organization that
// is the one which the name of that host says: it becomes the active one there, and
// nowhere else.
func (m *Manager) SealGrant(want Want, s Session, org string) (string, error) {
	if org != "" {
		var ok bool
		if s, ok = m.inOrg(s, org); !ok {
			return "", ErrNotTheirs
		}
	}
	s.Handed, s.end = time.Time{}, m.endOf(&s)
	if _, err := m.sealed(want.Host, s); err != nil {
		return "", err
	}
	want.until, want.Switch, want.Root, want.Seen = m.now().Add(grantTime), false, "", time.Time{}
	keys := m.handoffs[m.ring.Signing(m.now())]
	b, err := want.append(nil)
	if err != nil {
		return "", fmt.Errorf("seal grant: %w", err)
	}
	payload, err := compact{}.Serialize(&s)
	if err != nil {
		return "", fmt.Errorf("seal grant: %w", err)
	}
	b = keys.seal.Seal(nil, nil, append(b, payload...), m.sealedFor("grant"))
	if len(b) > maxGrant {
		return "", ErrTooLarge
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// inOrg is s with org as the active organization, for good: no choice of another one ends
// it, but another word of the provider about the person does.
func (m *Manager) inOrg(s Session, org string) (Session, bool) {
	if s.Identity.Org.ID != org {
		who, ok := s.Identity.WithOrg(org)
		if !ok {
			return s, false
		}
		s.Identity, s.kept = m.Keep(who), m.kept
	}
	s.generation |= boundGeneration
	return s, true
}

// OpenGrant opens what SealGrant made, for host and for the browser that sent r. It
// changes nothing: ConsumeGrant uses the grant up. With ErrOtherBrowser and ErrLate
// the Grant comes along, for where to go on; it must sign nobody in.
func (m *Manager) OpenGrant(r *http.Request, host, sealed string) (Grant, error) {
	b, ok := m.openHandoff("grant", sealed, maxGrant)
	if !ok {
		return Grant{}, ErrGrant
	}
	want, payload, ok := parseWant(b)
	if !ok || want.Host != host || want.Root != "" || want.Switch {
		return Grant{}, ErrGrant
	}
	g := Grant{Want: want}
	if err := (compact{}).Deserialize(payload, &g.Session); err != nil {
		return Grant{}, ErrGrant
	}
	secret, ok := m.flowSecret(r)
	if !ok {
		return g, ErrNoFlow
	}
	bound := false
	for _, k := range m.handoffs { // the Want may have been sealed with another key
		bound = hmac.Equal(want.binding, k.handoffBinding(secret, want.salt)) || bound
	}
	switch {
	case !bound:
		return g, ErrOtherBrowser
	case !m.now().Before(want.until):
		return g, ErrLate
	}
	g.Session = m.HandedOver(g.Session, host)
	if m.HasEnded(&g.Session) || !m.now().Before(g.Session.Expires) {
		return g, ErrEnded
	}
	return g, nil
}

// ConsumeGrant uses up a grant that OpenGrant found to be good; ErrConsumed: it was
// used before. Any other error means that nobody can tell.
func ConsumeGrant(ctx context.Context, once Once, g Grant) error {
	first, err := once.Consume(ctx, "handoff/"+string(g.salt), g.until)
	switch {
	case err != nil:
		return fmt.Errorf("consume grant: %w", err)
	case !first:
		return ErrConsumed
	}
	return nil
}

// HandedOver is s as host has it that was handed it a moment ago.
func (m *Manager) HandedOver(s Session, host string) Session {
	now := m.seenNow(&s)
	s.Handed, s.Seen = now, now
	s.ID = handedID(&s, host)
	return m.withDeadlines(s)
}

// handedID tells the sessions of one sign-in apart by their hosts: they may be there
// for different organizations.
func handedID(s *Session, host string) string {
	handed := strconv.FormatInt(int64(s.Handed.Sub(s.SignedIn)/time.Second), 10)
	return sessionID(s.Root, s.generation) + "@" + host + "/" + handed
}

// HandOverDue reports whether s, of a host where people do not sign in, is to be
// handed over anew.
func (m *Manager) HandOverDue(s *Session) bool { return m.now().Sub(s.Handed) >= HandOverTime }

// SignInEnded reports whether the whole sign-in of s was ended early, on all hosts, and
// not only sessions before a switch.
func (m *Manager) SignInEnded(s Session) bool {
	s.generation = math.MaxUint32
	return m.HasEnded(&s)
}

// KeptInUse is s, which has idled out, as if it had not: on another host of the same
// sign-in somebody was there, as want proves. Without that it reports false.
func (m *Manager) KeptInUse(s Session, want Want) (Session, bool) {
	if s.Root == "" || want.Root != s.Root || !m.now().Before(want.Seen.Add(m.idle)) || !m.now().Before(s.Expires) ||
		m.HasEnded(&s) || s.kept != m.kept {
		return s, false
	}
	s.Seen = m.seenNow(&s)
	return m.withDeadlines(s), true
}

func (m *Manager) openHandoff(purpose, sealed string, max int) ([]byte, bool) {
	_, b, ok := openCarried(m.handoffs, sealed, m.sealedFor(purpose), base64.RawURLEncoding.EncodedLen(max))
	return b, ok
}

// append writes w; parseWant reads it.
func (w *Want) append(b []byte) ([]byte, error) {
	var flags byte
	if w.Switch {
		flags |= wantSwitch
	}
	if w.Root != "" {
		flags |= wantUsed
	}
	b = append(b, handoffVersion, flags, byte(min(w.Restarts, 255)))
	b = binary.BigEndian.AppendUint64(b, uint64(w.until.UnixMilli()))
	b = append(append(b, w.salt...), w.binding...)
	if w.Root != "" {
		root, err := decode64(w.Root)
		if err != nil || len(root) != idBytes {
			return nil, errCodec
		}
		b = binary.BigEndian.AppendUint64(append(b, root...), uint64(w.Seen.UnixMilli()))
	}
	if len(w.Host) > 255 || len(w.ReturnTo) > MaxReturnTo {
		return nil, errCodec
	}
	b = append(append(b, byte(len(w.Host))), w.Host...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(w.ReturnTo))), w.ReturnTo...), nil
}

// parseWant reads what append wrote, and returns what follows it.
func parseWant(b []byte) (w Want, rest []byte, ok bool) {
	if len(b) < handoffHead || b[0] != handoffVersion || b[1]&^wantFlags != 0 {
		return Want{}, nil, false
	}
	flags := b[1]
	w.Switch, w.Restarts = flags&wantSwitch != 0, int(b[2])
	w.until = time.UnixMilli(int64(binary.BigEndian.Uint64(b[3:])))
	w.salt = bytes.Clone(b[11 : 11+saltBytes])
	w.binding = bytes.Clone(b[11+saltBytes : handoffHead])
	b = b[handoffHead:]
	if flags&wantUsed != 0 {
		if len(b) < idBytes+8 {
			return Want{}, nil, false
		}
		w.Root = base64.RawURLEncoding.EncodeToString(b[:idBytes])
		w.Seen = time.UnixMilli(int64(binary.BigEndian.Uint64(b[idBytes:])))
		b = b[idBytes+8:]
	}
	if len(b) < 1 || len(b) < 1+int(b[0])+2 {
		return Want{}, nil, false
	}
	n := 1 + int(b[0])
	w.Host, b = string(b[1:n]), b[n:]
	n = 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < n || n > 2+MaxReturnTo {
		return Want{}, nil, false
	}
	w.ReturnTo = string(b[2:n])
	return w, b[n:], true
}
