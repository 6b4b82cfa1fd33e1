package login

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

func TestAPathLeadsToANestedClaim(t *testing.T) {
	for _, row := range []struct{ claims, path, want string }{
		{`{"realm_access":{"roles":["a"]}}`, "realm_access.roles", `["a"]`},
		{`{"realm_access.roles":["b"],"realm_access":{"roles":["a"]}}`, "realm_access.roles", `["b"]`},
		{`{"resource_access":{"my.app":{"roles":["a"]}}}`, "resource_access.my.app.roles", `["a"]`},
		{`{"a":{"b.c":1},"a.b":{"c":2}}`, "a.b.c", `2`},
		{`{"a":{"b":{"c":3}}}`, "a.b.c", `3`},
		{`{"a":{"b":null}}`, "a.b", ``}, {`{"a":null}`, "a.b", ``}, {`{"a":{}}`, "a.b", ``}, {`{}`, "a.b", ``},
		{`{"a":"x"}`, "a.b", beyondPath}, {`{"a":{"b":[1]}}`, "a.b.c", beyondPath},
		{`{"a":{"b":1,"b":2}}`, "a.b", beyondPath},
		{`{"a":"x"}`, "a.", beyondPath}, {`{"":{"b":1}}`, ".b", ``},
	} {
		members, err := oauth.Object([]byte(row.claims))
		if err != nil {
			t.Fatal(err)
		}
		p := &Provider{claims: ClaimNames{Groups: row.path}}
		before := len(members)
		if got := string(p.resolvePaths(members)[row.path]); got != row.want || len(members) != before {
			t.Errorf("%s in %s: %q, want %q", row.path, row.claims, got, row.want)
		}
	}
}

// Keycloak's realm roles lie one level down.
func TestGroupsComeFromAPath(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Claims.Groups, o.Needs = "realm_access.roles", Needs{Groups: true} })
	drop := testenv.Without("groups")
	for name, row := range map[string]struct {
		value   any
		want    []string
		unknown bool
	}{
		"roles":            {map[string]any{"roles": []string{"ops", "dev"}}, []string{"ops", "dev"}, false},
		"none":             {map[string]any{"roles": []string{}}, nil, false},
		"no roles":         {map[string]any{}, nil, false},
		"not an object":    {"ops", nil, true},
		"roles of numbers": {map[string]any{"roles": []int{1}}, nil, true},
	} {
		id := w.person(func(c map[string]any) { drop(c); c["realm_access"] = row.value })
		if !slices.Equal(id.Groups, row.want) || id.GroupsUnknown != row.unknown {
			t.Errorf("%s: %q, unknown %v", name, id.Groups, id.GroupsUnknown)
		}
	}
	elsewhere := func(c map[string]any) { drop(c); c["_claim_names"] = map[string]string{"realm_access": "s"} }
	if id := w.person(elsewhere); !id.GroupsUnknown {
		t.Error("groups that are kept elsewhere are none")
	}
}

// A mapped claim that is absent or has another form is logged once, by name and type.
func TestP18_TheLogSaysOnceWhichClaimsCameInsteadOfAMappedOne(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Claims.Groups, o.Claims.Username = "realm_access.roles", "login" })
	for range 3 {
		w.person(func(c map[string]any) { c["login"] = []string{"c4nary-login"}; c["c4nary-name"] = "c4nary-value" })
	}
	log := w.logged()
	info := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"level":"INFO"`) {
			info++
		}
	}
	if info != 2 || !strings.Contains(log, `"claim":"realm_access.roles"`) ||
		!strings.Contains(log, `"claim":"login"`) || !strings.Contains(log, "list of 1 text") ||
		!strings.Contains(log, "c4nary-name") || strings.Contains(log, "c4nary-value") ||
		strings.Contains(log, "c4nary-login") {
		t.Errorf("%d lines at info:\n%s", info, log)
	}
	if !strings.Contains(log, `{"name":"login","from":"ID token","form":"list of 1 text"}`) {
		t.Errorf("in JSON there is no such member:\n%s", log)
	}
	if text := (ClaimForm{"login", "ID token", "list of 1 text"}).String(); text != "login: list of 1 text (ID token)" {
		t.Errorf("a log that is text has %q", text)
	}
	forms := w.p.LastClaims()
	if !slices.Contains(forms, ClaimForm{"login", "ID token", "list of 1 text"}) ||
		!slices.Contains(forms, ClaimForm{"email_verified", "ID token", "boolean"}) {
		t.Errorf("the last claims are %v", forms)
	}
}

// Zitadel says in which organization somebody has a role. It counts there only.
func TestP01_ARoleOfAnotherOrganizationDoesNotCount(t *testing.T) {
	var orgs *identity.Organizations
	w := newWorld(t, func(o *Options) { o.Claims.Groups, o.Claims.Orgs = "roles", "memberships" })
	roles := map[string]any{"admin": map[string]any{"acme": "acme.test"},
		"viewer": map[string]any{"acme": "acme.test", "birch": "birch.test"}, "staff": map[string]any{}}
	for name, row := range map[string]struct {
		org  string
		want []string
	}{
		"at home": {"acme", []string{"staff", "admin", "viewer"}}, "elsewhere": {"birch", []string{"staff", "viewer"}},
		"at a third": {"cedar", []string{"staff"}},
		"nowhere":    {"", []string{"staff"}},
	} {
		id := orgs.Fold(w.person(func(c map[string]any) { c["org_id"], c["roles"] = row.org, roles }))
		if !slices.Equal(id.Groups, row.want) || id.OrgGroups != nil || id.GroupsUnknown {
			t.Errorf("%s: %+v", name, id)
		}
	}
	// Of several organizations each has its own groups, whichever is active.
	id := orgs.Fold(w.person(func(c map[string]any) {
		delete(c, "org_id")
		c["memberships"], c["roles"] = []string{"acme", "birch"}, roles
	}))
	if !slices.Equal(id.Groups, []string{"staff"}) || !id.MustPick() {
		t.Errorf("before a choice: %+v", id)
	}
	for _, step := range []struct {
		org  string
		want []string
	}{{"corp:acme", []string{"staff", "admin", "viewer"}}, {"corp:birch", []string{"staff", "viewer"}},
		{"corp:acme", []string{"staff", "admin", "viewer"}}} {
		if id, _ = id.WithOrg(step.org); !slices.Equal(id.Groups, step.want) {
			t.Errorf("for %s: %q", step.org, id.Groups)
		}
	}
	for name, value := range map[string]any{
		"a yes": map[string]any{"admin": true}, "a no among them": map[string]any{"a": map[string]any{}, "b": false},
		"an organization without id": map[string]any{"a": map[string]any{"": "x"}},
		"a list":                     map[string]any{"a": []string{"acme"}},
	} {
		if id := w.person(func(c map[string]any) { c["roles"] = value }); !id.GroupsUnknown || id.Groups != nil ||
			id.OrgGroups != nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

// Keycloak tells organizations as an object, with ids where the mapper adds them.
func TestOrganizationsComeAsAnObject(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Claims.Orgs = "organization" })
	org := func(id, name string) identity.Org {
		return identity.Org{ID: "corp:" + id, Name: name, Source: "claim"}
	}
	sign := func(value string) (identity.Identity, error) {
		w.op.Set(testenv.Fault{Endpoint: testenv.Token, Claims: func(c map[string]any) {
			delete(c, "org_id")
			c["organization"] = json.RawMessage(value)
		}})
		return w.signIn("mira", identity.AuthParams{})
	}
	for value, want := range map[string][]identity.Org{
		`{"acme":{}}`:            {org("acme", "acme")},
		`{"acme":{"id":"42c3"}}`: {org("42c3", "acme")},
		`{"acme":{"id":"42c3"},"birch":{"id":"7","name":"Birch Bank"}}`: {org("42c3", "acme"), org("7", "Birch Bank")},
		`["acme","birch"]`: {org("acme", ""), org("birch", "")},
		`{}`:               nil,
	} {
		id, err := sign(value)
		got := id.Orgs
		if id.Org.ID != "" && got == nil {
			got = []identity.Org{id.Org}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{`{"42c3":{},"acme":{"id":"42c3"}}`, `{"acme":true}`, `{"acme":null}`,
		`{"acme":{"id":["x","y"]}}`, `{"":{}}`, `{"a":{},"a":{}}`} {
		_, err := sign(value)
		w.failed(err, identity.Rejected)
	}
}

// FuzzFollow: whatever a provider sends, paths change no claim that is there,
// and what comes of them is within bounds.
func FuzzFollow(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"m","a":{"b":{"acme":{"id":"1"},"birch":{"id":"2"}}},"c":{"d":{"admin":{"1":"x"},"staff":{}}}}`,
		`{"sub":"m","a.b":["x",7],"c":{"d":["g"]},"org_id":[7]}`,
		`{"sub":"m","a":"x","c":{"d":{"g":true}},"_claim_names":{"c":"s"}}`,
		`{"sub":"m","a":{"b":null},"c":{"d":{"g":{"":1}}},"org_id":{}}`, `{"sub":"m","org_id":1e5,"_claim_names":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	p, err := New(Options{ID: "corp", Issuer: "https://op.example", ClientID: clientID, RedirectURL: callbackURL,
		Claims: ClaimNames{Orgs: "a.b", Groups: "c.d"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		members, err := oauth.Object(token)
		if err != nil || p.checkSubject(members, "") != nil {
			return
		}
		followed := p.resolvePaths(members)
		for name, raw := range members {
			if string(raw) != "null" && string(followed[name]) != string(raw) {
				t.Errorf("%q became %s", name, followed[name])
			}
		}
		id, err := p.IdentityFromClaims(t.Context(), token)
		if err != nil {
			return
		}
		checkBounds(t, id)
		if id.OrgUnknown && (id.Org != identity.Org{} || id.Orgs != nil) || id.GroupsUnknown && id.OrgGroups != nil &&
			!followed.elsewhere("c.d") {
			t.Errorf("unknown and known: %+v", id)
		}
		for _, folded := range []identity.Identity{(*identity.Organizations)(nil).Fold(id)} {
			for _, g := range folded.Groups {
				if slices.Contains(id.Groups, g) ||
					slices.Contains(id.OrgGroups, identity.OrgGroup{Org: folded.Org.ID, Group: g}) {
					continue
				}
				t.Errorf("group %q counts for %+v", g, folded)
			}
		}
	})
}
