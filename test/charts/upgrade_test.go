package charts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"gopkg.in/evanphx/json-patch.v4"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/managedfields/managedfieldstest"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	"sigs.k8s.io/yaml"
)

// upgrades are what people change in a release: the values of a way of use with `given`
// beside them are installed, and then those with `changed` too.
var upgrades = []struct{ name, way, given, changed string }{
	{"another image", "proxy", "", "{image: {repository: registry.example.com/sallyport, tag: v9, " +
		"pullPolicy: Always}, imagePullSecrets: [{name: pull}]}"},
	{"a digest", "proxy", "", "image: {digest: sha256:" + strings.Repeat("0123", 16) + "}"},
	{"more pods", "proxy", "", "replicas: 4"},
	{"a scale", "proxy", "", "autoscaling: {enabled: true}"},
	{"another scale", "ext-auth", "", "autoscaling: {minReplicas: 3, maxReplicas: 9, metrics: [{type: Resource, " +
		"resource: {name: memory, target: {type: AverageValue, averageValue: 128Mi}}}], " +
		"behavior: {scaleDown: {stabilizationWindowSeconds: 600}}}"},
	{"no scale", "ext-auth", "", "{autoscaling: {enabled: false}, replicas: 2}"},
	{"another budget", "grants-postgresql", "", "podDisruptionBudget: {minAvailable: 1}"},
	{"a looser budget", "grants-postgresql", "", "podDisruptionBudget: {maxUnavailable: 2}"},
	{"no budget", "grants-postgresql", "", "podDisruptionBudget: {enabled: false}"},
	{"another configuration", "proxy", "", "{config: {pages: {name: Another}}, configMaps: {ca: {configMapName: ca}}}"},
	{"a restart at each change", "proxy", "", "restartOnConfigChange: true"},
	{"what a webhook brings", "proxy", "", "{checkReferences: false, secrets: {sso: null}}"},
	{"one pod after the other", "proxy", "", "strategy: {type: Recreate}"},
	{"half a pace", "proxy", "strategy: {rollingUpdate: {maxSurge: 50%}}",
		"strategy: {type: Recreate, rollingUpdate: null}"},
	{"no pace", "proxy", "strategy: {type: RollingUpdate}",
		"{strategy: {type: Recreate}, revisionHistoryLimit: 2}"},
	{"probes from outside", "proxy", "", "config: {listen: {admin: \":4181\"}}"},
	{"probes of one's own", "proxy", "", "{livenessProbe: {tcpSocket: {port: 4180}}, readinessProbe: " +
		"{exec: {command: [/sallyport, healthcheck]}}, startupProbe: {failureThreshold: 90}}"},
	{"another port", "proxy", "", "config: {listen: {http: \":8080\"}}"},
	{"https in the pod", "proxy", "", "{config: {listen: {https: {address: \":4443\", " +
		"cert: file:/run/secrets/tls/tls.crt, key: file:/run/secrets/tls/tls.key}}}, " +
		"secrets: {tls: {secretName: tls}}}"},
	{"a load balancer", "proxy", "", "service: {type: LoadBalancer, annotations: {example.com/class: inner}, " +
		"spec: {externalTrafficPolicy: Local, loadBalancerSourceRanges: [10.0.0.0/8]}}"},
	{"ports of the nodes", "proxy", "", "service: {type: NodePort, port: 8080}"},
	{"no load balancer", "many-hosts", "", "service: {type: ClusterIP, spec: {externalTrafficPolicy: null}}"},
	{"another load balancer", "many-hosts", "", "service: {spec: {externalTrafficPolicy: Cluster}}"},
	{"who may come in", "grants-postgresql", "", "networkPolicy: {from: [{podSelector: {}}], " +
		"externalAuthFrom: [{podSelector: {}}], metricsFrom: [{podSelector: {}}], " +
		"grantsFrom: [{namespaceSelector: {}}], egress: {enabled: true, rules: [{ports: [{port: 5432}]}]}}"},
	{"everybody may come in", "proxy", "", "networkPolicy: {enabled: false}"},
	{"an Ingress in the route's place", "proxy", "", "{httpRoute: {enabled: false}, ingress: {enabled: true, " +
		"className: nginx, hostnames: [a.example.com], paths: [/a], tls: [{secretName: a}], annotations: {a: b}}}"},
	{"a route in the Ingress's place", "grants-postgresql", "", "{ingress: {enabled: false}, httpRoute: " +
		"{enabled: true, parentRefs: [{name: public}], hostnames: [b.example.com], paths: [/b], annotations: {a: b}, " +
		"filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [X-Old]}}]}}"},
	{"another gateway that asks", "envoy-gateway", "", "httpRoute: {externalAuth: {by: ExternalAuth, " +
		"backendRefs: [{name: app, port: 8081}]}}"},
	{"another patience", "envoy-gateway", "", "httpRoute: {externalAuth: {timeout: 9s}}"},
	{"the gateway's own authorities", "gateway-tls", "", "httpRoute: {backendTLS: {caConfigMap: \"\", " +
		"hostname: b.example.com, validation: {subjectAltNames: [{type: Hostname, hostname: c.example.com}]}}}"},
	{"a gateway that is told in its own way", "gateway-tls", "", "httpRoute: {backendTLS: {enabled: false}}"},
	{"metrics", "proxy", "", "{config: {listen: {admin: \":4181\"}}, metrics: {serviceMonitor: {enabled: true}, " +
		"prometheusRule: {enabled: true}, dashboard: {enabled: true}}}"},
	{"other metrics", "ext-auth", "", "metrics: {serviceMonitor: {interval: 1m, labels: {a: b}, annotations: {a: b}, " +
		"endpoint: {honorLabels: true}}, prometheusRule: {labels: {a: b}, annotations: {a: b}, " +
		"rules: [{alert: Mine, expr: vector(1)}]}, " +
		"dashboard: {labels: {grafana_dashboard: \"2\"}, annotations: {a: b}}}"},
	{"no metrics", "ext-auth", "", "metrics: {serviceMonitor: {enabled: false}, prometheusRule: {enabled: false}, " +
		"dashboard: {enabled: false}}"},
	{"a note on the volume", "many-hosts", "", "persistence: {annotations: {a: b}}"},
	{"a volume that is there", "many-hosts", "", "persistence: {existingClaim: mine}"},
	{"a volume, after all", "proxy", "", "persistence: {enabled: true}"},
	{"another service account", "proxy", "", "serviceAccount: {name: other, annotations: {a: b}}"},
	{"no service account", "proxy", "", "serviceAccount: {create: false}"},
	{"labels", "proxy", "", "{commonLabels: {team: a}, podLabels: {tier: front}, podAnnotations: {a: b}}"},
	{"another name", "proxy", "", "fullnameOverride: gate"},
	{"half a name", "proxy", "", "nameOverride: gate"},
	{"half a name, below a whole one", "proxy", "fullnameOverride: gate", "nameOverride: guard"},
	{"another user", "proxy", "", "{podSecurityContext: {fsGroup: 1000}, securityContext: {runAsUser: 1000}}"},
	{"another place", "proxy", "", "{priorityClassName: high, nodeSelector: {a: b}, " +
		"tolerations: [{operator: Exists}], " +
		"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: " +
		"[{matchExpressions: [{key: a, operator: Exists}]}]}}}, topologySpreadConstraints: [{maxSkew: 2, " +
		"topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}], " +
		"terminationGracePeriodSeconds: 90}"},
	{"other names of hosts", "proxy", "", "{hostAliases: [{ip: 10.0.0.1, hostnames: [a]}], dnsPolicy: None, " +
		"dnsConfig: {nameservers: [10.0.0.2]}}"},
	{"more containers", "proxy", "", "{initContainers: [{name: first, image: a:1}], " +
		"extraContainers: [{name: second, image: a:1}], extraVolumes: [{name: v, emptyDir: {}}], " +
		"extraVolumeMounts: [{name: v, mountPath: /v}], env: [{name: A, value: b}], " +
		"envFrom: [{secretRef: {name: c}}], resources: {requests: {cpu: 100m, memory: 96Mi}, " +
		"limits: {memory: 1Gi}}}"},
	{"no tests, and an object more", "proxy", "", "{tests: {enabled: false}, extraObjects: " +
		"[{apiVersion: v1, kind: ConfigMap, metadata: {name: more}}]}"},
	{"a sidecar instead", "proxy", "", "{mode: sidecar, httpRoute: {enabled: false}, networkPolicy: {enabled: false}}"},
}

// TestUpgradesAreAccepted by the API server, and so is the way back.
func TestUpgradesAreAccepted(t *testing.T) {
	for _, u := range upgrades {
		for how, merge := range merges {
			c := cluster{merge, map[string]storedObject{}}
			for _, changes := range [][]string{{u.given}, {u.given, u.changed}, {u.given}} {
				if err := c.apply(t, merged(t, waysOfUse(t)[u.way], changes...)); err != nil {
					t.Errorf("%s, by %s: %v", u.name, how, err)
					break
				}
			}
		}
	}
}

// TestAVolumeGrows, and a smaller one is refused (see immutable).
func TestAVolumeGrows(t *testing.T) {
	for how, merge := range merges {
		c := cluster{merge, map[string]storedObject{}}
		for _, change := range []string{"", "persistence: {size: 5Gi}"} {
			if err := c.apply(t, merged(t, waysOfUse(t)["many-hosts"], change)); err != nil {
				t.Errorf("%s: %v", how, err)
			}
		}
	}
}

// immutable are changes that the API server refuses, which the guide tells.
var immutable = []struct{ value, way, given, changed, want string }{
	{"persistence.storageClassName", "many-hosts", "", "persistence: {storageClassName: fast}", "spec is immutable"},
	{"persistence.accessModes", "many-hosts", "", "persistence: {accessModes: [ReadWriteMany]}", "spec is immutable"},
	{"persistence.size", "many-hosts", "", "persistence: {size: 1Gi}", "can not be less than"},
	{"service.spec", "proxy", "", "service: {spec: {clusterIP: None}}", "spec.clusterIPs[0]"},
	{"service.spec", "proxy", "service: {spec: {clusterIP: 10.96.0.7}}", "service: {spec: {clusterIP: 10.96.0.8}}",
		"spec.clusterIPs[0]"},
}

// TestTheGuideTellsWhatAnUpgradeCannotChange, which is all that it cannot.
func TestTheGuideTellsWhatAnUpgradeCannotChange(t *testing.T) {
	guide, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range immutable {
		for how, merge := range merges {
			c := cluster{merge, map[string]storedObject{}}
			if err := c.apply(t, merged(t, waysOfUse(t)[change.way], change.given)); err != nil {
				t.Fatal(err)
			}
			err := c.apply(t, merged(t, waysOfUse(t)[change.way], change.given, change.changed))
			if err == nil || !strings.Contains(err.Error(), change.want) {
				t.Errorf("%s, by %s: %v", change.changed, how, err)
			}
		}
		if !strings.Contains(string(guide), "`"+change.value+"`") {
			t.Errorf("the guide does not have %s", change.value)
		}
	}
}

// TestTheNumberOfPodsIsTakenBackFromAnAutoscalerByForce with Helm 4, as the guide tells.
func TestTheNumberOfPodsIsTakenBackFromAnAutoscalerByForce(t *testing.T) {
	guide, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{applied, map[string]storedObject{}}
	if err := c.apply(t, merged(t, waysOfUse(t)["ext-auth"])); err != nil {
		t.Fatal(err)
	}
	c.scale(t, "apps/v1/Deployment", "apps/v1/Deployment web-sallyport", 4)
	off := merged(t, waysOfUse(t)["ext-auth"], "{autoscaling: {enabled: false}, replicas: 2}")
	if err := c.apply(t, off); err == nil || !strings.Contains(err.Error(), "conflict") ||
		!strings.Contains(err.Error(), ".spec.replicas") {
		t.Errorf("the number of pods: %v", err)
	}
	if !strings.Contains(string(guide), "`helm upgrade --force-conflicts`") {
		t.Error("the guide does not tell of --force-conflicts")
	}
}

// scale writes the number of pods as the controller of autoscalers does.
func (c cluster) scale(t *testing.T, kind, name string, pods int64) {
	t.Helper()
	stored := c.objects[name]
	text, _, err := stored.versioned(kind)
	if err != nil {
		t.Fatal(err)
	}
	before := &unstructured.Unstructured{}
	if err := before.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	if err := unstructured.SetNestedField(after.Object, pods, "spec", "replicas"); err != nil {
		t.Fatal(err)
	}
	manager := managedfieldstest.NewFakeFieldManager(applyconfigurations.NewTypeConverter(legacyscheme.Scheme), gvkOf(kind))
	written, err := manager.Update(before, after, "kube-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(written); err != nil {
		t.Fatal(err)
	}
	if stored.live, err = internal(text); err != nil {
		t.Fatal(err)
	}
	c.objects[name] = stored
}

// TestAnUpgradeOfEachValueWasTried: what is in neither list could be immutable.
func TestAnUpgradeOfEachValueWasTried(t *testing.T) {
	text, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]any{}
	for _, u := range upgrades {
		mergeInto(tried, parseValues(t, []byte(u.changed)), false)
	}
	for _, change := range immutable {
		mergeInto(tried, parseValues(t, []byte(change.changed)), false)
	}
	untried(t, "", parseValues(t, text), tried)
}

func untried(t *testing.T, at string, values, tried map[string]any) {
	t.Helper()
	for key, value := range values {
		other, there := tried[key]
		if !there {
			t.Errorf("no upgrade changes %s%s", at, key)
			continue
		}
		below, deeper := value.(map[string]any)
		if otherBelow, ok := other.(map[string]any); ok && deeper {
			untried(t, at+key+".", below, otherBelow)
		}
	}
}

// merged are values as Helm has them of several files, in which null takes a key away.
func merged(t *testing.T, base []byte, changes ...string) map[string]any {
	t.Helper()
	values := parseValues(t, base)
	for _, change := range changes {
		mergeInto(values, parseValues(t, []byte(change)), true)
	}
	return values
}

func mergeInto(into, from map[string]any, remove bool) {
	for key, value := range from {
		below, deeper := value.(map[string]any)
		there, both := into[key].(map[string]any)
		switch {
		case value == nil && remove:
			delete(into, key)
		case deeper && both:
			mergeInto(there, below, remove)
		default:
			into[key] = value
		}
	}
}

// cluster holds what was stored, by "kind name", as far as there can be one without etcd.
type cluster struct {
	merge   func(kind string, before *storedObject, text []byte) ([]byte, error)
	objects map[string]storedObject
}

type storedObject struct {
	manifest []byte // as it was rendered last
	live     runtime.Object
}

// merges are how Helm has the API server change an object into what was rendered.
var merges = map[string]func(kind string, before *storedObject, text []byte) ([]byte, error){
	"patch": patched, "server-side apply": applied,
}

// apply does what `helm upgrade --install` does. Hooks are made anew when they run.
func (c cluster) apply(t *testing.T, values map[string]any) error {
	t.Helper()
	files, err := renderWith3(t, values, len(c.objects) > 0)
	if err != nil {
		return err
	}
	rendered := map[string]bool{}
	for doc := range documents(files) {
		kind, text := kindOf(t, doc)
		if kind == "" || strings.Contains(string(text), `"helm.sh/hook"`) {
			continue
		}
		name := nameOf(t, kind, text)
		rendered[name] = true
		if err := c.put(kind, name, text); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, text)
		}
	}
	maps.DeleteFunc(c.objects, func(name string, o storedObject) bool {
		return !rendered[name] && !strings.Contains(string(o.manifest), `"helm.sh/resource-policy":"keep"`)
	})
	return nil
}

func nameOf(t *testing.T, kind string, text []byte) string {
	t.Helper()
	var object struct{ Metadata struct{ Name string } }
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return kind + " " + object.Metadata.Name
}

func (c cluster) put(kind, name string, text []byte) error {
	var was *storedObject
	if before, there := c.objects[name]; there {
		was = &before
	}
	wanted, err := c.merge(kind, was, text)
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	var live runtime.Object
	if was == nil {
		live, err = create(kind, wanted)
	} else {
		live, err = update(kind, was.live, wanted)
	}
	if err != nil {
		return err
	}
	c.objects[name] = storedObject{text, inUse(live)}
	return nil
}

// inUse is an object after the cluster has seen to it. A claim has its volume, and only then
// can a larger one be asked for.
func inUse(live runtime.Object) runtime.Object {
	if accessor, err := apimeta.Accessor(live); err == nil {
		accessor.SetResourceVersion("1")
	}
	if claim, ok := live.(*core.PersistentVolumeClaim); ok && claim.Spec.VolumeName == "" {
		class := "standard"
		claim.Spec.VolumeName, claim.Spec.StorageClassName = "pv-1", &class
		claim.Status.Phase, claim.Status.Capacity = core.ClaimBound, claim.Spec.Resources.Requests
	}
	return live
}

// patched is what is stored, with what has changed between two manifests: what Helm 3 sends
// (helm.sh/helm/v3/pkg/kube/client.go), and Helm 4 with --server-side=false.
func patched(kind string, before *storedObject, text []byte) ([]byte, error) {
	if before == nil {
		return text, nil
	}
	current, typed, err := before.versioned(kind)
	if err != nil {
		return nil, err
	}
	if typed == nil {
		change, err := jsonmergepatch.CreateThreeWayJSONMergePatch(before.manifest, text, current)
		if err != nil {
			return nil, err
		}
		return jsonpatch.MergePatch(current, change)
	}
	of, err := strategicpatch.NewPatchMetaFromStruct(typed)
	if err != nil {
		return nil, err
	}
	change, err := strategicpatch.CreateThreeWayMergePatch(before.manifest, text, current, of, true)
	if err != nil {
		return nil, err
	}
	return strategicpatch.StrategicMergePatchUsingLookupPatchMeta(current, change, of)
}

// applied is what the API server makes of a manifest that is applied on its side: fields that
// Helm had set and sets no more end, and those that nobody set, as defaults, stay.
func applied(kind string, before *storedObject, text []byte) ([]byte, error) {
	gvk := gvkOf(kind)
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(gvk)
	types := managedfields.NewDeducedTypeConverter()
	if _, known := builtIn[kind]; known {
		types = applyconfigurations.NewTypeConverter(legacyscheme.Scheme)
	}
	if before != nil {
		current, _, err := before.versioned(kind)
		if err != nil {
			return nil, err
		}
		if err := live.UnmarshalJSON(current); err != nil {
			return nil, err
		}
	}
	manifest := &unstructured.Unstructured{}
	if err := manifest.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	result, err := managedfieldstest.NewFakeFieldManager(types, gvk).Apply(live, manifest, "helm", false)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func gvkOf(kind string) runtimeschema.GroupVersionKind {
	i := strings.LastIndex(kind, "/")
	return runtimeschema.FromAPIVersionAndKind(kind[:i], kind[i+1:])
}

// versioned is what is stored as it is read, and its type if the API server has one.
func (o storedObject) versioned(kind string) ([]byte, runtime.Object, error) {
	if _, known := builtIn[kind]; !known {
		current, err := json.Marshal(o.live)
		return current, nil, err
	}
	typed, err := legacyscheme.Scheme.ConvertToVersion(o.live.DeepCopyObject(), gvkOf(kind).GroupVersion())
	if err != nil {
		return nil, nil, err
	}
	current, err := json.Marshal(typed)
	return current, typed, err
}
