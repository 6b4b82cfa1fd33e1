package proxy

import (
	"context"
	"net/http"

	"github.com/sallyport-proxy/sallyport/admission"
	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// accountEndpoint is the page on which people see what is known of them.
type accountEndpoint struct {
	own        *ownSessions
	site       *site
	providers  providers
	pages      *pages.Pages
	list       *personList
	durable    bool         // what ends sessions is kept in a store
	operators  *authz.Route // who sees permission
	permission []pages.Permission
	lender     Lender // nil: nothing is lent
	directory  *directoryEndpoint
}

func (e *accountEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	s, err := e.own.read(r, ev)
	if err != nil {
		return e.site.askToSignIn(w, r, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	if renewed, due := e.own.sessions.Renew(s); due && admission.KindOf(r) == admission.Navigation {
		if s = renewed; e.own.sessions.Write(w, e.site.host, s) != nil {
			return &failure{Status: http.StatusInternalServerError, Cause: session.ErrTooLarge}
		}
	}
	data := e.data(&s)
	if data.Sessions, err = e.list.show(r, &s); err != nil {
		e.own.process.log.Error("the account page lacks the list of sessions", "request_id", ev.RequestID, "error", err)
	}
	data.Grants = e.grants(r, ev, &s)
	data.Sessions.OnlyHere, data.Sessions.EndURL = !e.durable, e.site.path("sessions/end")
	var leadsTo []string
	data.Directory, leadsTo = e.directory.show(r, ev, &s)
	show(e.pages, w, r, ev, pages.Page{Template: "account", Data: data, FormAction: leadsTo})
	return nil
}

// grants are what the person lends. Where that cannot be read the page says so.
func (e *accountEndpoint) grants(r *http.Request, ev *event, s *session.Session) pages.Grants {
	if e.lender == nil || s.Identity.MustPick() {
		return pages.Grants{}
	}
	ctx, cancel := context.WithTimeout(r.Context(), grantsTime)
	defer cancel()
	e.lender.Look(ctx, s.Identity)
	views, err := e.lender.View(ctx, s.Identity)
	if err != nil {
		e.own.process.log.Error("the account page lacks the list of grants", "request_id", ev.RequestID, "error", err)
		return pages.Grants{Shown: true, Unknown: true}
	}
	return pages.Grants{Shown: len(views) > 0, List: grantsOf(views, s.Identity, e.site)}
}

func (e *accountEndpoint) data(s *session.Session) pages.Account {
	id := &s.Identity
	data := pages.Account{
		Name: id.DisplayName(), Username: id.Username, Email: id.Email, EmailVerified: id.EmailVerified,
		UserID: id.ID(), Provider: id.Provider, Groups: id.Groups,
		GroupsUnknown: id.GroupsUnknown, GroupsDropped: id.GroupsDropped, OrgUnknown: id.OrgUnknown,
		SignedInAt: s.SignedIn, ExpiresAt: s.Expires, IdleExpiresAt: s.IdleExpires,
		LogoutURL: e.site.path("logout"), BackURL: e.site.start(), Now: e.own.process.now(),
	}
	if provider, ok := e.providers.find(id.Provider); ok {
		data.Provider = provider.Name
	}
	if authz.Decide(authz.Facts{}, e.operators, id).Outcome == authz.Forward {
		for _, permission := range e.permission {
			if permission.Received != nil {
				permission.Claims = permission.Received()
			}
			data.Permissions = append(data.Permissions, permission)
		}
	}
	if id.Org.ID != "" {
		data.Org = &pages.AccountOrg{Name: id.Org.Name, Domain: id.Org.Domain, ID: id.Org.ID}
	}
	data.Switch = e.site.orgChoices(others(id), e.site.path("account"))
	return data
}
