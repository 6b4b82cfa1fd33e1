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
	if got := c.BearerOptions(c.Routes[2]); !reflect.DeepEqual(got, o) {
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
