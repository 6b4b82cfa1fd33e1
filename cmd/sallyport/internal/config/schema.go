package config

import (
	"bytes"
	"encoding/json"

	yaml "go.yaml.in/yaml/v4"
)

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// Schema is the JSON Schema (draft 2020-12) of the file, for editors. It allows
// somewhat more than Parse does: no schema knows that two routes overlap.
func Schema() []byte {
	s := schema{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Sallyport configuration",
	}
	for k, v := range file().schema {
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

func (o object[T]) schema() schema {
	properties := schema{}
	var required []string
	for _, k := range o.keys {
		properties[k.name] = k.schema()
		if k.need {
			required = append(required, k.name)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	var all []any
	for _, names := range o.rivals {
		all = append(all, schema{"not": schema{"required": names}})
	}
	for _, c := range o.choices {
		var one []any
		for _, name := range c.names {
			one = append(one, schema{"required": []string{name}})
		}
		all = append(all, schema{"oneOf": one})
	}
	if all != nil {
		s["allOf"] = all
	}
	if o.some {
		s["minProperties"] = 1
	}
	return s
}

// schema is that of the shape with what the table says of the key.
func (k key[T]) schema() schema {
	s := schema{"description": k.doc}
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
