package proxy

import (
	"errors"
	"net/http"
	"slices"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// maxOrgForm bounds the form that picks an organization: an id, an address to
// return to, and their names.
const maxOrgForm = 8 << 10

// organizationEndpoint lets people choose for which of their organizations they
// are here.
type organizationEndpoint struct {
	own       *ownSessions
	site      *site
	providers providers
	pages     *pages.Pages
	keepCache bool
	lender    Lender // nil: nothing is lent
}

// ask shows the choice.
func (e *organizationEndpoint) ask(w http.ResponseWriter, r *http.Request, ev *event) error {
	q, _ := readQuery(ev.facts.RawQuery)
	returnTo := e.site.returnTo(q.Get("return_to"))
	s, err := e.own.read(r, ev)
	switch {
	case err != nil:
		redirect(w, http.StatusSeeOther, e.site.login(returnTo))
		return nil
	case len(s.Identity.Orgs) == 0: // there is nothing to choose
		redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
		return nil
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	id := &s.Identity
	show(e.pages, w, r, ev, pages.Page{Template: "organization",
		FormAction: append(e.providers.origins(), e.site.leadsTo(e.own.sessions, returnTo)...),
		Data: pages.Organization{
			Name: id.DisplayName(), Active: id.Org.DisplayName(), StayURL: returnTo,
			Choices: e.site.orgChoices(others(id), returnTo), SwitchURL: e.site.switchURL(&s, returnTo),
		}})
	return nil
}

// pick makes another of the person's organizations the active one. The old session
// ends, so that pages that were opened in it do not act for the new organization.
func (e *organizationEndpoint) pick(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !admission.FromPagesOf(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("choice of an organization from another site"),
			Title: "Nothing was changed", Sentence: "The request to switch the organization came from another site.",
			Advice: "If you want to switch, do it on your account page.", Account: e.site.url("account")}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxOrgForm)
	if err := r.ParseForm(); err != nil || len(r.PostForm["org"]) != 1 || len(r.PostForm["return_to"]) > 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed choice of an organization"),
			Title: "Nothing was changed", Sentence: "What was sent is not a choice of an organization.",
			Advice: "Go back and choose again."}
	}
	returnTo := e.site.returnTo(r.PostForm.Get("return_to"))
	s, err := e.own.read(r, ev)
	if err != nil { // signing in leads to the choice again
		redirect(w, http.StatusSeeOther, e.site.login(returnTo))
		return nil
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	who, ok := s.Identity.WithOrg(r.PostForm.Get("org"))
	if !ok {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("choice of an organization that is not theirs"),
			Title: "Nothing was changed", Sentence: "You do not belong to this organization, or not any more.",
			Advice: "Sign out and in again if you have just been added to it."}
	}
	s, err = e.own.sessions.Switch(r.Context(), w, e.site.host, s, who)
	if errors.Is(err, session.ErrEnded) { // another switch, or a sign-out, was quicker
		redirect(w, http.StatusSeeOther, e.site.login(returnTo))
		return nil
	}
	if errors.Is(err, session.ErrStore) {
		return &failure{Status: http.StatusServiceUnavailable, Cause: err, RetryAfter: 5}
	}
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ev.identify(&s.Identity)
	e.own.process.tellLender(r, ev, e.lender, &s)
	ev.Action = observe.SwitchOrg
	clearCache(w, r, e.keepCache)
	redirect(w, http.StatusSeeOther, e.site.origin+returnTo)
	return nil
}

// others are the organizations that somebody can switch to.
func others(id *identity.Identity) []identity.Org {
	return slices.DeleteFunc(slices.Clone(id.Orgs), func(o identity.Org) bool { return o.ID == id.Org.ID })
}
