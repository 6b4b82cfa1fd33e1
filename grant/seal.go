package grant

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"time"
)

var (
	// ErrSealed: what is sealed of a grant cannot be opened. The row was swapped with
	// another one, put back to an older state, or damaged.
	ErrSealed = errors.New("the sealed credential of the grant does not belong to its row")
	// ErrKeyUnknown: a grant is sealed with a key that is not in the ring.
	ErrKeyUnknown = errors.New("the grant is sealed with a key that is not in grants.encryption_keys")
)

// keyRest is how long a new key only opens before it seals, where there is an older one.
// Replicas read their keys at different moments; what one seals all others must open.
const keyRest = 10 * time.Minute

const sealingKeyBytes = 32

// SealingKey is a secret that grants are sealed with. It prints as "<secret>".
type SealingKey struct {
	ID      string // tells nothing of the secret
	Secret  [sealingKeyBytes]byte
	Created time.Time
}

// Format implements fmt.Formatter: no verb prints the secret.
func (SealingKey) Format(s fmt.State, _ rune) { io.WriteString(s, "<secret>") }

// LogValue implements slog.LogValuer.
func (SealingKey) LogValue() slog.Value { return slog.StringValue("<secret>") }

type ringKey struct {
	id        string
	sealsFrom time.Time
	aead      cipher.AEAD
}

// Keyring seals what is secret of grants. Each grant has a random key of its own; the
// ring's keys only wrap those, so that a new key of the ring changes few bytes of each
// row (Rewrap). All keys open, and one seals: the newest that is ten minutes old.
type Keyring struct{ keys []ringKey } // the oldest first

// Format implements fmt.Formatter: no verb prints a secret.
func (Keyring) Format(s fmt.State, _ rune) { io.WriteString(s, "<secret>") }

// LogValue implements slog.LogValuer.
func (Keyring) LogValue() slog.Value { return slog.StringValue("<secret>") }

// NewKeyring refuses to have no key, or two of the same name.
func NewKeyring(keys []SealingKey) (Keyring, error) {
	if len(keys) == 0 {
		return Keyring{}, errors.New("no keys to seal grants with")
	}
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b SealingKey) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	var ring Keyring
	for _, k := range keys {
		if k.ID == "" || ring.find(k.ID) != nil {
			return Keyring{}, fmt.Errorf("the key %q to seal grants with is listed twice, or has no name", k.ID)
		}
		ring.keys = append(ring.keys, ringKey{id: k.ID, sealsFrom: k.Created.Add(keyRest), aead: newAEAD(k.Secret[:])})
	}
	return ring, nil
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a wrong key length, which is a constant
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for a block size other than AES's
	}
	return aead
}

func (k Keyring) find(id string) *ringKey {
	for i := range k.keys {
		if k.keys[i].id == id {
			return &k.keys[i]
		}
	}
	return nil
}

func (k Keyring) sealing() *ringKey {
	now := time.Now()
	for i := range slices.Backward(k.keys) {
		if !now.Before(k.keys[i].sealsFrom) {
			return &k.keys[i]
		}
	}
	return &k.keys[0]
}

// KeyUse says what is known of a key of a ring. Nothing of it is secret.
type KeyUse struct {
	ID        string
	SealsFrom time.Time // where it is not the oldest one
	Seals     bool      // now
}

// Uses says of each key what it does, the oldest first.
func (k Keyring) Uses() (uses []KeyUse) {
	for i := range k.keys {
		uses = append(uses, KeyUse{k.keys[i].id, k.keys[i].sealsFrom, &k.keys[i] == k.sealing()})
	}
	return uses
}

// Seal returns r with t sealed in it. The grant keeps its own key where r has one, because
// Rewrap may wrap that key anew at any moment and must not meet another one.
func (k Keyring) Seal(r Record, t Tokens) (Record, error) {
	var own []byte
	if len(r.Wrapped) > 0 {
		var err error
		if own, err = k.unwrap(r); err != nil {
			return Record{}, err
		}
	} else {
		if len(k.keys) == 0 {
			return Record{}, ErrKeyUnknown
		}
		own = make([]byte, sealingKeyBytes)
		rand.Read(own) // never fails: crypto/rand.Read, Go 1.24
		r.Wrapped, r.KeyID = k.wrap(r, own)
	}
	text, err := json.Marshal(sealedTokens(t))
	if err != nil {
		return Record{}, errors.New("seal: the credential cannot be encoded")
	}
	r.Sealed = newAEAD(own).Seal(nil, nil, text, sealedData(r))
	r.AccessExpires, r.Reconsent = t.AccessExpires, t.Reconsent
	if len(t.Destinations) > 0 {
		r.Destinations = t.Destinations
	}
	return r, nil
}

// Open returns what is sealed in r.
func (k Keyring) Open(r Record) (Tokens, error) {
	own, err := k.unwrap(r)
	if err != nil {
		return Tokens{}, err
	}
	text, err := newAEAD(own).Open(nil, nil, r.Sealed, sealedData(r))
	if err != nil {
		return Tokens{}, ErrSealed
	}
	var t sealedTokens
	if json.Unmarshal(text, &t) != nil {
		return Tokens{}, ErrSealed
	}
	return Tokens(t), nil
}

// Rewrap returns the grant's own key wrapped by the key of the ring that seals now. changed
// is false where it is wrapped by that one already.
func (k Keyring) Rewrap(r Record) (wrapped []byte, keyID string, changed bool, err error) {
	if !k.NeedsRewrap(r) {
		return r.Wrapped, r.KeyID, false, nil
	}
	own, err := k.unwrap(r)
	if err != nil {
		return nil, "", false, err
	}
	wrapped, keyID = k.wrap(r, own)
	return wrapped, keyID, true, nil
}

// NeedsRewrap reports whether another key of the ring seals now than the one of r.
func (k Keyring) NeedsRewrap(r Record) bool { return len(k.keys) > 0 && r.KeyID != k.sealing().id }

func (k Keyring) wrap(r Record, own []byte) (wrapped []byte, keyID string) {
	key := k.sealing()
	r.KeyID = key.id
	return key.aead.Seal(nil, nil, own, wrappedData(r)), key.id
}

func (k Keyring) unwrap(r Record) ([]byte, error) {
	key := k.find(r.KeyID)
	if key == nil {
		return nil, ErrKeyUnknown
	}
	own, err := key.aead.Open(nil, nil, r.Wrapped, wrappedData(r))
	if err != nil || len(own) != sealingKeyBytes {
		return nil, ErrSealed
	}
	return own, nil
}

// sealedTokens are Tokens in the form in which they are sealed: without methods that hide
// them.
type sealedTokens Tokens

func sealedData(r Record) []byte {
	return boundTo("tokens", r, strconv.FormatInt(r.Generation, 10))
}

func wrappedData(r Record) []byte { return boundTo("key", r, r.KeyID) }

// boundTo is what a sealed field of r belongs to. Each part has its length before it, so
// that no two sets of parts are one text.
func boundTo(field string, r Record, last string) []byte {
	var b []byte
	for _, part := range []string{"grant/v1", field, r.ID, r.Connector, string(r.Owner.Kind), r.Owner.ID, last} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}
