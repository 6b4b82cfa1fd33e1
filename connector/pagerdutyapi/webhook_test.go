package pagerdutyapi

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
)

var webhookNow = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func signWebhook(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// webhookAt is as the overview of V3 webhooks in PagerDuty's documentation has it.
func webhookAt(at string) string {
	return fmt.Sprintf(`{"event":{"id":"01BRB6ZP4M6T8ZG4X6BP63ZB9O","event_type":"service.updated",`+
		`"resource_type":"service","occurred_at":%q,"agent":null,"client":null,"data":{"type":"service"}}}`, at)
}

func TestAWebhookOfPagerDutyIsTakenAsItsDocumentationHasIt(t *testing.T) {
	body := webhookAt("2026-11-29T11:59:59.682Z")
	h := http.Header{}
	for name, value := range map[string]string{"X-PagerDuty-Signature": signWebhook("s", body), "Content-Type": "application/json",
		"X-Webhook-Id": "w-1", "User-Agent": "PagerDuty-Webhook/V3.0", "Cookie": "canary"} {
		h.Set(name, value)
	}
	e, err := JudgeWebhook([]string{"s"}, h, []byte(body), webhookNow)
	if err != nil || e.ID != "01BRB6ZP4M6T8ZG4X6BP63ZB9O" || e.Answer != nil || e.Ended != "" || e.Accounts != nil ||
		!e.Keep.After(e.At.Add(72*time.Hour)) || len(e.Header) != 3 || e.Header.Get("X-Pagerduty-Signature") != signWebhook("s", body) {
		t.Errorf("%+v %v", e, err)
	}
}

// While a secret is replaced there are two signatures, and here perhaps two secrets: one pair
// is enough, and nothing else is.
func TestAWebhookOfPagerDutyThatIsNotSigned(t *testing.T) {
	body := webhookAt("2026-11-29T11:00:00Z")
	good, other := signWebhook("new", body), signWebhook("old", body)
	for name, tt := range map[string]struct {
		lines []string
		want  error
	}{
		"one":                       {[]string{good}, nil},
		"of the older secret":       {[]string{signWebhook("kept", body)}, nil},
		"the second one":            {[]string{other + "," + good}, nil},
		"with blanks":               {[]string{other + ", " + good}, nil},
		"in capitals":               {[]string{"v1=" + strings.ToUpper(good[3:])}, nil},
		"behind one of a version 2": {[]string{"v2=00," + good}, nil},
		"none":                      {nil, grant.ErrEventUnsigned},
		"empty":                     {[]string{""}, grant.ErrEventUnsigned},
		"another secret's":          {[]string{other}, grant.ErrEventSignature},
		"of no secret":              {[]string{signWebhook("", body)}, grant.ErrEventSignature},
		"another version":           {[]string{"v2=" + good[3:]}, grant.ErrEventSignature},
		"no version":                {[]string{good[3:]}, grant.ErrEventSignature},
		"cut":                       {[]string{good[:len(good)-2]}, grant.ErrEventSignature},
		"longer":                    {[]string{good + "00"}, grant.ErrEventSignature},
		"not hexadecimal":           {[]string{"v1=" + strings.Repeat("g", 64)}, grant.ErrEventSignature},
		"in two headers":            {[]string{good, good}, grant.ErrEventTwice},
		"of another body":           {[]string{signWebhook("new", body+" ")}, grant.ErrEventSignature},
	} {
		_, err := JudgeWebhook([]string{"kept", "new"}, http.Header{signatureHeader: tt.lines}, []byte(body), webhookNow)
		if err != tt.want {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := JudgeWebhook(nil, http.Header{signatureHeader: {good}}, []byte(body), webhookNow); !errors.Is(err,
		grant.ErrEventSignature) {
		t.Errorf("without a secret: %v", err)
	}
}

// A signature of PagerDuty's has no time, so the event's own decides, and its id is remembered
// until a repetition is too old.
func TestAWebhookOfPagerDutyThatIsOldIsRefused(t *testing.T) {
	for at, want := range map[string]error{
		"2026-11-26T12:00:01Z": nil, "2026-11-26T11:59:59Z": grant.ErrEventTooOld,
		"2026-11-29T12:04:59Z": nil, "2026-11-29T12:05:01Z": grant.ErrEventTooOld,
		"2026-11-29T13:00:00+01:00": nil, "yesterday": grant.ErrEventGarbled, "": grant.ErrEventGarbled,
	} {
		body := webhookAt(at)
		e, err := JudgeWebhook([]string{"s"}, http.Header{signatureHeader: {signWebhook("s", body)}}, []byte(body), webhookNow)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", at, err, want)
		}
		if err == nil {
			if _, err := JudgeWebhook([]string{"s"}, http.Header{signatureHeader: {signWebhook("s", body)}}, []byte(body),
				e.Keep); !errors.Is(err, grant.ErrEventTooOld) {
				t.Errorf("%s: once its id is forgotten it is taken again: %v", at, err)
			}
		}
	}
	for _, body := range []string{"", "{", "[]", `"x"`, "{}", `{"event":null}`, `{"event":{"id":"","occurred_at":"2026-11-29T12:00:00Z"}}`,
		`{"event":{"id":7,"occurred_at":"2026-11-29T12:00:00Z"}}`, `{"event":{"id":"x"}}`} {
		if _, err := JudgeWebhook([]string{"s"}, http.Header{signatureHeader: {signWebhook("s", body)}}, []byte(body),
			webhookNow); !errors.Is(err, grant.ErrEventGarbled) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Whatever comes, an event is only what a secret has signed, and says what it is.
func FuzzJudgeWebhook(f *testing.F) {
	f.Add("v1=00", []byte(webhookAt("2026-11-29T11:00:00Z")), true)
	f.Add(",,v1=", []byte(`{"event":{"id":"a","occurred_at":"2026-11-29T11:00:00.5+14:00"}}`), true)
	f.Fuzz(func(t *testing.T, line string, body []byte, signedToo bool) {
		was := bytes.Clone(body)
		if signedToo {
			line += "," + signWebhook("s", string(body))
		}
		e, err := JudgeWebhook([]string{"s"}, http.Header{signatureHeader: {line}}, body, webhookNow)
		switch {
		case !bytes.Equal(was, body):
			t.Error("the body was changed")
		case err == nil && !signedToo:
			t.Error("it was not signed")
		case err == nil && (e.ID == "" || e.Keep.Before(webhookNow) || e.Keep.After(webhookNow.Add(webhookAge+2*webhookAhead))):
			t.Errorf("%+v", e)
		case err != nil && !errors.Is(err, grant.ErrEventSignature) && !errors.Is(err, grant.ErrEventTooOld) &&
			!errors.Is(err, grant.ErrEventGarbled):
			t.Error(err)
		case signedToo && errors.Is(err, grant.ErrEventSignature):
			t.Error("it was signed")
		}
	})
}
