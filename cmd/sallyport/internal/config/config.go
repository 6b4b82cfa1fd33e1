// Package config reads the one configuration file: YAML, strict, versioned.
//
// It owns the names and meanings of all keys, their defaults, the form of
// references to secrets, and the faults that point at a line. One table (file)
// describes every key; the reader and the JSON Schema are both made from it.
// Parse looks at nothing but its input; Resolve alone reads the environment and
// files. The package never opens a connection, builds nothing live, and keeps
// no opinion on what only a neighbour can judge (whether routes overlap,
// whether a key is a session key): cmd asks them, and points at the line with
// Config.Fault. Which choices of a provider go together it asks login itself.
package config

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/login"
	yaml "go.yaml.in/yaml/v4"
)

// Config is the file as plain values, with all defaults filled in. What the
// file gives as a reference has its value after Resolve.
type Config struct {
	PublicURL *url.URL // scheme and host only, in lower case, without a default port
	Prefix    string   // of our own endpoints: "/.sallyport"
	Listen    Listen
	Session   Session
	Providers []Provider
	Routes    []Route
	Groups    Groups
	Pages     Pages
	Log       Log
	Stop      Stop
	Limits    Limits

	// Organizations are what those of providers are folded into.
	Organizations []Organization
	// Operators see on their account page what providers are asked for.
	Operators []Rule

	// TrustedProxies are those before us whose X-Forwarded-* count; an address
	// is a range of one.
	TrustedProxies []netip.Prefix

	version int
	src     sealed[source]
}

// Session says how long a session lasts and what seals it.
type Session struct {
	Keys                         []Ref
	KeyTexts                     []KeyText // after Resolve; files of a directory in the order of their names
	AbsoluteTimeout, IdleTimeout time.Duration
	CookieName                   string // "" where it is the usual one
	KeepCache                    bool   // signing out leaves the browser's cache alone
}

// Provider is an identity provider.
type Provider struct {
	ID, Type, Name, ClientID string
	Issuer                   string          // "": the vendor's own
	Endpoints                login.Endpoints // instead of what discovery says
	CA                       Ref             // PEM, who may vouch for it; zero is whom the system trusts
	PublicKeys               []Ref           // instead of published ones
	Quirks                   []string        // deviations from the standard that it is allowed
	HostedDomains            []string        // google: whose people may come; nil: everybody's
	Tenant                   string          // microsoft
	AllowedTenants           []string        // microsoft: whose people may come; nil: everybody's
	ClientSecret             Ref             // zero if ClientAuth sends none
	ClientAuth               string
	ClientAssertion          Ref // with assertion; its file is to be read again for each use
	ClientKey                Ref // with private_key_jwt, PEM
	ClientKeyID              string
	Scopes                   []string
	Claims                   Claims
	IdentityFrom             string
	EmailDomains             []string // nil: it may vouch for any
	TrustedAudiences         []string // who else may stand in the aud of ID tokens
	SignOut                  SignOut  // at the provider too
}

// SignOut is how people sign out at a provider too.
type SignOut struct {
	Off         bool
	URL         string // instead of endpoints.end_session; "": that, or what discovery says
	Params      map[string]string
	ReturnParam string
}

// Claims are the names under which a provider tells things; "" is the usual one.
type Claims struct {
	OrgID, OrgName, OrgDomain, Orgs, Groups, Username, Name, Email string
}

// Route is a part of a site, who may have it and what the app is told.
type Route struct {
	Name     string
	Host     string // lower case, without a port; "*.example.com" for all below
	Path     string
	Exact    bool // Path covers itself only
	Upstream Upstream
	Public   bool
	Allow    Allow // zero if Public
	Headers  Headers

	WebSocket WebSocket
	Encoded   bool  // escaped / % # ? ; and letters that are not UTF-8 pass in the path
	Doubled   bool  // so do two slashes in a row
	MaxBody   int64 // bytes of a request's body; 0 is no limit
	NoVia     bool  // the app is not told of a proxy by Via
	// SiteHeaders of the app's answers pass although they speak for the whole site.
	SiteHeaders []string
	Bearer      Bearer
}

// Allow says who may pass: everybody who is signed in, or whom a rule of Any matches.
type Allow struct {
	Authenticated bool
	Any           []Rule
}

// Rule matches a person of whom all that is given holds, by one entry each.
type Rule struct {
	Orgs, Groups, Emails, EmailDomains []string
	InsecureFlatGroups                 bool
}

// Headers says what the app is told. Set comes in the order of the file and
// adds to the preset.
type Headers struct {
	Preset string
	Set    []identity.Field
	Keep   []string // what passes although it is stripped elsewhere
}

// Pages is how our own pages look.
type Pages struct {
	Name     string
	Logo     Ref
	LogoType string // "image/svg+xml" or "image/png"; "" without a logo
}

// Log says what is logged and how. Audit is where the audit stream goes: stdout,
// stderr or a path; "": nowhere.
type Log struct{ Level, Format, Audit string }

// Stop says how to end.
type Stop struct{ DrainDelay, Timeout time.Duration }

// Limits bound what a request may cost.
type Limits struct {
	Header, URL int64 // bytes
	Flows       int
}

// Parse reads a file. The faults are all that can be found without looking
// anywhere else; with faults there is no Config. name is for messages.
func Parse(name string, data []byte) (*Config, Faults) {
	src := newSource(name, data)
	if len(data) > maxFile {
		return nil, src.finish(Faults{src.fault(pos{1, 1}, "", "the file is larger than 1 MiB")})
	}
	root, fault := src.load()
	if fault != nil {
		return nil, src.finish(Faults{*fault})
	}
	src.root = root
	table := file()
	w := &walker{src: src, sounds: regexp.MustCompile(`(?i)` + secretWords), keys: keysOf(table)}
	w.plain = plainPaths(w.keys)
	c := &Config{src: seal(src)}
	sound := w.structure(place{root, ""}, 1)
	slices.SortFunc(src.starts, comparePos)
	slices.SortStableFunc(src.scalars, func(a, b *yaml.Node) int { return comparePos(nodePos(a), nodePos(b)) })
	if sound {
		take(w, table, place{root, ""}, c)
		w.faults = append(w.faults, c.crossCheck()...)
	}
	if len(w.faults) > 0 {
		return nil, src.finish(w.faults)
	}
	return c, nil
}

// Fault is for what a neighbour finds wrong: it points at the value of path
// ("routes[2].path"), or at what would hold it if the file leaves it out.
func (c *Config) Fault(path string, format string, args ...any) Fault {
	return c.src.open().finish(Faults{c.src.open().faultAt(path, format, args...)})[0]
}

// Warnings are what is allowed but should not stay so; to be logged at start.
func (c *Config) Warnings() []Fault {
	var warnings Faults
	for _, p := range c.src.open().pending {
		if p.ref.form == formLiteral {
			warnings = append(warnings, c.src.open().fault(p.at, p.path, "literal: keeps a secret in the file; it is for tests, use file: or env:"))
		}
	}
	return c.src.open().finish(slices.Concat(warnings, c.flatGroupWarnings(), c.bareGroupWarnings(), c.patternWarnings()))
}

// file is the table of all keys: the reader and the schema are made from it.
func file() shape[Config] {
	return object[Config]{keys: []key[Config]{
		field("version", "The version of this format, not of Sallyport or of your app: 1.", number(1, 1), func(c *Config) *int { return &c.version }).required(),
		field("public_url", "Where browsers find Sallyport: scheme, host and port. Callback URLs are made from it. Plain http is for loopback hosts only.",
			valueOrRef("an absolute URL such as https://app.example.com", `^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+/?$`, parsePublicURL),
			func(c *Config) **url.URL { return &c.PublicURL }).required(),
		field("prefix", "The path below which Sallyport answers itself.",
			pattern("a path such as /.sallyport, of letters, digits and -._~, without a slash at its end", prefixPattern),
			func(c *Config) *string { return &c.Prefix }).or("/.sallyport"),
		field("listen", "Where to accept connections.", listenShape(), func(c *Config) *Listen { return &c.Listen }).or("{}"),
		field("trusted_proxies", "Addresses and ranges of the proxies before Sallyport. Only their X-Forwarded-For, -Proto and -Host count; nobody's if it is empty.",
			list(proxyRange(), 0), func(c *Config) *[]netip.Prefix { return &c.TrustedProxies }).or("[]"),
		field("session", "How long a session lasts and what seals it.", sessionShape(), func(c *Config) *Session { return &c.Session }).required(),
		field("providers", "The identity providers people sign in with.", list(providerShape(), 1),
			func(c *Config) *[]Provider { return &c.Providers }).required(),
		field("organizations", "Organizations that providers know under several ids, or by verified e-mail domains, each folded into one.", organizationsShape(),
			func(c *Config) *[]Organization { return &c.Organizations }),
		field("routes", "What is behind Sallyport and who may have it. The most specific host wins, in it the longest path.", list(routeShape(), 1),
			func(c *Config) *[]Route { return &c.Routes }).required(),
		field("groups", "Which groups of a person are kept.", groupsShape(), func(c *Config) *Groups { return &c.Groups }).or("{}"),
		field("operators", "Who runs this site, as rules: their account page says what providers are asked for.", list(ruleShape(), 1),
			func(c *Config) *[]Rule { return &c.Operators }),
		field("pages", "How Sallyport's own pages look.", pagesShape(), func(c *Config) *Pages { return &c.Pages }).or("{}"),
		field("log", "What is logged and how.", logShape(), func(c *Config) *Log { return &c.Log }).or("{}"),
		field("stop", "How Sallyport ends after SIGTERM.", stopShape(), func(c *Config) *Stop { return &c.Stop }).or("{}"),
		field("limits", "What a request may cost.", limitsShape(), func(c *Config) *Limits { return &c.Limits }).or("{}"),
	}}.shape()
}

func sessionShape() shape[Session] {
	return object[Session]{keys: []key[Session]{
		field("keys", "The session keys, as `sallyport genkey` prints them. All open sessions; the newest that is old enough seals them. "+
			"dir: stands for every file in a directory.",
			list(secretRef(formFile, formDir, formEnv, formLiteral), 1), func(s *Session) *[]Ref { return &s.Keys }).required(),
		field("absolute_timeout", "After this a person signs in again, whatever happened since.",
			duration(time.Minute, 720*time.Hour), func(s *Session) *time.Duration { return &s.AbsoluteTimeout }).or("12h"),
		field("idle_timeout", "After this without a page being opened, or /.sallyport/session being asked, a person signs in again.",
			duration(time.Minute, 720*time.Hour), func(s *Session) *time.Duration { return &s.IdleTimeout }).or("1h"),
		field("cookie_name", "The session cookie's name behind __Host-, where several Sallyports have one host (ports or paths do not keep cookies apart): sallyport- and a word of your own. The usual one is sallyport.",
			cookieName(), func(s *Session) *string { return &s.CookieName }),
		field("clear_cache", "`false`: signing out and switching organizations leave the browser's cache of this site alone, which takes seconds where it is large. For apps that send no-store with what is personal. It is cleared if left out.",
			onlyFalse(), func(s *Session) *bool { return &s.KeepCache }),
	}, check: checkSession}.shape()
}

func providerShape() shape[Provider] {
	return object[Provider]{keys: []key[Provider]{
		field("id", "The name in callback URLs and in every identity. Never give it to another issuer.", idText(), func(p *Provider) *string { return &p.ID }).required(),
		field("type", "The kind of provider.", providerType(), func(p *Provider) *string { return &p.Type }).required(),
		field("name", "The name on the sign-in page; the id if left out.", text("a name for people"), func(p *Provider) *string { return &p.Name }),
		field("issuer", "The issuer, exactly as the provider writes it. The types of vendors know their own.",
			urlText(parseIssuer), func(p *Provider) *string { return &p.Issuer }),
		field("endpoints", "Addresses that count instead of those in the discovery document. With authorization and token nobody asks for that document.",
			endpointsShape(), func(p *Provider) *login.Endpoints { return &p.Endpoints }),
		field("ca", "Who may vouch for the provider's https, PEM, wherever Sallyport asks it itself; whom this system trusts if left out.", authorities(),
			func(p *Provider) *Ref { return &p.CA }),
		field("client_id", "The client id the provider gave out.", valueOrRef("a client id", `^[!-~]([ -~]*[!-~])?$`, parseClientID),
			func(p *Provider) *string { return &p.ClientID }).required(),
		field("client_secret", "The client secret. Left out with `client_auth: none`, assertion and private_key_jwt.", secretRef(formEnv, formFile, formLiteral),
			func(p *Provider) *Ref { return &p.ClientSecret }),
		field("client_auth", "How the client proves itself: the secret in an Authorization header (basic) or in the body (post), or as the provider prefers (auto); "+
			"a token from a file (assertion); one that Sallyport signs (private_key_jwt); not at all (none).",
			oneOf("", "auto", "basic", "post", "none", "assertion", "private_key_jwt"), func(p *Provider) *string { return &p.ClientAuth }).or("auto"),
		field("client_assertion", "With `client_auth: assertion`: the file with the token that proves the client, such as a Kubernetes service account's. It is read again for each sign-in.",
			checkedRef(login.CheckClientAssertion, formFile), func(p *Provider) *Ref { return &p.ClientAssertion }),
		field("client_key", "With `client_auth: private_key_jwt`: the private key, PEM; its public key is registered at the provider.",
			checked(secretRef(formFile, formEnv), login.CheckClientKey), func(p *Provider) *Ref { return &p.ClientKey }),
		field("client_key_id", "The key's id (kid) at the provider, where it gave one. Not said if left out.", text("the id of a key"), func(p *Provider) *string { return &p.ClientKeyID }),
		field("scopes", "What to ask for; openid must be among them. What the type needs if left out: openid, profile and email for oidc.",
			list(pattern("a scope", `^[!#-\[\]-~]+$`), 1), func(p *Provider) *[]string { return &p.Scopes }),
		field("claims", "The names under which this provider tells things, where they are not the usual ones. A path such as realm_access.roles leads into objects.", claimsShape(),
			func(p *Provider) *Claims { return &p.Claims }).or("{}"),
		field("identity_from", "Where claims are read: auto asks the userinfo endpoint only for what is missing from the ID token.",
			oneOf("", "auto", "id_token", "userinfo"), func(p *Provider) *string { return &p.IdentityFrom }).or("auto"),
		field("email_domains", "The domains this provider may vouch for; addresses outside count as unverified. Required for type oidc where there are two providers.",
			list(domain(), 1), func(p *Provider) *[]string { return &p.EmailDomains }),
		field("trusted_audiences", "What may stand in the aud of ID tokens beside the client id, such as another client or project. Then azp must be the client id. "+
			"Whoever it is gets tokens that would sign people in here.",
			list(text("an audience"), 1), func(p *Provider) *[]string { return &p.TrustedAudiences }),
		field("logout", "Signing out at the provider too: `false` does not offer it; a mapping says what the provider needs for it. As the discovery document says if left out.",
			signOutShape(), func(p *Provider) *SignOut { return &p.SignOut }),
		field("public_keys", "type oidc: the provider's signing keys, instead of published ones. PEM, public keys or certificates; old and new ones while they change.",
			list(publicKeyRef(), 1), func(p *Provider) *[]Ref { return &p.PublicKeys }),
		field("quirks", "type oidc: deviations from the standard that this provider is allowed. Each weakens something; docs/providers/oidc.md says what.",
			list(oneOf("", login.QuirkNames()...), 1), func(p *Provider) *[]string { return &p.Quirks }),
		field("hosted_domains", "type google: only people of these Google Workspace domains. Everybody with a Google account if left out.",
			list(domain(), 1), func(p *Provider) *[]string { return &p.HostedDomains }),
		field("tenant", "type microsoft: common for every account, organizations, consumers for personal ones, or the GUID or domain of one tenant.",
			pattern("common, organizations, consumers, or the GUID or domain of a tenant in lower case", `^`+labels+`$`), func(p *Provider) *string { return &p.Tenant }),
		field("allowed_tenants", "type microsoft, with tenant common or organizations: only people of these tenants, by GUID.",
			list(pattern("the GUID of a tenant in lower case", guidPattern), 1), func(p *Provider) *[]string { return &p.AllowedTenants }),
	}, check: checkProvider}.shape()
}

func endpointsShape() shape[login.Endpoints] {
	address := urlText(parseEndpoint)
	return object[login.Endpoints]{some: true, keys: []key[login.Endpoints]{
		field("authorization", "Where the browser is sent.", address, func(e *login.Endpoints) *string { return &e.AuthorizationURL }),
		field("token", "Where the code is redeemed.", address, func(e *login.Endpoints) *string { return &e.TokenURL }),
		field("userinfo", "Where claims about the person are read.", address, func(e *login.Endpoints) *string { return &e.UserinfoURL }),
		field("jwks", "Where the provider's signing keys are.", address, func(e *login.Endpoints) *string { return &e.JWKSURL }),
		field("end_session", "Where a person signs out.", address, func(e *login.Endpoints) *string { return &e.EndSessionURL }),
		field("graph", "type microsoft: the origin of Graph, where a national cloud has its own.", address, func(e *login.Endpoints) *string { return &e.GraphURL }),
	}}.shape()
}

func signOutShape() shape[SignOut] {
	off := within(onlyFalse(), func(s *SignOut) *bool { return &s.Off })
	full := object[SignOut]{some: true, keys: []key[SignOut]{
		field("url", "Where a person signs out, instead of endpoints.end_session and of what discovery says.", urlText(parseEndpoint), func(s *SignOut) *string { return &s.URL }),
		field("return_param", "The parameter that carries the address of our page, <public_url>/.sallyport/logout, to which the provider sends people back: "+
			"post_logout_redirect_uri by the standard, logout_uri at Cognito. Register that address at the provider first. It is not sent if left out.",
			parameterName(), func(s *SignOut) *string { return &s.ReturnParam }),
		field("params", "Further parameters, as the provider wants them. client_id is sent in any case.", parameters(), func(s *SignOut) *map[string]string { return &s.Params }),
	}, check: checkSignOut}.shape()
	return either("false or a mapping", off, yaml.MappingNode, full)
}

func claimsShape() shape[Claims] {
	claim := text("the name of a claim")
	return object[Claims]{keys: []key[Claims]{
		field("org_id", "The claim with the organization's id.", claim, func(c *Claims) *string { return &c.OrgID }),
		field("org_name", "The claim with the organization's name.", claim, func(c *Claims) *string { return &c.OrgName }),
		field("org_domain", "The claim with the organization's domain.", claim, func(c *Claims) *string { return &c.OrgDomain }),
		field("orgs", "The claim with all organizations: a list of ids, or of mappings with id, name and domain, or a mapping of such mappings. Has no usual name.", claim,
			func(c *Claims) *string { return &c.Orgs }),
		field("groups", "The claim with the person's groups: a list, or a mapping whose keys are the groups and whose values name the organizations in which they count.", claim, func(c *Claims) *string { return &c.Groups }),
		field("username", "The claim with the person's user name.", claim, func(c *Claims) *string { return &c.Username }),
		field("name", "The claim with the person's name.", claim, func(c *Claims) *string { return &c.Name }),
		field("email", "The claim with the person's e-mail address.", claim, func(c *Claims) *string { return &c.Email }),
	}}.shape()
}

func routeShape() shape[Route] {
	return object[Route]{keys: []key[Route]{
		field("name", "The name in logs and metrics.", idText(), func(r *Route) *string { return &r.Name }).required(),
		field("host", "The host, *.example.com for all names below, or {org}.example.com for one of each of the organizations; the host of public_url if left out.",
			routeHost(), func(r *Route) *string { return &r.Host }),
		field("path", "This path and all below it: /admin covers /admin/x, not /administrator.", routePath(), func(r *Route) *string { return &r.Path }),
		field("path_exact", "This path and nothing below it.", within(routePath(), func(r *Route) *string { r.Exact = true; return &r.Path }),
			func(r *Route) *Route { return r }),
		field("upstream", "The app: http://host:port, https://host:port, h2c://host:port (HTTP/2 without TLS) or unix:/path.sock; or a mapping with a url.",
			upstreamShape(), func(r *Route) *Upstream { return &r.Upstream }).required(),
		field("public", "Everybody may have it, without signing in; the app is told of nobody.", onlyTrue(), func(r *Route) *bool { return &r.Public }),
		field("allow", "Who may have it: `authenticated` for everybody who is signed in, or a list of rules of which one must match.",
			allowShape(), func(r *Route) *Allow { return &r.Allow }),
		field("headers", "What the app is told about the person.", headersShape(), func(r *Route) *Headers { return &r.Headers }).or("{}"),
		field("websocket", "WebSockets pass, from pages of the route's own site and of the origins that are listed. None pass if left out.",
			webSocketShape(), func(r *Route) *WebSocket { return &r.WebSocket }),
		field("encoded", "`forward`: an escaped / % # ? or ; passes in the path, as GitLab, RabbitMQ, CalDAV and npm registries need it, and so do letters that are not UTF-8. Refused if left out.",
			forwardOrRefused(), func(r *Route) *bool { return &r.Encoded }),
		field("doubled_slashes", "`forward`: two slashes in a row pass in the path, but not at its beginning. Refused if left out.",
			forwardOrRefused(), func(r *Route) *bool { return &r.Doubled }),
		field("max_body", "The largest body of a request; no limit if left out.", size(1, 1<<40), func(r *Route) *int64 { return &r.MaxBody }),
		field("via", "`false`: the app gets no Via header, for apps that do not compress for proxies. It gets one if left out.",
			onlyFalse(), func(r *Route) *bool { return &r.NoVia }),
		field("site_headers", "Headers of the app's answers that pass although they speak for the whole site. They are dropped if left out.",
			list(oneOf("", "Alt-Svc", "NEL"), 1), func(r *Route) *[]string { return &r.SiteHeaders }),
		field("bearer", "Programs may come with an access token of a provider in the Authorization header, instead of a session. Without it that header is the app's.",
			bearerShape(), func(r *Route) *Bearer { return &r.Bearer }),
	}, rivals: [][]string{{"public", "bearer"}}, choices: []choice{
		{[]string{"path", "path_exact"}, "needs a path or a path_exact"},
		{[]string{"public", "allow"}, "does not say who may have it: write `allow: authenticated`, a list of rules, or `public: true`"},
	}}.shape()
}

func allowShape() shape[Allow] {
	want := "`authenticated` or a list of rules"
	everybody := shape[Allow]{want: want, schema: schema{"const": "authenticated"}, read: func(w *walker, at place, into *Allow) {
		switch v := at.node.Value; {
		case isText(at.node) && v == "authenticated":
			into.Authenticated = true
		case isText(at.node) && slices.Contains([]string{"all", "any", "anonymous", "everybody", "everyone", "public", "*"}, v):
			w.fault(at, "must be %s, not %s; for everybody, without signing in, write `public: true` instead of allow", want, quote(v))
		case isText(at.node) && nearest(v, []string{"authenticated"}) == "":
			w.suggest(at, listOf(ruleFor(v)), "must be %s, not %s", want, quote(v))
		default:
			var word string
			oneOf(want, "authenticated").read(w, at, &word)
		}
	}}
	return either(want, everybody, yaml.SequenceNode, within(list(ruleShape(), 1), func(a *Allow) *[]Rule { return &a.Any }))
}

// listOf is the list of one entry; "" of none.
func listOf(entry string) string {
	if entry == "" {
		return ""
	}
	return "[" + entry + "]"
}

// ruleFor is the rule that a bare text was probably meant as.
func ruleFor(v string) string {
	switch {
	case v == "" || len(v) > 60 || strings.ContainsAny(v, ",[]{}\"'#*"):
		return ""
	case v == "authenticated":
		return "" // allowShape says more
	case strings.HasPrefix(v, "@"):
		return "{email_domains: [" + v[1:] + "]}"
	case strings.Contains(v, "@"):
		return "{emails: [" + v + "]}"
	case strings.Contains(v, ":"):
		return `{orgs: ["` + v + `"]}`
	}
	return "{groups: [" + v + "]}"
}

func ruleShape() shape[Rule] {
	return object[Rule]{some: true, instead: ruleFor, keys: []key[Rule]{
		field("orgs", "Ids of organizations: the person belongs to one of them.", list(exact("the id of an organization"), 1), func(r *Rule) *[]string { return &r.Orgs }),
		field("groups", "Groups: the person is in one of them.", list(exact("the name of a group"), 1), func(r *Rule) *[]string { return &r.Groups }),
		field("emails", "Verified e-mail addresses.", list(emailAddress(), 1), func(r *Rule) *[]string { return &r.Emails }),
		field("email_domains", "Domains of verified e-mail addresses.", list(domain(), 1), func(r *Rule) *[]string { return &r.EmailDomains }),
		flatGroupsKey(),
	}}.shape()
}

func headersShape() shape[Headers] {
	return object[Headers]{instead: among("preset", identity.Presets()...), keys: []key[Headers]{
		field("preset", "A set of header names that apps know.", oneOf("", identity.Presets()...), func(h *Headers) *string { return &h.Preset }).or(identity.PresetForwarded),
		field("set", "Headers beside the preset: a name, and the claim it carries.", headerFields(), func(h *Headers) *[]identity.Field { return &h.Set }),
		field("keep", "Headers that pass although they are stripped elsewhere: those of other proxies, from trusted_proxies only; method overrides and Destination, from everybody.",
			list(pattern("the name of a header", headerPattern), 1), func(h *Headers) *[]string { return &h.Keep }),
	}}.shape()
}

func headerFieldShape() shape[identity.Field] {
	claim := oneOf("", identity.Claims()...)
	full := object[identity.Field]{keys: []key[identity.Field]{
		field("claim", "What the header carries.", claim, func(f *identity.Field) *identity.Claim { return &f.Claim }).required(),
		field("join", "What stands between two groups.", oneOf(quotedList(identity.Joins()), identity.Joins()...), func(f *identity.Field) *string { return &f.Join }).or(`","`),
		field("encoding", "How letters beyond ASCII are written.", oneOf("", identity.Encodings()...),
			func(f *identity.Field) *identity.Encoding { return &f.Encoding }).or(string(identity.EncodePercent)),
	}, check: checkHeaderField}.shape()
	// The short form is the claim with the defaults of the long one.
	short := within(claim, func(f *identity.Field) *identity.Claim {
		f.Join, f.Encoding = ",", identity.EncodePercent
		return &f.Claim
	})
	return either("a claim or a mapping with a claim", short, yaml.MappingNode, full)
}

// among is for a mapping in whose place one of words stands, which is meant for key.
func among(key string, words ...string) func(string) string {
	return func(v string) string {
		if !slices.Contains(words, v) {
			return ""
		}
		return "{" + key + ": " + v + "}"
	}
}

func pagesShape() shape[Pages] {
	return object[Pages]{keys: []key[Pages]{
		field("name", "The name of the site, for the sign-in page.", text("a name for people"), func(p *Pages) *string { return &p.Name }),
		field("logo", "The logo for the sign-in page, an .svg or .png file.", logoFile(), func(p *Pages) *Pages { return p }),
	}}.shape()
}

func logShape() shape[Log] {
	return object[Log]{instead: among("level", "debug", "info", "warn", "error"), keys: []key[Log]{
		field("level", "The least that is logged.", oneOf("", "debug", "info", "warn", "error"), func(l *Log) *string { return &l.Level }).or("info"),
		field("format", "How it is written: auto is text on a terminal, JSON elsewhere.", oneOf("", "auto", "json", "text"), func(l *Log) *string { return &l.Format }).or("auto"),
		field("audit", "Where the audit stream goes: who signed in and out, who was refused what, what operators did. "+
			"A file is appended to, and opened anew when it was renamed. There is no audit stream if it is left out.",
			auditTarget(), func(l *Log) *string { return &l.Audit }),
	}}.shape()
}

func stopShape() shape[Stop] {
	return object[Stop]{keys: []key[Stop]{
		field("drain_delay", "How long to go on accepting, so that load balancers notice.", duration(0, 10*time.Minute),
			func(s *Stop) *time.Duration { return &s.DrainDelay }).or("0s"),
		field("timeout", "How long requests may take to finish after that.", duration(time.Second, time.Hour),
			func(s *Stop) *time.Duration { return &s.Timeout }).or("30s"),
	}}.shape()
}

func limitsShape() shape[Limits] {
	return object[Limits]{keys: []key[Limits]{
		field("header", "The largest request header, with the request line.", size(8<<10, 1<<20), func(l *Limits) *int64 { return &l.Header }).or("64KiB"),
		field("url", "The longest request target.", size(1<<10, 64<<10), func(l *Limits) *int64 { return &l.URL }).or("8KiB"),
		field("flows", "How many sign-ins may be handled at once, in equal shares for each provider.", number(1, 65536), func(l *Limits) *int { return &l.Flows }).or("256"),
	}, check: checkLimits}.shape()
}
