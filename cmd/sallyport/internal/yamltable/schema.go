package yamltable

import (
	"bytes"
	"encoding/json"
	"slices"

	yaml "go.yaml.in/yaml/v4"
)

// Schema is a JSON Schema, or a part of one.
type Schema map[string]any

// JSONSchema is the JSON Schema (draft 2020-12) of what a table reads, for editors.
// It allows somewhat more than the reader does: no schema knows that two entries
// exclude each other for what they mean.
func JSONSchema[T any](title string, table Shape[T]) []byte {
	s := Schema{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   title,
	}
	for k, v := range table.Schema {
		s[k] = v
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil // only for values that are no JSON; a test compares the result
	}
	return out.Bytes()
}

func (m *mapping) schema() Schema {
	properties := Schema{}
	var required []string
	for _, k := range m.keys {
		properties[k.name] = k.schema()
		if k.need {
			required = append(required, k.name)
		}
	}
	s := Schema{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	var all []any
	for _, names := range m.rivals {
		all = append(all, m.apart(names))
	}
	for _, c := range m.choices {
		var one []any
		for _, name := range c.Names {
			one = append(one, Schema{"required": []string{name}})
		}
		if slices.Contains(c.Names, m.conditional) {
			all = append(all, Schema{"anyOf": one}, m.apart(c.Names))
			continue
		}
		all = append(all, Schema{"oneOf": one})
	}
	if m.some {
		s["minProperties"] = 1
		if slices.ContainsFunc(m.keys, func(k *entry) bool { return k.narrows }) {
			var some []any
			for _, k := range m.keys {
				if !k.narrows {
					some = append(some, Schema{"required": []string{k.name}})
				}
			}
			all = append(all, Schema{"anyOf": some})
		}
	}
	if all != nil {
		s["allOf"] = all
	}
	return s
}

// apart says that not all of names are there; a mapping at the Conditional key does not
// count.
func (m *mapping) apart(names []string) Schema {
	together := Schema{"required": names}
	if slices.Contains(names, m.conditional) {
		together["properties"] = Schema{m.conditional: Schema{"not": Schema{"type": "object"}}}
	}
	return Schema{"not": together}
}

// schema is that of the shape with what the table says of the key.
func (k *entry) schema() Schema {
	s := Schema{"description": k.doc}
	for name, v := range k.shape.schema {
		s[name] = v
	}
	if k.def != "" {
		var def any
		if yaml.Load([]byte(k.def), &def) == nil {
			s["default"] = def
		}
	}
	return s
}
