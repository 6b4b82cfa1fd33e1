package command

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// follower is a Sallyport in this process that follows its file.
type follower struct {
	t             *testing.T
	public, admin string
	file          string // of the configuration
	manager       string // NOTIFY_SOCKET
	key           string
	log           syncBuffer
	stop          func() error
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newFollower(t *testing.T, file string) *follower {
	t.Helper()
	f := &follower{t: t, file: file, key: session.NewKey(time.Unix(1.7e9, 0)).Text()}
	var err error
	f.public, err = testenv.UnusedAddress()
	testenv.Check(t, err)
	f.admin, err = testenv.UnusedAddress()
	testenv.Check(t, err)
	return f
}

// config has a route of its own for each path.
func (f *follower) config(paths ...string) string {
	text := "version: 1\npublic_url: http://" + f.public + "\nlisten: {http: \"" + f.public + "\", admin: \"" + f.admin + "\"}\n" +
		"reload: {debounce: 100ms}\n" +
		"session: {keys: [\"literal:" + f.key + "\"]}\n" +
		"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: " +
		"\"literal:0123456789abcdef\"}]\nroutes:\n"
	for i, path := range paths {
		text += fmt.Sprintf("  - {name: r%d, path: %s, upstream: \"http://127.0.0.1:1\", allow: authenticated}\n", i,
			path)
	}
	return text
}

// start serves until the test ends, or stop is called.
func (f *follower) start() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	env := func(name string) (string, bool) {
		if name == "NOTIFY_SOCKET" {
			return f.manager, f.manager != ""
		}
		return os.LookupEnv(name)
	}
	go func() { ended <- serveFile(ctx, &console{stdout: &f.log, stderr: &f.log, env: env}, f.file) }()
	f.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	f.t.Cleanup(func() {
		testenv.Check(f.t, f.stop())
		if f.t.Failed() {
			f.t.Logf("it wrote:\n%s", f.log.String())
		}
	})
	testenv.Eventually(f.t, "the program to be ready", func() bool {
		return testenv.StatusOf("http://"+f.admin+"/readyz") == http.StatusOK
	})
}

func (f *follower) metric(name string) string {
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(testenv.BodyOf("http://" + f.admin + "/metrics"))
	if found == nil {
		return ""
	}
	return found[1]
}

// awaits waits for a value of a metric.
func (f *follower) awaits(name string, value int) {
	f.t.Helper()
	testenv.Eventually(f.t, name+" "+strconv.Itoa(value), func() bool { return f.metric(name) == strconv.Itoa(value) })
}

const (
	generation = "sallyport_config_generation"
	successful = "sallyport_config_last_reload_successful"
)

// knows waits until a path has a route: who has not signed in is sent to do that.
func (f *follower) knows(path string) {
	f.t.Helper()
	testenv.Eventually(f.t, "a route for "+path, func() bool { return f.status(path) == http.StatusUnauthorized })
}

// status is what a program is answered that has not signed in.
func (f *follower) status(path string) int { return testenv.StatusOf("http://" + f.public + path) }

// A Kubernetes volume changes by swapping one link, and no file in it is written to.
func TestReloadFollowsAKubernetesVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFollower(t, filepath.Join(dir, "config.yaml"))
	volume := func(n int, text string) {
		name := fmt.Sprintf("..2026_%d", n)
		testenv.Check(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		write(t, filepath.Join(dir, name, "config.yaml"), text)
		testenv.Check(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		testenv.Check(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		_ = os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%d", n-1)))
	}
	volume(1, f.config("/one"))
	testenv.Check(t, os.Symlink("..data/config.yaml", filepath.Join(dir, "config.yaml")))
	f.start()
	for n := 2; n < 5; n++ {
		volume(n, f.config(fmt.Sprintf("/path%d", n)))
		f.knows(fmt.Sprintf("/path%d", n))
		f.awaits(generation, n)
	}
}

// Whatever becomes of the file, what runs goes on, and the next good one is taken up.
func TestP15_WhatRunsLivesThroughWhatEditorsAndPeopleDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFollower(t, filepath.Join(dir, "config.yaml"))
	secret := filepath.Join(dir, "secret")
	config := func(path string) string {
		return strings.Replace(f.config(path), "literal:0123456789abcdef", "file:"+secret, 1)
	}
	write(t, secret, "0123456789abcdef")
	write(t, f.file, config("/p1"))
	f.start()
	want := 1
	refusals := 0
	takesUp := func(path string) {
		t.Helper()
		want++
		f.awaits(generation, want)
		f.knows(path)
		f.awaits(successful, 1)
	}
	refuses := func(says string) {
		t.Helper()
		refusals++
		f.awaits(`sallyport_config_reloads_total{result="refused"}`, refusals)
		f.awaits(successful, 0)
		f.awaits(generation, want)
		testenv.Eventually(t, says, func() bool { return strings.Contains(f.log.String(), says) })
	}

	// Truncated, and written piece by piece: read once, when it is whole.
	text := config("/p2")
	out, err := os.Create(f.file)
	testenv.Check(t, err)
	for piece := range 5 {
		_, err := out.WriteString(text[len(text)*piece/5 : len(text)*(piece+1)/5])
		testenv.Check(t, err)
		time.Sleep(20 * time.Millisecond) // an editor at work, faster than the debounce
	}
	testenv.Check(t, out.Close())
	takesUp("/p2")

	// Left empty for long.
	testenv.Check(t, os.Truncate(f.file, 0))
	refuses("the file is empty")
	write(t, f.file, config("/p3"))
	takesUp("/p3")

	// Replaced, as editors do.
	write(t, f.file+"~", config("/p4"))
	testenv.Check(t, os.Rename(f.file+"~", f.file))
	takesUp("/p4")

	// Removed, and put back.
	testenv.Check(t, os.Remove(f.file))
	refuses("no such file")
	write(t, f.file, config("/p5"))
	takesUp("/p5")

	// A directory in its place.
	testenv.Check(t, os.Remove(f.file))
	testenv.Check(t, os.Mkdir(f.file, 0o755))
	refusals = f.refusals() // the removal may have been seen by itself
	testenv.Eventually(t, "not a regular file", func() bool {
		return strings.Contains(f.log.String(), "config.yaml "+
			"is not a regular file")
	})
	refusals = f.refusals()
	testenv.Check(t, os.Remove(f.file))
	write(t, f.file, config("/p6"))
	takesUp("/p6")
	refusals = f.refusals()

	// A secret that everybody may read, and then not any more: no file was written to.
	testenv.Check(t, os.Chmod(secret, 0o644))
	refuses("everybody on this machine can read file")
	const unchanged = `"msg":"config unchanged"`
	said := strings.Count(f.log.String(), unchanged)
	testenv.Check(t, os.Chmod(secret, 0o600))
	f.awaits(successful, 1)
	f.awaits(generation, want)
	testenv.Eventually(t, "config unchanged", func() bool { // the log is written by another goroutine
		return strings.Count(f.log.String(), unchanged) > said
	})

	// Something else in the same directory is nobody's business.
	before := f.log.String()
	write(t, filepath.Join(dir, "notes"), "x")
	write(t, secret, "another-0123456789abcdef")
	takesUp("/p6")
	after := func() string { return strings.TrimPrefix(f.log.String(), before) }
	testenv.Eventually(t, "the change in the log", func() bool {
		return strings.Contains(after(), `"changed":["providers"]`)
	})
	if strings.Count(after(), `"msg":"config`) != 1 {
		t.Errorf("it says %s", after())
	}
}

func (f *follower) refusals() int {
	n, err := strconv.Atoi(f.metric(`sallyport_config_reloads_total{result="refused"}`))
	testenv.Check(f.t, err)
	return n
}

// The service manager is told as sd_notify(3) and systemd.service(5) want it, over a
// socket with a path and over an abstract one.
func TestReloadTellsTheServiceManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, socket := range map[string]string{"path": filepath.Join(dir, "notify"),
		"abstract": "@sallyport-test-" + filepath.Base(dir) + strconv.Itoa(os.Getpid())} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			testenv.Check(t, err)
			defer conn.Close()
			told := func(pattern string) []string {
				t.Helper()
				testenv.Check(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
				buf := make([]byte, 4096)
				n, err := conn.Read(buf)
				testenv.Check(t, err)
				m := regexp.MustCompile(pattern).FindStringSubmatch(string(buf[:n]))
				if m == nil {
					t.Fatalf("told %q, want %s", buf[:n], pattern)
				}
				return m
			}
			f := newFollower(t, filepath.Join(t.TempDir(), "config.yaml"))
			f.manager = socket
			write(t, f.file, f.config("/one"))
			f.start()
			told(`^READY=1\nSTATUS=serving[^\n]*$`)
			write(t, f.file, f.config("/two"))
			first := told(`^RELOADING=1\nMONOTONIC_USEC=([1-9][0-9]*)$`)
			told(`^READY=1\nSTATUS=serving, generation 2 of the configuration$`)
			write(t, f.file, "version: 2\n")
			second := told(`^RELOADING=1\nMONOTONIC_USEC=([1-9][0-9]*)$`)
			told(`^READY=1\nSTATUS=serving, generation 2 of the configuration; what is there now was refused: [^\n]*public_url: is required[^\n]*$`)
			if len(first[1]) > len(second[1]) || len(first[1]) == len(second[1]) && first[1] >= second[1] {
				t.Errorf("the clock went from %s to %s", first[1], second[1])
			}
			go func() { _ = f.stop() }()
			told(`^STOPPING=1$`)
		})
	}
}

// A certificate and its key are rotated, and so is the authority of an app, each in its
// file: new connections use the new ones. A pair that does not work together is refused,
// and the old one stays.
func TestReloadTakesUpCertificatesAndAuthorities(t *testing.T) {
	t.Parallel()
	own := &testenv.TLSFiles{T: t, Dir: t.TempDir()}
	own.Swap(testenv.NewKeyPair(t, "old.example", time.Now().Add(time.Hour)))
	var presented atomic.Pointer[tls.Certificate] // by the app
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = io.WriteString(w, "app")
	}))
	app.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate,
		error) {
		return presented.Load(), nil
	}}
	app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	app.Config.SetKeepAlivesEnabled(false) // each request shows which authority counts
	firstCA, secondCA := testenv.NewKeyPair(t, "app.internal", time.Now().Add(time.Hour)),
		testenv.NewKeyPair(t, "app.internal", time.Now().Add(time.Hour))
	presented.Store(firstCA.TLS(t))
	app.StartTLS()
	t.Cleanup(app.Close)

	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	write(t, ca, firstCA.Cert)
	f := newFollower(t, filepath.Join(dir, "config.yaml"))
	write(t, f.file, "version: 1\npublic_url: https://app.example.com\nlisten: {https: {address: \""+f.public+"\", cert: \"file:"+own.Path("tls.crt")+"\", key: \"file:"+own.Path("tls.key")+"\"}, admin: \""+f.admin+"\"}\n"+
		"reload: {debounce: 100ms}\nsession: {keys: [\"literal:"+f.key+"\"]}\n"+
		"providers: [{id: sso, type: oidc, issuer: \"https://sso.example\", client_id: a, client_secret: "+
		"\"literal:0123456789abcdef\"}]\nroutes: [{name: app, path: /, public: true, upstream: {url: \"https://"+app.Listener.Addr().String()+"\", ca: \"file:"+ca+"\", server_name: app.internal}}]\n")
	f.start()
	asked := func() string { // the certificate's name, and the status
		conn, err := tls.Dial("tcp", f.public, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		return fmt.Sprint(conn.ConnectionState().PeerCertificates[0].Subject.CommonName, " ", res.StatusCode)
	}
	if got := asked(); got != "old.example 200" {
		t.Fatalf("at first: %s", got)
	}
	presented.Store(secondCA.TLS(t))
	if got := asked(); got != "old.example 502" {
		t.Fatalf("an app that shows another certificate: %s", got)
	}
	write(t, ca, secondCA.Cert)
	testenv.Eventually(t, "the new authority to count", func() bool { return asked() == "old.example 200" })
	next := testenv.NewKeyPair(t, "new.example", time.Now().Add(time.Hour))
	own.Swap(testenv.KeyPair{Cert: next.Cert, Key: secondCA.Key})
	f.awaits(successful, 0)
	if got := asked(); got != "old.example 200" {
		t.Errorf("with a pair that does not work together: %s", got)
	}
	own.Swap(next)
	f.awaits(successful, 1)
	if got := asked(); got != "new.example 200" {
		t.Errorf("with the new pair: %s", got)
	}
}

// The audit stream, the probes of apps and how to stop follow the configuration too.
func TestReloadMovesTheAuditStream(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFollower(t, filepath.Join(dir, "config.yaml"))
	config := func(audit, probe string) string {
		return strings.Replace(f.config("/one"), "admin: \""+f.admin+"\"",
			"admin: {address: \""+f.admin+"\", app_probes: {"+probe+": \"http://"+f.admin+"/healthz\"}}", 1) +
			"log: {audit: " + filepath.Join(dir, audit) + "}\n"
	}
	write(t, f.file, config("first", "/probe/one"))
	f.start()
	refused := func() { f.status("/nothing") } // one line
	lines := func(name string) int {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.Count(string(text), `"event":"refused"`)
	}
	refused()
	write(t, f.file, config("second", "/probe/two"))
	f.awaits(generation, 2)
	refused()
	refused()
	if lines("first") != 1 || lines("second") != 2 {
		t.Errorf("the first stream has %d lines, the second %d", lines("first"), lines("second"))
	}
	// An auditor reads in the first one that it was left, and why there is no more in it.
	first, err := os.ReadFile(filepath.Join(dir, "first"))
	told := `"event":"operator","detail":"the configuration was changed: listen, log"`
	if err != nil || !strings.Contains(string(first), told) {
		t.Errorf("%v: the first stream is\n%s", err, first)
	}
	probes := fmt.Sprint(testenv.StatusOf("http://"+f.admin+"/probe/one"),
		testenv.StatusOf("http://"+f.admin+"/probe/two"))
	if probes != "404 200" {
		t.Errorf("the probes answer %s", probes)
	}
	write(t, f.file, config("none/third", "/probe/three"))
	f.awaits(successful, 0)
	refused()
	if lines("second") != 3 || testenv.StatusOf("http://"+f.admin+"/probe/two") != http.StatusOK {
		t.Error("a stream that cannot be opened has changed something")
	}
}
