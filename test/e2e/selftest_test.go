package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// selftestCase is one case of `sallyport selftest --format json`.
type selftestCase struct {
	Name, Request, Result, Saw string
	Fix                        map[string]string
}

// selftestRoutes are the routes that `sallyport selftest --echo` prints, to be put at the end
// of a configuration.
func selftestRoutes(host, echo string) string {
	var lines string
	for _, route := range []string{"{name: selftest, path: /.sallyport-selftest, allow: authenticated",
		"{name: selftest-public, path: /.sallyport-selftest/public, public: {methods: [GET]}",
		"{name: selftest-from, path: /.sallyport-selftest/from, public: {from: [192.0.2.1]}"} {
		lines += "  - " + route + ", host: \"" + host + "\", upstream: \"http://" + echo + "\", websocket: true}\n"
	}
	return lines
}

// selftestOf runs `sallyport selftest` against the front at url, with the session cookie of
// somebody who is signed in ("name=value"), and returns the cases that are not ok. To use
// it in the test of a front:
//
//   - take echo := need(t, freeAddress), and let the front pass requests to http://<echo> as
//     to its app: nothing needs to listen there before
//   - append selftestRoutes("localhost", echo) to the end of Sallyport's configuration, whose
//     last key is then routes
//   - wantSelftestGreen(t, url, echo, cookie), and for a configuration without one of its
//     lines wantSelftestRed(t, url, echo, cookie, "nginx", "the line that must be named")
func selftestOf(t *testing.T, url, echo, cookie string, args ...string) []selftestCase {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(file, []byte(cookie), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(world.binary, append([]string{"selftest", url, "--echo", echo, "--cookie", "file:" + file,
		"--format", "json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if _, secret, _ := strings.Cut(cookie, "="); strings.Contains(string(out), secret) {
		t.Error("selftest printed the session cookie")
	}
	var report struct{ Cases []selftestCase }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("selftest of %s: %v\n%s", url, err, out)
	}
	if len(report.Cases) < 300 {
		t.Errorf("selftest of %s had only %d cases", url, len(report.Cases))
	}
	var faults []selftestCase
	for _, c := range report.Cases {
		if c.Result != "ok" {
			faults = append(faults, c)
		}
	}
	if (err == nil) != (len(faults) == 0) {
		t.Errorf("selftest ended with %v, and has %d faults", err, len(faults))
	}
	return faults
}

// wantSelftestGreen fails for each case that is not ok.
func wantSelftestGreen(t *testing.T, url, echo, cookie string) {
	t.Helper()
	for _, c := range selftestOf(t, url, echo, cookie) {
		t.Errorf("%s  %s  %s (%s)  %v", c.Result, c.Name, c.Request, c.Saw, c.Fix)
	}
}

// wantSelftestRed fails unless a case is not ok whose advice for the front has line in it.
func wantSelftestRed(t *testing.T, url, echo, cookie, front, line string) {
	t.Helper()
	faults := selftestOf(t, url, echo, cookie)
	for _, c := range faults {
		if strings.Contains(c.Fix[front], line) {
			return
		}
	}
	t.Errorf("nothing says that %q is missing", line)
	for _, c := range faults {
		t.Errorf("%s  %s  %s (%s)  %s", c.Result, c.Name, c.Request, c.Saw, c.Fix[front])
	}
}

// Through Sallyport as the proxy itself nothing leaks.
func TestSelftestThroughSallyportItself(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	s := overHTTP(need(t, freeAddress))
	for line := range strings.Lines(selftestRoutes("localhost", echo)) {
		s.Routes = append(s.Routes, strings.TrimPrefix(strings.TrimSpace(line), "- "))
	}
	c := ownCorp(t, s)
	wantSelftestGreen(t, c.url, echo, c.signIn(t, "mira"))
}

// Through nginx as its guide has it nothing leaks.
func TestSelftestThroughNginx(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	c := behindNginxWith(t, nginxSetup{app: echo, routes: selftestRoutes("localhost", echo)})
	wantSelftestGreen(t, c.url, echo, c.signIn(t, "mira"))
}
