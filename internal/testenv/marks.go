package testenv

import (
	"slices"
	"strings"

	"github.com/sallyport-proxy/sallyport/internal/demo"
)

// marks are the first characters of the tokens of each kind of demo provider, the access
// token's first. Each is long, or has a character that base64url lacks, so random text (an
// assertion, a key, a cookie) does not contain it by chance.
var marks = map[string][]string{
	"":             {"demo-at-", "demo-rt-"},
	demo.Google:    {"ya29.", "1//0"},
	demo.Microsoft: {"EwBgA8l6", "0.AXoAvz"},
	demo.PagerDuty: {"pdus+_0XBPWQQ_", "pdus+_1XBPWQQ_"},
	demo.GitHub:    {"gho_16C7e42F", "ghr_1B4a2e77"},
	demo.Slack:     {"xoxp-", "xoxe-", "xoxb-"},
}

// Marks returns the first characters of the tokens of this kind of demo provider, the access
// token's first. Text that contains one of them shows a token.
func Marks(kind string) []string {
	if own, ok := marks[kind]; ok {
		return slices.Clone(own)
	}
	return slices.Clone(marks[""])
}

// MarksIn returns those marks of all kinds that text contains, sorted.
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
