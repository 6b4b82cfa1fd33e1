package identity

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// someOrganizations has one that two providers know, one of theirs alone, and
// one that is known by its addresses.
func someOrganizations(t testing.TB) *Organizations {
	t.Helper()
	o, err := NewOrganizations([]Organization{
		{ID: "acme", Name: "Acme Rockets", Domain: "acme.test", OrgIDs: []string{"entra:7c", "google:acme.test"},
			EmailDomains: []string{"acme.test", "rockets.test"}},
		{ID: "birch", Name: "Birch Bank", OrgIDs: []string{"entra:b1"}},
		{ID: "cedar", Name: "Cedar Care", EmailDomains: []string{"cedar.test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestP01_OrganizationsAreFoldedFromWhatCanBeTrusted(t *testing.T) {
	orgs := someOrganizations(t)
	var (
		acme  = Org{"acme", "Acme Rockets", "acme.test", "config"}
		birch = Org{"birch", "Birch Bank", "", "config"}
		cedar = Org{"cedar", "Cedar Care", "", "config"}
		other = Org{"entra:zz", "Zeta", "zeta.test", "claim"}
	)
	told := func(ids ...string) (list []Org) {
		for _, id := range ids {
			list = append(list, Org{ID: id, Name: "told " + id, Domain: "told.test", Source: "claim"})
		}
		return list
	}
	one := func(id string) Org { return told(id)[0] }
	for _, tc := range []struct {
		name     string
		provider string // "" is entra
		org      Org
		orgs     []Org
		unknown  bool
		email    string // verified; "?" before it means not
		wantOrg  Org
		wantOrgs []Org
	}{
		{name: "nothing is known"},
		{name: "an id that is listed", org: one("entra:7c"), wantOrg: acme},
		{name: "another of its ids", provider: "google", org: one("google:acme.test"), wantOrg: acme},
		{name: "an id that is not listed stays itself", org: other, wantOrg: other},
		{name: "a verified address", email: "mira@acme.test", wantOrg: acme},
		{name: "its second domain", email: "mira@rockets.test", wantOrg: acme},
		{name: "the domain in capitals", email: "mira@ACME.Test", wantOrg: acme},
		{name: "an organization without ids", email: "c@cedar.test", wantOrg: cedar},

		// An org that the provider asserted wins, whatever the address says.
		{name: "listed id before address", org: one("entra:b1"), email: "mira@acme.test", wantOrg: birch},
		{name: "unlisted id before address", org: other, email: "mira@acme.test", wantOrg: other},
		{name: "several ids before address", orgs: []Org{one("entra:b1"), other}, email: "mira@acme.test",
			wantOrgs: []Org{birch, other}},

		// An address that nobody verified is nobody's (SECURITY.md P1; issue 4).
		{name: "unverified address", email: "?mira@acme.test"},
		{name: "unverified address beside an id", org: other, email: "?mira@acme.test", wantOrg: other},
		{name: "domain below", email: "mira@x.acme.test"},
		{name: "domain above", email: "mira@test"},
		{name: "domain that ends alike", email: "mira@evilacme.test"},
		{name: "domain that goes on", email: "mira@acme.test.evil"},
		{name: "dot at its end", email: "mira@acme.test."},
		{name: "the domain alone", email: "acme.test"},
		{name: "no local part", email: "@acme.test"},
		{name: "two @ (CVE-2026-40574)", email: "mallory@evil.test@acme.test"},
		{name: "two @ the other way round", email: "mallory@acme.test@evil.test"},
		{name: "long s", email: "mira@rocket\u017F.test"},
		{name: "line at the end", email: "mira@acme.test\n"},

		// What could not be read is not "none".
		{name: "unreadable", unknown: true},
		{name: "unreadable before address", unknown: true, email: "mira@acme.test"},
		{name: "unreadable beside others", unknown: true, org: one("entra:7c"), orgs: []Org{one("entra:7c"), other},
			email: "mira@acme.test"},

		// A provider can name only organizations of its own.
		{name: "another provider's id", provider: "google", org: one("entra:7c")},
		{name: "another provider's id, and an address", provider: "google", org: one("entra:7c"),
			email: "mira@acme.test"},
		{name: "another provider's among its own", provider: "google", orgs: told("entra:b1", "google:acme.test"),
			wantOrg: acme},
		{name: "an id of the configuration", org: one("acme")},
		{name: "an id of the configuration below its own", org: one("entra:acme"), wantOrg: one("entra:acme")},
		{name: "another provider's id below its own", org: one("entra:google:acme.test"),
			wantOrg: one("entra:google:acme.test")},
		{name: "a provider whose name begins alike", provider: "ent", org: one("entra:7c")},
		{name: "a listed id in capitals is another id", org: one("entra:7C"), wantOrg: one("entra:7C")},
		{name: "an id without an id", org: Org{ID: "entra:", Name: "x"}},
		{name: "a name without an id", org: Org{Name: "Acme"}, email: "mira@acme.test", wantOrg: acme},

		// Of several none is active; the same one told twice is one.
		{name: "two", orgs: []Org{one("entra:7c"), other}, wantOrgs: []Org{acme, other}},
		{name: "two, and one of them said to be active", org: other, orgs: []Org{one("entra:7c"), other},
			wantOrg: other, wantOrgs: []Org{other, acme}},
		{name: "one in a list", orgs: told("entra:7c"), wantOrg: acme},
		{name: "one twice", orgs: []Org{other, other}, wantOrg: other},
		{name: "one as itself and in the list", org: other, orgs: []Org{other}, wantOrg: other},
		{name: "two ids of one", provider: "google", orgs: told("google:acme.test", "google:acme.test"), wantOrg: acme},
		{name: "empty ones in the list", orgs: []Org{{}, other, {}}, wantOrg: other},
		{name: "only empty ones", orgs: []Org{{}, {}}, email: "mira@acme.test", wantOrg: acme},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := Identity{Provider: tc.provider, Subject: "s", Org: tc.org, Orgs: tc.orgs, OrgUnknown: tc.unknown,
				Groups: []string{"g"}}
			if tc.provider == "" {
				id.Provider = "entra"
			}
			address, unverified := strings.CutPrefix(tc.email, "?")
			id.Email, id.EmailVerified = address, !unverified && address != ""
			want := id
			want.Org, want.Orgs = tc.wantOrg, tc.wantOrgs
			got := orgs.Fold(id)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %+v\nwant %+v, %+v", got.Org, got.Orgs, want.Org, want.Orgs)
			}
			if got.MustPick() != (len(tc.wantOrgs) > 0 && tc.wantOrg.ID == "") {
				t.Errorf("must pick: %t", got.MustPick())
			}
			if again := orgs.Fold(id); !reflect.DeepEqual(again, got) {
				t.Errorf("folded differently: %+v", again)
			}
		})
	}
}

// Two tenants of one provider that are one organization leave nothing to pick.
func TestFoldingSeveralIDsIntoOneLeavesOne(t *testing.T) {
	orgs, err := NewOrganizations([]Organization{{ID: "acme", Name: "Acme", OrgIDs: []string{"entra:1", "entra:2"}}})
	if err != nil {
		t.Fatal(err)
	}
	got := orgs.Fold(Identity{Provider: "entra", Orgs: []Org{{ID: "entra:1"}, {ID: "entra:2"}}})
	if got.Org != (Org{"acme", "Acme", "", "config"}) || got.Orgs != nil || got.MustPick() {
		t.Errorf("%+v", got)
	}
}

func TestWithoutAConfigurationNothingIsFolded(t *testing.T) {
	var none *Organizations
	id := Identity{Provider: "entra", Email: "mira@acme.test", EmailVerified: true,
		Org: Org{ID: "entra:7c", Name: "Acme"}}
	if got := none.Fold(id); !reflect.DeepEqual(got, id) {
		t.Errorf("%+v", got)
	}
	id.Org = Org{}
	if got := none.Fold(id); !reflect.DeepEqual(got, id) {
		t.Errorf("%+v", got)
	}
}

func TestOrganizationsNobodyCouldTellApartAreRefused(t *testing.T) {
	acme := Organization{ID: "acme", Name: "Acme", OrgIDs: []string{"a:1", "a:2"}, EmailDomains: []string{"acme.test"}}
	for name, tc := range map[string]struct {
		second Organization
		want   []OrganizationError
	}{
		"the same id": {Organization{ID: "acme"}, []OrganizationError{{1, "id", 0, "is already that of the " +
			"organization Acme; capitals make no difference"}}},
		"the id in capitals": {Organization{ID: "ACME"}, []OrganizationError{{1, "id", 0, "is already that of the " +
			"organization Acme; capitals make no difference"}}},
		"an id with a colon": {Organization{ID: "a:3"}, []OrganizationError{{1, "id", 0, "must not be empty or have " +
			"a colon, which only the ids of providers have"}}},
		"no id": {Organization{}, []OrganizationError{{1, "id", 0, "must not be empty or have a colon, " +
			"which only the ids of providers have"}}},
		"the same org_id": {Organization{ID: "b", OrgIDs: []string{"a:3", "a:2"}}, []OrganizationError{{1,
			"org_ids", 1, "is already given to the organization acme; nobody could tell which one is meant"}}},
		"twice in one": {Organization{ID: "b", OrgIDs: []string{"a:3", "a:3"}}, []OrganizationError{{1,
			"org_ids", 1, "is already given to the organization b; nobody could tell which one is meant"}}},
		"the same domain": {Organization{ID: "b", EmailDomains: []string{"acme.test"}}, []OrganizationError{{1,
			"email_domains", 0, "is already given to the organization acme; nobody could tell which one is meant"}}},
		"the domain in caps": {Organization{ID: "b", EmailDomains: []string{"Acme.Test"}}, []OrganizationError{{1,
			"email_domains", 0, "is already given to the organization acme; nobody could tell which one is meant"}}},
		"everything": {acme, []OrganizationError{{1, "id", 0, "is already that of the organization Acme; " +
			"capitals make no difference"}, {1, "org_ids", 0, ""}, {1, "org_ids", 1, ""}, {1, "email_domains", 0, ""}}},
		"nothing in common": {Organization{ID: "b", OrgIDs: []string{"b:1"}, EmailDomains: []string{"sub.acme.test"}},
			nil},
		"an org_id elsewhere": {Organization{ID: "b", OrgIDs: []string{"acme.test"}}, nil},
	} {
		o, err := NewOrganizations([]Organization{acme, tc.second})
		var got []OrganizationError
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				var fault *OrganizationError
				if !errors.As(err, &fault) {
					t.Fatalf("%s: %T", name, err)
				}
				got = append(got, *fault)
			}
		}
		for i := range tc.want {
			if tc.want[i].Why == "" && i < len(got) {
				tc.want[i].Why = got[i].Why
			}
		}
		if !reflect.DeepEqual(got, tc.want) || (o == nil) != (tc.want != nil) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestPeoplePickOnlyTheirOwnOrganizations(t *testing.T) {
	id := Identity{Orgs: []Org{{ID: "acme", Name: "Acme"}, {ID: "birch"}}}
	if !id.MustPick() {
		t.Error("nothing to pick")
	}
	got, ok := id.WithOrg("acme")
	if !ok || got.Org != id.Orgs[0] || got.MustPick() || id.Org.ID != "" {
		t.Errorf("%t %+v", ok, got)
	}
	for _, foreign := range []string{"", "Acme", "cedar", "acme "} {
		if got, ok := id.WithOrg(foreign); ok || got.Org.ID != "" {
			t.Errorf("picked %q: %+v", foreign, got.Org)
		}
	}
	if (Identity{}).MustPick() || (Identity{Org: Org{ID: "acme"}}).MustPick() {
		t.Error("who belongs to none, or to one, need not pick")
	}
}

// Whatever a provider says, nobody ends up in an organization of another
// provider, or in one of the configuration that does not list what was said.
func FuzzFold(f *testing.F) {
	orgs := someOrganizations(f)
	f.Add("entra", "entra:7c", "entra:b1", "mira@acme.test", true)
	f.Add("google", "acme", "google:acme.test", "mira@acme.test@x", false)
	f.Fuzz(func(t *testing.T, provider, first, second, email string, verified bool) {
		id := Identity{Provider: provider, Org: Org{ID: first}, Orgs: []Org{{ID: first}, {ID: second}}, Email: email,
			EmailVerified: verified}
		got := orgs.Fold(id)
		for _, org := range append([]Org{got.Org}, got.Orgs...) {
			switch {
			case org == Org{}:
			case org.Source == SourceConfig:
				byID := orgs.byID[first] == org && strings.HasPrefix(first, provider+":") || orgs.byID[second] == org &&
					strings.HasPrefix(second, provider+":")
				byEmail := first == "" && second == "" && verified && strings.Count(email, "@") == 1
				if !byID && !byEmail {
					t.Errorf("%+v became %+v", id, org)
				}
			case !strings.HasPrefix(org.ID, provider+":") || org.ID != first && org.ID != second:
				t.Errorf("%+v became %+v", id, org)
			}
		}
		if len(got.Orgs) == 1 || got.Org.ID != "" && len(got.Orgs) > 0 && !slices.Contains(got.Orgs, got.Org) {
			t.Errorf("neither one nor several: %+v", got)
		}
	})
}
