package charts

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const strangersDir = "testdata/strangers"

// TestASidecarLeavesAStrangersPodAsItIs: the template for charts and the component for
// kustomize add Sallyport to pods of every shape, and change nothing else in them.
func TestASidecarLeavesAStrangersPodAsItIs(t *testing.T) {
	files, err := filepath.Glob(strangersDir + "/apps/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d apps (%v)", len(files), err)
	}
	before := objects{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range documents(map[string]string{file: string(text)}) {
			if err := before.add(doc); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	after := map[string]objects{"kustomize": kustomizedStrangers(t, files)}
	for _, h := range helms() {
		rendered, err := h.renderStrangers(t)
		if err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		if after[h.name], err = decode(rendered); err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
	}
	for way, all := range after {
		for name, object := range before {
			if pod := podOf(object); pod != nil {
				protected(t, way+", "+name, *pod, *podOf(all[name]))
			}
		}
	}
	led := 0
	each(after["kustomize"], func(name string, s *core.Service) {
		led++
		was := before[name].(*core.Service)
		if got := s.Spec.Ports[0].TargetPort; got != intstr.FromString("sallyport") {
			t.Errorf("%s leads to %v", name, got)
		}
		if s.Spec.Ports[0].TargetPort = was.Spec.Ports[0].TargetPort; !reflect.DeepEqual(s.Spec, was.Spec) {
			t.Errorf("%s is another Service: %+v", name, s.Spec)
		}
	})
	if led != len(files) {
		t.Errorf("%d Services lead to Sallyport, of %d", led, len(files))
	}
}

// podOf is the pod's specification in an object that makes pods.
func podOf(object any) *core.PodSpec {
	switch o := object.(type) {
	case *apps.Deployment:
		return &o.Spec.Template.Spec
	case *apps.StatefulSet:
		return &o.Spec.Template.Spec
	case *apps.DaemonSet:
		return &o.Spec.Template.Spec
	}
	return nil
}

// protected: Sallyport is the first container of the pod, can read its files, adds nothing
// that Pod Security Admission would object to, and without it the pod is what it was.
func protected(t *testing.T, name string, before, after core.PodSpec) {
	t.Helper()
	first := after.InitContainers[0]
	if first.Name != "sallyport" || first.RestartPolicy == nil ||
		*first.RestartPolicy != core.ContainerRestartPolicyAlways || first.StartupProbe == nil {
		t.Errorf("%s: the first container is %+v", name, first)
	}
	if !readsFiles(after, first) {
		t.Errorf("%s: Sallyport cannot read its files", name)
	}
	for _, v := range violations(t, core.PodSpec{Containers: []core.Container{first}}) {
		t.Errorf("%s: Sallyport is not restricted: %s", name, v)
	}
	if was, is := violations(t, before), violations(t, after); !slices.Equal(was, is) {
		t.Errorf("%s: the pod violates %v, and did %v", name, is, was)
	}
	after.InitContainers = slices.Clone(after.InitContainers[1:])
	after.Volumes = slices.DeleteFunc(slices.Clone(after.Volumes), func(v core.Volume) bool {
		return strings.HasPrefix(v.Name, "sallyport-")
	})
	if len(after.InitContainers) == 0 {
		after.InitContainers = nil
	}
	if len(after.Volumes) == 0 {
		after.Volumes = nil
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("%s: something else has changed:\n%+v\n%+v", name, before, after)
	}
}

// kustomizedStrangers are the apps with our component.
func kustomizedStrangers(t *testing.T, files []string) objects {
	t.Helper()
	dir, err := os.MkdirTemp("testdata/kustomize", "strangers-") // a component is named by a relative path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	names := make([]string, 0, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(file))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("resources: [%s]\ncomponents: [../../../../../deploy/kustomize/sidecar]\n",
		strings.Join(names, ", "))
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kustomizedAt(t, dir)
}
