package ui

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"ambit.dev/ambit/internal/money"
)

// Span is a bar of a waterfall. Spans come in the order in which they are drawn, each child after its parent.
type Span struct {
	ID    string
	Name  string
	Model string
	// Kind is agent, model, tool, sandbox or gate; it chooses icon and colour.
	Kind   string
	Depth  int
	Start  time.Time
	End    time.Time
	Failed bool
	// Running says that End is only as far as the trace has come.
	Running bool
	Cost    *money.Nanos
	Href    string
	Current bool
	// Parts split the bar: how long it waited in the queue, for the gate, for the provider, in the sandbox.
	Parts []Part
}

// Part is a stretch of a span, with the kind that colours it: queue, gate, model or sandbox.
type Part struct {
	Kind       string
	Start, End time.Time
}

// WaterfallProps is a trace to be drawn between From and To, which may be narrower than the trace.
type WaterfallProps struct {
	Spans    []Span
	From, To time.Time
	// ZoomedOut is the address of the whole trace, set while From and To are narrower.
	ZoomedOut string
}

// kinds gives each kind of span its icon, its class and its word in the legend.
var kinds = map[string]struct{ icon, class, word string }{
	"agent":   {"agent", "wf-agent", "Agent"},
	"model":   {"model", "wf-model-call", "Model call"},
	"tool":    {"tool", "wf-tool", "Tool"},
	"sandbox": {"sandbox", "wf-sandbox", "Sandbox"},
	"gate":    {"gate", "wf-gate", "Gate"},
	"queue":   {"clock", "wf-queue", "Queue"},
}

func kindClass(kind string) string {
	if k, ok := kinds[kind]; ok {
		return k.class
	}
	return "wf-bar"
}

func (s Span) icon() string {
	if k, ok := kinds[s.Kind]; ok {
		return k.icon
	}
	return "flag"
}

func (s Span) barClass() string {
	if s.Failed {
		return "wf-failed"
	}
	return kindClass(s.Kind)
}

// bounds are From and To, or the extent of the spans where those are not given.
func (p WaterfallProps) bounds() (from, to time.Time) {
	from, to = p.From, p.To
	if from.IsZero() || to.IsZero() {
		from, to = p.extent()
	}
	if !to.After(from) {
		to = from.Add(time.Millisecond)
	}
	return from, to
}

func (p WaterfallProps) extent() (from, to time.Time) {
	for _, s := range p.Spans {
		if from.IsZero() || s.Start.Before(from) {
			from = s.Start
		}
		if s.End.After(to) {
			to = s.End
		}
	}
	return from, to
}

// at is the place of t between from and to, in percent of the width, kept inside it.
func at(t, from, to time.Time) float64 {
	f := float64(t.Sub(from)) / float64(to.Sub(from))
	return math.Max(0, math.Min(1, f))
}

// bar is where a stretch begins and how wide it is, in percent. x leaves room at the right edge for the least width of 3 px.
func bar(start, end, from, to time.Time) (x, width string) {
	a, b := at(start, from, to), at(end, from, to)
	return percent(math.Min(a, 0.996)) + "%", percent(math.Max(b-a, 0)) + "%"
}

func outside(s Span, from, to time.Time) bool { return s.End.Before(from) || s.Start.After(to) }

// tick is a line of the scale.
type tick struct {
	X     string
	Label string
	// Late says that the label must end at the line, as it has no room after it.
	Late bool
}

// ticks divides the scale at round durations, two to five times: more would not have room for their labels.
func ticks(from, to time.Time) []tick {
	total := to.Sub(from)
	step := time.Duration(1)
	for _, base := range []time.Duration{time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 10 * time.Hour, 100 * time.Hour} {
		for _, m := range []int64{1, 2, 5} {
			step = base * time.Duration(m) //nolint:durationcheck // m is a factor, not a time
			if total/step <= 5 {
				return ticksBy(step, total)
			}
		}
	}
	return ticksBy(step, total)
}

// anchor is the end of the label that stands at the line, and shift its distance from it.
func (t tick) anchor() (anchor, shift string) {
	if t.Late {
		return "end", "-2"
	}
	return "start", "2"
}

func ticksBy(step, total time.Duration) []tick {
	var out []tick
	for d := time.Duration(0); d <= total && len(out) < 12; d += step {
		f := float64(d) / float64(total)
		if f > 0.97 {
			break
		}
		t := tick{X: percent(f) + "%", Label: tickLabel(d), Late: f > 0.85}
		if t.Late && float64(step)/float64(total) < 0.2 {
			t.Label = "" // before the line it would lie on the label of the line before
		}
		out = append(out, t)
	}
	return out
}

func tickLabel(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
	case d < 2*time.Hour:
		return strconv.FormatFloat(d.Minutes(), 'f', -1, 64) + " min"
	}
	return strconv.FormatFloat(d.Hours(), 'f', -1, 64) + " h"
}

// legend lists the kinds that occur, in a fixed order.
func (p WaterfallProps) legend() []string {
	seen := map[string]bool{}
	for _, s := range p.Spans {
		seen[s.Kind] = true
		for _, part := range s.Parts {
			seen[part.Kind] = true
		}
	}
	var out []string
	for _, k := range []string{"agent", "model", "tool", "sandbox", "gate", "queue"} {
		if seen[k] {
			out = append(out, k)
		}
	}
	return out
}

func indentWidth(depth int) string { return strconv.Itoa(min(depth, 12) * 14) }

func minimapY(i, n int) string {
	return strconv.FormatFloat(4+32*float64(i)/float64(max(n, 1)), 'f', 2, 64)
}

func minimapHeight(n int) string {
	return strconv.FormatFloat(math.Max(1, math.Min(5, 28/float64(max(n, 1)))), 'f', 2, 64)
}
