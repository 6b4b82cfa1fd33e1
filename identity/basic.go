package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Basic are credentials (RFC 7617) for an app that knows no other way to be told who
// somebody is. The app sees a password that all requests share, so who reads one of them
// can be anybody to it.
type Basic struct {
	// One of Claim and Account says which name the app is told: that of the person, or
	// always the same.
	Claim    Claim
	Account  string
	Password string
}

// Check refuses what cannot stand in such credentials.
func (b *Basic) Check() error {
	switch {
	case (b.Claim == "") == (b.Account == ""):
		return errors.New("needs one of a claim and an account")
	case b.Claim == ClaimUser:
		return errors.New(`the claim user has a colon, which cannot stand in the name (RFC 7617 §2); ` +
			`take subject, email or username`)
	case b.Claim == ClaimGroups:
		return errors.New("the claim groups is no name")
	case b.Account != "" && !basicName(b.Account):
		return fmt.Errorf("the account %q has a colon or a control (RFC 7617 §2)", b.Account)
	case strings.ContainsFunc(b.Password, isControl):
		return errors.New("the password has a control (RFC 7617 §2)")
	}
	return nil
}

// value is the header for id; "": their name is unknown, or cannot stand in it.
func (b *Basic) value(id *Identity) string {
	name := b.Account
	if name == "" {
		name = id.claim(b.Claim)
	}
	if !basicName(name) {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+b.Password))
}

// basicName reports whether name can be that of credentials: it has no colon and no
// control (RFC 7617 §2).
func basicName(name string) bool {
	return name != "" && !strings.Contains(name, ":") && !strings.ContainsFunc(name, isControl)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// WithBasic is s that also writes Authorization. Where s is in use nobody else's
// Authorization may reach the app (DropsAuthorization).
func (s HeaderSet) WithBasic(b Basic) (HeaderSet, error) {
	if err := b.Check(); err != nil {
		return s, err
	}
	s.basic = &b
	return s, nil
}

// DropsAuthorization reports whether Authorization is for s to write, so that a client's
// own is to be removed.
func (s HeaderSet) DropsAuthorization() bool { return s.basic != nil }

func (s HeaderSet) renderBasic(id *Identity, r *Rendered) {
	if s.basic == nil {
		return
	}
	if v := s.basic.value(id); v != "" {
		r.headers = append(r.headers, renderedHeader{"Authorization", []string{v}})
	}
}
