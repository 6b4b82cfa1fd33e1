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

// behindCaddy is a site whose front is Caddy, which asks Sallyport, as the guide says.
func behindCaddy(t *testing.T) *corp {
	t.Helper()
	program := need(t, caddyProgram)
	return behindFront(t, caddyGuide, func(t *testing.T, at addresses) *process {
		return runCaddy(t, program, caddyfile(t, at), at)
	})
}

// Everything that the guide promises of Caddy, in turn, at one site.
func TestCaddyAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	c := behindCaddy(t)
	cookie := c.signIn(t, "mira")
	t.Run("signing in", func(t *testing.T) { frontSignsIn(t, c) })
	t.Run("what the app is told", func(t *testing.T) { frontTellsWhatSallyportSays(t, c, false) })
	t.Run("statuses", func(t *testing.T) { frontStatuses(c, cookie).check(t, c) })
	t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
	t.Run("WebSockets", func(t *testing.T) { frontPassesWebSockets(t, c, cookie) })
	t.Run("pages of other sites", func(t *testing.T) { frontAnswersPagesOfOtherSites(t, c, cookie) })
	t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
}
