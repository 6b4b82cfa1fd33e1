package command

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport-proxy/sallyport/internal/testenv"
)

const valuesSchema = root + "/charts/sallyport/values.schema.json"

// helmReads is what Helm shows where a text is demanded and a value is none: it parses
// YAML 1.1 (https://yaml.org/type/bool.html, int.html, float.html), and shows the constant
// that a value should have been.
const helmReads = "a text, in quotes: Helm reads YAML 1.1, in which off, no, on, yes, 0123, 1e3 and 1_000 are none"

// TestTheChartsSchemaHasTheConfigurations: what may stand under `config` in the chart's
// values is what the program reads.
func TestTheChartsSchemaHasTheConfigurations(t *testing.T) {
	text := read(t, valuesSchema)
	var values map[string]any
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	properties, _ := values["properties"].(map[string]any)
	if properties == nil {
		t.Fatal("the schema has no properties")
	}
	want := chartConfig(t)
	if os.Getenv("UPDATE_REFERENCE") != "" {
		properties["config"] = want
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(values); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(valuesSchema, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !reflect.DeepEqual(properties["config"], want) {
		t.Error("properties.config is not the schema of the configuration; run `make reference`")
	}
}

// chartConfig is the schema of the configuration for the chart. Nothing at all is allowed,
// so that the chart's own defaults can be linted; its template asks for `config` then.
func chartConfig(t *testing.T) any {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	required := schema["required"]
	if required == nil {
		t.Fatal("the schema requires nothing")
	}
	delete(schema, "required")
	delete(schema, "$schema")
	schema["if"] = map[string]any{"minProperties": 1.0}
	schema["then"] = map[string]any{"required": required}
	schema["description"] = "The configuration of Sallyport, as in its own file."
	explainTexts(t, schema)
	return schema
}

// explainTexts lets each part that demands a text say why a value may be none.
func explainTexts(t *testing.T, part any) {
	switch part := part.(type) {
	case map[string]any:
		if _, ref := part["$ref"]; ref {
			t.Fatal("the schema has references, which Helm would look for in the chart")
		}
		for _, below := range part {
			explainTexts(t, below)
		}
		if part["type"] == "string" {
			part["type"] = []any{"string", "boolean", "number"} // a wrong type ends the judgement of a value
			part["if"] = map[string]any{"type": []any{"boolean", "number"}}
			part["then"] = map[string]any{"const": helmReads}
		}
	case []any:
		for _, below := range part {
			explainTexts(t, below)
		}
	}
}

// TestNoKeyNeedsAWordOfYAML11: Helm would read it as true or false
// (https://yaml.org/type/bool.html).
func TestNoKeyNeedsAWordOfYAML11(t *testing.T) {
	words := regexp.MustCompile(`(?i)^(y|yes|n|no|on|off|true|false)$`)
	n := 0
	var walk func(path string, part any)
	walk = func(path string, part any) {
		switch part := part.(type) {
		case map[string]any:
			for key, below := range part {
				if strings.HasSuffix(path, "/properties") && words.MatchString(key) {
					t.Errorf("%s has the key %q", path, key)
				}
				walk(path+"/"+key, below)
			}
		case []any:
			for _, below := range part {
				walk(path, below)
			}
		case string:
			if strings.HasSuffix(path, "/enum") || strings.HasSuffix(path, "/const") {
				n++
				if words.MatchString(part) {
					t.Errorf("%s is %q", path, part)
				}
			}
		}
	}
	var schema any
	testenv.Check(t, json.Unmarshal([]byte(read(t, valuesSchema)), &schema))
	walk("", schema)
	if n < 50 {
		t.Errorf("%d words only were looked at", n)
	}
}

// TestTheChartsOwnValuesAreStrict: each mapping whose keys the schema lists has no others,
// and the schema and values.yaml list the same.
func TestTheChartsOwnValuesAreStrict(t *testing.T) {
	var schema map[string]any
	testenv.Check(t, json.Unmarshal([]byte(read(t, valuesSchema)), &schema))
	var values map[string]any
	testenv.Check(t, yaml.Load([]byte(read(t, root+"/charts/sallyport/values.yaml")), &values))
	properties := schema["properties"].(map[string]any)
	// What parents of the chart have: Helm's own, and their condition for it.
	open := map[string]bool{"global": true, "enabled": true}
	for key := range properties {
		if _, there := values[key]; !there && !open[key] {
			t.Errorf("values.yaml does not have %s", key)
		}
	}
	for key := range values {
		if properties[key] == nil {
			t.Errorf("the schema does not have %s", key)
		}
	}
	var walk func(path string, part any)
	walk = func(path string, part any) {
		switch part := part.(type) {
		case map[string]any:
			_, lists := part["properties"].(map[string]any)
			if _, closed := part["additionalProperties"]; lists && part["type"] == "object" && !closed {
				t.Errorf("%s takes any key beside those that it lists", path)
			}
			for key, below := range part {
				if path != "/properties" || key != "config" { // config is the program's own schema
					walk(path+"/"+key, below)
				}
			}
		case []any:
			for _, below := range part {
				walk(path, below)
			}
		}
	}
	walk("", schema)
}
