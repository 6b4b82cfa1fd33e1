package demo

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// SlackEndpoint is where an app of the pretend Slack wants to be told of events, and what
// they are signed with.
type SlackEndpoint struct{ URL, Secret string }

// slackAttempts is how often an event is sent that is not answered with 2xx. Slack waits
// between them, for minutes at last; this one does not.
const slackAttempts = 4

// SlackEvent is something that happened in a workspace, or in an organization.
type SlackEvent struct {
	ID string // the same whenever it is told; "": it is made from the rest
	At time.Time
	// Event is the inner event, JSON: {"type":"app_mention"}.
	Event string
}

// Challenge asks an endpoint the question that Slack asks before it sends events, and returns
// the answer.
// https://api.slack.com/events/url_verification
func (s *SlackWorkspaces) Challenge(ctx context.Context, to SlackEndpoint) (status int, answer string, err error) {
	body, err := json.Marshal(map[string]string{"token": "verification", "type": "url_verification",
		"challenge": upperID("C", to.URL, 40)})
	if err != nil {
		return 0, "", err
	}
	return s.sendEvent(ctx, to, string(body), 0, "")
}

// Tell sends an event as Slack does, signed at this moment, and sends it again where it is not
// taken. It returns the statuses of the answers, 0 where there was none. Whether an app is
// installed does not matter: app_uninstalled is told when it is not.
// https://api.slack.com/authentication/verifying-requests-from-slack
func (s *SlackWorkspaces) Tell(ctx context.Context, to SlackEndpoint, team string, e SlackEvent) (statuses []int,
	err error) {
	if e.ID == "" {
		e.ID = upperID("Ev", team+e.Event+e.At.String(), 11)
	}
	where, org := `"`+team+`"`, "null"
	if s.opts.WholeOrganization {
		where, org = org, where
	}
	body := fmt.Sprintf(`{"token":"verification","team_id":%[1]s,"enterprise_id":%[2]s,"api_app_id":"A1",`+
		`"event":%[3]s,"type":"event_callback","event_id":%[4]q,"event_time":%[5]d,`+
		`"authorizations":[{"enterprise_id":%[2]s,"team_id":%[1]s,"user_id":"U1","is_bot":true,`+
		`"is_enterprise_install":%[6]t}]}`, where, org, e.Event, e.ID, e.At.Unix(), s.opts.WholeOrganization)
	reason := ""
	for n := range slackAttempts {
		status, _, err := s.sendEvent(ctx, to, body, n, reason)
		if err != nil && ctx.Err() != nil {
			return statuses, err
		}
		statuses = append(statuses, status)
		if status/100 == 2 {
			break
		}
		if reason = "http_error"; err != nil {
			reason = "connection_failed"
		}
	}
	return statuses, nil
}

// sendEvent sends a body once. n is how often it was sent before.
func (s *SlackWorkspaces) sendEvent(ctx context.Context, to SlackEndpoint, body string, n int, reason string) (int,
	string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	at := strconv.FormatInt(s.opts.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(to.Secret))
	mac.Write([]byte("v0:" + at + ":" + body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Slackbot 1.0 (pretend)")
	r.Header.Set("X-Slack-Request-Timestamp", at)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	if n > 0 {
		r.Header.Set("X-Slack-Retry-Num", strconv.Itoa(n))
		r.Header.Set("X-Slack-Retry-Reason", reason)
	}
	client := http.Client{Timeout: 3 * time.Second} // as long as Slack waits
	res, err := client.Do(r)
	if err != nil {
		return 0, "", fmt.Errorf("tell an app of an event: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return res.StatusCode, string(text), err
}
