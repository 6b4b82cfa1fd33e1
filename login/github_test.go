package login

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func number(of string) string { return strconv.FormatInt(demo.GitHubID(of), 10) }

// githubWorld has a pretend GitHub Enterprise Server. Only Acme and Birch count there.
func githubWorld(t *testing.T) (*world, func(*Options)) {
	t.Helper()
	w := &world{t: t}
	w.op = testenv.StartProvider(t, demo.ProviderOptions{ClientID: clientID, ClientSecret: clientSecret,
		RedirectURIs: []string{callbackURL}, Now: epoch, Kind: demo.GitHub,
		People: append(demo.People(), demo.PartnerPeople()...)})
	base := githubBaseOf(w)
	w.use(base)
	return w, base
}

func githubBaseOf(w *world) func(*Options) {
	return func(o *Options) {
		o.Type, o.Scopes, o.Issuer, o.BaseURL = TypeGitHub, nil, "", w.op.URL
		o.AllowedOrgs = []string{number("acme"), number("birch")}
	}
}

// answers replaces what GitHub answers at one endpoint.
func answers(endpoint, body string) []testenv.Fault {
	return []testenv.Fault{{Endpoint: endpoint, Body: body}}
}

func membership(id, login, state string) string {
	return fmt.Sprintf(`{"state":%q,"organization":{"id":%s,"login":%q}}`, state, id, login)
}

func team(id, login, slug string) string {
	return fmt.Sprintf(`{"slug":%q,"organization":{"id":%s,"login":%q}}`, slug, id, login)
}

func TestP07_GitHub(t *testing.T) {
	w, base := githubWorld(t)
	acme, birch := number("acme"), number("birch")
	mira := identity.Identity{
		Provider: "corp", Subject: number("mira"), Name: "Mira Okafor", Username: "mira", Email: "mira@acme.example",
		EmailVerified: true,
		Org:           identity.Org{ID: "corp:" + acme, Name: "acme", Source: "claim"},
		OrgGroups: []identity.OrgGroup{{Org: "corp:" + acme, Group: "acme/engineering"},
			{Org: "corp:" + acme, Group: "acme/on-call"}},
	}
	anybody := func(o *Options) { o.AllowedOrgs = nil }
	both := func(o *Options) { base(o); anybody(o) }
	status := func(endpoint string, code int, header ...string) []testenv.Fault {
		f := testenv.Fault{Endpoint: endpoint, Status: code, Body: `{"message":"c4nary"}`, Header: map[string]string{}}
		for i := 0; i < len(header); i += 2 {
			f.Header[header[i]] = header[i+1]
		}
		return []testenv.Fault{f}
	}
	with := testenv.With
	user := func(name string, value any) []testenv.Fault {
		return []testenv.Fault{{Endpoint: testenv.User, JSON: with(name, value)}}
	}
	token := func(name string, value any) []testenv.Fault {
		return []testenv.Fault{{Endpoint: testenv.Token, JSON: with(name, value)}}
	}
	runFacts(t, w, base, []fact{
		{name: "the number is the person, the primary address counts, a team is bound to its organization", want: mira},
		{name: "without allowed_orgs no team counts, and GitHub is not asked for teams", edit: anybody,
			want: changed(mira, func(id *identity.Identity) { id.OrgGroups = nil })},
		{name: "nobody verified the address", who: "sam", refuse: identity.NotAdmitted,
			faults: answers(testenv.Memberships, `[]`), says: "allowed_orgs"},
		{name: "an address that nobody verified is none", who: "sam", edit: anybody,
			want: identity.Identity{Provider: "corp", Subject: number("sam"), Name: "Sam Carver", Username: "sam",
				Org: identity.Org{ID: "corp:" + acme, Name: "acme", Source: "claim"}},
			faults: answers(testenv.Memberships, "["+membership(acme, "acme", "active")+"]")},
		{name: "no organization", who: "zoe", edit: anybody, want: identity.Identity{Provider: "corp",
			Subject: number("zoe"), Name: "Zoë Martín", Username: "zoe", Email: "zoe@mail.example", EmailVerified: true}},
		{name: "no organization, and one must be there", who: "zoe", refuse: identity.NotAdmitted, says: "allowed_orgs"},
		{name: "several organizations: the person chooses", faults: answers(testenv.Memberships,
			"["+membership(acme, "acme", "active")+","+membership(birch, "birch", "active")+"]"),
			want: changed(mira, func(id *identity.Identity) {
				id.Orgs = []identity.Org{id.Org, {ID: "corp:" + birch, Name: "birch", Source: "claim"}}
				id.Org = identity.Org{}
			})},
		{name: "an invitation that nobody accepted is no membership", refuse: identity.NotAdmitted,
			faults: answers(testenv.Memberships, "["+membership(acme, "acme", "pending")+"]")},
		{name: "an organization that took the login of another is another", refuse: identity.NotAdmitted,
			faults: answers(testenv.Memberships, "["+membership("77", "acme", "active")+"]")},
		{name: "the organization has another login now: only the name changes",
			faults: append(answers(testenv.Memberships, "["+membership(acme, "rockets", "active")+"]"),
				answers(testenv.Teams, "["+team(acme, "rockets", "engineering")+"]")...),
			want: changed(mira, func(id *identity.Identity) {
				id.Org.Name = "rockets"
				id.OrgGroups = []identity.OrgGroup{{Org: "corp:" + acme, Group: "rockets/engineering"}}
			})},
		{name: "the person has another login now", faults: user("login", "mira-2"),
			want: changed(mira, func(id *identity.Identity) { id.Username = "mira-2" })},
		{name: "a team of an organization with the same login is not theirs",
			faults: answers(testenv.Teams, "["+team("77", "acme", "engineering")+"]"),
			want:   changed(mira, func(id *identity.Identity) { id.OrgGroups = nil })},
		{name: "a team of an organization where the person is no member",
			faults: answers(testenv.Teams, "["+team(birch, "birch", "admins")+"]"),
			want:   changed(mira, func(id *identity.Identity) { id.OrgGroups = nil })},
		{name: "a name that is null", faults: user("name", nil),
			want: changed(mira, func(id *identity.Identity) { id.Name = "" })},
		{name: "GET /user cannot bring memberships along", refuse: identity.NotAdmitted, faults: append(
			user(githubOrgs, []any{map[string]any{"state": "active", "organization": map[string]any{"id": 1}}}),
			answers(testenv.Memberships, `[]`)...)},

		{name: "an id that is a text", faults: user("id", number("mira")), refuse: identity.Rejected, says: "id is text"},
		{name: "an id with a fraction", faults: user("id", 1.5), refuse: identity.Rejected, says: "id"},
		{name: "an id that is 0", faults: user("id", 0), refuse: identity.Rejected, says: "id"},
		{name: "an id larger than 64 bits", faults: user("id", json.RawMessage("9223372036854775808")),
			refuse: identity.Rejected, says: "id"},
		{name: "the largest id that fits is itself", faults: user("id", json.RawMessage("9223372036854775807")),
			want: changed(mira, func(id *identity.Identity) { id.Subject = "9223372036854775807" })},
		{name: "an organization whose id is a text", refuse: identity.Rejected, says: "organization.id",
			faults: answers(testenv.Memberships, "["+membership(`"`+acme+`"`, "acme", "active")+"]")},
		{name: "an organization whose id is too large", refuse: identity.Rejected, says: "organization.id",
			faults: answers(testenv.Memberships, "["+membership("123456789012345678901", "acme", "active")+"]")},
		{name: "a membership without organization", refuse: identity.Rejected, says: "organization",
			faults: answers(testenv.Memberships, `[{"state":"active"}]`)},
		{name: "memberships that are an object", refuse: identity.Rejected, says: "list",
			faults: answers(testenv.Memberships, `{"message":"c4nary"}`)},
		{name: "memberships that are null", refuse: identity.Rejected, says: "list",
			faults: answers(testenv.Memberships, `null`)},
		{name: "two lists", refuse: identity.Rejected, says: "list", faults: answers(testenv.Memberships, `[],"x":[]`)},
		{name: "a member that comes twice", refuse: identity.Rejected, says: "entry",
			faults: answers(testenv.Memberships, `[{"state":"pending","state":"active","organization":{"id":1}}]`)},
		{name: "a team with a slash", refuse: identity.Rejected, says: "slug",
			faults: answers(testenv.Teams, "["+team(acme, "acme", "a/b")+"]")},
		{name: "an address that is a number", refuse: identity.Rejected, says: "email",
			faults: answers(testenv.UserEmails, `[{"email":7,"primary":true,"verified":true}]`)},
		{name: "HTML", refuse: identity.Rejected, says: "not one JSON",
			faults: []testenv.Fault{{Endpoint: testenv.User, Body: "<html>c4nary</html>", ContentType: "text/html"}}},
		{name: "a page that is too long", refuse: identity.Rejected, says: "longer than",
			faults: []testenv.Fault{{Endpoint: testenv.Teams, Pad: githubMaxPage + 1}}},
		{name: "a page that breaks off", refuse: identity.Rejected, says: "cut off",
			faults: []testenv.Fault{{Endpoint: testenv.Memberships, Truncate: true}}},
		{name: "a redirect of the API", refuse: identity.Misconfigured, says: "redirects are not followed",
			faults: []testenv.Fault{{Endpoint: testenv.Memberships, Redirect: "https://evil.example/"}}},
		{name: "GitHub is down", refuse: identity.Unavailable, faults: status(testenv.Teams, 502)},
		{name: "429", refuse: identity.Unavailable, says: "rate limit", faults: status(testenv.Memberships, 429)},
		{name: "403 with nothing remaining", refuse: identity.Unavailable, says: "rate limit",
			faults: status(testenv.Memberships, 403, "X-RateLimit-Remaining", "0")},
		{name: "403 with Retry-After", refuse: identity.Unavailable, says: "rate limit",
			faults: status(testenv.Memberships, 403, "Retry-After", "60")},
		{name: "403 of a secondary limit, in words", refuse: identity.Unavailable, says: "rate limit",
			faults: []testenv.Fault{{Endpoint: testenv.User, Status: 403,
				Body: `{"message":"You have exceeded a secondary rate limit."}`}}},
		{name: "403", refuse: identity.Misconfigured, says: "does not let", faults: status(testenv.Memberships, 403,
			"X-RateLimit-Remaining", "4999")},
		{name: "404", refuse: identity.Misconfigured, says: "base_url", faults: status(testenv.User, 404)},
		{name: "401", refuse: identity.Rejected, says: "issued", faults: status(testenv.User, 401)},

		{name: "the person did not grant read:org", refuse: identity.Declined, says: "read:org",
			faults: token("scope", "user:email")},
		{name: "the person did not grant user:email", refuse: identity.Declined, says: "user:email",
			faults: token("scope", "read:org")},
		{name: "wider scopes include them", faults: token("scope", "admin:org,user"), want: mira},
		{name: "a token of a GitHub App", refuse: identity.Misconfigured, says: "OAuth app",
			faults: token("scope", "")},
		{name: "an expiring token", faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: func(a map[string]any) {
			a["expires_in"], a["refresh_token"] = 28800, "ghr_1B4a2e77c4nary"
		}}}, want: mira},
		{name: "no token", refuse: identity.Rejected, says: "no access token", faults: token("access_token", nil)},
		{name: "another token_type", refuse: identity.Rejected, says: "token_type", faults: token("token_type", "mac")},
		{name: "200 with bad_verification_code", refuse: identity.Rejected, says: "the code is too old",
			faults: answers(testenv.Token, `{"error":"bad_verification_code"}`)},
		{name: "200 with incorrect_client_credentials", refuse: identity.Misconfigured, says: "client_secret",
			faults: answers(testenv.Token, `{"error":"incorrect_client_credentials"}`)},
		{name: "200 with redirect_uri_mismatch", refuse: identity.Misconfigured, says: "callback URL",
			faults: answers(testenv.Token, `{"error":"redirect_uri_mismatch"}`)},
		{name: "200 with unverified_user_email", refuse: identity.NotAdmitted, says: "verify their primary address",
			faults: answers(testenv.Token, `{"error":"unverified_user_email"}`)},
		{name: "200 with an error beside a token", refuse: identity.Rejected, faults: token("error", "c4nary")},
		{name: "max_age cannot be proved", edit: both, refuse: identity.Rejected, faults: token("access_token", nil)},
	})
	for _, r := range w.op.Requests(testenv.Teams) {
		if r.Header.Get("Authorization") == "" {
			t.Error("teams were read without the token")
		}
	}
}

// The authorization request has nothing of OpenID Connect, and the code is bound by PKCE.
func TestGitHubIsAskedByOAuthAlone(t *testing.T) {
	w, base := githubWorld(t)
	q := w.authQuery(identity.AuthParams{Prompt: "login", LoginHint: "mira", ACR: "x", MaxAge: time.Minute})
	if q.Get("scope") != "read:org user:email" || q.Get("code_challenge_method") != "S256" ||
		q.Get("prompt") != "select_account" || q.Get("login") != "mira" || q.Has("nonce") || q.Has("max_age") ||
		q.Has("acr_values") || q.Get("state") == "" {
		t.Errorf("%v", q)
	}
	if q := w.authQuery(identity.AuthParams{Prompt: "none", LoginHint: "a@b.example"}); q.Has("prompt") ||
		q.Has("login") {
		t.Errorf("%v", q)
	}
	id, err := w.signIn("mira", identity.AuthParams{})
	if err != nil || id.Subject != number("mira") {
		t.Fatalf("%+v, %v", id, err)
	}
	form := w.op.Requests(testenv.Token)[0]
	if form.Header.Get("Authorization") != "" || !strings.Contains(string(form.Body), "client_secret=") ||
		!strings.Contains(string(form.Body), "code_verifier=") {
		t.Errorf("the token request was %+v", form)
	}
	if _, err := w.signIn("mira", identity.AuthParams{MaxAge: time.Minute}); identity.FailureOf(err) !=
		identity.Rejected {
		t.Errorf("a recent sign-in was proved by GitHub, which never says when one was: %v", err)
	}
	w.use(base, func(o *Options) { o.ClientSecret = "wrong" })
	w.refuse(identity.Misconfigured)
}

// RFC 9207: GitHub names itself in callbacks, and the answer of another one is refused.
func TestP06_GitHubsIssuerIsCompared(t *testing.T) {
	w, base := githubWorld(t)
	for name, row := range map[string]struct {
		bend func(url.Values)
		ok   bool
	}{
		"as it is":          {func(url.Values) {}, true},
		"none, as of old":   {func(q url.Values) { q.Del("iss") }, true},
		"github.com's":      {func(q url.Values) { q.Set("iss", "https://github.com/login/oauth") }, false},
		"without the path":  {func(q url.Values) { q.Set("iss", w.op.URL) }, false},
		"an empty one":      {func(q url.Values) { q.Set("iss", "") }, false},
		"two of them":       {func(q url.Values) { q.Add("iss", q.Get("iss")) }, false},
		"another state":     {func(q url.Values) { q.Set("state", "x") }, false},
		"the person cancel": {func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }, false},
	} {
		w.use(base)
		h := handshake()
		q, err := w.authorize("mira", h, identity.AuthParams{})
		if err != nil {
			t.Fatal(err)
		}
		row.bend(q)
		asked := w.op.Hits(testenv.Token)
		if _, err := w.p.Redeem(t.Context(), q, h, identity.AuthParams{}); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.op.Hits(testenv.Token) - asked; !row.ok && got != 0 {
			t.Errorf("%s: the code was sent", name)
		}
	}
	p, err := New(Options{ID: "gh", Type: TypeGitHub, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL})
	if err != nil || !p.callbackIssuer("https://github.com/login/oauth") || p.callbackIssuer("https://github.com") {
		t.Errorf("%v", err)
	}
}

// P8: a token of an OAuth app does not expire, so it is revoked however the sign-in ends. If
// that fails, the person is signed in all the same, and the log says what is left.
func TestP08_GitHubsTokenIsRevokedHoweverASignInEnds(t *testing.T) {
	w, base := githubWorld(t)
	stays := "could not be revoked"
	for name, row := range map[string]struct {
		faults []testenv.Fault
		fails  bool
		warns  bool
	}{
		"a sign-in":               {},
		"nobody of allowed_orgs":  {faults: answers(testenv.Memberships, `[]`), fails: true},
		"scopes were dropped":     {faults: []testenv.Fault{{Endpoint: testenv.Token, JSON: testenv.With("scope", "read:org")}}, fails: true},
		"the API is down":         {faults: []testenv.Fault{{Endpoint: testenv.User, Status: 500}}, fails: true},
		"revoking is refused":     {faults: []testenv.Fault{{Endpoint: testenv.Revoke, Status: 401, Body: "c4nary"}}, warns: true},
		"revoking is redirected":  {faults: []testenv.Fault{{Endpoint: testenv.Revoke, Redirect: "https://evil.example/"}}, warns: true},
		"revoking says 200":       {faults: []testenv.Fault{{Endpoint: testenv.Revoke, Body: "<html>c4nary"}}, warns: true},
		"the connection is reset": {faults: []testenv.Fault{{Endpoint: testenv.Revoke, Lose: true}}, warns: true},
	} {
		w.use(base)
		w.op.Set(row.faults...)
		w.takeLog()
		before := w.op.Hits(testenv.Revoke)
		_, err := w.signIn("mira", identity.AuthParams{})
		log := w.takeLog()
		if (err != nil) != row.fails || strings.Contains(log, stays) != row.warns {
			t.Errorf("%s: %v\n%s", name, err, log)
		}
		if got := w.op.Hits(testenv.Revoke) - before; got != 1 {
			t.Errorf("%s: revoked %d times", name, got)
		}
		if strings.Contains(log, "c4nary") || strings.Contains(log, "gho_") {
			t.Errorf("%s: the log shows too much:\n%s", name, log)
		}
	}
	w.op.Set()
	w.use(base)
	issued := ""
	w.op.Set(testenv.Fault{Endpoint: testenv.Token, JSON: func(a map[string]any) { issued, _ = a["access_token"].(string) }})
	if _, err := w.signIn("mira", identity.AuthParams{}); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodGet, w.op.URL+demo.GitHubAPI+demo.GitHubUserPath, nil)
	req.Header.Set("Authorization", "Bearer "+issued)
	req.Header.Set("Accept", "application/vnd.github+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if issued == "" || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the token is still good after the sign-in: %s", resp.Status)
	}
}

// A GitHub that hangs ends the sign-in when its time is over, and each call is made once.
func TestAGitHubThatHangsEndsTheSignIn(t *testing.T) {
	w, base := githubWorld(t)
	client, err := oauth.NewClient(oauth.Options{Provider: "corp", Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{testenv.User, testenv.UserEmails, testenv.Memberships, testenv.Teams} {
		w.use(base, func(o *Options) { o.Client = client })
		w.op.Set(testenv.Fault{Endpoint: endpoint, Stall: true})
		before := w.op.Hits(endpoint)
		w.refuse(identity.Unavailable)
		if got := w.op.Hits(endpoint) - before; got != 1 {
			t.Errorf("%s was asked %d times", endpoint, got)
		}
	}
}

// pagedGitHub answers memberships in pages of 100, with the header Link that link makes.
func pagedGitHub(t *testing.T, total int, link func(base string, page int) string) (
	server *httptest.Server, asked *atomic.Int64,
) {
	t.Helper()
	asked = &atomic.Int64{}
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		page, err := strconv.Atoi(r.URL.Query().Get("page"))
		if err != nil || r.URL.Query().Get("per_page") != "100" || r.Header.Get("Authorization") != "Bearer gho_x" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var list []string
		for i := (page - 1) * 100; i < min(page*100, total); i++ {
			list = append(list, membership(strconv.Itoa(i+1), fmt.Sprintf("org-%d", i+1), "active"))
		}
		if l := link("http://"+r.Host, page); l != "" {
			w.Header().Set("Link", l)
		}
		fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// Pages are followed to the last one or not at all: a list that cannot be read whole denies.
func TestP07_GitHubsPagesAreReadWholeOrNotAtAll(t *testing.T) {
	const path = "/user/memberships/orgs"
	attacker := testenv.NewAttacker(t)
	next := func(format string) func(string, int) string {
		return func(base string, page int) string {
			return strings.NewReplacer("BASE", base+"/api/v3"+path, "NEXT", strconv.Itoa(page+1), "EVIL", attacker.URL).
				Replace(format)
		}
	}
	until := func(last int, f func(string, int) string) func(string, int) string {
		return func(base string, page int) string {
			if page >= last {
				return ""
			}
			return f(base, page)
		}
	}
	good := next(`<BASE?state=active&per_page=100&page=NEXT>; rel="next", <BASE?page=9>; rel="last"`)
	for _, row := range []struct {
		name  string
		total int
		link  func(string, int) string
		calls int64
		says  string // "" if all is read
	}{
		{"one page", 100, next(""), 1, ""},
		{"three pages", 250, until(3, good), 3, ""},
		{"the most that is read", 1000, until(10, good), 10, ""},
		{"5000 organizations", 5000, good, 10, "more than 1000"},
		{"a list without end", 1 << 30, good, 10, "more than 1000"},
		{"Link leads to another host", 200, next(`<EVIL/user/memberships/orgs?page=NEXT>; rel="next"`), 1, "next page"},
		{"Link leads to another list", 200, next(`<BASE/../teams?page=NEXT>; rel="next"`), 1, "next page"},
		{"Link leads back to the first page", 200, next(`<BASE?page=1>; rel="next"`), 1, "next page"},
		{"Link leads to the page after the next", 200, next(`<BASE?page=7>; rel="next"`), 1, "next page"},
		{"two pages in one address", 200, next(`<BASE?page=NEXT&page=1>; rel="next"`), 1, "next page"},
		{"credentials in the address", 200, next(`<http://a:b@EVIL>; rel="next"`), 1, "next page"},
		{"two next pages", 200, next(`<BASE?page=NEXT>; rel="next", <BASE?page=NEXT>; rel="next"`), 1, "next page"},
		{"no address", 200, next(`; rel="next"`), 1, "next page"},
		{"a bracket that is not closed", 200, next(`<BASE?page=NEXT; rel="next"`), 1, "next page"},
		{"next among other words, without quotes elsewhere", 150,
			until(2, next(`<BASE?page=NEXT>; title="a, b; c"; REL="x Next"`)), 2, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			server, asked := pagedGitHub(t, row.total, row.link)
			p, err := New(Options{ID: "gh", Type: TypeGitHub, BaseURL: server.URL, ClientID: "x", ClientSecret: "y",
				RedirectURL: callbackURL})
			if err != nil {
				t.Fatal(err)
			}
			list, err := githubCalls{p: p, base: githubAPI(server.URL), token: "gho_x"}.list(t.Context(), path,
				"state=active&")
			if row.says == "" && (err != nil || len(list) != row.total) {
				t.Errorf("%d entries, %v", len(list), err)
			}
			if row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says) || list != nil) {
				t.Errorf("%d entries, %v", len(list), err)
			}
			if got := asked.Load(); got != row.calls {
				t.Errorf("%d calls, want %d", got, row.calls)
			}
		})
	}
	if n := len(attacker.Requests()); n != 0 {
		t.Errorf("%d requests went where Link pointed", n)
	}
}

// Without allowed_orgs all organizations count, and more than fit are refused.
func TestGitHubsOrganizationsAreNotTruncated(t *testing.T) {
	w, base := githubWorld(t)
	w.use(base, func(o *Options) { o.AllowedOrgs = nil })
	var list []string
	for i := range maxOrgs + 1 {
		list = append(list, membership(strconv.Itoa(i+1), fmt.Sprintf("o%d", i+1), "active"))
	}
	w.op.Set(answers(testenv.Memberships, "["+strings.Join(list, ",")+"]")...)
	if err := w.refuse(identity.NotAdmitted); !strings.Contains(err.Error(), "allowed_orgs") {
		t.Error(err)
	}
	w.op.Set(answers(testenv.Memberships, "["+strings.Join(list[:maxOrgs], ",")+"]")...)
	if id, err := w.signIn("mira", identity.AuthParams{}); err != nil || len(id.Orgs) != maxOrgs {
		t.Errorf("%d organizations, %v", len(id.Orgs), err)
	}
}

// The API is where GitHub has it for each kind of address.
func TestGitHubsAPIBelongsToItsAddress(t *testing.T) {
	for base, want := range map[string]string{
		"https://github.com":             "https://api.github.com",
		"https://octocorp.ghe.com":       "https://api.octocorp.ghe.com",
		"https://github.example.com":     "https://github.example.com/api/v3",
		"https://ghe.com.evil.example":   "https://ghe.com.evil.example/api/v3",
		"https://evil-ghe.com":           "https://evil-ghe.com/api/v3",
		"https://github.com.evil.test":   "https://github.com.evil.test/api/v3",
		"https://github.example.com:444": "https://github.example.com:444/api/v3",
	} {
		if got := githubAPI(base); got != want {
			t.Errorf("%s: %s", base, got)
		}
	}
	for _, bad := range []string{"http://github.example.com", "https://github.example.com/x", "github.example.com",
		"https://a:b@github.example.com"} {
		if _, err := New(Options{ID: "gh", Type: TypeGitHub, BaseURL: bad, ClientID: "x", ClientSecret: "y",
			RedirectURL: callbackURL}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// GitHub is asked again only where the configuration says so, and then with its own pages.
func TestGitHubIsNotAskedAgainByItself(t *testing.T) {
	w, base := githubWorld(t)
	if w.p.ReauthAfter() != 0 {
		t.Error("there is no prompt=none at GitHub")
	}
	w.use(base, func(o *Options) { o.ReauthAfter = time.Hour })
	if w.p.ReauthAfter() != time.Hour || w.p.Answering(t.Context()) {
		t.Error("nobody knows yet whether it answers")
	}
	testenv.Eventually(t, "the sign of life", func() bool { return w.p.Answering(t.Context()) })
	w.use(base, func(o *Options) { o.ReauthAfter = time.Hour })
	w.op.Set(testenv.Fault{Endpoint: testenv.Authorize, Status: 503})
	w.p.probe(t.Context())
	if w.p.Answering(t.Context()) {
		t.Error("a server that fails is no sign of life")
	}
}

// explain reads GitHub's answers as a sign-in does.
func TestClaimsOfGitHubAreItsAnswers(t *testing.T) {
	p, err := New(Options{ID: "github", Type: TypeGitHub, ClientID: "a", ClientSecret: "b", RedirectURL: callbackURL,
		AllowedOrgs: []string{"11"}})
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.IdentityFromClaims(t.Context(), []byte(`{"id":583231,"login":"octocat","name":"Octo",
		"emails":[{"email":"o@acme.example","primary":true,"verified":true}],
		"memberships":[`+membership("11", "acme", "active")+`,`+membership("12", "other", "active")+`],
		"teams":[`+team("11", "acme", "eng")+`,`+team("12", "other", "eng")+`]}`))
	if err != nil || id.ID() != "github:583231" || id.VerifiedEmail() != "o@acme.example" || id.Org.ID != "github:11" ||
		len(id.OrgGroups) != 1 || id.OrgGroups[0] != (identity.OrgGroup{Org: "github:11", Group: "acme/eng"}) {
		t.Errorf("%+v, %v", id, err)
	}
	for _, bad := range []string{`{}`, `{"id":"7"}`, `{"id":1}`, `{"id":1,"memberships":{}}`,
		`{"id":1,"sub":"2","memberships":[]}`} {
		if id, err := p.IdentityFromClaims(t.Context(), []byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, id)
		}
	}
}

// What GitHub cannot do is refused with the name of the key.
func TestGitHubsConflictsNameTheirKeys(t *testing.T) {
	for key, edit := range map[string]func(*Options){
		"endpoints":         func(o *Options) { o.Endpoints.TokenURL = "https://github.com/token" },
		"claims":            func(o *Options) { o.Claims.Groups = "teams" },
		"scopes":            func(o *Options) { o.Scopes = []string{"repo"} },
		"identity_from":     func(o *Options) { o.IdentityFrom = FromUserinfo },
		"trusted_audiences": func(o *Options) { o.TrustedAudiences = []string{"x"} },
		"logout":            func(o *Options) { o.SignOut.ReturnParam = "x" },
		"client_auth":       func(o *Options) { o.ClientAuth = ClientAuthBasic },
		"quirks":            func(o *Options) { o.Quirks = []string{quirkNumericSub} },
		"public_keys":       func(o *Options) { o.PublicKeys = []string{"x"} },
		"use":               func(o *Options) { o.Use = UseTokens },
	} {
		o := Options{ID: "gh", Type: TypeGitHub, ClientID: "x", ClientSecret: "y", RedirectURL: callbackURL}
		edit(&o)
		found := false
		for _, c := range o.Conflicts() {
			found = found || c.Key == key
		}
		if !found {
			t.Errorf("%s: %v", key, o.Conflicts())
		}
	}
	for key, o := range map[string]Options{
		"base_url":     {Type: TypeGoogle, BaseURL: "https://github.example.com"},
		"allowed_orgs": {Type: TypeGoogle, AllowedOrgs: []string{"1"}},
	} {
		o.ID, o.ClientID, o.ClientSecret, o.RedirectURL = "x", "x", "y", callbackURL
		if c := o.Conflicts(); len(c) != 1 || c[0].Key != key {
			t.Errorf("%s: %v", key, c)
		}
	}
	for _, bad := range []string{"acme", "", "0", "007", "-1", "1.5", "99999999999999999999"} {
		if checkGitHubOrg(bad) == nil {
			t.Errorf("%q is the id of no organization", bad)
		}
	}
}

// FuzzNextLink: a header with an unambiguous next page gives it, and one that tells of a next
// page in another way is never taken for the last one.
func FuzzNextLink(f *testing.F) {
	for _, seed := range []string{`<https://a/?page=2>; rel="next"`, `<a>;rel=prev, <b>;rel=next`, `<a`, `"`, `<a>;rel="\"next`,
		`<a,b>; title="x\";, rel=next"; rel=next`, ``, `,;`, `<>;rel=next`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		target, more := nextLink([]string{value})
		if !more && target != "" || more && target != "" && !strings.Contains(value, "<"+target+">") {
			t.Errorf("%q: %q, %v", value, target, more)
		}
		if _, more := nextLink([]string{value, `<https://a/?page=2>; rel="next"`}); !more {
			t.Errorf("%q hides a next page", value)
		}
	})
}
