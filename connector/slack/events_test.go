package slack

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

var eventTime = time.Unix(1_764_417_600, 0)

// signedBy is the header of a message as Slack signs it
// (https://api.slack.com/authentication/verifying-requests-from-slack).
func signedBy(secret, at, body string) http.Header {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("v0:" + at + ":" + body))
	h := http.Header{}
	h.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	h.Set("X-Slack-Request-Timestamp", at)
	h.Set("Content-Type", "application/json")
	return h
}

func judged(body string) (grant.SignedEvent, error) {
	at := fmt.Sprint(eventTime.Unix())
	return (*Connector)(nil).JudgeEvent([]string{"older", "s"}, signedBy("s", at, body), []byte(body), eventTime)
}

func callback(event string, more ...string) string {
	return `{"token":"XXYYZZ","team_id":"T1","api_app_id":"A1","event":` + event + `,"type":"event_callback",` +
		strings.Join(append(more, `"event_id":"Ev08MFMKH6","event_time":1764417599}`), ",")
}

// The example of Slack's own documentation has this secret, body and signature.
func TestTheExampleOfSlacksDocumentationIsSigned(t *testing.T) {
	const body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&" +
		"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=" +
		"https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=" +
		"398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	h := http.Header{signatureHeader: {"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"},
		timeHeader: {"1531420618"}}
	const secret = "8f742231b10e8888abcd99yyyzzz85a5"
	if err := verify([]string{secret}, h, []byte(body), time.Unix(1531420618, 0)); err != nil {
		t.Error(err)
	}
	if err := verify([]string{secret}, h, []byte(body), time.Unix(1531420618+301, 0)); !errors.Is(err,
		grant.ErrEventTooOld) {
		t.Errorf("five minutes later: %v", err)
	}
}

func TestAMessageOfSlackThatDoesNotCount(t *testing.T) {
	body := callback(`{"type":"app_mention"}`)
	now := eventTime.Unix()
	set := func(name string, values ...string) func(http.Header) {
		return func(h http.Header) { h[name] = values }
	}
	good := signedBy("s", fmt.Sprint(now), body).Get(signatureHeader)
	for name, tt := range map[string]struct {
		at   string
		bend func(http.Header)
		want error
	}{
		"as it is":              {fmt.Sprint(now), nil, nil},
		"almost late":           {fmt.Sprint(now - 300), nil, nil},
		"late":                  {fmt.Sprint(now - 301), nil, grant.ErrEventTooOld},
		"almost too early":      {fmt.Sprint(now + 300), nil, nil},
		"too early":             {fmt.Sprint(now + 301), nil, grant.ErrEventTooOld},
		"no number":             {"now", nil, grant.ErrEventTooOld},
		"no time":               {"", nil, grant.ErrEventTooOld},
		"a number without end":  {strings.Repeat("9", 40), nil, grant.ErrEventTooOld},
		"in the distant past":   {"-9223372036854775808", nil, grant.ErrEventTooOld},
		"another time":          {fmt.Sprint(now), set(timeHeader, fmt.Sprint(now+1)), grant.ErrEventSignature},
		"two times":             {fmt.Sprint(now), set(timeHeader, fmt.Sprint(now), "1"), grant.ErrEventTwice},
		"no time at all":        {fmt.Sprint(now), set(timeHeader), errNoTime},
		"two signatures":        {fmt.Sprint(now), set(signatureHeader, good, good), grant.ErrEventTwice},
		"two in one":            {fmt.Sprint(now), set(signatureHeader, good+","+good), grant.ErrEventSignature},
		"no signature":          {fmt.Sprint(now), set(signatureHeader), grant.ErrEventUnsigned},
		"an empty one":          {fmt.Sprint(now), set(signatureHeader, ""), grant.ErrEventUnsigned},
		"nothing but a version": {fmt.Sprint(now), set(signatureHeader, "v0="), grant.ErrEventSignature},
		"another version":       {fmt.Sprint(now), set(signatureHeader, "v1"+good[2:]), grant.ErrEventSignature},
		"no version":            {fmt.Sprint(now), set(signatureHeader, good[3:]), grant.ErrEventSignature},
		"cut":                   {fmt.Sprint(now), set(signatureHeader, good[:len(good)-1]), grant.ErrEventSignature},
		"of no secret": {fmt.Sprint(now), set(signatureHeader,
			signedBy("", fmt.Sprint(now), body).Get(signatureHeader)), grant.ErrEventSignature},
	} {
		h := signedBy("s", tt.at, body)
		if tt.bend != nil {
			tt.bend(h)
		}
		e, err := (*Connector)(nil).JudgeEvent([]string{"older", "s"}, h, []byte(body), eventTime)
		if err != tt.want || (err != nil) != (e.ID == "") {
			t.Errorf("%s: %+v, %v, want %v", name, e, err, tt.want)
		}
	}
	h := signedBy("older", fmt.Sprint(now), body)
	if _, err := (*Connector)(nil).JudgeEvent([]string{"older", "s"}, h, []byte(body), eventTime); err != nil {
		t.Errorf("by the secret that is replaced: %v", err)
	}
	if _, err := (*Connector)(nil).JudgeEvent([]string{"s"}, h, append([]byte(body), ' '), eventTime); !errors.Is(err,
		grant.ErrEventSignature) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestSlackIsAnsweredItsQuestion(t *testing.T) {
	e, err := judged(`{"token":"J","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",` +
		`"type":"url_verification"}`)
	if err != nil || string(e.Answer) != "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P" ||
		e.AnswerType != "text/plain; charset=utf-8" {
		t.Errorf("%+v %v", e, err)
	}
}

// What Slack tells, whose it is, what it ends and who may know.
func TestWhatEventsOfSlackMean(t *testing.T) {
	const whole = `"authorizations":[{"enterprise_id":"E1","team_id":null,"user_id":"U1","is_bot":true,` +
		`"is_enterprise_install":true}]`
	for name, tt := range map[string]struct {
		body     string
		accounts []string
		ended    string
		access   []string
	}{
		"uninstalled": {callback(`{"type":"app_uninstalled"}`), []string{"T1"}, "app_uninstalled", nil},
		"the bot's token revoked": {callback(`{"type":"tokens_revoked","tokens":{"oauth":["U1"],"bot":["U2"]}}`),
			[]string{"T1"}, "tokens_revoked", nil},
		"only people's tokens revoked": {callback(`{"type":"tokens_revoked","tokens":{"oauth":["U1"]}}`),
			[]string{"T1"}, "", nil},
		"no token revoked": {callback(`{"type":"tokens_revoked","tokens":{"oauth":[],"bot":[]}}`), []string{"T1"}, "", nil},
		"uninstalled by an organization": {callback(`{"type":"app_uninstalled"}`, whole), []string{"E1"},
			"app_uninstalled", nil},
		"uninstalled by an organization, without a team": {strings.Replace(callback(`{"type":"app_uninstalled"}`,
			`"enterprise_id":"E1"`), `"T1"`, "null", 1), []string{"E1"}, "app_uninstalled", nil},
		"uninstalled in a workspace of an organization": {callback(`{"type":"app_uninstalled"}`, `"enterprise_id":"E1"`),
			[]string{"T1"}, "app_uninstalled", nil},
		"one workspace less": {callback(`{"type":"app_uninstalled_team","team_id":"T1"}`, whole), []string{"E1"}, "", nil},
		"a mention":          {callback(`{"type":"app_mention"}`), []string{"T1"}, "", []string{Mentions}},
		"a reaction":         {callback(`{"type":"reaction_added"}`), []string{"T1"}, "", []string{Reactions}},
		"a reaction less":    {callback(`{"type":"reaction_removed"}`), []string{"T1"}, "", []string{Reactions}},
		"a direct message": {callback(`{"type":"message","channel_type":"im","text":"\ud83d"}`), []string{"T1"}, "",
			[]string{History}},
		"a new channel": {callback(`{"type":"channel_created","channel":{}}`), []string{"T1"}, "", nil},
		"in a channel that is shared with another workspace": {callback(`{"type":"app_mention"}`,
			`"authorizations":[{"enterprise_id":null,"team_id":"T2","is_enterprise_install":false}]`), []string{"T2"}, "",
			[]string{Mentions}},
		"that it was too much": {`{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1518467820}`,
			[]string{"T1"}, "", nil},
		"what only looks like it": {`{"type":"event","team_id":"T1","event_id":"Ev1","event":{"type":"app_uninstalled"}}`,
			[]string{"T1"}, "", nil},
	} {
		e, err := judged(tt.body)
		if err != nil || e.Answer != nil || !slices.Equal(e.Accounts, tt.accounts) || e.Ended != tt.ended ||
			!slices.Equal(e.Access, tt.access) || e.ID == "" || (e.Lag != 0) != (tt.ended == "tokens_revoked") ||
			e.Ended != "" && !e.At.Equal(time.Unix(1764417599, 0)) || !e.Keep.After(eventTime.Add(24*time.Hour)) {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
	for _, body := range []string{"", "{", "[]", "{}", `"x"`, "payload=%7B%7D", `{"type":"url_verification"}`,
		`{"type":"event_callback","event_id":"Ev1"}`, `{"type":"event_callback","event_id":7,"team_id":"T1"}`,
		`{"type":"event_callback","event_id":"Ev1","team_id":"T1","event":{"type":"app_uninstalled"}}`,
		`{"type":"event_callback","event_id":"Ev1","team_id":"T1","event_time":1e300}`} {
		if e, err := judged(body); !errors.Is(err, grant.ErrEventGarbled) {
			t.Errorf("%s: %+v %v", body, e, err)
		}
	}
	a, _ := judged(`{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1}`)
	b, _ := judged(`{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":2}`)
	again, _ := judged(`{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1}`)
	if a.ID == b.ID || a.ID != again.ID {
		t.Errorf("messages without an id are %s, %s and %s", a.ID, b.ID, again.ID)
	}
}

// An app gets what it verifies a message with, and which attempt it is; nothing else.
func TestWhatOfAMessageOfSlackAppsGet(t *testing.T) {
	body := callback(`{"type":"app_mention"}`)
	h := signedBy("s", fmt.Sprint(eventTime.Unix()), body)
	for _, name := range []string{"X-Slack-Retry-Num", "X-Slack-Retry-Reason", "Cookie", "User-Agent", "X-Slack-Other"} {
		h.Set(name, "x")
	}
	e, err := (*Connector)(nil).JudgeEvent([]string{"s"}, h, []byte(body), eventTime)
	var names []string
	for name, values := range e.Header {
		names = append(names, name)
		if !slices.Equal(values, h[name]) {
			t.Errorf("%s became %q", name, values)
		}
	}
	slices.Sort(names)
	if err != nil || strings.Join(names, " ") != "Content-Type X-Slack-Request-Timestamp X-Slack-Retry-Num "+
		"X-Slack-Retry-Reason X-Slack-Signature" {
		t.Errorf("%q %v", names, err)
	}
}

// Whatever comes, an event is only what a secret has signed in time, and says whose it is.
func FuzzJudgeEvent(f *testing.F) {
	f.Add("v0=00", "1764417600", []byte(callback(`{"type":"app_uninstalled"}`)), false)
	f.Add("", "1764417600", []byte(callback(`{"type":"tokens_revoked","tokens":{"bot":["U"]}}`)), true)
	f.Add("", "1764417000", []byte(`{"type":"url_verification","challenge":"x"}`), true)
	f.Fuzz(func(t *testing.T, signature, at string, body []byte, signed bool) {
		h := http.Header{signatureHeader: {signature}, timeHeader: {at}}
		if signed {
			h = signedBy("s", at, string(body))
			h[timeHeader] = []string{at}
		}
		e, err := (*Connector)(nil).JudgeEvent([]string{"s"}, h, body, eventTime)
		switch {
		case err == nil && !signed:
			t.Error("it was not signed")
		case err == nil && e.Answer == nil && (e.ID == "" || len(e.Accounts) == 0 || slices.Contains(e.Accounts, "")):
			t.Errorf("%+v", e)
		case err != nil && !errors.Is(err, grant.ErrEventSignature) && !errors.Is(err, grant.ErrEventTooOld) &&
			!errors.Is(err, grant.ErrEventGarbled):
			t.Error(err)
		case signed && errors.Is(err, grant.ErrEventSignature):
			t.Error("it was signed")
		}
	})
}
