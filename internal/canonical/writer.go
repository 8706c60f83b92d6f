package canonical

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/gowebpki/jcs"
)

// writer writes decoded JSON in canonical form. The library's own Transform does the same from text, which here would be parsed a second
// time, and a digest is made of a whole conversation at each step; a test holds the two against each other.
type writer struct {
	out []byte
}

func (w *writer) value(v any) error {
	switch t := v.(type) {
	case nil:
		w.out = append(w.out, "null"...)
	case bool:
		w.out = strconv.AppendBool(w.out, t)
	case string:
		w.text(t)
	case json.Number:
		return w.number(t)
	case []any:
		w.out = append(w.out, '[')
		for i, x := range t {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			if err := w.value(x); err != nil {
				return err
			}
		}
		w.out = append(w.out, ']')
	case map[string]any:
		return w.object(t)
	default:
		return fmt.Errorf("%w: a %T", ErrNotJSON, v)
	}
	return nil
}

func (w *writer) object(m map[string]any) error {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, byUTF16)
	w.out = append(w.out, '{')
	for i, k := range keys {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.text(k)
		w.out = append(w.out, ':')
		if err := w.value(m[k]); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

// byUTF16 is the RFC's order of keys. It differs from that of UTF-8 only where a character beyond the first plane is compared with one from
// U+E000 up.
func byUTF16(a, b string) int {
	beyond := func(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r >= 0xD800 }) >= 0 }
	if !beyond(a) && !beyond(b) {
		return strings.Compare(a, b)
	}
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

func (w *writer) number(n json.Number) error {
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return fmt.Errorf("%w: the number %.40q is out of range", ErrNotJSON, string(n))
	}
	s, err := jcs.NumberToJSON(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	w.out = append(w.out, s...)
	return nil
}

// text writes a string with ECMAScript's escapes: the short ones, \u00xx for other control characters, and nothing else.
func (w *writer) text(s string) {
	const hex = "0123456789abcdef"
	w.out = append(w.out, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		w.out = append(w.out, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			w.out = append(w.out, '\\', c)
		case '\b':
			w.out = append(w.out, '\\', 'b')
		case '\t':
			w.out = append(w.out, '\\', 't')
		case '\n':
			w.out = append(w.out, '\\', 'n')
		case '\f':
			w.out = append(w.out, '\\', 'f')
		case '\r':
			w.out = append(w.out, '\\', 'r')
		default:
			w.out = append(w.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	w.out = append(append(w.out, s[from:]...), '"')
}
