package budgets

import (
	"strconv"
	"time"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// mark is a threshold, reached or not.
type mark struct {
	Percent string
	Reached *time.Time
	Spent   money.Nanos
	Told    *time.Time
}

// row is a budget as the pages show it.
type row struct {
	ID, Name           string
	Href, Edit, Delete string
	Covers, CoversHref string
	Limit              money.Nanos
	Spent, Held, Left  money.Nanos
	// Words says what is spent and held of the limit, Exact the same to the nano-dollar; Whole is what the bar's length stands for.
	Words, Exact string
	Whole        money.Nanos
	Forecast     *money.Nanos
	Over         bool // the forecast is above the limit
	Period       string
	ResetsAt     *time.Time
	Action       string
	Marks        []mark
	Status       ui.Status
	Percent      string
	Since        time.Time
	Archived     bool
}

type listView struct {
	Frame    page.Frame
	Base     string
	New      string
	Rows     []row
	Zone     string
	CanWrite bool
	Pager    ui.PagerProps
}

type showView struct {
	Frame    page.Frame
	Base     string
	Row      row
	Zone     string
	CanWrite bool
	Deleting bool
}

var scopeWords = map[string]string{
	billing.ScopeOrganization: "The whole organisation", billing.ScopeProject: "Project", billing.ScopeAgent: "Agent", billing.ScopeKey: "API key",
	billing.ScopeMember: "Member", billing.ScopeSession: "Session",
}

var periodWords = map[string]string{"total": "in total", "hour": "an hour", "day": "a day", "week": "a week", "month": "a month"}

var actionWords = map[string]string{billing.Block: "refuses what does not fit", billing.Warn: "only tells"}

func newRow(p page.Place, b billing.Budget, name string, reached []billing.Reached, now time.Time) row {
	r := row{
		ID: string(b.ID), Name: b.Name, Href: p.Path("budgets", string(b.ID)), Limit: b.Limit, Spent: b.Spent, Held: b.Held, Left: b.Available(),
		Period: periodWords[b.Period], Action: actionWords[b.Action], Status: statusOf(b), Since: b.CreatedAt, Archived: b.Archived,
		Percent: share(b.Spent, b.Limit),
	}
	r.Edit, r.Delete = r.Href+"/edit", r.Href+"/delete"
	r.Covers, r.CoversHref = covers(p, b.Scope, name)
	r.Words, r.Exact, r.Whole = b.Spent.Display()+" spent", b.Spent.Decimal()+" USD spent, "+b.Held.Decimal()+" held, limit "+b.Limit.Decimal(), b.Limit
	if b.Held > 0 {
		r.Words += ", " + b.Held.Display() + " held"
	}
	r.Words += " of " + b.Limit.Display() + " " + r.Period
	if b.Limit == 0 { // whatever was spent is all of it
		r.Whole = b.Spent + b.Held
	}
	if f, ok := b.Forecast(now); ok {
		r.Forecast, r.Over = &f, f > b.Limit
	}
	if !b.ResetsAt.IsZero() {
		r.ResetsAt = &b.ResetsAt
	}
	for _, percent := range b.Alerts {
		m := mark{Percent: strconv.Itoa(int(percent)) + "%"}
		for _, one := range reached {
			if one.Percent == percent {
				at := one.ReachedAt
				m.Reached, m.Spent, m.Told = &at, one.Spent, one.ToldAt
			}
		}
		r.Marks = append(r.Marks, m)
	}
	return r
}

// covers says what a budget is about, and where to look at it.
func covers(p page.Place, s billing.Scope, name string) (text, href string) {
	text = scopeWords[s.Type]
	switch s.Type {
	case billing.ScopeOrganization:
		return text, ""
	case billing.ScopeAgent, billing.ScopeProject, billing.ScopeSession:
		href = "/x/" + s.ID
	case billing.ScopeKey:
		href = p.Path("keys")
	}
	if name == "" {
		name = s.ID
	}
	return text + " " + name, href
}

// statusOf is a budget in a word.
func statusOf(b billing.Budget) ui.Status {
	switch {
	case b.Archived:
		return ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Deleted"}
	case b.Available() == 0 && (b.Limit > 0 || b.Spent+b.Held > 0):
		if b.Action == billing.Warn {
			return ui.Status{Tone: ui.ToneNeeds, Icon: "warning", Word: "Over"}
		}
		return ui.Status{Tone: ui.ToneExhausted, Icon: "empty-coin", Word: "Used up"}
	case b.Limit == 0:
		return ui.Status{Tone: ui.ToneExhausted, Icon: "barred", Word: "Admits nothing"}
	case b.Near():
		return ui.Status{Tone: ui.ToneNeeds, Icon: "warning", Word: "Nearly used up"}
	}
	return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Within"}
}

// share is a part of a whole in whole percent, for people.
func share(part, whole money.Nanos) string {
	if whole <= 0 {
		return "—"
	}
	percent := int64(float64(part) / float64(whole) * 100)
	if percent == 0 && part > 0 {
		return "under 1%"
	}
	return ui.Count(percent) + "%"
}

// ids of the kinds that a budget can cover are told apart by their prefix.
var scopeOfPrefix = map[string]string{
	id.Project("").Prefix(): billing.ScopeProject, id.Agent("").Prefix(): billing.ScopeAgent, id.Key("").Prefix(): billing.ScopeKey,
	id.User("").Prefix(): billing.ScopeMember, id.Session("").Prefix(): billing.ScopeSession,
}
