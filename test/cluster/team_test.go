package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// team is a namespace, and somebody who works in it and writes down every warning that the
// API server sends.
type team struct {
	namespace string
	config    *rest.Config
	objects   dynamic.Interface
	said      *warnings
	getter    *genericclioptions.ConfigFlags // what helm has of the command line
}

// newTeam makes a namespace that enforces a level of the Pod Security Standards, and warns of
// what would not be restricted. A warning in it is a failure.
func newTeam(t *testing.T, namespace, level string) *team {
	t.Helper()
	said := &warnings{}
	config := rest.CopyConfig(server.config)
	config.Wrap(said.listen)
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	made := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	made.SetName(namespace)
	made.SetLabels(map[string]string{"pod-security.kubernetes.io/enforce": level,
		"pod-security.kubernetes.io/warn": level})
	if _, err := objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).
		Create(t.Context(), made, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubeconfig, cache := server.file("kubeconfig"), t.TempDir()
	getter := genericclioptions.NewConfigFlags(false).WithDiscoveryBurst(1000).WithDiscoveryQPS(1000).
		WithWrapConfigFn(func(c *rest.Config) *rest.Config {
			c.QPS = -1
			c.Wrap(said.listen)
			return c
		})
	getter.KubeConfig, getter.CacheDir, getter.Namespace = &kubeconfig, &cache, &namespace
	w := &team{namespace, config, objects, said, getter}
	t.Cleanup(func() {
		for _, text := range said.all() {
			t.Errorf("%s: the API server warns: %s", namespace, text)
		}
	})
	w.eventually(t, "there is a service account", func() error {
		_, err := objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}).
			Namespace(namespace).Get(t.Context(), "default", meta.GetOptions{})
		return err
	})
	return w
}

// warnings are the headers of that name in what the API server answers.
type warnings struct {
	mu    sync.Mutex
	texts []string
	asked int
}

func (w *warnings) listen(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		answer, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked++
		for _, text := range answer.Header.Values("Warning") {
			w.texts = append(w.texts, fmt.Sprintf("%s %s: %s", r.Method, r.URL.Path, text))
		}
		return answer, nil
	})
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.texts
}

// forget is for warnings that a test expects.
func (w *warnings) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// eventually waits until there is no error.
func (w *team) eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if last = try(); last == nil {
			return
		}
	}
	t.Fatalf("%s: not so after a minute that %s: %v", w.namespace, what, last)
}

// apply does what `kubectl apply --server-side` does, for the objects of a manifest.
func (w *team) apply(t *testing.T, manifest string) {
	t.Helper()
	mapper, err := w.getter.ToRESTMapper()
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(manifest, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &object.Object); err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		kind := object.GroupVersionKind()
		of, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Fatal(err)
		}
		var into dynamic.ResourceInterface = w.objects.Resource(of.Resource)
		if of.Scope.Name() == apimeta.RESTScopeNameNamespace {
			into = w.objects.Resource(of.Resource).Namespace(w.namespace)
		}
		text, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := into.Patch(t.Context(), object.GetName(), types.ApplyPatchType, text, meta.PatchOptions{
			FieldManager: "kubectl", FieldValidation: meta.FieldValidationStrict}); err != nil {
			t.Errorf("%s: %s/%s: %v", w.namespace, kind.Kind, object.GetName(), err)
		}
	}
}

// live are all objects of the namespace by "Kind/name", or those of some resources, but for
// those that the cluster puts into every one, and events.
func (w *team) live(t *testing.T, of ...string) map[string]*unstructured.Unstructured {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(server.config)
	if err != nil {
		t.Fatal(err)
	}
	admin := adminOf(t) // is warned of Endpoints, which are of the past
	lists, err := client.ServerPreferredNamespacedResources()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*unstructured.Unstructured{}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if len(of) > 0 && !slices.Contains(of, resource.Name) {
				continue
			}
			found, err := admin.objects.Resource(group.WithResource(resource.Name)).Namespace(w.namespace).
				List(t.Context(), meta.ListOptions{})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err) {
				t.Fatal(err)
			}
			if err != nil {
				continue
			}
			for i := range found.Items {
				all[found.Items[i].GetKind()+"/"+found.Items[i].GetName()] = &found.Items[i]
			}
		}
	}
	delete(all, "ServiceAccount/default")
	for name := range all {
		if strings.HasPrefix(name, "Event/") {
			delete(all, name)
		}
	}
	return all
}

// settled waits until every Deployment and StatefulSet is what its controllers make of it
// while no container starts: there are pods of the newest template. So admission has let them
// in. It returns how many pods there are.
func (w *team) settled(t *testing.T) int {
	t.Helper()
	w.until(t, "there are pods", func(o *unstructured.Unstructured) error {
		return errors.Join(unseen(o), podless(o))
	})
	return len(w.live(t, "pods"))
}

// seen waits until controllers have looked at all that makes pods. Where no pod becomes ready,
// a Deployment that is changed again and again waits with pods of the newest template.
func (w *team) seen(t *testing.T) {
	t.Helper()
	w.until(t, "controllers have looked", unseen)
}

func (w *team) until(t *testing.T, what string, not func(*unstructured.Unstructured) error) {
	t.Helper()
	w.eventually(t, what, func() error {
		all := w.live(t, "deployments", "replicasets", "statefulsets", "horizontalpodautoscalers")
		for name, object := range all {
			if err := not(object); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			target, of := all["Deployment/"+object.GetName()], object.GetKind()
			if of == "HorizontalPodAutoscaler" &&
				numberAt(target, "spec", "replicas") < numberAt(object, "spec", "minReplicas") {
				return fmt.Errorf("%s has not scaled yet", name)
			}
		}
		return nil
	})
}

func unseen(object *unstructured.Unstructured) error {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "ReplicaFailure" {
			return fmt.Errorf("no pod: %v", c["message"])
		}
	}
	if object.GetKind() != "HorizontalPodAutoscaler" &&
		numberAt(object, "status", "observedGeneration") != object.GetGeneration() {
		return fmt.Errorf("not looked at yet: %v", object.Object["status"])
	}
	return nil
}

func podless(object *unstructured.Unstructured) error {
	missing := false
	switch object.GetKind() {
	case "Deployment":
		missing = numberAt(object, "status", "updatedReplicas") < 1
	case "ReplicaSet", "StatefulSet":
		missing = numberAt(object, "status", "replicas") < min(numberAt(object, "spec", "replicas"), atOnce(object))
	}
	if missing {
		return fmt.Errorf("not all pods yet: %v", object.Object["status"])
	}
	return nil
}

func numberAt(object *unstructured.Unstructured, path ...string) int64 {
	n, _, _ := unstructured.NestedInt64(object.Object, path...)
	return n
}

// atOnce is how many pods are made while none of them starts: a StatefulSet makes one after
// the other.
func atOnce(object *unstructured.Unstructured) int64 {
	if object.GetKind() == "StatefulSet" {
		return 1
	}
	return math.MaxInt64
}

// gone waits until nothing is left but what is named.
func (w *team) gone(t *testing.T, but ...string) {
	t.Helper()
	w.eventually(t, "nothing of the release is left", func() error {
		all := w.live(t)
		for _, name := range but {
			if _, there := all[name]; !there {
				return fmt.Errorf("%s is gone", name)
			}
			delete(all, name)
		}
		for name := range all {
			return fmt.Errorf("%s is left", name)
		}
		return nil
	})
}

// unversioned is a configuration for paths that are no API's.
func unversioned(config *rest.Config) *rest.Config {
	c := rest.CopyConfig(config)
	c.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	c.GroupVersion = &schema.GroupVersion{}
	return c
}

// finish does for a pod of `helm test` what no kubelet does here: it says that the pod has
// succeeded. It ends with ctx, and returns how many there were.
func (w *team) finish(ctx context.Context, name string) (finished int) {
	pods := w.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(w.namespace)
	for ctx.Err() == nil {
		if _, err := pods.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`),
			meta.PatchOptions{}, "status"); err == nil {
			finished++
			return finished
		}
		time.Sleep(20 * time.Millisecond)
	}
	return finished
}
