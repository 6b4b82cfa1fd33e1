package charts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/crdserverscheme"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// source is where a definition is: a Go module, a file of it, and a version there. If types
// is a folder of the module, the file is in no module: the project makes it of the types in
// that folder, with controller-gen, and so is it here.
type source struct{ module, file, version, types string }

// custom has the definitions of kinds that a cluster learns.
var custom = map[string]source{
	"gateway.networking.k8s.io/v1/HTTPRoute": {module: "sigs.k8s.io/gateway-api", version: "v1",
		file: "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
	"gateway.networking.k8s.io/v1/BackendTLSPolicy": {module: "sigs.k8s.io/gateway-api", version: "v1",
		file: "config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml"},
	"gateway.networking.k8s.io/v1beta1/ReferenceGrant": {module: "sigs.k8s.io/gateway-api", version: "v1beta1",
		file: "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml"},
	"gateway.envoyproxy.io/v1alpha1/SecurityPolicy": {module: "github.com/envoyproxy/gateway", version: "v1alpha1",
		file: "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml"},
	"monitoring.coreos.com/v1/ServiceMonitor": {module: monitoringTypes, version: "v1", types: "v1",
		file: "monitoring.coreos.com_servicemonitors.yaml"},
	"monitoring.coreos.com/v1/PrometheusRule": {module: monitoringTypes, version: "v1", types: "v1",
		file: "monitoring.coreos.com_prometheusrules.yaml"},
}

const monitoringTypes = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"

// experimentalRoute is the definition of an HTTPRoute with the filter ExternalAuth.
var experimentalRoute = source{module: "sigs.k8s.io/gateway-api", version: "v1",
	file: "config/crd/experimental/gateway.networking.k8s.io_httproutes.yaml"}

// definitionOf is what a cluster has to have learned to take an object.
func definitionOf(kind string, text []byte) (source, bool) {
	if strings.HasSuffix(kind, "/HTTPRoute") && strings.Contains(string(text), `"ExternalAuth"`) {
		return experimentalRoute, true
	}
	from, known := custom[kind]
	return from, known
}

// structured is an object of a kind that a cluster learns, with its defaults.
func structured(from source, text []byte) (*unstructured.Unstructured, error) {
	r, err := definition(from)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	// Whole numbers become int64, as in the API server: for CEL 1.0 is no int.
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &object.Object); err != nil {
		return nil, err
	}
	unknown := pruning.PruneWithOptions(object.Object, r.schema, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%s does not have %s", from.file, strings.Join(unknown, ", "))
	}
	defaulting.Default(object.Object, r.schema)
	return object, nil
}

// customKind is what the API server makes of a definition.
type customKind struct {
	schema   *schema.Structural
	strategy rest.RESTCreateUpdateStrategy
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
	dir, err := from.dir()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.module, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, from.file))
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

// dir is where the file is.
func (s source) dir() (string, error) {
	if s.types == "" {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", s.module).Output()
		return strings.TrimSpace(string(dir)), err
	}
	made := filepath.Join(scratch, strings.ReplaceAll(s.module, "/", "_"))
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	out, err := exec.Command("go", "tool", "controller-gen", "crd:maxDescLen=0", "paths="+s.module+"/"+s.types,
		"output:crd:dir="+made).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return made, nil
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
