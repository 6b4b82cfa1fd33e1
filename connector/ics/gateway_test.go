package ics_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/connector/ics"
	"github.com/sallyport-proxy/sallyport/gateway/gatewaytest"
	"github.com/sallyport-proxy/sallyport/grant"
	"github.com/sallyport-proxy/sallyport/grant/granttest"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/oauth"
)

// lend lends with a connector by store. roots vouch for the calendar.
func lend(t *testing.T, c *ics.Connector, store grant.Store, roots *x509.CertPool) *gatewaytest.Lending {
	t.Helper()
	return gatewaytest.Lend(t, gatewaytest.LendOptions{Connector: c, Access: ics.Read, Store: store,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}})
}

func client(t *testing.T, roots *x509.CertPool) *oauth.Client {
	t.Helper()
	c, err := oauth.NewClient(oauth.Options{Provider: "feed", Roots: roots})
	testenv.Check(t, err)
	return c
}

// calendar is a pretend calendar behind https, which answers as serve says.
func calendar(t *testing.T, serve http.HandlerFunc) (srv *httptest.Server, roots *x509.CertPool, hits *atomic.Int32) {
	t.Helper()
	hits = new(atomic.Int32)
	srv = httptest.NewUnstartedServer(serve)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			hits.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots = x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return srv, roots, hits
}

const path = "/gateway/feed" + ics.Path

func TestAnAppReadsTheCalendarAtOneAddress(t *testing.T) {
	var asked atomic.Pointer[http.Request]
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Clone(context.Background()))
		w.Header().Set("ETag", `"7"`)
		if r.Header.Get("If-None-Match") == `"7"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		serveFeed(w, r)
	})
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	testenv.Check(t, l.Paste(t, "webcal"+strings.TrimPrefix(srv.URL, "https")+secret))
	res, body := l.Ask(t, "GET", path, "", "Accept-Encoding", "gzip", "Cookie", "a=b")
	if res.StatusCode != http.StatusOK || body != feed || res.Header.Get("ETag") != `"7"` {
		t.Errorf("%s %v %q", res.Status, res.Header, body)
	}
	if r := asked.Load(); r.RequestURI != secret || r.Header.Get("Accept-Encoding") != "identity" ||
		r.Header["Cookie"] != nil || r.Header["Authorization"] != nil {
		t.Errorf("the calendar was asked for %s with %v", r.RequestURI, r.Header)
	}
	if res, body := l.Ask(t, "GET", path, "", "If-None-Match", `"7"`); res.StatusCode != http.StatusNotModified ||
		body != "" {
		t.Errorf("what the app has already: %s", res.Status)
	}
	if res, body := l.Ask(t, "HEAD", path, ""); res.StatusCode != http.StatusOK || body != "" {
		t.Errorf("HEAD: %s", res.Status)
	}
}

func TestP12_NothingButTheCalendarIsAskedFor(t *testing.T) {
	srv, roots, _ := calendar(t, serveFeed)
	var hits atomic.Int32
	serve := srv.Config.Handler
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		serve.ServeHTTP(w, r)
	})
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	if res, _ := l.Ask(t, "GET", path, ""); res.StatusCode != http.StatusConflict {
		t.Errorf("before: %s", res.Status)
	}
	testenv.Check(t, l.Paste(t, srv.URL+secret))
	before := hits.Load()
	for request, want := range map[string]int{
		"POST " + path: http.StatusForbidden, "PUT " + path: http.StatusForbidden,
		"DELETE " + path: http.StatusForbidden, "PROPFIND " + path: http.StatusForbidden,
		"GET /gateway/feed/": http.StatusForbidden, "GET /gateway/feed/other.ics": http.StatusForbidden,
		"GET " + path + "/":           http.StatusBadRequest,
		"GET " + path + "?max=1":      http.StatusBadRequest,
		"GET " + path + "?":           http.StatusBadRequest,
		"GET /gateway/feed/../x":      http.StatusBadRequest,
		"GET /gateway/feed/%2e%2e/x":  http.StatusBadRequest,
		"GET /gateway/feed//evil.org": http.StatusBadRequest,
	} {
		method, target, _ := strings.Cut(request, " ")
		if res, body := l.Ask(t, method, target, ""); res.StatusCode != want && res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s %s", request, res.Status, body)
		}
	}
	if res, _ := l.Ask(t, "GET", path, "a=b", "Content-Type", "text/plain"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("with a body: %s", res.Status)
	}
	if n := hits.Load() - before; n != 0 {
		t.Errorf("the calendar was asked %d times", n)
	}
}

// parts are what of the address opens it, as it may be written.
func parts(address string) []string {
	path, _, _ := strings.Cut(secret, "?")
	return []string{address, secret, path, "private-canary0123456789abcdef/basic.ics", html.EscapeString(secret),
		url.QueryEscape(address), strings.ReplaceAll(secret, "%40", "@"), strings.ReplaceAll(secret, "/", `\/`)}
}

// What is behind the address may write it: into headers, into pages about errors and into the
// calendar itself.
func TestP08_TheSecretAddressIsNeverSeen(t *testing.T) {
	status, coding := http.StatusOK, ""
	var address string
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, name := range []string{"Location", "Content-Location", "Link", "Refresh", "X-Request-Path", "ETag",
			"Content-Disposition", "Set-Cookie"} {
			h.Set(name, `"<`+address+`>"`)
		}
		h.Set("Trailer", "X-Where")
		h.Set("Content-Type", "text/calendar")
		if coding != "" {
			h.Set("Content-Encoding", coding)
		}
		w.WriteHeader(status)
		if status != http.StatusNotModified {
			fmt.Fprint(w, "BEGIN:VCALENDAR\r\n", strings.Join(parts(address), "\r\n"))
		}
		h.Set("X-Where", address)
	})
	address = srv.URL + secret
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	testenv.Check(t, l.Paste(t, address))
	seen := func(where, text string) {
		t.Helper()
		if strings.Contains(text, "canary") || strings.Contains(text, "mira@acme.example") ||
			strings.Contains(text, "mira%40") {
			t.Errorf("%s: %s", where, text)
		}
	}
	for _, answers := range []int{200, 206, 301, 302, 304, 307, 400, 404, 500, 503} {
		status = answers
		res, body := l.Ask(t, "GET", path, "")
		header, err := json.Marshal([]any{res.Header, res.Trailer})
		testenv.Check(t, err)
		seen(res.Status, string(header)+body)
		if res.Header.Get("Location") != "" {
			t.Errorf("%s leads to %s", res.Status, res.Header.Get("Location"))
		}
	}
	status = http.StatusOK
	testenv.Check(t, l.Paste(t, address)) // after 404 it was over
	coding = "br"
	if res, body := l.Ask(t, "GET", path, ""); res.StatusCode != http.StatusBadGateway {
		t.Errorf("what cannot be read is passed on: %s %q", res.Status, body)
	}
	srv.Close()
	res, body := l.Ask(t, "GET", path, "")
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("nobody is there: %s", res.Status)
	}
	seen("nobody is there", body)
	if err := l.Paste(t, address); err == nil {
		t.Error("nobody is there, and it is connected")
	} else {
		seen("connecting", err.Error())
	}
	_, body = l.Ask(t, "GET", "/v1/grants", "")
	seen("the list", body)
	views, err := l.View(t.Context(), gatewaytest.Mira())
	testenv.Check(t, err)
	seen("the account page", fmt.Sprintf("%+v", views))
	families, err := l.Metrics.Gather()
	testenv.Check(t, err)
	seen("metrics", fmt.Sprint(families))
	seen("the log", l.Log.String())
	if l.Log.Len() == 0 {
		t.Error("there is no log")
	}
}

func TestACalendarThatIsTooLongIsNotPassedOnAsAWhole(t *testing.T) {
	length := 0 // 0: it is not told
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
		if length == 0 && r.Header.Get("If-None-Match") == "" {
			serveFeed(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/calendar")
		if length > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(length))
		}
		block := bytes.Repeat([]byte("X-A:0123456789ab\r\n"), 1<<16)
		for n := 0; n <= ics.MaxFeed+len(block); n += len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	testenv.Check(t, l.Paste(t, srv.URL+secret))
	if _, body := l.Ask(t, "GET", path, "", "If-None-Match", "long"); len(body) > ics.MaxFeed+64 ||
		!strings.HasSuffix(body, "BROKEN OFF") {
		t.Errorf("%d bytes arrived as if they were all", len(body))
	}
	length = ics.MaxFeed + 1
	if res, body := l.Ask(t, "GET", path, ""); res.StatusCode != http.StatusBadGateway ||
		!strings.Contains(body, "too long") {
		t.Errorf("a length that is too long: %s %s", res.Status, body)
	}
	var e *grant.Error
	if err := l.Paste(t, srv.URL+secret); !errors.As(err, &e) || e.Class != grant.Later ||
		!strings.Contains(e.Sentence, "16 MiB") {
		t.Errorf("connecting it: %v", err)
	}
}

// Who has lost the address at the calendar, or made a new one there, has to connect again; an
// answer of a server that has a bad day ends nothing.
// A person names the host, and may paste many addresses at once. Each answer may be as long as a
// calendar may be, and is looked at to its end; what is kept of it are some bytes.
func TestP17_ACalendarThatIsTriedTakesLittleMemory(t *testing.T) {
	const at, length = 20, 15 << 20
	var begun sync.WaitGroup
	begun.Add(at)
	end := make(chan struct{})
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/calendar")
		fmt.Fprint(w, feed)
		chunk := bytes.Repeat([]byte("X-PAD:1\r\n"), 1<<10)
		for sent := 0; sent < length; sent += len(chunk) {
			_, _ = w.Write(chunk)
		}
		_ = http.NewResponseController(w).Flush()
		begun.Done()
		<-end
	})
	c := allowing(t, client(t, roots), srv.URL)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			if _, err := c.Accept(t.Context(), srv.URL+secret, grant.Request{}); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	runtime.GC()
	runtime.ReadMemStats(&now)
	close(end)
	all.Wait()
	if took := int64(now.HeapAlloc) - int64(before.HeapAlloc); took > length {
		t.Errorf("%d answers of %d MiB take %d MiB", at, length>>20, took>>20)
	}
}

func TestAnAddressThatIsOverEndsTheGrant(t *testing.T) {
	for status, want := range map[int]grant.Status{404: grant.NeedsReconnect, 410: grant.NeedsReconnect,
		403: grant.NeedsReconnect, 401: grant.NeedsReconnect, 301: grant.NeedsReconnect, 308: grant.NeedsReconnect,
		302: grant.Active, 307: grant.Active, 500: grant.Active, 429: grant.Active} {
		var over atomic.Bool
		srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
			if over.Load() && r.URL.RawQuery != "moved" {
				w.Header().Set("Location", "?moved") // it is there, at another address
				w.WriteHeader(status)
				return
			}
			serveFeed(w, r)
		})
		l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
		testenv.Check(t, l.Paste(t, srv.URL+secret))
		over.Store(true)
		res, _ := l.Ask(t, "GET", path, "")
		views, err := l.View(t.Context(), gatewaytest.Mira())
		if err != nil || len(views) != 1 || views[0].Status != want ||
			(want == grant.Active) != (res.StatusCode == status) {
			t.Errorf("%d: %s, %+v, %v", status, res.Status, views, err)
		}
	}
}

// Hosts that the operator does not allow are public, or not reached: when somebody connects,
// and when an app asks afterwards, with what was connected while the host was allowed.
func TestP08_AFeedDoesNotReachWhatOnlySallyportCanReach(t *testing.T) {
	inside, roots, connections := calendar(t, serveFeed)
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	testenv.Check(t, err)
	names := testenv.StartDNS(t, "127.0.0.1")
	was := net.DefaultResolver
	net.DefaultResolver = names.Resolver()
	t.Cleanup(func() { net.DefaultResolver = was })
	closed := allowing(t, client(t, roots))
	for _, host := range []string{"127.0.0.1", "localhost", "example.com", "[::1]", "[::ffff:127.0.0.1]",
		"[64:ff9b::7f00:1]", "169.254.169.254", "0.0.0.0", "10.0.0.1", "[fe80::1]", "[fd00:ec2::254]", "2130706433"} {
		_, err := closed.Accept(t.Context(), "https://"+host+":"+port+secret, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || (e.Reason != connector.NotPublic || e.Class != grant.Yours) && host != "2130706433" {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Fatalf("the listener saw %d connections", n)
	}

	for _, host := range []string{"127.0.0.1", "example.com"} {
		store, base := granttest.NewStore(nil), "https://"+host+":"+port
		open := lend(t, allowing(t, client(t, roots), base), store, roots)
		testenv.Check(t, open.Paste(t, base+secret))
		if res, body := open.Ask(t, "GET", path, ""); res.StatusCode != http.StatusOK || body != feed {
			t.Fatalf("while it is allowed: %s %s", res.Status, body)
		}
		before := connections.Load()
		shut := lend(t, closed, store, roots)
		if res, body := shut.Ask(t, "GET", path, ""); res.StatusCode != http.StatusBadGateway ||
			strings.Contains(body, "BEGIN") {
			t.Errorf("%s: %s %s", host, res.Status, body)
		}
		if n := connections.Load() - before; before == 0 || n != 0 {
			t.Errorf("%s: the listener saw %d connections", host, n)
		}
		if !strings.Contains(shut.Log.String(), "not a public one") {
			t.Errorf("the log does not say why: %s", shut.Log)
		}
	}
}

// A host that may be reached leads to one that may not.
func TestP08_ARedirectToLoopbackIsNotFollowed(t *testing.T) {
	inside, _, connections := calendar(t, serveFeed)
	redirects, permanently := atomic.Bool{}, atomic.Bool{}
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case permanently.Load():
			http.Redirect(w, r, inside.URL+secret, http.StatusMovedPermanently)
			return
		case redirects.Load():
			http.Redirect(w, r, inside.URL+secret, http.StatusFound)
			return
		}
		serveFeed(w, r)
	})
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	testenv.Check(t, l.Paste(t, srv.URL+secret))
	redirects.Store(true)
	res, _ := l.Ask(t, "GET", path, "")
	if res.StatusCode != http.StatusFound || res.Header.Get("Location") != "" {
		t.Errorf("the app is led to %q: %s", res.Header.Get("Location"), res.Status)
	}
	e, ok := errors.AsType[*grant.Error](l.Paste(t, srv.URL+secret))
	if !ok || e.Reason != ics.Elsewhere || e.Sentence == "" {
		t.Errorf("connecting it: %v", e)
	}
	permanently.Store(true)
	e, ok = errors.AsType[*grant.Error](l.Paste(t, srv.URL+secret))
	if !ok || e.Reason != connector.NotPublic {
		t.Errorf("connecting what has moved inside: %v", e)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the listener saw %d connections", n)
	}
}

// A calendar says that it has moved for good, as iCloud's do from one of its hosts to another: who
// connects it has it at its new address, and the old one is not asked again. What only leads
// elsewhere for now, or to no address that could be pasted, is not followed.
func TestACalendarThatHasMovedIsConnectedAtItsNewAddress(t *testing.T) {
	const moved = "/published/2/private-canary-other0123456789"
	status, location := http.StatusMovedPermanently, ""
	var asked atomic.Int32
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case !strings.HasPrefix(r.Header.Get("User-Agent"), "Mozilla/5.0 ("):
			http.Redirect(w, r, "/owa/auth/errorfe.aspx?httpCode=500", http.StatusFound) // as Outlook does
		case r.URL.Path == moved:
			serveFeed(w, r)
		default:
			w.Header().Set("Location", location)
			w.WriteHeader(status)
		}
	})
	l := lend(t, allowing(t, client(t, roots), srv.URL), granttest.NewStore(nil), roots)
	host := strings.TrimPrefix(srv.URL, "https://")
	for _, tt := range []struct {
		status   int
		location string
		asked    int32
	}{
		{http.StatusFound, moved, 1}, {http.StatusTemporaryRedirect, moved, 1}, {http.StatusSeeOther, moved, 1},
		{http.StatusMovedPermanently, "", 1}, {http.StatusMovedPermanently, "http://acme.example" + moved, 1},
		{http.StatusMovedPermanently, "/short", 1}, {http.StatusMovedPermanently, "https://a:b@" + host + moved, 1},
		{http.StatusMovedPermanently, secret, 4}, // round and round
	} {
		status, location = tt.status, tt.location
		before := asked.Load()
		e, ok := errors.AsType[*grant.Error](l.Paste(t, srv.URL+secret))
		if !ok || e.Reason != ics.Elsewhere || asked.Load()-before != tt.asked {
			t.Errorf("%d to %q: %v, asked %d times", tt.status, tt.location, e, asked.Load()-before)
		}
	}
	for status = range map[int]bool{http.StatusMovedPermanently: true, http.StatusPermanentRedirect: true} {
		for _, location = range []string{moved, srv.URL + moved, "webcal://" + host + moved} {
			testenv.Check(t, l.Paste(t, srv.URL+secret))
			before := asked.Load()
			if res, body := l.Ask(t, "GET", path, "", "User-Agent", "planner/1"); body != feed || asked.Load()-before != 1 {
				t.Errorf("%d to %q: %s %s, asked %d times", status, location, res.Status, body, asked.Load()-before)
			}
		}
	}
}

func TestWhatIsNoCalendarIsNotConnected(t *testing.T) {
	kind, body := "", ""
	srv, roots, _ := calendar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		fmt.Fprint(w, body)
	})
	c := allowing(t, client(t, roots), srv.URL)
	for _, tt := range []struct {
		kind, body string
		good       bool
	}{
		{"text/calendar", feed, true},
		{"Text/Calendar;charset=UTF-8;method=PUBLISH", "\ufeff" + feed, true},
		{"text/calendar", "\r\nbegin:vcalendar\r\n", true},
		{"text/html", feed, true}, {"text/plain", feed, true}, {"", feed, true},
		{"application/octet-stream", feed, true}, {"text/calendar; charset=utf-8; charset=utf-8", feed, true},
		{"text/calendar", "<html>sign in</html>", false}, {"text/calendar", "", false},
		{"application/octet-stream", "BEGIN:VCARD\r\n", false}, {"text/plain", "no BEGIN:VCALENDAR", false},
	} {
		kind, body = tt.kind, tt.body
		_, err := c.Accept(t.Context(), srv.URL+secret, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if (err == nil) != tt.good || err != nil && (!ok || e.Reason != ics.NoCalendar ||
			!strings.Contains(e.Sentence, "BEGIN:VCALENDAR")) {
			t.Errorf("%s %q: %v", tt.kind, tt.body, err)
		}
	}
}

func TestWhatCannotBeAnAddressIsNotAsked(t *testing.T) {
	srv, roots, connections := calendar(t, serveFeed)
	c := allowing(t, client(t, roots), srv.URL)
	host := strings.TrimPrefix(srv.URL, "https://")
	for _, bad := range []string{"http://example.com" + secret, "ftp://" + host + secret, "//" + host + secret, host + secret,
		"https://mira:pw@" + host + secret, "https://" + host + secret + "#part", "https://" + host + `\@evil.test/` + secret,
		"https://" + host, "https://" + host + "/", "https://" + host + "/a.ics", "https:///" + secret,
		"https:" + host + secret, "https://" + host + "/a\"b" + secret, "https://" + host + secret + strings.Repeat("a", 2048),
		"webcal:" + secret, "file:///etc/passwd/aaaaaaaaaaaaaaaa"} {
		_, err := c.Accept(t.Context(), bad, grant.Request{})
		e, ok := errors.AsType[*grant.Error](err)
		if !ok || e.Reason != ics.AddressMalformed || e.Sentence == "" || strings.Contains(e.Sentence+e.Error(), "canary") {
			t.Errorf("%.80s: %v", bad, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("the listener saw %d connections", n)
	}
}

func TestAnAllowedHostIsAnExactName(t *testing.T) {
	for _, bad := range []string{"", "*.example.com", "https://dav.example.com", "dav.example.com/", "Dav.example.com",
		"dav.example.com:", "dav.example.com:0", "dav.example.com:http", "10.0.0.0/8", "a b", ".example.com"} {
		_, err := ics.New(ics.Options{ID: "feed", AllowHosts: []string{bad}, OAuth: client(t, nil)})
		if fault, ok := errors.AsType[*connector.Fault](err); !ok || fault.Key != "allow_hosts" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	hosts, err := connector.ParseHosts([]string{"dav.example.com", "dav.example.com:8443", "10.0.0.7", "::1", "[::1]:81"})
	testenv.Check(t, err)
	for address, want := range map[string]bool{
		"https://dav.example.com/": true, "https://DAV.example.com:443/": true, "https://dav.example.com:8443/": true,
		"https://10.0.0.7/": true, "https://[::1]/": true, "http://[::1]:81/": true,
		"https://dav.example.com:444/": false, "http://dav.example.com/": false, "https://dav.example.com./": false,
		"https://a.dav.example.com/": false, "https://dav.example.com.evil.test/": false, "https://10.0.0.8/": false,
	} {
		u, err := url.Parse(address)
		testenv.Check(t, err)
		if hosts.Allow(u) != want {
			t.Errorf("%s: allowed is %v", address, !want)
		}
	}
}
