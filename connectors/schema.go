package connectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"ambit.dev/ambit/internal/fault"
)

// Limits of a user's own schema.
const (
	MaxSchemaBytes = 64 << 10
	maxSchemaDepth = 64
	maxComplaints  = 5
)

// offline refuses to load anything: a schema stands by itself, and reading one must never make a request or open a file.
type offline struct{}

// Load implements jsonschema.URLLoader.
func (offline) Load(url string) (any, error) {
	return nil, fmt.Errorf("a reference to %q: a schema may refer to its own parts only", url)
}

func compile(raw json.RawMessage) (*jsonschema.Schema, error) {
	if len(raw) > MaxSchemaBytes {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(raw), MaxSchemaBytes)
	}
	if depth(raw) > maxSchemaDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxSchemaDepth)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, errors.New("it is not JSON")
	}
	object, ok := doc.(map[string]any)
	if !ok || object["type"] != "object" {
		return nil, errors.New(`it must be a JSON object with "type": "object"`)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(offline{})
	if err := c.AddResource("ambit:tool", doc); err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	schema, err := c.Compile("ambit:tool")
	if err != nil {
		var s *jsonschema.SchemaValidationError
		if errors.As(err, &s) {
			var v *jsonschema.ValidationError
			if errors.As(s.Err, &v) {
				return nil, errors.New(strings.Join(complaints(v), "; "))
			}
		}
		return nil, errors.New(strings.ReplaceAll(err.Error(), "ambit:tool", "")) //nolint:err113 // words for a person
	}
	return schema, nil
}

// depth is how deep the brackets of a JSON text nest. It reads bytes only, so that no depth can harm it.
func depth(raw []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// ValidateSchema checks that a user's own schema for a tool's arguments is a JSON Schema (2020-12) of type object that stands by itself.
// Its error is a fault with the pointer to the schema.
func ValidateSchema(pointer string, raw json.RawMessage) error {
	if _, err := compile(raw); err != nil {
		return fault.InvalidField(pointer, "invalid_schema", "This is no JSON Schema for a tool's arguments: "+err.Error()+".")
	}
	return nil
}

var english = message.NewPrinter(language.English)

// check returns what is wrong with the arguments, in sentences without an end, or nothing.
func check(schema *jsonschema.Schema, input json.RawMessage) []string {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(input))
	if err != nil {
		return []string{"they are not JSON"}
	}
	if err := schema.Validate(doc); err != nil {
		var v *jsonschema.ValidationError
		if errors.As(err, &v) {
			return complaints(v)
		}
		return []string{"they do not fit the schema"}
	}
	return nil
}

// complaints are the leaves of a validation error: what is wrong, and where.
func complaints(v *jsonschema.ValidationError) []string {
	var out []string
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			where := ""
			if len(e.InstanceLocation) > 0 {
				where = strings.Join(e.InstanceLocation, ".") + ": "
			}
			out = append(out, short(where+e.ErrorKind.LocalizedString(english)))
		}
		for _, c := range e.Causes {
			walk(c)
		}
	}
	walk(v)
	sort.Strings(out)
	if len(out) > maxComplaints {
		out = append(out[:maxComplaints], fmt.Sprintf("and %d more", len(out)-maxComplaints))
	}
	return out
}
