package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
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
