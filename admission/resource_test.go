package admission

import (
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// Which part of a host a question for protected resource metadata is about.
func TestMetadataIsThereForRoutesThatTakeTokensAndNothingElse(t *testing.T) {
	t.Parallel()
	h := newHouse(t, tokens{})
	for path, want := range map[string]string{
		ResourcePath + "/api":          "api",
		ResourcePath + "/api/jobs?x":   "api", // a program that asks about an address below it
		ResourcePath:                   "",    // the app at / takes sessions
		ResourcePath + "/":             "",
		ResourcePath + "/admin":        "",
		ResourcePath + "/open":         "",
		ResourcePath + "x/api":         "",
		ResourcePath + "/nothing":      "",
		"/api" + ResourcePath + "/api": "",
		ResourcePath + "/API":          "", // ambiguous
	} {
		f, err := authz.NewFacts("GET", "https", host, path)
		testenv.Check(t, err)
		got := ""
		if r := h.Resource(f); r != nil {
			got = r.Name
		}
		if got != want {
			t.Errorf("%s is about %q, want %q", path, got, want)
		}
	}
}
