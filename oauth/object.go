package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

var errNotObject = errors.New("not one JSON object")

// Object decodes one JSON object. It is stricter than encoding/json: names are
// compared exactly, a name that comes twice is refused (two readers could take
// different ones: security.md 104), so are invalid UTF-8 (it would be replaced,
// and two subjects become one) and anything after the object.
func Object(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return nil, errNotObject
		}
		if _, dup := members[name]; dup {
			return nil, errors.New("a name comes twice in a JSON object")
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, errNotObject
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errNotObject
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return members, nil
}
