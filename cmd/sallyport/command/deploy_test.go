package command

import (
	"regexp"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
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
	if _, _, err := loadConfig(root + "/deploy/compose/config.yaml"); err != nil {
		t.Fatal(err)
	}
	config := read(t, root+"/deploy/compose/config.yaml")
	service := compose.Services["sallyport"]
	if v := service.Volumes; len(v) != 1 || v[0] != "./config.yaml:/etc/sallyport/config.yaml:ro" {
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
