package slack

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

var _ grant.WebhookReceiver = (*Connector)(nil)

const (
	signatureHeader = "X-Slack-Signature"
	timeHeader      = "X-Slack-Request-Timestamp"
	// signedAge is how old a message may be, and how far in the future: what Slack advises
	// (https://api.slack.com/authentication/verifying-requests-from-slack).
	signedAge = 5 * time.Minute
	// keepEvents is for how long the id of an event is remembered, which is far longer than
	// Slack sends one again.
	keepEvents = 48 * time.Hour
	// revokedLag is for how long a tokens_revoked may be about a token that a connection or a
	// refresh replaced: of an installation two are good, and the next one ends the oldest.
	// Whether Slack tells of that is not in its documentation. Where the app was uninstalled,
	// it says so too.
	revokedLag = time.Minute
)

// What ends an installation, as Record.Reason has it.
const (
	reasonRevoked     = "tokens_revoked"
	reasonUninstalled = "app_uninstalled"
)

// envelope is what is read of a message of the Events API
// (https://docs.slack.dev/reference/objects/event-object).
type envelope struct {
	Type           string `json:"type"`
	Challenge      string `json:"challenge"` // with url_verification
	TeamID         string `json:"team_id"`
	EnterpriseID   string `json:"enterprise_id"`
	EventID        string `json:"event_id"`
	EventTime      int64  `json:"event_time"` // in seconds
	Authorizations []struct {
		TeamID       string `json:"team_id"`
		EnterpriseID string `json:"enterprise_id"`
		ForAll       bool   `json:"is_enterprise_install"`
	} `json:"authorizations"`
	Event struct {
		Type   string `json:"type"`
		Tokens struct {
			Bot []string `json:"bot"`
		} `json:"tokens"` // with tokens_revoked: whose they were
	} `json:"event"`
}

// JudgeEvent implements grant.WebhookReceiver. Messages without an id (app_rate_limited) are
// known by their bytes.
func (*Connector) JudgeEvent(secrets []string, h http.Header, body []byte, now time.Time) (grant.SignedEvent, error) {
	if err := verify(secrets, h, body, now); err != nil {
		return grant.SignedEvent{}, err
	}
	var m envelope
	if json.Unmarshal(body, &m) != nil || m.Type == "" {
		return grant.SignedEvent{}, grant.ErrEventGarbled
	}
	if m.Type == "url_verification" {
		if m.Challenge == "" {
			return grant.SignedEvent{}, grant.ErrEventGarbled
		}
		return grant.SignedEvent{Answer: []byte(m.Challenge), AnswerType: "text/plain; charset=utf-8"}, nil
	}
	e := grant.SignedEvent{ID: m.EventID, At: time.Unix(m.EventTime, 0), Keep: now.Add(keepEvents),
		Accounts: m.accounts(), Ended: m.ended(), Access: m.access(), Header: http.Header{}}
	if e.Ended == reasonRevoked {
		e.Lag = revokedLag
	}
	if e.ID == "" {
		sum := sha256.Sum256(body)
		e.ID = "sha256-" + hex.EncodeToString(sum[:])
	}
	if len(e.Accounts) == 0 || e.Ended != "" && m.EventTime <= 0 {
		return grant.SignedEvent{}, grant.ErrEventGarbled
	}
	for _, name := range []string{"Content-Type", signatureHeader, timeHeader, "X-Slack-Retry-Num",
		"X-Slack-Retry-Reason"} {
		if values := h[name]; values != nil {
			e.Header[name] = values
		}
	}
	return e, nil
}

var errNoTime = fmt.Errorf("%w: it has no %s", grant.ErrEventSignature, timeHeader)

// verify checks the signature over version, time and body, and then the time. What is there
// twice is not looked at: an app could read the other one.
func verify(secrets []string, h http.Header, body []byte, now time.Time) error {
	signature, err := grant.OneSignature(h[signatureHeader])
	times := h[timeHeader]
	switch {
	case err != nil:
		return err
	case len(times) > 1:
		return grant.ErrEventTwice
	case len(times) == 0:
		return errNoTime
	}
	given, ok := strings.CutPrefix(signature, "v0=")
	sum, err := hex.DecodeString(given)
	if !ok || err != nil {
		return grant.ErrEventSignature
	}
	good := false
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte("v0:" + times[0] + ":"))
		mac.Write(body)
		good = hmac.Equal(mac.Sum(nil), sum) || good
	}
	if !good {
		return grant.ErrEventSignature
	}
	at, err := strconv.ParseInt(times[0], 10, 64)
	if err != nil || at < now.Add(-signedAge).Unix() || at > now.Add(signedAge).Unix() {
		return grant.ErrEventTooOld
	}
	return nil
}

// accounts are the installations that the message is about. Where Slack names them
// (authorizations, of which it sends one), the team in which something happened need not be
// one: a channel may be shared with others.
func (m *envelope) accounts() (all []string) {
	for _, a := range m.Authorizations {
		if id := AccountID(a.TeamID, a.EnterpriseID, a.ForAll); id != "" {
			all = append(all, id)
		}
	}
	if all == nil {
		if id := AccountID(m.TeamID, m.EnterpriseID, m.TeamID == ""); id != "" {
			all = append(all, id)
		}
	}
	return all
}

// ended is why the installation has ended; "": it has not. Sallyport keeps tokens of bots:
// that those of people were revoked is no end of one.
func (m *envelope) ended() string {
	switch {
	case m.Type != "event_callback":
	case m.Event.Type == "app_uninstalled":
		return reasonUninstalled
	case m.Event.Type == "tokens_revoked" && len(m.Event.Tokens.Bot) > 0:
		return reasonRevoked
	}
	return ""
}

// access is which access has the scope that Slack wants for such an event: an app for which
// nobody agreed to that gets none. Of an installation there is one, for all apps together.
func (m *envelope) access() []string {
	switch m.Event.Type {
	case "app_mention":
		return []string{Mentions}
	case "reaction_added", "reaction_removed":
		return []string{Reactions}
	case "message": // the one of a direct message; those of channels want scopes that are never asked for
		return []string{History}
	}
	return nil
}
