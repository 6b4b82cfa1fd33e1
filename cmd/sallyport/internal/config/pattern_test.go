package config

import (
	"strings"
	"testing"
)

// A rule that was written as a pattern protects nothing, and the rule beside it
// opens what was meant to be protected.
func TestP15_APathThatLooksLikeAPatternIsAFault(t *testing.T) {
	for path, want := range map[string]string{
		"/admin/*":         `/admin covers all below it, /admin/x too, not "/admin/*" (did you mean "/admin"?)`,
		"/admin/**":        `(did you mean "/admin"?)`,
		"/admin/.*":        "a path covers all below it, as /admin covers /admin/x",
		"/admin*":          "a path covers all below it, as /admin covers /admin/x",
		"/*":               `/ covers all paths, not "/*" (did you mean "/"?)`,
		"/a/b/*.pdf":       `(did you mean "/a/b"?)`,
		"/reports/{id}":    `a brace itself is written %7B or %7D), not "/reports/{id}" (did you mean "/reports"?)`,
		"/reports/{id}/x":  `(did you mean "/reports"?)`,
		"/users/:id":       `(did you mean "/users"?)`,
		"/users/:id/posts": `(did you mean "/users"?)`,
		"/users/<id>":      `(did you mean "/users"?)`,
		"^/admin":          `(did you mean "/admin"?)`,
		"~ ^/admin/":       `(did you mean "/admin/"?)`,
		"= /admin":         `(did you mean "/admin"?)`,
		"/admin$":          `path_exact covers one path and nothing below it, not "/admin$" (did you mean "/admin"?)`,
		"^/admin(/.*)?$":   "a path covers all below it, as /admin covers /admin/x",
		"/(a|b)":           "paths are literal",
		"/v[12]/x":         "paths are literal",
		`/v\d+`:            "paths are literal",
		"/x.+":             "paths are literal",
		".*":               "paths are literal",
		"*.png":            "paths are literal",
	} {
		for _, key := range []string{"path", "path_exact"} {
			got := faultOf(t, with(t, "path: /\n", key+": '"+path+"'\n"))
			if !strings.Contains(got, "must be one path: paths are literal, so this pattern would match nothing") ||
				!strings.Contains(got, want) {
				t.Errorf("%s: %s: %s\nwant %s", key, path, got, want)
			}
		}
	}
	for _, path := range []string{"/", "/a", "/$batch", "/odata/$metadata", "/a:b", "/:w:/x", "/c++", "/wiki/A_(b)",
		"/a,b;c=d", "/~ann", "/a%7Bb%7D", "/a.b", "/@x", "/a+b", "/a!b'", "/x=y&z"} {
		if c := parse(t, with(t, "path: /\n", "path: \""+path+"\"\n")); c.Routes[0].Path != path {
			t.Errorf("%s is read as %s", path, c.Routes[0].Path)
		}
	}
}

func TestValuesThatLookLikePatternsAreFaults(t *testing.T) {
	rule := func(r string) []string { return []string{"allow: authenticated", "allow: [" + r + "]"} }
	for name, c := range map[string]struct {
		change []string
		want   string
	}{
		"everybody's address": {rule(`{emails: ["*@example.com"]}`),
			"without patterns; for everybody there write email_domains: [example.com]"},
		"regular expression": {rule(`{emails: [".*@Example.com"]}`), "write email_domains: [example.com]"},
		"anchored": {rule(`{emails: ["^ann@example.com$"]}`),
			"must be an address such as ann@example.com, without patterns"},
		"a domain for an address": {rule(`{emails: ["@example.com"]}`), "write email_domains: [example.com]"},
		"bare domain":             {rule(`{emails: [example.com]}`), "write email_domains: [example.com]"},
		"address below a domain":  {rule(`{emails: ["ann@*.example.com"]}`), "without patterns"},
		"part of an address":      {rule(`{emails: ["ann*@example.com"]}`), "without patterns"},
		"address no one can have": {rule(`{emails: ["ann@a_b.example"]}`), "must be an address"},
		"letters beyond ASCII":    {rule(`{emails: ["änn@example.com"]}`), "in ASCII"},
		"domain with @":           {rule(`{email_domains: ["@example.com"]}`), `(did you mean "example.com"?)`},
		"domain in capitals":      {rule(`{email_domains: [Example.com]}`), `(did you mean "example.com"?)`},
		"subdomains": {rule(`{email_domains: ["*.example.com"]}`),
			`subdomains do not come with it, each is named for itself, not "*.example.com" (did you mean "example.com"?)`},
		"subdomains by a dot":    {rule(`{email_domains: [".example.com"]}`), "subdomains do not come with it"},
		"domain nobody can have": {rule(`{email_domains: [a_b.example]}`), "must be a domain"},
		"all groups": {rule(`{groups: ["*"]}`),
			`must be the name of a group: it is compared as it is, so "*" would match nothing`},
		"all groups, regular": {rule(`{groups: ["^.*$"]}`), "would match nothing"},
		"all organizations":   {rule(`{orgs: ["sso:*"]}`), "would match nothing"},
		"all kept":            {[]string{"routes:", "groups: {keep: [\"*\"]}\nroutes:"}, "would match nothing"},
		"any host":            {[]string{"path: /\n", "path: /\n    host: '*'\n"}, "for all below a domain"},
		"host with a dot before": {[]string{"path: /\n", "path: /\n    host: .example.com\n"},
			`(did you mean "*.example.com"?)`},
		"host in capitals": {[]string{"path: /\n", "path: /\n    host: App.Example.com\n"},
			`(did you mean "app.example.com"?)`},
		"host with a port": {[]string{"path: /\n", "path: /\n    host: app.example.com:8443\n"},
			`(did you mean "app.example.com"?)`},
		"part of a label": {[]string{"path: /\n", "path: /\n    host: 'app-*.example.com'\n"},
			"must be a host name"},
		"hosts below, twice": {[]string{"path: /\n", "path: /\n    host: '**.example.com'\n"}, "must be a host name"},
		"another placeholder": {[]string{"path: /\n", "path: /\n    host: '{tenant}.example.com'\n"},
			"must be a host name"},
		"header names": {[]string{"path: /\n", "path: /\n    headers: {set: {\"X-*\": groups}}\n"},
			"is not the name of a header"},
		"provider's domains": {[]string{"client_id:", "email_domains: ['*']\n    client_id:"}, "must be a domain"},
		"upstream":           {[]string{"http://127.0.0.1:8080", "'http://{org}.internal'"}, "must be an absolute URL"},
		"proxies": {[]string{"routes:", "trusted_proxies: ['10.0.0.*']\nroutes:"},
			"must be an address such as 192.0.2.7 or a range"},
	} {
		if got := faultOf(t, with(t, c.change...)); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
	for _, r := range []string{`{emails: ["ann+x@example.com", "o'neil@sub.example.com", "Ann.B@EXAMPLE.com", "a/b@localhost"]}`, `{groups: ["/team/x", "a (b)", "CN=x,DC=y", "50%"]}`, `{orgs: ["main:*x"]}`} {
		parse(t, with(t, rule(r)...))
	}
}

func TestNamesThatLookLikePatternsAreWarnedOf(t *testing.T) {
	c := parse(t, with(t, "allow: authenticated",
		`allow: [{groups: [team-*, "^ops$", /dev/, plain, a-b], orgs: ["main:acme-*"]}]`)+"groups: {keep: "+
		"[team-*]}\noperators: [{groups: ['{org}-admins']}]\n")
	var got []string
	for _, w := range c.Warnings() {
		got = append(got, w.Path+" "+w.Message)
	}
	for _, want := range []string{"routes[0].allow[0].groups[0]", "routes[0].allow[0].groups[1]",
		"routes[0].allow[0].groups[2]", "routes[0].allow[0].orgs[0]", "groups.keep[0]", "operators[0].groups[0]"} {
		if !strings.Contains(strings.Join(got, "\n"), want+" is compared as it is: no sign in ") {
			t.Errorf("no warning about %s in %q", want, got)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d warnings, want 6: %q", len(got), got)
	}
}
