package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// traefikGuide is the page whose configurations these tests run, with other addresses.
const traefikGuide = "../../docs/fronts/traefik.md"

// buildTraefik finds the program that SALLYPORT_TRAEFIK names, or builds one from Traefik's
// module, as fronts/traefik/build.sh says. That takes two cores some minutes the first time,
// so it happens only where nothing may be left out.
func (s *shared) buildTraefik() (string, error) {
	if name := os.Getenv("SALLYPORT_TRAEFIK"); name != "" {
		return name, nil
	}
	if os.Getenv("SALLYPORT_REQUIRE") != "1" && !long() {
		return "", fmt.Errorf("Traefik is %w: name one in SALLYPORT_TRAEFIK, or have it built by "+
			"SALLYPORT_CAMPAIGN=1", errMissing)
	}
	program := filepath.Join(s.dir, "traefik")
	if out, err := exec.Command(filepath.Join("fronts", "traefik", "build.sh"), program).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Traefik: %w\n%s", err, out)
	}
	return program, nil
}

// runTraefik starts the guide's Traefik. edit are pairs: what is not as in the guide besides
// the addresses, in either of its files.
func runTraefik(t *testing.T, program string, at addresses, edit ...string) *process {
	t.Helper()
	cert := need(t, world.cert)
	static, routes := filepath.Join(at.dir, "traefik.yml"), filepath.Join(at.dir, "routes.yml")
	block := func(language string, replace ...string) string {
		text := guideBlock(t, traefikGuide, language, replace...)
		return strings.NewReplacer(edit...).Replace(text)
	}
	files := map[string]string{
		static: block("traefik", `":443"`, fmt.Sprintf("%q", at.front), "/etc/traefik/sallyport.yml", routes) +
			"global: {checkNewVersion: false, sendAnonymousUsage: false}\n",
		routes: block("traefik-routes", "app.example.com", publicHost, "wiki.example.com", otherSite,
			"127.0.0.1:4180", at.public, "127.0.0.1:4182", at.asked, "127.0.0.1:8080", at.app) +
			fmt.Sprintf("tls: {certificates: [{certFile: %q, keyFile: %q}]}\n", cert.certFile, cert.keyFile),
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := start(at.dir, program, "--configFile="+static)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// behindTraefik is behindFrontWith Traefik. It listens before it has read its routes, and
// until then answers 404.
func behindTraefik(t *testing.T, app, routes string, edit ...string) (*corp, addresses) {
	t.Helper()
	program := need(t, world.traefik)
	var its addresses
	c := behindFrontWith(t, traefikGuide, app, routes, func(t *testing.T, at addresses) *process {
		its = at
		return runTraefik(t, program, at, edit...)
	})
	to := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: need(t, world.cert).pool,
		ServerName: publicHost}}}
	defer to.CloseIdleConnections()
	eventually(t, "Traefik to have its routes", func() bool {
		r, err := http.NewRequest("GET", "https://"+its.front+"/headers", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = strings.TrimPrefix(c.url, "https://")
		resp, err := to.Do(r)
		if err != nil {
			return false // it ends connections until then
		}
		_ = resp.Body.Close()
		return resp.StatusCode != 404
	})
	return c, its
}

// Everything that the guide promises of Traefik, in turn, at one site.
func TestTraefikAsksAndPassesOnWhatSallyportSays(t *testing.T) {
	t.Parallel()
	c, _ := behindTraefik(t, "", "")
	cookie := c.signIn(t, "mira")
	t.Run("signing in", func(t *testing.T) { frontSignsIn(t, c, asSallyportSays()) })
	t.Run("what the app is told", func(t *testing.T) { frontTellsWhatSallyportSays(t, c, true) })
	t.Run("statuses", func(t *testing.T) { frontStatuses(c, cookie).check(t, c) })
	t.Run("ambiguous", func(t *testing.T) { frontRefusesWhatIsAmbiguous(t, c, cookie) })
	t.Run("WebSockets", func(t *testing.T) { frontPassesWebSockets(t, c, cookie) })
	t.Run("other protocols", func(t *testing.T) { frontOpensNoOtherTunnel(t, c, cookie) })
	t.Run("WebSockets in a browser", func(t *testing.T) { frontOpensWebSockets(t, c) })
	t.Run("pages of other sites", func(t *testing.T) { frontAnswersPagesOfOtherSites(t, c, cookie, [2]int{200, 200}) })
	t.Run("without Sallyport", func(t *testing.T) { frontWithoutSallyport(t, c, cookie) })
}

// Through Traefik as its guide has it nothing leaks.
func TestSelftestThroughTraefik(t *testing.T) {
	t.Parallel()
	echo := need(t, freeAddress)
	c, at := behindTraefik(t, echo, selftestRoutes(publicHost, echo))
	wantSelftestGreen(t, c.url, echo, c.signIn(t, "mira"), throughTLS(t, at.front)...)
}

// A line of the guide that is missing, or another one, is named.
func TestSelftestNamesWhatTraefikLacks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit   []string
		advice string
	}{
		"a router without the middleware": {[]string{"[plain, sallyport]", "[plain]"}, "forwardAuth"},
		"a name that is not passed on": {[]string{"          - X-Forwarded-Email\n", ""},
			"authResponseHeaders: [X-Forwarded-Email]"},
		"the client's cookies": {[]string{"          - Cookie\n", ""}, "authResponseHeaders: [Cookie]"},
		"what a client says of itself": {[]string{"trustForwardHeader: false", "trustForwardHeader: true",
			"    http:\n", "    forwardedHeaders: {insecure: true}\n    http:\n"}, "trustForwardHeader: false"},
		"other paths for apps": {[]string{"          X-Rewrite-URL: \"\"\n", ""}, "{X-Rewrite-URL: \"\"}"},
		"other spellings": {[]string{"aliasHeadersStrategy: delete", "aliasHeadersStrategy: keep"},
			"aliasHeadersStrategy: delete"},
		"what is said of WebSockets": {[]string{"[plain, sockets, sallyport]", "[plain, sallyport]"},
			"{Sec-WebSocket-Version: \"13\"}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			echo := need(t, freeAddress)
			c, at := behindTraefik(t, echo, selftestRoutes(publicHost, echo), tt.edit...)
			wantSelftestRed(t, c.url, echo, c.signIn(t, "mira"), "Traefik", func(advice string) bool {
				return strings.Contains(advice, tt.advice)
			}, throughTLS(t, at.front)...)
		})
	}
}
