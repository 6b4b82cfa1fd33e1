// Package apikey is the connector of third parties whose API takes a key that a person
// pastes, for `type: api_key`, and for those of which Known has the description.
//
// It owns which keys are accepted at all, and what the answer to a first request with one
// means. Which requests apps may make with it are rules, which the gateway keeps; how a
// request is sent is oauth's, and what becomes of a key grant's. It keeps nothing. A key
// may often do more than its rules say; only the gateway stands in between.
package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "api_key"

// Options are what a Connector needs, most of it from the configuration.
type Options struct {
	ID      string
	Type    string // in the configuration; "": Type
	Name    string // for people; "": ID
	BaseURL string // the API's origin, perhaps with a path prefix
	Shipped string // grant.About.Shipped; "": the configuration says BaseURL
	Header  string // that carries the key; "": Authorization
	Format  string // of its value: text that ends in %s, for the key; "": "Bearer %s"
	// Basic: the key is a user name, a colon and a password, and is sent as HTTP Basic has it
	// (RFC 7617), in Authorization. Header and Format are "" then.
	Basic bool
	// Headers are further ones that every request has, the probe too: no secrets.
	Headers map[string]string
	Probe   string // the request that shows whether a key works: "GET /me", below BaseURL
	Owner   grant.OwnerKind
	// Accesses are what is offered, the narrowest first. Keys have no scopes. One without
	// Means gets words that follow from its rules.
	Accesses []grant.Access
	Forward  []string // further request headers that apps may send
	// PageLinks are the members of answers with the address of another page; see grant.About.
	PageLinks []string
	// KeyHint says in words what has to be pasted; "": "an API key". KeyURL is where it is
	// found; "": nobody said so.
	KeyHint, KeyURL string

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Connector is a grant.Keyed. It holds no key.
type Connector struct {
	about  grant.About
	origin string
	method string
	probe  string
	oauth  *oauth.Client
	now    func() time.Time
}

var _ grant.Keyed = (*Connector)(nil)

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if o.ID == "" || o.OAuth == nil {
		return nil, errors.New("apikey: an id and a client for requests are required")
	}
	origin, err := connector.Origin(o.BaseURL)
	if err != nil {
		return nil, connector.FaultAt("base_url", err)
	}
	inject, err := o.injection()
	if err != nil {
		return nil, err
	}
	method, probe, err := probeOf(origin, o.Probe)
	if err != nil {
		return nil, connector.FaultAt("probe", err)
	}
	if err := connector.Forwardable(o.Forward); err != nil {
		return nil, connector.FaultAt("forward_headers", err)
	}
	for _, name := range o.Forward {
		switch name = http.CanonicalHeaderKey(name); {
		case name == inject.Header:
			return nil, connector.FaultAt("forward_headers", errors.New("must not have the header of the key"))
		case inject.With[name] != "":
			return nil, connector.FaultAt("forward_headers", fmt.Errorf("must not have %s: it is in headers, and has "+
				"one value", name))
		}
	}
	if err := connector.Accesses(o.Accesses); err != nil {
		return nil, err
	}
	if o.KeyURL != "" {
		if err := connector.Endpoint(o.KeyURL); err != nil {
			return nil, connector.FaultAt("key_url", err)
		}
	}
	name := cmp.Or(o.Name, o.ID)
	accesses := slices.Clone(o.Accesses)
	for i, a := range accesses {
		if len(a.Scopes) > 0 {
			return nil, connector.FaultAt("scopes", errors.New("do not exist for a key"))
		}
		accesses[i].Means = cmp.Or(a.Means, connector.Means(name, a.Name, a.Rules))
	}
	c := &Connector{origin: origin, method: method, probe: probe, oauth: o.OAuth, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	c.about = grant.About{
		ID: o.ID, Type: cmp.Or(o.Type, Type), Name: name, ClientID: thirdParty(origin), Accesses: accesses,
		Shipped: o.Shipped,
		Owner:   cmp.Or(o.Owner, grant.OwnedByUser),
		Offline: true, Inject: inject, Forward: slices.Clone(o.Forward), PageLinks: slices.Clone(o.PageLinks),
		KeyHint: cmp.Or(o.KeyHint, "an API key"), KeyURL: o.KeyURL,
	}
	return c, nil
}

// thirdParty is whose keys those are of an origin: without the path, which may have a version.
func thirdParty(origin string) string {
	scheme, rest, _ := strings.Cut(origin, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + strings.ToLower(host)
}

// placeholder stands for the key in a format. The format is cut there, and never given to
// package fmt.
const placeholder = "%s"

// injection is how the key, and what else every request has, gets into requests.
func (o Options) injection() (inject grant.Injection, err error) {
	switch {
	case !o.Basic:
		inject, err = keyHeader(cmp.Or(o.Header, "Authorization"), cmp.Or(o.Format, "Bearer "+placeholder))
	case o.Header != "" || o.Format != "":
		err = connector.FaultAt("inject.basic", errors.New("is the Authorization header, in a form of its own: "+
			"leave header and format out"))
	default:
		inject = grant.Injection{Header: "Authorization", Prefix: "Basic ", Basic: true}
	}
	if err != nil || len(o.Headers) == 0 {
		return inject, err
	}
	inject.With = map[string]string{}
	for name, value := range o.Headers {
		err := connector.Forwardable([]string{name})
		if http.CanonicalHeaderKey(name) == inject.Header {
			err = errors.New("is the header of the key")
		}
		if inject.With[http.CanonicalHeaderKey(name)] != "" {
			err = errors.New("is there twice")
		}
		if value == "" || strings.Trim(value, " ") != value || strings.ContainsFunc(value, invisible) {
			err = errors.New("must be visible ASCII")
		}
		if err != nil {
			return inject, connector.FaultAt("headers."+name, err)
		}
		inject.With[http.CanonicalHeaderKey(name)] = value
	}
	return inject, nil
}

func invisible(r rune) bool { return r < ' ' || r > '~' }

// keyHeader reads header and format. The key comes last, because nothing that follows it
// could be told apart from a part of it.
func keyHeader(header, format string) (grant.Injection, error) {
	if err := connector.Header(header); err != nil {
		return grant.Injection{}, connector.FaultAt("inject.header", err)
	}
	lower := strings.ToLower(header)
	if lower != "authorization" && connector.Forwardable([]string{lower}) != nil {
		return grant.Injection{}, connector.FaultAt("inject.header", errors.New("must be Authorization or a header of "+
			"the third party's own"))
	}
	prefix, ok := strings.CutSuffix(format, placeholder)
	switch {
	case !ok || strings.Contains(prefix, "%"):
		return grant.Injection{}, connector.FaultAt("inject.format", errors.New("must end in %s, which stands "+
			"for the key, and have no other % in it, as in Bearer %s"))
	case strings.ContainsFunc(prefix, invisible), strings.HasPrefix(prefix, " "):
		return grant.Injection{}, connector.FaultAt("inject.format", errors.New("must be visible ASCII"))
	}
	return grant.Injection{Header: http.CanonicalHeaderKey(header), Prefix: prefix}, nil
}

// probeOf reads "GET /me". The request is made by us and not by an app, so that no rule
// needs to let it through.
func probeOf(origin, text string) (method, address string, err error) {
	method, path, ok := strings.Cut(text, " ")
	if !ok || method != http.MethodGet && method != http.MethodHead || !strings.HasPrefix(path, "/") {
		return "", "", errors.New("must be GET or HEAD, a blank and a path, as in GET /me")
	}
	u, err := url.Parse(origin + path)
	if err != nil || strings.ContainsAny(path, "# \\") || strings.HasPrefix(path, "//") {
		return "", "", errors.New("must have a path that can be sent as it is, without a fragment")
	}
	return method, u.String(), nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Forward, about.PageLinks = slices.Clone(about.Forward), slices.Clone(about.PageLinks)
	return about
}

// Origin implements grant.Connector: it is the same for all accounts.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// Accept implements grant.Keyed. White space around a key comes from copying it, and is
// removed.
func (c *Connector) Accept(ctx context.Context, key string, _ grant.Request) (grant.Result, error) {
	key, err := connector.PastedKey(key)
	if err == nil && c.about.Inject.Basic {
		err = userAndPassword(key)
	}
	if err != nil {
		return grant.Result{}, err
	}
	req, err := http.NewRequestWithContext(ctx, c.method, c.probe, nil)
	if err != nil {
		return grant.Result{}, &grant.Error{Class: grant.Ours, Reason: connector.RequestRefused,
			Err: errors.New("the probe cannot be made")}
	}
	req.Header.Set("Accept", "application/json")
	for name, value := range c.about.Inject.With {
		req.Header.Set(name, value)
	}
	req.Header.Set(c.about.Inject.Header, c.about.Inject.Value(key))
	if _, err := c.oauth.Document(req, "probe"); err != nil && !connector.KeyWorks(err) {
		return grant.Result{}, connector.KeyFailed(err)
	}
	return grant.Result{Tokens: grant.Tokens{Access: key, AccessIssued: c.now()}}, nil
}

// userAndPassword: the first colon is where the password begins (RFC 7617 §2). It is what is
// secret, so it alone has the length of a key.
func userAndPassword(key string) error {
	user, password, ok := strings.Cut(key, ":")
	if !ok || user == "" || len(password) < connector.MinKey {
		return connector.NoKey(fmt.Errorf("it must be a user name, a colon and a password or token of at least %d "+
			"characters, as in ann@example.com:token", connector.MinKey))
	}
	return nil
}
