package markdown

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/a-h/templ"
)

// Text draws a message.
func Text(text string) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var out strings.Builder
		writeBlocks(&out, parse(text, 0))
		_, err := io.WriteString(w, out.String())
		return err
	})
}

func writeBlocks(out *strings.Builder, blocks []block) {
	for _, b := range blocks {
		switch b.kind {
		case paragraph:
			out.WriteString("<p>")
			writeInline(out, b.text, 0)
			out.WriteString("</p>")
		case heading:
			// A message's headings are below those of the page; they look by their own level.
			out.WriteString(`<div class="md-h md-h` + strconv.Itoa(b.level) + `">`)
			writeInline(out, b.text, 0)
			out.WriteString("</div>")
		case fence:
			out.WriteString(`<pre tabindex="0" class="md-code"`)
			if b.lang != "" {
				out.WriteString(` data-lang="` + templ.EscapeString(b.lang) + `"`)
			}
			out.WriteString("><code>" + templ.EscapeString(b.text) + "</code></pre>")
		case list:
			writeList(out, b)
		case quote:
			out.WriteString("<blockquote>")
			writeBlocks(out, b.blocks)
			out.WriteString("</blockquote>")
		case rule:
			out.WriteString("<hr>")
		case table:
			writeTable(out, b)
		}
	}
}

func writeList(out *strings.Builder, b block) {
	tag := "ul"
	if b.ordered {
		tag = "ol"
	}
	out.WriteString("<" + tag + ">")
	for _, item := range b.items {
		out.WriteString("<li>")
		if len(item) > 0 && item[0].kind == paragraph { // the first line stands beside its mark
			writeInline(out, item[0].text, 0)
			item = item[1:]
		}
		writeBlocks(out, item)
		out.WriteString("</li>")
	}
	out.WriteString("</" + tag + ">")
}

func writeTable(out *strings.Builder, b block) {
	out.WriteString(`<div class="md-table" tabindex="0"><table>`)
	for i, row := range b.rows {
		tag := "td"
		if i == 0 {
			tag = "th"
		}
		out.WriteString("<tr>")
		for _, cell := range row {
			out.WriteString("<" + tag + ">")
			writeInline(out, cell, 0)
			out.WriteString("</" + tag + ">")
		}
		out.WriteString("</tr>")
	}
	out.WriteString("</table></div>")
}

// maxEmphasis bounds how far the end of an emphasis is looked for, in bytes: a text of marks without partners must not cost its square.
const maxEmphasis = 2000

// maxNested bounds emphasis within emphasis.
const maxNested = 4

// writeInline writes the text of a line. A mark without its partner stays as it is.
func writeInline(out *strings.Builder, s string, depth int) {
	plain := 0
	flush := func(end int) {
		out.WriteString(strings.ReplaceAll(templ.EscapeString(s[plain:end]), "\n", "<br>"))
	}
	for i := 0; i < len(s); {
		html, used := "", 0
		if depth < maxNested {
			html, used = inlineAt(s, i, depth)
		}
		if used == 0 {
			i++
			continue
		}
		flush(i)
		out.WriteString(html)
		i += used
		plain = i
	}
	flush(len(s))
}

// inlineAt reads what begins at s[i], and says how many bytes it takes; 0 when nothing does.
func inlineAt(s string, i, depth int) (html string, used int) {
	switch s[i] {
	case '\\':
		if i+1 < len(s) && strings.IndexByte("\\`*_[]()#+-.!|>~", s[i+1]) >= 0 {
			return templ.EscapeString(s[i+1 : i+2]), 2
		}
	case '`':
		return codeAt(s, i)
	case '*', '_':
		return emphasisAt(s, i, depth)
	case '[':
		return linkAt(s, i, depth)
	case 'h':
		return addressAt(s, i)
	}
	return "", 0
}

func codeAt(s string, i int) (string, int) {
	n := len(s[i:]) - len(strings.TrimLeft(s[i:], "`"))
	mark := s[i : i+n]
	end := strings.Index(s[i+n:], mark)
	if end <= 0 {
		return templ.EscapeString(mark), n // a run without its partner is no mark, and is not looked at again
	}
	return "<code>" + templ.EscapeString(strings.TrimSpace(s[i+n:i+n+end])) + "</code>", n + end + n
}

func emphasisAt(s string, i, depth int) (string, int) {
	mark, tag := s[i:i+1], "em"
	if strings.HasPrefix(s[i+1:], mark) {
		mark, tag = s[i:i+2], "strong"
	}
	start := i + len(mark)
	if start >= len(s) || s[start] == ' ' || s[start] == '\n' {
		return "", 0
	}
	// snake_case is a word.
	if mark[0] == '_' && i > 0 && wordByte(s[i-1]) {
		return "", 0
	}
	for end := start + 1; end+len(mark) <= len(s) && end-start < maxEmphasis; end++ {
		if s[end] == '\n' && end+1 < len(s) && s[end+1] == '\n' {
			return "", 0
		}
		if s[end:end+len(mark)] != mark || s[end-1] == ' ' || (len(mark) == 1 && end+1 < len(s) && s[end+1] == mark[0]) {
			continue
		}
		if mark[0] == '_' && end+len(mark) < len(s) && wordByte(s[end+len(mark)]) {
			continue
		}
		var inner strings.Builder
		writeInline(&inner, s[start:end], depth+1)
		return "<" + tag + ">" + inner.String() + "</" + tag + ">", end + len(mark) - i
	}
	return "", 0
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

func linkAt(s string, i, depth int) (string, int) {
	shut := strings.IndexByte(s[i:], ']')
	if shut < 2 || i+shut+1 >= len(s) || s[i+shut+1] != '(' {
		return "", 0
	}
	end := strings.IndexByte(s[i+shut:], ')')
	if end < 0 {
		return "", 0
	}
	address := strings.TrimSpace(s[i+shut+2 : i+shut+end])
	if !safe(address) {
		return "", 0
	}
	var text strings.Builder
	writeInline(&text, s[i+1:i+shut], maxNested) // no link within a link
	return anchor(address, text.String()), shut + end + 1
}

// addressAt makes a link of an address that stands in the text.
func addressAt(s string, i int) (string, int) {
	if !strings.HasPrefix(s[i:], "http://") && !strings.HasPrefix(s[i:], "https://") || (i > 0 && wordByte(s[i-1])) {
		return "", 0
	}
	end := i
	for end < len(s) && !strings.ContainsRune(" \n\t<>\"'`|\\^{}[]()", rune(s[end])) {
		end++
	}
	address := strings.TrimRight(s[i:end], ".,;:!?*_")
	if !safe(address) {
		return "", 0
	}
	return anchor(address, templ.EscapeString(address)), len(address)
}

func safe(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// anchor tells the other site nothing of the page that it is followed from.
func anchor(address, html string) string {
	return `<a href="` + templ.EscapeString(address) + `" rel="noopener noreferrer nofollow" target="_blank">` + html + "</a>"
}
