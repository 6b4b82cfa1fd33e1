package session

import (
	"bytes"
	"cmp"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	keyPrefix = "sallyport-key-1"
	keyBytes  = 32
	// keyRest is how long a new key only verifies before it signs. Replicas read
	// key files at different moments; what one signs all others must know.
	keyRest = 10 * time.Minute
)

// ErrKey marks a text that is no session key.
var ErrKey = errors.New("not a session key: `sallyport genkey` prints one")

// Key is one session secret. Every key that is really used is derived from it
// for one purpose, so that no value made for one use is good for another.
type Key struct {
	created time.Time
	secret  [keyBytes]byte
}

// NewKey makes a key from the system's randomness.
func NewKey(now time.Time) Key {
	k := Key{created: now.UTC().Truncate(time.Second)}
	rand.Read(k.secret[:]) // never fails: crypto/rand.Read, Go 1.24
	return k
}

// ParseKey reads the text form that Key.Text writes. The age is read from the
// text, never from a file: copying a file must not make a key younger.
func ParseKey(text string) (Key, error) {
	parts := strings.Fields(text)
	if len(parts) != 3 || parts[0] != keyPrefix {
		return Key{}, ErrKey
	}
	created, err := time.Parse(time.RFC3339, parts[1])
	if err != nil {
		return Key{}, fmt.Errorf("%w (its date is not RFC 3339)", ErrKey)
	}
	created = created.UTC().Truncate(time.Second)
	secret, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(secret) != keyBytes {
		return Key{}, fmt.Errorf("%w (its secret is not %d bytes of base64url)", ErrKey, keyBytes)
	}
	if bytes.Count(secret, secret[:1]) == keyBytes {
		return Key{}, fmt.Errorf("%w (its secret is one byte repeated)", ErrKey)
	}
	k := Key{created: created}
	copy(k.secret[:], secret)
	return k, nil
}

// Text is the form for a file: one line that ParseKey reads.
func (k Key) Text() string {
	return keyPrefix + " " + k.created.Format(time.RFC3339) + " " + base64.RawURLEncoding.EncodeToString(k.secret[:])
}

// Created is when the key was made, as its text says, in whole seconds.
func (k Key) Created() time.Time { return k.created }

// SignsFrom is when the key begins to sign where there is an older one.
func (k Key) SignsFrom() time.Time { return k.created.Add(keyRest) }

// SameSecret reports whether two keys have one secret, however old they say they are.
func (k Key) SameSecret(other Key) bool {
	return subtle.ConstantTimeCompare(k.secret[:], other.secret[:]) == 1
}

// String keeps the secret out of logs and errors.
func (k Key) String() string { return "<secret>" }

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return "<secret>" }

// keyID names a key and tells nothing of it.
type keyID [8]byte

func (k Key) id() keyID { return keyID(k.Derive("key id", len(keyID{}))) }

// Derive returns n bytes for one purpose (RFC 5869), n ≤ 255·32.
func (k Key) Derive(purpose string, n int) []byte {
	out, err := hkdf.Key(sha256.New, k.secret[:], nil, "sallyport/v1/"+purpose, n)
	if err != nil {
		panic(err) // only for n out of range, which is a constant everywhere
	}
	return out
}

// Keyring holds the keys of one process, oldest first. All verify; one signs. It is
// asked each time something is signed, so that a key begins to sign by itself.
type Keyring struct{ keys []Key }

// TwinError is NewKeyring's where two of the keys that it was given are the same, by
// their places in that list.
type TwinError struct{ First, Second int }

func (TwinError) Error() string { return "the same session key is listed twice" }

// NewKeyring orders keys by age and refuses none and twins.
func NewKeyring(keys []Key) (Keyring, error) {
	if len(keys) == 0 {
		return Keyring{}, errors.New("no session keys")
	}
	seen := map[[keyBytes]byte]int{}
	for i, k := range keys {
		if first, twin := seen[k.secret]; twin {
			return Keyring{}, TwinError{first, i}
		}
		seen[k.secret] = i
	}
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b Key) int {
		return cmp.Or(a.created.Compare(b.created), bytes.Compare(a.secret[:], b.secret[:]))
	})
	return Keyring{keys: keys}, nil
}

// String and GoString keep the secrets out of logs: fmt does not ask a Key in
// an unexported field for its own.
func (r Keyring) String() string   { return "<secret>" }
func (r Keyring) GoString() string { return "<secret>" }

// All returns the keys, oldest first.
func (r Keyring) All() []Key { return slices.Clone(r.keys) }

// Signing returns the index of the key that signs now: the newest that is at
// least ten minutes old, else the oldest.
func (r Keyring) Signing(now time.Time) int {
	for i, k := range slices.Backward(r.keys) {
		if !now.Before(k.SignsFrom()) {
			return i
		}
	}
	return 0
}

// Signs is from when until when key i signs, if no key comes or goes. The zero time
// as from stands for the beginning, and as until for no end.
func (r Keyring) Signs(i int) (from, until time.Time) {
	if i > 0 {
		from = r.keys[i].SignsFrom()
	}
	if i+1 < len(r.keys) {
		until = r.keys[i+1].SignsFrom()
	}
	return from, until
}
