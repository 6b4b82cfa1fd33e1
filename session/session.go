// Package session is browser state: everything that is a cookie, and what ends
// a session early.
//
// It owns the session cookie (who signed in, sealed), the flow cookie with the
// sealed state that ties a sign-in to the browser that began it, and the rule
// for where a browser may be sent back to. It is the only importer of
// gorilla/securecookie. It never talks to a provider and never sees a token:
// login does. Whether a session may pass is asked of authz.
package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/internal/recent"
)

// What Read can find instead of a session. All of them mean "nobody".
var (
	ErrNone    = errors.New("no session cookie")
	ErrForged  = errors.New("the session cookie is not one of ours")
	ErrTwice   = errors.New("the session cookie came twice")
	ErrExpired = errors.New("the session has expired")
	ErrEnded   = errors.New("the session was ended")
	// ErrOutdated means that groups.keep has changed since the session was created.
	ErrOutdated = errors.New("the session was begun when other groups were kept")
	// ErrTooLarge is Write's: the identity does not fit a cookie even without groups.
	ErrTooLarge = errors.New("the session does not fit a cookie")
)

const (
	// maxCookie is the hard cap of the cookie's value, in bytes. Browsers keep
	// 4,096 of name and value together (RFC 6265bis §5.6); we leave some room.
	maxCookie = 3800
	idBytes   = 16
	// openedBytes bounds what opened cookies take of memory: 32 MiB are some 15,000
	// sessions of people in a few groups.
	openedBytes = 32 << 20
)

// Session is one browser's proof that somebody signed in. It holds no token.
type Session struct {
	// Root names the sign-in: 128 random bits. A sign-in has one session at a time,
	// each with an ID of its own: to switch the organization is the next one.
	Root, ID string
	Identity identity.Identity
	SignedIn time.Time // what the absolute timeout counts from
	Seen     time.Time // what the idle timeout counts from
	// Checked is when the provider last said again that this is who signed in, Tried when
	// the browser was last sent there for it, and Handed when the session was last handed
	// over from another host; zero: never. All are whole seconds after SignedIn.
	Checked, Tried, Handed time.Time

	// Set by Read and Start: when each timeout strikes.
	Expires, IdleExpires time.Time

	generation uint32    // of the sign-in's sessions, from 0: see nextGeneration
	end        time.Time // of the sign-in, sealed when it began: a longer timeout is for new ones
	kept       keptDigest
	key        keyID // of the key that sealed the cookie it was read from
	// named is what Root is called elsewhere; see Asserted for one whose Root is not known.
	named *names
}

// Options configure a Manager. Keys, PublicURL and both timeouts are required.
type Options struct {
	Keys Keyring
	// Secure chooses __Host- cookies. Without it (loopback, plain http) the names are
	// sallyport-dev-<Port>, and what Name has behind sallyport; a secure instance never
	// reads those.
	Secure bool
	Port   string // only for the names of insecure cookies
	// Name is that of the session cookie behind __Host-, "" for "sallyport". Two
	// instances on one host need two: browsers keep cookies per host, whatever
	// the port or path. See CheckCookieName.
	Name string
	// Domain makes one session cookie for a domain and all hosts below it, instead of one
	// for each host: a name in lower case. It needs Secure. Whoever has a host below the
	// domain is sent the cookie, and can set one.
	Domain string

	AbsoluteTimeout, IdleTimeout time.Duration

	// KeepGroups are the groups that a session may hold, where people are in
	// them; nil: all. A session that was begun with others is outdated.
	KeepGroups []string
	// KeepACR are the values of acr that a session may hold, because a route asks for
	// them; nil: any. Other values would make every cookie longer for nothing.
	KeepACR []string

	Ended Ended            // nil: in this process's memory
	Now   func() time.Time // nil: time.Now
}

// Manager reads and writes the cookies. It is safe for concurrent use.
type Manager struct {
	cookie, flowCookie string
	domain             string // of cookie; "": it belongs to one host
	hostCookie         string // the name that cookie had before there was a domain, or ""
	secure             bool
	absolute, idle     time.Duration
	ring               Keyring
	codecs             []*securecookie.SecureCookie // as ring
	keyIDs             []keyID                      // as ring
	flows              []carriedKeys                // as ring
	handoffs           []carriedKeys                // as ring
	lends              []carriedKeys                // as ring
	groups             map[string]bool              // those that are kept; nil: all
	kept               keptDigest
	anyACR             bool
	acr                []string // those that are kept, if not any
	ended              Ended
	now                func() time.Time

	// opened caches decoded cookies. It belongs to the Manager, so a new Manager
	// without a key no longer accepts that key's sessions.
	opened *recent.Cache[cookieOf, *Session]
}

const (
	// DefaultCookieName is the session cookie's, behind __Host-.
	DefaultCookieName = "sallyport"
	flowSuffix        = "-flow"
	maxCookieName     = 40
)

// CheckCookieName says what is wrong with a name for the session cookie. It must
// begin as ReservedCookie wants it, so that no instance passes the cookies of
// another one to an app, and must not be the name of a flow cookie.
func CheckCookieName(name string) error {
	rest, ok := strings.CutPrefix(name, DefaultCookieName)
	switch {
	case !ok || rest != "" && rest[0] != '-' || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return errors.New("a cookie name must be sallyport, or sallyport- and small letters, digits and -")
	case strings.HasSuffix(name, flowSuffix):
		return errors.New("a cookie name must not end in -flow: another instance could have a cookie of that name")
	case len(name) > maxCookieName:
		return fmt.Errorf("a cookie name must not be longer than %d characters", maxCookieName)
	}
	return nil
}

// cookieOf is all that opening a cookie depends on.
type cookieOf struct{ host, value string }

// New checks the options and derives the working keys.
func New(o Options) (*Manager, error) {
	if len(o.Keys.keys) == 0 {
		return nil, errors.New("session: no keys")
	}
	if o.AbsoluteTimeout <= 0 || o.IdleTimeout <= 0 {
		return nil, errors.New("session: timeouts must be positive")
	}
	if o.Name == "" {
		o.Name = DefaultCookieName
	}
	if err := CheckCookieName(o.Name); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	m := &Manager{
		cookie: "__Host-" + o.Name, flowCookie: "__Host-" + o.Name + flowSuffix, secure: o.Secure,
		absolute: o.AbsoluteTimeout, idle: min(o.IdleTimeout, o.AbsoluteTimeout),
		ring: o.Keys, ended: o.Ended, now: o.Now,
		opened: recent.New[cookieOf, *Session](openedBytes),
	}
	m.groups, m.kept = keptGroups(o.KeepGroups)
	m.anyACR, m.acr = o.KeepACR == nil, o.KeepACR
	switch {
	case !o.Secure && o.Domain != "":
		return nil, errors.New("session: a cookie for a domain must be secure")
	case !o.Secure:
		m.cookie = "sallyport-dev-" + o.Port + strings.TrimPrefix(o.Name, DefaultCookieName)
		m.flowCookie = m.cookie + flowSuffix
	case o.Domain != "":
		m.domain, m.hostCookie, m.cookie = o.Domain, m.cookie, "__Secure-"+o.Name
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.ended == nil {
		m.ended = NewMemory(MemoryOptions{Now: m.now})
	}
	for _, k := range o.Keys.keys {
		c := securecookie.New(k.Derive("session mac", 64), k.Derive("session encryption", 32))
		c.SetSerializer(compact{}).MaxAge(int(m.absolute / time.Second)).MaxLength(maxCookie)
		m.codecs = append(m.codecs, c)
		m.keyIDs = append(m.keyIDs, k.id())
		m.flows = append(m.flows, newFlowKeys(k))
		m.handoffs = append(m.handoffs, newHandoffKeys(k))
		m.lends = append(m.lends, newLendKeys(k))
	}
	return m, nil
}

// Beginning is when a sign-in began: when the provider was asked who somebody is.
type Beginning struct {
	at    time.Time
	heard uint32 // what Ended.Heard returned then
}

// Beginning returns the one of a sign-in that begins now. The answer of the provider may
// take a while, and what ends the person's sessions in the meantime is to end this one too.
func (m *Manager) Beginning() Beginning {
	heard := m.ended.Heard() // before the time: what comes between the two ends nothing that begins after it
	return Beginning{at: m.now().UTC().Truncate(time.Millisecond), heard: heard}
}

// Start makes the session of somebody whose sign-in takes no time: see StartFrom.
func (m *Manager) Start(id identity.Identity) Session {
	s, _ := m.StartFrom(m.Beginning(), id)
	return s
}

// StartFrom makes the session of somebody whose sign-in began at b and is done now, with a
// fresh id: a cookie planted before the sign-in is worth nothing after it (ory/hydra
// #770). With ErrEnded the session that it returns was ended since b, and opens nothing.
func (m *Manager) StartFrom(b Beginning, id identity.Identity) (Session, error) {
	var raw [idBytes]byte
	rand.Read(raw[:])
	root := base64.RawURLEncoding.EncodeToString(raw[:])
	s := Session{Root: root, ID: sessionID(root, 0), named: namesOf(root), Identity: m.Keep(id), SignedIn: b.at,
		kept: m.kept, key: m.keyIDs[m.ring.Signing(m.now())]}
	ended := m.ended.EndedSince(s, b.heard)
	// If the clock was set back after a sign-out everywhere, that must not end the
	// session of somebody who signs in again now.
	if earliest := m.ended.Earliest(s); earliest.After(b.at) && !ended {
		s.SignedIn = earliest
	}
	s.Seen = m.seenNow(&s)
	s.end = s.SignedIn.Add(max(b.at.Add(m.absolute).Sub(s.SignedIn), 0).Truncate(time.Second))
	s = m.withDeadlines(s)
	if ended {
		return s, fmt.Errorf("start session: %w", ErrEnded)
	}
	return s, nil
}

func sessionID(root string, generation uint32) string {
	if generation == 0 {
		return root
	}
	return root + "." + strconv.FormatUint(uint64(generation), 10)
}

// cut ends the sign-in of s, or what is below a generation of it. It is kept until
// the end that is sealed, whatever the timeout is now: the session is over then
// even if the timeout has been made longer in between.
func (m *Manager) cut(s *Session, below uint64) Cut {
	return Cut{Root: s.Root, Below: below, Person: s.Identity.ID(), Before: s.SignedIn, Until: m.endOf(s)}
}

// endOf is when the sign-in of s is over, if it was not made here as Start does it.
func (m *Manager) endOf(s *Session) time.Time {
	if s.end.IsZero() {
		return s.SignedIn.Add(m.absolute)
	}
	return s.end
}

// Renew returns s with its idle timeout counted from now, and whether that is
// worth a new cookie: a tenth of the idle time must have passed.
func (m *Manager) Renew(s Session) (Session, bool) {
	if m.now().Sub(s.Seen) < m.idle/10 || m.HasEnded(&s) { // of an ended one no cookie must follow
		return s, false
	}
	s.Seen = m.seenNow(&s)
	return m.withDeadlines(s), true
}

// seenNow is now as a cookie can say it: in whole seconds since the sign-in.
func (m *Manager) seenNow(s *Session) time.Time {
	return s.SignedIn.Add(max(m.now().Sub(s.SignedIn), 0).Truncate(time.Second))
}

// withDeadlines counts in whole seconds, as do the cookie and the page that show the
// deadlines. A timeout that has been made shorter counts for all sessions.
func (m *Manager) withDeadlines(s Session) Session {
	s.Expires = m.endOf(&s).Truncate(time.Second)
	if shorter := s.SignedIn.Add(m.absolute).Truncate(time.Second); shorter.Before(s.Expires) {
		s.Expires = shorter
	}
	s.IdleExpires = s.Seen.Add(m.idle).Truncate(time.Second)
	if s.IdleExpires.After(s.Expires) {
		s.IdleExpires = s.Expires
	}
	return s
}

// clocksApart is how far the clocks of replicas may be apart.
const clocksApart = time.Minute

// Read finds the session in a Cookie header (several lines joined by "; ") of a
// request to host, which is lower case and has no port. It takes no
// *http.Request, because not every front door has one.
//
// All readers of one cookie share the slices of its Identity: append to them,
// but do not change their elements. A session that is read stays in memory
// until newer ones need the room, even after its end; it is refused all the same.
func (m *Manager) Read(cookieHeader, host string) (Session, error) {
	value, err := findCookie(cookieHeader, m.cookie)
	if errors.Is(err, ErrTwice) && m.Shared(host) {
		value, err = m.onlyOurs(cookieHeader, host)
	}
	if err != nil {
		return Session{}, err
	}
	if len(value) > maxCookie {
		return Session{}, ErrForged
	}
	opened, known := m.opened.Get(cookieOf{host, value})
	if !known {
		if opened = m.open(value, host); opened == nil {
			return Session{}, ErrForged
		}
	}
	s := m.withDeadlines(*opened)
	now := m.now()
	// A session from the future was sealed by a clock we do not share; its timeouts
	// would count from a moment that has not come. Only Start may have put it there.
	future := s.Seen.After(now.Add(clocksApart)) && s.Seen.After(m.ended.Earliest(s))
	if future || s.Seen.Before(s.SignedIn) || !now.Before(s.Expires) || !now.Before(s.IdleExpires) {
		return s, ErrExpired
	}
	if m.HasEnded(&s) {
		return s, ErrEnded
	}
	if s.kept != m.kept {
		return s, ErrOutdated
	}
	if !known {
		m.remember(value, host, opened)
	}
	return s, nil
}

// Forget drops what m remembers of the cookies that it opened. It reads them as before.
func (m *Manager) Forget() { m.opened.Clear() }

// maxTwins is how many cookies of our name are opened to find ours among them.
const maxTwins = 4

// onlyOurs returns the value of the one session cookie that was sealed for the domain of
// host, where there are others of its name. Browsers send the cookie of each domain above a
// host: that of another Sallyport, whose domain is above or below ours, or of a domain that
// was configured before. No such cookie opens here. Two that open do mean that somebody has
// planted one. A cookie that is for one host alone cannot have a twin by other means.
func (m *Manager) onlyOurs(header, host string) (string, error) {
	ours, twins := "", 0
	for name, value, rest, ok := nextCookie(header, m.cookie); ok; name, value, rest, ok = nextCookie(rest, m.cookie) {
		if twins++; name != m.cookie || twins > maxTwins {
			return "", ErrTwice
		}
		if len(value) > maxCookie || m.open(value, host) == nil {
			continue
		}
		if ours != "" {
			return "", ErrTwice
		}
		ours = value
	}
	if ours == "" {
		return "", ErrTwice
	}
	return ours, nil
}

// remember keeps what was opened. Only live sessions get here, so a stranger
// cannot fill the room. The key is a copy: value and host may be parts of a
// whole header, which would stay with them.
func (m *Manager) remember(value, host string, opened *Session) {
	m.opened.Put(cookieOf{strings.Clone(host), strings.Clone(value)}, opened, len(host)+len(value)+bytesOf(opened))
}

// bytesOf is what s takes of memory, rather too much than too little.
func bytesOf(s *Session) int {
	const (
		session = 1024 // with its place in a map
		text    = 32   // a string, with what is lost behind it
	)
	id := &s.Identity
	n := session + len(id.Provider) + len(id.Subject) + len(id.Email) + len(id.Name) + len(id.Username)
	n += len(id.ACR) + len(id.ProviderSID)
	n += len(id.Org.ID) + len(id.Org.Name) + len(id.Org.Domain) + len(id.Org.Source)
	for i := range id.Orgs {
		o := &id.Orgs[i]
		n += 4*text + len(o.ID) + len(o.Name) + len(o.Domain) + len(o.Source)
	}
	for _, g := range id.Groups {
		n += text + len(g)
	}
	return n
}

// open returns nil for what is no cookie of ours.
func (m *Manager) open(value, host string) *Session {
	if strings.IndexByte(value, '\r') >= 0 || strings.IndexByte(value, '\n') >= 0 { // Go's base64 would skip them
		return nil
	}
	name := m.boundName(host)
	for i, c := range slices.Backward(m.codecs) { // the newest key most likely sealed it
		s := new(Session)
		if c.Decode(name, value, s) == nil {
			s.key = m.keyIDs[i]
			if !s.Handed.IsZero() {
				s.ID = handedID(s, host)
			}
			return s
		}
	}
	return nil
}

// boundName is what securecookie authenticates together with the value: a
// cookie made for one host is not good for another, unless they share it.
func (m *Manager) boundName(host string) string {
	if m.Shared(host) {
		return m.cookie + "@." + m.domain
	}
	return m.cookie + "@" + host
}

// Shared reports whether host has one session cookie with all hosts of a domain, so that
// no session needs to be handed over to it.
func (m *Manager) Shared(host string) bool { return m.domain != "" && hostname.Within(host, m.domain) }

// Write sets the session cookie for host. Where groups would push it over the
// cap they become unknown, never a part of themselves: a rule must not read a
// cut list as the whole.
func (m *Manager) Write(w http.ResponseWriter, host string, s Session) error {
	value, err := m.sealed(host, s)
	if err == nil {
		m.set(w, s, value)
	}
	return err
}

// sealed is the value of the cookie that holds s.
func (m *Manager) sealed(host string, s Session) (string, error) {
	s.end = m.endOf(&s)
	if err := readable(s); err != nil {
		return "", err
	}
	value, err := m.seal(host, s)
	if err != nil && len(s.Identity.Groups)+len(s.Identity.OrgGroups) > 0 {
		s.Identity.Groups, s.Identity.OrgGroups = nil, nil
		if !s.Identity.GroupsUnknown { // else the provider had not told all, and that stays the reason
			s.Identity.GroupsUnknown, s.Identity.GroupsDropped = true, true
		}
		value, err = m.seal(host, s)
	}
	if err != nil {
		return "", ErrTooLarge
	}
	return value, nil
}

func (m *Manager) set(w http.ResponseWriter, s Session, value string) {
	left := m.withDeadlines(s).Expires.Sub(m.now())
	m.setSession(w, value, int(max(left/time.Second, 1)))
}

// setSession sets the session cookie. One that the browser has of this host alone, from
// before the cookie was for a domain, goes.
func (m *Manager) setSession(w http.ResponseWriter, value string, maxAge int) {
	m.setCookie(w, m.cookie, value, maxAge)
	if m.hostCookie != "" {
		m.setCookie(w, m.hostCookie, "", 0)
	}
}

// readable refuses what Read would not take back: somebody would sign in again
// and again.
func readable(s Session) error {
	b, err := compact{}.Serialize(&s)
	if err == nil {
		err = compact{}.Deserialize(b, &Session{})
	}
	if err != nil {
		return fmt.Errorf("write session of %q: %w", s.Identity.ID(), err)
	}
	return nil
}

func (m *Manager) seal(host string, s Session) (string, error) {
	value, err := m.codecs[m.ring.Signing(m.now())].Encode(m.boundName(host), &s)
	if err != nil {
		return "", fmt.Errorf("seal session: %w", err)
	}
	return value, nil
}

// SignOut ends the whole sign-in that s belongs to, and takes the cookie from the
// browser. A session that has ended can still end its sign-in: a thief of the cookie
// may have switched to the next session, so that only the owner's is over. With an
// error the sign-in is over in this process, and perhaps not in others.
func (m *Manager) SignOut(ctx context.Context, w http.ResponseWriter, s Session) error {
	err := m.EndSignIn(ctx, s)
	m.Clear(w)
	return err
}

// EndSignIn ends the whole sign-in that s belongs to, as SignOut does.
func (m *Manager) EndSignIn(ctx context.Context, s Session) error {
	if s.Root == "" {
		return nil
	}
	if err := m.ended.End(ctx, m.cut(&s, 0)); err != nil {
		return fmt.Errorf("end sign-in: %w", err)
	}
	return nil
}

// Switch puts the next session of the same sign-in, for id, in the place of s,
// which ends. It lasts no longer than s would. Of many switches at once from one
// session the first counts, and the others fail with ErrEnded.
func (m *Manager) Switch(ctx context.Context, w http.ResponseWriter, host string,
	s Session, id identity.Identity) (Session, error) {
	return m.replace(ctx, w, host, s, id, nextGeneration(s.generation))
}

// A generation counts, in its lower half, the organizations that were chosen one after the
// other, and in its upper half how often the provider said something else of the person.
// The greatest of a lower half is that of sessions whose host says the organization: a
// choice of another one does not end them, and what the provider says does.
const (
	choices         = 1 << 16
	boundGeneration = choices - 1
)

// nextGeneration is that of the session for which another organization was chosen.
func nextGeneration(g uint32) uint64 {
	next := uint64(g) + 1
	if next%choices == boundGeneration {
		return nextFacts(g)
	}
	return next
}

// nextFacts is the generation of a session of whose person the provider says something else.
func nextFacts(g uint32) uint64 { return (uint64(g)/choices + 1) * choices }

// replace puts a session of a later generation in the place of s.
func (m *Manager) replace(ctx context.Context, w http.ResponseWriter, host string,
	s Session, id identity.Identity, generation uint64) (Session, error) {
	if generation > math.MaxUint32 {
		return s, ErrEnded
	}
	next := s
	next.generation = uint32(generation)
	next.ID = sessionID(s.Root, next.generation)
	next.Identity, next.kept = m.Keep(id), m.kept
	next.Seen = m.seenNow(&next)
	next = m.withDeadlines(next)
	value, err := m.sealed(host, next)
	if err != nil {
		return s, err
	}
	if m.HasEnded(&s) {
		return s, ErrEnded
	}
	first, err := m.ended.Supersede(ctx, m.cut(&s, generation))
	if err != nil {
		return s, fmt.Errorf("switch session: %w", err)
	}
	if !first {
		return s, ErrEnded
	}
	m.set(w, next, value)
	return next, nil
}

// Holds returns why s, which another Manager has read, is no session of m: it was
// ended, it has outlived the absolute timeout of m, the key that sealed its cookie was
// removed, or m keeps other groups. Whether its cookie has idled out is not asked:
// streams outlive that.
func (m *Manager) Holds(s *Session) error {
	now := m.withDeadlines(*s)
	switch {
	case !m.now().Before(now.Expires):
		return ErrExpired
	case m.HasEnded(s):
		return ErrEnded
	case !slices.Contains(m.keyIDs, s.key):
		return ErrForged
	case s.kept != m.kept:
		return ErrOutdated
	}
	return nil
}

// HasEnded reports whether s was ended early, as Read does: streams outlive the
// request that opened them. What is no session of a sign-in has not ended.
func (m *Manager) HasEnded(s *Session) bool { return s.Root != "" && m.ended.Ended(*s) }

// Age is how long ago this process knew all that was ended elsewhere.
func (m *Manager) Age() time.Duration { return m.ended.Age() }

// Clear takes the session cookie from the browser. The attributes are those it
// was set with, or the browser would keep it (CVE-2025-55162).
func (m *Manager) Clear(w http.ResponseWriter) { m.setSession(w, "", 0) }

// untilClosed stands for a cookie that lives as long as the browser runs.
const untilClosed = -1

// setCookie writes the header by hand: http.SetCookie would quote and drop
// silently. Lax is what lets a provider's redirect bring the flow cookie back.
func (m *Manager) setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	c := name + "=" + value + "; Path=/"
	if name == m.cookie && m.domain != "" {
		c += "; Domain=" + m.domain
	}
	if maxAge != untilClosed {
		c += "; Max-Age=" + strconv.Itoa(maxAge)
	}
	c += "; HttpOnly; SameSite=Lax"
	if m.secure {
		c += "; Secure"
	}
	w.Header().Add("Set-Cookie", c)
	// A response that sets a cookie must not be stored by anybody on the way.
	w.Header().Set("Cache-Control", "private, no-store")
}

// ReservedCookie reports whether a cookie name belongs to Sallyport, in any
// spelling a browser or an app might take for it. Such cookies never reach an
// app, and an app can neither set nor clear them.
func ReservedCookie(name string) bool {
	if name == "" || !strings.Contains("_sS", name[:1]) {
		return false // nearly all, and without a closer look
	}
	for _, p := range [...]string{"__host-sallyport", "__secure-sallyport", "sallyport-dev-"} {
		if len(name) >= len(p) && strings.EqualFold(name[:len(p)], p) {
			return true
		}
	}
	return false
}

// StripCookies returns Cookie header lines without our cookies; all others stay
// byte for byte and in order. The input is not changed.
func StripCookies(lines []string) []string {
	var out []string
	for i, line := range lines {
		start, end := findReserved(line)
		switch {
		case start < 0 && out == nil:
			continue
		case out == nil:
			out = append(make([]string, 0, len(lines)), lines[:i]...)
		}
		if start >= 0 {
			line = strings.TrimLeft(cutReserved(line, start, end), " \t")
		}
		if line != "" {
			out = append(out, line)
		}
	}
	if out == nil {
		return lines
	}
	return out
}

// findReserved returns where the first of our cookies in line starts and ends,
// between its semicolons; start is -1 if there is none.
func findReserved(line string) (start, end int) {
	for more := true; more; start = end + 1 {
		var part string
		part, _, more = strings.Cut(line[start:], ";")
		if end = start + len(part); ReservedCookie(cookieName(part)) {
			return start, end
		}
	}
	return -1, -1
}

// cutReserved takes all of ours out of line, the first of which is given. Each
// takes the semicolon behind it along, and the last part the one before it.
func cutReserved(line string, start, end int) string {
	if start > 0 && end < len(line) { // usually one of ours, among others
		if next, _ := findReserved(line[end+1:]); next < 0 {
			return line[:start] + line[end+1:]
		}
	}
	var b strings.Builder
	for start >= 0 && end < len(line) {
		b.WriteString(line[:start])
		line = line[end+1:]
		start, end = findReserved(line)
	}
	if start < 0 {
		return b.String() + line
	}
	return strings.TrimSuffix(b.String()+line[:start], ";")
}

// cookieName is the name in one part of a Cookie header. A part without "=", or
// that starts with it, is a nameless cookie, whose value a careless parser could
// read as name and value: what follows the "=" then counts as the name.
func cookieName(part string) string {
	for part != "" && (part[0] == '=' || isBlank(part[0])) {
		part = part[1:]
	}
	name, _, _ := strings.Cut(part, "=")
	return trimBlanks(name)
}

// trimBlanks is strings.Trim of " \t" in a third of the time: it runs several
// times for every cookie of every request.
func trimBlanks(s string) string {
	for s != "" && isBlank(s[0]) {
		s = s[1:]
	}
	for s != "" && isBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// findCookie returns the value of the one cookie called name. Two of them mean
// that somebody else planted one; it is not ours to guess which
// (cookie tossing: RFC 6265bis §8.6). Prefixes are compared as browsers do,
// without case.
func findCookie(header, name string) (string, error) {
	value, found, exact := "", 0, false
	for n, v, rest, ok := nextCookie(header, name); ok; n, v, rest, ok = nextCookie(rest, name) {
		found++
		if n == name {
			value, exact = v, true
		}
	}
	switch {
	case found > 1:
		return "", ErrTwice
	case !exact || value == "":
		return "", ErrNone
	}
	return value, nil
}

// nextCookie is the next cookie of this name, in whatever case, and what stands behind it.
func nextCookie(header, name string) (n, value, rest string, ok bool) {
	for more := true; more; {
		var part string
		part, header, more = strings.Cut(header, ";")
		if n, value, ok = strings.Cut(trimBlanks(part), "="); ok && strings.EqualFold(n, name) {
			return n, value, header, true
		}
	}
	return "", "", "", false
}
