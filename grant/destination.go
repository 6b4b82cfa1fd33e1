package grant

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Purpose is what of a credential goes to a Destination.
type Purpose string

const (
	ToAPI     Purpose = "api"     // what requests carry: an access token, or a pasted key
	ToRefresh Purpose = "refresh" // refresh tokens, for the next credential
	ToRevoke  Purpose = "revoke"  // any token, to end it there
)

// Destination is a place to which a connector sends the credential of a grant. Those at which
// a grant was connected are kept with it, and its credential goes nowhere else: whoever changes
// an address in the configuration must not be given what was lent for another one.
type Destination struct {
	Purpose Purpose
	Origin  string // scheme, host, and a port other than the scheme's own
	// Shipped names an address that is not the configuration's but one that this program comes
	// with, and the region where there are several. A release in which it is another one still
	// means the same third party, and nobody has to connect again. "": the configuration says it.
	Shipped string
}

// String is d in a row: "api https://slack.com slack".
func (d Destination) String() string {
	return strings.TrimSuffix(string(d.Purpose)+" "+d.Origin+" "+d.Shipped, " ")
}

// MarshalText implements encoding.TextMarshaler.
func (d Destination) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Destination) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), " ")
	if len(parts) < 2 || len(parts) > 3 {
		return errors.New("it is no destination of a credential")
	}
	*d = Destination{Purpose: Purpose(parts[0]), Origin: parts[1]}
	if len(parts) == 3 {
		d.Shipped = parts[2]
	}
	return nil
}

// covers reports whether what was connected at d may be sent to now.
func (d Destination) covers(now Destination) bool {
	same := d.Origin == now.Origin || d.Shipped != "" && d.Shipped == now.Shipped
	// A token that may be refreshed at a place may be ended there.
	return same && (d.Purpose == now.Purpose || d.Purpose == ToRefresh && now.Purpose == ToRevoke)
}

// MovedError: the credential of a grant would be sent to another place than it was connected
// at. A person has to connect it again, or the operator puts the address back.
type MovedError struct {
	Purpose Purpose
	From    []string // origins
	To      string
}

func (e *MovedError) Error() string {
	what := map[Purpose]string{ToAPI: "address of the API", ToRefresh: "address that refreshes it",
		ToRevoke: "address that ends it"}[e.Purpose]
	if len(e.From) == 0 {
		return fmt.Sprintf("it was connected without an %s, and the configuration now says %s", what, e.To)
	}
	return fmt.Sprintf("it was connected when the %s was %s, and the configuration now says %s", what,
		strings.Join(e.From, " or "), e.To)
}

// Destinations are where a connector sends credentials of an account. Where the credential
// itself says where the API is, that is not among them: see Located.
func Destinations(c Connector, a Account) []Destination {
	about := c.About()
	var list []Destination
	if _, located := c.(Located); !located {
		shipped := about.Shipped
		if shipped != "" && a.Region != "" {
			shipped += "/" + a.Region
		}
		list = append(list, Destination{ToAPI, originOf(c.Origin(a)), shipped})
	}
	if about.Refresh != "" {
		list = append(list, Destination{ToRefresh, originOf(about.Refresh), about.Shipped})
	}
	if about.Revoke != "" {
		list = append(list, Destination{ToRevoke, originOf(about.Revoke), about.Shipped})
	}
	return list
}

// noted are those of list that are kept with a grant: one that another one covers is not.
func noted(list []Destination) []Destination {
	return slices.DeleteFunc(slices.Clone(list), func(d Destination) bool {
		return slices.ContainsFunc(list, func(other Destination) bool { return other != d && other.covers(d) })
	})
}

// originOf is where an address is, without its path, in one spelling. Nearly all are in it
// already, and each loan compares some.
func originOf(address string) string {
	if host, ok := strings.CutPrefix(address, "https://"); ok && host != "" && strings.Trim(host, originLetters) == "" {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address // of no address: it equals itself and nothing else
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host
}

const originLetters = "abcdefghijklmnopqrstuvwxyz0123456789.-"

// isOrigin reports whether an address is nothing but scheme and host.
func isOrigin(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && address == u.Scheme+"://"+u.Host
}

// moved says which of now a credential may not be sent to that was connected at these places;
// nil: to all of them. What only ends a token is judged when one is ended. Of a grant from
// before destinations were kept nothing is known.
func moved(connected, now []Destination, purposes ...Purpose) *MovedError {
	if len(connected) == 0 {
		return nil
	}
	for _, d := range now {
		if !slices.Contains(purposes, d.Purpose) ||
			slices.ContainsFunc(connected, func(at Destination) bool { return at.covers(d) }) {
			continue
		}
		e := &MovedError{Purpose: d.Purpose, To: d.Origin}
		for _, at := range connected {
			if at.Purpose == d.Purpose {
				e.From = append(e.From, at.Origin)
			}
		}
		return e
	}
	return nil
}

// connectedAt are the places at which a grant was connected. What is sealed counts. A program
// from before it was sealed leaves it out when it refreshes a grant; the row still has it then.
func connectedAt(r Record, t Tokens) []Destination {
	if len(t.Destinations) > 0 {
		return t.Destinations
	}
	return r.Destinations
}
