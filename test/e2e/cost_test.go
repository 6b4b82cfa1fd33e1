package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildOAuth2Proxy finds oauth2-proxy as its module has it: the program that
// SALLYPORT_OAUTH2_PROXY names, or one that is built now. That takes two cores some minutes the
// first time, so it happens only where nothing may be left out.
func (s *shared) buildOAuth2Proxy() (string, error) {
	if name := os.Getenv("SALLYPORT_OAUTH2_PROXY"); name != "" {
		return name, nil
	}
	if os.Getenv("SALLYPORT_REQUIRE") != "1" && !long() {
		return "", fmt.Errorf("oauth2-proxy is %w: name one in SALLYPORT_OAUTH2_PROXY, or have it built by "+
			"SALLYPORT_CAMPAIGN=1", errMissing)
	}
	program := filepath.Join(s.dir, "oauth2-proxy")
	build := exec.Command("go", "build", "-o", program, "github.com/oauth2-proxy/oauth2-proxy/v7")
	build.Dir = filepath.Join("fronts", "oauth2proxy")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build oauth2-proxy: %w\n%s", err, out)
	}
	return program, nil
}

// oauth2Proxy is a running oauth2-proxy, and somebody who is signed in at it.
type oauth2Proxy struct {
	prefix, address, cookie string
	process                 *process
}

// start runs one that asks the provider of a site who people are, as Sallyport does there, and
// has mira sign in at it through the site's front, which leads to it below its prefix.
func (o *oauth2Proxy) start(t *testing.T, c *corp, args ...string) {
	t.Helper()
	args = append(args, "--provider=oidc", "--oidc-issuer-url="+c.provider.Issuer, "--client-id="+c.provider.ClientID,
		"--client-secret="+c.provider.ClientSecret, "--code-challenge-method=S256", "--email-domain=*",
		"--cookie-secret="+strings.Repeat("k", 32), "--scope=openid profile email groups", "--proxy-prefix="+o.prefix,
		"--redirect-url="+c.url+o.prefix+"/callback", "--http-address="+o.address, "--upstream=static://202",
		"--reverse-proxy", "--trusted-proxy-ip=127.0.0.1", "--set-xauthrequest", "--skip-provider-button")
	p, err := start(t.TempDir(), need(t, world.oauth2proxy), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.showIfFailed(t)
	p.listens(t, o.address)
	o.process = p
	_, cookies := c.signInFrom(t, c.url+o.prefix+"/start?rd=/open/x", "mira")
	var parts []string
	for _, cookie := range cookies {
		if strings.HasPrefix(cookie.Name, "_oauth2_proxy") && !strings.Contains(cookie.Name, "csrf") {
			parts = append(parts, cookie.Name+"="+cookie.Value)
		}
	}
	o.cookie = strings.Join(parts, "; ")
}

// authCheck is what a proxy asks again and again over connections that are kept.
type authCheck struct {
	name, address, text string
	status              int
	process             *process
	spent               time.Duration
}

// ask asks n times over 64 connections, on each the next when the last is answered, and adds
// to spent what the asked process spent of the CPU meanwhile.
func (q *authCheck) ask(t *testing.T, n int) {
	t.Helper()
	before := cpuTime(t, q.process)
	errs := make([]error, 64)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = q.converse(n / len(errs)) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s: %v", q.name, err)
	}
	q.spent += cpuTime(t, q.process) - before
}

func (q *authCheck) converse(n int) error {
	conn, err := net.Dial("tcp", q.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for range n {
		if _, err := io.WriteString(conn, q.text); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		body, err := io.Copy(io.Discard, resp.Body)
		if err != nil || resp.StatusCode != q.status || body > 100 {
			return fmt.Errorf("answered %s with %d bytes, %w", resp.Status, body, err)
		}
	}
	return nil
}

// cpuTime is what a process has spent, user and system: proc_pid_stat(5), fields 14 and 15, in
// hundredths of a second.
func cpuTime(t *testing.T, p *process) (spent time.Duration) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		spent += time.Duration(n) * 10 * time.Millisecond
	}
	return spent
}

// What a question costs beside what oauth2-proxy's costs: the same person of the same provider,
// asked about in turns. First the processes are asked as nginx asks them; then one nginx for each
// of them passes requests on, with the configuration that is documented for it, and one that
// asks nobody.
func TestAQuestionBesideOAuth2Proxys(t *testing.T) {
	t.Parallel()
	need(t, world.oauth2proxy)
	usual := &oauth2Proxy{prefix: "/oauth2", address: need(t, freeAddress)}
	minimal := &oauth2Proxy{prefix: "/oauth2-minimal", address: need(t, freeAddress)}
	own := guideBlock(t, nginxGuide, "nginx")
	block := own
	for _, o := range []*oauth2Proxy{usual, minimal} {
		block = readdressed(t, block, "    # Sallyport's own pages,", "    location "+o.prefix+"/ { proxy_pass http://"+
			o.address+"; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; }\n"+
			"    # Sallyport's own pages,")
	}
	c, at := behindThisNginx(t, block, "", "")
	cookie := c.signIn(t, "mira")
	usual.start(t, c)
	minimal.start(t, c, "--session-cookie-minimal")
	asOAuth2 := func(o *oauth2Proxy) *authCheck {
		return &authCheck{"oauth2-proxy, " + o.prefix, o.address, "GET " + o.prefix + "/auth HTTP/1.1\r\nHost: " +
			publicHost + "\r\nX-Real-IP: 192.0.2.9\r\nX-Forwarded-Uri: /reports/2026?team=blue\r\nCookie: theme=dark; " +
			o.cookie + browserLines, http.StatusAccepted, o.process, 0}
	}
	t.Logf("cookies: Sallyport %d bytes, oauth2-proxy %d, without tokens %d", len(cookie), len(usual.cookie),
		len(minimal.cookie))
	compareQuestions(t, asOAuth2(usual), asOAuth2(minimal), &authCheck{"Sallyport, /verify", at.asked,
		"GET /verify HTTP/1.1\r\nHost: sallyport\r\nX-Original-URL: " + c.url + "/reports/2026?team=blue\r\n" +
			"X-Original-Method: GET\r\nX-Forwarded-For: 192.0.2.9\r\nCookie: theme=dark; " + cookie + browserLines,
		http.StatusOK, c.process, 0})

	other, kept, nobody := need(t, freeAddress), need(t, freeAddress), at
	nobody.front = need(t, freeAddress)
	for _, n := range []*process{startNginx(t, t.TempDir(), nginxForOAuth2Proxy(t, at, other, usual.address)),
		startNginx(t, t.TempDir(), keptConnections(t, nginxForOAuth2Proxy(t, at, kept, usual.address), usual.address)),
		runNginx(t, nobody, readdressed(t, own, "        auth_request /_sallyport;\n", ""))} {
		t.Cleanup(n.stop)
		n.showIfFailed(t)
	}
	for _, address := range []string{other, kept} {
		eventually(t, "the other nginx to listen", func() bool { return dialed(address) })
	}
	compareFronts(t, c, []*front{{"nginx alone", nobody.front, cookie, 0},
		{"nginx with oauth2-proxy", other, usual.cookie, 0},
		{"nginx with oauth2-proxy, connections kept", kept, usual.cookie, 0},
		{"nginx with Sallyport", at.front, cookie, 0}})
}

// nginxForOAuth2Proxy is the configuration that oauth2-proxy documents, as our guide of moving
// from there has it, at an address.
func nginxForOAuth2Proxy(t *testing.T, at addresses, address, asked string) string {
	t.Helper()
	cert := need(t, world.cert)
	return guideBlock(t, oauth2Guide, "nginx", "listen 443 ssl;", "listen "+address+" ssl;", "app.example.com", publicHost,
		"wiki.example.com", otherSite, "/etc/ssl/app.crt", cert.certFile, "/etc/ssl/app.key", cert.keyFile,
		"127.0.0.1:4180", asked, "127.0.0.1:4182", asked, "127.0.0.1:8080", at.app,
		"        proxy_set_header Cookie $cookies;\n", "")
}

// keptConnections is a configuration with a line more, so that nginx keeps its connections to
// whom it asks.
func keptConnections(t *testing.T, block, asked string) string {
	t.Helper()
	return "upstream kept { server " + asked + "; keepalive 32; }\n" + readdressed(t, block,
		"        proxy_set_header X-Forwarded-Uri $request_uri;\n", "        proxy_set_header X-Forwarded-Uri $request_uri;\n"+
			"        proxy_http_version 1.1;\n        proxy_set_header Connection \"\";\n",
		" answers in Sallyport's place.\n        proxy_pass http://"+asked+";",
		"\n        proxy_pass http://kept;")
}

// compareQuestions asks in turns, and logs what a check costs each process.
func compareQuestions(t *testing.T, questions ...*authCheck) {
	t.Helper()
	const n = 3200
	rounds := 2
	if long() {
		rounds = 10
	}
	for _, q := range questions {
		q.ask(t, n) // warm
		q.spent = 0
	}
	for range rounds {
		for _, q := range questions {
			q.ask(t, n)
		}
	}
	for _, q := range questions {
		t.Logf("%s: %d µs of the CPU for each of %d checks", q.name, q.spent.Microseconds()/int64(rounds*n), rounds*n)
	}
}

// front is an nginx that passes requests on for somebody with a cookie.
type front struct {
	name, address, cookie string
	passed                int64
}

// compareFronts asks each for pages in turn, over 64 connections, and logs how many it passed on.
func compareFronts(t *testing.T, c *corp, fronts []*front) {
	t.Helper()
	rounds, turn := 1, time.Second
	if long() {
		rounds, turn = 5, 3*time.Second
	}
	for range rounds {
		for _, f := range fronts {
			begun := sync.OnceValue(time.Now)
			f.passed += c.asks(t, "https://"+publicHost+portOf(f.address), f.cookie, func() bool {
				return time.Since(begun()) > turn
			})
		}
	}
	for _, f := range fronts {
		t.Logf("%s: %.0f requests/s, %.0f%% of nginx alone", f.name, float64(f.passed)/(time.Duration(rounds)*turn).Seconds(),
			100*float64(f.passed)/float64(fronts[0].passed))
	}
}

// browserLines are the rest of a browser's header.
const browserLines = "\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: */*\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n\r\n"
