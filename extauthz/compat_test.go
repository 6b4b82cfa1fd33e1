package extauthz

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/authz"
	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// compatReader is a Door for set-ups made for oauth2-proxy, as far as questions are read.
func compatReader(tb testing.TB) *Door {
	tb.Helper()
	d := reader(tb)
	set, err := d.headers.Set(CompatFields(1))
	testenv.Check(tb, err)
	d.compat = &set
	var routes []authz.Route
	for name, host := range map[string]string{"app": "app.example.com", "wiki": "wiki.example.com"} {
		routes = append(routes, authz.Route{Name: name, Host: host, Path: "/",
			Access: authz.Access{Authenticated: true}})
	}
	routes = append(routes, authz.Route{Name: "open", Host: "open.example.com", Path: "/",
		Access: authz.Access{Public: true}})
	table, err := authz.NewTable(routes)
	testenv.Check(tb, err)
	public, err := url.Parse("https://app.example.com:8443")
	testenv.Check(tb, err)
	d.signIn, err = newSignIn(public, "/.sallyport", table)
	testenv.Check(tb, err)
	return d
}

// The ways in which set-ups of strangers tell which address is asked for: those of
// oauth2-proxy's documentation, of ingress-nginx's annotations, of Traefik and of Caddy.
func TestSetUpsMadeForOAuth2ProxyAreUnderstood(t *testing.T) {
	d := compatReader(t)
	for name, lines := range map[string][]string{
		"nginx": {"Host: app.example.com", "X-Real-IP: 192.0.2.9", "X-Forwarded-Uri: /x?a,b"},
		"nginx, before": {"Host: app.example.com", "X-Real-IP: 192.0.2.9", "X-Scheme: https", "X-Original-URI: /x?a,b",
			"X-Forwarded-For: 203.0.113.1"},
		"ingress-nginx": {"Host: sallyport.auth.svc.cluster.local",
			"X-Original-URL: https://app.example.com:8443/x?a,b",
			"X-Original-Method: GET", "X-Sent-From: nginx-ingress-controller", "X-Real-IP: 192.0.2.9",
			"X-Forwarded-For: 192.0.2.9", "X-Auth-Request-Redirect: /x?a,b"},
		"ingress-nginx with auth-method": {"Host: sallyport.auth.svc.cluster.local", "X-Original-Method: GET",
			"X-Original-URL: https://app.example.com/x?a,b", "X-Original-URI: /x?a,b", "X-Real-IP: 192.0.2.9"},
		"ingress-nginx by its own ingress": {"Host: wiki.example.com", "X-Original-URL: https://app.example.com/x?a,b",
			"X-Original-Method: GET", "X-Real-IP: 192.0.2.9", "X-Forwarded-Host: wiki.example.com",
			"X-Forwarded-Proto: https", "X-Scheme: https"},
		"Traefik": {"Host: sallyport:4182", "X-Forwarded-Method: GET", "X-Forwarded-Proto: https",
			"X-Forwarded-Host: app.example.com", "X-Forwarded-Uri: /x?a,b", "X-Real-Ip: 192.0.2.9"},
		"Caddy": {"Host: app.example.com", "X-Forwarded-Method: GET", "X-Forwarded-Proto: https",
			"X-Forwarded-Host: app.example.com", "X-Forwarded-Uri: /x?a,b", "X-Real-IP: 192.0.2.9"},
	} {
		q, err := d.askCompat(compatRequest(t, "/oauth2/auth", lines...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f := q.facts; f.Host != "app.example.com" || f.Target() != "/x?a,b" || f.Scheme != "https" ||
			f.Method != "" ||
			q.client != netip.MustParseAddr("192.0.2.9") || q.method != "GET" {
			t.Errorf("%s: %+v", name, q)
		}
		if own := q.facts.OwnOrigin(); strings.HasPrefix(name, "nginx") && own != "https://app.example.com:8443" {
			t.Errorf("%s: pages have the origin %s", name, own)
		}
	}
}

func compatRequest(tb testing.TB, target string, lines ...string) *http.Request {
	tb.Helper()
	for i, line := range lines {
		if host, ok := strings.CutPrefix(line, "Host: "); ok {
			r := request(tb, target, append(append([]string{}, lines[:i]...), lines[i+1:]...)...)
			r.Host = host
			return r
		}
	}
	return request(tb, target, lines...)
}

// Whatever a client adds in the words of another proxy, it cannot have another address
// judged than the proxy has (CVE-2026-40575): what does not agree is refused.
func TestP04_TwoTargetsThatDifferAreRefused(t *testing.T) {
	d := compatReader(t)
	nginx := []string{"Host: app.example.com", "X-Forwarded-Uri: /x"}
	before := []string{"Host: app.example.com", "X-Original-URI: /x"}
	ingress := []string{"Host: sallyport", "X-Original-URL: https://app.example.com/x", "X-Original-Method: GET"}
	traefik := []string{"Host: sallyport", "X-Forwarded-Method: GET", "X-Forwarded-Proto: https",
		"X-Forwarded-Host: app.example.com", "X-Forwarded-Uri: /x"}
	for _, tt := range []struct {
		proxy []string
		adds  []string
	}{
		{nginx, []string{"X-Original-URL: https://app.example.com/open"}},
		{nginx, []string{"X-Original-URL: https://open.example.com/x"}},
		{nginx, []string{"X-Original-URI: /open"}},
		{nginx, []string{"X-Forwarded-Host: open.example.com"}},
		{nginx, []string{"X-Forwarded-Host: open.example.com", "X-Forwarded-Proto: https", "X-Forwarded-Method: GET"}},
		{nginx, []string{"X-Forwarded-Host: open.example.com", "X-Original-URL: https://open.example.com/x"}},
		{nginx, []string{"X-Forwarded-Uri: /open"}},
		{nginx, []string{"X-Forwarded-Uri: /x"}},
		{nginx, []string{"X-Forwarded-Host: app.example.com", "X-Forwarded-Host: open.example.com"}},
		{nginx, []string{"X-Forwarded-Host:"}},
		{before, []string{"X-Forwarded-Uri: /open"}},
		{before, []string{"X-Forwarded-Uri: /x", "X-Forwarded-Host: open.example.com"}},
		{before, []string{"X-Forwarded-Uri: /open", "X-Forwarded-Host: app.example.com", "X-Forwarded-Proto: https",
			"X-Forwarded-Method: GET"}},
		{before, []string{"X-Original-URL: https://open.example.com/x"}},
		{before, []string{"X-Original-URL: https://app.example.com/X"}},
		{before, []string{"X-Original-URL: /x"}},
		{before, []string{"X-Original-URL:"}},
		{ingress, []string{"X-Original-URI: /open"}},
		{ingress, []string{"X-Forwarded-Uri: /open"}},
		{ingress, []string{"X-Forwarded-Uri: /x", "X-Forwarded-Host: open.example.com"}},
		{ingress, []string{"X-Forwarded-Uri:"}},
		{ingress, []string{"X-Original-URL: https://app.example.com/x"}},
		{ingress, []string{"X-Forwarded-Method: POST"}},
		{traefik, []string{"X-Original-URL: https://app.example.com/open"}},
		{traefik, []string{"X-Original-URL: https://open.example.com/x"}},
		{traefik, []string{"X-Original-URI: /open"}},
		{traefik, []string{"X-Original-Method: POST"}},
		{traefik, []string{"X_Forwarded_Uri: /open"}},
		{traefik, []string{"X.Original.URL: https://app.example.com/open"}},
	} {
		q, err := d.askCompat(compatRequest(t, "/oauth2/auth", append(append([]string{}, tt.proxy...), tt.adds...)...))
		if err == nil || errors.Is(err, errNoTarget) {
			t.Errorf("%q with %q: %+v, %v", tt.proxy, tt.adds, q.facts, err)
		}
	}
	for _, nothing := range [][]string{{"Host: app.example.com"}, {"Host: app.example.com", "X-Real-IP: 192.0.2.1"},
		{"Host: app.example.com", "X-Forwarded-Host: app.example.com", "X-Forwarded-Proto: https"},
		{"Host: app.example.com", "X-Original-Method: GET", "X-Auth-Request-Redirect: /open"},
		{"Host: app.example.com", "X-Rewrite-Url: /open"}} {
		if q, err := d.askCompat(compatRequest(t, "/oauth2/auth", nothing...)); !errors.Is(err, errNoTarget) {
			t.Errorf("%q: %+v, %v", nothing, q.facts, err)
		}
	}
}

// The method is not known, whatever a client says of it, except where it says what is
// refused. What may be a COPY or MOVE is not judged.
func TestP04_TheMethodOfASetUpMadeForOAuth2ProxyIsNotKnown(t *testing.T) {
	d := compatReader(t)
	base := []string{"Host: app.example.com", "X-Forwarded-Uri: /x"}
	for line, want := range map[string]string{"X-Original-Method: GET": "GET", "X-Forwarded-Method: POST": "POST",
		"Content-Type: text/plain": "POST", "Origin: https://app.example.com": "POST", "Accept: */*": "GET",
		"X-Original-Method: MOVE": "", "X-Forwarded-Method: COPY": "", "X-Original-Method: TRACE": "",
		"X-Original-Method: G T": "", "Destination: /y": ""} {
		q, err := d.askCompat(compatRequest(t, "/oauth2/auth", append(base[:2:2], line)...))
		if (err == nil) != (want != "") || err == nil && (q.method != want || q.facts.Method != "") {
			t.Errorf("%s: %q %q, %v", line, q.method, q.facts.Method, err)
		}
	}
}

// Each parameter is one more demand, a comma is an "or", and what has no meaning is refused:
// a client's own query, which Caddy adds, can only take away.
func TestParametersAreDemands(t *testing.T) {
	for query, want := range map[string][]authz.Rule{
		"": nil, "&&": nil,
		"allowed_groups=a":                      {{Groups: []string{"a"}}},
		"allowed_groups=a,b":                    {{Groups: []string{"a", "b"}}},
		"allowed_groups=a&allowed_groups=b":     {{Groups: []string{"a"}}, {Groups: []string{"b"}}},
		"allowed_groups=a%2Cb&":                 {{Groups: []string{"a", "b"}}},
		"allowed%5Fgroups=a+b;c":                {{Groups: []string{"a b;c"}}},
		"allowed_groups=,a,,":                   {{Groups: []string{"a"}}},
		"allowed_emails=a@b.example":            {{Emails: []string{"a@b.example"}}},
		"allowed_email_domains=a.example,b.org": {{EmailDomains: []string{"a.example", "b.org"}}},
	} {
		if got, err := readDemands(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", query, got, err)
		}
	}
	for query, says := range map[string]string{
		"allowed_groups": "lists nobody", "allowed_groups=": "lists nobody", "allowed_groups=,": "lists nobody",
		"allowed_groups=a&allowed_emails=": "lists nobody", "Allowed_groups=a": "routes[].allow",
		"allowed_users=ann": "subjects", "require_all_matches=false": "has no meaning",
		"constraints_required=true": "has no meaning", "allowed_groups[]=a": "has no meaning", "x": "question mark",
		"rd=/x": "has no meaning", "allowed_groups=%zz": "allowed_groups", "%zz=a": "query", "=a": "has no meaning",
		"allowed_email_domains=*":             "each domain",
		"allowed_email_domains=.example.com":  "each domain",
		"allowed_email_domains=a,*.example":   "each domain",
		" allowed_groups=a":                   "has no meaning",
		"allowed_groups%00=a":                 "has no meaning",
		"allowed_groups=a&page=2":             `"page"`,
		"page=2&allowed_groups=a&allowed_x=1": `"page"`,
	} {
		if got, err := readDemands(query); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %+v, %v", query, got, err)
		}
	}
}

// A browser comes back to the page that a proxy names, in all the ways in which set-ups
// write it, and to another host only if people sign in for it here.
func TestBrowsersComeBackToWhereAProxySays(t *testing.T) {
	s := compatReader(t).signIn
	const app, wiki = "https://app.example.com:8443", "https://wiki.example.com:8443"
	for query, want := range map[string]string{
		"":                                       app + " /",
		"rd=/":                                   app + " /",
		"rd=/x":                                  app + " /x",
		"rd=%2Fx%3Fa%3D1%26b%3D2":                app + " /x?a=1&b=2",    // $escaped_request_uri
		"rd=https://app.example.com/x?a=1&b=2":   app + " /x?a=1&b=2",    // $scheme://$host$request_uri
		"rd=http://app.example.com/x?a=1&b=%20c": app + " /x?a=1&b=%20c", // the same behind a balancer
		"rd=https://app.example.com:8443/a%20b":  app + " /a%20b",        // as it stands
		"rd=https://wiki.example.com%2Fx%3Fa":    wiki + " /x?a",
		// https://$host$escaped_request_uri
		"rd=https%3A%2F%2Fwiki.example.com%2Fx": wiki + " /x",                           // all of it
		"rd=HTTPS://Wiki.Example.com./x":        wiki + " /x",                           //
		"rd=https://wiki.example.com":           wiki + " /",                            //
		"rd=%2F%C3%A4%3Fq%3D%25":                app + " /\u00e4?q=%",                   //
		"rd=/x?a=1&rd=/y":                       app + " /x?a=1&rd=/y",                  //
		"a=b&rd=/x&c":                           app + " /x",                            //
		"rd=/.sallyport/account":                app + " /.sallyport/account",           //
		"rd=/a+b":                               app + " /a+b",                          //
		"rd=/oauth2/token?x":                    app + " /oauth2/token?x",               // an app's
		"rd=/x?next=https://evil.example/":      app + " /x?next=https://evil.example/", // the app's to judge
	} {
		r := compatRequest(t, "/oauth2/start?"+query, "Host: app.example.com")
		if origin, path := s.comesBack("app.example.com", r); origin+" "+path != want {
			t.Errorf("%q: %s %s, want %s", query, origin, path, want)
		}
	}
	for line, want := range map[string]string{"X-Auth-Request-Redirect: /x?a,b": app + " /x?a,b",
		"X-Auth-Request-Redirect: https://wiki.example.com/x": wiki + " /x", "X-Other: /x": app + " /",
		"X-Auth-Request-Redirect: /oauth2/sign_in?x": app + " /",
		"X-Auth-Request-Redirect: //evil.example/":   app + " /"} {
		r := compatRequest(t, "/oauth2/sign_in", "Host: app.example.com", line)
		if origin, path := s.comesBack("app.example.com", r); origin+" "+path != want {
			t.Errorf("%q: %s %s, want %s", line, origin, path, want)
		}
	}
}

// Nobody is led away from the sites of the configuration, or in a circle
// (CVE-2020-5233, CVE-2020-11053, CVE-2017-1000070).
func TestP05_PathsOfOAuth2ProxyLeadToOurSitesOnly(t *testing.T) {
	s := compatReader(t).signIn
	for _, rd := range []string{"//evil.example", "///evil.example", `/\evil.example`, `\/evil.example`,
		`\\evil.example`,
		"https://evil.example", "https://evil.example/", "https:/evil.example", "https:evil.example",
		"http:\\\\evil.example",
		"HTTPS://evil.example/x", "https://app.example.com@evil.example/", "https://app.example.com:x@evil.example/",
		"https://evil.example/app.example.com", "https://app.example.com.evil.example/", "https://evilapp.example.com/",
		`https://app.example.com\@evil.example/`, `https://app.example.com\evil.example`,
		"https://app.example.com//evil.example",
		`https://app.example.com/\evil.example`, "https://app.example.com/%2Fevil.example", "https:///evil.example",
		"https://open.example.com/", "https://[::1]/", "https://127.0.0.1/", "https://localhost/",
		"javascript:alert(1)",
		"javascript://app.example.com/%0aalert(1)", "data:text/html,x", "ftp://app.example.com/", "//app.example.com/",
		"/%09/evil.example", "/%0d%0aSet-Cookie:x=1", "/x%0d%0aLocation:%20https://evil.example", "/./", "/../",
		"/x/../y",
		"/%2e%2e/x", "/%5cevil.example", "/%2f/evil.example", "x", "?x", "#x", "", " /x", "/x y", "\t//evil.example",
		"/.sallyport/logout", "/.sallyport/login", "/.sallyport", "/%2esallyport/logout", "/oauth2/sign_in",
		"/oauth2/start?rd=/x", "/oauth2/sign_out", "https://app.example.com/oauth2/auth",
		"https://app.example.com/.sallyport/x",
		"https://app.example.com:8443:1/", "https://app.example.com%00.evil.example/",
		"https://app.example.com%2Eevil.example/",
		"https://app.example.com#@evil.example/", "https://app.example.com?@evil.example/", "/" + strings.Repeat("a",
			2000)} {
		for _, query := range []string{"rd=" + rd, "rd=" + url.QueryEscape(rd), "rd=" + url.PathEscape(rd),
			"rd=" + url.QueryEscape(url.QueryEscape(rd))} {
			r := &http.Request{RequestURI: "/oauth2/start?" + query, Host: "app.example.com", Header: http.Header{}}
			if origin, path := s.comesBack("app.example.com", r); origin != "https://app.example.com:8443" ||
				path != "/" {
				t.Errorf("%q leads to %s%s", query, origin, path)
			}
		}
		r := &http.Request{RequestURI: "/oauth2/start", Host: rd, Header: http.Header{"X-Auth-Request-Redirect": {rd}}}
		if to := s.leadsOn("start", r); to != "https://app.example.com:8443/.sallyport/renew" {
			t.Errorf("%q leads to %s", rd, to)
		}
	}
}

// FuzzCompat: no query panics, and nothing in one leads a browser away or lets in more.
func FuzzCompat(f *testing.F) {
	for _, seed := range []string{"allowed_groups=a,b&allowed_groups=c", "rd=https://app.example.com/x?a=b&c",
		"rd=%2F%2Fx",
		"rd=/\\x", "allowed_emails=%zz", "&&=&", "rd=https://wiki.example.com%2F..%2F", "rd=https://a@b/"} {
		f.Add(seed)
	}
	d := compatReader(f)
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{RequestURI: "/oauth2/auth?" + query, Host: "app.example.com", Method: "GET",
			Header: http.Header{"X-Forwarded-Uri": {"/x"}}}
		q, err := d.askCompat(r)
		said := 0
		for pair := range strings.SplitSeq(query, "&") {
			if pair != "" {
				said++
			}
		}
		if err == nil && len(q.demands) != said {
			t.Errorf("%q: %d demands of %d", query, len(q.demands), said)
		}
		for _, rule := range q.demands {
			nobody := identity.Identity{Provider: "main", Subject: "nobody"}
			admits := authz.Narrow(authz.Verdict{Outcome: authz.Forward}, q.facts, &authz.Route{}, &nobody,
				[]authz.Rule{rule})
			if admits.Outcome == authz.Forward {
				t.Errorf("%q admits somebody of whom nothing is known: %+v", query, rule)
			}
		}
		origin, path := d.signIn.comesBack("app.example.com", r)
		if origin != "https://app.example.com:8443" && origin != "https://wiki.example.com:8443" ||
			session.ReturnTo(path, origin, "/.sallyport") != path {
			t.Errorf("%q leads to %q %q", query, origin, path)
		}
		if u, err := url.Parse(d.signIn.leadsOn("start", r)); err != nil || u.Path != "/.sallyport/renew" {
			t.Errorf("%q leads to %v, %v", query, u, err)
		}
	})
}
