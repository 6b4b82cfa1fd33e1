package granttest

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-proxy/sallyport/grant"
)

var (
	guideCode   = regexp.MustCompile("`([a-z_]+)`|\\b(\\d{5,7})\\b")
	guideReason = regexp.MustCompile("reason `([a-z_]+)`")
)

// GuideCodes holds a connector to the table of its guide, a file, that says what errors of the
// token endpoint mean: refused makes the connector fail by a code, a word or a number, and
// returns its error. What only comes with a browser (access_denied) is left out, and so are
// rows of a code with another one beside it.
func GuideCodes(t *testing.T, file string, refused func(code string) error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), " errors mean\n")
	table, _, _ = strings.Cut(table, "\n## ")
	classes := map[string]grant.Class{"the person's": grant.Yours, "an administrator's": grant.AdminTheir,
		"the operator's": grant.Ours, "nobody's": grant.Later}
	codes := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.Contains(cells[1], "` with `") {
			continue
		}
		class, known := classes[strings.TrimSpace(cells[2])]
		if !known {
			continue
		}
		if strings.Contains(cells[3], "`"+string(grant.RevokedUpstream)+"`") {
			class = grant.Gone
		}
		for _, m := range guideCode.FindAllStringSubmatch(cells[1], -1) {
			code := m[1] + m[2]
			if code == "access_denied" {
				continue
			}
			codes++
			e, ok := errors.AsType[*grant.Error](refused(code))
			if !ok || e.Class != class {
				t.Errorf("%s says that %s is %s, and it is %+v", file, code, strings.TrimSpace(cells[2]), e)
				continue
			}
			if want := guideReason.FindStringSubmatch(cells[3]); want != nil && want[1] != e.Reason {
				t.Errorf("%s says that the reason with %s is %s, and it is %s", file, code, want[1], e.Reason)
			}
		}
	}
	if !found || codes < 5 {
		t.Errorf("%s has no table of errors: %d codes", file, codes)
	}
}
