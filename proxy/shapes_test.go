package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// offer is one of several providers: a shape of the demo's, and what an operator
// configures for one of that kind.
type offer struct {
	id, name, shape string
	edit            func(*login.Options, *testenv.Faults)
}

// githubNumber is the number of a person or an organization at the pretend GitHub.
func githubNumber(of string) string { return strconv.FormatInt(demo.GitHubID(of), 10) }

// offers are one of each shape.
func offers(tb testing.TB) []offer {
	return []offer{
		{"corp", "Corp Login", demo.Standard, func(o *login.Options, _ *testenv.Faults) {
			o.Scopes, o.EmailDomains = []string{"openid", "profile", "email", "groups", "org"},
				[]string{"acme.example", "birch.example"}
		}},
		{"google", "Google", demo.Google, func(o *login.Options, _ *testenv.Faults) { o.Type = login.TypeGoogle }},
		{"ms", "Microsoft", demo.Microsoft, func(o *login.Options, op *testenv.Faults) {
			o.Type, o.Tenant, o.Endpoints.GraphURL = login.TypeMicrosoft, login.TenantCommon, op.URL
		}},
		{"pd", "PagerDuty", demo.PagerDuty, func(o *login.Options, op *testenv.Faults) {
			o.Type = login.TypePagerDuty
			o.Endpoints = login.Endpoints{AuthorizationURL: op.URL + demo.AuthorizePath,
				TokenURL: op.URL + demo.TokenPath, JWKSURL: op.URL + demo.JWKSPath}
		}},
		{"slack", "Slack", demo.Slack, func(o *login.Options, _ *testenv.Faults) { o.Type = login.TypeSlack }},
		{"gh", "GitHub", demo.GitHub, func(o *login.Options, op *testenv.Faults) {
			o.Type, o.Issuer, o.BaseURL, o.AllowedOrgs = login.TypeGitHub, "", op.URL,
				[]string{githubNumber("acme"), githubNumber("birch")}
		}},
		{"partner", "Partner SSO", demo.Partner, func(o *login.Options,
			op *testenv.Faults) { // docs/providers/oidc.md, "A partner without discovery"
			key, err := op.Provider.PublicPEM()
			testenv.Check(tb, err)
			o.Endpoints = login.Endpoints{AuthorizationURL: op.URL + demo.AuthorizePath,
				TokenURL: op.URL + demo.TokenPath}
			o.PublicKeys, o.Scopes, o.EmailDomains = []string{key}, []string{"openid", "email", "name"},
				[]string{"acme.example"}
			o.Quirks = []string{"no_nonce", "raw_basic_credentials", "assume_email_verified"}
		}},
		{"perscom", "PERSCOM", demo.Perscom, func(o *login.Options,
			op *testenv.Faults) { // docs/providers/oidc.md, "An application that speaks of localhost"
			o.Endpoints = login.Endpoints{AuthorizationURL: op.URL + demo.AuthorizePath,
				TokenURL:    op.URL + demo.TokenPath,
				UserinfoURL: op.URL + demo.UserinfoPath, EndSessionURL: op.URL + demo.EndSessionPath}
			o.Scopes, o.EmailDomains = []string{"openid", "profile", "email", "tenant"}, []string{"acme.example"}
			o.IdentityFrom, o.Claims = login.FromUserinfo, login.ClaimNames{OrgID: "tenant_sub", OrgName: "tenant_name"}
			o.Quirks = []string{"numeric_sub", "end_session_post"}
		}},
	}
}

// several is a site with several providers, each of which can be made to fail.
type several struct {
	*testSite
	ops map[string]*testenv.Faults
}

func newSeveral(tb testing.TB, o setup, all ...offer) *several {
	tb.Helper()
	m := &several{ops: map[string]*testenv.Faults{}}
	o.Several = func(s *testSite) (providers []Provider) {
		calls := oauth.NewMetrics(s.metrics)
		for _, f := range all {
			op := testenv.StartProvider(tb, demo.ProviderOptions{ClientID: "client-of-" + f.id,
				ClientSecret: "c4nary+secret/of=" + f.id, Kind: f.shape,
				RedirectURIs: []string{s.url + prefix + "/callback/" + f.id}, People: o.People, Now: s.clock.Now})
			transport := &http.Transport{}
			tb.Cleanup(transport.CloseIdleConnections)
			client, err := oauth.NewClient(oauth.Options{Provider: f.id, Transport: transport, Timeout: o.Call,
				Metrics: calls})
			testenv.Check(tb, err)
			options := login.Options{ID: f.id, Issuer: op.URL, ClientID: "client-of-" + f.id,
				ClientSecret: "c4nary+secret/of=" + f.id,
				RedirectURL:  s.url + prefix + "/callback/" + f.id, Client: client, Log: s.log.logger(),
				Now: s.clock.Now}
			f.edit(&options, op)
			l, err := login.New(options)
			testenv.Check(tb, err)
			m.ops[f.id] = op
			providers = append(providers, Provider{ID: f.id, Name: f.name, Login: l})
		}
		return providers
	}
	m.testSite = newTestSite(tb, o)
	return m
}

// signInWith goes from a page through the chooser to a provider and back.
func (m *several) signInWith(tb testing.TB, b *testenv.Browser, provider, path, person string) testenv.Page {
	tb.Helper()
	page := b.Choose(b.Open(m.url+path), "provider", provider)
	if !strings.HasPrefix(page.URL.String(), m.ops[provider].URL+"/") {
		tb.Fatalf("the way to %s ends at %s with %d\n%s", provider, page.URL, page.Status, page.Body)
	}
	return b.SignIn(page, person)
}

// asserted are the claims of the assertion in the last request, once it verifies.
func (s *testSite) asserted(t testing.TB) map[string]any {
	t.Helper()
	var keys jose.JSONWebKeySet
	testenv.Check(t, json.Unmarshal([]byte(s.get(t, prefix+"/jwks.json").body), &keys))
	lines := testenv.HeaderLines(s.app.Last(t), identity.AssertionHeader)
	if len(lines) != 1 {
		t.Fatalf("%d assertions", len(lines))
	}
	token, err := jwt.ParseSigned(lines[0], []jose.SignatureAlgorithm{jose.ES256})
	testenv.Check(t, err)
	claims := map[string]any{}
	testenv.Check(t, token.Claims(keys.Key(token.Headers[0].KeyID)[0].Key, &claims))
	return claims
}

// view is what an app is told of somebody.
type view struct {
	user, email, name, username string // name as people write it
	groups                      []string
	orgID, orgName, orgDomain   string
}

// headers is v in the words of preset "forwarded".
func (v view) headers() map[string][]string {
	out, encode := map[string][]string{}, strings.NewReplacer("ë", "%C3%AB", "í", "%C3%AD")
	for name, value := range map[string]string{"user": v.user, "email": v.email, "name": v.name,
		"preferred-username": v.username, "groups": strings.Join(v.groups, ","), "org-id": v.orgID,
		"org-name": v.orgName, "org-domain": v.orgDomain} {
		if value != "" {
			out["x-forwarded-"+name] = []string{encode.Replace(value)}
		}
	}
	return out
}

// claims is v in the words of the assertion, without its times.
func (v view) claims(issuer string) map[string]any {
	out := map[string]any{"iss": issuer, "aud": "app"}
	for name, value := range map[string]string{"sub": v.user, "email": v.email, "name": v.name,
		"preferred_username": v.username} {
		if value != "" {
			out[name] = value
		}
	}
	if v.email != "" {
		out["email_verified"] = true
	}
	for _, g := range v.groups {
		groups, _ := out["groups"].([]any)
		out["groups"] = append(groups, g)
	}
	if v.orgID != "" {
		org := map[string]any{"id": v.orgID}
		for name, value := range map[string]string{"name": v.orgName, "domain": v.orgDomain} {
			if value != "" {
				org[name] = value
			}
		}
		out["org"] = org
	}
	return out
}

const (
	acmeTenant     = "822b33ad-87c1-48a0-a20a-5ba7cd5ebcaa" // guid("acme") at the demo's Microsoft
	personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// Every shape of a provider, and of each the people who show what is particular
// about it, through the whole front door: what the app is told, header by header
// and claim by claim. The guides in docs/providers describe each of them.
func TestP01_WhatAnAppIsToldByEveryKindOfProvider(t *testing.T) {
	t.Parallel()
	m := newSeveral(t, setup{}, offers(t)...)
	for _, row := range []struct {
		fact, provider, person string
		want                   view
	}{
		{"the standard's claims", "corp", "mira", view{user: "corp:mira", email: "mira@acme.example",
			name: "Mira Okafor", username: "mira",
			groups: []string{"engineering", "on-call"}, orgID: "corp:acme", orgName: "Acme Rockets",
			orgDomain: "acme.example"}},
		{"nobody verified the address", "corp", "sam", view{user: "corp:sam", name: "Sam Carver", username: "sam"}},
		{"email_domains: not for this provider to vouch for", "corp", "zoe",
			view{user: "corp:zoe", name: "Zoë Martín", username: "zoe"}},
		{"hd is the organization", "google", "mira", view{user: "google:104339406236076858110",
			email: "mira@acme.example", name: "Mira Okafor",
			orgID: "google:acme.example", orgName: "acme.example", orgDomain: "acme.example"}},
		{"no hd: the address may have changed hands", "google", "zoe",
			view{user: "google:111313462442781569815", name: "Zoë Martín"}},
		{"no hd, not verified", "google", "sam", view{user: "google:116820384788845111932", name: "Sam Carver"}},
		{"Graph describes the organization", "ms", "mira",
			view{user: "ms:" + acmeTenant + "/3c38aafb-0579-dafe-18bb-584dce2786cc",
				email: "mira@acme.example", name: "Mira Okafor", username: "mira@acme.example",
				groups: []string{"8c85b663-9e62-e10b-8330-a8b883004b43", "e746efb0-763e-0fc5-a3c4-09e13679b46a"},
				orgID:  "ms:" + acmeTenant, orgName: "Acme Rockets", orgDomain: "acme.example"}},
		{"a personal account has no organization, nor a verified address", "ms", "zoe",
			view{user: "ms:" + personalTenant + "/9d017e26-81b7-f317-25e1-c0fbe2612e89", name: "Zoë Martín",
				username: "zoe@mail.example"}},
		{"account and user, no name, no address", "pd", "mira", view{user: "pd:PM6C63M/PHQ4KV6", orgID: "pd:PM6C63M",
			orgName: "acme-demo", orgDomain: "acme-demo.pagerduty.com"}},
		{"the European region", "pd", "tomoko", view{user: "pd:PJFUKFH/PAO3SUP", orgID: "pd:PJFUKFH",
			orgName: "birch-demo", orgDomain: "birch-demo.eu.pagerduty.com"}},
		{"the team is the organization", "slack", "mira", view{user: "slack:TQIVTHLMHYF/UHQ4KV6YFPH",
			email: "mira@acme.example", name: "Mira Okafor",
			orgID: "slack:TQIVTHLMHYF", orgName: "Acme Rockets", orgDomain: "acme-demo.slack.com"}},
		{"nobody verified the address", "slack", "sam", view{user: "slack:T5FXAFWHEP4/U5FXAFWHEP4", name: "Sam Carver",
			orgID: "slack:T5FXAFWHEP4", orgName: "Sam Carver", orgDomain: "sam-demo.slack.com"}},
		{"the number is the organization, and teams are its groups", "gh", "mira", view{user: "gh:" +
			githubNumber("mira"), email: "mira@acme.example", name: "Mira Okafor", username: "mira",
			groups: []string{"acme/engineering", "acme/on-call"}, orgID: "gh:" + githubNumber("acme"), orgName: "acme"}},
		{"the partner: no organization, and an address in email_domains", "partner", "mira",
			view{user: "partner:mira", email: "mira@acme.example", name: "Mira Okafor"}},
		{"the partner: an address elsewhere", "partner", "zoe", view{user: "partner:zoe", name: "Zoë Martín"}},
		{"the application: numbers as ids", "perscom", "mira",
			view{user: "perscom:1", email: "mira@acme.example", name: "Mira Okafor", username: "mira@acme.example",
				orgID: "perscom:1", orgName: "Acme Rockets"}},
		{"the application: no tenant", "perscom", "zoe", view{user: "perscom:4", name: "Zoë Martín",
			username: "zoe@mail.example"}},
	} {
		t.Run(row.provider+" "+row.person+", "+row.fact, func(t *testing.T) {
			b := m.browser(t)
			const deep = "/reports/2026?team=blue"
			page := m.signInWith(t, b, row.provider, deep, row.person)
			if page.URL.String() != m.url+deep || page.Status != 200 {
				t.Fatalf("ended at %s with %d\n%s", page.URL, page.Status, page.Body)
			}
			m.checkTold(t, row.want)
			checkHeaderNames(t, m.app.Last(t), row.want.headers())
		})
	}
}

// checkSession takes out of an assertion what it says about its session, which is
// another one each time.
func checkSession(t *testing.T, claims map[string]any) {
	t.Helper()
	sid, _ := claims["sid"].(string)
	end, _ := claims["session_end"].(float64)
	if len(sid) != 22 || end < claims["exp"].(float64) {
		t.Errorf("session %q until %v, in %v", sid, end, claims)
	}
	delete(claims, "sid")
	delete(claims, "session_end")
}

func (m *several) checkTold(t *testing.T, want view) {
	t.Helper()
	got := m.told(t)
	if !reflect.DeepEqual(got, want.headers()) {
		t.Errorf("the app was told\n%v, want\n%v", got, want.headers())
	}
	claims := m.asserted(t)
	issued, _ := claims["iat"].(float64)
	if expires, _ := claims["exp"].(float64); expires-issued != 300 || issued > float64(time.Now().Unix()) {
		t.Errorf("asserted from %v to %v", issued, expires)
	}
	checkSession(t, claims)
	delete(claims, "iat")
	delete(claims, "exp")
	if w := want.claims(m.url); !reflect.DeepEqual(claims, w) {
		t.Errorf("the assertion says\n%v, want\n%v", claims, w)
	}
}

// checkHeaderNames: an app gets what the browser sent without our cookies, what
// is ours of every request, and what it is told of the person. Nothing else.
func checkHeaderNames(t *testing.T, raw []byte, told map[string][]string) {
	t.Helper()
	want := map[string]bool{}
	for name := range strings.FieldsSeq("host accept accept-encoding user-agent upgrade-insecure-requests " +
		"sec-fetch-site sec-fetch-mode sec-fetch-dest sec-fetch-user via x-forwarded-for x-forwarded-host " +
		"x-forwarded-proto x-request-id x-sallyport-assertion") {
		want[name] = true
	}
	for name := range told {
		want[name] = true
	}
	for name, lines := range headerOf(raw) {
		if !want[name] || len(lines) != 1 {
			t.Errorf("the app got %s %d times", name, len(lines))
		}
		delete(want, name)
	}
	delete(want, "accept-encoding") // as the browser likes
	if len(want) > 0 {
		t.Errorf("the app did not get %v", want)
	}
}

// What the vendors' own tables in login refuse, seen from the browser: one lie
// for each kind of provider that is its own, and nobody is signed in.
func TestP07_ALieOfEveryKindOfProviderEndsOnAPage(t *testing.T) {
	t.Parallel()
	m := newSeveral(t, setup{}, offers(t)...)
	lie := func(name string, value any) testenv.Fault { return claims(testenv.With(name, value)) }
	for _, row := range []struct {
		fact, provider string
		fault          testenv.Fault
		status         int
		title, log     string
	}{
		{"RFC 9207, C30: another issuer", "corp", lie("iss", "https://evil.example"), 502, notTrusted, "iss is not " +
			"the configured issuer"},
		{"a scheme of its own", "google", lie("iss", "https://accounts.google.com.evil.example"), 502, notTrusted,
			"iss is not"},
		{"tid is not the tenant", "ms", lie("tid", personalTenant), 502, notTrusted, "tid is not the tenant"},
		{"Graph has gone", "ms", testenv.Fault{Endpoint: testenv.Organization, Status: 503}, 503, notAnswering,
			"status 503"},
		{"two regions", "pd", lie("aud", []string{"https://api.pagerduty.com", "https://api.eu.pagerduty.com",
			"client-of-pd"}), 502, notTrusted, "aud"},
		{"an access token", "pd", lie("purpose", "access"), 502, notTrusted, "purpose"},
		{"ok: false under 200", "slack", testenv.Fault{Endpoint: testenv.Token,
			Body: `{"ok":false,"error":"invalid_code"}`}, 502, notTrusted, "invalid_code"},
		{"our secret is wrong, under 200", "slack", testenv.Fault{Endpoint: testenv.Token,
			Body: `{"ok":false,"error":"bad_client_secret"}`}, 502, notSetUpRight, "bad_client_secret"},
		{"an organization whose id is a text", "gh", testenv.Fault{Endpoint: testenv.Memberships,
			Body: `[{"state":"active","organization":{"id":"1","login":"acme"}}]`}, 502, notTrusted, "must be a number"},
		{"a member of none of allowed_orgs", "gh", testenv.Fault{Endpoint: testenv.Memberships, Body: `[]`}, 403,
			"Your account may not use this site", "allowed_orgs"},
		{"a scope was not granted", "gh", testenv.Fault{Endpoint: testenv.Token, JSON: testenv.With("scope",
			"user:email")}, 403, "You were not signed in", "read:org"},
		{"a rate limit", "gh", testenv.Fault{Endpoint: testenv.User, Status: 403,
			Header: map[string]string{"X-RateLimit-Remaining": "0"}}, 503, notAnswering, "rate limit"},
		{"our secret is wrong at GitHub, under 200", "gh", testenv.Fault{Endpoint: testenv.Token,
			Body: `{"error":"incorrect_client_credentials"}`}, 502, notSetUpRight, "client_secret"},
		{"the partner: another key", "partner", resign(testenv.SignedByStranger), 502, notTrusted, "signature"},
		{"the application: a fraction as an id", "perscom", testenv.Fault{Endpoint: testenv.Userinfo,
			JSON: testenv.With("sub", 1.5)}, 502, notTrusted, "sub"},
	} {
		t.Run(row.provider+", "+row.fact, func(t *testing.T) {
			m.ops[row.provider].Set(row.fault)
			defer m.ops[row.provider].Set()
			b := m.browser(t)
			page := m.signInWith(t, b, row.provider, "/deep?x=1", "mira")
			if page.Status != row.status || m.sessionOf(b) != nil ||
				!strings.Contains(page.Body, "<h1>"+row.title+"</h1>") {
				t.Errorf("%d, signed in: %v\n%s", page.Status, m.sessionOf(b) != nil, page.Body)
			}
			if line := m.log.event(t, page.Header.Get("X-Request-Id")); !strings.Contains(fmt.Sprint(line["error"]),
				row.log) ||
				!strings.HasPrefix(fmt.Sprint(line["error"]), "sign-in with "+row.provider+": ") {
				t.Errorf("logged %v", line)
			}
		})
	}
}
