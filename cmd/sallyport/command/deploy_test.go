package command

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
	"github.com/sallyport-proxy/sallyport/session"
)

// TestTheComposeFileMountsWhatItsConfigurationReads, and hides the app behind Sallyport.
func TestTheComposeFileMountsWhatItsConfigurationReads(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Ports, Secrets, Volumes, Networks []string
		}
		Secrets map[string]struct{ File string }
	}
	if err := yaml.Load([]byte(read(t, root+"/deploy/compose/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadConfig(root + "/deploy/compose/config/config.yaml"); err != nil {
		t.Fatal(err)
	}
	config := read(t, root+"/deploy/compose/config/config.yaml")
	service := compose.Services["sallyport"]
	if v := service.Volumes; len(v) != 1 || v[0] != "./config:"+filepath.Dir(defaultConfig)+":ro" {
		t.Errorf("the configuration is mounted as %v", v)
	}
	n := 0
	for _, m := range regexp.MustCompile(`file:/run/secrets/([a-z-]+)`).FindAllStringSubmatch(config, -1) {
		n++
		if !strings.Contains(strings.Join(service.Secrets, " "), m[1]) || compose.Secrets[m[1]].File == "" {
			t.Errorf("%s is no secret of the service", m[1])
		}
	}
	if n != len(service.Secrets) {
		t.Errorf("%d secrets are read, and the service has %v", n, service.Secrets)
	}
	for _, name := range []string{"app", "db"} {
		if s := compose.Services[name]; len(s.Ports) > 0 || len(s.Networks) != 1 || s.Networks[0] != "back" {
			t.Errorf("%s can be reached past Sallyport: %v, %v", name, s.Ports, s.Networks)
		}
	}
	if !strings.Contains(config, "upstream: http://app:80\n") {
		t.Error("the configuration leads elsewhere than to the app")
	}
}

// TestTheImageIsNotReplacedForADatabase: Swarm, and Podman where it is told to, replace a container
// that is not healthy, and one that waits for its database must not be.
func TestTheImageIsNotReplacedForADatabase(t *testing.T) {
	check := regexp.MustCompile(`(?m)^HEALTHCHECK .* CMD (.+)$`).FindStringSubmatch(read(t, root+"/Dockerfile"))
	if check == nil || check[1] != `["/sallyport", "healthcheck", "--live"]` {
		t.Errorf("the image's health check is %q", check)
	}
}

// TestTheUnitStartsWhatThereIs: its command is one of ours, it gives up where the
// configuration is wrong, and it waits for as long as a stop may take.
func TestTheUnitStartsWhatThereIs(t *testing.T) {
	unit := read(t, root+"/deploy/systemd/sallyport.service")
	for _, want := range []string{"\nType=notify-reload\n", "\nRestartPreventExitStatus=2\n", "\nNoNewPrivileges=yes\n",
		"\nExecStart=/usr/local/bin/sallyport serve -c " + defaultConfig + "\n", "\nTimeoutStopSec=45\n"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %q", want)
		}
	}
}

// TestTheUnitIsNotGivenUp: systemd gives up a unit that was started five times in ten seconds
// (DefaultStartLimitBurst, DefaultStartLimitIntervalSec), and waits 100 ms between two starts if
// nothing else is said. What fails at a start may last longer: an address that the machine does
// not have yet, a port that another program is about to leave.
func TestTheUnitIsNotGivenUp(t *testing.T) {
	m := regexp.MustCompile(`(?m)^RestartSec=([0-9]+)$`).FindStringSubmatch(read(t,
		root+"/deploy/systemd/sallyport.service"))
	if m == nil {
		t.Fatal("five starts take half a second, and then the unit stays down")
	}
	if wait, _ := strconv.Atoi(m[1]); 5*wait <= 10 {
		t.Errorf("five starts take %d s, and then the unit stays down", 5*wait)
	}
}

// TestTheUnitStartsAgainWhatCrashed: Go's runtime ends a process that has crashed with the exit
// code 2, after which the unit stays down, unless its environment has it end by a signal. The
// runtime takes SIGQUIT for a crash.
func TestTheUnitStartsAgainWhatCrashed(t *testing.T) {
	unit := read(t, root+"/deploy/systemd/sallyport.service")
	public, err := testenv.UnusedAddress()
	testenv.Check(t, err)
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, "version: 1\npublic_url: http://"+public+"\nlisten: {http: \""+public+"\", admin: \"\"}\n"+
		"session: {keys: [\"literal:"+session.NewKey(time.Unix(1.7e9, 0)).Text()+"\"]}\n"+
		"providers: [{id: sso, type: oidc, issuer: \"http://127.0.0.1:1\", client_id: a, client_secret: "+
		"\"literal:0123456789abcdef\"}]\n"+
		"routes: [{name: app, path: /, upstream: \"http://127.0.0.1:1\", allow: authenticated}]\n")
	self, err := os.Executable()
	testenv.Check(t, err)
	cmd := exec.Command("sh", "-c", `ulimit -c 0 && exec "$0" "$@"`, self, "serve", "-c", file)
	cmd.Env = append(os.Environ(), mainVariable+"=1")
	for _, m := range regexp.MustCompile(`(?m)^Environment=(.+)$`).FindAllStringSubmatch(unit, -1) {
		cmd.Env = append(cmd.Env, m[1])
	}
	testenv.Check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	testenv.Eventually(t, "serving", func() bool {
		return testenv.StatusOf("http://"+public+"/") == http.StatusUnauthorized
	})
	testenv.Check(t, cmd.Process.Signal(syscall.SIGQUIT))
	_ = cmd.Wait()
	stays := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.+)$`).FindStringSubmatch(unit)
	if code := cmd.ProcessState.ExitCode(); stays == nil || stays[1] == strconv.Itoa(code) {
		t.Errorf("after a crash (%v) the unit stays down", cmd.ProcessState)
	}
	if !strings.Contains(unit, "\nLimitCORE=0\n") {
		t.Error("a crash writes the memory, which holds the keys, to a file")
	}
}

// TestSystemdTakesTheUnit: its own program finds nothing to say about the unit, and next to
// nothing that a break-in would find open.
func TestSystemdTakesTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("SALLYPORT_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("no systemd-analyze (Debian: apt-get install systemd)")
	}
	self, err := os.Executable()
	testenv.Check(t, err)
	unit := strings.Replace(read(t, root+"/deploy/systemd/sallyport.service"), "/usr/local/bin/sallyport", self, 1)
	version, err := exec.Command(analyze, "--version").Output()
	testenv.Check(t, err)
	if number, _ := strconv.Atoi(strings.Fields(string(version))[1]); number < 253 { // as the unit itself says
		unit = strings.Replace(unit, "Type=notify-reload\n", "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n", 1)
	}
	file := filepath.Join(t.TempDir(), "sallyport.service")
	write(t, file, unit)
	ask := func(args ...string) string {
		out, err := exec.Command(analyze, append(args, file)...).CombinedOutput()
		if err != nil {
			return err.Error() + "\n" + string(out)
		}
		return string(out)
	}
	if out := ask("verify"); out != "" {
		t.Errorf("verify: %s", out)
	}
	// 10.0 is a service without any of it, 9.6 an ordinary one.
	const security = "security --offline=yes --threshold=20"
	if out := ask(strings.Fields(security)...); strings.HasPrefix(out, "exit status") || !strings.Contains(out, "OK") {
		t.Errorf("%s: %s", security, out)
	}
	for flaw, want := range map[string]string{"ProtectSystem=strict": "ProtectSystem=always", "UMask=": "Umask="} {
		write(t, file, strings.Replace(unit, flaw, want, 1))
		if ask("verify") == "" {
			t.Errorf("%s: not noticed", want)
		}
	}
	write(t, file, "[Service]\nExecStart="+self+"\n")
	if out := ask(strings.Fields(security)...); !strings.HasPrefix(out, "exit status") {
		t.Errorf("a unit that is not hardened passes: %s", out)
	}
}
