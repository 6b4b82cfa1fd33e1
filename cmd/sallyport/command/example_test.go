package command

import (
	"strings"
	"testing"
)

// What stands behind "#" in the example is right too: without it, grants are.
func TestTheGrantsOfTheExampleAreValid(t *testing.T) {
	before, rest, found := strings.Cut(read(t, root+"/config.example.yaml"), "\n# grants:\n")
	block, after, ended := strings.Cut(rest, "\n\n")
	if !found || !ended {
		t.Fatal("the example has no grants")
	}
	lines := []string{"grants:"}
	for line := range strings.SplitSeq(block, "\n") {
		lines = append(lines, strings.TrimPrefix(line, "#"))
	}
	text := before + "\n" + strings.ReplaceAll(strings.Join(lines, "\n"), "\n#", "\n") + "\n\n" + after
	listener := `  # grants: "127.0.0.1:4184"`
	if !strings.Contains(text, listener) {
		t.Fatal("the example has no listen.grants")
	}
	text = strings.Replace(text, listener, strings.Replace(listener, "# ", "", 1), 1)
	cfg, _, err := parseConfig("config.example.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(cfg.Grants.Connectors); n < 6 {
		t.Errorf("%d connectors", n)
	}
}
