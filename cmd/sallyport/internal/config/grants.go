package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/connector/apikey"
	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/connector/google"
	"github.com/sallyport-proxy/sallyport/connector/ics"
	"github.com/sallyport-proxy/sallyport/connector/oauth2"
	"github.com/sallyport-proxy/sallyport/connector/outlook"
	"github.com/sallyport-proxy/sallyport/connector/pagerduty"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutyapi"
	"github.com/sallyport-proxy/sallyport/connector/pagerdutykey"
	"github.com/sallyport-proxy/sallyport/connector/slack"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
)

// Grants says what people may lend to the apps: where it comes from, and who uses it.
type Grants struct {
	Keys       []Ref     // that seal what is lent
	KeyTexts   []KeyText // after Resolve, as Session.KeyTexts
	Connectors []Connector
	Apps       []App
}

// On reports whether anything may be lent at all.
func (g Grants) On() bool { return len(g.Keys) > 0 }

// Connector is a third party at which people have accounts.
type Connector struct {
	ID, Type, Name         string
	ClientID               string
	ClientSecret           Ref
	ClientAuth             string
	Tenant                 string // outlook_calendar: whose accounts
	Region                 string // pagerduty_key: where the accounts are
	OAuthKind              string // pagerduty: which OAuth functionality the app there has
	Endpoints              ConnectorEndpoints
	Issuer, BaseURL        string
	Scopes, Rules          []Named
	Access                 []string // what is offered; nil: as the type has it
	Owner                  string   // OwnedByUser or OwnedByOrg
	ManagedBy, UsableBy    []Rule
	AuthorizationParams    map[string]string
	ForwardHeaders         []string
	NoResend               bool     // a refresh whose answer was lost is not sent again
	EndedCodes             []string // error codes that end a grant, beside invalid_grant
	Inject                 Inject
	Headers                map[string]string // that every request has
	Options                map[string]string // of a type that is in Types
	Probe, KeyHint, KeyURL string
	SigningSecrets         []Ref    // of the third party's events; none: it sends none
	AllowHosts             []string // caldav, ics: hosts that may be in a private network
}

// Whose a grant is.
const (
	OwnedByUser = string(grant.OwnedByUser)
	OwnedByOrg  = string(grant.OwnedByOrg)
)

// ConnectorEndpoints are addresses of an authorization server.
type ConnectorEndpoints struct{ Authorization, Token, Revocation string }

// Inject says how a key gets into requests.
type Inject struct {
	Header, Format string
	Basic          bool // the key is a user name and a password
}

// Named is a list that has a name, in the order of the file.
type Named struct {
	Name string
	List []string
}

// App is a program that uses what people lend.
type App struct {
	ID, Name           string
	Tokens             []Ref     // none where there is a Socket
	Socket             Socket    // zero where there are Tokens or a Bearer
	Bearer             AppBearer // of no provider where there is none
	Routes             []string
	Connectors         []AppConnector
	Offline, RawTokens bool
	EventsURL          *url.URL // nil: the app is told nothing
}

// Socket is a unix socket on which an app needs no token.
type Socket struct {
	Path string
	UIDs []int // who may connect, beside the user that Sallyport runs as
}

// AppBearer are the access tokens of a provider that prove an app: those of one of Subjects.
type AppBearer struct {
	Bearer
	Subjects []string
}

// AppConnector is what an app may ask people for. Nil Access: the only one that is offered.
type AppConnector struct {
	ID     string
	Access []string
}

func grantsShape(t Types) yamltable.Shape[Grants] {
	return yamltable.Object[Grants]{Keys: []yamltable.Entry[Grants]{
		yamltable.Field("encryption_keys", "The keys that seal what people lend, as `sallyport genkey` prints them, "+
			"and others than session.keys. All open it; the newest that is ten minutes old seals. Without them what "+
			"was lent is lost. dir: stands for every file in a directory, as in session.keys.",
			yamltable.List(yamltable.SecretRef(yamltable.FormFile, yamltable.FormDir, yamltable.FormEnv,
				yamltable.FormLiteral), 1), func(g *Grants) *[]Ref { return &g.Keys }).Required(),
		yamltable.Field("connectors", "The third parties at which people have accounts.",
			yamltable.List(connectorShape(t), 1), func(g *Grants) *[]Connector { return &g.Connectors }).Required(),
		yamltable.Field("apps", "The programs that use what people lend.",
			yamltable.List(appShape(), 1), func(g *Grants) *[]App { return &g.Apps }).Required(),
	}}.Shape()
}

func connectorShape(t Types) yamltable.Shape[Connector] {
	endpoint := plainURL(parseEndpoint)
	endpoints := yamltable.Object[ConnectorEndpoints]{Keys: []yamltable.Entry[ConnectorEndpoints]{
		yamltable.Field("authorization", "Where the browser is sent.", endpoint,
			func(e *ConnectorEndpoints) *string { return &e.Authorization }).Required(),
		yamltable.Field("token", "Where codes are redeemed and tokens refreshed.", endpoint,
			func(e *ConnectorEndpoints) *string { return &e.Token }).Required(),
		yamltable.Field("revocation", "Where a grant is ended (RFC 7009). Without it people finish that there "+
			"themselves.", endpoint, func(e *ConnectorEndpoints) *string { return &e.Revocation }),
	}}.Shape()
	inject := yamltable.Object[Inject]{Some: true, Keys: []yamltable.Entry[Inject]{
		yamltable.Field("header", "The header with the key.", yamltable.Pattern("the name of a header", headerPattern),
			func(i *Inject) *string { return &i.Header }).Or("Authorization"),
		yamltable.Field("format", "Its value, with %s for the key.", yamltable.Text(`a text such as "Bearer %s"`),
			func(i *Inject) *string { return &i.Format }).Or(`"Bearer %s"`),
		yamltable.Field("basic", "The key is a user name, a colon and a password, and is sent as HTTP Basic "+
			"(RFC 7617).", yamltable.OnlyTrue(), func(i *Inject) *bool { return &i.Basic }),
	}, Rivals: [][]string{{"header", "basic"}, {"format", "basic"}}}.Shape()
	rule := ruleObject().Shape()
	return yamltable.Object[Connector]{Keys: []yamltable.Entry[Connector]{
		yamltable.Field("id", "The name in addresses of the gateway and in callback URLs.", idText(),
			func(c *Connector) *string { return &c.ID }).Required(),
		yamltable.Field("type", "The kind of third party: one that Sallyport knows; oauth2, any that keeps to the "+
			"standard; api_key, any whose API takes a key that somebody pastes.",
			yamltable.OneOf("", slices.Concat(ConnectorTypes(), t.names())...),
			func(c *Connector) *string { return &c.Type }).Required(),
		yamltable.Field("name", "What people call it; the id if left out.", yamltable.Text("a name for people"),
			func(c *Connector) *string { return &c.Name }),
		yamltable.Field("client_id", "The client id that the third party gave out, of a client for this alone.",
			yamltable.ValueOrRef("a client id", `^[!-~]([ -~]*[!-~])?$`, parseClientID),
			func(c *Connector) *string { return &c.ClientID }),
		yamltable.Field("client_secret", "The client secret. Left out with `client_auth: none`.", clientSecret(),
			func(c *Connector) *Ref { return &c.ClientSecret }),
		yamltable.Field("client_auth", "type oauth2: how the client proves itself: the secret in an Authorization "+
			"header, form-encoded as RFC 6749 has it (basic) or as it is (basic_raw), or in the body (post); not at "+
			"all (none). basic if left out.",
			yamltable.OneOf("", "basic", "basic_raw", "post", "none"),
			func(c *Connector) *string { return &c.ClientAuth }),
		yamltable.Field("tenant", "type outlook_calendar: whose accounts may be connected: common for every account, "+
			"organizations, consumers for personal ones, or the GUID or domain of one tenant.",
			yamltable.Pattern("common, organizations, consumers, or the GUID or domain of a tenant in lower case",
				`^`+labels+`$`), func(c *Connector) *string { return &c.Tenant }),
		yamltable.Field("oauth_kind", "type pagerduty: the OAuth functionality of the app at PagerDuty: classic "+
			"(Classic User OAuth, for people of every account) or scoped (Scoped OAuth, for those of the account that "+
			"made the app, with narrower scopes). classic if left out.",
			yamltable.OneOf("", pagerduty.Classic, pagerduty.Scoped),
			func(c *Connector) *string { return &c.OAuthKind }),
		yamltable.Field("region", "type pagerduty_key: the service region of the accounts whose keys people "+
			"paste. us if left out.", yamltable.OneOf("", pagerdutyapi.US, pagerdutyapi.EU),
			func(c *Connector) *string { return &c.Region }),
		yamltable.Field("endpoints", "type oauth2: the addresses of the authorization server.", endpoints,
			func(c *Connector) *ConnectorEndpoints { return &c.Endpoints }),
		yamltable.Field("issuer", "type oauth2: the authorization server's issuer, where it says it in callbacks "+
			"(RFC 9207). A callback that names another one is refused. With the scope openid, its ID token then also "+
			"says whose account it is.", plainURL(parseIssuer),
			func(c *Connector) *string { return &c.Issuer }),
		yamltable.Field("base_url",
			"types oauth2, api_key and caldav: where the API is: an origin, and perhaps a path in "+
				"front of all others. types jira, grafana_irm_key and github: the same, of your own site. "+
				"Other types: a pretend third party on loopback, for tests.",
			plainURL(parseIssuer), func(c *Connector) *string { return &c.BaseURL }),
		yamltable.Field("scopes", "type oauth2: what each access needs, as the third party spells it, the narrowest "+
			"access first.", namedLists("an access to scopes", "a scope", `^[!#-\[\]-~]+$`, nil),
			func(c *Connector) *[]Named { return &c.Scopes }),
		yamltable.Field("rules", "types oauth2 and api_key: what each access lets through to the API: a method, a "+
			"blank and a path. In the path, * is one segment, and at its end one or more; {id}, or another name "+
			"in braces, is exactly one; a slash at the end counts otherwise; GET covers HEAD.",
			namedLists("an access to rules", "a method and a path such as GET /rest/*", `^[A-Z]+ /[^ ]*$`,
				checkLendRule),
			func(c *Connector) *[]Named { return &c.Rules }),
		yamltable.Field("access", "The accesses that are offered to apps. All that are in scopes or rules if left "+
			"out; with other types the narrowest.",
			yamltable.List(accessName(), 1), func(c *Connector) *[]string { return &c.Access }),
		yamltable.Field("owner", "Whose a grant is: each person's own (user), or one for all of an organization (org).",
			yamltable.OneOf("", OwnedByUser, OwnedByOrg),
			func(c *Connector) *string { return &c.Owner }).Or(OwnedByUser),
		yamltable.Field("managed_by", "With `owner: org`: who connects and ends the grant of their active "+
			"organization, as rules.", yamltable.List(rule, 1), func(c *Connector) *[]Rule { return &c.ManagedBy }),
		yamltable.Field("usable_by", "With `owner: org`: for whom of the organization apps may use it, as rules. "+
			"Everybody of it if left out.", yamltable.List(rule, 1),
			func(c *Connector) *[]Rule { return &c.UsableBy }),
		yamltable.Field("authorization_params", "type oauth2: parameters for the authorization endpoint, such as "+
			"audience.", parameters(), func(c *Connector) *map[string]string { return &c.AuthorizationParams }),
		yamltable.Field("forward_headers", "types oauth2 and api_key: headers of apps' requests that pass, beside "+
			"those that always do.", yamltable.List(yamltable.Pattern("the name of a header", headerPattern), 1),
			func(c *Connector) *[]string { return &c.ForwardHeaders }),
		yamltable.Field("lost_refresh", "type oauth2: what happens when the answer to a refresh was lost: it is sent "+
			"once more (resend), or people connect again (reconnect), for an authorization server that takes a "+
			"repeated token for a stolen one. resend if left out.",
			resendOrReconnect(), func(c *Connector) *bool { return &c.NoResend }),
		yamltable.Field("ended_codes", "type oauth2: error codes of a refresh that mean that people have to connect "+
			"again, beside invalid_grant, for an authorization server with words of its own.",
			yamltable.List(yamltable.Text("an error code such as unauthorized_client"), 1),
			func(c *Connector) *[]string { return &c.EndedCodes }),
		yamltable.Field("signing_secrets", "types slack, pagerduty and pagerduty_key: what the third party "+
			"signs events with. With it Sallyport takes them at webhooks/ID below prefix, marks the grants that ended "+
			"there, and hands the others to the apps with an events_url. All in the list count, for the time in "+
			"which one is replaced.",
			yamltable.List(yamltable.Judged(yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv,
				yamltable.FormLiteral), checkSigningSecret), 1),
			func(c *Connector) *[]Ref { return &c.SigningSecrets }),
		yamltable.Field("inject", "type api_key: how the key gets into requests; `Authorization: Bearer` if left out.",
			inject, func(c *Connector) *Inject { return &c.Inject }),
		yamltable.Field("headers", "types api_key and grafana_irm_key: headers that every request has, with their "+
			"values, such as a version of the API. No secrets.",
			parameters(), func(c *Connector) *map[string]string { return &c.Headers }),
		yamltable.Field("probe", "type api_key: the request that shows whether a key works, such as GET /me.",
			yamltable.Text("a method and a path such as GET /me"), func(c *Connector) *string { return &c.Probe }),
		yamltable.Field("key_hint", "types api_key and caldav: what has to be pasted, in words.",
			yamltable.Text("words such as a read-only API key"), func(c *Connector) *string { return &c.KeyHint }),
		yamltable.Field("key_url", "types api_key and caldav: where people find their key.", endpoint,
			func(c *Connector) *string { return &c.KeyURL }),
		yamltable.Field("options", "Types that a program of one's own adds: what its connector has to know beside "+
			"that, as its guide says. No secrets.",
			parameters(), func(c *Connector) *map[string]string { return &c.Options }),
		yamltable.Field("allow_hosts", "types caldav and ics: hosts that may be in a private network, by exact name "+
			"or address, with a port where it is not 443. Others are reached only at public addresses.",
			yamltable.List(exact("a host such as dav.example.com or dav.example.com:8443"), 1),
			func(c *Connector) *[]string { return &c.AllowHosts }),
	}, Check: func(w *yamltable.Walker, at yamltable.Place, c *Connector) { checkConnector(w, at, c, t) }}.Shape()
}

func appShape() yamltable.Shape[App] {
	token := yamltable.Judged(yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv, yamltable.FormLiteral),
		checkAppToken)
	one := yamltable.Within(token, func(l *[]Ref) *Ref { *l = make([]Ref, 1); return &(*l)[0] })
	use := yamltable.Object[AppConnector]{Keys: []yamltable.Entry[AppConnector]{
		yamltable.Field("id", "The connector.", idText(), func(a *AppConnector) *string { return &a.ID }).Required(),
		yamltable.Field("access", "What the app may ask people for. May be left out where one access is offered.",
			yamltable.List(accessName(), 1), func(a *AppConnector) *[]string { return &a.Access }),
	}}.Shape()
	shape := yamltable.Object[App]{Keys: []yamltable.Entry[App]{
		yamltable.Field("id", "The name of the app in links and in the log. People have agreed to it: never give it "+
			"to another app.", idText(), func(a *App) *string { return &a.ID }).Required(),
		yamltable.Field("name", "What people call it; the id if left out.", yamltable.Text("a name for people"),
			func(a *App) *string { return &a.Name }),
		yamltable.Field("token", "What proves the app, unless socket or bearer does: at least 32 characters of A-Z, "+
			"a-z, 0-9, - and _. A list while it is replaced: all count.",
			yamltable.Either("file:/path, env:NAME, or a list of them", one, yamltable.Sequence,
				yamltable.List(token, 1)),
			func(a *App) *[]Ref { return &a.Tokens }),
		yamltable.Field("socket", "Instead of a token: a unix socket of the app's own, on which it needs none. On "+
			"Linux the kernel says which user connected; elsewhere the permissions of the file decide.",
			socketShape(), func(a *App) *Socket { return &a.Socket }),
		yamltable.Field("bearer", "Instead of a token, or beside one that it replaces: access tokens of a provider "+
			"prove the app, such as those of its Kubernetes service account.",
			appBearerShape(), func(a *App) *AppBearer { return &a.Bearer }),
		yamltable.Field("routes", "The names of the routes that the app is behind: the assertions that it gets there "+
			"name people to Sallyport.", yamltable.List(exact("the name of a route"), 1),
			func(a *App) *[]string { return &a.Routes }).Required(),
		yamltable.Field("connectors", "What the app may ask people for: ids of connectors, or mappings with id and "+
			"access.",
			yamltable.List(yamltable.Either("the id of a connector, or a mapping",
				yamltable.Within(idText(), func(a *AppConnector) *string { return &a.ID }), yamltable.Mapping, use), 1),
			func(a *App) *[]AppConnector { return &a.Connectors }).Required(),
		yamltable.Field("offline", "The app may ask people to be allowed to act while they are away.",
			yamltable.OnlyTrue(), func(a *App) *bool { return &a.Offline }),
		yamltable.Field("raw_tokens", "The app may read the tokens themselves. Then no rule holds for it, and nothing "+
			"that ends here ends there.", yamltable.OnlyTrue(), func(a *App) *bool { return &a.RawTokens }),
		yamltable.Field("events_url", "Where the app is told what became of grants: that one needs a person, is there "+
			"again, or has ended; and where it gets the events of connectors with signing_secrets.",
			yamltable.Scalar("a URL such as http://127.0.0.1:8080/grant-events", yamltable.Schema{
				"pattern": `^[Hh][Tt][Tt][Pp][Ss]?://[^#@\s]+$`}, parseEventsURL),
			func(a *App) **url.URL { return &a.EventsURL }),
	}, Rivals: [][]string{{"token", "socket"}, {"socket", "bearer"}}, Check: checkProved}.Shape()
	shape.Schema["anyOf"] = []yamltable.Schema{{"required": []string{"token"}}, {"required": []string{"socket"}},
		{"required": []string{"bearer"}}}
	return shape
}

// checkProved: a token and a bearer may stand side by side while one replaces the other.
func checkProved(w *yamltable.Walker, at yamltable.Place, a *App) {
	if a.Tokens == nil && a.Socket.Path == "" && a.Bearer.Provider == "" {
		w.Fault(at, "needs a token, a socket or a bearer, to prove that it is this app")
	}
}

func appBearerShape() yamltable.Shape[AppBearer] {
	in := func(part func(*Bearer) *[]string) func(*AppBearer) *[]string {
		return func(a *AppBearer) *[]string { return part(&a.Bearer) }
	}
	return yamltable.Object[AppBearer]{Keys: []yamltable.Entry[AppBearer]{
		yamltable.Field("provider", "The id of the provider that issues the tokens, one with `use: tokens`.",
			idText(), func(a *AppBearer) *string { return &a.Provider }).Required(),
		yamltable.Field("audiences", "What a token must be for: one of these in its claim aud. Make up one that "+
			"nothing else takes, such as sallyport-grants.",
			yamltable.List(exact("an audience"), 1), in(func(b *Bearer) *[]string { return &b.Audiences })).Required(),
		yamltable.Field("subjects", "Whose tokens count: their claim sub, the whole of it, such as "+
			"system:serviceaccount:team:planner. Of no two apps the same.",
			yamltable.List(exact("a subject"), 1), func(a *AppBearer) *[]string { return &a.Subjects }).Required(),
		yamltable.Field("quirks", "As routes[].bearer.quirks.",
			yamltable.List(yamltable.OneOf("", bearerQuirks()...), 1),
			in(func(b *Bearer) *[]string { return &b.Quirks })),
	}}.Shape()
}

func socketShape() yamltable.Shape[Socket] {
	place := yamltable.Scalar("an absolute path such as /run/sallyport/planner.sock",
		yamltable.Schema{"pattern": `^/.*[^/]$`}, parseSocketPath)
	return yamltable.Object[Socket]{Keys: []yamltable.Entry[Socket]{
		yamltable.Field("path", "Where it is, absolute. Sallyport makes it when it starts.", place,
			func(s *Socket) *string { return &s.Path }).Required(),
		yamltable.Field("uid", "The user that the app runs as, by number. The user that Sallyport runs as, unless "+
			"that is root, if left out.", yamltable.Within(yamltable.Number(0, 1<<31-2),
			func(l *[]int) *int { *l = make([]int, 1); return &(*l)[0] }), func(s *Socket) *[]int { return &s.UIDs }),
	}}.Shape()
}

// mostSocketPath is what sockaddr_un has room for beside a NUL on macOS; Linux has 107.
const mostSocketPath = 103

func parseSocketPath(v string) (string, error) {
	if !path.IsAbs(v) || path.Clean(v) != v || v == "/" || len(v) > mostSocketPath {
		return "", fmt.Errorf("must be an absolute path such as /run/sallyport/planner.sock, of %d bytes at most",
			mostSocketPath)
	}
	return v, nil
}

// ConnectorTypes are the types that the file may name: those of the constructors in assemble,
// which a test holds to it.
func ConnectorTypes() []string {
	types := append(knownTypes(), pagerdutykey.Type, caldav.Type, ics.Type, oauth2.Type, apikey.Type)
	for _, k := range apikey.All() {
		types = append(types, k.Type)
	}
	return types
}

// EventTypes are those of our types of connectors whose third parties sign events: those that
// are a grant.WebhookReceiver.
func EventTypes() []string { return []string{slack.Type, pagerduty.Type, pagerdutykey.Type} }

// keyOfTypes is a key of a connector that has a meaning for some types only.
type keyOfTypes struct {
	key       string
	need, may []string // types that must have it, and further ones that may
}

// knownTypes are those of one third party each: where its API is, is known.
func knownTypes() []string { return []string{google.Type, outlook.Type, pagerduty.Type, slack.Type} }

// keysOfTypes are those of our own types and of further ones, which judge what they are given
// themselves.
func keysOfTypes(t Types) []keyOfTypes {
	further := t.names()
	oauth, both := []string{oauth2.Type}, []string{oauth2.Type, apikey.Type}
	known, pasted := knownTypes(), []string{pagerdutykey.Type}
	withBase, mayHaveBase, withHeaders := both, slices.Concat(known, pasted), []string{apikey.Type}
	for _, k := range apikey.All() {
		if k.BaseURL == "" {
			withBase = append(withBase, k.Type)
		} else {
			mayHaveBase = append(mayHaveBase, k.Type)
		}
		if k.FurtherHeaders {
			withHeaders = append(withHeaders, k.Type)
		}
	}
	return []keyOfTypes{
		{key: "options", may: further},
		{key: "client_id", need: slices.Concat(oauth, known), may: further},
		{key: "client_secret", need: known, may: slices.Concat(oauth, further)},
		{key: "client_auth", may: oauth},
		{key: "tenant", need: []string{outlook.Type}},
		{key: "oauth_kind", may: []string{pagerduty.Type}},
		{key: "region", may: pasted},
		{key: "endpoints", need: oauth},
		{key: "issuer", may: oauth},
		{key: "base_url", need: append(slices.Clone(withBase), caldav.Type), may: slices.Concat(mayHaveBase, further)},
		{key: "scopes", need: oauth},
		{key: "rules", need: both},
		{key: "authorization_params", may: oauth},
		{key: "forward_headers", may: both},
		{key: "lost_refresh", may: oauth},
		{key: "ended_codes", may: oauth},
		{key: "signing_secrets", may: slices.Concat(EventTypes(), further)},
		{key: "inject", may: []string{apikey.Type}},
		{key: "headers", may: withHeaders},
		{key: "probe", need: []string{apikey.Type}},
		{key: "key_hint", may: []string{apikey.Type, caldav.Type}},
		{key: "key_url", may: []string{apikey.Type, caldav.Type}},
		{key: "allow_hosts", may: []string{ics.Type, caldav.Type}},
	}
}

// checkConnector holds a connector to the keys of its type, and its accesses to each other.
func checkConnector(w *yamltable.Walker, at yamltable.Place, c *Connector, t Types) {
	for _, k := range keysOfTypes(t) {
		path := at.Path + "." + k.key
		switch has, needs := w.Has(path), slices.Contains(k.need, c.Type); {
		case has && !needs && !slices.Contains(k.may, c.Type):
			w.FaultAt(path, "has no meaning for type %s; leave it out", c.Type)
		case !has && needs:
			w.FaultAt(path, "is required for type %s", c.Type)
		}
	}
	if u, err := url.Parse(c.BaseURL); hasOneHost(c.Type) && c.BaseURL != "" &&
		(err != nil || !hostname.IsLoopback(u.Hostname())) {
		w.FaultAt(at.Path+".base_url", "must be on loopback for type %s: it is for a pretend third party in tests, "+
			"and secrets go there", c.Type)
	}
	c.checkOwner(w, at)
	for _, name := range names(c.Scopes) {
		if c.Rules != nil && !slices.Contains(names(c.Rules), name) {
			w.FaultAt(at.Path+".rules", "has nothing for %s, which is in scopes: an access without rules lets nothing "+
				"through", name)
		}
	}
	for i, name := range names(c.Rules) {
		if c.Scopes != nil && !slices.Contains(names(c.Scopes), name) {
			w.FaultAt(yamltable.Join(at.Path+".rules", names(c.Rules)[i]), "is not in scopes: say what it needs there")
		}
	}
	for i, name := range c.Access {
		if all := names(c.Rules); all != nil && !slices.Contains(all, name) {
			w.FaultAt(yamltable.Index(at.Path+".access", i), "is none of %s", strings.Join(all, ", "))
		}
	}
}

// hasOneHost reports whether there is one third party of a type, on hosts that are known.
func hasOneHost(of string) bool {
	fixed := append(knownTypes(), pagerdutykey.Type)
	return slices.Contains(fixed, of) || slices.ContainsFunc(apikey.All(), func(k apikey.Known) bool {
		return k.Type == of && k.BaseURL != "" && !k.Elsewhere
	})
}

func (c *Connector) checkOwner(w *yamltable.Walker, at yamltable.Place) {
	if c.Type == slack.Type && c.Owner != OwnedByOrg {
		w.FaultAt(at.Path+".owner", "must be org for type slack: %s", slack.WhyOrg)
		return
	}
	if c.Owner == OwnedByOrg {
		if len(c.ManagedBy) == 0 {
			w.FaultAt(at.Path+".managed_by", "is required with `owner: org`: who connects the organization's grant")
		}
		return
	}
	for _, key := range []string{"managed_by", "usable_by"} {
		if w.Has(at.Path + "." + key) {
			w.FaultAt(at.Path+"."+key, "has a meaning only with `owner: org`: here everybody has a grant of their own")
		}
	}
}

// Offered are the names of the accesses that apps may be configured for, where the file
// says so; nil: as the type has it.
func (c *Connector) Offered() []string {
	if c.Access != nil {
		return c.Access
	}
	if c.Scopes != nil {
		return names(c.Scopes)
	}
	return names(c.Rules)
}

func names(lists []Named) (all []string) {
	for _, l := range lists {
		all = append(all, l.Name)
	}
	return all
}

// RulesOf are the rules of an access.
func (c *Connector) RulesOf(access string) []string {
	if i := slices.Index(names(c.Rules), access); i >= 0 {
		return c.Rules[i].List
	}
	return nil
}

func accessName() yamltable.Shape[string] {
	return yamltable.Pattern("a short name of lower-case letters, digits, - and _", accessPattern)
}

const accessPattern = `^[a-z0-9][a-z0-9_-]{0,31}$`

// namedLists reads a mapping of names of accesses to lists of texts. judge may be nil.
func namedLists(about, item, pattern string, judge func(string) error) yamltable.Shape[[]Named] {
	re := regexp.MustCompile(pattern)
	list := yamltable.List(yamltable.Scalar(item, yamltable.Schema{"pattern": pattern}, func(v string) (string, error) {
		if !re.MatchString(v) {
			return "", errors.New("must be " + item)
		}
		if judge != nil {
			return v, judge(v)
		}
		return v, nil
	}), 0)
	name := accessName()
	schema := yamltable.Schema{"type": "object", "minProperties": 1,
		"propertyNames": yamltable.Schema{"pattern": accessPattern}, "additionalProperties": list.Schema}
	return yamltable.Shape[[]Named]{Want: "a mapping", About: "a mapping of " + about, Schema: schema,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *[]Named) {
			if !w.Expect(at, yamltable.Mapping, "a mapping of "+about, false) {
				return
			}
			if len(at.Node.Content) == 0 {
				w.Fault(at, "must not be empty")
			}
			*into = make([]Named, len(at.Node.Content)/2)
			for i := range *into {
				key, node := at.Node.Content[2*i], at.Node.Content[2*i+1]
				here := yamltable.Join(at.Path, key.Value)
				name.Read(w, yamltable.Place{Node: key, Path: here}, &(*into)[i].Name)
				yamltable.Take(w, list, yamltable.Place{Node: node, Path: here}, &(*into)[i].List)
			}
		}}
}

func checkLendRule(v string) error {
	if _, err := grant.ParseRule(v); err != nil {
		return yamltable.Slip{Complaint: errors.New("must be a rule such as GET /rest/*"), Why: ": " + err.Error()}
	}
	return nil
}

// checkAppToken: characters that need no escape in a header or in Basic credentials, and
// too many to be guessed.
func checkAppToken(text string) error {
	if len(text) < 32 || strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return errors.New("must be at least 32 characters of A-Z, a-z, 0-9, - and _")
	}
	return nil
}

// clientSecret is what a provider or a third party gave out. What an editor, a shell or a copy
// puts around it is no part of it, is not seen, and would be sent: nobody could sign in.
func clientSecret() yamltable.Shape[Ref] {
	return yamltable.Judged(yamltable.SecretRef(yamltable.FormEnv, yamltable.FormFile, yamltable.FormLiteral),
		checkClientSecret)
}

func checkClientSecret(text string) error {
	if !utf8.ValidString(text) || strings.TrimSpace(text) != text || strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || r == '\ufeff'
	}) {
		return errors.New("must be a client secret in one line: UTF-8 text without a blank, a line break or a byte " +
			"order mark around it")
	}
	return nil
}

// checkSigningSecret: third parties give out longer ones, without blanks.
func checkSigningSecret(text string) error {
	if len(text) < 16 || strings.ContainsAny(text, " \t\r\n") {
		return errors.New("must be a signing secret, of at least 16 characters and without blanks")
	}
	return nil
}

// parseEventsURL allows plain http, as for an upstream: the app is near, and what it is told
// is signed.
func parseEventsURL(v string) (*url.URL, error) {
	u, err := parseURL(v, "http://127.0.0.1:8080/grant-events")
	switch {
	case err != nil:
		return nil, err
	case u.Fragment != "" || strings.HasSuffix(v, "#"):
		return nil, errors.New("must be a URL without a fragment")
	}
	return u, nil
}

// plainURL is an address that cannot be a reference.
func plainURL(parse func(string) (string, error)) yamltable.Shape[string] {
	return yamltable.Scalar("an https URL such as https://api.example.com",
		yamltable.Schema{"pattern": `^[Hh][Tt][Tt][Pp][Ss]?://[^#@\s]+$`}, parse)
}

// resendOrReconnect is the words resend and reconnect, which is true.
func resendOrReconnect() yamltable.Shape[bool] {
	word := yamltable.OneOf("", "resend", "reconnect")
	return yamltable.Shape[bool]{Want: word.Want, Schema: word.Schema,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *bool) {
			var v string
			word.Read(w, at, &v)
			*into = v == "reconnect"
		}}
}

// GrantsListener is where apps ask for what people lent. Address "": nowhere.
type GrantsListener struct {
	Address   string
	Cert, Key Ref
}

// TLS reports whether the listener has a certificate.
func (g GrantsListener) TLS() bool { return !g.Cert.IsZero() }

func grantsListenerShape() yamltable.Shape[GrantsListener] {
	place := func(g *GrantsListener) *string { return &g.Address }
	full := yamltable.Object[GrantsListener]{Keys: []yamltable.Entry[GrantsListener]{
		yamltable.Field("address", "The address, as in http.", address(), place).Required(),
		yamltable.Field("cert", "The certificate and its chain, PEM, for https. Plain http if left out, with key: "+
			"for loopback only.", yamltable.FileRef(yamltable.FormFile, yamltable.FormEnv),
			func(g *GrantsListener) *Ref { return &g.Cert }),
		yamltable.Field("key", "The private key of the certificate, PEM.",
			yamltable.SecretRef(yamltable.FormFile, yamltable.FormEnv), func(g *GrantsListener) *Ref { return &g.Key }),
	}, Check: checkGrantsListener}.Shape()
	full.Schema["dependentRequired"] = yamltable.Schema{"cert": []string{"key"}, "key": []string{"cert"}}
	short := addressOrNone()
	read := short.Read
	short.Read = func(w *yamltable.Walker, at yamltable.Place, into *string) {
		if read(w, at, into); *into != "" && !onLoopback(*into) {
			w.Fault(at, "must be on loopback, or a mapping with cert and key: the tokens of apps and what people "+
				"lent would cross the network readable")
		}
	}
	return yamltable.Either(short.Want+", or a mapping", yamltable.Within(short, place), yamltable.Mapping, full)
}

func checkGrantsListener(w *yamltable.Walker, at yamltable.Place, g *GrantsListener) {
	switch {
	case g.Cert.IsZero() && !g.Key.IsZero():
		w.FaultAt(at.Path+".cert", "is required beside key")
	case !g.Cert.IsZero() && g.Key.IsZero():
		w.FaultAt(at.Path+".key", "is required beside cert")
	case !g.TLS() && !onLoopback(g.Address):
		w.FaultAt(at.Path+".address", "must be on loopback, or have cert and key beside it: the tokens of apps and "+
			"what people lent would cross the network readable")
	}
}

func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && hostname.IsLoopback(host)
}

// checkGrants finds what connectors, apps and the rest of the file make of each other.
func (c *Config) checkGrants() (faults Faults) {
	if !c.doc.Has("grants") {
		if c.Listen.Grants.Address != "" {
			faults = append(faults, c.doc.FaultAt("listen.grants", "is where apps ask for what people lend, and "+
				"nothing is lent: add `grants:`, or leave this out"))
		}
		return faults
	}
	if !c.doc.Has("store") {
		faults = append(faults, c.doc.FaultAt("store", "is required with `grants`: what people lend is kept there; "+
			"for one machine, `store: sqlite:/var/lib/sallyport/sallyport.db`"))
	}
	if c.Listen.Grants.Address == "" && slices.Contains(c.sockets(), "") {
		faults = append(faults, c.doc.FaultAt("listen.grants", "is required with `grants`: where apps ask for what "+
			"people lend, such as 127.0.0.1:4184"))
	}
	var connectors, apps []string
	for _, k := range c.Grants.Connectors {
		connectors = append(connectors, k.ID)
	}
	for i, a := range c.Grants.Apps {
		apps = append(apps, a.ID)
		faults = append(faults, c.checkApp(i, connectors)...)
	}
	faults = append(faults, c.checkUnique("grants.connectors", "id", connectors)...)
	faults = append(faults, c.checkUnique("grants.apps", "id", apps)...)
	faults = append(faults, c.checkUnique("grants.apps", "socket.path", c.sockets())...)
	return slices.Concat(faults, c.checkGrantKeys(), c.checkGrantPeople())
}

// checkGrantPeople: apps ask for org:ID where they mean an organization, and for PROVIDER:SUBJECT
// where they mean a person.
func (c *Config) checkGrantPeople() (faults Faults) {
	for i, p := range c.Providers {
		if p.ID == "org" {
			faults = append(faults, c.doc.FaultAt(yamltable.Index("providers", i)+".id", "cannot be org with "+
				"`grants`: where apps name whom they ask for, org:ID is an organization; people's user ids begin with "+
				"this id, so another one makes new users of them for the apps"))
		}
	}
	return faults
}

// sockets are the paths of those of the apps, "" for one that has none.
func (c *Config) sockets() (paths []string) {
	for _, a := range c.Grants.Apps {
		paths = append(paths, a.Socket.Path)
	}
	return paths
}

// checkGrantKeys: whoever has session keys must not open what people lend with them.
func (c *Config) checkGrantKeys() (faults Faults) {
	for i, k := range c.Grants.Keys {
		for j, other := range c.Session.Keys {
			if !k.IsZero() && !other.IsZero() && k.Same(other) {
				faults = append(faults, c.doc.FaultAt(yamltable.Index("grants.encryption_keys", i),
					"is session.keys[%d] too; make a key of its own (`sallyport genkey`), so that who has one of them "+
						"has not both", j))
			}
		}
	}
	return faults
}

// checkApp judges what one app names.
func (c *Config) checkApp(i int, connectors []string) (faults Faults) {
	app, where := c.Grants.Apps[i], yamltable.Index("grants.apps", i)
	fault := func(path, suggestion, format string, args ...any) {
		f := c.doc.FaultAt(path, format, args...)
		f.Suggestion = suggestion
		faults = append(faults, f)
	}
	var routes []string
	for _, r := range c.Routes {
		routes = append(routes, r.Name)
	}
	for n, name := range app.Routes {
		path := yamltable.Index(where+".routes", n)
		switch at := slices.Index(routes, name); {
		case name == "":
		case at < 0:
			nearest, others := yamltable.Meant(name, routes)
			fault(path, nearest, "there is no route %q%s", name, others)
		case !c.Routes[at].AsksWho():
			fault(path, "", "is public: apps are told of nobody there, so nobody can be named to Sallyport")
		}
	}
	for n, use := range app.Connectors {
		path := yamltable.Index(where+".connectors", n)
		at := slices.Index(connectors, use.ID)
		if use.ID == "" {
			continue
		}
		if at < 0 {
			nearest, others := yamltable.Meant(use.ID, connectors)
			fault(path, nearest, "there is no connector %q%s", use.ID, others)
			continue
		}
		if slices.ContainsFunc(app.Connectors[:n], func(o AppConnector) bool { return o.ID == use.ID }) {
			fault(path, "", "has %s twice; one entry lists all of its access", use.ID)
		}
		offered := c.Grants.Connectors[at].Offered()
		for m, name := range use.Access {
			if offered != nil && name != "" && !slices.Contains(offered, name) {
				fault(yamltable.Index(path+".access", m), yamltable.Nearest(name, offered),
					"is not offered by %s, which offers %s", use.ID, strings.Join(offered, ", "))
			}
		}
		if use.Access == nil && len(offered) > 1 {
			fault(path, "", "must say which: {id: %s, access: […]}, because %s offers %s", use.ID, use.ID,
				strings.Join(offered, ", "))
		}
	}
	return faults
}

// checkConsentHost keeps consent away from scripts (P12): those of a page on the host of our
// own pages could press the buttons there. That is conceded to the only app, for itself; so
// nothing else may be there, and with several apps nothing at all.
func (c *Config) checkConsentHost() Faults {
	apps, public := c.Grants.Apps, c.PublicHost()
	for _, i := range c.onPublicHost() {
		where := yamltable.Index("routes", i)
		if c.doc.Has(where + ".host") {
			where += ".host"
		}
		switch {
		case len(apps) > 1:
			return Faults{c.doc.FaultAt(where, "is on %s, the host of public_url, where people agree to what "+
				"apps may use; with two or more `grants.apps` no route may be there: scripts of an app on that host "+
				"could agree for somebody, also to what another app may do. Give the routes hosts of their own",
				public)}
		case len(apps) == 1 && !c.isOfApp(c.Routes[i], apps[0]):
			return Faults{c.doc.FaultAt(where, "is on %s, the host of public_url, where people agree to what %s may "+
				"use, and is neither one of its `routes` nor leads to the same `upstream`: scripts there could agree "+
				"for somebody. Give the route a host of its own", public, apps[0].ID)}
		}
	}
	return nil
}

// onPublicHost are the routes that are found under the host of public_url: its own or, where
// it has none, those of wildcards.
func (c *Config) onPublicHost() (own []int) {
	public := c.PublicHost()
	var wild []int
	for i, r := range c.Routes {
		below, each := strings.CutPrefix(r.Host, orgHost)
		ending, any := strings.CutPrefix(r.Host, "*")
		switch {
		case r.Host == public, each && slices.ContainsFunc(c.Organizations, func(o Organization) bool {
			return o.ID+"."+below == public
		}):
			own = append(own, i)
		case any && strings.HasSuffix(public, ending):
			wild = append(wild, i)
		}
	}
	if own == nil {
		return wild
	}
	return own
}

// isOfApp reports whether a route is one of an app: by its name, or because it leads where
// such a route does, as one that is public. Where the app names a route that there is not,
// which is a fault of its own, it may be this one.
func (c *Config) isOfApp(r Route, a App) bool {
	return slices.ContainsFunc(a.Routes, func(name string) bool {
		at := slices.IndexFunc(c.Routes, func(of Route) bool { return of.Name == name })
		return at < 0 || name == r.Name || r.SameApp(c.Routes[at])
	})
}

// lendWarnings are of what is allowed and is probably a mistake, or weakens something.
func (c *Config) lendWarnings() (warnings Faults) {
	for i, k := range c.Grants.Connectors {
		if !slices.ContainsFunc(c.Grants.Apps, func(a App) bool {
			return slices.ContainsFunc(a.Connectors, func(u AppConnector) bool { return u.ID == k.ID })
		}) {
			warnings = append(warnings, c.doc.FaultAt(yamltable.Index("grants.connectors", i)+".id",
				"no app is configured for %s, so nobody can connect it", k.ID))
		}
		for _, p := range c.Providers {
			if k.ClientID != "" && k.ClientID == p.ClientID {
				warnings = append(warnings, c.doc.FaultAt(yamltable.Index("grants.connectors", i)+".client_id",
					"is the client that provider %s signs people in with; give grants a client of their own, so that "+
						"what ends or widens one does not touch the other", p.ID))
			}
		}
		for _, other := range c.Grants.Connectors[:i] {
			if k.Type == slack.Type && other.Type == slack.Type && k.ClientID != "" && k.ClientID == other.ClientID {
				warnings = append(warnings, c.doc.FaultAt(yamltable.Index("grants.connectors", i)+".client_id",
					"is the client of %s too: an app is installed once for a workspace, so that each would end the "+
						"tokens of the other; give it an app of its own at Slack", other.ID))
			}
		}
	}
	warnings = append(warnings, c.eventWarnings()...)
	for i, a := range c.Grants.Apps {
		warnings = append(warnings, c.audienceWarnings(i)...)
		if a.RawTokens {
			warnings = append(warnings, c.doc.FaultAt(yamltable.Index("grants.apps", i)+".raw_tokens",
				"%s reads tokens themselves: no rule of its access holds for what it does with them", a.ID))
		}
	}
	return warnings
}

// eventWarnings are of events that are taken and go to nobody. Slack's end grants too.
func (c *Config) eventWarnings() (warnings Faults) {
	for i, k := range c.Grants.Connectors {
		if len(k.SigningSecrets) == 0 || k.Type == slack.Type ||
			slices.ContainsFunc(c.Grants.Apps, func(a App) bool {
				return a.EventsURL != nil &&
					slices.ContainsFunc(a.Connectors, func(u AppConnector) bool { return u.ID == k.ID })
			}) {
			continue
		}
		warnings = append(warnings, c.doc.FaultAt(yamltable.Index("grants.connectors", i)+".signing_secrets",
			"the events go to nobody: no app with %s has an events_url", k.ID))
	}
	return warnings
}

// audienceWarnings are of an app whose tokens the API of their cluster would take too: that has
// the issuer for its audience where nobody set another one (kube-apiserver, --api-audiences).
func (c *Config) audienceWarnings(app int) (warnings Faults) {
	bearer, list := c.Grants.Apps[app].Bearer, yamltable.Index("grants.apps", app)+".bearer.audiences"
	for n, audience := range bearer.Audiences {
		for _, p := range c.Providers {
			if p.ID == bearer.Provider && p.Issuer == audience {
				warnings = append(warnings, c.doc.FaultAt(yamltable.Index(list, n), "is the issuer, which is what "+
					"tokens for the API of a Kubernetes cluster are for; with an audience of their own, such as "+
					"sallyport-grants, those of %s are good for nothing else", c.Grants.Apps[app].ID))
			}
		}
	}
	return warnings
}
