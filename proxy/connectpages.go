package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// show writes the page that asks. A notice stands above all else; confirm is in it where
// another account is to take the place of the one that is connected.
func (e *connectEndpoint) show(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session, a connectAsk,
	p grant.Proposal, notice *pages.Notice, status int) error {
	confirm := notice != nil && notice.Confirm
	data := pages.Connect{Person: s.Identity.DisplayName(), App: cmp.Or(p.AppName, p.App),
		Connector: p.About.Name, Notice: notice,
		Scopes: p.Scopes, Trip: p.Trip, OfflinePossible: p.OfflinePossible, Events: p.Events,
		Days: []int{7, grant.OfflineDays, grant.MostOfflineDays}, DefaultDays: grant.OfflineDays,
		PostURL: a.target, Form: formSecret(s, a, p, confirm)}
	if p.Owner.Kind == grant.OwnedByOrg {
		data.Org, data.OfSome = s.Identity.Org.DisplayName(), p.OfSome
	}
	for _, access := range p.Accesses {
		data.May = append(data.May, access.Means)
	}
	if p.Current != nil {
		data.Account = p.Current.Account.Name
		if c, ok := p.Current.Consent(p.App); ok && c.Offline {
			data.OfflineNow = true
		}
	}
	if p.Trip && p.About.KeyHint != "" {
		data.Key = &pages.KeyField{User: p.About.UserHint, Hint: p.About.KeyHint,
			URL: p.About.KeyURL, Optional: p.About.Authorize != ""}
	}
	pg := pages.Page{Status: status, Template: "connect", Data: data}
	// Chromium applies form-action to all redirects that follow a form, and the page of the app
	// to which it leads may have the provider asked again first.
	pg.FormAction = e.providers.origins()
	if p.About.Authorize != "" {
		pg.FormAction = append(append(pg.FormAction, p.About.Authorize), p.About.Onward...)
	}
	if !strings.HasPrefix(a.returnTo, "/") {
		pg.FormAction = append(pg.FormAction, a.returnTo)
	}
	show(e.pages, w, r, ev, pg)
	return nil
}

// chooseApp is for somebody who wants to connect something by themselves: it lists the apps
// that may ask for it.
func (e *connectEndpoint) chooseApp(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session,
	a connectAsk) error {
	views, err := e.lender.View(r.Context(), s.Identity)
	if err != nil {
		return e.refused(err, a.Connector)
	}
	for _, v := range views {
		if v.About.ID != a.Connector || len(v.Apps) == 0 {
			continue
		}
		data := pages.ConnectApps{Connector: v.About.Name, BackURL: e.site.path("account") + "#grants"}
		for _, app := range v.Apps {
			next := a
			next.App = app.ID
			choice := pages.ConnectApp{Name: cmp.Or(app.Name, app.ID), URL: e.site.connectPath(next)}
			data.Apps = append(data.Apps, choice)
		}
		show(e.pages, w, r, ev, pages.Page{Template: "connectapps", Data: data})
		return nil
	}
	return e.refused(grant.ErrNoApp, a.Connector)
}

// refused answers what the configuration does not allow, before anything was asked.
func (e *connectEndpoint) refused(err error, connector string) error {
	name := e.lender.Name(connector)
	f := &failure{Status: http.StatusForbidden, Cause: fmt.Errorf("connect %s: %w", connector, err),
		Title:  "This cannot be connected",
		Advice: "Tell the people who run this site if you think it should be possible."}
	switch {
	case errors.Is(err, grant.ErrNoConnector):
		f.Status, f.Sentence = http.StatusNotFound, "There is nothing of this name to connect here."
	case errors.Is(err, grant.ErrNoApp):
		f.Status, f.Sentence = http.StatusNotFound, "The app that asks is not known here, or may not ask for this."
	case errors.Is(err, grant.ErrNotOffered), errors.Is(err, grant.ErrNoOffline):
		f.Sentence = "The app asks for more than it may ask for here."
	case errors.Is(err, grant.ErrDays):
		f.Status, f.Sentence = http.StatusBadRequest, "It can be used while you are away for 90 days at most."
		f.Advice = "Go back and choose again."
	case errors.Is(err, grant.ErrNotManager):
		f.Sentence = name + " is connected once for your whole organization, by people who may manage that, and you " +
			"are not among them."
		f.Advice = "Ask an administrator of your organization to connect it."
	case errors.Is(err, grant.ErrNoOrg):
		// Who has one to choose was led to the choice.
		f.Sentence = name + " is connected for an organization, and it is not known that you belong to one."
		f.Advice, f.Account = "Sign in with the account that you have at your organization. If you did, give the "+
			"people who run this site the request id.", e.site.url("account")
	default:
		f.Status, f.RetryAfter, f.Title = http.StatusServiceUnavailable, 5, "Not available right now"
		f.Sentence, f.Advice = "What is connected cannot be read at the moment.", "Try again in a moment."
	}
	return f
}

// failed answers a connection that came to nothing. What the third party wrote is not
// shown: anybody could put text on our page with a link.
func (e *connectEndpoint) failed(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session, a connectAsk,
	err error) error {
	if narrow, ok := errors.AsType[*grant.NarrowError](err); ok {
		return e.tooNarrow(a, narrow.Missing, err)
	}
	if other, ok := errors.AsType[*grant.OtherAccountError](err); ok {
		return e.otherAccount(w, r, ev, s, a, other)
	}
	if required, ok := errors.AsType[*grant.RequiredError](err); ok { // it changed since the page was shown
		ev.Note = required.Error()
		return e.showAgain(w, r, ev, s, a, &pages.Notice{Title: "Please look at this again",
			Text: "What is connected has changed while you were reading. Nothing was agreed to."})
	}
	const title = "Nothing was connected"
	name := e.lender.Name(a.Connector)
	cause := fmt.Errorf("connect %s: %w", a.Connector, err)
	f := &failure{Status: http.StatusBadGateway, Cause: cause, Title: title,
		Sentence: name + " did not answer, or not so that it could be used.", Advice: "Try again in a moment."}
	if errors.Is(err, grant.ErrIssuer) {
		f.Status = http.StatusBadRequest
		f.Sentence, f.Advice = "The answer came from somebody else than was asked.",
			"Do not try again with the same link. Open the app, and begin there."
		return e.again(f, a)
	}
	if errors.Is(err, grant.ErrChain) {
		f.Status = http.StatusConflict
		f.Sentence, f.Advice = "This account at "+name+" is connected already, by somebody else here.",
			"Choose another account, or ask them to end theirs first."
		return e.again(f, a)
	}
	failed, ok := errors.AsType[*grant.Error](err)
	if !ok {
		if _, later := errors.AsType[*grant.LaterError](err); !later && !errors.Is(err, grant.ErrUnavailable) {
			return e.refused(err, a.Connector)
		}
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Sentence = "It cannot be kept at the moment."
		return e.again(f, a)
	}
	switch failed.Class {
	case grant.Narrow:
		return e.tooNarrow(a, failed.Missing, err)
	case grant.Yours:
		f.Status = http.StatusForbidden
		f.Sentence, f.Advice = name+" does not accept what you gave, or chose there.",
			"Look at it again, or use another one. If it should work, tell the people who run this site, and give "+
				"them the request id."
	case grant.AdminTheir:
		f.Status = http.StatusForbidden
		f.Sentence, f.Advice = "An administrator of your account at "+name+" has to agree first.",
			"Ask them to allow this site, and try again afterwards."
		return e.approval(f, a, failed.ApproveURL, "")
	case grant.Ours:
		f.Sentence, f.Advice = name+" is not set up right on this site.",
			"Tell the people who run this site, and give them the request id."
	}
	f.Sentence = cmp.Or(failed.Sentence, f.Sentence)
	return e.again(f, a)
}

func (e *connectEndpoint) tooNarrow(a connectAsk, missing []string, err error) error {
	return e.again(&failure{Status: http.StatusForbidden, Cause: fmt.Errorf("connect %s: %w", a.Connector, err),
		Title: "Not enough was allowed",
		Sentence: "Nothing was connected, because this is missing of what the app needs: " +
			strings.Join(missing, ", ") + ".",
		Advice: "Try again, and leave everything ticked that you are asked for."}, a)
}

// otherAccount asks whether another account may take the place of the one that is
// connected. Nothing has been stored; the person goes there again.
func (e *connectEndpoint) otherAccount(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session,
	a connectAsk, other *grant.OtherAccountError) error {
	ev.Note = "another account came than the one that is connected"
	return e.showAgain(w, r, ev, s, a, &pages.Notice{Title: "This is another account", Confirm: true,
		Text: "Until now the account " + accountName(other.Was) + " is connected, and now you chose " +
			accountName(other.Now) + ". Nothing has been changed yet. If you go on and choose the new one once more, " +
			"it takes the place of the old one for all apps that use it."})
}

// showAgain writes the page as it is now, for an answer that came to nothing.
func (e *connectEndpoint) showAgain(w http.ResponseWriter, r *http.Request, ev *event, s *session.Session, a connectAsk,
	notice *pages.Notice) error {
	a.Offline, a.Days = false, 0 // the box is ticked anew
	p, err := e.lender.Prepare(r.Context(), s.Identity, a.Ask)
	if err != nil {
		return e.refused(err, a.Connector)
	}
	return e.show(w, r, ev, s, a, p, notice, http.StatusConflict)
}

func accountName(a grant.Account) string {
	if a.Name != "" {
		return a.Name
	}
	return a.ID
}

// declined answers a third party that sent the browser back with an error which is nobody's
// fault here.
func (e *connectEndpoint) declined(err error, class grant.Class, a connectAsk) error {
	name := e.lender.Name(a.Connector)
	f := &failure{Status: http.StatusBadGateway, Cause: fmt.Errorf("connect %s: %w", a.Connector, err),
		Title: "Nothing was connected", Sentence: name + " refused, or could not do what it was asked for.",
		Advice: "Try again in a moment. If it stays like this, tell the people who run this site."}
	if class == grant.Yours {
		f.Status = http.StatusForbidden
		f.Sentence = name + " says that it was cancelled or refused there."
		f.Advice = "You can try again whenever you like."
	}
	if failed, ok := errors.AsType[*grant.Error](err); ok {
		return e.approval(f, a, failed.ApproveURL, "Were you told there that an administrator has to agree? ")
	}
	return e.again(f, a)
}

// approval is again, with the address where an administrator agrees, if there is one: the
// person sends it to them, and need not know anything about it.
func (e *connectEndpoint) approval(f *failure, a connectAsk, address, when string) error {
	err := e.again(f, a)
	if data, ok := f.Page.Data.(pages.Message); ok && address != "" {
		data.Share = &pages.Share{URL: address,
			Text: when + "Send them this link. They agree there once for everybody, and need no account here:"}
		f.Page.Data = data
	}
	return err
}

// approved answers the browser of an administrator who comes back from where they agreed, or
// did not. They may be anybody: nothing is read of the address but whether it is an error, and
// nothing follows from it.
func (e *connectEndpoint) approved(w http.ResponseWriter, r *http.Request, ev *event, q url.Values) error {
	data := pages.Message{Title: "Thank you",
		Sentence: "If you agreed, the people of your organization can connect their accounts now.",
		Advice:   "Tell who sent you the link to try again. You can close this page."}
	status := 0
	if q.Has("error") {
		status = http.StatusForbidden
		data = pages.Message{Title: "Nothing was agreed to",
			Sentence: e.lender.Name(r.PathValue("connector")) + " says that it was cancelled or refused there.",
			Advice:   "If you want to agree, open the link once more. You can close this page."}
	}
	show(e.pages, w, r, ev, pages.Page{Status: status, Template: "message", Data: data})
	return nil
}

// again gives a failure a page with a link to our page that asks, and one to where the person
// came from.
func (e *connectEndpoint) again(f *failure, a connectAsk) error {
	f.Page = &pages.Page{Template: "message", Data: pages.Message{Title: f.Title, Sentence: f.Sentence,
		Advice: f.Advice, ActionURL: e.site.connectPath(a), ActionText: "Try again",
		BackURL: e.site.absolute(a.returnTo)}}
	return f
}

// notConnectedHere answers a callback that this session did not begin. It has no button:
// a third party that remembers what somebody agreed to would grant it again unasked.
func notConnectedHere(cause error) error {
	return &failure{Status: http.StatusBadRequest, Refused: true,
		Cause:    fmt.Errorf("callback of a connection: %w", cause),
		Title:    "Nothing was connected here",
		Sentence: "This was begun in another browser or in another session, or it took longer than ten minutes.",
		Advice: "Open the app again, and begin there. If somebody sent you this address, do not use it: it works " +
			"only for the person who began."}
}

// disconnectEndpoint ends what somebody lends, for one app or altogether.
type disconnectEndpoint struct {
	own    *ownSessions
	site   *site
	pages  *pages.Pages
	lender Lender
}

func (e *disconnectEndpoint) serve(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !fromOwnPage(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("disconnect that was not sent from our page"),
			Title: "Nothing was ended", Sentence: "The request did not come from our own page.",
			Advice: "If you want to end it, do it on your account page.", Account: e.site.url("account")}
	}
	r = asCaller(r, ev)
	w.Header().Set("Cache-Control", "no-store")
	s, err := e.own.read(r, ev)
	if err != nil {
		return e.site.askToSignIn(w, r, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil || len(form["app"]) > 1 {
		return &failure{Status: http.StatusBadRequest, Cause: errors.New("malformed request to disconnect"),
			Title: "Nothing was ended", Sentence: "What was sent does not say what is to end.",
			Advice: "Open your account page again, and end it there.", Account: e.site.url("account")}
	}
	connector := r.PathValue("connector")
	if app := form.Get("app"); app != "" {
		if err := e.lender.Withdraw(r.Context(), s.Identity, connector, app); err != nil {
			return e.failed(err, connector)
		}
		redirect(w, http.StatusSeeOther, e.site.url("account")+"#grants")
		return nil
	}
	was := e.viewOf(r, s.Identity, connector)
	became, err := e.lender.End(r.Context(), s.Identity, connector)
	if err != nil {
		return e.failed(err, connector)
	}
	data := pages.Disconnected{Connector: e.lender.Name(connector), BackURL: e.site.path("account") + "#grants",
		Revoked: became == grant.Revoked, Failed: became == grant.RevokeFailed, Shared: became == grant.SharedThere}
	if !data.Revoked {
		data.FinishURL = was.FinishURL
	}
	show(e.pages, w, r, ev, pages.Page{Template: "disconnected", Data: data})
	return nil
}

// viewOf is what is known of a connector before it ends, for words only.
func (e *disconnectEndpoint) viewOf(r *http.Request, who identity.Identity, connector string) grant.View {
	views, err := e.lender.View(r.Context(), who)
	if err != nil {
		return grant.View{}
	}
	for _, v := range views {
		if v.About.ID == connector {
			return v
		}
	}
	return grant.View{}
}

func (e *disconnectEndpoint) failed(err error, connector string) error {
	f := &failure{Status: http.StatusServiceUnavailable, RetryAfter: 5, Title: "Nothing was ended",
		Cause:    fmt.Errorf("disconnect %s: %w", connector, err),
		Sentence: "What is connected cannot be changed at the moment.", Advice: "Try again in a moment."}
	switch {
	case errors.Is(err, grant.ErrNotFound), errors.Is(err, grant.ErrNoConnector):
		f.Status, f.RetryAfter = http.StatusNotFound, 0
		f.Sentence = "It is not connected any more."
		f.Advice, f.Account = "Your account page shows what is.", e.site.url("account")
	case errors.Is(err, grant.ErrNotManager), errors.Is(err, grant.ErrNoOrg):
		f.Status, f.RetryAfter = http.StatusForbidden, 0
		f.Sentence = e.lender.Name(connector) + " is connected for your whole organization, and you are not among " +
			"those who may end it."
		f.Advice = "Ask an administrator of your organization."
	}
	return f
}

// grantsOf is what the account page says of what somebody lends.
func grantsOf(views []grant.View, who identity.Identity, at *site) []pages.Grant {
	var list []pages.Grant
	for _, v := range views {
		g := pages.Grant{Name: v.About.Name, Excess: v.Excess, MayManage: v.MayManage,
			EndURL: at.path("disconnect/" + url.PathEscape(v.About.ID)), ApproveURL: v.ApproveURL,
			ConnectURL: at.path("connect/" + url.PathEscape(v.About.ID))}
		g.Status, g.Next = v.Status.Words(v.About.Name)
		if v.Unused && g.Next == "" {
			g.Next = fmt.Sprintf("No app has used it for %d days. If it is not needed any more, disconnect it.",
				grant.UnusedDays)
		}
		if v.Moved != "" {
			g.Status = strings.ToUpper(v.Moved[:1]) + v.Moved[1:] + "."
			g.Next = "If that change is meant to be, connect it again."
		}
		if !v.MayManage {
			if g.Next = ""; v.Status.NeedsManager() || v.Moved != "" {
				g.Next = "Ask an administrator of your organization to connect it."
			}
		}
		if v.Owner.Kind == grant.OwnedByOrg {
			g.Org = who.Org.DisplayName()
		}
		if k := v.Kept; k != nil {
			g.Connected, g.Account = true, accountName(k.Account)
			g.Requested, g.Granted = k.Requested, k.Scopes
			g.ConnectedAt, g.Reconsent = k.ConnectedAt, k.Reconsent
			if g.ConnectedBy = k.ConnectedBy; k.ConnectedBy == who.ID() {
				g.ConnectedBy = "you"
			}
		}
		for _, app := range v.Apps {
			line := pages.GrantApp{ID: app.ID, Name: cmp.Or(app.Name, app.ID), Agreed: app.Agreed, Offline: app.Offline,
				Until: app.Until, UsedAt: app.UsedAt,
				ConnectURL: at.connectPath(connectAsk{Ask: grant.Ask{Connector: v.About.ID, App: app.ID}})}
			for _, access := range app.Accesses {
				line.May = append(line.May, access.Means)
			}
			g.Apps = append(g.Apps, line)
		}
		list = append(list, g)
	}
	return list
}
