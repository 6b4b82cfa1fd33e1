package charts

import (
	"maps"
	"regexp"
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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// TestObjectsFindEachOther: selectors, ports, backends and volumes lead to something.
func TestObjectsFindEachOther(t *testing.T) {
	seen := map[string]bool{}
	for way, text := range waysOfUse(t) {
		t.Run(way, func(t *testing.T) {
			all := rendered(t, parseValues(t, text))
			links := linksOf(t, all, only[apps.Deployment](t, all))
			each(all, func(name string, s *core.Service) { links.service(name, s) })
			each(all, func(name string, b *policy.PodDisruptionBudget) { links.selects(name, b.Spec.Selector) })
			each(all, func(name string, h *autoscaling.HorizontalPodAutoscaler) { links.scales(name, h) })
			each(all, func(name string, p *networking.NetworkPolicy) { links.policy(name, p) })
			each(all, func(name string, r *gateway.HTTPRoute) { links.route(name, r) })
			each(all, func(name string, i *networking.Ingress) { links.ingress(name, i) })
			each(all, func(name string, m *monitoring.ServiceMonitor) { links.monitor(name, m) })
			each(all, func(name string, p *envoygateway.SecurityPolicy) { links.asks(name, p) })
			each(all, func(name string, p *gateway.BackendTLSPolicy) { links.speaksTLS(name, p) })
			links.pod()
			if links.container.LivenessProbe == nil {
				t.Error("nothing restarts a process that hangs")
			}
			for name, object := range all {
				if where := object.(meta.Object).GetNamespace(); where != namespace && where != "" {
					t.Errorf("%s is in the namespace %s", name, where)
				}
				kind, _, _ := strings.Cut(name, "/")
				seen[kind] = true
			}
		})
	}
	for kind := range kinds {
		if kind = kind[strings.LastIndex(kind, "/")+1:]; !seen[kind] {
			t.Errorf("no way of use has a %s, so nothing here has looked at one", kind)
		}
	}
}

// links looks from one object at the others.
type links struct {
	*testing.T
	all        objects
	deployment *apps.Deployment
	container  core.Container   // Sallyport's
	ports      map[string]int32 // of it
}

func linksOf(t *testing.T, all objects, d *apps.Deployment) links {
	t.Helper()
	spec := d.Spec.Template.Spec
	containers := slices.Concat(spec.InitContainers, spec.Containers)
	i := slices.IndexFunc(containers, func(c core.Container) bool { return c.Name == "sallyport" })
	if i < 0 {
		t.Fatalf("%s has no Sallyport", d.Name)
	}
	ports := map[string]int32{}
	for _, p := range containers[i].Ports {
		ports[p.Name] = p.ContainerPort
	}
	return links{t, all, d, containers[i], ports}
}

func (l links) selects(name string, selector *meta.LabelSelector) {
	l.Helper()
	s, err := meta.LabelSelectorAsSelector(selector)
	if err != nil || s.Empty() || !s.Matches(labels.Set(l.deployment.Spec.Template.Labels)) {
		l.Errorf("%s selects %v (%v), and not the pods", name, selector, err)
	}
	each(l.all, func(test string, p *core.Pod) {
		if s.Matches(labels.Set(p.Labels)) {
			l.Errorf("%s selects %s too", name, test)
		}
	})
}

func (l links) service(name string, s *core.Service) {
	l.selects(name, &meta.LabelSelector{MatchLabels: s.Spec.Selector})
	for _, p := range s.Spec.Ports {
		l.port(name, &p.TargetPort)
	}
}

func (l links) port(name string, port *intstr.IntOrString) {
	l.Helper()
	if _, there := l.ports[port.StrVal]; !there {
		l.Errorf("%s: the container has no port %q", name, port.StrVal)
	}
}

func (l links) scales(name string, h *autoscaling.HorizontalPodAutoscaler) {
	target := h.Spec.ScaleTargetRef
	if _, there := l.all[target.Kind+"/"+target.Name]; !there || target.APIVersion != l.deployment.APIVersion {
		l.Errorf("%s scales %v", name, target)
	}
	if l.deployment.Spec.Replicas != nil {
		l.Errorf("%s: the Deployment says how many replicas there are, too", name)
	}
}

func (l links) policy(name string, p *networking.NetworkPolicy) {
	l.selects(name, &p.Spec.PodSelector)
	for _, rule := range p.Spec.Ingress {
		if len(rule.Ports) == 0 {
			l.Errorf("%s: a rule without ports", name)
		}
		for _, port := range rule.Ports {
			l.port(name, port.Port)
		}
	}
}

// backend is a service's port, by its number or its name.
func (l links) backend(name, service string, port int32, portName string) {
	l.Helper()
	s, there := l.all["Service/"+service].(*core.Service)
	if !there || !slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool {
		return p.Port == port || p.Name == portName
	}) {
		l.Errorf("%s: there is no %s:%d%s", name, service, port, portName)
	}
}

func (l links) route(name string, r *gateway.HTTPRoute) {
	if len(r.Spec.Hostnames) == 0 || len(r.Spec.ParentRefs) == 0 {
		l.Errorf("%s: hosts %v, parents %v", name, r.Spec.Hostnames, r.Spec.ParentRefs)
	}
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if string(b.Name) != theApp {
				l.backend(name, string(b.Name), int32(*b.Port), "")
				continue
			}
			// Past Sallyport goes only what it is asked about.
			asked := slices.ContainsFunc(rule.Filters, func(f gateway.HTTPRouteFilter) bool {
				if f.ExternalAuth == nil {
					return false
				}
				l.calls(name, f.ExternalAuth.BackendRef)
				return true
			})
			each(l.all, func(_ string, p *envoygateway.SecurityPolicy) {
				asked = asked || string(p.Spec.TargetRefs[0].Name) == r.Name
			})
			if !asked {
				l.Errorf("%s leads to the app, and asks nobody", name)
			}
		}
	}
}

// theApp is the Service to which gateways that ask lead, in the values files.
const theApp = "app"

// calls is the Service's port for questions over gRPC, to which a gateway speaks TLS if it is
// told so.
func (l links) calls(name string, b gateway.BackendObjectReference) {
	l.Helper()
	l.backend(name, string(b.Name), int32(*b.Port), "")
	s, there := l.all["Service/"+string(b.Name)].(*core.Service)
	if !there || !slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool {
		return p.Name == "ext-auth-grpc" && p.Port == int32(*b.Port) &&
			(*p.AppProtocol == "kubernetes.io/h2c" || *p.AppProtocol == "https" && l.toldTLS(b, p.Name))
	}) {
		l.Errorf("%s: asks at %s:%d, which is not for questions over gRPC", name, b.Name, *b.Port)
	}
}

// toldTLS: a policy says that the gateway speaks TLS there.
func (l links) toldTLS(b gateway.BackendObjectReference, port string) bool {
	n := 0
	each(l.all, func(_ string, p *gateway.BackendTLSPolicy) {
		for _, target := range p.Spec.TargetRefs {
			if target.Kind == "Service" && target.Name == b.Name && string(*target.SectionName) == port {
				n++
			}
		}
	})
	return n == 1
}

// speaksTLS finds the port, where the pod speaks TLS too, by the certificate of the name.
func (l links) speaksTLS(name string, p *gateway.BackendTLSPolicy) {
	if len(p.Spec.TargetRefs) != 1 {
		l.Fatalf("%s is about %v; gateways need not take more than one", name, p.Spec.TargetRefs)
	}
	target := p.Spec.TargetRefs[0]
	l.backend(name, string(target.Name), 0, string(*target.SectionName))
	for _, port := range l.all["Service/"+string(target.Name)].(*core.Service).Spec.Ports {
		if port.Name == string(*target.SectionName) && *port.AppProtocol != "https" {
			l.Errorf("%s: the port %s speaks %s", name, port.Name, *port.AppProtocol)
		}
	}
}

// asks finds the route that it is about, and what is asked.
func (l links) asks(name string, p *envoygateway.SecurityPolicy) {
	for _, target := range p.Spec.TargetRefs {
		if _, there := l.all[string(target.Kind)+"/"+string(target.Name)]; !there {
			l.Errorf("%s is about %v, which is not there", name, target)
		}
	}
	auth := p.Spec.ExtAuth
	if auth == nil || auth.GRPC == nil || len(auth.GRPC.BackendRefs) != 1 || auth.FailOpen == nil || *auth.FailOpen {
		l.Fatalf("%s asks %+v", name, auth)
	}
	l.calls(name, auth.GRPC.BackendRefs[0].BackendObjectReference)
}

func (l links) ingress(name string, i *networking.Ingress) {
	for _, rule := range i.Spec.Rules {
		for _, p := range rule.HTTP.Paths {
			l.backend(name, p.Backend.Service.Name, p.Backend.Service.Port.Number, p.Backend.Service.Port.Name)
		}
	}
}

// monitor finds one Service, which is not the one that a gateway leads to.
func (l links) monitor(name string, m *monitoring.ServiceMonitor) {
	s, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		l.Fatal(err)
	}
	n := 0
	each(l.all, func(service string, svc *core.Service) {
		if !s.Matches(labels.Set(svc.Labels)) {
			return
		}
		n++
		for _, e := range m.Spec.Endpoints {
			l.backend(name, svc.Name, 0, e.Port)
		}
		if _, public := l.ports["http"]; public && slices.ContainsFunc(svc.Spec.Ports, func(p core.ServicePort) bool {
			return p.TargetPort.StrVal == "http"
		}) {
			l.Errorf("%s scrapes %s, which is for people", name, service)
		}
	})
	if n != 1 {
		l.Errorf("%s finds %d services", name, n)
	}
}

var reference = regexp.MustCompile(`^(file|dir|env|sqlite):(.+)$`)

// pod holds together what the pod mounts, what there is to mount, and what the
// configuration refers to.
func (l links) pod() {
	spec, container := l.deployment.Spec.Template.Spec, l.container
	for _, spread := range spec.TopologySpreadConstraints {
		l.selects("the spread over "+spread.TopologyKey, spread.LabelSelector)
	}
	if name := spec.ServiceAccountName; name != "" && l.all["ServiceAccount/"+name] == nil {
		l.Errorf("there is no service account %s", name)
	}
	volumes := map[string]core.Volume{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = v
		switch {
		case v.Secret != nil && *v.Secret.DefaultMode != 0o440, v.ConfigMap != nil && *v.ConfigMap.DefaultMode != 0o440:
			l.Errorf("volume %s can be read by everybody", v.Name)
		case v.PersistentVolumeClaim != nil && l.all["PersistentVolumeClaim/"+v.PersistentVolumeClaim.ClaimName] == nil:
			l.Errorf("there is no claim %s", v.PersistentVolumeClaim.ClaimName)
		}
	}
	if !readsFiles(spec, container) {
		l.Error("files of mode 0440, of a group in which Sallyport is not")
	}
	mounts := map[string]core.Volume{}
	for _, m := range container.VolumeMounts {
		if v, there := volumes[m.Name]; !there || m.SubPath != "" || m.SubPathExpr != "" {
			l.Errorf("the mount %s: volume %v, subPath %q", m.MountPath, v, m.SubPath)
		}
		mounts[m.MountPath+"/"] = volumes[m.Name]
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			delete(volumes, m.Name)
		}
	}
	if len(volumes) > 0 {
		l.Errorf("volumes that nothing mounts: %v", slices.Collect(maps.Keys(volumes)))
	}
	config := mounts["/etc/sallyport/"]
	if config.ConfigMap == nil || l.all["ConfigMap/"+config.ConfigMap.Name] == nil {
		l.Fatal("no configuration at /etc/sallyport")
	}
	if made := l.all["ConfigMap/"+config.ConfigMap.Name].(*core.ConfigMap); made.Immutable != nil && *made.Immutable {
		l.Error("the configuration is immutable, and can never change")
	}
	text := l.all["ConfigMap/"+config.ConfigMap.Name].(*core.ConfigMap).Data["config.yaml"]
	var root any
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		l.Fatal(err)
	}
	n := 0
	walk(root, func(v string) {
		if m := reference.FindStringSubmatch(v); m != nil {
			n++
			l.refersTo(container, mounts, m[1], m[2])
		}
	})
	if n == 0 {
		l.Error("the configuration refers to nothing")
	}
	l.probes(container)
}

// readsFiles: those of mode 0440 in volumes. The kubelet gives them the group fsGroup, of
// which all containers are, or else root's.
func readsFiles(pod core.PodSpec, c core.Container) bool {
	if s := pod.SecurityContext; s != nil && s.FSGroup != nil {
		return true
	}
	return c.SecurityContext != nil && c.SecurityContext.RunAsGroup != nil && *c.SecurityContext.RunAsGroup == 0
}

func (l links) refersTo(c core.Container, mounts map[string]core.Volume, form, name string) {
	if form == "env" {
		if len(c.EnvFrom) == 0 && !slices.ContainsFunc(c.Env, func(e core.EnvVar) bool { return e.Name == name }) {
			l.Errorf("no variable %s is set", name)
		}
		return
	}
	for path, volume := range mounts {
		below, inside := strings.CutPrefix(name+"/", path)
		if !inside {
			continue
		}
		if s := volume.Secret; s != nil && s.Items != nil && form == "file" &&
			!slices.ContainsFunc(s.Items, func(i core.KeyToPath) bool { return i.Path+"/" == below }) {
			l.Errorf("%s:%s is none of the items of %s", form, name, volume.Name)
		}
		return
	}
	l.Errorf("%s:%s is not mounted", form, name)
}

// probes must ask where the kubelet, or the container itself, is answered.
func (l links) probes(c core.Container) {
	for kind, p := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe,
		"readiness": c.ReadinessProbe} {
		switch reachable := l.ports["admin"]+l.ports["sallyport-admin"] > 0; {
		case p == nil && kind == "liveness": // what only restarts a process may be left out
		case p == nil, (p.HTTPGet == nil) == (p.Exec == nil):
			l.Errorf("the %s probe: %v", kind, p)
		case p.HTTPGet != nil:
			l.port(kind+" probe", &p.HTTPGet.Port)
		case reachable:
			l.Errorf("the %s probe starts a program, and the kubelet could ask", kind)
		case kind != "readiness" && !asksWhetherItLives(p.Exec.Command):
			l.Errorf("the %s probe %q restarts the container while its database is away", kind, p.Exec.Command)
		}
	}
}

// asksWhetherItLives reports whether a command is healthy as soon as Sallyport listens, also where
// it is not ready: /healthz, and the public listener where there is no other.
func asksWhetherItLives(command []string) bool {
	return slices.Contains(command, "--live") || strings.HasSuffix(command[len(command)-1], "/healthz")
}

// walk calls f for each text in v.
func walk(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			if !slices.Contains([]string{"orgs", "org_ids", "subjects"}, key) { // ids have the same form
				walk(below, f)
			}
		}
	case []any:
		for _, below := range v {
			walk(below, f)
		}
	case string:
		f(v)
	}
}
