package identity

import (
	"maps"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
	"weak"
)

func alice() *Identity {
	return &Identity{
		Provider: "google", Subject: "1101", Email: "alice@acme.test", EmailVerified: true, Name: "Alice",
		Username: "al",
		Groups:   []string{"oncall", "eng"}, Org: Org{ID: "acme", Name: "Acme", Domain: "acme.test", Source: "config"},
	}
}

func mustSet(t testing.TB, h *Headers, fields ...Field) HeaderSet {
	t.Helper()
	s, err := h.Set(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// one is the value that a single field writes for id; "" if the header is absent.
func one(t testing.TB, f Field, id *Identity) string {
	t.Helper()
	out := http.Header{}
	mustSet(t, NewHeaders(), f).Render(id).Set(out)
	if len(out) > 1 {
		t.Fatalf("wrote %v", out)
	}
	for _, v := range out {
		if len(v) != 1 {
			t.Fatalf("wrote %q", v)
		}
		return v[0]
	}
	return ""
}

func TestP02_PresetsSetAndStripTheirHeaders(t *testing.T) {
	forwarded := map[string]string{
		"User": "google:1101", "Email": "alice@acme.test", "Preferred-Username": "al", "Name": "Alice",
		"Groups": "oncall,eng",
		"Org-Id": "acme", "Org-Name": "Acme", "Org-Domain": "acme.test",
	}
	prefixed := func(prefix string) map[string]string {
		out := map[string]string{}
		for k, v := range forwarded {
			out[prefix+k] = v
		}
		return out
	}
	want := map[string]map[string]string{
		PresetForwarded:   prefixed("X-Forwarded-"),
		PresetAuthRequest: prefixed("X-Auth-Request-"),
		PresetRemote: {"Remote-User": "google:1101", "Remote-Email": "alice@acme.test", "Remote-Name": "Alice",
			"Remote-Groups": "oncall,eng"},
		PresetGrafana: {"X-Webauth-User": "google:1101", "X-Webauth-Email": "alice@acme.test", "X-Webauth-Name": "Alice",
			"X-Webauth-Groups": "oncall,eng"},
		PresetJenkins: {"X-Forwarded-User": "google:1101", "X-Forwarded-Mail": "alice@acme.test",
			"X-Forwarded-Displayname": "Alice", "X-Forwarded-Groups": "oncall|eng"},
		PresetSonarQube: {"X-Forwarded-Login": "alice@acme.test", "X-Forwarded-Email": "alice@acme.test",
			"X-Forwarded-Name": "Alice", "X-Forwarded-Groups": "oncall,eng"},
		PresetGitea:    {"X-Webauth-User": "al", "X-Webauth-Email": "alice@acme.test", "X-Webauth-Fullname": "Alice"},
		PresetRadicale: {"X-Remote-User": "google:1101"},
		PresetNone:     {},
	}
	if len(want) != len(Presets()) {
		t.Errorf("presets %q", Presets())
	}
	for _, name := range Presets() {
		fields, ok := Preset(name)
		if !ok {
			t.Fatal(name)
		}
		h := NewHeaders()
		out := http.Header{}
		mustSet(t, h, fields...).Render(alice()).Set(out)
		got := map[string]string{}
		for k, v := range out {
			got[k] = strings.Join(v, "\x00")
		}
		if !maps.Equal(got, want[name]) {
			t.Errorf("%s: %v", name, got)
		}
		// Every preset's names go, also where another preset is in use.
		if NewHeaders().Strip(out); len(out) != 0 {
			t.Errorf("%s: left %v", name, out)
		}
	}
	if _, ok := Preset("Forwarded"); ok {
		t.Error("a preset nobody defined")
	}
}

// spellings are all mixes of '-', '_' and '.' between the parts of a name.
func spellings(name, marks string) []string {
	parts := strings.Split(name, "-")
	out := []string{parts[0]}
	for _, p := range parts[1:] {
		var next []string
		for _, o := range out {
			for _, m := range marks {
				next = append(next, o+string(m)+p)
			}
		}
		out = next
	}
	return out
}

// oauth2-proxy CVE-2025-64484: X-Forwarded_User survived. Caddy CVE-2026-52845:
// Remote_User, then Remote.User and Remote_.User. Traefik CVE-2026-39858,
// -33433 and -54763: aliases of configured names. lighttpd reads every mark as
// an underscore.
func TestP02_EverySpellingOfAnIdentityHeaderIsStripped(t *testing.T) {
	h := NewHeaders()
	mustSet(t, h, Field{Header: "x-fwd-user", Claim: ClaimUser}, Field{Header: "X_Fwd.Team", Claim: ClaimGroups},
		Field{Header: "WhoIsIt", Claim: ClaimName})
	names := []string{"x-fwd-user", "x-fwd-team", "whoisit", "x-sallyport-assertion", "x-webauth-user", "x-remote-user",
		"ssl-client-cert", "x-real-ip", "cf-access-jwt-assertion"}
	for _, preset := range Presets() {
		fields, _ := Preset(preset)
		for _, f := range fields {
			names = append(names, f.Header)
		}
	}
	tried := 0
	for _, name := range names {
		all := spellings(name, "-_.+")
		for _, mark := range "!~|`^'*&%$#" {
			all = append(all, strings.ReplaceAll(name, "-", string(mark)))
		}
		for _, s := range all {
			for _, c := range []string{s, strings.ToLower(s), strings.ToUpper(s), textproto.CanonicalMIMEHeaderKey(s),
				swapCase(s)} {
				in := http.Header{c: {"mallory"}, "Accept": {"*/*"}}
				h.Strip(in)
				if tried++; len(in) != 1 || in["Accept"] == nil {
					t.Fatalf("%q survived: %v", c, in)
				}
			}
		}
	}
	t.Logf("%d spellings", tried)
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, s)
}

// What proxies tell each other about a request is for us to set; a client's own
// values are removed (RFC 9700 §4.13).
func TestP02_HeadersOnlyAProxyMayWriteAreStripped(t *testing.T) {
	h := NewHeaders()
	for _, name := range []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix",
		"X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Ssl", "X-Forwarded-Server", "X-Forwarded-Access-Token",
		"X-Forwarded-Anything-At-All", "X-Forwarded-",
		"X_Forwarded_Access_Token", "X-Forwarded_Client.Cert", "x.forwarded.for",
		"X-Original-Url", "X-Original-Uri", "X-Original-Method", "X-Rewrite-Url", "X_Rewrite_URL",
		"X-Envoy-Original-Path", "X-Envoy-External-Address", "X-Auth-Request-Access-Token", "X-Sallyport-Debug",
		"Remote-Addr", "Remote_User", "REMOTE.USER",
		"Forwarded", "forwarded", "X-Real-Ip", "X-Real-IP", "X_REAL_IP", "True-Client-Ip", "Proxy", "PROXY",
		"Cf-Connecting-Ip", "Cf-Access-Jwt-Assertion", "X-Webauth-User", "X-Remote-User", "X-Remote-Groups",
		"Ssl-Client-Cert", "Client-Cert", "Client-Cert-Chain", AssertionHeader,
	} {
		in := http.Header{name: {"a", "b"}}
		if h.Strip(in); len(in) != 0 {
			t.Errorf("%q survived", name)
		}
	}
}

func TestStripLeavesAllOthersAlone(t *testing.T) {
	h := NewHeaders()
	mustSet(t, h, Field{Header: "X-User", Claim: ClaimUser})
	in := http.Header{}
	for _, name := range []string{
		"Accept", "Cookie", "Authorization", "User-Agent", "Host", "X-Forwardedfor", "Xforwarded-For", "X-Forward-For",
		"Forwarded-For", "X-Originalurl", "Remote", "Remoteuser", "Proxy-Authorization", "Proxyx", "X-Users",
		"X-User-Agent", "X-Use", "Xuser", "X-Real-Ipx", "X-Real-I", "Sec-Fetch-Site", "X-Request-Id",
		"Traceparent", "X-Team", "", "-", "X-" + strings.Repeat("y", 300),
	} {
		in[name] = []string{"1", "2"}
	}
	want := in.Clone()
	h.Strip(in)
	if !maps.EqualFunc(in, want, func(a, b []string) bool { return slices.Equal(a, b) }) {
		t.Errorf("changed to %v", in)
	}
}

// What one route sets is stripped on all of them: the list is one.
func TestP02_NamesOfEveryRouteAreStrippedOnEveryRoute(t *testing.T) {
	h := NewHeaders()
	a := mustSet(t, h, Field{Header: "X-A", Claim: ClaimUser})
	mustSet(t, h, Field{Header: "X-B", Claim: ClaimUser})
	in := http.Header{"X-A": {"mallory"}, "X-B": {"mallory"}, "X_b": {"mallory"}}
	h.Strip(in)
	a.Render(alice()).Set(in)
	if len(in) != 1 || in.Get("X-A") != "google:1101" {
		t.Errorf("%v", in)
	}
}

// Caddy CVE-2026-30851: a person without groups kept the client's own header.
func TestP02_AbsentFactLeavesNoHeader(t *testing.T) {
	fields, _ := Preset(PresetForwarded)
	h := NewHeaders()
	set := mustSet(t, h, fields...)
	in := http.Header{}
	for _, f := range fields {
		in[f.Header] = []string{"admin"}
	}
	h.Strip(in)
	set.Render(&Identity{Provider: "p", Subject: "s", GroupsUnknown: true}).Set(in)
	if len(in) != 1 || in.Get("X-Forwarded-User") != "p:s" {
		t.Errorf("%v", in)
	}
}

func TestP02_UnverifiedEmailNeverLeaves(t *testing.T) {
	id := alice()
	id.EmailVerified = false
	for _, preset := range Presets() {
		fields, _ := Preset(preset)
		out := http.Header{}
		mustSet(t, NewHeaders(), fields...).Render(id).Set(out)
		for name, v := range out {
			if strings.Contains(v[0], "@") {
				t.Errorf("%s: %q", name, v)
			}
		}
	}
}

func TestClaimsReachTheirHeaders(t *testing.T) {
	want := map[Claim]string{
		ClaimUser: "google:1101", ClaimSubject: "1101", ClaimProvider: "google", ClaimEmail: "alice@acme.test",
		ClaimUsername: "al", ClaimName: "Alice",
		ClaimGroups: "oncall,eng", ClaimOrgID: "acme", ClaimOrgName: "Acme", ClaimOrgDomain: "acme.test",
	}
	for _, c := range Claims() {
		f := Field{Header: "X-Value", Claim: c}
		if got := one(t, f, alice()); got != want[c] || got == "" {
			t.Errorf("%s: %q", c, got)
		}
	}
}

func TestP15_HeadersThatCannotCarryAnIdentityAreRefused(t *testing.T) {
	ok := Field{Header: "X-User", Claim: ClaimUser}
	with := func(change func(*Field)) []Field {
		f := ok
		change(&f)
		return []Field{f}
	}
	name := func(n string) []Field { return with(func(f *Field) { f.Header = n }) }
	bad := map[string][]Field{
		"unknown claim":       with(func(f *Field) { f.Claim = "token" }),
		"no claim":            with(func(f *Field) { f.Claim = "" }),
		"claim in other case": with(func(f *Field) { f.Claim = "Email" }),
		"unknown encoding":    with(func(f *Field) { f.Encoding = "latin1" }),
		"join of two":         with(func(f *Field) { f.Join = ", " }),
		"join by a letter":    with(func(f *Field) { f.Join = "a" }),
		"join by %":           with(func(f *Field) { f.Join = "%" }),
		"join by a line":      with(func(f *Field) { f.Join = "\n" }),
		"join by =":           with(func(f *Field) { f.Join = "=" }),
		"words joined by ' '": with(func(f *Field) { f.Join, f.Encoding = " ", EncodeRFC2047 }),
		"same name":           {ok, ok},
		"same, other case":    {ok, {Header: "x-uSER", Claim: ClaimName}},
		"same, underscore":    {ok, {Header: "X_User", Claim: ClaimName}},
		"same, dot":           {ok, {Header: "X.User", Claim: ClaimName}},
		"same, plus":          {ok, {Header: "X+User", Claim: ClaimName}},
	}
	for _, n := range []string{"", " ", "X User", "X-User:", "X-User\r\n", "X-Üser", "X(User)", "X/User", "\"X\"",
		":path", "X\x00"} {
		bad["name "+n] = name(n)
	}
	for _, n := range []string{
		"Host", "Connection", "Content-Length", "Content-Type", "Transfer-Encoding", "TE", "Trailer", "Upgrade",
		"Keep-Alive", "Proxy-Authorization", "Cookie", "Set-Cookie", "Authorization", "Expect",
		"Via", "Forwarded", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Proxy",
		AssertionHeader, "Accept-Encoding", "Origin", "Referer",
		"X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Prefix",
		"X-Http-Method-Override",
	} {
		for _, s := range []string{n, strings.ToLower(n), strings.ToUpper(n), strings.ReplaceAll(n, "-", "_"),
			strings.ReplaceAll(n, "-", ".")} {
			bad["reserved "+s] = name(s)
		}
	}
	for what, fields := range bad {
		h := NewHeaders()
		if _, err := h.Set(fields); err == nil {
			t.Errorf("%s is accepted", what)
		}
		if !reflect.DeepEqual(h, NewHeaders()) {
			t.Errorf("%s changed the list", what)
		}
	}
	for _, fields := range [][]Field{nil, {ok}, name("Remote-User"), name("X-Webauth-User"), name("whoami"),
		name("x_user"), {ok, {Header: "X-Users", Claim: ClaimGroups, Join: " ", Encoding: EncodeUTF8}}} {
		if _, err := NewHeaders().Set(fields); err != nil {
			t.Errorf("%v: %v", fields, err)
		}
	}
}

// splitGroups is how an app reads a joined list.
func splitGroups(t *testing.T, f Field, v string) []string {
	t.Helper()
	var out []string
	for part := range strings.SplitSeq(v, f.Join) {
		g, err := url.PathUnescape(part)
		if f.Encoding == EncodeRFC2047 {
			g, err = new(mime.WordDecoder).DecodeHeader(part)
		}
		if err != nil {
			t.Fatalf("%q: %v", part, err)
		}
		out = append(out, g)
	}
	return out
}

var hardGroups = []string{
	"admin", "a,admin", "a|admin", "a;admin", "a admin", ",", "|", ";", " ", ",,", " admin ", "admin ", "\tadmin",
	"a%2Cadmin", "a%2cadmin", "%", "%%", "%25", "100%", "a%,b", "é,admin", "é|x", "José", "😀;😀",
	"=?utf-8?b?YWRtaW4=?=", "=?utf-8?q?a=2Cadmin?=", "x =?utf-8?q?a?=", "?=", "a=?b", "a\nadmin", "a\r\nX: y", "a\x00b",
	"\x7f", "a\u0085b", "a\u2028b", "a\u2029b", "a, b", "\u00a0", "\ufeffx", "a\\,b", `"a,b"`,
}

// A group called "a,admin" must not make its members admins.
func TestP02_GroupNeverBecomesTwo(t *testing.T) {
	for _, enc := range Encodings() {
		for _, join := range Joins() {
			if enc == EncodeRFC2047 && join == " " {
				continue
			}
			f := Field{Header: "X-Groups", Claim: ClaimGroups, Join: join, Encoding: enc}
			for i, g := range hardGroups {
				for _, groups := range [][]string{{g}, {g, "other"}, {"other", g}, {g, g},
					{g, hardGroups[(i+7)%len(hardGroups)]}} {
					v := one(t, f, &Identity{Groups: groups})
					if got := splitGroups(t, f, v); !slices.Equal(got, groups) {
						t.Errorf("%s, joined by %q: %q came as %q = %q", enc, join, groups, v, got)
					}
					checkValue(t, enc, v)
				}
			}
		}
	}
	f := Field{Header: "X-Groups", Claim: ClaimGroups}
	for _, tc := range []struct {
		enc  Encoding
		want string
	}{{EncodePercent, "a%2Cadmin,Jos%C3%A9,50%25"}, {EncodeUTF8, "a%2Cadmin,José,50%25"},
		{EncodeRFC2047, "=?utf-8?b?YSxhZG1pbg==?=,=?utf-8?b?Sm9zw6k=?=,=?utf-8?b?NTAl?="}} {
		f.Encoding = tc.enc
		if got := one(t, f, &Identity{Groups: []string{"a,admin", "José", "50%"}}); got != tc.want {
			t.Errorf("%s: %q", tc.enc, got)
		}
	}
}

// An empty group is no group (oauth2-proxy #3365).
func TestP02_EmptyGroupIsNoGroup(t *testing.T) {
	for _, join := range Joins() {
		f := Field{Header: "X-Groups", Claim: ClaimGroups, Join: join}
		for want, groups := range map[string][]string{"": {"", ""}, "a": {"a", ""}, "b": {"", "b"},
			"a" + join + "b": {"", "a", "", "b", ""}} {
			if got := one(t, f, &Identity{Groups: groups}); got != want {
				t.Errorf("%q joined by %q: %q", groups, join, got)
			}
		}
	}
}

// checkValue fails unless v is one line that every hop passes on as it is.
func checkValue(t *testing.T, enc Encoding, v string) {
	t.Helper()
	if v != strings.Trim(v, " \t") {
		t.Errorf("%s: blanks at the ends of %q", enc, v)
	}
	if enc == EncodeUTF8 {
		if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool {
			return r < 0x20 || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029'
		}) {
			t.Errorf("%s: %q", enc, v)
		}
		return
	}
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			t.Errorf("%s: byte %#x in %q", enc, v[i], v)
			return
		}
	}
}

// Values that end the line or break the check that reads it: Envoy CVE-2023-27488
// and CVE-2023-27493.
func TestP02_ValueIsAlwaysOneLine(t *testing.T) {
	long := strings.Repeat("ü", 4<<10)
	for _, v := range append(slices.Clone(hardGroups), "a\rb", "a\nb", "\r\n\r\nbody", "\x1b[31m", "\v\f",
		"a\u0085X-Admin: 1", "a\u2028X: y", "\xff\xfe", "ok\xc3", "\xc0\xaf", "\xed\xa0\x80", "a,\xff", "50%\xff",
		"é\x00,", " lead", "trail ", "\u0080\u009f", "a\xc2", long) {
		for _, enc := range Encodings() {
			for _, c := range []Claim{ClaimName, ClaimUser, ClaimGroups, ClaimOrgName} {
				id := &Identity{Provider: "p", Subject: v, Name: v, Groups: []string{v, "x"}, Org: Org{Name: v}}
				got := one(t, Field{Header: "X-Value", Claim: c, Encoding: enc}, id)
				if got == "" {
					t.Errorf("%s %s: %q is lost", enc, c, v)
				}
				checkValue(t, enc, got)
			}
		}
	}
}

func TestValuesCanBeReadBack(t *testing.T) {
	for _, v := range []string{"Alice", "José", "100 % Käse, bitte", "=?utf-8?q?x?=", " x ", "a=b?c", "\u2028", "😀",
		"a\nb", "%41", strings.Repeat("é", 200)} {
		percent := one(t, Field{Header: "X-V", Claim: ClaimName}, &Identity{Name: v})
		if got, err := url.PathUnescape(percent); err != nil || got != v {
			t.Errorf("percent: %q → %q → %q", v, percent, got)
		}
		words := one(t, Field{Header: "X-V", Claim: ClaimName, Encoding: EncodeRFC2047}, &Identity{Name: v})
		if got, err := new(mime.WordDecoder).DecodeHeader(words); err != nil || got != v {
			t.Errorf("rfc2047: %q → %q → %q", v, words, got)
		}
	}
	// The whole point of utf8: what can stand, stands.
	for _, v := range []string{"Alice", "José", "100 % Käse", "日本語 😀"} {
		if got := one(t, Field{Header: "X-V", Claim: ClaimName, Encoding: EncodeUTF8}, &Identity{Name: v}); got != v {
			t.Errorf("utf8: %q → %q", v, got)
		}
	}
}

// Whatever reaches a claim, net/http sends it: a header it refuses would be a
// 502 that its owner can cause at will.
func TestP02_NetHTTPSendsEveryValue(t *testing.T) {
	for _, enc := range Encodings() {
		for _, v := range hardGroups {
			var b strings.Builder
			h := http.Header{"X-V": {one(t, Field{Header: "X-V", Claim: ClaimName, Encoding: enc}, &Identity{Name: v})}}
			if err := h.Write(&b); err != nil || strings.Count(b.String(), "\n") != 1 ||
				b.String() != "X-V: "+h["X-V"][0]+"\r\n" {
				t.Errorf("%s: %q was sent as %q", enc, v, b.String())
			}
		}
	}
}

func FuzzEncode(f *testing.F) {
	for _, v := range hardGroups {
		f.Add(v, "other", 0, 0)
		f.Add("x", v, 1, 1)
		f.Add(v, v, 2, 2)
	}
	f.Fuzz(func(t *testing.T, a, b string, enc, join int) {
		fd := Field{Header: "X-V", Encoding: Encodings()[uint(enc)%3], Join: Joins()[uint(join)%4]}
		if fd.Encoding == EncodeRFC2047 && fd.Join == " " {
			t.Skip()
		}
		fd.Claim = ClaimName
		v := one(t, fd, &Identity{Name: a})
		checkValue(t, fd.Encoding, v)
		if (v == "") != (a == "") {
			t.Errorf("%q → %q", a, v)
		}
		fd.Claim = ClaimGroups
		v = one(t, fd, &Identity{Groups: []string{a, b}})
		checkValue(t, fd.Encoding, v)
		want := slices.DeleteFunc([]string{a, b}, func(g string) bool { return g == "" })
		if n := strings.Count(v, fd.Join); n != max(len(want)-1, 0) {
			t.Errorf("%d groups, %d separators: %q", len(want), n, v)
		}
		if len(want) > 0 && utf8.ValidString(a) && utf8.ValidString(b) {
			if got := splitGroups(t, fd, v); !slices.Equal(got, want) {
				t.Errorf("%q → %q → %q", want, v, got)
			}
		}
	})
}

func FuzzStrip(f *testing.F) {
	for _, name := range []string{"X-Forwarded_User", "remote.user", "X-Forwarded", "x-forwarded-", "Content_Length",
		"Proxy", "Forwarde", "", "\xff"} {
		f.Add(name)
	}
	h := NewHeaders()
	mustSet(f, h, Field{Header: "X_Own", Claim: ClaimUser})
	f.Fuzz(func(t *testing.T, name string) {
		in := http.Header{name: {"x"}}
		h.Strip(in)
		// As lighttpd and its like name it in the environment.
		cgi := strings.Map(func(r rune) rune {
			if 'a' <= r && r <= 'z' {
				return r - 'a' + 'A'
			}
			if 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
				return r
			}
			return '_'
		}, name)
		if len(in) == 1 && (strings.HasPrefix(cgi, "X_FORWARDED_") || cgi == "REMOTE_USER" || cgi == "X_REMOTE_USER") {
			t.Errorf("%q survived", name)
		}
		if stripped := len(in) == 0; stripped != stripsSlowly(name, "x-own") {
			t.Errorf("%q is stripped: %v", name, stripped)
		}
	})
}

// stripsSlowly is the rule as it is written down, without regard for time.
func stripsSlowly(name string, own ...string) bool {
	folded := fold(name)
	if slices.Contains(own, folded) || slices.Contains(reserved[:], folded) && isAlias(name) {
		return true
	}
	for _, p := range Presets() {
		fields, _ := Preset(p)
		if slices.ContainsFunc(fields, func(f Field) bool { return fold(f.Header) == folded }) {
			return true
		}
	}
	return slices.ContainsFunc(slices.Concat(alwaysStripped[:], othersHeaders[:], overrides[:]), func(n string) bool {
		begin, more := strings.CutSuffix(n, "*")
		return folded == begin || more && strings.HasPrefix(folded, begin)
	})
}

func browserHeader() http.Header {
	h := http.Header{}
	for _, n := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Cookie",
		"Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User", "Upgrade-Insecure-Requests",
		"User-Agent", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "X-Forwarded-For", "Priority"} {
		h.Set(n, "value")
	}
	return h
}

func TestStripAllocatesNothing(t *testing.T) {
	h, in := NewHeaders(), browserHeader()
	if n := testing.AllocsPerRun(100, func() { h.Strip(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStrip(b *testing.B) {
	h, in := NewHeaders(), browserHeader()
	b.ReportAllocs()
	for b.Loop() {
		in["X-Forwarded-For"] = nil
		h.Strip(in)
	}
}

// What all requests of a session share is written for each of them anew.
func TestRenderedHeadersAreThePersonsOnEveryRequest(t *testing.T) {
	fields, _ := Preset(PresetForwarded)
	set := mustSet(t, NewHeaders(), fields...)
	want := http.Header{}
	set.Render(alice()).Set(want)
	if len(want) != 8 {
		t.Fatalf("%v", want)
	}
	id := alice()
	rendered := set.Render(id)
	id.Subject, id.Groups[0] = "somebody else", "admin" // it was Alice who was rendered
	a, b := http.Header{}, http.Header{}
	for _, out := range []http.Header{a, b, {}} {
		rendered.Set(out)
		if !reflect.DeepEqual(out, want) {
			t.Errorf("got %v, want %v", out, want)
		}
	}
	// What may happen to the headers of one request must not show in another.
	a.Add("X-Forwarded-User", "a")
	b.Add("X-Forwarded-User", "b")
	a.Set("X-Forwarded-Name", "a")
	if !slices.Equal(a["X-Forwarded-User"], []string{"google:1101", "a"}) || b.Get("X-Forwarded-Name") != "Alice" {
		t.Errorf("%v and %v", a, b)
	}
}

func TestSettingRenderedHeadersAllocatesNothing(t *testing.T) {
	fields, _ := Preset(PresetForwarded)
	rendered, out := mustSet(t, NewHeaders(), fields...).Render(alice()), http.Header{}
	rendered.Set(out)
	if n := testing.AllocsPerRun(100, func() { rendered.Set(out) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	values := 0
	for _, v := range out {
		values += len(v[0])
	}
	if size := rendered.Size(); size < values+8*72 || size > values+8*100 {
		t.Errorf("%d bytes of values in %d", values, size)
	}
}

func BenchmarkRenderedSet(b *testing.B) {
	fields, _ := Preset(PresetForwarded)
	rendered, out := mustSet(b, NewHeaders(), fields...).Render(alice()), http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		rendered.Set(out)
	}
}

func BenchmarkRender(b *testing.B) {
	fields, _ := Preset(PresetForwarded)
	set, id := mustSet(b, NewHeaders(), fields...), alice()
	b.ReportAllocs()
	for b.Loop() {
		_ = set.Render(id)
	}
}

// TestP02_AliasesOfFramingHeadersAreStripped: a CGI or WSGI server behind us
// reads Content_Length as CONTENT_LENGTH, and may believe it.
func TestP02_AliasesOfFramingHeadersAreStripped(t *testing.T) {
	in := http.Header{}
	for _, name := range []string{"Content_length", "Transfer_encoding", "X_request.id", "Cookie", "Content-Length",
		"Transfer-Encoding", "Host_", "X_custom", "Content.type"} {
		in[name] = []string{"1"}
	}
	NewHeaders().Strip(in)
	if got, want := slices.Sorted(maps.Keys(in)), []string{"Content-Length", "Cookie", "Host_", "Transfer-Encoding", "X_custom"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

// What is rendered is kept for long, and counted by its Size: it must not hold
// on to the session that its values were cut from.
func TestP17_RenderedHeadersKeepNothingElse(t *testing.T) {
	session := strings.Repeat("x", 1<<20) + "ann"
	fields, _ := Preset(PresetForwarded)
	set := mustSet(t, NewHeaders(), fields...)
	r := set.Render(&Identity{Provider: "a", Subject: "b", Name: session[1<<20:]})
	whole := weak.Make(unsafe.StringData(session))
	runtime.GC()
	if whole.Value() != nil {
		t.Error("the whole session is kept")
	}
	runtime.KeepAlive(r)
}

// A front door that cannot remove a header asks for it by name.
func TestP03_MethodOverridesAreKnownInEverySpelling(t *testing.T) {
	h := NewHeaders()
	kept, err := h.Keep([]string{"X-HTTP-Method-Override", "X-Method-Override", "Destination", "X-Auth-User"})
	if err != nil {
		t.Fatal(err)
	}
	without := kept.WithoutOverrides()
	for name, is := range map[string]bool{"X-Http-Method-Override": true, "X-Http-Method": true,
		"x_http.method_OVERRIDE": true, "X-Method!Override": true, "X-Http-Methods": false, "X-Http": false, "": false,
		"Destination": false, "Method": false} {
		if got := IsMethodOverride(name); got != is {
			t.Errorf("%q: %v", name, got)
		}
		in := http.Header{name: {"DELETE"}}
		if h.StripBut(in, without.From(true)); is && len(in) > 0 {
			t.Errorf("%q passes where none is kept", name)
		}
	}
	if got := without.From(true); len(got) != 2 || len(kept.From(true)) != 4 || !without.NeedFront() {
		t.Errorf("kept %q", got)
	}
}
