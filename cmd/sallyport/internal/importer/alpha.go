package importer

import (
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// upstream is an app in an alpha configuration, or one that the flag names.
type upstream struct {
	path     string // ends in a slash: and all below it
	uri      string
	static   bool
	rewrites bool
	skipsTLS bool
	host     *bool // passHostHeader
	sockets  *bool // proxyWebSockets
	timeout  string
	from     *setting
}

// header is one that an alpha configuration sets.
type header struct {
	name     string
	response bool // set on answers, for the proxy that asks
	claim    string
	prefix   string
	constant bool // a value that is nobody's claim
	basic    bool
	keeps    bool // lets pass what the client sends
	values   int
	from     *setting
}

// alphaNames are the options that fields of a provider stand for.
func alphaNames() map[string]string {
	return map[string]string{
		"clientid": "client-id", "clientsecret": "client-secret", "clientsecretfile": "client-secret-file",
		"provider": "provider", "name": "provider-display-name", "cafiles": "provider-ca-file",
		"usesystemtruststore": "use-system-trust-store", "loginurl": "login-url", "redeemurl": "redeem-url",
		"profileurl": "profile-url", "skipclaimsfromprofileurl": "skip-claims-from-profile-url",
		"resource": "resource", "validateurl": "validate-url", "scope": "scope", "allowedgroups": optAllowedGroup,
		"code_challenge_method": "code-challenge-method", "backendlogouturl": "backend-logout-url",
		"authrequestresponsemode":                       "auth-request-response-mode",
		"keycloakconfig.groups":                         "keycloak-group",
		"keycloakconfig.roles":                          "allowed-role",
		"azureconfig.tenant":                            "azure-tenant",
		"azureconfig.graphgroupfield":                   "azure-graph-group-field",
		"microsoftentraidconfig.allowedtenants":         "entra-id-allowed-tenant",
		"microsoftentraidconfig.federatedtokenauth":     "entra-id-federated-token-auth",
		"bitbucketconfig.team":                          "bitbucket-team",
		"bitbucketconfig.repository":                    "bitbucket-repository",
		"githubconfig.org":                              "github-org",
		"githubconfig.team":                             "github-team",
		"githubconfig.repo":                             "github-repo",
		"githubconfig.token":                            "github-token",
		"githubconfig.users":                            "github-user",
		"gitlabconfig.group":                            "gitlab-group",
		"gitlabconfig.projects":                         "gitlab-project",
		"googleconfig.group":                            "google-group",
		"googleconfig.adminemail":                       "google-admin-email",
		"googleconfig.serviceaccountjson":               "google-service-account-json",
		"googleconfig.useapplicationdefaultcredentials": "google-use-application-default-credentials",
		"googleconfig.targetprincipal":                  "google-target-principal",
		"googleconfig.useorganizationid":                "google-use-organization-id",
		"googleconfig.adminapiuserscope":                "google-admin-api-user-scope",
		"logingovconfig.jwtkey":                         "jwt-key",
		"logingovconfig.jwtkeyfile":                     "jwt-key-file",
		"logingovconfig.pubjwkurl":                      "pubjwk-url",
		"oidcconfig.issuerurl":                          "oidc-issuer-url",
		"oidcconfig.insecureallowunverifiedemail":       "insecure-oidc-allow-unverified-email",
		"oidcconfig.insecureskipissuerverification":     "insecure-oidc-skip-issuer-verification",
		"oidcconfig.insecureskipnonce":                  "insecure-oidc-skip-nonce",
		"oidcconfig.skipdiscovery":                      "skip-oidc-discovery",
		"oidcconfig.jwksurl":                            "oidc-jwks-url",
		"oidcconfig.publickeyfiles":                     "oidc-public-key-file",
		"oidcconfig.publickeys":                         "oidc-public-key-file",
		"oidcconfig.emailclaim":                         "oidc-email-claim",
		"oidcconfig.groupsclaim":                        "oidc-groups-claim",
		"oidcconfig.useridclaim":                        "user-id-claim",
		"oidcconfig.audienceclaims":                     "oidc-audience-claim",
		"oidcconfig.extraaudiences":                     "oidc-extra-audience",
		"oidcconfig.enabledsigningalgs":                 "oidc-enabled-signing-alg",
	}
}

// alphaConfig reads an alpha configuration.
func (f *file) alphaConfig(root *yaml.Node, at string) {
	f.alpha = true
	for _, p := range f.pairs(root) {
		where := below(at, p.key)
		switch strings.ToLower(p.key) {
		case "providers":
			for i, item := range f.items(p.value) {
				if i > 0 {
					f.report(f.name, f.line(item), where+"[1]", NotMapped, "oauth2-proxy uses the first provider only")
					break
				}
				f.alphaProvider(item, where+"[0]", "")
			}
		case "upstreamconfig":
			if raw := f.get(p.value, "proxyRawPath"); raw != nil {
				if v, _ := scalar(raw); v == "true" {
					f.report(f.name, f.line(raw), where+".proxyRawPath", NotMapped, "escaped slashes pass where "+
						"`encoded: forward` of a route lets them")
				}
			}
			f.alphaUpstreams(f.get(p.value, "upstreams"), where+".upstreams")
		case "upstreams":
			f.alphaUpstreams(p.value, where)
		case "injectrequestheaders":
			f.alphaHeaders(p.value, where, false)
		case "injectresponseheaders":
			f.alphaHeaders(p.value, where, true)
		case "server":
			f.alphaServer(p.value, where, "http-address")
		case "metricsserver":
			f.alphaServer(p.value, where, "metrics-address")
		default:
			f.unknown(f.name, f.line(p.at), where, "is no key of an alpha configuration that is known here")
		}
	}
}

func below(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// alphaProvider reads the fields of a provider, and of what is below it.
func (f *file) alphaProvider(n *yaml.Node, at, part string) {
	for _, p := range f.pairs(n) {
		where, field := below(at, p.key), strings.ToLower(below(part, p.key))
		switch {
		case field == "id":
			f.settings = append(f.settings, f.alphaSetting("alpha-provider-id", where, p))
		case field == "loginurlparameters":
			f.alphaParameters(p.value, where)
		case alphaNames()[field] != "":
			f.settings = append(f.settings, f.alphaSetting(alphaNames()[field], where, p))
		case part == "" && p.value.Kind == yaml.MappingNode:
			f.alphaProvider(p.value, where, p.key)
		case field == "adfsconfig.skipscope":
			f.report(f.name, f.line(p.at), where, NotMapped, "providers[].scopes says what is asked for")
		default:
			f.unknown(f.name, f.line(p.at), where, "is no key of an alpha configuration that is known here")
		}
	}
}

func (f *file) alphaSetting(name, key string, p pair) *setting {
	s := &setting{name: name, key: key, rank: fromFlag, file: f.name, line: f.line(p.at), alpha: true}
	readable := false
	s.values, readable = f.texts(p.value)
	s.missing = !readable && p.value.Tag != "!!null" && len(p.value.Content) > 0
	for _, source := range []string{"value", "fromEnv", "fromFile"} { // a SecretSource
		if v, ok := scalar(f.get(p.value, source)); ok {
			s.missing = false
			switch source {
			case "fromEnv":
				s.missing, s.variable = true, v
			case "fromFile":
				s.name, s.values = name+"-file", []string{v}
			default:
				s.values = []string{v}
			}
		}
	}
	return s
}

// alphaParameters reads what is asked of the provider's sign-in page.
func (f *file) alphaParameters(n *yaml.Node, at string) {
	for _, item := range f.items(n) {
		name, _ := scalar(f.get(item, "name"))
		values, there := f.texts(f.get(item, "default"))
		option := map[string]string{"prompt": "prompt", "acr_values": "acr-values",
			"approval_prompt": "approval-prompt"}[name]
		key := at + "[" + name + "]"
		switch {
		case option != "" && there:
			f.settings = append(f.settings, &setting{name: option, key: key, values: values, rank: fromFlag,
				file: f.name, line: f.line(item), alpha: true})
		default:
			f.report(f.name, f.line(item), key, NotMapped,
				"Sallyport asks the provider for nothing beyond the protocol")
		}
	}
}

func (f *file) alphaUpstreams(n *yaml.Node, at string) {
	for i, item := range f.items(n) {
		id, ok := scalar(f.get(item, "id"))
		if !ok {
			id = strconv.Itoa(i)
		}
		from := &setting{name: optUpstream, key: at + "[" + id + "]", rank: fromFlag, file: f.name, line: f.line(item)}
		u := upstream{from: from}
		for _, p := range f.pairs(item) {
			value, _ := scalar(p.value)
			switch strings.ToLower(p.key) {
			case "path":
				u.path = value
			case "uri":
				u.uri = value
			case "static":
				u.static = value == "true"
			case "rewritetarget":
				u.rewrites = value != ""
			case "insecureskiptlsverify":
				u.skipsTLS = value == "true"
			case "passhostheader":
				b := value == "true"
				u.host = &b
			case "proxywebsockets":
				b := value == "true"
				u.sockets = &b
			case "timeout":
				u.timeout = value
			case "id", "staticcode", "flushinterval", "disablekeepalives":
			default:
				f.unknown(f.name, f.line(p.at), from.key+"."+p.key, "is no key of an upstream that is known here")
			}
		}
		f.upstreams = append(f.upstreams, u)
	}
}

func (f *file) alphaHeaders(n *yaml.Node, at string, response bool) {
	for _, item := range f.items(n) {
		name, _ := scalar(f.get(item, "name"))
		h := header{name: name, response: response,
			from: &setting{key: at + "[" + name + "]", rank: fromFlag, file: f.name, line: f.line(item)}}
		if v, _ := scalar(f.get(item, "preserveRequestValue")); v == "true" {
			h.keeps = true
		}
		for _, value := range f.items(f.get(item, "values")) {
			h.values++
			if source := f.get(value, "claimSource"); source != nil {
				value = source
			}
			h.claim, _ = scalar(f.get(value, "claim"))
			h.prefix, _ = scalar(f.get(value, "prefix"))
			h.basic = f.get(value, "basicAuthPassword") != nil
			h.constant = h.claim == ""
		}
		f.headers = append(f.headers, h)
	}
}

// alphaServer reads a listener: that of requests, or that of metrics.
func (f *file) alphaServer(n *yaml.Node, at, address string) {
	for _, p := range f.pairs(n) {
		names := map[string]string{"bindaddress": address,
			"securebindaddress": strings.Replace(address, "http-", "https-", 1)}
		if address == "metrics-address" {
			names["securebindaddress"] = "metrics-secure-address"
		}
		where := below(at, p.key)
		if name := names[strings.ToLower(p.key)]; name != "" {
			if v, ok := scalar(p.value); ok && v != "" && v != "-" {
				f.settings = append(f.settings, f.alphaSetting(name, where, p))
			}
			continue
		}
		for _, t := range f.pairs(p.value) {
			name := map[string]string{"key": "tls-key", "cert": "tls-cert", "minversion": "tls-min-version",
				"ciphersuites": "tls-cipher-suite"}[strings.ToLower(t.key)]
			set := f.alphaSetting(name, below(where, t.key), t)
			if set.name == "tls-key" || set.name == "tls-cert" || name == "" || address == "metrics-address" {
				f.report(f.name, f.line(t.at), below(where, t.key), Refused, "only a file can be named here, for the "+
					"listener of requests")
				continue
			}
			f.settings = append(f.settings, set)
		}
	}
}
