package demo

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
)

// The shapes of a provider: the standard one of the demo, and those of vendors
// and partners, as strict as the real ones are.
const (
	Standard = ""
	Google   = "google"
)

// shape is what one kind of provider does otherwise than the standard one. Nil
// and zero mean: as the standard has it.
type shape struct {
	scopes       []string // that it knows
	refusesScope bool     // those it does not know, instead of passing over them
	ignoresNonce bool     // does not know the parameter, so it is neither demanded nor echoed
	ignoresPKCE  bool     // likewise
	accessPrefix string   // of its access tokens
	otherPrefix  string   // of its refresh tokens

	document func(p *Provider) map[string]any                                // of discovery
	claims   func(p *Provider, person Person, scope []string) map[string]any // about a person
	idToken  func(p *Provider, g grant, claims map[string]any)               // bends the ID token's claims
}

func newShape(name string) (shape, error) {
	s := shape{
		scopes:       []string{"openid", "email", "profile", "groups", "org"},
		accessPrefix: "demo-at-", otherPrefix: "demo-rt-", // recognisable, so that tests can look for leaks
		document: (*Provider).document,
		claims:   func(_ *Provider, who Person, scope []string) map[string]any { return who.claims(scope) },
		idToken:  func(*Provider, grant, map[string]any) {},
	}
	switch name {
	case Standard:
	case Google:
		s.google()
	default:
		return s, fmt.Errorf("there is no shape %q", name)
	}
	return s, nil
}

// granted are the scopes that count of those asked for.
func (s shape) granted(asked []string) ([]string, error) {
	var known []string
	for _, scope := range asked {
		switch {
		case slices.Contains(s.scopes, scope):
			known = append(known, scope)
		case s.refusesScope:
			return nil, &clientError{"invalid_scope", "a scope is not known here"}
		}
	}
	return known, nil
}

var errNoDocument = &oauthError{http.StatusNotFound, "not_found", "there is no such document"}

// numericID is a long number as a string, always the same for the same name.
func numericID(of string) string {
	sum := sha256.Sum256([]byte(of))
	return "1" + fmt.Sprintf("%020d", binary.BigEndian.Uint64(sum[:]))
}
