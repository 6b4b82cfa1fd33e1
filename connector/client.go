package connector

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// Client is what a connector needs to know of our client at a third party that it knows, most
// of it from the configuration. No verb prints the secret.
type Client struct {
	ID                     string // of the connector
	Name                   string // for people; "": the third party's own
	ClientID, ClientSecret string
	Owner                  grant.OwnerKind // "": each person's own
	// Base is where a pretend third party is, for tests: all that is asked is below it. "": the
	// real one.
	Base string

	OAuth *oauth.Client
	Now   func() time.Time // nil: time.Now
}

// Format implements fmt.Formatter: no verb prints the secret.
func (Client) Format(s fmt.State, _ rune) { io.WriteString(s, "<options of a connector>") }

// LogValue implements slog.LogValuer.
func (Client) LogValue() slog.Value { return slog.StringValue("<options of a connector>") }

// Complete checks c and fills in what may be left out; Base becomes what Origin makes of it.
// What is wrong with the configuration is a *Fault.
func (c *Client) Complete() (err error) {
	switch {
	case c.ID == "" || c.OAuth == nil:
		return errors.New("an id and a client for requests are required")
	case c.ClientID == "":
		return FaultAt("client_id", errors.New("is required"))
	case c.ClientSecret == "":
		return FaultAt("client_secret", errors.New("is required"))
	}
	if c.Base != "" {
		if c.Base, err = Origin(c.Base); err != nil {
			return fmt.Errorf("the base for tests %w", err)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Owner = cmp.Or(c.Owner, grant.OwnedByUser)
	return nil
}

// About is what connectors with such a client have in common: the type in the configuration, the
// third party's name for people, and the endpoints for browsers and for tokens.
func (c *Client) About(kind, name, authorize, token string) grant.About {
	a := grant.About{
		ID: c.ID, Type: kind, Name: cmp.Or(c.Name, name), ClientID: c.ClientID, Owner: c.Owner, Offline: true,
		Authorize: SchemeAndHost(authorize), Refresh: SchemeAndHost(token),
		Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "}, // RFC 6750 §2.1
	}
	if c.Base == "" {
		a.Shipped = kind
	}
	return a
}

// Request is what all requests to the token endpoint have in common.
func (c *Client) Request(token string, auth oauth.ClientAuth) oauth.TokenRequest {
	return oauth.TokenRequest{URL: token, ClientID: c.ClientID, ClientSecret: c.ClientSecret, Auth: auth, Once: true}
}
