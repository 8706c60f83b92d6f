package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

// maxFields bounds how many mistakes one answer lists.
const maxFields = 20

// Codes of fields' faults.
const (
	CodeUnknown  = "unknown_field"
	CodeMissing  = "required"
	CodeType     = "wrong_type"
	CodeValue    = "invalid_value"
	CodeRange    = "out_of_range"
	CodeTooLong  = "too_long"
	CodeTooShort = "too_short"
	CodeMoney    = "invalid_money"
)

// Validate checks a value that Read returned and lists what is wrong with it, at most twenty things, each with its place.
func (b *Builder) Validate(s *Schema, v any, at string) []fault.Field {
	c := checker{b: b}
	c.check(s, v, at)
	return c.fields
}

type checker struct {
	b      *Builder
	fields []fault.Field
}

func (c *checker) fail(at, code, format string, args ...any) {
	if len(c.fields) < maxFields {
		c.fields = append(c.fields, fault.Field{Pointer: at, Code: code, Message: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) resolve(s *Schema) *Schema {
	for s.Ref != "" {
		s = c.b.Defs[strings.TrimPrefix(s.Ref, refPrefix)]
	}
	return s
}

func (c *checker) check(s *Schema, v any, at string) {
	positive := s.Positive
	s = c.resolve(s)
	if len(s.OneOf) > 0 || len(s.AnyOf) > 0 {
		c.union(append(slices.Clone(s.OneOf), s.AnyOf...), v, at, positive)
		return
	}
	if len(s.Type) > 0 && !slices.ContainsFunc(s.Type, func(t string) bool { return isType(t, v) }) {
		code := CodeType
		if s.Money {
			code = CodeMoney
		}
		c.fail(at, code, "%s must be %s, not %s.", place(at), wanted(s), typeOf(v))
		return
	}
	switch v := v.(type) {
	case string:
		c.text(s, v, at)
	case json.Number:
		c.number(s, v, at)
	case []any:
		c.array(s, v, at)
	case Object:
		before := len(c.fields)
		c.object(s, v, at)
		if s.Money && positive && len(c.fields) == before {
			if n, err := money.Parse(v["amount"].(string)); err == nil && n <= 0 {
				c.fail(at+"/amount", CodeMoney, "%s must be more than zero.", place(at))
			}
		}
	}
}

func (c *checker) text(s *Schema, v, at string) {
	if s.Const != "" && v != s.Const {
		c.fail(at, CodeValue, "%s must be %q.", place(at), s.Const)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		c.fail(at, CodeValue, "%s must be one of %s.", place(at), strings.Join(s.Enum, ", "))
		return
	}
	n := int64(utf8.RuneCountInString(v))
	if s.MinLength != nil && n < *s.MinLength {
		if n == 0 {
			c.fail(at, CodeTooShort, "%s must not be empty.", place(at))
		} else {
			c.fail(at, CodeTooShort, "%s must have at least %d characters.", place(at), *s.MinLength)
		}
		return
	}
	if s.MaxLength != nil && n > *s.MaxLength {
		c.fail(at, CodeTooLong, "%s must have at most %d characters, not %d.", place(at), *s.MaxLength, n)
		return
	}
	if s.re != nil && !s.re.MatchString(v) {
		if s.Money {
			c.fail(at, CodeMoney, `%s must be dollars with a point and two to nine decimals, such as "25.00".`, place(at))
			return
		}
		c.fail(at, CodeValue, "%s does not have the right form: %s.", place(at), s.Pattern)
		return
	}
	if s.Money {
		if _, err := money.Parse(v); err != nil {
			c.fail(at, CodeMoney, "%s is an amount larger than can be held.", place(at))
		}
	}
	if s.Format == "date-time" && !validTime(v) {
		c.fail(at, CodeValue, "%s must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z.", place(at))
	}
}

func (c *checker) number(s *Schema, v json.Number, at string) {
	if s.Minimum == nil && s.Maximum == nil && !slices.Contains(s.Type, "integer") {
		return
	}
	n, err := v.Int64()
	if err != nil {
		c.fail(at, CodeRange, "%s is a number out of range.", place(at))
		return
	}
	switch {
	case s.Minimum != nil && n < *s.Minimum && s.Maximum != nil, s.Maximum != nil && n > *s.Maximum && s.Minimum != nil:
		c.fail(at, CodeRange, "%s must be from %d to %d.", place(at), *s.Minimum, *s.Maximum)
	case s.Minimum != nil && n < *s.Minimum:
		c.fail(at, CodeRange, "%s must be at least %d.", place(at), *s.Minimum)
	case s.Maximum != nil && n > *s.Maximum:
		c.fail(at, CodeRange, "%s must be at most %d.", place(at), *s.Maximum)
	}
}

func (c *checker) array(s *Schema, v []any, at string) {
	if s.MinItems != nil && int64(len(v)) < *s.MinItems {
		c.fail(at, CodeTooShort, "%s must have at least %d items.", place(at), *s.MinItems)
	}
	if s.MaxItems != nil && int64(len(v)) > *s.MaxItems {
		c.fail(at, CodeTooLong, "%s must have at most %d items, not %d.", place(at), *s.MaxItems, len(v))
		return
	}
	if s.Items == nil {
		return
	}
	for i, item := range v {
		c.check(s.Items, item, at+"/"+strconv.Itoa(i))
	}
}

func (c *checker) object(s *Schema, v Object, at string) {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			code := CodeMissing
			if s.Money {
				code = CodeMoney
			}
			c.fail(at+"/"+Escape(name), code, "%s is required.", place(at+"/"+name))
		}
	}
	if s.MaxProperties != nil && int64(len(v)) > *s.MaxProperties {
		c.fail(at, CodeTooLong, "%s must have at most %d members, not %d.", place(at), *s.MaxProperties, len(v))
	}
	names := make([]string, 0, len(v))
	for name := range v {
		names = append(names, name)
	}
	sort.Strings(names) // the same request gets the same answer
	for _, name := range names {
		here := at + "/" + Escape(name)
		if s.PropertyNames != nil {
			c.check(s.PropertyNames, name, here)
		}
		switch p := s.Properties.Get(name); {
		case p != nil:
			c.check(p, v[name], here)
		case s.Closed:
			c.fail(here, CodeUnknown, "%s is not a field of this request.", place(here))
		case s.Additional != nil:
			c.check(s.Additional, v[name], here)
		}
	}
}

// union picks the branch that the writer meant, so that its mistakes can be named: by JSON type, then by a constant member such as
// "type", then by the required members that are there.
func (c *checker) union(branches []*Schema, v any, at string, positive bool) {
	var fit []*Schema
	var words []string
	for _, b := range branches {
		r := c.resolve(b)
		if len(r.OneOf) > 0 || len(r.AnyOf) > 0 {
			fit = append(fit, r)
			continue
		}
		words = append(words, wanted(r))
		if len(r.Type) == 0 || slices.ContainsFunc(r.Type, func(t string) bool { return isType(t, v) }) {
			fit = append(fit, b)
		}
	}
	object, isObject := v.(Object)
	if isObject && len(fit) > 1 {
		var ok bool
		if fit, ok = c.discriminate(fit, object, at); !ok {
			return
		}
	}
	if len(fit) == 0 {
		code := CodeType
		if slices.ContainsFunc(branches, func(b *Schema) bool { return c.resolve(b).Money }) {
			code = CodeMoney
		}
		c.fail(at, code, "%s must be %s, not %s.", place(at), strings.Join(words, " or "), typeOf(v))
		return
	}
	chosen := fit[0]
	if positive && chosen.Ref != "" {
		p := *chosen
		p.Positive = true
		chosen = &p
	}
	c.check(chosen, v, at)
}

func (c *checker) discriminate(fit []*Schema, v Object, at string) ([]*Schema, bool) {
	var constants []string
	for _, b := range fit {
		for _, p := range c.resolve(b).Properties {
			if p.Schema.Const == "" {
				continue
			}
			if given, ok := v[p.Name].(string); ok && given == p.Schema.Const {
				return []*Schema{b}, true
			}
			constants = append(constants, p.Schema.Const)
		}
	}
	if len(constants) == len(fit) {
		c.fail(at+"/type", CodeValue, "%s must be one of %s.", place(at+"/type"), strings.Join(constants, ", "))
		return nil, false
	}
	for _, b := range fit {
		all := true
		for _, name := range c.resolve(b).Required {
			if _, ok := v[name]; !ok {
				all = false
			}
		}
		if all {
			return []*Schema{b}, true
		}
	}
	var ways []string
	for _, b := range fit {
		ways = append(ways, "{"+strings.Join(c.resolve(b).Required, ", ")+"}")
	}
	c.fail(at, CodeMissing, "%s must have the members of one of: %s.", place(at), strings.Join(ways, " or "))
	return nil, false
}

// place names a field in a sentence: its pointer without the leading slash, with dots.
func place(at string) string {
	if at == "" {
		return "The body"
	}
	return strings.ReplaceAll(strings.TrimPrefix(at, "/"), "/", ".")
}
