package testenv

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

// marks are how the tokens of each kind of the demo provider begin, the access
// token's first. Each is so long, or has a character that base64url lacks, that
// random text (an assertion, a key, a cookie) does not contain it by chance.
var marks = map[string][]string{
	"":             {"demo-at-", "demo-rt-"},
	demo.Google:    {"ya29.", "1//0"},
	demo.Microsoft: {"EwBgA8l6", "0.AXoAvz"},
	demo.PagerDuty: {"pdus+_0XBPWQQ_", "pdus+_1XBPWQQ_"},
	demo.Slack:     {"xoxp-", "xoxe-"},
}

// Marks returns how the tokens of the demo provider of this shape begin, the
// access token's first. Where one of them is seen, a token was shown.
func Marks(shape string) []string {
	if own, ok := marks[shape]; ok {
		return slices.Clone(own)
	}
	return slices.Clone(marks[""])
}

// MarksIn returns those marks, of all shapes, that are seen in text, sorted.
func MarksIn(text string) []string {
	var seen []string
	for _, own := range marks {
		for _, mark := range own {
			if strings.Contains(text, mark) {
				seen = append(seen, mark)
			}
		}
	}
	slices.Sort(seen)
	return seen
}
