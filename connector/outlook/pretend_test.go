package outlook_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pretend is a small Microsoft: the authorization server of all tenants, where an
// administrator agrees, and Graph with one calendar. It was written from Microsoft's
// documentation and not from the connector.
type pretend struct {
	url string

	mu        sync.Mutex
	secret    string
	adminOnly bool                // people may not agree to calendars themselves
	approved  []string            // what the administrator of the tenant agreed to
	agreed    []string            // what the person ever agreed to, for this client
	codes     map[string]issued   // not redeemed
	redeemed  []string            // codes that were
	refresh   map[string]bool     // refresh tokens, and whether they are good
	access    map[string][]string // access tokens, and their scopes
	forms     []url.Values        // that came to the token endpoint
	graph     []string            // requests that came to Graph
	n         int
}

// issued is what a code was issued for.
type issued struct {
	scopes                     []string
	challenge, nonce, redirect string
}

func startMicrosoft(t *testing.T) *pretend {
	t.Helper()
	p := &pretend{secret: secret, codes: map[string]issued{}, refresh: map[string]bool{}, access: map[string][]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{tenant}/oauth2/v2.0/authorize", p.authorize)
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", p.token)
	mux.HandleFunc("GET /{tenant}/v2.0/adminconsent", p.adminConsent)
	graph := http.NewServeMux()
	graph.HandleFunc("GET /v1.0/me/calendarView", p.list)
	graph.HandleFunc("/", p.ok)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1.0/") {
			graph.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

// change has the tenant's people do something.
func (p *pretend) change(f func(*pretend)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func short(scopes string) (list []string) {
	for _, s := range strings.Fields(scopes) {
		list = append(list, strings.TrimPrefix(s, "https://graph.microsoft.com/"))
	}
	return list
}

func isCalendar(scope string) bool { return strings.HasPrefix(scope, "Calendars.") }

func (p *pretend) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if q.Get("client_id") != clientID || q.Get("redirect_uri") != redirect || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" {
		http.Error(w, "AADSTS50011", http.StatusBadRequest) // such errors are shown there
		return
	}
	scopes := short(q.Get("scope"))
	back := url.Values{"state": {q.Get("state")}, "session_state": {"7"}}
	missing := func(s string) bool { return isCalendar(s) && !slices.Contains(p.approved, s) }
	if p.adminOnly && slices.ContainsFunc(scopes, missing) {
		back.Set("error", "access_denied")
		back.Set("error_description", "AADSTS90094: The grant requires admin permission.\r\nTrace ID: 1")
	} else {
		p.n++
		code := fmt.Sprintf("0.AAAA-code-%d", p.n)
		p.codes[code] = issued{scopes, q.Get("code_challenge"), q.Get("nonce"), q.Get("redirect_uri")}
		p.agreed = append(p.agreed, scopes...)
		back.Set("code", code)
	}
	http.Redirect(w, r, redirect+"?"+back.Encode(), http.StatusFound)
}

func (p *pretend) adminConsent(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if r.PathValue("tenant") == "common" || q.Get("client_id") != clientID || q.Get("redirect_uri") != redirect ||
		!strings.Contains(q.Get("scope"), "https://graph.microsoft.com/Calendars.") {
		http.Error(w, "AADSTS50011", http.StatusBadRequest)
		return
	}
	p.approved = append(p.approved, short(q.Get("scope"))...)
	http.Redirect(w, r, redirect+"?admin_consent=True&tenant="+tenant, http.StatusFound)
}

func refuse(w http.ResponseWriter, status int, code, number string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprint(w, refusal(code, number))
}

func (p *pretend) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = r.ParseForm()
	f := r.PostForm
	p.forms = append(p.forms, f)
	if f.Get("client_id") != clientID || f.Get("client_secret") != p.secret {
		refuse(w, http.StatusUnauthorized, "invalid_client", "7000215")
		return
	}
	scopes, nonce := short(f.Get("scope")), ""
	switch f.Get("grant_type") {
	case "authorization_code":
		if slices.Contains(p.redeemed, f.Get("code")) {
			refuse(w, http.StatusBadRequest, "invalid_grant", "54005")
			return
		}
		c := p.codes[f.Get("code")]
		sum := sha256.Sum256([]byte(f.Get("code_verifier")))
		if c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) || c.redirect != f.Get("redirect_uri") {
			refuse(w, http.StatusBadRequest, "invalid_grant", "501481")
			return
		}
		p.redeemed, nonce = append(p.redeemed, f.Get("code")), c.nonce
		delete(p.codes, f.Get("code"))
	case "refresh_token":
		good, known := p.refresh[f.Get("refresh_token")]
		switch {
		case !known:
			refuse(w, http.StatusBadRequest, "invalid_grant", "9002313")
			return
		case !good:
			refuse(w, http.StatusBadRequest, "invalid_grant", "50173")
			return
		}
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", "70003")
		return
	}
	// A refresh token is bound to a person and a client, and not to scopes; without a scope it
	// is for all of them.
	if len(scopes) == 0 {
		scopes = p.agreed
	}
	if slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(p.agreed, s) }) {
		refuse(w, http.StatusBadRequest, "invalid_grant", "65001")
		return
	}
	p.n++
	access := fmt.Sprintf("EwB-access-%d", p.n)
	p.access[access] = scopes
	answer := map[string]any{"token_type": "Bearer", "access_token": access, "expires_in": 3600 + 60*p.n,
		"ext_expires_in": 3600 + 60*p.n, "id_token": idToken(claims(clientID, nonce))}
	var said []string
	for _, s := range scopes {
		if isCalendar(s) {
			s = "https://graph.microsoft.com/" + s
		}
		if s != "offline_access" {
			said = append(said, s)
		}
	}
	answer["scope"] = strings.Join(said, " ")
	if slices.Contains(scopes, "offline_access") {
		token := fmt.Sprintf("0.AAAA-refresh-%d", p.n) // the old one stays good
		p.refresh[token] = true
		answer["refresh_token"] = token
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
}

// allowed reports whether the access token is good for calendars, and notes the request.
func (p *pretend) allowed(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.graph = append(p.graph, r.Method+" "+r.RequestURI)
	scopes := p.access[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if !slices.ContainsFunc(scopes, isCalendar) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"code":"InvalidAuthenticationToken","message":"Access token is empty."}}`)
		return false
	}
	return true
}

func (p *pretend) ok(w http.ResponseWriter, r *http.Request) {
	if p.allowed(w, r) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"value":[]}`)
	}
}

// list is in three pages, each with the absolute address of the next one.
func (p *pretend) list(w http.ResponseWriter, r *http.Request) {
	if !p.allowed(w, r) {
		return
	}
	q := r.URL.Query()
	var page int
	_, _ = fmt.Sscanf(q.Get("$skiptoken"), "R0usmc/%d+x", &page)
	body := map[string]any{"@odata.context": "https://graph.microsoft.com/v1.0/$metadata#users('7d')/calendarView",
		"value": []any{map[string]any{"subject": fmt.Sprintf("event %d", page), "start": time.Now()}}}
	if page < 2 {
		q.Set("$skiptoken", fmt.Sprintf("R0usmc/%d+x", page+1))
		body["@odata.nextLink"] = p.url + r.URL.Path + "?" + q.Encode()
	}
	w.Header().Set("Content-Type", "application/json;odata.metadata=minimal")
	_ = json.NewEncoder(w).Encode(body)
}
