package importer

import (
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// ingress is one for whose requests ingress-nginx asks oauth2-proxy.
type ingress struct {
	file        string
	line        int
	annotations []annotation
	hosts       []string
	query       url.Values // of auth-url
	badQuery    bool
	other       bool // auth-url has another path than compat, and may ask another program
}

type annotation struct {
	name, value string
	line        int
}

const ingressPrefix = "nginx.ingress.kubernetes.io/"

// manifest reads what a manifest says of oauth2-proxy; others are passed over.
func (f *file) manifest(root *yaml.Node) error {
	kind, _ := scalar(f.get(root, "kind"))
	if name, ok := scalar(f.get(root, "metadata", "name")); ok && (kind == "ConfigMap" || kind == "Secret") {
		if f.seen == nil {
			f.seen = map[string]bool{}
		}
		f.seen[name] = true
	}
	switch kind {
	case "List":
		for _, item := range f.items(f.get(root, "items")) {
			if err := f.manifest(item); err != nil {
				return err
			}
		}
	case "Kustomization":
		for _, p := range f.pairs(root) {
			if strings.Contains(strings.ToLower(p.key), "patch") || strings.HasSuffix(p.key, "Generator") {
				f.unknown(f.name, f.line(p.at), p.key, "changes what other files say: import what `kustomize build` "+
					"prints")
			}
		}
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Rollout", "DeploymentConfig":
		return f.pod(f.get(root, "spec", "template", "spec"))
	case "Pod":
		return f.pod(f.get(root, "spec"))
	case "ConfigMap":
		return f.configMap(root)
	case "Secret":
		f.secret(root)
	case "Ingress":
		f.ingress(root)
	case "Application", "HelmRelease":
		return f.release(root)
	}
	return nil
}

// release reads the chart's values where Argo CD or Flux keeps them.
func (f *file) release(root *yaml.Node) error {
	spec := f.get(root, "spec")
	for _, source := range append(f.items(f.get(spec, "sources")), f.get(spec, "source")) {
		helm := f.get(source, "helm")
		values, in := f.get(helm, "valuesObject"), f
		if block := f.get(helm, "values"); values == nil && block != nil && block.Kind == yaml.ScalarNode {
			var err error
			if in, values, err = f.inner(block); err != nil {
				return err
			}
		}
		for _, p := range f.items(f.get(helm, "parameters")) {
			name, _ := scalar(f.get(p, "name"))
			value, _ := scalar(f.get(p, "value"))
			at := yaml.Node{Kind: yaml.ScalarNode, Value: value, Line: f.line(p) - in.before}
			values = in.withParameter(values, parameterPath(name), at)
		}
		if err := in.releaseValues(values, f, f.get(helm, "valueFiles"), f.get(helm, "fileParameters")); err != nil {
			return err
		}
	}
	return f.releaseValues(f.get(spec, "values"), f, f.get(spec, "valuesFrom"),
		f.get(spec, "chart", "spec", "valuesFiles"))
}

// releaseValues reads values. More of them that stand elsewhere may let fewer people in.
func (f *file) releaseValues(values *yaml.Node, outer *file, more ...*yaml.Node) error {
	before := f.proxies
	if err := f.anyValues(values); err != nil || f.proxies == before {
		return err
	}
	for _, n := range more {
		for _, item := range outer.items(n) {
			f.unknown(f.name, outer.line(item), "(values)", "more values stand elsewhere: import the manifests that "+
				"the chart makes of all of them")
		}
	}
	return nil
}

// inner is a file of YAML that stands in a block of text, and what is in it.
func (f *file) inner(block *yaml.Node) (*file, *yaml.Node, error) {
	body, before := f.embedded(block)
	in := &file{sources: f.sources, name: f.name, before: before}
	loader, err := yaml.NewLoader(strings.NewReader(body))
	if err != nil {
		return in, nil, in.notYAML(err)
	}
	var doc yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return in, nil, nil
	} else if err != nil {
		return in, nil, in.notYAML(err)
	}
	return in, doc.Content[0], nil
}

// parameterPath is where a parameter of Helm belongs: "a.b" is b in a, and "a\.b" one key.
func parameterPath(name string) []string {
	const dot = "\x00"
	parts := strings.Split(strings.ReplaceAll(name, `\.`, dot), ".")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], dot, ".")
	}
	return parts
}

// withParameter is a copy of values with one of them set, as Helm does it.
func (f *file) withParameter(values *yaml.Node, path []string, value yaml.Node) *yaml.Node {
	if len(path) == 0 {
		return &value
	}
	all := yaml.Node{Kind: yaml.MappingNode, Line: value.Line}
	at := yaml.Node{Kind: yaml.ScalarNode, Value: path[0], Line: value.Line}
	var old *yaml.Node
	for _, p := range f.pairs(values) {
		if p.key == path[0] {
			old = p.value
			continue
		}
		all.Content = append(all.Content, p.at, p.value)
	}
	all.Content = append(all.Content, &at, f.withParameter(old, path[1:], value))
	return &all
}

func (f *file) anyValues(values *yaml.Node) error {
	for _, p := range f.pairs(values) {
		if isProxyName(p.key) && p.value.Kind == yaml.MappingNode {
			return f.chartValues(p.value)
		}
	}
	if f.has(values, chartKeys()...) {
		return f.chartValues(values)
	}
	return nil
}

func (f *file) pod(spec *yaml.Node) error {
	// A sidecar of Kubernetes stands among the containers that begin first.
	for _, c := range append(f.items(f.get(spec, "initContainers")), f.items(f.get(spec, "containers"))...) {
		if f.isProxy(c) {
			if err := f.container(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// isProxy reports whether a container runs oauth2-proxy.
func (f *file) isProxy(c *yaml.Node) bool {
	for _, key := range []string{"image", "name"} {
		if v, ok := scalar(f.get(c, key)); ok && isProxyName(v) {
			return true
		}
	}
	command, _ := f.texts(f.get(c, "command"))
	if slices.ContainsFunc(command, isProxyName) {
		return true
	}
	for _, e := range f.items(f.get(c, "env")) {
		if name, _ := scalar(f.get(e, "name")); strings.HasPrefix(name, envPrefix) {
			return true
		}
	}
	return false
}

// container reads the arguments and variables of a container.
func (f *file) container(c *yaml.Node) error {
	if f.proxies++; f.proxies > 1 {
		return fault{f.name, f.line(c), "is a second oauth2-proxy: import one at a time"}
	}
	var all []word // one command, in two parts: entrypoint and command of compose, command and args of Kubernetes
	for _, key := range []string{"entrypoint", "command", "args"} {
		all = append(all, f.words(f.get(c, key))...)
		if v, ok := scalar(f.get(c, key)); ok { // compose
			for _, w := range words(v) {
				all = append(all, word{text: w.text, line: f.line(f.get(c, key)) + w.line - 1})
			}
		}
	}
	f.addFlags(f.name, withoutProgram(shellScript(all)))
	f.env(f.get(c, "env"))
	f.environment(f.get(c, "environment"))
	f.envFrom(f.get(c, "envFrom"))
	return nil
}

// envFrom notes from where a container has more variables.
func (f *file) envFrom(n *yaml.Node) {
	for _, item := range f.items(n) {
		for _, p := range f.pairs(item) {
			if name, ok := scalar(f.get(p.value, "name")); ok {
				f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(item), "envFrom." + p.key, name})
			}
		}
	}
}

// shellScript takes `sh -c "oauth2-proxy --flag …"` apart.
func shellScript(all []word) []word {
	if len(all) >= 3 && strings.HasSuffix(all[0].text, "sh") && strings.HasPrefix(all[1].text, "-") {
		script := words(all[2].text)
		for i := range script {
			script[i].line = all[2].line
		}
		return script
	}
	return all
}

// env reads the variables of a container as Kubernetes has them.
func (f *file) env(n *yaml.Node) {
	for _, e := range f.items(n) {
		name, _ := scalar(f.get(e, "name"))
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		value, here := scalar(f.get(e, "value"))
		if here {
			f.addVariable(f.name, f.line(e), name, value)
			continue
		}
		f.add(setting{key: name, rank: fromEnv, file: f.name, line: f.line(e), variable: name, missing: true})
	}
}

// environment reads the variables of a compose file: a mapping, or a list of NAME=value.
func (f *file) environment(n *yaml.Node) {
	for _, p := range f.pairs(n) {
		if value, ok := scalar(p.value); ok {
			f.addVariable(f.name, f.line(p.at), p.key, value)
		} else if strings.HasPrefix(p.key, envPrefix) {
			f.add(setting{key: p.key, rank: fromEnv, file: f.name, line: f.line(p.at), variable: p.key, missing: true})
		}
	}
	for _, item := range f.items(n) {
		line, _ := scalar(item)
		key, value, here := strings.Cut(line, "=")
		switch {
		case here:
			f.addVariable(f.name, f.line(item), key, value)
		case strings.HasPrefix(key, envPrefix):
			f.add(setting{key: key, rank: fromEnv, file: f.name, line: f.line(item), variable: key, missing: true})
		}
	}
}

func (f *file) compose(root *yaml.Node) error {
	for _, p := range f.pairs(f.get(root, "services")) {
		image, _ := scalar(f.get(p.value, "image"))
		if !isProxyName(image) && !isProxyName(p.key) {
			continue
		}
		if err := f.container(p.value); err != nil {
			return err
		}
		if from := f.get(p.value, "env_file"); from != nil {
			f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(from), "env_file", ""})
		}
		if from := f.get(p.value, "build"); from != nil {
			f.unknown(f.name, f.line(from), "build", "its Dockerfile may say more (ENV, CMD): write what it says into "+
				"the service, without build")
		}
		if from := f.get(p.value, "extends"); from != nil {
			f.unknown(f.name, f.line(from), "extends", "the other service may say more: import what `docker compose "+
				"config` prints")
		}
	}
	return nil
}

// configMap reads the files and variables of oauth2-proxy in a ConfigMap.
func (f *file) configMap(root *yaml.Node) error {
	own, _ := scalar(f.get(root, "metadata", "name"))
	for _, p := range f.pairs(f.get(root, "data")) {
		value, ok := scalar(p.value)
		if !ok {
			continue
		}
		if strings.HasPrefix(p.key, envPrefix) {
			f.addVariable(f.name, f.line(p.at), p.key, value)
			continue
		}
		name := strings.ToLower(p.key)
		ours := isProxyName(name) || strings.HasSuffix(name, ".cfg") || strings.Contains(name, "email")
		body, before := f.embedded(p.value)
		switch what := formOf(body); {
		case !ours && (what != formTOML || !isProxyName(own)): // --config may name any key
		case what == formTOML:
			if err := f.readTOML(f.name, body, before); err != nil {
				return err
			}
		case what == formEmails:
			if err := f.readEmails(f.name, body); err != nil {
				return err
			}
		case what == formYAML && strings.Contains(body, "providers:"):
			if err := f.readDocuments(&file{sources: f.sources, name: f.name, before: before}, body); err != nil {
				return err
			}
		}
	}
	return nil
}

// secret takes the names of variables from a Secret, and never what is in them.
func (f *file) secret(root *yaml.Node) {
	for _, part := range []string{"data", "stringData"} {
		for _, p := range f.pairs(f.get(root, part)) {
			if strings.HasPrefix(p.key, envPrefix) {
				f.add(setting{key: p.key, rank: fromEnv, file: f.name, line: f.line(p.at), variable: p.key,
					missing: true})
			}
		}
	}
}

// ingress reads for which hosts ingress-nginx asks, and under which oauth2-proxy is served.
func (f *file) ingress(root *yaml.Node) {
	in := ingress{file: f.name, line: f.line(root)}
	asks := false
	for _, p := range f.pairs(f.get(root, "metadata", "annotations")) {
		name, ours := strings.CutPrefix(p.key, ingressPrefix)
		value, _ := scalar(p.value)
		if !ours || !strings.HasPrefix(name, "auth-") {
			continue
		}
		in.annotations = append(in.annotations, annotation{name, value, f.line(p.at)})
		if name == "auth-url" {
			asks = true
			u, err := url.Parse(value)
			if in.badQuery = err != nil; err == nil {
				in.query, err = url.ParseQuery(u.RawQuery)
				in.badQuery, in.other = err != nil, u.Path != "/oauth2/auth"
			}
		}
	}
	self := false
	for _, rule := range f.items(f.get(root, "spec", "rules")) {
		host, _ := scalar(f.get(rule, "host"))
		in.hosts = append(in.hosts, host)
		for _, p := range f.items(f.get(rule, "http", "paths")) {
			path, _ := scalar(f.get(p, "path"))
			service, _ := scalar(f.get(p, "backend", "service", "name"))
			self = self || strings.HasPrefix(path, "/oauth2") || isProxyName(service)
		}
	}
	switch {
	case asks:
		f.ingresses = append(f.ingresses, in)
	case self:
		f.hosts = append(f.hosts, in.hosts...)
	}
}

// chartKeys tell values of the Helm chart from other files.
func chartKeys() []string {
	return []string{"config", "extraArgs", "extraEnv", "alphaConfig", "authenticatedEmailsFile", "htpasswdFile",
		"sessionStorage", "proxyVarsAsSecrets", "configuration"}
}

// deploys reports whether a value of the chart, or of Bitnami's, says how oauth2-proxy is
// deployed and nothing of what it does.
func deploys(key string) bool {
	for _, end := range []string{"probe", "annotations", "labels", "securitycontext", "affinity", "preset", "volumes",
		"volumemounts", "containers", "ports", "override", "pullsecrets", "resources"} {
		if strings.HasSuffix(strings.ToLower(key), end) {
			return true
		}
	}
	return slices.Contains([]string{"enabled", "global", "kubeVersion", "clusterDomain", "image", "service",
		"serviceAccount", "redis", "redis-ha", "externalRedis", "metrics", "extraObjects", "gatewayApi", "resizePolicy",
		"hostAliases", "hostAlias", "priorityClassName", "tolerations", "nodeSelector", "topologySpreadConstraints",
		"proxyVarsAsSecrets", "replicaCount", "revisionHistoryLimit", "podDisruptionBudget", "pdb", "autoscaling",
		"httpScheme", "checkDeprecation", "strategy", "updateStrategy", "terminationGracePeriodSeconds", "dnsConfig",
		"dnsPolicy", "lifecycle", "lifecycleHooks", "networkPolicy", "rbac", "schedulerName", "runtimeClassName",
		"sidecars", "containerPort", "extraDeploy", "extraManifests", "automountServiceAccountToken",
		"enableServiceLinks", "minReadySeconds", "diagnosticMode", "config.requiredSecretKeys"}, key)
}

// isEmpty reports whether a value says nothing.
func isEmpty(n *yaml.Node) bool {
	return len(n.Content) == 0 && (n.Kind != yaml.ScalarNode || n.Value == "" || n.Tag == "!!null")
}

// otherValue judges a value of a chart that has no meaning here. One that no chart of
// oauth2-proxy is known to have may be a restriction, in a chart of somebody's own.
func (f *file) otherValue(key string, p pair) {
	if deploys(key) || isEmpty(p.value) {
		f.report(f.name, f.line(p.at), key, NotMapped, "is about how the chart deploys oauth2-proxy")
		return
	}
	f.unknown(f.name, f.line(p.at), key, "is no value of oauth2-proxy's chart that is known here: import the "+
		"manifests that the chart makes")
}

// chartValues reads the values of oauth2-proxy's Helm chart.
func (f *file) chartValues(root *yaml.Node) error {
	if f.proxies++; f.proxies > 1 {
		return fault{f.name, f.line(root), "is a second oauth2-proxy: import one at a time"}
	}
	f.chart = true
	file := chartFile{line: f.line(root)}
	for _, p := range f.pairs(root) {
		switch p.key {
		case "config", "configuration": // Bitnami's has the other name
			if err := f.chartConfig(p.value, p.key+".", &file); err != nil {
				return err
			}
		case "extraArgs":
			f.chartArgs(p.value)
		case "extraEnv", "env", "extraEnvVars":
			f.env(p.value)
		case "extraEnvVarsCM", "extraEnvVarsSecret":
			if name, _ := scalar(p.value); name != "" {
				f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(p.at), p.key, name})
			}
		case "alphaConfig":
			if err := f.chartAlpha(p.value); err != nil {
				return err
			}
		case "authenticatedEmailsFile":
			f.chartEmails(p)
		case "htpasswdFile":
			f.chartPasswords(p)
		case "sessionStorage":
			if kind, ok := scalar(f.get(p.value, "type")); ok {
				f.add(setting{key: "session-store-type", values: []string{kind}, rank: fromFlag, file: f.name,
					line: f.line(p.at)})
			}
		case "ingress":
			f.chartIngress(p)
		case "envFrom":
			f.envFrom(p.value)
		default:
			f.otherValue(p.key, p)
		}
	}
	f.chartFile(file)
	return nil
}

// chartFile is the file that the chart gives to oauth2-proxy.
type chartFile struct {
	line               int
	own                bool // it is somebody's own, and not what the chart makes of the others
	domains, upstreams *setting
}

// chartFile adds what the chart has in its file, unless it is somebody's own.
func (f *file) chartFile(file chartFile) {
	for name, s := range map[string]*setting{optEmailDomain: file.domains, optUpstream: file.upstreams} {
		switch {
		case file.own && s != nil:
			f.report(s.file, s.line, s.key, NotMapped, "does not count beside a file of one's own")
		case file.own:
		case s != nil:
			f.settings = append(f.settings, s)
		default:
			value := map[string]string{optEmailDomain: "*", optUpstream: "file:///dev/null"}[name]
			f.settings = append(f.settings, &setting{name: name, key: "config.configFile (the chart's own)",
				values: []string{value}, file: f.name, line: file.line, quiet: true})
		}
	}
}

// chartPasswords notes that people sign in with passwords.
func (f *file) chartPasswords(p pair) {
	if on, _ := scalar(f.get(p.value, "enabled")); on == "true" {
		f.add(setting{key: "htpasswd-file", values: []string{"in the chart"}, rank: fromFlag, file: f.name,
			line: f.line(p.at)})
	}
}

// chartConfig reads the values below config, or below configuration in Bitnami's chart.
func (f *file) chartConfig(n *yaml.Node, at string, file *chartFile) error {
	flag := func(p pair, name string, values ...string) *setting {
		return &setting{name: name, key: at + p.key, values: values, rank: fromFlag, file: f.name, line: f.line(p.at)}
	}
	for _, p := range f.pairs(n) {
		value, here := scalar(p.value)
		switch p.key {
		case "clientID", "clientSecret", "cookieSecret": // the chart puts them into variables
			option := map[string]string{"clientID": "CLIENT_ID", "clientSecret": "CLIENT_SECRET",
				"cookieSecret": "COOKIE_SECRET"}[p.key]
			if here {
				s := flag(p, canonical(envPrefix+option, fromEnv), value)
				s.rank, s.variable = fromEnv, envPrefix+option
				f.settings = append(f.settings, s)
			}
		case "existingSecret":
			for _, o := range []string{"CLIENT_ID", "CLIENT_SECRET", "COOKIE_SECRET"} {
				if s := flag(p, canonical(envPrefix+o, fromEnv)); here && value != "" {
					s.rank, s.variable, s.missing = fromEnv, envPrefix+o, true
					f.settings = append(f.settings, s)
				}
			}
		case "configFile", "content":
			if !here || value == "" {
				continue
			}
			file.own = true
			body, before := f.embedded(p.value)
			if err := f.readTOML(f.name, body, before); err != nil {
				return err
			}
		case "existingConfig", "existingConfigmap":
			if here && value != "" {
				file.own = true
				f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(p.at), at + p.key, value})
			}
		case "forceLegacyConfig":
			if value == "false" {
				f.unknown(f.name, f.line(p.at), at+p.key, "which file counts then depends on the chart: import the "+
					"manifests that it makes")
			}
		case "emailDomains", "upstreams":
			values, _ := f.texts(p.value)
			s := flag(p, map[string]string{"emailDomains": optEmailDomain, "upstreams": optUpstream}[p.key], values...)
			s.rank, s.missing = fromFile, values == nil && !isEmpty(p.value)
			*map[string]**setting{"emailDomains": &file.domains, "upstreams": &file.upstreams}[p.key] = s
		case "cookieName", "oidcIssuerUrl", "redirectUrl", "whiteList":
			name := map[string]string{"cookieName": "cookie-name", "oidcIssuerUrl": "oidc-issuer-url",
				"redirectUrl": "redirect-url", "whiteList": "whitelist-domain"}[p.key]
			if here && value != "" {
				f.settings = append(f.settings, flag(p, name, value))
			}
		case "authenticatedEmailsFile":
			f.chartEmails(p)
		case "htpasswdFile":
			f.chartPasswords(p)
		case "google":
			groups, some := f.texts(f.get(p.value, "groups"))
			if group, ok := scalar(f.get(p.value, "googleGroup")); ok { // in Bitnami's
				groups, some = append(groups, group), true
			}
			if some {
				s := flag(p, "google-group", groups...)
				s.key += ".groups"
				f.settings = append(f.settings, s)
			} else if admin, _ := scalar(f.get(p.value, "adminEmail")); admin != "" {
				s := flag(p, "google-admin-email", admin)
				s.key += ".adminEmail"
				f.settings = append(f.settings, s)
			}
		default:
			f.otherValue(at+p.key, p)
		}
	}
	return nil
}

// chartArgs reads extraArgs, a mapping or a list.
func (f *file) chartArgs(n *yaml.Node) {
	for _, p := range f.pairs(n) {
		set := setting{key: p.key, rank: fromFlag, file: f.name, line: f.line(p.at)}
		if v, ok := scalar(p.value); ok {
			set.values = f.split(p.key, fromFlag, v)
		} else if many, ok := f.texts(p.value); ok {
			set.values = many
		} else if p.value.Tag != "!!null" && len(p.value.Content) > 0 {
			set.missing = true // it counts, whatever it may mean
		} else if known()[canonical(p.key, fromFlag)].kind == boolean {
			set.values = on()
		}
		f.add(set)
	}
	f.addFlags(f.name, f.words(n))
}

// words are the entries of a list, which are those of a command.
func (f *file) words(n *yaml.Node) (all []word) {
	for _, item := range f.items(n) {
		if v, ok := scalar(item); ok {
			all = append(all, word{text: v, line: f.line(item)})
		} else {
			f.unknown(f.name, f.line(item), "(argument)", "is no text: `--flag: value` is written --flag=value")
		}
	}
	return all
}

// chartAlpha reads the alpha configuration among the values.
func (f *file) chartAlpha(n *yaml.Node) error {
	if on, _ := scalar(f.get(n, "enabled")); on != "true" {
		return nil
	}
	for _, p := range f.pairs(n) {
		switch p.key {
		case "configData":
			f.alphaConfig(p.value, "alphaConfig.configData")
		case "serverConfigData":
			f.alphaServer(p.value, "alphaConfig.serverConfigData", "http-address")
		case "metricsConfigData":
			f.alphaServer(p.value, "alphaConfig.metricsConfigData", "metrics-address")
		case "configFile":
			if v, ok := scalar(p.value); ok && strings.TrimSpace(v) != "" {
				body, before := f.embedded(p.value)
				err := f.readDocuments(&file{sources: f.sources, name: f.name, before: before}, body)
				if err != nil {
					return err
				}
			}
		case "existingConfig", "existingSecret":
			if v, _ := scalar(p.value); v != "" {
				f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(p.at), "alphaConfig." + p.key, v})
			}
		}
	}
	return nil
}

// chartEmails reads the addresses that the chart puts into a file.
func (f *file) chartEmails(p pair) {
	if on, _ := scalar(f.get(p.value, "enabled")); on != "true" {
		return
	}
	f.add(setting{key: optEmailsFile, values: []string{"in the chart"}, rank: fromFlag, file: f.name,
		line: f.line(p.at)})
	list, _ := scalar(f.get(p.value, "restricted_access"))
	if content, _ := scalar(f.get(p.value, "content")); list == "" { // Bitnami's name for it
		list = content
	}
	if list != "" {
		_ = f.readEmails(f.name, list) // it has no form that is wrong: each address is judged for itself
	}
}

// chartIngress reads under which hosts the chart serves oauth2-proxy.
func (f *file) chartIngress(p pair) {
	if on, _ := scalar(f.get(p.value, "enabled")); on != "true" {
		return
	}
	for _, item := range f.items(f.get(p.value, "hosts")) {
		if host, ok := scalar(item); ok {
			f.hosts = append(f.hosts, host)
		} else if host, ok := scalar(f.get(item, "host")); ok {
			f.hosts = append(f.hosts, host)
		}
	}
	text := "is about how the chart deploys oauth2-proxy"
	if len(f.hosts) > 0 {
		text = "its host is taken for public_url where redirect-url is not there"
	}
	f.report(f.name, f.line(p.at), p.key, NotMapped, text)
}
