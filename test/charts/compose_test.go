package charts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

// TestComposeTakesTheFile: the library of Docker's compose reads it, by its schema and with
// what it demands of names that refer to each other.
func TestComposeTakesTheFile(t *testing.T) {
	text, err := os.ReadFile("../../deploy/compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := compose(t, string(text)); err != nil {
		t.Error(err)
	}
	for flaw, change := range map[string][2]string{
		"a key that does not exist":     {"read_only: true", "readonly: true"},
		"a network that does not exist": {"networks: [front, back]", "networks: [front, rear]"},
		"a secret that does not exist":  {"secrets: [session-key, client-secret", "secrets: [session-key, secret"},
		"a service that does not exist": {"depends_on: {db:", "depends_on: {database:"},
		"a port that is none":           {"127.0.0.1:4180:4180", "127.0.0.1:4180:web"},
	} {
		if strings.Count(string(text), change[0]) != 1 {
			t.Fatalf("%q is not in the file once", change[0])
		}
		if compose(t, strings.Replace(string(text), change[0], change[1], 1)) == nil {
			t.Errorf("%s is not noticed", flaw)
		}
	}
}

// compose reads a file as `docker compose config` does.
func compose(t *testing.T, text string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithName("sallyport"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = options.LoadProject(context.Background())
	return err
}
