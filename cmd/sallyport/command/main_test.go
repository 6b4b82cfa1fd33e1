package command

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/assemble"
	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/session"
)

// Exit code 2 means that the command line or the configuration is wrong, 1 that something
// else failed. Each failure is one message, never a stack trace.
func TestExitCodesTellWhoseTurnItIs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken := takenAddress(t)
	defer taken.Close()
	good := func(listen, key string) string {
		return "version: 1\npublic_url: http://127.0.0.1:4180\nlisten: {http: \"" + listen + "\", admin: \"\"}\n" +
			"session: {keys: [\"" + key + "\"]}\n" +
			"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: " +
			"\"literal:0123456789abcdef\"}]\n" +
			"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n"
	}
	key := "literal:" + session.NewKey(time.Unix(1.7e9, 0)).Text()
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"version", 0, ""},
		{"check " + write("good.yaml", good("127.0.0.1:0", key)), 0, "warning: "},
		{"check --values " + write("good.yaml", good("127.0.0.1:0", key)), 0, "warning: "},
		{"", 2, "Usage:"},
		{"srve", 2, `unknown command "srve"`},
		{"serve --bogus", 2, "unknown flag: --bogus"},
		{"serve -c " + dir + "/none.yaml", 2, "cannot read the configuration"},
		{"serve -c " + write("bad.yaml", "version: 2\n"), 2, "bad.yaml:1:10: version: "},
		{"serve -c " + write("key.yaml", good("127.0.0.1:0", "literal:short")), 2, "not a session key"},
		{"serve -c " + write("env.yaml", good("127.0.0.1:0", "env:NOT_SET")), 2, "variable NOT_SET is not set"},
		{"check " + write("twice.yaml", good("127.0.0.1:0", key)+"version: 1\n"), 2, "twice.yaml:7:1: "},
		{"serve -c " + write("port.yaml", good(taken.Addr().String(), key)), 1, "another program has it"},
		{"serve -c " + write("addr.yaml", good("192.0.2.1:4180", key)), 1, "cannot listen on 192.0.2.1:4180"},
		{"healthcheck --url http://127.0.0.1:1/readyz", 1, "not healthy"},
	} {
		var stdout, stderr bytes.Buffer
		c := &console{stdout: &stdout, stderr: &stderr, env: func(string) (string, bool) { return "", false }}
		if code := run(strings.Fields(tt.args), c); code != tt.code {
			t.Errorf("sallyport %s: exit code %d, want %d", tt.args, code, tt.code)
		}
		if !strings.Contains(stderr.String(), tt.says) || (tt.says == "" && stderr.Len() > 0) {
			t.Errorf("sallyport %s says %q, want %q", tt.args, stderr.String(), tt.says)
		}
		if text := stderr.String() + stdout.String(); strings.Contains(text, "goroutine") ||
			strings.Contains(text, "0123456789abcdef") {
			t.Errorf("sallyport %s shows what it must not:\n%s", tt.args, text)
		}
	}
}

// TestCheckFailsWhereItsAnswerCannotBeWritten: a full disk, in a pipeline that keeps reports.
func TestCheckFailsWhereItsAnswerCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "version: 1\npublic_url: https://app.example.com\nsession: {keys: [\"file:/k\"]}\n"+
		"providers: [{id: sso, type: oidc, issuer: \"https://idp.example\", client_id: a, client_secret: \"env:S\"}]\n"+
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n")
	out, in := io.Pipe()
	_ = out.CloseWithError(errors.New("no space left"))
	var stderr bytes.Buffer
	c := &console{stdout: in, stderr: &stderr, env: func(string) (string, bool) { return "", false }}
	if code := run([]string{"check", path}, c); code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}

// TestWhatIsLoggedBeforeAFailureIsWritten, although the log has a buffer.
func TestWhatIsLoggedBeforeAFailureIsWritten(t *testing.T) {
	taken := takenAddress(t)
	defer taken.Close()
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := "version: 1\npublic_url: http://127.0.0.1:4180\nlisten: {http: \"" + taken.Addr().String() +
		"\", admin: \"\"}\n" +
		"session: {keys: [\"literal:" + session.NewKey(time.Unix(1.7e9, 0)).Text() + "\"]}\n" +
		"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: " +
		"\"literal:0123456789abcdef\"}]\n" +
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := &console{stdout: &stdout, stderr: &stderr, env: func(string) (string, bool) { return "", false }}
	if code := run([]string{"serve", "-c", path}, c); code != exitFailed ||
		!strings.Contains(stderr.String(), "another program has it") {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
	if got := strings.Count(stdout.String(), `"msg":"configuration","warning":"`); got != 2 { // the two literals
		t.Errorf("%d warnings were written:\n%s", got, stdout.String())
	}
}

func TestGroupsThatEveryProviderCanGiveAreWarnedOf(t *testing.T) {
	provider := func(id string) string {
		return "  - {id: " + id + ", type: oidc, issuer: \"https://" + id +
			".example\", client_id: a, client_secret: \"env:S\", email_domains: [" + id + ".example]}\n"
	}
	text := "version: 1\npublic_url: https://app.example.com\nsession: {keys: [\"file:/k\"]}\nproviders:\n" +
		provider("a") + provider("b") +
		"routes:\n  - {name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: [{groups: [admins]}, {groups: " +
		"[x], orgs: [\"a:1\"]}]}\n"
	cfg, _, err := parseConfig("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if w := warnings(cfg); len(w) != 1 ||
		!strings.HasPrefix(w[0].Error(),
			"c.yaml:8:66: routes[0].allow[0]: each of the providers can put people into these groups") {
		t.Errorf("warned of %v", w)
	}
}

// newFrontDoor is all of serve but its listeners.
func newFrontDoor(cfg *config.Config, sec *assemble.Secrets, reg prometheus.Registerer,
	log *slog.Logger) (*assemble.Process, error) {
	process := assemble.NewProcess(reg, log, observe.Log{Logger: log})
	runtime, err := process.Build(cfg, sec)
	if err != nil {
		return nil, err
	}
	process.Swap(runtime)
	return process, nil
}

// takenAddress is a listener that another program has.
func takenAddress(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
