package agents

import (
	"strconv"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/journal"

	domain "ambit.dev/ambit/agents"
)

// liveAlias is the alias that marks the version in use.
const liveAlias = "live"

type row struct {
	Href, Run         string
	Name, Description string
	Version           int
	Live              int
	Model             string
	// Week is what it has done in the last seven days, and Sessions the list of that.
	Week     journal.Activity
	Sessions string
	Updated  time.Time
	Archived bool
}

// outcome says how the runs of a week ended.
func (r row) outcome() string {
	if r.Week.Failed == 0 {
		return "none failed"
	}
	return ui.Count(r.Week.Failed) + " failed"
}

type listView struct {
	Frame    page.Frame
	Rows     []row
	Query    string
	Archived bool
	Filtered bool
	Action   string
	New      string
	Pager    ui.PagerProps
	CanWrite bool
}

type editView struct {
	Frame    page.Frame
	Action   string
	Back     string
	New      bool
	Form     form
	Problems ui.Problems
	Models   []ui.Option
	Tools    []Tool
	// Review is the comparison with the newest version, shown before it is published.
	Review  []change
	Before  journal.Definition
	After   journal.Definition
	Changed bool
}

type versionRow struct {
	Version int
	At      time.Time
	By      string
	Model   string
	Aliases []string
	Latest  bool
	Live    bool
	Compare string
}

type showView struct {
	Frame      page.Frame
	Base       string
	Agent      domain.Agent
	Shown      int
	Definition journal.Definition
	Latest     bool
	Versions   []versionRow
	Aliases    []domain.Alias
	Live       int
	LiveRev    int64
	Sessions   string
	Playground string
	Edit       string
	Ambit      string // what it could do at the worst; empty for who may not see rules
	Stop       string // leads to the question before the red button; empty for who may not
	CanWrite   bool
	Archived   bool
	CompareTo  string
	Tags       *tagsView // nil for who may not see rules
}

type compareView struct {
	Frame    page.Frame
	Base     string
	From, To int
	Options  []ui.Option
	Changes  []change
	Before   journal.Definition
	After    journal.Definition
	Changed  bool
}

func versionLabel(n int, latest, live int) string {
	label := "Version " + strconv.Itoa(n)
	switch {
	case n == live && n == latest:
		label += ", live and newest"
	case n == live:
		label += ", live"
	case n == latest:
		label += ", newest"
	}
	return label
}

func liveOf(aliases []domain.Alias) (version int, revision int64) {
	for _, a := range aliases {
		if a.Name == liveAlias {
			return a.Version, a.Revision
		}
	}
	return 0, 0
}

// VersionOptions lists an agent's versions for a picker, the newest first, with the live one marked.
func VersionOptions(versions []domain.Version, aliases []domain.Alias, latest int) []ui.Option {
	live, _ := liveOf(aliases)
	out := make([]ui.Option, len(versions))
	for i, v := range versions {
		out[i] = ui.Option{Value: strconv.Itoa(v.Version), Label: versionLabel(v.Version, latest, live)}
	}
	return out
}

func definitionFacts(d journal.Definition) []ui.Fact {
	facts := []ui.Fact{{Term: "Model", Value: ui.TagMono(d.Model)}}
	for _, c := range compare(d, d)[1:] {
		facts = append(facts, ui.Fact{Term: c.Label, Text: c.After})
	}
	return facts
}
