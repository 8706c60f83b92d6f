package canonical

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrNotJSON says that the value cannot be written as one JSON document.
var ErrNotJSON = errors.New("not one JSON value")

// JSON writes v as RFC 8785 canonical JSON. Numbers are written as ECMAScript would write the nearest double, as the RFC demands; use
// Digest where two values that differ only beyond a double's precision must not be taken for one another.
func JSON(v any) ([]byte, error) {
	tree, err := treeOf(v)
	if err != nil {
		return nil, err
	}
	var w writer
	if err := w.value(tree); err != nil {
		return nil, err
	}
	return w.out, nil
}

// Digest is the SHA-256 of v's canonical JSON. RFC 8785 is defined for numbers that a double holds exactly as written. For any other
// number, such as 9007199254740993, the canonical form would equal that of its neighbour, and an approval of one would pass for the
// other; so each such number is hashed as its own text too, after the document and with its place.
func Digest(v any) ([32]byte, error) {
	raw, err := marshal(v)
	if err != nil {
		return [32]byte{}, err
	}
	if allExact(raw) {
		// Nearly always: no tree is needed. What this refuses, such as a name that stands twice, is left to the way below.
		quick := jsontext.Value(bytes.Clone(raw))
		if err := quick.Canonicalize(); err == nil {
			return sha256.Sum256(quick), nil
		}
	}
	return digestTree(raw)
}

func digestTree(raw []byte) ([32]byte, error) {
	tree, err := decode(raw)
	if err != nil {
		return [32]byte{}, err
	}
	var beyond bytes.Buffer
	tree = withdrawInexact(tree, nil, &beyond)
	var w writer
	if err := w.value(tree); err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(append(w.out, beyond.Bytes()...)), nil
}

func treeOf(v any) (any, error) {
	raw, err := marshal(v)
	if err != nil {
		return nil, err
	}
	return decode(raw)
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func decode(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more follows the first value", ErrNotJSON)
	}
	return tree, nil
}

// place is where a value stands; nil is the document. It becomes text only when it is needed.
type place struct {
	above *place
	key   string
}

func (p *place) pointer() string {
	if p == nil {
		return ""
	}
	return p.above.pointer() + "/" + strings.NewReplacer("~", "~0", "/", "~1", "\x00", "~2").Replace(p.key)
}

// withdrawInexact puts a zero where a number is not a double's own text and appends "\x00pointer=literal" for it, in the order of keys.
// The zero byte cannot occur in canonical JSON, so that no document can imitate the suffix.
func withdrawInexact(v any, at *place, beyond *bytes.Buffer) any {
	switch t := v.(type) {
	case json.Number:
		if exact(string(t)) {
			return t
		}
		fmt.Fprintf(beyond, "\x00%s=%s", at.pointer(), string(t))
		return json.Number("0")
	case []any:
		for i := range t {
			t[i] = withdrawInexact(t[i], &place{at, strconv.Itoa(i)}, beyond)
		}
	case map[string]any:
		keys := make([]string, 0, len(t))
		for k := range t {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			t[k] = withdrawInexact(t[k], &place{at, k}, beyond)
		}
	}
	return v
}

// allExact reports whether each number of a JSON document is exact.
func allExact(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case c == '-' || (c >= '0' && c <= '9'):
			from := i
			for i+1 < len(raw) && strings.IndexByte("0123456789+-.eE", raw[i+1]) >= 0 {
				i++
			}
			if !exact(string(raw[from : i+1])) {
				return false
			}
		}
	}
	return true
}

// exact reports whether the literal has the value of the shortest text of its nearest double.
func exact(literal string) bool {
	if len(literal) <= 15 && !strings.ContainsAny(literal, ".eE") {
		return true // an integer below 2^53
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil {
		return false // out of a double's range; big.Rat must never see such an exponent, it would build the number
	}
	if f == 0 {
		mantissa, _, _ := strings.Cut(strings.ToLower(literal), "e")
		return !strings.ContainsAny(mantissa, "123456789")
	}
	want, ok := new(big.Rat).SetString(literal)
	if !ok {
		return false
	}
	got, ok := new(big.Rat).SetString(strconv.FormatFloat(f, 'g', -1, 64))
	return ok && want.Cmp(got) == 0
}
