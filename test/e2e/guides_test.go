package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	yaml "go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	securityv1beta1 "istio.io/api/security/v1beta1"
)

// The pages whose configurations these tests read as the programs would that they are for,
// and do not run.
const (
	envoyGuide   = "../../docs/fronts/envoy.md"
	ingressGuide = "../../docs/fronts/ingress-nginx.md"
)

// The extensions that a configuration may name by the URL of their type.
var _ = []proto.Message{(*hcmv3.HttpConnectionManager)(nil), (*routerv3.Router)(nil),
	(*tlsv3.DownstreamTlsContext)(nil), (*upstreamv3.HttpProtocolOptions)(nil)}

// documents are those of a block of the guide, as JSON.
func documents(t *testing.T, guide, language string) (all [][]byte) {
	t.Helper()
	return documentsIn(t, guideBlock(t, guide, language))
}

func documentsIn(t *testing.T, text string) (all [][]byte) {
	t.Helper()
	for _, one := range strings.Split(text, "\n---\n") {
		var v any
		if err := yaml.Load([]byte(one), &v, yaml.WithUniqueKeys()); err != nil {
			t.Fatal(err)
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out)
	}
	return all
}

// readStrictly reads a message and all that it holds as Any, and asks each for its faults.
func readStrictly(from []byte, into proto.Message) error {
	if err := protojson.Unmarshal(from, into); err != nil {
		return err
	}
	return validate(into)
}

func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	var faults []error
	each := func(v protoreflect.Value) {
		inner := v.Message().Interface()
		if packed, ok := inner.(*anypb.Any); ok {
			unpacked, err := packed.UnmarshalNew()
			if err != nil {
				faults = append(faults, err)
				return
			}
			inner = unpacked
		}
		faults = append(faults, validate(inner))
	}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { each(v); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				each(v.List().Get(i))
			}
		default:
			each(v)
		}
		return true
	})
	return errors.Join(faults...)
}

// What Envoy would refuse to start with is a fault of the guide: names, types, values.
func TestTheGuideForEnvoyIsValid(t *testing.T) {
	bootstrap := documents(t, envoyGuide, "envoy")[0]
	if err := readStrictly(bootstrap, &bootstrapv3.Bootstrap{}); err != nil {
		t.Error(err)
	}
	var filter hcmv3.HttpFilter
	if err := readStrictly(documents(t, envoyGuide, "envoy-filter")[0], &filter); err != nil {
		t.Fatal(err)
	}
	var asks extauthzv3.ExtAuthz
	if err := filter.GetTypedConfig().UnmarshalTo(&asks); err != nil || asks.GetFailureModeAllow() ||
		asks.GetHttpService().GetPathPrefix() != "/envoy" || asks.GetShadowMode() || asks.GetWithRequestBody() != nil {
		t.Errorf("%v, %v", &asks, err)
	}
	// The check can fail.
	for name, spoil := range map[string][2]string{"an unknown field": {`"failure_mode_allow"`, `"failure_mode_alow"`},
		"a wrong type":         {`"encode_raw_headers":true`, `"encode_raw_headers":"yes"`},
		"an invalid value":     {`"stat_prefix":"public"`, `"stat_prefix":""`},
		"an unknown extension": {"http.router.v3.Router", "http.router.v3.Rooter"}} {
		if !bytes.Contains(bootstrap, []byte(spoil[0])) {
			t.Fatalf("no %s in %s", spoil[0], bootstrap)
		}
		spoilt := bytes.ReplaceAll(bootstrap, []byte(spoil[0]), []byte(spoil[1]))
		if readStrictly(spoilt, &bootstrapv3.Bootstrap{}) == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

// The same for Istio, by its published types.
func TestTheGuideForIstioIsValid(t *testing.T) {
	var mesh meshv1alpha1.MeshConfig
	if err := readStrictly(documents(t, envoyGuide, "istio-mesh")[0], &mesh); err != nil {
		t.Fatal(err)
	}
	asks := mesh.GetExtensionProviders()[0]
	if g := asks.GetEnvoyExtAuthzGrpc(); g == nil || g.GetFailOpen() || g.GetTimeout() == nil {
		t.Errorf("%v", asks)
	}
	var object struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   objectMeta      `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}
	strictJSON(t, documents(t, envoyGuide, "istio")[0], &object)
	var policy securityv1beta1.AuthorizationPolicy
	if err := readStrictly(object.Spec, &policy); err != nil {
		t.Fatal(err)
	}
	if policy.GetAction() != securityv1beta1.AuthorizationPolicy_CUSTOM ||
		policy.GetProvider().GetName() != asks.GetName() || object.Kind != "AuthorizationPolicy" {
		t.Errorf("%v %v", object.Kind, &policy)
	}
}

func strictJSON(t *testing.T, from []byte, into any) {
	t.Helper()
	if err := decodeStrictly(from, into); err != nil {
		t.Errorf("%s: %v", from, err)
	}
}

func decodeStrictly(from []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(from))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more than one value: %v", err)
	}
	return nil
}

// The fields that the guide uses of Kubernetes, Gateway API (apis/v1/httproute_types.go and
// apis/v1beta1/referencegrant_types.go of sigs.k8s.io/gateway-api v1.6.1) and Envoy Gateway
// (api/v1alpha1/ext_auth_types.go, securitypolicy_types.go and shared_types.go of
// github.com/envoyproxy/gateway v1.9.1), with the names and types that stand there. Those
// modules bring most of Kubernetes, so they are not linked.
type (
	objectMeta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		// Of ingress-nginx: internal/ingress/annotations/authreq and proxy in its repository.
		Annotations *struct {
			URL             string `json:"nginx.ingress.kubernetes.io/auth-url"`
			SignIn          string `json:"nginx.ingress.kubernetes.io/auth-signin"`
			RedirectParam   string `json:"nginx.ingress.kubernetes.io/auth-signin-redirect-param"`
			ResponseHeaders string `json:"nginx.ingress.kubernetes.io/auth-response-headers"`
			ProxyBufferSize string `json:"nginx.ingress.kubernetes.io/proxy-buffer-size"`
		} `json:"annotations"`
	}
	ingress struct { // networking/v1 of k8s.io/api
		IngressClassName string `json:"ingressClassName"`
		TLS              []struct {
			Hosts      []string `json:"hosts"`
			SecretName string   `json:"secretName"`
		} `json:"tls"`
		Rules []struct {
			Host string `json:"host"`
			HTTP struct {
				Paths []struct {
					Path     string `json:"path"`
					PathType string `json:"pathType"`
					Backend  struct {
						Service struct {
							Name string `json:"name"`
							Port struct {
								Number int32 `json:"number"`
							} `json:"port"`
						} `json:"service"`
					} `json:"backend"`
				} `json:"paths"`
			} `json:"http"`
		} `json:"rules"`
	}
	backendRef struct {
		Group     string `json:"group"`
		Kind      string `json:"kind"`
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		Port      int32  `json:"port"`
	}
	parentRef struct {
		Group, Kind, Name, Namespace, SectionName string
	}
	service struct {
		Selector map[string]string `json:"selector"`
		Ports    []struct {
			Name        string  `json:"name"`
			Port        int32   `json:"port"`
			TargetPort  int32   `json:"targetPort"`
			AppProtocol *string `json:"appProtocol"`
		} `json:"ports"`
	}
	httpRoute struct {
		ParentRefs []parentRef `json:"parentRefs"`
		Hostnames  []string    `json:"hostnames"`
		Rules      []struct {
			Matches []struct {
				Path struct {
					Type  string `json:"type"`
					Value string `json:"value"`
				} `json:"path"`
			} `json:"matches"`
			Filters []struct {
				Type         string `json:"type"`
				ExternalAuth *struct {
					Protocol   string     `json:"protocol"`
					BackendRef backendRef `json:"backendRef"`
					GRPC       *struct {
						AllowedHeaders []string `json:"allowedHeaders"`
					} `json:"grpc"`
				} `json:"externalAuth"`
			} `json:"filters"`
			BackendRefs []backendRef `json:"backendRefs"`
		} `json:"rules"`
	}
	securityPolicy struct {
		TargetRefs []struct {
			Group string `json:"group"`
			Kind  string `json:"kind"`
			Name  string `json:"name"`
		} `json:"targetRefs"`
		ExtAuth struct {
			FailOpen *bool  `json:"failOpen"`
			Timeout  string `json:"timeout"`
			GRPC     *struct {
				BackendRefs []backendRef `json:"backendRefs"`
			} `json:"grpc"`
		} `json:"extAuth"`
	}
	referenceGrant struct {
		From []struct {
			Group     string `json:"group"`
			Kind      string `json:"kind"`
			Namespace string `json:"namespace"`
		} `json:"from"`
		To []struct {
			Group string `json:"group"`
			Kind  string `json:"kind"`
			Name  string `json:"name"`
		} `json:"to"`
	}
)

// readManifest reads one by its kind.
func readManifest(from []byte) (kind string, spec any, err error) {
	var object struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   objectMeta      `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}
	if err := decodeStrictly(from, &object); err != nil {
		return "", nil, err
	}
	known := map[string]any{
		"v1 Service":                                       &service{},
		"networking.k8s.io/v1 Ingress":                     &ingress{},
		"gateway.networking.k8s.io/v1 HTTPRoute":           &httpRoute{},
		"gateway.networking.k8s.io/v1beta1 ReferenceGrant": &referenceGrant{},
		"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":    &securityPolicy{},
	}
	spec, ok := known[object.APIVersion+" "+object.Kind]
	if !ok {
		return object.Kind, nil, fmt.Errorf("no such kind: %s %s", object.APIVersion, object.Kind)
	}
	return object.Kind, spec, decodeStrictly(object.Spec, spec)
}

// What these gateways would refuse is a fault of the guide, and so is one that opens.
func TestTheGuideForGatewaysIsValid(t *testing.T) {
	seen := map[string]int{}
	for _, document := range append(documents(t, envoyGuide, "kubernetes"),
		append(documents(t, envoyGuide, "kubernetes-experimental"), documents(t, ingressGuide, "kubernetes")...)...) {
		kind, spec, err := readManifest(document)
		if err != nil {
			t.Errorf("%s: %v", document, err)
			continue
		}
		seen[kind]++
		switch spec := spec.(type) {
		case *securityPolicy:
			if e := spec.ExtAuth; e.FailOpen == nil || *e.FailOpen || e.GRPC == nil ||
				e.GRPC.BackendRefs[0].Port != 4183 || spec.TargetRefs[0].Name != "app" {
				t.Errorf("%+v", e)
			}
		case *httpRoute:
			for _, rule := range spec.Rules {
				own := rule.Matches[0].Path.Value == "/.sallyport"
				if own && (len(rule.Filters) > 0 || rule.BackendRefs[0].Port != 4180) {
					t.Errorf("%+v", rule)
				}
				for _, f := range rule.Filters {
					if f.Type != "ExternalAuth" || f.ExternalAuth.Protocol != "GRPC" ||
						f.ExternalAuth.BackendRef.Port != 4183 {
						t.Errorf("%+v", f)
					}
				}
			}
		}
	}
	if seen["Ingress"] != 2 || seen["HTTPRoute"] != 3 || seen["SecurityPolicy"] != 1 ||
		seen["Service"] != 1 || seen["ReferenceGrant"] != 1 {
		t.Errorf("%v", seen)
	}
	for _, bad := range []string{"apiVersion: v1\nkind: Service\nspec: {port: 1}", "apiVersion: v1\nkind: Pod\nspec: {}",
		"apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nspec: {extAuth: {failClosed: true}}"} {
		if _, _, err := readManifest(documentsIn(t, bad)[0]); err == nil {
			t.Errorf("%s: not noticed", bad)
		}
	}
}

// A guide whose configurations nobody runs says so.
func TestGuidesThatAreNotRunSaySo(t *testing.T) {
	for _, guide := range []string{envoyGuide, ingressGuide} {
		text, err := os.ReadFile(guide)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^\*\*Validated, not run\.\*\* `).Match(text) {
			t.Errorf("%s does not say that it is not run", guide)
		}
	}
}
