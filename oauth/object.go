package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Object decodes one JSON object. It is stricter than encoding/json: names are
// compared exactly, a name that comes twice is refused (two readers could take
// different ones: RFC 8259 §4), so are invalid UTF-8 (it would be replaced,
// and two subjects become one) and anything after the object. Errors say where,
// and quote nothing.
func Object(data []byte) (map[string]json.RawMessage, error) { return object(data, nil) }

// Members decodes those members of one JSON object that are used. It is as strict
// as Object about them and about the object, and does not judge the others.
func Members(data []byte, used ...string) (map[string]json.RawMessage, error) {
	return object(data, func(name string) bool { return slices.Contains(used, name) })
}

// object keeps the members that used names; nil names all.
func object(data []byte, used func(name string) bool) (map[string]json.RawMessage, error) {
	if bytes.HasPrefix(data, []byte("\ufeff")) { // RFC 8259 §8.1: must not be sent
		return nil, errors.New("begins with a byte order mark, which JSON must not have")
	}
	if i := invalidUTF8(data); i >= 0 {
		return nil, fmt.Errorf("not UTF-8, at byte %d", i)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	notObject := func() error { return fmt.Errorf("not one JSON object, at byte %d", dec.InputOffset()) }
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not one JSON object")
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return nil, notObject()
		}
		at := dec.InputOffset()
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, notObject()
		}
		if used != nil && !used(name) {
			continue
		}
		if _, dup := members[name]; dup {
			if used != nil {
				return nil, fmt.Errorf("%s comes twice, the second time at byte %d", name, at)
			}
			return nil, fmt.Errorf("a name comes twice in a JSON object, the second time at byte %d", at)
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, notObject()
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON object, at byte %d", dec.InputOffset())
	}
	return members, nil
}

// invalidUTF8 is where data stops being UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}
