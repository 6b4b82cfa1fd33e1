package importer

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
)

// FuzzOpenPaths: a path that is said to be open is one that the pattern matches, and a pattern
// of which all is said matches nothing else.
func FuzzOpenPaths(f *testing.F) {
	for _, pattern := range []string{"^/a(/|$)", "^/a/.+$", "^/(a|b)/?$", "^/[ab]", ".*", "/", "^/a.b$", "(?i)^/a", "^/a$|/b"} {
		for _, path := range []string{"/", "/a", "/a/", "/a/b", "/ab", "/b/c", "/A"} {
			f.Add(pattern, path)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if strings.ContainsAny(path, "\n") || !strings.HasPrefix(path, "/") {
			return // Sallyport refuses control characters in a path
		}
		reaches, err := openPaths(pattern)
		if err != nil {
			return
		}
		open := false
		for _, r := range reaches {
			open = open || r.coversPath(path)
		}
		if matches := regexp.MustCompile(pattern).MatchString(path); matches != open {
			t.Errorf("%q matches %q: %t, and routes open it: %t (%v)", pattern, path, matches, open, reaches)
		}
	})
}

// FuzzImport: whatever is read, what comes out is a valid configuration without the secret, or
// an error without it.
func FuzzImport(f *testing.F) {
	for _, inputs := range shapes(f) {
		for _, in := range inputs {
			f.Add(in.Data, false)
		}
	}
	f.Add([]byte("OAUTH2_PROXY_CLIENT_SECRET=KEEP-OUT"), true)
	f.Fuzz(func(t *testing.T, data []byte, env bool) {
		res, err := Import([]Input{{Name: "in", Data: data, Env: env}})
		if err != nil {
			if strings.Contains(err.Error(), "KEEP-OUT") {
				t.Errorf("repeats a secret: %v", err)
			}
			return
		}
		cfg, faults := config.Parse("in", res.Config)
		if len(faults) == 0 {
			_, faults = assemble.NewPolicy(cfg)
		}
		if len(faults) > 0 {
			t.Errorf("%v\nin\n%s", faults, res.Config)
		}
	})
}
