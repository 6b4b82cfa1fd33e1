package proxy

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

const (
	thirdParty = "https://calendar.example"
	// formsLead is where a form of our pages may lead: to Sallyport, and to the provider where
	// people sign in.
	formsLead = "form-action 'self' http://127.0.0.1:1"
)

// calendar is a pretend third party that counts what it is asked.
type calendar struct {
	about   grant.About
	account grant.Account // whom it grants for
	granted []string      // scopes; nil: all that are asked for
	issuer  string
	err     error
	hold    chan struct{} // not nil: an answer waits until it is closed
	// approves: an administrator can agree there.
	approves bool

	mu                        sync.Mutex
	redeemed, accepted, ended int
	began                     chan struct{}
}

func (c *calendar) About() grant.About          { return c.about }
func (c *calendar) Origin(grant.Account) string { return thirdParty }
func (c *calendar) Issuer() string              { return c.issuer }

func (c *calendar) AuthURL(h identity.Handshake, r grant.Request) (string, error) {
	return thirdParty + "/authorize?" + url.Values{"state": {h.State}, "scope": {strings.Join(r.Scopes, " ")},
		"redirect_uri": {r.RedirectURI}}.Encode(), nil
}

func (c *calendar) Redeem(ctx context.Context, q url.Values, _ identity.Handshake,
	r grant.Request) (grant.Result, error) {
	code, err := connector.Codes(nil).Code(q)
	if err != nil {
		return grant.Result{}, err
	}
	c.mu.Lock()
	c.redeemed++
	c.mu.Unlock()
	c.began <- struct{}{}
	if c.hold != nil {
		<-c.hold
	}
	if c.err != nil {
		return grant.Result{}, c.err
	}
	if ctx.Err() != nil {
		return grant.Result{}, &grant.Error{Class: grant.Lost, Reason: "lost", Err: ctx.Err()}
	}
	return c.result("canary-access-"+code, r), nil
}

func (c *calendar) result(access string, r grant.Request) grant.Result {
	scopes := r.Scopes
	if c.granted != nil {
		scopes = c.granted
	}
	return grant.Result{Account: c.account, Scopes: scopes, Tokens: grant.Tokens{Access: access,
		Refresh: "canary-refresh", AccessExpires: time.Now().Add(time.Hour)}}
}

func (c *calendar) Refresh(context.Context, grant.Tokens, []string) (grant.Result, error) {
	return grant.Result{}, &grant.Error{Class: grant.Later, Reason: "busy", Err: errors.New("not here")}
}

func (c *calendar) Revoke(context.Context, grant.Tokens, int) (grant.Revocation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
	return grant.Revoked, nil
}

func (c *calendar) FinishURL(grant.Account) string { return thirdParty + "/connections" }

func (c *calendar) ApproveURL(a grant.Account, r grant.Request) string {
	if !c.approves {
		return ""
	}
	return thirdParty + "/approve?" + url.Values{"account": {a.ID}, "scope": r.Scopes,
		"redirect_uri": {r.RedirectURI}}.Encode()
}

func (c *calendar) calls() (redeemed, revoked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.redeemed, c.ended
}

// pager is a third party for which a key is pasted.
type pager struct{ *calendar }

func (p pager) AuthURL() {} // it is no grant.OAuth
func (p pager) Accept(_ context.Context, key string, r grant.Request) (grant.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	if key != "canary-key" && (p.about.UserHint == "" || key != "mira:canary-key") {
		return grant.Result{}, &grant.Error{Class: grant.Yours, Reason: "key", Err: errors.New("refused")}
	}
	result := p.result(key, r)
	result.Tokens.AccessExpires = time.Time{}
	return result, nil
}

// lendingSite is a site whose people can connect a calendar and a pager.
type lendingSite struct {
	*testSite
	calendar *calendar
	pager    pager
	store    *granttest.Store
}

func newLendingSite(t *testing.T, change ...func(*setup)) *lendingSite {
	t.Helper()
	about := func(id, name string) grant.About {
		return grant.About{ID: id, Name: name, Owner: grant.OwnedByUser, Offline: true,
			Refresh: thirdParty, Revoke: thirdParty, Inject: grant.Injection{Header: "Authorization", Prefix: "Bearer "},
			Accesses: []grant.Access{
				{Name: "busy", Scopes: []string{"scope.busy"}, Means: "see when you are busy"},
				{Name: "events", Scopes: []string{"scope.events"}, Means: "read all of your events"}}}
	}
	l := &lendingSite{calendar: &calendar{about: about("calendar", "Calendar"), began: make(chan struct{}, 100),
		account: grant.Account{ID: "1", Name: "alice@calendar.example"}},
		pager: pager{&calendar{about: about("pager", "Pager"), account: grant.Account{ID: "p"}}}}
	l.calendar.about.Authorize, l.calendar.about.ClientID = thirdParty, "client"
	l.pager.about.KeyHint = "a key of your account"
	o := setup{Public: "", Tuned: func(o *Options) {
		l.store = granttest.NewStore(nil)
		ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "0123456789abcdef", Secret: [32]byte{1},
			Created: time.Now().Add(-time.Hour)}})
		testenv.Check(t, err)
		both := []string{"busy", "events"}
		broker, err := grant.New(grant.Options{Store: l.store, Keys: ring,
			Offers: []grant.Offer{{Connector: l.calendar, Owner: grant.OwnedByUser, Offered: both},
				{Connector: l.pager, Owner: grant.OwnedByUser, Offered: both}},
			Apps: []grant.App{{ID: "board", Name: "Busy Board", Offline: true,
				Connectors: map[string][]string{"calendar": {"busy"}, "pager": {"busy"}}},
				{ID: "notes", Name: "Notes", Connectors: map[string][]string{"calendar": both}}},
			Redirect: func(id string) string { return o.PublicURL.String() + prefix + "/connect/" + id + "/callback" }})
		testenv.Check(t, err)
		t.Cleanup(broker.Close)
		o.Lender = broker
	}}
	for _, f := range change {
		f(&o)
	}
	l.testSite = newTestSite(t, o)
	return l
}

const (
	connectBoard = prefix + "/connect/calendar?app=board&access=busy&return_to=%2Fbusy%3Fweek%3D47"
	boardReturn  = "/busy?week=47"
)

var (
	formField  = regexp.MustCompile(`name="form" value="([^"]*)"`)
	formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
)

// open opens our page, and returns what its form has.
func (l *lendingSite) open(t *testing.T, cookie, path string) string {
	t.Helper()
	a := l.get(t, path, navigate("Cookie: "+cookie)...)
	m := formField.FindStringSubmatch(a.body)
	if a.status != 200 || m == nil {
		t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	return html.UnescapeString(m[1])
}

// fromPage are the headers of a form that is sent from a page of ours.
func (l *lendingSite) fromPage(more ...string) []string {
	return append([]string{"Origin: " + l.url, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate",
		"Sec-Fetch-Dest: document", "Content-Type: application/x-www-form-urlencoded", "Accept: text/html"}, more...)
}

// agree says yes on our page, and returns where that leads and all cookies.
func (l *lendingSite) agree(t *testing.T, cookie, path string, more ...string) (location, cookies string) {
	t.Helper()
	form := url.Values{"form": {l.open(t, cookie, path)}, "answer": {"yes"}}
	for i := 0; i+1 < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	a := l.ask(t, "POST", path, form.Encode(), l.fromPage("Cookie: "+cookie)...)
	if a.status != 303 {
		t.Fatalf("agreed: %d %s", a.status, a.body)
	}
	return a.header.Get("Location"), withFlow(cookie, a)
}

// fetched are the headers of a request that a browser says this of.
func fetched(mode, dest, site string) []string {
	return []string{"Sec-Fetch-Mode: " + mode, "Sec-Fetch-Dest: " + dest, "Sec-Fetch-Site: " + site,
		"Accept: text/html"}
}

func withFlow(cookie string, a answer) string {
	for _, line := range a.header["Set-Cookie"] {
		pair, _, _ := strings.Cut(line, ";")
		cookie += "; " + pair
	}
	return cookie
}

func stateIn(t *testing.T, location string) string {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, thirdParty+"/authorize?") {
		t.Fatalf("not the third party: %q %v", location, err)
	}
	return u.Query().Get("state")
}

func callbackOf(state string) string {
	return prefix + "/connect/calendar/callback?" + url.Values{"code": {"canary-code"}, "state": {state}}.Encode()
}

func (l *lendingSite) back(t *testing.T, cookies, path string) answer {
	t.Helper()
	return l.get(t, path, "Cookie: "+cookies, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
		"Sec-Fetch-Site: cross-site", "Accept: text/html")
}

// kept is what is stored of somebody's calendar.
func (l *lendingSite) kept(t *testing.T, who identity.Identity, connector string) (grant.Kept, bool) {
	t.Helper()
	k, err := l.store.Get(t.Context(), grant.Key{Connector: connector,
		Owner: grant.Owner{Kind: grant.OwnedByUser, ID: who.ID()}})
	if err != nil && !errors.Is(err, grant.ErrNotFound) {
		t.Fatal(err)
	}
	return k, err == nil
}

// connect connects the calendar for an app.
func (l *lendingSite) connect(t *testing.T, cookie, path string) answer {
	t.Helper()
	location, cookies := l.agree(t, cookie, path)
	return l.back(t, cookies, callbackOf(stateIn(t, location)))
}

func TestP12_PeopleConnectAnAccountForOneApp(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	page := l.get(t, connectBoard, navigate("Cookie: "+cookie)...)
	for _, want := range []string{"Busy Board", "Calendar", "see when you are busy", "scope.busy", "Alice Ämter",
		`name="answer" value="yes"`, `name="answer" value="no"`, `name="offline" type="checkbox" value="1"`} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page.body, "read all of your events") || strings.Contains(page.body, "checked") {
		t.Error("the page says more than the app asks for, or is ticked already")
	}
	csp := page.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, formsLead+" "+thirdParty+";") ||
		page.header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("headers: %v", page.header)
	}
	if a := l.connect(t, cookie, connectBoard); a.status != 303 || a.header.Get("Location") != l.url+boardReturn {
		t.Fatalf("connected: %d %v %s", a.status, a.header, a.body)
	}
	k, ok := l.kept(t, alice(), "calendar")
	c, agreed := k.Consent("board")
	if !ok || !agreed || c.Offline || !slices.Equal(c.Access, []string{"busy"}) || k.ConnectedBy != alice().ID() {
		t.Errorf("kept: %v %+v", ok, k)
	}
	// What is there suffices for the same app: no trip, and the consent is one of its own.
	location, _ := l.agree(t, cookie, connectBoard, "offline", "1")
	k, _ = l.kept(t, alice(), "calendar")
	if c, _ := k.Consent("board"); location != l.url+boardReturn || !c.Offline {
		t.Errorf("agreed again: %s %+v", location, c)
	}
	for days, want := range map[string]time.Duration{"": 30, "7": 7, "90": 90} {
		l.agree(t, cookie, connectBoard, "offline", "1", "days", days)
		k, _ = l.kept(t, alice(), "calendar")
		c, _ = k.Consent("board")
		if left := time.Until(c.Until); left > want*24*time.Hour || left < want*24*time.Hour-time.Hour {
			t.Errorf("for %q days it may be used for %v", days, left)
		}
	}
	before := c.Until
	for _, days := range []string{"91", "-1", "3650", "abc", " 7", "7.5", "99999999999999999999"} {
		form := url.Values{"form": {l.open(t, cookie, connectBoard)}, "answer": {"yes"}, "offline": {"1"}, "days": {days}}
		if a := l.ask(t, "POST", connectBoard, form.Encode(), l.fromPage("Cookie: "+cookie)...); a.status != 400 {
			t.Errorf("%s days: %d", days, a.status)
		}
	}
	k, _ = l.kept(t, alice(), "calendar")
	if c, _ = k.Consent("board"); !c.Until.Equal(before) {
		t.Errorf("what was refused changed %v to %v", before, c.Until)
	}
	if redeemed, _ := l.calendar.calls(); redeemed != 1 {
		t.Errorf("%d codes were redeemed", redeemed)
	}
	if strings.Contains(l.log.text(t), "canary-") {
		t.Error("a code or token is in the log")
	}
}

// Who opens the page, and how: nothing leaves before the POST, and what scripts fetch or
// frames show has no form.
func TestP12_TheConsentPageIsForPagesOfAWindow(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	for name, tt := range map[string]struct {
		headers []string
		status  int
		form    bool
	}{
		"typed":               {navigate(), 200, true},
		"a script goes there": {fetched("navigate", "document", "same-site"), 200, true},
		"an old browser":      {[]string{"Accept: text/html"}, 200, true},
		"fetch":               {fetched("cors", "empty", "same-origin"), 403, false},
		"fetch, as a page":    {fetched("same-origin", "empty", "same-origin"), 403, false},
		"a worker":            {fetched("navigate", "empty", "same-origin"), 403, false},
		"a frame":             {fetched("navigate", "iframe", "same-origin"), 403, false},
		"an embed":            {fetched("navigate", "embed", "same-origin"), 403, false},
		"prefetch":            {navigate("Sec-Purpose: prefetch"), 403, false},
		"an old prefetch":     {[]string{"Accept: text/html", "Purpose: prefetch"}, 403, false},
		"an old script":       {[]string{"Accept: text/html", "X-Requested-With: XMLHttpRequest"}, 403, false},
		"a program":           {[]string{"Accept: */*"}, 403, false},
		"twice":               {navigate("Sec-Fetch-Mode: navigate"), 403, false},
	} {
		a := l.get(t, connectBoard, append(tt.headers, "Cookie: "+cookie)...)
		if a.status != tt.status || strings.Contains(a.body, "<form") != tt.form || len(a.header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d, form %v, %v", name, a.status, strings.Contains(a.body, "<form"), a.header)
		}
	}
	if _, ok := l.kept(t, alice(), "calendar"); ok {
		t.Error("something was stored")
	}
}

// How the answer is sent: from our page alone, in the session that it was shown to.
func TestP12_ConsentIsSentFromOurPageAlone(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie, other := l.mint(t, alice()), l.mint(t, alice())
	// There is a grant already, so that one POST would be enough for a consent.
	if a := l.connect(t, cookie, prefix+"/connect/calendar?app=notes"); a.status != 303 {
		t.Fatal(a.status, a.body)
	}
	secret := l.open(t, cookie, connectBoard)
	yes := url.Values{"form": {secret}, "answer": {"yes"}}.Encode()
	without := func(name string, more ...string) []string {
		return append(slices.DeleteFunc(l.fromPage("Cookie: "+cookie), func(h string) bool {
			return strings.HasPrefix(h, name+":")
		}), more...)
	}
	wide := strings.Replace(connectBoard, "app=board&access=busy", "app=notes&access=events", 1)
	mine := l.fromPage("Cookie: " + cookie)
	no, silent := url.Values{"form": {secret}, "answer": {"no"}}, url.Values{"form": {secret}}
	inQuery := connectBoard + "&answer=yes&form=" + url.QueryEscape(secret)
	for name, tt := range map[string]struct {
		path, body string
		headers    []string
		status     int
	}{
		"no Origin":                {connectBoard, yes, without("Origin"), 403},
		"Origin null":              {connectBoard, yes, without("Origin", "Origin: null"), 403},
		"another origin":           {connectBoard, yes, without("Origin", "Origin: https://evil.example"), 403},
		"two origins":              {connectBoard, yes, append(l.fromPage("Cookie: "+cookie), "Origin: "+l.url), 403},
		"cross-site":               {connectBoard, yes, without("Sec-Fetch-Site", "Sec-Fetch-Site: cross-site"), 403},
		"same-site":                {connectBoard, yes, without("Sec-Fetch-Site", "Sec-Fetch-Site: same-site"), 403},
		"fetch":                    {connectBoard, yes, without("Sec-Fetch-Mode", "Sec-Fetch-Mode: cors"), 403},
		"fetch says document":      {connectBoard, yes, without("Sec-Fetch-Dest", "Sec-Fetch-Dest: empty"), 403},
		"a frame":                  {connectBoard, yes, without("Sec-Fetch-Dest", "Sec-Fetch-Dest: iframe"), 403},
		"no secret":                {connectBoard, "answer=yes", l.fromPage("Cookie: " + cookie), 409},
		"another session":          {connectBoard, yes, l.fromPage("Cookie: " + other), 409},
		"another question":         {wide, yes, l.fromPage("Cookie: " + cookie), 409},
		"another return":           {connectBoard + "x", yes, l.fromPage("Cookie: " + cookie), 409},
		"confirmed without a page": {connectBoard, yes + "&confirm=1", l.fromPage("Cookie: " + cookie), 409},
		"no session":               {connectBoard, yes, l.fromPage(), 401},
		"two answers":              {connectBoard, yes + "&answer=no", l.fromPage("Cookie: " + cookie), 400},
		"no answer":                {connectBoard, silent.Encode(), mine, 400},
		"in the query":             {inQuery, "", mine, 400},
		"no":                       {connectBoard, no.Encode(), mine, 303},
	} {
		a := l.ask(t, "POST", tt.path, tt.body, tt.headers...)
		if a.status != tt.status {
			t.Errorf("%s: %d, want %d: %s", name, a.status, tt.status, a.body)
		}
		if to := a.header.Get("Location"); to != "" && to != l.url+boardReturn {
			t.Errorf("%s: leads to %s", name, to)
		}
		if k, _ := l.kept(t, alice(), "calendar"); len(k.Consents) != 1 {
			t.Fatalf("%s: stored a consent", name)
		}
	}
	if a := l.ask(t, "POST", connectBoard, yes, l.fromPage("Cookie: "+cookie)...); a.status != 303 {
		t.Errorf("from our page: %d %s", a.status, a.body)
	}
	if k, _ := l.kept(t, alice(), "calendar"); len(k.Consents) != 2 {
		t.Error("from our page: not stored")
	}
}

// Who brings the code back: it is redeemed once, in the session that began, and no flow
// begins again by itself.
func TestP06_AConnectionIsCompletedOnlyByTheSessionThatBegan(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie, sameAlice, bobs := l.mint(t, alice()), l.mint(t, alice()), l.mint(t, bob())
	location, cookies := l.agree(t, cookie, connectBoard)
	state := stateIn(t, location)
	flow := strings.TrimPrefix(cookies, cookie+"; ")
	attack, attackCookies := l.agree(t, bobs, connectBoard) // bob's state, for alice to finish
	bobsFlow := strings.TrimPrefix(attackCookies, bobs)
	for name, tt := range map[string]struct{ cookies, path string }{
		"another browser":             {cookie, callbackOf(state)},
		"another browser's flow":      {cookie + bobsFlow, callbackOf(state)},
		"another session":             {sameAlice + "; " + flow, callbackOf(state)},
		"another person":              {bobs + "; " + flow, callbackOf(state)},
		"signed out":                  {flow, callbackOf(state)},
		"nobody's state":              {cookies, callbackOf("made-up")},
		"no state":                    {cookies, prefix + "/connect/calendar/callback?code=canary-code"},
		"an attacker's state":         {cookies, callbackOf(stateIn(t, attack))},
		"an attacker's with his flow": {cookie + bobsFlow, callbackOf(stateIn(t, attack))},
		"another connector's":         {cookies, strings.Replace(callbackOf(state), "calendar", "pager", 1)},
		"two codes":                   {cookies, callbackOf(state) + "&code=b"},
	} {
		a := l.back(t, tt.cookies, tt.path)
		if a.status < 400 || a.status > 499 || strings.Contains(a.body, thirdParty) || a.header.Get("Location") != "" ||
			strings.Contains(a.body, "<form") {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	if redeemed, _ := l.calendar.calls(); redeemed != 0 {
		t.Errorf("%d codes were redeemed", redeemed)
	}
	for _, who := range []identity.Identity{alice(), bob()} {
		if _, ok := l.kept(t, who, "calendar"); ok {
			t.Errorf("stored for %s", who.ID())
		}
	}
	for range 3 { // a reload, and the back button
		a := l.back(t, cookies, callbackOf(state))
		if a.status != 303 || a.header.Get("Location") != l.url+boardReturn {
			t.Errorf("in the session: %d %v %s", a.status, a.header, a.body)
		}
	}
	if redeemed, _ := l.calendar.calls(); redeemed != 1 {
		t.Errorf("%d codes were redeemed", redeemed)
	}
}

// A state of a connection is none of a sign-in, and the other way round.
func TestP06_StatesOfSignInsAndConnectionsAreNotInterchangeable(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t, func(o *setup) { o.SignIn = true })
	cookie := l.mint(t, alice())
	location, cookies := l.agree(t, cookie, connectBoard)
	a := l.back(t, strings.TrimPrefix(cookies, cookie+"; "), prefix+"/callback/main?code=c&state="+
		url.QueryEscape(stateIn(t, location)))
	if a.status != 400 || len(a.header["Set-Cookie"]) > 0 {
		t.Errorf("a connection's state at a sign-in: %d %v", a.status, a.header)
	}
	a = l.get(t, prefix+"/login?provider=main", navigate()...)
	u, err := url.Parse(a.header.Get("Location"))
	if testenv.Check(t, err); a.status != 302 || u.Query().Get("state") == "" {
		t.Fatalf("a sign-in: %d %v", a.status, a.header)
	}
	a = l.back(t, withFlow(cookie, a), callbackOf(u.Query().Get("state")))
	if redeemed, _ := l.calendar.calls(); a.status != 400 || redeemed != 0 || a.header.Get("Location") != "" {
		t.Errorf("a sign-in's state at a connection: %d, %d redeemed, %v", a.status, redeemed, a.header)
	}
}

func TestP06_ALateOrLyingThirdPartyConnectsNothing(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	l.calendar.issuer = thirdParty
	cookie := l.mint(t, alice())
	location, cookies := l.agree(t, cookie, connectBoard)
	a := l.back(t, cookies, callbackOf(stateIn(t, location))+"&iss=https%3A%2F%2Fevil.example") // RFC 9207
	if redeemed, _ := l.calendar.calls(); a.status != 400 || redeemed != 0 {
		t.Errorf("another issuer: %d, %d redeemed", a.status, redeemed)
	}
	location, cookies = l.agree(t, cookie, connectBoard)
	l.clock.Advance(11 * time.Minute)
	a = l.back(t, cookies, callbackOf(stateIn(t, location))+"&iss="+url.QueryEscape(thirdParty))
	if redeemed, _ := l.calendar.calls(); a.status != 400 || redeemed != 0 {
		t.Errorf("late: %d, %d redeemed", a.status, redeemed)
	}
}

// The code is redeemed within the request, also where the browser hangs up: some codes
// live for half a minute.
func TestP06_ACodeIsRedeemedThoughTheBrowserHangsUp(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	l.calendar.hold = make(chan struct{})
	location, cookies := l.agree(t, l.mint(t, alice()), connectBoard)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", l.url+callbackOf(stateIn(t, location)), nil)
	testenv.Check(t, err)
	req.Header.Set("Cookie", cookies)
	gone := make(chan error, 1)
	go func() {
		_, err := l.transport.RoundTrip(req)
		gone <- err
	}()
	<-l.calendar.began
	hangUp()
	if err := <-gone; err == nil {
		t.Fatal("the browser got an answer")
	}
	a := l.back(t, cookies, callbackOf(stateIn(t, location))) // the browser asks again meanwhile
	close(l.calendar.hold)
	if redeemed, _ := l.calendar.calls(); a.status != 303 || redeemed != 1 {
		t.Errorf("asked again: %d, %d redeemed", a.status, redeemed)
	}
	testenv.Eventually(t, "the grant is stored", func() bool { _, ok := l.kept(t, alice(), "calendar"); return ok })
}

func TestP12_WhatTheThirdPartyDoesInsteadIsSaidAndNotStored(t *testing.T) {
	t.Parallel()
	failed := func(class grant.Class) error {
		return &grant.Error{Class: class, Reason: "x", Err: errors.New("canary-words")}
	}
	for name, tt := range map[string]struct {
		change func(*calendar)
		query  string
		status int
		says   string
		logs   string
	}{
		"narrow": {func(c *calendar) { c.granted = []string{"openid"} }, "", 403, "scope.busy", ""},
		"declined": {nil, "error=access_denied&error_description=canary-words", 403, "cancelled or refused",
			"denied"},
		"both":        {nil, "code=canary-code&error=access_denied", 403, "cancelled or refused", "denied"},
		"empty":       {nil, "code=canary-code&error=", 502, "refused, or could not", "unknown_code"},
		"an error":    {nil, "error=server_error", 502, "refused, or could not", "busy"},
		"no word":     {nil, "error=canary", 502, "refused, or could not", "unknown_code"},
		"our scopes":  {nil, "error=invalid_scope", 502, "not set up right", "request_refused"},
		"yours":       {func(c *calendar) { c.err = failed(grant.Yours) }, "", 403, "Calendar does not accept", ""},
		"their admin": {func(c *calendar) { c.err = failed(grant.AdminTheir) }, "", 403, "administrator", ""},
		"ours":        {func(c *calendar) { c.err = failed(grant.Ours) }, "", 502, "not set up right", ""},
		"away":        {func(c *calendar) { c.err = failed(grant.Lost) }, "", 502, "did not answer", ""},
		"later":       {func(c *calendar) { c.err = failed(grant.Later) }, "", 502, "did not answer", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLendingSite(t)
			if tt.change != nil {
				tt.change(l.calendar)
			}
			location, cookies := l.agree(t, l.mint(t, alice()), connectBoard)
			path := callbackOf(stateIn(t, location))
			if tt.query != "" {
				path = strings.Replace(path, "code=canary-code", tt.query, 1)
			}
			a := l.back(t, cookies, path)
			if a.status != tt.status || !strings.Contains(a.body, tt.says) || strings.Contains(a.body, "canary") {
				t.Errorf("%d %s", a.status, a.body)
			}
			if _, ok := l.kept(t, alice(), "calendar"); ok {
				t.Error("it was stored")
			}
			if tt.query == "" {
				return
			}
			if redeemed, _ := l.calendar.calls(); redeemed != 0 {
				t.Error("a code was redeemed though there was an error")
			}
			log := l.log.text(t)
			if strings.Contains(log, "canary") || !strings.Contains(log, tt.logs) {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

// Where an administrator has to agree, the page has a link that the person can pass on, and
// so has the page of somebody who said no because they were told that.
func TestP12_ALinkForTheAdministratorIsThereWhereOneHelps(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		approves bool
		err      error
		query    string
		link     bool
	}{
		"an administrator has to agree": {true, &grant.Error{Class: grant.AdminTheir, Reason: "x"}, "", true},
		"the person said no":            {true, nil, "error=access_denied", true},
		"busy":                          {true, nil, "error=server_error", false},
		"not set up right":              {true, &grant.Error{Class: grant.Ours, Reason: "x"}, "", false},
		"nowhere to agree":              {false, &grant.Error{Class: grant.AdminTheir, Reason: "x"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLendingSite(t)
			l.calendar.approves, l.calendar.err = tt.approves, tt.err
			location, cookies := l.agree(t, l.mint(t, alice()), connectBoard)
			path := callbackOf(stateIn(t, location))
			if tt.query != "" {
				path = strings.Replace(path, "code=canary-code", tt.query, 1)
			}
			a := l.back(t, cookies, path)
			want := html.EscapeString(thirdParty + "/approve?" + url.Values{"account": {""}, "scope": {"scope.busy"},
				"redirect_uri": {l.url + prefix + "/connect/calendar/callback"}}.Encode())
			if a.status < 400 || strings.Contains(a.body, `href="`+want+`"`) != tt.link ||
				strings.Contains(a.body, "/approve?") != tt.link {
				t.Errorf("%d, %s in %s", a.status, want, a.body)
			}
		})
	}
}

// Who followed that link comes back to our callback, in any browser, and signed in or not. It
// begins nothing, ends nothing and redeems nothing, whatever else is in the address.
func TestP12_AnAdministratorWhoComesBackChangesNothing(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	location, cookies := l.agree(t, l.mint(t, alice()), connectBoard)
	state := stateIn(t, location)
	callback := prefix + "/connect/calendar/callback?"
	for query, want := range map[string]struct {
		status int
		says   string
	}{
		"admin_consent=True&tenant=canary&scope=canary":                                         {200, "can connect their accounts now"},
		"admin_consent=True&error=consent_required&error_description=canary":                    {403, "Nothing was agreed to"},
		"admin_consent=True&error=%3Cb%3Ecanary":                                                {403, "Nothing was agreed to"},
		"admin_consent=True&code=canary":                                                        {400, "Nothing was connected here"},
		"admin_consent=True&state=canary":                                                       {400, "Nothing was connected here"},
		"admin_consent=True&code=canary&" + url.Values{"state": {state + "x"}}.Encode():         {400, "Nothing was connected here"},
		"admin_consent=True&admin_consent=False&error=&tenant=" + strings.Repeat("canary", 100): {403, "Nothing was agreed to"},
	} {
		for _, cookie := range []string{"", cookies} {
			a := l.back(t, cookie, callback+query)
			if a.status != want.status || !strings.Contains(a.body, want.says) || strings.Contains(a.body, "canary") {
				t.Errorf("%s: %d %s", query, a.status, a.body)
			}
		}
	}
	if redeemed, ended := l.calendar.calls(); redeemed != 0 || ended != 0 {
		t.Errorf("redeemed %d, ended %d", redeemed, ended)
	}
	if _, ok := l.kept(t, alice(), "calendar"); ok {
		t.Error("something was stored")
	}
	if a := l.back(t, cookies, callbackOf(state)); a.status != 303 {
		t.Errorf("the person's own connection: %d %s", a.status, a.body)
	}
}

// Chromium applies form-action to all redirects that follow a form, so the page names where a
// third party may send browsers on at once.
func TestThePageLetsBrowsersGoOnFromTheThirdParty(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	l.calendar.about.Onward = []string{"https://accounts.elsewhere.example"}
	page := l.get(t, connectBoard, navigate("Cookie: "+l.mint(t, alice()))...)
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, formsLead+" "+thirdParty+
		" https://accounts.elsewhere.example;") {
		t.Errorf("%d %s", page.status, csp)
	}
}

// The app's page to which it leads may have the provider asked again first.
func TestAnAnswerOnThePageLeadsOnToTheProvider(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t, func(o *setup) { o.SignIn, o.Reauth = true, asked })
	b := l.browser(t)
	if page := l.signIn(t, b, "/", "jonas"); page.Status != 200 {
		t.Fatalf("the sign-in ends with %d\n%s", page.Status, page.Body)
	}
	l.due(t, b)
	page := b.Open(l.url + connectBoard)
	to := b.Submit(page, "answer", "no")
	silently(t, l.testSite, to)
	leadsOn(t, page, to)
}

// Another account than the one that is connected takes its place only once the person has
// said so.
func TestP12_AnotherAccountIsConfirmedFirst(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	again := prefix + "/connect/calendar"
	if a := l.connect(t, cookie, connectBoard); a.status != 303 {
		t.Fatal(a.status, a.body)
	}
	l.calendar.account = grant.Account{ID: "2", Name: "alice@home.example"}
	a := l.connect(t, cookie, again)
	if a.status != 409 || !strings.Contains(a.body, "alice@home.example") ||
		!strings.Contains(a.body, "alice@calendar.example") {
		t.Fatalf("not asked: %d %s", a.status, a.body)
	}
	if k, _ := l.kept(t, alice(), "calendar"); k.Account.ID != "1" {
		t.Errorf("it is %+v already", k.Account)
	}
	action := html.UnescapeString(formAction.FindStringSubmatch(a.body)[1])
	form := url.Values{"form": {html.UnescapeString(formField.FindStringSubmatch(a.body)[1])}, "answer": {"yes"},
		"confirm": {"1"}}
	a = l.ask(t, "POST", action, form.Encode(), l.fromPage("Cookie: "+cookie)...)
	if a = l.back(t, withFlow(cookie, a), callbackOf(stateIn(t, a.header.Get("Location")))); a.status != 303 {
		t.Fatalf("confirmed: %d %s", a.status, a.body)
	}
	if k, _ := l.kept(t, alice(), "calendar"); k.Account.ID != "2" || len(k.Consents) != 1 {
		t.Errorf("confirmed: %+v", k)
	}
}

// Where a connector needs a user name, the page asks for it beside the password, and both are
// the key. A name with a colon would be read as another one, with the rest of it before the
// password (RFC 7617 §2).
func TestP12_AUserNameIsAskedForBesideThePassword(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	l.pager.about.UserHint = "the user name of the account"
	cookie := l.mint(t, alice())
	path := prefix + "/connect/pager?app=board&return_to=%2F"
	page := l.get(t, path, navigate("Cookie: "+cookie)...).body
	for _, want := range []string{`<label for="user">User name at <bdi>Pager</bdi></label>`, `name="user" type="text"`,
		`It is the user name of the account.`, `<label for="key">Password of <bdi>Pager</bdi></label>`,
		`name="key" type="password"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s: %s", want, page)
		}
	}
	secret := l.open(t, cookie, path)
	post := func(user, key string) answer {
		return l.ask(t, "POST", path, url.Values{"form": {secret}, "answer": {"yes"}, "user": {user},
			"key": {key}}.Encode(), l.fromPage("Cookie: "+cookie)...)
	}
	for _, wrong := range [][2]string{{"", "canary-key"}, {"mira", "canary-wrong"}, {"mira:canary", "key"}, {"mira", ""},
		{":mira", "canary-key"}} {
		if a := post(wrong[0], wrong[1]); a.status == 303 || strings.Contains(a.body, "canary") {
			t.Errorf("%q: %d %s", wrong, a.status, a.body)
		}
	}
	if a := post("mira", "canary-key"); a.status != 303 || a.header.Get("Location") != l.url+"/" {
		t.Errorf("both: %d %s", a.status, a.body)
	}
	if _, ok := l.kept(t, alice(), "pager"); !ok || strings.Contains(l.log.text(t), "canary") {
		t.Error("not stored, or logged")
	}
}

func TestP12_AKeyIsPastedOnOurPage(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	path := prefix + "/connect/pager?app=board&return_to=%2F"
	page := l.get(t, path, navigate("Cookie: "+cookie)...)
	if !strings.Contains(page.body, `name="key" type="password"`) ||
		!strings.Contains(page.header.Get("Content-Security-Policy"), formsLead+";") {
		t.Fatalf("page: %v %s", page.header, page.body)
	}
	secret := l.open(t, cookie, path)
	post := func(key string) answer {
		return l.ask(t, "POST", path, url.Values{"form": {secret}, "answer": {"yes"}, "key": {key}}.Encode(),
			l.fromPage("Cookie: "+cookie)...)
	}
	if a := post("canary-wrong"); a.status != 403 || strings.Contains(a.body, "canary") ||
		!strings.Contains(a.body, `href="`+l.url+`/">Go back<`) || !strings.Contains(a.body, ">Try again<") {
		t.Errorf("a wrong key: %d %s", a.status, a.body)
	}
	if a := post("canary-key"); a.status != 303 || a.header.Get("Location") != l.url+"/" {
		t.Errorf("a key: %d %s", a.status, a.body)
	}
	if _, ok := l.kept(t, alice(), "pager"); !ok || strings.Contains(l.log.text(t), "canary") {
		t.Error("not stored, or logged")
	}
}

// What is to be done on the account page has a button that leads there.
func TestWhatBelongsOnTheAccountPageLeadsThere(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := "Cookie: " + l.mint(t, alice())
	for name, a := range map[string]answer{
		"what is not connected any more": l.ask(t, "POST", prefix+"/disconnect/pager", "", l.fromPage(cookie)...),
		"a form of another site": l.ask(t, "POST", prefix+"/disconnect/pager", "",
			append(navigate(cookie), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...),
		"a sign-out of another site": l.ask(t, "POST", prefix+"/logout", "",
			append(navigate(cookie), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...),
		"a choice of another site": l.ask(t, "POST", prefix+"/organization", "",
			append(navigate(cookie), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...),
	} {
		if a.status < 400 || !strings.Contains(a.body, `href="`+l.url+prefix+`/account">Your account<`) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// A browser is never sent elsewhere than to a host of this site (P5), and where it may be
// sent, byte for byte.
func TestP05_ConnectingLeadsBackToHostsOfRoutesOnly(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t, func(o *setup) {
		o.Public = "https://pub.example"
		o.Routes = []authz.Route{
			{Name: "app", Host: "pub.example", Path: "/", Access: authz.Access{Authenticated: true}},
			{Name: "wiki", Host: "wiki.pub.example", Path: "/", Access: authz.Access{Authenticated: true}},
			{Name: "any", Host: "*.apps.example", Path: "/", Access: authz.Access{Authenticated: true}},
		}
	})
	account := prefix + "/account#grants"
	for raw, want := range map[string]string{
		"":                                              account,
		"/a?b=%2F%20c":                                  "/a?b=%2F%20c",
		"/a#b":                                          "/a#b",
		"https://wiki.pub.example/x%2Fy?q=1#f":          "https://wiki.pub.example/x%2Fy?q=1#f",
		"https://wiki.pub.example":                      "https://wiki.pub.example",
		"https://pub.example/x":                         "https://pub.example/x",
		"https://a.apps.example/x":                      "https://a.apps.example/x",
		"https://apps.example/x":                        account,
		"https://*.apps.example/x":                      account,
		"https://wiki.pub.example./x":                   account,
		"http://wiki.pub.example/x":                     account,
		"https://evil.example/":                         account,
		"https://wiki.pub.example.evil/":                account,
		"https://wiki.pub.example@evil/":                account,
		"https://evil@wiki.pub.example/":                account,
		"https://wiki.pub.example:8443/":                account,
		"https://WIKI.pub.example/":                     account,
		`https://wiki.pub.example\@evil/`:               account,
		"//evil.example":                                account,
		`/\evil.example`:                                account,
		"/\t/evil.example":                              account,
		"https:evil.example":                            account,
		"javascript:alert(1)":                           account,
		prefix + "/logout":                              account,
		"https://wiki.pub.example" + prefix + "/logout": account,
		"https://wiki.pub.example?x":                    account,
	} {
		if got := l.proxy.site.lentReturn(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestP12_ALinkSurvivesTheSignInAndIsForOnePerson(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	a := l.get(t, connectBoard, navigate()...)
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != 302 || u.Query().Get("return_to") != connectBoard {
		t.Errorf("without a session: %d %v", a.status, a.header)
	}
	for _, tt := range []struct{ give, want string }{
		{connectBoard, connectBoard}, {l.url + connectBoard, connectBoard},
		{prefix + "/connect/calendar/callback?code=x", "/"}, {prefix + "/connect/../logout", "/"},
		{prefix + "/connect/%2e%2e/logout", "/"}, {prefix + "/connect/", "/"}, {prefix + "/connect/a%2Fcallback", "/"},
		{prefix + "/disconnect/calendar", "/"},
	} {
		if got := l.proxy.site.returnTo(tt.give); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.give, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		link   string
		status int
	}{
		"their own":              {connectBoard + "&for=" + l.sessions.SealPerson(alice().ID()), 200},
		"somebody else's":        {connectBoard + "&for=" + l.sessions.SealPerson(bob().ID()), 403},
		"made up":                {connectBoard + "&for=" + alice().ID(), 403},
		"another organization's": {connectBoard + "&for=" + l.sessions.SealOrg("main:birch"), 403},
		"empty":                  {connectBoard + "&for=", 403},
		"two":                    {connectBoard + "&for=a&for=b", 400},
		"unknown app":            {prefix + "/connect/calendar?app=evil", 404},
		"no connector":           {prefix + "/connect/evil?app=board", 404},
		"too much":               {prefix + "/connect/calendar?app=board&access=events", 403},
		"deeper":                 {prefix + "/connect/a/b/callback?app=board", 404},
	} {
		a := l.get(t, tt.link, navigate("Cookie: "+l.mint(t, alice()))...)
		if a.status != tt.status || strings.Contains(a.body, "<form") != (tt.status == 200) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// People see on their account page what they lend, and end it there for one app or for all.
func TestP12_PeopleSeeAndEndWhatTheyLend(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	account := func() string { return l.get(t, prefix+"/account", navigate("Cookie: "+cookie)...).body }
	if body := account(); !strings.Contains(body, `href="`+prefix+`/connect/calendar?app=board"`) {
		t.Errorf("nothing can be begun: %s", body)
	}
	// Without an app that asks, the page lists those that may.
	a := l.get(t, prefix+"/connect/calendar", navigate("Cookie: "+cookie)...)
	if a.status != 200 || !strings.Contains(a.body, "Busy Board") || !strings.Contains(a.body, "Notes") {
		t.Errorf("apps to choose from: %d %s", a.status, a.body)
	}
	l.connect(t, cookie, connectBoard)
	l.connect(t, cookie, prefix+"/connect/calendar?app=notes")
	body := account()
	for _, want := range []string{"alice@calendar.example", "It works.", "scope.busy", "scope.events", "by you",
		"Busy Board", "Notes", `name="app" value="board"`, "Not used so far",
		`action="` + prefix + `/disconnect/calendar"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the account page does not say %q", want)
		}
	}
	end := func(body string, headers ...string) answer {
		return l.ask(t, "POST", prefix+"/disconnect/calendar", body, headers...)
	}
	ours := l.fromPage("Cookie: " + cookie)
	for name, a := range map[string]answer{
		"another origin": end("", "Origin: https://evil.example", "Cookie: "+cookie),
		"no origin":      end("", "Cookie: "+cookie),
		"a script":       end("", "Origin: "+l.url, "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Cookie: "+cookie),
	} {
		if a.status != 403 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if a := end("app=board", ours...); a.status != 303 || a.header.Get("Location") != l.url+prefix+"/account#grants" {
		t.Errorf("for one app: %d %v", a.status, a.header)
	}
	k, ok := l.kept(t, alice(), "calendar")
	if _, revoked := l.calendar.calls(); !ok || len(k.Consents) != 1 || revoked != 0 {
		t.Errorf("for one app: %+v, %d revoked", k.Consents, revoked)
	}
	if a := end("", ours...); a.status != 200 || !strings.Contains(a.body, "It was ended at <bdi>Calendar</bdi> too.") {
		t.Errorf("for all: %d %s", a.status, a.body)
	}
	if _, ok := l.kept(t, alice(), "calendar"); ok {
		t.Error("it is there still")
	}
	if _, revoked := l.calendar.calls(); revoked != 1 {
		t.Errorf("%d revoked", revoked)
	}
	if a := end("", ours...); a.status != 404 {
		t.Errorf("twice: %d", a.status)
	}
}

// Where nothing is lent there is nothing to connect, and the account page does not say so.
func TestWithoutGrantsThereIsNothingToConnect(t *testing.T) {
	t.Parallel()
	s := newTestSite(t, setup{})
	cookie := s.mint(t, alice())
	for _, path := range []string{"/connect/calendar", "/connect/calendar/callback", "/disconnect/calendar"} {
		if a := s.get(t, prefix+path, navigate("Cookie: "+cookie)...); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if a := s.get(t, prefix+"/account", navigate("Cookie: "+cookie)...); strings.Contains(a.body, "grants") {
		t.Error("the account page tells of grants")
	}
}

// signInLender counts who signs in, and fails where err is set.
type signInLender struct {
	Lender
	err error

	mu   sync.Mutex
	seen []string
}

func (l *signInLender) SignedIn(_ context.Context, who identity.Identity) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, who.ID())
	return l.err
}

// A sign-in that began with a link to connect leads to our page, and the broker is told of
// it once; where that cannot be written people are signed in all the same.
func TestP12_TheBrokerIsToldOfSignIns(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{nil, errors.New("the store is away")} {
		lender := &signInLender{err: failure}
		l := newLendingSite(t, func(o *setup) {
			tuned := o.Tuned
			o.SignIn = true
			o.Tuned = func(o *Options) {
				tuned(o)
				lender.Lender, o.Lender = o.Lender, lender
			}
		})
		page := l.signIn(t, l.browser(t), connectBoard, "mira")
		if page.Status != 200 || page.URL.RequestURI() != connectBoard || !formField.MatchString(page.Body) {
			t.Errorf("%v: after the sign-in: %d %s", failure, page.Status, page.URL)
		}
		if len(lender.seen) != 1 {
			t.Errorf("%v: told of %q", failure, lender.seen)
		}
	}
}

// Replicas share what counts once: the second that sees a callback asks nobody.
func TestP06_ACallbackCountsOnceOnAllReplicas(t *testing.T) {
	t.Parallel()
	once, key := session.NewMemory(session.MemoryOptions{}), session.NewKey(time.Now().Add(-time.Hour))
	replica := func(o *setup) { o.Once, o.Key, o.Port = once, key, "1" }
	a, b := newLendingSite(t, replica), newLendingSite(t, replica)
	location, cookies := a.agree(t, a.mint(t, alice()), connectBoard)
	for _, l := range []*lendingSite{a, b, a} {
		if got := l.back(t, cookies, callbackOf(stateIn(t, location))); got.status != 303 {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	first, _ := a.calendar.calls()
	if second, _ := b.calendar.calls(); first != 1 || second != 0 {
		t.Errorf("redeemed %d times at one and %d at the other", first, second)
	}
}

// What was agreed to for one organization is not stored for another one, to which the
// person has switched meanwhile.
func TestP12_ASwitchOfTheOrganizationStopsAConnection(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	s := l.sessions.Start(alice())
	cookie := l.seal(t, s)
	location, cookies := l.agree(t, cookie, connectBoard)
	s.Identity.Org.ID = "main:birch"
	cookies = strings.Replace(cookies, cookie, l.seal(t, s), 1)
	a := l.back(t, cookies, callbackOf(stateIn(t, location)))
	if redeemed, _ := l.calendar.calls(); a.status != 400 || redeemed != 0 {
		t.Errorf("%d, %d redeemed", a.status, redeemed)
	}
}

// What is an organization's is connected, seen and ended by those who manage it there. Others
// read whose it is, by its name, and what they can do: nobody is sent to a choice or a button
// that they do not have.
func TestP12_WhoMayNotManageAnOrganizationsGrantReadsWhoCan(t *testing.T) {
	t.Parallel()
	manager := func(who identity.Identity) bool { return who.ID() == alice().ID() }
	l := newLendingSite(t, func(o *setup) {
		ring, err := grant.NewKeyring([]grant.SealingKey{{ID: "0123456789abcdef", Secret: [32]byte{1},
			Created: time.Now().Add(-time.Hour)}})
		testenv.Check(t, err)
		offer := func(id, name string, users func(identity.Identity) bool) grant.Offer {
			about := grant.About{ID: id, Name: name, Owner: grant.OwnedByOrg, Offline: true, Authorize: thirdParty,
				ClientID: "client", Refresh: thirdParty, Revoke: thirdParty,
				Inject:   grant.Injection{Header: "Authorization", Prefix: "Bearer "},
				Accesses: []grant.Access{{Name: "busy", Scopes: []string{"scope.busy"}, Means: "see when you are busy"}}}
			return grant.Offer{Connector: &calendar{about: about, account: grant.Account{ID: "1"},
				began: make(chan struct{}, 1)}, Owner: grant.OwnedByOrg, ManagedBy: manager,
				UsableBy: users, Offered: []string{"busy"}}
		}
		tuned := o.Tuned
		o.Tuned = func(o *Options) {
			tuned(o)
			broker, err := grant.New(grant.Options{Store: granttest.NewStore(nil), Keys: ring,
				Offers: []grant.Offer{offer("calendar", "Calendar", nil), offer("pager", "Pager", manager)},
				Apps: []grant.App{{ID: "board", Name: "Busy Board", Offline: true,
					Connectors: map[string][]string{"calendar": {"busy"}, "pager": {"busy"}}}},
				Redirect: func(id string) string { return o.PublicURL.String() + prefix + "/connect/" + id + "/callback" }})
			testenv.Check(t, err)
			t.Cleanup(broker.Close)
			o.Lender = broker
		}
	})

	member, homeless := alice(), bob()
	member.Subject, member.Name = "mia-1", "Mia"
	for name, tt := range map[string]struct {
		who    identity.Identity
		path   string
		status int
		says   []string
	}{
		"a member connects": {member, connectBoard, 403, []string{"Calendar is connected once for your whole",
			"Ask an administrator of your organization"}},
		"a member looks": {member, prefix + "/account", 200, []string{"Ask an administrator of your organization"}},
		"without any": {homeless, connectBoard, 403, []string{"Calendar is connected for an organization",
			"Sign in with the account"}},
		"a manager follows a member's link": {alice(), connectBoard + "&for=" + l.sessions.SealOrg(alice().Org.ID), 200,
			[]string{"Everybody’s at"}},
		"so does a member": {member, connectBoard + "&for=" + l.sessions.SealOrg(alice().Org.ID), 403,
			[]string{"Ask an administrator of your organization"}},
		"of another organization": {alice(), connectBoard + "&for=" + l.sessions.SealOrg("main:birch"), 403,
			[]string{"This link is not for you", "It was made for people of another organization.",
				prefix + "/account"}},
		"a manager connects": {alice(), connectBoard, 200, []string{"Everybody’s at", "Also while nobody is signed in"}},
		"for some": {alice(), prefix + "/connect/pager?app=board", 200,
			[]string{"those of its people whom this site lets use it", "for people who are signed in"}},
	} {
		a := l.get(t, tt.path, navigate("Cookie: "+l.mint(t, tt.who))...)
		for _, words := range append(tt.says, "Request id") {
			if a.status != tt.status || !strings.Contains(a.body, words) {
				t.Errorf("%s: %d without %q: %s", name, a.status, words, a.body)
			}
		}
		for _, words := range []string{"Choose your organization", "while you are signed in", "Connect it again"} {
			if strings.Contains(a.body, words) {
				t.Errorf("%s: reads %q", name, words)
			}
		}
	}
	if a := l.get(t, prefix+"/account", navigate("Cookie: "+l.mint(t, member))...); strings.Contains(a.body, "Pager") {
		t.Error("somebody sees what apps may not use for them")
	}
	l.connect(t, l.mint(t, alice()), connectBoard)
	for want, who := range map[string]identity.Identity{"by you": alice(),
		"by somebody else, whose user id is <code>" + alice().ID() + "</code>": member} {
		if a := l.get(t, prefix+"/account", navigate("Cookie: "+l.mint(t, who))...); !strings.Contains(a.body, want) {
			t.Errorf("%s does not read %q: %s", who.Name, want, a.body)
		}
	}
}

// Who has yet to choose an organization does that first, whether they open the page or send
// its form.
func TestP12_NobodyConnectsBeforeAnOrganizationIsPicked(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, foldedOrgs(t).Fold(ines()))
	want := l.url + l.proxy.site.choice(connectBoard)
	yes := url.Values{"form": {"x"}, "answer": {"yes"}}.Encode()
	forOrg := connectBoard + "&for=" + l.sessions.SealOrg("main:acme")
	if a := l.get(t, forOrg, navigate("Cookie: "+cookie)...); a.status != 303 ||
		a.header.Get("Location") != l.url+l.proxy.site.choice(forOrg) {
		t.Errorf("a link for an organization's people: %d to %q", a.status, a.header.Get("Location"))
	}
	for name, a := range map[string]answer{
		"the page": l.get(t, connectBoard, navigate("Cookie: "+cookie)...),
		"its form": l.ask(t, "POST", connectBoard, yes, l.fromPage("Cookie: "+cookie)...),
	} {
		if a.status != 303 || a.header.Get("Location") != want || a.body != "" {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
}

// Two tabs, and a button that is pressed twice: each trip counts once, the answer to an older
// one takes nothing from what a later one brought, and no app gets what another one was given.
func TestP06_TwoTabsTakeNothingFromEachOther(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	cookie := l.mint(t, alice())
	const connectNotes = prefix + "/connect/calendar?app=notes&access=busy,events"
	older, cookies := l.agree(t, cookie, connectBoard)
	again, cookies := l.agree(t, cookies, connectBoard) // the button, once more
	newer, cookies := l.agree(t, cookies, connectNotes)
	if a := l.back(t, cookies, callbackOf(stateIn(t, newer))); a.status != 303 {
		t.Fatalf("the newer tab: %d %s", a.status, a.body)
	}
	access := func() map[string][]string {
		k, _ := l.kept(t, alice(), "calendar")
		all := map[string][]string{}
		for _, c := range k.Consents {
			all[c.App] = c.Access
		}
		return all
	}
	notes := map[string][]string{"notes": {"busy", "events"}}
	if got := access(); !reflect.DeepEqual(got, notes) {
		t.Errorf("after the newer tab: %v", got)
	}
	l.calendar.granted = []string{"scope.busy"} // what the older tab had asked for
	a := l.back(t, cookies, callbackOf(stateIn(t, older)))
	k, _ := l.kept(t, alice(), "calendar")
	if got := access(); a.status != 403 || !reflect.DeepEqual(got, notes) || len(k.Scopes) != 2 {
		t.Errorf("the older tab would have narrowed the grant: %d %v %v", a.status, got, k.Scopes)
	}
	l.calendar.granted = nil
	if a := l.back(t, cookies, callbackOf(stateIn(t, again))); a.status != 303 {
		t.Errorf("pressed twice: %d %s", a.status, a.body)
	}
	want := map[string][]string{"notes": {"busy", "events"}, "board": {"busy"}}
	if got := access(); !reflect.DeepEqual(got, want) {
		t.Errorf("in the end: %v", got)
	}
	for _, location := range []string{older, again, newer} { // the back button
		l.back(t, cookies, callbackOf(stateIn(t, location)))
	}
	if redeemed, _ := l.calendar.calls(); redeemed != 3 || !reflect.DeepEqual(access(), want) {
		t.Errorf("redeemed %d times, %v", redeemed, access())
	}
}

func TestTheAccountPageProposesToEndWhatNobodyUses(t *testing.T) {
	t.Parallel()
	l := newLendingSite(t)
	for _, tt := range []struct {
		unused, manages bool
		status          grant.Status
		want            string
	}{
		{false, true, grant.Active, ""},
		{true, true, grant.Active, "No app has used it for 30 days. If it is not needed any more, disconnect it."},
		{true, true, grant.NeedsReconnect, "Connect it again."},
		{true, false, grant.Active, ""}, // a member of the organization cannot
		{true, false, grant.NeedsReconnect, "Ask an administrator of your organization to connect it."},
	} {
		list := grantsOf([]grant.View{{About: l.calendar.about, Kept: &grant.Kept{}, Status: tt.status, Unused: tt.unused,
			MayManage: tt.manages}}, alice(), l.proxy.site)
		if len(list) != 1 || list[0].Next != tt.want {
			t.Errorf("unused %t, manages %t and %s: %+v", tt.unused, tt.manages, tt.status, list)
		}
	}
}
