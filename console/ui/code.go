package ui

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// InlineLimit is how much of a text a page shows at once; the rest is loaded on request or downloaded.
const InlineLimit = 64 << 10

// CodeProps describes a block of text in the mono face.
type CodeProps struct {
	// ID is the element's id, unique on the page; the copy button reads from it.
	ID    string
	Title string
	Text  string
	// Size is the size of the whole when Text is only its beginning; zero says that Text is all.
	Size int64
	// More loads the whole in place, Download saves it.
	More, Download string
	Wrapped        bool
	Tall           bool
	// Colour says that Text is JSON to be coloured line by line.
	Colour bool
}

// head returns the part of the text that is shown, cut at a rune.
func (p CodeProps) head() string {
	if len(p.Text) <= InlineLimit {
		return p.Text
	}
	cut := InlineLimit
	for cut > 0 && !utf8.RuneStart(p.Text[cut]) {
		cut--
	}
	return p.Text[:cut]
}

func (p CodeProps) whole() int64 { return max(p.Size, int64(len(p.Text))) }

func (p CodeProps) isCut() bool { return p.whole() > int64(len(p.head())) }

// Node is one value of a JSON document, in the order and with the digits that the document has.
type Node struct {
	Key string
	// Kind is object, array, string, number, literal or media.
	Kind     string
	Text     string
	Children []Node
	// HasKey tells a member of an object from an element of an array; its key may be empty.
	HasKey bool
	Last   bool
	Depth  int
}

// maxNodes bounds how much of a document becomes elements of the page; what is larger is shown as text.
const maxNodes = 4000

// ParseJSON reads a document for JSONView. It returns false for what is not JSON or is too large to be folded.
func ParseJSON(raw []byte) (Node, bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // integers stay exact, beyond 2^53 too
	budget := maxNodes
	n, err := parseValue(dec, 0, &budget)
	if err != nil || budget < 0 {
		return Node{}, false
	}
	if _, err := dec.Token(); err != io.EOF {
		return Node{}, false
	}
	n.Last = true
	return n, true
}

func parseValue(dec *json.Decoder, depth int, budget *int) (Node, error) {
	*budget--
	if *budget < 0 || depth > 200 {
		*budget = -1
		return Node{}, nil
	}
	tok, err := dec.Token()
	if err != nil {
		return Node{}, err
	}
	switch v := tok.(type) {
	case json.Delim:
		return parseContainer(dec, v, depth, budget)
	case string:
		return stringNode(v, depth), nil
	case json.Number:
		return Node{Kind: "number", Text: v.String(), Depth: depth}, nil
	case bool:
		return Node{Kind: "literal", Text: strconv.FormatBool(v), Depth: depth}, nil
	}
	return Node{Kind: "literal", Text: "null", Depth: depth}, nil
}

func parseContainer(dec *json.Decoder, open json.Delim, depth int, budget *int) (Node, error) {
	n := Node{Kind: "array", Depth: depth}
	if open == '{' {
		n.Kind = "object"
	}
	for dec.More() && *budget >= 0 {
		var key string
		if n.Kind == "object" {
			tok, err := dec.Token()
			if err != nil {
				return n, err
			}
			key, _ = tok.(string)
		}
		child, err := parseValue(dec, depth+1, budget)
		if err != nil {
			return n, err
		}
		child.Key, child.HasKey = key, n.Kind == "object"
		n.Children = append(n.Children, child)
	}
	if *budget < 0 {
		return n, nil
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return n, err
	}
	if len(n.Children) > 0 {
		n.Children[len(n.Children)-1].Last = true
	}
	return n, nil
}

// stringNode shows long base64 as a chip with its kind and size: as text it is noise, and cut it would be read as data.
func stringNode(s string, depth int) Node {
	if head, data, ok := strings.Cut(s, ";base64,"); ok && strings.HasPrefix(head, "data:") && len(data) > 256 {
		return Node{Kind: "media", Text: strings.TrimPrefix(head, "data:") + ", " + Bytes(int64(len(data)*3/4)), Depth: depth}
	}
	if len(s) > 1024 && looksBase64(s) {
		return Node{Kind: "media", Text: "base64, " + Bytes(int64(len(s)*3/4)), Depth: depth}
	}
	quoted := &bytes.Buffer{}
	enc := json.NewEncoder(quoted)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return Node{Kind: "string", Text: strconv.Quote(s), Depth: depth}
	}
	return Node{Kind: "string", Text: strings.TrimSuffix(quoted.String(), "\n"), Depth: depth}
}

func looksBase64(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("+/=_-\n", rune(c)) {
			return false
		}
	}
	return true
}

func (n Node) brackets() (open, shut string) {
	if n.Kind == "object" {
		return "{", "}"
	}
	return "[", "]"
}

func (n Node) countNote() string {
	if n.Kind == "object" {
		return Plural(int64(len(n.Children)), "member", "members")
	}
	return Plural(int64(len(n.Children)), "item", "items")
}

var tokenClasses = map[string]string{"string": "tok-str", "number": "tok-num", "literal": "tok-lit"}

// Indent formats JSON with two spaces; what is not JSON is returned as it is.
func Indent(raw []byte) string {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return string(raw)
	}
	return out.String()
}
