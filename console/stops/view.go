package stops

import (
	"strings"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/scheduler"
)

type askView struct {
	Frame       page.Frame
	Title       string
	Action      string
	Back        string
	Noun, Name  string
	Typed       string
	Working     int64
	Reason      string
	IncludeIdle bool
	Problems    ui.Problems
}

// working says what would be stopped now.
func (v askView) working() string {
	if v.Working == 0 {
		return "Nothing of it works just now."
	}
	if v.Working == 1 {
		return "1 session works now, and whatever it has started."
	}
	return ui.Count(v.Working) + " sessions work now, and whatever they have started."
}

type row struct {
	Href    string
	What    string
	Reason  string
	By      string
	Status  ui.Status
	Stopped int64
	At      time.Time
}

type listView struct {
	Frame page.Frame
	Base  string
	Rows  []row
	Pager ui.PagerProps
}

var nouns = map[string]string{scheduler.ScopeAgent: "Agent", scheduler.ScopeKey: "API key", scheduler.ScopeProject: "Project", scheduler.ScopeOrganization: "Everything", scheduler.ScopeMandate: "Mandate"}

// names are what people call things and each other, by their ids. What has none here is shown by its id.
type names map[string]string

func (n names) of(id string) string {
	if name := n[id]; name != "" {
		return name
	}
	return id
}

func what(o scheduler.StopOrder, known names) string {
	if o.Scope.Type == scheduler.ScopeOrganization {
		return nouns[o.Scope.Type]
	}
	return nouns[o.Scope.Type] + " " + known.of(o.Scope.ID)
}

func statusOf(o scheduler.StopOrder) ui.Status {
	switch {
	case o.CompletedAt != nil:
		return ui.Status{Tone: ui.ToneStopped, Icon: "stop", Word: "Stopped"}
	case o.FencedAt != nil:
		return ui.Status{Tone: ui.ToneRunning, Icon: "stop", Word: "Ending", Reason: "sandboxes are ending"}
	default:
		return ui.Status{Tone: ui.ToneRunning, Icon: "stop", Word: "Stopping"}
	}
}

func newRow(p page.Place, o scheduler.StopOrder, known names) row {
	return row{Href: p.Path("stops", string(o.ID)), What: what(o, known), Reason: o.Reason, By: known.of(o.By.ID), Status: statusOf(o), Stopped: o.Stopped, At: o.RequestedAt}
}

// lowerFirst writes a noun as it stands within a sentence; "API key" stays.
func lowerFirst(s string) string {
	if strings.HasPrefix(s, "API") {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

type stoppedRow struct {
	Href, ID string
	Fenced   *time.Time
	Gone     *time.Time
	Released money.Nanos
	Unknown  int
	Receipt  string
}

type showView struct {
	Frame    page.Frame
	Title    string
	Self     string
	Status   ui.Status
	Complete bool
	Facts    []ui.Fact
	Receipt  string
	Rows     []stoppedRow
	More     int
}

// maxRows bounds how many sessions the page lists; the receipt has all.
const maxRows = 200

func newShow(p page.Place, o scheduler.StopOrder, known names) showView {
	v := showView{Title: "Stop of " + lowerFirst(what(o, known)), Self: p.Path("stops", string(o.ID)), Status: statusOf(o), Complete: o.CompletedAt != nil}
	v.Facts = []ui.Fact{
		{Term: "Order", Value: ui.Ident(string(o.ID))},
		{Term: "Asked for", Value: ui.Date(o.RequestedAt)},
		{Term: "By", Text: known.of(o.By.ID)},
		{Term: "Sessions", Text: ui.Count(o.Stopped)},
	}
	if o.Reason != "" {
		v.Facts = append(v.Facts, ui.Fact{Term: "Reason", Text: o.Reason})
	}
	if o.FencedAt == nil {
		v.Facts = append(v.Facts, ui.Fact{Term: "Fenced", Text: "not yet; nothing of it begins meanwhile"})
	} else {
		v.Facts = append(v.Facts, ui.Fact{Term: "Fenced", Value: ui.Clock(*o.FencedAt)}, ui.Fact{Term: "That took", Text: ui.Duration(o.FencedAt.Sub(o.RequestedAt))})
	}
	if o.Receipt == nil {
		return v
	}
	v.Receipt = v.Self + "/receipt"
	if o.Receipt.GoneAt != nil {
		v.Facts = append(v.Facts, ui.Fact{Term: "Last sandbox gone", Value: ui.Clock(*o.Receipt.GoneAt)})
	}
	v.Facts = append(v.Facts, ui.Fact{Term: "Released", Value: ui.Money(money.Nanos(o.Receipt.ReleasedNanos))})
	if o.Receipt.LastBilledAt != nil {
		v.Facts = append(v.Facts, ui.Fact{Term: "Last charge", Value: ui.Clock(*o.Receipt.LastBilledAt)})
	}
	if o.Receipt.Signature != "" {
		v.Facts = append(v.Facts, ui.Fact{Term: "Signature", Text: "signed by this instance"})
	}
	for i, s := range o.Receipt.Sessions {
		if i == maxRows {
			v.More = len(o.Receipt.Sessions) - maxRows
			break
		}
		v.Rows = append(v.Rows, stoppedRow{
			Href: p.Path("sessions", string(s.Session)), ID: string(s.Session), Fenced: s.FencedAt, Gone: s.SandboxGoneAt, Released: money.Nanos(s.ReleasedNanos),
			Unknown: s.Unsettled, Receipt: p.Path("sessions", string(s.Session), "receipt"),
		})
	}
	return v
}
