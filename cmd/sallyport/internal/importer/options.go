package importer

import (
	"slices"
	"strings"
	"sync"
)

// kind is how the value of an option is written.
type kind int

const (
	text kind = iota
	boolean
	list
)

// option is one of oauth2-proxy's options, and what becomes of it here.
type option struct {
	kind kind
	file string   // its key in files and, in capital letters, its variable; "": made of the flag
	also []string // other keys that count, in older versions of oauth2-proxy for example
	// to is the key that it becomes, as the code of this package maps it. Where that is
	// empty, the option is left out and why says the reason.
	to      string
	why     string
	refused bool // leaving it out has to do with security
	// same are values that mean what Sallyport does anyway.
	same   []string
	secret bool
}

// alwaysSo is what a value is mapped to that changes nothing.
const alwaysSo = "what Sallyport does anyway"

// Reasons that several options share.
const (
	noTokens = "Sallyport throws a provider's tokens away, so no app gets one; apps that must not trust the " +
		"network check the signed X-Sallyport-Assertion"
	noSessionStore = "sessions are in the browser's sealed cookie; `store` (SQLite or PostgreSQL) only keeps which " +
		"ended before their time"
	ownLog       = "Sallyport logs one event for each request, in a form of its own; see `log`"
	ownPages     = "Sallyport's pages are its own; `pages` has the name of the site and its logo"
	ownProbes    = "health checks are /livez and /readyz at listen.admin"
	ownCookie    = "Sallyport's cookies are always Secure (where public_url is https), HttpOnly and SameSite=Lax"
	noGroupsAPI  = "Sallyport does not ask Google's Admin API for groups; name people by emails or email_domains"
	deploymentOf = "belongs to the process of oauth2-proxy"
)

// names of options that code asks for by name, beside those of the table.
const (
	optUpstream      = "upstream"
	optEmailDomain   = "email-domain"
	optEmailsFile    = "authenticated-emails-file"
	optAllowedGroup  = "allowed-group"
	optSkipAuthRoute = "skip-auth-route"
	optSkipAuthRegex = "skip-auth-regex"
	optPreflight     = "skip-auth-preflight"
	optTrustedIP     = "trusted-ip"
	optReverseProxy  = "reverse-proxy"
	optTrustedProxy  = "trusted-proxy-ip"
)

// known are all options that oauth2-proxy publishes, by the names of their flags.
var known = sync.OnceValue(func() map[string]option {
	all := map[string]option{
		// Who signs in, and where.
		"provider":                      {to: "providers[].type"},
		"provider-display-name":         {to: "providers[].name"},
		"client-id":                     {to: "providers[].client_id"},
		"client-secret":                 {to: "providers[].client_secret", secret: true},
		"client-secret-file":            {to: "providers[].client_secret"},
		"oidc-issuer-url":               {to: "providers[].issuer"},
		"skip-oidc-discovery":           {kind: boolean, to: "providers[].endpoints", same: off()},
		"login-url":                     {to: "providers[].endpoints.authorization"},
		"redeem-url":                    {to: "providers[].endpoints.token"},
		"profile-url":                   {to: "providers[].endpoints.userinfo"},
		"oidc-jwks-url":                 {to: "providers[].endpoints.jwks"},
		"oidc-public-key-file":          {kind: list, to: "providers[].public_keys"},
		"oidc-email-claim":              {to: "providers[].claims.email"},
		"oidc-groups-claim":             {to: "providers[].claims.groups"},
		"user-id-claim":                 {to: "providers[].claims.email"},
		"oidc-extra-audience":           {kind: list, to: "providers[].trusted_audiences"},
		"provider-ca-file":              {kind: list, to: "providers[].ca"},
		"scope":                         {to: "providers[].scopes"},
		"azure-tenant":                  {to: "providers[].tenant"},
		"entra-id-allowed-tenant":       {kind: list, to: "providers[].allowed_tenants"},
		"entra-id-federated-token-auth": {kind: boolean, to: "providers[].client_assertion", same: off()},
		"cookie-refresh":                {to: "providers[].reauth_after"},

		"oidc-audience-claim": {kind: list, refused: true, same: []string{"aud"}, why: "whom a token is for stands " +
			"in aud (OpenID Connect Core §3.1.3.7), and nothing else is read for it"},
		"oidc-roles-claim": {refused: true, why: "roles count as groups here: providers[].claims.groups names the " +
			"one claim in which they are"},
		"oidc-enabled-signing-alg": {kind: list, why: "a token may be signed with any asymmetric algorithm for which " +
			"the provider publishes a key; HS256 needs a quirk"},
		"use-system-trust-store": {kind: boolean, same: off(), why: "providers[].ca alone vouches for the provider, " +
			"where it is there"},
		"insecure-oidc-allow-unverified-email": {kind: boolean, same: off(), refused: true, why: "an address that " +
			"nobody has verified lets nobody in: whoever may write one at the provider would be anybody; have the " +
			"provider verify, or see the quirk assume_email_verified for one that says nothing"},
		"insecure-oidc-skip-issuer-verification": {kind: boolean, same: off(), refused: true, why: "the issuer is " +
			"always compared; type microsoft knows those of Entra's tenants"},
		"insecure-oidc-skip-nonce": {kind: boolean, same: off(), refused: true, why: "the nonce is always checked; " +
			"the quirk no_nonce is for a provider that sends none"},
		"skip-claims-from-profile-url": {kind: boolean, same: off(), to: "providers[].identity_from"},
		"code-challenge-method": {same: []string{"S256"}, refused: true, why: "the code challenge is always S256: " +
			"with plain whoever reads the request can redeem the code"},
		"force-code-challenge-method": {same: []string{"S256"}, refused: true, why: "the code challenge is always " +
			"S256: with plain whoever reads the request can redeem the code"},
		"acr-values": {to: "routes[].acr"},
		"prompt": {refused: true, same: empty(), why: "the provider decides whether it asks people again: have it " +
			"demand a fresh sign-in of this client, or see routes[].max_age"},
		"approval-prompt": {why: "is from before OpenID Connect, and asks people for consent each time"},
		"resource":        {why: "says for what an access token is, and Sallyport keeps none"},
		"validate-url": {why: "access tokens are thrown away after a sign-in, so there is none to " +
			"ask about"},
		"auth-request-response-mode": {same: []string{"query", ""}, why: "codes come back in the query"},
		"backend-logout-url": {why: "signing out leads to the provider's end_session_endpoint; see " +
			"providers[].logout"},
		"jwt-key": {refused: true, secret: true, why: "is for login.gov: `client_auth: private_key_jwt` with " +
			"client_key, as file: or env:, says the same"},
		"jwt-key-file": {refused: true, why: "is for login.gov: `client_auth: private_key_jwt` with client_key says " +
			"the same"},
		"pubjwk-url": {why: "is for login.gov's old way of keys"},

		// Other kinds of providers.
		"azure-graph-group-field": {same: []string{"id"}, refused: true, why: "groups of type microsoft are known by " +
			"their ids: write those into allow"},
		"bitbucket-team":       {refused: true, why: "Bitbucket has no OpenID Connect"},
		"bitbucket-repository": {refused: true, why: "Bitbucket has no OpenID Connect"},
		"github-org": {refused: true, why: "an organization is known by its number here: what " +
			"https://api.github.com/orgs/LOGIN shows as id belongs into providers[].allowed_orgs, and github:<id> " +
			"into routes[].allow.orgs"},
		"github-team": {refused: true, why: "a team is a group here, and counts in an organization of " +
			"providers[].allowed_orgs only: write ORGANIZATION/TEAM into routes[].allow.groups"},
		"github-repo":  {refused: true, why: "who may read a repository is not asked: name organizations or teams"},
		"github-token": {secret: true, why: "GitHub is asked with nobody's token but that of the person who signs in"},
		"github-user": {kind: list, refused: true, why: "a login may be another person's one day: write github:<id> " +
			"into routes[].allow.subjects, with the id that https://api.github.com/users/LOGIN shows"},
		"gitlab-group": {kind: list, also: []string{"gitlab_group"}, to: "routes[].allow.groups"},
		"gitlab-project": {kind: list, refused: true, file: "gitlab_projects", also: []string{"gitlab_project"},
			why: "GitLab tells groups at a sign-in, and not projects; name groups"},
		"keycloak-group": {kind: list, also: []string{"keycloak_group"}, to: "routes[].allow.groups"},
		"google-group": {kind: list, refused: true, also: []string{"google_group"},
			why: noGroupsAPI},
		"google-admin-email":                         {refused: true, same: empty(), why: noGroupsAPI},
		"google-service-account-json":                {refused: true, same: empty(), why: noGroupsAPI},
		"google-use-application-default-credentials": {kind: boolean, same: off(), refused: true, why: noGroupsAPI},
		"google-target-principal":                    {refused: true, same: empty(), why: noGroupsAPI},
		"google-use-organization-id":                 {kind: boolean, same: off(), why: noGroupsAPI},
		"google-admin-api-user-scope":                {why: noGroupsAPI},

		// Who may pass.
		optEmailDomain:  {kind: list, to: "routes[].allow.email_domains"},
		optEmailsFile:   {to: "routes[].allow.emails"},
		optAllowedGroup: {kind: list, to: "routes[].allow.groups"},
		"allowed-role":  {kind: list, to: "routes[].allow.groups"},
		"htpasswd-file": {refused: true, same: empty(), why: "people sign in at the provider; Sallyport knows no " +
			"passwords"},
		"htpasswd-user-group":   {kind: list, why: "people sign in at the provider; Sallyport knows no passwords"},
		"display-htpasswd-form": {kind: boolean, same: off(), why: "there are no passwords to ask for"},
		optSkipAuthRoute:        {kind: list, to: "routes[].public"},
		optSkipAuthRegex:        {kind: list, file: "skip_auth_regex", to: "routes[].public"},
		optPreflight:            {kind: boolean, to: "routes[].public.methods", same: off()},
		optTrustedIP:            {kind: list, to: "routes[].public.from"},
		"skip-jwt-bearer-tokens": {kind: boolean, same: off(), refused: true, why: "an ID token of the sign-in lets " +
			"no program in: `bearer` of a route takes access tokens for an audience of its own"},
		"bearer-token-login-fallback": {kind: boolean, why: "a token that is not good is answered with 401"},
		"extra-jwt-issuers": {kind: list, file: "extra_jwt_issuers", refused: true, same: empty(), why: "whose " +
			"tokens count, and for what, `bearer` of a route says, with a provider that has `use: tokens`"},
		"api-route": {kind: list, why: "what is no page that a browser opens gets 401 and no redirect, on " +
			"each path"},
		"force-json-errors": {kind: boolean, same: off(), why: "programs get JSON, browsers get pages"},

		// What apps are told.
		"pass-user-headers":    {kind: boolean, to: "routes[].headers"},
		"pass-basic-auth":      {kind: boolean, to: "routes[].headers"},
		"set-xauthrequest":     {kind: boolean, to: "routes[].headers"},
		"prefer-email-to-user": {kind: boolean, to: "routes[].headers", same: off()},
		"basic-auth-password": {secret: true, same: empty(), refused: true, why: "the app gets no Authorization " +
			"header: have it read X-Forwarded-User, and let only Sallyport reach it"},
		"set-basic-auth": {kind: boolean, same: off(), refused: true, why: "the app gets no Authorization header: " +
			"have it read X-Auth-Request-User, and let only the proxy reach it"},
		"pass-access-token":         {kind: boolean, same: off(), refused: true, why: noTokens},
		"pass-authorization-header": {kind: boolean, same: off(), refused: true, why: noTokens},
		"set-authorization-header":  {kind: boolean, same: off(), refused: true, why: noTokens},
		"skip-auth-strip-headers": {kind: boolean, same: on(), refused: true, why: "what a client writes into an " +
			"identity header never reaches an app"},
		"signature-key": {secret: true, refused: true, same: empty(), why: "GAP-Signature is not sent; apps can " +
			"check the signed X-Sallyport-Assertion"},

		// Where requests go.
		optUpstream:        {kind: list, to: "routes[].upstream"},
		"upstream-timeout": {to: "routes[].upstream.timeouts.header"},
		"flush-interval":   {why: "what an app answers is passed on as it comes"},
		"pass-host-header": {kind: boolean, to: "routes[].upstream.host"},
		"proxy-websockets": {kind: boolean, to: "routes[].websocket"},
		"ssl-upstream-insecure-skip-verify": {kind: boolean, same: off(), refused: true, why: "the certificate of " +
			"an https app is always verified; routes[].upstream.ca says who may vouch for it"},
		"ssl-insecure-skip-verify": {kind: boolean, same: off(), refused: true, why: "the certificate of a provider " +
			"is always verified, or anybody on the way could say who somebody is; providers[].ca says who may vouch " +
			"for it"},
		"allow-query-semicolons": {kind: boolean, same: []string{"true", "false"}, why: "a query is passed on as " +
			"it is"},

		// The site, its proxies and its cookies.
		"redirect-url": {to: "public_url"},
		"relative-redirect-url": {kind: boolean, same: off(), why: "the redirect URI is made from public_url, on " +
			"whatever host somebody begins"},
		"whitelist-domain": {kind: list, to: "routes[].host"},
		optReverseProxy:    {kind: boolean, to: "trusted_proxies", same: off()},
		optTrustedProxy:    {kind: list, to: "trusted_proxies"},
		"real-client-ip-header": {same: []string{"X-Forwarded-For"}, why: "who the client is stands in " +
			"X-Forwarded-For, if one of trusted_proxies wrote it"},
		"force-https": {kind: boolean, same: off(), why: "Sallyport redirects nothing from http: the proxy before " +
			"it does, or nothing listens there"},
		"proxy-prefix":       {why: "Sallyport's own pages are below /.sallyport; the key `prefix` names another path"},
		"cookie-secret":      {to: "session.keys", secret: true},
		"cookie-secret-file": {to: "session.keys"},
		"cookie-expire":      {to: "session.absolute_timeout"},
		"cookie-domain": {kind: list, why: "each host gets a cookie of its own, and a sign-in is handed over; " +
			"session.cookie_domain shares one, and `check` says what that gives up"},
		"cookie-name": {why: "the cookie is __Host-sallyport; session.cookie_name adds a word to that"},
		"cookie-path": {same: []string{"/"}, why: "the cookie is for the whole host, as its prefix __Host- " +
			"demands"},
		"cookie-secure":   {kind: boolean, same: on(), why: ownCookie},
		"cookie-httponly": {kind: boolean, same: on(), why: ownCookie},
		"cookie-samesite": {same: []string{"lax"}, why: ownCookie},
		"cookie-csrf-per-request": {kind: boolean, same: []string{"true", "false"},
			why: "any number of tabs may sign in at once"},
		"cookie-csrf-per-request-limit": {why: "a browser has one such cookie, however many tabs sign in"},
		"cookie-csrf-expire":            {why: "a sign-in that was begun is good for a fixed time"},
		"cookie-csrf-samesite":          {why: ownCookie},
		"encode-state":                  {kind: boolean, same: []string{"true", "false"}, why: "the state is sealed"},
		"session-cookie-minimal": {kind: boolean, same: []string{"true", "false"},
			why: "no token is in the cookie in any case"},
		"session-store-type":             {same: []string{"cookie"}, why: noSessionStore},
		"session-refresh-lock-duration":  {why: noSessionStore},
		"session-refresh-obtain-timeout": {why: noSessionStore},
		"session-refresh-retry-period":   {why: noSessionStore},
		"redis-cluster-connection-urls": {kind: list, file: "redis_cluster_connection_urls", secret: true,
			why: noSessionStore},
		"redis-connection-url":           {secret: true, why: noSessionStore},
		"redis-ca-path":                  {why: noSessionStore},
		"redis-insecure-skip-tls-verify": {kind: boolean, why: noSessionStore},
		"redis-username":                 {secret: true, why: noSessionStore},
		"redis-password":                 {secret: true, why: noSessionStore},
		"redis-sentinel-password":        {secret: true, why: noSessionStore},
		"redis-sentinel-master-name":     {why: noSessionStore},
		"redis-sentinel-connection-urls": {kind: list, file: "redis_sentinel_connection_urls", secret: true,
			why: noSessionStore},
		"redis-use-cluster":             {kind: boolean, why: noSessionStore},
		"redis-use-sentinel":            {kind: boolean, why: noSessionStore},
		"redis-connection-idle-timeout": {why: noSessionStore},

		// Where it listens.
		"http-address":           {to: "listen.http"},
		"https-address":          {to: "listen.https.address"},
		"tls-cert-file":          {to: "listen.https.cert"},
		"tls-key-file":           {to: "listen.https.key"},
		"tls-min-version":        {same: []string{"TLS1.2"}, refused: true, why: "TLS 1.2 and 1.3 are spoken"},
		"tls-cipher-suite":       {kind: list, why: "Go's safe cipher suites are offered"},
		"metrics-address":        {to: "listen.admin"},
		"metrics-secure-address": {why: "listen.admin speaks plain http"},
		"metrics-tls-cert-file":  {why: "listen.admin speaks plain http"},
		"metrics-tls-key-file":   {why: "listen.admin speaks plain http"},
		"ping-path":              {why: ownProbes},
		"ready-path":             {why: ownProbes},
		"ping-user-agent":        {why: ownProbes},
		"gcp-healthchecks":       {kind: boolean, same: off(), why: ownProbes},

		// How its pages look.
		"skip-provider-button": {kind: boolean, same: on(), why: "with one provider people are sent there at once"},
		"custom-sign-in-logo":  {to: "pages.logo"},
		"custom-templates-dir": {why: ownPages},
		"banner":               {why: ownPages},
		"footer":               {why: ownPages},
		"show-debug-on-error": {kind: boolean, same: off(), why: "pages tell people nothing that is not theirs; " +
			"the log does"},

		// What it logs.
		"auth-logging":            {kind: boolean, why: ownLog},
		"auth-logging-format":     {why: ownLog},
		"request-logging":         {kind: boolean, why: ownLog},
		"request-logging-format":  {why: ownLog},
		"request-id-header":       {same: []string{"X-Request-Id"}, why: ownLog},
		"standard-logging":        {kind: boolean, why: ownLog},
		"standard-logging-format": {why: ownLog},
		"errors-to-info-log":      {kind: boolean, why: ownLog},
		"exclude-logging-path":    {kind: list, why: ownLog},
		"silence-ping-logging":    {kind: boolean, why: ownLog},
		"logging-filename":        {why: ownLog},
		"logging-compress":        {kind: boolean, why: ownLog},
		"logging-local-time":      {kind: boolean, why: ownLog},
		"logging-max-age":         {why: ownLog},
		"logging-max-backups":     {why: ownLog},
		"logging-max-size":        {why: ownLog},

		// What it reads.
		"config":                  {to: "what that file says, which was given too"},
		"alpha-config":            {to: "what that file says, which was given too"},
		"convert-config-to-alpha": {kind: boolean, why: deploymentOf},
		"config-test":             {kind: boolean, why: deploymentOf},
		"version":                 {kind: boolean, why: deploymentOf},
	}
	for name, o := range all {
		if o.file == "" {
			o.file = strings.ReplaceAll(name, "-", "_")
			if o.kind == list && !strings.HasSuffix(o.file, "s") {
				o.file += "s"
			}
			all[name] = o
		}
	}
	return all
})

func off() []string   { return []string{"false"} }
func on() []string    { return []string{"true"} }
func empty() []string { return []string{""} }

// isAlwaysSo reports whether all values of a setting say what Sallyport does anyway.
func (o option) isAlwaysSo(s *setting) bool {
	if s.missing || o.same == nil || len(s.values) == 0 {
		return false
	}
	for _, v := range s.values {
		if o.kind == boolean {
			if b, ok := truth(v); ok {
				v = [...]string{"false", "true"}[b]
			}
		}
		if !slices.ContainsFunc(o.same, func(same string) bool { return strings.EqualFold(same, v) }) {
			return false
		}
	}
	return true
}

// truth reads a boolean as Go does.
func truth(v string) (int, bool) {
	switch v {
	case "1", "t", "T", "TRUE", "true", "True":
		return 1, true
	case "0", "f", "F", "FALSE", "false", "False":
		return 0, true
	}
	return 0, false
}
