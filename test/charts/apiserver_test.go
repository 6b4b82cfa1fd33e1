package charts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/crdserverscheme"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
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
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// builtIn has, for each kind that the API server knows by itself, what it does before such an
// object is stored: it validates, and warns.
var builtIn = map[string]rest.RESTCreateStrategy{
	"v1/ConfigMap":                           configmap.Strategy,
	"v1/Service":                             service.Strategy,
	"v1/ServiceAccount":                      serviceaccount.Strategy,
	"v1/PersistentVolumeClaim":               persistentvolumeclaim.Strategy,
	"v1/Pod":                                 pod.Strategy,
	"apps/v1/Deployment":                     deployment.Strategy,
	"autoscaling/v2/HorizontalPodAutoscaler": horizontalpodautoscaler.Strategy,
	"policy/v1/PodDisruptionBudget":          poddisruptionbudget.Strategy,
	"networking.k8s.io/v1/NetworkPolicy":     networkpolicy.Strategy,
	"networking.k8s.io/v1/Ingress":           ingress.Strategy,
}

// source is where a definition is: a Go module, a file in it, and a version there.
type source struct{ module, file, version string }

// custom has the definitions of kinds that a cluster learns.
var custom = map[string]source{
	"gateway.networking.k8s.io/v1/HTTPRoute": {"sigs.k8s.io/gateway-api",
		"config/crd/standard/gateway.networking.k8s.io_httproutes.yaml", "v1"},
	"gateway.networking.k8s.io/v1/BackendTLSPolicy": {"sigs.k8s.io/gateway-api",
		"config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml", "v1"},
	"gateway.networking.k8s.io/v1beta1/ReferenceGrant": {"sigs.k8s.io/gateway-api",
		"config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml", "v1beta1"},
	"gateway.envoyproxy.io/v1alpha1/SecurityPolicy": {"github.com/envoyproxy/gateway",
		"charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml", "v1alpha1"},
}

// experimentalRoute is the definition of an HTTPRoute with the filter ExternalAuth.
var experimentalRoute = source{"sigs.k8s.io/gateway-api",
	"config/crd/experimental/gateway.networking.k8s.io_httproutes.yaml", "v1"}

// typesOnly are kinds whose definition no Go module has in a current version: their objects
// are decoded strictly, and nothing else.
var typesOnly = []string{"monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule"}

// create does with an object what the API server does when it is posted, until it would be
// stored: defaults, validation of its fields and of its metadata, and warnings, which are
// errors here. What it would look up in a cluster (quotas, webhooks, addresses of Services)
// is not looked at.
func create(kind string, text []byte) error {
	if strategy, known := builtIn[kind]; known {
		object, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
		if err != nil {
			return err
		}
		legacyscheme.Scheme.Default(object)
		internal, err := legacyscheme.Scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
		if err != nil {
			return err
		}
		if s, ok := internal.(*core.Service); ok {
			allocate(&s.Spec)
		}
		return store(strategy, object.GetObjectKind().GroupVersionKind(), internal)
	}
	if from, known := custom[kind]; known {
		if strings.HasSuffix(kind, "/HTTPRoute") && strings.Contains(string(text), `"ExternalAuth"`) {
			from = experimentalRoute
		}
		return createCustom(from, text)
	}
	if !slices.Contains(typesOnly, kind) {
		return fmt.Errorf("no API server here knows %s", kind)
	}
	return nil
}

// allocate gives a Service what the API server has for it before it validates: addresses and
// ports of the cluster (pkg/registry/core/service/storage/alloc.go), or that there is none.
func allocate(s *core.ServiceSpec) {
	if s.ClusterIP == core.ClusterIPNone {
		s.ClusterIPs = []string{core.ClusterIPNone}
	}
	if s.Type == core.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal {
		s.HealthCheckNodePort = 32000
	}
}

func store(strategy rest.RESTCreateStrategy, kind runtimeschema.GroupVersionKind, object runtime.Object) error {
	accessor, err := apimeta.Accessor(object)
	if err != nil {
		return err
	}
	where := accessor.GetNamespace()
	if where == "" {
		where = namespace
	}
	var said warnings
	ctx := warning.WithWarningRecorder(request.WithNamespace(context.Background(), where), &said)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: "create",
		APIGroup: kind.Group, APIVersion: kind.Version, Namespace: where})
	rest.FillObjectMetaSystemFields(accessor)
	return errors.Join(rest.BeforeCreate(strategy, ctx, object), errors.Join(said...))
}

// warnings are what kubectl would print.
type warnings []error

func (w *warnings) AddWarning(_, text string) { *w = append(*w, errors.New(text)) }

func createCustom(from source, text []byte) error {
	r, err := definition(from)
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	// Whole numbers become int64, as in the API server: for CEL 1.0 is no int.
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &object.Object); err != nil {
		return err
	}
	unknown := pruning.PruneWithOptions(object.Object, r.schema, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		return fmt.Errorf("%s does not have %s", from.file, strings.Join(unknown, ", "))
	}
	defaulting.Default(object.Object, r.schema)
	return store(r.strategy, object.GroupVersionKind(), object)
}

// customKind is what the API server makes of a definition.
type customKind struct {
	schema   *schema.Structural
	strategy rest.RESTCreateStrategy
}

var (
	definitionsMu sync.Mutex
	definitions   = map[source]*customKind{}
)

// definition reads a CustomResourceDefinition, once: its CEL rules take long to compile.
func definition(from source) (*customKind, error) {
	definitionsMu.Lock()
	defer definitionsMu.Unlock()
	if k, known := definitions[from]; known {
		return k, nil
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", from.module).Output()
	if err != nil {
		return nil, fmt.Errorf("where %s is: %w", from.module, err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), from.file))
	if err != nil {
		return nil, err
	}
	k, err := customKindOf(text, from.version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.file, err)
	}
	definitions[from] = k
	return k, nil
}

func customKindOf(text []byte, named string) (*customKind, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(crd.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Name == named && v.Served
	})
	if i < 0 || crd.Spec.Scope != apiextensionsv1.NamespaceScoped {
		return nil, errors.New("there is no such version, or not in a namespace")
	}
	version := crd.Spec.Versions[i]
	var props apiextensions.CustomResourceValidation
	err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(
		version.Schema, &props, nil)
	if err != nil {
		return nil, err
	}
	structural, err := schema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	validator, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	kind := runtimeschema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
	strategy := customresource.NewStrategy(crdserverscheme.NewUnstructuredObjectTyper(), true, kind, validator, nil,
		structural, nil, nil, version.SelectableFields)
	return &customKind{structural, strategy}, nil
}

// flaws are patches of rendered objects (RFC 6902), by kind: types have room for what they
// make of an object, and the API server refuses it.
var flaws = map[string][]struct{ patch, want string }{
	"v1/ConfigMap": {
		{`{"op": "add", "path": "/data/a~1b", "value": "c"}`, "a valid config key"},
		{`{"op": "replace", "path": "/metadata/name", "value": "Web"}`, "RFC 1123"},
	},
	"v1/Service": {
		{`{"op": "replace", "path": "/spec/ports/0/port", "value": 70000}`, "between 1 and 65535"},
		{`{"op": "replace", "path": "/spec/type", "value": "Cluster"}`, "spec.type"},
		{`{"op": "replace", "path": "/spec/ports/0/appProtocol", "value": "h2c!"}`, "appProtocol"},
	},
	"v1/ServiceAccount": {{`{"op": "replace", "path": "/metadata/name", "value": "a_b"}`, "RFC 1123"}},
	"v1/PersistentVolumeClaim": {
		{`{"op": "replace", "path": "/spec/accessModes", "value": []}`, "at least 1 access mode"},
		{`{"op": "replace", "path": "/spec/resources/requests/storage", "value": "-1Gi"}`, "greater than zero"},
	},
	"v1/Pod": {
		{`{"op": "remove", "path": "/spec/containers/0/image"}`, "image"},
		{`{"op": "replace", "path": "/spec/restartPolicy", "value": "Sometimes"}`, "restartPolicy"},
	},
	"apps/v1/Deployment": {
		{`{"op": "replace", "path": "/spec/selector/matchLabels", "value": {"a": "b"}}`, "does not match template"},
		{`{"op": "replace", "path": "/spec/template/spec/containers/0/volumeMounts/0/name", "value": "none"}`,
			"volumeMounts[0].name"},
		{`{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "GOMEMLIMIT"}}`,
			"hides previous definition"},
		{`{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/memory", "value": "9Gi"}`,
			"must be less than or equal to memory limit"},
	},
	"autoscaling/v2/HorizontalPodAutoscaler": {
		{`{"op": "replace", "path": "/spec/maxReplicas", "value": 1}`, "maxReplicas"},
		{`{"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 0}`,
			"averageUtilization"},
	},
	"policy/v1/PodDisruptionBudget": {
		{`{"op": "add", "path": "/spec/minAvailable", "value": 1}`, "cannot be both set"},
		{`{"op": "replace", "path": "/spec/unhealthyPodEvictionPolicy", "value": "Always"}`,
			"unhealthyPodEvictionPolicy"},
	},
	"networking.k8s.io/v1/NetworkPolicy": {
		{`{"op": "replace", "path": "/spec/ingress/0/ports/0/protocol", "value": "HTTP"}`, "protocol"},
		{`{"op": "add", "path": "/spec/ingress/0/from", "value": [{"ipBlock": {"cidr": "10.0.0.0"}}]}`, "ipBlock"},
	},
	"networking.k8s.io/v1/Ingress": {
		{`{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "app"}`, "must be an absolute path"},
		{`{"op": "replace", "path": "/spec/rules/0/host", "value": "10.0.0.1"}`, "not an IP address"},
	},
	"gateway.networking.k8s.io/v1/HTTPRoute": {
		{`{"op": "replace", "path": "/spec/hostnames", "value": ["*.*"]}`, "should match"},
		{`{"op": "replace", "path": "/spec/rules/0/backendRefs/0/port", "value": 70000}`,
			"less than or equal to 65535"},
		// What CEL says: the type has room for all of these.
		{`{"op": "remove", "path": "/spec/rules/0/backendRefs/0/port"}`, "Must have port for Service reference"},
		{`{"op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "app"}`,
			"value must be an absolute path"},
		{`{"op": "add", "path": "/spec/rules/0/filters", "value": [{"type": "URLRewrite"}]}`,
			"filter.urlRewrite must be specified"},
		{`{"op": "add", "path": "/spec/rules/0/filters", "value": [{"type": "ExternalAuth"}]}`,
			"filter.externalAuth must be specified"},
		{`{"op": "add", "path": "/spec/rules/0/filters", "value": [{"type": "ExternalAuth", "externalAuth":
			{"protocol": "GRPC", "backendRef": {"name": "a", "port": 1}}}]}`, "grpc must be specified"},
	},
	"gateway.networking.k8s.io/v1/BackendTLSPolicy": {
		{`{"op": "replace", "path": "/spec/validation/hostname", "value": "*.example.com"}`, "should match"},
		{`{"op": "replace", "path": "/spec/validation/caCertificateRefs", "value": [{"name": "ca"}]}`, "kind"},
		{`{"op": "remove", "path": "/spec/validation/caCertificateRefs"}`,
			"must specify either CACertificateRefs or WellKnownCACertificates"},
		{`{"op": "add", "path": "/spec/validation/wellKnownCACertificates", "value": "System"}`,
			"must not contain both CACertificateRefs and WellKnownCACertificates"},
		{`{"op": "add", "path": "/spec/targetRefs/-", "value": {"group": "", "kind": "Service",
			"name": "web-sallyport", "sectionName": "ext-auth-grpc"}}`, "sectionName must be unique"},
	},
	"gateway.envoyproxy.io/v1alpha1/SecurityPolicy": {
		{`{"op": "replace", "path": "/spec/targetRefs/0/kind", "value": "Service"}`, "targetRefs"},
		{`{"op": "add", "path": "/spec/extAuth/http", "value": {"backendRefs": [{"name": "a", "port": 1}]}}`,
			"only one of grpc or http can be specified"},
		{`{"op": "replace", "path": "/spec/extAuth/timeout", "value": "soon"}`, "timeout"},
	},
	"monitoring.coreos.com/v1/ServiceMonitor": {
		{`{"op": "add", "path": "/spec/endpoints/0/every", "value": "30s"}`, `unknown field "spec.endpoints[0].every"`},
	},
	"monitoring.coreos.com/v1/PrometheusRule": {
		{`{"op": "add", "path": "/spec/groups/0/rules/0/unless", "value": "1"}`, "unknown field"},
	},
}

// TestBrokenObjectsAreRefused: of each kind that is rendered. Else to have them judged would
// say nothing.
func TestBrokenObjectsAreRefused(t *testing.T) {
	broken := map[string]bool{}
	for way, text := range waysOfUse(t) {
		files, err := renderWith3(t, parseValues(t, text), false)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range documents(files) {
			kind, json := kindOf(t, doc)
			if kind == "" || broken[kind] {
				continue
			}
			broken[kind] = true
			for _, flaw := range flaws[kind] {
				patch, err := jsonpatch.DecodePatch([]byte("[" + flaw.patch + "]"))
				if err != nil {
					t.Fatalf("%s: %v", flaw.patch, err)
				}
				changed, err := patch.Apply(json)
				if err != nil {
					t.Errorf("%s, %s: %s: %v", way, kind, flaw.patch, err)
					continue
				}
				if err := (objects{}).add(string(changed)); err == nil || !strings.Contains(err.Error(), flaw.want) {
					t.Errorf("%s, %s: %s: %v", way, kind, flaw.patch, err)
				}
			}
		}
	}
	for kind := range kinds {
		if !broken[kind] || len(flaws[kind]) == 0 {
			t.Errorf("no broken %s was tried", kind)
		}
	}
}

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

// TestTheFilterIsExperimental: a cluster with the standard channel of Gateway API does not
// take what the chart renders for it.
func TestTheFilterIsExperimental(t *testing.T) {
	files, err := renderWith3(t, parseValues(t, waysOfUse(t)["external-auth-filter"]), false)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for doc := range documents(files) {
		if kind, text := kindOf(t, doc); kind == "gateway.networking.k8s.io/v1/HTTPRoute" {
			n++
			err := createCustom(custom[kind], text)
			if err == nil || !strings.Contains(err.Error(), "does not have spec.rules[1].filters[0].externalAuth") {
				t.Error(err)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d routes", n)
	}
}

// TestTheManifestsOfGuidesAreValid: those that people copy for gateways that ask.
func TestTheManifestsOfGuidesAreValid(t *testing.T) {
	n := 0
	for _, guide := range []string{"envoy", "ingress-nginx", "gateway-api"} {
		text, err := os.ReadFile("../../docs/fronts/" + guide + ".md")
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range manifests.FindAllSubmatch(text, -1) {
			all, err := decode(map[string]string{guide + ".yaml": string(block[1])})
			if err != nil {
				t.Error(err)
			}
			n += len(all)
		}
	}
	if n < 11 {
		t.Errorf("%d manifests", n)
	}
}

var manifests = regexp.MustCompile("(?s)```kubernetes(?:-experimental)?\n(.*?)```")
