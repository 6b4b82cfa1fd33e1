package charts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

func TestBothHelmsLintEachWayOfUse(t *testing.T) {
	for way, text := range waysOfUse(t) {
		for _, h := range helms() {
			for _, message := range h.lint(t, parseValues(t, text)) {
				t.Errorf("%s, %s: %s", way, h.name, message)
			}
		}
	}
}

// TestLintNamesATypo, in the configuration and in the chart's own values.
func TestLintNamesATypo(t *testing.T) {
	for typo, values := range map[string]string{
		"upstraem":    strings.Replace(plain, "upstream:", "upstraem:", 1),
		"replicaz":    plain + "replicaz: 1",
		"hostname":    plain + "ingress: {hostname: a}",
		"YAML 1.1":    strings.Replace(plain, "client_id: sallyport", "client_id: off", 1),
		"absolut":     strings.Replace(plain, "session: {", "session: {absolut: 1h, ", 1),
		"maxReplicas": plain + "autoscaling: {maxReplicas: many}",
	} {
		for _, h := range helms() {
			if found := strings.Join(h.lint(t, parseValues(t, []byte(values))), "\n"); !strings.Contains(found, typo) {
				t.Errorf("%s does not say %q: %s", h.name, typo, found)
			}
		}
	}
}

// TestTheDefaultsLint: a chart's defaults are linted by whoever packages it.
func TestTheDefaultsLint(t *testing.T) {
	for _, h := range helms() {
		for _, message := range h.lint(t, map[string]any{}) {
			t.Errorf("%s: %s", h.name, message)
		}
	}
}

// TestBothHelmsRenderTheSame, at the first time, the second, and in an upgrade.
func TestBothHelmsRenderTheSame(t *testing.T) {
	for way, text := range waysOfUse(t) {
		var first objects
		for _, h := range helms() {
			for _, upgrade := range []bool{false, false, true} {
				files, err := h.render(t, parseValues(t, text), upgrade)
				if err != nil {
					t.Fatalf("%s, %s: %v", way, h.name, err)
				}
				all, err := decode(files)
				if err != nil {
					t.Fatalf("%s, %s: %v", way, h.name, err)
				}
				if first == nil {
					first = all
					t.Logf("%s: %s", way, strings.Join(slices.Sorted(maps.Keys(all)), " "))
				}
				if !reflect.DeepEqual(first, all) {
					t.Errorf("%s: %s renders something else (upgrade: %v)", way, h.name, upgrade)
				}
			}
		}
	}
}

// TestPodsAreRestricted, as Pod Security Admission judges it.
func TestPodsAreRestricted(t *testing.T) {
	for way, text := range waysOfUse(t) {
		all := rendered(t, parseValues(t, text))
		n := each(all, func(name string, d *apps.Deployment) { restricted(t, way+", "+name, d.Spec.Template.Spec) })
		each(all, func(name string, p *core.Pod) { restricted(t, way+", "+name, p.Spec) })
		each(all, func(name string, a *core.ServiceAccount) {
			if mounts := a.AutomountServiceAccountToken; mounts == nil || *mounts {
				t.Errorf("%s, %s: mounts its token", way, name)
			}
		})
		if n != 1 {
			t.Errorf("%s: %d deployments", way, n)
		}
	}
	if len(violations(t, core.PodSpec{Containers: []core.Container{{Name: "root"}}})) == 0 {
		t.Error("a pod without any security context counts as restricted")
	}
}

func restricted(t *testing.T, name string, pod core.PodSpec) {
	t.Helper()
	for _, v := range violations(t, pod) {
		t.Errorf("%s: %s", name, v)
	}
	// Sallyport is so by what its own container says, whatever a pod of others does.
	alone := core.PodSpec{}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if c.Name == "sallyport" {
			alone.Containers = append(alone.Containers, c)
			if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s: can write to the image", name)
			}
			memoryLimit(t, name, c)
		}
	}
	for _, v := range violations(t, alone) {
		t.Errorf("%s, without what the pod says: %s", name, v)
	}
	if mounts := pod.AutomountServiceAccountToken; mounts == nil || *mounts {
		t.Errorf("%s: has a token of the API server", name)
	}
}

// memoryLimit: the garbage collector is told of less than the kernel kills for, and not of
// much less.
func memoryLimit(t *testing.T, name string, c core.Container) {
	t.Helper()
	i := slices.IndexFunc(c.Env, func(e core.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if i < 0 {
		t.Errorf("%s: no GOMEMLIMIT", name)
		return
	}
	// Go's MiB is Mi here (https://pkg.go.dev/runtime#hdr-Environment_Variables).
	told, err := resource.ParseQuantity(strings.TrimSuffix(c.Env[i].Value, "B"))
	if err != nil {
		t.Fatal(err)
	}
	share := told.AsApproximateFloat64() / c.Resources.Limits.Memory().AsApproximateFloat64()
	if share < 0.85 || share > 0.95 {
		t.Errorf("%s: GOMEMLIMIT is %.2f of the limit", name, share)
	}
}

// violations are what keeps a pod out of a namespace that is enforced as restricted.
func violations(t *testing.T, pod core.PodSpec) []string {
	t.Helper()
	judge, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range judge.EvaluatePod(level, new(meta.ObjectMeta), &pod) {
		if !result.Allowed {
			found = append(found, result.ForbiddenReason+": "+result.ForbiddenDetail)
		}
	}
	return found
}

// TestAChangedConfigurationDoesNotRestartThePods, unless that is asked for.
func TestAChangedConfigurationDoesNotRestartThePods(t *testing.T) {
	for way, text := range waysOfUse(t) {
		for _, restart := range []bool{false, true} {
			before, after := parseValues(t, text), parseValues(t, text)
			before["restartOnConfigChange"], after["restartOnConfigChange"] = restart, restart
			after["config"].(map[string]any)["pages"] = map[string]any{"name": "Another"}
			one, two := rendered(t, before), rendered(t, after)
			if reflect.DeepEqual(only[core.ConfigMap](t, own(one)), only[core.ConfigMap](t, own(two))) {
				t.Errorf("%s: the ConfigMap is the same", way)
			}
			a, b := template(t, one), template(t, two)
			if (a == b) == restart {
				t.Errorf("%s: restartOnConfigChange is %v, and the pod template stays the same: %v",
					way, restart, a == b)
			}
		}
	}
}

// own are the objects without those of extraObjects, and the dashboard.
func own(all objects) objects {
	all = maps.Clone(all)
	delete(all, "ConfigMap/web-sallyport-address")
	delete(all, "ConfigMap/web-sallyport-dashboard")
	return all
}

// template is the pod template, as the Deployment's controller would compare it.
func template(t *testing.T, all objects) string {
	t.Helper()
	text, err := yaml.Marshal(only[apps.Deployment](t, all).Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTheRenderedConfigurationIsValid: `sallyport check` takes it, so Helm has not changed
// what a value means.
func TestTheRenderedConfigurationIsValid(t *testing.T) {
	for way, text := range waysOfUse(t) {
		values := parseValues(t, text)
		config := only[core.ConfigMap](t, own(rendered(t, values))).Data["config.yaml"]
		check(t, config)
		var back any
		if err := yaml.Unmarshal([]byte(config), &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(numbers(back), numbers(values["config"])) {
			t.Errorf("%s: the ConfigMap has another configuration than the values", way)
		}
	}
}

// check lets `sallyport check` judge a configuration.
func check(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "check", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, config)
	}
}

// TestTheGuidesValuesRender, and their configuration is valid.
func TestTheGuidesValuesRender(t *testing.T) {
	for _, guide := range []string{"kubernetes", "fronts/gateway-api"} {
		text, err := os.ReadFile("../../docs/" + guide + ".md")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, block := range regexp.MustCompile("(?s)```yml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			values := parseValues(t, []byte(block[1]))
			if values["config"] == nil {
				continue
			}
			n++
			check(t, only[core.ConfigMap](t, rendered(t, values)).Data["config.yaml"])
		}
		if n < 2 {
			t.Errorf("%s has %d values", guide, n)
		}
	}
}

// numbers makes all of them float64.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case int64:
		return float64(v)
	}
	return v
}

// TestTheDashboardIsForAnyGrafana: each panel asks the data source that is chosen there.
func TestTheDashboardIsForAnyGrafana(t *testing.T) {
	all := rendered(t, parseValues(t, waysOfUse(t)["ext-auth"]))
	text := all["ConfigMap/web-sallyport-dashboard"].(*core.ConfigMap).Data["sallyport.json"]
	var dashboard struct {
		Panels []struct {
			Title      string
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range dashboard.Panels {
		n += len(p.Targets)
		if len(p.Targets) > 0 && p.Datasource.UID != "${datasource}" {
			t.Errorf("%s: asks the data source %s of one Grafana", p.Title, p.Datasource.UID)
		}
	}
	if n < 10 {
		t.Errorf("%d queries", n)
	}
}

// TestPrometheusTakesTheQueries: its own tool reads the rules, and each of the dashboard's
// queries as one more.
func TestPrometheusTakesTheQueries(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("SALLYPORT_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("no promtool (Debian: apt-get install prometheus)")
	}
	all := rendered(t, parseValues(t, waysOfUse(t)["ext-auth"]))
	rules := only[monitoring.PrometheusRule](t, all).Spec
	text := all["ConfigMap/web-sallyport-dashboard"].(*core.ConfigMap).Data["sallyport.json"]
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$namespace", ".*")
	records := monitoring.RuleGroup{Name: "dashboard"}
	for i, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllStringSubmatch(text, -1) {
		var query string
		if err := json.Unmarshal([]byte(m[1]), &query); err != nil {
			t.Fatal(err)
		}
		records.Rules = append(records.Rules, monitoring.Rule{Record: fmt.Sprintf("query_%d", i),
			Expr: intstr.FromString(variables.Replace(query))})
	}
	if len(records.Rules) < 10 {
		t.Fatalf("%d queries in the dashboard", len(records.Rules))
	}
	rules.Groups = append(rules.Groups, records)
	file := filepath.Join(t.TempDir(), "rules.yaml")
	out, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAProbeAsksWhereTheAdminListenerIs, on every loopback address: elsewhere nobody answers,
// and the kubelet would restart the container.
func TestAProbeAsksWhereTheAdminListenerIs(t *testing.T) {
	for admin, want := range map[string]string{"127.0.0.1:4199": "http://127.0.0.1:4199/healthz",
		"127.0.0.2:4199": "http://127.0.0.2:4199/healthz", "localhost:4199": "http://localhost:4199/healthz",
		"[::1]:4199": "http://[::1]:4199/healthz"} {
		text := strings.Replace(plain, "config:\n", "config:\n  listen: {admin: \""+admin+"\"}\n", 1)
		for _, h := range helms() {
			files, err := h.render(t, parseValues(t, []byte(text)), false)
			if err != nil {
				t.Fatal(err)
			}
			all, err := decode(files)
			if err != nil {
				t.Fatal(err)
			}
			probe := only[apps.Deployment](t, all).Spec.Template.Spec.Containers[0].LivenessProbe
			if got := strings.Join(probe.Exec.Command, " "); got != "/sallyport healthcheck --url "+want {
				t.Errorf("%s, admin %s: %s", h.name, admin, got)
			}
		}
	}
}
