package demo

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Paths of the pretend PagerDuty. PagerDuty serves them on several hosts:
// identity.pagerduty.com, api.pagerduty.com and api.eu.pagerduty.com; that of the last one
// are below OnCallEurope here.
// https://developer.pagerduty.com/docs/oauth-functionality
const (
	OnCallAuthorizePath = "/oauth/authorize"
	OnCallTokenPath     = "/oauth/token"
	OnCallJWKSPath      = "/global/oauth/anonymous/jwks"
	OnCallKeysPath      = "/global/oauth/anonymous/keys" // to which the one above points
	OnCallEurope        = "/eu"
)

const (
	pagerdutyCodeLife   = 30 * time.Second
	pagerdutyOldIssuer  = "https://app.pagerduty.com/global/oauth/anonymous"
	pagerdutyAccessLife = 864000 * time.Second // as in the sample answer of PagerDuty's page
)

// OnCallOptions configure an OnCall.
type OnCallOptions struct {
	Origin                 string // on loopback, such as http://127.0.0.1:4192
	ClientID, ClientSecret string
	ClientName             string // for people; "": the ID
	RedirectURIs           []string
	LeadsTo                []string // as ProviderOptions has it
	People                 []Person // nil: People()
	Keys                   []OnCallKey
	Quirks                 OnCallQuirks
	Now                    func() time.Time
}

// OnCallQuirks are those of PagerDuty's that are not always the same there, or of which its
// pages do not say how they are.
type OnCallQuirks struct {
	Scoped         bool // the client has Scoped OAuth, and not Classic User OAuth
	OldIssuer      bool // iss is that of app.pagerduty.com
	SubjectIsEmail bool // sub is an address, as it was once, and not the user's id
	PlainKeys      bool // the address of the keys has them itself, and points nowhere
	ReuseEnds      bool // a refresh token that is shown again ends the grant
	RefreshTells   bool // an ID token comes with a refresh too
	TextErrors     bool // errors of the API are texts, and not objects
}

// OnCallKey is an API token.
type OnCallKey struct {
	Key      string
	Person   string // whose it is; "": of the account Acme Rockets
	ReadOnly bool
}

// OnCallChange is a request that changed something.
type OnCallChange struct{ Method, Path, From string }

// OnCall is an http.Handler that behaves as PagerDuty does to an app that people let use
// their account: its authorization server, and a small part of its REST API, read from its
// pages for developers. Serve it under its Origin. The account of Birch Bank is in the
// European region.
//
//	GET  /oauth/authorize   → a page to choose an account
//	POST /oauth/authorize   → 303 to the client with code and state
//	POST /oauth/token       → access token, refresh token, scope, ID token
//	GET  /global/oauth/anonymous/jwks   → the address of the keys, or the keys
//	GET  /users/me, /abilities, /oncalls, /schedules, /users, … (oncallapi.go)
type OnCall struct {
	opts      OnCallOptions
	host      string
	templates *templates
	mux       *http.ServeMux
	key       *signingKey

	mu      sync.Mutex // guards all below
	codes   *codeStore[onCallGrant]
	access  *codeStore[onCallGrant]
	refresh map[string]onCallGrant
	used    map[string]onCallGrant // refresh tokens that were shown
	changes []OnCallChange
}

// onCallGrant is what a code or a token stands for.
type onCallGrant struct {
	person              Person
	scope               []string
	challenge, redirect string // of a code
	grant               string // what ends together
	key                 bool   // it is an API token
	account             bool   // one that is of nobody
	readOnly            bool
}

var _ http.Handler = (*OnCall)(nil)

// NewOnCall makes an OnCall with a new key. It refuses an origin that is not on loopback, as
// NewProvider does.
func NewOnCall(o OnCallOptions) (*OnCall, error) {
	host, err := loopbackOrigin(o.Origin)
	if err != nil {
		return nil, fmt.Errorf("pretend PagerDuty: origin %q: %w", o.Origin, err)
	}
	if _, err := (ProviderOptions{ClientID: o.ClientID, ClientSecret: o.ClientSecret,
		RedirectURIs: o.RedirectURIs}).complete(); err != nil {
		return nil, fmt.Errorf("pretend PagerDuty: %w", err)
	}
	if o.People == nil {
		o.People = People()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.ClientName == "" {
		o.ClientName = o.ClientID
	}
	key, err := newSigningKey()
	if err != nil {
		return nil, fmt.Errorf("pretend PagerDuty: %w", err)
	}
	templates, err := newTemplates("Pretend PagerDuty")
	if err != nil {
		return nil, fmt.Errorf("pretend PagerDuty: %w", err)
	}
	c := &OnCall{opts: o, host: host, templates: templates, mux: http.NewServeMux(), key: key,
		codes:   newCodeStore[onCallGrant](maxStored, pagerdutyCodeLife),
		access:  newCodeStore[onCallGrant](maxStored, pagerdutyAccessLife),
		refresh: map[string]onCallGrant{}, used: map[string]onCallGrant{}}
	c.routes()
	return c, nil
}

func (c *OnCall) routes() {
	page := func(f func(http.ResponseWriter, *http.Request) error) http.Handler {
		return c.templates.page("The pretend PagerDuty", f)
	}
	c.mux.Handle("GET "+MarkPath, c.templates.mark())
	c.mux.Handle("GET "+OnCallAuthorizePath, page(c.ask))
	c.mux.Handle("POST "+OnCallAuthorizePath, page(c.decide))
	c.mux.Handle("POST "+OnCallTokenPath, http.HandlerFunc(c.token))
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{c.key.public}}
	c.mux.HandleFunc("GET "+OnCallJWKSPath, func(w http.ResponseWriter, _ *http.Request) {
		if c.opts.Quirks.PlainKeys {
			_ = writeJSON(w, http.StatusOK, keys) // an error means that the client has gone
			return
		}
		_ = writeJSON(w, http.StatusOK, map[string]any{"jwks_uri": c.opts.Origin + OnCallKeysPath})
	})
	c.mux.HandleFunc("GET "+OnCallKeysPath, func(w http.ResponseWriter, _ *http.Request) {
		_ = writeJSON(w, http.StatusOK, keys)
	})
	c.mux.HandleFunc("/", c.api(false))
	c.mux.HandleFunc(OnCallEurope+"/", c.api(true))
}

// ServeHTTP refuses every Host but that of the origin, as Provider does.
func (c *OnCall) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Host, c.host) {
		http.Error(w, "The pretend PagerDuty answers only as "+c.opts.Origin+".", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	c.mux.ServeHTTP(w, r)
}

// Changes are the requests that changed something so far.
func (c *OnCall) Changes() []OnCallChange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.changes)
}

// EndAccessTokens ends all access tokens before their time, and no refresh token.
func (c *OnCall) EndAccessTokens() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.access.dropIf(func(onCallGrant) bool { return true })
}

// UserID is the id of a person's user.
func (c *OnCall) UserID(person string) string { return upperID("P", person, 7) }

// AccountID is the id of a person's account.
func (c *OnCall) AccountID(person string) string {
	who, _ := find(c.opts.People, person)
	account, _ := who.employer()
	return upperID("P", "account "+account, 7)
}

// Sign signs claims as Provider.Sign does.
func (c *OnCall) Sign(header, claims map[string]any) (string, error) {
	return c.key.sign(header, claims)
}

// onCallRequest is an authorization request that was accepted.
type onCallRequest struct {
	redirect, state, challenge string
	scope                      []string
}

// readRequest checks an authorization request. A scope that is not known is no fault: it is
// left out of what is granted.
func (c *OnCall) readRequest(r *http.Request) (onCallRequest, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return onCallRequest{}, &pageError{http.StatusBadRequest, "The request's query is malformed."}
	}
	q := onCallRequest{redirect: v.Get("redirect_uri"), state: v.Get("state"), challenge: v.Get("code_challenge"),
		scope: c.granted(v.Get("scope"))}
	switch {
	case v.Get("client_id") != c.opts.ClientID:
		return q, &pageError{http.StatusUnauthorized, "This client is not known here."}
	case !slices.Contains(c.opts.RedirectURIs, q.redirect):
		return q, &pageError{http.StatusBadRequest, "The client asked to return to an address that is not registered."}
	case v.Get("response_type") != "code":
		return q, &pageError{http.StatusBadRequest, "Only response_type=code is served here."}
	case q.challenge == "" && c.opts.Quirks.Scoped:
		return q, &pageError{http.StatusBadRequest, "Scoped OAuth needs PKCE."}
	case q.challenge != "" && (v.Get("code_challenge_method") != "S256" || !isChallenge(q.challenge)):
		return q, &pageError{http.StatusBadRequest, "The code challenge is malformed."}
	}
	return q, nil
}

// granted: what is not valid is left out, and openid comes with all tokens. Of Classic User
// OAuth "read" and "write" are valid, and only one of them.
func (c *OnCall) granted(asked string) []string {
	scope := []string{"openid"}
	names := strings.Fields(asked)
	if !c.opts.Quirks.Scoped {
		if len(names) == 1 && (names[0] == "read" || names[0] == "write") {
			scope = append(scope, names[0])
		}
		return scope
	}
	for _, name := range names {
		resource, kind, ok := strings.Cut(name, ".")
		if ok && (kind == "read" || kind == "write") && slices.Contains(onCallResources(), resource) {
			scope = append(scope, name)
		}
	}
	return scope
}

func (c *OnCall) ask(w http.ResponseWriter, r *http.Request) error {
	q, err := c.readRequest(r)
	if err != nil {
		return err
	}
	var scopes []calendarScope
	for _, s := range q.scope[1:] {
		scopes = append(scopes, calendarScope{Name: s, Means: "Use your PagerDuty account"})
	}
	return c.templates.consent(w, consentPage{Client: c.opts.ClientName, Origin: originOf(q.redirect),
		People: c.opts.People, Chosen: c.opts.People[0].Key, SignIn: true, Scopes: scopes, Offline: true},
		append([]string{originOf(q.redirect)}, c.opts.LeadsTo...))
}

func (c *OnCall) decide(w http.ResponseWriter, r *http.Request) error {
	q, err := c.readRequest(r)
	if err != nil {
		return err
	}
	if !sentBy(c.opts.Origin, r) {
		return &pageError{http.StatusForbidden, "That form was not sent by this page."}
	}
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The form could not be read."}
	}
	if r.PostForm.Get("answer") != "allow" {
		return redirect(w, r, q.redirect, url.Values{"error": {"access_denied"}, "state": {q.state},
			"error_description": {"The resource owner or authorization server denied the request."}})
	}
	who, ok := find(c.opts.People, r.PostForm.Get("person"))
	if !ok {
		return &pageError{http.StatusBadRequest, "No account was chosen."}
	}
	code := random()
	c.mu.Lock()
	c.codes.put(c.opts.Now(), code, onCallGrant{person: who, scope: q.scope, challenge: q.challenge,
		redirect: q.redirect, grant: random()})
	c.mu.Unlock()
	return redirect(w, r, q.redirect, url.Values{"code": {code}, "state": {q.state}})
}

func (c *OnCall) token(w http.ResponseWriter, r *http.Request) {
	answer, err := c.issue(r)
	var refused *oauthError
	switch {
	case err == nil:
		_ = writeJSON(w, http.StatusOK, answer) // an error means that the client has gone
	case errors.As(err, &refused):
		_ = writeJSON(w, refused.status, map[string]string{"error": refused.code, "error_description": refused.text})
	default:
		_ = writeJSON(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
	}
}

// issue redeems a code, or a refresh token, which is replaced each time.
func (c *OnCall) issue(r *http.Request) (map[string]any, error) {
	form, err := readTokenForm(r)
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Authorization") != "" || !equal(form.Get("client_id"), c.opts.ClientID) ||
		!equal(form.Get("client_secret"), c.opts.ClientSecret) {
		return nil, &oauthError{http.StatusUnauthorized, "invalid_client", "unknown client, or a wrong secret"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var g onCallGrant
	tells := true
	switch form.Get("grant_type") {
	case "authorization_code":
		kept, ok := c.codes.get(c.opts.Now(), form.Get("code"))
		if !ok {
			return nil, refuse("invalid_grant", "the code is unknown or expired")
		}
		g = *kept
		c.codes.drop(form.Get("code"))
		if form.Get("redirect_uri") != g.redirect ||
			g.challenge != "" && !verifies(form.Get("code_verifier"), g.challenge) {
			return nil, refuse("invalid_grant", "redirect_uri or code_verifier is another one")
		}
	case "refresh_token":
		if g, err = c.refreshed(form.Get("refresh_token")); err != nil {
			return nil, err
		}
		tells = c.opts.Quirks.RefreshTells
	default:
		return nil, refuse("unsupported_grant_type", "there is no such grant type")
	}
	access, refresh := "pdus+_0XBPWQQ_"+random(), "pdus+_1XBPWQQ_"+random()
	c.access.put(c.opts.Now(), access, g)
	c.refresh[refresh] = g
	answer := map[string]any{"client_info": "prefix_legacy_app", "token_type": "bearer", "access_token": access,
		"refresh_token": refresh, "scope": strings.Join(g.scope, " "), "expires_in": int(pagerdutyAccessLife.Seconds())}
	if tells {
		if answer["id_token"], err = c.key.sign(map[string]any{"typ": nil, "x5t": "_cqnMZZPApAtWy2VmuOV8uG9Tso"},
			c.idClaims(g)); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// refreshed uses a refresh token up. The caller does the locking.
func (c *OnCall) refreshed(token string) (onCallGrant, error) {
	g, ok := c.refresh[token]
	if !ok {
		if was, shown := c.used[token]; shown && c.opts.Quirks.ReuseEnds {
			for other, x := range c.refresh {
				if x.grant == was.grant {
					delete(c.refresh, other)
				}
			}
			c.access.dropIf(func(x onCallGrant) bool { return x.grant == was.grant })
		}
		return g, refuse("invalid_grant", "the refresh token is unknown or was used")
	}
	delete(c.refresh, token)
	c.used[token] = g
	return g, nil
}

// idClaims: https://developer.pagerduty.com/docs/pagerduty-openid-token
func (c *OnCall) idClaims(g onCallGrant) map[string]any {
	now, api, issuer := c.opts.Now(), pagerdutyAPI, pagerdutyIssuer
	if inEurope(g.person) {
		api = pagerdutyAPIEU
	}
	if c.opts.Quirks.OldIssuer {
		issuer = pagerdutyOldIssuer
	}
	sub := c.UserID(g.person.Key)
	if c.opts.Quirks.SubjectIsEmail {
		sub = g.person.Email
	}
	return map[string]any{"iss": issuer, "aud": []string{api, c.opts.ClientID}, "azp": c.opts.ClientID, "sub": sub,
		"iat": now.Unix(), "nbf": now.Unix(), "auth_time": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"jti":     random(),
		"purpose": "id", "acr": "acr:html-form:unitedstates", "amr": "acr:html-form:unitedstates",
		"delegation_id": "6566027d-7707-428f-8752-3ef971b78d1a", "product_abilities": []string{},
		"account_id": c.AccountID(g.person.Key), "user_id": c.UserID(g.person.Key), "subdomain": g.person.subdomain(),
		"region": "UnitedStates", "sid": "KDz9WhtnwjYqJFq3"}
}

func inEurope(p Person) bool { return p.OrgID == "birch" }
