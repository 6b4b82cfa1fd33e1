package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sallyport-proxy/sallyport/login"
)

func TestBearerAndGroupsAreRead(t *testing.T) {
	c := parse(t, string(read(t, "testdata/good/bearer.yaml")))
	want := Bearer{Provider: "main", Audiences: []string{"https://app.example.com/api", "api"},
		Claims: Claims{Groups: "roles", OrgID: "tenant"}}
	if got := c.Routes[1].Bearer; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if b := c.Routes[0].Bearer; !reflect.DeepEqual(b, Bearer{}) {
		t.Errorf("a route without: %+v", b)
	}
	o := login.BearerOptions{Audiences: []string{"0aa0e6f4-5b1c-4a41-9d5c-6f5d1f7c2b11"},
		ClientIDs: []string{"entra-sign-in"}, Quirks: []string{"any_typ"}}
	if got := c.BearerOptions(c.Routes[2].Bearer); !reflect.DeepEqual(got, o) {
		t.Errorf("options %+v", got)
	}
}

// RFC 8725 §2.8: a client id that stands elsewhere is known after Resolve only,
// and an audience must not be it then either.
func TestP21_AnAudienceIsNoClientIDOnceThatIsKnown(t *testing.T) {
	for id, faulty := range map[string]bool{"another": false, "api": true, "https://app.example.com/api": true} {
		c := parse(t, string(read(t, "testdata/good/bearer.yaml")))
		if faults := c.BearerFaults(); faults != nil {
			t.Fatal(faults)
		}
		env := map[string]string{"CLIENT_ID": id, "CLIENT_SECRET": "x", "ENTRA_SECRET": "x"}
		if faults := resolve(c, env, fstest.MapFS{"run/secrets/session-key": aFile(0o600, "k")}); faults != nil {
			t.Fatal(faults)
		}
		faults := c.BearerFaults()
		if (len(faults) == 1) != faulty || (faulty && (faults[0].Path != "routes[1].bearer.audiences" ||
			!strings.Contains(faults[0].Message, "client id of a sign-in") || faults[0].Excerpt == "")) {
			t.Errorf("%s: %v", id, faults)
		}
	}
}

func TestKeptGroups(t *testing.T) {
	const rules = "allow:\n      - {groups: [b, a]}\n      - {groups: [b], emails: [x@example.com]}"
	for _, row := range []struct {
		allow, keep string
		want        []string // nil: all
	}{
		{"", "", nil},
		{rules, "", nil},
		{rules, "groups: {}", nil},
		{rules, "groups: {keep: needed}", nil},
		{rules, "groups: {keep: all}", nil},
		{rules, "groups: {keep: rules}", []string{"b", "a", "b"}},
		{"", "groups: {keep: rules}", []string{}},
		{rules, "groups: {keep: rules}\noperators: [{groups: [o]}]", []string{"b", "a", "b", "o"}},
		{rules, "groups: {keep: [c, all]}", []string{"c", "all"}},
	} {
		text := valid
		if row.allow != "" {
			text = with(t, "allow: authenticated", row.allow)
		}
		if got := parse(t, text+row.keep).KeptGroups(); !slices.Equal(got, row.want) ||
			(got == nil) != (row.want == nil) {
			t.Errorf("%s: %#v, want %#v", row.keep, got, row.want)
		}
	}
}

// An app that is proved by its service account is read, also beside a token that it replaces,
// and a token that the API of the cluster would take too is warned of.
func TestABearerOfAnAppIsRead(t *testing.T) {
	text := string(read(t, "testdata/bad/grants-bearer-subject-of-two.yaml"))
	text, _, _ = strings.Cut(text, "    - id: other\n")
	c := parse(t, text)
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings %v", w)
	}
	want := AppBearer{Bearer: Bearer{Provider: "cluster", Audiences: []string{"sallyport-grants"}},
		Subjects: []string{"system:serviceaccount:team:planner"}}
	if got := c.Grants.Apps[0].Bearer; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	c = parse(t, strings.Replace(text, "      bearer:", "      token: env:TOKEN\n      bearer:", 1))
	if a := c.Grants.Apps[0]; len(a.Tokens) != 1 || a.Bearer.Provider != "cluster" {
		t.Errorf("beside a token: %+v", a)
	}
	c = parse(t, strings.Replace(text, "sallyport-grants", "https://kubernetes.default.svc", 1))
	if w := c.Warnings(); len(w) != 1 || w[0].Path != "grants.apps[0].bearer.audiences[0]" {
		t.Errorf("warnings %v", w)
	}
}

// Two providers may have one issuer: then a token is of both, and proves one app all the same.
func TestP12_ASubjectOfOneIssuerIsOneApps(t *testing.T) {
	text := string(read(t, "testdata/bad/grants-bearer-subject-of-two.yaml"))
	const cluster = "  - {id: cluster, type: oidc, use: tokens, issuer: \"https://kubernetes.default.svc\"}\n"
	before, second, _ := strings.Cut(text, "    - id: other\n")
	both := func(issuer string) string {
		return strings.Replace(before, cluster, cluster+strings.NewReplacer("id: cluster", "id: again",
			"https://kubernetes.default.svc", issuer).Replace(cluster), 1) + "    - id: other\n" +
			strings.Replace(second, "provider: cluster", "provider: again", 1)
	}
	if got := faultOf(t, both("https://kubernetes.default.svc")); !strings.Contains(got,
		"grants.apps[1].bearer.subjects[0]: is a subject of app planner too") {
		t.Error(got)
	}
	parse(t, both("https://another.cluster.example.com"))
}
