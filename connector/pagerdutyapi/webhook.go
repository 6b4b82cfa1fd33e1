package pagerdutyapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

const (
	signatureHeader = "X-Pagerduty-Signature"
	// webhookAge is how long after it happened an event is taken, and for how long its id is
	// remembered: the signature has no time of its own. PagerDuty tries for 20 minutes, and
	// those that wait behind one come later: "Behavior" among the pages on webhooks of
	// https://github.com/PagerDuty/developer-docs.
	webhookAge = 72 * time.Hour
	// webhookAhead is how far PagerDuty's clock may be ahead of ours.
	webhookAhead = 5 * time.Minute
)

// JudgeWebhook judges a V3 webhook for JudgeEvent of a grant.WebhookReceiver. Whose account it
// is of it does not say, so it is about all grants of the connector; and it ends none.
func JudgeWebhook(secrets []string, h http.Header, body []byte, now time.Time) (grant.SignedEvent, error) {
	if err := verify(secrets, h[signatureHeader], body); err != nil {
		return grant.SignedEvent{}, err
	}
	var m struct {
		Event struct {
			ID         string    `json:"id"`
			OccurredAt time.Time `json:"occurred_at"`
		} `json:"event"`
	}
	if json.Unmarshal(body, &m) != nil || m.Event.ID == "" || m.Event.OccurredAt.IsZero() {
		return grant.SignedEvent{}, grant.ErrEventGarbled
	}
	at := m.Event.OccurredAt
	if at.Before(now.Add(-webhookAge)) || at.After(now.Add(webhookAhead)) {
		return grant.SignedEvent{}, grant.ErrEventTooOld
	}
	e := grant.SignedEvent{ID: m.Event.ID, At: at, Keep: at.Add(webhookAge + webhookAhead), Header: http.Header{}}
	for _, name := range []string{"Content-Type", signatureHeader, "X-Webhook-Id"} {
		if values := h[name]; values != nil {
			e.Header[name] = values
		}
	}
	return e, nil
}

// verify returns nil where one of the signatures, of which there are several while a secret is
// replaced, is by one of the secrets: HMAC-SHA256 of the body as it came
// ("Verifying Signatures" there). Two headers of this name are none, since an app could
// read the other one.
func verify(secrets, lines []string, body []byte) error {
	line, err := grant.OneSignature(lines)
	if err != nil {
		return err
	}
	good := false
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		want := mac.Sum(nil)
		for one := range strings.SplitSeq(line, ",") {
			given, v1 := strings.CutPrefix(strings.TrimSpace(one), "v1=")
			sum, err := hex.DecodeString(given)
			good = v1 && err == nil && hmac.Equal(want, sum) || good
		}
	}
	if !good {
		return grant.ErrEventSignature
	}
	return nil
}
