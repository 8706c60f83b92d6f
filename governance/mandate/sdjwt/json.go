package sdjwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth bounds how deep a token's JSON is nested.
const maxDepth = 32

var b64 = base64.RawURLEncoding.Strict()

// decode reads unpadded base64url. Bits that mean nothing must be zero: two spellings of one text would have two digests.
func decode(part string) ([]byte, error) {
	raw, err := b64.DecodeString(part)
	if err != nil || bytes.ContainsAny([]byte(part), "\r\n") { // the decoder passes over line breaks
		return nil, errors.New("it is not base64url without padding")
	}
	return raw, nil
}

// value reads one JSON value and nothing after it. Numbers keep their spelling; a member that stands twice is refused.
func value(raw []byte) (any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("its JSON is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := next(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its JSON")
	}
	return v, nil
}

func object(raw []byte) (map[string]any, error) {
	v, err := value(raw)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	return m, nil
}

func next(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("its JSON is nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, errors.New("its JSON is not valid")
	}
	switch token {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errors.New("its JSON is not valid")
			}
			key, _ := name.(string)
			if _, twice := m[key]; twice {
				return nil, fmt.Errorf("the member %q stands twice", clip(key))
			}
			if m[key], err = next(d, depth+1); err != nil {
				return nil, err
			}
		}
		return m, closes(d)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			one, err := next(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
		return list, closes(d)
	}
	return token, nil
}

func closes(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("its JSON is not valid")
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return s
}
