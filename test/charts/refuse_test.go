package charts

import (
	"fmt"
	"strings"
	"testing"

	networking "k8s.io/api/networking/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	// plain are values that render; each refusal changes them.
	plain = `
config:
  version: 1
  public_url: https://app.example.com
  session: {keys: ["dir:/run/secrets/session"]}
  providers:
    - {id: sso, type: oidc, issuer: https://sso.example.com, client_id: sallyport, client_auth: none}
  routes:
    - {name: app, path: /, upstream: "http://app:8080", allow: authenticated}
secrets: {session: {secretName: sallyport-session}}
`
	asking = "  version: 1 =>   version: 1\n  listen: {external_auth: {grpc: \":4183\", peers: [10.0.0.0/8]}}"

	fromYAML11 = "a text, in quotes: Helm reads YAML 1.1, in which off, no, on, yes, 0123, 1e3 and 1_000 are none"
)

// refusals are lists of what is changed (as `from => to`), and what is said about it.
var refusals = map[string]struct {
	change []string
	add    string
	want   []string
}{
	"no configuration": {[]string{plain[1:strings.Index(plain, "secrets:")] + " => "}, "",
		[]string{"config: is empty"}},
	"half a configuration":  {[]string{"  version: 1\n => "}, "", []string{"/config", "version"}},
	"a typo":                {[]string{"upstream: => upstraem:"}, "", []string{"/config/routes/0", "upstraem"}},
	"a typo in the chart's": {nil, "replica: 2", []string{"replica"}},
	"a typo within":         {nil, "httpRoute: {enable: true}", []string{"/httpRoute", "enable"}},
	"a number of YAML 1.1": {[]string{"client_id: sallyport => client_id: 0123"}, "",
		[]string{"client_id", fromYAML11}},
	"an exponent": {[]string{"client_id: sallyport => client_id: 1e3"}, "",
		[]string{"client_id", fromYAML11}},
	"a word of YAML 1.1": {[]string{"client_id: sallyport => client_id: off"}, "",
		[]string{"client_id", fromYAML11}},
	"a word in a list": {[]string{"allow: authenticated => allow: [{groups: [ops, no]}]"}, "",
		[]string{"groups/1", fromYAML11}},
	"a word as a key": {[]string{"allow: authenticated => allow: authenticated, headers: {set: {on: email}}"}, "",
		[]string{"config.routes[0].headers.set", "YAML 1.1", "in quotes"}},
	"a Secret that nothing mounts": {[]string{"secrets: {session => secrets: {other"}, "",
		[]string{"config.session.keys[0]", "nothing is mounted at dir:/run/secrets/session"}},
	"a variable that nothing sets": {[]string{"client_id: sallyport => client_id: env:CLIENT_ID"}, "",
		[]string{"config.providers[0].client_id", "no variable CLIENT_ID"}},
	"a subPath": {nil, "extraVolumeMounts: [{name: a, mountPath: /a, subPath: b}]", []string{"/extraVolumeMounts/0"}},
	"several replicas and SQLite": {[]string{"  version: 1 =>   version: 1\n  store: sqlite:/var/lib/sallyport/s.db"},
		"replicas: 2\npersistence: {enabled: true}", []string{"replicas: several pods cannot share config.store"}},
	"a scale and SQLite": {[]string{"  version: 1 =>   version: 1\n  store: {url: sqlite:/var/lib/sallyport/s.db}"},
		"autoscaling: {enabled: true}\npersistence: {enabled: true}",
		[]string{"autoscaling.maxReplicas: several pods cannot share config.store"}},
	"several replicas and grants": {[]string{"  version: 1 =>   version: 1\n  grants: {encryption_keys: " +
		"[file:/run/secrets/session/g], connectors: [" +
		"{id: status, type: api_key, base_url: https://status.example.com, inject: {header: X-Key}, probe: GET /me, " +
		"key_hint: a key, rules: {read: [GET /*]}, owner: user}], apps: [{id: planner, name: Planner, " +
		"token: file:/run/secrets/session/t, routes: [app], connectors: [status]}]}"}, "replicas: 3",
		[]string{"replicas: config.grants needs a config.store"}},
	"several replicas and back-channel logout": {[]string{"client_auth: none => client_auth: none, " +
		"backchannel_logout: auto"},
		"replicas: 3", []string{"replicas: the back-channel logout of provider sso"}},
	"SQLite and a rolling update": {[]string{"  version: 1 =>   version: 1\n  store: sqlite:/var/lib/sallyport/s.db"},
		"strategy: {type: RollingUpdate}\npersistence: {enabled: true}", []string{"strategy.type"}},
	"several replicas and one volume": {nil, "replicas: 2\npersistence: {enabled: true}",
		[]string{"replicas: several pods cannot mount persistence"}},
	"a probe from outside of an admin on loopback": {nil, "readinessProbe: {httpGet: {path: /readyz, port: 4181}}",
		[]string{"readinessProbe.httpGet", "config.listen.admin"}},
	"Prometheus and an admin on loopback": {nil, "metrics: {serviceMonitor: {enabled: true}}",
		[]string{"metrics.serviceMonitor.enabled", "config.listen.admin"}},
	"alerts on what nobody scrapes": {[]string{"  version: 1 =>   version: 1\n  listen: {admin: \":4181\"}"},
		"metrics: {prometheusRule: {enabled: true}}",
		[]string{"metrics.prometheusRule.enabled", "metrics.serviceMonitor.enabled"}},
	"a listener on loopback": {[]string{"  version: 1 =>   version: 1\n  listen: {http: \"127.0.0.1:4180\"}"}, "",
		[]string{"config.listen.http: is on loopback"}},
	"a port for root": {[]string{"  version: 1 =>   version: 1\n  listen: {http: \":80\"}"}, "",
		[]string{"config.listen.http: port 80"}},
	"a route without a Gateway": {nil, "httpRoute: {enabled: true}", []string{"httpRoute.parentRefs"}},
	"a gateway that asks where nobody answers": {nil, "httpRoute: {enabled: true, parentRefs: [{name: a}], " +
		"externalAuth: {by: SecurityPolicy, backendRefs: [{name: app, port: 80}]}}",
		[]string{"httpRoute.externalAuth.by", "config.listen.external_auth.grpc"}},
	"a gateway that asks, and no app": {[]string{asking}, "httpRoute: {enabled: true, parentRefs: [{name: a}], " +
		"externalAuth: {by: ExternalAuth}}", []string{"httpRoute.externalAuth.backendRefs"}},
	"a gateway that asks, and paths": {[]string{asking}, "httpRoute: {enabled: true, parentRefs: [{name: a}], " +
		"paths: [/app], externalAuth: {by: ExternalAuth, backendRefs: [{name: app, port: 80}]}}",
		[]string{"httpRoute.paths"}},
	"a gateway that asks in its own way": {nil, "httpRoute: {externalAuth: {by: envoy}}",
		[]string{"/httpRoute/externalAuth/by"}},
	"a label of the pods' own": {nil, "podLabels: {app.kubernetes.io/name: mine}",
		[]string{"podLabels: the label app.kubernetes.io/name"}},
	"a label of all, and the pods' own": {nil, "commonLabels: {app.kubernetes.io/component: mine}",
		[]string{"commonLabels: the label app.kubernetes.io/component"}},
	"TLS to a port without": {nil, "httpRoute: {enabled: true, parentRefs: [{name: a}], backendTLS: {enabled: true}}",
		[]string{"httpRoute.backendTLS.enabled", "config.listen.https"}},
	"TLS and no route": {nil, "httpRoute: {backendTLS: {enabled: true}}", []string{"httpRoute.backendTLS.enabled"}},
	"a scale without a measure": {nil, "autoscaling: {enabled: true}\nresources: {requests: {cpu: null}}",
		[]string{"autoscaling.metrics"}},
	"memory in a unit nobody knows": {nil, "resources: {limits: {memory: 1GB}}",
		[]string{"resources.limits.memory: 1GB"}},
}

// TestWhatWouldNotWorkIsRefused, by both, with the key that is to be changed.
func TestWhatWouldNotWorkIsRefused(t *testing.T) {
	for name, refusal := range refusals {
		text := plain + refusal.add + "\n"
		for _, change := range refusal.change {
			from, to, _ := strings.Cut(change, " => ")
			if strings.Count(text, from) != 1 {
				t.Fatalf("%s: %q is not in the values once", name, from)
			}
			text = strings.Replace(text, from, to, 1)
		}
		for _, h := range helms() {
			_, err := h.render(t, parseValues(t, []byte(text)), false)
			if err == nil {
				t.Errorf("%s: %s renders it", name, h.name)
				continue
			}
			for _, want := range refusal.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %s does not say %q:\n%v", name, h.name, want, err)
				}
			}
		}
	}
	for _, h := range helms() {
		if _, err := h.render(t, parseValues(t, []byte(plain)), false); err != nil {
			t.Errorf("what the refusals begin with: %v", err)
		}
	}
}

// TestValuesOfKubernetesArePassedOn: what Kubernetes reads is passed on, and parents of the
// chart have keys of their own in its values.
func TestValuesOfKubernetesArePassedOn(t *testing.T) {
	for _, add := range []string{"global: {imageRegistry: example.com}", "enabled: true",
		"resources: {limits: {example.com/gpu: 1}, claims: []}", "affinity: {nodeAffinity: {}}",
		"podSecurityContext: {supplementalGroups: [7]}", "livenessProbe: {periodSeconds: 30}",
		"readinessProbe: {exec: {command: [/sallyport, healthcheck]}}",
		"service: {type: LoadBalancer, spec: {loadBalancerClass: x}}"} {
		for _, h := range helms() {
			files, err := h.render(t, parseValues(t, []byte(plain+add)), false)
			if err == nil {
				_, err = decode(files)
			}
			if err != nil {
				t.Errorf("%s: %s: %v", add, h.name, err)
			}
		}
	}
}

// TestNotesSayWhereASignOutReaches: with several pods, and nothing that they share.
func TestNotesSayWhereASignOutReaches(t *testing.T) {
	for add, want := range map[string]string{
		"replicas: 2":                  "signed out at one pod only",
		"autoscaling: {enabled: true}": "signed out at one pod only",
		"replicas: 1":                  "",
	} {
		notes(t, plain+add, want)
	}
	unseen := strings.Replace(plain, "  version: 1", "  version: 1\n  store: file:/run/secrets/session/url", 1)
	notes(t, unseen+"replicas: 2", "Is it PostgreSQL?")
}

// TestNotesLeadToWhatIsRegistered: sallyport check reads the file of the ConfigMap.
func TestNotesLeadToWhatIsRegistered(t *testing.T) {
	notes(t, plain, "kubectl get configmap -n team web-sallyport -o jsonpath='{.data.config\\.yaml}' | "+
		"sallyport check /dev/stdin")
}

// TestWhoAsksReachesNoOtherPort: a rule of a NetworkPolicy that names no port is for all of
// them, so there is none where no other pod can ask.
func TestWhoAsksReachesNoOtherPort(t *testing.T) {
	for listen, want := range map[string]int{
		"external_auth: \"127.0.0.1:4182\"":                                1,
		"external_auth: {grpc: \":4183\", peers: [10.0.0.0/8]}":            2,
		"external_auth: {address: \"127.0.0.1:4182\", peers: [127.0.0.1]}": 1,
	} {
		values := strings.Replace(plain, "  version: 1", "  version: 1\n  listen: {"+listen+"}", 1) +
			"networkPolicy: {enabled: true, externalAuthFrom: [{podSelector: {}}]}"
		policy := only[networking.NetworkPolicy](t, rendered(t, parseValues(t, []byte(values))))
		if got := len(policy.Spec.Ingress); got != want {
			t.Errorf("%s: %d rules, want %d", listen, got, want)
		}
		for _, rule := range policy.Spec.Ingress {
			if len(rule.Ports) == 0 {
				t.Errorf("%s: a rule is for all ports", listen)
			}
		}
	}
}

func notes(t *testing.T, values, want string) {
	t.Helper()
	for _, h := range helms() {
		files, err := h.render(t, parseValues(t, []byte(values)), false)
		if err != nil {
			t.Fatal(err)
		}
		text := files["sallyport/templates/NOTES.txt"]
		if want == "" && strings.Contains(text, "several pods") || !strings.Contains(text, want) {
			t.Errorf("%s: the notes do not say %q:\n%s", h.name, want, text)
		}
	}
}

// TestAGatewaySpeaksTLSWhereThePodDoes, by the name and the authorities that the values say,
// or those that the gateway has; and the notes ask, where nothing says so.
func TestAGatewaySpeaksTLSWhereThePodDoes(t *testing.T) {
	listening := strings.Replace(plain, "  version: 1", "  version: 1\n  listen: {https: {address: \":4443\", "+
		"cert: file:/run/secrets/session/crt, key: file:/run/secrets/session/key}}", 1)
	const route = "httpRoute: {enabled: true, parentRefs: [{name: a}], backendTLS: {%s}}"
	policy := func(told string) gateway.BackendTLSPolicyValidation {
		t.Helper()
		all := rendered(t, parseValues(t, []byte(listening+fmt.Sprintf(route, told))))
		return only[gateway.BackendTLSPolicy](t, all).Spec.Validation
	}
	if v := policy("enabled: true"); v.Hostname != "app.example.com" || *v.WellKnownCACertificates != "System" {
		t.Errorf("told nothing: %+v", v)
	}
	v := policy("enabled: true, hostname: web.team.svc, caConfigMap: ca, validation: {subjectAltNames: " +
		"[{type: URI, uri: \"spiffe://example.com/web\"}]}")
	if v.Hostname != "web.team.svc" || v.CACertificateRefs[0].Name != "ca" || len(v.SubjectAltNames) != 1 {
		t.Errorf("told a name and authorities: %+v", v)
	}
	v = policy("enabled: true, validation: {caCertificateRefs: [{group: \"\", kind: Secret, name: ca}]}")
	if v.WellKnownCACertificates != nil || v.CACertificateRefs[0].Kind != "Secret" {
		t.Errorf("told other authorities: %+v", v)
	}
	notes(t, listening+fmt.Sprintf(route, "enabled: false"), "httpRoute.backendTLS renders a BackendTLSPolicy")
}
