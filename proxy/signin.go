package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

const (
	purposeLogin  = "login"
	purposeSwitch = "switch" // a login as somebody else
	// flowTime bounds all calls to a provider for one step of a sign-in.
	flowTime = 15 * time.Second
	// maxRestarts is how often a tab begins afresh that lost the race for the
	// flow cookie. With one restart, one in hundreds of such tabs would be stopped.
	maxRestarts = 3
)

// login begins a sign-in, for page navigations only.
func (p *Proxy) login(w http.ResponseWriter, r *http.Request, ev *event) error {
	if admission.KindOf(r) != admission.Navigation {
		return p.unauthorized(w, r, ev)
	}
	w.Header().Set("Cache-Control", "no-store") // where it leads is for this browser, this once (security.md 132)
	q, _ := readQuery(ev.facts.RawQuery)
	returnTo := session.ReturnTo(q.Get("return_to"), p.origin, p.prefix)
	s, err := p.ownSession(r, ev)
	purpose := purposeLogin
	if q.Get("switch") != "" {
		purpose = purposeSwitch
	}
	switch {
	case err == nil && q.Get("switch") == switchValue(&s):
		// To sign in as somebody else, the first one must be gone: otherwise a
		// cancelled sign-in would leave them there (CVE-2026-34454).
		if err := p.sessions.SignOut(r.Context(), w, s); err != nil {
			p.log.Error("a sign-out reached this process only", "request_id", ev.requestID, "error", err)
		}
		p.redeemed.forget(p.sessions.BrowserID(r))
	case err == nil: // signed in already: a late tab, or a bookmark
		redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo))
		return nil
	case admission.InFrame(r):
		return p.openWindow(r, returnTo)
	}
	if browser := p.sessions.BrowserID(r); browser != "" && p.loops.looping(browser) {
		return p.loopPage(ev, err, returnTo)
	}
	hint := loginHint(q.Get("login_hint"))
	provider, ok := p.choose(q.Get("provider"), hint)
	if !ok {
		p.show(w, r, ev, page{Template: "signin", FormAction: p.providerOrigins(), Data: p.signinChoices(returnTo, purpose)})
		return nil
	}
	return p.begin(w, r, ev, provider, session.Flow{Purpose: purpose, Provider: provider.ID, ReturnTo: returnTo}, hint)
}

// signIn reports whether f is for signing in, and not for something else.
func signIn(f session.Flow) bool { return f.Purpose == purposeLogin || f.Purpose == purposeSwitch }

// prompt is what f asks of its provider. To sign in as somebody else means to
// choose, but not every provider knows select_account: one that refused it is
// asked with login instead.
func prompt(f session.Flow) string {
	switch {
	case f.Purpose != purposeSwitch:
		return ""
	case f.Restarts == 0:
		return "select_account"
	}
	return "login"
}

func (p *Proxy) loopPage(ev *event, found error, returnTo string) error {
	seen := ev.facts.Scheme + "://" + ev.facts.Authority
	if found == nil {
		found = session.ErrNone
	}
	return &failure{Status: http.StatusBadRequest, Cause: fmt.Errorf("sign-in loop: %w", found),
		Page: &page{Template: "loop", FormAction: p.providerOrigins(), Data: loopData{
			PublicURL: p.origin, SeenURL: seen, Causes: p.loopCauses(seen, found), StartURL: p.loginURL(returnTo)}}}
}

// switchURL leads to a sign-in as somebody else, which ends s.
func (p *Proxy) switchURL(s *session.Session, returnTo string) string {
	u := p.prefix + "/login?switch=" + switchValue(s)
	if returnTo != "/" {
		u += "&return_to=" + url.QueryEscape(returnTo)
	}
	return u
}

// switchValue is what only a page that s was shown has in its links. Where a link
// is, browsers cannot be asked: for a request that a service worker passes on,
// Firefox and WebKit say "Sec-Fetch-Site: same-origin" wherever the link was. The
// value does nothing but end s, and tells nothing about it.
func switchValue(s *session.Session) string {
	sum := sha256.Sum256([]byte("sign in as someone else\x00" + s.Root))
	return hex.EncodeToString(sum[:16])
}

// choose returns the provider asked for, the only one, or the only one that
// vouches for addresses such as hint.
func (p *Proxy) choose(id, hint string) (Provider, bool) {
	switch {
	case id != "":
		return p.provider(id)
	case len(p.providers) == 1:
		return p.providers[0], true
	}
	_, domain, _ := strings.Cut(hint, "@")
	var vouching []Provider
	for _, provider := range p.providers {
		if slices.Contains(provider.EmailDomains, strings.ToLower(domain)) {
			vouching = append(vouching, provider)
		}
	}
	if len(vouching) == 1 {
		return vouching[0], true
	}
	return Provider{}, false
}

// loginHint is an address that an app sends along, so that people need not
// choose or type; "" if it is no plain address. It proves nothing: who signs in
// is what the provider says.
func loginHint(s string) string {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || len(s) > 254 || strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>[\]&=?#%`, r)
	}) || strings.Contains(domain, "@") {
		return ""
	}
	return s
}

func (p *Proxy) provider(id string) (Provider, bool) {
	for _, provider := range p.providers {
		if provider.ID == id {
			return provider, true
		}
	}
	return Provider{}, false
}

func (p *Proxy) signinChoices(returnTo, purpose string) signinData {
	data := signinData{ReturnTo: returnTo, Switch: purpose == purposeSwitch}
	for _, provider := range p.providers {
		data.Providers = append(data.Providers, signinChoice{ID: provider.ID, Name: provider.Name})
	}
	return data
}

// providerOrigins is for pages with a form that leads to a provider: Chromium
// applies form-action to the redirects that follow.
func (p *Proxy) providerOrigins() []string {
	var origins []string
	for _, provider := range p.providers {
		if o, ok := provider.Login.(interface{ AuthOrigins() []string }); ok {
			origins = append(origins, o.AuthOrigins()...)
		}
	}
	return origins
}

// knowsMetadata is a LoginProvider that tells whether it knows already where to
// send people. Then nobody waits for it to begin a sign-in.
type knowsMetadata interface {
	Discovered() bool
}

// discovered reports whether provider need not be asked where people sign in.
func discovered(provider Provider) bool {
	knows, ok := provider.Login.(knowsMetadata)
	return ok && knows.Discovered()
}

// begin sends the browser to the provider.
func (p *Proxy) begin(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, f session.Flow, hint string) error {
	ctx, cancel := context.WithTimeout(r.Context(), flowTime)
	defer cancel()
	if !discovered(provider) {
		release, err := p.slot(r, ev, provider, f.ReturnTo)
		if err != nil {
			return err
		}
		defer release()
	}
	h, err := p.sessions.Begin(w, r, f)
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	location, err := provider.Login.AuthURL(ctx, h, identity.AuthParams{Prompt: prompt(f), LoginHint: hint})
	if err != nil {
		return p.signInFailed(provider, err, f.ReturnTo)
	}
	redirect(w, http.StatusFound, location)
	return nil
}
