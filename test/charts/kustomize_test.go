package charts

import (
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
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsRootOnly
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), "testdata/kustomize/"+name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(map[string]string{name + ".yaml": string(text)})
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

func TestTheKustomizeBaseIsAProxy(t *testing.T) {
	all := kustomized(t, "proxy")
	d := only[apps.Deployment](t, all)
	restricted(t, d.Name, d.Spec.Template.Spec)
	l := linksOf(t, all, d)
	each(all, func(name string, s *core.Service) { l.service(name, s) })
	l.pod()
	check(t, only[core.ConfigMap](t, all).Data["config.yaml"])
}
