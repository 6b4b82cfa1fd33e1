// Package caldav is the connector of calendar servers that speak CalDAV (RFC 4791) and take an
// app password, for `type: caldav`.
//
// It owns which user names and passwords are accepted, and where the calendars of an account
// are (discover.go): the server that the operator names says so, and it may name another host
// of its own domain, as iCloud does. Apps may read, whatever the password could do; the rules
// for that are the gateway's to keep, which also puts its own paths in the place of the
// server's. It keeps nothing.
package caldav

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "caldav"

// Read is the only access.
const Read = "read"

// MaxAnswer is the longest answer that is passed on, in bytes.
const MaxAnswer = 16 << 20

// The reasons of a grant.Error that only such accounts have.
const (
	PasswordMalformed = "password_malformed"  // it cannot be one: nothing was asked
	PasswordRefused   = "password_refused"    // the server does not accept it
	NoBasic           = "no_basic"            // the server takes no passwords, or not as they are
	NoCalendars       = "no_calendars"        // the server does not say where they are
	Elsewhere         = "calendars_elsewhere" // they are where this connector does not go
)

// Options are what a Connector needs, most of it from the configuration.
type Options struct {
	ID         string
	Name       string // for people; "": ID
	BaseURL    string // the server's origin, perhaps with a path prefix
	Owner      grant.OwnerKind
	AllowHosts []string // that may be in a private network, beside that of BaseURL
	KeyHint    string   // in words, which password; "": an app password
	KeyURL     string   // where it is made; "": nobody said so

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Connector is a grant.Keyed and a grant.Located. It holds no password.
type Connector struct {
	about            grant.About
	base             *url.URL // without a slash at its end
	hosts            connector.Hosts
	trusted, guarded *oauth.Client
	now              func() time.Time
}

var (
	_ grant.Keyed   = (*Connector)(nil)
	_ grant.Located = (*Connector)(nil)
)

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if o.ID == "" || o.OAuth == nil {
		return nil, errors.New("caldav: an id and a client for requests are required")
	}
	origin, err := connector.Origin(o.BaseURL)
	if err != nil {
		return nil, connector.FaultAt("base_url", err)
	}
	base, err := url.Parse(origin)
	if err != nil {
		return nil, connector.FaultAt("base_url", err)
	}
	hosts, err := connector.ParseHosts(o.AllowHosts)
	if err != nil {
		return nil, connector.FaultAt("allow_hosts", err)
	}
	if o.KeyURL != "" {
		if err := connector.Endpoint(o.KeyURL); err != nil {
			return nil, connector.FaultAt("key_url", err)
		}
	}
	// What reads a calendar (RFC 4918 §9.1, RFC 3253 §3.6, RFC 4791 §7). GET covers HEAD.
	rules, err := connector.Rules([]string{"PROPFIND /", "PROPFIND /*", "REPORT /*", "GET /*", "OPTIONS /",
		"OPTIONS /*"})
	if err != nil {
		return nil, fmt.Errorf("caldav: %w", err)
	}
	client := o.OAuth.WithMaxBody(maxFound)
	c := &Connector{base: base, hosts: hosts, trusted: client, guarded: client.Guarded(), now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	c.about = grant.About{ID: o.ID, Type: Type, Name: cmp.Or(o.Name, o.ID),
		ClientID: base.Scheme + "://" + strings.ToLower(base.Host),
		Owner:    cmp.Or(o.Owner, grant.OwnedByUser), Offline: true,
		Accesses: []grant.Access{{Name: Read, Means: "read all calendars of the account", Rules: rules}},
		Inject:   grant.Injection{Header: "Authorization", Prefix: "Basic ", Basic: true},
		Forward:  []string{"Depth"}, Hrefs: true,
		KeyHint: cmp.Or(o.KeyHint, "an app password, made for this alone"), KeyURL: o.KeyURL,
		UserHint: "the user name or the e-mail address of the account"}
	return c, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Forward = slices.Clone(about.Forward)
	return about
}

// Origin implements grant.Connector. Where calendars are was found when they were connected
// (Locate).
func (c *Connector) Origin(grant.Account) string { return c.base.String() }

// What a Tokens.Extra of this package has.
const (
	extraOrigin = "origin"
	extraBelow  = "below" // paths, one a line
)

// Locate implements grant.Located.
func (c *Connector) Locate(t grant.Tokens) (grant.Place, error) {
	origin, err := url.Parse(t.Extra[extraOrigin])
	below := strings.FieldsFunc(t.Extra[extraBelow], func(r rune) bool { return r == '\n' })
	if err != nil || origin.Host == "" || len(below) == 0 {
		return grant.Place{}, errors.New("nobody found where its calendars are")
	}
	if err := c.near(origin); err != nil {
		return grant.Place{}, err
	}
	return grant.Place{Origin: origin.String(), Below: t.Extra[extraBelow], Guarded: !c.trusts(origin),
		MaxAnswer: MaxAnswer}, nil
}

// Accept implements grant.Keyed. The key is a user name, a colon and a password (RFC 7617
// §2). White space around each comes from copying it, and is removed.
func (c *Connector) Accept(ctx context.Context, key string, _ grant.Request) (grant.Result, error) {
	user, password, _ := strings.Cut(key, ":")
	user, password = strings.TrimSpace(user), strings.TrimSpace(password)
	if err := wellFormed(user, password); err != nil {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: PasswordMalformed, Err: err,
			Sentence: "That cannot be connected: " + err.Error() + "."}
	}
	credential := user + ":" + password
	found, err := (&search{c, ctx, "Basic " + base64.StdEncoding.EncodeToString([]byte(credential))}).calendars()
	if err != nil {
		return grant.Result{}, err
	}
	return grant.Result{
		Tokens: grant.Tokens{Access: credential, AccessIssued: c.now(), Extra: map[string]string{
			extraOrigin: found.origin, extraBelow: strings.Join(found.below, "\n")}},
		Account: grant.Account{ID: found.principal, Name: user}}, nil
}

const (
	minPassword = 8
	maxPassword = 1024
)

// wellFormed: visible ASCII, so that nothing is read in two ways, and no blanks in a password,
// which would be two of them. What is wrong is said without either.
func wellFormed(user, password string) error {
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	switch {
	case user == "":
		return errors.New("a user name is needed, without a colon")
	case len(user) > 254 || strings.ContainsFunc(user, func(r rune) bool { return r != ' ' && !visible(r) }):
		return errors.New("a user name has at most 254 characters, of visible ASCII")
	case len(password) < minPassword || len(password) > maxPassword:
		return fmt.Errorf("a password has %d to %d characters", minPassword, maxPassword)
	case strings.ContainsFunc(password, func(r rune) bool { return !visible(r) }):
		return errors.New("a password has visible ASCII characters only, and no blanks")
	}
	return nil
}
