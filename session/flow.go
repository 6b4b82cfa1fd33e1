package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// Why a callback ends no flow of this browser. With ErrOtherBrowser and ErrLate,
// Return returns the Flow all the same: its ReturnTo was sealed by us and is safe.
var (
	// ErrNoFlow: the browser has no flow cookie, or the state is not ours.
	ErrNoFlow = errors.New("this browser did not begin a sign-in here")
	// ErrOtherBrowser: there is a flow cookie, but not the one of this flow. That
	// happens if two first tabs raced, and with another person's callback URL.
	ErrOtherBrowser = errors.New("the sign-in was begun by another browser or tab")
	// ErrLate: it took longer than FlowTime.
	ErrLate = errors.New("the sign-in took too long")
	// ErrConsumed is that of Trips.Use: this very callback was used before.
	ErrConsumed = errors.New("the callback was used before")
)

const (
	// FlowTime is how long somebody may stay at the provider.
	FlowTime    = 10 * time.Minute
	flowVersion = 2
	saltBytes   = 16
	bindBytes   = 16
	secretBytes = 32
	// MaxReturnTo is the longest address that fits into state, in bytes.
	MaxReturnTo = 1024
	// MaxDetail is the longest detail of a flow, in bytes.
	MaxDetail = 1440
	maxState  = 3584 // of the sealed state, in bytes, as it comes back
)

// Flow is one trip to a provider and back.
type Flow struct {
	Purpose  string // what the flow is for, in the caller's words
	Provider string // the provider id that the callback must be for
	ReturnTo string // a path of ours, made by ReturnTo
	Restarts int    // how often the trip was begun afresh, 0 to 255
	// Detail is what else belongs to the purpose, in its own encoding; sealed with
	// the rest, and at most MaxDetail bytes.
	Detail string
}

// ErrDetail is what Begin returns for a detail that is too long.
var ErrDetail = errors.New("the detail of the flow is too long")

// Trip is a flow that has come back to the browser that began it.
type Trip struct {
	Flow
	Handshake identity.Handshake
	Name      string // of this trip alone; it tells nothing
}

// carriedKeys are derived from one session key, for what browsers carry: they seal it,
// and tie it to a browser.
type carriedKeys struct {
	seal cipher.AEAD
	mix  []byte
}

func newFlowKeys(k Key) carriedKeys { return newCarriedKeys(k, "flow state", "flow secrets") }

func newCarriedKeys(k Key, seals, mixes string) carriedKeys {
	block, err := aes.NewCipher(k.Derive(seals, 32))
	if err != nil {
		panic(err) // only for a wrong key length, which is a constant
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for a block size other than AES's
	}
	return carriedKeys{seal: seal, mix: k.Derive(mixes, 32)}
}

// openCarried opens what one of keys sealed with beside, and says which one. It has most
// bytes as text at most.
func openCarried(keys []carriedKeys, sealed string, beside []byte, most int) (carriedKeys, []byte, bool) {
	if len(sealed) > most {
		return carriedKeys{}, nil, false
	}
	raw, err := decode64(sealed)
	if err != nil {
		return carriedKeys{}, nil, false
	}
	for _, k := range keys {
		if b, err := k.seal.Open(nil, nil, raw, beside); err == nil {
			return k, b, true
		}
	}
	return carriedKeys{}, nil, false
}

// appendTexts writes texts with their lengths; cutTexts reads them. The caller bounds
// what they have together, far below 64 KiB.
func appendTexts(b []byte, texts ...string) []byte {
	for _, v := range texts {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
	}
	return b
}

// cutTexts reads what appendTexts wrote, if b has that and nothing else.
func cutTexts(b []byte, texts ...*string) bool {
	for _, p := range texts {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return false
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		*p, b = string(b[2:n]), b[n:]
	}
	return len(b) == 0
}

// Begin binds f to the browser and returns the secrets of its handshake.
//
// The browser keeps one cookie of 32 random bytes, whatever the number of tabs;
// all that belongs to one tab is sealed into state, and nonce and PKCE verifier
// follow from both. Begin reuses a cookie that is there.
func (m *Manager) Begin(w http.ResponseWriter, r *http.Request, f Flow) (identity.Handshake, error) {
	secret, ok := m.flowSecret(r)
	if !ok {
		secret = make([]byte, secretBytes)
		rand.Read(secret)
	}
	if len(f.ReturnTo) > MaxReturnTo {
		f.ReturnTo = "/"
	}
	if len(f.Detail) > MaxDetail {
		return identity.Handshake{}, ErrDetail
	}
	keys := m.flows[m.ring.Signing(m.now())]
	salt := make([]byte, saltBytes)
	rand.Read(salt)

	b := []byte{flowVersion, byte(min(f.Restarts, 255))}
	b = binary.BigEndian.AppendUint64(b, uint64(m.now().Add(FlowTime).Unix()))
	b = append(b, salt...)
	b = append(b, keys.derive(secret, salt, "binding")[:bindBytes]...)
	b = appendTexts(b, f.Purpose, f.Provider, f.ReturnTo, f.Detail)
	state := base64.RawURLEncoding.EncodeToString(keys.seal.Seal(nil, nil, b, nil))
	if len(state) > maxState {
		return identity.Handshake{}, errors.New("begin flow: state too long")
	}
	if !ok {
		// Without Max-Age, so that it cannot expire under a flow; and not sent again
		// when it is there, so that tabs which begin at once agree on one.
		m.setCookie(w, m.flowCookie, base64.RawURLEncoding.EncodeToString(secret), untilClosed)
	}
	return keys.handshake(secret, salt, state), nil
}

// Return opens the state a provider sent back and checks that this browser began
// the flow (RFC 6749 §10.12). It changes nothing: only Trips.Use uses the trip up.
func (m *Manager) Return(r *http.Request, state string) (Trip, error) {
	secret, ok := m.flowSecret(r)
	if !ok {
		return Trip{}, ErrNoFlow
	}
	keys, sealed, ok := m.openState(state)
	if !ok {
		return Trip{}, ErrNoFlow
	}
	trip := Trip{Flow: sealed.flow}
	if !hmac.Equal(sealed.binding, keys.derive(secret, sealed.salt, "binding")[:bindBytes]) {
		return trip, ErrOtherBrowser
	}
	if !m.now().Before(sealed.expires) {
		return trip, ErrLate
	}
	trip.Handshake, trip.Name = keys.handshake(secret, sealed.salt, state), string(sealed.salt)
	return trip, nil
}

// Lost is the flow of a trip whose browser has lost its cookie, as far as state
// tells: it is ours and has not expired. It does not prove who has it, so it may only
// be used for a link that the person can follow.
func (m *Manager) Lost(state string) (Flow, bool) {
	_, sealed, ok := m.openState(state)
	if !ok || !m.now().Before(sealed.expires) {
		return Flow{}, false
	}
	return sealed.flow, true
}

// BrowserID is a name for the browser that sent r, made from its flow cookie but not
// revealing it; "" if it has none. It is for counting only and proves nothing.
func (m *Manager) BrowserID(r *http.Request) string {
	secret, ok := m.flowSecret(r)
	if !ok {
		return ""
	}
	sum := sha256.Sum256(secret)
	return string(sum[:bindBytes])
}

type sealedFlow struct {
	flow          Flow
	expires       time.Time
	salt, binding []byte
}

func (m *Manager) openState(state string) (carriedKeys, sealedFlow, bool) {
	k, plain, ok := openCarried(m.flows, state, nil, maxState)
	if !ok {
		return carriedKeys{}, sealedFlow{}, false
	}
	f, ok := parseFlow(plain)
	return k, f, ok
}

func parseFlow(b []byte) (sealedFlow, bool) {
	const head = 2 + 8 + saltBytes + bindBytes
	if len(b) < head || b[0] != flowVersion {
		return sealedFlow{}, false
	}
	s := sealedFlow{
		flow:    Flow{Restarts: int(b[1])},
		expires: time.Unix(int64(binary.BigEndian.Uint64(b[2:])), 0),
		salt:    b[10 : 10+saltBytes],
		binding: b[10+saltBytes : head],
	}
	ok := cutTexts(b[head:], &s.flow.Purpose, &s.flow.Provider, &s.flow.ReturnTo, &s.flow.Detail)
	return s, ok
}

func (m *Manager) flowSecret(r *http.Request) ([]byte, bool) {
	value, err := findCookie(strings.Join(r.Header["Cookie"], "; "), m.flowCookie)
	if err != nil {
		return nil, false
	}
	secret, err := decode64(value)
	return secret, err == nil && len(secret) == secretBytes
}

// decode64 reads base64url in its one form: Go's decoder skips line breaks,
// strict or not.
func decode64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errCodec
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

func (k carriedKeys) handshake(secret, salt []byte, state string) identity.Handshake {
	return identity.Handshake{
		State:    state,
		Nonce:    base64.RawURLEncoding.EncodeToString(k.derive(secret, salt, "nonce")),
		Verifier: base64.RawURLEncoding.EncodeToString(k.derive(secret, salt, "pkce")), // 43 characters: RFC 7636 §4.1
	}
}

// derive mixes the browser's secret, the flow's salt and a key of ours: none of
// the three alone reveals the result. All lengths are fixed, so that no two inputs
// are the same bytes.
func (k carriedKeys) derive(secret, salt []byte, label string) []byte {
	h := hmac.New(sha256.New, k.mix)
	h.Write(secret)
	h.Write(salt)
	h.Write([]byte(label))
	return h.Sum(nil)
}
