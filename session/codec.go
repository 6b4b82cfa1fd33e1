package session

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gorilla/securecookie"

	"github.com/sallyport-proxy/sallyport/identity"
)

// compact is the serializer under securecookie's seal: one version byte, then
// fields in a fixed order. securecookie encodes base64 twice, so a payload byte
// costs 16/9 bytes of cookie, and 527 of them are 1 KiB.
//
// A GUID is packed into 16 bytes and an id that starts with the provider's own
// id leaves that out. What changes while a session lasts has a fixed width: a
// renewed cookie is as long as the first, so what fitted once always fits.
// A release reads a new version one minor before it writes it; versions 1 and 2
// were never released, and nothing reads them.
type compact struct{}

var _ securecookie.Serializer = compact{}

const codecVersion = 3

var errCodec = errors.New("it cannot be written in a cookie, or is not what was")

const (
	flagEmailVerified = 1 << iota
	flagGroupsUnknown
	flagHasOrg
	flagHasAuthTime
	flagGroupsDropped
	flagGroupsKept // not all that there were
	flagOrgUnknown
	flagsKnown = 1<<iota - 1
)

// Serialize writes a *Session.
func (compact) Serialize(src any) ([]byte, error) {
	s, ok := src.(*Session)
	if !ok {
		return nil, errCodec
	}
	root, err := decode64(s.Root)
	if err != nil || len(root) != idBytes {
		return nil, errCodec
	}
	signedIn, seen, life := s.SignedIn.UnixMilli(), s.Seen.Sub(s.SignedIn), time.Duration(0)
	if !s.end.IsZero() {
		life = s.end.Sub(s.SignedIn)
	}
	if signedIn < 0 || signedIn >= year10000*1000 || !fits(seen) || !fits(life) {
		return nil, errCodec
	}
	id := &s.Identity
	flags := flagsOf(id)
	if s.kept != (keptDigest{}) {
		flags |= flagGroupsKept
	}
	b := append([]byte{codecVersion, flags}, root...)
	b = binary.BigEndian.AppendUint32(b, s.generation)
	b = binary.BigEndian.AppendUint16(b, uint16(signedIn>>32))
	b = binary.BigEndian.AppendUint32(b, uint32(signedIn))
	b = appendSeconds(appendSeconds(b, life), seen)
	for _, t := range [...]time.Time{s.Checked, s.Tried, s.Handed} {
		var ok bool
		if b, ok = s.appendMoment(b, t); !ok {
			return nil, errCodec
		}
	}
	if !id.AuthTime.IsZero() {
		b = binary.AppendUvarint(b, uint64(id.AuthTime.Unix()))
	}
	if flags&flagGroupsKept != 0 {
		b = append(b, s.kept[:]...)
	}
	p := id.Provider + ":"
	for _, v := range [...]string{id.Provider, id.Subject, id.Email, id.Name, id.Username, id.ACR, id.ProviderSID} {
		b = appendString(b, v, p)
	}
	if id.Org != (identity.Org{}) {
		b = appendOrg(b, id.Org, p)
	}
	b = binary.AppendUvarint(b, uint64(len(id.Orgs)))
	for _, o := range id.Orgs {
		b = appendOrg(b, o, p)
	}
	b = binary.AppendUvarint(b, uint64(len(id.Groups)))
	for _, g := range id.Groups {
		b = appendString(b, g, p)
	}
	if len(id.OrgGroups) > 0 { // rare, so nothing stands for none
		b = binary.AppendUvarint(b, uint64(len(id.OrgGroups)))
	}
	for _, g := range id.OrgGroups {
		b = appendString(appendString(b, g.Org, p), g.Group, p)
	}
	return b, nil
}

// fits reports whether d can be written as a cookie does: in whole seconds, in three
// bytes.
func fits(d time.Duration) bool { return d >= 0 && d < 1<<24*time.Second && d%time.Second == 0 }

func appendSeconds(b []byte, d time.Duration) []byte {
	n := uint32(d / time.Second)
	return append(b, byte(n>>16), byte(n>>8), byte(n))
}

// never stands for a moment that has not come yet.
const never = 1<<24 - 1

// appendMoment writes t in seconds since the sign-in; the zero time is never.
func (s *Session) appendMoment(b []byte, t time.Time) (_ []byte, ok bool) {
	d := never * time.Second
	if !t.IsZero() {
		if d = t.Sub(s.SignedIn); d == never*time.Second {
			return b, false
		}
	}
	return appendSeconds(b, d), fits(d)
}

func flagsOf(id *identity.Identity) (f byte) {
	if id.EmailVerified {
		f |= flagEmailVerified
	}
	if id.GroupsUnknown {
		f |= flagGroupsUnknown
	}
	if id.GroupsDropped {
		f |= flagGroupsDropped
	}
	if id.Org != (identity.Org{}) {
		f |= flagHasOrg
	}
	if id.OrgUnknown {
		f |= flagOrgUnknown
	}
	if !id.AuthTime.IsZero() {
		f |= flagHasAuthTime
	}
	return f
}

func appendOrg(b []byte, o identity.Org, prefix string) []byte {
	for _, v := range [...]string{o.ID, o.Name, o.Domain, o.Source} {
		b = appendString(b, v, prefix)
	}
	return b
}

// A string is a tag and its bytes: length<<2 with two flags, for "the provider's
// id and a colon come first" and "16 bytes of a GUID follow".
const (
	tagPrefix = 1
	tagGUID   = 2
)

func appendString(b []byte, v, prefix string) []byte {
	var tag uint64
	if rest, ok := strings.CutPrefix(v, prefix); ok {
		v, tag = rest, tagPrefix
	}
	if raw, ok := packGUID(v); ok {
		return append(append(b, byte(tag|tagGUID)), raw[:]...)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))<<2|tag), v...)
}

// packGUID takes only the lower-case canonical form: what is unpacked must be
// what was packed, byte for byte.
func packGUID(v string) (raw [16]byte, ok bool) {
	if len(v) != 36 || v[8] != '-' || v[13] != '-' || v[18] != '-' || v[23] != '-' || strings.ToLower(v) != v {
		return raw, false
	}
	n, err := hex.Decode(raw[:], []byte(v[:8]+v[9:13]+v[14:18]+v[19:23]+v[24:]))
	return raw, err == nil && n == 16
}

func unpackGUID(raw [16]byte) string {
	var b [36]byte
	hex.Encode(b[:8], raw[:4])
	hex.Encode(b[9:13], raw[4:6])
	hex.Encode(b[14:18], raw[6:8])
	hex.Encode(b[19:23], raw[8:10])
	hex.Encode(b[24:], raw[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// Deserialize reads what Serialize wrote, whole, or fails. There is one way to
// write a session, and every other is refused.
func (compact) Deserialize(src []byte, dst any) error {
	s, ok := dst.(*Session)
	if !ok {
		return errCodec
	}
	r := reader{b: src, text: string(src)}
	version, flags := r.byte(), r.byte()
	if version != codecVersion || flags&^flagsKnown != 0 {
		return errCodec
	}
	out := Session{Root: base64.RawURLEncoding.EncodeToString(r.take(idBytes)), generation: r.uint32()}
	out.ID, out.named = sessionID(out.Root, out.generation), namesOf(out.Root)
	out.SignedIn = r.millis()
	out.end = out.SignedIn.Add(r.seconds())
	out.Seen = out.SignedIn.Add(r.seconds())
	for _, t := range [...]*time.Time{&out.Checked, &out.Tried, &out.Handed} {
		*t = r.moment(out.SignedIn)
	}
	id := &out.Identity
	id.EmailVerified = flags&flagEmailVerified != 0
	id.GroupsUnknown, id.GroupsDropped = flags&flagGroupsUnknown != 0, flags&flagGroupsDropped != 0
	id.OrgUnknown = flags&flagOrgUnknown != 0
	if flags&flagHasAuthTime != 0 {
		id.AuthTime = r.time()
	}
	if flags&flagGroupsKept != 0 {
		out.kept = keptDigest(r.take(len(out.kept)))
		r.bad = r.bad || out.kept == keptDigest{}
	}
	id.Provider = r.string("")
	p := id.Provider + ":"
	for _, v := range [...]*string{&id.Subject, &id.Email, &id.Name, &id.Username, &id.ACR, &id.ProviderSID} {
		*v = r.string(p)
	}
	if flags&flagHasOrg != 0 {
		id.Org = r.org(p)
	}
	id.Orgs, id.Groups = r.orgs(p), r.strings(p)
	if len(r.b) > 0 {
		id.OrgGroups = r.orgGroups(p)
	}
	emptyOrg := flags&flagHasOrg != 0 && id.Org == (identity.Org{})
	knownYetDropped := id.GroupsDropped && !id.GroupsUnknown
	knownYetUnknown := id.OrgUnknown && (flags&flagHasOrg != 0 || len(id.Orgs) > 0)
	if r.bad || len(r.b) > 0 || id.Subject == "" || emptyOrg || knownYetDropped || knownYetUnknown ||
		out.Seen.Year() > 9999 || out.end.Year() > 9999 {
		return errCodec
	}
	*s = out
	return nil
}

// reader takes fields off the front; the first fault makes all that follow zero.
type reader struct {
	b    []byte // what is left
	text string // the whole, which strings are parts of
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return make([]byte, min(max(n, 0), idBytes))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || (n > 1 && r.b[n-1] == 0) { // a zero at the end: not the shortest form
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is a number of things that follow, each of at least one byte.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

// year10000 is in seconds since 1970. No sign-in is that late, and time.Time cannot
// be written as JSON from there on.
const year10000 = 253402300800

// time reads seconds since 1970.
func (r *reader) time() time.Time {
	v := r.uvarint()
	if v >= year10000 {
		r.bad = true
		v = 0
	}
	return time.Unix(int64(v), 0).UTC()
}

// millis reads milliseconds since 1970.
func (r *reader) millis() time.Time {
	b := r.take(6)
	v := int64(binary.BigEndian.Uint16(b))<<32 | int64(binary.BigEndian.Uint32(b[2:]))
	if v >= year10000*1000 {
		r.bad = true
		v = 0
	}
	return time.UnixMilli(v).UTC()
}

func (r *reader) seconds() time.Duration {
	b := r.take(3)
	return time.Duration(uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2])) * time.Second
}

// moment reads what appendMoment wrote.
func (r *reader) moment(signedIn time.Time) time.Time {
	d := r.seconds()
	if d == never*time.Second {
		return time.Time{}
	}
	return signedIn.Add(d)
}

func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *reader) string(prefix string) string {
	tag := r.uvarint()
	v, ok := r.plain(tag)
	if !ok {
		r.bad = true
		return ""
	}
	if tag&tagPrefix != 0 {
		r.bad = r.bad || prefix == ""
		return prefix + v
	}
	r.bad = r.bad || (prefix != "" && strings.HasPrefix(v, prefix))
	return v
}

// plain reads what follows a tag.
func (r *reader) plain(tag uint64) (v string, ok bool) {
	if tag&tagGUID != 0 {
		return unpackGUID([16]byte(r.take(16))), tag <= tagGUID|tagPrefix
	}
	if r.bad || tag>>2 > uint64(len(r.b)) {
		return "", false
	}
	start := len(r.text) - len(r.b)
	v = r.text[start : start+len(r.take(int(tag>>2)))]
	_, guid := packGUID(v)
	return v, !guid && utf8.ValidString(v)
}

func (r *reader) org(prefix string) identity.Org {
	return identity.Org{ID: r.string(prefix), Name: r.string(prefix), Domain: r.string(prefix),
		Source: r.string(prefix)}
}

// orgs, like strings, returns a list without spare capacity: all readers of a cookie
// share it, and appending to it makes a copy.
func (r *reader) orgs(prefix string) []identity.Org {
	n := r.count()
	if n == 0 {
		return nil
	}
	list := make([]identity.Org, n)
	for i := range list {
		list[i] = r.org(prefix)
	}
	return list
}

func (r *reader) orgGroups(prefix string) []identity.OrgGroup {
	list := make([]identity.OrgGroup, r.count())
	for i := range list {
		list[i] = identity.OrgGroup{Org: r.string(prefix), Group: r.string(prefix)}
	}
	r.bad = r.bad || len(list) == 0 // an empty list is not written at all
	return list
}

func (r *reader) strings(prefix string) []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.string(prefix)
	}
	return list
}
