package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// The headers by which an app names a person.
const (
	assertionHeader = "X-Sallyport-Assertion"
	leaseHeader     = "X-Sallyport-Lease"
	personHeader    = "X-Sallyport-Person"
)

var (
	errAppUnknown = errors.New("the request proves no app")
	errTwoPeople  = errors.New("the request names a person in two ways")
	errNoPerson   = errors.New("the request names nobody")
	errPerson     = errors.New("the person is not proved")
	errNotOffline = errors.New("the app may not act for people who are away")
)

type socketKey struct{}

// WithSocket marks the connections of an app's own unix socket: on them it needs no token.
// It is for the ConnContext of that listener's http.Server.
func WithSocket(ctx context.Context, app string) context.Context {
	return context.WithValue(ctx, socketKey{}, app)
}

// credentials are what the Authorization header of a request holds. It prints nothing.
type credentials struct{ token, lease string }

// readCredentials reads "Bearer <token>", "Bearer <token>~<lease>", or Basic with the lease
// as user and the token as password, for clients that can set one credential only.
func readCredentials(h http.Header) (c credentials, ok bool) {
	lines := h["Authorization"]
	if len(lines) != 1 {
		return credentials{}, false
	}
	scheme, value, _ := strings.Cut(lines[0], " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		c.token, c.lease, _ = strings.Cut(strings.TrimLeft(value, " "), "~")
		ok = !strings.HasSuffix(value, "~")
	case strings.EqualFold(scheme, "Basic"):
		raw, err := base64.StdEncoding.DecodeString(strings.TrimLeft(value, " "))
		if err != nil {
			return credentials{}, false
		}
		c.lease, c.token, ok = strings.Cut(string(raw), ":")
	}
	return c, ok && c.token != ""
}

// app is who asks, and the lease that came with their credential; "": none. An app is
// known by the digest of its token, so that how long a comparison takes tells nothing.
func (g *Gateway) app(r *http.Request) (*App, string, error) {
	socket, onSocket := r.Context().Value(socketKey{}).(string)
	if onSocket && r.Header["Authorization"] == nil {
		if app := g.apps[socket]; app != nil {
			return app, "", nil
		}
		return nil, "", errAppUnknown
	}
	c, ok := readCredentials(r.Header)
	if !ok {
		return nil, "", errAppUnknown
	}
	digest := sha256.Sum256([]byte(c.token))
	var found *App
	for _, t := range g.tokens {
		if subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1 {
			found = t.app
		}
	}
	if found == nil || onSocket && found.ID != socket {
		return nil, "", errAppUnknown
	}
	return found, c.lease, nil
}

// caller is an app and for whom it acts.
type caller struct {
	app   *App
	party grant.Party
	// asserted is what the session is called; the zero value for who is only named.
	asserted session.Asserted
	end      time.Time // of the session; zero but with an assertion
	lease    string    // sealed; "": none
}

// person is the id for links to connect; "": it is an organization.
func (c *caller) person() string {
	if c.party.Session != nil {
		return c.party.Session.ID()
	}
	return c.party.Person
}

func (c *caller) org() string {
	if c.party.Session != nil {
		return c.party.Session.Org.ID
	}
	return c.party.Org
}

// caller finds out for whom an app asks. Exactly one proof or name counts.
func (g *Gateway) caller(r *http.Request, app *App, lease string) (*caller, error) {
	proofs := [...]string{assertionHeader, leaseHeader, personHeader}
	kind, value, ways := "", "", 0
	if lease != "" {
		kind, value, ways = leaseHeader, lease, 1
	}
	for _, name := range proofs {
		if lines := r.Header[name]; len(lines) > 0 {
			kind, value, ways = name, lines[0], ways+len(lines)
		}
	}
	switch {
	case ways == 0:
		return nil, errNoPerson
	case ways > 1:
		return nil, errTwoPeople
	case kind == assertionHeader:
		return g.byAssertion(app, value)
	case kind == leaseHeader:
		return g.byLease(app, value)
	}
	return byName(app, value)
}

// byAssertion takes an assertion of a route of the app whose session has not ended. One that
// rests on an access token has no session, and proves nobody here: nothing would end it.
func (g *Gateway) byAssertion(app *App, token string) (*caller, error) {
	v, err := g.o.Assertions.Verify(token, app.Routes...)
	if err != nil {
		return nil, errPerson
	}
	c := &caller{app: app, end: v.SessionEnd, asserted: session.Asserted{Person: v.Subject, Org: v.Org, SID: v.SID,
		IssuedAt: v.IssuedAt}}
	if v.SID == "" || g.o.Sessions.AssertionEnded(c.asserted) {
		return nil, errPerson
	}
	c.party.Session = &v.Identity
	return c, nil
}

// byLease takes a lease of this app. It tells no groups: what depends on them is refused.
func (g *Gateway) byLease(app *App, sealed string) (*caller, error) {
	l, err := g.o.Sessions.OpenLease(sealed)
	provider, subject, ok := strings.Cut(l.Person, ":")
	if err != nil || l.App != app.ID || !ok {
		return nil, errPerson
	}
	return &caller{app: app, asserted: l.Asserted, lease: sealed, party: grant.Party{Session: &identity.Identity{
		Provider: provider, Subject: subject, GroupsUnknown: true, Org: identity.Org{ID: l.Org}}}}, nil
}

// byName takes the app's word. Whether there is an offline consent the broker says.
func byName(app *App, name string) (*caller, error) {
	if !app.Offline {
		return nil, errNotOffline
	}
	kind, id, ok := strings.Cut(name, ":")
	if !ok || kind == "" || id == "" || len(name) > 512 {
		return nil, errPerson
	}
	if kind == "org" {
		return &caller{app: app, party: grant.Party{Org: id}}, nil
	}
	return &caller{app: app, party: grant.Party{Person: name}}, nil
}

// over reports why an answer that still streams must end; nil: it may go on.
func (g *Gateway) over(c *caller) error {
	switch {
	case c.party.Session == nil:
		return nil
	case c.lease != "":
		if _, err := g.o.Sessions.OpenLease(c.lease); err != nil {
			return errPerson
		}
	case !g.now().Before(c.end), g.o.Sessions.AssertionEnded(c.asserted):
		return errPerson
	}
	return nil
}
