package authz

import (
	"errors"
	"strings"
	"testing"
)

func davFacts(t testing.TB, method, target string) Facts {
	t.Helper()
	f, err := NewFacts(method, "https", host, target)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What a Destination header names is read as strictly as a request line.
func TestP03_DestinationIsReadLikeARequestLine(t *testing.T) {
	f := davFacts(t, "MOVE", "/open/x")
	for value, want := range map[string]string{ // "": ambiguous, "502": another origin
		"/open/y": "/open/y", "/open/%79": "/open/y", "/a b": "/a%20b", "/x/": "/x/", "/x?q=1": "/x",
		"https://app.example.com/admin/y": "/admin/y", "HTTPS://APP.example.com.:443/%61": "/a",
		"https://app.example.com":  "/",
		"http://app.example.com/y": "502", "https://app.example.com:8443/y": "502", "https://other.example/y": "502",
		"https://app.example.com.evil.example/y": "502", "https://xapp.example.com/": "502",
		"": "", "*": "", "y": "", "../y": "", "//other.example/y": "", `/\other.example`: "",
		"ftp://app.example.com/y": "", "https://": "", "https:///y": "", "https://a@app.example.com/y": "",
		`https://app.example.com\@evil/`: "",
		"/open/../admin":                 "", "/open/%2e%2e/admin": "", "/open/..%2fadmin/..": "", "/a#b": "",
		"/%00": "", "/a%zz": "",
		`/a\b`: "", "https://app.example.com//admin": "", "/a?b c": "", "https://app.example.com:x/": "",
	} {
		d, err := f.Destination(value)
		switch {
		case want == "" && !errors.Is(err, ErrTarget), want == "502" && !errors.Is(err, ErrOtherOrigin):
			t.Errorf("%q → %+v, %v", value, d, err)
		case strings.HasPrefix(want, "/") && (err != nil || d.Path != want || d.Host != host || d.Scheme != "https" ||
			d.Method != "MOVE"):
			t.Errorf("%q → %+v, %v; want %s", value, d, err, want)
		}
	}
	for method, names := range map[string]bool{"COPY": true, "MOVE": true, "move": true, "Copy": true, "PUT": false,
		"MKCOL": false, "GET": false} {
		if NamesDestination(method) != names {
			t.Error(method)
		}
	}
}

// A folder is taken along with all that is in it.
func TestP03_AFolderIsNotCarriedPastTheRulesBelowIt(t *testing.T) {
	all, some := Access{Public: true}, Access{Authenticated: true}
	table := mustTable(t, Route{Name: "open", Host: host, Path: "/open", Access: all},
		Route{Name: "twin", Host: host, Path: "/open/twin", Access: all},
		Route{Name: "private", Host: host, Path: "/open/a/Private", Access: some},
		Route{Name: "elsewhere", Host: host, Path: "/open/b/x", Access: some},
		Route{Name: "one", Host: host, Path: "/open/one", Exact: true, Access: some},
		Route{Name: "root", Host: host, Path: "/", Exact: true, Access: all})
	for path, want := range map[string]string{
		"/open": "private", "/open/": "private", "/open/a": "private", "/open/a/": "private", "/open/a/x": "",
		"/open/a/Private": "", "/open/a/Private/x": "", "/open/b": "", "/open/twin": "",
		"/open/one": "open", "/open/x": "", "/": "private", "/open/a;v=1": "private", "/open/A": "private",
	} {
		f := davFacts(t, "MOVE", path)
		r, err := table.Lookup(f)
		if err != nil {
			t.Fatal(path, err)
		}
		got := ""
		if other := table.CarriedAlong(f, r, func(r *Route) bool { return r.Name != "elsewhere" }); other != nil {
			got = other.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func FuzzDestination(f *testing.F) {
	for _, tc := range pathCases {
		f.Add(tc.raw)
		f.Add("https://" + host + tc.raw)
	}
	f.Add("http://" + host + ":443/x")
	from := davFacts(f, "COPY", "/x")
	f.Fuzz(func(t *testing.T, value string) {
		d, err := from.Destination(value)
		if err != nil {
			if !errors.Is(err, ErrTarget) && !errors.Is(err, ErrOtherOrigin) {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		if d.Host != host || d.Scheme != "https" || d.OwnOrigin() != from.OwnOrigin() ||
			!strings.HasPrefix(d.Path, "/") || strings.HasPrefix(d.Path, "//") {
			t.Errorf("%q → %+v", value, d)
		}
		target := d.Path
		if d.HasQuery {
			target += "?" + d.RawQuery
		}
		for _, form := range []string{target, d.Scheme + "://" + d.Authority + target} { // as they are forwarded
			if again, err := from.Destination(form); err != nil || again.Path != d.Path || again.Host != d.Host ||
				again.RawQuery != d.RawQuery {
				t.Errorf("%q → %q → %+v, %v", value, form, again, err)
			}
		}
	})
}
