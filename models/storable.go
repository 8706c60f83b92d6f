package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxDepth         = 100
	maxNumberLiteral = 400
	maxMalformed     = 10_000
)

// CleanText replaces the null character, which the journal's database can't hold, by its picture U+2400, and bytes that are no UTF-8 by
// U+FFFD.
func CleanText(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\u2400")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Storable makes a JSON value that a model or a server wrote fit for the journal's database, which refuses null characters, half surrogate
// pairs and numbers without bounds, and would refuse the whole step with them. A value that is fit already is returned as it is.
func Storable(raw json.RawMessage) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || !json.Valid(raw) { // Valid refuses what follows the first value
		return nil, errors.New("this is not one JSON value")
	}
	v, err := storable(v, 0)
	if err != nil {
		return nil, err
	}
	if utf8.Valid(raw) && !bytes.Contains(raw, []byte(`\u`)) {
		return raw, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func storable(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	var err error
	switch t := v.(type) {
	case string:
		return CleanText(t), nil
	case json.Number:
		if _, err := strconv.ParseFloat(string(t), 64); err != nil || len(t) > maxNumberLiteral {
			return nil, errors.New("it has a number out of all bounds")
		}
	case []any:
		for i := range t {
			if t[i], err = storable(t[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		clean := make(map[string]any, len(t))
		for k, x := range t {
			if clean[CleanText(k)], err = storable(x, depth+1); err != nil {
				return nil, err
			}
		}
		return clean, nil
	}
	return v, nil
}

// WireToolName is the name under which an earlier tool use goes back to a provider. A model can make up names that no provider takes; sent as
// they are, they would make each further call of the session fail.
func WireToolName(name string) string {
	if ValidToolName(name) {
		return name
	}
	fit := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '_'
	}, name)
	if fit == "" {
		return "_"
	}
	return fit[:min(len(fit), 64)]
}
