package schema

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

func isType(name string, v any) bool {
	switch v := v.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case json.Number:
		return name == "number" || (name == "integer" && isInteger(v))
	case []any:
		return name == "array"
	case Object:
		return name == "object"
	default:
		return false
	}
}

func isInteger(n json.Number) bool { return !strings.ContainsAny(n.String(), ".eE") }

var articles = map[string]string{
	"null": "null", "boolean": "true or false", "string": "a string", "number": "a number", "integer": "an integer",
	"array": "an array", "object": "an object",
}

func wanted(s *Schema) string {
	if s.Money {
		return `{"amount":"25.00","currency":"USD"}`
	}
	words := make([]string, len(s.Type))
	for i, t := range s.Type {
		words[i] = articles[t]
	}
	if len(words) == 0 {
		return "a value"
	}
	return strings.Join(words, " or ")
}

func typeOf(v any) string {
	for _, name := range []string{"null", "boolean", "string", "integer", "number", "array", "object"} {
		if isType(name, v) {
			return articles[name]
		}
	}
	return "that"
}

func validTime(v string) bool {
	_, err := time.Parse(time.RFC3339, v)
	return err == nil
}

// DecodeInto turns a checked body into its Go type. What the schema let through and the type refuses is a mistake of ours.
func DecodeInto(body []byte, out any) error { return json.Unmarshal(body, out) }

// AllowsNull says whether null is a value of s.
func AllowsNull(s *Schema) bool {
	return slices.Contains(s.Type, "null") || slices.ContainsFunc(s.AnyOf, AllowsNull)
}
