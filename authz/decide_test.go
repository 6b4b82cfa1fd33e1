package authz

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
)

func alice() identity.Identity {
	return identity.Identity{
		Provider: "google", Subject: "1101", Email: "alice@acme.test", EmailVerified: true,
		Groups: []string{"oncall", "eng"}, Org: identity.Org{ID: "acme", Name: "Acme", Domain: "acme.test"},
	}
}

func TestP01_RuleAdmitsOnlyWhoItNames(t *testing.T) {
	with := func(change func(*identity.Identity)) identity.Identity {
		id := alice()
		change(&id)
		return id
	}
	email := func(s string) identity.Identity { return with(func(id *identity.Identity) { id.Email = s }) }
	unknown := with(func(id *identity.Identity) { id.Groups, id.GroupsUnknown = nil, true })
	orgUnknown := with(func(id *identity.Identity) { id.Org, id.OrgUnknown = identity.Org{}, true })
	for _, tc := range []struct {
		name string
		rule Rule
		id   identity.Identity
		want refusal
	}{
		{"org", Rule{Orgs: []string{"acme"}}, alice(), admitted},
		{"one of the orgs", Rule{Orgs: []string{"x", "acme"}}, alice(), admitted},
		{"another org", Rule{Orgs: []string{"other"}}, alice(), refused},
		{"org in another case", Rule{Orgs: []string{"Acme"}}, alice(), refused},
		{"org by its name", Rule{Orgs: []string{"Acme"}}, alice(), refused},
		{"org by its domain", Rule{Orgs: []string{"acme.test"}}, alice(), refused},
		{"part of the org's id", Rule{Orgs: []string{"acm"}}, alice(), refused},
		{"nobody's org", Rule{Orgs: []string{"acme"}}, with(func(id *identity.Identity) { id.Org = identity.Org{} }),
			refused},
		{"an org that is not the active one", Rule{Orgs: []string{"beta"}},
			with(func(id *identity.Identity) { id.Orgs = []identity.Org{{ID: "acme"}, {ID: "beta"}} }), refused},
		{"group", Rule{Groups: []string{"oncall"}}, alice(), admitted},
		{"another group", Rule{Groups: []string{"admin"}}, alice(), refused},
		{"group in another case", Rule{Groups: []string{"OnCall"}}, alice(), refused},
		{"part of a group", Rule{Groups: []string{"on"}}, alice(), refused},
		{"groups that hold a comma", Rule{Groups: []string{"admin"}},
			with(func(id *identity.Identity) { id.Groups = []string{"oncall,admin"} }), refused},
		{"no groups", Rule{Groups: []string{"oncall"}}, with(func(id *identity.Identity) { id.Groups = nil }), refused},
		{"groups unknown", Rule{Groups: []string{"oncall"}}, unknown, refusedUnknownGroups},
		{"org unknown", Rule{Orgs: []string{"acme"}}, orgUnknown, refusedUnknownOrg},
		{"org unknown, and a group", Rule{Orgs: []string{"acme"}, Groups: []string{"oncall"}}, orgUnknown,
			refusedUnknownOrg},
		{"org unknown, and not asked for", Rule{Groups: []string{"oncall"}}, orgUnknown, admitted},
		{"groups unknown, and another org", Rule{Groups: []string{"oncall"}, Orgs: []string{"other"}}, unknown,
			refused},
		{"groups unknown, not asked for", Rule{Orgs: []string{"acme"}}, unknown, admitted},
		{"email", Rule{Emails: []string{"alice@acme.test"}}, alice(), admitted},
		{"email in another case", Rule{Emails: []string{"Alice@ACME.test"}}, alice(), admitted},
		{"another email", Rule{Emails: []string{"bob@acme.test"}}, alice(), refused},
		{"unverified email", Rule{Emails: []string{"alice@acme.test"}},
			with(func(id *identity.Identity) { id.EmailVerified = false }), refused},
		{"unverified email's domain", Rule{EmailDomains: []string{"acme.test"}},
			with(func(id *identity.Identity) { id.EmailVerified = false }), refused},
		{"email domain", Rule{EmailDomains: []string{"acme.test"}}, alice(), admitted},
		{"email domain in another case", Rule{EmailDomains: []string{"ACME.Test"}}, email("alice@Acme.TEST"), admitted},
		{"domain below", Rule{EmailDomains: []string{"acme.test"}}, email("alice@x.acme.test"), refused},
		{"domain above", Rule{EmailDomains: []string{"x.acme.test"}}, alice(), refused},
		{"longer domain", Rule{EmailDomains: []string{"acme.test"}}, email("alice@evilacme.test"), refused},
		{"domain that goes on", Rule{EmailDomains: []string{"acme.test"}}, email("alice@acme.test.evil"), refused},
		{"domain with a dot at its end", Rule{EmailDomains: []string{"acme.test"}}, email("alice@acme.test."), refused},
		{"domain as the address", Rule{EmailDomains: []string{"acme.test"}}, email("acme.test"), refused},
		// CVE-2026-40574 and what looks alike.
		{"two @", Rule{EmailDomains: []string{"acme.test"}}, email("mallory@evil.test@acme.test"), refused},
		{"quoted @", Rule{EmailDomains: []string{"acme.test"}}, email(`"mallory@evil.test"@acme.test`), refused},
		{"line at the end", Rule{Emails: []string{"alice@acme.test"}}, email("alice@acme.test\n"), refused},
		{"blank in front", Rule{Emails: []string{"alice@acme.test"}}, email(" alice@acme.test"), refused},
		{"NUL", Rule{Emails: []string{"alice@acme.test"}}, email("alice@acme.test\x00"), refused},
		{"Kelvin sign", Rule{Emails: []string{"kim@acme.test"}}, email("\u212Aim@acme.test"), refused},
		{"Kelvin sign in the domain", Rule{EmailDomains: []string{"kiosk.test"}}, email("a@\u212Aiosk.test"), refused},
		{"Kelvin sign in the rule", Rule{EmailDomains: []string{"\u212Aiosk.test"}}, email("a@kiosk.test"), refused},
		{"long s", Rule{Emails: []string{"sam@acme.test"}}, email("\u017Fam@acme.test"), refused},
		{"dotless i", Rule{EmailDomains: []string{"acme.test"}}, email("a@acme.te\u0131t"), refused},
		{"fullwidth domain", Rule{EmailDomains: []string{"acme.test"}}, email("a@\uff41cme.test"), refused},
		// oauth2-proxy #3365.
		{"empty group, asked of none", Rule{Groups: []string{""}},
			with(func(id *identity.Identity) { id.Groups = nil }), refused},
		{"empty group, asked of an empty one", Rule{Groups: []string{""}},
			with(func(id *identity.Identity) { id.Groups = []string{""} }), refused},
		{"empty org", Rule{Orgs: []string{""}}, with(func(id *identity.Identity) { id.Org = identity.Org{} }), refused},
		{"empty email", Rule{Emails: []string{""}}, email(""), refused},
		{"empty email, unverified", Rule{Emails: []string{""}}, identity.Identity{}, refused},
		{"empty domain", Rule{EmailDomains: []string{""}}, email("alice@"), refused},
		{"empty domain of no address", Rule{EmailDomains: []string{""}}, email("alice"), refused},
		{"no lists", Rule{}, alice(), refused},
		{"empty lists", Rule{Orgs: []string{}, Groups: []string{}, Emails: []string{}, EmailDomains: []string{}},
			alice(), refused},
		{"no lists, nobody", Rule{}, identity.Identity{}, refused},
		// Inside one rule all must hold.
		{"subject", Rule{Subjects: []string{"google:1100", "google:1101"}}, alice(), admitted},
		{"another subject", Rule{Subjects: []string{"google:110"}}, alice(), refused},
		{"subject of another provider", Rule{Subjects: []string{"corp:1101"}}, alice(), refused},
		{"subject without a provider", Rule{Subjects: []string{"1101"}}, alice(), refused},
		{"subject in another case", Rule{Subjects: []string{"Google:1101"}}, alice(), refused},
		{"empty subject", Rule{Subjects: []string{""}}, alice(), refused},
		{"subject and another group", Rule{Subjects: []string{"google:1101"}, Groups: []string{"x"}}, alice(), refused},
		{"subject of an account without an address", Rule{Subjects: []string{"google:1101"}},
			with(func(id *identity.Identity) { id.Email, id.EmailVerified = "", false }), admitted},
		{"all", Rule{Orgs: []string{"acme"}, Groups: []string{"eng"}, Emails: []string{"alice@acme.test"},
			EmailDomains: []string{"acme.test"}}, alice(), admitted},
		{"all but the org", Rule{Orgs: []string{"x"}, Groups: []string{"eng"}, Emails: []string{"alice@acme.test"},
			EmailDomains: []string{"acme.test"}}, alice(), refused},
		{"all but the group", Rule{Orgs: []string{"acme"}, Groups: []string{"x"}, Emails: []string{"alice@acme.test"},
			EmailDomains: []string{"acme.test"}}, alice(), refused},
		{"all but the email", Rule{Orgs: []string{"acme"}, Groups: []string{"eng"}, Emails: []string{"x@acme.test"},
			EmailDomains: []string{"acme.test"}}, alice(), refused},
		{"all but the domain", Rule{Orgs: []string{"acme"}, Groups: []string{"eng"},
			Emails: []string{"alice@acme.test"}, EmailDomains: []string{"x.test"}}, alice(), refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.rule.admits(&tc.id, false); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
			// Decide must say the same of a route with that rule, and of the rule as an alternative.
			s := &tc.id
			for _, rules := range [][]Rule{{tc.rule}, {{Orgs: []string{"nobody's"}}, tc.rule},
				{tc.rule, {Emails: []string{"x@y.test"}}}} {
				v := Decide(Facts{}, &Route{Access: Access{Rules: rules}}, s)
				if (v.Reason == ReasonOrgUnknown) != (tc.want == refusedUnknownOrg) {
					t.Errorf("reason %s", v.Reason)
				}
				if (v.Outcome == Forward) != (tc.want == admitted) ||
					(v.Reason == ReasonGroupsUnknown) != (tc.want == refusedUnknownGroups) {
					t.Errorf("%+v", v)
				}
				if v.Outcome == Forward && v.Rule != 1+slices.IndexFunc(rules,
					func(r Rule) bool { return r.admits(&tc.id, false) == admitted }) {
					t.Errorf("rule %d", v.Rule)
				}
			}
		})
	}
}

func TestP01_VerdictOfEveryCombination(t *testing.T) {
	acme, other, groups := Rule{Orgs: []string{"acme"}}, Rule{Orgs: []string{"other"}}, Rule{Groups: []string{"admin"}}
	nobody, known, unknown := (*identity.Identity)(nil), new(alice()), new(alice())
	unknown.Groups, unknown.GroupsUnknown = nil, true
	type want struct {
		Outcome
		Reason
		rule int
	}
	var (
		public, login, wide = want{Forward, ReasonPublic, 0}, want{Login, ReasonNoSession, 0},
			want{Forward, ReasonAuthenticated, 0}
		no, noGroups  = want{Deny, ReasonNoRule, 0}, want{Deny, ReasonGroupsUnknown, 0}
		first, second = want{Forward, ReasonRule, 1}, want{Forward, ReasonRule, 2}
	)
	for _, tc := range []struct {
		name                   string
		access                 Access
		nobody, known, unknown want
	}{
		{"zero", Access{}, login, no, no},
		{"public", Access{Public: true}, public, public, public},
		{"authenticated", Access{Authenticated: true}, login, wide, wide},
		{"public and rules", Access{Public: true, Rules: []Rule{other}}, public, public, public},
		{"authenticated and rules", Access{Authenticated: true, Rules: []Rule{other}}, login, wide, wide},
		{"empty rules", Access{Rules: []Rule{}}, login, no, no},
		{"rule without lists", Access{Rules: []Rule{{}}}, login, no, no},
		{"theirs", Access{Rules: []Rule{acme}}, login, first, first},
		{"not theirs", Access{Rules: []Rule{other}}, login, no, no},
		{"second", Access{Rules: []Rule{other, acme}}, login, second, second},
		{"group", Access{Rules: []Rule{groups}}, login, no, noGroups},
		{"group or theirs", Access{Rules: []Rule{groups, acme}}, login, second, second},
		{"group or not theirs", Access{Rules: []Rule{groups, other}}, login, no, noGroups},
		{"group of another org", Access{Rules: []Rule{{Orgs: []string{"other"}, Groups: []string{"admin"}}}}, login, no,
			no},
	} {
		r := &Route{Name: "app", Host: host, Path: "/", Access: tc.access}
		for _, who := range []struct {
			name string
			s    *identity.Identity
			want want
		}{{"nobody", nobody, tc.nobody}, {"alice", known, tc.known}, {"groups unknown", unknown, tc.unknown}} {
			v := Decide(Facts{Method: "GET", Host: host, Path: "/"}, r, who.s)
			if got := (want{v.Outcome, v.Reason, v.Rule}); got != who.want {
				t.Errorf("%s, %s: %v, want %v", tc.name, who.name, got, who.want)
			}
			if v.Outcome != Forward && (v.Public == "" || v.Detail == "") {
				t.Errorf("%s, %s: nothing to say: %+v", tc.name, who.name, v)
			}
		}
	}
	for _, s := range []*identity.Identity{nil, known} {
		if v := Decide(Facts{Host: host, Path: "/x"}, nil, s); v.Outcome != Deny || v.Reason != ReasonNoRoute ||
			v.Public == "" {
			t.Errorf("no route: %+v", v)
		}
	}
}

func TestP01_VerdictNobodyFilledInDenies(t *testing.T) {
	var v Verdict
	if v.Outcome != Deny || v.Outcome.String() != "deny" || Outcome(77).String() != "deny" {
		t.Errorf("%v", v.Outcome)
	}
	if Forward.String() != "forward" || Login.String() != "login" {
		t.Error("names")
	}
	if v := Decide(Facts{}, &Route{}, nil); v.Outcome == Forward {
		t.Error("the zero route lets people through")
	}
	if v := Decide(Facts{}, &Route{}, &identity.Identity{}); v.Outcome != Deny {
		t.Error("the zero identity gets through")
	}
}

// CVE-2025-54576: nothing but the route and the identity decides.
func TestP01_QueryMethodAndSchemeDecideNothing(t *testing.T) {
	r := &Route{Access: Access{Rules: []Rule{{Orgs: []string{"other"}}}}}
	s := new(alice())
	want := Decide(Facts{}, r, s)
	for _, m := range []string{"GET", "HEAD", "OPTIONS", "get", "FOO", ""} {
		for _, q := range []string{"", "x=/open/", "/.sallyport/"} {
			if got := Decide(Facts{Method: m, Scheme: "http", Host: host, Path: "/open", RawQuery: q, HasQuery: q != ""}, r, s); got != want {
				t.Errorf("%s ?%s: %+v", m, q, got)
			}
		}
	}
}

// A refused person reads what they lack. Who else may have the page is only in the
// log.
func TestRefusalSaysWhatThePersonLacksAndNothingAboutOthers(t *testing.T) {
	with := func(change func(*identity.Identity)) identity.Identity {
		id := alice()
		change(&id)
		return id
	}
	for _, tc := range []struct {
		name  string
		rules []Rule
		id    identity.Identity
		want  string
	}{
		{"a group of their own organization", []Rule{{Orgs: []string{"acme"}, Groups: []string{"admin"}},
			{Emails: []string{"boss@acme.test"}}}, alice(),
			"It is for members of the group admin, and you are not in it."},
		{"several groups of their own domain",
			[]Rule{{EmailDomains: []string{"acme.test"}, Groups: []string{"admin", "ops"}}}, alice(),
			"It is for members of the groups admin or ops, and you are in none of them."},
		{"a group and nothing else", []Rule{{Groups: []string{"secret-project"}}}, alice(), "It is for members of a " +
			"group that you are not in."},
		{"another organization", []Rule{{Orgs: []string{"beta", "gamma"}, Groups: []string{"admin"}}}, alice(),
			"It is for another organization than Acme."},
		{"another organization, own one without a name", []Rule{{Orgs: []string{"beta"}}},
			with(func(id *identity.Identity) { id.Org = identity.Org{ID: "acme"} }),
			"It is for another organization than the one that you are here for."},
		{"an organization", []Rule{{Orgs: []string{"beta"}}},
			with(func(id *identity.Identity) { id.Org = identity.Org{} }),
			"It is for members of an organization, and you are here for none."},
		{"an address on a list", []Rule{{Emails: []string{"boss@acme.test"}}}, alice(), "It is for people on a list " +
			"of e-mail addresses, and yours is not on it."},
		{"a domain", []Rule{{EmailDomains: []string{"partner.test"}}}, alice(), "It is for e-mail addresses of " +
			"another domain than yours, acme.test."},
		{"a verified address", []Rule{{EmailDomains: []string{"acme.test"}}},
			with(func(id *identity.Identity) { id.EmailVerified = false }),
			"It needs a verified e-mail address, and your account here has none."},
		{"a list of ids", []Rule{{Subjects: []string{"google:7"}}}, alice(), "It is for people on a list, and you " +
			"are not on it."},
		{"a group of people on a list", []Rule{{Subjects: []string{"google:1101"}, Groups: []string{"admin"}}}, alice(),
			"It is for members of the group admin, and you are not in it."},
		{"the nearest rule, not the first", []Rule{{Orgs: []string{"beta"}, Groups: []string{"x"}},
			{Emails: []string{"boss@acme.test"}}, {Orgs: []string{"acme"}, Groups: []string{"admin"}}}, alice(),
			"It is for members of the group admin, and you are not in it."},
		{"nothing would help", []Rule{{}}, alice(), "It is open to nobody."},
		{"no rules", nil, alice(), "It is open to nobody."},
	} {
		r := &Route{Name: "app", Access: Access{Rules: tc.rules}}
		v := Decide(Facts{}, r, &tc.id)
		if v.Outcome != Deny || v.Public != tc.want {
			t.Errorf("%s: %v, %q", tc.name, v.Outcome, v.Public)
		}
		if len(tc.rules) > 0 && !strings.Contains(v.Detail, r.Access.String()) {
			t.Errorf("%s: the log is not told who may: %q", tc.name, v.Detail)
		}
	}
}

func TestAccessStringCompletesASentence(t *testing.T) {
	for want, a := range map[string]Access{
		"everybody, without signing in": {Public: true}, "everybody who is signed in": {Authenticated: true},
		"nobody":                        {},
		"people who are in the group a": {Rules: []Rule{{Groups: []string{"a"}}}},
		"people who are in the group a and have the id corp:1 or corp:2": {Rules: []Rule{{Groups: []string{"a"},
			Subjects: []string{"corp:1", "corp:2"}}}},
		"people who have the verified e-mail address a@x.test or b@x.test": {Rules: []Rule{{Emails: []string{"a@x.test",
			"b@x.test"}}}},
	} {
		if a.String() != want {
			t.Errorf("%q", a)
		}
	}
	if got := (Access{Rules: []Rule{{}}}).String(); got != "nobody" {
		t.Errorf("a rule without lists: %q", got)
	}
}

// usualDecision is of somebody in twenty groups, whom the third rule lets in.
func usualDecision() (*Route, *identity.Identity) {
	s := new(alice())
	for i := range 20 {
		s.Groups = append(s.Groups, fmt.Sprintf("team-%07d", i))
	}
	return &Route{Access: Access{Rules: []Rule{{Orgs: []string{"other"}}, {EmailDomains: []string{"partner.test"}},
		{Orgs: []string{"acme"}, Groups: []string{"team-0000019"}}}}}, s
}

func TestAVerdictAllocatesOnceAtMost(t *testing.T) {
	r, s := usualDecision()
	if n := testing.AllocsPerRun(100, func() {
		if Decide(Facts{}, r, s).Outcome != Forward {
			t.Error("refused")
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	r, s := usualDecision()
	b.ReportAllocs()
	for b.Loop() {
		if Decide(Facts{}, r, s).Outcome != Forward {
			b.Fatal("refused")
		}
	}
}

// TestP01_PartOfTheGroupsIsNotTheGroups: a provider that told some groups and
// left others out has not told them; a rule about groups must not read the rest.
func TestP01_PartOfTheGroupsIsNotTheGroups(t *testing.T) {
	id := identity.Identity{Provider: "p", Subject: "s", Groups: []string{"ops"}, GroupsUnknown: true}
	r := &Route{Name: "r", Access: Access{Rules: []Rule{{Groups: []string{"ops"}}}}}
	if v := Decide(Facts{}, r, &id); v.Outcome != Deny || v.Reason != ReasonGroupsUnknown {
		t.Errorf("got %v, %v", v.Outcome, v.Reason)
	}
}

// RFC 6455 §10.2: a page of another site must not open a WebSocket with
// this site's cookies.
func TestP01_WebSocketsOnlyWhereTheRouteSaysSoAndFromItsOwnPages(t *testing.T) {
	s := new(alice())
	ws := func(origins ...string) WebSocket { return WebSocket{Allowed: true, Origins: origins} }
	for name, tc := range map[string]struct {
		route     WebSocket
		authority string
		origin    string
		want      Reason
	}{
		"route without":            {WebSocket{}, "app.example.com", "https://app.example.com", ReasonWebSocket},
		"route without, a program": {WebSocket{}, "app.example.com", "", ReasonWebSocket},
		"own page":                 {ws(), "app.example.com", "https://app.example.com", ReasonAuthenticated},
		"own page, default port":   {ws(), "app.example.com:443", "https://app.example.com", ReasonAuthenticated},
		"own page, another port":   {ws(), "app.example.com:8443", "https://app.example.com:8443", ReasonAuthenticated},
		"a program":                {ws(), "app.example.com", "", ReasonAuthenticated},
		"another port's page":      {ws(), "app.example.com", "https://app.example.com:8443", ReasonOrigin},
		"plain http":               {ws(), "app.example.com", "http://app.example.com", ReasonOrigin},
		"another site":             {ws(), "app.example.com", "https://evil.example", ReasonOrigin},
		"a name that ends so":      {ws(), "app.example.com", "https://evilapp.example.com", ReasonOrigin},
		"a name that begins so":    {ws(), "app.example.com", "https://app.example.com.evil.example", ReasonOrigin},
		"a sandboxed page":         {ws(), "app.example.com", "null", ReasonOrigin},
		"two origins": {ws(), "app.example.com", "https://app.example.com, https://evil.example",
			ReasonOrigin},
		"upper case": {ws(), "app.example.com", "HTTPS://APP.EXAMPLE.COM", ReasonOrigin},
		"a path":     {ws(), "app.example.com", "https://app.example.com/", ReasonOrigin},
		"listed": {ws("https://other.example"), "app.example.com", "https://other.example",
			ReasonAuthenticated},
		"listed and own": {ws("https://other.example"), "app.example.com", "https://app.example.com",
			ReasonAuthenticated},
		"not listed": {ws("https://other.example"), "app.example.com", "https://another.example",
			ReasonOrigin},
	} {
		f := Facts{Method: "GET", Scheme: "https", Host: "app.example.com", Authority: tc.authority, Path: "/",
			WebSocket: true, Origin: tc.origin}
		r := &Route{Name: "app", Path: "/", Access: Access{Authenticated: true}, WebSocket: tc.route}
		v := Decide(f, r, s)
		if v.Reason != tc.want || (v.Outcome == Forward) != (tc.want == ReasonAuthenticated) {
			t.Errorf("%s: %+v", name, v)
		}
		if v := Decide(f, r, nil); v.Outcome != Login {
			t.Errorf("%s, nobody signed in: %+v", name, v)
		}
		f.WebSocket = false
		if v := Decide(f, r, s); v.Outcome != Forward {
			t.Errorf("%s, no WebSocket: %+v", name, v)
		}
	}
}

// The page and the log say where the groups were lost.
func TestUnknownGroupsSayWhetherProviderOrCookieLostThem(t *testing.T) {
	r := &Route{Name: "r", Access: Access{Rules: []Rule{{Groups: []string{"ops"}}}}}
	for _, tc := range []struct {
		dropped        bool
		public, detail string
	}{
		{false, "It is for members of a group, and your identity provider did not tell us which groups you are in.",
			"route r: a rule needs groups, and the provider did not tell those of p:s"},
		{true, "It is for members of a group. You are in more groups than your session here can hold, so none of " +
			"them counts.",
			"route r: a rule needs groups, and those of p:s did not fit into the session cookie"},
	} {
		id := identity.Identity{Provider: "p", Subject: "s", GroupsUnknown: true, GroupsDropped: tc.dropped}
		v := Decide(Facts{}, r, &id)
		if v.Outcome != Deny || v.Reason != ReasonGroupsUnknown || v.Public != tc.public || v.Detail != tc.detail {
			t.Errorf("%+v", v)
		}
	}
}

// A route that asks for a recent sign-in, or one by certain means, admits whom its rules
// admit and who has proved that; of others the verdict says what is asked, and nobody is
// asked whom the rules refuse.
func TestP01_ARouteAsksHowPeopleProvedWhoTheyAre(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	staff := Access{Rules: []Rule{{Groups: []string{"staff"}}}}
	proof := identity.Proof{MaxAge: 15 * time.Minute, ACR: []string{"mfa"}}
	ann := func(ago time.Duration, acr string, groups ...string) *identity.Identity {
		return &identity.Identity{Provider: "p", Subject: "ann", Groups: groups, ACR: acr, AuthTime: now.Add(-ago)}
	}
	silent := &identity.Identity{Provider: "p", Subject: "ann", Groups: []string{"staff"}}
	for name, tt := range map[string]struct {
		access  Access
		id      *identity.Identity
		at      time.Time
		outcome Outcome
		reason  Reason
	}{
		"recent, by these means":       {staff, ann(time.Minute, "mfa", "staff"), now, Forward, ReasonRule},
		"an hour later":                {staff, ann(time.Minute, "mfa", "staff"), now.Add(time.Hour), Login, ReasonStepUp},
		"an hour before":               {staff, ann(time.Minute, "mfa", "staff"), now.Add(-time.Hour), Login, ReasonStepUp},
		"by other means":               {staff, ann(time.Minute, "pwd", "staff"), now, Login, ReasonStepUp},
		"the provider says nothing":    {staff, silent, now, Login, ReasonStepUp},
		"no clock":                     {staff, ann(time.Minute, "mfa", "staff"), time.Time{}, Login, ReasonStepUp},
		"refused by the rules, recent": {staff, ann(time.Minute, "mfa"), now, Deny, ReasonNoRule},
		"refused by the rules":         {staff, ann(time.Hour, ""), now, Deny, ReasonNoRule},
		"everybody, recent":            {Access{Authenticated: true}, ann(0, "mfa"), now, Forward, ReasonAuthenticated},
		"everybody":                    {Access{Authenticated: true}, ann(time.Hour, "mfa"), now, Login, ReasonStepUp},
		"nobody":                       {Access{Authenticated: true}, nil, now, Login, ReasonNoSession},
		"public":                       {Access{Public: true}, nil, now, Forward, ReasonPublic},
	} {
		r := &Route{Name: "vault", Access: tt.access, Proof: proof}
		v := Decide(Facts{At: tt.at}, r, tt.id)
		if v.Outcome != tt.outcome || v.Reason != tt.reason || (v.StepUp == r) != (tt.reason == ReasonStepUp) {
			t.Errorf("%s: %+v", name, v)
		}
		if v.StepUp != nil && (!strings.Contains(v.Detail, "vault") || !strings.Contains(v.Detail, "p:ann")) {
			t.Errorf("%s: %q", name, v.Detail)
		}
	}
	// It is no reason not to offer an organization with which somebody would be admitted.
	id := ann(time.Hour, "")
	id.Org, id.Orgs = identity.Org{ID: "a"}, []identity.Org{{ID: "a"}, {ID: "b"}}
	r := &Route{Access: Access{Rules: []Rule{{Orgs: []string{"b"}}}}, Proof: proof}
	if orgs := SwitchTo(Facts{At: now}, r, id); len(orgs) != 1 || orgs[0].ID != "b" {
		t.Errorf("organizations to switch to: %v", orgs)
	}
	// What asks for more is another rule, for a folder that is copied or moved.
	table, err := NewTable([]Route{{Name: "all", Host: "h", Path: "/", Access: Access{Authenticated: true}},
		{Name: "vault", Host: "h", Path: "/dir/vault", Access: Access{Authenticated: true}, Proof: proof}})
	if err != nil {
		t.Fatal(err)
	}
	all := func(*Route) bool { return true }
	if other := table.CarriedAlong(Facts{Host: "h", Path: "/dir"}, table.Named("all"), all); other == nil {
		t.Error("a folder is carried along with a part that asks for more")
	}
	if table.Named("vault") == nil || table.Named("none") != nil {
		t.Error("routes are not found by their names")
	}
}
