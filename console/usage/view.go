package usage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
)

// group is what was spent on one agent, model or other part in the whole range.
type group struct {
	Key     string
	Name    string
	Href    string
	Spent   money.Nanos
	Effects int64
	Share   string
	Bar     string
}

// tag is a filter that can be taken away.
type tag struct{ Text, Clear string }

type view struct {
	Frame       page.Frame
	Base        string
	Query       query
	By          string
	Segments    []ui.Segment
	Charts      []ui.Segment
	Periods     []ui.Option
	Projects    []ui.Option
	Agents      []ui.Option
	Tags        []tag
	Clear       string
	CSV         string
	Figures     []ui.FigureProps
	Chart       ui.ChartProps
	Unit        string
	Zone        string
	Groups      []group
	Total       money.Nanos
	TooMany     bool
	Filtered    bool
	WholeOrg    string
	LedgerHref  string
	BudgetsHref string
}

// otherwise names what does not apply.
var otherwise = map[string]string{
	"agent": "written into the invoke", "model": "not a model call", "tool": "model calls", "key": "no API key", "member": "no member", "project": "no project",
}

func partLabel(by string) string {
	for _, p := range parts {
		if p.key == by {
			return p.label
		}
	}
	return ""
}

func newView(p page.Place, q query, s span, rows []billing.UsageRow, names map[string]string) view {
	base := p.Path("usage")
	v := view{
		Base: base, Query: q, By: partLabel(q.By), Segments: q.bySegments(base), Periods: q.periodOptions(), Zone: s.zone.String(),
		Unit: strings.ToUpper(s.bucket[:1]) + s.bucket[1:], CSV: p.Path("usage", "csv") + q.with(nil), Filtered: q.filtered(),
		Clear:    base + q.with(func(q *query) { q.Agent, q.Model, q.Tool, q.Key, q.Member = "", "", "", "", "" }),
		WholeOrg: base + q.with(func(q *query) { q.Project = "all" }), LedgerHref: p.Path("ledger"), BudgetsHref: p.Path("budgets"),
	}
	v.Projects = []ui.Option{{Value: "", Label: p.ProjectName, Selected: q.Project == ""}, {Value: "all", Label: "All of " + p.OrgName, Selected: q.Project == "all"}}
	v.Charts = []ui.Segment{
		{Label: "Bars", Href: base + q.with(func(q *query) { q.Chart = "" }), Current: q.Chart == ""},
		{Label: "Lines", Href: base + q.with(func(q *query) { q.Chart = "lines" }), Current: q.Chart == "lines"},
	}
	v.Tags = q.tags(base, names)
	v.Groups = groupsOf(base, q, rows, names)
	var effects int64
	for _, g := range v.Groups {
		v.Total += g.Spent
		effects += g.Effects
	}
	for i := range v.Groups {
		v.Groups[i].Share, v.Groups[i].Bar = shareOf(v.Groups[i].Spent, v.Total)
	}
	v.Chart = chartOf(q, s, rows, v.Groups)
	v.Figures = figuresOf(v, s, effects)
	return v
}

func (q query) tags(base string, names map[string]string) []tag {
	var out []tag
	add := func(kind, value string, clear func(*query)) {
		if value == "" {
			return
		}
		name := value
		if known := names[value]; known != "" {
			name = known
		}
		out = append(out, tag{Text: kind + ": " + name, Clear: base + q.with(clear)})
	}
	add("Agent", q.Agent, func(q *query) { q.Agent = "" })
	add("Model", q.Model, func(q *query) { q.Model = "" })
	add("Tool", q.Tool, func(q *query) { q.Tool = "" })
	add("Key", q.Key, func(q *query) { q.Key = "" })
	add("Member", q.Member, func(q *query) { q.Member = "" })
	return out
}

// groupsOf sums the rows by their part, the dearest first.
func groupsOf(base string, q query, rows []billing.UsageRow, names map[string]string) []group {
	at := map[string]int{}
	var out []group
	for _, r := range rows {
		key := r.Part(q.By)
		i, known := at[key]
		if !known {
			i = len(out)
			at[key] = i
			out = append(out, group{Key: key, Name: nameOf(q.By, key, names), Href: q.into(base, key)})
		}
		out[i].Spent += r.Spent
		out[i].Effects += r.Effects
	}
	slices.SortStableFunc(out, func(a, b group) int {
		return cmp.Or(cmp.Compare(b.Spent, a.Spent), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func nameOf(by, key string, names map[string]string) string {
	switch {
	case key == "":
		return otherwise[by]
	case names[key] != "":
		return names[key]
	}
	return key
}

// into leads from a group to what it was spent on: the same range with the group as its filter, by another part.
func (q query) into(base, key string) string {
	if key == "" {
		return ""
	}
	switch q.By {
	case "agent":
		return base + q.with(func(q *query) { q.Agent, q.By = key, "model" })
	case "model":
		return base + q.with(func(q *query) { q.Model, q.By = key, "agent" })
	case "tool":
		return base + q.with(func(q *query) { q.Tool, q.By = key, "agent" })
	case "key":
		return base + q.with(func(q *query) { q.Key, q.By = key, "agent" })
	case "member":
		return base + q.with(func(q *query) { q.Member, q.By = key, "agent" })
	}
	return ""
}

// shareOf is a part of a whole: in words, and as the width of a bar of 100.
func shareOf(part, whole money.Nanos) (words, bar string) {
	if whole <= 0 {
		return "", "0"
	}
	percent := float64(part) / float64(whole) * 100
	if part > 0 && percent < 0.1 {
		return "under 0.1%", "0.50"
	}
	if part < whole && percent >= 99.95 {
		return "over 99.9%", "99.90"
	}
	return fmt.Sprintf("%.1f%%", percent), fmt.Sprintf("%.2f", max(percent, 0.5))
}

// chartOf has a series for each of the dearest groups, and one for all others together.
func chartOf(q query, s span, rows []billing.UsageRow, groups []group) ui.ChartProps {
	chart := ui.ChartProps{Lines: q.Chart == "lines", Label: "Spent by " + strings.ToLower(partLabel(q.By)) + " and " + s.bucket}
	index := map[int64]int{}
	for i, at := range s.starts {
		index[at.Unix()] = i
		chart.Buckets = append(chart.Buckets, s.label(at))
	}
	own := len(groups)
	if own > ui.MaxSeries {
		own = ui.MaxSeries - 1
	}
	series := map[string]int{}
	for i, g := range groups {
		if i < own {
			chart.Series = append(chart.Series, ui.ChartSeries{Name: g.Name, Values: make([]money.Nanos, len(s.starts))})
		}
		series[g.Key] = min(i, own)
	}
	if own < len(groups) {
		chart.Series = append(chart.Series, ui.ChartSeries{Name: ui.Plural(int64(len(groups)-own), "other", "others"), Values: make([]money.Nanos, len(s.starts))})
	}
	for _, r := range rows {
		if i, ok := index[r.StartsAt.Unix()]; ok {
			chart.Series[series[r.Part(q.By)]].Values[i] += r.Spent
		}
	}
	return chart
}

func figuresOf(v view, s span, effects int64) []ui.FigureProps {
	average := money.Nanos(int64(v.Total) / int64(len(s.starts)))
	list := []ui.FigureProps{
		{Label: "Spent", Icon: "coin", Value: ui.Money(v.Total), Note: "captured on the ledger"},
		{Label: "A" + map[string]string{"hour": "n hour", "day": " day"}[s.bucket] + " on average", Value: ui.Money(average)},
		{Label: "Effects", Text: ui.Count(effects), Note: "model calls, tools and the rest"},
	}
	if len(v.Groups) > 0 {
		top := v.Groups[0]
		list = append(list, ui.FigureProps{Label: "Most on", Value: ui.Money(top.Spent), Note: top.Name})
	}
	return list
}
