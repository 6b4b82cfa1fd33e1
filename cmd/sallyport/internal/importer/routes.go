package importer

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// app is where requests below a path go.
type app struct {
	reach
	upstream []entry
	sockets  bool
}

// upstreamsOf maps where requests go, and finds out whether another proxy asks.
func (m *mapping) upstreamsOf() {
	m.unknownUpstream()
	m.parts(optUpstream, func(_ *setting, v string) (Verdict, string) { return m.upstream(legacyUpstream(v)) })
	for _, u := range m.sources.upstreams {
		v, text := m.upstream(u)
		m.judge(u.from, v, text)
	}
	m.external = len(m.apps) == 0 || len(m.ingresses) > 0
	for _, name := range []string{"pass-host-header", "proxy-websockets", "upstream-timeout"} {
		s := m.set[name]
		switch {
		case s == nil || s.judged:
		case len(m.apps) == 0:
			m.not(s, "is about what is passed on, and the proxy that asks passes it on")
		case name == "upstream-timeout" && m.timeout(s.value()) == "":
			m.not(s, "is no duration that an app may be given")
		default:
			m.mapped(s, known()[name].to)
		}
	}
	if len(m.apps) == 0 {
		m.absent("(upstream)", Mapped, "listen.external_auth: another proxy asks about requests and passes them "+
			"on; if it is not on this machine, write its addresses into peers")
	}
}

// unknownUpstream keeps the place of an app whose address stands elsewhere: no other proxy asks.
func (m *mapping) unknownUpstream() {
	s := m.set[optUpstream]
	if s == nil || !s.missing && !slices.ContainsFunc(s.values, filledIn) || len(m.ingresses) > 0 {
		return
	}
	const address = "http://app.invalid"
	m.apps = []app{{reach: reach{text: "/", below: true}, upstream: []entry{{"url", address}}, sockets: true}}
	m.refuse(s, "its value stands elsewhere, and is not known here: write the app's address in the place of "+address)
}

// legacyUpstream is what the flag says in one URL.
func legacyUpstream(v string) upstream {
	u := upstream{uri: v}
	parsed, err := url.Parse(v)
	if err != nil {
		return u
	}
	u.path = parsed.Path
	switch {
	case parsed.Scheme == "static":
		u.static, u.path = true, "/"
	case parsed.Scheme == "unix", u.path == "":
		u.path = "/"
	case parsed.Scheme == "file" && parsed.Fragment != "":
		u.path = parsed.Fragment
	}
	return u
}

// upstream maps one.
func (m *mapping) upstream(u upstream) (Verdict, string) {
	if u.static {
		if u.path == "/" || strings.Trim(u.path, "/") == "" {
			return Mapped, "a route without upstream, if there is no app"
		}
		return NotMapped, "Sallyport answers nothing itself outside its own pages"
	}
	parsed, err := url.Parse(u.uri)
	switch {
	case err != nil || u.uri == "":
		return Refused, "is no URL of an app"
	case parsed.User != nil:
		return Refused, "has a user in it: an app's address has none here"
	case u.rewrites:
		return Refused, "an app is asked for the path that was judged, and for no other: let it serve below that path"
	case parsed.Scheme == "file" && parsed.Path == "/dev/null":
		return Mapped, "a route without upstream, if there is no app"
	case parsed.Scheme == "file":
		return NotMapped, "Sallyport serves no files: put a file server there"
	case !strings.HasPrefix(u.path, "/"):
		return Refused, "has a path that is no path of a route"
	}
	address := parsed.Scheme + "://" + parsed.Host
	own := strings.Trim(parsed.Path, "/")
	if parsed.Scheme == "unix" {
		address = "unix:" + strings.TrimSuffix(parsed.Path, ":") // a path of a request may follow a colon there
		if parsed.Path == "" {
			address = "unix:" + parsed.Opaque
		}
	} else if own != "" && own != strings.Trim(u.path, "/") {
		return Refused, "an app is asked for the path that was judged, and for no other: let it serve below that path"
	}
	a := app{reach: reach{text: u.path, below: strings.HasSuffix(u.path, "/")},
		upstream: []entry{{"url", yamlText(address)}}, sockets: m.choice(u.sockets, "proxy-websockets")}
	if !m.choice(u.host, "pass-host-header") && parsed.Scheme != "unix" {
		a.upstream = append(a.upstream, entry{"host", yamlText(strings.ToLower(parsed.Host))})
	}
	timeout := u.timeout
	if s, _ := m.usable("upstream-timeout"); timeout == "" && s != nil {
		timeout = s.value()
	}
	if d := m.timeout(timeout); d != "" {
		a.upstream = append(a.upstream, entry{"timeouts", "{header: " + d + "}"})
	}
	path, _ := a.own()
	if why := m.wrong(func(d *draft) {
		d.routes = []route{{path: path, exact: !a.below, upstream: a.upstream, sockets: a.sockets}}
	}); why != "" {
		return Refused, why
	}
	if slices.ContainsFunc(m.apps, func(o app) bool { return o.reach == a.reach }) {
		return NotMapped, "another upstream has the same path"
	}
	m.apps = append(m.apps, a)
	text := "routes[].upstream"
	if skips := m.set["ssl-upstream-insecure-skip-verify"]; (u.skipsTLS || skips.value() == "true") &&
		parsed.Scheme == "https" {
		if u.skipsTLS {
			return Refused, text + " is there, but its certificate is always verified; upstream.ca says who may " +
				"vouch for it"
		}
		text += ", whose certificate is verified"
	}
	return Mapped, text
}

func (m *mapping) choice(own *bool, option string) bool {
	if own != nil {
		return *own
	}
	return m.flag(option, true)
}

// timeout is a duration as ours, "" if it is none.
func (m *mapping) timeout(v string) string {
	d, err := time.ParseDuration(v)
	if err != nil || d < 100*time.Millisecond || d > 24*time.Hour {
		return ""
	}
	return short(d)
}

// own is the path of the route for what r reaches.
func (r reach) own() (path string, exact bool) {
	if !r.below {
		return r.text, true
	}
	if r.text == "/" {
		return "/", false
	}
	return strings.TrimSuffix(r.text, "/"), false
}

// opened collects what may be had without signing in.
func (m *mapping) opened() (all []open, preflight bool, from []string) {
	add := func(skipMethods bool) func(one *setting, v string) (Verdict, string) {
		return func(one *setting, v string) (Verdict, string) {
			method, pattern, negated := "", v, false
			if skipMethods {
				method, pattern, negated = parseSkip(v)
			}
			if negated {
				return Refused, quote(v) + " " + errNegated.Error()
			}
			reaches, err := openPaths(pattern)
			if err != nil {
				return Refused, quote(v) + " " + err.Error()
			}
			var methods []string
			if method != "" {
				methods = []string{method}
			}
			for _, r := range reaches {
				if why := m.openWrong(r, methods); why != "" {
					return Refused, quote(v) + " " + why
				}
			}
			for _, r := range reaches {
				all = append(all, open{r, methods, one})
			}
			text := "routes[].public"
			for i, r := range reaches {
				path, exact := r.own()
				text += [...]string{", ", ": "}[btoi(i == 0)] + [...]string{"path ", "path_exact "}[btoi(exact)] + path
			}
			if method == "GET" {
				text += " (for HEAD too, which tells nothing more)"
			} else if method != "" {
				text += " (" + method + " only)"
			}
			return Mapped, text
		}
	}
	m.parts(optSkipAuthRoute, add(true))
	m.parts(optSkipAuthRegex, add(false))
	preflight = m.flag(optPreflight, false)
	if s := m.set[optPreflight]; s != nil && preflight && !s.judged {
		m.mapped(s, "routes[].public.methods, OPTIONS; `cors` of a route answers preflights and leaves the rest closed")
	}
	return all, preflight, m.trustedIPs(preflight || slices.ContainsFunc(all,
		func(o open) bool { return o.methods != nil }))
}

func (m *mapping) openWrong(r reach, methods []string) string {
	return m.wrong(func(d *draft) {
		path, exact := r.own()
		d.routes = trial(route{path: path, exact: exact, public: publicText(methods == nil, methods, nil)})
	})
}

// trustedIPs are addresses from which everybody may pass.
func (m *mapping) trustedIPs(byMethod bool) (from []string) {
	behind := m.flag(optReverseProxy, false)
	other := m.otherAddress(behind)
	m.parts(optTrustedIP, func(_ *setting, v string) (Verdict, string) {
		switch {
		case behind && len(m.draft.trusted) == 0:
			return Refused, "while trusted_proxies names no proxy, the address of a client is that of the proxy, and " +
				"everybody would pass: name the proxies, then write public: {from: […]}"
		case other != "":
			return Refused, other
		case byMethod:
			return Refused, "beside a public method a route cannot be public for addresses too: conditions of " +
				"`public` all hold at once"
		}
		if why := m.wrong(func(d *draft) {
			d.routes = trial(route{public: publicText(false, nil, []string{v})})
		}); why != "" {
			return Refused, quote(v) + " " + why
		}
		from = append(from, v)
		return Mapped, "routes[].public.from"
	})
	return from
}

// otherAddress says why oauth2-proxy and Sallyport may take another address for that of the
// client: "" if both take the same. A proxy passes on what clients write into the header that it
// does not set, and of X-Forwarded-For oauth2-proxy takes the first address and not the nearest.
func (m *mapping) otherAddress(behind bool) string {
	header := m.set["real-client-ip-header"]
	named := header.value()
	if header == nil {
		named = "X-Real-IP" // oauth2-proxy's default
	}
	const then = ": have the proxy set it for everybody, then write public: {from: […]}"
	switch {
	case m.external && !behind:
		return "without reverse_proxy oauth2-proxy takes the address of the proxy that asks, and Sallyport that of " +
			"the client, from X-Real-IP" + then
	case m.external && !strings.EqualFold(named, "X-Real-IP"):
		return "oauth2-proxy takes the address from " + named + ", and Sallyport, asked at these paths, from " +
			"X-Real-IP" + then
	case behind && len(m.apps) > 0:
		return "Sallyport takes the address from X-Forwarded-For, the nearest one that trusted_proxies does not " +
			"name, and oauth2-proxy another: name all proxies there, then write public: {from: […]}"
	}
	return ""
}

// publicText is the value of public.
func publicText(all bool, methods, from []string) string {
	switch {
	case all:
		return "true"
	case len(methods) > 0:
		return "{methods: " + yamlList(methods) + "}"
	case len(from) > 0:
		return "{from: " + yamlList(from) + "}"
	}
	return ""
}

// site is a host with its access.
type site struct {
	host string
	who  access
}

// routes makes the routes. What together is no valid set of routes is taken out again, until
// what remains is one.
func (m *mapping) routes() error {
	opened, preflight, from := m.opened()
	sites := m.sites()
	for range len(opened) + 1 {
		m.draft.routes = nil
		for _, s := range sites {
			m.draft.routes = append(m.draft.routes, m.routesOf(s, opened, preflight, from)...)
		}
		faults := m.draft.faults()
		if len(faults) == 0 {
			return nil
		}
		at := regexp.MustCompile(`^routes\[(\d+)\]`).FindStringSubmatch(faults[0].Path)
		if at == nil {
			break
		}
		i, _ := strconv.Atoi(at[1])
		guilty := m.draft.routes[i].from
		if len(guilty) == 0 {
			break
		}
		opened = slices.DeleteFunc(opened, func(o open) bool { return o.from == guilty[0] })
		m.report(guilty[0].file, guilty[0].line, guilty[0].key, Refused, "beside the other routes: "+faults[0].Message)
	}
	faults := m.draft.faults()
	return fmt.Errorf("what was read makes no valid configuration: %s: %s", faults[0].Path, faults[0].Message)
}

// routesOf cuts the paths of a host where the app or the access changes.
func (m *mapping) routesOf(s site, opened []open, preflight bool, from []string) []route {
	apps := m.apps
	if m.external && (s.host != "" || len(apps) == 0) {
		apps = []app{{reach: reach{text: "/", below: true}, sockets: true}}
	}
	var points []reach
	add := func(r reach) {
		if !slices.Contains(points, r) {
			points = append(points, r)
		}
	}
	for _, a := range apps {
		add(reach{text: a.text, below: a.below})
	}
	for _, o := range opened {
		add(reach{text: o.text, below: o.below})
		if o.below && o.text != "/" {
			add(reach{text: strings.TrimSuffix(o.text, "/")})
		}
		if o.more {
			add(reach{text: o.text})
		}
	}
	var all []route
	for _, p := range points {
		if r, ok := m.routeAt(p, s, apps, opened, preflight, from); ok {
			all = append(all, r)
		}
	}
	return withoutNeedless(all)
}

// routeAt is the route for a point; false if no app is there.
func (m *mapping) routeAt(p reach, s site, apps []app, opened []open, preflight bool, from []string) (route, bool) {
	path, exact := p.own()
	r := route{host: s.host, path: path, exact: exact, allow: s.who, acr: m.acr, headers: m.headers}
	best := -1
	for i, a := range apps {
		covers := a.covers(p) || a.below && p.text == strings.TrimSuffix(a.text, "/")
		if covers && (best < 0 || len(a.text) > len(apps[best].text)) {
			best = i
		}
	}
	if best < 0 {
		return r, false
	}
	r.upstream, r.sockets = apps[best].upstream, apps[best].sockets
	all, methods := false, []string(nil)
	if preflight {
		methods = []string{"OPTIONS"}
	}
	for _, o := range opened {
		if !o.covers(p) {
			continue
		}
		r.from = append(r.from, o.from)
		all = all || o.methods == nil
		for _, method := range o.methods {
			if !slices.Contains(methods, method) {
				methods = append(methods, method)
			}
		}
	}
	r.public = publicText(all, methods, from)
	return r, true
}

// withoutNeedless leaves out an exact route that says what the route around it says.
func withoutNeedless(all []route) []route {
	var kept []route
	for _, r := range all {
		around := -1
		for i, o := range all {
			within := o.path == "/" || r.path == o.path || strings.HasPrefix(r.path, o.path+"/")
			narrower := around < 0 || len(o.path) > len(all[around].path)
			if !o.exact && within && narrower && (r.exact || len(o.path) < len(r.path)) {
				around = i
			}
		}
		if around >= 0 && sameRoute(r, all[around]) {
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

func sameRoute(a, b route) bool {
	return a.public == b.public && a.sockets == b.sockets && slices.Equal(a.upstream, b.upstream)
}

// sites are the hosts for which there are routes: that of public_url, and where another proxy
// asks, those that it asks about.
func (m *mapping) sites() []site {
	sites := []site{{"", m.who}}
	public := strings.TrimPrefix(m.draft.publicURL, "https://")
	add := func(host string, who access) string {
		if host == public {
			return ""
		}
		if i := slices.IndexFunc(sites, func(s site) bool { return s.host == host }); i >= 0 {
			return ""
		}
		if why := m.wrong(func(d *draft) {
			d.routes = trial(route{host: host})
		}); why != "" {
			return why
		}
		sites = append(sites, site{host, who})
		return ""
	}
	m.parts("whitelist-domain", func(_ *setting, v string) (Verdict, string) {
		if !m.external {
			return NotMapped, "people are led back to hosts of routes, and to no others"
		}
		host, _, _ := strings.Cut(strings.ToLower(v), ":")
		if strings.HasPrefix(host, ".") {
			host = "*" + host
		}
		if why := add(host, m.who); why != "" {
			return NotMapped, quote(v) + " " + why
		}
		return Mapped, "routes[].host"
	})
	asked := map[string]string{} // what auth-url asks for, by host
	for _, in := range m.ingresses {
		who, ok := m.narrowed(in.query)
		if in.badQuery || in.other {
			who, ok = access{closed: true}, false
		}
		for _, host := range in.hosts {
			before, seen := asked[host]
			if seen && before != in.query.Encode() {
				who, ok = access{closed: true}, false // one route would have to ask for both
			}
			asked[host] = in.query.Encode()
			i := slices.IndexFunc(sites, func(s site) bool { return s.host == host || host == public && s.host == "" })
			if i >= 0 && (len(in.query) > 0 || who.closed) {
				sites[i].who = who
			} else if i < 0 && host != "" {
				if why := add(host, who); why != "" {
					m.report(in.file, in.line, "spec.rules[].host", Refused, quote(host)+" "+why)
				}
			}
		}
		m.annotations(in, ok)
	}
	return sites
}

// annotations judges what ingress-nginx was told.
func (m *mapping) annotations(in ingress, ok bool) {
	for _, a := range in.annotations {
		say := func(v Verdict, text string) { m.report(in.file, a.line, ingressPrefix+a.name, v, text) }
		switch a.name {
		case "auth-url":
			switch {
			case in.other:
				say(Refused, "is not /oauth2/auth, the only path that compat has, and may ask another program: nobody "+
					"may pass until routes[].allow says who")
			case !ok:
				say(Refused, "its parameters ask for what rules do not say: nobody may pass until routes[].allow "+
					"says who")
			case len(in.query) > 0:
				say(Mapped, "listen.external_auth, where compat keeps the path, and its parameters to routes[].allow")
			default:
				say(Mapped, "listen.external_auth, where compat keeps the path")
			}
		case "auth-signin":
			say(Mapped, "listen.external_auth, where compat keeps the path")
		case "auth-response-headers":
			m.responseHeaders(a, say)
		case "auth-cache-key", "auth-cache-duration":
			say(Refused, "an answer that is kept outlives a sign-out: leave it out")
		default:
			say(NotMapped, "is ingress-nginx's own, and stays there")
		}
	}
}

func (m *mapping) responseHeaders(a annotation, say func(Verdict, string)) {
	var lost []string
	for _, name := range strings.Split(a.value, ",") {
		name = strings.TrimSpace(name)
		known := slices.ContainsFunc(m.headers, func(t appHeader) bool { return strings.EqualFold(t.name, name) })
		if name != "" && !known && !strings.EqualFold(name, "Set-Cookie") {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		say(Refused, strings.Join(lost, ", ")+": is not answered; see routes[].headers")
		return
	}
	say(Mapped, "names of routes[].headers, all of which are to be passed on: X-Sallyport-Names lists them")
}
