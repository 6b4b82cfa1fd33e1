package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// caddyGuide is the page whose configurations these tests run, with other addresses.
const caddyGuide = "../../docs/fronts/caddy.md"

func caddyProgram() (string, error) { return program("caddy", "caddy")() }

// caddyfile is the guide's, with other addresses, and with nothing that would leave them:
// no certificates of its own, no other listeners.
func caddyfile(t *testing.T, at addresses) string {
	t.Helper()
	cert, port := need(t, world.cert), portOf(at.front)
	of := fmt.Sprintf(" {\n\tbind 127.0.0.1\n\ttls %s %s", cert.certFile, cert.keyFile)
	return "{\n\tadmin off\n\tauto_https off\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n" +
		guideBlock(t, caddyGuide, "caddyfile", "app.example.com, wiki.example.com {",
			fmt.Sprintf("https://%[1]s%[3]s, https://%[2]s%[3]s%[4]s", publicHost, otherSite, port, of),
			":443 {", "https://"+port+of, "127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked,
			"127.0.0.1:8080", at.app)
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

// buildCaddy finds Caddy as its module has it: the program that SALLYPORT_CADDY names, or one
// that is built now. That takes two cores three minutes the first time, and 185 MB of
// modules, so it happens only where nothing may be left out.
func (s *shared) buildCaddy() (string, error) {
	if name := os.Getenv("SALLYPORT_CADDY"); name != "" {
		return name, nil
	}
	if os.Getenv("SALLYPORT_REQUIRE") != "1" && !long() {
		return "", fmt.Errorf("the current Caddy is %w: name one in SALLYPORT_CADDY, or have it built by "+
			"SALLYPORT_CAMPAIGN=1", errMissing)
	}
	program := filepath.Join(s.dir, "caddy")
	build := exec.Command("go", "build", "-o", program, "github.com/caddyserver/caddy/v2/cmd/caddy")
	build.Dir = filepath.Join("fronts", "caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Caddy: %w\n%s", err, out)
	}
	return program, nil
}

// caddies are the programs that the guide is for: Debian's, and the current one.
func caddies() map[string]func() (string, error) {
	return map[string]func() (string, error){"Debian's": caddyProgram, "current": world.caddy}
}

// Everything that the guide promises of Caddy, in turn, at one site. The current one drops
// names with "_" and "." before it asks.
func TestCaddyAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	for name, find := range caddies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := need(t, find)
			c := behindFront(t, caddyGuide, func(t *testing.T, at addresses) *process {
				return runCaddy(t, program, caddyfile(t, at), at)
			})
			cookie := c.signIn(t, "mira")
			t.Run("signing in", func(t *testing.T) { frontSignsIn(t, c, asSallyportSays()) })
			t.Run("what the app is told", func(t *testing.T) { frontTellsWhatSallyportSays(t, c, name == "current") })
			t.Run("statuses", func(t *testing.T) { frontStatuses(c, cookie).check(t, c) })
			t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
			t.Run("WebSockets", func(t *testing.T) { frontPassesWebSockets(t, c, cookie) })
			t.Run("other protocols", func(t *testing.T) { frontOpensNoOtherTunnel(t, c, cookie) })
			t.Run("WebSockets in a browser", func(t *testing.T) { frontOpensWebSockets(t, c) })
			t.Run("pages of other sites", func(t *testing.T) { frontAnswersPagesOfOtherSites(t, c, cookie, [2]int{204, 403}) })
			t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
		})
	}
}

// A line of the guide that is missing is named.
func TestSelftestNamesWhatCaddyLacks(t *testing.T) {
	t.Parallel()
	program := need(t, caddyProgram)
	for line, advice := range map[string]string{
		"\t\timport sallyport\n":                                   "forward_auth",
		"\theader_up X-Forwarded-User {header.X-Forwarded-User}\n": "header_up X-Forwarded-User",
		"\theader_up -X-Original-*\n":                              "-X-Original-URL",
	} {
		t.Run(advice, func(t *testing.T) {
			t.Parallel()
			echo, front := need(t, freeAddress), ""
			c := behindFrontWith(t, caddyGuide, echo, selftestRoutes(publicHost, echo),
				func(t *testing.T, at addresses) *process {
					front = at.front
					return runCaddy(t, program, readdressed(t, caddyfile(t, at), line, ""), at)
				})
			wantSelftestRed(t, c.url, echo, c.signIn(t, "mira"), "Caddy", func(said string) bool {
				return strings.Contains(said, advice)
			}, throughTLS(t, front)...)
		})
	}
}
