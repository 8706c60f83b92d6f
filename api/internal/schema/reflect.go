package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/internal/money"
)

// Direction tells what is read from what is written: a request is closed to unknown members and says which are required; an answer is
// open, and always has every member that is not marked omitempty or omitzero.
type Direction int

const (
	// In is a request.
	In Direction = iota
	// Out is an answer.
	Out
)

// Provider is a type that describes itself: a union, or a string with rules of its own.
type Provider interface {
	JSONSchema(b *Builder, d Direction) *Schema
}

// Prefixed is an id type.
type prefixed interface{ Prefix() string }

// Builder makes schemas and keeps the named ones, which refer to each other by name.
type Builder struct {
	names map[defKey]string
	Defs  map[string]*Schema
}

type defKey struct {
	t reflect.Type
	d Direction
}

// NewBuilder returns a Builder without definitions.
func NewBuilder() *Builder {
	return &Builder{names: map[defKey]string{}, Defs: map[string]*Schema{}}
}

// refPrefix is where OpenAPI keeps schemas.
const refPrefix = "#/components/schemas/"

var (
	providerType = reflect.TypeFor[Provider]()
	prefixedType = reflect.TypeFor[prefixed]()
	timeType     = reflect.TypeFor[time.Time]()
	moneyType    = reflect.TypeFor[money.Nanos]()
	rawType      = reflect.TypeFor[json.RawMessage]()
)

// Of returns the schema of t: a reference when t is a named struct, else in place. It panics on a type that has no JSON form, because
// that is a mistake in the route table and shows at the first start.
func (b *Builder) Of(t reflect.Type, d Direction) *Schema {
	if t.Kind() == reflect.Pointer { // before all else: a pointer has the methods of what it points to
		return nullable(b.Of(t.Elem(), d))
	}
	switch t {
	case timeType:
		return &Schema{Type: Types{"string"}, Format: "date-time"}
	case moneyType:
		return b.define(t, d, "Money", moneySchema)
	case rawType:
		return &Schema{}
	}
	if t.Implements(providerType) {
		p, ok := reflect.Zero(t).Interface().(Provider)
		if !ok {
			panic(fmt.Sprintf("schema: %s does not describe itself", t))
		}
		return p.JSONSchema(b, d)
	}
	if t.Implements(prefixedType) && t.Kind() == reflect.String {
		p, _ := reflect.Zero(t).Interface().(prefixed)
		return IDSchema(p.Prefix())
	}
	switch t.Kind() {
	case reflect.Bool:
		return &Schema{Type: Types{"boolean"}}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &Schema{Type: Types{"integer"}}
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: Types{"number"}}
	case reflect.String:
		return &Schema{Type: Types{"string"}}
	case reflect.Slice, reflect.Array:
		return &Schema{Type: Types{"array"}, Items: b.Of(t.Elem(), d)}
	case reflect.Map:
		return &Schema{Type: Types{"object"}, Additional: b.Of(t.Elem(), d)}
	case reflect.Interface:
		return &Schema{}
	case reflect.Struct:
		if t.Name() == "" {
			return b.object(t, d)
		}
		return b.define(t, d, typeName(t), func() *Schema { return b.object(t, d) })
	default:
		panic(fmt.Sprintf("schema: %s has no JSON form", t))
	}
}

// Define keeps s under a name and returns a reference to it. Providers use it for unions that are worth a name.
func (b *Builder) Define(t reflect.Type, d Direction, name string, build func() *Schema) *Schema {
	return b.define(t, d, name, build)
}

func (b *Builder) define(t reflect.Type, d Direction, name string, build func() *Schema) *Schema {
	key := defKey{t, d}
	if known, ok := b.names[key]; ok {
		return &Schema{Ref: refPrefix + known}
	}
	// One Go type in both directions has two schemas unless they turn out the same.
	if other, ok := b.names[defKey{t, 1 - d}]; ok {
		b.names[key] = name + "Input"
		if d == Out {
			b.names[key] = name + "Output"
		}
		s := build()
		if equal(s, b.Defs[other]) {
			b.names[key] = other
			return &Schema{Ref: refPrefix + other}
		}
		name = b.names[key]
		b.Defs[name] = s
		return &Schema{Ref: refPrefix + name}
	}
	if _, taken := b.Defs[name]; taken {
		panic(fmt.Sprintf("schema: two types want the name %s; %s is the second", name, t))
	}
	b.names[key] = name
	b.Defs[name] = &Schema{} // stands in while a recursive type is built
	b.Defs[name] = build()
	return &Schema{Ref: refPrefix + name}
}

func equal(a, b *Schema) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// typeName drops a generic type's package paths: Page[…/api.Agent] is AgentPage.
func typeName(t reflect.Type) string {
	name, arg, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return upperFirst(name)
	}
	arg = strings.TrimSuffix(arg, "]")
	return upperFirst(arg[strings.LastIndexAny(arg, "./")+1:]) + upperFirst(name)
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (b *Builder) object(t reflect.Type, d Direction) *Schema {
	s := &Schema{Type: Types{"object"}, Closed: d == In}
	b.fields(s, t, d)
	return s
}

func (b *Builder) fields(s *Schema, t reflect.Type, d Direction) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || (!f.IsExported() && !f.Anonymous) {
			continue
		}
		if f.Anonymous && name == "" {
			b.fields(s, f.Type, d)
			continue
		}
		if name == "" {
			name = f.Name
		}
		p := Tagged(b.Of(f.Type, d), f.Tag)
		s.Properties = append(s.Properties, Property{Name: name, Schema: p})
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if (d == Out && !optional) || (d == In && f.Tag.Get("required") == "true") {
			s.Required = append(s.Required, name)
		}
	}
}

// Tagged returns base with what a field's tags add: doc, enum, const, min, max, minlen, maxlen, minitems, maxitems, pattern, default,
// example, money.
func Tagged(base *Schema, tag reflect.StructTag) *Schema {
	s := *base
	if v := tag.Get("doc"); v != "" {
		s.Description = v
	}
	// Rules on an array of strings are about its items, except for its length.
	target := &s
	if s.Items != nil && (tag.Get("enum") != "" || tag.Get("pattern") != "" || tag.Get("maxlen") != "") {
		items := *s.Items
		s.Items, target = &items, &items
	}
	if v := tag.Get("enum"); v != "" {
		target.Enum = strings.Split(v, ",")
	}
	target.Const = tag.Get("const")
	if v := tag.Get("pattern"); v != "" {
		target.Pattern = v
		target.re = regexp.MustCompile(v)
	}
	if v := tag.Get("format"); v != "" {
		target.Format = v
	}
	for _, limit := range []struct {
		name string
		at   **int64
	}{
		{"min", &target.Minimum},
		{"max", &target.Maximum},
		{"minlen", &target.MinLength},
		{"maxlen", &target.MaxLength},
		{"minitems", &s.MinItems},
		{"maxitems", &s.MaxItems},
	} {
		if v := tag.Get(limit.name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				panic(fmt.Sprintf("schema: tag %s:%q is no integer", limit.name, v))
			}
			*limit.at = &n
		}
	}
	if v := tag.Get("default"); v != "" {
		s.Default = literal(v)
	}
	if v := tag.Get("example"); v != "" {
		s.Examples = []any{literal(v)}
	}
	s.Positive = s.Positive || tag.Get("money") == "positive"
	if s.Enum != nil && len(s.Type) == 2 { // a nullable enum: null is not among its words, so it needs a branch of its own
		inner := s
		inner.Type, inner.Description, inner.Default = s.Type[:1], "", nil
		return &Schema{Description: s.Description, Default: s.Default, AnyOf: []*Schema{&inner, {Type: Types{"null"}}}}
	}
	return &s
}

// literal reads a tag's value as JSON where it is JSON, and as a string where it is not.
func literal(v string) any {
	var out any
	if json.Unmarshal([]byte(v), &out) == nil {
		return out
	}
	return v
}

// IDSchema is the schema of ids with a prefix.
func IDSchema(prefix string) *Schema {
	pattern := "^" + prefix + "_[0-7][0-9a-hjkmnp-tv-z]{25}$"
	return &Schema{Type: Types{"string"}, Pattern: pattern, re: regexp.MustCompile(pattern)}
}

// PatternSchema is a string of a shape.
func PatternSchema(pattern, description string) *Schema {
	return &Schema{Type: Types{"string"}, Pattern: pattern, Description: description, re: regexp.MustCompile(pattern)}
}

// moneyPattern is the shape of an amount: the point is required.
const moneyPattern = `^-?(0|[1-9][0-9]{0,12})\.[0-9]{2,9}$`

func moneySchema() *Schema {
	amount := PatternSchema(moneyPattern, "Dollars, with a point and two to nine decimals: exactly nano-dollars.")
	amount.Money = true
	amount.Examples = []any{"25.00"}
	return &Schema{
		Type: Types{"object"}, Closed: true, Money: true, Required: []string{"amount", "currency"},
		Description: "An amount of money. Never a JSON number: 2^53 nano-dollars are nine million dollars.",
		Properties: Properties{
			{Name: "amount", Schema: amount},
			{Name: "currency", Schema: &Schema{Type: Types{"string"}, Enum: []string{money.Currency}}},
		},
	}
}
