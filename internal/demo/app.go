package demo

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

// AppOptions say where the app finds the keys of Sallyport's assertion.
type AppOptions struct {
	JWKSURL string // such as http://127.0.0.1:4180/.sallyport/jwks.json
	Issuer  string // the assertion's iss: Sallyport's public URL
	Second  string // the origin of another host on which the app is; "": there is none
	Now     func() time.Time
	Grants  *AppGrants // nil: people lend nothing to it
}

// app is the demo's app. It trusts the headers, as apps do, and shows them.
type app struct {
	templates *templates
	first     string // the origin where people sign in
	second    string // another one, or ""
	keys      *assertionKeys
	lender    *lender                   // nil: there is none
	headers   map[identity.Claim]string // the name of each claim's header, of the preset "forwarded"
}

// NewApp returns an app that shows everything it receives: who is asking, the verified
// assertion, the headers and the path. It serves every path.
func NewApp(o AppOptions) (http.Handler, error) {
	if o.JWKSURL == "" || o.Issuer == "" {
		return nil, errors.New("demo app: a key set URL and an issuer are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	templates, err := newTemplates("Demo app")
	if err != nil {
		return nil, fmt.Errorf("demo app: %w", err)
	}
	a := &app{templates: templates, first: o.Issuer, second: o.Second, keys: newAssertionKeys(o),
		headers: map[identity.Claim]string{}}
	if o.Grants != nil {
		a.lender = newLender(*o.Grants, o.Now)
	}
	fields, _ := identity.Preset(identity.PresetForwarded) // the preset exists
	for _, f := range fields {
		a.headers[f.Claim] = f.Header
	}
	return a, nil
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.URL.Path == MarkPath {
		a.templates.mark().ServeHTTP(w, r)
		return
	}
	if r.URL.Path == "/favicon.ico" {
		http.NotFound(w, r)
		return
	}
	if r.URL.Path == "/api/me" {
		_ = writeJSON(w, http.StatusOK, r.Header) // the client has gone
		return
	}
	// No form-action: signing out may lead to any provider's page.
	if err := a.templates.write(w, http.StatusOK, "app.html", a.page(r), ""); err != nil {
		http.Error(w, "The demo app could not draw its page.", http.StatusInternalServerError)
	}
}

type appPage struct {
	Title, Sentence, Method, Target string
	User, DisplayName, Email        string
	OrgID, OrgName, OrgDomain       string
	Groups                          []string
	Links                           []link
	JWKSURL, Unverified             string
	Assertion, Verified             bool // there is an assertion; it is valid
	Claims                          []row
	Identity, Other                 []row // the headers that only Sallyport can write, and all others
	Calendar                        *lentCalendar
	Plan                            *lentPlan
}

type link struct {
	Href, Text string
	Here       bool
}

type row struct {
	Name, Value string
}

func (a *app) page(r *http.Request) appPage {
	p := appPage{Method: r.Method, Target: r.RequestURI, JWKSURL: a.keys.url}
	p.Identity, p.Other = a.rows(r.Header)
	p.Title, p.Sentence = words(r.URL.Path)
	a.describe(&p, r.Header)
	links := []link{
		{Href: "/", Text: "Home"}, {Href: "/reports/2026?team=blue", Text: "A report"},
		{Href: "/admin", Text: "Admin only"}, {Href: "/hospital", Text: "Larch Hospital only"},
		{Href: "/payroll", Text: "Recent sign-in only"},
		{Href: "/public", Text: "Public"}, {Href: "/api/me", Text: "As JSON"},
		{Href: "/.sallyport/account", Text: "Your account"},
	}
	if a.lender != nil {
		links = slices.Insert(links, 1, link{Href: calendarPath, Text: "Busy hours"})
		if a.lender.plans() {
			links = slices.Insert(links, 1, link{Href: planPath, Text: "On-call plan"})
		}
	}
	switch {
	case a.onSecond(r):
		p.Title, p.Sentence = "Second host", "This host has a cookie of its own. Who is signed in at "+
			withoutScheme(a.first)+" came here without signing in again."
		links = []link{{Href: "/", Text: "Home"}, {Href: "/reports/2026?team=blue", Text: "A report"},
			{Href: "/api/me", Text: "As JSON"}, {Href: "/.sallyport/account", Text: "Your account"},
			{Href: a.first + "/", Text: "First host"}}
	case a.second != "":
		links = append(links, link{Href: a.second + "/", Text: "Second host"})
	}
	for _, l := range links {
		l.Here = l.Href == r.RequestURI
		p.Links = append(p.Links, l)
	}
	raw := r.Header.Get(identity.AssertionHeader)
	claims, why := a.keys.verify(r.Context(), raw)
	p.Assertion = raw != ""
	p.Unverified, p.Verified, p.Claims = why, why == "", claimRows(claims)
	back := a.first + r.URL.Path
	if a.onSecond(r) {
		back = a.second + r.URL.Path
	}
	switch {
	case a.lender == nil:
	case r.URL.Path == calendarPath:
		lent := a.lender.show(r.Context(), raw, back, r.Method == http.MethodPost)
		p.Calendar = &lent
	case r.URL.Path == planPath && a.lender.plans():
		lent := a.lender.plan(r.Context(), raw, back, r.PostFormValue("do"))
		p.Plan = &lent
	}
	return p
}

// onSecond reports whether the browser asked the second host, by what Sallyport says.
func (a *app) onSecond(r *http.Request) bool {
	return a.second != "" && r.Header.Get("X-Forwarded-Host") == withoutScheme(a.second)
}

func withoutScheme(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// words returns the text of a page. Otherwise all pages are alike.
func words(path string) (title, sentence string) {
	switch {
	case path == "/":
		return "Demo app", "This page is for everybody who signed in."
	case path == "/admin":
		return "Admin", "Only the people that the admin rule names get this far."
	case path == "/hospital":
		return "Larch Hospital", "Only people who are here for Larch Hospital get this far."
	case path == "/payroll":
		return "Payroll", "Only people who signed in within the last minute get this far, and a minute is " +
			"forgiven for clocks that differ. Open this page again two minutes after you signed in: you are asked " +
			"again who you are."
	case path == calendarPath:
		return "Busy hours", "The app reads a calendar that belongs to you, and holds no key to it."
	case path == planPath:
		return "On-call plan", "The app plans with what you lend it of three third parties, and holds a key to none."
	case path == "/public":
		return "Public page", "This page is open to everybody, and no identity comes with it."
	case strings.HasPrefix(path, "/reports/"):
		return "Report", "A deeper page: path and query arrive just as the browser sent them."
	}
	return "Some other page", "The app shows the same for every path it does not know."
}

func (a *app) describe(p *appPage, h http.Header) {
	get := func(c identity.Claim) string { return decoded(h.Get(a.headers[c])) }
	p.User, p.Email = get(identity.ClaimUser), get(identity.ClaimEmail)
	p.DisplayName = cmp.Or(get(identity.ClaimName), get(identity.ClaimUsername), p.User)
	p.OrgID, p.OrgName = get(identity.ClaimOrgID), get(identity.ClaimOrgName)
	p.OrgDomain = get(identity.ClaimOrgDomain)
	if raw := h.Get(a.headers[identity.ClaimGroups]); raw != "" {
		for _, group := range strings.Split(raw, ",") { // before decoding: an encoded comma is part of a name
			p.Groups = append(p.Groups, decoded(group))
		}
	}
}

// decoded undoes the preset's percent encoding: Zo%C3%AB becomes Zoë.
func decoded(v string) string {
	if out, err := url.PathUnescape(v); err == nil {
		return out
	}
	return v
}

// rows lists every value of every header: those that only Sallyport can write, and others.
func (a *app) rows(h http.Header) (ours, other []row) {
	for name, values := range h {
		isOurs := name == identity.AssertionHeader
		for _, header := range a.headers {
			isOurs = isOurs || name == header
		}
		for _, v := range values {
			if isOurs {
				ours = append(ours, row{name, v})
			} else {
				other = append(other, row{name, v})
			}
		}
	}
	for _, rows := range [][]row{ours, other} {
		slices.SortStableFunc(rows, func(x, y row) int { return cmp.Compare(x.Name, y.Name) })
	}
	return ours, other
}

// claimRows lists claims in alphabetical order, with times in a form that people can read.
func claimRows(claims map[string]any) []row {
	var out []row
	for name, v := range claims {
		text, isText := v.(string)
		if n, ok := v.(json.Number); ok && slices.Contains([]string{"exp", "iat", "nbf", "auth_time"}, name) {
			if sec, err := n.Int64(); err == nil {
				when := time.Unix(sec, 0).UTC().Format("2 Jan 2006, 15:04:05 MST")
				text, isText = fmt.Sprintf("%s (%s)", n, when), true
			}
		}
		if raw, err := json.Marshal(v); !isText && err == nil {
			text = string(raw)
		}
		out = append(out, row{Name: name, Value: text})
	}
	slices.SortFunc(out, func(x, y row) int { return cmp.Compare(x.Name, y.Name) })
	return out
}
