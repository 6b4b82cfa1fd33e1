package yamltable

import (
	"fmt"
	"strings"
)

// Nearest finds the candidate that word is probably a slip of: most often one
// letter off, swapped or missing, or "-" for "_".
func Nearest(word string, candidates []string) string {
	if len(word) > 40 {
		return ""
	}
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(plainWord(word), plainWord(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// Meant says which of names a word was probably meant as; where it is like none of them, which
// there are.
func Meant(word string, names []string) (nearest, others string) {
	if nearest = Nearest(word, names); nearest == "" {
		others = ThereIs(names)
	}
	return nearest, others
}

// mostNamed is how many names are listed.
const mostNamed = 12

// ThereIs lists the names that there are, to follow a sentence that one is not among them; "":
// there are none.
func ThereIs(names []string) string {
	named := names[:min(len(names), mostNamed)]
	switch more := len(names) - len(named); {
	case len(names) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf("; there is %s, and %d more", strings.Join(named, ", "), more)
	}
	return "; there is " + strings.Join(named, ", ")
}

func plainWord(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance is the number of letters to insert, drop, change or swap with their
// neighbour that makes a into b (optimal string alignment).
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
