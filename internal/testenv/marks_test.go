package testenv

import (
	"encoding/base64"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A mark that random text contains by chance accuses where nothing was shown,
// and one that is not found in a token that was shown protects nobody.
func TestMarksAreFoundInTokensAndNotInRandomText(t *testing.T) {
	noise := make([]byte, 1<<20)
	dice := rand.NewChaCha8([32]byte{'m'})
	_, _ = dice.Read(noise)
	if seen := MarksIn(base64.RawURLEncoding.EncodeToString(noise)); seen != nil {
		t.Errorf("random text shows %q", seen)
	}
	for kind, own := range marks {
		for _, mark := range own {
			alphabet := strings.Trim(mark, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
			if alphabet && len(mark) < 5 || len(mark) < 4 || len(mark) > 16 {
				t.Errorf("%s: %q is found by chance, or is half a token", kind, mark)
			}
			if text := "Bearer " + mark + "x"; !slices.Equal(MarksIn(text), []string{mark}) {
				t.Errorf("%q shows %q", text, MarksIn(text))
			}
		}
	}
}
