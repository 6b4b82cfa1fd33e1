package command

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// TestTheChartsQueriesFindSeries: each alert and each query of the dashboard asks for series
// that a process has once it was used, by labels and with values of labels that they have.
// One process signs people in and fails to, lets them pass and denies, is asked by another
// proxy, and has an app that uses, refreshes and loses a grant; a second has a certificate,
// and an app that is away.
func TestTheChartsQueriesFindSeries(t *testing.T) {
	found := seriesIn(scrapeUsed(t) + "\n" + scrapeSecure(t))
	all := chartQueries(t)
	for _, query := range all {
		for _, lack := range found.lacks(query) {
			t.Errorf("%s: %s", query, lack)
		}
	}
	if len(all) < 15 {
		t.Errorf("the chart has %d queries only", len(all))
	}
	for broken, want := range map[string]string{
		`sallyport_login_total > 0`:                              "no series",
		`sum by (providers) (rate(sallyport_logins_total[5m]))`:  "providers",
		`sallyport_logins_total{result="fine"}`:                  `result="fine"`,
		`sallyport_logins_total{job="x",result=~"ok|fine"}`:      `result=~"ok|fine"`,
		`sallyport_logins_total{mode="verify"}`:                  `mode="verify"`,
		`sallyport_http_request_duration_seconds{job="x"}[5m] `:  "no series",
		`sum by (le) (rate(sallyport_http_requests_total[5m])) `: "le",
	} {
		if lacks := fmt.Sprint(found.lacks(broken)); !strings.Contains(lacks, want) {
			t.Errorf("%s: %s", broken, lacks)
		}
	}
}

// TestTheAlertOnSignInsKnowsEachFailureOfAll: the chart's alert is for those failures that everybody
// meets, and not for those that one person alone can cause.
func TestTheAlertOnSignInsKnowsEachFailureOfAll(t *testing.T) {
	var alert string
	for _, query := range chartQueries(t) {
		if strings.Contains(query, "sallyport_logins_total") && strings.Contains(query, "result=~") {
			alert = query
		}
	}
	results := regexp.MustCompile(`result=~"([^"]+)"`).FindStringSubmatch(alert)
	if results == nil {
		t.Fatalf("the alert is %s", alert)
	}
	ofOne := []identity.SignInFailure{identity.Expired, identity.Declined, identity.NotAdmitted, identity.Interaction,
		identity.Rejected}
	for _, failure := range identity.SignInFailures() {
		if slices.Contains(strings.Split(results[1], "|"), string(failure)) == slices.Contains(ofOne, failure) {
			t.Errorf("%s: %s", failure, alert)
		}
	}
}

// scrapeUsed is /metrics of a process that lends, at the end.
func scrapeUsed(t *testing.T) string {
	asked, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	s := startLending(t, "sqlite:"+filepath.Join(t.TempDir(), "sallyport.db"),
		"listen: {", fmt.Sprintf("listen: {external_auth: %q, ", asked))
	text, err := os.ReadFile(s.config)
	testenv.Check(t, err)
	app := regexp.MustCompile(`upstream: "[^"]+"`).FindString(string(text))
	s.stop(t)
	write(t, s.config, strings.Replace(string(text), "routes: [",
		"routes: [{name: ops, path: /ops, "+app+", allow: [{groups: [ops]}]}, ", 1))
	s.binary.run(t, t.TempDir(), s.config)
	s.connect()
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
		t.Fatalf("the app uses the grant: %d %s", status, body)
	}
	if status, body := s.use("POST", "/gateway/jira/issues"); status != http.StatusForbidden {
		t.Fatalf("the app writes: %d %s", status, body)
	}
	s.there.mu.Lock()
	s.there.access = "another" // so that a refresh is needed
	s.there.mu.Unlock()
	if status, body := s.use("GET", "/gateway/jira/issues"); status != http.StatusOK {
		t.Fatalf("the app uses the grant once more: %d %s", status, body)
	}
	if page := s.browser.Open("http://" + s.public + "/ops"); page.Status != http.StatusForbidden {
		t.Fatalf("what is not for everybody: %d\n%s", page.Status, page.Body)
	}
	req, err := http.NewRequest("GET", "http://"+asked+"/verify", nil)
	testenv.Check(t, err)
	req.Header.Set("X-Original-URL", "http://"+s.public+"/page")
	req.Header.Set("X-Original-Method", "GET")
	res, err := http.DefaultClient.Do(req)
	testenv.Check(t, err)
	if res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
		t.Fatalf("another proxy asks: %d", res.StatusCode)
	}
	s.disconnect()
	account := s.browser.Open("http://" + s.public + "/.sallyport/account")
	s.browser.Post(account, "/.sallyport/logout", nil)
	callback := "http://" + s.public + "/.sallyport/callback/sso?"
	page := s.browser.Open("http://" + s.public + "/page") // at the provider
	page = s.browser.Open(callback + url.Values{"error": {"server_error"}, "state": page.URL.Query()["state"]}.Encode())
	if page.Status != http.StatusServiceUnavailable {
		t.Fatalf("the provider says that it failed: %d\n%s", page.Status, page.Body)
	}
	for _, fault := range []testenv.Fault{
		{Endpoint: testenv.Token, Status: http.StatusServiceUnavailable},
		{Endpoint: testenv.Token, Status: http.StatusUnauthorized, Body: `{"error": "invalid_client"}`},
	} {
		s.sso.Set(fault)
		page = s.browser.SignIn(s.browser.Open("http://"+s.public+"/page"), "mira")
		if page.Status < http.StatusInternalServerError {
			t.Fatalf("a sign-in at a provider that fails: %d\n%s", page.Status, page.Body)
		}
	}
	// A counter is raised after the answer's last byte.
	return s.counted(t, `result="provider_fault"} 1`, `result="unavailable"} 1`, `result="misconfigured"} 1`)
}

// counted is what /metrics says once it has the texts.
func (b *binary) counted(t *testing.T, texts ...string) (metrics string) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("%q in /metrics", texts), func() bool {
		metrics = testenv.BodyOf("http://" + b.admin + "/metrics")
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(metrics, text) })
	})
	return metrics
}

// scrapeSecure is /metrics of a process with a certificate, before an app that is away.
func scrapeSecure(t *testing.T) string {
	f := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	f.Swap(testenv.NewKeyPair(t, "app.example", time.Now().Add(time.Hour)))
	b := &binary{config: filepath.Join(t.TempDir(), "config.yaml")}
	for _, address := range []*string{&b.public, &b.admin} {
		var err error
		*address, err = testenv.UnusedAddress()
		testenv.Check(t, err)
	}
	write(t, b.config, fmt.Sprintf(`version: 1
public_url: https://%[1]s
listen: {https: {address: %[1]q, cert: "file:%[2]s", key: "file:%[3]s"}, admin: %[4]q}
session: {keys: ["literal:%[5]s"]}
providers: [{id: sso, type: oidc, issuer: "http://127.0.0.1:1", client_id: sallyport, client_auth: none}]
routes: [{name: gone, path: /, upstream: "http://127.0.0.1:1", public: true}]
`, b.public, f.Path("tls.crt"), f.Path("tls.key"), b.admin, session.NewKey(time.Now()).Text()))
	b.run(t, t.TempDir(), b.config)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + b.public + "/") // the certificate is this test's own
	testenv.Check(t, err)
	if res.Body.Close(); res.StatusCode != http.StatusBadGateway {
		t.Fatalf("an app that is away: %d", res.StatusCode)
	}
	defer b.stop(t)
	return b.counted(t, "sallyport_upstream_failures_total{")
}

// chartQueries are those of the alerts and of the dashboard.
func chartQueries(t *testing.T) (all []string) {
	rules := read(t, root+"/charts/sallyport/templates/prometheusrule.yaml")
	for _, m := range regexp.MustCompile(`(?m)^ +expr: (.+)$`).FindAllStringSubmatch(rules, -1) {
		query := strings.ReplaceAll(m[1], "{{- $own -}}", `job="web-metrics",namespace="team"`)
		if strings.Contains(query, "{{") || strings.ContainsAny(query[:1], `"'|>`) {
			t.Fatalf("this test cannot read the template's %s", m[1])
		}
		all = append(all, query)
	}
	if n := strings.Count(rules, "- alert:"); n != len(all) || n == 0 {
		t.Fatalf("%d alerts, and %d queries of them", n, len(all))
	}
	var dashboard any
	testenv.Check(t, json.Unmarshal([]byte(read(t, root+"/charts/sallyport/dashboards/sallyport.json")), &dashboard))
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, below := range v {
				walk(below)
			}
		case map[string]any:
			for key, below := range v {
				text, _ := below.(string)
				if key == "expr" || key == "definition" {
					all = append(all, text)
				}
				walk(below)
			}
		}
	}
	walk(dashboard)
	return all
}

// series are the labels of each series, by its name.
type series map[string][]map[string]string

var (
	sample   = regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? [-+.0-9eInfNa]+$`)
	label    = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
	selector = regexp.MustCompile(`(sallyport_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
)

// seriesIn reads Prometheus's text format.
func seriesIn(text string) series {
	all := series{}
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		labels := map[string]string{"job": "", "namespace": ""} // which a scraper adds
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		all[m[1]] = append(all[m[1]], labels)
	}
	return all
}

// lacks says what of a query no series has.
func (s series) lacks(query string) (lacks []string) {
	found := selector.FindAllStringSubmatch(query, -1)
	if len(found) == 0 {
		return []string{"asks for nothing of ours"}
	}
	for _, m := range found {
		if len(s[m[1]]) == 0 {
			lacks = append(lacks, "no series "+m[1])
			continue
		}
		for _, g := range grouping.FindAllStringSubmatch(query, -1) {
			for name := range strings.SplitSeq(g[1], ",") {
				if name = strings.TrimSpace(name); !s.has(m[1], name, nil) {
					lacks = append(lacks, m[1]+" has no label "+name)
				}
			}
		}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if l[1] == "job" || l[1] == "namespace" {
				continue
			}
			alternatives := []string{l[3]}
			if l[2] == "=~" {
				alternatives = strings.Split(l[3], "|")
			}
			for _, value := range alternatives {
				if !s.has(m[1], l[1], &value) {
					lacks = append(lacks, m[1]+" has no "+l[0])
				}
			}
		}
	}
	return lacks
}

// has says whether a series of the name has a label, with a value where that is asked for.
func (s series) has(name, label string, value *string) bool {
	return slices.ContainsFunc(s[name], func(labels map[string]string) bool {
		got, there := labels[label]
		return there && (value == nil || got == *value)
	})
}
