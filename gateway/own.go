package gateway

import (
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// document describes this listener (OpenAPI 3.1), by hand.
//
//go:embed openapi.json
var document []byte

// endpoint answers an address of ours. open ones need no app, and no person.
type endpoint struct {
	method string
	open   bool
	answer func(*Gateway, http.ResponseWriter, *http.Request, *observe.Event, *caller) error
}

// endpoints are all addresses but those below /gateway/. The document describes each.
var endpoints = map[string]endpoint{
	"/v1/grants":       {http.MethodGet, false, (*Gateway).grants},
	"/v1/leases":       {http.MethodPost, false, (*Gateway).newLease},
	"/v1/token":        {http.MethodPost, false, (*Gateway).rawToken},
	"/v1/openapi.json": {http.MethodGet, true, (*Gateway).describe},
}

func (g *Gateway) describe(w http.ResponseWriter, _ *http.Request, ev *observe.Event, _ *caller) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(document)))
	ev.Status, ev.Bytes = http.StatusOK, int64(len(document))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(document) // who does not read it has gone
	return nil
}

// reply answers as JSON.
func reply(w http.ResponseWriter, ev *observe.Event, status int, v any) error {
	body, err := marshal(v)
	if err != nil {
		return faultProblem(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", privateAnswer)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	ev.Status, ev.Bytes = status, int64(len(body))
	w.WriteHeader(status)
	_, _ = w.Write(body) // likewise
	return nil
}

// grantLine is what an app may know of a grant.
type grantLine struct {
	Connector  string       `json:"connector"`
	Owner      string       `json:"owner"`
	Status     grant.Status `json:"status"`
	Access     []string     `json:"access"`
	Scopes     []string     `json:"scopes"`
	Offline    bool         `json:"offline"`
	Until      *time.Time   `json:"until"`
	Account    *account     `json:"account"`
	ConnectURL string       `json:"connect_url"`
	ConnectBy  string       `json:"connect_by,omitempty"`
	Missing    []string     `json:"missing"`
}

type account struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// list is names as JSON: none are [], and not null.
func list(names []string) []string { return append([]string{}, names...) }

func (g *Gateway) grants(w http.ResponseWriter, r *http.Request, ev *observe.Event, c *caller) error {
	lines, err := g.o.Broker.List(r.Context(), c.app.ID, c.party)
	if err != nil {
		return g.lendProblem(r, c, "", err)
	}
	out := make([]grantLine, 0, len(lines))
	for _, l := range lines {
		line := grantLine{Connector: l.Connector, Owner: string(l.Owner), Status: l.Status, Access: list(l.Access),
			Scopes: list(l.Scopes), Offline: l.Offline, Missing: list(l.Missing)}
		if !l.Until.IsZero() {
			until := l.Until.UTC()
			line.Until = &until
		}
		if l.Account.ID != "" || l.Account.Name != "" {
			line.Account = &account{l.Account.ID, l.Account.Name}
		}
		access := union(l.Access, withoutWords(l.Missing))
		if len(access) == 0 {
			access = c.app.accesses(l.Connector)
		}
		line.ConnectURL, line.ConnectBy = g.connecting(c, l.Connector, access)
		out = append(out, line)
	}
	return reply(w, ev, http.StatusOK, map[string]any{"grants": out})
}

// newLease makes a lease of an assertion: what an app carries for a person who was just
// there, for as long as their session would last without another request.
func (g *Gateway) newLease(w http.ResponseWriter, r *http.Request, ev *observe.Event, c *caller) error {
	if c.party.Session == nil || c.lease != "" {
		return callerProblem(errPerson) // only an assertion proves that somebody is there
	}
	if err := noBody(w, r); err != nil {
		return err
	}
	idle := c.asserted.IssuedAt.Add(g.o.IdleTimeout)
	if c.end.Before(idle) {
		idle = c.end
	}
	sealed, err := g.o.Sessions.SealLease(session.Lease{App: c.app.ID, Asserted: c.asserted, Idle: idle, End: c.end})
	if err != nil {
		return callerProblem(errors.Join(errPerson, err))
	}
	return reply(w, ev, http.StatusCreated,
		map[string]any{"lease": sealed, "expires_at": idle.UTC().Format(time.RFC3339)})
}

// maxAsked is the longest body of a question to us, in bytes.
const maxAsked = 4 << 10

func noBody(w http.ResponseWriter, r *http.Request) error {
	_, err := readAsked(w, r)
	return err
}

func readAsked(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(judgedWithin)) // a test's recorder has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, bodyProblem(errBodyGone)
	}
	return body, nil
}

// rawToken hands out the credential itself, to an app that may have it.
func (g *Gateway) rawToken(w http.ResponseWriter, r *http.Request, ev *observe.Event, c *caller) error {
	if !c.app.RawTokens {
		return newProblem(http.StatusForbidden, notAllowed, "This app gets no tokens",
			"It is not configured with raw_tokens; use /gateway/.")
	}
	body, err := readAsked(w, r)
	if err != nil {
		return err
	}
	var asked struct {
		Connector string `json:"connector"`
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" || json.Unmarshal(body, &asked) != nil {
		return plainBad(errors.New(`the body has to be JSON with a "connector"`))
	}
	offered := c.app.Connectors[asked.Connector]
	if offered == nil {
		return g.lendProblem(r, c, asked.Connector, grant.ErrNoConnector)
	}
	ev.Connector = asked.Connector
	loan, err := g.o.Broker.Lend(r.Context(), grant.Use{App: c.app.ID, Connector: asked.Connector, Who: c.party})
	if err != nil {
		return g.lendProblem(r, c, asked.Connector, err)
	}
	answer := struct {
		AccessToken string     `json:"access_token"`
		TokenType   string     `json:"token_type"`
		ExpiresAt   *time.Time `json:"expires_at"`
		Scopes      []string   `json:"scopes"`
	}{loan.Credential(), "Bearer", nil, list(loan.Scopes)}
	if !loan.Expires.IsZero() {
		expires := loan.Expires.UTC()
		answer.ExpiresAt = &expires
	}
	return reply(w, ev, http.StatusOK, answer)
}
