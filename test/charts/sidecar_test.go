package charts

import (
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
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
		config := only[core.ConfigMap](t, all).Data["config.yaml"]
		check(t, config)
		socket(t, only[apps.Deployment](t, all).Spec.Template.Spec, config)
	}
}

// socket: Sallyport makes the app's unix socket in a volume of the pod, which the app has at
// the same path and cannot write to, and expects the user there that the app runs as.
func socket(t *testing.T, pod core.PodSpec, config string) {
	t.Helper()
	var conf struct {
		Grants struct {
			Apps []struct {
				Socket struct {
					Path string
					UID  int64
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(config), &conf); err != nil {
		t.Fatal(err)
	}
	at, app := conf.Grants.Apps[0].Socket, pod.Containers[0]
	mount := func(c core.Container) core.VolumeMount {
		i := slices.IndexFunc(c.VolumeMounts, func(m core.VolumeMount) bool { return m.MountPath == path.Dir(at.Path) })
		if i < 0 {
			t.Fatalf("%s has nothing mounted for %s", c.Name, at.Path)
		}
		return c.VolumeMounts[i]
	}
	makes, uses := mount(pod.InitContainers[0]), mount(app)
	if makes.Name != uses.Name || makes.ReadOnly || !uses.ReadOnly {
		t.Errorf("Sallyport has %+v, and the app %+v", makes, uses)
	}
	if !slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool {
		return v.Name == makes.Name && v.EmptyDir != nil
	}) {
		t.Errorf("%s is no emptyDir of the pod", makes.Name)
	}
	if *app.SecurityContext.RunAsUser != at.UID {
		t.Errorf("the app is user %d, and the socket is for %d", *app.SecurityContext.RunAsUser, at.UID)
	}
}

// TestTheGuidesTemplateIsThatOfTheApp: what the guide shows is what is rendered here.
func TestTheGuidesTemplateIsThatOfTheApp(t *testing.T) {
	guide, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile(appDir + "/templates/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```template\n(.*?)```").FindSubmatch(guide)
	if shown == nil {
		t.Fatal("the guide has no template")
	}
	lines := strings.Fields(strings.ReplaceAll(string(template), "nindent 8", "nindent 4"))
	all := strings.Join(lines, " ")
	for line := range strings.Lines(string(shown[1])) {
		if line = strings.Join(strings.Fields(line), " "); !strings.Contains(all, line) {
			t.Errorf("the chart of the app does not have %q", line)
		}
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
		{"sallyport: {podSecurityContext: {fsGroup: 7}}", "podSecurityContext"},
	} {
		for _, h := range helms() {
			_, err := h.renderApp(t, parseValues(t, []byte(refused.values)))
			if err == nil || !strings.Contains(err.Error(), refused.want) {
				t.Errorf("%s: %s: %v", h.name, refused.values, err)
			}
		}
	}
}
