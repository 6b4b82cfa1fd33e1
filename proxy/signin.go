package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

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
	if whoAsks(r) != navigation {
		return p.unauthorized(w, r, ev)
	}
	w.Header().Set("Cache-Control", "no-store") // where it leads is for this browser, this once (security.md 132)
	q, err := url.ParseQuery(ev.facts.RawQuery)
	if err != nil {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed query")}
	}
	returnTo := session.ReturnTo(q.Get("return_to"), p.origin, p.prefix)
	s, err := p.ownSession(r, ev)
	purpose := purposeLogin
	if q.Get("switch") != "" {
		purpose = purposeSwitch
	}
	switch {
	case err == nil && purpose == purposeSwitch && clickedHere(r, p.origin):
		// To sign in as somebody else, the first one must be gone: otherwise a
		// cancelled sign-in would leave them there (CVE-2026-34454).
		p.sessions.SignOut(w, s)
	case err == nil: // signed in already: a late tab, or a bookmark
		redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo))
		return nil
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

// begin sends the browser to the provider.
func (p *Proxy) begin(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, f session.Flow, hint string) error {
	ctx, release, err := p.slot(r.Context(), provider, f.ReturnTo)
	if err != nil {
		return err
	}
	defer release()
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

// slot bounds how many sign-ins wait for providers at one time: a slow provider
// must not fill the memory with people who wait for it (security.md R3). Each
// provider has an equal share, so that one that hangs keeps nobody from signing
// in with another.
func (p *Proxy) slot(ctx context.Context, provider Provider, returnTo string) (context.Context, func(), error) {
	slots := p.slots[provider.ID]
	select {
	case slots <- struct{}{}:
	default:
		// A callback counts once, so to load its address again would not help.
		return nil, nil, p.tryAgain(&failure{Status: http.StatusServiceUnavailable, RetryAfter: 5, Cause: fmt.Errorf("sign-in with %s: its share of limits.flows is in use", provider.ID),
			Title: "Too many people are signing in", Sentence: "Signing in with " + provider.Name + " is busy at the moment.", Advice: "Try again in a few seconds."}, returnTo)
	}
	ctx, cancel := context.WithTimeout(ctx, flowTime)
	return ctx, func() { cancel(); <-slots }, nil
}

// newSlots shares flows among providers, rounded up: none goes without.
func newSlots(flows int, providers []Provider) map[string]chan struct{} {
	slots := map[string]chan struct{}{}
	for _, provider := range providers {
		slots[provider.ID] = make(chan struct{}, (flows+len(providers)-1)/len(providers))
	}
	return slots
}

// callback ends a sign-in. With a live session it changes nothing: a repeated
// callback, the back button and thirty tabs all land where they wanted to go,
// and somebody else's callback URL does not replace who is signed in (P6).
func (p *Proxy) callback(w http.ResponseWriter, r *http.Request, ev *event, id string) error {
	w.Header().Set("Cache-Control", "no-store")
	q, err := url.ParseQuery(ev.facts.RawQuery)
	if err != nil || len(q["state"]) > 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed callback")}
	}
	flow, h, flowErr := p.sessions.End(r, q.Get("state"))
	returnTo := session.ReturnTo(flow.ReturnTo, p.origin, p.prefix)
	if s, err := p.ownSession(r, ev); err == nil {
		redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo))
		return nil
	}
	if flowErr != nil {
		return p.flowBroken(w, r, ev, flow, flowErr)
	}
	provider, ok := p.provider(flow.Provider)
	if !ok || !signIn(flow) || flow.Provider != id { // mix-up: RFC 9700 §4.4
		return p.startAgain(flow, errMixUp)
	}
	if q.Get("error") == "invalid_request" && prompt(flow) == "select_account" {
		flow.Restarts, flow.ReturnTo = 1, returnTo
		return p.begin(w, r, ev, provider, flow, "")
	}
	return p.redeem(w, r, ev, provider, q, h, returnTo)
}

func (p *Proxy) redeem(w http.ResponseWriter, r *http.Request, ev *event, provider Provider, q url.Values, h identity.Handshake, returnTo string) error {
	ctx, release, err := p.slot(r.Context(), provider, returnTo)
	if err != nil {
		return err
	}
	defer release()
	who, err := provider.Login.Redeem(ctx, q, h, identity.AuthParams{})
	if err != nil {
		return p.signInFailed(provider, err, returnTo)
	}
	s := p.sessions.Start(p.orgs.Fold(who)) // here, and where a token stands for a session: headers, rules and assertion see one organization
	if err := p.sessions.Write(w, p.publicHost, s); err != nil {
		return p.notKept(provider, &s, err, returnTo)
	}
	ev.identify(&s)
	p.metrics.logins.WithLabelValues(provider.ID, "ok").Inc()
	p.loops.completed(p.sessions.BrowserID(r))
	redirect(w, http.StatusSeeOther, p.origin+p.afterSignIn(&s, returnTo)) // the code leaves the address bar (security.md C14)
	return nil
}

// notKept is for a session that cannot be written. What a provider tells of
// organizations is the only part of one that can grow beyond a cookie.
func (p *Proxy) notKept(provider Provider, s *session.Session, err error, returnTo string) error {
	if !errors.Is(err, session.ErrTooLarge) || len(s.Identity.Orgs) == 0 {
		return p.signInFailed(provider, err, returnTo)
	}
	p.metrics.logins.WithLabelValues(provider.ID, string(identity.Rejected)).Inc()
	return &failure{Status: http.StatusBadGateway, Cause: fmt.Errorf("sign-in with %s: %d organizations: %w", provider.ID, len(s.Identity.Orgs), err),
		Title: "You belong to too many organizations", Sentence: provider.Name + " tells of more organizations than this site can keep, so you were not signed in.",
		Advice: "Tell the people who run this site, and give them the request id. They can have " + provider.Name + " tell of fewer."}
}

// flowBroken answers a callback that is not this browser's, or not any more.
// What this browser could have begun itself starts afresh, a few times; a page
// with a button ends what could go round in circles.
func (p *Proxy) flowBroken(w http.ResponseWriter, r *http.Request, ev *event, f session.Flow, cause error) error {
	provider, known := p.provider(f.Provider)
	restart := f.Restarts < maxRestarts && errors.Is(cause, session.ErrOtherBrowser) || f.Restarts == 0 && errors.Is(cause, session.ErrLate)
	if restart && known && signIn(f) && whoAsks(r) == navigation {
		f.Restarts++
		f.ReturnTo = session.ReturnTo(f.ReturnTo, p.origin, p.prefix)
		return p.begin(w, r, ev, provider, f, "")
	}
	return p.startAgain(f, cause)
}

// startAgain is the page with the button.
func (p *Proxy) startAgain(f session.Flow, cause error) error {
	return &failure{Status: http.StatusBadRequest, Cause: cause, Title: "This sign-in cannot be completed here",
		Sentence: "The sign-in was not begun in this browser, or it is over.",
		Page: &page{Template: "startagain", FormAction: p.providerOrigins(),
			Data: startagainData{StartURL: p.loginURL(session.ReturnTo(f.ReturnTo, p.origin, p.prefix)), Cause: flowWords(cause)}}}
}

// errMixUp: one provider's flow came back to another's callback.
var errMixUp = errors.New("the callback is not that of the provider the sign-in was begun with")

func flowWords(cause error) string {
	switch {
	case errors.Is(cause, errMixUp):
		return "The answer came from another provider than the one it was begun with."
	case errors.Is(cause, session.ErrLate):
		return "It took longer than ten minutes."
	case errors.Is(cause, session.ErrConsumed):
		return "It was completed before; the address of a finished sign-in cannot be used again."
	case errors.Is(cause, session.ErrOtherBrowser):
		return "It was begun in another browser, or in another tab at the same moment."
	}
	return "" // the page has words for a browser that began nothing
}

// signInFailed puts a failure at the provider into words. What the provider
// wrote is not repeated: it is somebody else's text on our page.
func (p *Proxy) signInFailed(provider Provider, err error, returnTo string) error {
	kind := identity.FailureOf(err)
	p.metrics.logins.WithLabelValues(provider.ID, string(kind)).Inc()
	f := &failure{Cause: fmt.Errorf("sign-in with %s: %w", provider.ID, err), Status: http.StatusBadGateway}
	switch kind {
	case identity.Unavailable:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Title, f.Sentence = "Signing in is not possible right now", provider.Name+" is not answering. If you are signed in already, you stay signed in."
		f.Advice = "Try again in a moment. Nothing is wrong with your account."
	case identity.Declined:
		f.Status = http.StatusForbidden
		f.Title, f.Sentence = "You were not signed in", provider.Name+" says that the sign-in was cancelled or refused there."
		f.Advice = "Try again, or ask the people who run " + provider.Name + " whether your account may use this site."
	case identity.ClockSkew:
		f.Title, f.Sentence = "The clocks do not agree", "What "+provider.Name+" sent is not valid at this server's time, so nobody was signed in."
		f.Advice = "Tell the people who run this site to check the server's clock, and give them the request id."
	case identity.Misconfigured:
		f.Title, f.Sentence = "Signing in is not set up right", provider.Name+" does not accept this site's request."
		f.Advice = "Tell the people who run this site, and give them the request id."
	default:
		f.Title, f.Sentence = "The sign-in could not be trusted", "What "+provider.Name+" sent did not pass a check, so nobody was signed in."
		f.Advice = "Try once more. If it happens again, tell the people who run this site and give them the request id."
	}
	return p.tryAgain(f, returnTo)
}

// tryAgain gives a failure a page with a button that begins a sign-in.
func (p *Proxy) tryAgain(f *failure, returnTo string) *failure {
	f.Page = &page{Template: "message", Data: messageData{Title: f.Title, Sentence: f.Sentence, Advice: f.Advice,
		ActionURL: p.loginURL(returnTo), ActionText: "Try again"}}
	return f
}
