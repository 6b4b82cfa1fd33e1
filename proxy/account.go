package proxy

import (
	"net/http"
	"time"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/session"
)

// ownSession reads the session for endpoints of ours. Side effects: it sets the
// event's user and clears the browser's loop count.
func (p *Proxy) ownSession(r *http.Request, ev *event) (session.Session, error) {
	s, err := p.admission.Session(r.Header, p.publicHost)
	if err != nil {
		ev.sessionErr = err
		return *s, err
	}
	ev.identify(&s.Identity)
	p.loops.stuck(p.sessions.BrowserID(r))
	return *s, nil
}

func (p *Proxy) account(w http.ResponseWriter, r *http.Request, ev *event) error {
	s, err := p.ownSession(r, ev)
	if err != nil {
		return p.askToSignIn(w, r, ev)
	}
	if renewed, due := p.sessions.Renew(s); due && admission.KindOf(r) == admission.Navigation {
		if s = renewed; p.sessions.Write(w, p.publicHost, s) != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: session.ErrTooLarge}
		}
	}
	p.show(w, r, ev, page{Template: "account", Data: p.accountData(&s)})
	return nil
}

func (p *Proxy) accountData(s *session.Session) accountData {
	id := &s.Identity
	data := accountData{
		Name: displayName(id), Username: id.Username, Email: id.Email, EmailVerified: id.EmailVerified,
		UserID: id.ID(), Provider: id.Provider, Groups: id.Groups, GroupsUnknown: id.GroupsUnknown, GroupsDropped: id.GroupsDropped, OrgUnknown: id.OrgUnknown,
		SignedInAt: s.SignedIn, ExpiresAt: s.Expires, IdleExpiresAt: s.IdleExpires,
		LogoutURL: p.prefix + "/logout", BackURL: p.startPage, Now: p.now(),
	}
	if provider, ok := p.provider(id.Provider); ok {
		data.Provider = provider.Name
	}
	if authz.Decide(authz.Facts{}, p.operators, id).Outcome == authz.Forward {
		for _, permission := range p.permission {
			if permission.Received != nil {
				permission.Claims = permission.Received()
			}
			data.Permissions = append(data.Permissions, permission)
		}
	}
	if id.Org.ID != "" {
		data.Org = &accountOrg{Name: id.Org.Name, Domain: id.Org.Domain, ID: id.Org.ID}
	}
	data.Switch = p.orgChoices(others(id), p.prefix+"/account")
	return data
}

// sessionInfo is the contract with single-page apps.
func (p *Proxy) sessionInfo(w http.ResponseWriter, r *http.Request, ev *event) error {
	s, err := p.ownSession(r, ev)
	if err != nil || s.Identity.MustPick() { // login_url leads to what is missing
		return p.unauthorized(w, r, ev)
	}
	if renewed, due := p.sessions.Renew(s); due {
		if err := p.sessions.Write(w, p.publicHost, renewed); err == nil {
			s = renewed
		}
	}
	type user struct {
		ID       string   `json:"id"`
		Email    string   `json:"email,omitempty"`
		Name     string   `json:"name,omitempty"`
		Username string   `json:"username,omitempty"`
		Groups   []string `json:"groups,omitempty"`
	}
	type org struct {
		ID     string `json:"id"`
		Name   string `json:"name,omitempty"`
		Domain string `json:"domain,omitempty"`
	}
	body := struct {
		User        user      `json:"user"`
		Org         *org      `json:"org"`
		Expires     time.Time `json:"expires_at"`
		IdleExpires time.Time `json:"idle_expires_at"`
	}{User: user{s.Identity.ID(), s.Identity.VerifiedEmail(), s.Identity.Name, s.Identity.Username, s.Identity.Groups},
		Expires: s.Expires, IdleExpires: s.IdleExpires}
	if o := s.Identity.Org; o.ID != "" {
		body.Org = &org{o.ID, o.Name, o.Domain}
	}
	w.Header().Set("Cache-Control", "private, no-store")
	writeJSON(w, r, http.StatusOK, body)
	return nil
}

// displayName is the best thing to call somebody.
func displayName(id *identity.Identity) string {
	for _, name := range [...]string{id.Name, id.Username, id.VerifiedEmail()} {
		if name != "" {
			return name
		}
	}
	return id.ID()
}
