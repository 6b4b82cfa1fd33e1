// Package config reads the one configuration file.
//
// It owns the names and meanings of all keys, their defaults, and every judgement
// that needs nothing but the file (lints included). One table (file) describes
// every key; how a table is read strictly, how a fault points at its line, and what
// forms references to secrets have is its neighbour yamltable's. Parse looks at
// nothing but its input; Resolve alone reads the environment and files. The package
// never opens a connection, builds nothing live, and keeps no opinion on what only
// a neighbour can judge (whether routes overlap, whether a key is a session key):
// assemble asks them, and points at the line with Config.Fault. Which choices of a
// provider go together it asks login itself.
package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/login"
)

// What neighbours of this room know of the file without its table.
type (
	Fault  = yamltable.Fault
	Faults = yamltable.Faults
	Ref    = yamltable.Ref
	Key    = yamltable.Key
)

// Size is a number of bytes as the file has it: 64KiB for 65536.
func Size(n int64) string { return yamltable.Size(n) }

// DefaultPrefix is that of our own endpoints where the file says nothing.
const DefaultPrefix = "/.sallyport"

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
	Reload    Reload
	Store     Store
	Grants    Grants

	// Organizations are what those of providers are folded into.
	Organizations []Organization
	// Operators see on their account page what providers are asked for.
	Operators []Rule

	// TrustedProxies are those before us whose X-Forwarded-* count; an address
	// is a range of one.
	TrustedProxies []netip.Prefix

	version int
	types   Types
	doc     yamltable.Document
}

// Session says how long a session lasts and what seals it.
type Session struct {
	Keys                         []Ref
	KeyTexts                     []KeyText // after Resolve; those of a directory by name; assemble orders all by age
	AbsoluteTimeout, IdleTimeout time.Duration
	CookieName                   string // "" where it is the usual one
	CookieDomain                 string // "" where each host has a cookie of its own
	KeepCache                    bool   // signing out leaves the browser's cache alone
	// MaxAge is how old what is known of sessions that ended on other servers may be.
	MaxAge time.Duration
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
	BaseURL                  string          // github: of a GitHub Enterprise Server; "": github.com
	AllowedOrgs              []string        // github: whose members may come; nil: everybody
	ClientSecret             Ref             // zero if ClientAuth sends none
	ClientAuth               string
	Use                      string
	ReauthAfter              time.Duration // login.NoReauth: never; 0: as the provider says
	DiscoveryToken           Ref           // with use: tokens; its file is to be read again for each use
	ClientAssertion          Ref           // with assertion; its file is to be read again for each use
	ClientKey                Ref           // with private_key_jwt, PEM
	ClientKeyID              string
	Scopes                   []string
	Claims                   Claims
	IdentityFrom             string
	EmailDomains             []string // nil: it may vouch for any
	TrustedAudiences         []string // who else may stand in the aud of ID tokens
	SignOut                  SignOut  // at the provider too
	NoBackchannelLogout      bool     // who signs out there is not signed out here
	Directory                Directory
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
	PublicIf Conditions // when it is Public, if not always
	Allow    Allow      // zero if it is always Public
	Headers  Headers

	WebSocket WebSocket
	Encoded   bool  // escaped / % # ? ; and letters that are not UTF-8 pass in the path
	Doubled   bool  // so do two slashes in a row
	MaxBody   int64 // bytes of a request's body; 0 is no limit
	NoVia     bool  // the app is not told of a proxy by Via
	// SiteHeaders of the app's answers pass although they speak for the whole site.
	SiteHeaders []string
	Bearer      Bearer
	CORS        CORS
	MaxAge      time.Duration // as in Session; 0: as there
	Proof       identity.Proof
}

// Allow says who may pass: everybody who is signed in, or whom a rule of Any matches.
type Allow struct {
	Authenticated bool
	Any           []Rule
}

// Rule matches a person of whom all that is given holds, by one entry each.
type Rule struct {
	Authenticated                      bool // everybody who is signed in; then no other fact is given
	Orgs, Groups, Emails, EmailDomains []string
	Subjects                           []string // the id of a provider, a colon, the subject there
	Methods                            []string // as in Conditions
	From                               []netip.Prefix
	InsecureFlatGroups                 bool
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
	Ended       int // sessions that ended and are remembered apart
}

// Parse reads a file. The faults are all that can be found without looking
// anywhere else; with faults there is no Config. name is for messages.
func Parse(name string, data []byte) (*Config, Faults) { return Types(nil).Parse(name, data) }

// Parse is the function Parse for a program that has further types of connectors.
func (t Types) Parse(name string, data []byte) (*Config, Faults) {
	c := &Config{doc: yamltable.Open(name, data), types: t}
	if faults := yamltable.Read(c.doc, file(t), foreign, c, c.crossCheck); len(faults) > 0 {
		return nil, faults
	}
	return c, nil
}

// Listeners reads what the file says of listeners and prefix, whatever else is wrong with it: a
// process goes on with these when it refuses a file that was changed, or does not start. The
// faults are all of the file, and come if these cannot be read.
func (t Types) Listeners(name string, data []byte) (*Config, Faults) {
	c := &Config{doc: yamltable.Open(name, data), types: t}
	faults := yamltable.Read(c.doc, file(t), foreign, c, c.crossCheck)
	of := func(f Fault) bool {
		key, _, _ := strings.Cut(f.Path, ".")
		return key == "listen" || key == "prefix"
	}
	if len(faults) > 0 && (c.Prefix == "" || slices.ContainsFunc(faults, of)) {
		return nil, faults
	}
	return c, nil
}

// Keys are all keys of the file, in the order of the table.
func Keys() []Key { return yamltable.Keys(file(nil)) }

// Schema is the JSON Schema of the file. It allows somewhat more than Parse does:
// no schema knows that two routes overlap.
func Schema() []byte { return Types(nil).Schema() }

// Schema is the function Schema for a program that has further types of connectors.
func (t Types) Schema() []byte { return yamltable.JSONSchema("Sallyport configuration", file(t)) }

// Fault is for what a neighbour finds wrong: it points at the value of path
// ("routes[2].path"), or at what would hold it if the file leaves it out.
func (c *Config) Fault(path string, format string, args ...any) Fault {
	return c.doc.Finish(Faults{c.doc.FaultAt(path, format, args...)})[0]
}

// Warnings are what is allowed but should not stay so; to be logged at start.
func (c *Config) Warnings() []Fault {
	warnings := c.doc.InFile("literal: keeps a secret in the file; it is for tests, use file: or env:")
	return c.doc.Finish(slices.Concat(warnings, c.flatGroupWarnings(), c.bareGroupWarnings(), c.patternWarnings(),
		c.storeWarnings(), c.proxyProtocolWarnings(), c.overrideWarnings(), c.nameWarnings(), c.loopWarnings(),
		c.externalAuthWarnings(), c.proofWarnings(), c.lendWarnings()))
}

// file is the table of all keys: the reader and the schema are made from it.
func file(t Types) yamltable.Shape[Config] {
	return yamltable.Object[Config]{Keys: []yamltable.Entry[Config]{
		yamltable.Field("version", "The version of this format, not of Sallyport or of your app: 1.",
			yamltable.Number(1, 1),
			func(c *Config) *int { return &c.version }).Required(),
		yamltable.Field("public_url", "Where browsers find Sallyport: scheme, host and port. Callback URLs are made "+
			"from it. Plain http is for loopback hosts only.",
			yamltable.ValueOrRef("an absolute URL such as https://app.example.com",
				`^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+/?$`,
				parsePublicURL),
			func(c *Config) **url.URL { return &c.PublicURL }).Required(),
		yamltable.Field("prefix", "The path below which Sallyport answers itself.",
			yamltable.Pattern("a path such as /.sallyport, of letters, digits and -._~, without a slash at its end",
				prefixPattern),
			func(c *Config) *string { return &c.Prefix }).Or(DefaultPrefix),
		yamltable.Field("listen", "Where to accept connections.", listenShape(),
			func(c *Config) *Listen { return &c.Listen }).Or("{}"),
		yamltable.Field("trusted_proxies", "Addresses and ranges of the proxies before Sallyport. Only their "+
			"X-Forwarded-For, -Proto and -Host count; nobody's if it is empty.",
			yamltable.List(proxyRange(), 0), func(c *Config) *[]netip.Prefix { return &c.TrustedProxies }).Or("[]"),
		yamltable.Field("session", "How long a session lasts and what seals it.", sessionShape(),
			func(c *Config) *Session { return &c.Session }).Required(),
		yamltable.Field("store", "Where it is kept which sessions ended before their time, for restarts and for all "+
			"servers that share it: a file of SQLite on one machine, or PostgreSQL. In the memory of this process "+
			"alone if left out.",
			storeShape(), func(c *Config) *Store { return &c.Store }),
		yamltable.Field("providers", "The identity providers people sign in with.", yamltable.List(providerShape(), 1),
			func(c *Config) *[]Provider { return &c.Providers }).Required(),
		yamltable.Field("organizations", "Organizations that providers know under several ids, or by verified e-mail "+
			"domains, each folded into one.", organizationsShape(),
			func(c *Config) *[]Organization { return &c.Organizations }),
		yamltable.Field("routes", "What is behind Sallyport and who may have it. The most specific host wins, in it "+
			"the longest path.", yamltable.List(routeShape(), 1),
			func(c *Config) *[]Route { return &c.Routes }).Required(),
		yamltable.Field("grants", "What people may lend to apps: accounts that they have elsewhere. Nothing if left "+
			"out. Needs a `store`, and `listen.grants` unless every app has a `socket`.",
			grantsShape(t), func(c *Config) *Grants { return &c.Grants }),
		yamltable.Field("groups", "Which groups of a person are kept.", groupsShape(),
			func(c *Config) *Groups { return &c.Groups }).Or("{}"),
		yamltable.Field("operators", "Who runs this site, as rules: their account page says what providers are asked "+
			"for.",
			yamltable.List(ruleObject().Shape(), 1),
			func(c *Config) *[]Rule { return &c.Operators }),
		yamltable.Field("pages", "How Sallyport's own pages look.", pagesShape(),
			func(c *Config) *Pages { return &c.Pages }).Or("{}"),
		yamltable.Field("log", "What is logged and how.", logShape(), func(c *Config) *Log { return &c.Log }).Or("{}"),
		yamltable.Field("stop", "How Sallyport ends after SIGTERM.", stopShape(),
			func(c *Config) *Stop { return &c.Stop }).Or("{}"),
		yamltable.Field("limits", "What a request may cost.", limitsShape(),
			func(c *Config) *Limits { return &c.Limits }).Or("{}"),
		yamltable.Field("reload", "When the configuration is read again while Sallyport runs.", reloadShape(),
			func(c *Config) *Reload { return &c.Reload }).Or("{}"),
	}}.Shape()
}

func sessionShape() yamltable.Shape[Session] {
	return yamltable.Object[Session]{Keys: []yamltable.Entry[Session]{
		yamltable.Field("keys", "The session keys, as `sallyport genkey` prints them. All open sessions; the newest "+
			"that is ten minutes old seals them. dir: stands for every file in a directory, each of them a key, "+
			"except names that begin with a dot.",
			yamltable.List(yamltable.SecretRef(yamltable.FormFile, yamltable.FormDir, yamltable.FormEnv,
				yamltable.FormLiteral),
				1), func(s *Session) *[]Ref { return &s.Keys }).Required(),
		yamltable.Field("absolute_timeout", "After this a person signs in again, whatever happened since.",
			yamltable.Duration(time.Minute, 720*time.Hour),
			func(s *Session) *time.Duration { return &s.AbsoluteTimeout }).Or("12h"),
		yamltable.Field("idle_timeout", "After this without a page being opened, or /.sallyport/session being asked, "+
			"a person signs in again.",
			yamltable.Duration(time.Minute, 720*time.Hour),
			func(s *Session) *time.Duration { return &s.IdleTimeout }).Or("1h"),
		yamltable.Field("cookie_name", "The session cookie's name behind __Host-, where several Sallyports have one "+
			"host (ports or paths do not keep cookies apart): sallyport- and a word of your own. The usual one is "+
			"sallyport.",
			cookieName(), func(s *Session) *string { return &s.CookieName }),
		yamltable.Field("cookie_domain", "A domain whose hosts share one session cookie, public_url's host and all "+
			"hosts of routes for which people sign in among them. Whoever has any host below it can use the sessions "+
			"of the people who come there. If left out, each host has a cookie of its own, which no other host can "+
			"read or set.",
			cookieDomain(), func(s *Session) *string { return &s.CookieDomain }),
		yamltable.Field("clear_cache", "`false`: signing out, switching organizations and signing in as somebody else "+
			"leave the browser's cache of this site alone, which takes seconds where it is large. For apps that "+
			"send no-store with what is personal. It is cleared if left out.",
			yamltable.OnlyFalse(), func(s *Session) *bool { return &s.KeepCache }),
		yamltable.Field("revocation", "What holds while the store cannot be read, so that nobody knows who signed "+
			"out on another server: `strict` closes routes that need a session at once, `stale 5m` after five "+
			"minutes. Needs a store.",
			revocation(), func(s *Session) *time.Duration { return &s.MaxAge }).Or("stale 5m"),
	}, Check: checkSession}.Shape()
}

func providerShape() yamltable.Shape[Provider] {
	return yamltable.Object[Provider]{Keys: []yamltable.Entry[Provider]{
		yamltable.Field("id", "The name in callback URLs and in every identity. Never give it to another issuer.",
			idText(),
			func(p *Provider) *string { return &p.ID }).Required(),
		yamltable.Field("type", "The kind of provider.", providerType(),
			func(p *Provider) *string { return &p.Type }).Required(),
		yamltable.Field("name", "The name on the sign-in page; the id if left out.",
			yamltable.Text("a name for people"),
			func(p *Provider) *string { return &p.Name }),
		yamltable.Field("use", "What the provider is for: people sign in there (sign_in), or only programs come with "+
			"access tokens that it issued, for routes and apps with `bearer` (tokens).",
			yamltable.OneOf("", login.UseSignIn, login.UseTokens),
			func(p *Provider) *string { return &p.Use }).Or(login.UseSignIn),
		yamltable.Field("discovery_token", "With `use: tokens`: the file with the token that the provider asks for "+
			"before it shows its discovery document and keys, such as a Kubernetes service account's. It is read "+
			"again each time.",
			checkedRef(login.CheckClientAssertion, yamltable.FormFile),
			func(p *Provider) *Ref { return &p.DiscoveryToken }),
		yamltable.Field("issuer", "The issuer, exactly as the provider writes it. The types of vendors know their own.",
			urlText(parseIssuer), func(p *Provider) *string { return &p.Issuer }),
		yamltable.Field("endpoints", "Addresses that count instead of those in the discovery document. With "+
			"authorization and token nobody asks for that document.",
			endpointsShape(), func(p *Provider) *login.Endpoints { return &p.Endpoints }),
		yamltable.Field("ca", "Who may vouch for the provider's https, PEM, wherever Sallyport asks it itself; whom "+
			"this system trusts if left out.", authorities(),
			func(p *Provider) *Ref { return &p.CA }),
		yamltable.Field("client_id", "The client id the provider gave out. Required, unless with `use: tokens`.",
			yamltable.ValueOrRef("a client id", `^[!-~]([ -~]*[!-~])?$`, parseClientID),
			func(p *Provider) *string { return &p.ClientID }),
		yamltable.Field("client_secret", "The client secret. Left out with `client_auth: none`, assertion and "+
			"private_key_jwt.", clientSecret(), func(p *Provider) *Ref { return &p.ClientSecret }),
		yamltable.Field("client_auth", "How the client proves itself: the secret in an Authorization header (basic) "+
			"or in the body (post), or as the provider prefers (auto); "+
			"a token from a file (assertion); one that Sallyport signs (private_key_jwt); not at all (none).",
			yamltable.OneOf("", "auto", "basic", "post", "none", "assertion",
				"private_key_jwt"), func(p *Provider) *string { return &p.ClientAuth }).Or("auto"),
		yamltable.Field("client_assertion", "With `client_auth: assertion`: the file with the token that proves the "+
			"client, such as a Kubernetes service account's. It is read again for each sign-in.",
			checkedRef(login.CheckClientAssertion, yamltable.FormFile),
			func(p *Provider) *Ref { return &p.ClientAssertion }),
		yamltable.Field("client_key", "With `client_auth: private_key_jwt`: the private key, PEM; its public key is "+
			"registered at the provider.",
			yamltable.Judged(yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv),
				login.CheckClientKey), func(p *Provider) *Ref { return &p.ClientKey }),
		yamltable.Field("client_key_id", "The key's id (kid) at the provider, where it gave one. Not said if left out.",
			yamltable.Text("the id of a key"), func(p *Provider) *string { return &p.ClientKeyID }),
		yamltable.Field("scopes", "What to ask for; openid must be among them. What the type needs if left out: "+
			"openid, profile and email for oidc.",
			yamltable.List(yamltable.Pattern("a scope", `^[!#-\[\]-~]+$`), 1),
			func(p *Provider) *[]string { return &p.Scopes }),
		yamltable.Field("claims", "The names under which this provider tells things, where they are not the usual "+
			"ones. A path such as realm_access.roles leads into objects.", claimsShape(),
			func(p *Provider) *Claims { return &p.Claims }).Or("{}"),
		yamltable.Field("identity_from", "Where claims are read: auto asks the userinfo endpoint only for what is "+
			"missing from the ID token.",
			yamltable.OneOf("", "auto", "id_token", "userinfo"),
			func(p *Provider) *string { return &p.IdentityFrom }).Or("auto"),
		yamltable.Field("reauth_after", "How long a sign-in is believed before the provider is asked again, without "+
			"the person, whether it is still true; `never`: for as long as the session lasts. If left out, 1h for "+
			"the types google and microsoft, and for oidc where the provider says that it answers prompt=none; never "+
			"for the others. At type github people may have to sign in there for it.",
			reauthAfter(), func(p *Provider) *time.Duration { return &p.ReauthAfter }),
		yamltable.Field("email_domains", "The domains this provider may vouch for; addresses outside count as "+
			"unverified. Required for type oidc where there are two providers.",
			yamltable.List(domain(), 1), func(p *Provider) *[]string { return &p.EmailDomains }),
		yamltable.Field("trusted_audiences", "What may stand in the aud of ID tokens beside the client id, such as "+
			"another client or project. Then azp must be the client id. "+
			"Whoever it is gets tokens that would sign people in here.",
			yamltable.List(yamltable.Text("an audience"), 1),
			func(p *Provider) *[]string { return &p.TrustedAudiences }),
		yamltable.Field("logout", "Signing out at the provider too: `false` does not offer it; a mapping says what "+
			"the provider needs for it. As the discovery document says if left out.",
			signOutShape(), func(p *Provider) *SignOut { return &p.SignOut }),
		yamltable.Field("backchannel_logout", "Whether the provider may say that somebody signed out there, which "+
			"ends their sessions here (OpenID Connect Back-Channel Logout). It needs a `store`. auto: where the type "+
			"is oidc and the provider signs with keys of its own; `sallyport check` prints the address to register.",
			autoOrFalse(), func(p *Provider) *bool { return &p.NoBackchannelLogout }).Or("auto"),
		yamltable.Field("public_keys", "type oidc: the provider's signing keys, instead of published ones. PEM, "+
			"public keys or certificates; old and new ones while they change.",
			yamltable.List(publicKeyRef(), 1), func(p *Provider) *[]Ref { return &p.PublicKeys }),
		yamltable.Field("quirks", "type oidc: deviations from the standard that this provider is allowed. Each "+
			"weakens something; docs/providers/oidc.md says what.",
			yamltable.List(yamltable.OneOf("", login.QuirkNames()...), 1),
			func(p *Provider) *[]string { return &p.Quirks }),
		yamltable.Field("hosted_domains", "type google: only people of these Google Workspace domains. Everybody "+
			"with a Google account if left out.",
			yamltable.List(domain(), 1), func(p *Provider) *[]string { return &p.HostedDomains }),
		yamltable.Field("tenant", "type microsoft: common for every account, organizations, consumers for personal "+
			"ones, or the GUID or domain of one tenant.",
			yamltable.Pattern("common, organizations, consumers, or the GUID or domain of a tenant in lower case",
				`^`+labels+`$`), func(p *Provider) *string { return &p.Tenant }),
		yamltable.Field("allowed_tenants", "type microsoft, with tenant common or organizations: only people of these "+
			"tenants, by GUID.",
			yamltable.List(yamltable.Pattern("the GUID of a tenant in lower case", guidPattern),
				1), func(p *Provider) *[]string { return &p.AllowedTenants }),
		yamltable.Field("base_url", "type github: the address of a GitHub Enterprise Server, or of an enterprise at "+
			"ghe.com. https://github.com if left out.", urlText(parseBaseURL),
			func(p *Provider) *string { return &p.BaseURL }),
		yamltable.Field("allowed_orgs", "type github: only members of these organizations, by number in quotes: the "+
			"id that https://api.github.com/orgs/LOGIN answers. Only they and their teams count. Everybody with an "+
			"account if left out, and then no team counts.",
			yamltable.List(githubOrg(), 1), func(p *Provider) *[]string { return &p.AllowedOrgs }),
		yamltable.Field("directory", "type google: administrators of a Workspace may have Sallyport read, once, the "+
			"customer id, name and primary domain of their organization from Google. Nobody may if left out. It "+
			"needs a `store`.", directoryShape(), func(p *Provider) *Directory { return &p.Directory }),
	}, Check: checkProvider}.Shape()
}

func endpointsShape() yamltable.Shape[login.Endpoints] {
	address := urlText(parseEndpoint)
	return yamltable.Object[login.Endpoints]{Some: true, Keys: []yamltable.Entry[login.Endpoints]{
		yamltable.Field("authorization", "Where the browser is sent.", address,
			func(e *login.Endpoints) *string { return &e.AuthorizationURL }),
		yamltable.Field("token", "Where the code is redeemed.", address,
			func(e *login.Endpoints) *string { return &e.TokenURL }),
		yamltable.Field("userinfo", "Where claims about the person are read.", address,
			func(e *login.Endpoints) *string { return &e.UserinfoURL }),
		yamltable.Field("jwks", "Where the provider's signing keys are.", address,
			func(e *login.Endpoints) *string { return &e.JWKSURL }),
		yamltable.Field("end_session", "Where a person signs out.", address,
			func(e *login.Endpoints) *string { return &e.EndSessionURL }),
		yamltable.Field("graph", "type microsoft: the origin of Graph, where a national cloud has its own.", address,
			func(e *login.Endpoints) *string { return &e.GraphURL }),
	}}.Shape()
}

// autoOrFalse reads false as true: what it switches off is off.
func autoOrFalse() yamltable.Shape[bool] {
	word := yamltable.OneOf("auto or false", "auto")
	return yamltable.Shape[bool]{Want: word.Want, Schema: yamltable.Schema{"enum": []any{"auto", false}},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *bool) {
			if at.Node.Tag == "!!bool" && at.Node.Value == "false" {
				*into = true
				return
			}
			var v string
			word.Read(w, at, &v)
		}}
}

func signOutShape() yamltable.Shape[SignOut] {
	off := yamltable.Within(yamltable.OnlyFalse(), func(s *SignOut) *bool { return &s.Off })
	full := yamltable.Object[SignOut]{Some: true, Keys: []yamltable.Entry[SignOut]{
		yamltable.Field("url", "Where a person signs out, instead of endpoints.end_session and of what discovery says.",
			urlText(parseEndpoint), func(s *SignOut) *string { return &s.URL }),
		yamltable.Field("return_param", "The parameter that carries the address of our page, "+
			"<public_url>/.sallyport/logout, to which the provider sends people back: "+
			"post_logout_redirect_uri by the standard, logout_uri at Cognito. Register that address at the provider "+
			"first. It is not sent if left out.",
			parameterName(), func(s *SignOut) *string { return &s.ReturnParam }),
		yamltable.Field("params", "Further parameters, as the provider wants them. client_id is sent in any case.",
			parameters(), func(s *SignOut) *map[string]string { return &s.Params }),
	}, Check: checkSignOut}.Shape()
	return yamltable.Either("false or a mapping", off, yamltable.Mapping, full)
}

func claimsShape() yamltable.Shape[Claims] {
	claim := yamltable.Text("the name of a claim")
	return yamltable.Object[Claims]{Keys: []yamltable.Entry[Claims]{
		yamltable.Field("org_id", "The claim with the organization's id.", claim,
			func(c *Claims) *string { return &c.OrgID }),
		yamltable.Field("org_name", "The claim with the organization's name.", claim,
			func(c *Claims) *string { return &c.OrgName }),
		yamltable.Field("org_domain", "The claim with the organization's domain.", claim,
			func(c *Claims) *string { return &c.OrgDomain }),
		yamltable.Field("orgs", "The claim with all organizations: a list of ids, or of mappings with id, name and "+
			"domain, or a mapping of such mappings. Has no usual name.", claim,
			func(c *Claims) *string { return &c.Orgs }),
		yamltable.Field("groups", "The claim with the person's groups: a list, or a mapping whose keys are the "+
			"groups and whose values name the organizations in which they count.", claim,
			func(c *Claims) *string { return &c.Groups }),
		yamltable.Field("username", "The claim with the person's user name.", claim,
			func(c *Claims) *string { return &c.Username }),
		yamltable.Field("name", "The claim with the person's name.", claim, func(c *Claims) *string { return &c.Name }),
		yamltable.Field("email", "The claim with the person's e-mail address.", claim,
			func(c *Claims) *string { return &c.Email }),
	}}.Shape()
}

func routeShape() yamltable.Shape[Route] {
	return yamltable.Object[Route]{Keys: append([]yamltable.Entry[Route]{
		yamltable.Field("name", "The name in logs and metrics.", idText(),
			func(r *Route) *string { return &r.Name }).Required(),
		yamltable.Field("host", "The host, *.example.com for all names below, or {org}.example.com for one of each "+
			"of the organizations; the host of public_url if left out.",
			routeHost(), func(r *Route) *string { return &r.Host }),
		yamltable.Field("path", "This path and all below it: /admin covers /admin/x, not /administrator.", routePath(),
			func(r *Route) *string { return &r.Path }),
		yamltable.Field("path_exact", "This path and nothing below "+
			"it.", yamltable.Within(routePath(), func(r *Route) *string { r.Exact = true; return &r.Path }),
			func(r *Route) *Route { return r }),
		yamltable.Field("upstream", "The app: http://host:port, https://host:port, h2c://host:port (HTTP/2 without "+
			"TLS) or unix:/path.sock; or a mapping with a url. Required, unless another "+
			"proxy asks about the route (listen.external_auth) and passes its requests on itself.",
			upstreamShape(), func(r *Route) *Upstream { return &r.Upstream }),
		yamltable.Field("public", "Everybody may have it, without signing in; the app is told of nobody. A "+
			"mapping says for which requests: where it does not hold, allow decides, and without one it is refused.",
			publicShape(), func(r *Route) *Route { return r }),
		yamltable.Field("allow", "Who may have it: `authenticated` for everybody who is signed in, or a list of "+
			"rules of which one must match.",
			allowShape(), func(r *Route) *Allow { return &r.Allow }),
		yamltable.Field("headers", "What the app is told about the person.", headersShape(),
			func(r *Route) *Headers { return &r.Headers }).Or("{}"),
		yamltable.Field("websocket", "WebSockets pass, from pages of the route's own site and of the origins that are "+
			"listed. None pass if left out.",
			webSocketShape(), func(r *Route) *WebSocket { return &r.WebSocket }),
		yamltable.Field("encoded", "`forward`: an escaped / % # ? or ; passes in the path, as GitLab, RabbitMQ, "+
			"CalDAV and npm registries need it, and so do letters that are not UTF-8. Refused if left out.",
			forwardOrRefused(), func(r *Route) *bool { return &r.Encoded }),
		yamltable.Field("doubled_slashes", "`forward`: two slashes in a row pass in the path, but not at its "+
			"beginning. Refused if left out.",
			forwardOrRefused(), func(r *Route) *bool { return &r.Doubled }),
		yamltable.Field("max_body", "The largest body of a request; no limit if left out.",
			yamltable.SizeBetween(1, 1<<40),
			func(r *Route) *int64 { return &r.MaxBody }),
		yamltable.Field("via", "`false`: the app gets no Via header, for apps that do not compress for proxies. It "+
			"gets one if left out.",
			yamltable.OnlyFalse(), func(r *Route) *bool { return &r.NoVia }),
		yamltable.Field("site_headers", "Headers of the app's answers that pass although they speak for the whole "+
			"site. They are dropped if left out.",
			yamltable.List(yamltable.OneOf("", "Alt-Svc", "NEL"), 1),
			func(r *Route) *[]string { return &r.SiteHeaders }),
		yamltable.Field("bearer", "Programs may come with an access token of a provider in the Authorization header, "+
			"instead of a session. Without it that header is the app's.",
			bearerShape(), func(r *Route) *Bearer { return &r.Bearer }),
		yamltable.Field("revocation", "As session.revocation, for this route.", revocation(),
			func(r *Route) *time.Duration { return &r.MaxAge }),
		yamltable.Field("cors", "Pages of other sites that may read what is answered here, and send more than plain "+
			"requests. Sallyport answers their preflights, and what the app says on the subject does not count. If it "+
			"is left out the app says it, and preflights need a session like all else.",
			corsShape(), func(r *Route) *CORS { return &r.CORS }),
	}, proofKeys()...), Check: checkRoute, Conditional: "public",
		Rivals: [][]string{{"public", "bearer"}, {"public", "revocation"}, {"public", "max_age"}, {"public", "acr"}},
		Choices: []yamltable.Choice{
			{Names: []string{"path", "path_exact"}, None: "needs a path or a path_exact"},
			{Names: []string{"public", "allow"}, None: "does not say who may have it: write `allow: authenticated`, " +
				"a list of rules, or `public: true`"},
		}}.Shape()
}

func allowShape() yamltable.Shape[Allow] {
	want := "`authenticated` or a list of rules"
	everybody := yamltable.Shape[Allow]{Want: want, Schema: yamltable.Schema{"const": "authenticated"},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *Allow) {
			switch v := at.Node.Value; {
			case yamltable.IsText(at.Node) && v == "authenticated":
				into.Authenticated = true
			case yamltable.IsText(at.Node) &&
				slices.Contains([]string{"all", "any", "anonymous", "everybody", "everyone",
					"public", "*"}, v):
				w.Fault(at, "must be %s, not %s; for everybody, without signing in, write `public: true` instead of "+
					"allow", want,
					yamltable.Quote(v))
			case yamltable.IsText(at.Node) && yamltable.Nearest(v, []string{"authenticated"}) == "":
				w.Suggest(at, yamltable.ListOf(ruleFor(v)), "must be %s, not %s", want, yamltable.Quote(v))
			default:
				var word string
				yamltable.OneOf(want, "authenticated").Read(w, at, &word)
			}
		}}
	shape := yamltable.Either(want, everybody, yamltable.Sequence,
		yamltable.Within(yamltable.List(routeRuleShape(), 1), func(a *Allow) *[]Rule { return &a.Any }))
	read := shape.Read
	shape.Read = func(w *yamltable.Walker, at yamltable.Place, into *Allow) {
		if n := at.Node.Content; at.Node.Kind == yamltable.Sequence && len(n) == 1 && n[0].Value == "authenticated" {
			w.Suggest(at, "authenticated", "must be %s: the word stands alone, and not in a list", want)
			return
		}
		read(w, at, into)
	}
	return shape
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

// routeRuleShape is a rule of a route: it may be for everybody who is signed in, and besides
// who may pass it says with which requests.
func routeRuleShape() yamltable.Shape[Rule] {
	rule := ruleObject(yamltable.Field("authenticated", "Everybody who is signed in, as `allow: authenticated`; for a "+
		"rule that methods or from narrow.",
		yamltable.OnlyTrue(), func(r *Rule) *bool { return &r.Authenticated }),
		methodsKey(func(r *Rule) *[]string { return &r.Methods }).Narrows(),
		fromKey(func(r *Rule) *[]netip.Prefix { return &r.From }).Narrows())
	for _, who := range []string{"orgs", "groups", "emails", "email_domains", "subjects", "insecure_flat_groups"} {
		rule.Rivals = append(rule.Rivals, []string{"authenticated", who})
	}
	return rule.Shape()
}

func ruleObject(more ...yamltable.Entry[Rule]) yamltable.Object[Rule] {
	return yamltable.Object[Rule]{Some: true, Instead: ruleFor, Check: checkRule, Keys: append([]yamltable.Entry[Rule]{
		yamltable.Field("orgs", "Ids of organizations: the person belongs to one of them.",
			yamltable.List(exact("the id of an organization"), 1), func(r *Rule) *[]string { return &r.Orgs }),
		yamltable.Field("groups", "Groups: the person is in one of them.",
			yamltable.List(exact("the name of a group"), 1),
			func(r *Rule) *[]string { return &r.Groups }),
		yamltable.Field("emails", "Verified e-mail addresses.", yamltable.List(emailAddress(), 1),
			func(r *Rule) *[]string { return &r.Emails }),
		yamltable.Field("email_domains", "Domains of verified e-mail addresses.", yamltable.List(domain(), 1),
			func(r *Rule) *[]string { return &r.EmailDomains }),
		yamltable.Field("subjects", "People, or programs with access tokens, by their id: that of the provider, a "+
			"colon, and the subject there, as apps are told it.",
			yamltable.List(exact("an id such as sso:248289761001"), 1),
			func(r *Rule) *[]string { return &r.Subjects }),
		flatGroupsKey(),
	}, more...)}
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

func pagesShape() yamltable.Shape[Pages] {
	return yamltable.Object[Pages]{Keys: []yamltable.Entry[Pages]{
		yamltable.Field("name", "The name of the site, for the sign-in page.", yamltable.Text("a name for people"),
			func(p *Pages) *string { return &p.Name }),
		yamltable.Field("logo", "The logo for the sign-in page, an .svg or .png file.", logoFile(),
			func(p *Pages) *Pages { return p }),
	}}.Shape()
}

func logShape() yamltable.Shape[Log] {
	return yamltable.Object[Log]{Instead: among("level", "debug", "info", "warn", "error"),
		Keys: []yamltable.Entry[Log]{
			yamltable.Field("level", "The least that is logged.", yamltable.OneOf("", "debug", "info", "warn", "error"),
				func(l *Log) *string { return &l.Level }).Or("info"),
			yamltable.Field("format", "How it is written: auto is text on a terminal, JSON elsewhere.",
				yamltable.OneOf("", "auto", "json", "text"), func(l *Log) *string { return &l.Format }).Or("auto"),
			yamltable.Field("audit", "Where the audit stream goes: who signed in and out, who was refused what, what "+
				"operators did. A file is appended to, and opened anew when it was renamed. There is no audit stream "+
				"if it is left out.",
				auditTarget(), func(l *Log) *string { return &l.Audit }),
		}}.Shape()
}

func stopShape() yamltable.Shape[Stop] {
	return yamltable.Object[Stop]{Keys: []yamltable.Entry[Stop]{
		yamltable.Field("drain_delay", "How long to go on accepting, so that load balancers notice.",
			yamltable.Duration(0, 10*time.Minute),
			func(s *Stop) *time.Duration { return &s.DrainDelay }).Or("0s"),
		yamltable.Field("timeout", "How long requests may take to finish after that.",
			yamltable.Duration(time.Second, time.Hour),
			func(s *Stop) *time.Duration { return &s.Timeout }).Or("30s"),
	}}.Shape()
}

func limitsShape() yamltable.Shape[Limits] {
	return yamltable.Object[Limits]{Keys: []yamltable.Entry[Limits]{
		yamltable.Field("header", "The largest request header, with the request line.",
			yamltable.SizeBetween(8<<10, 1<<20),
			func(l *Limits) *int64 { return &l.Header }).Or("64KiB"),
		yamltable.Field("url", "The longest request target.", yamltable.SizeBetween(1<<10, 64<<10),
			func(l *Limits) *int64 { return &l.URL }).Or("8KiB"),
		yamltable.Field("flows", "How many sign-ins may be handled at once, in equal shares for each provider.",
			yamltable.Number(1, 65536), func(l *Limits) *int { return &l.Flows }).Or("256"),
		yamltable.Field("ended", "How many sessions that ended before their time are remembered apart, at 96 bytes "+
			"each. Of more, the older half becomes one moment: who signed in before it signs in again.",
			yamltable.Number(1000, 10_000_000), func(l *Limits) *int { return &l.Ended }).Or("1000000"),
	}, Check: checkLimits}.Shape()
}
