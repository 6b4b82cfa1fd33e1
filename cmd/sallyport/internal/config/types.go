package config

import (
	"maps"
	"slices"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// NewConnector makes a connector of what the file says of it. It does no I/O. An error that is
// a *connector.Fault is of that key.
type NewConnector func(Connector, *oauth.Client) (grant.Connector, error)

// Types are types of connectors that a program has beside those of Sallyport, by name.
type Types map[string]NewConnector

func (t Types) names() []string { return slices.Sorted(maps.Keys(t)) }

// FurtherTypes are those that the program that reads the file has.
func (c *Config) FurtherTypes() Types { return c.types }
