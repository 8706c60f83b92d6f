package gallery

import (
	"strings"
	"time"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
)

// at is the time that examples are about, so that golden files do not change with the clock.
var at = time.Date(2026, 11, 20, 13, 44, 19, 0, time.UTC)

var swatches = []struct{ Name, Variable string }{
	{"page", "--page"},
	{"panel", "--panel"},
	{"selected", "--selected"},
	{"text", "--text"},
	{"text 2", "--text-2"},
	{"text 3", "--text-3"},
	{"link, focus", "--link"},
	{"control border", "--control"},
	{"hairline", "--hairline"},
	{"danger", "--danger"},
	{"diff add", "--add"},
	{"diff del", "--del"},
}

var statuses = []ui.SessionState{
	{Status: "rescheduling"},
	{Status: "running"},
	{Status: "idle", StopReason: "requires_action"},
	{Status: "idle", StopReason: "waiting", For: "awaitable"},
	{Status: "idle", StopReason: "waiting", For: "timer"},
	{Status: "idle", StopReason: "waiting", For: "signal"},
	{Status: "idle", StopReason: "waiting", For: "timer", Hibernated: true},
	{Status: "idle", StopReason: "end_turn"},
	{Status: "idle", StopReason: "interrupted"},
	{Status: "idle", StopReason: "paused", Detail: "by Ada"},
	{Status: "idle", StopReason: "budget_reached", Limit: "cost"},
	{Status: "idle", StopReason: "refusal"},
	{Status: "idle", StopReason: "retries_exhausted", Detail: "provider_failed"},
	{Status: "terminated", StopReason: "killed"},
	{Status: "terminated", StopReason: "failed", Detail: "internal"},
	{Status: "terminated", StopReason: "expired"},
}

var stepOutcomes = []string{"", "succeeded", "failed", "cancelled", "denied", "unknown", "waiting"}

const sampleJSON = `{"command":"python3 report.py --quarter Q3","timeout_seconds":60,"environment":{"PATH":"/usr/local/bin:/usr/bin","LANG":"C.UTF-8","nested":{"deep":[1,2,3,{"deeper":true}]}},"big":9007199254740993,"nothing":null,"list":[],"ratio":0.25,"ok":true}`

var sampleCode = "import csv\n\nwith open(\"sales.csv\") as f:\n    total = sum(float(row[\"amount\"]) for row in csv.DictReader(f))\nprint(f\"Total: {total:.2f}\")  # a line that is long enough to run out of its box on a phone and has to be scrolled or wrapped\n"

var longCode = strings.Repeat("line of output that repeats itself until it is far too long to be shown at once\n", 1200)

const promptBefore = "You are a careful analyst.\nAnswer in one sentence.\n\nUse the tools when a figure is asked for.\nNever guess.\n\nSources are in /data.\nName the file that you used.\nPrefer CSV to PDF.\nWrite amounts in dollars."

const promptAfter = "You are a careful analyst.\nAnswer in at most three sentences.\n\nUse the tools when a figure is asked for.\nNever guess; say what is missing.\n\nSources are in /data.\nName the file that you used.\nPrefer CSV to PDF.\nWrite amounts in dollars."

func nanos(n money.Nanos) *money.Nanos { return &n }

func after(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }

func sampleTrace() ui.WaterfallProps {
	return ui.WaterfallProps{Spans: []ui.Span{
		{ID: "a1", Name: "invoke_agent analyst", Kind: "agent", Start: after(0), End: after(8420), Cost: nanos(4_310_000), Href: "#span-a1"},
		{
			ID: "b1", Name: "chat", Model: "ambit/scripted", Kind: "model", Depth: 1, Start: after(60), End: after(1900), Href: "#span-b1", Current: true,
			Parts: []ui.Part{{Kind: "gate", Start: after(60), End: after(110)}},
		},
		{
			ID: "b2", Name: "execute_tool bash", Kind: "tool", Depth: 1, Start: after(1910), End: after(4300), Href: "#span-b2",
			Parts: []ui.Part{{Kind: "gate", Start: after(1910), End: after(1950)}, {Kind: "queue", Start: after(1950), End: after(2300)}, {Kind: "sandbox", Start: after(2300), End: after(4300)}},
		},
		{ID: "c1", Name: "exec python3 report.py", Kind: "sandbox", Depth: 2, Start: after(2310), End: after(4290), Href: "#span-c1"},
		{ID: "b3", Name: "execute_tool read_file", Kind: "tool", Depth: 1, Start: after(4310), End: after(4316), Failed: true, Href: "#span-b3"},
		{ID: "b4", Name: "chat", Model: "a-model-with-a-very-long-name-2026-11-20-preview", Kind: "model", Depth: 1, Start: after(4330), End: after(8400), Running: true, Href: "#span-b4"},
	}}
}

type tableRow struct {
	Name, Sub string
	State     ui.SessionState
	Steps     int64
	Cost      *money.Nanos
	When      time.Time
}

var tableRows = []tableRow{
	{"Total the third quarter's sales", "analyst@3", ui.SessionState{Status: "running"}, 4, nanos(4_310_000), at.Add(-12 * time.Second)},
	{"A title that is as long as a title can be, because somebody pasted the whole of the task into it and went away", "research-assistant@12", ui.SessionState{Status: "idle", StopReason: "requires_action"}, 20000, nanos(1_234_567_000_000), at.Add(-3 * time.Minute)},
	{"Say hello", "greeter@1", ui.SessionState{Status: "terminated", StopReason: "failed", Detail: "provider_failed"}, 1, nil, at.Add(-30 * time.Hour)},
}

func formExample(withErrors bool) (ui.Problems, []ui.Field) {
	var problems ui.Problems
	if withErrors {
		problems = ui.Problems{
			{Field: "g-name", Label: "Name", Message: "Give the agent a name"},
			{Field: "g-ceiling", Label: "Price ceiling", Message: "Write dollars with a point, such as 0.50"},
		}
	}
	return problems, []ui.Field{
		{Name: "g-name", Label: "Name", Error: problems.For("g-name"), Help: "How people find it; lower case reads best.", Placeholder: "analyst"},
		{Name: "g-ceiling", Label: "Price ceiling", Before: "$", After: "a session", Value: map[bool]string{true: "2500", false: "0.50"}[withErrors], Error: problems.For("g-ceiling"), Attrs: map[string]any{"inputmode": "decimal"}},
	}
}
