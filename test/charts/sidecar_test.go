package charts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
)

// TestASidecarOfAnotherChart: the chart of an app has this one as a dependency, and puts
// Sallyport into its own pods, before the app and for as long as it.
func TestASidecarOfAnotherChart(t *testing.T) {
	for _, h := range helms() {
		files, err := h.renderApp(t, map[string]any{})
		if err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		all, err := decode(files)
		if err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		names := fmt.Sprint(slices.Sorted(maps.Keys(all)))
		if names != "[ConfigMap/web-sallyport Deployment/planner Service/planner]" {
			t.Errorf("%s renders %s", h.name, names)
		}
		sidecar(t, all)
		check(t, only[core.ConfigMap](t, all).Data["config.yaml"])
	}
}

// sidecar looks at a pod that has Sallyport among its initContainers.
func sidecar(t *testing.T, all objects) {
	t.Helper()
	d := only[apps.Deployment](t, all)
	restricted(t, d.Name, d.Spec.Template.Spec)
	l := linksOf(t, all, d)
	l.service("Service", only[core.Service](t, all))
	l.pod()
	// Kubernetes starts an initContainer with restartPolicy Always before the others, which
	// wait for its startup probe, and ends it after them.
	pod := d.Spec.Template.Spec
	if p := pod.InitContainers[0].RestartPolicy; p == nil || *p != core.ContainerRestartPolicyAlways {
		t.Errorf("%s: the sidecar restarts %v", d.Name, p)
	}
	for _, c := range pod.Containers {
		for _, m := range c.VolumeMounts {
			if strings.HasPrefix(m.MountPath, "/run/secrets") || strings.HasPrefix(m.MountPath, "/etc/sallyport") {
				t.Errorf("%s: the app has %s", d.Name, m.MountPath)
			}
		}
	}
}

// TestASidecarIsNoProxyToo: what would render a Deployment, or belongs to the app's chart.
func TestASidecarIsNoProxyToo(t *testing.T) {
	for _, refused := range []struct{ values, want string }{
		{"sallyport: {mode: proxy}", "sallyport.mode: must be sidecar"},
		{"sallyport: {httpRoute: {enabled: true, parentRefs: [{name: a}]}}", "httpRoute.enabled"},
		{"sallyport: {persistence: {enabled: true}}", "persistence.enabled"},
	} {
		for _, h := range helms() {
			_, err := h.renderApp(t, parseValues(t, []byte(refused.values)))
			if err == nil || !strings.Contains(err.Error(), refused.want) {
				t.Errorf("%s: %s: %v", h.name, refused.values, err)
			}
		}
	}
}
