package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	errNoName     = errors.New("the header with the person's name does not have the form of one")
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
// known by the digest of its token, so that how long a comparison takes tells nothing, or by
// an access token.
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
	if found == nil {
		var err error
		if found, err = g.byAccessToken(r.Context(), c.token); err != nil {
			return nil, "", err
		}
	}
	if onSocket && found.ID != socket {
		return nil, "", errAppUnknown
	}
	return found, c.lease, nil
}

const (
	verifyWithin   = 15 * time.Second // bounds the calls to a provider for one token
	maxAccessToken = 64 << 10         // as login's, before anything is decoded
)

// byAccessToken is the app that an access token proves. What it says of itself decides only
// whose verifier is asked, so that a token costs one check however many apps there are, and
// one that is of no app's subject none. A token that cannot be judged now is an error of
// *grant.LaterError; else errors are of errAppUnknown.
func (g *Gateway) byAccessToken(ctx context.Context, token string) (*App, error) {
	app := g.subjects[claimedSubject(token)]
	if app == nil {
		return nil, errAppUnknown
	}
	ctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	who, _, err := app.AccessTokens.Verify(ctx, token)
	switch kind := identity.FailureOf(err); {
	case err == nil && slices.Contains(app.AccessTokens.Subjects, who.Subject):
		return app, nil
	case err == nil:
		return nil, fmt.Errorf("%w: the verified subject is another one", errAppUnknown)
	case kind == identity.Unavailable, kind == identity.Misconfigured:
		return nil, &grant.LaterError{After: time.Second, Err: err}
	}
	return nil, fmt.Errorf("%w: %w", errAppUnknown, err)
}

// claimedSubject is what a JWT says of its issuer and its subject (RFC 7519 §4.1.1, §4.1.2), of
// which nothing is verified; the zero value if it cannot be read.
func claimedSubject(token string) (claimed subjectOf) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxAccessToken {
		return subjectOf{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claimed) != nil {
		return subjectOf{}
	}
	return claimed
}

// subjectOf is a subject as an issuer knows it.
type subjectOf struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
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
		return nil, errNoName
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
