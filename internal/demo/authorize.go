package demo

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authRequest is an authorization request that was accepted.
type authRequest struct {
	redirectURI, state, nonce, challenge string
	scope                                []string
	silent                               bool // prompt=none
	hint                                 string
}

// A clientError is sent to the client through the browser. A pageError is shown here,
// because the address of the client has not been checked.
type (
	clientError struct{ code, text string }
	pageError   struct {
		status int
		text   string
	}
)

func (e *clientError) Error() string { return e.code + ": " + e.text }
func (e *pageError) Error() string   { return e.text }

// authorize answers an authorization request with a page to choose a person or, with
// prompt=none, at once.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) error {
	req, err := p.readRequest(r)
	if err != nil {
		return p.refuseRequest(w, r, req, err)
	}
	hinted, known := find(p.opts.People, req.hint)
	if req.silent {
		if !known {
			return p.refuseRequest(w, r, req, &clientError{"login_required", "nobody is signed in"})
		}
		return p.signIn(w, r, req, hinted)
	}
	leadsTo := append([]string{originOf(req.redirectURI)}, p.opts.LeadsTo...)
	return p.templates.chooser(w, chooserPage{Client: p.opts.ClientID, Origins: leadsTo, People: p.opts.People,
		Hinted: hinted.Key})
}

// choose handles the form of that page. Its query is the authorization request, which is
// checked again, because nothing was stored.
func (p *Provider) choose(w http.ResponseWriter, r *http.Request) error {
	req, err := p.readRequest(r)
	if err != nil {
		return p.refuseRequest(w, r, req, err)
	}
	if !sentBy(p.opts.Issuer, r) {
		return &pageError{http.StatusForbidden, "That form was not sent by this page."}
	}
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The form could not be read."}
	}
	if r.PostForm.Has("cancel") {
		return p.refuseRequest(w, r, req, &clientError{"access_denied", "the person cancelled"})
	}
	key := r.PostForm.Get("person")
	i := slices.IndexFunc(p.opts.People, func(x Person) bool { return x.Key == key })
	if i < 0 {
		return &pageError{http.StatusBadRequest, "Nobody was chosen."}
	}
	return p.signIn(w, r, req, p.opts.People[i])
}

// sentBy reports whether a form was sent by a page of our own origin. Other sites must not
// post it with a person that they have chosen. Browsers send at least one of the two headers
// with a POST.
func sentBy(own string, r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Get("Origin")
	return origin == "" || strings.EqualFold(origin, own)
}

// readRequest checks an authorization request. After a *pageError the browser must not be
// redirected; after a *clientError it may be.
func (p *Provider) readRequest(r *http.Request) (authRequest, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return authRequest{}, &pageError{http.StatusBadRequest, "The request's query is malformed."}
	}
	req := authRequest{}
	if req.redirectURI, err = p.knownClient(q); err != nil {
		return req, err
	}
	if req.state, err = single(q, "state"); err != nil {
		return req, &clientError{"invalid_request", err.Error()}
	}
	return req, req.fill(q, p.kind)
}

// knownClient returns the address that answers may be sent to. A wrong client or redirect
// URI is shown to the person, and the browser is not redirected (RFC 6749 §4.1.2.1).
func (p *Provider) knownClient(q url.Values) (string, error) {
	id, err := single(q, "client_id")
	if err != nil || id != p.opts.ClientID {
		return "", &pageError{http.StatusBadRequest, "This client is not known here."}
	}
	uri, err := single(q, "redirect_uri")
	if err != nil || !slices.Contains(p.opts.RedirectURIs, uri) { // RFC 9700 §4.1.3: exact match
		return "", &pageError{http.StatusBadRequest,
			"The client asked to return to an address that is not registered for it."}
	}
	return uri, nil
}

// fill reads the rest of the request. All its errors may be sent to the client.
func (req *authRequest) fill(q url.Values, kind providerKind) error {
	for name := range q {
		if _, err := single(q, name); err != nil {
			return &clientError{"invalid_request", err.Error()}
		}
	}
	req.nonce, req.challenge, req.hint = q.Get("nonce"), q.Get("code_challenge"), q.Get("login_hint")
	scope, err := kind.granted(strings.Fields(q.Get("scope")))
	if req.scope = scope; err != nil {
		return err
	}
	prompt := strings.Fields(q.Get("prompt"))
	req.silent = slices.Contains(prompt, "none")

	if kind.plainOAuth {
		return req.fillPlain(q)
	}
	switch {
	case q.Get("request") != "": // OIDC Core §6.1
		return &clientError{"request_not_supported", "request objects are not read here"}
	case q.Get("request_uri") != "":
		return &clientError{"request_uri_not_supported", "request objects are not read here"}
	case q.Get("response_type") != "code":
		return &clientError{"unsupported_response_type", "response_type must be code"}
	case q.Has("response_mode") && q.Get("response_mode") != "query":
		return &clientError{"invalid_request", "response_mode must be query"}
	case !slices.Contains(req.scope, "openid"):
		return &clientError{"invalid_scope", "scope must contain openid"}
	case req.state == "":
		return &clientError{"invalid_request", "state is missing"}
	case req.silent && len(prompt) > 1: // OIDC Core §3.1.2.1
		return &clientError{"invalid_request", "prompt=none stands alone"}
	case req.nonce == "" && !kind.ignoresNonce:
		return &clientError{"invalid_request", "nonce is missing"}
	case kind.refusesPKCE && q.Has("code_challenge"):
		return &clientError{"invalid_request", "PKCE is not switched on for this client"}
	case kind.ignoresPKCE || kind.refusesPKCE:
		req.challenge = ""
	case q.Get("code_challenge_method") != "S256": // RFC 9700 §2.1.1: plain would show the verifier
		return &clientError{"invalid_request", "code_challenge_method must be S256"}
	case !isChallenge(req.challenge):
		return &clientError{"invalid_request", "code_challenge is not the base64url of a SHA-256"}
	}
	return nil
}

// fillPlain is the rest of fill for a provider that does not speak OpenID Connect.
func (req *authRequest) fillPlain(q url.Values) error {
	prompt := q.Get("prompt")
	switch req.silent = false; {
	case req.state == "":
		return &clientError{"invalid_request", "state is missing"}
	case q.Has("nonce") || q.Has("max_age") || q.Has("acr_values"):
		return &clientError{"invalid_request", "that is OpenID Connect"}
	case prompt != "" && prompt != "select_account":
		return &clientError{"invalid_request", "prompt is none that is known"}
	case q.Get("code_challenge_method") != "S256" || !isChallenge(req.challenge):
		return &clientError{"invalid_request", "code_challenge must be one of S256"}
	}
	return nil
}

const (
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	base64URL    = alphanumeric + "-_"
	unreserved   = alphanumeric + "-._~" // RFC 3986 §2.3
)

// isChallenge reports whether s is a hash of 32 bytes in base64url, which has 43 characters
// (RFC 7636 §4.2).
func isChallenge(s string) bool { return len(s) == 43 && strings.Trim(s, base64URL) == "" }

func (p *Provider) signIn(w http.ResponseWriter, r *http.Request, req authRequest, who Person) error {
	tenant := r.PathValue("tenant")
	if !p.kind.admits(tenant, who) {
		return &pageError{http.StatusForbidden, "This account is not one that may sign in here."}
	}
	now, code := p.opts.Now(), "demo-code-"+random()
	g := grant{person: who, tenant: tenant, redirectURI: req.redirectURI, challenge: req.challenge, nonce: req.nonce,
		scope: req.scope, authTime: now}
	hinted, known := find(p.opts.People, req.hint)
	p.mu.Lock()
	// Who is asked again is in the session in which they signed in last.
	if g.sid = p.sids[who.Key]; g.sid == "" || !known || hinted.Key != who.Key {
		g.sid = random()
		p.sids[who.Key] = g.sid
	}
	p.codes.put(now, code, g)
	p.mu.Unlock()
	return p.answer(w, r, req, url.Values{"code": {code}})
}

// refuseRequest sends a *clientError to the client and passes others on.
func (p *Provider) refuseRequest(w http.ResponseWriter, r *http.Request, req authRequest, err error) error {
	var c *clientError
	if !errors.As(err, &c) {
		return err
	}
	return p.answer(w, r, req, url.Values{"error": {c.code}, "error_description": {c.text}})
}

// answer sends the browser back to the client with an answer.
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, req authRequest, params url.Values) error {
	if p.kind.namesIssuer {
		params.Set("iss", p.opts.Issuer+p.kind.issuerPath) // RFC 9207 §2: in errors too
	}
	if req.state != "" {
		params.Set("state", req.state)
	}
	return redirect(w, r, req.redirectURI, params)
}

func redirect(w http.ResponseWriter, r *http.Request, to string, params url.Values) error {
	if len(params) > 0 {
		sep := "?"
		if strings.Contains(to, "?") {
			sep = "&"
		}
		to += sep + params.Encode()
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // RFC 9700 §4.2.4: the client must not learn the request's URL
	http.Redirect(w, r, to, http.StatusSeeOther)     // RFC 9700 §4.12: 303, so that the form is not sent again
	return nil
}

// endSession sends people back to the address that the client has registered. There is no
// session to end, so the person is not asked to confirm.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return &pageError{http.StatusBadRequest, "The request could not be read."}
	}
	uri, err := single(r.Form, "post_logout_redirect_uri")
	if err != nil {
		return &pageError{http.StatusBadRequest, "The request says twice where to go."}
	}
	if id := r.Form.Get("client_id"); (id != "" || uri != "") && id != p.opts.ClientID {
		return &pageError{http.StatusBadRequest, "This client is not known here."}
	}
	if uri == "" {
		return p.templates.message(w, http.StatusOK, "You are signed out", "You can close this page.")
	}
	if !slices.Contains(p.opts.PostLogoutURIs, uri) { // RP-Initiated Logout §3: exact match, or no redirect
		return &pageError{http.StatusBadRequest,
			"The client asked to return to an address that is not registered for it."}
	}
	params := url.Values{}
	if state := r.Form.Get("state"); state != "" {
		params.Set("state", state)
	}
	return redirect(w, r, uri, params)
}

func originOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
