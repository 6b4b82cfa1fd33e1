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
// id leaves that out. A release reads a new version one minor before it writes it.
type compact struct{}

var _ securecookie.Serializer = compact{}

const codecVersion = 1

var errCodec = errors.New("it cannot be written in a cookie, or is not what was")

const (
	flagEmailVerified = 1 << iota
	flagGroupsUnknown
	flagHasOrg
	flagHasAuthTime
	flagsKnown = 1<<iota - 1
)

// Serialize writes a *Session.
func (compact) Serialize(src any) ([]byte, error) {
	s, ok := src.(*Session)
	if !ok {
		return nil, errCodec
	}
	sid, err := decode64(s.ID)
	if err != nil || len(sid) != idBytes {
		return nil, errCodec
	}
	id := &s.Identity
	b := append([]byte{codecVersion, flagsOf(id)}, sid...)
	b = binary.AppendUvarint(b, uint64(s.SignedIn.Unix()))
	b = binary.AppendUvarint(b, uint64(s.Seen.Unix()-s.SignedIn.Unix()))
	if !id.AuthTime.IsZero() {
		b = binary.AppendUvarint(b, uint64(id.AuthTime.Unix()))
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
	return b, nil
}

func flagsOf(id *identity.Identity) (f byte) {
	if id.EmailVerified {
		f |= flagEmailVerified
	}
	if id.GroupsUnknown {
		f |= flagGroupsUnknown
	}
	if id.Org != (identity.Org{}) {
		f |= flagHasOrg
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

func unpackGUID(raw []byte) string {
	h := hex.EncodeToString(raw)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Deserialize reads what Serialize wrote, whole, or fails. There is one way to
// write a session, and every other is refused.
func (compact) Deserialize(src []byte, dst any) error {
	s, ok := dst.(*Session)
	if !ok {
		return errCodec
	}
	r := reader{b: src}
	version, flags := r.byte(), r.byte()
	if version != codecVersion || flags&^flagsKnown != 0 {
		return errCodec
	}
	out := Session{ID: base64.RawURLEncoding.EncodeToString(r.take(idBytes))}
	out.SignedIn = r.time(0)
	out.Seen = r.time(out.SignedIn.Unix())
	id := &out.Identity
	id.EmailVerified, id.GroupsUnknown = flags&flagEmailVerified != 0, flags&flagGroupsUnknown != 0
	if flags&flagHasAuthTime != 0 {
		id.AuthTime = r.time(0)
	}
	id.Provider = r.string("")
	p := id.Provider + ":"
	for _, v := range [...]*string{&id.Subject, &id.Email, &id.Name, &id.Username, &id.ACR, &id.ProviderSID} {
		*v = r.string(p)
	}
	if flags&flagHasOrg != 0 {
		id.Org = r.org(p)
	}
	for range r.count() {
		id.Orgs = append(id.Orgs, r.org(p))
	}
	for range r.count() {
		id.Groups = append(id.Groups, r.string(p))
	}
	emptyOrg := flags&flagHasOrg != 0 && id.Org == (identity.Org{})
	if r.bad || len(r.b) > 0 || id.Subject == "" || emptyOrg {
		return errCodec
	}
	*s = out
	return nil
}

// reader takes fields off the front; the first fault makes all that follow zero.
type reader struct {
	b   []byte
	bad bool
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
	if r.bad || n <= 0 || (n > 1 && r.b[n-1] == 0) { // a zero at its end: written too long
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

// time reads seconds since base. Years past 9999 are nobody's sign-in, and
// would break what prints them (security.md 82).
func (r *reader) time(base int64) time.Time {
	const year10000 = 253402300800
	v := r.uvarint()
	if v >= year10000 || int64(v)+base >= year10000 {
		r.bad = true
		return time.Unix(0, 0).UTC()
	}
	return time.Unix(int64(v)+base, 0).UTC()
}

func (r *reader) string(prefix string) string {
	tag := r.uvarint()
	var v string
	if tag&tagGUID != 0 {
		if tag > tagGUID|tagPrefix {
			r.bad = true
			return ""
		}
		v = unpackGUID(r.take(16))
	} else if tag>>2 > uint64(len(r.b)) {
		r.bad = true
		return ""
	} else {
		v = string(r.take(int(tag >> 2)))
	}
	_, guid := packGUID(v)
	if guid != (tag&tagGUID != 0) || !utf8.ValidString(v) {
		r.bad = true
	}
	if tag&tagPrefix != 0 {
		r.bad = r.bad || prefix == ""
		return prefix + v
	}
	r.bad = r.bad || (prefix != "" && strings.HasPrefix(v, prefix))
	return v
}

func (r *reader) org(prefix string) identity.Org {
	return identity.Org{ID: r.string(prefix), Name: r.string(prefix), Domain: r.string(prefix), Source: r.string(prefix)}
}
