// Package pages is what people see of Sallyport itself: when they sign in or out,
// choose an organization, are refused, or something breaks.
//
// It owns the templates, their style and our mark, the data that each page shows,
// and the headers that keep a page from being framed, scripted or cached. Every
// page is one self-contained file without script, so that it looks the same on any
// host. It knows no session, rule or provider: the endpoints next door, in proxy,
// fill in what a page says and where its buttons lead.
package pages

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed *.html style.css mark.svg
var assets embed.FS

// MarkPath is where our own mark is, below the prefix.
const MarkPath = "mark.svg"

// Options is what an operator may choose about our own pages.
type Options struct {
	Name    string // the operator's name; "" means "Sallyport"
	LogoURL string // a path on this host; "" means our own mark
	Prefix  string // where our own endpoints are; "" means "/.sallyport"
}

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	opts      Options
	style     template.CSS
	styleHash string // a CSP hash source, quotes included
	templates map[string]*template.Template
}

// Page is one page to write. Template and Data belong together:
//
//	signin      SignIn       signedout   SignedOut    confirmlogout  ConfirmSignOut
//	account     Account      denied      Denied       formlost       FormLost
//	startagain  StartAgain   loop        Loop         message        Message
//	organization  Organization  framed  Framed  connect  Connect
//	connectapps  ConnectApps  disconnected  Disconnected
type Page struct {
	Status     int // 0 means 200
	Template   string
	Data       any
	RequestID  string
	FormAction []string    // other origins that a form of this page may end up at
	FramedBy   []string    // origins that may show this page in a frame, with its own; nil: nobody may
	KeepsForm  bool        // what was typed on the page before must still be there after Back
	Header     http.Header // added to what every page has; cannot weaken it
}

// SignIn is the chooser where there are several providers.
type SignIn struct {
	Providers []SignInChoice
	ReturnTo  string
	Switch    bool   // as somebody else than before
	Reason    string // a sentence: why the person is here; may be empty
}

// SignInChoice is one provider: ID is sent, Name is shown.
type SignInChoice struct{ ID, Name string }

// SignedOut is where people land after a sign-out.
type SignedOut struct {
	SignInURL string
	Provider  *ProviderSignOut // nil: it has no sign-out of its own that we know
	Later     bool             // other servers of the site do not know yet
	TooLate   bool             // everywhere was asked for when the session was over already
	// Everywhere says that all sessions of the person were ended, and OnlyHere that they
	// are over on the server that answers and nowhere else.
	Everywhere, OnlyHere bool
}

// ProviderSignOut is a link, or with Post a form, to the provider's sign-out.
type ProviderSignOut struct {
	Name, URL string
	Post      bool
	Form      url.Values
}

// ConfirmSignOut asks before a sign-out, because a link of another site may have
// begun it.
type ConfirmSignOut struct {
	Name      string // who is signed in; may be empty
	LogoutURL string
	BackURL   string
}

// Account is what a person may know about their own session.
type Account struct {
	Name, Username, Email string
	EmailVerified         bool
	UserID, Provider      string
	Org                   *AccountOrg
	Groups                []string
	GroupsUnknown         bool
	OrgUnknown            bool
	GroupsDropped         bool // unknown because there are too many

	SignedInAt, ExpiresAt, IdleExpiresAt time.Time // zero times are left out
	Now                                  time.Time // for words like "in 2 hours"; zero: none

	LogoutURL, BackURL string
	Switch             *OrgChoices // nil if there is nothing to switch to
	Sessions           Sessions
	Grants             Grants
	Directory          *Directory // for who may have it read; else nil

	Permissions []Permission // for operators; else nil
}

// Sessions are those that a person has, and what they can end of them.
type Sessions struct {
	Listed   bool // there is a list
	Unknown  bool // which cannot be read now
	List     []SessionLine
	More     bool   // there are more than these
	OnlyHere bool   // what is ended is over on the server that answers, and nowhere else
	EndURL   string // where a line's button leads
}

// SessionLine is one session. SID is sent, Browser is in words, and This marks the one
// that sees the page. From may be empty.
type SessionLine struct {
	SID, From, Browser string
	Since              time.Time
	This               bool
}

// Directory is what an administrator can have read of their organization, once, and what is
// known from before.
type Directory struct {
	Provider      string // its name
	Domain, OrgID string // of the organization
	PostURL, Form string // where the button leads, and the secret that it sends
	Unknown       bool   // what is known cannot be read now
	Known         *OrgDetails
}

// OrgDetails are what a directory said. Name may be empty; ReadBy is empty for who sees it.
type OrgDetails struct {
	CustomerID, Name, Domain, ReadBy string
	ReadAt                           time.Time
}

// Permission is what one provider is asked for at sign-in, or one third party when somebody
// connects an account there, and what becomes of the answer, in words for operators.
type Permission struct {
	Action    string   `json:"action"`                 // what somebody does: SignsIn, Reads or Connects
	Provider  string   `json:"provider,omitempty"`     // its id; one of these two is ""
	Connector string   `json:"connector,omitempty"`    // its id
	Type      string   `json:"type"`                   // of the one or the other
	Redirect  string   `json:"redirect_uri,omitempty"` // registered there
	Scopes    []Term   `json:"scopes"`
	Offline   bool     `json:"offline"` // what is asked for lasts while the person is away
	Note      string   `json:"note"`
	Kept      []Term   `json:"kept,omitempty"`    // in the session
	Checked   []Term   `json:"checked,omitempty"` // read, and not kept
	Discarded []string `json:"discarded,omitempty"`
	Quirks    []Term   `json:"quirks,omitempty"` // where it deviates from the standard

	// Received returns the names and types of the claims of the last sign-in, if
	// there was one; nil where nobody signs in. Claims are its result, for one page.
	Received func() []Term `json:"-"`
	Claims   []Term        `json:"-"`
}

// What Permission.Action may be.
const (
	SignsIn  = "sign in"
	Reads    = "read the organization's details"
	Connects = "connect"
)

// ID is that of the provider or connector.
func (p Permission) ID() string { return cmp.Or(p.Provider, p.Connector) }

// Term is a name with what it means.
type Term struct {
	Name  string `json:"name"`
	Means string `json:"means"`
}

// AccountOrg is the organization that somebody is here for.
type AccountOrg struct{ Name, Domain, ID string }

// Organization asks somebody who belongs to several organizations for one of them.
type Organization struct {
	Name      string // who is signed in; may be empty
	Active    string // the organization they are here for; "" if none is chosen
	StayURL   string // where they go on with that one
	Choices   *OrgChoices
	SwitchURL string // to sign in as somebody else
}

// OrgChoices is a form that switches to one of several organizations.
type OrgChoices struct {
	PostURL, ReturnTo string
	Orgs              []OrgChoice
}

// OrgChoice is one organization: ID is sent. Note distinguishes it from others with
// the same name, which at some providers anybody may choose.
type OrgChoice struct{ ID, Name, Note string }

// Denied tells a signed-in person that no rule lets them in. Sentence is
// public: what is missing, in words they can pass on.
type Denied struct {
	Name, Email           string
	Org                   string // the name of the one they are here for; may be empty
	Sentence              string
	AccountURL, SwitchURL string
	Switch                *OrgChoices // with which they could have the page; nil: none
	// ChooseURL leads to the page with these choices, where that is on another host.
	ChooseURL string
	Places    []Place // hosts of their own organizations
}

// Place is somewhere to go.
type Place struct{ Name, URL string }

// FormLost is for a form that was sent without a session, or with one that is not enough
// (Again): it was not passed on.
type FormLost struct {
	SignInURL string
	Again     bool // they are signed in, and have to sign in again
	OtherSite bool // a page of another site sent it, so they may be signed in: to sign in would not help
}

// Framed is for a page in a frame: signing in takes the whole window.
type Framed struct {
	SignInURL string
	Again     bool // as in FormLost
}

// StartAgain is for a sign-in that cannot go on in this browser. It never
// starts by itself: the person has to press the button (login CSRF, RFC 9700
// §4.7). Cause is a sentence, or empty where we cannot tell.
type StartAgain struct{ StartURL, Cause string }

// Loop is for a browser that signs in over and over. Causes are sentences,
// the likeliest first; empty means the usual ones.
type Loop struct {
	PublicURL, SeenURL string // as configured, and as the browser called us
	Causes             []string
	StartURL           string
}

// AddressDiffers reports whether the browser used another scheme or host than
// the configured one, which alone explains a cookie that never comes back.
func (d Loop) AddressDiffers() bool {
	public, err1 := url.Parse(d.PublicURL)
	seen, err2 := url.Parse(d.SeenURL)
	if err1 != nil || err2 != nil || public.Host == "" || seen.Host == "" {
		return false
	}
	return hostOf(public) != hostOf(seen)
}

// hostOf is scheme and host in one spelling, the default port left out.
func hostOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return u.Scheme + "://" + host
}

// Message is every other page. Title says what happened, Advice what to do.
type Message struct {
	Title, Sentence, Advice, ActionURL, ActionText string
	BackURL                                        string // beside the action; "": there is none
	Share                                          *Share // may be nil
}

// Share is an address that somebody may pass on, and for what.
type Share struct{ Text, URL string }

// view is what a template sees: the page's Data and what all pages share.
type view struct {
	Name, IconURL, Prefix, RequestID string
	Style                            template.CSS
	Data                             any
}

// Mark is our own picture, an SVG, that pages name at MarkPath below the prefix.
func Mark() ([]byte, error) { return assets.ReadFile(MarkPath) }

// New parses all templates, so that a broken one is found at start.
func New(o Options) (*Pages, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	style, err := assets.ReadFile("style.css")
	if err != nil {
		return nil, fmt.Errorf("read style: %w", err)
	}
	sum := sha256.Sum256(style)
	p := &Pages{
		opts:      o,
		style:     template.CSS(style),
		styleHash: "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", // CSP3 §2.3.1
		templates: map[string]*template.Template{},
	}
	return p, p.parse()
}

// checked fills in defaults and refuses what would leave this host: the logo is
// loaded, and forms are sent, while a person is signing in.
func (o Options) checked() (Options, error) {
	if o.Name == "" {
		o.Name = "Sallyport"
	}
	if o.Prefix == "" {
		o.Prefix = "/.sallyport"
	}
	if !isLocal(o.Prefix) || strings.HasSuffix(o.Prefix, "/") {
		return o, fmt.Errorf("prefix %q: want a path such as /.sallyport", o.Prefix)
	}
	if o.LogoURL != "" && !isLocal(o.LogoURL) {
		return o, fmt.Errorf("logo %q: want a path on this host", o.LogoURL)
	}
	return o, nil
}

// isLocal reports whether s stays on this host. Browsers read "//" and
// "/\" as the start of another host (WHATWG URL §4.4).
func isLocal(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") && !strings.ContainsAny(s, "\\\t\r\n")
}

// parse gives every page file its own copy of the layout.
func (p *Pages) parse() error {
	layout, err := template.New("layout.html").
		Funcs(template.FuncMap{"moment": moment}).
		ParseFS(assets, "layout.html")
	if err != nil {
		return fmt.Errorf("parse layout: %w", err)
	}
	files, err := fs.Glob(assets, "*.html")
	if err != nil {
		return fmt.Errorf("list pages: %w", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" {
			continue
		}
		t, err := layout.Clone()
		if err != nil {
			return fmt.Errorf("copy layout: %w", err)
		}
		if p.templates[name], err = t.ParseFS(assets, file); err != nil {
			return fmt.Errorf("parse page %s: %w", name, err)
		}
	}
	return nil
}

// Write answers r with pg. The page is complete before its first byte is sent:
// a fault in a template gives a plain 500, never half a page. The fault is
// returned for the log; the answer has been written either way.
func (p *Pages) Write(w http.ResponseWriter, r *http.Request, pg Page) error {
	h := w.Header()
	for name, values := range pg.Header {
		for _, v := range values {
			h.Add(name, v)
		}
	}
	p.protect(h, pg)
	status := pg.Status
	if status == 0 {
		status = http.StatusOK
	}
	body, err := p.render(pg)
	if err != nil {
		status = http.StatusInternalServerError
		body = []byte("This page could not be shown. Please try again.\nRequest id: " + pg.RequestID + "\n")
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // fails only if the client is gone
	}
	return err
}

func (p *Pages) render(pg Page) ([]byte, error) {
	t, ok := p.templates[pg.Template]
	if !ok {
		return nil, fmt.Errorf("no page %q", pg.Template)
	}
	var buf bytes.Buffer
	err := t.Execute(&buf, view{
		Name: p.opts.Name, IconURL: cmp.Or(p.opts.LogoURL, p.opts.Prefix+"/"+MarkPath), Prefix: p.opts.Prefix,
		RequestID: pg.RequestID, Style: p.style, Data: pg.Data,
	})
	return buf.Bytes(), err
}

// protect sets what keeps a page from being framed, scripted or cached (P19).
// It runs after the page's own headers, so none of them can undo it.
func (p *Pages) protect(h http.Header, pg Page) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", p.csp(pg))
	h.Set("X-Frame-Options", "DENY") // RFC 9700 §4.16, for browsers without frame-ancestors
	if pg.FramedBy != nil {
		h.Set("X-Frame-Options", "SAMEORIGIN")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: with it, browsers send "Origin: null" on our own forms
	// (Fetch §3.2) and the check against cross-site requests would refuse them.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if pg.KeepsForm {
		// With the header Firefox forgets what was typed on the page before.
		h.Del("Cross-Origin-Opener-Policy")
	}
}

// csp names the origins in FormAction because Chromium applies form-action to the
// redirects that follow a form too, up to the provider's own page.
func (p *Pages) csp(pg Page) string {
	framers := "'none'"
	if pg.FramedBy != nil {
		framers = sources(pg.FramedBy)
	}
	return "default-src 'none'; style-src " + p.styleHash + "; img-src 'self'; form-action " +
		sources(pg.FormAction) + "; frame-ancestors " + framers + "; base-uri 'none'"
}

// sources is a source list of a policy: our own origin and the given ones.
func sources(origins []string) string {
	list := []string{"'self'"}
	for _, s := range origins {
		if o := originOf(s); o != "" && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return strings.Join(list, " ")
}

// originOf is the web origin of s, or "" if it has none that can stand in a
// policy: a ";" or a blank would end the directive and begin another.
func originOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return ""
	}
	// Some vendors send people on to a host below their own, so "*." may stand first.
	below, wide := strings.CutPrefix(u.Host, "*.")
	if wide && !strings.Contains(below, ".") {
		return ""
	}
	if strings.Trim(strings.ToLower(below), "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// instant is one moment in three forms: for programs, for people, and relative to
// now.
type instant struct{ Machine, Text, Relative string }

func moment(now, t time.Time) instant {
	t = t.UTC()
	out := instant{Machine: t.Format(time.RFC3339), Text: t.Format("2 January 2006, 15:04 UTC")}
	if !now.IsZero() {
		out.Relative = relative(t.Sub(now))
	}
	return out
}

// relative writes a moment that is d from now for people: "in 90 minutes".
func relative(d time.Duration) string {
	words := func(n time.Duration, unit string) string {
		if n != 1 {
			unit += "s"
		}
		return fmt.Sprintf("%d %s", n, unit)
	}
	var text string
	switch a := d.Abs(); {
	case a < 30*time.Second:
		return "now"
	case a.Round(time.Minute) < 2*time.Hour && a.Round(time.Minute) != time.Hour:
		text = words(a.Round(time.Minute)/time.Minute, "minute")
	case a.Round(time.Hour) < 48*time.Hour:
		text = words(a.Round(time.Hour)/time.Hour, "hour")
	default:
		text = words(a.Round(24*time.Hour)/(24*time.Hour), "day")
	}
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}
