package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/auditfile"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
	yaml "go.yaml.in/yaml/v4"
)

// Forms that the schema shares.
const (
	// prefixPattern: segments of unreserved characters (RFC 3986 §2.3), none of
	// them only dots.
	prefixPattern = `^(/\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`
	labels        = `[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*`
	hostPattern   = `^(\*\.|\{org\}\.)?` + labels + `$`
	guidPattern   = `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
	idPattern     = `^[a-z0-9][a-z0-9-]{0,31}$`
	headerPattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" // a token of RFC 9110 §5.6.2
)

func idText() shape[string] {
	return pattern("a short name of lower-case letters, digits and -", idPattern)
}

func cookieName() shape[string] {
	return scalar("a name such as sallyport-two", schema{"pattern": `^sallyport(-[a-z0-9-]+)?$`}, func(v string) (string, error) {
		return v, session.CheckCookieName(v)
	})
}

// auditTarget is a stream of the process, or a file.
func auditTarget() shape[string] {
	return scalar("stdout, stderr or an absolute path", schema{"pattern": `^(stdout|stderr|/.+)$`}, func(v string) (string, error) {
		if v != auditfile.Stdout && v != auditfile.Stderr && (!path.IsAbs(v) || strings.HasSuffix(v, "/")) {
			return "", errors.New("must be stdout, stderr or the absolute path of a file, such as /var/log/sallyport/audit.jsonl")
		}
		return v, nil
	})
}

func address() shape[string] {
	s := scalar("an address such as :4180 or 127.0.0.1:4180", schema{"pattern": `^.*:[0-9]{1,5}$`}, func(v string) (string, error) {
		host, port, err := net.SplitHostPort(v)
		if err != nil || !validPort(port) || strings.ContainsAny(host, "/@ ") {
			return "", errors.New("must be an address such as :4180 or 127.0.0.1:4180")
		}
		return v, nil
	})
	read := s.read
	s.read = func(w *walker, at place, into *string) {
		if v := at.node.Value; at.node.Kind == yaml.ScalarNode && validPort(v) {
			w.suggest(at, ":"+v, "must be %s, not a port alone", s.want)
			return
		}
		read(w, at, into)
	}
	return s
}

// vendors are names of providers that people write for a type.
var vendors = map[string]string{
	"keycloak": "oidc", "keycloak-oidc": "oidc", "okta": "oidc", "auth0": "oidc", "authentik": "oidc", "authelia": "oidc",
	"dex": "oidc", "zitadel": "oidc", "cognito": "oidc", "adfs": "oidc", "gitlab": "oidc", "openid": "oidc",
	"openid-connect": "oidc", "azure": "microsoft", "azuread": "microsoft", "entra": "microsoft", "entra-id": "microsoft",
}

func providerType() shape[string] {
	s := oneOf("", login.Types()...)
	read := s.read
	s.read = func(w *walker, at place, into *string) {
		if meant := vendors[strings.ToLower(at.node.Value)]; meant != "" {
			w.suggest(at, meant, "must be %s, not %s", s.want, quote(at.node.Value))
			return
		}
		read(w, at, into)
	}
	return s
}

func validPort(v string) bool {
	n, err := strconv.ParseUint(v, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == v
}

// addressOrNone lets the empty text pass, which switches a listener off.
func addressOrNone() shape[string] {
	a := address()
	return shape[string]{want: a.want + `, or ""`, schema: schema{"anyOf": []any{schema{"const": ""}, a.schema}},
		read: func(w *walker, at place, into *string) {
			if isText(at.node) && at.node.Value == "" {
				*into = ""
				return
			}
			a.read(w, at, into)
		}}
}

// parseOrigin reads a URL that names scheme and host and nothing else.
func parseOrigin(v, sample string) (*url.URL, error) {
	u, err := parseURL(v, sample)
	if err != nil {
		return nil, err
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(v, "#") {
		return nil, errors.New("must be a URL without path, query and fragment")
	}
	host := strings.ToLower(u.Hostname())
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = "[" + addr.String() + "]" // as browsers write it
	}
	if u.Port() != "" && u.Port() != defaultPort(u.Scheme) {
		host += ":" + u.Port()
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// parseURL reads an absolute http or https URL. Its complaints, unlike
// url.Parse's, never repeat what may hold a password.
func parseURL(v, sample string) (*url.URL, error) {
	if strings.Contains(v, "@") {
		return nil, unquoted{errors.New("must be a URL without a user or password in it")}
	}
	wrong := errors.New("must be an absolute URL such as " + sample)
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Opaque != "" {
		return nil, wrong
	}
	host := u.Hostname()
	if strings.Contains(u.Host, "[") {
		if addr, err := netip.ParseAddr(host); err != nil || addr.Zone() != "" {
			return nil, wrong
		}
	} else if !regexp.MustCompile(`^` + labels + `$`).MatchString(strings.ToLower(host)) {
		return nil, wrong
	}
	if strings.HasSuffix(u.Host, ":") || (u.Port() != "" && (!validPort(u.Port()) || u.Port() == "0")) {
		return nil, wrong
	}
	return u, nil
}

func parsePublicURL(v string) (*url.URL, error) {
	u, err := parseOrigin(v, "https://app.example.com")
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		return nil, errors.New("must be https, because over plain http everybody on the way could take the session cookie (http is for localhost and other loopback hosts)")
	}
	return u, nil
}

// parseIssuer keeps the issuer as it is written: the ID token's must be the same
// text (OIDC Core §3.1.3.7).
func parseIssuer(v string) (string, error) {
	u, err := parseURL(v, "https://sso.example.com")
	switch {
	case err != nil:
		return "", err
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(v, "#"):
		return "", errors.New("must be a URL without query and fragment") // OIDC Core §2
	case u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()):
		return "", errors.New("must be https, because over plain http anybody on the way could answer for it (http is for localhost and other loopback hosts)")
	}
	if i := strings.Index(u.Path, "/.well-known/"); i >= 0 { // Discovery §4: the document is below the issuer
		return "", slip{error: errors.New("must be the issuer, which is the address of the discovery document without what begins at /.well-known/"),
			meant: v[:strings.Index(v, "/.well-known/")]}
	}
	return v, nil
}

// urlText is a URL or a reference to one. Until Resolve it is the reference, so
// that what depends on its being there can be judged.
func urlText(parse func(string) (string, error)) shape[string] {
	s := valueOrRef("an https URL such as https://sso.example.com", `^[Hh][Tt][Tt][Pp][Ss]?://[^?#@\s]+$`, parse)
	read := s.read
	s.read = func(w *walker, at place, into *string) {
		if read(w, at, into); *into == "" {
			*into = at.node.Value
		}
	}
	return s
}

// parseEndpoint is parseIssuer but for the query, which RFC 6749 §3.1 allows.
func parseEndpoint(v string) (string, error) {
	bare, _, _ := strings.Cut(v, "?")
	if _, err := parseIssuer(bare); err != nil {
		return "", err
	}
	return v, nil
}

// parseClientID: RFC 6749 §A.1 allows printable ASCII.
func parseClientID(v string) (string, error) {
	if form, _, _ := splitRef(v); form != "" {
		return "", unquoted{errors.New("must be the client id itself, env:NAME or file:/path")}
	}
	if !regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`).MatchString(v) {
		return "", errors.New("must be printable ASCII")
	}
	return v, nil
}

// forwardOrRefused is the word `forward`; leaving the key out refuses.
func forwardOrRefused() shape[bool] {
	want := "forward or left out"
	return shape[bool]{want: want, schema: schema{"const": "forward"}, read: func(w *walker, at place, into *bool) {
		var v string
		oneOf(want, "forward").read(w, at, &v)
		*into = v != ""
	}}
}

// logoFile reads the logo, whose name tells what it is.
func logoFile() shape[Pages] {
	ref := fileRef(formFile)
	s := schema{"type": "string", "pattern": `^file:/.+\.(svg|png)$`}
	return shape[Pages]{want: ref.want, schema: s, read: func(w *walker, at place, into *Pages) {
		ref.read(w, at, &into.Logo)
		if into.Logo.IsZero() {
			return
		}
		switch path.Ext(into.Logo.open().arg) {
		case ".svg":
			into.LogoType = "image/svg+xml"
		case ".png":
			into.LogoType = "image/png"
		default:
			w.fault(at, "must be an .svg or .png file")
		}
	}}
}

// headerFields reads a mapping of header names. Which names are reserved and
// which are the same to an app, identity knows.
func headerFields() shape[[]identity.Field] {
	value := headerFieldShape()
	name := regexp.MustCompile(headerPattern)
	s := schema{"type": "object", "propertyNames": schema{"pattern": headerPattern}, "additionalProperties": value.schema}
	return shape[[]identity.Field]{want: "a mapping", schema: s, read: func(w *walker, at place, into *[]identity.Field) {
		if !w.expect(at, yaml.MappingNode, "a mapping of header names", false) {
			return
		}
		*into = make([]identity.Field, len(at.node.Content)/2)
		for i := range *into {
			key, node := at.node.Content[2*i], at.node.Content[2*i+1]
			here := place{node, join(at.path, key.Value)}
			if isText(key) && (!name.MatchString(key.Value) || strings.Contains(key.Value, "*")) {
				w.fault(place{key, here.path}, "is not the name of a header")
			}
			(*into)[i].Header = key.Value
			take(w, value, here, &(*into)[i])
		}
	}}
}

func checkHeaderField(w *walker, at place, f *identity.Field) {
	if f.Claim != identity.ClaimGroups && w.src.has(at.path+".join") {
		w.faultAt(at.path+".join", "has a meaning for groups only")
	}
}

func checkSession(w *walker, at place, s *Session) {
	if s.IdleTimeout > s.AbsoluteTimeout {
		w.faultAt(at.path+".idle_timeout", "is longer (%s) than absolute_timeout (%s)", short(s.IdleTimeout), short(s.AbsoluteTimeout))
	}
}

func checkLimits(w *walker, at place, l *Limits) {
	if l.URL > l.Header {
		w.faultAt(at.path+".url", "is larger than limits.header, of which it is a part")
	}
}

func checkProvider(w *walker, at place, p *Provider) {
	if p.Name == "" {
		p.Name = p.ID
	}
	switch secret := at.path + ".client_secret"; {
	case p.secretless() && !p.ClientSecret.IsZero():
		w.faultAt(secret, "is never sent with `client_auth: %s`; leave one of them out", p.ClientAuth)
	case !p.secretless() && p.ClientSecret.IsZero():
		w.faultAt(secret, "is required, unless the client is public (`client_auth: none`)")
	}
	if addresses := p.addresses(); !p.CA.IsZero() && len(addresses) > 0 && !slices.ContainsFunc(addresses, maybeHTTPS) {
		w.faultAt(at.path+".ca", "has a meaning for https only, and every address of this provider is http")
	}
	if p.SignOut.URL != "" && p.Endpoints.EndSessionURL != "" {
		w.faultAt(at.path+".logout.url", "stands beside endpoints.end_session, which is the same; leave one of them out")
	}
	if p.Scopes != nil && !slices.Contains(p.Scopes, "openid") {
		w.faultAt(at.path+".scopes", "must contain openid: without it the provider does not say who signed in")
	}
	for _, c := range p.Options().Conflicts() {
		w.faultAt(at.path+"."+c.Key, "%s", c.Why)
	}
}

// secretless: the client proves itself without a secret, or not at all.
func (p *Provider) secretless() bool {
	return slices.Contains([]string{login.ClientAuthNone, login.ClientAuthAssertion, login.ClientAuthPrivateKey}, p.ClientAuth)
}

// addresses are those of the provider that the file names.
func (p *Provider) addresses() []string {
	e := p.Endpoints
	return slices.DeleteFunc([]string{p.Issuer, e.AuthorizationURL, e.TokenURL, e.UserinfoURL, e.JWKSURL, e.GraphURL},
		func(a string) bool { return a == "" })
}

// maybeHTTPS: a reference may stand for anything.
func maybeHTTPS(address string) bool { return !strings.HasPrefix(strings.ToLower(address), "http:") }

// Options are what login needs to know that the file says. Before Resolve,
// references stand in for values.
func (p Provider) Options() login.Options {
	endpoints := p.Endpoints
	if p.SignOut.URL != "" {
		endpoints.EndSessionURL = p.SignOut.URL
	}
	return login.Options{
		ID: p.ID, Type: p.Type, Issuer: p.Issuer, Endpoints: endpoints,
		SignOut:  login.SignOut{Off: p.SignOut.Off, Params: p.SignOut.Params, ReturnParam: p.SignOut.ReturnParam},
		ClientID: p.ClientID, ClientSecret: p.secret(), ClientAuth: p.ClientAuth,
		ClientAssertion: p.assertion(), ClientKey: known(p.ClientKey), ClientKeyID: p.ClientKeyID,
		Scopes: p.Scopes, Claims: login.ClaimNames(p.Claims), IdentityFrom: p.IdentityFrom, EmailDomains: p.EmailDomains,
		TrustedAudiences: p.TrustedAudiences,
		PublicKeys:       p.publicKeys(), Quirks: p.Quirks,
		HostedDomains: p.HostedDomains, Tenant: p.Tenant, AllowedTenants: p.AllowedTenants,
	}
}

func (p Provider) publicKeys() []string {
	var texts []string
	for _, k := range p.PublicKeys {
		texts = append(texts, k.Value())
	}
	return texts
}

const parameterPattern = `^[A-Za-z0-9._~-]+$`

func parameterName() shape[string] {
	return pattern("the name of a parameter, of letters, digits and -._~", parameterPattern)
}

// parameters reads a mapping of names to texts.
func parameters() shape[map[string]string] {
	name, value := parameterName(), scalar("a text", schema{}, func(v string) (string, error) { return v, nil })
	s := schema{"type": "object", "minProperties": 1, "propertyNames": schema{"pattern": parameterPattern}, "additionalProperties": schema{"type": "string"}}
	return shape[map[string]string]{want: "a mapping", about: "a mapping of names to texts", schema: s, read: func(w *walker, at place, into *map[string]string) {
		if !w.expect(at, yaml.MappingNode, "a mapping of names to texts", false) {
			return
		}
		if len(at.node.Content) == 0 {
			w.fault(at, "must not be empty; leave it out")
		}
		*into = map[string]string{}
		for i := 0; i+1 < len(at.node.Content); i += 2 {
			key, node := at.node.Content[i], at.node.Content[i+1]
			here := place{node, join(at.path, key.Value)}
			var k, v string
			name.read(w, place{key, here.path}, &k)
			take(w, value, here, &v)
			(*into)[k] = v
		}
	}}
}

func checkSignOut(w *walker, at place, s *SignOut) {
	if _, twice := s.Params[s.ReturnParam]; twice && s.ReturnParam != "" {
		w.faultAt(at.path+".return_param", "is among params too: which of them would count?")
	}
	if _, hint := s.Params["id_token_hint"]; hint {
		w.faultAt(at.path+".params.id_token_hint", "is the ID token of the person who signs out, and no token is kept; a provider that demands it can only be left out: `logout: false`")
	}
}

// publicKeyRef is a file of public keys, which Resolve looks into.
func publicKeyRef() shape[Ref] { return checkedRef(login.CheckPublicKeys) }

// authorities is a file of certificates, which Resolve looks into.
func authorities() shape[Ref] {
	return checkedRef(func(text string) error {
		_, err := certPool(text)
		return err
	})
}

// checkedRef is a file whose content Resolve has judged.
func checkedRef(judge func(text string) error, forms ...string) shape[Ref] {
	if forms == nil {
		forms = []string{formFile, formEnv}
	}
	return checked(fileRef(forms...), judge)
}

// checked is a reference whose value Resolve has judged.
func checked(s shape[Ref], judge func(text string) error) shape[Ref] {
	read := s.read
	s.read = func(w *walker, at place, into *Ref) {
		if read(w, at, into); !into.IsZero() {
			w.src.pending[len(w.src.pending)-1].store = judge
		}
	}
	return s
}

// certPool reads PEM of certificates. x509's own reader passes over what it
// cannot read, and an authority that is missing is found out by a handshake.
func certPool(text string) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("must be certificates in PEM and nothing else")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("must be certificates in PEM, and one of them cannot be read")
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, errors.New("must be certificates in PEM, and holds none")
	}
	return pool, nil
}

// Authorities are those who may vouch for a peer; nil is whom the system trusts,
// where r is zero.
func (r Ref) Authorities() *x509.CertPool {
	if r.IsZero() {
		return nil
	}
	pool, err := certPool(r.Value())
	if err != nil {
		return x509.NewCertPool() // not after Resolve, which has judged it; trusts nobody
	}
	return pool
}

// secret is the client secret, or before Resolve a word that says there is one.
func (p Provider) secret() string { return known(p.ClientSecret) }

// known is what r stands for, or before Resolve a word that says there is something.
func known(r Ref) string {
	if v := r.Value(); v != "" {
		return v
	}
	return r.String()
}

// assertion is the token as Resolve read it; nil without one. Who signs in with it
// reads the file again (Ref.Reread).
func (p Provider) assertion() func() (string, error) {
	if p.ClientAssertion.IsZero() {
		return nil
	}
	return func() (string, error) { return p.ClientAssertion.Value(), nil }
}

// crossCheck finds what is wrong between parts that are each well. It runs
// beside other faults, so it says nothing of what could not be read.
func (c *Config) crossCheck() Faults {
	var ids, names []string
	for _, p := range c.Providers {
		ids = append(ids, p.ID)
	}
	for _, r := range c.Routes {
		names = append(names, r.Name)
	}
	faults := slices.Concat(c.checkUnique("providers", "id", ids), c.checkUnique("routes", "name", names), c.checkVouching(), c.checkBearers())
	faults = append(faults, c.checkOrganizations()...)
	if c.PublicURL != nil {
		faults = append(faults, c.settleHosts()...)
	}
	return faults
}

func (c *Config) checkUnique(in, key string, values []string) Faults {
	var faults Faults
	for i, v := range values {
		if first := slices.Index(values, v); v != "" && first < i {
			faults = append(faults, c.src.open().faultAt(index(in, i)+"."+key, "%s already has this %s", index(in, first), key))
		}
	}
	return faults
}

// checkVouching: where two providers can assert the same e-mail address, the
// weaker one decides who is who. So each says which domains are its own, but
// for those vendors of which we know when to believe them.
func (c *Config) checkVouching() Faults {
	var faults Faults
	for i, p := range c.Providers {
		where := index("providers", i) + ".email_domains"
		if len(c.Providers) > 1 && p.Type == login.TypeOIDC && !c.src.open().has(where) {
			faults = append(faults, c.src.open().faultAt(where, "is required where there is more than one provider: which domains may this one vouch for?"))
		}
	}
	return faults
}

// settleHosts gives routes their default host once public_url is known, and
// refuses to protect hosts on which nobody could sign in.
func (c *Config) settleHosts() Faults {
	var faults Faults
	public := c.PublicHost()
	for i := range c.Routes {
		r, where := &c.Routes[i], index("routes", i)
		switch {
		case r.Host == "":
			r.Host = public
		case r.Host != public && !r.Public && !c.src.open().has(where+".public"):
			faults = append(faults, c.src.open().faultAt(where+".host",
				"sign-in on several hosts comes with a later release; this release protects only %s (a public route may have any host)", public))
		}
	}
	return faults
}

// PublicHost is the host of PublicURL without its port.
func (c *Config) PublicHost() string {
	host := c.PublicURL.Hostname()
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
