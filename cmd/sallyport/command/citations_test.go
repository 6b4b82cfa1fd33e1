package command

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// citedFile is a Markdown file in a comment, and citedCode a number of a list that
// is not in the repository. A promise of SECURITY.md (P and a number) is none.
var (
	citedFile = regexp.MustCompile(`[A-Za-z0-9_./-]+\.md\b`)
	citedCode = regexp.MustCompile(`\b[CDR]\d{1,3}(?:-[CDR]?\d{1,3})?\b|\b1[A-K]\b|(?i:\bseed \d{3}\b)`)
	// noCode looks like one: Unicode's controls, and percent escapes.
	noCode = regexp.MustCompile(`\bC[01] controls?\b|%[0-9A-Fa-f]{2}`)
)

// TestCitationsLeadSomewhere: a comment cites what a reader can open. A Markdown file
// that it names is in the repository, at its root or at the path given; and it cites
// no numbers of a list that is not.
func TestCitationsLeadSomewhere(t *testing.T) {
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		files++
		for _, fault := range badCitations(t, path) {
			t.Error(fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d Go files were looked at", files)
	}
}

// badCitations are the places in a Go file whose comments cite nothing that a reader
// of this repository has.
func badCitations(t *testing.T, path string) (faults []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Comments {
		for _, cited := range unknownCitations(strings.Join(strings.Fields(group.Text()), " ")) {
			faults = append(faults, set.Position(group.Pos()).String()+": no reader can open "+cited)
		}
	}
	return faults
}

// unknownCitations are what a comment cites and a reader of this repository has not.
func unknownCitations(comment string) (unknown []string) {
	for _, name := range citedFile.FindAllString(comment, -1) {
		if strings.HasSuffix(name, "*.md") || strings.Contains(comment, "://"+name) {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			unknown = append(unknown, name)
		}
	}
	return append(unknown, citedCode.FindAllString(noCode.ReplaceAllString(comment, ""), -1)...)
}

func TestCitationsOfPrivateListsAreNoticed(t *testing.T) {
	for comment, want := range map[string]int{
		"RFC 9110 §7.6.1, CVE-2026-40575 and docs/providers/oidc.md": 0,
		"P8, P18: see SECURITY.md":                                   0,
		"NEL and the other C1 controls; SHA-256, P-256, HTTP/2":      0,
		"Zo%C3%AB and %D0%B0":                                        0,
		"some.other.md":                                              1,
		"security.md 93: C26":                                        2,
		"R3: a slow provider":                                        1,
		"C30-C45, C90":                                               2,
		"as in docs/providers/nobody.md":                             1,
		"seed 002, D10).":                                            2,
		"from 1A, and from 1H.":                                      2,
	} {
		if got := unknownCitations(comment); len(got) != want {
			t.Errorf("%s: %q", comment, got)
		}
	}
}
