package ui_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
)

var update = flag.Bool("update", false, "write the golden files anew")

var at = time.Date(2026, 11, 20, 13, 44, 19, 123456000, time.UTC)

func draw(t testing.TB, c templ.Component) string {
	t.Helper()
	zone, err := time.LoadLocation("Asia/Kathmandu")
	require.NoError(t, err)
	ctx := ui.WithPreferences(t.Context(), ui.Preferences{Zone: zone, Now: at.Add(4 * time.Minute)})
	var out bytes.Buffer
	require.NoError(t, c.Render(ctx, &out))
	return out.String()
}

func nanos(n money.Nanos) *money.Nanos { return &n }

// hostile is text as an agent may write it; nothing of it may become markup.
const hostile = `</pre><script>alert(1)</script><hx-partial hx-target="body">"'&` + "\x00"

func components() map[string]templ.Component {
	cost := nanos(4_310_000)
	return map[string]templ.Component{
		"badge-running":    ui.Badge(ui.Session(ui.SessionState{Status: "running"})),
		"badge-reason":     ui.Badge(ui.Session(ui.SessionState{Status: "terminated", StopReason: "failed", Detail: "provider_failed"})),
		"button-primary":   ui.Button(ui.ButtonProps{Label: "Run", Kind: "primary", Icon: "play", Type: "submit", Name: "do", Value: "run"}),
		"button-icon-link": ui.Button(ui.ButtonProps{Label: "Download", Icon: "download", IconOnly: true, Href: "/x?a=1&b=2", Attrs: templ.Attributes{"download": true}}),
		"button-script":    ui.Button(ui.ButtonProps{Label: hostile, Href: "/ok"}),
		"copy":             ui.Copy(`a "quoted" text`, "Copy it"),
		"ident":            ui.Ident("ses_01jd4x8z9k7m2n5p8q1r4s7t0v"),
		"money":            ui.Money(1_281_000),
		"money-none":       ui.MoneyOrNone(nil),
		"spent":            ui.Spent(4_310_000, 45_690_000, nanos(50_000_000)),
		"tokens":           ui.Tokens(ui.TokenCounts{Input: 412, CacheRead: 20480, Output: 96}),
		"when":             ui.When(at),
		"date":             ui.Date(at),
		"meter":            ui.Meter(10, 20, 40),
		"sums":             ui.Sums([]ui.Line{{Label: "Input", Amount: cost}, {Label: "No price"}, {Label: "Charged", Amount: cost, Total: true}}),
		"facts":            ui.Facts([]ui.Fact{{Term: "Name", Text: hostile}, {Term: "Cost", Value: ui.Money(10)}}),
		"input-error":      ui.Input(ui.Field{Name: "name", Label: "Name", Value: `a"b`, Error: "Give it a name", Help: "How people find it.", Attrs: templ.Attributes{"required": true}}),
		"input-affix":      ui.Input(ui.Field{Name: "max_cost", Label: "Price ceiling", Before: "$", After: "a session", Optional: true}),
		"password":         ui.Password(ui.Field{Name: "password", Label: "Password", Autocomplete: "current-password"}),
		"textarea":         ui.TextArea(ui.Field{Name: "system", Label: "System prompt", Value: hostile, Mono: true}),
		"select":           ui.Select(ui.Field{Name: "model", Label: "Model", Value: "b", Options: []ui.Option{{Value: "a", Label: "A", Group: "One"}, {Value: "b", Label: "B", Group: "Two"}}}),
		"choice":           ui.Choose(ui.Choice{Name: "scope", Value: "agents:read", Label: "agents:read", Checked: true}),
		"summary":          ui.Summary(ui.Problems{{Field: "name", Message: "Give it a name"}, {Message: "The balance does not cover this."}}),
		"summary-none":     ui.Summary(nil),
		"empty":            ui.Empty(ui.EmptyProps{Kind: ui.FilteredOut, Title: "No session matches", Text: "Filters leave none."}),
		"banner-bad":       ui.Banner("bad", "Not sent.", hostile),
		"dialog":           ui.Dialog(ui.DialogProps{ID: "kill", Title: "Kill?", Stay: true, Shown: true}),
		"toast":            ui.Toast("Saved."),
		"error-page":       ui.ErrorPage(ui.ErrorProps{Status: 503, Title: "Not available now", Text: "Try again.", Money: "No money moved.", RequestID: "req_1", Retry: "/again", Home: "/home"}),
		"pager":            ui.Pager(ui.PagerProps{Shown: 50, Noun: "sessions", Next: "?after=x"}),
		"segmented":        ui.Segmented("Group", []ui.Segment{{Label: "All", Href: "?", Current: true}, {Label: "Working", Href: "?group=working", Count: "3"}}),
		"code":             ui.Code(ui.CodeProps{ID: "c", Title: "out.txt", Text: hostile}),
		"code-cut":         ui.Code(ui.CodeProps{ID: "c", Text: strings.Repeat("é", 40_000), Size: 9_000_000, More: "?all=1", Download: "/get"}),
		"json":             ui.JSON(ui.CodeProps{ID: "j", Text: `{"big":9007199254740993,"a":{"b":{"c":[1,null,true]}},"s":"<b>","e":{}}`}),
		"json-none":        ui.JSON(ui.CodeProps{ID: "j", Text: `{"cut": "off`}),
		"diff":             ui.Diff("one\ntwo\nthree\n", "one\n2\nthree\nfour\n", "Version 1", "Version 2"),
		"chart": ui.Chart(ui.ChartProps{Label: "Spent by agent and day", Buckets: []string{"1 Nov", "2 Nov", "3 Nov", "4 Nov", "5 Nov"}, Series: []ui.ChartSeries{
			{Name: "analyst", Values: []money.Nanos{0, 1_281_000, 4_000_000_000, 0, 1}}, {Name: hostile, Values: []money.Nanos{0, 0, 3_000_000_000, 7, 0}},
		}}),
		"chart-lines": ui.Chart(ui.ChartProps{Label: "Spent", Lines: true, Buckets: []string{"1 Nov", "2 Nov"}, Series: []ui.ChartSeries{{Name: "all", Values: []money.Nanos{10, 25}}}}),
		"chart-none":  ui.Chart(ui.ChartProps{Label: "Spent"}),
		"chart-table": ui.ChartTable(ui.ChartProps{Label: "Spent", Buckets: []string{"1 Nov", "2 Nov"}, Series: []ui.ChartSeries{{Name: "a", Values: []money.Nanos{0, 25}}, {Name: "b", Values: []money.Nanos{7, 0}}}}, "Day"),
		"share-bar":   ui.ShareBar("12.50"),
		"skeleton":    ui.Skeleton(2),
		"waterfall": ui.Waterfall(ui.WaterfallProps{Spans: []ui.Span{
			{ID: "a", Name: "analyst", Kind: "agent", Start: at, End: at.Add(2 * time.Second), Cost: cost, Href: "?span=a"},
			{ID: "b", Name: hostile, Model: "m", Kind: "model", Depth: 1, Start: at.Add(time.Second), End: at.Add(time.Second + 40*time.Microsecond), Failed: true, Href: "?span=b", Current: true},
		}}),
	}
}

func TestComponentsAreDrawnAsTheyWere(t *testing.T) {
	for name, c := range components() {
		t.Run(name, func(t *testing.T) {
			got := strings.ReplaceAll(draw(t, c), "><", ">\n<") + "\n"
			if len(got) > 20_000 { // a long text stands for itself: its ends tell enough
				got = got[:1000] + "\n…\n" + got[len(got)-1000:]
			}
			path := filepath.Join("testdata", name+".golden.html")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err, "run the test with -update to write it")
			require.Equal(t, string(want), got)
		})
	}
}

func TestNothingInlineAndNothingOfAnAgentBecomesMarkup(t *testing.T) {
	for name, c := range components() {
		html := draw(t, c)
		require.NotContains(t, html, " style=", name)
		require.NotContains(t, html, "<script", name)
		require.NotContains(t, html, "<hx-partial", name)
		require.NotContains(t, html, " onclick", name)
		require.NotContains(t, html, "hx-on", name)
		require.NotContains(t, html, "js:", name)
	}
}
