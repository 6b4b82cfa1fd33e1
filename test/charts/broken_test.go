package charts

import (
	"strings"
	"testing"

	"gopkg.in/evanphx/json-patch.v4"
)

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
		{`{"op": "replace", "path": "/spec/endpoints/0/interval", "value": "soon"}`, "spec.endpoints[0].interval"},
		{`{"op": "add", "path": "/spec/endpoints/0/scheme", "value": "gopher"}`, "spec.endpoints[0].scheme"},
		{`{"op": "remove", "path": "/spec/selector"}`, "spec.selector"},
		{`{"op": "add", "path": "/spec/endpoints/0/relabelings", "value": [{"action": "rename"}]}`,
			"relabelings[0].action"},
	},
	"monitoring.coreos.com/v1/PrometheusRule": {
		{`{"op": "add", "path": "/spec/groups/0/rules/0/unless", "value": "1"}`, "unknown field"},
		{`{"op": "remove", "path": "/spec/groups/0/rules/0/expr"}`, "spec.groups[0].rules[0].expr"},
		{`{"op": "replace", "path": "/spec/groups/0/rules/0/for", "value": "soon"}`, "spec.groups[0].rules[0].for"},
		{`{"op": "replace", "path": "/spec/groups/0/name", "value": ""}`, "spec.groups[0].name"},
		{`{"op": "copy", "from": "/spec/groups/0", "path": "/spec/groups/-"}`, "Duplicate value"},
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
