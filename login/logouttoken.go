package login

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// logoutTokens are the events of OpenID Connect Back-Channel Logout 1.0 §2.4. Providers
// differ in whether they say so in typ.
func logoutTokens() eventKind {
	return eventKind{
		name:   "logout token",
		event:  "http://schemas.openid.net/event/backchannel-logout",
		types:  []string{"logout+jwt", "jwt"},
		oldest: 10 * time.Minute,
	}
}

// LogoutVerifier verifies the logout tokens of one provider. It is safe for concurrent
// use, and keeps none.
type LogoutVerifier struct{ p *Provider }

// LogoutVerifier returns what verifies the logout tokens of p, or says why there can
// be none. It does no I/O.
func (p *Provider) LogoutVerifier() (*LogoutVerifier, error) {
	if p.noLogouts != "" {
		return nil, fmt.Errorf("provider %q %s", p.id, p.noLogouts)
	}
	return &LogoutVerifier{p}, nil
}

// NoLogoutTokens is why logout tokens of the provider are not taken; "" if they are.
// The vendors that have a type of their own send none (docs/providers says what they
// have instead), and name people by other claims than a logout token has.
func (o Options) NoLogoutTokens() string {
	o = o.complete()
	if o.Type != TypeOIDC {
		return "is of type " + o.Type + ", which sends no logout tokens"
	}
	return o.unverifiableEvents()
}

// Verify returns who signed out at the provider. Errors are *identity.SignInError: one
// with Rejected or ClockSkew is about the token, and with any other failure the token
// could not be checked now.
func (v *LogoutVerifier) Verify(ctx context.Context, token string) (identity.ProviderLogout, error) {
	event, err := v.p.verifyEvent(ctx, token, logoutTokens())
	if err != nil {
		return identity.ProviderLogout{}, err
	}
	out, err := v.p.readLogout(event)
	if err != nil {
		return identity.ProviderLogout{}, aboutToken("logout token", err)
	}
	return out, nil
}

// readLogout reads whose sessions end: §2.6 (5) to (7), and (4) of the events.
func (p *Provider) readLogout(event signedEvent) (identity.ProviderLogout, error) {
	out := identity.ProviderLogout{ID: event.id, Issued: event.issued, Until: event.until}
	// Else an ID token that somebody got the provider to put events into would pass.
	if _, present := event.claims["nonce"]; present {
		return out, fail(identity.Rejected, "ID token: has nonce, as ID tokens have")
	}
	person, err := p.loggedOutPerson(event.claims)
	if err != nil {
		return out, err
	}
	out.Person = person
	sid, ok := event.text("sid")
	if _, present := event.claims["sid"]; present && (!ok || sid == "") {
		return out, fail(identity.Rejected, "ID token: sid is not a text, or empty: it is %s", event.form("sid"))
	}
	// One that sign-in does not keep is in no session: then all of the person's end.
	if printable(sid, maxText) {
		out.ProviderSID = sid
	}
	if out.Person == "" && out.ProviderSID == "" {
		return out, fail(identity.Rejected, "ID token: names nobody: sub is missing, and sid is %s", event.form("sid"))
	}
	return out, nil
}

// loggedOutPerson is who sub names, as sign-in reads it; "" if there is none.
func (p *Provider) loggedOutPerson(c claims) (string, error) {
	named := false
	for _, name := range p.dialect.subNames {
		_, present := c[name]
		named = named || present
	}
	if !named {
		return "", nil
	}
	if err := p.checkSubject(c, "ID token"); err != nil {
		return "", err
	}
	subject, _ := p.dialect.person(c)
	return (&identity.Identity{Provider: p.id, Subject: subject}).ID(), nil
}
