// Package pagerdutyapi is what the connectors of PagerDuty both know of its REST API: where it
// is in each region, what an access lets through, and how it says whose a credential is.
//
// It knows nothing of how a credential is got, which is the connectors' own, and keeps
// nothing. What it relies on is in PagerDuty's documentation, at
// https://developer.pagerduty.com/docs/rest-api-overview and in its OpenAPI document
// (https://github.com/PagerDuty/api-schema).
package pagerdutyapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/sallyport-proxy/sallyport/oauth"
)

// The regions in which accounts are.
const (
	US = "us"
	EU = "eu"
)

// The origins of the API, which are also the audiences of PagerDuty's tokens.
const (
	OriginUS = "https://api.pagerduty.com"
	OriginEU = "https://api.eu.pagerduty.com"
)

// Origin is where the API of a region is; of one that is not known, that of US. base is where
// a pretend PagerDuty is, for tests: it has EU below /eu. "": PagerDuty.
func Origin(base, region string) string {
	switch {
	case base != "" && region == EU:
		return base + "/eu"
	case base != "":
		return base
	case region == EU:
		return OriginEU
	}
	return OriginUS
}

// Accept is the media type that selects the version of the API.
const Accept = "application/vnd.pagerduty+json;version=2"

// Forward are headers of its own that apps may send: X-Early-Access names a part of the API
// that may still change, such as schedules with shifts.
func Forward() []string { return []string{"X-Early-Access"} }

// What Reads and Writes let an app do, in words for people that follow "may".
const (
	ReadMeans = "read schedules, who is on call, people and how they are reached, teams, escalation policies, " +
		"services and incidents"
	WriteMeans = ReadMeans + ", and make and change schedules, overrides and incidents"
)

// Reads are rules for what an on-call planner reads. Schedules are at two places: those with
// layers, and those with shifts below /v3. A user's own record is let through (and /users/me,
// which is one); what is below it, such as the sessions and what other applications may do, is
// left out.
func Reads() []string {
	return []string{
		"GET /oncalls", "GET /schedules", "GET /schedules/*", "GET /v3/schedules", "GET /v3/schedules/*",
		"GET /users", "GET /users/{id}", "GET /teams", "GET /teams/*",
		"GET /escalation_policies", "GET /escalation_policies/*", "GET /services", "GET /services/*",
		"GET /incidents", "GET /incidents/*",
	}
}

// Writes are Reads, and rules to make and change schedules, their overrides and shifts, and
// incidents. A schedule with layers cannot be deleted, only overrides of it.
func Writes() []string {
	return append(Reads(),
		"POST /schedules", "PUT /schedules/*", "POST /schedules/*/overrides", "DELETE /schedules/*/overrides/*",
		"POST /v3/schedules", "POST /v3/schedules/*", "PUT /v3/schedules/*", "DELETE /v3/schedules/*/*",
		"POST /incidents", "PUT /incidents", "PUT /incidents/*", "POST /incidents/*")
}

// User is whose a credential is.
type User struct {
	ID    string // never changes within an account
	Email string // ""; it is not there, or no header could carry it
}

// ErrAccount says that a credential is an account's, and of no user.
var ErrAccount = errors.New("the credential is of no user")

// ErrNoUser says that PagerDuty's answer names no user.
var ErrNoUser = errors.New("the answer names no user")

// Me asks whose a credential is that is sent as authorization. Errors are ErrAccount, ErrNoUser,
// or an *oauth.Error.
func Me(ctx context.Context, client *oauth.Client, origin, authorization string) (User, error) {
	body, err := Get(ctx, client, "whoami", origin+"/users/me", authorization)
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Status == http.StatusBadRequest &&
		strings.Contains(strings.ToLower(Message(body)), "account-level") {
		return User{}, ErrAccount
	}
	if err != nil {
		return User{}, err
	}
	answer, err := oauth.Members(body, "user")
	if err != nil {
		return User{}, ErrNoUser
	}
	members, err := oauth.Members(answer["user"], "id", "email")
	if err != nil {
		return User{}, ErrNoUser
	}
	u := User{ID: text(members["id"]), Email: text(members["email"])}
	if !IsID(u.ID) {
		return User{}, ErrNoUser
	}
	if !isAddress(u.Email) {
		u.Email = ""
	}
	return u, nil
}

// Get makes one request to the API. The body comes along with an *oauth.Error too.
func Get(ctx context.Context, client *oauth.Client, call, address, authorization string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the request cannot be made")
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Accept", Accept)
	return client.Document(req, call)
}

// Message is the message of an error of the API, which is a text or an object with one;
// "" where there is none. It is for comparing, and belongs in no text of ours.
func Message(body []byte) string {
	answer, err := oauth.Members(body, "error")
	if err != nil {
		return ""
	}
	if message := text(answer["error"]); message != "" {
		return message
	}
	object, err := oauth.Members(answer["error"], "message")
	if err != nil {
		return ""
	}
	return text(object["message"])
}

// IsID reports whether s has letters and digits only, as ids of PagerDuty's have, so that two
// that are joined by a slash can be read in one way only.
func IsID(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9')
	})
}

func isAddress(s string) bool {
	return strings.Contains(s, "@") && len(s) <= 254 && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~'
	})
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
