package login

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/recent"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// BearerOptions say which access tokens of a provider a route takes.
type BearerOptions struct {
	Audiences []string   // a token must be for one of them
	ClientIDs []string   // of every sign-in: what is for one of them is an ID token
	Claims    ClaimNames // where access tokens name things otherwise than ID tokens do
	Quirks    []string   // of BearerQuirks
}

const quirkAnyTyp = "any_typ"

// BearerQuirks are the deviations from RFC 9068 that a route may be allowed.
func BearerQuirks() []Quirk {
	return []Quirk{{quirkAnyTyp, "Access tokens need not say that they are (typ: at+jwt): other tokens of the provider with the same audience count too."}}
}

// BearerConflicts judges what a route asks of the provider that o describes, as
// Conflicts does. Client ids that are not known yet are empty.
func (o Options) BearerConflicts(b BearerOptions) []Conflict {
	var found []Conflict
	if why := o.unverifiable(); why != "" {
		found = append(found, Conflict{"provider", why})
	}
	for _, a := range b.Audiences {
		if slices.Contains(o.TrustedAudiences, a) {
			found = append(found, Conflict{"audiences", "has " + a + ", which trusted_audiences of provider " + o.ID + " has, too: an ID token could pass for an access token"})
		}
	}
	return append(found, b.conflicts()...)
}

func (b BearerOptions) conflicts() []Conflict {
	var found []Conflict
	for _, a := range b.Audiences {
		if a != "" && slices.Contains(b.ClientIDs, a) {
			found = append(found, Conflict{"audiences",
				"has " + a + ", the client id of a sign-in: an ID token would pass for an access token; register an API of its own at the provider"})
		}
	}
	return found
}

// unverifiable is why access tokens of the provider cannot be verified here.
// Nobody is asked about a token in this release (RFC 7662).
func (o Options) unverifiable() string {
	o = o.complete()
	switch {
	case o.Type != TypeOIDC && o.Type != TypeMicrosoft:
		return "is of type " + o.Type + ", whose access tokens only the provider itself can read"
	case o.has(quirkHS256), o.has(quirkIgnoreIDToken): // RFC 9068 §2.1: asymmetric; whoever shares a secret could make them
		return "has no public keys to verify access tokens with"
	case o.has(quirkUncheckedIssuer): // RFC 9068 §4
		return "is allowed unchecked_issuer, and an access token must say who issued it"
	}
	return ""
}

// TokenVerifier verifies the access tokens of one provider as one route takes them: JWTs
// of RFC 9068. The tokens are their callers': it keeps none, and of those that
// were good a hash. It is safe for concurrent use.
type TokenVerifier struct {
	p         *Provider // but for the names of claims
	audiences []string
	clientIDs []string
	anyTyp    bool
	opened    *recent.Cache[[sha256.Size]byte, opened]
}

// Issuer is under which address the provider describes itself (OIDC Discovery §4.1).
func (b *TokenVerifier) Issuer() string { return b.p.dialect.discoverAt }

// opened is what a good token says.
type opened struct {
	who      identity.Identity
	exp      time.Time
	verified time.Time
}

const (
	// openedFresh is how long a signature is believed before it is looked at
	// again, so that tokens do not outlive the key that was withdrawn for them.
	openedFresh = time.Minute
	openedBytes = 8 << 20
)

// TokenVerifier returns what verifies the access tokens of p. It does no I/O.
func (p *Provider) TokenVerifier(o BearerOptions) (*TokenVerifier, error) {
	if p.unverifiable != "" {
		return nil, fmt.Errorf("provider %q %s", p.id, p.unverifiable)
	}
	if len(o.Audiences) == 0 || slices.Contains(o.Audiences, "") {
		return nil, errors.New("bearer: no audience, or an empty one")
	}
	o.ClientIDs = append([]string{p.clientID}, o.ClientIDs...)
	for _, c := range o.conflicts() {
		return nil, fmt.Errorf("bearer: %s %s", c.Key, c.Why)
	}
	b := &TokenVerifier{p: p.withClaimNames(o.Claims), audiences: o.Audiences, clientIDs: o.ClientIDs,
		opened: recent.New[[sha256.Size]byte, opened](openedBytes)}
	for _, name := range o.Quirks {
		i := slices.IndexFunc(BearerQuirks(), func(q Quirk) bool { return q.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("bearer: unknown quirk %q", name)
		}
		b.anyTyp = b.anyTyp || name == quirkAnyTyp
		p.log.Warn("a quirk is allowed", "quirk", name, "weakens", BearerQuirks()[i].Weakens, "audiences", o.Audiences)
	}
	return b, nil
}

// withClaimNames is p with other names for claims, where n has them. What p knows of
// endpoints and keys stays one.
func (p *Provider) withClaimNames(n ClaimNames) *Provider {
	other := *p
	c := &other.claims
	c.OrgID, c.OrgName, c.OrgDomain, c.Orgs = or(n.OrgID, c.OrgID), or(n.OrgName, c.OrgName), or(n.OrgDomain, c.OrgDomain), or(n.Orgs, c.Orgs)
	c.Groups, c.Username, c.Name, c.Email = or(n.Groups, c.Groups), or(n.Username, c.Username), or(n.Name, c.Name), or(n.Email, c.Email)
	if n.OrgID != "" || n.Orgs != "" {
		other.dialect.orgs = nil // those of claims
	}
	other.mapped, other.notices = n.all(), &notices{seen: map[string]bool{}} // what is told of ID tokens says nothing about access tokens
	return &other
}

// Verify returns whom an access token is about, and when it ends. The slices of
// the identity are shared by all who show the token. Errors are of type
// *identity.SignInError and hold no part of the token; the identity is then the
// zero one.
func (b *TokenVerifier) Verify(ctx context.Context, token string) (identity.Identity, time.Time, error) {
	key := sha256.Sum256([]byte(token))
	t, known := b.opened.Get(key)
	if !known || elapsed(b.p.now(), t.verified, openedFresh) {
		var err error
		if t, err = b.open(ctx, token); err != nil {
			return identity.Identity{}, time.Time{}, aboutAccessToken(err)
		}
		b.opened.Put(key, t, len(token)+1024+48*len(t.who.Groups)+256*len(t.who.Orgs))
	}
	// No leeway: what a token opens, streams and the assertion, ends with it.
	if !b.p.now().Before(t.exp) {
		return identity.Identity{}, time.Time{}, fail(identity.ClockSkew, "access token: expired")
	}
	return t.who, t.exp, nil
}

// open checks a token as RFC 9068 §4 has it, with the checks of sign-in.
func (b *TokenVerifier) open(ctx context.Context, token string) (opened, error) {
	m, err := b.p.metadata(ctx)
	if err != nil {
		return opened{}, err
	}
	content, err := m.keys.verify(ctx, token, m.keys.others)
	if err != nil {
		return opened{}, err
	}
	members, err := oauth.Object(content.payload)
	if err != nil {
		return opened{}, fail(identity.Rejected, "access token: claims: %w", err)
	}
	t := idToken{members, content.alg, content.keyIssuer}
	for _, check := range []func() error{
		func() error { return b.checkKind(content.typ, t.claims) },
		func() error { return b.checkParties(t.claims) },
		func() error { return b.p.checkValidity(t.claims) },
		func() error { return b.p.checkFurther(t, m) },
	} {
		if err := check(); err != nil {
			return opened{}, err
		}
	}
	t.claims = b.p.follow(t.claims)
	sources := []claims{t.claims}
	if b.p.dialect.tokenOnlyClaims != nil {
		sources = append(sources, b.p.dialect.tokenOnlyClaims(t.claims))
	}
	if err := b.p.checkOrgs(ctx, sources); err != nil {
		return opened{}, err
	}
	exp, _ := t.time("exp")
	return opened{who: b.p.identity(ctx, t.claims, sources), exp: exp, verified: b.p.now()}, nil
}

// checkKind keeps tokens of another kind out, above all ID tokens: they are from
// the same issuer, by the same keys, about the same person, and every client of
// the provider gets some (RFC 8725 §2.8, RFC 9068 §5,
// GHSA-wcvh-g65p-v576).
func (b *TokenVerifier) checkKind(typ string, c claims) error {
	typ = identity.LowerASCII(typ) // RFC 7515 §4.1.9: a media type
	if !b.anyTyp && typ != "at+jwt" && typ != "application/at+jwt" {
		return fail(identity.Rejected, "access token: typ is not at+jwt (RFC 9068 §4)")
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash"} { // OIDC Core §2 and §3.3.2.11
		if c.has(name) {
			return fail(identity.Rejected, "access token: has %s, as ID tokens have", name)
		}
	}
	if c.has("events") { // RFC 8417 §2.2
		return fail(identity.Rejected, "access token: has events, as logout tokens have")
	}
	if c.has("cnf") {
		return b.p.refuseBound(c)
	}
	return nil
}

// refuseBound: a token with cnf is worth nothing without the key or certificate
// that it names (RFC 7800 §3.1). Whoever stole it has neither, and would pass if
// it counted as a plain bearer token (RFC 9449 §7.2, RFC 8705 §3).
func (p *Provider) refuseBound(c claims) error {
	how := "in a way that is not known here"
	members, _ := oauth.Object(c["cnf"])
	if _, ok := members["jkt"]; ok {
		how = "to a key (cnf.jkt, DPoP)"
	}
	if _, ok := members["x5t#S256"]; ok {
		how = "to a client certificate (cnf.x5t#S256)"
	}
	return fail(identity.Rejected, "access token: bound %s, and that proof is not checked here: have the provider issue plain bearer tokens for this audience", how)
}

// checkParties: whose token it is, for whom, and about whom.
func (b *TokenVerifier) checkParties(c claims) error {
	if iss, _ := c.text("iss"); !b.p.dialect.issuedBy(iss) {
		return fail(identity.Rejected, "access token: iss is not the configured issuer %s, it is %s", quoted(b.p.issuer), c.quoted("iss"))
	}
	audience, ok := c.audience()
	if !ok || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(b.audiences, a) }) {
		return fail(identity.Rejected, "access token: made for another audience: aud is %s, and `bearer.audiences` has %s", c.quoted("aud"), quoted(b.audiences...))
	}
	if slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(b.clientIDs, a) }) {
		return fail(identity.Rejected, "access token: made for the client of a sign-in (aud), as ID tokens are")
	}
	return b.p.checkSubject(c, "access token")
}

// aboutAccessToken gives an error of a check that sign-in has too the right name.
func aboutAccessToken(err error) error {
	var e *identity.SignInError
	if !errors.As(err, &e) {
		return fail(identity.Rejected, "access token: could not be checked")
	}
	if words, of := strings.CutPrefix(e.Err.Error(), "ID token: "); of {
		return &identity.SignInError{Failure: e.Failure, Err: errors.New("access token: " + words)}
	}
	return e
}
