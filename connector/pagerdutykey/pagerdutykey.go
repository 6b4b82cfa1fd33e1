// Package pagerdutykey is the connector of PagerDuty accounts by an API token that somebody
// pastes, for `type: pagerduty_key`: a user's, or one of the whole account.
//
// It owns how such a token is told apart and tried. Whether one is read-only nobody can see
// without a change, so what apps may do with it is said by their access and kept by the
// gateway's rules, whatever the token could do. What it shares with the connector for OAuth is
// in pagerdutyapi. It keeps nothing.
//
// What it relies on is in PagerDuty's documentation:
// https://developer.pagerduty.com/docs/rest-api-v2/authentication and
// https://support.pagerduty.com/main/docs/api-access-keys.
package pagerdutykey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Type is the type of such a connector in the configuration.
const Type = "pagerduty_key"

// The names of the accesses: what a key is lent for, whatever it could do.
const (
	Read      = "read"
	ReadWrite = "read_write"
)

// PlanRefused is the reason where the plan of the account does not have the API (402).
const PlanRefused = "plan_refused"

// accountName is what people read where a key is of no user.
const accountName = "an account's key"

// Options are what a Connector needs, most of it from the configuration.
type Options struct {
	ID     string
	Name   string          // for people; "": PagerDuty
	Owner  grant.OwnerKind // "": each person's own
	Region string          // pagerdutyapi.US or EU; "": US
	// Base is where a pretend PagerDuty is, for tests. "": PagerDuty.
	Base string

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Connector is a grant.Keyed, a grant.Sender and a grant.Finish. It holds no key.
type Connector struct {
	about  grant.About
	origin string
	oauth  *oauth.Client
	now    func() time.Time
}

var (
	_ grant.Keyed  = (*Connector)(nil)
	_ grant.Sender = (*Connector)(nil)
	_ grant.Finish = (*Connector)(nil)
)

// New returns a Connector. It does no I/O. What is wrong with the configuration is a
// *connector.Fault.
func New(o Options) (*Connector, error) {
	if o.ID == "" || o.OAuth == nil {
		return nil, errors.New("pagerdutykey: an id and a client for requests are required")
	}
	if o.Region != "" && o.Region != pagerdutyapi.US && o.Region != pagerdutyapi.EU {
		return nil, connector.FaultAt("region", errors.New("must be us or eu"))
	}
	shipped := Type + "/" + cmp.Or(o.Region, pagerdutyapi.US)
	if o.Base != "" {
		shipped = ""
		base, err := connector.Origin(o.Base)
		if err != nil {
			return nil, fmt.Errorf("pagerdutykey: the base for tests %w", err)
		}
		o.Base = base
	}
	accesses, err := accesses()
	if err != nil {
		return nil, err
	}
	c := &Connector{origin: pagerdutyapi.Origin(o.Base, o.Region), oauth: o.OAuth, now: o.Now}
	if c.now == nil {
		c.now = time.Now
	}
	c.about = grant.About{
		// A key of one region is not sent to the other where the configuration changes.
		ID: o.ID, Type: Type, Name: cmp.Or(o.Name, "PagerDuty"), ClientID: c.origin, Shipped: shipped,
		Owner: cmp.Or(o.Owner, grant.OwnedByUser), Accesses: accesses, Offline: true,
		Inject:  grant.Injection{Header: "Authorization", Prefix: "Token token="},
		Forward: pagerdutyapi.Forward(),
		KeyHint: "a PagerDuty API key, a read-only one unless apps may change something",
		KeyURL:  "https://support.pagerduty.com/main/docs/api-access-keys",
	}
	return c, nil
}

func accesses() ([]grant.Access, error) {
	reads, err := connector.Rules(pagerdutyapi.Reads())
	if err != nil {
		return nil, err
	}
	writes, err := connector.Rules(pagerdutyapi.Writes())
	if err != nil {
		return nil, err
	}
	return []grant.Access{
		{Name: Read, Rules: reads, Means: pagerdutyapi.ReadMeans + ", and change nothing, even if the key could"},
		{Name: ReadWrite, Rules: writes, Means: pagerdutyapi.WriteMeans},
	}, nil
}

// About implements grant.Connector. The caller may keep and change what it gets.
func (c *Connector) About() grant.About {
	about := c.about
	about.Accesses = slices.Clone(about.Accesses)
	about.Forward = slices.Clone(about.Forward)
	return about
}

// Origin implements grant.Connector: it is that of the configured region for all accounts.
func (c *Connector) Origin(grant.Account) string { return c.origin }

// From implements grant.Sender: the user whose key it is. A key of the account is nobody's, and
// PagerDuty then wants to know who makes a change (error 2016).
func (c *Connector) From(a grant.Account) string {
	if a.ID == "" {
		return ""
	}
	return a.Name
}

// FinishURL implements grant.Finish: no API ends a key, so people delete it, or have an
// administrator do that; the page says where.
func (c *Connector) FinishURL(grant.Account) string { return c.about.KeyURL }

// Accept implements grant.Keyed. It asks for the user first, which only a key of a user has,
// and then for what every key may see.
func (c *Connector) Accept(ctx context.Context, pasted string, _ grant.Request) (grant.Result, error) {
	key, err := connector.PastedKey(pasted)
	if err != nil {
		return grant.Result{}, err
	}
	if strings.Contains(key, `"`) || strings.Contains(key, ",") { // it would end the parameter that it is in
		return grant.Result{}, connector.NoKey(errors.New("a key has neither quotes nor commas"))
	}
	authorization := c.about.Inject.Prefix + key
	account := grant.Account{Name: accountName}
	switch user, err := pagerdutyapi.Me(ctx, c.oauth, c.origin, authorization); {
	case errors.Is(err, pagerdutyapi.ErrAccount):
	case errors.Is(err, pagerdutyapi.ErrNoUser):
		return grant.Result{}, &grant.Error{Class: grant.Later, Reason: connector.Garbled, Err: err}
	case err != nil:
		return grant.Result{}, failed(err)
	default:
		account = grant.Account{ID: user.ID, Name: user.Email}
	}
	_, err = pagerdutyapi.Get(ctx, c.oauth, "probe", c.origin+"/abilities", authorization)
	if err != nil && !connector.KeyWorks(err) {
		return grant.Result{}, failed(err)
	}
	return grant.Result{Account: account, Tokens: grant.Tokens{Access: key, AccessIssued: c.now()}}, nil
}

// failed says what a failed request means.
func failed(err error) error {
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Status == http.StatusPaymentRequired {
		return &grant.Error{Class: grant.AdminTheir, Reason: PlanRefused, Err: e}
	}
	return connector.KeyFailed(err)
}
