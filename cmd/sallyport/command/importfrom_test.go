package command

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

// TestTheImportInTheGuideIsWhatIsPrinted: the example of the guide is run.
func TestTheImportInTheGuideIsWhatIsPrinted(t *testing.T) {
	text := read(t, root+"/docs/fronts/oauth2-proxy.md")
	_, text, _ = strings.Cut(text, "\n## Importing a configuration\n")
	t.Chdir(t.TempDir())
	testenv.Check(t, os.WriteFile("oauth2-proxy.cfg", []byte(blocks(text, "toml")[0]), 0o600))
	var out, lines bytes.Buffer
	code := run([]string{"import", "oauth2-proxy", "oauth2-proxy.cfg"},
		&console{stdout: &out, stderr: &lines, env: os.LookupEnv})
	if want := blocks(text, "yaml")[0]; code != exitFailed || out.String() != want {
		t.Errorf("exit code %d, printed\n%s", code, out.String())
	}
	if want := blocks(text, "text")[0]; lines.String() != want {
		t.Errorf("the lines are\n%s", lines.String())
	}
}

// TestTheImportForMoversIsWhatIsPrinted: the guide from ingress-nginx to the Gateway API runs
// it, and what it goes on with asks for no less, and tells apps the same.
func TestTheImportForMoversIsWhatIsPrinted(t *testing.T) {
	text := read(t, root+"/docs/fronts/gateway-api.md")
	t.Chdir(t.TempDir())
	testenv.Check(t, os.WriteFile("before.yaml", []byte(blocks(text, "kubernetes")[0]), 0o600))
	var out, lines bytes.Buffer
	code := run([]string{"import", "oauth2-proxy", "before.yaml"},
		&console{stdout: &out, stderr: &lines, env: os.LookupEnv})
	imported := blocks(text, "yaml")[0]
	if code != exitOK || out.String() != imported {
		t.Errorf("exit code %d, printed\n%s", code, out.String())
	}
	if want := blocks(text, "text")[0]; lines.String() != want {
		t.Errorf("the lines are\n%s", lines.String())
	}
	values := blocks(text, "yml")
	if len(values) != 2 {
		t.Fatalf("%d values", len(values))
	}
	want := routesIn(t, imported)
	for _, text := range values {
		var chart struct{ Config any }
		testenv.Check(t, yaml.Load([]byte(text), &chart))
		config, err := yaml.Dump(chart.Config)
		testenv.Check(t, err)
		if got := routesIn(t, string(config)); !reflect.DeepEqual(got, want) {
			t.Errorf("the routes are %v, and not %v", got, want)
		}
	}
}

// routesIn are the routes of a configuration, without where they lead.
func routesIn(t *testing.T, text string) []map[string]any {
	t.Helper()
	if _, _, err := parseConfig("config.yaml", []byte(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var config struct{ Routes []map[string]any }
	testenv.Check(t, yaml.Load([]byte(text), &config))
	for _, route := range config.Routes {
		delete(route, "upstream")
	}
	return config.Routes
}

func TestAnImportWritesANewFileForItsOwnerAndOverwritesNone(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "flags"), filepath.Join(dir, "out.yaml")
	testenv.Check(t, os.WriteFile(in, []byte("--client-id=a\n--client-secret=KEEP-OUT\n--email-domain=example.com\n"+
		"--upstream=http://127.0.0.1:1\n"), 0o600))
	importIt := func(args ...string) (int, string) {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"import", "oauth2-proxy"}, args...),
			&console{stdout: &stdout, stderr: &stderr, env: os.LookupEnv})
		return code, stdout.String() + stderr.String()
	}
	if code, text := importIt(in, "-o", out); code != exitOK || strings.Contains(text, "KEEP-OUT") {
		t.Errorf("exit code %d: %s", code, text)
	}
	info, err := os.Stat(out)
	testenv.Check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	before := read(t, out)
	if code, text := importIt(in, "-o", out); code != exitConfig || read(t, out) != before {
		t.Errorf("exit code %d: %s", code, text)
	}
	for _, args := range [][]string{{}, {filepath.Join(dir, "absent")}, {in, "--env-file", filepath.Join(dir, "absent")}, {out}} {
		if code, text := importIt(args...); code != exitConfig {
			t.Errorf("%v: exit code %d: %s", args, code, text)
		}
	}
}
