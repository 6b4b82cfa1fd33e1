package selftest

import (
	"fmt"
	"slices"
	"strings"
)

// Where the requests of cases go, below the routes that RouteLines adds.
const (
	signedInPath = Area + "/{id}"        // who is signed in
	publicPath   = Area + "/public/{id}" // everybody, with GET
	fromPath     = Area + "/from/{id}"   // everybody, from an address that nobody has
)

// fromAddress is of a network for documentation (RFC 5737): no request comes from there.
const fromAddress = "192.0.2.1"

// RouteLines are the routes to add to the configuration while the echo runs at address.
func RouteLines(host, address string) string {
	route := func(name, path, access string) string {
		return fmt.Sprintf("  - {name: %s, host: %q, path: %s, upstream: \"http://%s\", %s, websocket: true}\n",
			name, host, path, address, access)
	}
	return "routes:\n" +
		route("selftest", Area, "allow: authenticated") +
		route("selftest-public", Area+"/public", "public: {methods: [GET]}") +
		route("selftest-from", Area+"/from", "public: {from: ["+fromAddress+"]}")
}

// The names of the requests that must pass, or most cases would show nothing.
const (
	controlPublic   = "reaches-the-echo"
	controlSignedIn = "signed-in"
)

func (r *run) controls() (probes []probe) {
	if r.echo == nil {
		return nil
	}
	probes = append(probes, r.publicControl())
	if r.Cookie != "" {
		probes = append(probes, probe{controlSignedIn, signedInPath, r.signedIn("GET", signedInPath),
			expectIdentity})
	}
	return probes
}

func (r *run) publicControl() probe {
	return probe{controlPublic, publicPath, get(publicPath), expectPublic}
}

func get(target string, lines ...string) request {
	return request{method: "GET", target: target, lines: lines}
}

func (r *run) signedIn(method, target string, lines ...string) request {
	return request{method: method, target: target, lines: append(lines, "Cookie: app=kept; "+r.Cookie)}
}

// cases are all but the controls, as far as the controls have shown that they can be judged.
func (r *run) cases(seen begun) []probe {
	all := r.outside()
	if seen.public {
		all = slices.Concat(all, r.spoofed(), r.unauthenticated(), r.paths(), r.application(), r.overHTTP2())
	}
	if seen.signedIn != nil {
		all = append(all, r.identified(seen.signedIn)...)
	}
	return all
}

// blind are cases that show a leak also where what should pass does not: a front that
// takes the client's word for the question refuses everybody else.
func (r *run) blind(seen begun) []probe {
	if r.echo == nil || seen.public {
		return nil
	}
	return slices.Concat(r.unauthenticated(), r.paths())
}

// unseen says what this run could not see, and what it takes.
func (r *run) unseen(seen begun) (unseen []string) {
	switch {
	case r.echo == nil:
		unseen = append(unseen, "which headers, paths and cookies reach the app (--echo ADDR)")
	case !seen.public:
		unseen = append(unseen, "which headers, paths and cookies reach the app (no request reached the echo)")
	}
	switch {
	case r.echo == nil || r.Cookie == "":
		unseen = append(unseen, "what the app is told of who is signed in (--echo ADDR and --cookie file:PATH)")
	case seen.signedIn == nil:
		unseen = append(unseen, "what the app is told of who is signed in (no such request reached the echo)")
	}
	if !r.http2 {
		unseen = append(unseen, "HTTP/2, which the front does not offer here")
	}
	return append(unseen, "which client address the front tells Sallyport for its log")
}

// Pages of other sites, as browsers name them.
var foreign = []string{"Origin: https://{mark}.invalid", "Origin: null"}

// Headers with which browsers say that a page is opened in a window.
var navigation = []string{"Accept: text/html,*/*;q=0.8", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}

// outside are the cases that need no echo.
func (r *run) outside() (probes []probe) {
	closed := signedInPath
	if r.echo == nil {
		closed = r.URL.EscapedPath()
		if closed == "" {
			closed = "/"
		}
	}
	add := func(name, shown string, q request, e expectation) { probes = append(probes, probe{name, shown, q, e}) }
	add("page-is-sent-to-sign-in", closed, get(closed, navigation...), expectSignIn)
	add("program-gets-401", closed, get(closed, "Accept: */*"), expectStatus(fixProgram, 401, 403))
	add("form-gets-401", closed, request{method: "POST", target: closed, body: "a=b",
		lines: append([]string{"Content-Type: application/x-www-form-urlencoded", "Origin: " + r.origin()},
			navigation...)}, expectStatus(fixProgram, 401, 403))
	add("own-pages", r.Prefix+"/jwks.json", get(r.Prefix+"/jwks.json"), expectKeys)
	login := get(r.Prefix+"/login?return_to=/", navigation...)
	add("own-pages-as-sent", r.Prefix+"/login", login, expectLogin(nil))
	for _, spoof := range []string{"X-Forwarded-Host: {mark}.invalid", "X-Forwarded-Proto: {mark}",
		"Forwarded: host={mark}.invalid;proto=https"} {
		q := login
		q.lines = append(slices.Clone(login.lines), spoof)
		name, _, _ := strings.Cut(spoof, ":")
		add("own-pages-forwarded", name, q, expectLogin(fixOwnForwarded(name)))
	}
	// With all that a question says: Sallyport answers no other with anything that tells.
	question := []string{"X-Original-URL: " + r.origin() + closed, "X-Original-Method: GET",
		"X-Forwarded-Uri: " + closed, "X-Forwarded-Method: GET", "X-Forwarded-Proto: " + r.URL.Scheme,
		"X-Forwarded-Host: " + r.URL.Host}
	for _, path := range []string{"/_sallyport", "/verify", "/forward", "/envoy" + closed, "/oauth2/auth"} {
		add("question-is-not-public", path, get(path, append(slices.Clone(question), navigation...)...),
			expectNoQuestion)
		if r.Cookie != "" {
			add("question-is-not-public-signed-in", path, r.signedIn("GET", path, question...), expectNoQuestion)
		}
	}
	for _, origin := range foreign {
		add("foreign-page-reads", origin, get(closed, origin), expectUnsent)
		if r.echo != nil {
			add("foreign-page-reads-public", origin, get(publicPath, origin), expectUnreadable)
		}
		if r.Cookie != "" {
			add("foreign-page-reads-signed-in", origin, r.signedIn("GET", closed, origin), expectUnreadable)
		}
	}
	add("foreign-preflight", "OPTIONS "+closed, request{method: "OPTIONS", target: closed, lines: []string{
		foreign[0], "Access-Control-Request-Method: PUT"}}, expectUnsent)
	if r.echo == nil {
		for _, line := range r.questionSpoofs("/.sallyport-selftest/public/x") {
			name, _, _ := strings.Cut(line, ":")
			add("question-header", line, get(closed, line), expectRefused(fixAsked(name)))
		}
	}
	return probes
}

func (r *run) origin() string { return r.URL.Scheme + "://" + r.URL.Host }

// steering are names by which apps and frameworks let a proxy tell them address, host, path
// or method of a request: only the front may.
var steering = []string{"X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port",
	"X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Path",
	"Forwarded", "X-Original-URL", "X-Original-URI", "X-Original-Method", "X-Original-Host", "X-Rewrite-URL"}

// spoofValue is something that a program could take for the value of a header.
func spoofValue(name string) string {
	switch {
	case strings.HasSuffix(name, "-For"), strings.HasSuffix(name, "-IP"):
		return "{ip}"
	case name == "Forwarded":
		return "for=\"[{ip}]\";host={mark}.invalid"
	case strings.HasSuffix(name, "-URL"), strings.HasSuffix(name, "-URI"), strings.HasSuffix(name, "-Uri"),
		strings.HasSuffix(name, "-Path"), strings.HasSuffix(name, "-Prefix"):
		return "/{mark}"
	}
	return "{mark}"
}

// spelling is one way to write a header so that some program takes it for another.
type spelling struct {
	name      string
	malformed bool // not HTTP: who breaks off the connection has refused it
	lines     func(name, value string) []string
}

func oneLine(write func(name, value string) string) func(name, value string) []string {
	return func(name, value string) []string { return []string{write(name, value)} }
}

// renamed writes the header with something else for each or the last '-' of its name.
func renamed(with string, last bool) func(name, value string) []string {
	return oneLine(func(name, value string) string {
		if i := strings.LastIndexByte(name, '-'); last && i >= 0 {
			return name[:i] + with + name[i+1:] + ": " + value
		}
		return strings.ReplaceAll(name, "-", with) + ": " + value
	})
}

// The spellings of which there are cases in more than one place.
var (
	exact       = spelling{"spoof", false, renamed("-", false)}
	underscores = spelling{"spoof-underscores", false, renamed("_", false)}
	dots        = spelling{"spoof-dots", false, renamed(".", false)}
	doubled     = spelling{"spoof-doubled", false, func(n, v string) []string {
		return []string{n + ": " + v, n + ": " + v}
	}}
	named = spelling{"spoof-named-by-connection", false, func(n, v string) []string {
		return []string{n + ": " + v, "Connection: close, " + n}
	}}
)

var spellings = []spelling{
	exact,
	{"spoof-lower-case", false, oneLine(func(n, v string) string { return strings.ToLower(n) + ":" + v })},
	{"spoof-upper-case", false, oneLine(func(n, v string) string { return strings.ToUpper(n) + ": " + v })},
	underscores, dots, doubled, named,
	{"spoof-one-underscore", false, renamed("_", true)},
	{"spoof-other-sign", false, renamed("~", false)},
	{"spoof-empty-first", false, func(n, v string) []string { return []string{n + ":", n + ": " + v} }},
	{"spoof-blank-before-colon", true, oneLine(func(n, v string) string { return n + " : " + v })},
	{"spoof-tab-before-colon", true, oneLine(func(n, v string) string { return n + "\t: " + v })},
	{"spoof-folded-line", true, func(n, v string) []string {
		return []string{"X-Selftest: a", " " + n + ": " + v}
	}},
	{"spoof-bare-return", true, func(n, v string) []string { return []string{"X-Selftest: a\r" + n + ": " + v} }},
	{"spoof-bare-newline", true, func(n, v string) []string { return []string{"X-Selftest: a\n" + n + ": " + v} }},
	{"spoof-blank-values", false, oneLine(func(n, v string) string { return n + ": \t " + v + " \t" })},
}

// spoofed are headers of the client's own, sent to where everybody may go.
func (r *run) spoofed() (probes []probe) {
	for _, name := range r.Names {
		for _, s := range spellings {
			lines := s.lines(name, spoofValue(name))
			fix := fixIdentity(name)
			if !strings.EqualFold(firstName(lines), name) {
				fix = fixAlias(name)
			}
			probes = append(probes, probe{s.name, shownLines(lines), get(publicPath, lines...),
				expectUnmarked(fix, s.malformed)})
		}
	}
	for _, name := range steering {
		for _, s := range []spelling{exact, underscores, dots} {
			if s.name != exact.name && !strings.Contains(name, "-") {
				continue
			}
			lines := s.lines(name, spoofValue(name))
			fix := fixSteering(name)
			if !strings.EqualFold(firstName(lines), name) {
				fix = fixAlias(name)
			}
			probes = append(probes, probe{s.name, shownLines(lines), get(publicPath, lines...),
				expectUnmarked(fix, false)})
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
		"X_HTTP_Method_Override"} {
		probes = append(probes, probe{"method-override", name, get(publicPath, name+": DELETE"),
			expectNoHeader(name, fixOverride(name))})
	}
	for _, protocol := range []string{"h2c", "h2c, websocket", "TLS/1.2"} {
		probes = append(probes, probe{"other-protocol", "Upgrade: " + protocol, get(publicPath,
			"Connection: Upgrade, HTTP2-Settings", "Upgrade: "+protocol, "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
			"Origin: "+r.origin()), expectNoOtherProtocol})
	}
	for _, target := range []string{publicPath + "%0d%0aX-Forwarded-User:%20{mark}",
		publicPath + "?a=%0d%0aX-Forwarded-User:%20{mark}", publicPath + "?X-Forwarded-User={mark}"} {
		probes = append(probes, probe{"header-in-the-target", target, get(target), expectUnmarked(fixPath, true)})
	}
	return probes
}

func firstName(lines []string) string {
	name, _, _ := strings.Cut(lines[0], ":")
	return name
}

// shownLines shows lines of a header on one line.
func shownLines(lines []string) string {
	var names []string
	for _, line := range lines {
		if i := strings.LastIndexByte(line, ':'); i >= 0 && !strings.HasPrefix(line, "Connection:") {
			line = line[:i]
		}
		quoted := fmt.Sprintf("%q", line)
		if plain := quoted[1 : len(quoted)-1]; plain != line || strings.ContainsAny(line, " ") {
			names = append(names, quoted)
		} else {
			names = append(names, plain)
		}
	}
	return strings.Join(names, ", ")
}

// questionSpoofs are lines that a front must not take over into its question: by each of
// them the question would be about another request, to the path open.
func (r *run) questionSpoofs(open string) []string {
	return []string{
		"X-Original-URL: " + r.origin() + open, "X-Original-URL: " + open, "X-Original-URI: " + open,
		"X-Original-Method: OPTIONS", "X-Original-Host: {mark}.invalid", "X-Forwarded-Uri: " + open,
		"X-Forwarded-Path: " + open, "X-Forwarded-Host: {mark}.invalid", "X-Forwarded-Proto: {mark}",
		"X-Forwarded-Method: OPTIONS", "X-Rewrite-URL: " + open, "X-Envoy-Original-Path: " + open,
		"X-Auth-Request-Redirect: " + open,
	}
}

// unauthenticated are requests for what needs a session, without one.
func (r *run) unauthenticated() (probes []probe) {
	add := func(name, shown string, q request, fix lines) {
		probes = append(probes, probe{name, shown, q, expectNothing(fix)})
	}
	add("nobody", signedInPath, get(signedInPath), fixCheck)
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "get"} {
		add("nobody", method+" "+signedInPath, request{method: method, target: signedInPath}, fixCheck)
	}
	add("method-of-a-rule", "POST "+publicPath, request{method: "POST", target: publicPath},
		fixAsked("X-Original-Method"))
	for _, line := range []string{"X-Original-Method: GET", "X-Forwarded-Method: GET", "X-HTTP-Method-Override: GET"} {
		name, _, _ := strings.Cut(line, ":")
		add("method-of-a-rule", line, request{method: "POST", target: publicPath, lines: []string{line}},
			fixAsked(name))
	}
	for _, line := range r.questionSpoofs(publicPath) {
		name, _, _ := strings.Cut(line, ":")
		add("question-header", line, get(signedInPath, line), fixAsked(name))
		add("question-header-doubled", line, get(signedInPath, line, line), fixAsked(name))
	}
	add("address-of-a-rule", fromPath, get(fromPath), fixAsked("X-Forwarded-For"))
	for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "X-Envoy-External-Address", "X-Client-IP",
		"True-Client-IP", "CF-Connecting-IP"} {
		add("address-of-a-rule", name, get(fromPath, name+": "+fromAddress), fixAsked("X-Forwarded-For"))
	}
	add("address-of-a-rule", "Forwarded", get(fromPath, "Forwarded: for="+fromAddress), fixAsked("X-Forwarded-For"))
	for _, line := range []string{"Authorization: Bearer {mark}", "Authorization: Basic YWRtaW46YWRtaW4=",
		"Cookie: __Host-sallyport={mark}", "Cookie: sallyport-dev-80={mark}", "X-Forwarded-User: {mark}",
		"X-Sallyport-Assertion: {mark}", "Remote-User: {mark}"} {
		add("forged", line, get(signedInPath, line), fixCheck)
	}
	for _, query := range []string{"X-Original-URL=" + publicPath, "uri=" + publicPath, "rd=/&skip_auth=true",
		"/../public/{id}", "#/../public/{id}"} {
		target := signedInPath + "?" + query
		add("query", target, get(target), fixAsked("X-Original-URL"))
	}
	add("two-hosts", "Host, Host", get(signedInPath, "Host: {host}", "Host: {mark}.invalid"), fixCheck)
	add("websocket", signedInPath, r.handshake(signedInPath, "Origin: "+r.origin()), fixCheck)
	for _, o := range r.foreignOrigins() {
		add("websocket-foreign-origin", o, r.handshake(publicPath, o), fixUpgrade)
	}
	add("websocket-foreign-origin", "Upgrade alone", get(publicPath, "Connection: Upgrade", "Upgrade: websocket",
		"Origin: https://{mark}.invalid"), fixUpgrade)
	add("websocket-foreign-origin", "Upgrade: WebSocket", get(publicPath, "Connection: keep-alive, Upgrade",
		"Upgrade: WebSocket", "Origin: https://{mark}.invalid"), fixUpgrade)
	return probes
}

func (r *run) foreignOrigins() []string {
	return []string{foreign[0], foreign[1],
		"Origin: " + r.origin() + ".{mark}.invalid", "Origin: " + r.origin() + ", https://{mark}.invalid"}
}

func (r *run) handshake(target string, lines ...string) request {
	return get(target, append([]string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, lines...)...)
}

// paths are targets that one program reads as something that everybody may have, and
// another as something that needs a session.
func (r *run) paths() (probes []probe) {
	open, name := Area+"/public", strings.TrimPrefix(Area, "/")
	for _, target := range []string{
		open + "/../{id}", open + "/./../{id}", open + "/x/../../{id}", open + "/%2e%2e/{id}", open + "/.%2E/{id}",
		open + "/..%2f{id}", open + "%2f..%2f{id}", open + "/%2e%2e%2f{id}", open + "/..%5c{id}", open + `/..\{id}`,
		open + `\..\{id}`, open + "/%252e%252e/{id}", open + "/..%252f{id}", open + "/..;/{id}", open + "/..;x=y/{id}",
		open + ";/../{id}", open + "/;/../{id}", open + "/%3b/../{id}", open + "/..%00/{id}", open + "/..%09/{id}",
		open + "//../{id}", open + "/..//{id}", open + "/%c0%ae%c0%ae/{id}",
		open + "#/../{id}", open + "%23/../../{id}", open + "%3f/../../{id}",
		signedInPath + "/../public/x", signedInPath + "/..%2fpublic%2fx", signedInPath + "/%2e%2e/public/x",
		signedInPath + "#/../public/x", signedInPath + ";/../public/x", signedInPath + "%3f/../public/x",
		"/" + signedInPath, "/" + name + "//{id}", "//" + name + "/{id}", "/./" + name + "/{id}",
		"/%2e/" + name + "/{id}",
		"/x/../" + name + "/{id}", `/\` + name + "/{id}", `\` + name + `\{id}`, "/%2f" + name + "/{id}",
		r.Prefix + "/../" + name + "/{id}", r.Prefix + "/..%2f" + name + "/{id}",
		r.Prefix + "/%2e%2e/" + name + "/{id}", r.Prefix + "/..;/" + name + "/{id}",
		r.origin() + signedInPath, r.origin() + open + "/../{id}",
		"HTTP://" + r.URL.Host + signedInPath, r.URL.Scheme + "://x@" + r.URL.Host + signedInPath,
		"//" + r.URL.Host + signedInPath, name + "/{id}", "*" + signedInPath,
	} {
		probes = append(probes, probe{"path", target, get(target), expectNothingUnlessPlain(fixPath)})
	}
	const elsewhere = "http://{mark}.invalid" + signedInPath
	return append(probes, probe{"path-elsewhere", elsewhere, get(elsewhere), expectElsewhere(fixPath)})
}

// overHTTP2 are cases that look different in frames, or that only frames can carry: a front
// writes them anew as lines for the app.
func (r *run) overHTTP2() (probes []probe) {
	if !r.http2 {
		return nil
	}
	send := func(path string, more ...field) request {
		return request{fields: append([]field{{":method", "GET"}, {":scheme", r.URL.Scheme}, {":authority", r.URL.Host},
			{":path", path}}, more...)}
	}
	add := func(name, shown string, q request, e expectation) {
		probes = append(probes, probe{"http2-" + name, shown, q, e})
	}
	add(controlPublic, publicPath, send(publicPath), expectArrival(fixRoutes))
	add("nobody", signedInPath, send(signedInPath), expectNothing(fixCheck))
	for _, name := range r.Names {
		lower := strings.ToLower(name)
		for _, f := range []struct {
			name  string
			field field
			fix   lines
		}{
			{"spoof", field{lower, "{mark}"}, fixIdentity(name)},
			{"spoof-underscores", field{strings.ReplaceAll(lower, "-", "_"), "{mark}"}, fixAlias(name)},
			{"spoof-upper-case", field{name, "{mark}"}, fixIdentity(name)},
			{"spoof-blank-after-name", field{lower + " ", "{mark}"}, fixAlias(name)},
			{"spoof-colon-in-name", field{lower + ": {mark}", "a"}, fixIdentity(name)},
			{"spoof-line-in-value", field{"x-selftest", "a\r\n" + name + ": {mark}"}, fixIdentity(name)},
			{"spoof-newline-in-value", field{"x-selftest", "a\n" + name + ": {mark}"}, fixIdentity(name)},
			{"spoof-line-in-name", field{"x-selftest: a\r\n" + name, "{mark}"}, fixIdentity(name)},
		} {
			add(f.name, name, send(publicPath, f.field), expectUnmarked(f.fix, true))
		}
	}
	split := " HTTP/1.1\r\nX-Forwarded-User: {mark}\r\nX-Selftest: "
	for _, pseudo := range []field{{":path", publicPath + split}, {":method", "GET " + publicPath + split},
		{":authority", r.URL.Host + "\r\nX-Forwarded-User: {mark}"}, {":scheme", "https\r\nX-Forwarded-User: {mark}"}} {
		q := send(publicPath)
		for i := range q.fields {
			if q.fields[i].name == pseudo.name {
				q.fields[i] = pseudo
			}
		}
		add("line-in-pseudo-header", pseudo.name, q, expectUnmarked(fixIdentity("X-Forwarded-User"), true))
	}
	for _, line := range r.questionSpoofs(publicPath) {
		name, value, _ := strings.Cut(line, ": ")
		add("question-header", line, send(signedInPath, field{strings.ToLower(name), value}),
			expectNothing(fixAsked(name)))
	}
	for _, path := range []string{Area + "/public/../{id}", Area + "/public/..%2f{id}", Area + "/public/%2e%2e/{id}",
		"/" + signedInPath, strings.TrimPrefix(signedInPath, "/"), r.origin() + signedInPath, "*" + signedInPath} {
		add("path", path, send(path), expectNothingUnlessPlain(fixPath))
	}
	twice := send(publicPath)
	twice.fields = append(twice.fields, field{":path", signedInPath})
	add("path-twice", ":path", twice, expectUnsplit)
	add("two-hosts", "host", send(publicPath, field{"host", "{mark}.invalid"}), expectUnmarked(fixHost, true))
	add("cookie-in-pieces", "cookie", send(publicPath, field{"cookie", "app=kept"},
		field{"cookie", "__Host-sallyport={mark}"}), expectCookies)
	add("websocket-foreign-origin", ":protocol", request{fields: []field{{":method", "CONNECT"},
		{":protocol", "websocket"}, {":scheme", r.URL.Scheme}, {":authority", r.URL.Host}, {":path", publicPath},
		{"sec-websocket-version", "13"}, {"origin", "https://{mark}.invalid"}}}, expectNothing(fixUpgrade))
	return probes
}

// application is what an app needs, or must not get, whoever asks.
func (r *run) application() []probe {
	reserved := []string{"__Host-sallyport", "__Secure-sallyport", "__Host-sallyport-flow", "sallyport-dev-80",
		"sallyport-dev-8080-flow", "__host-Sallyport"}
	if name, _, ok := strings.Cut(r.Cookie, "="); ok && !slices.Contains(reserved, name) {
		reserved = append(reserved, name)
	}
	probes := []probe{
		{"host", "Host", get(publicPath), expectHost},
		{"large-cookie", "Cookie", get(publicPath, "Cookie: app="+strings.Repeat("a", 12000)),
			expectArrival(fixBuffers)},
		{"websocket-own-origin", "Upgrade", r.handshake(publicPath, "Origin: "+r.origin()), expectUpgrade},
	}
	for _, name := range reserved {
		probes = append(probes,
			probe{"session-cookie", name, get(publicPath, "Cookie: app=kept; "+name+"={mark}"), expectCookies},
			probe{"session-cookie-own-line", name, get(publicPath, "Cookie: app=kept", "Cookie: "+name+"={mark}"),
				expectCookies})
	}
	return probes
}

// identified are the cases of somebody who is signed in.
func (r *run) identified(seen *arrival) (probes []probe) {
	for _, name := range r.Names {
		for _, s := range []spelling{exact, underscores, doubled, named} {
			lines := s.lines(name, spoofValue(name))
			probes = append(probes, probe{"signed-in-" + s.name, shownLines(lines),
				r.signedIn("GET", signedInPath, lines...), expectSame(seen, fixIdentity(name))})
		}
		probes = append(probes, probe{"signed-in-named-by-connection", name,
			r.signedIn("GET", signedInPath, "Connection: close, "+name), expectSame(seen, fixNamed(name))})
	}
	probes = append(probes, probe{"signed-in-websocket", "Upgrade",
		r.signedInHandshake("Origin: " + r.origin()), expectUpgrade})
	for _, origin := range r.foreignOrigins() {
		probes = append(probes, probe{"signed-in-websocket-foreign-origin", origin,
			r.signedInHandshake(origin), expectNothing(fixUpgrade)})
	}
	return append(probes, probe{"signed-in-two-sessions", "Cookie", get(signedInPath,
		"Cookie: "+r.Cookie+"; "+sessionName(r.Cookie)+"={mark}"), expectNoOther(seen)})
}

func (r *run) signedInHandshake(origin string) request {
	return r.handshake(signedInPath, origin, "Cookie: app=kept; "+r.Cookie)
}

// sessionName is the name of the first cookie of a Cookie header.
func sessionName(cookie string) string {
	name, _, _ := strings.Cut(cookie, "=")
	return name
}
