package connector

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Fault is what is wrong with one key of a connector's configuration. Its text can be
// shown: it quotes no secret.
type Fault struct {
	Key string // as the configuration spells it, "endpoints.token"
	Err error
}

func (f *Fault) Error() string { return f.Key + " " + f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// FaultAt is err as a Fault of a key; nil where err is nil.
func FaultAt(key string, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{key, err}
}

// Endpoint checks the address of an endpoint: absolute, https, or http on this machine.
// It may have a query (RFC 6749 §3.1).
func Endpoint(address string) error {
	u, err := absolute(address)
	if err == nil && u.Fragment != "" {
		err = errors.New("must not have a fragment")
	}
	return err
}

// Origin reads where an API is: an origin and perhaps a path prefix, which is returned
// without a slash at its end.
func Origin(address string) (string, error) {
	u, err := absolute(address)
	switch {
	case err != nil:
		return "", err
	case strings.ContainsAny(address, "?#"):
		return "", errors.New("must have neither a query nor a fragment")
	case strings.ContainsAny(u.EscapedPath(), `%\`):
		return "", errors.New("must not have escapes in its path")
	}
	prefix := strings.TrimSuffix(u.Path, "/")
	for segment := range strings.SplitSeq(strings.TrimPrefix(prefix, "/"), "/") {
		if prefix != "" && (segment == "" || segment == "." || segment == "..") {
			return "", errors.New("must not have empty segments or dots in its path")
		}
	}
	return u.Scheme + "://" + u.Host + prefix, nil
}

// SchemeAndHost is what About.Refresh and About.Revoke have of the address of an endpoint, which
// has been checked or is one of ours; "" of "".
func SchemeAndHost(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func absolute(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, errors.New("must be an absolute URL, as in https://api.example.com")
	case u.User != nil:
		return nil, errors.New("must not have a user name or a password")
	case u.Scheme == "https", u.Scheme == "http" && hostname.IsLoopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("must begin with https:// (http:// is for this machine only)")
}

// Accesses checks what a configuration says about accesses: each has a name of its own and
// at least one rule, because an access without rules would let nothing through.
func Accesses(list []grant.Access) error {
	if len(list) == 0 {
		return &Fault{"rules", errors.New("is required: what an app may be let through to")}
	}
	var names []string
	for _, a := range list {
		switch {
		case a.Name == "" || strings.Trim(a.Name, nameLetters) != "":
			return &Fault{"access", errors.New("must be names of small letters, digits, - and _")}
		case slices.Contains(names, a.Name):
			return &Fault{"access", fmt.Errorf("has %s twice", a.Name)}
		case len(a.Rules) == 0:
			return &Fault{"rules." + a.Name, errors.New("is required: an access without rules is of no use")}
		}
		for _, scope := range a.Scopes {
			if scope == "" || strings.ContainsFunc(scope, notInScope) {
				return &Fault{"scopes." + a.Name, errors.New("must be one scope each, of visible ASCII without " +
					`quotes and backslashes (RFC 6749 §3.3)`)}
			}
		}
		names = append(names, a.Name)
	}
	return nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

func notInScope(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }

// Rules reads those that a connector is written with.
func Rules(texts []string) (list []grant.Rule, err error) {
	for _, text := range texts {
		rule, err := grant.ParseRule(text)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", text, err)
		}
		list = append(list, rule)
	}
	return list, nil
}

// Means is in words for people, to follow "may", what an access of this name lets an app
// do, where the configuration says nothing but its rules. What the rules let through is
// known; what the third party makes of it is not.
func Means(service, access string, rules []grant.Rule) string {
	change := slices.ContainsFunc(rules, func(r grant.Rule) bool { return r.Method != "GET" && r.Method != "HEAD" })
	if change {
		return fmt.Sprintf("read and change data at %s (%s)", service, access)
	}
	return fmt.Sprintf("read data at %s (%s)", service, access)
}

// Header checks the name of a request header.
func Header(name string) error {
	if name == "" || strings.Trim(strings.ToLower(name), headerLetters) != "" {
		return errors.New("must be the name of a header, as in X-Api-Version")
	}
	return nil
}

const headerLetters = "abcdefghijklmnopqrstuvwxyz0123456789-_!#$%&'*+.^`|~" // RFC 9110 §5.6.2

// Forwardable checks further request headers that apps may send. Those that say who asks,
// that belong to one connection, or that change what is asked for, are the gateway's.
func Forwardable(names []string) error {
	for _, name := range names {
		if err := Header(name); err != nil {
			return err
		}
		lower := strings.ToLower(name)
		reserved := slices.Contains(reservedHeaders[:], lower) ||
			strings.HasPrefix(lower, "x-forwarded-") || strings.HasPrefix(lower, "x-sallyport-") ||
			strings.HasPrefix(lower, "proxy-") || strings.HasPrefix(lower, "sec-") ||
			strings.Contains(lower, "method-override") || strings.Contains(lower, "http-method")
		if reserved {
			return fmt.Errorf("must not have %s: it is not for apps to send", name)
		}
	}
	return nil
}

var reservedHeaders = [...]string{
	"authorization", "cookie", "host", "origin", "referer", "forwarded", "via", "x-real-ip",
	"x-original-url", "x-rewrite-url", "x-original-method",
	"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "expect",
}
