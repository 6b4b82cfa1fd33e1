package e2e

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// balancerGuide is the page whose configurations these tests run, for HAProxy and for
// Sallyport, with other addresses.
const balancerGuide = "../../docs/load-balancer.md"

// way is one of the ways in which balancerGuide sets up HAProxy: where its configuration
// stands among those in the same language.
type way int

const (
	endingTLS way = iota
	overHTTP2     // as endingTLS, but for the backend, which is all that stands there
	passingOn
)

// readdressed is a text of the guide with others in the place of some of its own, in
// pairs. Each must stand there: a guide that changed is no reason to test something else.
func readdressed(t *testing.T, block string, replace ...string) string {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(block, replace[i]) {
			t.Fatalf("%q does not stand in\n%s", replace[i], block)
		}
	}
	return strings.NewReplacer(replace...).Replace(block)
}

// fromGuide is the n-th configuration of balancerGuide in a language.
func fromGuide(t *testing.T, language string, n int) string {
	t.Helper()
	text, err := os.ReadFile(balancerGuide)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(text, -1)
	if len(found) <= n {
		t.Fatalf("%s has %d configurations in %s", balancerGuide, len(found), language)
	}
	return string(found[n][1])
}

// balanced are Sallyports behind one HAProxy, as the guide sets them up.
type balanced struct {
	*corp    // what the balancer's clients see; its process is HAProxy
	dir      string
	replicas [2]*replica
	balancer string // its address
	socket   string // where HAProxy tells how its servers are
}

// replica is one of the Sallyports.
type replica struct {
	name          string // at HAProxy
	file          string
	public, admin string
	process       *process // the one that runs, or ran last
}

func haproxyProgram() (string, error) { return program("haproxy", "haproxy")() }

// edits are what a test changes in the guide's configurations; nil changes nothing.
type edits struct{ proxy, sallyport func(string) string }

func edited(text string, edit func(string) string) string {
	if edit == nil {
		return text
	}
	return edit(text)
}

// newBalanced starts everything in a way of the guide.
func newBalanced(t *testing.T, w way, app string, edit edits) *balanced {
	t.Helper()
	program := need(t, haproxyProgram)
	cert := need(t, world.cert)
	b := &balanced{corp: &corp{site: &site{cookie: "__Host-sallyport", flow: "__Host-sallyport-flow"}}}
	var err error
	if b.dir, err = os.MkdirTemp(world.dir, "balanced-"); err != nil {
		t.Fatal(err)
	}
	b.balancer, b.socket = need(t, freeAddress), b.at("admin.sock")
	b.url = "https://" + publicHost + portOf(b.balancer)
	b.provider = need(t, func() (*provider, error) { return startProvider(b.url, false) })
	t.Cleanup(b.provider.stop)
	b.provider.process.showIfFailed(t)
	key, err := exec.Command(world.binary, "genkey").Output()
	pem, pemErr := onePEM(cert)
	if err := errors.Join(err, pemErr, os.WriteFile(b.at("session-key"), key, 0o600),
		os.WriteFile(b.at("app.pem"), pem, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		r := &replica{name: name, file: b.at(name + ".yaml"), public: need(t, freeAddress), admin: need(t, freeAddress)}
		b.replicas[i] = r
		b.write(t, r.file, edited(b.sallyport(t, w, r, app, cert), edit.sallyport))
		r.start(t)
	}
	b.write(t, b.at("haproxy.cfg"), edited(b.haproxy(t, w), edit.proxy))
	if b.process, err = start(b.dir, program, "-db", "-f", b.at("haproxy.cfg")); err != nil { // in the foreground
		t.Fatal(err)
	}
	t.Cleanup(b.process.stop)
	b.process.showIfFailed(t)
	for _, r := range b.replicas {
		b.waitFor(t, r, "UP")
	}
	return b
}

func (b *balanced) at(name string) string { return filepath.Join(b.dir, name) }

func (b *balanced) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// sallyport is the guide's configuration for r.
func (b *balanced) sallyport(t *testing.T, w way, r *replica, app string, cert certificate) string {
	t.Helper()
	replace := []string{"https://app.example.com", b.url, "https://sso.example.com", b.provider.Issuer, "id: sso",
		"id: corp", "client_id: sallyport", "client_id: " + b.provider.ClientID, `"env:SSO_SECRET"`,
		fmt.Sprintf("%q", "literal:"+b.provider.ClientSecret), "http://127.0.0.1:8080", app,
		"file:/run/secrets/session-key", "file:" + b.at("session-key"), "file:/run/secrets/database-url",
		"sqlite:" + b.at("store.db"), "10.20.0.11:4181", r.admin, "[10.20.0.5]", "[127.0.0.1]"}
	text := fromGuide(t, "yaml", 0)
	switch w {
	case overHTTP2:
		replace = append(replace, "10.20.0.11:4180", r.public, "listen:\n", "listen:\n  h2c: true\n")
	case endingTLS:
		replace = append(replace, "10.20.0.11:4180", r.public)
	case passingOn:
		text = fromGuide(t, "yaml", 1)
		replace = append(replace, "10.20.0.11:4443", r.public, "/run/secrets/tls/tls.crt", cert.certFile,
			"/run/secrets/tls/tls.key", cert.keyFile)
	}
	return readdressed(t, text, replace...) + "log: {level: warn, format: text}\n"
}

// haproxy is the guide's configuration for HAProxy. All addresses are this machine's, so
// each server has a port of its own for its checks.
func (b *balanced) haproxy(t *testing.T, w way) string {
	t.Helper()
	replace := []string{"/run/haproxy/admin.sock", b.socket, "bind :443", "bind " + b.balancer, "check port 4181", "check"}
	text, port := fromGuide(t, "haproxy", int(w)), ":4443"
	if w == overHTTP2 {
		rest, _, _ := strings.Cut(fromGuide(t, "haproxy", int(endingTLS)), "\nbackend sallyport\n")
		text = rest + "\n" + text
	}
	if w != passingOn {
		replace, port = append(replace, "/etc/haproxy/app.example.com.pem", b.at("app.pem")), ":4180"
	}
	for i, r := range b.replicas {
		replace = append(replace, fmt.Sprintf("10.20.0.%d%s", 11+i, port), r.public+" port "+portOf(r.admin)[1:])
	}
	return readdressed(t, text, replace...)
}

// onePEM is certificate and key as HAProxy wants them.
func onePEM(c certificate) ([]byte, error) {
	cert, err := os.ReadFile(c.certFile)
	key, keyErr := os.ReadFile(c.keyFile)
	return append(cert, key...), errors.Join(err, keyErr)
}

// start runs the replica; its end is awaited when the test ends.
func (r *replica) start(t *testing.T) {
	t.Helper()
	p, err := start(filepath.Dir(r.file), world.binary, "serve", "-c", r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.process = p
	t.Cleanup(p.stop)
	p.showIfFailed(t)
}

// waitFor waits until HAProxy says of a server that it is UP, or DOWN.
func (b *balanced) waitFor(t *testing.T, r *replica, state string) {
	t.Helper()
	eventually(t, fmt.Sprintf("HAProxy to say that %s is %s", r.name, state), func() bool {
		for _, p := range []*process{b.process, r.process} {
			select {
			case <-p.done:
				text, _ := p.out.now()
				t.Fatalf("%s ended:\n%s", p.cmd.Path, text)
			default:
			}
		}
		is, _ := b.ask("sallyport", r.name)
		return is["status"] == state
	})
}

// ask is what HAProxy says of a server (its command "show stat").
func (b *balanced) ask(backend, server string) (map[string]string, error) {
	conn, err := net.Dial("unix", b.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	_, _ = in.Discard(len("# "))
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("HAProxy says nothing of use: %w", err)
	}
	for _, row := range rows[1:] {
		said := map[string]string{}
		for i, column := range rows[0] {
			said[column] = row[i]
		}
		if said["pxname"] == backend && said["svname"] == server {
			return said, nil
		}
	}
	return nil, fmt.Errorf("HAProxy knows no server %s", server)
}

// status is what a new connection is answered for a GET; 0 if that fails.
func (b *balanced) status(t *testing.T, path, cookie string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	r.Close = true
	resp, err := newClient(t, http1).Do(r)
	if err != nil {
		t.Logf("GET %s: %v", path, err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
