package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// caddyGuide is the page whose configurations these tests run, with other addresses.
const caddyGuide = "../../docs/fronts/caddy.md"

func caddyProgram() (string, error) {
	found, err := exec.LookPath("caddy")
	if err != nil {
		return "", fmt.Errorf("Caddy is %w (Debian: apt-get install caddy)", errMissing)
	}
	return found, nil
}

// caddyfile is the guide's, with other addresses, and with nothing that would leave them:
// no certificates of its own, no other listeners.
func caddyfile(t *testing.T, at addresses) string {
	t.Helper()
	cert := need(t, world.cert)
	port := portOf(at.front)
	return "{\n\tadmin off\n\tauto_https off\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n" +
		guideBlock(t, caddyGuide, "caddyfile", "app.example.com, wiki.example.com {",
			fmt.Sprintf("https://%s%s, https://%s%s {\n\tbind 127.0.0.1\n\ttls %s %s", publicHost, port, otherSite, port,
				cert.certFile, cert.keyFile), "127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked, "127.0.0.1:8080", at.app)
}

// runCaddy starts a Caddy with a Caddyfile. Its home is at.dir.
func runCaddy(t *testing.T, program, caddyfile string, at addresses) *process {
	t.Helper()
	file := filepath.Join(at.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Dir = at.dir
	cmd.Env = append(os.Environ(), "HOME="+at.dir, "XDG_CONFIG_HOME="+at.dir, "XDG_DATA_HOME="+at.dir)
	p, err := startCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// currentCaddy is Caddy as its module has it: the program that SALLYPORT_CADDY names, or one
// that is built now. That takes two cores three minutes the first time, and 185 MB of
// modules, so it happens only where nothing may be left out.
func (s *shared) currentCaddy() (string, error) {
	if name := os.Getenv("SALLYPORT_CADDY"); name != "" {
		return name, nil
	}
	if os.Getenv("SALLYPORT_REQUIRE") != "1" && !long() {
		return "", fmt.Errorf("the current Caddy is %w: name one in SALLYPORT_CADDY, or let SALLYPORT_CAMPAIGN=1 build it",
			errMissing)
	}
	program := filepath.Join(s.dir, "caddy")
	build := exec.Command("go", "build", "-o", program, "github.com/caddyserver/caddy/v2/cmd/caddy")
	build.Dir = filepath.Join("fronts", "caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Caddy: %w\n%s", err, out)
	}
	return program, nil
}

// Everything that the guide promises of Caddy, in turn, at one site: with Debian's, and with
// the current one, which drops names with "_" and "." before it asks.
func TestCaddyAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	for _, caddy := range []struct {
		name    string
		program func() (string, error)
		drops   bool
	}{{"Debian's", caddyProgram, false}, {"current", world.currentCaddy, true}} {
		t.Run(caddy.name, func(t *testing.T) {
			t.Parallel()
			program := need(t, caddy.program)
			c := behindFront(t, caddyGuide, func(t *testing.T, at addresses) *process {
				return runCaddy(t, program, caddyfile(t, at), at)
			})
			frontKeepsItsPromises(t, c, caddy.drops)
		})
	}
}
