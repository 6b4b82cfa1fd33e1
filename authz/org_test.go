package authz

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
)

var (
	acme  = identity.Org{ID: "acme", Name: "Acme Rockets", Source: identity.SourceConfig}
	birch = identity.Org{ID: "birch", Name: "Birch Bank", Source: identity.SourceConfig}
)

// ines works for two organizations, and is here for active.
func ines(active identity.Org) identity.Identity {
	return identity.Identity{Provider: "main", Subject: "ines", Email: "ines@mail.test", EmailVerified: true,
		Groups: []string{"admins"}, Org: active, Orgs: []identity.Org{acme, birch}}
}

func decideFor(f Facts, r *Route, id identity.Identity) Verdict {
	return Decide(f, r, &id)
}

// Until an organization is picked nothing is forwarded: no app gets a person of
// several organizations as one of none.
func TestP01_NothingIsForwardedUntilAnOrganizationIsPicked(t *testing.T) {
	for name, a := range map[string]Access{
		"authenticated": {Authenticated: true},
		"org":           {Rules: []Rule{{Orgs: []string{"acme"}}}},
		"group":         {Rules: []Rule{{Groups: []string{"admins"}}}},
		"email":         {Rules: []Rule{{Emails: []string{"ines@mail.test"}}}},
		"email domain":  {Rules: []Rule{{EmailDomains: []string{"mail.test"}}}},
		"nobody":        {},
	} {
		v := decideFor(Facts{}, &Route{Name: "app", Access: a}, ines(identity.Org{}))
		if v.Outcome != Login || v.Reason != ReasonNoOrg || v.Detail == "" || v.Public == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := decideFor(Facts{}, &Route{Access: Access{Public: true}}, ines(identity.Org{})); v.Outcome != Forward {
		t.Errorf("public: %+v", v)
	}
	if v := decideFor(Facts{}, &Route{Access: Access{Authenticated: true}}, ines(acme)); v.Outcome != Forward {
		t.Errorf("picked: %+v", v)
	}
}

// A group of somebody who belongs to several organizations is one's or the
// other's, and nobody said whose: it counts for no rule that asks whose.
func TestP01_GroupCountsOnlyInTheOrganizationItBelongsTo(t *testing.T) {
	mixed, group := Rule{Orgs: []string{"acme"}, Groups: []string{"admins"}}, Rule{Groups: []string{"admins"}}
	insecure := mixed
	insecure.InsecureFlatGroups = true
	one := ines(acme)
	one.Orgs = nil
	outsider := ines(acme)
	bound := func(org string) identity.Identity {
		id := ines(acme)
		id.OrgGroups = []identity.OrgGroup{{Org: org, Group: "admins"}}
		return id
	}
	outsider.Groups = []string{"sales"}
	for _, tc := range []struct {
		name  string
		rule  Rule
		bound bool
		id    identity.Identity
		want  refusal
	}{
		{"their only organization", mixed, false, one, admitted},
		{"one of two", mixed, false, ines(acme), refusedFlatGroups},
		{"one of two, where the provider said that it is this one", mixed, false, bound("acme"), admitted},
		{"one of two, where the provider said that it is the other", mixed, false, bound("birch"), refusedFlatGroups},
		{"one of two, said to be insecure", insecure, false, ines(acme), admitted},
		{"the other one", mixed, false, ines(birch), refused},
		{"the other one, said to be insecure", insecure, false, ines(birch), refused},
		{"not in the group anyway", mixed, false, outsider, refused},
		{"a rule that asks for no organization", group, false, ines(acme), admitted},
		{"the same on an organization's host", group, true, ines(acme), refusedFlatGroups},
		{"on the host of their only organization", group, true, one, admitted},
		{"an organization and no group", Rule{Orgs: []string{"acme"}}, true, ines(acme), admitted},
	} {
		if got := tc.rule.admits(&tc.id, tc.bound); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	v := decideFor(Facts{}, &Route{Name: "admin", Access: Access{Rules: []Rule{mixed}}}, ines(acme))
	if v.Outcome != Deny || v.Reason != ReasonGroupsFlat || !strings.HasSuffix(v.Public, "your identity provider did "+
		"not tell us in which of your organizations you are in it.") {
		t.Errorf("%+v", v)
	}
	if got := (Access{Rules: []Rule{insecure}}).String(); got != "people who belong to the organization acme and are "+
		"in the group admins (of whichever of their organizations)" {
		t.Errorf("described as %q", got)
	}
}

func orgTable(t *testing.T, routes ...Route) *Table {
	t.Helper()
	table, err := NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestP01_HostBelongsToTheOrganizationInItsName(t *testing.T) {
	ids := []string{"acme", "birch", "cedar"}
	table := orgTable(t,
		Route{Name: "tenant", Host: "{org}.example.com", Orgs: ids, Path: "/", Access: Access{Authenticated: true}},
		Route{Name: "admin", Host: "{org}.example.com", Orgs: ids, Path: "/admin",
			Access: Access{Rules: []Rule{{Groups: []string{"admins"}}}}},
		Route{Name: "logo", Host: "{org}.example.com", Orgs: ids, Path: "/logo", Access: Access{Public: true}},
		Route{Name: "shared", Host: "app.example.com", Path: "/", Access: Access{Authenticated: true}})
	one := func(o identity.Org) identity.Identity { id := ines(o); id.Orgs = nil; return id }
	for _, tc := range []struct {
		host, path string
		id         identity.Identity
		want       Outcome
		reason     Reason
		switchTo   []identity.Org
		says       string
	}{
		{"acme.example.com", "/", one(acme), Forward, ReasonAuthenticated, nil, ""},
		{"ACME.example.com:8443", "/", one(acme), Forward, ReasonAuthenticated, nil, ""},
		{"acme.example.com", "/admin", one(acme), Forward, ReasonRule, nil, ""},
		{"acme.example.com", "/", one(birch), Deny, ReasonOtherOrg, nil, "This address is another organization's, " +
			"and your account does not belong to it."},
		{"acme.example.com", "/admin", one(birch), Deny, ReasonOtherOrg, nil, "This address is another " +
			"organization's, and your account does not belong to it."},
		{"acme.example.com", "/", one(identity.Org{}), Deny, ReasonOtherOrg, nil, "This address is another " +
			"organization's, and your account does not belong to it."},
		{"acme.example.com", "/", one(identity.Org{ID: "main:acme"}), Deny, ReasonOtherOrg, nil, "This address is " +
			"another organization's, and your account does not belong to it."},
		{"acme.example.com", "/", ines(birch), Deny, ReasonOtherOrg, []identity.Org{acme}, "This address is for Acme " +
			"Rockets, and you are here for another organization."},
		{"acme.example.com", "/", ines(acme), Forward, ReasonAuthenticated, nil, ""},
		{"acme.example.com", "/", ines(identity.Org{}), Login, ReasonNoOrg, nil, "You need to choose an organization."},
		{"acme.example.com", "/admin", ines(acme), Deny, ReasonGroupsFlat, nil, "It is for members of a group, and " +
			"your identity provider did not tell us in which of your organizations you are in it."},
		{"cedar.example.com", "/", ines(acme), Deny, ReasonOtherOrg, nil, "This address is another organization's, " +
			"and your account does not belong to it."},
		{"birch.example.com", "/logo", ines(acme), Forward, ReasonPublic, nil, ""},
		{"app.example.com", "/", ines(acme), Forward, ReasonAuthenticated, nil, ""},
	} {
		f, err := NewFacts("GET", "https", tc.host, tc.path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := table.Lookup(f)
		if err != nil {
			t.Fatalf("%s%s: %v", tc.host, tc.path, err)
		}
		v := decideFor(f, r, tc.id)
		if v.Outcome != tc.want || v.Reason != tc.reason || v.Public != tc.says {
			t.Errorf("%s at %s%s: %+v", tc.id.Org.ID, tc.host, tc.path, v)
		}
		if got := SwitchTo(f, r, &tc.id); v.Outcome == Deny && !slices.Equal(got, tc.switchTo) {
			t.Errorf("%s at %s%s: may switch to %v", tc.id.Org.ID, tc.host, tc.path, got)
		}
	}
	for _, unknown := range []string{"nobody.example.com", "x.acme.example.com", "{org}.example.com", "example.com",
		"acmeexample.com", "acme.example.com.evil.test"} {
		if r, err := table.Lookup(Facts{Host: unknown, Path: "/"}); !errors.Is(err, ErrNoRoute) ||
			table.Serves(unknown) {
			t.Errorf("%s: %v, %v", unknown, r, err)
		}
	}
	// Facts of a host the route does not have, as no Lookup makes them, deny too.
	for _, id := range []identity.Identity{ines(acme), one(identity.Org{})} {
		if v := decideFor(Facts{Host: "nobody.example.com", Path: "/"}, table.Routes()[0], id); v.Outcome != Deny ||
			v.Reason != ReasonOtherOrg {
			t.Errorf("%+v", v)
		}
	}
}

func TestHostOfOneOrganizationGoesBeforeAWildcard(t *testing.T) {
	table := orgTable(t,
		Route{Name: "any", Host: "*.example.com", Path: "/"},
		Route{Name: "tenant", Host: "{org}.example.com", Orgs: []string{"acme"}, Path: "/"},
		Route{Name: "extra", Host: "acme.example.com", Path: "/extra"})
	for target, want := range map[string]string{"acme.example.com/x": "tenant", "birch.example.com/x": "any",
		"acme.example.com/extra": "extra"} {
		name, path, _ := strings.Cut(target, "/")
		if r, err := table.Lookup(Facts{Host: name, Path: "/" + path}); err != nil || r.Name != want {
			t.Errorf("%s: %v, %v", target, r, err)
		}
	}
}

func TestTableRefusesHostsThatAreNoOrganizations(t *testing.T) {
	for _, r := range []Route{
		{Host: "{org}.example.com"},
		{Host: "{org}.example.com", Orgs: []string{"*"}},
		{Host: "{org}.example.com", Orgs: []string{"acme", ""}},
		{Host: "{org}.example.com", Orgs: []string{"a.b"}},
		{Host: "{org}.example.com", Orgs: []string{"Acme"}},
		{Host: "{org}.example.com", Orgs: []string{"acme birch"}},
		{Host: "{org}.example.com", Orgs: []string{strings.Repeat("a", 64)}},
		{Host: "{org}", Orgs: []string{"acme"}},
		{Host: "{org}example.com", Orgs: []string{"acme"}},
		{Host: "{org}.", Orgs: []string{"acme"}},
		{Host: "x.{org}.example.com", Orgs: []string{"acme"}},
		{Host: "*.{org}.example.com", Orgs: []string{"acme"}},
		{Host: "{org}.{org}.example.com", Orgs: []string{"acme"}},
	} {
		r.Path = "/"
		_, err := NewTable([]Route{r})
		var fault *RouteError
		if !errors.As(err, &fault) || fault.Field != "host" {
			t.Errorf("%s of %q: %v", r.Host, r.Orgs, err)
		}
	}
	_, err := NewTable([]Route{
		{Name: "one", Host: "acme.example.com", Path: "/"},
		{Name: "all", Host: "{org}.example.com", Orgs: []string{"birch", "acme"}, Path: "/"}})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.First != 0 || conflict.Second != 1 {
		t.Errorf("two routes for one host: %v", err)
	}
}

func TestWhoIsDeniedLearnsWithWhichOrganizationTheyWouldNotBe(t *testing.T) {
	r, here := &Route{Name: "bank", Access: Access{Rules: []Rule{{Orgs: []string{"birch"}}}}}, new(ines(acme))
	if v := decideFor(Facts{}, r, ines(acme)); v.Outcome != Deny || v.Reason != ReasonNoRule {
		t.Fatalf("%+v", v)
	}
	if got := SwitchTo(Facts{}, r, here); !slices.Equal(got, []identity.Org{birch}) {
		t.Errorf("may switch to %v", got)
	}
	if got := SwitchTo(Facts{}, &Route{Access: Access{Rules: []Rule{{Orgs: []string{"cedar"}}}}}, here); got != nil {
		t.Errorf("may switch to %v", got)
	}
	socket := Facts{WebSocket: true, Origin: "https://evil.test"} // which no organization may open
	if got := SwitchTo(socket, r, here); got != nil || here.Org != acme {
		t.Errorf("may switch to %v, is here for %v", got, here.Org)
	}
	if got := SwitchTo(socket, &Route{Access: Access{Public: true}}, nil); got != nil {
		t.Errorf("nobody may switch to %v", got)
	}
}
