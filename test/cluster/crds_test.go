package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// The definitions that clusters learn are those of test/charts, at its versions.
const (
	chartsModule    = "../charts"
	gatewayAPI      = "sigs.k8s.io/gateway-api"
	envoyGateway    = "github.com/envoyproxy/gateway"
	monitoringTypes = "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1",
	Resource: "customresourcedefinitions"}

// learn teaches the cluster what the chart may render that Kubernetes does not have. HTTPRoute
// is of the channel of Gateway API that is named.
func learn(t *testing.T, channel string) {
	t.Helper()
	gateway, envoy := moduleDir(t, gatewayAPI), moduleDir(t, envoyGateway)
	made := server.file("monitoring")
	if _, err := os.Stat(made); err != nil {
		// The project makes its definitions of its types, with this program.
		goTool(t, "tool", "controller-gen", "crd:maxDescLen=0", "paths="+monitoringTypes+"/v1", "output:crd:dir="+made)
	}
	standard := filepath.Join(gateway, "config/crd/standard/gateway.networking.k8s.io_")
	for _, file := range []string{
		filepath.Join(gateway, "config/crd", channel, "gateway.networking.k8s.io_httproutes.yaml"),
		standard + "backendtlspolicies.yaml",
		filepath.Join(envoy, "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml"),
		filepath.Join(made, "monitoring.coreos.com_servicemonitors.yaml"),
		filepath.Join(made, "monitoring.coreos.com_prometheusrules.yaml"),
	} {
		define(t, file)
	}
	routes(t, channel == "experimental")
}

// define applies a definition, and waits until it is served.
func define(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	made := &unstructured.Unstructured{}
	if err := made.UnmarshalJSON(json); err != nil {
		t.Fatal(err)
	}
	admin := adminOf(t)
	force := true
	if _, err := admin.objects.Resource(definitions).Patch(t.Context(), made.GetName(), types.ApplyPatchType, json,
		meta.PatchOptions{FieldManager: "tests", Force: &force}); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	admin.eventually(t, made.GetName()+" is served", func() error {
		group, _, _ := unstructured.NestedString(made.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(made.Object, "spec", "names", "plural")
		versions, _, _ := unstructured.NestedSlice(made.Object, "spec", "versions")
		for _, v := range versions {
			version, ok := v.(map[string]any)
			if !ok || version["served"] != true {
				continue
			}
			resource := schema.GroupVersionResource{Group: group, Version: fmt.Sprint(version["name"]), Resource: plural}
			if _, err := admin.objects.Resource(resource).List(t.Context(), meta.ListOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// routes waits until an HTTPRoute with the filter ExternalAuth is taken, or is not.
func routes(t *testing.T, taken bool) {
	t.Helper()
	route := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  rules:
    - filters:
        - {type: ExternalAuth, externalAuth: {protocol: GRPC, grpc: {}, backendRef: {name: a, port: 80}}}
`), &route.Object); err != nil {
		t.Fatal(err)
	}
	admin := adminOf(t)
	admin.eventually(t, "HTTPRoute is of the other channel", func() error {
		_, err := admin.objects.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1",
			Resource: "httproutes"}).Namespace("default").Create(t.Context(), route,
			meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
		if (err == nil) != taken {
			return fmt.Errorf("ExternalAuth: %w", err)
		}
		return nil
	})
}

// adminOf is who works on the whole cluster; warnings about the definitions of others are theirs.
func adminOf(t *testing.T) *team {
	t.Helper()
	objects, err := dynamic.NewForConfig(server.config)
	if err != nil {
		t.Fatal(err)
	}
	return &team{namespace: "default", objects: objects}
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	return strings.TrimSpace(goTool(t, "list", "-m", "-f", "{{.Dir}}", module))
}

// goTool runs go in the module of test/charts.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = chartsModule
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, failed.String())
	}
	return string(out)
}
