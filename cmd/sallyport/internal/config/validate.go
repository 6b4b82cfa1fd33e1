package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/auditfile"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
	"github.com/sallyport-proxy/sallyport/internal/hostname"
	"github.com/sallyport-proxy/sallyport/login"
	"github.com/sallyport-proxy/sallyport/session"
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

func idText() yamltable.Shape[string] {
	return yamltable.Pattern("a short name of lower-case letters, digits and -", idPattern)
}

// reauthAfter has a word of its own for never: what YAML 1.1 reads as false (off, no) is
// not a text to Helm.
func reauthAfter() yamltable.Shape[time.Duration] {
	const form = `^(never|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$`
	const want = "a duration such as 30m or 1h, or never"
	return yamltable.Scalar(want, yamltable.Schema{"pattern": form}, func(v string) (time.Duration, error) {
		if v == "never" {
			return login.NoReauth, nil
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < time.Second || d > 720*time.Hour {
			return 0, errors.New("must be " + want + ", from 1s to 720h")
		}
		return d, nil
	})
}

func cookieName() yamltable.Shape[string] {
	return yamltable.Scalar("a name such as sallyport-two", yamltable.Schema{"pattern": `^sallyport(-[a-z0-9-]+)?$`},
		func(v string) (string, error) {
			return v, session.CheckCookieName(v)
		})
}

func cookieDomain() yamltable.Shape[string] {
	return yamltable.Scalar("a domain such as example.com", yamltable.Schema{"pattern": hostname.DomainPattern},
		func(v string) (string, error) {
			switch {
			case strings.HasPrefix(v, ".") && hostname.IsDomain(v[1:]):
				return "", errors.New("must be without the dot: " + v[1:])
			case net.ParseIP(v) != nil || !hostname.IsDomain(v):
				return "", errors.New("must be a domain in small letters, such as example.com")
			}
			return v, nil
		})
}

// auditTarget is a stream of the process, or a file.
func auditTarget() yamltable.Shape[string] {
	form := yamltable.Schema{"pattern": `^(stdout|stderr|/.+)$`}
	return yamltable.Scalar("stdout, stderr or an absolute path", form, func(v string) (string, error) {
		if v != auditfile.Stdout && v != auditfile.Stderr && (!path.IsAbs(v) || strings.HasSuffix(v, "/")) {
			return "", errors.New("must be stdout, stderr or the absolute path of a file, such as " +
				"/var/log/sallyport/audit.jsonl")
		}
		return v, nil
	})
}

func address() yamltable.Shape[string] {
	s := yamltable.Scalar("an address such as :4180 or 127.0.0.1:4180", yamltable.Schema{"pattern": `^.*:[0-9]{1,5}$`},
		func(v string) (string, error) {
			host, port, err := net.SplitHostPort(v)
			if err != nil || !validPort(port) || strings.ContainsAny(host, "/@ ") {
				return "", errors.New("must be an address such as :4180 or 127.0.0.1:4180")
			}
			return v, nil
		})
	read := s.Read
	s.Read = func(w *yamltable.Walker, at yamltable.Place, into *string) {
		if v := at.Node.Value; at.Node.Kind == yamltable.ScalarText && validPort(v) {
			w.Suggest(at, ":"+v, "must be %s, not a port alone", s.Want)
			return
		}
		read(w, at, into)
	}
	return s
}

// vendors are names of providers that people write for a type.
var vendors = map[string]string{
	"keycloak": "oidc", "keycloak-oidc": "oidc", "okta": "oidc", "auth0": "oidc", "authentik": "oidc",
	"authelia": "oidc", "dex": "oidc", "zitadel": "oidc", "cognito": "oidc", "adfs": "oidc", "gitlab": "oidc",
	"openid": "oidc", "openid-connect": "oidc", "azure": "microsoft", "azuread": "microsoft",
	"entra": "microsoft", "entra-id": "microsoft",
}

func providerType() yamltable.Shape[string] {
	s := yamltable.OneOf("", login.Types()...)
	read := s.Read
	s.Read = func(w *yamltable.Walker, at yamltable.Place, into *string) {
		if meant := vendors[strings.ToLower(at.Node.Value)]; meant != "" {
			w.Suggest(at, meant, "must be %s, not %s", s.Want, yamltable.Quote(at.Node.Value))
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
func addressOrNone() yamltable.Shape[string] {
	a := address()
	return yamltable.Shape[string]{Want: a.Want + `, or ""`,
		Schema: yamltable.Schema{"anyOf": []any{yamltable.Schema{"const": ""}, a.Schema}},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *string) {
			if yamltable.IsText(at.Node) && at.Node.Value == "" {
				*into = ""
				return
			}
			a.Read(w, at, into)
		}}
}

// parseOrigin reads a URL that names scheme and host and nothing else.
func parseOrigin(v, sample string) (*url.URL, error) {
	u, err := parseURL(v, sample)
	if err != nil {
		return nil, err
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		strings.HasSuffix(v, "#") {
		return nil, yamltable.Slip{Complaint: errors.New("must be a URL without path, query and fragment"),
			Meant: u.Scheme + "://" + u.Host}
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
		return nil, yamltable.Unquoted{Complaint: errors.New("must be a URL without a user or password in it")}
	}
	wrong := errors.New("must be an absolute URL such as " + sample)
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Opaque != "" {
		return nil, wrong
	}
	host := u.Hostname()
	if !isASCII(host) {
		return nil, errNotASCII
	}
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

// errNotASCII is about an internationalized name, as people type it.
var errNotASCII = errors.New("must name the host as it stands in DNS, in ASCII: a label with other letters begins " +
	"with xn-- there")

func parsePublicURL(v string) (*url.URL, error) {
	u, err := parseOrigin(v, "https://app.example.com")
	if slip, ok := errors.AsType[yamltable.Slip](err); ok {
		if whole, err := url.Parse(v); err == nil && strings.Trim(whole.Path, "/") != "" {
			slip.Why = fmt.Sprintf("; Sallyport answers for whole hosts: what is below %s is a route with that path, "+
				"and Sallyport's own addresses are below `prefix`", yamltable.Quote(whole.Path))
		}
		return nil, slip
	}
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !hostname.IsLoopback(u.Hostname()) {
		return nil, errors.New("must be https, because over plain http everybody on the way could take the session " +
			"cookie (http is for localhost and other loopback hosts)")
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
		return "", errors.New("must be https, because over plain http anybody on the way could answer for it (http " +
			"is for localhost and other loopback hosts)")
	}
	if i := strings.Index(u.Path, "/.well-known/"); i >= 0 { // Discovery §4: the document is below the issuer
		return "", yamltable.Slip{Complaint: errors.New("must be the issuer, which is the address of the discovery " +
			"document without what begins at /.well-known/"),
			Meant: v[:strings.Index(v, "/.well-known/")]}
	}
	const keycloak = "/protocol/openid-connect" // below it are the endpoints of a realm
	if before, _, found := strings.Cut(v, keycloak); found && strings.Contains(before, "/realms/") {
		return "", yamltable.Slip{Complaint: errors.New("must be the issuer, which is the address of the realm"),
			Meant: before}
	}
	return v, nil
}

// urlText is a URL or a reference to one. Until Resolve it is the reference, so
// that what depends on its being there can be judged.
func urlText(parse func(string) (string, error)) yamltable.Shape[string] {
	s := yamltable.ValueOrRef("an https URL such as https://sso.example.com", `^[Hh][Tt][Tt][Pp][Ss]?://[^?#@\s]+$`,
		parse)
	read := s.Read
	s.Read = func(w *yamltable.Walker, at yamltable.Place, into *string) {
		if read(w, at, into); *into == "" {
			*into = at.Node.Value
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

// parseBaseURL is parseIssuer for an origin.
func parseBaseURL(v string) (string, error) {
	if _, err := parseOrigin(v, "https://github.example.com"); err != nil {
		return "", err
	}
	if _, err := parseIssuer(v); err != nil {
		return "", err
	}
	return v, nil
}

// githubOrg is the number of an organization at GitHub.
func githubOrg() yamltable.Shape[string] {
	return yamltable.Pattern("the number of an organization at GitHub (`curl https://api.github.com/orgs/LOGIN` "+
		"shows it as id)", `^[1-9][0-9]{0,18}$`)
}

// parseClientID: RFC 6749 §A.1 allows printable ASCII.
func parseClientID(v string) (string, error) {
	if form, _, _ := yamltable.SplitRef(v); form != "" {
		return "", yamltable.Unquoted{Complaint: errors.New("must be the client id itself, env:NAME or file:/path")}
	}
	if !regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`).MatchString(v) {
		return "", errors.New("must be printable ASCII")
	}
	return v, nil
}

// forwardOrRefused is the word `forward`; leaving the key out refuses.
func forwardOrRefused() yamltable.Shape[bool] {
	want := "forward or left out"
	return yamltable.Shape[bool]{Want: want, Schema: yamltable.Schema{"const": "forward"},
		Read: func(w *yamltable.Walker, at yamltable.Place, into *bool) {
			var v string
			yamltable.OneOf(want, "forward").Read(w, at, &v)
			*into = v != ""
		}}
}

// logoFile reads the logo, whose name tells what it is.
func logoFile() yamltable.Shape[Pages] {
	ref := yamltable.FileRef(yamltable.FormFile)
	s := yamltable.Schema{"type": "string", "pattern": `^file:/.+\.(svg|png)$`}
	return yamltable.Shape[Pages]{Want: ref.Want, Schema: s, Read: func(w *yamltable.Walker, at yamltable.Place,
		into *Pages) {
		ref.Read(w, at, &into.Logo)
		if into.Logo.IsZero() {
			return
		}
		switch path.Ext(into.Logo.Path()) {
		case ".svg":
			into.LogoType = "image/svg+xml"
		case ".png":
			into.LogoType = "image/png"
		default:
			w.Fault(at, "must be an .svg or .png file")
		}
	}}
}

func checkSession(w *yamltable.Walker, at yamltable.Place, s *Session) {
	if s.IdleTimeout > s.AbsoluteTimeout {
		w.FaultAt(at.Path+".idle_timeout", "is longer (%s) than absolute_timeout (%s)", yamltable.Short(s.IdleTimeout),
			yamltable.Short(s.AbsoluteTimeout))
	}
}

func checkLimits(w *yamltable.Walker, at yamltable.Place, l *Limits) {
	if l.URL > l.Header {
		w.FaultAt(at.Path+".url", "is larger than limits.header, of which it is a part")
	}
}

func checkProvider(w *yamltable.Walker, at yamltable.Place, p *Provider) {
	if p.Name == "" {
		p.Name = p.ID
	}
	tokens := p.Use == login.UseTokens
	switch secret := at.Path + ".client_secret"; {
	case tokens: // Conflicts says that none of this has a meaning
	case p.secretless() && !p.ClientSecret.IsZero():
		w.FaultAt(secret, "is never sent with `client_auth: %s`; leave one of them out", p.ClientAuth)
	case !p.secretless() && p.ClientSecret.IsZero():
		w.FaultAt(secret, "is required, unless the client is public (`client_auth: none`)")
	}
	if addresses := p.addresses(); !p.CA.IsZero() && len(addresses) > 0 && !slices.ContainsFunc(addresses, maybeHTTPS) {
		w.FaultAt(at.Path+".ca", "has a meaning for https only, and every address of this provider is http")
	}
	if p.SignOut.URL != "" && p.Endpoints.EndSessionURL != "" {
		w.FaultAt(at.Path+".logout.url", "stands beside endpoints.end_session, which is the same; "+
			"leave one of them out")
	}
	if p.Scopes != nil && !tokens && p.Type != login.TypeGitHub && !slices.Contains(p.Scopes, "openid") {
		w.FaultAt(at.Path+".scopes", "must contain openid: without it the provider does not say who signed in")
	}
	for _, c := range p.Options().Conflicts() {
		w.FaultAt(at.Path+"."+c.Key, "%s", c.Why)
	}
}

// secretless: the client proves itself without a secret, or not at all.
func (p *Provider) secretless() bool {
	return slices.Contains([]string{login.ClientAuthNone, login.ClientAuthAssertion, login.ClientAuthPrivateKey},
		p.ClientAuth)
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
		Use: p.Use, ReauthAfter: p.ReauthAfter, DiscoveryCredential: reader(p.DiscoveryToken),
		SignOut:  login.SignOut{Off: p.SignOut.Off, Params: p.SignOut.Params, ReturnParam: p.SignOut.ReturnParam},
		ClientID: p.ClientID, ClientSecret: p.secret(), ClientAuth: p.ClientAuth,
		ClientAssertion: reader(p.ClientAssertion), ClientKey: known(p.ClientKey), ClientKeyID: p.ClientKeyID,
		Scopes: p.Scopes, Claims: login.ClaimNames(p.Claims), IdentityFrom: p.IdentityFrom,
		EmailDomains: p.EmailDomains, TrustedAudiences: p.TrustedAudiences,
		PublicKeys: p.publicKeys(), Quirks: p.Quirks,
		HostedDomains: p.HostedDomains, Tenant: p.Tenant, AllowedTenants: p.AllowedTenants,
		BaseURL: p.BaseURL, AllowedOrgs: p.AllowedOrgs,
		Directory: login.Directory{On: !p.Directory.IsZero(), BaseURL: p.Directory.BaseURL},
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

func parameterName() yamltable.Shape[string] {
	return yamltable.Pattern("the name of a parameter, of letters, digits and -._~", parameterPattern)
}

// parameters reads a mapping of names to texts.
func parameters() yamltable.Shape[map[string]string] {
	name, value := parameterName(), yamltable.Scalar("a text", yamltable.Schema{},
		func(v string) (string, error) { return v, nil })
	s := yamltable.Schema{"type": "object", "minProperties": 1,
		"propertyNames":        yamltable.Schema{"pattern": parameterPattern},
		"additionalProperties": yamltable.Schema{"type": "string"}}
	return yamltable.Shape[map[string]string]{Want: "a mapping", About: "a mapping of names to texts", Schema: s,
		Read: func(w *yamltable.Walker, at yamltable.Place, into *map[string]string) {
			if !w.Expect(at, yamltable.Mapping, "a mapping of names to texts", false) {
				return
			}
			if len(at.Node.Content) == 0 {
				w.Fault(at, "must not be empty; leave it out")
			}
			*into = map[string]string{}
			for i := 0; i+1 < len(at.Node.Content); i += 2 {
				key, node := at.Node.Content[i], at.Node.Content[i+1]
				here := yamltable.Place{Node: node, Path: yamltable.Join(at.Path, key.Value)}
				var k, v string
				name.Read(w, yamltable.Place{Node: key, Path: here.Path}, &k)
				yamltable.Take(w, value, here, &v)
				(*into)[k] = v
			}
		}}
}

func checkSignOut(w *yamltable.Walker, at yamltable.Place, s *SignOut) {
	if _, twice := s.Params[s.ReturnParam]; twice && s.ReturnParam != "" {
		w.FaultAt(at.Path+".return_param", "is among params too: which of them would count?")
	}
	if _, hint := s.Params["id_token_hint"]; hint {
		w.FaultAt(at.Path+".params.id_token_hint", "is the ID token of the person who signs out, and no token is "+
			"kept; a provider that demands it can only be left out: `logout: false`")
	}
}

// publicKeyRef is a file of public keys, which Resolve looks into.
func publicKeyRef() yamltable.Shape[Ref] { return checkedRef(login.CheckPublicKeys) }

// authorities is a file of certificates, which Resolve looks into.
func authorities() yamltable.Shape[Ref] {
	return checkedRef(func(text string) error {
		_, err := yamltable.CertPool(text)
		return err
	})
}

// checkedRef is a file whose content Resolve has judged.
func checkedRef(judge func(text string) error, forms ...string) yamltable.Shape[Ref] {
	if forms == nil {
		forms = []string{yamltable.FormFile, yamltable.FormEnv}
	}
	return yamltable.Judged(yamltable.FileRef(forms...), judge)
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

// reader returns a token as Resolve read it; it is nil without one. Who uses the token
// reads the file again (Ref.Reread).
func reader(r Ref) func() (string, error) {
	if r.IsZero() {
		return nil
	}
	return func() (string, error) { return r.Value(), nil }
}

// crossCheck finds what is wrong between parts that are each well. It runs
// beside other faults, so it says nothing of what could not be read.
func (c *Config) crossCheck() Faults {
	var names []string
	for _, r := range c.Routes {
		names = append(names, r.Name)
	}
	faults := slices.Concat(c.checkUnique("providers", "id", c.ProviderIDs()), c.checkUnique("routes", "name", names),
		c.checkUse(), c.checkReauth(), c.checkVouching(), c.checkBearers())
	faults = append(faults, c.checkOrganizations()...)
	faults = append(faults, c.storeFaults()...)
	faults = append(faults, c.revocationFaults()...)
	faults = append(faults, c.checkForwarding()...)
	faults = append(faults, c.checkCompat()...)
	faults = append(faults, c.checkGrants()...)
	faults = append(faults, c.checkTeams()...)
	faults = append(faults, c.checkProofs()...)
	faults = append(faults, c.checkDirectories()...)
	if c.PublicURL != nil {
		faults = append(faults, c.settleHosts()...)
	}
	return faults
}

func (c *Config) checkUnique(in, key string, values []string) Faults {
	var faults Faults
	for i, v := range values {
		if first := slices.Index(values, v); v != "" && first < i {
			faults = append(faults, c.doc.FaultAt(yamltable.Index(in, i)+"."+key, "%s already has this %s",
				yamltable.Index(in, first), key))
		}
	}
	return faults
}

// checkUse: a provider at which people sign in needs a client there, and one whose
// tokens no route takes is for nothing.
func (c *Config) checkUse() Faults {
	var faults Faults
	signIn := false
	for i, p := range c.Providers {
		where := yamltable.Index("providers", i)
		client := c.doc.Has(where + ".client_id")
		signIn = signIn || p.Use != login.UseTokens
		switch {
		case p.Use != login.UseTokens && !client:
			faults = append(faults, c.doc.FaultAt(where+".client_id", "is required. "+
				"The client id the provider gave out."))
		case p.Use == login.UseTokens && client:
			faults = append(faults, c.doc.FaultAt(where+".client_id", "has a meaning for signing in only, and `use: "+
				"tokens` says that nobody signs in here"))
		case p.Use == login.UseTokens && !slices.ContainsFunc(c.bearers(),
			func(b placedBearer) bool { return b.Provider == p.ID }):
			faults = append(faults, c.doc.FaultAt(where+".use", "is tokens, and nothing takes tokens of %s; a route "+
				"does with `bearer: {provider: %s, …}`, and so does an app of `grants`", p.ID, p.ID))
		}
	}
	if len(c.Providers) > 0 && !signIn {
		faults = append(faults, c.doc.FaultAt("providers", "are all for tokens: name one at which people sign in"))
	}
	return faults
}

// checkReauth: a session that has ended is not asked about.
func (c *Config) checkReauth() Faults {
	var faults Faults
	for i, p := range c.Providers {
		if limit := c.Session.AbsoluteTimeout; p.ReauthAfter > limit && limit > 0 {
			faults = append(faults, c.doc.FaultAt(yamltable.Index("providers", i)+".reauth_after",
				"is longer than sessions last (session.absolute_timeout is %s); `never` says that plainly",
				yamltable.Short(limit)))
		}
	}
	return faults
}

// checkVouching: where two providers can assert the same e-mail address, the
// weaker one decides who is who. So each says which domains are its own, but
// for those vendors of which we know when to believe them.
func (c *Config) checkVouching() Faults {
	var faults Faults
	vouching := 0 // one that is for tokens vouches for no address unless it says for which
	for _, p := range c.Providers {
		if p.Use != login.UseTokens || p.EmailDomains != nil {
			vouching++
		}
	}
	for i, p := range c.Providers {
		where := yamltable.Index("providers", i) + ".email_domains"
		if vouching > 1 && p.Type == login.TypeOIDC && p.Use != login.UseTokens && !c.doc.Has(where) {
			faults = append(faults, c.doc.FaultAt(where, "is required where there is more than one provider: which "+
				"domains may this one vouch for?"))
		}
	}
	return faults
}

// checkTeams: anybody can make an organization at GitHub whose login and teams are called as
// those of another one were. So teams count for rules only where the organizations are named
// by their numbers.
func (c *Config) checkTeams() Faults {
	named := slices.ContainsFunc(c.Rules(), func(r PlacedRule) bool { return slices.ContainsFunc(r.Groups, isTeam) })
	var faults Faults
	for i, p := range c.Providers {
		if named && p.Type == login.TypeGitHub && p.AllowedOrgs == nil {
			faults = append(faults, c.doc.FaultAt(yamltable.Index("providers", i)+".allowed_orgs",
				"is required where rules name teams (ORG/TEAM): logins of organizations change hands, their numbers "+
					"do not; `curl https://api.github.com/orgs/LOGIN` shows an organization's number as id"))
		}
	}
	return faults
}

// isTeam reports whether a group has the form of a team at GitHub.
func isTeam(group string) bool {
	org, team, ok := strings.Cut(group, "/")
	return ok && org != "" && team != "" && !strings.Contains(team, "/")
}

// PublicHost is the host of PublicURL without its port.
func (c *Config) PublicHost() string {
	host := c.PublicURL.Hostname()
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
