package importer

import (
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
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job":
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
	sources := append(f.items(f.get(root, "spec", "sources")), f.get(root, "spec", "source"))
	for _, source := range sources {
		helm := f.get(source, "helm")
		if values := f.get(helm, "valuesObject"); values != nil {
			if err := f.anyValues(values); err != nil {
				return err
			}
		}
		if values := f.get(helm, "values"); values != nil && values.Kind == yaml.ScalarNode {
			body, before := f.embedded(values)
			if err := f.readDocuments(&file{sources: f.sources, name: f.name, before: before}, body); err != nil {
				return err
			}
		}
		for _, p := range f.items(f.get(helm, "parameters")) {
			name, _ := scalar(f.get(p, "name"))
			if flag, ok := strings.CutPrefix(name, "extraArgs."); ok {
				value, _ := scalar(f.get(p, "value"))
				f.chart = true
				f.add(setting{key: flag, values: f.split(flag, fromFlag, value), rank: fromFlag, file: f.name,
					line: f.line(p)})
			}
		}
	}
	if values := f.get(root, "spec", "values"); values != nil {
		return f.anyValues(values)
	}
	return nil
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
	for _, c := range f.items(f.get(spec, "containers")) {
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
	for _, key := range []string{"command", "args"} {
		var all []word
		for _, item := range f.items(f.get(c, key)) {
			if v, ok := scalar(item); ok {
				all = append(all, word{text: v, line: f.line(item)})
			}
		}
		if v, ok := scalar(f.get(c, key)); ok { // compose
			for _, w := range words(v) {
				all = append(all, word{text: w.text, line: f.line(f.get(c, key)) + w.line - 1})
			}
		}
		f.addFlags(f.name, withoutProgram(shellScript(all)))
	}
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
		if len(script) > 0 && script[0].text == "exec" {
			script = script[1:]
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
	}
	return nil
}

// configMap reads the files and variables of oauth2-proxy in a ConfigMap.
func (f *file) configMap(root *yaml.Node) error {
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
		case !ours:
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
				in.badQuery = err != nil
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
		"sessionStorage", "proxyVarsAsSecrets"}
}

// chartValues reads the values of oauth2-proxy's Helm chart.
func (f *file) chartValues(root *yaml.Node) error {
	if f.proxies++; f.proxies > 1 {
		return fault{f.name, f.line(root), "is a second oauth2-proxy: import one at a time"}
	}
	f.chart = true
	ownFile := false
	for _, p := range f.pairs(root) {
		switch p.key {
		case "config":
			own, err := f.chartConfig(p.value)
			if err != nil {
				return err
			}
			ownFile = own
		case "extraArgs":
			f.chartArgs(p.value)
		case "extraEnv", "env":
			f.env(p.value)
		case "alphaConfig":
			if err := f.chartAlpha(p.value); err != nil {
				return err
			}
		case "authenticatedEmailsFile":
			f.chartEmails(p)
		case "htpasswdFile":
			if on, _ := scalar(f.get(p.value, "enabled")); on == "true" {
				f.add(setting{key: "htpasswd-file", values: []string{"in the chart"}, rank: fromFlag, file: f.name,
					line: f.line(p.at)})
			}
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
			f.tell(f.name, f.line(p.at), p.key, NotMapped, "is about how the chart deploys oauth2-proxy")
		}
	}
	if !ownFile { // what the chart has in its file then
		f.settings = append(f.settings,
			&setting{name: optEmailDomain, key: "config.configFile (the chart's own)", values: []string{"*"},
				file: f.name,
				line: f.line(root), quiet: true},
			&setting{name: optUpstream, key: "config.configFile (the chart's own)",
				values: []string{"file:///dev/null"},
				file:   f.name, line: f.line(root), quiet: true})
	}
	return nil
}

// chartConfig reads the values below config; own: the chart's own file does not count.
func (f *file) chartConfig(n *yaml.Node) (own bool, err error) {
	for _, p := range f.pairs(n) {
		value, here := scalar(p.value)
		option := map[string]string{"clientID": "CLIENT_ID", "clientSecret": "CLIENT_SECRET",
			"cookieSecret": "COOKIE_SECRET"}[p.key]
		switch {
		case option != "" && here: // the chart puts them into variables
			f.settings = append(f.settings, &setting{name: canonical(envPrefix+option, fromEnv), key: "config." + p.key,
				values: []string{value}, rank: fromEnv, file: f.name, line: f.line(p.at), variable: envPrefix + option})
		case option != "":
		case p.key == "existingSecret" && here:
			for _, o := range []string{"CLIENT_ID", "CLIENT_SECRET", "COOKIE_SECRET"} {
				f.settings = append(f.settings, &setting{name: canonical(envPrefix+o, fromEnv),
					key: "config.existingSecret", rank: fromEnv, file: f.name, line: f.line(p.at),
					variable: envPrefix + o, missing: true})
			}
		case p.key == "configFile" && here && value != "":
			own = true
			body, before := f.embedded(p.value)
			if err := f.readTOML(f.name, body, before); err != nil {
				return own, err
			}
		case p.key == "configFile":
		case p.key == "existingConfig" && here && value != "":
			own = true
			f.elsewhere = append(f.elsewhere, elsewhere{f.name, f.line(p.at), "config.existingConfig", value})
		case p.key == "cookieName" && here:
			f.settings = append(f.settings, &setting{name: "cookie-name", key: "config.cookieName",
				values: []string{value}, rank: fromFlag, file: f.name, line: f.line(p.at)})
		case p.key == "emailDomains":
			if values, ok := f.texts(p.value); ok {
				f.settings = append(f.settings, &setting{name: optEmailDomain, key: "config.emailDomains",
					values: values,
					rank:   fromFlag, file: f.name, line: f.line(p.at)})
			}
		case p.key == "google" && len(f.pairs(p.value)) > 0:
			if groups, ok := f.texts(f.get(p.value, "groups")); ok {
				f.settings = append(f.settings, &setting{name: "google-group", key: "config.google.groups",
					values: groups, rank: fromFlag, file: f.name, line: f.line(p.at)})
			} else if admin, _ := scalar(f.get(p.value, "adminEmail")); admin != "" {
				f.settings = append(f.settings, &setting{name: "google-admin-email", key: "config.google.adminEmail",
					values: []string{admin}, rank: fromFlag, file: f.name, line: f.line(p.at)})
			}
		case here && value == "", p.value.Kind == yaml.MappingNode && len(p.value.Content) == 0:
		default:
			f.tell(f.name, f.line(p.at), "config."+p.key, NotMapped, "is about how the chart deploys oauth2-proxy")
		}
	}
	return own, nil
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
	var all []word
	for _, item := range f.items(n) {
		if v, ok := scalar(item); ok {
			all = append(all, word{text: v, line: f.line(item)})
		}
	}
	f.addFlags(f.name, all)
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
	if list, ok := scalar(f.get(p.value, "restricted_access")); ok && list != "" {
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
	f.tell(f.name, f.line(p.at), p.key, NotMapped, text)
}
