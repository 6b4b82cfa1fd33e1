package pages

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"html"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var updatePages = flag.Bool("update", false, "rewrite the golden files of the pages")

func pagesForTest(t *testing.T, o Options) *Pages {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pageAnswer(p *Pages, method string, pg Page) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.Write(w, httptest.NewRequest(method, "https://app.example.com/x", nil), pg)
	return w
}

// pageSamples are the pages as people get them, by golden file name.
func pageSamples() map[string]Page {
	now := time.Date(2026, 11, 22, 17, 40, 0, 0, time.UTC)
	org := &AccountOrg{"Acme Rockets", "acme.com", "microsoft:3f0c8a52-6a1e-4a55-9f65-0d5a1c1f7b7e"}
	samples := map[string]Page{
		"signin": {Template: "signin", Data: SignIn{
			Providers: []SignInChoice{{"google", "Google"}, {"entra", "Microsoft"}, {"partner", "Partner SSO"}},
			ReturnTo:  "/reports?week=47&by=team",
		}},
		"signin_reason": {Template: "signin", Data: SignIn{
			Providers: []SignInChoice{{"google", "Google"}, {"entra", "Microsoft"}},
			Reason:    "Your session ended because you were away for a while.",
		}},
		"signin_nowhere": {Template: "signin", Data: SignIn{}},
		"signedout":      {Template: "signedout", Data: SignedOut{SignInURL: "/.sallyport/login"}},
		"signedout_late": {Template: "signedout", Data: SignedOut{SignInURL: "/.sallyport/login", TooLate: true}},
		"signedout_everywhere": {Template: "signedout",
			Data: SignedOut{SignInURL: "/.sallyport/login", Everywhere: true}},
		"signedout_everywhere_here": {Template: "signedout",
			Data: SignedOut{SignInURL: "/.sallyport/login", Everywhere: true, OnlyHere: true}},
		"signedout_later": {Template: "signedout",
			Data: SignedOut{SignInURL: "/.sallyport/login", Later: true}},
		"signedout_link": {Template: "signedout", Data: SignedOut{SignInURL: "/.sallyport/login",
			Provider: &ProviderSignOut{Name: "Main Street", URL: "https://sso.example.com/logout?client_id=a"}}},
		"signedout_form": {Template: "signedout", FormAction: []string{"https://sso.example.com"},
			Data: SignedOut{SignInURL: "/.sallyport/login",
				Provider: &ProviderSignOut{Name: "Main Street", URL: "https://sso.example.com/logout", Post: true,
					Form: url.Values{"client_id": {"a"}}}}},
		"confirmlogout": {Template: "confirmlogout", Data: ConfirmSignOut{
			Name: "Ada Lovelace", LogoutURL: "/.sallyport/logout", BackURL: "/",
		}},
		"account": {Template: "account", Data: Account{
			Name: "Ada Lovelace", Username: "ada", Email: "ada@acme.com", EmailVerified: true,
			UserID: "entra:2f1b8c1e-53a7-4c0e-8d53-0a7c3c1b9f10", Provider: "Microsoft", Org: org,
			Groups: []string{"engineering", "oncall", "Everyone at Acme Rockets",
				"5b2a4a63-9d3c-4d43-a1a3-f0c2f2c8a3f1"},
			SignedInAt: now.Add(-50 * time.Minute), ExpiresAt: now.Add(11*time.Hour + 10*time.Minute),
			IdleExpiresAt: now.Add(time.Hour),
			Now:           now, LogoutURL: "/.sallyport/logout", BackURL: "/",
		}},
		"account_operator": {Template: "account", Data: Account{
			Name: "Ada Lovelace", UserID: "entra:ada", Provider: "Microsoft", LogoutURL: "/.sallyport/logout",
			BackURL: "/",
			Permissions: []Permission{
				{Action: SignsIn, Provider: "entra", Type: "microsoft", Scopes: []Term{{"openid", "Says who signed in."},
					{"User.Read", "Opens the organization."}},
					Kept: []Term{{"tid", "the person's id (ID token)"}}, Checked: []Term{{"acct", "whether the " +
						"address counts (ID token)"}}, Discarded: []string{"the access token", "the ID token"}},
				{Action: Connects, Connector: "calendar", Type: "google_calendar", Offline: true,
					Scopes: []Term{{"calendar.freebusy", "Apps may see when you are busy."}},
					Note:   "No app may use it while the person is away."},
				{Action: SignsIn, Provider: "partner", Type: "oidc", Scopes: []Term{{"openid", "Says who signed in."}},
					Note:      "All tokens are thrown away.",
					Kept:      []Term{{"sub", "the person's id (ID token)"}},
					Discarded: []string{"the access token"}, Quirks: []Term{{"no_nonce", "A sign-in could be " +
						"replayed."}}},
			},
		}},
		"account_crowded": {Template: "account", Data: Account{
			Name: "Ada Lovelace", UserID: "entra:ada", Provider: "Microsoft", GroupsUnknown: true, GroupsDropped: true,
			SignedInAt: now.Add(-50 * time.Minute), ExpiresAt: now.Add(11*time.Hour + 10*time.Minute),
			IdleExpiresAt: now.Add(time.Hour),
			Now:           now, LogoutURL: "/.sallyport/logout", BackURL: "/",
		}},
		"account_sessions": {Template: "account", Data: Account{
			Name: "Ada Lovelace", Email: "ada@acme.com", UserID: "google:1", Provider: "Google", Now: now,
			SignedInAt: now.Add(-50 * time.Minute), ExpiresAt: now.Add(11 * time.Hour),
			IdleExpiresAt: now.Add(time.Hour),
			LogoutURL:     "/.sallyport/logout", BackURL: "/",
			Sessions: Sessions{Listed: true, More: true, EndURL: "/.sallyport/sessions/end", List: []SessionLine{
				{SID: "4Cn2vGbn0kXlzv9fGZ2wzA", Browser: "Firefox on Linux", From: "198.51.100.7",
					Since: now.Add(-50 * time.Minute), This: true},
				{SID: "5Cn2vGbn0kXlzv9fGZ2wzA", Browser: "an unknown browser",
					From: "2001:db8:85a3:8d3:1319:8a2e:370:7348", Since: now.Add(-26 * time.Hour)},
				{SID: "6Cn2vGbn0kXlzv9fGZ2wzA", Browser: "Safari on iPhone", Since: now.Add(-9 * 24 * time.Hour)},
			}},
		}},
		"account_sessions_unknown": {Template: "account", Data: Account{
			Name: "Ada Lovelace", UserID: "google:1", Now: now, ExpiresAt: now.Add(11 * time.Hour),
			IdleExpiresAt: now.Add(time.Hour),
			LogoutURL:     "/.sallyport/logout", BackURL: "/", Sessions: Sessions{Listed: true, Unknown: true},
		}},
		"account_sessions_here": {Template: "account", Data: Account{
			Name: "Ada Lovelace", UserID: "google:1", Now: now, ExpiresAt: now.Add(11 * time.Hour),
			IdleExpiresAt: now.Add(time.Hour),
			LogoutURL:     "/.sallyport/logout", BackURL: "/", Sessions: Sessions{OnlyHere: true},
		}},
		"account_sparse": {Template: "account", Data: Account{
			Email: "ada@example.net", UserID: "partner:7", Provider: "Partner SSO", GroupsUnknown: true,
			ExpiresAt: now.Add(3 * time.Hour), LogoutURL: "/.sallyport/logout", BackURL: "/",
		}},
		"denied": {Status: 403, Template: "denied", Data: Denied{
			Name: "Ada Lovelace", Email: "ada@acme.com",
			Sentence:   "This page is for members of the group oncall in the organization Acme Rockets.",
			AccountURL: "/.sallyport/account", SwitchURL: "/.sallyport/login?prompt=select_account",
		}},
		"denied_switch": {Status: 403, Template: "denied", Data: Denied{
			Name: "Ines Duarte", Email: "ines@mail.example", Org: "Acme Rockets", Sentence: "It is for another " +
				"organization than Acme Rockets.",
			AccountURL: "/.sallyport/account", SwitchURL: "/.sallyport/login?switch=1&return_to=%2Fbank",
			Switch: &OrgChoices{PostURL: "/.sallyport/organization", ReturnTo: "/bank",
				Orgs: []OrgChoice{{"birch", "Birch Bank", "birch.example"}}},
		}},
		"denied_choose": {Status: 403, Template: "denied", Data: Denied{
			Name: "Ines Duarte", Org: "Acme Rockets", Sentence: "It is for another organization than Acme Rockets.",
			AccountURL: "/.sallyport/account", SwitchURL: "/.sallyport/login?switch=1&return_to=%2Fbank",
			ChooseURL: "/.sallyport/organization?return_to=%2Fbank",
		}},
		"denied_places": {Status: 403, Template: "denied", Data: Denied{
			Name: "Ines Duarte", Sentence: "cedar.example.com is for Cedar Clinic, and your account does not belong " +
				"to it.",
			AccountURL: "/.sallyport/account", SwitchURL: "/.sallyport/login?switch=1",
			Places: []Place{{"Acme Rockets", "https://acme.example.com/"},
				{"Birch Bank", "https://birch.example.com/"}},
		}},
		"organization": {Template: "organization", Data: Organization{
			Name: "Ines Duarte", SwitchURL: "/.sallyport/login?switch=1&return_to=%2Freports%3Fweek%3D47",
			Choices: &OrgChoices{PostURL: "/.sallyport/organization", ReturnTo: "/reports?week=47&by=team",
				Orgs: []OrgChoice{
					{"acme", "Acme Rockets", "acme.example"}, {"main:b", "Acme Rockets", "main:b"},
					{"main:c", "main:c", ""}}},
		}},
		"organization_active": {Template: "organization", Data: Organization{
			Name: "Ines Duarte", Active: "Acme Rockets", StayURL: "/reports", SwitchURL: "/.sallyport/login?switch=1",
			Choices: &OrgChoices{PostURL: "/.sallyport/organization", ReturnTo: "/reports",
				Orgs: []OrgChoice{{"birch", "Birch Bank", "birch.example"}}},
		}},
		"account_organizations": {Template: "account", Data: Account{
			Name: "Ines Duarte", UserID: "main:ines", Provider: "Main Street",
			Org:       &AccountOrg{"Acme Rockets", "acme.example", "acme"},
			ExpiresAt: now.Add(3 * time.Hour), LogoutURL: "/.sallyport/logout", BackURL: "/",
			Switch: &OrgChoices{PostURL: "/.sallyport/organization", ReturnTo: "/.sallyport/account",
				Orgs: []OrgChoice{{"birch", "Birch Bank", "birch.example"}}},
		}},
		"denied_nameless": {Status: 403, Template: "denied", Data: Denied{Email: "ada@acme.com"}},
		"formlost": {Status: 401, Template: "formlost", KeepsForm: true,
			Data: FormLost{SignInURL: "/.sallyport/login?return_to=%2F"}},
		"formlost_other": {Status: 401, Template: "formlost", KeepsForm: true,
			Data: FormLost{SignInURL: "/.sallyport/login?return_to=%2F", OtherSite: true}},
		"framed": {Status: 401, Template: "framed", FramedBy: []string{"https://app.example.com"},
			Data: Framed{SignInURL: "https://app.example.com/.sallyport/login?return_to=%2Fboard"}},
		"formlost_again": {Status: 401, Template: "formlost", KeepsForm: true,
			Data: FormLost{SignInURL: "/.sallyport/login?return_to=%2F&step_up=vault", Again: true}},
		"framed_again": {Status: 401, Template: "framed", FramedBy: []string{"https://app.example.com"},
			Data: Framed{SignInURL: "https://app.example.com/.sallyport/login?step_up=vault", Again: true}},
		"startagain": {Status: 400, Template: "startagain", Data: StartAgain{
			StartURL: "/.sallyport/login?return_to=%2Freports",
		}},
		"startagain_cause": {Status: 400, Template: "startagain", Data: StartAgain{
			StartURL: "/.sallyport/login", Cause: "It took longer than ten minutes.",
		}},
		"loop": {Status: 500, Template: "loop", Data: Loop{
			PublicURL: "https://app.example.com", SeenURL: "http://app.example.com:8080", StartURL: "/.sallyport/login",
		}},
		"loop_causes": {Status: 500, Template: "loop", Data: Loop{
			PublicURL: "https://app.example.com", SeenURL: "https://APP.example.com/x", StartURL: "/.sallyport/login",
			Causes: []string{"The clock of this server is 14 minutes ahead of the one that you sign in with."},
		}},
		"loop_unknown": {Status: 500, Template: "loop", Data: Loop{PublicURL: "https://app.example.com"}},
		"message_404": {Status: 404, Template: "message", Data: Message{
			Title: "There is no page here", Sentence: "The address may be mistyped, or the page has moved.",
			Advice: "Check the address, or begin at the front page.", ActionURL: "/",
			ActionText: "Go to the front page",
		}},
		"message_share": {Status: 403, Template: "message", Data: Message{
			Title: "Nothing was connected", Sentence: "An administrator of your account at Outlook Calendar has to agree first.",
			Advice: "Ask them to allow this site, and try again afterwards.", ActionURL: "/", ActionText: "Try again",
			BackURL: "https://wiki.example.com/x",
			Share: &Share{Text: "Send them this link:", URL: "https://login.microsoftonline.com/organizations/v2.0/" +
				"adminconsent?client_id=me&redirect_uri=https%3A%2F%2Fapp.example.com%2F.sallyport%2Fconnect%2Foutlook" +
				"%2Fcallback&scope=openid+https%3A%2F%2Fgraph.microsoft.com%2FCalendars.ReadBasic"},
		}},
		"message_503": {Status: 503, Template: "message", Data: Message{
			Title: "Signing in does not work right now", Sentence: "The service that you sign in with did not answer.",
			Advice: "Please try again in a minute. If it goes on, tell the people who run this site.",
		}, Header: http.Header{"Retry-After": {"60"}}},
	}
	maps.Copy(samples, grantSamples(now))
	for name, pg := range samples {
		pg.RequestID = "01JD9Z3M8Q4X7R2T5V6W8Y0A1B"
		samples[name] = pg
	}
	return samples
}

func TestPagesLookAsAgreed(t *testing.T) {
	acme := pagesForTest(t, Options{Name: "Acme", LogoURL: "/.sallyport/logo"})
	plain := pagesForTest(t, Options{})
	for name, pg := range pageSamples() {
		t.Run(name, func(t *testing.T) {
			comparePage(t, name, pageAnswer(acme, "GET", pg).Body.Bytes())
		})
	}
	comparePage(t, "no_options", pageAnswer(plain, "GET", Page{Template: "signedout", Data: SignedOut{}}).Body.Bytes())
}

func comparePage(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".html")
	if *updatePages {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; look at it and run with -update if it is meant\n got: %s", file, got)
	}
}

func TestEveryTemplateHasASample(t *testing.T) {
	seen := map[string]bool{}
	for _, pg := range pageSamples() {
		seen[pg.Template] = true
	}
	have := slices.Sorted(maps.Keys(pagesForTest(t, Options{}).templates))
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, have) {
		t.Errorf("samples of %q, templates %q", got, have)
	}
}

func TestP19_PageHeadersAreExactlyThese(t *testing.T) {
	p := pagesForTest(t, Options{})
	for name, pg := range pageSamples() {
		w := pageAnswer(p, "GET", pg)
		forms := "'self'"
		if len(pg.FormAction) > 0 {
			forms += " " + originOf(pg.FormAction[0])
		}
		framers, old := "'none'", "DENY"
		if len(pg.FramedBy) > 0 {
			framers, old = "'self' "+pg.FramedBy[0], "SAMEORIGIN"
		}
		want := http.Header{
			"Content-Type":  {"text/html; charset=utf-8"},
			"Cache-Control": {"no-store"},
			"Content-Security-Policy": {"default-src 'none'; style-src " + p.styleHash + "; img-src 'self'; " +
				"form-action " + forms +
				"; frame-ancestors " + framers + "; base-uri 'none'"},
			"X-Frame-Options":            {old},
			"X-Content-Type-Options":     {"nosniff"},
			"Referrer-Policy":            {"same-origin"},
			"Cross-Origin-Opener-Policy": {"same-origin"},
			"Content-Length":             {strconv.Itoa(w.Body.Len())},
		}
		if pg.KeepsForm { // with it Firefox forgets what was typed
			want.Del("Cross-Origin-Opener-Policy")
		}
		maps.Copy(want, pg.Header)
		if !reflect.DeepEqual(w.Header(), want) {
			t.Errorf("%s:\n got %v\nwant %v", name, w.Header(), want)
		}
		if status := max(pg.Status, 200); w.Code != status {
			t.Errorf("%s: status %d, want %d", name, w.Code, status)
		}
	}
}

func TestP19_ExtraHeadersCannotWeakenAPage(t *testing.T) {
	w := pageAnswer(pagesForTest(t, Options{}), "GET", Page{
		Template: "signedout", Data: SignedOut{},
		Header: http.Header{
			"Cache-Control": {"public"}, "Content-Security-Policy": {"default-src *"}, "X-Frame-Options": {"ALLOWALL"},
			"Allow": {"GET, POST"},
		},
	})
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Frame-Options": "DENY",
		"Allow": "GET, POST"} {
		if got := w.Header().Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if csp := w.Header().Values("Content-Security-Policy"); len(csp) != 1 || strings.Contains(csp[0], "*") {
		t.Errorf("Content-Security-Policy: %q", csp)
	}
}

func TestP19_FormActionTakesOriginsOnly(t *testing.T) {
	p := pagesForTest(t, Options{})
	for _, tt := range []struct{ give, want string }{
		{"https://login.example.com", "'self' https://login.example.com"},
		{"https://login.example.com:8443/authorize?x=1", "'self' https://login.example.com:8443"},
		{"http://[::1]:9000/a", "'self' http://[::1]:9000"},
		{"https://a; script-src *", "'self'"},
		{"https://a;b", "'self'"},
		{"https://*", "'self'"},
		{"https://*.example.com", "'self' https://*.example.com"},
		{"https://*.com", "'self'"},
		{"https://*.", "'self'"},
		{"https://a.*.example.com", "'self'"},
		{"https://u:p@login.example.com", "'self' https://login.example.com"},
		{"javascript:alert(1)", "'self'"},
		{"data:text/html,x", "'self'"},
		{"*", "'self'"},
		{"", "'self'"},
		{"//login.example.com", "'self'"},
		{"https://ex\u00e4mple.com", "'self'"},
	} {
		csp := p.csp(Page{FormAction: []string{tt.give, tt.give}})
		if !strings.Contains(csp, "; form-action "+tt.want+"; frame-ancestors") {
			t.Errorf("%q: %s", tt.give, csp)
		}
	}
}

func TestP19_StyleHashMatchesTheStyleInTheBody(t *testing.T) {
	p := pagesForTest(t, Options{Name: "</style><b>"})
	for name, pg := range pageSamples() {
		w := pageAnswer(p, "GET", pg)
		styles := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(w.Body.String(), -1)
		if len(styles) != 1 {
			t.Fatalf("%s: %d style elements", name, len(styles))
		}
		sum := sha256.Sum256([]byte(styles[0][1]))
		source := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, source) {
			t.Errorf("%s: %s not in %s", name, source, csp)
		}
	}
}

// xssStrings are payloads of the kinds that got through elsewhere: Authelia
// CVE-2026-33525, mod_auth_openidc CVE-2021-32792, html/template CVE-2023-24538.
func xssStrings() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'><svg/onload=alert(1)>`,
		`</title><script>alert(1)</script>`,
		`</style><script>alert(1)</script>`, `javascript:alert(1)`, `JaVaScRiPt:alert(1)`, " \tjavascript:alert(1)",
		`data:text/html,<script>alert(1)</script>`,
		`vbscript:x`, "` onmouseover=alert(1) x=`", `" autofocus onfocus="alert(1)`, `{{.}}`, `{{template "main"}}`,
		`<!--<script>`, `-->`, `]]>`,
		`&lt;script&gt;`, `&#x22; onclick=alert(1)`, "\x00<b>", "\u202Egnp.exe", "<a href=//evil.example>",
		`<meta http-equiv=refresh content=0>`, `\u003cscript\u003e`,
		"<plaintext>", "<base href=//evil.example>", "\xff<script>", `+ADw-script+AD4-`,
	}
}

func TestP19_WhatPeopleSendComesOutAsText(t *testing.T) {
	links := regexp.MustCompile(`(?:href|action|src)="([^"]*)"`)
	active := regexp.MustCompile(`^(javascript|data|vbscript):`)
	filled := func(pg Page, text string) Page {
		data := reflect.New(reflect.TypeOf(pg.Data)).Elem()
		data.Set(reflect.ValueOf(pg.Data))
		fillStrings(data, text)
		return Page{Template: pg.Template, Data: data.Interface(), RequestID: text}
	}
	calm, harmless := pagesForTest(t, Options{Name: "x"}), map[string]string{}
	for name, pg := range pageSamples() {
		harmless[name] = pageShape(pageAnswer(calm, "GET", filled(pg, "x")).Body.String())
	}
	for _, evil := range xssStrings() {
		p := pagesForTest(t, Options{Name: evil})
		for name, pg := range pageSamples() {
			w, want := pageAnswer(p, "GET", filled(pg, evil)), harmless[name]
			body := w.Body.String()
			if w.Code != 200 {
				t.Fatalf("%s with %q: status %d", name, evil, w.Code)
			}
			if got := pageShape(body); got != want {
				t.Errorf("%s with %q has other elements or attributes:\n got %s\nwant %s", name, evil, got, want)
			}
			for _, m := range links.FindAllStringSubmatch(body, -1) {
				if u := strings.ToLower(strings.TrimSpace(html.UnescapeString(m[1]))); active.MatchString(u) {
					t.Errorf("%s with %q: link to %q", name, evil, m[1])
				}
			}
		}
	}
}

// fillStrings puts s into every string that v holds. v is addressable.
func fillStrings(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fillStrings(v.Field(i), s)
		}
	case reflect.Slice:
		fresh := reflect.MakeSlice(v.Type(), max(v.Len(), 1), max(v.Len(), 1))
		v.Set(fresh)
		for i := range v.Len() {
			fillStrings(v.Index(i), s)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillStrings(v.Elem(), s)
	}
}

// pageShape is the elements and attribute names of a page, without any text.
func pageShape(body string) string {
	var out strings.Builder
	for _, e := range pageElements(body) {
		out.WriteString("<" + e.name + " " + strings.Join(slices.Sorted(maps.Keys(e.attrs)), " ") + ">")
	}
	return out.String()
}

type pageElement struct {
	name  string // "/x" for an end tag
	attrs map[string]string
	pos   int // of the byte after the tag
}

var (
	tagOfOurs  = regexp.MustCompile(`^<(/?[a-z][a-z0-9]*|!DOCTYPE)((?: [a-zA-Z-]+(?:="[^"<>]*")?)*)>`)
	attrOfOurs = regexp.MustCompile(` ([a-zA-Z-]+)(?:="([^"]*)")?`)
)

// pageElements reads the tags of a page. It is strict: what it cannot read as
// a tag of ours becomes an element named after the fault, which no test expects.
func pageElements(body string) []pageElement {
	var out []pageElement
	for i := 0; i < len(body); i++ {
		if body[i] == '>' {
			if inStyle := len(out) > 0 && out[len(out)-1].name == "style"; !inStyle {
				out = append(out, pageElement{name: fmt.Sprintf("stray > at %d", i)})
			}
		}
		if body[i] != '<' {
			continue
		}
		m := tagOfOurs.FindStringSubmatch(body[i:])
		if m == nil {
			out = append(out, pageElement{name: fmt.Sprintf("stray < at %d", i)})
			continue
		}
		e := pageElement{name: m[1], attrs: map[string]string{}, pos: i + len(m[0])}
		for _, a := range attrOfOurs.FindAllStringSubmatch(m[2], -1) {
			e.attrs[a[1]] = html.UnescapeString(a[2])
		}
		out = append(out, e)
		i += len(m[0]) - 1
	}
	return out
}

func TestP19_PagesHaveNoScriptAndNoInlineStyle(t *testing.T) {
	allowed := strings.Fields(`!DOCTYPE html head meta title style body header img span bdi main
		footer p code h1 h2 h3 form input label button a strong div section nav link dl dt dd ul ol li time
		select option`)
	for name, pg := range pageSamples() {
		body := pageAnswer(pagesForTest(t, Options{LogoURL: "/logo"}), "GET", pg).Body.String()
		for _, e := range pageElements(body) {
			if !slices.Contains(allowed, strings.TrimPrefix(e.name, "/")) {
				t.Errorf("%s: element %q", name, e.name)
			}
			for a := range e.attrs {
				if strings.HasPrefix(strings.ToLower(a), "on") || a == "style" || a == "http-equiv" {
					t.Errorf("%s: <%s> has attribute %s", name, e.name, a)
				}
			}
		}
		if strings.Contains(body, "<script") || strings.Contains(body, "url(") || strings.Contains(body, "@import") {
			t.Errorf("%s: script, or something that loads from elsewhere", name)
		}
	}
}

func TestPagesWorkWithKeyboardAndScreenReader(t *testing.T) {
	p := pagesForTest(t, Options{Name: "Acme", LogoURL: "/logo"})
	for name, pg := range pageSamples() {
		body := pageAnswer(p, "GET", pg).Body.String()
		count := map[string]int{}
		ids := map[string]bool{}
		var open []string
		for _, e := range pageElements(body) {
			count[e.name]++
			if _, has := e.attrs["tabindex"]; has {
				t.Errorf("%s: <%s> changes the focus order", name, e.name)
			}
			if id := e.attrs["id"]; id != "" && ids[id] {
				t.Errorf("%s: id %q twice", name, id)
			} else {
				ids[id] = true
			}
			text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(strings.SplitN(body[e.pos:], "</"+e.name+">", 2)[0],
				"")
			switch e.name {
			case "html":
				if e.attrs["lang"] != "en" {
					t.Errorf("%s: no language", name)
				}
			case "img":
				if _, has := e.attrs["alt"]; !has {
					t.Errorf("%s: image without alt", name)
				}
			case "button", "a", "h1", "h2", "h3", "title", "dt", "dd", "li":
				if strings.TrimSpace(text) == "" {
					t.Errorf("%s: empty <%s>", name, e.name)
				}
			case "input", "select":
				label := `<label for="` + e.attrs["id"] + `">`
				if e.attrs["type"] != "hidden" && (e.attrs["id"] == "" || strings.Count(body, label) != 1) {
					t.Errorf("%s: %s without a label", name, e.name)
				}
			}
			open = trackPageNesting(t, name, open, e.name)
		}
		if len(open) != 0 {
			t.Errorf("%s: never closed: %q", name, open)
		}
		for _, one := range []string{"h1", "main", "header", "footer", "title", "!DOCTYPE"} {
			if count[one] != 1 {
				t.Errorf("%s: %d <%s>", name, count[one], one)
			}
		}
		if strings.Index(body, "<h1>") > strings.Index(body+"<h2>", "<h2>") {
			t.Errorf("%s: h2 before h1", name)
		}
		if !strings.Contains(body, "Request id: <code>"+pg.RequestID+"</code>") {
			t.Errorf("%s: no request id", name)
		}
		if !strings.Contains(body, " – Acme</title>") {
			t.Errorf("%s: title does not end in the operator's name", name)
		}
	}
}

func trackPageNesting(t *testing.T, page string, open []string, tag string) []string {
	t.Helper()
	switch {
	case slices.Contains([]string{"!DOCTYPE", "meta", "link", "img", "input"}, tag):
		return open
	case !strings.HasPrefix(tag, "/"):
		return append(open, tag)
	case len(open) == 0 || "/"+open[len(open)-1] != tag:
		t.Errorf("%s: <%s> inside %q", page, tag, open)
		return open
	}
	return open[:len(open)-1]
}

func TestHeadGetsThePageHeadersAndNoBody(t *testing.T) {
	p := pagesForTest(t, Options{})
	pg := pageSamples()["denied"]
	get, head := pageAnswer(p, "GET", pg), pageAnswer(p, "HEAD", pg)
	if head.Body.Len() != 0 || head.Code != 403 || !reflect.DeepEqual(head.Header(), get.Header()) {
		t.Errorf("HEAD: %d, %d bytes, %v", head.Code, head.Body.Len(), head.Header())
	}
}

func TestABrokenPageIsAPlain500(t *testing.T) {
	p := pagesForTest(t, Options{})
	for name, pg := range map[string]Page{
		"unknown template":       {Template: "nosuch"},
		"data of another page":   {Template: "account", Data: SignedOut{}},
		"fault late in the page": {Template: "loop", Data: struct{ PublicURL string }{"x"}},
	} {
		pg.Status, pg.RequestID = 403, "<id>"
		pg.Header = http.Header{"Set-Cookie": {"gone=; Max-Age=0"}}
		w := pageAnswer(p, "GET", pg)
		want := "This page could not be shown. Please try again.\nRequest id: <id>\n"
		if w.Code != 500 || w.Body.String() != want || w.Header().Get("Content-Length") != strconv.Itoa(len(want)) {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
		for h, v := range map[string]string{
			"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
			"Cache-Control":   "no-store",
			"X-Frame-Options": "DENY", "Set-Cookie": "gone=; Max-Age=0",
		} {
			if got := w.Header().Get(h); got != v {
				t.Errorf("%s: %s: %q, want %q", name, h, got, v)
			}
		}
	}
}

func TestPagesRefuseALogoOrPrefixElsewhere(t *testing.T) {
	for _, bad := range []string{"https://cdn.example.com/l.svg", "//cdn.example.com/l.svg", `/\cdn.example.com`,
		"/\t/cdn.example.com", "logo.svg"} {
		if _, err := New(Options{LogoURL: bad}); err == nil {
			t.Errorf("logo %q accepted", bad)
		}
		if _, err := New(Options{Prefix: bad}); err == nil {
			t.Errorf("prefix %q accepted", bad)
		}
	}
	if _, err := New(Options{Prefix: "/auth/"}); err == nil {
		t.Error("prefix with a slash at its end accepted")
	}
}

// Chromium holds form-action to all redirects that follow a form, and a provider may send people
// on to hosts that nobody here knows, so the choice is made of links.
func TestChooserSendsTheProviderAndWhereToGo(t *testing.T) {
	p := pagesForTest(t, Options{Prefix: "/auth"})
	switching := pageSamples()["signin"]
	switching.Data = SignIn{Providers: []SignInChoice{{"partner", "Partner SSO"}}, Switch: true}
	const to = "&return_to=%2freports%3fweek%3d47%26by%3dteam"
	for _, tt := range []struct {
		page Page
		want []string
	}{
		{pageSamples()["signin"], []string{"/auth/login?provider=google" + to, "/auth/login?provider=entra" + to,
			"/auth/login?provider=partner" + to}},
		{switching, []string{"/auth/login?provider=partner&switch=1"}},
	} {
		var got []string
		for _, e := range pageElements(pageAnswer(p, "GET", tt.page).Body.String()) {
			switch e.name {
			case "form", "button":
				t.Errorf("a %s", e.name)
			case "a":
				got = append(got, e.attrs["href"])
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("links %q, want %q", got, tt.want)
		}
	}
}

func TestLoopPageBlamesTheAddressOnlyIfItDiffers(t *testing.T) {
	for _, tt := range []struct {
		public, seen string
		want         bool
	}{
		{"https://app.example.com", "https://APP.example.com:443/x", false},
		{"http://localhost:4180", "http://localhost:4180/", false},
		{"http://localhost", "http://localhost:80/", false},
		{"https://app.example.com", "http://app.example.com", true},
		{"https://app.example.com", "https://app.example.com:8443", true},
		{"https://app.example.com", "https://www.app.example.com", true},
		{"https://app.example.com", "", false},
		{"https://app.example.com", "http://%zz", false},
	} {
		if got := (Loop{PublicURL: tt.public, SeenURL: tt.seen}).AddressDiffers(); got != tt.want {
			t.Errorf("%s and %s: %v, want %v", tt.public, tt.seen, got, tt.want)
		}
	}
}

func TestTimesAreWrittenForPeople(t *testing.T) {
	now := time.Date(2026, 11, 22, 17, 40, 0, 0, time.UTC)
	for _, tt := range []struct {
		in   time.Duration
		want string
	}{
		{0, "now"}, {29 * time.Second, "now"}, {-10 * time.Second, "now"},
		{30 * time.Second, "in 1 minute"}, {-time.Minute, "1 minute ago"}, {90 * time.Minute, "in 90 minutes"},
		{time.Hour, "in 1 hour"}, {59 * time.Minute, "in 59 minutes"},
		{119*time.Minute + 40*time.Second, "in 2 hours"}, {11*time.Hour + 10*time.Minute, "in 11 hours"},
		{12*time.Hour - time.Second, "in 12 hours"}, {-26 * time.Hour, "26 hours ago"},
		{47*time.Hour + 40*time.Minute, "in 2 days"}, {-240 * time.Hour, "10 days ago"},
	} {
		if got := moment(now, now.Add(tt.in)).Relative; got != tt.want {
			t.Errorf("%v: %q, want %q", tt.in, got, tt.want)
		}
	}
	berlin := time.FixedZone("CET", 3600)
	got := moment(time.Time{}, time.Date(2026, 11, 23, 0, 5, 0, 0, berlin))
	if want := (instant{"2026-11-22T23:05:00Z", "22 November 2026, 23:05 UTC", ""}); got != want {
		t.Errorf("got %+v", got)
	}
}

// TestPageColoursCanBeRead holds every pair of colours that meet on a page to
// WCAG 2.2: text 4.5:1 (§1.4.3), borders and focus rings 3:1 (§1.4.11).
func TestPageColoursCanBeRead(t *testing.T) {
	style, err := os.ReadFile("style.css")
	if err != nil {
		t.Fatal(err)
	}
	pairs := []struct {
		front, back string
		least       float64
	}{
		{"text", "page", 4.5}, {"text", "card", 4.5}, {"text", "note", 4.5},
		{"quiet", "page", 4.5}, {"quiet", "card", 4.5}, {"quiet", "note", 4.5},
		{"accent", "card", 4.5}, {"accent", "note", 4.5}, {"accent", "page", 4.5},
		{"on-accent", "accent", 4.5}, {"on-accent", "accent-strong", 4.5},
		{"edge", "card", 3},
	}
	schemes := pageSchemes(t, string(style))
	for scheme, colours := range schemes {
		for _, p := range pairs {
			if got := pageContrast(t, colours[p.front], colours[p.back]); got < p.least {
				t.Errorf("%s: %s on %s is %.2f:1, want %.1f:1", scheme, p.front, p.back, got, p.least)
			}
		}
	}
}

// pageSchemes returns the custom properties of each scheme, those that a later
// scheme does not set taken from the first.
func pageSchemes(t *testing.T, style string) map[string]map[string]string {
	t.Helper()
	roots := regexp.MustCompile(`(?s)(@media [^{]*\{\s*)?:root \{(.*?)\}`).FindAllStringSubmatch(style, -1)
	if len(roots) != 3 {
		t.Fatalf("%d :root blocks, want light, dark and print", len(roots))
	}
	out := map[string]map[string]string{}
	for i, scheme := range []string{"light", "dark", "print"} {
		out[scheme] = maps.Clone(out["light"])
		if out[scheme] == nil {
			out[scheme] = map[string]string{}
		}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(roots[i][2], -1) {
			out[scheme][m[1]] = m[2]
		}
	}
	if len(out["light"]) < 8 || maps.Equal(out["light"], out["dark"]) {
		t.Fatalf("colours not found: %v", out)
	}
	return out
}

// pageContrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func pageContrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(hex string) float64 {
		n, err := strconv.ParseUint(strings.TrimPrefix(hex, "#"), 16, 32)
		if err != nil || len(hex) != 7 {
			t.Fatalf("colour %q", hex)
		}
		linear := func(c uint64) float64 {
			v := float64(c&0xff) / 255
			if v <= 0.04045 {
				return v / 12.92
			}
			return math.Pow((v+0.055)/1.055, 2.4)
		}
		return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
	}
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}
