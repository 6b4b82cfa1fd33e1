package extauthz

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// guide is a page about a front.
func guide(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/fronts/" + name)
	testenv.Check(t, err)
	return string(text)
}

// between is the part of a text from one mark to the next.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, from)
	part, _, there := strings.Cut(rest, to)
	if !ok || !there {
		t.Fatalf("there is no part from %q to %q", from, to)
	}
	return part
}

// Envoy tells over HTTP what the guide lists, so it must list all that is read, and what
// is only looked for to refuse it.
func TestTheGuideForEnvoyNamesAllThatIsRead(t *testing.T) {
	list := between(t, guide(t, "envoy.md"), "  allowed_headers:", "  http_service:")
	var exact, prefixes []string
	for _, m := range regexp.MustCompile(`(?m)^    - (exact|prefix): (\S+)$`).FindAllStringSubmatch(list, -1) {
		if m[1] == "exact" {
			exact = append(exact, m[2])
		} else {
			prefixes = append(prefixes, m[2])
		}
	}
	other := regexp.MustCompile("^(?:" + between(t, list, "{regex: '", "'}") + ")$")
	told := func(name string) bool {
		return slices.Contains(exact, name) || other.MatchString(name) ||
			slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	for _, name := range slices.Concat(readNames[:], []string{"X-Forwarded-Proto", "X-Envoy-External-Address",
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Envoy-Internal", "X_Forwarded_User",
		"X.Sallyport-Assertion", "x_http_method_override", "X-Original_Url", "X+Forwarded!Groups",
		"X-Forwarded-Host", "X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL", "Forwarded", "Remote-User",
		"X-Auth-Request-User", "Proxy", "Script-Name", "X-Middleware-Subrequest"}) {
		if !told(strings.ToLower(name)) {
			t.Errorf("%s is read, and Envoy does not tell it", name)
		}
	}
	for _, prefix := range readPrefixes {
		if !slices.Contains(prefixes, strings.ToLower(prefix)) {
			t.Errorf("%s… is read, and Envoy does not tell it", prefix)
		}
	}
	headers := identity.NewHeaders()
	for _, name := range exact { // and nothing is told for nothing
		canonical := http.CanonicalHeaderKey(name)
		if !isRead(canonical) && !identity.IsMethodOverride(canonical) && name != "x-envoy-internal" &&
			name != "x-envoy-external-address" && !headers.OnlyProxies(canonical) {
			t.Errorf("%s is told, and nobody reads it", name)
		}
	}
	for _, name := range []string{"transfer-encoding", "content-length", ":path", "x-real-ip", "user-agent"} {
		if told(name) {
			t.Errorf("%s is told", name)
		}
	}
}

// A name that a front does not set is the client's to write.
func TestGuidesNameAllThatAnAppIsTold(t *testing.T) {
	headers := identity.NewHeaders()
	fields, _ := identity.Preset(identity.PresetForwarded)
	_, err := headers.Set(fields)
	testenv.Check(t, err)
	want := strings.Split(newHeaderSet(headers, false).list[0], ", ")
	slices.Sort(want)
	upstream := between(t, guide(t, "envoy.md"), "allowed_upstream_headers:", "allowed_client_headers_on_success:")
	var envoy []string
	for _, m := range regexp.MustCompile(`(?m)^        - exact: (\S+)$`).FindAllStringSubmatch(upstream, -1) {
		envoy = append(envoy, m[1])
	}
	ingress := strings.Split(
		strings.ToLower(between(t, guide(t, "ingress-nginx.md"), "/auth-response-headers: ", "\n")), ", ")
	for name, got := range map[string][]string{"envoy.md": envoy, "ingress-nginx.md": ingress} {
		slices.Sort(got)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s names %q, want %q", name, got, want)
		}
	}
}
