package markdown

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func draw(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, Text(text).Render(t.Context(), &out))
	return out.String()
}

func TestWhatModelsWrite(t *testing.T) {
	for text, want := range map[string]string{
		"one\ntwo\n\nthree":                    "<p>one<br>two</p><p>three</p>",
		"# Title\ntext":                        `<div class="md-h md-h1">Title</div><p>text</p>`,
		"**bold** and *thin* and _thin_":       "<p><strong>bold</strong> and <em>thin</em> and <em>thin</em></p>",
		"a **bold *and thin* end**":            "<p>a <strong>bold <em>and thin</em> end</strong></p>",
		"snake_case_name and 2 * 3 * 4":        "<p>snake_case_name and 2 * 3 * 4</p>",
		"run `ls -la` now":                     "<p>run <code>ls -la</code> now</p>",
		"``a`b``":                              "<p><code>a`b</code></p>",
		"open ` mark":                          "<p>open ` mark</p>",
		"```go\nx := 1\n```":                   `<pre tabindex="0" class="md-code" data-lang="go"><code>x := 1</code></pre>`,
		"```\ncut":                             `<pre tabindex="0" class="md-code"><code>cut</code></pre>`,
		"- a\n- b\n  - c\n":                    "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
		"1. a\n2. b":                           "<ol><li>a</li><li>b</li></ol>",
		"It was\n2026. A good year":            "<p>It was<br>2026. A good year</p>",
		"> quoted\n> more":                     "<blockquote><p>quoted<br>more</p></blockquote>",
		"a\n\n---\n\nb":                        "<p>a</p><hr><p>b</p>",
		"|a|b|\n|-|-|\n|1|2|":                  `<div class="md-table" tabindex="0"><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></div>`,
		"[site](https://example.com/?a=1&b)":   `<p><a href="https://example.com/?a=1&amp;b" rel="noopener noreferrer nofollow" target="_blank">site</a></p>`,
		"see https://example.com/x.":           `<p>see <a href="https://example.com/x" rel="noopener noreferrer nofollow" target="_blank">https://example.com/x</a>.</p>`,
		"[x](javascript:alert(1))":             "<p>[x](javascript:alert(1))</p>",
		"[x](//evil.example)":                  "<p>[x](//evil.example)</p>",
		"![image](https://evil.example/i.png)": `<p>!<a href="https://evil.example/i.png" rel="noopener noreferrer nofollow" target="_blank">image</a></p>`,
		"<script>alert(1)</script>":            "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>",
		`\*not thin\*`:                         "<p>*not thin*</p>",
		"":                                     "",
	} {
		require.Equal(t, want, draw(t, text), "%q", text)
	}
}

// tags are all that may ever come out, with the attributes that they may have.
var tags = regexp.MustCompile(`^(</?(p|em|strong|code|pre|ul|ol|li|blockquote|table|tr|th|td|div|a)>|<br>|<hr>|<pre tabindex="0" class="md-code"( data-lang="[^"<>]*")?>|<div class="md-h md-h[1-6]">|<div class="md-table" tabindex="0">|<a href="https?://[^"<>]*" rel="noopener noreferrer nofollow" target="_blank">)`)

func FuzzOnlyTheAllowedComesOut(f *testing.F) {
	for _, s := range []string{
		"**a**", "[a](https://b.c)", "```x\n<b>\n```", "> > > > > > > a", "- - - - - - - a", "|a|\n|-|\n", "<img src=x onerror=alert(1)>", "[\"><script>](https://a.b/\"onclick=x)",
		"https://a.b/\"><script>", "```\"onclick=x\n", "****", "*", "`", "_a_b_", "\\", "[](https://x.y)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		html := draw(t, text)
		for i := strings.IndexByte(html, '<'); i >= 0; {
			if !tags.MatchString(html[i:]) {
				t.Fatalf("%q gave %q at %q", text, html, html[i:min(len(html), i+80)])
			}
			next := strings.IndexByte(html[i+1:], '<')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	})
}

func TestLongTextsTakeLinearTime(t *testing.T) {
	for _, s := range []string{"*", "**", "_", "`", "[", "[a](", "> ", "- ", "|", "*a ", "https://"} {
		began := time.Now()
		draw(t, strings.Repeat(s, 64<<10/len(s)))
		require.Less(t, time.Since(began), 5*time.Second, "%q", s)
	}
}
