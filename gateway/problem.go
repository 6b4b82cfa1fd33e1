package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/relay"
	"github.com/sallyport-proxy/sallyport/upstream"
)

// problemBase is before the name of a problem in its type. Programs compare it; nothing
// has to be there (RFC 9457 §3.1.1).
const problemBase = "https://sallyport-proxy.github.io/problems/"

// The names of problems, a closed list.
const (
	appUnknown    = "app-unknown"
	personUnknown = "person-unknown"
	grantRequired = "grant-required"
	ruleDenied    = "rule-denied"
	notAllowed    = "not-allowed"
	badRequest    = "bad-request"
	notFound      = "not-found"
	badMethod     = "method-not-allowed"
	bodyTooLarge  = "body-too-large"
	bodyEncoded   = "body-not-readable"
	tryLater      = "try-later"
	thirdParty    = "third-party-failed"
	ourFault      = "internal"
)

var problemNames = []string{appUnknown, personUnknown, grantRequired, ruleDenied, notAllowed, badRequest, notFound,
	badMethod, bodyTooLarge, bodyEncoded, tryLater, thirdParty, ourFault}

// problem is an answer of ours that is not what was asked for (RFC 9457). Its text says
// nothing of a credential, and quotes no more of the request than the path in rule-denied.
type problem struct {
	name   string
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	ID     string `json:"request_id"`

	Connector  string   `json:"connector,omitempty"`
	ConnectURL string   `json:"connect_url,omitempty"`
	ConnectBy  string   `json:"connect_by,omitempty"`
	Missing    []string `json:"missing,omitempty"`
	Method     string   `json:"method,omitempty"`
	Path       string   `json:"path,omitempty"`
	Allowed    []string `json:"allowed,omitempty"`

	after time.Duration // Retry-After; 0: none
	cause error         // for the log
}

func newProblem(status int, name, title, detail string) *problem {
	return &problem{name: name, Type: problemBase + name, Title: title, Status: status, Detail: detail}
}

// Error implements error.
func (p *problem) Error() string {
	if p.cause != nil {
		return p.name + ": " + p.cause.Error()
	}
	return p.name
}

// Unwrap lets errors.Is find the cause.
func (p *problem) Unwrap() error { return p.cause }

func (p *problem) because(err error) *problem {
	p.cause = err
	return p
}

// write writes the problem. The connection is closed where a body may not have been read.
func (p *problem) write(w http.ResponseWriter, r *http.Request, id string) {
	p.ID = id
	body, err := marshal(p)
	if err != nil {
		body = []byte(`{"type":"` + p.Type + `","status":` + strconv.Itoa(p.Status) + `}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", privateAnswer)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Request-Id", id)
	if p.Status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", `Bearer realm="sallyport"`)
	}
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int((p.after+time.Second-1)/time.Second))))
	}
	if r.ContentLength != 0 {
		h.Set("Connection", "close")
		readRest(w, r)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // who does not read it has gone
}

const (
	maxRest    = 4 << 20
	restWithin = 2 * time.Second
)

// readRest reads what a client still sends, for a while: many never read an answer whose
// connection is reset while they write. Who waits for 100 Continue sends nothing. The deadline
// stays: net/http reads on before it sends the answer, and would wait without one.
func readRest(w http.ResponseWriter, r *http.Request) {
	if r.Header["Expect"] != nil {
		return
	}
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(restWithin)) != nil {
		return // else a client that hangs would hold us
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxRest) // what comes of it changes nothing
}

// marshal is json.Marshal for what is no part of a page: addresses in it stay as they are, so
// that people can copy them too.
func marshal(v any) ([]byte, error) {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return body.Bytes(), err
}

func plainBad(err error) *problem {
	return newProblem(http.StatusBadRequest, badRequest, "The request is refused", sentence(err)).because(err)
}

// sentence makes one of an error of ours, which quotes nothing.
func sentence(err error) string {
	text := err.Error()
	return string(text[0]-'a'+'A') + text[1:] + "."
}

// callerProblem is what an app reads that did not prove itself, or for whom it asks.
func callerProblem(err error) *problem {
	later, isLater := errors.AsType[*grant.LaterError](err)
	switch {
	case isLater:
		p := laterProblem(err)
		p.Detail, p.after = "The app's token cannot be checked at this moment.", later.After
		return p
	case errors.Is(err, errAppUnknown):
		return newProblem(http.StatusUnauthorized, appUnknown, "The app is not known",
			"Send the app's token once, as Authorization: Bearer.").because(err)
	case errors.Is(err, errTwoPeople):
		return plainBad(err)
	}
	detail := "Send one assertion of a route of this app (" + assertionHeader + "), or one lease (" + leaseHeader +
		"), whose session has not ended."
	switch {
	case errors.Is(err, errNotOffline):
		detail = "The app is configured without offline, so it may not name people by " + personHeader + ". " + detail
	case errors.Is(err, errNoName):
		detail = personHeader + " has to be PROVIDER:SUBJECT, or org:ID."
	}
	return newProblem(http.StatusUnauthorized, personUnknown, "The person is not known", detail).because(err)
}

// bodyProblem is why a body is not passed on.
func bodyProblem(err error) *problem {
	switch {
	case errors.Is(err, errBodyLarge), errors.Is(err, relay.ErrTooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, bodyTooLarge, "The body is too large", sentence(err)).
			because(err)
	case errors.Is(err, errBodyEncoded), errors.Is(err, errBodyType), errors.Is(err, errBodyOther):
		return newProblem(http.StatusUnsupportedMediaType, bodyEncoded, "The body cannot be judged", sentence(err)).
			because(err)
	}
	return plainBad(err)
}

// lendProblem is why nothing is lent.
func (g *Gateway) lendProblem(r *http.Request, c *caller, connector string, err error) *problem {
	if required, ok := errors.AsType[*grant.RequiredError](err); ok {
		p := g.required(r, c, connector, required.Missing)
		if moved, ok := errors.AsType[*grant.MovedError](err); ok {
			p.Detail = sentence(moved) + " " + p.Detail
		}
		return p.because(err)
	}
	if later, ok := errors.AsType[*grant.LaterError](err); ok {
		p := newProblem(http.StatusServiceUnavailable, tryLater, "Not possible now",
			"The grant cannot be used at this moment: try again after the time in Retry-After. Where it stays so, "+
				"GET /v1/grants has its status.").because(err)
		p.after = max(time.Second, later.After)
		return p
	}
	switch {
	case errors.Is(err, grant.ErrNoConnector), errors.Is(err, grant.ErrNoApp):
		return newProblem(http.StatusNotFound, notFound, "There is no such connector",
			"The app is not configured for a connector of this name.").because(err)
	case errors.Is(err, grant.ErrNotUser):
		return newProblem(http.StatusForbidden, notAllowed, "Not theirs to use",
			"The person may not use the grant of the organization.").because(err)
	case errors.Is(err, grant.ErrNoOrg):
		return newProblem(http.StatusForbidden, notAllowed, "No organization",
			"The grant is an organization's, and none is active. While nobody is signed in, name it: "+
				"X-Sallyport-Person: org:ID.").because(err)
	case errors.Is(err, grant.ErrNoPerson):
		return newProblem(http.StatusForbidden, notAllowed, "No person",
			"The grant is a person's, and an organization is named. Name the person: "+
				"X-Sallyport-Person: PROVIDER:SUBJECT.").because(err)
	case r.Context().Err() != nil:
		return laterProblem(err)
	}
	return faultProblem(err)
}

func faultProblem(err error) *problem {
	return newProblem(http.StatusInternalServerError, ourFault, "A fault in Sallyport",
		"The log of Sallyport says more, by the request id.").because(err)
}

func laterProblem(err error) *problem {
	p := newProblem(http.StatusServiceUnavailable, tryLater, "Not possible now", "").because(err)
	p.after = time.Second
	return p
}

// required says what a person has to agree to or do, and where.
func (g *Gateway) required(r *http.Request, c *caller, connector string, missing []string) *problem {
	access := withoutWords(missing)
	// What the app has already must be in the link too: a consent is replaced, not widened.
	if lines, err := g.o.Broker.List(r.Context(), c.app.ID, c.party); err == nil {
		for _, line := range lines {
			if line.Connector == connector {
				access = union(line.Access, access)
			}
		}
	}
	if len(access) == 0 {
		access = c.app.accesses(connector)
	}
	p := newProblem(http.StatusConflict, grantRequired, "A person has to agree first",
		"Send them to connect_url.")
	p.Connector, p.Missing = connector, missing
	p.ConnectURL, p.ConnectBy = g.connecting(c, connector, access)
	if p.ConnectBy == byManager {
		p.Detail = "It is connected once for the organization, by somebody who manages that: give connect_url to one " +
			"of them."
		if c.party.Session != nil && c.lease == "" { // a lease does not tell all that may make a manager
			p.Detail += " The person who is signed in is not among them, and can do nothing there."
		}
	}
	return p
}

// withoutWords returns the names of accesses in what is missing.
func withoutWords(missing []string) []string {
	return slices.DeleteFunc(slices.Clone(missing), func(s string) bool {
		return s == grant.MissingOffline || s == grant.MissingReconnect
	})
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// byManager says that somebody has to connect who manages it for the organization.
const byManager = "manager"

// connecting is where a connector is connected for an app, and by whom; "": by the person, and
// the address is theirs alone. Who the managers are is not known here, so that theirs is for
// everybody of the organization: the page asks who they are.
func (g *Gateway) connecting(c *caller, connector string, access []string) (address, by string) {
	q := url.Values{"app": {c.app.ID}, "access": access}
	if g.o.Broker.ByManager(connector, c.party) {
		by = byManager
		q.Set("for", g.o.Sessions.SealOrg(c.org()))
	} else if person := c.person(); person != "" {
		q.Set("for", g.o.Sessions.SealPerson(person))
	}
	return g.connect + url.PathEscape(connector) + "?" + q.Encode(), by
}

// relayProblem is why an exchange has no answer.
func relayProblem(err error) *problem {
	switch {
	case errors.Is(err, relay.ErrTooLarge):
		return bodyProblem(err)
	case errors.Is(err, relay.ErrUploadBroken):
		return plainBad(errBodyGone)
	case errors.Is(err, relay.ErrClientSlow):
		return newProblem(http.StatusRequestTimeout, badRequest, "The body did not arrive", "").because(err)
	case errors.Is(err, relay.ErrOver):
		return callerProblem(fmt.Errorf("%w: %w", errPerson, err))
	case errors.Is(err, upstream.ErrTimeout):
		return newProblem(http.StatusGatewayTimeout, thirdParty, "The third party did not answer in time", "").
			because(err)
	case errors.Is(err, relay.ErrProtocol):
		return newProblem(http.StatusBadGateway, thirdParty, "The third party's answer is not HTTP", "").because(err)
	}
	for _, ours := range [...]error{errCoding, errAnswerLong, errSwitch} { // it was reached, and has answered
		if errors.Is(err, ours) {
			return newProblem(http.StatusBadGateway, thirdParty, "The third party's answer is not passed on",
				sentence(ours)).because(err)
		}
	}
	return newProblem(http.StatusBadGateway, thirdParty, "The third party could not be reached", "").because(err)
}
