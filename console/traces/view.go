package traces

import (
	"encoding/json"
	"math"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/observability"
)

type row struct {
	Href       string
	Agent      string
	Session    string
	Title      string
	Started    time.Time
	Took       time.Duration
	Spans      int64
	Calls      string
	Errors     int64
	Denied     int64
	Tokens     int64
	Cost       money.Nanos
	Models     string
	HasTrouble bool
}

type listView struct {
	Frame    page.Frame
	Rows     []row
	Query    listQuery
	Agents   []ui.Option
	Periods  []ui.Option
	Segments []ui.Segment
	Pager    ui.PagerProps
	Filtered bool
	Action   string
	Problem  string
	Run      string
}

type listQuery struct {
	Only, Agent, Since, Before string
}

func (q listQuery) encode() string {
	v := url.Values{}
	for name, value := range map[string]string{"only": q.Only, "agent": q.Agent, "since": q.Since, "before": q.Before} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

var periods = []struct {
	value, label string
	length       time.Duration
}{{"", "Any time", 0}, {"1h", "Last hour", time.Hour}, {"24h", "Last 24 hours", 24 * time.Hour}, {"7d", "Last 7 days", 7 * 24 * time.Hour}}

func newRow(p page.Place, t observability.TraceSummary) row {
	r := row{
		Href: p.Path("traces", t.SessionID), Agent: t.AgentName, Session: t.SessionID, Started: t.StartTime, Took: t.EndTime.Sub(t.StartTime),
		Spans: count(t.Spans), Errors: count(t.Errors), Denied: count(t.Denied), Tokens: count(t.InputTokens + t.OutputTokens), Cost: money.Nanos(t.CostNanos),
		Models: strings.Join(t.Models, ", "), HasTrouble: t.Errors+t.Denied > 0,
		Calls: ui.Plural(count(t.ModelCalls), "model call", "model calls") + ", " + ui.Plural(count(t.ToolCalls), "tool call", "tool calls"),
	}
	if t.AgentVersion > 0 {
		r.Agent += "@" + strconv.Itoa(int(t.AgentVersion))
	}
	return r
}

// count is a counter of ClickHouse, which has them unsigned.
func count(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// spanView is the inspector.
type spanView struct {
	ID      string
	Name    string
	Status  ui.Status
	Facts   []ui.Fact
	Error   string
	Reasons []string
	Denied  bool
	Input   ui.CodeProps
	Output  ui.CodeProps
	// Words says that the output is text, to be shown as it is.
	Words     bool
	Attrs     []ui.Fact
	Session   string
	Zoom      string
	IsZoomed  bool
	Whole     string
	HasBodies bool
}

type showView struct {
	Frame     page.Frame
	Summary   row
	Session   string
	Title     string
	Waterfall ui.WaterfallProps
	Span      *spanView
	Problem   string
	// Waiting says that no span has arrived yet.
	Waiting bool
	Retry   string
	More    string
	Facts   []ui.Fact
}

var operations = map[string]string{
	string(journal.OperationInvokeAgent): "agent", string(journal.OperationChat): "model", string(journal.OperationExecuteTool): "tool", string(journal.OperationSandbox): "sandbox",
}

// tree orders spans so that each stands after its parent, siblings by their start, and gives each its depth. A span whose parent is not
// among them, as on a later page, stands at the top.
func tree(spans []observability.SpanSummary) (ordered []observability.SpanSummary, depth map[string]int) {
	known := map[string]bool{}
	for _, s := range spans {
		known[s.SpanID] = true
	}
	children := map[string][]observability.SpanSummary{}
	for _, s := range spans {
		parent := s.ParentSpanID
		if !known[parent] || parent == s.SpanID {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	for _, group := range children {
		sort.SliceStable(group, func(i, j int) bool { return group[i].StartTime.Before(group[j].StartTime) })
	}
	depth = map[string]int{}
	var walk func(parent string, level int)
	walk = func(parent string, level int) {
		for _, s := range children[parent] {
			if _, seen := depth[s.SpanID]; seen {
				continue // a ring of parents, which no honest journal makes
			}
			depth[s.SpanID] = level
			ordered = append(ordered, s)
			walk(s.SpanID, level+1)
		}
	}
	walk("", 0)
	return ordered, depth
}

// trim leaves out of a span's name what its icon says already.
func trim(s observability.SpanSummary) (name, model string) {
	name = s.Name
	for _, prefix := range []string{"invoke_agent ", "execute_tool "} {
		name = strings.TrimPrefix(name, prefix)
	}
	if s.Operation == string(journal.OperationChat) {
		return "chat", firstText(s.ResponseModel, s.RequestModel)
	}
	return firstText(name, s.Operation), ""
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func newWaterfall(spans []observability.SpanSummary, total money.Nanos, current, zoom string, href func(span, zoom string) string) ui.WaterfallProps {
	ordered, depth := tree(spans)
	var w ui.WaterfallProps
	for _, s := range ordered {
		name, model := trim(s)
		cost := money.Nanos(s.CostNanos)
		if s.Operation == string(journal.OperationInvokeAgent) {
			cost = total
		}
		span := ui.Span{
			ID: s.SpanID, Name: name, Model: model, Kind: operations[s.Operation], Depth: depth[s.SpanID], Start: s.StartTime, End: s.EndTime,
			Failed: s.Status == string(journal.SpanError) || s.Decision == journal.Denied, Cost: &cost, Href: href(s.SpanID, zoom), Current: s.SpanID == current,
		}
		gate, queued := time.Duration(s.TimeGateMS)*time.Millisecond, time.Duration(s.TimeQueuedMS)*time.Millisecond
		if gate > 0 {
			span.Parts = append(span.Parts, ui.Part{Kind: "gate", Start: s.StartTime.Add(-gate), End: s.StartTime})
		}
		if queued > 0 {
			span.Parts = append(span.Parts, ui.Part{Kind: "queue", Start: s.StartTime.Add(-gate - queued), End: s.StartTime.Add(-gate)})
		}
		w.Spans = append(w.Spans, span)
		if s.SpanID == zoom && s.EndTime.After(s.StartTime) {
			margin := s.EndTime.Sub(s.StartTime) / 20
			w.From, w.To, w.ZoomedOut = s.StartTime.Add(-margin), s.EndTime.Add(margin), href(current, "")
		}
	}
	return w
}

func newSpan(p page.Place, s observability.SpanDetail, total money.Nanos, zoom string, href func(span, zoom string) string) *spanView {
	name, _ := trim(s.SpanSummary)
	v := &spanView{
		ID: s.SpanID, Name: name, Error: s.ErrorMessage, Reasons: s.DecisionReasons, Zoom: href(s.SpanID, s.SpanID), Whole: href(s.SpanID, ""), IsZoomed: zoom == s.SpanID,
		Input:  ui.CodeProps{ID: "span-input", Text: s.Input, Size: count(s.InputBytes)},
		Output: ui.CodeProps{ID: "span-output", Text: s.Output, Size: count(s.OutputBytes)},
	}
	if words, ok := wordsOf(s.Output); ok {
		v.Output.Text, v.Output.Wrapped, v.Words = words, true, true
	}
	if !s.InputTruncated {
		v.Input.Size = 0
	}
	if !s.OutputTruncated {
		v.Output.Size = 0
	}
	v.Session = p.Path("sessions", s.SessionID)
	if s.StepID != "" {
		v.Session += "?step=" + s.StepID
	}
	switch {
	case s.Decision == journal.Denied:
		v.Status, v.Denied = ui.Step("denied"), true
	case s.Status == string(journal.SpanOK):
		v.Status = ui.Step(journal.Succeeded)
	case s.Status == string(journal.SpanError):
		v.Status = ui.Step(journal.Failed)
	case s.Operation == string(journal.OperationInvokeAgent):
		v.Status = ui.Step("")
	default:
		v.Status = ui.Step(journal.Unknown)
	}
	v.Facts = spanFacts(s, total)
	names := make([]string, 0, len(s.Attributes))
	for n := range s.Attributes {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		v.Attrs = append(v.Attrs, ui.Fact{Term: n, Text: s.Attributes[n]})
	}
	return v
}

// wordsOf reads content that is nothing but text: that is shown as it was said, not as JSON.
func wordsOf(content string) (string, bool) {
	var blocks []map[string]string
	if err := json.Unmarshal([]byte(content), &blocks); err != nil || len(blocks) == 0 {
		return "", false
	}
	texts := make([]string, len(blocks))
	for i, b := range blocks {
		if b["type"] != "text" || len(b) != 2 {
			return "", false
		}
		texts[i] = b["text"]
	}
	return strings.Join(texts, "\n"), true
}

// spanFacts lists what is known of a span. total is the whole trace's cost: the span of the session has none of its own, and a zero
// above children with a price would be read as one.
func spanFacts(s observability.SpanDetail, total money.Nanos) []ui.Fact {
	facts := []ui.Fact{
		{Term: "Began", Value: ui.Clock(s.StartTime)},
		{Term: "Took", Text: ui.Duration(s.EndTime.Sub(s.StartTime))},
	}
	add := func(term string, value templ.Component, text string) {
		facts = append(facts, ui.Fact{Term: term, Value: value, Text: text})
	}
	if s.TimeQueuedMS > 0 {
		add("In the queue", nil, ui.Duration(time.Duration(s.TimeQueuedMS)*time.Millisecond))
	}
	if s.TimeGateMS > 0 {
		add("At the gate", nil, ui.Duration(time.Duration(s.TimeGateMS)*time.Millisecond))
	}
	if s.TimeToFirstTokenMS > 0 {
		add("First token after", nil, ui.Duration(time.Duration(s.TimeToFirstTokenMS)*time.Millisecond))
	}
	if s.RequestModel != "" {
		add("Model", nil, firstText(s.ResponseModel, s.RequestModel))
	}
	if s.InputTokens+s.OutputTokens > 0 {
		add("Tokens", ui.Tokens(tokens(s.SpanSummary)), "")
	}
	if s.Operation == string(journal.OperationInvokeAgent) {
		add("Cost of its steps", ui.Money(total), "")
	} else {
		add("Cost", ui.Money(money.Nanos(s.CostNanos)), "")
	}
	if s.LedgerEntryID != "" {
		add("Ledger entry", ui.Ident(s.LedgerEntryID), "")
	}
	if s.ErrorType != "" {
		add("Error", nil, s.ErrorType)
	}
	if s.StepID != "" {
		add("Step", ui.Ident(s.StepID), "")
	}
	add("Span", ui.Ident(s.SpanID), "")
	return facts
}

// tokens counts each token once: a span's input count includes the cached ones.
func tokens(s observability.SpanSummary) ui.TokenCounts {
	in := count(s.InputTokens) - count(s.CacheReadTokens) - count(s.CacheWriteTokens)
	return ui.TokenCounts{Input: max(in, 0), CacheRead: count(s.CacheReadTokens), CacheWrite: count(s.CacheWriteTokens), Output: count(s.OutputTokens)}
}
