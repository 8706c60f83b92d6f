package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/apidoc"
)

// Reference is the route table as its reference page shows it.
func (a *API) Reference() apidoc.Reference {
	ref := apidoc.Reference{Version: Version, BaseURL: a.cfg.BaseURL}
	for _, t := range tags {
		g := apidoc.Group{Tag: t.Name, Summary: t.Description}
		for _, m := range a.routes {
			if m.Tag == t.Name {
				g.Operations = append(g.Operations, a.describe(m))
			}
		}
		if len(g.Operations) > 0 {
			ref.Groups = append(ref.Groups, g)
		}
	}
	return ref
}

func (a *API) describe(m *mounted) apidoc.Operation {
	op := apidoc.Operation{
		ID: m.ID, Method: m.Method, Path: m.Path, Summary: m.Summary, Description: m.Description, Permission: string(m.Permission),
		Idempotent: m.Endpoint.keyed && m.Method == http.MethodPost, Status: m.Endpoint.status, MediaType: m.Endpoint.media, Errors: m.Errors,
	}
	for _, p := range m.allParams() {
		name, kind := p.name, "object of times: gt, gte, lt, lte"
		if p.schema != nil {
			kind = a.kindOf(p.schema)
		}
		op.Parameters = append(op.Parameters, apidoc.Parameter{Name: name, In: p.in, Type: kind, Required: p.required, Description: p.doc})
	}
	if m.binding.body != nil {
		op.Request = a.flatten(m.binding.body, "", nil)
	}
	if m.out != nil {
		op.Response = a.flatten(m.out, "", nil)
	}
	op.Curl = a.curl(m)
	return op
}

func (a *API) resolve(s *schema.Schema) *schema.Schema {
	for s.Ref != "" {
		s = a.builder.Defs[s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]]
	}
	return s
}

// flatten lists an object's members and theirs. A type that contains itself is listed once.
func (a *API) flatten(s *schema.Schema, at string, above []*schema.Schema) (out []apidoc.Field) {
	s = a.resolve(s)
	for _, one := range above {
		if one == s {
			return nil
		}
	}
	above = append(above, s)
	for _, p := range s.Properties {
		path := p.Name
		if at != "" {
			path = at + "." + p.Name
		}
		required := false
		for _, name := range s.Required {
			required = required || name == p.Name
		}
		inner := a.resolve(p.Schema)
		doc := p.Schema.Description
		if doc == "" {
			doc = inner.Description
		}
		out = append(out, apidoc.Field{Path: path, Type: a.kindOf(p.Schema), Required: required, Description: doc})
		if !inner.Money {
			out = append(out, a.inside(p.Schema, path, above)...)
		}
	}
	return out
}

func (a *API) inside(s *schema.Schema, path string, above []*schema.Schema) (out []apidoc.Field) {
	s = a.resolve(s)
	switch {
	case s.Items != nil:
		return a.inside(s.Items, path+"[]", above)
	case len(s.OneOf)+len(s.AnyOf) > 0:
		for _, branch := range append(append([]*schema.Schema{}, s.OneOf...), s.AnyOf...) {
			out = append(out, a.inside(branch, path, above)...)
		}
		return out
	case s.Money:
		return nil
	default:
		return a.flatten(s, path, above)
	}
}

func (a *API) kindOf(s *schema.Schema) string {
	s = a.resolve(s)
	if len(s.Enum) > 0 {
		return strings.Join(s.Enum, " | ")
	}
	if s.Const != "" {
		return fmt.Sprintf("%q", s.Const)
	}
	if s.Money {
		return "money"
	}
	if branches := append(append([]*schema.Schema{}, s.OneOf...), s.AnyOf...); len(branches) > 0 {
		words := make([]string, len(branches))
		for i, b := range branches {
			words[i] = a.kindOf(b)
		}
		return strings.Join(words, " or ")
	}
	if s.Items != nil {
		return "array of " + a.kindOf(s.Items)
	}
	if len(s.Type) == 0 {
		return "any"
	}
	kind := strings.Join(s.Type, " or ")
	if s.Format != "" {
		kind += " (" + s.Format + ")"
	}
	return kind
}

// curl is a command line for the route. Bodies are the required members only, with values that fit.
func (a *API) curl(m *mounted) string {
	var b strings.Builder
	b.WriteString("curl " + a.cfg.BaseURL + m.Path)
	if m.Permission != "" {
		b.WriteString(" \\\n  -H \"Authorization: Bearer $AMBIT_KEY\"")
	}
	if m.Method != http.MethodGet && (m.Method != http.MethodPost || m.binding.body == nil) {
		b.WriteString(" \\\n  -X " + m.Method)
	}
	if m.binding.body != nil {
		body, err := json.Marshal(a.example(m.binding.body, 0))
		if err == nil {
			b.WriteString(" \\\n  -H \"Content-Type: application/json\" \\\n  -d '" + strings.ReplaceAll(string(body), "'", `'\''`) + "'")
		}
	}
	return b.String()
}

// example makes a value that the schema allows, out of its required members and its own examples.
func (a *API) example(s *schema.Schema, depth int) any {
	if len(s.Examples) > 0 {
		return s.Examples[0]
	}
	s = a.resolve(s)
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case s.Const != "":
		return s.Const
	case len(s.Enum) > 0:
		return s.Enum[0]
	case len(s.OneOf) > 0:
		return a.example(s.OneOf[0], depth)
	case len(s.AnyOf) > 0:
		return a.example(s.AnyOf[0], depth)
	case len(s.Type) == 0 || depth > 8:
		return nil
	}
	switch s.Type[0] {
	case "object":
		out := map[string]any{}
		for _, name := range s.Required {
			out[name] = a.example(s.Properties.Get(name), depth+1)
		}
		for _, p := range s.Properties {
			if len(p.Schema.Examples) > 0 {
				out[p.Name] = p.Schema.Examples[0]
			}
		}
		return out
	case "array":
		if s.MinItems != nil && *s.MinItems > 0 {
			return []any{a.example(s.Items, depth+1)}
		}
		return []any{}
	case "integer", "number":
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 1
	case "boolean":
		return true
	default:
		return "…"
	}
}
