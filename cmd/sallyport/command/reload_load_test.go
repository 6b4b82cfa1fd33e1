package command

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/demo"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// reloaded is the program in a process of its own, with a configuration that leads to
// either of two apps. Each app is told who asks under a name of its own, and refuses a
// request that has anything of the other's.
type reloaded struct {
	*binary
	file, key string
	provider  *testenv.Faults
	apps      [2]*httptest.Server
}

var headersOf = [2]string{"X-Of-A", "X-Of-B"}

func startReloaded(t *testing.T) *reloaded {
	t.Helper()
	r := &reloaded{binary: &binary{}, key: session.NewKey(time.Unix(1.7e9, 0)).Text()}
	var err error
	r.public, err = testenv.UnusedAddress()
	testenv.Check(t, err)
	r.admin, err = testenv.UnusedAddress()
	testenv.Check(t, err)
	r.provider = testenv.StartProvider(t, demo.ProviderOptions{ClientID: "sallyport", ClientSecret: canarySecret,
		RedirectURIs: []string{"http://" + r.public + "/.sallyport/callback/sso"}})
	for i := range r.apps {
		r.apps[i] = httptest.NewServer(appOf(i))
		t.Cleanup(r.apps[i].Close)
	}
	dir := t.TempDir()
	r.file = filepath.Join(dir, "config.yaml")
	write(t, r.file, r.config(0))
	r.run(t, dir, r.file)
	return r
}

// appOf answers with its number. At /ws it speaks a protocol that sends everything back.
func appOf(i int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo(w)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != strings.Repeat("x", len(body)) {
			http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
			return
		}
		if r.Header.Get(headersOf[i]) == "" || r.Header[headersOf[1-i]] != nil ||
			r.Header.Get("X-Forwarded-User") == "" {
			http.Error(w, fmt.Sprintf("app %d is told %v", i, r.Header), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, i)
	})
}

func echo(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	_, _ = io.Copy(conn, buf)
}

// config is the one of the n-th reload.
func (r *reloaded) config(n int) string {
	i := n % 2
	return "version: 1\npublic_url: http://" + r.public + "\nlisten: {http: \"" + r.public + "\", admin: \"" + r.admin + "\"}\n" +
		"reload: {watch: false}\nlog: {level: warn, format: json}\nsession: {keys: [\"literal:" + r.key + "\"]}\n" +
		"providers: [{id: sso, type: oidc, issuer: \"" + r.provider.URL + "\", client_id: sallyport, client_secret: " +
		"\"env:CANARY_SECRET\", email_domains: [acme.example]}]\nroutes:\n" +
		"  - {name: ws, path: /ws, upstream: \"" + r.apps[0].URL + "\", allow: authenticated, websocket: true}\n" +
		fmt.Sprintf("  - {name: app%d, path: /, upstream: %q, allow: authenticated, headers: {preset: forwarded, "+
			"set: {%s: user}}}\n", n, r.apps[i].URL, headersOf[i])
}

// reload puts a text in the place of the configuration and waits until it was judged.
func (r *reloaded) reload(t *testing.T, text, result string) {
	t.Helper()
	count := func() string {
		return regexp.MustCompile(`sallyport_config_reloads_total\{result="` + result + `"\} \d+`).FindString(testenv.BodyOf("http://" + r.admin + "/metrics"))
	}
	before := count()
	write(t, r.file+"~", text)
	testenv.Check(t, os.Rename(r.file+"~", r.file))
	testenv.Check(t, r.process.Process.Signal(syscall.SIGHUP))
	testenv.Eventually(t, "the reload to be "+result, func() bool { now := count(); return now != "" && now != before })
}

// rss is the memory of the process that is in use, in KiB.
func (r *reloaded) rss(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.process.Process.Pid))
	testenv.Check(t, err)
	n, err := strconv.Atoi(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(status))[1])
	testenv.Check(t, err)
	return n
}

// gauge is a number among the process's metrics.
func (r *reloaded) gauge(t *testing.T, name string) int {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindStringSubmatch(testenv.BodyOf("http://" + r.admin + "/metrics"))
	if line == nil {
		t.Fatal("no metric " + name)
	}
	n, err := strconv.Atoi(line[1])
	testenv.Check(t, err)
	return n
}

// signIn returns a browser in which somebody has signed in, and its Cookie header.
func (r *reloaded) signIn(t *testing.T, person string) (*testenv.Browser, string) {
	t.Helper()
	b := testenv.NewBrowser(t, nil)
	if page := b.SignIn(b.Open("http://"+r.public+"/"), person); page.Status != http.StatusOK {
		t.Fatalf("%d at %s\n%s", page.Status, page.URL, page.Body)
	}
	var pairs []string
	for _, c := range b.Cookies("http://" + r.public + "/") {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return b, strings.Join(pairs, "; ")
}

// socket is a WebSocket; what it carries is not looked at.
type socket struct {
	net.Conn
	in *bufio.Reader
}

func (r *reloaded) openSocket(t *testing.T, cookie string) *socket {
	t.Helper()
	conn, err := net.Dial("tcp", r.public)
	testenv.Check(t, err)
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %[1]s\r\nOrigin: http://%[1]s\r\nCookie: %[2]s\r\nConnection: "+
		"Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+
		"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", r.public, cookie)
	s := &socket{conn, bufio.NewReader(conn)}
	res, err := http.ReadResponse(s.in, nil)
	testenv.Check(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the WebSocket is answered with %s", res.Status)
	}
	return s
}

func (s *socket) echoes(t *testing.T, text string) {
	t.Helper()
	testenv.Check(t, s.SetDeadline(time.Now().Add(20*time.Second)))
	_, err := io.WriteString(s, text)
	testenv.Check(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(s.in, got)
	testenv.Check(t, err)
	if string(got) != text {
		t.Errorf("the WebSocket sends back %q", got)
	}
}

// ends waits until the other side has closed it.
func (s *socket) ends(t *testing.T) {
	t.Helper()
	testenv.Check(t, s.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.Copy(io.Discard, s.in); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the WebSocket goes on")
	}
}

// Sixty reloads under load, a thousand with SALLYPORT_CAMPAIGN=1, each tenth of a broken
// configuration: no request fails, none is judged by a mixture, a WebSocket lives on and
// still ends with its session, and nothing is left of what was replaced.
func TestP16_ReloadUnderLoadDropsNothing(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs /proc for the memory of another process")
	}
	reloads := 60
	if os.Getenv("SALLYPORT_CAMPAIGN") != "" {
		reloads = 1000
	}
	r := startReloaded(t)
	_, worker := r.signIn(t, "mira")
	leaving, hers := r.signIn(t, "jonas")
	ws := r.openSocket(t, hers)
	ws.echoes(t, "before")

	var served, failed, second atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	defer load.Wait()
	halt := sync.OnceFunc(func() { close(stop) })
	defer halt()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for i := range 8 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				method, body := "GET", io.Reader(nil)
				if i%4 == 0 {
					method, body = "POST", strings.NewReader(strings.Repeat("x", 32<<10))
				}
				req, err := http.NewRequest(method, "http://"+r.public+"/page", body)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Cookie", worker)
				res, err := client.Do(req)
				served.Add(1)
				if err != nil {
					failed.Add(1)
					t.Errorf("%s: %v", method, err)
					continue
				}
				text, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					failed.Add(1)
					t.Errorf("%s: %d %s %v", method, res.StatusCode, text, err)
				}
				if string(text) == "1" {
					second.Add(1)
				}
			}
		})
	}
	var first, firstGoroutines, firstFiles int
	begun := time.Now()
	for n := 1; n <= reloads; n++ {
		if n%10 == 0 {
			r.reload(t, strings.Replace(r.config(n), "upstream", "upstrem", 1), "refused")
		} else {
			r.reload(t, r.config(n), "ok")
		}
		if n == reloads/6 {
			first, firstGoroutines, firstFiles = r.rss(t), r.gauge(t, "go_goroutines"), r.gauge(t, "process_open_fds")
		}
		if n%20 == 0 {
			ws.echoes(t, "during")
		}
	}
	took := time.Since(begun)
	last, goroutines, files := r.rss(t), r.gauge(t, "go_goroutines"), r.gauge(t, "process_open_fds")
	halt()
	load.Wait()
	ws.echoes(t, "after")
	leaving.Submit(leaving.Open("http://"+r.public+"/.sallyport/logout"), "", "")
	ws.ends(t)
	t.Logf("%d reloads in %v, %d requests, %d of them to the second app, %d failed; after the first sixth and at the "+
		"end: memory %d and %d KiB, goroutines %d and %d, open files %d and %d", reloads, took.Round(time.Second),
		served.Load(), second.Load(), failed.Load(), first, last, firstGoroutines, goroutines, firstFiles, files)
	if second.Load() == 0 || second.Load() == served.Load() {
		t.Error("there was no change under load")
	}
	if last > first+32<<10 {
		t.Errorf("the memory grew from %d to %d KiB", first, last)
	}
	// Fewer than there were reloads: what each of them leaves behind would show.
	if grown := goroutines - firstGoroutines; grown > reloads/2 {
		t.Errorf("%d goroutines more than after the first sixth", grown)
	}
	if grown := files - firstFiles; grown > reloads/2 {
		t.Errorf("%d open files more than after the first sixth", grown)
	}
	if hits := r.provider.Hits(testenv.Discovery); hits > 1 {
		t.Errorf("the provider was asked for its discovery document %d times", hits)
	}
}

// Who streams while the rules change is judged by the new ones: what they let in lives
// on, the rest ends.
func TestP11_ReloadJudgesStreamsAgain(t *testing.T) {
	t.Parallel()
	r := startReloaded(t)
	_, cookie := r.signIn(t, "mira")
	ws := r.openSocket(t, cookie)
	ws.echoes(t, "one")
	r.reload(t, r.config(1), "ok")
	time.Sleep(1500 * time.Millisecond) // longer than it takes to look at a stream again
	ws.echoes(t, "two")
	only := strings.Replace(r.config(2), "allow: authenticated, websocket", "allow: [{groups: [nobodys]}], websocket",
		1)
	r.reload(t, only, "ok")
	ws.ends(t)
	r.reload(t, r.config(3), "ok")
	ws = r.openSocket(t, cookie)
	r.reload(t, strings.Replace(r.config(4), "path: /ws", "path: /elsewhere", 1), "ok")
	ws.ends(t) // the route for / has taken its place, which allows no WebSockets
}

// What is ended because the rules have changed was refused by them, and the audit stream says so: a
// request that waits for the app, an answer that is on its way, and a WebSocket.
func TestP11_WhatChangedRulesEndIsAudited(t *testing.T) {
	t.Parallel()
	r := startReloaded(t)
	begun := make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/":
			return
		case "/ws":
			echo(w)
			return
		case "/stream":
			_, _ = io.WriteString(w, "the beginning")
			_ = http.NewResponseController(w).Flush()
		}
		begun <- struct{}{}
		<-req.Context().Done()
	}))
	t.Cleanup(app.Close)
	audit := filepath.Join(t.TempDir(), "audit")
	config := func(allow string) string {
		text := strings.ReplaceAll(r.config(1), r.apps[0].URL, app.URL)
		text = strings.ReplaceAll(text, r.apps[1].URL, app.URL)
		text = strings.ReplaceAll(text, "allow: authenticated", "allow: "+allow)
		return strings.Replace(text, "format: json}", "format: json, audit: "+audit+"}", 1)
	}
	r.reload(t, config("authenticated"), "ok")
	_, cookie := r.signIn(t, "mira")
	ws := r.openSocket(t, cookie)
	answers := make(chan string, 2)
	for _, path := range []string{"/slow", "/stream"} {
		go func() {
			req, err := http.NewRequest("GET", "http://"+r.public+path, nil)
			if err != nil {
				t.Error(err)
			}
			req.Header.Set("Cookie", cookie)
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				answers <- path + " " + err.Error()
				return
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			answers <- fmt.Sprint(path, " ", res.StatusCode, " ", err)
		}()
		<-begun
	}
	r.reload(t, config("[{groups: [nobodys]}]"), "ok")
	ws.ends(t)
	got := []string{<-answers, <-answers}
	slices.Sort(got)
	if want := []string{"/slow 403 <nil>", "/stream 200 unexpected EOF"}; !slices.Equal(got, want) {
		t.Errorf("the answers are %q, want %q", got, want)
	}
	testenv.Eventually(t, "the audit stream tells of all three", func() bool {
		text, err := os.ReadFile(audit)
		testenv.Check(t, err)
		got = regexp.MustCompile(`"event":"refused".*`).FindAllString(string(text), -1)
		return len(got) == 3
	})
	for _, line := range got {
		for _, want := range []string{`"user":"sso:mira"`, `"reason":"rules_changed"`, `"request_id":"`} {
			if !strings.Contains(line, want) {
				t.Errorf("%s is not in %s", want, line)
			}
		}
	}
	metrics := testenv.BodyOf("http://" + r.admin + "/metrics")
	if want := `sallyport_decisions_total{decision="deny",mode="proxy",reason="rules_changed"} 3`; !strings.Contains(
		metrics, want) {
		t.Errorf("the metrics have no %s", want)
	}
}

// A provider that is taken out: its people are sent to sign in, their streams end, and
// who comes back from it reads what to do.
func TestReloadTakesAProviderAway(t *testing.T) {
	t.Parallel()
	r := startReloaded(t)
	browser, cookie := r.signIn(t, "mira")
	ws := r.openSocket(t, cookie)
	underway := testenv.NewBrowser(t, nil)
	form := underway.Open("http://" + r.public + "/deep?q=1") // at the provider
	r.reload(t, strings.ReplaceAll(r.config(1), "id: sso", "id: other"), "ok")
	page := underway.SignIn(form, "mira")
	if page.Status != http.StatusBadRequest || !strings.Contains(page.Body, "Start again") {
		t.Errorf("who comes back reads %d\n%s", page.Status, page.Body)
	}
	ws.ends(t)
	if page := browser.Open("http://" + r.public + "/page"); !strings.HasPrefix(page.URL.String(), r.provider.URL) {
		t.Errorf("who had a session is at %s: %d\n%s", page.URL, page.Status, page.Body)
	}
}

// A secret is rotated in its file: the next sign-in is redeemed with the new one.
func TestReloadTakesUpARotatedClientSecret(t *testing.T) {
	t.Parallel()
	r := startReloaded(t)
	secret := filepath.Join(filepath.Dir(r.file), "secret")
	write(t, secret, "first-of-two-secrets")
	r.reload(t, strings.Replace(r.config(1), "env:CANARY_SECRET", "file:"+secret, 1), "ok")
	refused := func() testenv.Page {
		b := testenv.NewBrowser(t, nil)
		return b.SignIn(b.Open("http://"+r.public+"/"), "mira")
	}
	if page := refused(); page.Status == http.StatusOK {
		t.Fatalf("a wrong secret signs in: %s", page.Body)
	}
	write(t, secret, canarySecret)
	testenv.Check(t, r.process.Process.Signal(syscall.SIGHUP))
	testenv.Eventually(t, "the new secret to be in use", func() bool {
		return strings.Contains(testenv.BodyOf("http://"+r.admin+"/metrics"), "sallyport_config_generation 3\n")
	})
	r.signIn(t, "mira")
}
