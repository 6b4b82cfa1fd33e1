package command

import (
	"os"
	"regexp"
	"testing"
)

// Own pages, the demo's provider and its app look like one thing: the same mark
// and the same accent, in light and in dark.
func TestDemoAndOwnPagesShareOneLook(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if read("../../../proxy/pages/mark.svg") != read("../../../internal/demo/page/mark.svg") {
		t.Error("the marks differ")
	}
	colours := regexp.MustCompile(`--(?:accent|card|text|line): (#[0-9a-f]{6});`)
	own, demo := map[string]int{}, map[string]int{}
	for _, found := range colours.FindAllStringSubmatch(read("../../../proxy/pages/style.css"), -1) {
		own[found[0]]++
	}
	for _, found := range colours.FindAllStringSubmatch(read("../../../internal/demo/page/style.css"), -1) {
		demo[found[0]]++
	}
	if len(demo) != 8 {
		t.Errorf("found %d colours in the demo's style, want 4 in light and 4 in dark: %v", len(demo), demo)
	}
	for colour := range demo {
		if own[colour] == 0 {
			t.Errorf("%s is not a colour of our own pages", colour)
		}
	}
}
