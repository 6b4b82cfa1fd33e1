package yamltable

import (
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
