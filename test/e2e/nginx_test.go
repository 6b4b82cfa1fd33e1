package e2e

import (
	"fmt"
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

// behindNginxWith is behindNginx with another app, unless that is "", and more routes.
func behindNginxWith(t *testing.T, app, routes string) (*corp, addresses) {
	t.Helper()
	need(t, nginxProgram)
	dir, err := os.MkdirTemp(world.dir, "nginx-")
	if err != nil {
		t.Fatal(err)
	}
	at := addresses{need(t, freeAddress), need(t, freeAddress), need(t, freeAddress), app, dir}
	url := "http://localhost" + portOf(at.front)
	c := serveGuide(t, dir, nginxGuide, url, routes, "127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked,
		"groups: [ops]", "groups: [board]", "max_age: 15m", "acr: [never]")
	if app == "" {
		at.app = strings.TrimPrefix(c.app.URL, "http://")
	}
	n := runNginx(t, at, guideBlock(t, nginxGuide, "nginx"))
	t.Cleanup(n.stop)
	n.showIfFailed(t)
	if text, _ := n.out.now(); n.ended() {
		t.Fatalf("nginx ended:\n%s", text)
	}
	return c, at
}

// runNginx starts nginx with the block of the guide, or one like it, and waits until it
// answers or has ended.
func runNginx(t *testing.T, at addresses, block string) *process {
	t.Helper()
	block = readdressed(t, block, "listen 443 ssl;", "listen "+at.front+";", "app.example.com", "localhost",
		"    ssl_certificate /etc/ssl/app.crt;\n", "", "    ssl_certificate_key /etc/ssl/app.key;\n", "")
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

// A browser signs in through nginx, and the app is told by nginx who it is.
func TestNginxAsksAndABrowserSignsIn(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	b := newPerson(t)
	deep := c.url + "/deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b"
	b.says(b.signInAtProvider(deep, "mira"), "You asked for /deep/page?week=47&by=%C3%A4&u=https://x.test/?a=b",
		"User: corp:mira")
}

// What a client writes itself never reaches the app through nginx, and what is ambiguous
// reaches nobody.
func TestNginxPassesOnWhatSallyportSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	host := strings.TrimPrefix(c.url, "http://")
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

// What two programs may read in two ways passes nginx for nobody, and neither does anything
// while Sallyport is away. COPY and MOVE are judged by both of their addresses.
func TestNginxPassesNobodyItIsNotSureOf(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
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
	t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
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
	resp, told := c.raw(t, "GET /payroll HTTP/1.1\r\nHost: "+strings.TrimPrefix(c.url, "http://")+
		"\r\nConnection: close\r\nAccept: */*\r\nCookie: "+c.signIn(t, "mira")+"\r\n\r\n")
	const want = `Bearer error="insufficient_user_authentication", error_description="sign in again", acr_values="never"`
	if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || got != want || told != nil {
		t.Errorf("a program is told %s, %q, and the app %v", resp.Status, got, told)
	}
}

// A WebSocket passes nginx for somebody who is signed in, from a page of the site itself.
func TestNginxPassesWebSocketsOfItsOwnPagesOnly(t *testing.T) {
	t.Parallel()
	c := behindNginx(t)
	cookie := c.signIn(t, "mira")
	for _, tt := range []struct {
		cookie, origin string
		status         int
	}{
		{cookie, "Origin: " + c.url, 200}, // the app's list of headers is no WebSocket, but shows what arrived
		{cookie, "Origin: https://evil.example", 403},
		{cookie, "Accept: */*", 403},
		{"a=1", "Origin: " + c.url, 401},
	} {
		resp, told := c.raw(t, c.writesUpgrade("/headers", "Cookie: "+tt.cookie, tt.origin))
		if resp.StatusCode != tt.status || tt.status == 200 && told.Get("Upgrade") != "websocket" {
			t.Errorf("%s: %s, the app got %v", tt.origin, resp.Status, told)
		}
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
		without += c.asks(t, "http://localhost"+portOf(at.front), cookie, within())
	}
	seconds := (time.Duration(rounds) * turn).Seconds()
	t.Logf("64 connections: %.0f requests/s with the question, %.0f without: %.0f%%", float64(with)/seconds,
		float64(without)/seconds, 100*float64(with)/float64(without))
}
