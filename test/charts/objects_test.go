package charts

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	envoygateway "github.com/envoyproxy/gateway/api/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kinds makes an empty object of each kind that the chart may render.
var kinds = map[string]func() any{
	"v1/ConfigMap":                                  func() any { return new(core.ConfigMap) },
	"v1/Service":                                    func() any { return new(core.Service) },
	"v1/ServiceAccount":                             func() any { return new(core.ServiceAccount) },
	"v1/PersistentVolumeClaim":                      func() any { return new(core.PersistentVolumeClaim) },
	"v1/Pod":                                        func() any { return new(core.Pod) },
	"apps/v1/Deployment":                            func() any { return new(apps.Deployment) },
	"autoscaling/v2/HorizontalPodAutoscaler":        func() any { return new(autoscaling.HorizontalPodAutoscaler) },
	"policy/v1/PodDisruptionBudget":                 func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1/NetworkPolicy":            func() any { return new(networking.NetworkPolicy) },
	"networking.k8s.io/v1/Ingress":                  func() any { return new(networking.Ingress) },
	"gateway.networking.k8s.io/v1/HTTPRoute":        func() any { return new(gateway.HTTPRoute) },
	"gateway.networking.k8s.io/v1/BackendTLSPolicy": func() any { return new(gateway.BackendTLSPolicy) },
	"gateway.envoyproxy.io/v1alpha1/SecurityPolicy": func() any { return new(envoygateway.SecurityPolicy) },
	"monitoring.coreos.com/v1/ServiceMonitor":       func() any { return new(monitoring.ServiceMonitor) },
	"monitoring.coreos.com/v1/PrometheusRule":       func() any { return new(monitoring.PrometheusRule) },
}

// otherKinds are those that only guides and the apps of others have.
var otherKinds = map[string]func() any{
	"apps/v1/StatefulSet": func() any { return new(apps.StatefulSet) },
	"apps/v1/DaemonSet":   func() any { return new(apps.DaemonSet) },
	"gateway.networking.k8s.io/v1beta1/ReferenceGrant": func() any { return new(gatewayv1beta1.ReferenceGrant) },
}

// objects are what was rendered, by "Kind/name".
type objects map[string]any

// decode reads each document into the type that Kubernetes or the project of the resource
// has for it, and lets the API server judge it. A field that the type does not have, or has
// twice, is an error.
func decode(files map[string]string) (objects, error) {
	all := objects{}
	for doc, name := range documents(files) {
		if err := all.add(doc); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, doc)
		}
	}
	return all, nil
}

// documents are the texts in files of manifests, with the name of the file.
func documents(files map[string]string) iter.Seq2[string, string] {
	return func(yield func(doc, name string) bool) {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if path.Ext(name) != ".yaml" {
				continue
			}
			for doc := range strings.SplitSeq("\n"+files[name], "\n---\n") {
				if !yield(doc, name) {
					return
				}
			}
		}
	}
}

func (o objects) add(doc string) error {
	text, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil || string(text) == "null" {
		return err
	}
	var head struct {
		meta.TypeMeta `json:",inline"`
		Metadata      meta.ObjectMeta `json:"metadata"`
	}
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &head); err != nil {
		return err
	}
	make, known := kinds[head.APIVersion+"/"+head.Kind]
	if !known {
		make, known = otherKinds[head.APIVersion+"/"+head.Kind]
	}
	if !known {
		return fmt.Errorf("the kind %s/%s has no type here", head.APIVersion, head.Kind)
	}
	object := make()
	strict, err := json.UnmarshalStrict(text, object)
	if err := errors.Join(append(strict, err)...); err != nil {
		return err
	}
	key := head.Kind + "/" + head.Metadata.Name
	if _, twice := o[key]; twice {
		return fmt.Errorf("there are two of %s", key)
	}
	if head.Metadata.Name == "" || len(head.Metadata.Name) > 63 {
		return fmt.Errorf("the name %q", head.Metadata.Name)
	}
	o[key] = object
	_, err = create(head.APIVersion+"/"+head.Kind, text)
	return err
}

// each calls f for the objects of one type, and returns how many there are.
func each[T any](o objects, f func(name string, object *T)) int {
	n := 0
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if object, ok := o[name].(*T); ok {
			f(name, object)
			n++
		}
	}
	return n
}

// only is the one object of its type.
func only[T any](t *testing.T, o objects) *T {
	t.Helper()
	var found *T
	if n := each(o, func(_ string, object *T) { found = object }); n != 1 {
		t.Fatalf("%d of %T", n, found)
	}
	return found
}

// rendered are the objects of values, by Helm 3.
func rendered(t *testing.T, values map[string]any) objects {
	t.Helper()
	files, err := renderWith3(t, values, false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(files)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
