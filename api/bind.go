package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
)

// binding is what an endpoint's In says about its request, read once when the table is mounted.
type binding struct {
	params   []param
	body     *schema.Schema
	bodyAt   []int
	bodyType reflect.Type
	optional bool
	paging   []int // index of the pager, nil when there is none
}

// param is one path, query or header parameter.
type param struct {
	name     string
	in       string // path, query, header
	at       []int
	typ      reflect.Type
	schema   *schema.Schema
	required bool
	fallback string
	doc      string
}

// validator is an In with rules beyond its schema.
type validator interface{ validate() []fault.Field }

var (
	pagerType     = reflect.TypeFor[pager]()
	timeRangeType = reflect.TypeFor[TimeRange]()
	stringMapType = reflect.TypeFor[map[string]string]()
)

func bindingOf(b *schema.Builder, t reflect.Type) binding {
	var out binding
	out.add(b, t, nil)
	return out
}

func (b *binding) add(sb *schema.Builder, t reflect.Type, at []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		here := append(slices.Clone(at), i)
		if reflect.PointerTo(f.Type).Implements(pagerType) {
			b.paging = here
		}
		if f.Anonymous && f.Tag == "" {
			b.add(sb, f.Type, here)
			continue
		}
		if kind, ok := f.Tag.Lookup("body"); ok {
			b.body, b.bodyAt, b.bodyType, b.optional = sb.Of(f.Type, schema.In), here, f.Type, kind == "optional"
			continue
		}
		for _, in := range []string{"path", "query", "header"} {
			name, ok := f.Tag.Lookup(in)
			if !ok {
				continue
			}
			p := param{
				name: name, in: in, at: here, typ: f.Type, doc: f.Tag.Get("doc"), fallback: f.Tag.Get("default"),
				required: in == "path" || f.Tag.Get("required") == "true",
			}
			if f.Type != timeRangeType {
				p.schema = schema.Tagged(sb.Of(f.Type, schema.In), f.Tag)
			}
			b.params = append(b.params, p)
		}
	}
}

// bind fills in from the request: parameters first, then the body. All that is wrong comes back in one fault.
func (c *call) bind(in any) error {
	v := reflect.ValueOf(in).Elem()
	if v.Kind() != reflect.Struct {
		return fmt.Errorf("the input of %s is no struct", c.route.ID)
	}
	bd := &c.route.binding
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return fault.InvalidField("query", "malformed", "The query string is not valid.")
	}
	var wrong []fault.Field
	used := map[string]bool{}
	for i := range bd.params {
		fields, err := c.bindParam(&bd.params[i], v.FieldByIndex(bd.params[i].at), query, used)
		if err != nil {
			return err
		}
		wrong = append(wrong, fields...)
	}
	for name := range query {
		if !used[name] {
			wrong = append(wrong, fault.Field{Pointer: "query/" + name, Code: schema.CodeUnknown, Message: fmt.Sprintf("%s is not a parameter of this request.", name)})
		}
	}
	slices.SortFunc(wrong, func(a, b fault.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	fields, err := c.bindBody(bd, v)
	if err != nil {
		return err
	}
	if wrong = append(wrong, fields...); len(wrong) > 0 {
		return fault.InvalidFields(wrong...)
	}
	if bd.paging != nil {
		if p, ok := v.FieldByIndex(bd.paging).Addr().Interface().(pager); ok {
			if err := p.open(c, query); err != nil {
				return err
			}
		}
	}
	if r, ok := in.(validator); ok {
		if wrong := r.validate(); len(wrong) > 0 {
			return fault.InvalidFields(wrong...)
		}
	}
	return nil
}

// bindParam sets one parameter. A path parameter of the wrong form names nothing, so it is a 404 and not a 400.
func (c *call) bindParam(p *param, field reflect.Value, query url.Values, used map[string]bool) ([]fault.Field, error) {
	at := p.in + "/" + p.name
	var given []string
	switch p.in {
	case "path":
		given = []string{c.param(p.name)}
	case "header":
		given = c.r.Header.Values(p.name)
	case "query":
		switch p.typ {
		case timeRangeType:
			return bindTimes(p.name, field, query, used), nil
		case stringMapType:
			return c.bindMap(p, field, query, used), nil
		}
		given = query[p.name]
		used[p.name] = true
	}
	if len(given) == 0 && p.fallback != "" {
		given = []string{p.fallback}
	}
	if len(given) == 0 {
		if p.required {
			return []fault.Field{{Pointer: at, Code: schema.CodeMissing, Message: p.name + " is required."}}, nil
		}
		return nil, nil
	}
	value, ok := textValue(p.typ, given)
	if !ok && p.in == "path" {
		return nil, fault.NotFound()
	}
	if !ok {
		return []fault.Field{{Pointer: at, Code: schema.CodeType, Message: fmt.Sprintf("%s stands more than once.", p.name)}}, nil
	}
	if wrong := c.api.builder.Validate(p.schema, value, "/"+p.name); len(wrong) > 0 {
		if p.in == "path" {
			return nil, fault.NotFound()
		}
		for i := range wrong {
			wrong[i].Pointer = at
		}
		return wrong, nil
	}
	raw, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(raw, field.Addr().Interface())
	}
	if err != nil {
		return []fault.Field{{Pointer: at, Code: schema.CodeValue, Message: p.name + " is not valid."}}, nil //nolint:nilerr // told to the client
	}
	return nil, nil
}

// textValue turns a parameter's text into the JSON value that its schema checks.
func textValue(t reflect.Type, given []string) (any, bool) {
	if t.Kind() == reflect.Slice {
		out := make([]any, len(given))
		for i, s := range given {
			out[i] = s
		}
		return out, true
	}
	if len(given) != 1 {
		return nil, false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := given[0]
	switch t.Kind() { //nolint:exhaustive // parameters are text, numbers and truth values
	case reflect.Int, reflect.Int32, reflect.Int64:
		if _, err := strconv.ParseInt(s, 10, 64); err == nil {
			return json.Number(s), true
		}
	case reflect.Bool:
		if b, err := strconv.ParseBool(s); err == nil && (s == "true" || s == "false") {
			return b, true
		}
	}
	return s, true // of the wrong type, perhaps: the schema says so
}

func bindTimes(name string, field reflect.Value, query url.Values, used map[string]bool) (wrong []fault.Field) {
	var out TimeRange
	for op, at := range map[string]**time.Time{"gt": &out.After, "gte": &out.From, "lt": &out.Before, "lte": &out.To} {
		key := name + "[" + op + "]"
		values, ok := query[key]
		if !ok {
			continue
		}
		used[key] = true
		t, err := time.Parse(time.RFC3339, values[0])
		if err != nil || len(values) > 1 {
			wrong = append(wrong, fault.Field{Pointer: "query/" + key, Code: schema.CodeValue, Message: key + " must be one time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z."})
			continue
		}
		*at = &t
	}
	field.Set(reflect.ValueOf(out))
	return wrong
}

func (c *call) bindMap(p *param, field reflect.Value, query url.Values, used map[string]bool) (wrong []fault.Field) {
	out := map[string]string{}
	for key, values := range query {
		inner, ok := strings.CutPrefix(key, p.name+"[")
		if !ok || !strings.HasSuffix(inner, "]") {
			continue
		}
		used[key] = true
		if len(values) > 1 || strings.IndexByte(values[0], 0) >= 0 {
			wrong = append(wrong, fault.Field{Pointer: "query/" + key, Code: schema.CodeValue, Message: key + " must stand once, without the character NUL."})
			continue
		}
		out[strings.TrimSuffix(inner, "]")] = values[0]
	}
	field.Set(reflect.ValueOf(out))
	return wrong
}

func (c *call) bindBody(bd *binding, v reflect.Value) ([]fault.Field, error) {
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return nil, nil
	}
	body, err := c.readBody()
	if err != nil {
		return nil, err
	}
	c.body = body
	if len(body) == 0 && (bd.body == nil || bd.optional) {
		return nil, nil
	}
	if ct := c.r.Header.Get("Content-Type"); ct != "" {
		media, params, err := mime.ParseMediaType(ct)
		charset := strings.ToLower(params["charset"])
		if err != nil || (media != jsonType && !strings.HasSuffix(media, "+json")) || (charset != "" && charset != "utf-8") {
			return nil, fault.New(fault.UnsupportedMedia, slugMedia, "The body must be JSON in UTF-8: send Content-Type: application/json.")
		}
	}
	value, err := schema.Read(body)
	if err != nil {
		return nil, err
	}
	want := bd.body
	if want == nil {
		want = &schema.Schema{Type: schema.Types{"object"}, Closed: true}
	}
	if wrong := c.api.builder.Validate(want, value, ""); len(wrong) > 0 || bd.body == nil {
		return wrong, nil
	}
	if err := json.Unmarshal(body, v.FieldByIndex(bd.bodyAt).Addr().Interface()); err != nil {
		// The schema allowed what the type refuses: a gap of ours, still a refusal and not a failure.
		return []fault.Field{{Pointer: "", Code: schema.CodeValue, Message: "The body has a value that can't be read."}}, nil //nolint:nilerr // told to the client
	}
	return nil, nil
}

// drainMost bounds what is read, and thrown away, of a body that is too large: a client that is still sending would otherwise meet a
// reset connection before it reads the answer.
const drainMost = 64 << 20

func (c *call) readBody() ([]byte, error) {
	most := c.route.maxBody()
	tooLarge := fault.Newf(fault.TooLarge, slugTooLarge, "The body is larger than the %d bytes that this route takes. Put large input into a file of the session's working directory.", most).With("limit_bytes", most)
	if c.r.ContentLength > most {
		_, _ = io.CopyN(io.Discard, c.r.Body, drainMost)
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(c.r.Body, most+1))
	if err != nil {
		var closed *http.MaxBytesError
		if errors.As(err, &closed) {
			return nil, tooLarge
		}
		return nil, fault.InvalidField("", "malformed", "The body broke off or came too slowly.").Because(err)
	}
	if int64(len(body)) > most {
		_, _ = io.CopyN(io.Discard, c.r.Body, drainMost)
		return nil, tooLarge
	}
	httpx.BodyRead(c.w)
	return body, nil
}
