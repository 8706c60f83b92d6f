package markdown

import (
	"regexp"
	"strings"
)

// kind is what a block is.
type kind int

const (
	paragraph kind = iota
	heading
	fence
	list
	quote
	rule
	table
)

// block is a part of a text. A list has an item a child, a quotation its own blocks.
type block struct {
	kind    kind
	level   int // of a heading
	text    string
	lang    string // of a fence
	ordered bool
	items   [][]block
	blocks  []block
	rows    [][]string // of a table, the first is its head
}

// maxDepth bounds how deep lists and quotations are read; deeper ones stay text.
const maxDepth = 6

var (
	headingShape = regexp.MustCompile(`^(#{1,6})\s+(.*?)\s*#*$`)
	bulletShape  = regexp.MustCompile(`^(\s{0,3})([-*+])\s+(.*)$`)
	numberShape  = regexp.MustCompile(`^(\s{0,3})(\d{1,9})[.)]\s+(.*)$`)
	ruleShape    = regexp.MustCompile(`^\s{0,3}([-*_])(\s*[-*_]){2,}\s*$`)
	tableShape   = regexp.MustCompile(`^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$`)
)

func parse(text string, depth int) []block {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	var out []block
	var para []string
	flush := func() {
		if len(para) > 0 {
			out = append(out, block{kind: paragraph, text: strings.Join(para, "\n")})
			para = nil
		}
	}
	for i := 0; i < len(lines); {
		line := lines[i]
		b, used := parseBlock(lines[i:], depth, len(para) > 0)
		switch {
		case used > 0:
			flush()
			out = append(out, b)
			i += used
		case strings.TrimSpace(line) == "":
			flush()
			i++
		default:
			para = append(para, line)
			i++
		}
	}
	flush()
	return out
}

// parseBlock reads a block other than a paragraph at the beginning of lines, and says how many lines it takes; 0 when there is none.
func parseBlock(lines []string, depth int, inParagraph bool) (block, int) {
	line := lines[0]
	if mark := fenceMark(line); mark != "" {
		return parseFence(lines, mark)
	}
	if m := headingShape.FindStringSubmatch(line); m != nil {
		return block{kind: heading, level: len(m[1]), text: m[2]}, 1
	}
	if ruleShape.MatchString(line) && sameMarks(line) {
		return block{kind: rule}, 1
	}
	if depth >= maxDepth {
		return block{}, 0
	}
	if strings.HasPrefix(line, ">") {
		return parseQuote(lines, depth)
	}
	if bulletShape.MatchString(line) {
		return parseList(lines, depth, bulletShape, false)
	}
	// In the middle of a paragraph a number at the beginning of a line is more often part of the sentence.
	if !inParagraph && numberShape.MatchString(line) {
		return parseList(lines, depth, numberShape, true)
	}
	if !inParagraph && strings.Contains(line, "|") && len(lines) > 1 && strings.Contains(lines[1], "|") && tableShape.MatchString(lines[1]) {
		return parseTable(lines)
	}
	return block{}, 0
}

func sameMarks(line string) bool {
	marks := strings.Join(strings.Fields(line), "")
	return strings.Count(marks, marks[:1]) == len(marks)
}

func fenceMark(line string) string {
	trimmed := strings.TrimLeft(line, " ")
	if len(line)-len(trimmed) > 3 {
		return ""
	}
	for _, c := range []string{"`", "~"} {
		n := len(trimmed) - len(strings.TrimLeft(trimmed, c))
		if n >= 3 && !(c == "`" && strings.Contains(trimmed[n:], "`")) {
			return strings.Repeat(c, n)
		}
	}
	return ""
}

// parseFence reads to the closing fence, or to the end where there is none: a message may be cut.
func parseFence(lines []string, mark string) (block, int) {
	b := block{kind: fence, lang: strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(lines[0]), mark[:1]))}
	for i := 1; i < len(lines); i++ {
		closing := strings.TrimSpace(lines[i])
		if strings.HasPrefix(closing, mark) && strings.Trim(closing, mark[:1]) == "" {
			b.text = strings.Join(lines[1:i], "\n")
			return b, i + 1
		}
	}
	b.text = strings.Join(lines[1:], "\n")
	return b, len(lines)
}

func parseQuote(lines []string, depth int) (block, int) {
	var inner []string
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], ">") {
		inner = append(inner, strings.TrimPrefix(strings.TrimPrefix(lines[n], ">"), " "))
		n++
	}
	return block{kind: quote, blocks: parse(strings.Join(inner, "\n"), depth+1)}, n
}

func parseList(lines []string, depth int, shape *regexp.Regexp, ordered bool) (block, int) {
	b := block{kind: list, ordered: ordered}
	n := 0
	margin := len(shape.FindStringSubmatch(lines[0])[1]) + 1
	// An item that is indented further belongs to the list inside the one before it.
	next := func(line string) []string {
		if m := shape.FindStringSubmatch(line); m != nil && len(m[1]) <= margin {
			return m
		}
		return nil
	}
	for n < len(lines) {
		m := next(lines[n])
		if m == nil {
			break
		}
		item := []string{m[3]}
		n++
		for n < len(lines) && next(lines[n]) == nil {
			line := lines[n]
			indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
			blank := strings.TrimSpace(line) == ""
			if blank && (n+1 >= len(lines) || !(strings.HasPrefix(lines[n+1], "  ") || strings.HasPrefix(lines[n+1], "\t"))) {
				break
			}
			if !blank && !indented {
				break
			}
			item = append(item, outdent(line))
			n++
		}
		b.items = append(b.items, parse(strings.Join(item, "\n"), depth+1))
		if n < len(lines) && strings.TrimSpace(lines[n]) == "" && n+1 < len(lines) && next(lines[n+1]) != nil {
			n++ // a blank line between items
		}
	}
	return b, n
}

func outdent(line string) string {
	for range 4 {
		switch {
		case strings.HasPrefix(line, " "):
			line = line[1:]
		case strings.HasPrefix(line, "\t"):
			return line[1:]
		default:
			return line
		}
	}
	return line
}

func parseTable(lines []string) (block, int) {
	b := block{kind: table, rows: [][]string{cells(lines[0])}}
	n := 2
	for ; n < len(lines) && strings.Contains(lines[n], "|") && strings.TrimSpace(lines[n]) != ""; n++ {
		row := cells(lines[n])
		for len(row) < len(b.rows[0]) {
			row = append(row, "")
		}
		b.rows = append(b.rows, row)
	}
	return b, n
}

func cells(line string) []string {
	line = strings.TrimSpace(line)
	line = strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|")
	parts := strings.Split(line, "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
