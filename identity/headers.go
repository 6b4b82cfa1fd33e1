package identity

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"
)

// AssertionHeader carries the signed identity assertion. It is stripped like
// every identity header and set by the front door, which has the signer.
const AssertionHeader = "X-Sallyport-Assertion"

// Claim names a fact about a person that a header may carry.
type Claim string

// The claims a header may carry. ClaimUser is Identity.ID, unique across
// providers; ClaimEmail is empty unless verified.
const (
	ClaimUser      Claim = "user"
	ClaimSubject   Claim = "subject"
	ClaimProvider  Claim = "provider"
	ClaimEmail     Claim = "email"
	ClaimUsername  Claim = "username"
	ClaimName      Claim = "name"
	ClaimGroups    Claim = "groups"
	ClaimOrgID     Claim = "org_id"
	ClaimOrgName   Claim = "org_name"
	ClaimOrgDomain Claim = "org_domain"
)

// Claims lists every claim a header may carry, in the order shown to people.
func Claims() []Claim {
	return []Claim{ClaimUser, ClaimSubject, ClaimProvider, ClaimEmail, ClaimUsername, ClaimName,
		ClaimGroups, ClaimOrgID, ClaimOrgName, ClaimOrgDomain}
}

// Encoding says how a value that is not plain ASCII is written.
type Encoding string

const (
	// EncodePercent writes bytes outside printable ASCII, and '%', as %XX. The default.
	EncodePercent Encoding = "percent"
	// EncodeUTF8 writes UTF-8 as it is; controls and broken UTF-8 as %XX.
	EncodeUTF8 Encoding = "utf8"
	// EncodeRFC2047 writes =?utf-8?b?…?= words, as mail does.
	EncodeRFC2047 Encoding = "rfc2047"
)

// Encodings lists the encodings a header may use.
func Encodings() []Encoding { return []Encoding{EncodePercent, EncodeUTF8, EncodeRFC2047} }

// Joins lists what may stand between two groups. A longer or stranger
// separator could occur inside an encoded value.
func Joins() []string { return []string{",", "|", ";", " "} }

// Field is one header and what it carries.
type Field struct {
	Header   string
	Claim    Claim
	Join     string   // between groups; "" means ","
	Encoding Encoding // "" means EncodePercent
}

// The presets. Their names are promises to apps: names are added, never changed.
const (
	PresetForwarded   = "forwarded"
	PresetAuthRequest = "auth-request"
	PresetRemote      = "remote"
	PresetGrafana     = "grafana"
	PresetJenkins     = "jenkins"
	PresetSonarQube   = "sonarqube"
	PresetGitea       = "gitea"
	PresetRadicale    = "radicale"
	PresetNone        = "none"
)

// Presets lists the names Preset knows.
func Presets() []string {
	return []string{PresetForwarded, PresetAuthRequest, PresetRemote, PresetGrafana, PresetJenkins, PresetSonarQube,
		PresetGitea, PresetRadicale, PresetNone}
}

// Preset returns the fields of a named preset.
func Preset(name string) ([]Field, bool) {
	switch name {
	case PresetForwarded:
		return []Field{
			{Header: "X-Forwarded-User", Claim: ClaimUser},
			{Header: "X-Forwarded-Email", Claim: ClaimEmail},
			{Header: "X-Forwarded-Preferred-Username", Claim: ClaimUsername},
			{Header: "X-Forwarded-Name", Claim: ClaimName},
			{Header: "X-Forwarded-Groups", Claim: ClaimGroups},
			{Header: "X-Forwarded-Org-Id", Claim: ClaimOrgID},
			{Header: "X-Forwarded-Org-Name", Claim: ClaimOrgName},
			{Header: "X-Forwarded-Org-Domain", Claim: ClaimOrgDomain},
		}, true
	case PresetAuthRequest: // the names oauth2-proxy answers an auth_request with
		return []Field{
			{Header: "X-Auth-Request-User", Claim: ClaimUser},
			{Header: "X-Auth-Request-Email", Claim: ClaimEmail},
			{Header: "X-Auth-Request-Preferred-Username", Claim: ClaimUsername},
			{Header: "X-Auth-Request-Name", Claim: ClaimName},
			{Header: "X-Auth-Request-Groups", Claim: ClaimGroups},
			{Header: "X-Auth-Request-Org-Id", Claim: ClaimOrgID},
			{Header: "X-Auth-Request-Org-Name", Claim: ClaimOrgName},
			{Header: "X-Auth-Request-Org-Domain", Claim: ClaimOrgDomain},
		}, true
	case PresetRemote: // the names Authelia sends
		return []Field{
			{Header: "Remote-User", Claim: ClaimUser},
			{Header: "Remote-Email", Claim: ClaimEmail},
			{Header: "Remote-Name", Claim: ClaimName},
			{Header: "Remote-Groups", Claim: ClaimGroups},
		}, true
	case PresetNone:
		return nil, true
	}
	return appPreset(name)
}

// appPreset returns the fields of the presets that are for one app each; docs/apps.md has
// what the app is told to make of them. Where an app takes any text for the name of an
// account, it is ClaimUser: nobody else's, and never changed. SonarQube takes no colon; Gitea
// takes letters, digits, ".", "_" and "-" only.
func appPreset(name string) ([]Field, bool) {
	switch name {
	case PresetGrafana: // [auth.proxy]
		return []Field{
			{Header: "X-Webauth-User", Claim: ClaimUser},
			{Header: "X-Webauth-Email", Claim: ClaimEmail},
			{Header: "X-Webauth-Name", Claim: ClaimName},
			{Header: "X-Webauth-Groups", Claim: ClaimGroups},
		}, true
	case PresetJenkins: // the plugin reverse-proxy-auth
		return []Field{
			{Header: "X-Forwarded-User", Claim: ClaimUser},
			{Header: "X-Forwarded-Mail", Claim: ClaimEmail},
			{Header: "X-Forwarded-Displayname", Claim: ClaimName},
			{Header: "X-Forwarded-Groups", Claim: ClaimGroups, Join: "|"},
		}, true
	case PresetSonarQube: // sonar.web.sso.*
		return []Field{
			{Header: "X-Forwarded-Login", Claim: ClaimEmail},
			{Header: "X-Forwarded-Email", Claim: ClaimEmail},
			{Header: "X-Forwarded-Name", Claim: ClaimName},
			{Header: "X-Forwarded-Groups", Claim: ClaimGroups},
		}, true
	case PresetGitea: // Forgejo too
		return []Field{
			{Header: "X-Webauth-User", Claim: ClaimUsername},
			{Header: "X-Webauth-Email", Claim: ClaimEmail},
			{Header: "X-Webauth-Fullname", Claim: ClaimName},
		}, true
	case PresetRadicale: // [auth] type = http_x_remote_user
		return []Field{{Header: "X-Remote-User", Claim: ClaimUser}}, true
	}
	return nil, false
}

// alwaysStripped are names that only a proxy may write about a request, whether
// or not this configuration writes them. Programs have trusted such names from
// clients: CVE-2026-40575, CVE-2026-30851, CVE-2016-5386 and others. A "*" stands
// for any end.
var alwaysStripped = [...]string{
	"x-forwarded-*", "x-auth-request-*", "x-original-*", "x-rewrite-*", "x-sallyport-*", "remote-*",
	"x-forwarded", "forwarded", "proxy",
	"script-name", "x-script-name", "path-info", "x-path-info", // WSGI servers join them to the path
	"x-host", "x-http-host-override", "x-http-destinationurl",
	// Frameworks tell themselves by these what they have checked or rewritten:
	// CVE-2025-29927 (Next.js), CVE-2025-61780 (Rack).
	"x-middleware-subrequest*", "x-middleware-rewrite", "x-middleware-redirect", "x-middleware-next",
	"x-middleware-skip", "x-middleware-set-cookie", "x-middleware-override-headers", "x-matched-path",
	"x-now-route-matches", "x-invoke-*", "x-sendfile-type", "x-accel-*",
}

// othersHeaders are the same, but there are sites where a proxy before us writes
// them for an app: a route can keep them (Headers.Keep).
var othersHeaders = [...]string{
	"x-envoy-*", "x-webauth-*", "x-remote-*", "x-scheme", "front-end-https",
	"client-ip", "x-client-ip", "x-cluster-client-ip", "x-real-ip", "true-client-ip", "proxy-client-ip",
	"fastly-client-ip", "x-azure-clientip", "x-azure-socketip",
	"cf-connecting-*", "cf-pseudo-ipv4", "cf-access-jwt-assertion", "cf-access-authenticated-*", // Cloudflare
	"client-cert", "client-cert-chain", "x-client-cert*", "x-client-verify", "x-client-dn", "ssl-client-*",
	"x-ssl-client-*", "x-ssl-cert", "x-amzn-mtls-*", "x-arr-clientcert", "x-arr-ssl", "wl-proxy-*",
	// Google
	"x-goog-authenticated-*", "x-goog-iap-*", "x-appengine-*", "x-endpoint-api-userinfo", "x-apigateway-api-userinfo",
	"x-amzn-oidc-*", "x-ms-client-principal*", "x-ms-token-*", // AWS, Azure
	// authentik, Tailscale, Pomerium, Vouch, mod_auth_openidc, oauth2-proxy
	"x-authentik-*", "tailscale-user-*", "x-pomerium-*", "x-vouch-*", "oidc-*", "gap-*",
	"x-auth-user*", "x-auth-email", "x-auth-name", "x-auth-groups", "x-auth-roles", "x-authenticated-*",
	// Kong, Kubernetes
	"x-consumer-*", "x-anonymous-consumer", "x-credential-identifier", "x-credential-username", "impersonate-*",
	"sm-*", "iv-*", // SiteMinder, IBM
}

// overrides are headers by which a client names another method than the one in
// its request line. A route can keep them; who sends them does not matter then.
var overrides = [...]string{"x-http-method-override", "x-method-override", "x-http-method"}

// reserved are names no configuration may use for an identity header: they
// frame the message, carry credentials, or have a writer of their own here.
var reserved = [...]string{
	"host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade",
	"keep-alive", "proxy-authorization", "proxy-authenticate", "cookie", "set-cookie", "authorization", "expect",
	"via", "forwarded", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "proxy",
	"x-sallyport-assertion", "accept-encoding", "origin", "referer",
	// These steer an app: a person's name in them could choose method or path.
	"x-forwarded-uri", "x-forwarded-method", "x-forwarded-prefix", "x-forwarded-port",
	"x-forwarded-path", "x-forwarded-server",
	"x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url", "x-rewrite-uri",
	"x-http-method-override", "x-http-method", "x-method-override", "x-envoy-original-path",
}

// Headers is the one list of identity headers. A HeaderSet can only be made
// from it, and making one adds its names to what Strip removes on every route:
// what is set and what is stripped cannot drift apart. Build it once, before
// serving; Strip is then safe for concurrent use.
type Headers struct {
	// names by their folded first byte. Strip looks at every header of every
	// request, and few share even that with a name on the list.
	names [128][]stripped
	set   []string // folded names that a HeaderSet writes
	sent  []string // the same as they are written, sorted
}

// stripped is a folded name, and which headers it stands for.
type stripped struct {
	name string
	kind strippedKind
	// onlyProxies: it is one of alwaysStripped.
	onlyProxies bool
}

type strippedKind int

const (
	wholeName  strippedKind = iota
	prefixName              // all that begin so
	aliasName               // all that fold to it, but not itself
)

// NewHeaders returns a list that strips every preset's names.
func NewHeaders() *Headers {
	h := &Headers{}
	for i, n := range slices.Concat(alwaysStripped[:], othersHeaders[:], overrides[:]) {
		s := stripped{name: n, onlyProxies: i < len(alwaysStripped)}
		if begin, more := strings.CutSuffix(n, "*"); more {
			s.name, s.kind = begin, prefixName
		}
		h.add(s)
	}
	// Content_Length and its like: a stranger's word for a header that frames the
	// message, as soon as a CGI or WSGI server has folded it.
	for _, n := range reserved {
		h.add(stripped{name: n, kind: aliasName})
	}
	for _, p := range Presets() {
		fields, _ := Preset(p)
		for _, f := range fields {
			h.add(stripped{name: fold(f.Header)})
		}
	}
	return h
}

// add puts a name on the list, unless one there covers it.
func (h *Headers) add(one stripped) {
	list := &h.names[one.name[0]]
	if slices.ContainsFunc(*list, func(s stripped) bool { return s.covers(one.name) }) {
		return
	}
	*list = append(*list, one)
}

// HeaderSet is what one route tells its app.
type HeaderSet struct {
	fields []Field
	basic  *Basic // nil: Authorization is not written
}

// Set returns a HeaderSet that writes fields. It refuses names that are no
// header field, that are reserved, or that two fields share (after folding).
func (h *Headers) Set(fields []Field) (HeaderSet, error) {
	out := make([]Field, 0, len(fields))
	seen := map[string]string{}
	for _, f := range fields {
		f, err := checkField(f)
		if err != nil {
			return HeaderSet{}, err
		}
		if other, dup := seen[fold(f.Header)]; dup {
			return HeaderSet{}, fmt.Errorf("headers %s and %s are the same to an app", other, f.Header)
		}
		seen[fold(f.Header)] = f.Header
		out = append(out, f)
	}
	for name := range seen {
		h.add(stripped{name: name})
		h.set = append(h.set, name)
	}
	for _, f := range out {
		if at, there := slices.BinarySearch(h.sent, f.Header); !there {
			h.sent = slices.Insert(h.sent, at, f.Header)
		}
	}
	return HeaderSet{fields: out}, nil
}

// Without is s without the headers that other writes.
func (s HeaderSet) Without(other HeaderSet) HeaderSet {
	var left HeaderSet
	for _, f := range s.fields {
		if !slices.ContainsFunc(other.fields, func(o Field) bool { return o.Header == f.Header }) {
			left.fields = append(left.fields, f)
		}
	}
	return left
}

// Names are the headers that s writes.
func (s HeaderSet) Names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.Header
	}
	return names
}

// Names are the headers that any HeaderSet of the list writes, as they are written, sorted.
func (h *Headers) Names() []string { return slices.Clone(h.sent) }

// forwarding are names by which proxies tell each other about a request.
var forwarding = [...]string{"x-forwarded-", "x-original-", "x-sallyport-"}

// IsAlias reports whether the header called name is another spelling, to some servers, of
// one that a HeaderSet writes, or of one by which proxies tell each other about a request.
// Who cannot remove such a header must refuse the request.
func (h *Headers) IsAlias(name string) bool {
	if !isAlias(name) { // nearly all
		return false
	}
	if _, written := slices.BinarySearch(h.sent, name); written {
		return false
	}
	folded := fold(name)
	return slices.Contains(h.set, folded) || slices.ContainsFunc(forwarding[:], func(begin string) bool {
		return strings.HasPrefix(folded, begin)
	})
}

// OnlyProxies reports whether the header called name, in whatever spelling, is one that only
// a proxy may write about a request. Those that are written here anyway are not.
func (h *Headers) OnlyProxies(name string) bool {
	if _, written := slices.BinarySearch(h.sent, name); name == "" || written || name == AssertionHeader {
		return false
	}
	return slices.ContainsFunc(h.names[foldByte(name[0])], func(s stripped) bool {
		return s.onlyProxies && s.covers(name)
	})
}

// DestinationHeader names a second resource of a COPY or MOVE (RFC 4918 §10.3).
const DestinationHeader = "Destination"

// Kept are headers that one route lets pass although they are on the list, each
// in the one spelling that http.Header has.
type Kept struct {
	front    []string // from a proxy before us that is trusted, as from nobody else
	anybody  []string // and these from everybody
	together []string
}

// From are the headers that are kept of a request; trusted says whether it came
// from a proxy on the list.
func (k Kept) From(trusted bool) []string {
	if trusted {
		return k.together
	}
	return k.anybody
}

// WithoutOverrides is k for a route whose rules ask for the method: it keeps no header
// by which a client names another one than that of its request line.
func (k Kept) WithoutOverrides() Kept {
	kept := Kept{front: k.front}
	for _, name := range k.anybody {
		if !IsMethodOverride(name) {
			kept.anybody = append(kept.anybody, name)
		}
	}
	kept.together = slices.Concat(kept.front, kept.anybody)
	return kept
}

// IsMethodOverride reports whether the header called name, in whatever spelling, names
// another method than that of the request line.
func IsMethodOverride(name string) bool {
	return len(name) >= len("x-http-method") && slices.Contains(overrides[:], fold(name))
}

// NeedFront reports whether some are kept from a trusted proxy only.
func (k Kept) NeedFront() bool { return len(k.front) > 0 }

// Keep returns a Kept of these names. It refuses what would let a client choose
// path, host or identity, and what passes anyway. Call it after every Set.
func (h *Headers) Keep(names []string) (Kept, error) {
	var k Kept
	for _, name := range names {
		folded, canonical := fold(name), textproto.CanonicalMIMEHeaderKey(name)
		on := func(list []string) bool {
			return slices.ContainsFunc(list, func(n string) bool {
				begin, more := strings.CutSuffix(n, "*")
				return folded == begin || more && strings.HasPrefix(folded, begin)
			})
		}
		switch {
		case !IsToken(name):
			return k, fmt.Errorf("%q is not a header name", name)
		case slices.Contains(h.set, folded):
			return k, fmt.Errorf(
				"header %s carries an identity that is set here, on this route or another; it cannot be kept", name)
		case on(alwaysStripped[:]):
			return k, fmt.Errorf("header %s cannot be kept: whoever sends it could choose host, path or identity", name)
		case on(overrides[:]), canonical == DestinationHeader:
			k.anybody = append(k.anybody, canonical)
		case on(othersHeaders[:]):
			k.front = append(k.front, canonical)
		default:
			return k, fmt.Errorf("header %s passes anyway; leave it out", name)
		}
	}
	k.together = slices.Concat(k.front, k.anybody)
	return k, nil
}

func checkField(f Field) (Field, error) {
	if !IsToken(f.Header) {
		return f, fmt.Errorf("%q is not a header name", f.Header)
	}
	if slices.Contains(reserved[:], fold(f.Header)) {
		return f, fmt.Errorf("header %s cannot carry an identity: it has a meaning of its own", f.Header)
	}
	if !slices.Contains(Claims(), f.Claim) {
		return f, fmt.Errorf("header %s: unknown claim %q", f.Header, f.Claim)
	}
	if f.Join == "" {
		f.Join = ","
	}
	if !slices.Contains(Joins(), f.Join) {
		return f, fmt.Errorf("header %s: groups can be joined by one of %q, not %q", f.Header, Joins(), f.Join)
	}
	if f.Encoding == "" {
		f.Encoding = EncodePercent
	}
	if !slices.Contains(Encodings(), f.Encoding) {
		return f, fmt.Errorf("header %s: unknown encoding %q", f.Header, f.Encoding)
	}
	if f.Encoding == EncodeRFC2047 && f.Join == " " {
		return f, fmt.Errorf(
			"header %s: a blank between two encoded words is not read (RFC 2047 §6.2); choose another separator",
			f.Header)
	}
	f.Header = textproto.CanonicalMIMEHeaderKey(f.Header)
	return f, nil
}

// Strip removes every spelling of every identity header, and of the headers by
// which proxies tell each other who is calling. Names are compared in lower
// case, and all but letters and digits reads as '-': CGI, WSGI, PHP and FastCGI
// cannot tell '_', '.' and '-' apart (CVE-2025-64484, CVE-2026-52845), and
// lighttpd none of "X+Forwarded!User".
func (h *Headers) Strip(in http.Header) { h.StripBut(in, nil) }

// StripBut is Strip for a route that keeps some headers, in exactly these
// spellings.
func (h *Headers) StripBut(in http.Header, kept []string) {
	for name := range in {
		if h.strips(name) && !slices.Contains(kept, name) {
			delete(in, name)
		}
	}
}

func (h *Headers) strips(name string) bool {
	if name == "" {
		return false
	}
	for _, s := range h.names[foldByte(name[0])] {
		if s.covers(name) {
			return true
		}
	}
	return false
}

// covers reports whether the header called name is one that s stands for.
func (s *stripped) covers(name string) bool {
	if len(name) < len(s.name) || (len(name) > len(s.name) && s.kind != prefixName) {
		return false
	}
	for i := range len(s.name) {
		if foldByte(name[i]) != s.name[i] {
			return false
		}
	}
	return s.kind != aliasName || isAlias(name)
}

// Rendered is a HeaderSet filled in for one person. The same for all requests
// of a session on a route, it is made once and set many times. It is safe for
// concurrent use.
type Rendered struct{ headers []renderedHeader }

type renderedHeader struct {
	name  string
	value []string // the one value, as http.Header has it
}

// Render fills the set in for id. A header without a value is left out. Values
// are one line of the field's encoding.
func (s HeaderSet) Render(id *Identity) Rendered {
	r := Rendered{make([]renderedHeader, 0, len(s.fields)+1)}
	for i := range s.fields {
		f := &s.fields[i]
		if v := f.value(id); v != "" {
			v = strings.Clone(v) // it may be a part of a whole session, which would stay with it
			r.headers = append(r.headers, renderedHeader{f.Header, []string{v}})
		}
	}
	s.renderBasic(id, &r)
	return r
}

// Set writes the headers into out, which has been stripped. All requests share
// the slices that hold the values: replace them, or add to them, but do not
// change their elements. net/http does not.
func (r Rendered) Set(out http.Header) {
	for i := range r.headers {
		out[r.headers[i].name] = r.headers[i].value
	}
}

// Size is what r takes of memory, in bytes, about.
func (r Rendered) Size() (n int) {
	for _, h := range r.headers {
		n += 72 + len(h.value[0]) // with the slices that hold it
	}
	return n
}

func (f *Field) value(id *Identity) string {
	if f.Claim == ClaimGroups {
		return f.encodeList(id.Groups)
	}
	return f.encode(id.claim(f.Claim))
}

// claim is the value of a claim that is one text; "" for all else.
func (i *Identity) claim(c Claim) string {
	switch c {
	case ClaimUser:
		return i.ID()
	case ClaimSubject:
		return i.Subject
	case ClaimProvider:
		return i.Provider
	case ClaimEmail:
		return i.VerifiedEmail()
	case ClaimUsername:
		return i.Username
	case ClaimName:
		return i.Name
	case ClaimOrgID:
		return i.Org.ID
	case ClaimOrgName:
		return i.Org.Name
	case ClaimOrgDomain:
		return i.Org.Domain
	}
	return ""
}

// encodeList joins groups so that none can be read as two: in a group that
// contains the separator, it is escaped. Otherwise a group named "a,admin" would
// make its members admins.
func (f *Field) encodeList(groups []string) string {
	if len(groups) == 1 {
		return f.encodeElement(groups[0])
	}
	var b strings.Builder
	for _, g := range groups {
		if g == "" {
			continue // no group; at an end, its separator would be trimmed or not
		}
		if b.Len() > 0 {
			b.WriteString(f.Join)
		}
		b.WriteString(f.encodeElement(g))
	}
	return b.String()
}

func (f *Field) encodeElement(g string) string {
	split := strings.Contains(g, f.Join)
	if f.Encoding == EncodeRFC2047 && split {
		return encodedWord(g)
	}
	if !split && !(f.Encoding == EncodeUTF8 && strings.Contains(g, "%")) {
		return f.encode(g)
	}
	must := f.mustEscape(g)
	return escape(g, func(c byte) bool { return c == '%' || c == f.Join[0] || must(c) })
}

func (f *Field) encode(v string) string {
	if plain(v) {
		return v
	}
	if f.Encoding == EncodeRFC2047 {
		return encodedWord(v)
	}
	return escape(v, f.mustEscape(v))
}

// mustEscape tells which bytes of v cannot stand.
func (f *Field) mustEscape(v string) func(byte) bool {
	switch {
	case f.Encoding != EncodeUTF8:
		return func(c byte) bool { return c < 0x20 || c >= 0x7f || c == '%' }
	case !utf8.ValidString(v) || strings.ContainsFunc(v, breaksLine):
		return func(c byte) bool { return c < 0x20 || c >= 0x7f }
	}
	return func(c byte) bool { return c < 0x20 || c == 0x7f }
}

// breaksLine reports whether some readers end a line at r: NEL and the other C1
// controls, and Unicode's line and paragraph separators (Unicode TR 14).
func breaksLine(r rune) bool {
	return 0x80 <= r && r < 0xa0 || r == '\u2028' || r == '\u2029'
}

// plain reports whether v can stand in any header as it is: printable ASCII,
// no '%', no blank at either end (a parser would trim it), not an encoded word.
func plain(v string) bool {
	for i := 0; i < len(v); i++ {
		if c := v[i]; c < 0x20 || c >= 0x7f || c == '%' {
			return false
		}
	}
	return v == "" || (v[0] != ' ' && v[len(v)-1] != ' ' && !strings.Contains(v, "=?"))
}

// encodedWord writes v as one encoded word of RFC 2047. A long value stays one
// word, against §2's 75 characters: a blank between two words could be taken
// for the separator of a list.
func encodedWord(v string) string {
	v = strings.ToValidUTF8(v, "\ufffd")
	return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(v)) + "?="
}

// escape writes the bytes that must not stand as %XX, and blanks at the ends.
func escape(v string, must func(byte) bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		c := v[i]
		if must(c) || (c == ' ' && (i == 0 || i == len(v)-1)) {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = foldByte(c)
	}
	return string(b)
}

// foldByte writes letters small, and all but letters and digits as '-'.
func foldByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + ('a' - 'A')
	}
	return '-'
}

// isAlias reports whether name has a sign that some server reads as '-'.
func isAlias(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '-' && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return true
		}
	}
	return false
}

// IsToken reports whether name is a token of RFC 9110 §5.6.2, as names of headers and
// methods are.
func IsToken(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return name != ""
}
