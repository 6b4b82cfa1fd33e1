package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// nginxGuide is the page whose configurations these tests run, with other addresses.
const nginxGuide = "../../docs/fronts/nginx.md"

func nginxProgram() (string, error) { return program("nginx", "nginx", "/usr/sbin/nginx")() }

// guideBlock is the one configuration in a language of a guide, with others in the place
// of some of its texts, each of which must stand there.
func guideBlock(t *testing.T, guide, language string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s has no configuration in %s", guide, language)
	}
	return readdressed(t, string(m[1]), replace...)
}

// behindNginx is a site whose front is nginx, which asks Sallyport, as the guide says.
func behindNginx(t *testing.T) *corp {
	t.Helper()
	c, _ := behindNginxWith(t, "", "")
	return c
}

// behindNginxWith is behindNginx with another app, unless that is "", and more routes. No
// sign-in is enough for the guide's /payroll.
func behindNginxWith(t *testing.T, app, routes string) (*corp, addresses) {
	t.Helper()
	return behindThisNginx(t, guideBlock(t, nginxGuide, "nginx"), app, routes)
}

// behindThisNginx is behindNginxWith another block than the guide's.
func behindThisNginx(t *testing.T, block, app, routes string) (c *corp, at addresses) {
	t.Helper()
	need(t, nginxProgram)
	c = behindFrontWith(t, nginxGuide, app, routes, func(t *testing.T, its addresses) *process {
		at = its
		return runNginx(t, its, block)
	}, "max_age: 15m", "acr: [never]")
	return c, at
}

// runNginx starts nginx with the block of the guide, or one like it, and waits until it
// answers or has ended.
func runNginx(t *testing.T, at addresses, block string) *process {
	t.Helper()
	cert := need(t, world.cert)
	block = readdressed(t, block, "listen 443 ssl;", "listen "+at.front+" ssl;", "app.example.com", publicHost,
		"wiki.example.com", otherSite, "/etc/ssl/app.crt", cert.certFile, "/etc/ssl/app.key", cert.keyFile)
	// A row of a table may have taken one of these out.
	block = strings.NewReplacer("127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked, "127.0.0.1:8080", at.app).
		Replace(block)
	dir, err := os.MkdirTemp(at.dir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	n := startNginx(t, dir, block)
	eventually(t, "nginx to answer, or to end", func() bool { return dialed(at.front) || n.ended() })
	return n
}

// startNginx starts nginx with a block of a guide, and all its files in dir.
func startNginx(t *testing.T, dir, block string) *process {
	t.Helper()
	temp := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += fmt.Sprintf("    %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	file := filepath.Join(dir, "nginx.conf")
	config := fmt.Sprintf("daemon off;\nmaster_process off;\npid %s/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n"+
		"    access_log off;\n%s%s}\n", dir, temp, block)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := start(dir, need(t, nginxProgram), "-p", dir, "-c", file)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// nginxShows is what is seen through nginx of Sallyport's refusals: a status, in a page of the
// guide or of nginx.
func nginxShows() shown { return shown{"403 Forbidden", "401 Authorization Required", false} }

// Everything that the guide promises of nginx, in turn, at one site of two hosts, over TLS.
func TestNginxAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	want := frontStatuses(c, cookie)
	want[c.writes("TRACE", "/headers", "Cookie: "+cookie)] = 405 // by nginx itself
	t.Run("signing in", func(t *testing.T) { frontSignsIn(t, c, nginxShows()) })
	t.Run("what the app is told", func(t *testing.T) { frontTellsWhatSallyportSays(t, c, true) })
	t.Run("statuses", func(t *testing.T) { want.check(t, c) })
	t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
	t.Run("WebSockets", func(t *testing.T) { frontPassesWebSockets(t, c, cookie) })
	t.Run("other protocols", func(t *testing.T) { frontOpensNoOtherTunnel(t, c, cookie) })
	t.Run("WebSockets in a browser", func(t *testing.T) { frontOpensWebSockets(t, c) })
	t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
}

// With the guide's lines for a route with cors nginx answers preflights itself.
func TestNginxAnswersPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	block := guideBlock(t, nginxGuide, "nginx-cors") + readdressed(t, guideBlock(t, nginxGuide, "nginx"),
		"    # Sallyport's own pages,", guideBlock(t, nginxGuide, "nginx-cors-server")+"    # Sallyport's own pages,")
	guide, err := os.ReadFile(nginxGuide)
	if err != nil {
		t.Fatal(err)
	}
	route := regexp.MustCompile("`({name: api, [^`]*})`").FindSubmatch(guide)
	if route == nil {
		t.Fatalf("%s has no route with cors", nginxGuide)
	}
	c, _ := behindThisNginx(t, block, "", "  - "+string(route[1])+"\n")
	frontAnswersPagesOfOtherSites(t, c, c.signIn(t, "mira"), [2]int{204, 403})
}

// What a client writes itself never reaches the app through nginx, and what is ambiguous
// reaches nobody.
func TestNginxPassesOnWhatSallyportSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	host := strings.TrimPrefix(c.url, "https://")
	get := func(target string, lines ...string) string { return c.writes("GET", target, lines...) }
	for _, name := range []string{"X-Forwarded-User", "x-forwarded-groups", "X_Forwarded_User", "X.Forwarded.User",
		"X-Sallyport-Assertion", "X-Forwarded_Groups"} {
		for _, target := range []string{"/headers", "/open/headers"} {
			resp, told := c.raw(t, get(target, name+": evil", "Cookie: a=1; "+cookie))
			for seen, lines := range told {
				all := strings.Join(lines, " ")
				if strings.Contains(all, "evil") || strings.Contains(all, c.cookie) {
					t.Errorf("%s %s: the app got %s: %q", target, name, seen, lines)
				}
			}
			if target == "/headers" && resp.StatusCode == 200 && told.Get("X-Forwarded-User") != "corp:mira" {
				t.Errorf("%s: the app was told of %q", name, told.Get("X-Forwarded-User"))
			}
		}
	}
	for request, status := range map[string]int{
		get("/headers", "Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"): 302,
		get("/headers", "Accept: */*"):                                                                     401,
		get("/admin", "Cookie: "+cookie):                                                                   403,
		get("/open/x"):                                                                                     200,
		get("/open/../admin", "Cookie: "+cookie):                                                           403,
		get("/open/%2e%2e/admin", "Cookie: "+cookie):                                                       403,
		get("//admin", "Cookie: "+cookie):                                                                  403,
		get("/.sallyport/../admin", "Cookie: "+cookie):                                                     403,
		get("/headers", "Cookie: "+cookie, "X-Original-URL: "+c.url+"/open"):                               200,
		get("/admin", "Cookie: "+cookie, "X-Original-URL: "+c.url+"/open/x"):                               403,
		get("/headers", "X-Original-URL: "+c.url+"/open/x"):                                                401,
		get("/_sallyport"):                                                                                 404,
		get("/headers", "Cookie: "+cookie+"; big="+strings.Repeat("a", 7000)):                              200,
		strings.Replace(get("/admin"), "Host: "+host, "Host: "+host+"/open", 1):                            400,
		strings.Replace(get("/admin"), "Host: "+host, "Host: "+host+"?/open", 1):                           400,
		strings.Replace(get("/admin"), "Host: "+host, "Host: x@"+host, 1):                                  403,
		strings.Replace(get("/headers", "Content-Length: 5")+"abcde", "GET", "POST", 1):                    401,
		strings.Replace(get("/headers", "Cookie: "+cookie, "Content-Length: 5")+"abcde", "GET", "POST", 1): 200,
	} {
		if resp, _ := c.raw(t, request); resp.StatusCode != status {
			t.Errorf("%q: %s, want %d", request[:min(len(request), 200)], resp.Status, status)
		}
	}
}

// What a body may have, the location of an app says, as the guide has it: nginx holds the
// length of a request against the limit of the question's location too, although no body is
// sent there, and answered 500 (ingress-nginx #811).
func TestNginxTakesUploadsThatALocationAllows(t *testing.T) {
	t.Parallel()
	raise := []string{"    location / {\n", "    client_max_body_size 1k;\n    location / {\n" +
		"        client_max_body_size 10m;\n"}
	asked, _ := behindThisNginx(t, guideBlock(t, nginxGuide, "nginx", raise...), "", "")
	for name, c := range map[string]*corp{"as the guide says": asked,
		"set up for oauth2-proxy": behindOAuth2Nginx(t, forwardedURI, raise...)} {
		body := strings.Repeat("a", 8<<10)
		resp, _ := c.raw(t, c.writes("POST", "/headers", "Cookie: "+c.signIn(t, "mira"),
			fmt.Sprint("Content-Length: ", len(body)))+body)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

// Pages that nginx shows for errors, as many a server has them, are no answers of Sallyport:
// one with a status of 200 would let everybody in who is refused, and everybody at all while
// Sallyport is away (ingress-nginx #12876). Nor is what a cache has kept of one.
func TestP01_NginxTakesNothingElseForAnAnswerOfSallyport(t *testing.T) {
	t.Parallel()
	keeps := []string{"server {\n", "proxy_cache_path " + t.TempDir() + " keys_zone=kept:1m;\nserver {\n" +
		"    proxy_cache kept;\n    proxy_cache_valid any 1m;\n    proxy_ignore_headers Cache-Control;\n"}
	const shows = "    proxy_intercept_errors on;\n    error_page 401 403 404 500 502 503 504 =200 /sorry.html;\n" +
		"    location = /sorry.html { return 200 sorry; }\n"
	own := "    # Sallyport's own pages,"
	asked, _ := behindThisNginx(t, guideBlock(t, nginxGuide, "nginx", append(keeps, own, shows+own)...), "", "")
	own = "    # New: here people sign in."
	madeForOther := behindOAuth2Nginx(t, forwardedURI, append(keeps, own, shows+own)...)
	for c, nobody := range map[*corp]int{asked: 401, madeForOther: 302} {
		session := "Cookie: " + c.signIn(t, "mira")
		statuses{
			c.writes("GET", "/headers", session):       200,
			c.writes("GET", "/headers", "Accept: */*"): nobody,
		}.check(t, c)
		before := c.app.seen()
		c.raw(t, c.writes("GET", "/admin", session))
		c.process.stop()
		for _, target := range []string{"/headers", "/admin"} {
			c.raw(t, c.writes("GET", target, session))
			c.raw(t, c.writes("GET", target))
		}
		if c.app.seen() != before {
			t.Errorf("the app of %s got %d requests", c.url, c.app.seen()-before)
		}
	}
}

// COPY and MOVE are judged by both of their addresses, and what could name another one than
// nginx passes on for nobody.
func TestNginxPassesNobodyItIsNotSureOf(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	session := "Cookie: " + cookie
	statuses{
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y"):                             200,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/admin/y"):                       403,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y z"):                           403,
		c.writes("MOVE", "/x", session, "Destination: "+c.url+"/y", "Destination: /admin/y"):    403,
		c.writes("MOVE", "/x", session):                                                         403,
		c.writes("GET", "/admin", session, "X-Forwarded-Uri: /open/x", "X-Original-URI: /open"): 403,
		c.writes("GET", "/admin", session, "X-Original-URL: "+c.url+"/open/x\r\n /y"):           400, // a folded line
	}.check(t, c)
}

// Who is refused reads the name that the request has in Sallyport's log. Apps are told that
// name too, and no client can choose it.
func TestNginxTellsTheRequestID(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	rest := " HTTP/1.1\r\nHost: " + strings.TrimPrefix(c.url, "https://") +
		"\r\nConnection: close\r\nX-Request-Id: mine\r\nCookie: " + c.signIn(t, "mira") + "\r\n\r\n"
	resp, _ := c.raw(t, "GET /admin"+rest)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`the request id: ([a-z0-9]{16})</p>`).FindSubmatch(body)
	if resp.StatusCode != 403 || id == nil {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	c.process.mustSay(t, regexp.MustCompile(`request_id"?[=:]"?`+string(id[1])+`.*no_rule`))
	_, told := c.raw(t, "GET /headers"+rest)
	if got := told.Values("X-Request-Id"); len(got) != 1 || len(got[0]) != 16 {
		t.Errorf("the app is told %q", got)
	}
}

// Somebody who has to sign in again is sent there by nginx where a page is opened, and a
// program reads why it is refused.
func TestNginxSendsPagesToStepUp(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	b := newPerson(t)
	b.signInAtProvider(c.url+"/", "mira")
	b.open(c.url + "/payroll")
	b.says(b.heading("This sign-in is not enough for this page"), "never")
	b.open(c.url + "/x")
	b.says(b.at(c.url+"/x"), "User: corp:mira")
	resp, told := c.raw(t, "GET /payroll HTTP/1.1\r\nHost: "+strings.TrimPrefix(c.url, "https://")+
		"\r\nConnection: close\r\nAccept: */*\r\nCookie: "+c.signIn(t, "mira")+"\r\n\r\n")
	const want = `Bearer error="insufficient_user_authentication", error_description="sign in again", acr_values="never"`
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || got != want || told != nil {
		t.Errorf("a program is told %s, %q, and the app %v", resp.Status, got, told)
	}
}

// What the question costs, as clients see it: the same nginx with it and without, in turns.
// nginx is one process, and the app and the clients are in this one.
func TestNginxWithAndWithoutTheQuestion(t *testing.T) {
	t.Parallel()
	rounds, turn := 1, time.Second
	if long() {
		rounds, turn = 5, 3*time.Second
	}
	c, at := behindNginxWith(t, "", "")
	cookie := c.signIn(t, "mira")
	at.front = need(t, freeAddress)
	n := runNginx(t, at, guideBlock(t, nginxGuide, "nginx", "        auth_request /_sallyport;\n", ""))
	t.Cleanup(n.stop)
	var with, without int64
	within := func() func() bool {
		begun := sync.OnceValue(time.Now)
		return func() bool { return time.Since(begun()) > turn }
	}
	for range rounds {
		with += c.asks(t, c.url, cookie, within())
		without += c.asks(t, "https://"+publicHost+portOf(at.front), cookie, within())
	}
	seconds := (time.Duration(rounds) * turn).Seconds()
	t.Logf("64 connections: %.0f requests/s with the question, %.0f without: %.0f%%", float64(with)/seconds,
		float64(without)/seconds, 100*float64(with)/float64(without))
}
