package proxy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/proxy/pages"
	"github.com/sallyport-proxy/sallyport/session"
)

// An administrator, whom the operator names, lets us read once what their provider's
// directory says of their organization:
//
//	account                 → a button, for those who may
//	POST directory/ID       → 303 the provider, with a state of this session
//	directory/ID/callback   → the same session, once: read, kept, 303 account
//	                        · else a page that says why not; nothing is kept
const purposeDirectory = "directory"

const (
	// directoryTime bounds all calls for one reading. It goes on though the browser leaves.
	directoryTime = time.Minute
	// directoryReads is how many may be on their way at one time, of each provider.
	directoryReads = 4
	// detailsTime is how long the account page waits for what is kept.
	detailsTime = 2 * time.Second
)

// DirectoryReader is a LoginProvider whose directory can be read. It has no way to hand out
// a token (P8). Errors of ReadDirectory are *identity.DirectoryError.
type DirectoryReader interface {
	// DirectoryDomain is the domain of the person's own organization; false: they have none.
	DirectoryDomain(who identity.Identity) (string, bool)
	DirectoryURL(ctx context.Context, h identity.Handshake, who identity.Identity) (string, error)
	ReadDirectory(ctx context.Context, callback url.Values, h identity.Handshake, who identity.Identity) (
		identity.OrgDetails, error)
}

// Directory says who may have the directory of a provider be read.
type Directory struct {
	DirectoryReader
	ManagedBy []authz.Rule
}

// Of is the domain of the organization of which who may have the directory be read; false: there
// is none, or somebody else may. The domain is there in the second case, too.
func (d *Directory) Of(who identity.Identity) (domain string, may bool) {
	domain, has := d.DirectoryDomain(who)
	managers := &authz.Route{Name: "directory", Access: authz.Access{Rules: d.ManagedBy}}
	return domain, has && authz.Decide(authz.Facts{}, managers, &who).Outcome == authz.Forward
}

// OrgKeeper keeps what directories say of organizations. See store.Store.
type OrgKeeper interface {
	// KeepOrg fails with identity.ErrOtherCustomer where the domain has changed hands.
	KeepOrg(ctx context.Context, d identity.OrgDetails) error
	OrgDetails(ctx context.Context, orgID string) (identity.OrgDetails, bool, error)
}

// directoryEndpoint has the directories of organizations read.
type directoryEndpoint struct {
	own       *ownSessions
	site      *site
	providers providers
	pages     *pages.Pages
	kept      OrgKeeper
	once      session.Once
}

// of is the provider of s, if its person may have the directory be read, and of which domain.
func (e *directoryEndpoint) of(s *session.Session) (provider Provider, domain string, may bool) {
	provider, ok := e.providers.find(s.Identity.Provider)
	if !ok || provider.Directory == nil || e.kept == nil {
		return provider, "", false
	}
	domain, may = provider.Directory.Of(s.Identity)
	return provider, domain, may
}

// show is what the account page says of the directory, and which other origins its form leads
// to; nil: nothing.
func (e *directoryEndpoint) show(r *http.Request, ev *event, s *session.Session) (*pages.Directory, []string) {
	provider, domain, may := e.of(s)
	if !may {
		return nil, nil
	}
	data := &pages.Directory{Provider: provider.Name, Domain: domain, OrgID: s.Identity.Org.ID,
		PostURL: e.site.path("directory/" + url.PathEscape(provider.ID)), Form: directorySecret(s, provider.ID)}
	ctx, cancel := context.WithTimeout(r.Context(), detailsTime)
	defer cancel()
	d, known, err := e.kept.OrgDetails(ctx, s.Identity.Org.ID)
	switch {
	case err != nil:
		data.Unknown = true
		e.own.process.log.Error("the account page lacks the details of the organization", "request_id", ev.RequestID,
			"error", err)
	case known:
		data.Known = &pages.OrgDetails{CustomerID: d.CustomerID, Name: d.Name, Domain: d.Domain, ReadAt: d.ReadAt,
			ReadBy: d.ReadBy}
		if d.ReadBy == s.Identity.ID() {
			data.Known.ReadBy = ""
		}
	}
	return data, providers{provider}.origins()
}

// directorySecret ties the form to the session that it was shown to. Root is sealed in the
// cookie, so no page and no script knows it.
func directorySecret(s *session.Session, provider string) string {
	h := hmac.New(sha256.New, []byte("sallyport directory form\x00"+s.Root))
	_ = json.NewEncoder(h).Encode([]string{s.ID, provider, s.Identity.Org.ID}) // a hash takes everything
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

const nothingRead = "Nothing was read"

// ask sends the browser to the provider.
func (e *directoryEndpoint) ask(w http.ResponseWriter, r *http.Request, ev *event) error {
	if !fromOwnPage(r, e.site.origin) {
		return &failure{Status: http.StatusForbidden, Cause: errors.New("directory: not sent from our page"),
			Title: nothingRead, Sentence: "The request did not come from our own page.",
			Advice: "Begin on your account page.", Account: e.site.url("account")}
	}
	w.Header().Set("Cache-Control", "no-store")
	s, err := e.own.read(r, ev)
	if err != nil {
		return e.site.askToSignIn(w, r, ev)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	provider, _, may := e.of(&s)
	if !may || provider.ID != r.PathValue("provider") {
		return notTheirs()
	}
	ev.Provider = provider.ID
	form, err := readForm(w, r)
	if err != nil || len(form["form"]) != 1 ||
		!hmac.Equal([]byte(form.Get("form")), []byte(directorySecret(&s, provider.ID))) {
		return e.page(&failure{Status: http.StatusConflict, Cause: errors.New("directory: the form of another session"),
			Title: nothingRead, Sentence: "The page that you answered was of another session.",
			Advice: "Open your account page again."})
	}
	detail, err := json.Marshal(begunIn(&s))
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	h, err := e.own.sessions.Begin(w, r, session.Flow{Purpose: purposeDirectory, Provider: provider.ID,
		ReturnTo: e.site.path("account"), Detail: string(detail)})
	if err != nil {
		return &failure{Status: http.StatusInternalServerError, Cause: err}
	}
	ctx, cancel := context.WithTimeout(r.Context(), directoryTime)
	defer cancel()
	location, err := provider.Directory.DirectoryURL(ctx, h, s.Identity)
	if err != nil {
		return e.failed(ev, provider, &identity.DirectoryError{Reason: identity.DirectoryUnavailable, Err: err})
	}
	redirect(w, http.StatusSeeOther, location)
	return nil
}

// callback takes what the browser brings back. Who may have the directory be read is asked
// once more: the configuration, or the person's session, may have changed meanwhile.
func (e *directoryEndpoint) callback(w http.ResponseWriter, r *http.Request, ev *event) error {
	w.Header().Set("Cache-Control", "no-store")
	q, err := callbackQuery(ev)
	if err != nil {
		return err
	}
	var in inSession
	trip, s, err := e.own.returned(r, ev,
		returning{q.Get("state"), purposeDirectory, r.PathValue("provider"), &in, &in})
	if err != nil {
		return notReadHere(err)
	}
	if err := e.own.verifiable(); err != nil {
		return err
	}
	provider, _, may := e.of(&s)
	if !may || provider.ID != trip.Provider {
		return notTheirs()
	}
	ev.Provider = provider.ID
	first, err := e.once.Consume(r.Context(), "directory/"+trip.Name, e.own.process.now().Add(session.FlowTime))
	if err != nil {
		return e.failed(ev, provider, fmt.Errorf("directory: %w", err))
	}
	if first { // else it is a reload, or the back button
		if err := e.read(r, ev, provider, q, trip, s.Identity); err != nil {
			return e.failed(ev, provider, err)
		}
		ev.Action = observe.DirectoryRead
		e.own.process.metrics.directories.WithLabelValues(provider.ID, "read").Inc()
	}
	redirect(w, http.StatusSeeOther, e.site.url("account")+"#directory")
	return nil
}

// read reads the directory and keeps what it says.
func (e *directoryEndpoint) read(r *http.Request, ev *event, provider Provider, q url.Values, trip session.Trip,
	who identity.Identity) error {
	release, err := e.own.process.slotsOf("directory/" + provider.ID).take(directoryReads)
	if err != nil {
		return &identity.DirectoryError{Reason: identity.DirectoryUnavailable,
			Err: errors.New("too many directories are being read")}
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), directoryTime)
	defer cancel()
	d, err := provider.Directory.ReadDirectory(ctx, q, trip.Handshake, who)
	if err != nil {
		return err
	}
	if d.OrgID != who.Org.ID { // whatever the provider says, it is of their own organization only
		return &identity.DirectoryError{Reason: identity.DirectoryOtherDomain,
			Err: errors.New("the details are of another organization")}
	}
	d.ReadAt = e.own.process.now()
	ev.Learned = fmt.Sprintf("%s is customer %s, named %q, with the primary domain %s", d.OrgID, d.CustomerID, d.Name,
		d.Domain)
	if err := e.kept.KeepOrg(ctx, d); err != nil {
		return fmt.Errorf("keep what the directory says: %w", err)
	}
	return nil
}

// failed answers a reading that came to nothing. What the provider wrote is not shown: anybody
// could put text on our page with a link.
func (e *directoryEndpoint) failed(ev *event, provider Provider, err error) error {
	reason := identity.DirectoryReasonOf(err)
	ev.Action = observe.DirectoryFailed
	f := &failure{Status: http.StatusBadGateway, Title: nothingRead, Cause: fmt.Errorf("directory: %w", err)}
	const operators = "Tell the people who run this site, and give them the request id."
	switch at := provider.Name; reason {
	case identity.DirectoryDeclined:
		f.Status = http.StatusForbidden
		f.Sentence, f.Advice = "It was cancelled or refused at "+at+".", "You can try again whenever you like."
	case identity.DirectoryNotGranted:
		f.Status = http.StatusForbidden
		f.Sentence, f.Advice = "At "+at+" you did not allow this site to see your organization's details.",
			"Try again, and leave ticked what you are asked for."
	case identity.DirectoryOtherAccount:
		f.Status = http.StatusForbidden
		f.Sentence, f.Advice = "At "+at+" you chose another account than the one that you are signed in with here.",
			"Try again with the same account. If another one is the administrator's, sign in here with that one first."
	case identity.DirectoryOtherDomain:
		f.Status = http.StatusForbidden
		f.Sentence = at + " says now that your account belongs to another organization than when you signed in."
		f.Advice = "Sign out and in again, and look at your organization on your account page."
	case identity.DirectorySecondary:
		f.Status = http.StatusForbidden
		f.Sentence = "The domain of your account is not your organization's primary domain, and only that one shows " +
			"whose organization it is."
		f.Advice = "Have it read by an administrator whose account is in the primary domain. The people who run this " +
			"site can also write the name of your organization into its configuration."
	case identity.DirectoryNotAdmin:
		f.Status = http.StatusForbidden
		f.Sentence = at + " shows this to administrators of your organization only, and says that your account is none."
		f.Advice = "Ask an administrator of your organization to do this, or to give your account a role that may " +
			"read the organization's profile. The people who run this site have to allow them here too."
	case identity.DirectoryNotEnabled:
		f.Sentence, f.Advice = "This site's project at "+at+" may not use the Admin SDK API yet.",
			"Tell the people who run this site to enable it there. Then try again."
	case identity.DirectoryOtherCustomer:
		f.Status = http.StatusConflict
		f.Sentence = "Your domain was read before as that of another customer of " + at + ". It may have changed " +
			"hands, so what is kept of it was not changed."
		f.Advice = operators + " They can forget what is kept, when they have looked at it."
	case identity.DirectoryUnusable:
		f.Sentence, f.Advice = "What "+at+" says of your organization cannot be used here.", operators
	case identity.DirectoryMisconfigured:
		f.Sentence, f.Advice = "It is not set up right on this site.", operators
	case identity.DirectoryUnavailable:
		f.Status, f.RetryAfter = http.StatusServiceUnavailable, 5
		f.Sentence, f.Advice = at+" did not answer in time, or cannot at the moment.", "Try again in a moment."
	default:
		f.Sentence = "What came back from " + at + " failed a check."
		f.Advice = "Try again. If it stays like this: " + operators
	}
	if errors.Is(err, session.ErrStore) {
		reason, f.Status, f.RetryAfter = "store", http.StatusServiceUnavailable, 5
		f.Sentence, f.Advice = "It cannot be kept at the moment.", "Try again in a moment."
	}
	e.own.process.metrics.directories.WithLabelValues(provider.ID, string(reason)).Inc()
	return e.page(f)
}

// page gives a failure a page with a link to the account page, where one begins again.
func (e *directoryEndpoint) page(f *failure) error {
	f.Page = &pages.Page{Template: "message", Data: pages.Message{Title: f.Title, Sentence: f.Sentence,
		Advice: f.Advice, ActionURL: e.site.path("account"), ActionText: "Your account"}}
	return f
}

// notTheirs answers somebody who may not have the directory be read.
func notTheirs() error {
	return &failure{Status: http.StatusForbidden,
		Cause: errors.New("directory: managed_by does not name this person, or they have no organization there"),
		Title: nothingRead, Sentence: "The people who run this site have not named you as somebody who may do this.",
		Advice: "If you are an administrator of your organization, ask them."}
}

// notReadHere answers a callback that this session did not begin.
func notReadHere(cause error) error {
	return &failure{Status: http.StatusBadRequest, Refused: true,
		Cause:    fmt.Errorf("callback of a directory: %w", cause),
		Title:    "Nothing was read here",
		Sentence: "This was begun in another browser or in another session, or it took longer than ten minutes.",
		Advice: "Begin on your account page. If somebody sent you this address, do not use it: it works only for the " +
			"person who began."}
}
