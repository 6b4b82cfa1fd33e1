package charts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// TestAlertsComeWhereFewPeopleAre: Prometheus' own program runs the chart's alerts over what a
// site counts at night, when somebody comes every quarter of an hour, and where one token matters.
func TestAlertsComeWhereFewPeopleAre(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("SALLYPORT_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("no promtool (Debian: apt-get install prometheus)")
	}
	text := strings.Replace(plain, "config:\n", "config:\n  listen: {admin: \":4181\"}\n", 1) +
		"metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}}\n"
	files, err := helms()[0].render(t, parseValues(t, []byte(text)), false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(files)
	if err != nil {
		t.Fatal(err)
	}
	spec := only[monitoring.PrometheusRule](t, all).Spec
	for _, rule := range spec.Groups[0].Rules {
		clear(rule.Annotations) // words are not what is tested
	}
	rules, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const own = `job="web-sallyport-metrics",namespace="team"`
	down := "alertname: SallyportProviderDown, eval_time: %s, exp_alerts: [{exp_labels: {severity: critical, provider: sso, " +
		"result: unavailable}}]"
	for name, c := range map[string]struct{ series, alert string }{
		"a provider is away all night": {
			`{series: 'sallyport_logins_total{` + own + `,provider="sso",result="unavailable"}', values: '0x30 1x15 2x15 3x15 ` +
				`4x15 5x15 6x15 7x15 8x15'}, {series: 'sallyport_logins_total{` + own + `,provider="sso",result="ok"}', ` +
				`values: '7x300'}`, fmt.Sprintf(down, "100m")},
		"it was away for a moment, and the same people came back": {
			`{series: 'sallyport_logins_total{` + own + `,provider="sso",result="unavailable"}', values: '0x30 3x270'}, ` +
				`{series: 'sallyport_logins_total{` + own + `,provider="sso",result="ok"}', values: '7x33 8x267'}`,
			"alertname: SallyportProviderDown, eval_time: 45m"},
		"each request of an app fails, one in five minutes": {
			`{series: 'sallyport_upstream_failures_total{` + own + `,route="app",kind="unreachable"}', values: '1x5 2x5 3x5 ` +
				`4x5 5x5 6x5 7x5 8x5 9x5 10x5 11x5'}, {series: 'sallyport_http_requests_total{` + own +
				`,route="app",method="GET",code="502"}', values: '1x5 2x5 3x5 4x5 5x5 6x5 7x5 8x5 9x5 10x5 11x5'}`,
			"alertname: SallyportAppsDoNotAnswer, eval_time: 50m, exp_alerts: [{exp_labels: {severity: warning, " +
				"route: app}}]"},
		"a token is in memory only, and whoever restarts the pod loses it": {
			`{series: 'sallyport_grant_results_unsaved{` + own + `,connector="jira",instance="a"}', values: '0x10 1x20'}`,
			"alertname: SallyportGrantResultsUnsaved, eval_time: 15m, exp_alerts: [{exp_labels: {severity: critical, " +
				"connector: jira, instance: a, job: web-sallyport-metrics, namespace: team}}]"},
		"one request of very many fails": {
			`{series: 'sallyport_upstream_failures_total{` + own + `,route="app",kind="timeout"}', values: '0+12x60'}, ` +
				`{series: 'sallyport_http_requests_total{` + own + `,route="app",method="GET",code="200"}', ` +
				`values: '0+60000x60'}`, "alertname: SallyportAppsDoNotAnswer, eval_time: 50m"},
	} {
		t.Run(name, func(t *testing.T) {
			test := "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series: [" + c.series +
				"]\n  alert_rule_test: [{" + c.alert + "}]\n"
			for name, text := range map[string]string{"rules.yaml": string(rules), "test.yaml": test} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command(promtool, "test", "rules", filepath.Join(dir, "test.yaml")).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
