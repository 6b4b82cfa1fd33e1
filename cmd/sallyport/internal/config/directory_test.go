package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhoMayHaveADirectoryRead(t *testing.T) {
	file := func(store, provider string) string {
		return "version: 1\npublic_url: https://app.example.com\nsession: {keys: [file:/k]}\n" + store +
			"providers:\n  - " + provider +
			"\nroutes: [{name: app, path: /, upstream: http://127.0.0.1:1, allow: authenticated}]\n"
	}
	const store = "store: sqlite:/var/lib/sallyport/sallyport.db\n"
	google := func(more string) string {
		return "{id: google, type: google, client_id: x, client_secret: file:/s" + more + "}"
	}
	c, faults := Parse("f", []byte(file(store, google(
		`, directory: {managed_by: [ann@example.com, "google:104", Bob@Example.com, "google:105"]}`))))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	want := []Rule{{Emails: []string{"ann@example.com"}}, {Emails: []string{"Bob@Example.com"}},
		{Subjects: []string{"google:104", "google:105"}}}
	if got := c.Providers[0].Directory.Rules(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
	if o := c.Providers[0].Options(); !o.Directory.On {
		t.Error("login is not told of it")
	}
	for name, tt := range map[string]struct{ file, says string }{
		"no store": {file("", google(`, directory: {managed_by: [ann@example.com]}`)), "needs a `store`"},
		"nobody":   {file(store, google(`, directory: {managed_by: []}`)), "managed_by"},
		"no list":  {file(store, google(`, directory: {}`)), "managed_by"},
		"a domain": {file(store, google(`, directory: {managed_by: [example.com]}`)), "must be an address"},
		"everybody of a domain": {file(store, google(`, directory: {managed_by: ["*@example.com"]}`)),
			"must be an address"},
		"everybody of a provider": {file(store, google(`, directory: {managed_by: ["google:*"]}`)),
			"must be an address"},
		"another provider's": {file(store, google(`, directory: {managed_by: ["sso:104"]}`)),
			`somebody of the provider "sso"`},
		"another type": {file(store, "{id: m, type: microsoft, tenant: common, client_id: x, client_secret: file:/s, "+
			"directory: {managed_by: [ann@example.com]}}"), "is for type google"},
		"the organization's claim": {file(store, google(`, claims: {org_id: x}, directory: {managed_by: [a@example.com]}`)),
			"it is not the Workspace then"},
		"an origin with a path": {file(store, google(`, directory: {managed_by: [a@example.com], `+
			`base_url: "https://x.example/y"}`)), "base_url"},
	} {
		_, faults := Parse("f", []byte(tt.file))
		if !strings.Contains(fmt.Sprint(faults), tt.says) {
			t.Errorf("%s: %v", name, faults)
		}
	}
}
