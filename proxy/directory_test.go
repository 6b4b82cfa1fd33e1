package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
)

// orgShelf keeps details in memory, or fails.
type orgShelf struct {
	mu     sync.Mutex // guards what follows
	kept   map[string]identity.OrgDetails
	writes int
	err    error
}

func (k *orgShelf) KeepOrg(_ context.Context, d identity.OrgDetails) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	if was, ok := k.kept[d.OrgID]; ok && was.CustomerID != d.CustomerID {
		return identity.ErrOtherCustomer
	}
	if k.err == nil {
		k.kept[d.OrgID] = d
	}
	return k.err
}

func (k *orgShelf) OrgDetails(_ context.Context, id string) (identity.OrgDetails, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d, ok := k.kept[id]
	return d, ok, k.err
}

func (k *orgShelf) of(ctx context.Context, org identity.Org) identity.Org {
	d, _, _ := k.OrgDetails(ctx, org.ID)
	return d.Of(org)
}

func (k *orgShelf) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// directorySite is a site at which people sign in with a pretend Google, and jonas of
// acme.example, by his address, may have its directory read; tomoko of birch.example, too.
type directorySite struct {
	*testSite
	google *testenv.Faults
	shelf  *orgShelf
	stream bytes.Buffer
	audit  *observe.Audit
}

func newDirectorySite(t *testing.T, change ...func(*setup)) *directorySite {
	t.Helper()
	d := &directorySite{shelf: &orgShelf{kept: map[string]identity.OrgDetails{}}}
	o := setup{Several: func(s *testSite) []Provider {
		callbacks := []string{s.url + prefix + "/callback/google", s.url + prefix + "/directory/google/callback"}
		d.google = testenv.StartProvider(t, demo.ProviderOptions{ClientID: devClient, ClientSecret: devSecret,
			RedirectURIs: callbacks, Kind: demo.Google, Now: s.clock.Now})
		l, err := login.New(login.Options{ID: "google", Type: login.TypeGoogle, Issuer: d.google.URL,
			ClientID: devClient, ClientSecret: devSecret, RedirectURL: callbacks[0], ReauthAfter: login.NoReauth,
			Directory:  login.Directory{On: true, RedirectURL: callbacks[1], BaseURL: d.google.URL},
			OrgDetails: d.shelf.of, Now: s.clock.Now, Log: s.log.logger()})
		testenv.Check(t, err)
		return []Provider{{ID: "google", Name: "Google", Login: l, Directory: &Directory{DirectoryReader: l,
			ManagedBy: []authz.Rule{{Emails: []string{"jonas@acme.example", "zoe@mail.example"}},
				{Emails: []string{"tomoko@birch.example"}}}}}}
	}, Tuned: func(o *Options) { o.OrgKeeper = d.shelf }}
	for _, f := range change {
		f(&o)
	}
	d.testSite = newTestSite(t, o)
	d.audit = observe.NewAudit(&d.stream, func(r observe.Record, err error) { t.Errorf("lost %v: %v", r, err) })
	d.proxy.observers = append(d.proxy.observers, d.audit)
	return d
}

// enter signs somebody in, in a browser of their own.
func (d *directorySite) enter(t *testing.T, person string) *testenv.Browser {
	t.Helper()
	b := d.browser(t)
	if page := d.signIn(t, b, "/page", person); page.Status != 200 || page.URL.Path != "/page" {
		t.Fatalf("%s did not sign in: %d %s", person, page.Status, page.URL)
	}
	return b
}

const readButton = `Read your organization's details from Google`

var directoryForm = regexp.MustCompile(
	`<form method="post" action="(/\.sallyport/directory/google)"[^>]*>\s*<button class="plain" name="form" value="([^"]*)">`)

// press presses the button on the account page. The page that follows is Google's.
func (d *directorySite) press(t *testing.T, b *testenv.Browser) testenv.Page {
	t.Helper()
	page := b.Open(d.url + prefix + "/account")
	m := directoryForm.FindStringSubmatch(page.Body)
	if m == nil || !strings.Contains(html.UnescapeString(page.Body), readButton) {
		t.Fatalf("no button: %d %s", page.Status, page.Body)
	}
	return b.Submit(page, "form", html.UnescapeString(m[2]))
}

func (d *directorySite) counts() [2]int {
	return [2]int{d.google.Hits(testenv.Customer), d.google.Hits(testenv.Revoke)}
}

func TestP12_AnAdministratorHasTheirOrganizationRead(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	b := d.enter(t, "jonas")
	google := d.press(t, b)
	if google.URL.Host == d.host || !strings.Contains(google.URL.RawQuery, "admin.directory.customer.readonly") {
		t.Fatalf("the button leads to %s", google.URL)
	}
	account := b.SignIn(google, "jonas")
	if account.Status != 200 || account.URL.Path != prefix+"/account" || account.URL.Fragment != "directory" {
		t.Fatalf("led to %d %s: %s", account.Status, account.URL, account.Body)
	}
	kept := d.shelf.kept["google:acme.example"]
	if kept.Name != "Acme Rockets" || kept.Domain != "acme.example" || kept.OrgID != "google:acme.example" ||
		kept.CustomerID == "" || d.clock.Now().Sub(kept.ReadAt) > time.Minute || !strings.HasPrefix(kept.ReadBy, "google:1") {
		t.Errorf("kept %+v", kept)
	}
	for _, shown := range []string{"Acme Rockets", kept.CustomerID, "by you", readButton + " again"} {
		if !strings.Contains(html.UnescapeString(account.Body), shown) {
			t.Errorf("the account page has no %q", shown)
		}
	}
	callback := account.Hops[len(account.Hops)-2].URL.String()
	if !strings.Contains(callback, "/directory/google/callback") {
		t.Fatalf("came from %s", callback)
	}
	for range 3 { // a reload, and the back button
		if again := b.Open(callback); again.Status != 200 || again.URL.Path != prefix+"/account" {
			t.Errorf("once more: %d %s", again.Status, again.URL)
		}
	}
	if n := d.counts(); n != [2]int{1, 1} || d.shelf.writes != 1 {
		t.Errorf("asked %v times, kept %d times", n, d.shelf.writes)
	}
	// Whoever signs in from then on has the name, by the same id; another organization has not.
	for person, want := range map[string]string{"mira": "google:acme.example Acme Rockets",
		"tomoko": "google:birch.example birch.example"} {
		from := 0
		d.hits(&from)
		d.enter(t, person)
		heads := d.hits(&from)
		h := headerOf(heads[len(heads)-1])
		if got := fmt.Sprint(h["x-forwarded-org-id"][0], " ", h["x-forwarded-org-name"][0]); got != want {
			t.Errorf("the app is told %s of %s, want %s", got, person, want)
		}
	}
	d.audited(t, "directory_read "+kept.ReadBy+" google:acme.example google google:acme.example is customer "+
		kept.CustomerID+`, named "Acme Rockets", with the primary domain acme.example`)
	d.counted(t, "read", 1)
}

func (d *directorySite) audited(t *testing.T, want ...string) {
	t.Helper()
	if !d.audit.Close(time.Second) {
		t.Fatal("the stream does not end")
	}
	var got []string
	for dec := json.NewDecoder(bytes.NewReader(d.stream.Bytes())); ; {
		var r observe.Record
		if dec.Decode(&r) != nil {
			break
		}
		if strings.HasPrefix(r.Event, "directory") {
			got = append(got, strings.Join([]string{r.Event, r.User, r.Org, r.Provider, r.Detail}, " "))
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the audit stream has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (d *directorySite) counted(t *testing.T, result string, want float64) {
	t.Helper()
	counter := d.proxy.metrics.directories.WithLabelValues("google", result)
	if got := testutil.ToFloat64(counter); got != want {
		t.Errorf("%s was counted %v times, want %v", result, got, want)
	}
}

func TestP12_OnlyWhomTheOperatorNamesHasADirectoryRead(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	jonas := d.enter(t, "jonas")
	form := directoryForm.FindStringSubmatch(jonas.Open(d.url + prefix + "/account").Body)
	if form == nil {
		t.Fatal("no button")
	}
	for person, why := range map[string]string{"mira": "is not named", "zoe": "has no organization"} {
		b := d.enter(t, person)
		account := b.Open(d.url + prefix + "/account")
		if strings.Contains(account.Body, "/directory/") || strings.Contains(account.Body, "directory") {
			t.Errorf("%s, who %s, sees the button", person, why)
		}
		page := b.Post(account, prefix+"/directory/google", url.Values{"form": {html.UnescapeString(form[2])}})
		if page.Status != 403 || page.URL.Host != d.host {
			t.Errorf("%s, who %s: %d %s", person, why, page.Status, page.URL)
		}
	}
	for name, path := range map[string]string{"no provider": "/directory/", "another": "/directory/other"} {
		page := jonas.Post(jonas.Open(d.url+prefix+"/account"), prefix+path, url.Values{"form": {form[2]}})
		if page.Status != 403 {
			t.Errorf("%s: %d", name, page.Status)
		}
	}
	if n := d.counts(); n != [2]int{} || len(d.shelf.kept) != 0 {
		t.Errorf("asked %v times, kept %v", n, d.shelf.kept)
	}
}

// The form is sent from our page, by a person, in the session that it was shown to.
func TestP12_ADirectoryIsAskedForFromOurPageAlone(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	jonas, tomoko := d.enter(t, "jonas"), d.enter(t, "tomoko")
	secret := func(b *testenv.Browser) string {
		m := directoryForm.FindStringSubmatch(b.Open(d.url + prefix + "/account").Body)
		if m == nil {
			t.Fatal("no button")
		}
		return html.UnescapeString(m[2])
	}
	own, others := secret(jonas), secret(tomoko)
	cookie := "Cookie: " + cookiesOf(jonas, d.testSite)
	form := "Content-Type: application/x-www-form-urlencoded"
	document := append(fetched("navigate", "document", "same-origin"), form, cookie, "Origin: "+d.url)
	post := func(secret string, headers ...string) answer {
		return d.ask(t, "POST", prefix+"/directory/google", url.Values{"form": {secret}}.Encode(), headers...)
	}
	for name, a := range map[string]answer{
		"no Origin":       post(own, append(fetched("navigate", "document", "same-origin"), form, cookie)...),
		"another Origin":  post(own, append(fetched("navigate", "document", "cross-site"), form, cookie, "Origin: https://evil.example")...),
		"Origin null":     post(own, append(fetched("navigate", "document", "cross-site"), form, cookie, "Origin: null")...),
		"a script":        post(own, append(fetched("cors", "empty", "same-origin"), form, cookie, "Origin: "+d.url)...),
		"a frame":         post(own, append(fetched("navigate", "iframe", "same-origin"), form, cookie, "Origin: "+d.url)...),
		"another's form":  post(others, document...),
		"no form":         post("", document...),
		"a made-up form":  post(own[:len(own)-2]+"AA", document...),
		"a form twice":    d.ask(t, "POST", prefix+"/directory/google", "form="+own+"&form="+own, document...),
		"an endless form": post(strings.Repeat("A", 2*maxForm), document...),
		"nobody signed in": post(own, append(fetched("navigate", "document", "same-origin"), form,
			"Origin: "+d.url)...),
		"GET": d.get(t, prefix+"/directory/google?form="+own, document...),
	} {
		if a.status < 400 || a.status > 499 || a.header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if a := post(own, document...); a.status != 303 || !strings.HasPrefix(a.header.Get("Location"), d.google.URL) ||
		a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the form itself: %d %v", a.status, a.header)
	}
	// Browsers let the form lead there.
	csp := jonas.Open(d.url + prefix + "/account").Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "form-action 'self' "+d.google.URL) {
		t.Errorf("the account page has the policy %s", csp)
	}
}

func TestP06_ADirectoryIsReadOnlyInTheSessionThatBegan(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	jonas, sameJonas, tomoko := d.enter(t, "jonas"), d.enter(t, "jonas"), d.enter(t, "tomoko")
	begin := func(b *testenv.Browser, person string) (callback string) {
		google := d.press(t, b)
		b.MaxHops = 1 // the browser stops at what Google answers
		defer func() { b.MaxHops = 10 }()
		a := d.ask(t, "POST", google.URL.String(), url.Values{"person": {person}}.Encode(),
			"Content-Type: application/x-www-form-urlencoded")
		if a.status != 303 {
			t.Fatalf("at Google: %d %s", a.status, a.body)
		}
		return a.header.Get("Location")
	}
	callback := begin(jonas, "jonas")
	attack := begin(tomoko, "tomoko") // for jonas to finish
	at := func(b *testenv.Browser) string { return cookiesOf(b, d.testSite) }
	signIn := d.browser(t)
	begun := signIn.Open(d.url + "/page")
	signInState := begun.URL.Query().Get("state")
	state := func(s string) string { return prefix + "/directory/google/callback?code=x&state=" + url.QueryEscape(s) }
	if signInState == "" {
		t.Fatalf("no state in %s", begun.URL)
	}
	for name, c := range map[string]struct{ cookies, callback string }{
		"another browser":           {at(sameJonas), callback},
		"another person":            {at(tomoko), callback},
		"nobody":                    {"", callback},
		"an attacker's callback":    {at(jonas), attack},
		"nobody's state":            {at(jonas), state("made-up")},
		"no state":                  {at(jonas), prefix + "/directory/google/callback?code=x"},
		"the state of a sign-in":    {at(jonas) + "; " + at(signIn), state(signInState)},
		"two codes":                 {at(jonas), callback + "&code=y"},
		"another provider's":        {at(jonas), strings.Replace(callback, "/google/", "/other/", 1)},
		"where people sign in":      {at(jonas), strings.Replace(callback, "/directory/google/callback", "/callback/google", 1)},
		"where accounts are joined": {at(jonas), strings.Replace(callback, "/directory/google/callback", "/connect/google/callback", 1)},
	} {
		headers := append(fetched("navigate", "document", "cross-site"), "Cookie: "+c.cookies)
		a := d.get(t, c.callback, headers...)
		if a.status < 400 || a.status > 499 || a.header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	if n := d.counts(); n != [2]int{} || len(d.shelf.kept) != 0 {
		t.Fatalf("asked %v times, kept %v", n, d.shelf.kept)
	}
	// "where people sign in" has used the trip up in a session only for a sign-in.
	if page := jonas.Open(callback); page.URL.Path != prefix+"/account" || len(d.shelf.kept) != 1 {
		t.Errorf("in the session: %d %s, kept %v", page.Status, page.URL, d.shelf.kept)
	}
	d.clock.Advance(session.FlowTime + time.Second)
	if page := tomoko.Open(attack); page.Status != 400 || len(d.shelf.kept) != 1 {
		t.Errorf("too late: %d, kept %v", page.Status, d.shelf.kept)
	}
}

// Whatever happens at Google is said, and nothing is kept.
func TestP12_WhatGoogleDoesInsteadIsSaidAndNotKept(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	b := d.enter(t, "jonas")
	forbidden := `{"error":{"code":403,"errors":[{"reason":"%s"}]}}`
	api := func(status int, reason string) testenv.Fault {
		return testenv.Fault{Endpoint: testenv.Customer, Status: status, Body: fmt.Sprintf(forbidden, reason)}
	}
	for _, c := range []struct {
		chosen, result string
		fault          testenv.Fault
		status         int
		says           string
	}{
		{"mira", "other_account", testenv.Fault{}, 403, "another account than the one"},
		{"jonas", "not_admin", api(403, "forbidden"), 403, "administrators of your organization only"},
		{"jonas", "not_enabled", api(403, "accessNotConfigured"), 502, "may not use the Admin SDK API"},
		{"jonas", "not_granted", testenv.Fault{Endpoint: testenv.Token, JSON: testenv.With("scope", "openid")}, 403,
			"did not allow"},
		{"jonas", "other_domain", testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("hd", "birch.example")}, 403,
			"another organization than when you signed in"},
		{"jonas", "secondary_domain", testenv.Fault{Endpoint: testenv.Customer,
			JSON: testenv.With("customerDomain", "evil.example")}, 403, "primary domain"},
		{"jonas", "unusable", testenv.Fault{Endpoint: testenv.Customer, JSON: testenv.With("id", "a b")}, 502,
			"cannot be used here"},
		{"jonas", "unavailable", testenv.Fault{Endpoint: testenv.Customer, Status: 503}, 503, "did not answer in time"},
		{"jonas", "rejected", testenv.Fault{Endpoint: testenv.Token, Claims: testenv.With("nonce", "x")}, 502,
			"failed a check"},
		{"jonas", "misconfigured", testenv.Fault{Endpoint: testenv.Token, Status: 401, Body: `{"error":"invalid_client"}`},
			502, "not set up right"},
	} {
		d.google.Set(c.fault)
		page := b.SignIn(d.press(t, b), c.chosen)
		text := html.UnescapeString(page.Body)
		if page.Status != c.status || !strings.Contains(text, "Nothing was read") || !strings.Contains(text, c.says) ||
			!strings.Contains(text, `href="`+prefix+`/account"`) || strings.Contains(text, "evil.example") {
			t.Errorf("%s: %d %s", c.result, page.Status, text)
		}
		d.counted(t, c.result, 1)
	}
	google := d.press(t, b)
	no := google.URL.Query()
	page := b.Open(no.Get("redirect_uri") + "?" + url.Values{"error": {"access_denied"}, "state": {no.Get("state")},
		"error_description": {"<b>evil</b>"}, "iss": {d.google.URL}}.Encode())
	if page.Status != 403 || strings.Contains(page.Body, "evil") || !strings.Contains(page.Body, "cancelled or refused") {
		t.Errorf("declined: %d %s", page.Status, page.Body)
	}
	if len(d.shelf.kept) != 0 || d.shelf.writes != 0 {
		t.Errorf("kept %v", d.shelf.kept)
	}
	if n := d.counts(); n[1] != 9 { // all but those of misconfigured and declined, which had no token
		t.Errorf("%d tokens were ended", n[1])
	}
	// The session goes on as it was.
	if page := b.Open(d.url + "/page"); page.Status != 200 || page.URL.Host != d.host {
		t.Errorf("afterwards: %d %s", page.Status, page.URL)
	}
}

// A domain that was sold is another customer's, who gets nothing of what was before, and a
// store that is away keeps nothing.
func TestP12_ADomainThatChangedHandsKeepsItsName(t *testing.T) {
	t.Parallel()
	d := newDirectorySite(t)
	b := d.enter(t, "jonas")
	before := identity.OrgDetails{OrgID: "google:acme.example", CustomerID: "C0before", Name: "Before",
		Domain: "acme.example", ReadBy: "google:7", ReadAt: d.clock.Now()}
	d.shelf.kept[before.OrgID] = before
	if account := b.Open(d.url + prefix + "/account"); !strings.Contains(account.Body,
		"by somebody else, whose user id is <code>google:7</code>") {
		t.Errorf("who had it read is not said: %s", account.Body)
	}
	page := b.SignIn(d.press(t, b), "jonas")
	if page.Status != 409 || !strings.Contains(page.Body, "changed hands") ||
		d.shelf.kept[before.OrgID] != before {
		t.Errorf("%d %s, kept %v", page.Status, page.Body, d.shelf.kept)
	}
	d.counted(t, "other_customer", 1)
	delete(d.shelf.kept, before.OrgID)
	google := d.press(t, b)
	d.shelf.fail(fmt.Errorf("%w: away", session.ErrStore))
	if page := b.SignIn(google, "jonas"); page.Status != 503 || !strings.Contains(page.Body, "cannot be kept") {
		t.Errorf("without a store: %d %s", page.Status, page.Body)
	}
	d.counted(t, "store", 1)
	if page := b.Open(d.url + prefix + "/account"); !strings.Contains(page.Body, "cannot be shown at the moment") {
		t.Errorf("the account page without a store: %s", page.Body)
	}
	if n := d.counts(); n != [2]int{2, 2} {
		t.Errorf("asked %v times", n)
	}
	d.shelf.fail(errors.New("broken"))
	if page := d.enter(t, "mira"); page == nil {
		t.Error("nobody can sign in without it")
	}
	d.audited(t, auditOfFailure(t, d, 0), auditOfFailure(t, d, 1))
}

// auditOfFailure is the n-th line of the audit stream about a directory, if it names what was
// learned and why it was not kept.
func auditOfFailure(t *testing.T, d *directorySite, n int) string {
	t.Helper()
	if !d.audit.Close(time.Second) {
		t.Fatal("the stream does not end")
	}
	for dec := json.NewDecoder(bytes.NewReader(d.stream.Bytes())); ; {
		var r observe.Record
		if err := dec.Decode(&r); err != nil {
			t.Fatalf("the audit stream has no line %d: %v", n, err)
		}
		if r.Event != "directory_failed" {
			continue
		}
		if n--; n >= 0 {
			continue
		}
		if !strings.Contains(r.Detail, "google:acme.example is customer c") ||
			!strings.Contains(r.Detail, "keep what the directory says") {
			t.Errorf("the audit stream has %+v", r)
		}
		return strings.Join([]string{r.Event, r.User, r.Org, r.Provider, r.Detail}, " ")
	}
}

func TestWithoutADirectoryThereIsNothingToRead(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*setup){
		"no store": func(o *setup) { o.Tuned = nil },
		"no directory": func(o *setup) {
			several := o.Several
			o.Several = func(s *testSite) []Provider {
				all := several(s)
				all[0].Directory = nil
				return all
			}
		},
	} {
		d := newDirectorySite(t, change)
		b := d.enter(t, "jonas")
		account := b.Open(d.url + prefix + "/account")
		if account.Status != 200 || strings.Contains(account.Body, "directory") {
			t.Errorf("%s: the account page has %s", name, account.Body)
		}
		for _, path := range []string{"/directory/google", "/directory/google/callback"} {
			if page := b.Post(account, prefix+path, url.Values{"form": {"x"}}); page.Status != 404 {
				t.Errorf("%s: POST %s is answered with %d", name, path, page.Status)
			}
		}
	}
}
