package importer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// readTOML reads oauth2-proxy.cfg. before is how many lines of the input stand before it.
func (s *sources) readTOML(name, body string, before int) error {
	var values map[string]any
	if err := toml.Unmarshal([]byte(body), &values); err != nil {
		line := 1
		if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ = bad.Position()
		}
		return fault{name, before + max(line, 1), "is not TOML"} // the decoder's words may quote the line
	}
	lines := keyLines(body)
	keys := slices.SortedFunc(maps.Keys(values), func(a, b string) int { return lines[a] - lines[b] })
	for _, key := range keys {
		line := before + max(lines[key], 1)
		texts, ok := tomlTexts(values[key])
		if !ok {
			return fault{name, line, "is neither a text, a number, true or false, nor a list of these"}
		}
		if _, isList := values[key].([]any); !isList && len(texts) == 1 {
			texts = s.split(key, fromFile, texts[0])
		}
		s.add(setting{key: key, values: texts, rank: fromFile, file: name, line: line})
	}
	return nil
}

// keyLines is where each key of the top level stands. The decoder tells it of every key that
// a structure without fields does not have.
func keyLines(body string) map[string]int {
	lines := map[string]int{}
	dec := toml.NewDecoder(strings.NewReader(body)).DisallowUnknownFields()
	var none struct{}
	strict, ok := errors.AsType[*toml.StrictMissingError](dec.Decode(&none))
	if !ok {
		return lines
	}
	for i := range strict.Errors {
		e := &strict.Errors[i]
		if key := e.Key(); len(key) > 0 && lines[key[0]] == 0 {
			lines[key[0]], _ = e.Position()
		}
	}
	return lines
}

// tomlTexts is a value as texts.
func tomlTexts(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case bool:
		return []string{strconv.FormatBool(v)}, true
	case int64, float64:
		return []string{fmt.Sprint(v)}, true
	case []any:
		all := []string{}
		for _, item := range v {
			one, ok := tomlTexts(item)
			if !ok || len(one) != 1 {
				return nil, false
			}
			all = append(all, one[0])
		}
		return all, true
	}
	return nil, false
}
