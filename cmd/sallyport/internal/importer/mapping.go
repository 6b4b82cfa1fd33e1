package importer

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Variables that our configuration refers to, beside those of oauth2-proxy.
const (
	sessionKeyVariable = "SALLYPORT_SESSION_KEY"
	publicURLVariable  = "SALLYPORT_PUBLIC_URL"
	issuerVariable     = "SALLYPORT_ISSUER"
	clientIDVariable   = envPrefix + "CLIENT_ID"
	secretVariable     = envPrefix + "CLIENT_SECRET"
)

// mapping makes a draft of what the sources say, and judges each setting.
type mapping struct {
	*sources
	home  Line // for what no input says
	set   map[string]*setting
	same  map[*setting][]*setting // the settings that one of set is made of
	draft draft

	external bool // another proxy asks
	apps     []app
	who      access
	headers  []appHeader
	acr      []string
	groups   []string // of which somebody must be in one
}

// run maps everything, in the order in which one thing needs the other.
func (m *mapping) run() ([]byte, error) {
	m.effective()
	m.draft = draft{publicURL: "https://app.example.com", provider: []entry{
		{"id", "sso"}, {"type", "oidc"}, {"issuer", "https://sso.example.com"}, {"client_id",
			"env:" + clientIDVariable},
		{"client_secret", "env:" + secretVariable}}}
	m.otherFiles()
	m.who.closed = m.unseen
	m.site()
	m.session()
	m.provider()
	m.upstreamsOf()
	m.listeners()
	m.access()
	m.headersFor()
	m.pages()
	if err := m.routes(); err != nil {
		return nil, err
	}
	m.rest()
	return m.draft.render(), nil
}

// judge tells what became of a setting, once for each that it is made of.
func (m *mapping) judge(s *setting, v Verdict, text string) {
	all := m.same[s]
	if all == nil {
		all = []*setting{s}
	}
	for _, one := range all {
		if !one.judged && !(one.quiet && v == NotMapped) {
			m.report(one.file, one.line, one.key, v, text)
		}
		one.judged = true
	}
	s.judged = true
}

func (m *mapping) mapped(s *setting, to string)  { m.judge(s, Mapped, to) }
func (m *mapping) not(s *setting, why string)    { m.judge(s, NotMapped, why) }
func (m *mapping) refuse(s *setting, why string) { m.judge(s, Refused, why) }

// absent tells of what no input says.
func (m *mapping) absent(key string, v Verdict, text string) {
	m.report(m.home.File, m.home.Line, key, v, text)
}

// usable is a setting whose values are known; there: it is said, known or not. What stands
// elsewhere is refused.
func (m *mapping) usable(name string) (s *setting, there bool) {
	s = m.set[name]
	if s == nil {
		return nil, false
	}
	if s.missing || slices.ContainsFunc(s.values, filledIn) {
		m.refuse(s, "its value stands elsewhere, and is not known here: import what has it, or write it into "+
			"the file that this makes")
		return nil, true
	}
	return s, true
}

// flag is a boolean option.
func (m *mapping) flag(name string, byDefault bool) bool {
	s, _ := m.usable(name)
	if s == nil {
		return byDefault
	}
	b, ok := truth(s.value())
	if !ok {
		m.refuse(s, "is neither true nor false")
		return byDefault
	}
	return b == 1
}

// maxValues of an option are tried one by one; nobody writes more by hand.
const maxValues = 200

// parts calls f with each value of a list, and the setting in which it stands; f judges it.
func (m *mapping) parts(name string, f func(one *setting, v string) (Verdict, string)) {
	s, _ := m.usable(name)
	if s == nil {
		return
	}
	if len(s.values) > maxValues {
		m.refuse(s, fmt.Sprintf("has more than %d values", maxValues))
		return
	}
	for _, one := range m.same[s] {
		for _, v := range one.values {
			bare := strings.TrimSpace(v)
			switch {
			case bare == "":
			case bare != v && name != optUpstream: // without the blank it would match, and there it does not
				m.report(one.file, one.line, one.key, Refused, quote(v)+" has a blank at its edge, which oauth2-proxy "+
					"takes for a part of it")
			default:
				verdict, text := f(one, bare)
				m.report(one.file, one.line, one.key, verdict, text)
			}
		}
		if len(one.values) == 0 || strings.Join(one.values, "") == "" {
			m.report(one.file, one.line, one.key, Mapped, "nothing, as it is empty")
		}
		one.judged = true
	}
	s.judged = true
}

// rest judges what the table alone decides.
func (m *mapping) rest() {
	for _, name := range slices.Sorted(maps.Keys(m.set)) {
		s, o := m.set[name], known()[name]
		switch {
		case s.judged:
		case o.isAlwaysSo(s):
			m.mapped(s, alwaysSo)
		case o.why == "":
			m.not(s, "has no meaning beside the other settings")
		case o.refused:
			m.refuse(s, o.why)
		default:
			m.not(s, o.why)
		}
	}
}

// otherFiles judges options that name further files of oauth2-proxy's own.
func (m *mapping) otherFiles() {
	hasFile := slices.ContainsFunc(m.settings, func(s *setting) bool { return s.rank == fromFile })
	one := func(name string, given bool) {
		if s := m.set[name]; s != nil && !given {
			m.unseen = true
			m.refuse(s, "that file says more: give it to import too")
		} else if s != nil {
			m.mapped(s, known()[name].to)
		}
	}
	one("config", hasFile)
	one("alpha-config", m.alpha)
	for _, e := range m.elsewhere {
		if e.name == "" && m.variables || e.name != "" && m.seen[e.name] {
			m.report(e.file, e.line, e.key, Mapped, "what stands there, which was given too")
		} else {
			m.unknown(e.file, e.line, e.key, "what stands there may say more: give it to import too")
		}
	}
}

// site maps where browsers find Sallyport, and which proxies are before it.
func (m *mapping) site() {
	m.draft.publicURL = m.publicURL()
	s, _ := m.usable(optReverseProxy)
	trusting := m.flag(optReverseProxy, false)
	m.parts(optTrustedProxy, func(_ *setting, v string) (Verdict, string) {
		if !trusting {
			return NotMapped, "counts with reverse-proxy only"
		}
		if why := m.wrong(func(d *draft) { d.trusted = []string{v} }); why != "" {
			return Refused, quote(v) + " " + why
		}
		m.draft.trusted = append(m.draft.trusted, v)
		return Mapped, "trusted_proxies"
	})
	switch {
	case s == nil || s.judged || !trusting:
	case len(m.draft.trusted) > 0:
		m.mapped(s, "trusted_proxies")
	default:
		m.not(s, "oauth2-proxy believes every sender then: write the addresses of the proxies before Sallyport into "+
			"trusted_proxies; until then no X-Forwarded-* counts")
	}
}

// publicURL is that of the redirect URI, or of the host under which oauth2-proxy is served.
func (m *mapping) publicURL() string {
	s := m.set["redirect-url"]
	if name, ok := variableOf(s.value()); ok && !s.missing {
		m.not(s, "its value stands in "+name+": "+publicURLVariable+" has to hold scheme and host of it")
		return "env:" + publicURLVariable
	}
	if s, _ = m.usable("redirect-url"); s != nil {
		u, err := url.Parse(s.value())
		if err != nil || u.Host == "" || u.User != nil {
			m.not(s, "is no absolute URL: "+publicURLVariable+" has to say where browsers find Sallyport")
			return "env:" + publicURLVariable
		}
		origin := u.Scheme + "://" + u.Host
		if why := m.wrong(func(d *draft) { d.publicURL = origin }); why != "" {
			m.refuse(s, why+": "+publicURLVariable+" has to say where browsers find Sallyport")
			return "env:" + publicURLVariable
		}
		m.mapped(s, "public_url; register the redirect URI that `sallyport check` prints")
		return origin
	}
	for _, host := range m.hosts {
		if m.wrong(func(d *draft) { d.publicURL = "https://" + host }) == "" && !strings.Contains(host, "*") {
			return "https://" + host
		}
	}
	if m.set["redirect-url"] == nil {
		m.absent("redirect-url", NotMapped, "is not there: "+publicURLVariable+" has to say where browsers find "+
			"Sallyport")
	}
	return "env:" + publicURLVariable
}

// session maps keys and times.
func (m *mapping) session() {
	for _, name := range []string{"cookie-secret", "cookie-secret-file"} {
		if s := m.set[name]; s != nil {
			m.mapped(s, "session.keys, as a new key: put what `sallyport genkey` prints into "+sessionKeyVariable)
		}
	}
	s, _ := m.usable("cookie-expire")
	if s == nil {
		return
	}
	const longest = 720 * time.Hour
	d, err := time.ParseDuration(s.value())
	switch {
	case err != nil || d < 0:
		m.not(s, "is no duration")
	case d == 0:
		m.not(s, "a session ends by its age, not with the browser: session.absolute_timeout, 12h if left out")
	case d < time.Minute:
		put(&m.draft.session, "absolute_timeout", "1m")
		put(&m.draft.session, "idle_timeout", "1m")
		m.mapped(s, "session.absolute_timeout, of the least there is, one minute")
	case d > longest:
		put(&m.draft.session, "absolute_timeout", short(longest))
		put(&m.draft.session, "idle_timeout", short(longest))
		m.mapped(s, "session.absolute_timeout and idle_timeout, at most 720h")
	default:
		put(&m.draft.session, "absolute_timeout", short(d))
		put(&m.draft.session, "idle_timeout", short(d))
		m.mapped(s, "session.absolute_timeout and, as oauth2-proxy has no other, idle_timeout")
	}
}

// short is a duration without zeros at its end.
func short(d time.Duration) string {
	v := d.String()
	if strings.HasSuffix(v, "m0s") {
		v = strings.TrimSuffix(v, "0s")
	}
	if strings.HasSuffix(v, "h0m") {
		v = strings.TrimSuffix(v, "0m")
	}
	return v
}

// absolute is a path that file: takes.
func absolute(v string) bool {
	return strings.HasPrefix(v, "/") && v == path.Clean(v) && !strings.ContainsAny(v, " \t")
}

// listeners maps addresses.
func (m *mapping) listeners() {
	if !m.https() {
		m.http()
	}
	if s, _ := m.usable("metrics-address"); s != nil && s.value() != "" {
		address := strings.TrimPrefix(s.value(), "http://")
		if why := m.wrong(func(d *draft) { put(&d.listen, "admin", yamlText(address)) }); why != "" {
			m.not(s, why)
		} else {
			put(&m.draft.listen, "admin", yamlText(address))
			m.mapped(s, "listen.admin, with the health checks")
		}
	}
	if !m.external {
		return
	}
	address, peers := "127.0.0.1:4182", []string{"127.0.0.1", "::1"}
	if len(m.draft.trusted) > 0 {
		address, peers = ":4182", m.draft.trusted
	}
	put(&m.draft.listen, "external_auth", yamlMapping([]entry{{"address", yamlText(address)},
		{"peers", yamlList(peers)}, {"compat", "oauth2-proxy"}}))
}

// https reports whether the listener speaks TLS.
func (m *mapping) https() bool {
	cert, _ := m.usable("tls-cert-file")
	key, _ := m.usable("tls-key-file")
	if cert == nil || key == nil {
		for _, s := range []*setting{cert, key} {
			if s != nil {
				m.refuse(s, "is of no use without the other, certificate or key: Sallyport speaks plain http")
			}
		}
		return false
	}
	address := ":443"
	if s, _ := m.usable("https-address"); s != nil && s.value() != "" {
		address = strings.TrimPrefix(s.value(), "https://")
		m.mapped(s, "listen.https.address")
	}
	value := yamlMapping([]entry{{"address", yamlText(address)}, {"cert", yamlText("file:" + cert.value())},
		{"key", yamlText("file:" + key.value())}})
	why := m.wrong(func(d *draft) { put(&d.listen, "https", value) })
	if why == "" && (!absolute(cert.value()) || !absolute(key.value())) {
		why = "must be an absolute path"
	}
	if why != "" {
		m.refuse(cert, why)
		m.refuse(key, why)
		return false
	}
	put(&m.draft.listen, "https", value)
	m.mapped(cert, "listen.https.cert")
	m.mapped(key, "listen.https.key")
	if s := m.set["http-address"]; s != nil {
		m.not(s, "beside listen.https nothing listens on plain http")
	}
	return true
}

func (m *mapping) http() {
	if s := m.set["https-address"]; s != nil {
		m.not(s, "needs a certificate and its key")
	}
	s, there := m.usable("http-address")
	if s == nil || s.value() == "" {
		if !there && !m.chart { // as oauth2-proxy does by itself
			put(&m.draft.listen, "http", `"127.0.0.1:4180"`)
		}
		return
	}
	address := strings.TrimPrefix(s.value(), "http://")
	if why := m.wrong(func(d *draft) { put(&d.listen, "http", yamlText(address)) }); why != "" {
		put(&m.draft.listen, "http", `"127.0.0.1:4180"`)
		m.not(s, why)
		return
	}
	put(&m.draft.listen, "http", yamlText(address))
	m.mapped(s, "listen.http")
}

// pages maps the logo.
func (m *mapping) pages() {
	s, _ := m.usable("custom-sign-in-logo")
	if s == nil || s.value() == "" {
		return
	}
	if s.value() == "-" {
		m.mapped(s, "nothing: there is no logo if pages.logo is left out")
		return
	}
	logo := "file:" + s.value()
	why := m.wrong(func(d *draft) { d.logo = logo })
	if why == "" && !absolute(s.value()) {
		why = "must be an absolute path"
	}
	if why != "" {
		m.not(s, fmt.Sprintf("pages.logo %s", why))
		return
	}
	m.draft.logo = logo
	m.mapped(s, "pages.logo")
}
