package testenv

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// A search that finds nothing says something only if it would have found what is there, in
// each form in which files keep things.
func TestSecretsAreFoundInWhateverFormTheyAreKept(t *testing.T) {
	s, raw := &Secrets{}, "raw bytes \xff\xfe\x00 of a key"
	s.Add("token", "ya29.c4nary~of/a+token?")
	s.Add("key", base64.RawURLEncoding.EncodeToString([]byte(raw)))
	token := "ya29.c4nary~of/a+token?"
	for name, row := range map[string]struct{ text, want string }{
		"plain":               {token, "token"},
		"in an address":       {"ya29.c4nary~of%2Fa%2Btoken%3F", "token"},
		"hexadecimal":         {hex.EncodeToString([]byte(token)), "token"},
		"capital hexadecimal": {strings.ToUpper(hex.EncodeToString([]byte(token))), "token"},
		"base64":              {base64.StdEncoding.EncodeToString([]byte(token)), "token"},
		"base64, one before":  {base64.StdEncoding.EncodeToString([]byte("a" + token + "z")), "token"},
		"base64, two before":  {base64.URLEncoding.EncodeToString([]byte("ab" + token + "xyz")), "token"},
		"base64url":           {base64.RawURLEncoding.EncodeToString([]byte(token + "\xff")), "token"},
		"a column of bytes":   {`7	\\x` + hex.EncodeToString([]byte("ab"+token)) + "\t8", "token"},
		"base64 in a column": {`\\x` + hex.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte("a"+token)))),
			"token"},
		"what it encodes":           {"before " + raw + " after", "key"},
		"what it encodes in a dump": {`\\x00` + hex.EncodeToString([]byte(raw)), "key"},
		"another":                   {"ya29.c4nary~of/another+token?", ""},
		"the half of it":            {token[:12], ""},
	} {
		var want []string
		if row.want != "" {
			want = []string{row.want}
		}
		if got := s.InAnyForm("something\n" + row.text + "\nmore"); !slices.Equal(got, want) {
			t.Errorf("%s: found %q in %q", name, got, row.text)
		}
	}
}
