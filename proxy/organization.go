package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// maxOrgForm bounds the form that picks an organization: an id, an address to
// return to, and their names.
const maxOrgForm = 8 << 10

// afterSignIn is where somebody with a session goes: to where they wanted, but
// first to the choice if they have not said for which organization they are here.
func (p *Proxy) afterSignIn(s *session.Session, returnTo string) string {
	if !s.Identity.MustPick() {
		return returnTo
	}
	if returnTo == "/" {
		return p.prefix + "/organization"
	}
	return p.prefix + "/organization?return_to=" + url.QueryEscape(returnTo)
}

// chooseOrg asks for which organization somebody is here.
func (p *Proxy) chooseOrg(w http.ResponseWriter, r *http.Request, ev *event) error {
	q, _ := readQuery(ev.facts.RawQuery)
	returnTo := session.ReturnTo(q.Get("return_to"), p.origin, p.prefix)
	s, err := p.ownSession(r, ev)
	switch {
	case err != nil:
		redirect(w, http.StatusSeeOther, p.loginURL(returnTo))
		return nil
	case len(s.Identity.Orgs) == 0: // there is nothing to choose
		redirect(w, http.StatusSeeOther, p.origin+returnTo)
		return nil
	}
	id := &s.Identity
	p.show(w, r, ev, page{Template: "organization", Data: orgData{Name: displayName(id), Active: orgName(id.Org), StayURL: returnTo,
		Choices: p.orgChoices(others(id), returnTo), SwitchURL: p.switchURL(&s, returnTo)}})
	return nil
}

// switchOrg makes another of somebody's organizations the active one. The old
// session ends: what was opened under it must not act for the new one.
func (p *Proxy) switchOrg(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !admission.FromPagesOf(r, p.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("choice of an organization from another site"),
			Title: "Nothing was changed", Sentence: "The request to switch the organization came from another site.",
			Advice: "If you want to switch, do it on your account page: " + p.origin + p.prefix + "/account"}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxOrgForm)
	if err := r.ParseForm(); err != nil || len(r.PostForm["org"]) != 1 || len(r.PostForm["return_to"]) > 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed choice of an organization"),
			Title: "Nothing was changed", Sentence: "What was sent is not a choice of an organization.", Advice: "Go back and choose again."}
	}
	returnTo := session.ReturnTo(r.PostForm.Get("return_to"), p.origin, p.prefix)
	s, err := p.ownSession(r, ev)
	if err != nil { // signing in leads to the choice again
		redirect(w, http.StatusSeeOther, p.loginURL(returnTo))
		return nil
	}
	who, ok := s.Identity.WithOrg(r.PostForm.Get("org"))
	if !ok {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("choice of an organization that is not theirs"),
			Title: "Nothing was changed", Sentence: "You do not belong to this organization, or not any more.", Advice: "Sign out and in again if you have just been added to it."}
	}
	s, err = p.sessions.Switch(r.Context(), w, p.publicHost, s, who)
	if errors.Is(err, session.ErrEnded) { // another switch, or a sign-out, was quicker
		redirect(w, http.StatusSeeOther, p.origin+p.loginURL(returnTo))
		return nil
	}
	if errors.Is(err, session.ErrStore) {
		return &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 5}
	}
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ev.identify(&s.Identity)
	ev.action = observe.SwitchOrg
	p.clearCache(w, r)
	redirect(w, http.StatusSeeOther, p.origin+returnTo)
	return nil
}

// others are the organizations that somebody can switch to.
func others(id *identity.Identity) []identity.Org {
	return slices.DeleteFunc(slices.Clone(id.Orgs), func(o identity.Org) bool { return o.ID == id.Org.ID })
}

// orgChoices is nil if there are none.
func (p *Proxy) orgChoices(orgs []identity.Org, returnTo string) *orgChoices {
	if len(orgs) == 0 {
		return nil
	}
	choices := &orgChoices{PostURL: p.prefix + "/organization", ReturnTo: returnTo}
	for _, o := range orgs {
		note := o.Domain
		if note == "" && o.Name != "" {
			note = o.ID
		}
		choices.Orgs = append(choices.Orgs, orgChoice{ID: o.ID, Name: orgName(o), Note: note})
	}
	return choices
}

// orgName is the best thing to call an organization.
func orgName(o identity.Org) string {
	if o.Name != "" {
		return o.Name
	}
	return o.ID
}
