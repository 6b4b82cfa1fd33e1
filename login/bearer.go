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
	ClientIDs []string   // the client ids of all sign-ins: a token for one of them is an ID token
	Claims    ClaimNames // names of claims, where access tokens have other names than ID tokens
	Quirks    []string   // names of BearerQuirks
}

const quirkAnyTyp = "any_typ"

// BearerQuirks are the deviations from RFC 9068 that a route may be allowed.
func BearerQuirks() []Quirk {
	return []Quirk{{quirkAnyTyp, "Access tokens need not say that they are (typ: at+jwt): " +
		"other tokens of the provider with the same audience count too."}}
}

// BearerConflicts finds settings of a route that do not go with the provider that o
// describes, as Conflicts does. Client ids that are not known yet are empty.
func (o Options) BearerConflicts(b BearerOptions) []Conflict {
	var found []Conflict
	if why := o.unverifiable(); why != "" {
		found = append(found, Conflict{"provider", why})
	}
	for _, a := range b.Audiences {
		if slices.Contains(o.TrustedAudiences, a) {
			found = append(found, Conflict{"audiences", "has " + a + ", which trusted_audiences of provider " + o.ID +
				" has, too: an ID token could pass for an access token"})
		}
	}
	return append(found, b.conflicts()...)
}

func (b BearerOptions) conflicts() []Conflict {
	var found []Conflict
	for _, a := range b.Audiences {
		if a != "" && slices.Contains(b.ClientIDs, a) {
			found = append(found, Conflict{"audiences",
				"has " + a + ", the client id of a sign-in: an ID token would pass for an access token; " +
					"register an API of its own at the provider"})
		}
	}
	return found
}

// unverifiable says why access tokens of the provider cannot be verified here; "" if they
// can be. In this release the provider is never asked about a token (RFC 7662).
func (o Options) unverifiable() string {
	o = o.complete()
	switch {
	case o.Type != TypeOIDC && o.Type != TypeMicrosoft:
		return "is of type " + o.Type + ", whose access tokens only the provider itself can read"
	case o.has(quirkHS256), o.has(quirkIgnoreIDToken): // RFC 9068 §2.1: signed with an asymmetric key
		return "has no public keys to verify access tokens with"
	case o.has(quirkUncheckedIssuer): // RFC 9068 §4
		return "is allowed unchecked_issuer, and an access token must say who issued it"
	}
	return ""
}

// TokenVerifier verifies the access tokens of one provider for one route. They are JWTs
// as RFC 9068 has them. It keeps no token, only a hash of each good one, with what the
// token says. It is safe for concurrent use.
type TokenVerifier struct {
	p         *Provider // with the names of claims that access tokens have
	audiences []string
	clientIDs []string
	anyTyp    bool
	cache     *recent.Cache[[sha256.Size]byte, verifiedToken]
}

// Issuer returns the address below which the provider publishes its discovery document
// (OIDC Discovery §4.1).
func (b *TokenVerifier) Issuer() string { return b.p.dialect.discoverAt }

// Forget drops what b remembers of the tokens that it verified. It verifies them as before.
func (b *TokenVerifier) Forget() { b.cache.Clear() }

// verifiedToken is what a good token says.
type verifiedToken struct {
	who      identity.Identity
	exp      time.Time
	verified time.Time
}

const (
	// reverifyAfter is how long a verified token is cached. Then its signature is
	// verified again, so that a token is refused once its key has been withdrawn.
	reverifyAfter = time.Minute
	cacheBytes    = 8 << 20
)

// TokenVerifier returns a verifier of the access tokens of p. It does no I/O.
func (p *Provider) TokenVerifier(o BearerOptions) (*TokenVerifier, error) {
	if p.unverifiable != "" {
		return nil, fmt.Errorf("provider %q %s", p.id, p.unverifiable)
	}
	if len(o.Audiences) == 0 || slices.Contains(o.Audiences, "") {
		return nil, errors.New("bearer: no audience, or an empty one")
	}
	if p.clientID != "" {
		o.ClientIDs = append([]string{p.clientID}, o.ClientIDs...)
	}
	for _, c := range o.conflicts() {
		return nil, fmt.Errorf("bearer: %s %s", c.Key, c.Why)
	}
	b := &TokenVerifier{p: p.withClaimNames(o.Claims), audiences: o.Audiences, clientIDs: o.ClientIDs,
		cache: recent.New[[sha256.Size]byte, verifiedToken](cacheBytes)}
	for _, name := range o.Quirks {
		i := slices.IndexFunc(BearerQuirks(), func(q Quirk) bool { return q.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("bearer: unknown quirk %q", name)
		}
		b.anyTyp = b.anyTyp || name == quirkAnyTyp
		// A reload makes the verifier anew and keeps the Provider.
		p.notices.once(fmt.Sprint("quirk ", name, o.Audiences), func() {
			p.log.Warn("a quirk is allowed",
				"quirk", name, "weakens", BearerQuirks()[i].Weakens, "audiences", o.Audiences)
		})
	}
	return b, nil
}

// withClaimNames returns a copy of p that uses the names of claims in n, where n has
// them. Both share what is known of the provider's endpoints and keys.
func (p *Provider) withClaimNames(n ClaimNames) *Provider {
	other := *p
	c := &other.claims
	c.OrgID, c.OrgName = or(n.OrgID, c.OrgID), or(n.OrgName, c.OrgName)
	c.OrgDomain, c.Orgs = or(n.OrgDomain, c.OrgDomain), or(n.Orgs, c.Orgs)
	c.Groups, c.Username = or(n.Groups, c.Groups), or(n.Username, c.Username)
	c.Name, c.Email = or(n.Name, c.Name), or(n.Email, c.Email)
	if n.OrgID != "" || n.Orgs != "" {
		other.dialect.orgs = nil // they are in the claims that n names
	}
	// Notices are logged once for ID tokens, and once more for access tokens.
	other.mapped, other.notices = n.all(), &notices{seen: map[string]bool{}}
	return &other
}

// Verify returns the person that an access token is about, and when the token expires.
// The slices of the identity are shared by all callers, who must not change them. Errors
// are of type *identity.SignInError and hold no part of the token; they come with the
// zero identity.
func (b *TokenVerifier) Verify(ctx context.Context, token string) (identity.Identity, time.Time, error) {
	key := sha256.Sum256([]byte(token))
	t, known := b.cache.Get(key)
	if !known || elapsed(b.p.now(), t.verified, reverifyAfter) {
		var err error
		if t, err = b.checkToken(ctx, token); err != nil {
			return identity.Identity{}, time.Time{}, aboutToken("access token", err)
		}
		b.cache.Put(key, t, len(token)+1024+48*len(t.who.Groups)+256*len(t.who.Orgs))
	}
	// No leeway: streams and the assertion that rest on a token end when it expires.
	if !b.p.now().Before(t.exp) {
		return identity.Identity{}, time.Time{}, fail(identity.ClockSkew, "access token: expired")
	}
	return t.who, t.exp, nil
}

// checkToken makes the checks of RFC 9068 §4, and those of a sign-in that apply.
func (b *TokenVerifier) checkToken(ctx context.Context, token string) (verifiedToken, error) {
	m, err := b.p.metadata(ctx)
	if err != nil {
		return verifiedToken{}, err
	}
	content, err := b.p.verify(ctx, m, token, func(s *keySet) *budget { return s.others })
	if err != nil {
		return verifiedToken{}, err
	}
	members, err := oauth.Object(content.payload)
	if err != nil {
		return verifiedToken{}, fail(identity.Rejected, "access token: claims: %w", err)
	}
	t := idToken{members, content.alg, content.keyIssuer}
	for _, check := range []func() error{
		func() error { return b.checkKind(content.typ, t.claims) },
		func() error { return b.checkParties(t.claims) },
		func() error { return b.p.checkValidity(t.claims) },
		func() error { return b.p.checkFurther(t, m) },
	} {
		if err := check(); err != nil {
			return verifiedToken{}, err
		}
	}
	t.claims = b.p.resolvePaths(t.claims)
	if err := b.p.checkAdmitted(ctx, t.claims); err != nil {
		return verifiedToken{}, err
	}
	sources := []claims{t.claims}
	if b.p.dialect.tokenOnlyClaims != nil {
		sources = append(sources, b.p.dialect.tokenOnlyClaims(t.claims))
	}
	if err := b.p.checkOrgs(ctx, t.claims, sources); err != nil {
		return verifiedToken{}, err
	}
	exp, _ := t.time("exp")
	return verifiedToken{who: b.p.identity(ctx, t.claims, sources), exp: exp, verified: b.p.now()}, nil
}

// checkKind refuses tokens of another kind, above all ID tokens: these have the same
// issuer, are signed with the same keys and are about the same person, and every client
// of the provider gets some (RFC 8725 §2.8, RFC 9068 §5, GHSA-wcvh-g65p-v576).
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

// refuseBound refuses a token with cnf, which only the owner of a certain key or
// certificate may use (RFC 7800 §3.1). A thief has neither, and would get in with it if
// it were accepted as a plain bearer token (RFC 9449 §7.2, RFC 8705 §3).
func (p *Provider) refuseBound(c claims) error {
	how := "in a way that is not known here"
	members, _ := oauth.Object(c["cnf"])
	if _, ok := members["jkt"]; ok {
		how = "to a key (cnf.jkt, DPoP)"
	}
	if _, ok := members["x5t#S256"]; ok {
		how = "to a client certificate (cnf.x5t#S256)"
	}
	return fail(identity.Rejected, "access token: bound %s, and that proof is not checked here: "+
		"have the provider issue plain bearer tokens for this audience", how)
}

// checkParties checks who issued the token, for which audience, and about which person.
func (b *TokenVerifier) checkParties(c claims) error {
	if iss, _ := c.text("iss"); !b.p.dialect.issuedBy(iss) {
		return fail(identity.Rejected, "access token: iss is not the configured issuer %s, it is %s",
			quoted(b.p.issuer), c.quoted("iss"))
	}
	audience, ok := c.audience()
	if !ok || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(b.audiences, a) }) {
		return fail(identity.Rejected,
			"access token: made for another audience: aud is %s, and `bearer.audiences` has %s",
			c.quoted("aud"), quoted(b.audiences...))
	}
	if slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(b.clientIDs, a) }) {
		return fail(identity.Rejected, "access token: made for the client of a sign-in (aud), as ID tokens are")
	}
	return b.p.checkSubject(c, "access token")
}

// aboutToken makes an error speak of a token of this kind: checks that sign-ins have,
// too, say "ID token".
func aboutToken(kind string, err error) error {
	var e *identity.SignInError
	if !errors.As(err, &e) {
		return fail(identity.Rejected, "%s: could not be checked", kind)
	}
	if words, of := strings.CutPrefix(e.Err.Error(), "ID token: "); of {
		return &identity.SignInError{Failure: e.Failure, Err: errors.New(kind + ": " + words)}
	}
	return e
}
