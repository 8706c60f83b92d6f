package embedded

import "strings"

// statementKind is how a statement must be handed to the engine.
type statementKind int

const (
	// plainStatement runs as a whole: DDL, SHOW, DESCRIBE, INSERT … SELECT.
	plainStatement statementKind = iota
	// rowStatement returns rows that can be streamed.
	rowStatement
	// dataInsert is an INSERT whose rows come as data in a format.
	dataInsert
)

// statement is a query text, taken apart as far as its transport needs it.
type statement struct {
	kind statementKind
	// text is what the engine gets; for a dataInsert without format and data.
	text string
	// format of a dataInsert; empty when the text named none.
	format string
	// inline is the data that followed a dataInsert in its own text.
	inline string
}

// parseStatement finds out how text has to be run. It knows only the few words
// that decide this, outside quotes, comments and parentheses; all else is left
// to the engine's own parser.
func parseStatement(text string) statement {
	words := wordScanner{text: text}
	first, _, ok := words.next()
	if !ok {
		return statement{text: text}
	}
	switch strings.ToUpper(first) {
	case "SELECT", "WITH":
		return statement{kind: rowStatement, text: text}
	case "INSERT":
	default:
		return statement{text: text}
	}

	for {
		word, start, ok := words.next()
		if !ok {
			// "INSERT INTO t (a)" with all its rows in the request's body.
			return statement{kind: dataInsert, text: text}
		}
		switch strings.ToUpper(word) {
		case "SELECT", "WITH", "INFILE":
			return statement{text: text}
		case "VALUES":
			// As data of the format Values: in the plain call the engine ends the
			// statement at a newline inside of a value.
			return statement{kind: dataInsert, text: text[:start], format: "Values", inline: text[words.pos:]}
		case "FORMAT":
			after := words.pos
			format, _, ok := words.next()
			if !ok || words.skippedSymbol {
				// A table or column of that name.
				words.pos = after
				continue
			}
			return statement{kind: dataInsert, text: text[:start], format: format, inline: trimOneBreak(text[words.pos:])}
		}
	}
}

// trimOneBreak drops the white space between a format's name and its data: up to
// and with the first line break, or one run of spaces before it. Binary data
// comes in a body of its own and never through here with meaning in its first
// bytes.
func trimOneBreak(s string) string {
	rest := strings.TrimLeft(s, " \t\r")
	return strings.TrimPrefix(rest, "\n")
}

// wordScanner yields the bare words of a query at depth zero.
type wordScanner struct {
	text string
	pos  int
	// skippedSymbol says that something other than blanks and comments stood
	// between the last word and the one before it.
	skippedSymbol bool
}

func (s *wordScanner) next() (word string, start int, ok bool) {
	s.skippedSymbol = false
	depth := 0
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			s.pos++
		case strings.HasPrefix(s.text[s.pos:], "--"), c == '#':
			s.skipTo("\n")
		case strings.HasPrefix(s.text[s.pos:], "/*"):
			s.pos += 2
			s.skipTo("*/")
		case c == '\'' || c == '"' || c == '`':
			s.skipQuoted(c)
			s.skippedSymbol = true
		case c == '(' || c == '[' || c == '{':
			depth++
			s.pos++
			s.skippedSymbol = true
		case c == ')' || c == ']' || c == '}':
			if depth > 0 {
				depth--
			}
			s.pos++
			s.skippedSymbol = true
		case isWordByte(c):
			start := s.pos
			for s.pos < len(s.text) && isWordByte(s.text[s.pos]) {
				s.pos++
			}
			if depth == 0 {
				return s.text[start:s.pos], start, true
			}
		default:
			s.pos++
			s.skippedSymbol = true
		}
	}
	return "", len(s.text), false
}

func (s *wordScanner) skipTo(end string) {
	i := strings.Index(s.text[s.pos:], end)
	if i < 0 {
		s.pos = len(s.text)
		return
	}
	s.pos += i + len(end)
}

func (s *wordScanner) skipQuoted(quote byte) {
	s.pos++
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '\\' && s.pos+1 < len(s.text):
			s.pos += 2
		case c == quote:
			s.pos++
			return
		default:
			s.pos++
		}
	}
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
