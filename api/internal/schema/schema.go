package schema

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// Schema is the subset of JSON Schema that the API uses. The zero value allows everything.
type Schema struct {
	Ref         string   `json:"$ref,omitempty"`
	Title       string   `json:"title,omitempty"`
	Description string   `json:"description,omitempty"`
	Type        Types    `json:"type,omitempty"`
	Format      string   `json:"format,omitempty"`
	Pattern     string   `json:"pattern,omitempty"`
	Enum        []string `json:"enum,omitempty"`
	Const       string   `json:"const,omitempty"`
	Default     any      `json:"default,omitempty"`
	Examples    []any    `json:"examples,omitempty"`

	Minimum   *int64 `json:"minimum,omitempty"`
	Maximum   *int64 `json:"maximum,omitempty"`
	MinLength *int64 `json:"minLength,omitempty"`
	MaxLength *int64 `json:"maxLength,omitempty"`
	MinItems  *int64 `json:"minItems,omitempty"`
	MaxItems  *int64 `json:"maxItems,omitempty"`

	Items         *Schema    `json:"items,omitempty"`
	Properties    Properties `json:"properties,omitempty"`
	Required      []string   `json:"required,omitempty"`
	MaxProperties *int64     `json:"maxProperties,omitempty"`
	PropertyNames *Schema    `json:"propertyNames,omitempty"`
	// Additional says what members beyond Properties may be; nil allows any. Closed allows none.
	Additional *Schema   `json:"-"`
	Closed     bool      `json:"-"`
	OneOf      []*Schema `json:"oneOf,omitempty"`
	AnyOf      []*Schema `json:"anyOf,omitempty"`

	// Money marks a decimal amount, whose faults have a slug of their own; Positive refuses zero and less.
	Money    bool `json:"-"`
	Positive bool `json:"-"`

	re *regexp.Regexp
}

// Types is a schema's type keyword: one name is written as a string, several as an array.
type Types []string

// MarshalJSON implements json.Marshaler.
func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

// Property is one member of an object.
type Property struct {
	Name   string
	Schema *Schema
}

// Properties keeps the order in which the Go type has its fields: the document reads as its author wrote it.
type Properties []Property

// Get returns the schema of a member, or nil.
func (p Properties) Get(name string) *Schema {
	for i := range p {
		if p[i].Name == name {
			return p[i].Schema
		}
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (p Properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, prop := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(prop.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(prop.Schema)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// MarshalJSON implements json.Marshaler: it adds what the struct's tags can't say.
func (s Schema) MarshalJSON() ([]byte, error) {
	type plain Schema
	extra := struct {
		plain
		Additional any `json:"additionalProperties,omitempty"`
	}{plain: plain(s)}
	switch {
	case s.Closed:
		extra.Additional = false
	case s.Additional != nil:
		extra.Additional = s.Additional
	}
	return json.Marshal(extra)
}

// Int is for the limits, which are pointers because zero is a limit too.
func Int(n int64) *int64 { return &n }

// nullable returns a schema that allows null beside what s allows.
func nullable(s *Schema) *Schema {
	if len(s.Type) > 0 && s.Ref == "" && len(s.Enum) == 0 {
		c := *s
		c.Type = append(append(Types{}, s.Type...), "null")
		return &c
	}
	if s.Ref == "" && len(s.Type) == 0 && len(s.OneOf) == 0 && len(s.AnyOf) == 0 {
		return s // anything, null included
	}
	inner := *s
	inner.Description = ""
	return &Schema{Description: s.Description, AnyOf: []*Schema{&inner, {Type: Types{"null"}}}}
}
