package login

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// document is a JSON object that a provider publishes, while it is being read. Only
// members that are asked for are checked. A member that is null counts as absent. err is
// about the first member that was asked for and has the wrong type.
type document struct {
	members map[string]json.RawMessage
	err     error
}

// readDocument reads a document. used are the members that will be asked for.
func readDocument(data []byte, used ...string) (*document, error) {
	members, err := oauth.Members(data, used...)
	if err != nil {
		return nil, err
	}
	for name, raw := range members {
		if string(raw) == "null" {
			delete(members, name)
		}
	}
	return &document{members: members}, nil
}

func (d *document) has(name string) bool { return d.members[name] != nil }

func (d *document) text(name string) string   { return member[string](d, name, "a text") }
func (d *document) flag(name string) bool     { return member[bool](d, name, "true or false") }
func (d *document) list(name string) []string { return member[[]string](d, name, "a list of texts") }

func (d *document) values(name string) []json.RawMessage {
	return member[[]json.RawMessage](d, name, "a list")
}

func member[T any](d *document, name, want string) (value T) {
	raw, ok := d.members[name]
	if !ok {
		return value
	}
	if json.Unmarshal(raw, &value) != nil {
		if d.err == nil {
			d.err = fmt.Errorf("%s is %s, and must be %s", name, formOf(raw), want)
		}
		var none T
		return none
	}
	return value
}

// errUnreadable marks documents that were received and cannot be used. Asking again does
// not help: the provider or the configuration has to change.
var errUnreadable = errors.New("cannot be read")

func unreadable(what string, why error) error {
	return fmt.Errorf("%s %w: %w", what, errUnreadable, why)
}

// documentError makes a sign-in error from an error of fetching or reading a document.
func documentError(err error) error {
	var call *oauth.Error
	failure := identity.Unavailable
	if errors.As(err, &call) {
		err = call // without the text that a library has put around it
	}
	if errors.Is(err, errUnreadable) || call != nil && call.Kind == oauth.Misconfigured {
		failure = identity.Misconfigured
	}
	return &identity.SignInError{Failure: failure, Err: err}
}
