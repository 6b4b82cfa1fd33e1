package login

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const (
	maxText      = 256 // bytes of a name, a group or an id
	maxGroups    = 1000
	maxOrgs      = 50
	maxEmail     = 254 // RFC 5321 §4.5.3.1
	maxLocalPart = 64
)

func (n ClaimNames) withDefaults() ClaimNames {
	return ClaimNames{
		Orgs:      n.Orgs,
		OrgID:     or(n.OrgID, "org_id"),
		OrgName:   or(n.OrgName, "org_name"),
		OrgDomain: or(n.OrgDomain, "org_domain"),
		Groups:    or(n.Groups, "groups"),
		Username:  or(n.Username, "preferred_username"),
		Name:      or(n.Name, "name"),
		Email:     or(n.Email, "email"),
	}
}

// emailVerified says whether the address in the claim email is verified (OIDC Core §5.1).
const emailVerified = "email_verified"

// Needs says which facts about a person the configuration uses for decisions: in its
// rules, its list of operators, and to map organizations to those it names. If a needed
// fact is not in the ID token, userinfo is asked for it, and nobody is signed in if
// userinfo does not answer. Any other fact may be missing.
type Needs struct{ Email, Groups, Orgs bool }

// wanted are the claims that should be there after a sign-in: name, user name and
// address with email_verified, and those that the configuration names or needs.
func (o Options) wanted() []string {
	d := o.Claims.withDefaults()
	names := append([]string{d.Email, emailVerified, d.Name, d.Username}, o.Claims.configured()...)
	return append(names, o.needed()...)
}

// needed are the claims with what Needs lists, by the names that the provider uses.
func (o Options) needed() []string {
	d := o.Claims.withDefaults()
	var names []string
	if o.Needs.Email {
		names = append(names, d.Email, emailVerified)
	}
	if o.Needs.Groups {
		names = append(names, d.Groups)
	}
	if o.Needs.Orgs && (o.Claims.OrgID != "" || o.Claims.Orgs == "") {
		names = append(names, d.OrgID)
	}
	if o.Needs.Orgs && o.Claims.Orgs != "" {
		names = append(names, d.Orgs)
	}
	return names
}

// configured are the claims of organizations and groups that the configuration names.
func (n ClaimNames) configured() []string {
	return slices.DeleteFunc([]string{n.Orgs, n.OrgID, n.OrgName, n.OrgDomain, n.Groups},
		func(name string) bool { return name == "" })
}

// sources returns the sets of claims about the person, the best source first.
func (p *Provider) sources(ctx context.Context, m *metadata, token claims, accessToken string) ([]claims, error) {
	if p.dialect.lookup != nil {
		found, err := p.dialect.lookup(ctx, p.client, accessToken, token)
		return []claims{token, found}, err
	}
	switch p.identityFrom {
	case FromIDToken:
		return []claims{token}, nil
	case FromUserinfo:
		info, err := p.userinfo(ctx, m, token, accessToken)
		return []claims{info}, err
	}
	wanted := token.missing(p.dialect.wanted)
	if len(wanted) == 0 || m.UserinfoURL == "" {
		return []claims{token}, nil
	}
	info, err := p.userinfo(ctx, m, token, accessToken)
	if err != nil {
		return []claims{token}, p.withoutUserinfo(ctx, err, wanted, token.missing(p.dialect.needed))
	}
	return []claims{token, info}, nil
}

// withoutUserinfo decides whether a sign-in goes on after userinfo failed. It ends if a
// needed claim is missing: without the organization that userinfo would have named, for
// example, the person could be mapped to another one by e-mail address. It always ends
// if the answer was about somebody else (OIDC Core §5.3.2).
func (p *Provider) withoutUserinfo(ctx context.Context, err error, wanted, needed []string) error {
	var call *oauth.Error
	switch {
	case errors.Is(err, errOtherSubject):
		return err
	case len(needed) == 0:
		p.notices.once("userinfo", func() {
			p.log.WarnContext(ctx, "userinfo failed; people are signed in without what the ID token does not tell",
				"missing", strings.Join(wanted, ", "), "error", err)
		})
		return nil
	case errors.As(err, &call):
		return fail(identity.Unavailable, "userinfo has to tell %s, which the ID token does not: %w "+
			"(`identity_from: id_token` never asks it)", strings.Join(needed, ", "), call)
	}
	return err
}

// missing returns those of names that are neither among the claims nor said to be kept
// elsewhere.
func (c claims) missing(names []string) []string {
	var out []string
	for _, name := range names {
		if !c.mentions(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// mentions reports whether a claim is there, or is said to be kept elsewhere.
func (c claims) mentions(name string) bool { return c.has(name) || c.elsewhere(name) }

var errOtherSubject = errors.New("userinfo: sub is not the ID token's")

// userinfo asks the userinfo endpoint for claims about the person. They must be about
// the person of the ID token's claims, token; if token is nil, there is no ID token.
func (p *Provider) userinfo(ctx context.Context, m *metadata, token claims, accessToken string) (claims, error) {
	if m.UserinfoURL == "" {
		return nil, fail(identity.Misconfigured, "the identity is to come from userinfo, and the provider has none")
	}
	if accessToken == "" {
		return nil, fail(identity.Rejected,
			"the identity is to come from userinfo, and the provider sent no access token")
	}
	body, head, err := bearerGet(ctx, p.client.HTTPClient("userinfo"), m.UserinfoURL, accessToken)
	if err != nil {
		return nil, failCall(err)
	}
	if bytes.Count(body, []byte(".")) == 4 && bytes.HasPrefix(body, []byte("ey")) { // RFC 7516 §3.1
		return nil, fail(identity.Rejected,
			"userinfo is encrypted (JWE), which is not supported: have the provider send JSON")
	}
	if kind, _, _ := mime.ParseMediaType(head.Get("Content-Type")); kind == "application/jwt" {
		return nil, fail(identity.Rejected, "userinfo is signed, which is not supported: have the provider send JSON")
	}
	members, err := oauth.Object(body)
	if err != nil {
		return nil, fail(identity.Rejected, "userinfo: %w", err)
	}
	if token == nil {
		return p.resolvePaths(members), p.checkSubject(members, "userinfo")
	}
	// OIDC Core §5.3.2: with another sub, the answer is about somebody else.
	want, _ := p.dialect.sub(token)
	got, ok := p.dialect.sub(members)
	if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return nil, fail(identity.Rejected, "%w", errOtherSubject)
	}
	return p.resolvePaths(members), nil
}

// bearerGet reads a document, sending an access token for it (RFC 6750 §2.1).
func bearerGet(ctx context.Context, client *http.Client, address, accessToken string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, errors.New("not a URL")
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	return getDocument(client, req)
}

// identity makes the Identity from the verified claims (those of the ID token, or of
// userinfo) and the other sources. A claim that cannot be used is left out and logged.
// Claims that would be dangerous have been refused before.
func (p *Provider) identity(ctx context.Context, who claims, sources []claims) identity.Identity {
	r := reader{p, ctx, who, sources}
	r.noteAbsent()
	id := identity.Identity{
		Provider:    p.id,
		ACR:         r.in(who).text("acr"),
		ProviderSID: r.in(who).text("sid"),
	}
	id.Subject, _ = p.dialect.person(who)
	id.Org, id.Orgs, id.OrgUnknown = r.orgs()
	if !p.dialect.nameless {
		id.Name, id.Username = r.text(p.claims.Name), r.text(p.claims.Username)
		id.Email, id.EmailVerified = r.email()
	}
	id.Groups, id.OrgGroups, id.GroupsUnknown = r.groups()
	id.AuthTime, _ = who.time("auth_time")
	return id
}

// reader reads claims from several sources, and logs what it leaves out.
type reader struct {
	p       *Provider
	ctx     context.Context
	who     claims // the verified claims that say who the person is
	sources []claims
}

func (r reader) in(c claims) reader { return reader{r.p, r.ctx, r.who, []claims{c}} }

// from returns the first source that has the claim.
func (r reader) from(name string) (claims, bool) {
	for _, c := range r.sources {
		if c.has(name) {
			return c, true
		}
	}
	return nil, false
}

// noteAbsent logs, once for each claim that the configuration names, that the claim is
// absent and which claims are there.
func (r reader) noteAbsent() {
	for _, name := range r.p.mapped {
		if _, ok := r.from(name); ok || r.elsewhere(name) {
			continue
		}
		r.p.notices.once("absence of "+name, func() {
			r.p.log.InfoContext(r.ctx, "a claim that the configuration names is absent",
				"claim", name, "received", r.forms())
		})
	}
}

// dropped logs a claim that cannot be used. If the configuration names the claim, this
// is at level info and once, because the operator expects the claim to work.
func (r reader) dropped(name, why string) {
	if slices.Contains(r.p.mapped, name) {
		r.p.notices.once("form of "+name, func() {
			r.p.log.InfoContext(r.ctx, "a claim that the configuration names is left out",
				"claim", name, "why", why, "received", r.received(name))
		})
		return
	}
	r.p.log.DebugContext(r.ctx, "claim left out", "claim", name, "why", why)
}

func (r reader) text(name string) string {
	c, ok := r.from(name)
	if !ok {
		return ""
	}
	s, ok := c.text(name)
	if !ok || (s != "" && !printable(s, maxText)) {
		r.dropped(name, "not a string of at most 256 bytes without control characters")
		return ""
	}
	return s
}

// email reads the address, and whether it counts as verified.
func (r reader) email() (address string, verified bool) {
	address, raw := r.address()
	if address == "" {
		return "", false
	}
	_, domain, _ := strings.Cut(address, "@")
	allowed := len(r.p.emailDomains) == 0 && !r.p.tokensOnly || slices.Contains(r.p.emailDomains, domain)
	e := email{who: r.who, sources: r.sources, raw: raw, domain: domain, isTrue: r.p.dialect.isTrue}
	verified = allowed && r.p.dialect.vouches(e)
	if allowed && !verified {
		r.noteStringVerified(e)
	}
	return address, verified
}

// address reads the address alone. raw is as the provider sent it.
func (r reader) address() (address, raw string) {
	name := r.p.claims.Email
	c, ok := r.from(name)
	if !ok {
		return "", ""
	}
	raw, ok = c.text(name)
	local, domain, valid := splitEmail(raw)
	if !ok || !valid {
		if raw != "" || !ok {
			r.dropped(name, "not a plain e-mail address")
		}
		return "", ""
	}
	return local + "@" + domain, raw
}

// noteStringVerified logs that the address would count as verified with the quirk
// string_email_verified.
func (r reader) noteStringVerified(e email) {
	if e.isTrue = trueOrString; r.p.kind != TypeOIDC || !r.p.dialect.vouches(e) {
		return
	}
	r.p.notices.once(emailVerified, func() {
		r.p.log.InfoContext(r.ctx, "email_verified is the text \"true\" instead of true, "+
			"so addresses do not count as verified; "+
			"`quirks: ["+quirkStringVerified+"]` takes it")
	})
}

// elsewhere reports whether the claim is an aggregated or distributed one (OIDC
// Core §5.6.2). If the list of those cannot be read, every claim may be one.
func (c claims) elsewhere(name string) bool {
	if !c.has("_claim_names") {
		return false
	}
	names, err := oauth.Object(c["_claim_names"])
	if err != nil {
		return true
	}
	if _, ok := names[name]; ok {
		return true
	}
	for i := range name { // a claim on the way of a path may be one, too
		if _, ok := names[name[:i]]; ok && name[i] == '.' {
			return true
		}
	}
	return false
}

// printable reports whether s is text of 1 to most bytes without control characters.
// U+FFFD is refused: it replaces bytes that could not be decoded, so that two different
// values would become the same text.
func printable(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

// splitEmail splits a plain ASCII address, and returns the domain in lower case.
// Whatever two programs could read in two ways is refused: a second @, quoting,
// comments and look-alike letters (CVE-2026-40574).
func splitEmail(s string) (local, domain string, ok bool) {
	if len(s) > maxEmail || strings.Count(s, "@") != 1 {
		return "", "", false
	}
	local, domain, _ = strings.Cut(s, "@")
	domain = identity.LowerASCII(domain)
	if local == "" || len(local) > maxLocalPart || strings.ContainsFunc(local, notLocalPart) ||
		!hostname.IsDomain(domain) {
		return "", "", false
	}
	return local, domain, true
}

// notLocalPart reports whether r cannot stand in a local part of atext and dots
// (RFC 5322 §3.2.3).
func notLocalPart(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, r)
}
