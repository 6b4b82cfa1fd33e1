package caldav_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/caldav"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/internal/egress"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

const key = "mira@acme.example:canary-app-password"

// internet is some hosts on one listener, behind https, whatever their names are.
type internet struct {
	roots       *x509.CertPool
	transport   *http.Transport // connects to the listener, whatever the address
	connections atomic.Int32    // at the listener
	asked       chan string     // method, host and path, as they come
	port        string
}

// startInternet serves the hosts that a name stands for, which may begin with "*.". What does
// not have the password is answered 401.
func startInternet(t *testing.T, name string, serve http.HandlerFunc) *internet {
	t.Helper()
	n := &internet{roots: x509.NewCertPool(), asked: make(chan string, 1000)}
	pair := testenv.NewKeyPair(t, name, time.Now().Add(time.Hour))
	n.roots.AppendCertsFromPEM([]byte(pair.Cert))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		n.asked <- r.Method + " " + host + r.URL.EscapedPath()
		if user, password, _ := r.BasicAuth(); user+":"+password != key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Host = host
		serve(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*pair.TLS(t)}}
	s.Config.ConnState = func(_ net.Conn, is http.ConnState) {
		if is == http.StateNew {
			n.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	at := s.Listener.Addr().String()
	_, n.port, _ = net.SplitHostPort(at)
	n.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, at)
		}}
	return n
}

// client reaches the hosts that are trusted there; others as in earnest.
func (n *internet) client(t *testing.T) *oauth.Client {
	t.Helper()
	c, err := oauth.NewClient(oauth.Options{Provider: "dav", Transport: n.transport})
	testenv.Check(t, err)
	return c
}

// paths are what was asked since the last time.
func (n *internet) paths() (list []string) {
	for {
		select {
		case one := <-n.asked:
			list = append(list, one)
		default:
			return list
		}
	}
}

// account answers as a server with one account and one calendar does. Hrefs are written as
// its documents have them; all of them are paths at the same host if home is one.
type account struct {
	context, principal, home string
	open, close              string // how a document begins and ends, with its prefixes
	principalIs, homeIs      string // the properties, with %s for an href
}

func (a account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	homePath := a.home
	if u, err := url.Parse(a.home); err == nil {
		homePath = u.EscapedPath()
	}
	calendar := homePath + "work/"
	body, err := io.ReadAll(r.Body)
	path := r.URL.EscapedPath()
	prop := ""
	switch ask := r.Method + " " + path; {
	case err != nil:
		return
	case ask == "PROPFIND "+a.context, ask == "PROPFIND "+strings.TrimSuffix(a.context, "/"):
		if strings.Contains(string(body), "current-user-principal") {
			prop = fmt.Sprintf(a.principalIs, a.principal)
		}
	case ask == "PROPFIND "+a.principal:
		if strings.Contains(string(body), "calendar-home-set") {
			prop = fmt.Sprintf(a.homeIs, a.home)
		}
	case ask == "PROPFIND "+homePath && r.Header.Get("Depth") == "1":
		path = calendar
	case ask == "REPORT "+calendar:
		path = calendar + "1.ics"
	case ask == "GET "+calendar+"1.ics":
		w.Header().Set("Content-Type", "text/calendar")
		fmt.Fprint(w, event)
		return
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", `application/xml; charset="utf-8"`)
	w.WriteHeader(http.StatusMultiStatus)
	fmt.Fprintf(w, a.open, path)
	fmt.Fprint(w, prop, a.close)
}

// icloud is an account at iCloud: one default namespace, a principal at the host that everybody
// is told of and at the account's own, and a home at the latter, with the port of https. Nobody
// tried it with an account of Apple's: the shape is what tests of published clients record, and
// that a shard answers for the accounts it has is in smarcet/CalDAVClient #8.
func icloud(own string) account {
	return account{context: "/", principal: "/1234567890/principal/",
		home:        "https://" + own + ":443/1234567890/calendars/",
		open:        `<?xml version="1.0" encoding="UTF-8"?><multistatus xmlns="DAV:"><response><href>%s</href><propstat><prop>`,
		close:       `</prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>`,
		principalIs: `<current-user-principal xmlns="DAV:"><href xmlns="DAV:">%s</href></current-user-principal>`,
		homeIs: `<calendar-home-set xmlns="urn:ietf:params:xml:ns:caldav"><href xmlns="DAV:">%s</href>` +
			`</calendar-home-set>`}
}

// Everybody is told of caldav.icloud.com, and an account is at one of many hosts of another
// name. A client has the address of the gateway only, and gets from there to its events.
func TestAClientFindsCalendarsAtAShardOfICloud(t *testing.T) {
	const own = "p12-caldav.icloud.com"
	n := startInternet(t, "*.icloud.com", func(w http.ResponseWriter, r *http.Request) {
		a := icloud(own)
		if r.Host != own && (r.Host != "caldav.icloud.com" || strings.Contains(r.URL.Path, "/calendars/")) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		a.ServeHTTP(w, r)
	})
	c := calendars(t, "https://caldav.icloud.com", n.client(t), own)
	l := lend(t, c, n.transport)
	testenv.Check(t, l.Paste(t, key))
	n.paths()
	walk := walkOf(t, l, "/work/")
	if walk != (walked{dav + "/1234567890/principal/", dav + "/1234567890/calendars/", dav + "/1234567890/calendars/work/",
		dav + "/1234567890/calendars/work/1.ics"}) {
		t.Errorf("a client gets to %+v", walk)
	}
	for _, one := range n.paths() {
		if !strings.Contains(one, own) {
			t.Errorf("an app's request goes to %s", one)
		}
	}
	if res, _ := l.Ask(t, "PROPFIND", dav+"/987/calendars/", "", "Depth", "1"); res.StatusCode != http.StatusForbidden {
		t.Errorf("of somebody else: %s", res.Status)
	}

	// Where the operator allows no host beside their own, the other is reached as strangers' are.
	result, err := c.Accept(t.Context(), key, grant.Request{})
	testenv.Check(t, err)
	place, err := calendars(t, "https://caldav.icloud.com", n.client(t)).Locate(result.Tokens)
	if err != nil || !place.Guarded || place.Origin != "https://"+own+":443" {
		t.Errorf("%+v %v", place, err)
	}
}

// nextcloud is an account of a Nextcloud below a path of its host: SabreDAV's prefixes, and all
// hrefs with the whole path (nextcloud/server, apps/dav).
func nextcloud(prefix string) account {
	return account{context: prefix + "/remote.php/dav/", principal: prefix + "/remote.php/dav/principals/users/mira@acme/",
		home: prefix + "/remote.php/dav/calendars/mira%40acme/",
		open: `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns" ` +
			`xmlns:cal="urn:ietf:params:xml:ns:caldav"><d:response><d:href>%s</d:href><d:propstat><d:prop>`,
		close: `</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat><d:propstat><d:prop><d:owner/></d:prop>` +
			`<d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response></d:multistatus>`,
		principalIs: `<d:current-user-principal><d:href>%s</d:href></d:current-user-principal>`,
		homeIs:      `<cal:calendar-home-set><d:href>%s</d:href></cal:calendar-home-set>`}
}

// Whether the operator writes where WebDAV is, or the host alone, as Nextcloud's manual has it:
// a client sees the same. A Nextcloud answers PROPFIND at its host with 405 (nextcloud/server,
// lib/base.php), and the manual for administrators ("Service discovery") redirects the
// well-known address to /remote.php/dav, without a slash at the end.
func TestAClientFindsTheCalendarsOfANextcloud(t *testing.T) {
	for _, prefix := range []string{"", "/nextcloud"} {
		a := nextcloud(prefix)
		n := startInternet(t, "cloud.acme.example", func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/.well-known/caldav":
				w.Header().Set("Location", "https://cloud.acme.example"+strings.TrimSuffix(a.context, "/"))
				w.WriteHeader(http.StatusMovedPermanently)
			case "/", prefix + "/":
				w.WriteHeader(http.StatusMethodNotAllowed)
			default:
				a.ServeHTTP(w, r)
			}
		})
		for _, base := range []string{prefix + "/remote.php/dav", prefix + "/remote.php/dav/", prefix, ""} {
			l := lend(t, calendars(t, "https://cloud.acme.example"+base, n.client(t)), n.transport)
			testenv.Check(t, l.Paste(t, key))
			walk := walkOf(t, l, "/work/")
			if walk != (walked{dav + "/principals/users/mira@acme/", dav + "/calendars/mira%40acme/",
				dav + "/calendars/mira%40acme/work/", dav + "/calendars/mira%40acme/work/1.ics"}) {
				t.Errorf("with %q a client gets to %+v", base, walk)
			}
			for _, other := range []string{"/files/mira@acme/", "/calendars/tom/", "/../webdav/"} {
				if res, _ := l.Ask(t, "PROPFIND", dav+other, "", "Depth", "1"); res.StatusCode != http.StatusForbidden &&
					res.StatusCode != http.StatusBadRequest {
					t.Errorf("%s: %s", other, res.Status)
				}
			}
		}
	}
}

// The well-known address leads to another host (RFC 6764 §5, §8): of the same domain the
// password goes there, of another, or without https, it does not.
func TestDiscoveryFollowsARedirectWithinTheDomainOnly(t *testing.T) {
	location := ""
	a := nextcloud("")
	n := startInternet(t, "*.acme.example", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "dav.acme.example":
			a.ServeHTTP(w, r)
		case r.URL.Path == "/.well-known/caldav":
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusTemporaryRedirect)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	c := calendars(t, "https://www.acme.example", n.client(t), "dav.acme.example")
	location = "https://dav.acme.example/remote.php/dav/"
	l := lend(t, c, n.transport)
	testenv.Check(t, l.Paste(t, key))
	if walk := walkOf(t, l, "/work/"); walk.home != dav+"/calendars/mira%40acme/" {
		t.Errorf("a client gets to %+v", walk)
	}
	n.paths()
	for _, location = range []string{"https://dav.acme.test/remote.php/dav/", "http://dav.acme.example/remote.php/dav/",
		"https://acme.example.evil.test/", "//evil.test/", "https://mira@dav.acme.example/", "https://127.0.0.1:" + n.port +
			"/", "https://[::1]:" + n.port + "/", "http://localhost:" + n.port + "/", "file:///etc/passwd", "https:///",
		"data:,a", ""} {
		_, err := c.Accept(t.Context(), key, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Class != grant.Ours || e.Reason != caldav.Elsewhere && e.Reason != caldav.NoCalendars {
			t.Errorf("%q: %v", location, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", location, err)
		}
		if asked := strings.Join(n.paths(), ", "); asked != "PROPFIND www.acme.example/, "+
			"PROPFIND www.acme.example/.well-known/caldav" {
			t.Errorf("%q: %s", location, asked)
		}
	}
}

// A name of the operator's domain is no reason to connect to a private address: not for a
// redirect, not for the principal and not for the home, and not if it was public when somebody
// looked. Then nothing is connected to, and a person is told that the site is not set up right.
func TestP08_DiscoveryDoesNotReachWhatOnlySallyportCanReach(t *testing.T) {
	inside := startInternet(t, "*.acme.example", func(http.ResponseWriter, *http.Request) {})
	names := testenv.StartDNS(t, "8.8.8.8", "127.0.0.1")
	was := net.DefaultResolver
	net.DefaultResolver = names.Resolver()
	t.Cleanup(func() { net.DefaultResolver = was })
	if looked, err := net.DefaultResolver.LookupIP(t.Context(), "ip4", "dav.acme.example"); err != nil ||
		len(looked) != 1 || !looked[0].Equal(net.IPv4(8, 8, 8, 8)) {
		t.Fatalf("somebody who looks sees %v, %v", looked, err)
	}
	there := "https://dav.acme.example:" + inside.port
	for what, answer := range map[string]account{
		"a redirect":  {},
		"a principal": {principal: there + "/mira/"},
		"a home":      {principal: "/mira/", home: there + "/dav/mira/"},
	} {
		outside := startInternet(t, "www.acme.example", func(w http.ResponseWriter, r *http.Request) {
			if answer.principal == "" {
				http.Redirect(w, r, there+"/", http.StatusFound)
				return
			}
			server(map[string]string{"/": answer.principal}, map[string]string{"/mira/": answer.home})(w, r)
		})
		c := calendars(t, "https://www.acme.example", outside.client(t))
		before := names.Asked.Load()
		_, err := c.Accept(t.Context(), key, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Class != grant.Ours || e.Reason != connector.NotPublic || !errors.Is(err, egress.ErrNotPublic) {
			t.Errorf("%s: %v", what, err)
		}
		if names.Asked.Load() == before {
			t.Errorf("%s: nobody asked for the address", what)
		}
		if at := strings.Join(outside.paths(), " "); !strings.Contains(at, "www.acme.example") {
			t.Errorf("%s: the server was asked for %q", what, at)
		}
	}
	if n := inside.connections.Load(); n != 0 {
		t.Errorf("the listener saw %d connections", n)
	}
}

// Radicale behind a proxy that gives it a path (its documentation, "Reverse Proxy"): the
// header says which, and all its hrefs begin with it.
func TestAClientFindsTheCalendarsOfARadicaleBelowAPath(t *testing.T) {
	origin, err := url.Parse(startRadicale(t))
	testenv.Check(t, err)
	front := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(origin)
		r.Out.Header.Set("X-Script-Name", "/radicale")
	}}
	mux := http.NewServeMux()
	mux.Handle("/radicale/", http.StripPrefix("/radicale", front))
	mux.Handle("/.well-known/caldav", http.RedirectHandler("/radicale/.well-known/caldav", http.StatusMovedPermanently))
	s := httptest.NewServer(mux)
	defer s.Close()
	for _, base := range []string{"/radicale", ""} {
		l := lend(t, calendars(t, s.URL+base, client(t)), nil)
		testenv.Check(t, l.Paste(t, "mira:canary-app-password"))
		walk := walkOf(t, l, "/plans/")
		if walk != (walked{dav + "/mira/", dav + "/mira/", dav + "/mira/plans/", dav + "/mira/plans/1.ics"}) {
			t.Errorf("with %q a client gets to %+v", base, walk)
		}
	}
}

// What people see and the log has where a server asks for something else than a password: the
// operator's to mend, and no word about the password. Baïkal asks for Digest by default
// (sabre-io/Baikal), iCloud for Basic beside a scheme of its own.
func TestAServerThatTakesNoBasicIsToldApartFromAWrongPassword(t *testing.T) {
	var challenges []string
	n := startInternet(t, "dav.acme.example", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Www-Authenticate"] = challenges
		w.WriteHeader(http.StatusUnauthorized)
	})
	c := calendars(t, "https://dav.acme.example/dav.php", n.client(t))
	for _, tt := range []struct {
		challenges []string
		reason     string
		class      grant.Class
	}{
		{[]string{`Digest realm="BaikalDAV",qop="auth",nonce="61b1",opaque="d66d"`}, caldav.NoBasic, grant.Ours},
		{[]string{`Bearer realm="https://accounts.acme.example"`}, caldav.NoBasic, grant.Ours},
		{[]string{"Negotiate", "NTLM"}, caldav.NoBasic, grant.Ours},
		{[]string{`Digest realm="a", Basic realm="a"`}, caldav.PasswordRefused, grant.Yours},
		{[]string{`Digest realm="a"`, `basic realm="a"`}, caldav.PasswordRefused, grant.Yours},
		{[]string{`X-MobileMe-AuthToken realm="Newcastle", Basic realm="Newcastle"`}, caldav.PasswordRefused, grant.Yours},
		{[]string{`X-MobileMe-AuthToken realm="Newcastle"`}, caldav.PasswordRefused, grant.Yours},
		{nil, caldav.PasswordRefused, grant.Yours},
	} {
		challenges = tt.challenges
		_, err := c.Accept(t.Context(), key, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Class != tt.class || e.Reason != tt.reason || (e.Sentence != "") != (tt.class == grant.Yours) {
			t.Errorf("%q: %v", tt.challenges, err)
		}
		if asked := n.paths(); tt.class == grant.Yours && len(asked) != 1 {
			t.Errorf("%q: a password that is refused was shown %d times", tt.challenges, len(asked))
		}
	}
}

// A server may forbid PROPFIND at its root and have calendars all the same; where its well-known
// address says nothing either, it was the password.
func TestAServerThatForbidsItsRootIsAskedAtItsWellKnownAddress(t *testing.T) {
	a := nextcloud("")
	there := true
	n := startInternet(t, "dav.acme.example", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.WriteHeader(http.StatusForbidden)
		case "/.well-known/caldav":
			if !there {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			http.Redirect(w, r, "/remote.php/dav/", http.StatusMovedPermanently)
		default:
			a.ServeHTTP(w, r)
		}
	})
	c := calendars(t, "https://dav.acme.example", n.client(t))
	l := lend(t, c, n.transport)
	testenv.Check(t, l.Paste(t, key))
	if walk := walkOf(t, l, "/work/"); walk.home != dav+"/calendars/mira%40acme/" {
		t.Errorf("a client gets to %+v", walk)
	}
	n.paths()
	there = false
	_, err := c.Accept(t.Context(), key, grant.Request{})
	if e, ok := errors.AsType[*grant.Error](err); !ok || e.Reason != caldav.PasswordRefused {
		t.Errorf("nothing there either: %v", err)
	}
	if asked := strings.Join(n.paths(), ", "); asked != "PROPFIND dav.acme.example/, "+
		"PROPFIND dav.acme.example/.well-known/caldav" {
		t.Errorf("asked: %s", asked)
	}
}

// RFC 6638 §2.4.1: among the addresses of a person are such as are no place. A client compares
// them with those of organizers and attendees, so they arrive as they are; what could lead
// somewhere does not.
func TestP12_AddressesOfPeopleInAMultistatusStayAsTheyAre(t *testing.T) {
	const ofPeople = `<d:href>mailto:mira@acme.example</d:href><d:href>urn:uuid:0d3f-77</d:href><d:href>tel:+49-1</d:href>`
	a := nextcloud("")
	a.homeIs = `<cal:calendar-user-address-set>` + ofPeople +
		`<d:href>/remote.php/dav/principals/users/mira@acme/</d:href>` +
		`<d:href>https:gateway/other/</d:href><d:href>javascript:a</d:href></cal:calendar-user-address-set>` + a.homeIs
	n := startInternet(t, "cloud.acme.example", a.ServeHTTP)
	l := lend(t, calendars(t, "https://cloud.acme.example/remote.php/dav", n.client(t)), n.transport)
	testenv.Check(t, l.Paste(t, key))
	res, body := l.Ask(t, "PROPFIND", dav+"/principals/users/mira@acme/", question0("<C:calendar-home-set/>"),
		"Content-Type", "application/xml", "Depth", "0")
	if res.StatusCode != http.StatusMultiStatus || !strings.Contains(body, ofPeople+"<d:href>"+dav+
		"/principals/users/mira@acme/</d:href>") || strings.Contains(body, "javascript") ||
		strings.Contains(body, "https:gateway") {
		t.Errorf("%s %s", res.Status, body)
	}
}
