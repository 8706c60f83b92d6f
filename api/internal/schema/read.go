package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
)

// MaxDepth is how deeply objects and arrays may nest in a request.
const MaxDepth = 64

// Object is a JSON object as Read returns it.
type Object = map[string]any

// Read parses one JSON value strictly: valid UTF-8, no member twice in one object, no NUL character (Postgres holds none in text), at
// most MaxDepth deep, nothing after the value. Numbers stay json.Number. Its error is a fault with the place.
func Read(body []byte) (any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, malformed("", "The body is empty: send a JSON object.")
	}
	if !utf8.Valid(body) {
		return nil, malformed("", "The body is not valid UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	r := reader{d: d}
	v, err := r.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("", "There is more after the JSON value's end: send one value.")
	}
	return v, nil
}

type reader struct{ d *json.Decoder }

func (r reader) value(at string, depth int) (any, error) {
	tok, err := r.d.Token()
	if err != nil {
		return nil, r.syntax(at, err)
	}
	return r.from(tok, at, depth)
}

func (r reader) from(tok json.Token, at string, depth int) (any, error) {
	switch tok := tok.(type) {
	case json.Delim:
		if depth >= MaxDepth {
			return nil, malformed(at, fmt.Sprintf("The JSON is nested more than %d deep.", MaxDepth))
		}
		if tok == '{' {
			return r.object(at, depth+1)
		}
		return r.array(at, depth+1)
	case string:
		if strings.IndexByte(tok, 0) >= 0 {
			return nil, malformed(at, `The character \u0000 cannot be stored.`)
		}
		return tok, nil
	default:
		return tok, nil
	}
}

func (r reader) object(at string, depth int) (any, error) {
	out := Object{}
	for r.d.More() {
		tok, err := r.d.Token()
		if err != nil {
			return nil, r.syntax(at, err)
		}
		key, ok := tok.(string)
		if !ok {
			return nil, malformed(at, "The body is not valid JSON: a member's name must be a string.")
		}
		here := at + "/" + Escape(key)
		if _, twice := out[key]; twice {
			return nil, malformed(here, fmt.Sprintf("%q stands twice in one object.", key))
		}
		if strings.IndexByte(key, 0) >= 0 {
			return nil, malformed(at, `The character \u0000 cannot be stored.`)
		}
		v, err := r.value(here, depth)
		if err != nil {
			return nil, err
		}
		out[key] = v
	}
	if _, err := r.d.Token(); err != nil {
		return nil, r.syntax(at, err)
	}
	return out, nil
}

func (r reader) array(at string, depth int) (any, error) {
	out := []any{}
	for r.d.More() {
		v, err := r.value(at+"/"+strconv.Itoa(len(out)), depth)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	if _, err := r.d.Token(); err != nil {
		return nil, r.syntax(at, err)
	}
	return out, nil
}

func (r reader) syntax(at string, err error) error {
	var syn *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return malformed(at, "The body is not valid JSON: it ends too early.")
	case errors.As(err, &syn):
		return malformed(at, fmt.Sprintf("The body is not valid JSON: %s (near byte %d).", syn.Error(), syn.Offset))
	default:
		return malformed(at, fmt.Sprintf("The body is not valid JSON (near byte %d).", r.d.InputOffset()))
	}
}

func malformed(at, message string) error { return fault.InvalidField(at, "malformed", message) }

// Escape writes a member's name as RFC 6901 wants it in a pointer.
func Escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
