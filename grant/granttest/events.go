package granttest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

// Signing is a pretend third party that sends signed events: a connector with those.
type Signing struct{ grant.OAuth }

var _ grant.WebhookReceiver = Signing{}

// SignedBody is the body of an event of Signing.
type SignedBody struct {
	ID       string   `json:"id,omitempty"`
	At       int64    `json:"at,omitempty"` // in seconds
	Accounts []string `json:"accounts,omitempty"`
	Access   []string `json:"access,omitempty"`
	Ended    string   `json:"ended,omitempty"`
	Lag      int64    `json:"lag,omitempty"` // in seconds
	Answer   string   `json:"answer,omitempty"`
}

// The headers of Signing's messages, of which apps get all, and how old one may be.
const (
	SignatureHeader = "X-Pretend-Signature"
	SignedAtHeader  = "X-Pretend-Time"
	MostSignedAge   = 5 * time.Minute
	// KeptFor is for how long the ID of an event is remembered.
	KeptFor = time.Hour
)

// Sign makes a message of Signing.
func Sign(secret string, b SignedBody, now time.Time) (http.Header, []byte) {
	body, err := json.Marshal(b)
	if err != nil {
		panic(err) // it cannot fail for such a type
	}
	at := strconv.FormatInt(now.Unix(), 10)
	return http.Header{"Content-Type": {"application/json; charset=utf-8"}, SignedAtHeader: {at},
		SignatureHeader: {Signature(secret, at, body)}}, body
}

// Signature is that of a body which is sent at a time.
func Signature(secret, at string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s:%s", at, body)
	return hex.EncodeToString(mac.Sum(nil))
}

// JudgeEvent implements grant.WebhookReceiver.
func (Signing) JudgeEvent(secrets []string, h http.Header, body []byte, now time.Time) (grant.SignedEvent, error) {
	at := h.Get(SignedAtHeader)
	if h.Get(SignatureHeader) == "" {
		return grant.SignedEvent{}, grant.ErrEventUnsigned
	}
	good := false
	for _, secret := range secrets {
		good = hmac.Equal([]byte(Signature(secret, at, body)), []byte(h.Get(SignatureHeader))) || good
	}
	if !good {
		return grant.SignedEvent{}, grant.ErrEventSignature
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > MostSignedAge {
		return grant.SignedEvent{}, grant.ErrEventTooOld
	}
	var b SignedBody
	if err := json.Unmarshal(body, &b); err != nil {
		return grant.SignedEvent{}, grant.ErrEventGarbled
	}
	e := grant.SignedEvent{ID: b.ID, At: time.Unix(b.At, 0), Keep: now.Add(KeptFor), Accounts: b.Accounts,
		Access: b.Access, Ended: b.Ended, Lag: time.Duration(b.Lag) * time.Second, Header: http.Header{}}
	for _, name := range []string{"Content-Type", SignatureHeader, SignedAtHeader} {
		e.Header[name] = h[name]
	}
	if b.Answer != "" {
		e.Answer, e.AnswerType = []byte(b.Answer), "text/plain"
	}
	return e, nil
}
