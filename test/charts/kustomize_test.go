package charts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kustomized are the objects of a kustomization that uses ours.
func kustomized(t *testing.T, name string) objects {
	t.Helper()
	return kustomizedAt(t, "testdata/kustomize/"+name)
}

func kustomizedAt(t *testing.T, dir string) objects {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsRootOnly
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(map[string]string{"all.yaml": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTheKustomizeComponentPutsASidecarIntoADeployment, before what the app does first, and
// leads its Service to it.
func TestTheKustomizeComponentPutsASidecarIntoADeployment(t *testing.T) {
	all := kustomized(t, "sidecar")
	sidecar(t, all)
	check(t, only[core.ConfigMap](t, all).Data["config.yaml"])
	pod := only[apps.Deployment](t, all).Spec.Template.Spec
	if len(pod.InitContainers) != 2 || pod.InitContainers[0].Name != "sallyport" || len(pod.Containers) != 1 {
		t.Errorf("the containers: %v, %v", pod.InitContainers, pod.Containers)
	}
	if got := pod.InitContainers[0].Image; got != "registry.example.com/sallyport:v1" {
		t.Errorf("the image is %s", got)
	}
}

// TestTheTenLinesOfTheGuideMakeASidecar: what the guide shows is built, with the component of
// this tree in the place of the published one.
func TestTheTenLinesOfTheGuideMakeASidecar(t *testing.T) {
	guide, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(guide)
		if m == nil {
			t.Fatalf("the guide has no %s", language)
		}
		return string(m[1])
	}
	const published = `"https://github.com/sallyport-proxy/sallyport//deploy/kustomize/sidecar?ref=v0.1.0"`
	lines := block("kustomization")
	if strings.Count(lines, published) != 1 || strings.Count(lines, "\n") > 10 ||
		!strings.Contains(lines, "newTag: v0.1.0}") {
		t.Errorf("%s, and the image of that version, are not in these ten lines:\n%s", published, lines)
	}
	component, err := filepath.Abs("../../deploy/kustomize/sidecar")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("testdata/kustomize", "guide-") // a component is named by a relative path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	here, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if component, err = filepath.Rel(here, component); err != nil {
		t.Fatal(err)
	}
	app, err := os.ReadFile("testdata/kustomize/sidecar/app.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"kustomization.yaml": strings.Replace(lines, published, component, 1),
		"config.yaml": block("yaml"), "app.yaml": string(app)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := kustomizedAt(t, dir)
	sidecar(t, all)
	check(t, only[core.ConfigMap](t, all).Data["config.yaml"])
}

func TestTheKustomizeBaseIsAProxy(t *testing.T) {
	all := kustomized(t, "proxy")
	d := only[apps.Deployment](t, all)
	restricted(t, d.Name, d.Spec.Template.Spec)
	l := linksOf(t, all, d)
	each(all, func(name string, s *core.Service) { l.service(name, s) })
	l.pod()
	check(t, only[core.ConfigMap](t, all).Data["config.yaml"])
}
