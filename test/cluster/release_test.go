package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	standard     = "standard"
	experimental = "experimental"
	// filter is the way of use that needs an experimental HTTPRoute.
	filter = "external-auth-filter"
	// otherConfig changes what a running Sallyport takes up.
	otherConfig = "config: {pages: {name: Another}}"
)

// TestAReleaseFromInstallToUninstall: what each way of use renders is taken without a warning,
// pods are let into a namespace that is restricted, another configuration changes no pod, the
// way back is open, and in the end nothing is left but the claim with the database.
func TestAReleaseFromInstallToUninstall(t *testing.T) {
	for _, way := range ways(t) {
		if way == filter {
			learn(t, experimental)
		} else {
			learn(t, standard)
		}
		each(t, way, "restricted", func(t *testing.T, w *team, r releases) {
			if err := r.install(chartDir, valuesOf(t, way, "")); err != nil {
				t.Fatal(err)
			}
			pods := w.settled(t)
			installed := w.live(t)
			if pods == 0 {
				t.Error("no pod was let in")
			}

			if err := r.upgrade(chartDir, valuesOf(t, way, "")); err != nil {
				t.Fatal(err)
			}
			w.settled(t)
			same(t, "an upgrade with nothing new", installed, w.live(t))

			if err := r.upgrade(chartDir, valuesOf(t, way, otherConfig)); err != nil {
				t.Fatal(err)
			}
			w.settled(t)
			anotherConfig(t, way, installed, w.live(t))

			if err := r.rollback(1); err != nil {
				t.Fatal(err)
			}
			w.settled(t)
			alike(t, "after the rollback", installed, w.live(t))

			ours := len(released(installed))
			if err := r.uninstall(); err != nil {
				t.Fatal(err)
			}
			var kept []string
			for name := range installed {
				if strings.HasPrefix(name, "PersistentVolumeClaim/") {
					kept = append(kept, name)
				}
			}
			w.gone(t, kept...)
			t.Logf("%d objects, %d pods, %d requests; kept: %v", ours, pods, w.said.asked, kept)
		})
	}
}

// anotherConfig: the ConfigMap has it, and the pods are those that were there, unless
// restartOnConfigChange is set.
func anotherConfig(t *testing.T, way string, before, after map[string]*unstructured.Unstructured) {
	t.Helper()
	restarts := way == "grants-postgresql"
	config, name := "ConfigMap/web-sallyport", "Deployment/web-sallyport"
	if was, is := textOf(t, before[config], "data"), textOf(t, after[config], "data"); was == is ||
		!strings.Contains(is, "Another") {
		t.Errorf("the configuration is %s", is)
	}
	if (before[name].GetGeneration() == after[name].GetGeneration()) == restarts {
		t.Errorf("the Deployment is of generation %d, and was of %d", after[name].GetGeneration(),
			before[name].GetGeneration())
	}
	for name := range before {
		if _, there := after[name]; !there && !restarts {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestAReleaseGoesFromEachWayOfUseToEachOther, in one release. Helm 4 may need --force-conflicts
// to take the number of pods back from an autoscaler, as the guide says; nothing else is refused.
func TestAReleaseGoesFromEachWayOfUseToEachOther(t *testing.T) {
	learn(t, experimental)
	each(t, "every-way", "restricted", func(t *testing.T, w *team, r releases) {
		names := ways(t)
		if err := r.install(chartDir, valuesOf(t, names[0], "")); err != nil {
			t.Fatal(err)
		}
		steps, forced, now := 0, 0, names[0]
		newest, isNewest := r.(*helm4)
		to := func(way string) {
			steps++
			err := r.upgrade(chartDir, valuesOf(t, way, ""))
			if err != nil && isNewest && strings.Contains(err.Error(), "1 conflict: ") &&
				strings.HasSuffix(err.Error(), `with subresource "scale" using apps/v1: .spec.replicas`) {
				forced++
				newest.force = true
				err = r.upgrade(chartDir, valuesOf(t, way, ""))
				newest.force = false
			}
			if err != nil {
				t.Errorf("from %s to %s: %v", now, way, err)
			}
			now = way
			w.seen(t)
		}
		for i, first := range names {
			for _, second := range names[i+1:] {
				to(second)
				to(first)
			}
			if i+1 < len(names) {
				to(names[i+1])
			}
		}
		if isNewest {
			newest.force = true
		}
		if err := r.rollback(1); err != nil {
			t.Fatal(err)
		}
		w.seen(t)
		if err := r.uninstall(); err != nil {
			t.Fatal(err)
		}
		w.gone(t, "PersistentVolumeClaim/web-sallyport")
		t.Logf("%d upgrades, %d of them forced, %d requests", steps, forced, w.said.asked)
	})
}

// TestAReleaseOfHelm3IsTakenOverByHelm4, in its two ways, and taken back.
func TestAReleaseOfHelm3IsTakenOverByHelm4(t *testing.T) {
	learn(t, experimental)
	for _, serverSide := range []string{"auto", "true"} {
		for _, way := range ways(t) {
			t.Run(serverSide+"/"+way, func(t *testing.T) {
				w := newTeam(t, "from-3-"+serverSide+"-"+way, "restricted")
				if err := newHelm3(t, w).install(chartDir, valuesOf(t, way, "")); err != nil {
					t.Fatal(err)
				}
				w.settled(t)
				installed := w.live(t)
				r := newHelm4(t, w).(*helm4)
				r.serverSide = serverSide
				if err := r.upgrade(chartDir, valuesOf(t, way, otherConfig)); err != nil {
					t.Fatal(err)
				}
				w.settled(t)
				anotherConfig(t, way, installed, w.live(t))
				if err := r.rollback(1); err != nil {
					t.Fatal(err)
				}
				w.settled(t)
				alike(t, "after the rollback", installed, w.live(t))
			})
		}
	}
}

// TestTheStandardChannelRefusesAnExperimentalFilter, as the guide says, and such a release
// can be uninstalled.
func TestTheStandardChannelRefusesAnExperimentalFilter(t *testing.T) {
	learn(t, standard)
	each(t, "refused", "restricted", func(t *testing.T, w *team, r releases) {
		if err := r.install(chartDir, valuesOf(t, filter, "")); err == nil || !strings.Contains(err.Error(), "xternalAuth") {
			t.Errorf("the API server says %v", err)
		}
		w.said.forget() // Helm 3 is told by a warning, too
		if err := r.uninstall(); err != nil {
			t.Fatal(err)
		}
		w.gone(t)
	})
}

// TestHelmTestsPodIsLetInAndTakenAway, when it has succeeded.
func TestHelmTestsPodIsLetInAndTakenAway(t *testing.T) {
	learn(t, standard)
	each(t, "tested", "restricted", func(t *testing.T, w *team, r releases) {
		if err := r.install(chartDir, valuesOf(t, "proxy", "")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		finished := make(chan int)
		go func() { finished <- w.finish(ctx, "web-sallyport-test") }()
		err := r.test()
		cancel()
		if n := <-finished; n != 1 || err != nil {
			t.Errorf("%d pods: %v", n, err)
		}
		w.eventually(t, "the pod is gone", func() error {
			if _, there := w.live(t)["Pod/web-sallyport-test"]; there {
				return fmt.Errorf("it is there")
			}
			return nil
		})
	})
}

// TestASidecarOfAnotherChartIsLetIn: the chart of an app with this one as a dependency.
func TestASidecarOfAnotherChartIsLetIn(t *testing.T) {
	each(t, "sidecar", "restricted", func(t *testing.T, w *team, r releases) {
		for i, apply := range []func(string, map[string]any) error{r.install, r.upgrade} {
			if err := apply(appDir, map[string]any{}); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if n := w.settled(t); n != 2 {
				t.Errorf("%d pods", n)
			}
		}
		if err := r.uninstall(); err != nil {
			t.Fatal(err)
		}
		w.gone(t)
	})
}

// TestStrangersPodsAreLetInWithTheSidecar, where they were let in without it.
func TestStrangersPodsAreLetInWithTheSidecar(t *testing.T) {
	each(t, "strangers", "privileged", func(t *testing.T, w *team, r releases) {
		for _, account := range []string{"agent", "cloud"} {
			w.apply(t, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: "+account+"}}")
		}
		for i, apply := range []func(string, map[string]any) error{r.install, r.upgrade} {
			if err := apply(strangersDir, map[string]any{}); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			w.settled(t)
		}
		if err := r.uninstall(); err != nil {
			t.Fatal(err)
		}
		w.gone(t, "ServiceAccount/agent", "ServiceAccount/cloud", "PersistentVolumeClaim/home-forge-0")
	})
}

// released are the objects that Helm made.
func released(all map[string]*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	ours := maps.Clone(all)
	maps.DeleteFunc(ours, func(_ string, object *unstructured.Unstructured) bool {
		return object.GetAnnotations()["meta.helm.sh/release-name"] == "" || object.GetKind() == "ReplicaSet"
	})
	return ours
}

// same: every object is the one that was there, and nobody has written to it. What has a
// status is written to by others, and has a generation, or lives as long as its owner.
func same(t *testing.T, when string, before, after map[string]*unstructured.Unstructured) {
	t.Helper()
	version := func(o *unstructured.Unstructured) string {
		if _, status := o.Object["status"]; status {
			return fmt.Sprint(o.GetUID(), " generation ", o.GetGeneration(), textOf(t, o, "spec"))
		}
		return fmt.Sprint(o.GetUID(), " version ", o.GetResourceVersion())
	}
	compare(t, when, before, after, version)
}

// alike: the objects of the release are what they were.
func alike(t *testing.T, when string, before, after map[string]*unstructured.Unstructured) {
	t.Helper()
	compare(t, when, released(before), released(after), func(o *unstructured.Unstructured) string {
		o = o.DeepCopy()
		for _, field := range []string{"resourceVersion", "managedFields", "generation", "uid", "creationTimestamp"} {
			unstructured.RemoveNestedField(o.Object, "metadata", field)
		}
		unstructured.RemoveNestedField(o.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
		unstructured.RemoveNestedField(o.Object, "status")
		return textOf(t, o)
	})
}

func compare(t *testing.T, when string, before, after map[string]*unstructured.Unstructured,
	what func(*unstructured.Unstructured) string) {
	t.Helper()
	// Helm's own, and what controllers write whenever they come to it.
	others := func(name string, o *unstructured.Unstructured) bool {
		return strings.HasPrefix(name, "Secret/sh.helm.release.") || strings.HasPrefix(o.GetKind(), "Endpoint")
	}
	before, after = maps.Clone(before), maps.Clone(after)
	maps.DeleteFunc(before, others)
	maps.DeleteFunc(after, others)
	if was, is := slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)); !slices.Equal(was, is) {
		t.Errorf("%s there are %v, and were %v", when, is, was)
		return
	}
	for name := range before {
		if was, is := what(before[name]), what(after[name]); was != is {
			t.Errorf("%s %s is\n%s\nand was\n%s", when, name, is, was)
		}
	}
}

// textOf is an object, or what it has at a path.
func textOf(t *testing.T, object *unstructured.Unstructured, path ...string) string {
	t.Helper()
	if object == nil {
		t.Fatal("there is no such object")
	}
	part, _, err := unstructured.NestedFieldNoCopy(object.Object, path...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
