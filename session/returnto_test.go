package session

import (
	"net/url"
	"strings"
	"testing"
)

const testOrigin, testPrefix = "https://app.example.com", "/.sallyport"

// goesTo is the origin that a browser ends at when a page of testOrigin sends
// it to ref: the URL Standard's parser, as far as it matters for who answers.
func goesTo(ref string) string {
	ref = strings.Trim(ref, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
	ref = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(ref)
	scheme, rest, ok := cutScheme(ref)
	switch {
	case ok && (scheme == "http" || scheme == "https" || scheme == "ws" || scheme == "wss" || scheme == "ftp" ||
		scheme == "file"):
		slashed := strings.ReplaceAll(rest, `\`, "/")
		if scheme == "https" && !strings.HasPrefix(slashed, "//") {
			return testOrigin // "special relative or authority state": https:x is a path
		}
		return scheme + "://" + authority(rest)
	case ok:
		return scheme + ":"
	case strings.HasPrefix(strings.ReplaceAll(ref, `\`, "/"), "//"):
		return "https://" + authority(ref)
	}
	return testOrigin
}

func cutScheme(ref string) (scheme, rest string, ok bool) {
	i := strings.IndexByte(ref, ':')
	if i <= 0 {
		return "", ref, false
	}
	s := strings.ToLower(ref[:i])
	if s[0] < 'a' || s[0] > 'z' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return "", ref, false
	}
	return s, ref[i+1:], true
}

// authority is the host of what follows any number of slashes of either kind.
func authority(rest string) string {
	rest = strings.TrimLeft(rest, `/\`)
	if i := strings.IndexAny(rest, `/\?#`); i >= 0 {
		rest = rest[:i]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if decoded, err := url.PathUnescape(rest); err == nil {
		rest = decoded
	}
	return strings.TrimSuffix(strings.ToLower(rest), ":443")
}

// decodings are what raw becomes for those who decode it once or twice too often.
func decodings(raw string) []string {
	out := []string{raw}
	for range 2 {
		next, err := url.PathUnescape(out[len(out)-1])
		if err != nil {
			break
		}
		out = append(out, next)
	}
	return out
}

// checkReturn fails unless a browser that is sent to ReturnTo(raw) stays.
func checkReturn(t *testing.T, raw string) string {
	t.Helper()
	got := ReturnTo(raw, testOrigin, testPrefix)
	if got == "/" {
		return got
	}
	for _, ref := range []string{got, testOrigin + got} {
		if where := goesTo(ref); where != testOrigin {
			t.Errorf("%q → %q leads to %s", raw, ref, where)
		}
		whole, _, _ := strings.Cut(ref, "#")
		u, err := url.Parse(whole)
		if err != nil || (u.Host != "" && u.Host != "app.example.com") || u.Opaque != "" || u.User != nil {
			t.Errorf("%q → %q: %v", raw, ref, err)
		}
	}
	path := got[:cutPath(got)]
	for _, p := range decodings(path)[:2] { // once: what a reader behind us may do
		if goesTo(p) != testOrigin {
			t.Errorf("%q → path %q, decoded, leads to %s", raw, p, goesTo(p))
		}
		if under(p, testPrefix) && p != testPrefix+"/account" {
			t.Errorf("%q → %q loops", raw, got)
		}
	}
	if len(got) > MaxReturnTo || strings.ContainsAny(got, "\r\n\t\x00 ") || strings.Contains(path, `\`) ||
		(got != raw && testOrigin+got != raw) {
		t.Errorf("%q → %q", raw, got)
	}
	if again := ReturnTo(got, testOrigin, testPrefix); again != got {
		t.Errorf("%q → %q → %q", raw, got, again)
	}
	return got
}

// hostileReturns are the techniques of published open redirects: CVE-2020-5233,
// CVE-2020-11053, CVE-2017-1000070, CVE-2019-14857, CVE-2021-39191,
// CVE-2022-23527, CVE-2021-29456, CVE-2026-28512 and others.
func hostileReturns() []string {
	var out []string
	// Something that a browser, or somebody who decodes once more, takes for "//".
	for _, slashes := range []string{
		"//", "///", "////", `/\`, `\/`, `\\`, `\`, `/\/`, `\/\/`, `//\`, `/\\`,
		"/\t/", "\t//", "/\n/", "/\r\n/", "/\x0b/", "/\x0c/", "/\x00/", "/ /", " //", "\x01//", "\u00a0//", "\u3000//",
		"\ufeff//", "\u200b//",
		"/%09/", "/%0a/", "/%0d/", "/%00/", "/%0b/", "/%5c", "/%5C/", "/%2f", "/%2F/", "%2f%2f", "%2F/", "/%2f%2f",
		"%5c%5c",
		"/.//", "/..//", "/../..//", "/./%2f", "/%2e//", "/%2e%2e//", "/.%2e//", "/%2E%2F/", "/;//", "/.;//", "/a/..//",
		"/a/../../", "/x//../../",
		"//;@", "//@", "//%40", "//x:y@", "/\u2044/", "/\u2215/", "/\uff0f", "\uff0f\uff0f", "\u3002//", "/\u29f8/",
		"//%E3%80%82",
		"https:", "https:/", "https://", "https:///", `https:\\`, `https:/\`, "HTTPS://", "hTtPs:", "http://", "http:",
		"ht\ttps://", "https\n://", " https://", "\x00https://",
		"//google.com/%2f..//", "/https://", "https:%2f%2f", "ftp://", "ws://", "file:///", "data://", "blob:https://",
		"view-source:https://", "javascript://",
		testOrigin + "@", testOrigin + ":pw@", testOrigin + ".", testOrigin + `\@`, testOrigin + ":443@",
		testOrigin + "%00.", testOrigin + "%2f@", testOrigin + "//", testOrigin + `/\`, testOrigin + `\`,
		testOrigin + "\t//", testOrigin + "/%2f",
		testOrigin + testOrigin + "@", "https://app.example.com%40", "https://app.example.com;",
		"https://app.example.comx.", "https://APP.example.com@",
	} {
		out = append(out, slashes+"evil.example", slashes+"evil.example/"+"app.example.com",
			slashes+"evil.example?x="+testOrigin)
	}
	// The owner of the address hidden behind another one.
	out = append(out,
		"https://evil.example#@app.example.com", "https://evil.example?@app.example.com",
		"https://evil.example/@app.example.com", `https://evil.example\@app.example.com`,
		"https://evil.example:443#app.example.com", "//evil.example:80%23@app.example.com/",
		"https://app.example.com:8443/", "https://app.example.com:80/", "http://app.example.com/",
		"https://evilapp.example.com/", "https://app.example.com.evil.example/",
		"https://app.example.com-evil.example/", "https://appXexample.com/", "https://example.com/",
		"https://x.app.example.com/",
		"https://0x7f.1/", "https://2130706433/", "//[::1]/", "//[::ffff:127.0.0.1]/", "https://ⓔⓥⓘⓛ.example/",
		"//evil。example/", "//evil%E3%80%82example", "//xn--evil-.example", "//l\u0130mit",
	)
	// No address of a page at all.
	out = append(out,
		"javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)",
		"\x01javascript:alert(1)", " javascript:alert(1)", "javascript:/*/x/*/alert(1)",
		"javascript://app.example.com/%0aalert(1)", "/javascript:alert(1)\n",
		"data:text/html,<script>alert(1)</script>", "data:text/html;base64,PHNjcmlwdD4=", "vbscript:x", "mailto:a@b",
		"about:blank", "blob:null/1", "intent://x#Intent;end", "x:", ":", "::", "?", "#", "?x", "#x", "", " ", ".",
		"..", "./", "../", "./x", "x", "x/y", "@evil.example", "*", "null", "undefined", "0",
	)
	// More than an address.
	out = append(out,
		"/\r\nSet-Cookie: a=b", "/%0d%0aSet-Cookie:a=b", "/x\r\nLocation: //evil.example", "/x%0d%0a%0d%0a<script>",
		"/x\x00y", "/x%00y", "/x y", "/x\ty", "/é", "/\xff", "/%ff%00", "/x\x7f", "/x%7f", "/%zz", "/%", "/%2",
		"/a%", "/\u202egpj", "/x\u0085y", "/x\u2028y",
		"/"+strings.Repeat("a", MaxReturnTo), "/?"+strings.Repeat("a", 64<<10),
		testOrigin+"/"+strings.Repeat("a", MaxReturnTo), strings.Repeat("/", 64<<10),
		"/"+strings.Repeat("../", 300),
	)
	// Around in circles.
	for _, p := range []string{"", "/", "/login", "/login?return_to=/", "/login/", "/logout", "/logout?x",
		"/callback/google?code=x&state=y", "/callback/", "/session", "/renew", "/handoff", "/connect/slack",
		"/account/", "/account/x", "/accountx", "/./account", "/../.sallyport/logout", "/%6cogout", "/logou%74"} {
		out = append(out, testPrefix+p, testOrigin+testPrefix+p, "/%2esallyport"+p, "/.sallypor%74"+p,
			"/%2E%73allyport"+p, "/."+testPrefix+p, "/x/.."+testPrefix+p, "/"+testPrefix+p, "/%2e"+testPrefix+p,
			"/.%2fsallyport"+p)
	}
	return out
}

func TestP05_HostileReturnAddressesStayHere(t *testing.T) {
	list := hostileReturns()
	if len(list) < 150 {
		t.Fatalf("only %d", len(list))
	}
	t.Logf("%d addresses", len(list))
	for _, raw := range list {
		got := checkReturn(t, raw)
		// What a browser takes elsewhere as it stands must not come back at all.
		for _, d := range decodings(raw) {
			if goesTo(d) != testOrigin && got != "/" && !strings.HasPrefix(raw, testOrigin+"/") {
				t.Errorf("%q, which somebody reads as %s, → %q", raw, goesTo(d), got)
			}
		}
	}
}

// These are turned away altogether, not merely kept on the origin.
func TestP05_HostileReturnAddressesBecomeTheFrontPage(t *testing.T) {
	for _, raw := range []string{
		"//evil.example", `/\evil.example`, `\\evil.example`, "/\t/evil.example", "/%09/evil.example",
		"/%5cevil.example", "/%2fevil.example/%2f..//", "/.//evil.example", "/..//evil.example",
		"/%2e%2e//evil.example",
		"https://evil.example", "https:evil.example", testOrigin + "@evil.example", testOrigin + ".evil.example",
		testOrigin + "//evil.example", "http://app.example.com/", "javascript:alert(1)",
		testPrefix, testPrefix + "/login", testPrefix + "/logout", testOrigin + testPrefix + "/logout",
		"/.sallypor%74/logout", "/%2esallyport/login", testPrefix + "/account/x", "/%zz", "/a/../b", "/a/./b",
		"/a%2F..%2Fb", "/a%5C..%5Cb", "/a%2F%2e/b", `/a\b`, "/a?x y", "/a?x\ty", "/a?x=\x7f", "x", "",
	} {
		if got := ReturnTo(raw, testOrigin, testPrefix); got != "/" {
			t.Errorf("%q → %q", raw, got)
		}
	}
}

func TestDeepLinksSurviveByteForByte(t *testing.T) {
	for _, raw := range []string{
		"/", "/a", "/a/", "/a/b/c.html", "/a?b=c", "/a/?b=c&d=e", "/?x", "/#/route", "/#x", "/a?b#c", "/?",
		"/a?next=https://evil.example//x", "/search?q=%2F%2Fevil&r=a+b", "/a?x=%0d%0a", "/a?../..//x", "/a?b=c?d",
		"/a#b#c", "/a#//x/../y", `/a?x=\y`, `/a?\\evil.example`, `/a#\`, "/a?q=h\u00f6he&r=\u65e5\u672c",
		"/a?q=h\xf6he", "/h\u00f6he", "/?q=100%",
		"/a/%2F/b", "/a/%2f", "/a%2F%2Fb", "/files/%5C/x", "/a//b", "/a//", "/%68%F6he", "/?;&==&",
		`/a?q="<x>|{}^` + "`",
		"/caf%C3%A9/%E2%82%AC", "/a%20b", "/a%2fb", "/100%25", "/a;b=1/c", "/a:b@c", "/~me/", "/.well-known/x",
		"/..a/b..", "/...", "/a.b/", "/-", "/!$&'()*+,;=:@",
		"/.sallyport/account", "/.sallyportx/login", "/x/.sallyport/login", "/.Sallyport", "/sallyport/login",
		"/" + strings.Repeat("a", MaxReturnTo-1),
	} {
		if got := checkReturn(t, raw); got != raw {
			t.Errorf("%q → %q", raw, got)
		}
		if got := ReturnTo(testOrigin+raw, testOrigin, testPrefix); got != raw {
			t.Errorf("with the origin %q → %q", raw, got)
		}
	}
}

// The oracle is only worth something if it knows the way out.
func TestOracleRecognisesAddressesOfOtherSites(t *testing.T) {
	for ref, want := range map[string]string{
		"//evil.example": "https://evil.example", `/\evil.example/x`: "https://evil.example",
		"/\t/evil.example": "https://evil.example", " \x01//evil.example": "https://evil.example",
		"https:evil": testOrigin, "http:evil.example": "http://evil.example",
		`https:\\evil.example`: "https://evil.example", "javascript:x": "javascript:",
		"java\nscript:x":             "javascript:",
		testOrigin + "@evil.example": "https://evil.example", testOrigin + `\@evil.example`: testOrigin,
		"https://evil.example#@app.example.com": "https://evil.example", testOrigin + ":443/x": testOrigin,
		"/a": testOrigin, "a:b/c": "a:", "/a:b": testOrigin, "?x": testOrigin, "": testOrigin,
		"https://app.example.com.evil/": "https://app.example.com.evil",
	} {
		if got := goesTo(ref); got != want {
			t.Errorf("%q: %s, want %s", ref, got, want)
		}
	}
}

func FuzzReturnTo(f *testing.F) {
	for _, raw := range hostileReturns() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) { checkReturn(t, raw) })
}
