package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
)

const (
	wrongProvider = "The answer came from another provider than the one it was begun with."
	tooMany       = "<h1>Too many people are signing in</h1>"
)

// some are the offers with these ids, in this order.
func some(tb testing.TB, ids ...string) (out []offer) {
	for _, id := range ids {
		all := offers(tb)
		out = append(out, all[slices.IndexFunc(all, func(o offer) bool { return o.id == id })])
	}
	return out
}

// answerOf signs somebody in at a provider and returns what the browser would
// carry back: where to, and with what.
func (m *several) answerOf(t *testing.T, b *testenv.Browser, page testenv.Page, person string) (to string,
	q url.Values) {
	t.Helper()
	hops := b.MaxHops
	b.MaxHops = 0
	back := b.SignIn(page, person).Header.Get("Location")
	b.MaxHops = hops
	u, err := url.Parse(back)
	if err != nil || !strings.HasPrefix(back, m.url+prefix+"/callback/") {
		t.Fatalf("the provider leads to %q", back)
	}
	return u.Path, u.Query()
}

func (m *several) redeemed() (n int) {
	for _, op := range m.ops {
		n += op.Hits(testenv.Token)
	}
	return n
}

func TestTheChooserOffersEveryProviderAndIsSkippedWhereOneIsNamed(t *testing.T) {
	t.Parallel()
	all := offers(t)
	m := newSeveral(t, setup{}, all...)
	b := m.browser(t)
	page := b.Open(m.url + "/deep?x=1")
	buttons := ""
	for _, o := range all {
		buttons += `<li><a class="button plain" href="` + prefix + `/login?provider=` + o.id +
			`&amp;return_to=%2fdeep%3fx%3d1">Sign in with <bdi>` + o.name + "</bdi></a></li>\n"
	}
	if page.Status != 200 || !strings.Contains(page.Body, "\n"+buttons+"</ul>") {
		t.Errorf("%d, and the page is\n%s", page.Status, page.Body)
	}
	if n := len(m.app.Requests()); n != 0 {
		t.Errorf("%d requests reached the app", n)
	}
	callbacks := map[string]bool{}
	for _, o := range all {
		op := m.ops[o.id]
		there := m.browser(t).Open(m.url + prefix + "/login?return_to=%2Fdeep&provider=" + o.id)
		if len(there.Hops) != 2 || !strings.HasPrefix(there.URL.String(), op.URL+"/") {
			t.Fatalf("provider=%s leads to %s over %d hops", o.id, there.URL, len(there.Hops))
		}
		q := there.URL.Query()
		if q.Get("redirect_uri") != m.url+prefix+"/callback/"+o.id || q.Get("client_id") != "client-of-"+o.id {
			t.Errorf("%s is asked with %v", o.id, q)
		}
		callbacks[q.Get("redirect_uri")] = true
	}
	if len(callbacks) != len(all) {
		t.Errorf("%d callbacks for %d providers", len(callbacks), len(all))
	}
	if one := newSeveral(t, setup{}, all[0]); !strings.HasPrefix(one.browser(t).Open(one.url+"/deep").URL.String(),
		one.ops["corp"].URL+"/") {
		t.Error("where there is one provider, people are asked which")
	}
}

// RFC 9700 §4.4, RFC 9207: what one provider answers is not taken for another's.
// corp announces RFC 9207, slack does not know it.
func TestP06_AnAnswerOfOneProviderCountsAtNoOther(t *testing.T) {
	t.Parallel()
	m := newSeveral(t, setup{}, some(t, "corp", "slack")...)
	corp, slack := m.ops["corp"], m.ops["slack"]
	// at is where b has come to at a provider, asked from a deep link.
	at := func(b *testenv.Browser, provider string) testenv.Page {
		return b.Choose(b.Open(m.url+"/deep"), "provider", provider)
	}
	for name, tt := range map[string]struct {
		callback func(b *testenv.Browser) string
		status   int
		words    string
		tokens   int // token requests
	}{
		"code and state of one at the other's callback": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			return m.callback("slack", q)
		}, 400, wrongProvider, 0},
		"and the other way round": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "slack"), "mira")
			return m.callback("corp", q)
		}, 400, wrongProvider, 0},
		"the other's answer with this one's state": {func(b *testenv.Browser) string {
			_, other := m.answerOf(t, m.browser(t), at(m.browser(t), "slack"), "sam")
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			q.Set("code", other.Get("code"))
			q.Del("iss") // slack's answers have none
			return m.callback("corp", q)
		}, 502, notTrusted, 0},
		"no iss from one that announces it": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			q.Del("iss")
			return m.callback("corp", q)
		}, 502, notTrusted, 0},
		"an empty iss": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			q.Set("iss", "")
			return m.callback("corp", q)
		}, 502, notTrusted, 0},
		"the other's iss": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			q.Set("iss", slack.URL)
			return m.callback("corp", q)
		}, 502, notTrusted, 0},
		"two of them": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "corp"), "mira")
			q.Add("iss", corp.URL)
			return m.callback("corp", q)
		}, 502, notTrusted, 0},
		"the other's iss where none is announced": {func(b *testenv.Browser) string {
			_, q := m.answerOf(t, b, at(b, "slack"), "mira")
			q.Set("iss", corp.URL)
			return m.callback("slack", q)
		}, 502, notTrusted, 0},
		// Without RFC 9207 only the callback's address tells providers apart. Who
		// bends that by hand has us show the code to the wrong one, which refuses it.
		"the other's code where none is announced": {func(b *testenv.Browser) string {
			_, other := m.answerOf(t, m.browser(t), at(m.browser(t), "corp"), "sam")
			_, q := m.answerOf(t, b, at(b, "slack"), "mira")
			q.Set("code", other.Get("code"))
			return m.callback("slack", q)
		}, 502, notTrusted, 1},
		// The attack itself: a provider sends the browser on to another one, with
		// that one's client and callback and its own state.
		"one that sends people on to the other": {func(b *testenv.Browser) string {
			asked, known := at(b, "slack").URL.Query(), at(m.browser(t), "corp").URL.Query()
			known.Set("state", asked.Get("state"))
			to, q := m.answerOf(t, b, b.Open(corp.URL+demo.AuthorizePath+"?"+known.Encode()), "mira")
			if to != prefix+"/callback/corp" {
				t.Errorf("corp answers at %s", to)
			}
			return m.callback("corp", q)
		}, 400, wrongProvider, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b, before := m.browser(t), m.redeemed()
			page := b.Open(tt.callback(b))
			if page.Status != tt.status || !strings.Contains(page.Body, tt.words) || page.Header["Set-Cookie"] != nil ||
				m.sessionOf(b) != nil {
				t.Errorf("%d, signed in: %v\n%s", page.Status, m.sessionOf(b) != nil, page.Body)
			}
			if got := m.redeemed() - before; got != tt.tokens {
				t.Errorf("%d codes were shown to a provider, want %d", got, tt.tokens)
			}
		})
	}

	// No provider sends an answer of its own to another's callback.
	b := m.browser(t)
	q := at(b, "corp").URL.Query()
	q.Set("redirect_uri", m.url+prefix+"/callback/slack")
	if page := b.Open(corp.URL + demo.AuthorizePath + "?" + q.Encode()); page.Status != 400 ||
		!strings.HasPrefix(page.URL.String(), corp.URL) {
		t.Errorf("asked for the other's callback: %d at %s", page.Status, page.URL)
	}
}

// One provider hangs, for as long as it likes, with more people waiting for it
// than may wait: the other one's people sign in as if nothing were.
func TestP17_AProviderThatHangsDoesNotKeepAnotherFromSigningIn(t *testing.T) {
	t.Parallel()
	const flows, waiting = 8, 12
	m := newSeveral(t, setup{Flows: flows, Call: time.Minute}, some(t, "corp", "google")...)
	m.proxy.signIns.flowTime = time.Minute // corp hangs for as long as a busy machine needs for what follows
	corp, hung := m.ops["corp"], make(chan struct{})
	release := sync.OnceFunc(func() { close(hung) })
	defer release()
	corp.Set(testenv.Fault{Endpoint: testenv.Token, Before: func(*demo.Provider) { <-hung }})
	var callbacks [waiting]string
	var browsers [waiting]*testenv.Browser
	for i := range callbacks {
		browsers[i] = m.browser(t)
		_, q := m.answerOf(t, browsers[i], browsers[i].Choose(browsers[i].Open(m.url+"/deep"), "provider", "corp"),
			"mira")
		callbacks[i] = m.callback("corp", q)
	}
	var crowd sync.WaitGroup
	var turnedAway, through atomic.Int32
	for i := range callbacks {
		crowd.Go(func() {
			switch page := browsers[i].Open(callbacks[i]); {
			case page.URL.Path == "/deep" && m.sessionOf(browsers[i]) != nil:
				through.Add(1)
			case page.Status == 503 && page.Header.Get("Retry-After") == "5" && strings.Contains(page.Body, tooMany) &&
				strings.Contains(page.Body, "Signing in with Corp Login is busy at the moment.") &&
				strings.Contains(page.Body, `href="`+m.url+`/.sallyport/login?return_to=%2Fdeep"`):
				turnedAway.Add(1)
			default:
				t.Errorf("ended at %s with %d, Retry-After %q\n%s", page.URL.Path, page.Status,
					page.Header.Get("Retry-After"), page.Body)
			}
		})
	}
	testenv.Eventually(t, "those without a slot are turned away", func() bool {
		return int(turnedAway.Load()) >= waiting-flows && corp.Hits(testenv.Token) > 0
	})
	for _, person := range []string{"jonas", "tomoko", "zoe"} {
		b := m.browser(t)
		page := m.signInWith(t, b, "google", "/deep", person)
		if page.Status != 200 || page.URL.Path != "/deep" || m.sessionOf(b) == nil {
			t.Errorf("while corp hangs, %s ends at %s with %d\n%s", person, page.URL, page.Status, page.Body)
		}
	}
	if through.Load() != 0 {
		t.Error("corp was not hanging")
	}
	release()
	crowd.Wait()
	if got := through.Load(); got != flows/2 || turnedAway.Load() != waiting-flows/2 {
		t.Errorf("%d of corp's people got through, and %d were turned away; its share of %d is %d", got,
			turnedAway.Load(), flows, flows/2)
	}
}

// One provider does not answer at all, for as long as the test lasts: the other
// one's people do not wait for it. Once it answers, its own people go on.
func TestP17_AProviderWhoseDiscoveryHangsDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	m := newSeveral(t, setup{Call: time.Minute}, some(t, "corp", "google")...)
	m.proxy.signIns.flowTime = time.Minute // likewise
	hung := make(chan struct{})
	release := sync.OnceFunc(func() { close(hung) })
	defer release()
	m.ops["corp"].Set(testenv.Fault{Endpoint: testenv.Discovery, Before: func(*demo.Provider) { <-hung }})
	corps, answered := m.browser(t), make(chan testenv.Page, 1)
	go func() { answered <- corps.Open(m.url + prefix + "/login?provider=corp") }()
	testenv.Eventually(t, "corp to be asked", func() bool { return m.ops["corp"].Hits(testenv.Discovery) > 0 })
	b := m.browser(t)
	if page := m.signInWith(t, b, "google", "/deep", "mira"); page.Status != 200 ||
		m.sessionOf(b).Identity.Provider != "google" {
		t.Errorf("%d\n%s", page.Status, page.Body)
	}
	select {
	case page := <-answered:
		t.Errorf("corp was not hanging: %d", page.Status)
	default:
	}
	release()
	if page := <-answered; page.Status != 200 || !strings.HasPrefix(page.URL.String(), m.ops["corp"].URL) {
		t.Errorf("corp answers, and its person is at %s with %d", page.URL, page.Status)
	}
}

// Down in every other way: who chose it is told so, and the other one works.
func TestAProviderThatIsDownDoesNotAffectTheOthers(t *testing.T) {
	t.Parallel()
	m := newSeveral(t, setup{}, some(t, "corp", "google")...)
	for name, fault := range map[string]testenv.Fault{
		"discovery breaks off": {Endpoint: testenv.Discovery, Truncate: true},
		"discovery fails":      {Endpoint: testenv.Discovery, Status: 500},
		"it is somebody else":  {Endpoint: testenv.Discovery, JSON: testenv.With("issuer", "https://evil.example")},
	} {
		t.Run(name, func(t *testing.T) {
			m.ops["corp"].Set(fault)
			page := m.browser(t).Open(m.url + prefix + "/login?provider=corp")
			if page.Status != 503 && page.Status != 502 {
				t.Fatalf("corp is not down: %d", page.Status)
			}
			b := m.browser(t)
			page = m.signInWith(t, b, "google", "/deep", "mira")
			if page.Status != 200 || m.sessionOf(b).Identity.Provider != "google" {
				t.Errorf("%d\n%s", page.Status, page.Body)
			}
			m.clock.Advance(10 * time.Minute) // past every wait
		})
	}
	m.ops["corp"].Set()
	b := m.browser(t)
	if m.signInWith(t, b, "corp", "/deep", "mira"); m.sessionOf(b) == nil {
		t.Error("mended, it signs nobody in")
	}
}

// An address is no key. The organization of the configuration comes from a
// verified address only where no provider asserts one.
func TestP01_TheSameAddressFromTwoProvidersIsTwoPeople(t *testing.T) {
	t.Parallel()
	orgs, err := identity.NewOrganizations([]identity.Organization{{ID: "acme", Name: "Acme", Domain: "acme.example",
		OrgIDs: []string{"corp:acme", "google:acme.example"}, EmailDomains: []string{"acme.example"}}})
	testenv.Check(t, err)
	m := newSeveral(t, setup{Orgs: orgs}, some(t, "corp", "google", "slack", "partner", "pd")...)
	acme := func(v view) view { v.orgID, v.orgName, v.orgDomain = "acme", "Acme", "acme.example"; return v }
	ids, cookies := map[string]bool{}, map[string]bool{}
	for _, row := range []struct {
		fact, provider, person string
		want                   view
	}{
		{"its own organization, folded", "corp", "mira", acme(view{user: "corp:mira", email: "mira@acme.example",
			name: "Mira Okafor", username: "mira", groups: []string{"engineering", "on-call"}})},
		{"likewise", "google", "mira", acme(view{user: "google:104339406236076858110", email: "mira@acme.example",
			name: "Mira Okafor"})},
		{"one that it asserts goes before the address", "slack", "mira",
			view{user: "slack:TQIVTHLMHYF/UHQ4KV6YFPH", email: "mira@acme.example", name: "Mira Okafor",
				orgID: "slack:TQIVTHLMHYF", orgName: "Acme Rockets", orgDomain: "acme-demo.slack.com"}},
		{"none that it asserts: the verified address", "partner", "mira",
			acme(view{user: "partner:mira", email: "mira@acme.example", name: "Mira Okafor"})},
		{"no address at all", "pd", "mira", view{user: "pd:PM6C63M/PHQ4KV6", orgID: "pd:PM6C63M", orgName: "acme-demo",
			orgDomain: "acme-demo.pagerduty.com"}},
		{"the address of an acme that nobody verified", "corp", "sam",
			view{user: "corp:sam", name: "Sam Carver", username: "sam"}},
		{"nor here", "google", "sam", view{user: "google:116820384788845111932", name: "Sam Carver"}},
	} {
		t.Run(row.provider+" "+row.person+", "+row.fact, func(t *testing.T) {
			b := m.browser(t)
			m.signInWith(t, b, row.provider, "/deep", row.person)
			m.checkTold(t, row.want)
			s := m.sessionOf(b)
			if cookie := m.cookieOf(t, b); ids[s.ID] || cookies[cookie] {
				t.Error("two people have one session")
			} else {
				ids[s.ID], cookies[cookie] = true, true
			}
		})
	}

	// One browser: who signs in with another provider is another person, in a
	// session of their own, and the first one's is over.
	b := m.browser(t)
	m.signInWith(t, b, "corp", "/deep", "mira")
	first := m.cookieOf(t, b)
	account := b.Open(m.url + prefix + "/account")
	b.SignIn(b.Choose(b.Click(account, prefix+"/login?switch="+switchValue(m.sessionOf(b))+"&return_to=%2Fdeep"),
		"provider", "google"), "mira")
	if got := m.sessionOf(b); got == nil || got.Identity.ID() != "google:104339406236076858110" {
		t.Errorf("switched to %+v", got)
	}
	if a := m.get(t, "/deep", first); a.status != 401 {
		t.Errorf("the session with the first provider still gets %d", a.status)
	}
}

// member is one of a crowd, of an organization of seven.
func member(i int) demo.Person {
	n := i % 7
	return demo.Person{Key: fmt.Sprintf("person-%d", i), Name: fmt.Sprintf("Person %d", i),
		Username: fmt.Sprintf("p%d", i),
		Email:    fmt.Sprintf("p%d@org%d.example", i, n), EmailVerified: true,
		OrgID: fmt.Sprintf("org%d", n), OrgName: fmt.Sprintf("Org %d", n), OrgDomain: fmt.Sprintf("org%d.example", n)}
}

// moody makes a provider slow at random, and some of its answers wrong: no ID
// token, or the one that somebody else just got.
func moody(seed uint64) []testenv.Fault {
	rng, mu, last := rand.New(rand.NewPCG(81, seed)), sync.Mutex{}, any("")
	dice := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	var faults []testenv.Fault
	for _, endpoint := range []string{testenv.Discovery, testenv.Token, testenv.JWKS, testenv.Userinfo,
		testenv.Organization} {
		faults = append(faults, testenv.Fault{Endpoint: endpoint, Before: func(*demo.Provider) {
			time.Sleep(time.Duration(dice(5000)) * time.Microsecond) // only to mix the order; nothing depends on it
		}})
	}
	return append(faults, testenv.Fault{Endpoint: testenv.Token, JSON: func(answer map[string]any) {
		mu.Lock()
		defer mu.Unlock()
		switch own := answer["id_token"]; rng.IntN(10) {
		case 0:
			delete(answer, "id_token")
		case 1:
			answer["id_token"], last = last, own
		default:
			last = own
		}
	}})
}

// CVE-2026-33544, with several providers that are slow and wrong at random: fifty
// people sign in two hundred times at once, each ends as themselves or on a page
// that says what went wrong, and nobody as somebody else.
func TestP06_ConcurrentSignInsAtSeveralProvidersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	var people []demo.Person
	var domains []string
	for i := range 50 {
		people = append(people, member(i))
		domains = append(domains, member(i%7).OrgDomain)
	}
	ids := []string{"corp", "google", "ms", "slack"}
	all := some(t, ids...)
	all[0].edit = func(o *login.Options, _ *testenv.Faults) {
		o.Scopes, o.EmailDomains = []string{"openid", "profile", "email", "groups", "org"}, domains[:7]
	}
	m := newSeveral(t, setup{People: people, Call: time.Minute}, all...)
	m.proxy.signIns.flowTime = time.Minute  // a busy machine is no provider that hangs
	m.app.Respond(func(raw []byte) []byte { // tells who was announced
		h := headerOf(raw)
		return reply("", strings.Join(slices.Concat(h["x-forwarded-user"], h["x-forwarded-email"],
			h["x-forwarded-name"], h["x-forwarded-org-name"]), "|"))(raw)
	})
	for i, id := range ids {
		m.ops[id].Set(moody(uint64(i))...)
	}
	c := &census{m: m, users: map[string]string{}, people: map[string]string{}}
	var crowd sync.WaitGroup
	start := make(chan struct{})
	for i := range 200 {
		crowd.Go(func() {
			<-start
			c.attend(t, ids[i/50], ids[(i/50+1)%4], people[i%50], i)
		})
	}
	close(start)
	crowd.Wait()
	t.Logf("%d signed in, %d failed clearly", c.in.Load(), c.out.Load())
	if in, out := c.in.Load(), c.out.Load(); in+out != 200 || in < 100 || out < 10 || len(c.people) < 100 {
		t.Errorf("%d signed in as %d people, and %d failed", in, len(c.people), out)
	}
}

// census is who was who, in all sign-ins of a crowd.
type census struct {
	m       *several
	in, out atomic.Int32

	mu     sync.Mutex        // guards users and people
	users  map[string]string // user id by provider and person
	people map[string]string // and back
}

// attend signs one person in with a provider, while another tab of theirs is at
// another provider.
func (c *census) attend(t *testing.T, provider, other string, who demo.Person, i int) {
	b, deep := c.m.browser(t), fmt.Sprintf("/deep/%d?x=%d", i, i)
	abandoned := b.Open(c.m.url + prefix + "/login?provider=" + other)
	page := c.m.signInWith(t, b, provider, deep, who.Key)
	if page.URL.RequestURI() != deep {
		c.out.Add(1)
		if page.Status != 502 || !strings.Contains(page.Body, "<h1>"+notTrusted+"</h1>") || c.m.sessionOf(b) != nil {
			t.Errorf("%s at %s ended at %s with %d\n%s", who.Key, provider, page.URL, page.Status, page.Body)
		}
		return
	}
	c.in.Add(1)
	org := who.OrgName
	if provider == "google" { // which tells no name
		org = who.OrgDomain
	}
	user, rest, _ := strings.Cut(page.Body, "|")
	if want := who.Email + "|" + who.Name + "|" + org; rest != want || !strings.HasPrefix(user, provider+":") {
		t.Errorf("%s of %s became %s, want %s", who.Key, provider, page.Body, want)
	}
	c.enter(t, provider+" "+who.Key, user)
	late := b.SignIn(abandoned, member((i+1)%50).Key) // somebody else, in the other tab: too late
	for range 3 {
		if again := b.Open(c.m.url + "/again"); again.Body != page.Body || late.Body != page.Body {
			t.Errorf("%s became %s, and %s in the other tab", page.Body, again.Body, late.Body)
		}
	}
}

// enter: one id for one person at one provider, and one person for an id.
func (c *census) enter(t *testing.T, person, user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, known := c.users[person]; known && was != user || c.people[user] != "" && c.people[user] != person {
		t.Errorf("%s is %s, was %s; that one is %s", person, user, was, c.people[user])
	}
	c.users[person], c.people[user] = user, person
}
