package charts

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/apps/statefulset"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"sigs.k8s.io/yaml"
)

// builtIn has, for each kind that the API server knows by itself, what it does before such an
// object is stored: it validates, and warns.
var builtIn = map[string]rest.RESTCreateUpdateStrategy{
	"v1/ConfigMap":                           configmap.Strategy,
	"v1/Service":                             service.Strategy,
	"v1/ServiceAccount":                      serviceaccount.Strategy,
	"v1/PersistentVolumeClaim":               persistentvolumeclaim.Strategy,
	"v1/Pod":                                 pod.Strategy,
	"apps/v1/Deployment":                     deployment.Strategy,
	"apps/v1/StatefulSet":                    statefulset.Strategy,
	"apps/v1/DaemonSet":                      daemonset.Strategy,
	"autoscaling/v2/HorizontalPodAutoscaler": horizontalpodautoscaler.Strategy,
	"policy/v1/PodDisruptionBudget":          poddisruptionbudget.Strategy,
	"networking.k8s.io/v1/NetworkPolicy":     networkpolicy.Strategy,
	"networking.k8s.io/v1/Ingress":           ingress.Strategy,
}

// create does with an object what the API server does when it is posted, until it would be
// stored: defaults, validation of its fields and of its metadata, and warnings, which are
// errors here. What it would look up in a cluster (quotas, webhooks, addresses of Services)
// is not looked at.
func create(kind string, text []byte) (runtime.Object, error) {
	object, strategy, err := read(kind, text)
	if err != nil {
		return nil, err
	}
	return object, store(kind, object, "create", func(ctx context.Context) error {
		accessor, err := apimeta.Accessor(object)
		if err != nil {
			return err
		}
		rest.FillObjectMetaSystemFields(accessor)
		return rest.BeforeCreate(strategy, ctx, object)
	})
}

// update does with an object what the API server does when another takes its place.
func update(kind string, live runtime.Object, text []byte) (runtime.Object, error) {
	object, strategy, err := read(kind, text)
	if err != nil {
		return nil, err
	}
	return object, store(kind, object, "update", func(ctx context.Context) error {
		return rest.BeforeUpdate(strategy, ctx, object, live.DeepCopyObject())
	})
}

// read is an object as the API server holds it, and what it does before it stores one.
func read(kind string, text []byte) (runtime.Object, rest.RESTCreateUpdateStrategy, error) {
	if strategy, known := builtIn[kind]; known {
		object, err := internal(text)
		if s, ok := object.(*core.Service); ok {
			allocate(&s.Spec)
		}
		return object, strategy, err
	}
	from, known := definitionOf(kind, text)
	if !known {
		return nil, nil, fmt.Errorf("no API server here knows %s", kind)
	}
	object, err := structured(from, text)
	if err != nil {
		return nil, nil, err
	}
	k, err := definition(from)
	return object, k.strategy, err
}

// internal is an object as the API server holds it, with its defaults.
func internal(text []byte) (runtime.Object, error) {
	object, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil, err
	}
	legacyscheme.Scheme.Default(object)
	return legacyscheme.Scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
}

// allocate gives a Service what the API server has for it before it validates: addresses and
// ports of the cluster (pkg/registry/core/service/storage/alloc.go), or that there is none.
func allocate(s *core.ServiceSpec) {
	single := core.IPFamilyPolicySingleStack
	s.IPFamilies, s.IPFamilyPolicy = []core.IPFamily{core.IPv4Protocol}, &single
	if s.ClusterIP == "" {
		s.ClusterIP = "10.96.0.10"
	}
	s.ClusterIPs = []string{s.ClusterIP}
	for i := range s.Ports {
		if s.Type != core.ServiceTypeClusterIP && s.Ports[i].NodePort == 0 {
			s.Ports[i].NodePort = 30000 + int32(i)
		}
	}
	if s.Type == core.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal {
		s.HealthCheckNodePort = 32000
	}
}

// store tells a strategy what the request is, and makes errors of the warnings.
func store(kind string, object runtime.Object, verb string, before func(context.Context) error) error {
	accessor, err := apimeta.Accessor(object)
	if err != nil {
		return err
	}
	where := accessor.GetNamespace()
	if where == "" {
		where = namespace
	}
	group, _, _ := strings.Cut(kind, "/")
	if strings.Count(kind, "/") == 1 {
		group = ""
	}
	var said warnings
	ctx := warning.WithWarningRecorder(request.WithNamespace(context.Background(), where), &said)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: verb,
		APIGroup: group, APIVersion: path.Base(path.Dir(kind)), Namespace: where})
	return errors.Join(before(ctx), errors.Join(said...))
}

// warnings are what kubectl would print.
type warnings []error

func (w *warnings) AddWarning(_, text string) { *w = append(*w, errors.New(text)) }

// kindOf is what a document is of, and its text in JSON.
func kindOf(t *testing.T, doc string) (string, []byte) {
	t.Helper()
	text, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var head meta.TypeMeta
	if err := yaml.Unmarshal(text, &head); err != nil {
		t.Fatal(err)
	}
	if head.Kind == "" {
		return "", nil
	}
	return head.APIVersion + "/" + head.Kind, text
}
