package sessions

import (
	"net/url"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

const pageSize = 50

// group is a sort of session that people ask for, with the statuses and stop reasons that it stands for.
type group struct {
	key, label  string
	statuses    []string
	stopReasons []string
}

var groups = []group{
	{"", "All", nil, nil},
	{"working", "Working", []string{"running", "rescheduling"}, nil},
	{"needs_you", "Needs you", nil, []string{"requires_action", "budget_reached", "retries_exhausted"}},
	{"asleep", "Asleep", nil, []string{"waiting", "paused"}},
	{"ended", "Ended", nil, []string{"end_turn", "interrupted", "max_tokens", "refusal", "archived", "killed", "failed", "expired"}},
}

// exact are the single reasons that can be asked for beyond the groups.
var exact = []ui.Option{
	{Value: "", Label: "Any status"},
	{Value: "end_turn", Label: "Completed"},
	{Value: "interrupted", Label: "Stopped, interrupted"},
	{Value: "killed", Label: "Stopped, killed"},
	{Value: "budget_reached", Label: "Limit reached"},
	{Value: "refusal", Label: "Refused"},
	{Value: "retries_exhausted", Label: "Failed, retries used up"},
	{Value: "failed", Label: "Failed"},
}

var periods = []struct {
	value, label string
	length       time.Duration
}{{"", "Any time", 0}, {"1h", "Last hour", time.Hour}, {"24h", "Last 24 hours", 24 * time.Hour}, {"7d", "Last 7 days", 7 * 24 * time.Hour}, {"30d", "Last 30 days", 30 * 24 * time.Hour}}

// row is a session in the list.
type row struct {
	Href, Kill string
	Title      string
	Agent      string
	Status     ui.Status
	Steps      int64
	Took       time.Duration
	Spent      money.Nanos
	Ceiling    *money.Nanos
	LastActive time.Time
	CanStop    bool
}

// listView is the page of sessions.
type listView struct {
	Frame    page.Frame
	Rows     []row
	Segments []ui.Segment
	Filter   listQuery
	Agents   []ui.Option
	Exact    []ui.Option
	Periods  []ui.Option
	Pager    ui.PagerProps
	Filtered bool
	Action   string
	NewHref  string
	Clear    string
}

// listQuery is what the address of the list says.
type listQuery struct {
	Group, Status, Agent, Since, After string
}

func (q listQuery) encode() string {
	v := url.Values{}
	for name, value := range map[string]string{"group": q.Group, "status": q.Status, "agent": q.Agent, "since": q.Since, "after": q.After} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func (q listQuery) filter(p page.Place, now time.Time) journal.SessionFilter {
	f := journal.SessionFilter{Project: p.Project, IncludeArchived: q.Group == "ended" || q.Group == "", Limit: pageSize + 1}
	for _, g := range groups {
		if g.key == q.Group {
			f.Statuses, f.StopReasons = g.statuses, g.stopReasons
		}
	}
	for _, o := range exact[1:] {
		if o.Value == q.Status {
			f.Statuses, f.StopReasons = nil, []string{q.Status}
		}
	}
	if a, err := id.Parse[id.Agent](q.Agent); err == nil {
		f.Agent = a
	}
	if after, err := id.Parse[id.Session](q.After); err == nil {
		f.After = after
	}
	for _, period := range periods {
		if period.value == q.Since && period.length > 0 {
			from := now.Add(-period.length)
			f.CreatedAfter = &from
		}
	}
	return f
}

// newRow maps a session to a line of a list.
func newRow(p page.Place, s journal.Session) row {
	r := row{
		Href: p.Path("sessions", string(s.ID)), Title: titleOf(s), Agent: agentLabel(s), Status: ui.Session(transcript.StateOf(s.Status, s.StopReason)),
		Steps: s.Usage.Steps, Spent: s.Charged, Ceiling: s.Limits.MaxCost, LastActive: s.LastActiveAt, Took: s.LastActiveAt.Sub(s.CreatedAt),
		CanStop: p.Can(tenants.SessionsWrite) && s.AtWork(),
	}
	if s.AtWork() {
		r.Took = time.Since(s.CreatedAt)
	}
	r.Kill = r.Href + "?kill=1"
	return r
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	q := listQuery{Group: c.QueryParam("group"), Status: c.QueryParam("status"), Agent: c.QueryParam("agent"), Since: c.QueryParam("since"), After: c.QueryParam("after")}
	if !slices.ContainsFunc(groups, func(g group) bool { return g.key == q.Group }) {
		q.Group = "" // an address that was mistyped shows all, and says so
	}
	found, err := h.Sessions.List(ctx, p.Org, q.filter(p, time.Now()))
	if err != nil {
		return err
	}
	var known []agents.Agent
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		known, err = h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, IncludeArchived: true, Limit: 100})
		return err
	})
	if err != nil {
		return err
	}
	options := []ui.Option{{Value: "", Label: "Any agent"}}
	for _, a := range known {
		options = append(options, ui.Option{Value: string(a.ID), Label: a.Name})
	}
	v := newList(p, q, found, options)
	v.Frame = page.NewFrame(c, "sessions", "Sessions", page.Crumb{Label: "Sessions"})
	return page.Render(c, 200, List(v))
}

// newList maps what was found, which may hold one session more than a page: then there is a next page.
func newList(p page.Place, q listQuery, found []journal.Session, agentOptions []ui.Option) listView {
	base := p.Path("sessions")
	v := listView{Filter: q, Agents: agentOptions, Exact: exact, Action: base, NewHref: p.Path("playground"), Clear: base, Filtered: q != (listQuery{After: q.After})}
	for _, period := range periods {
		v.Periods = append(v.Periods, ui.Option{Value: period.value, Label: period.label})
	}
	for _, g := range groups {
		to := q
		to.Group, to.Status, to.After = g.key, "", ""
		v.Segments = append(v.Segments, ui.Segment{Label: g.label, Href: base + to.encode(), Current: g.key == q.Group})
	}
	more := len(found) > pageSize
	if more {
		found = found[:pageSize]
	}
	for _, s := range found {
		v.Rows = append(v.Rows, newRow(p, s))
	}
	v.Pager = ui.PagerProps{Shown: len(v.Rows), Noun: "sessions"}
	if more {
		next := q
		next.After = string(found[len(found)-1].ID)
		v.Pager.Next = base + next.encode()
	}
	if q.After != "" {
		first := q
		first.After = ""
		v.Pager.First = base + first.encode()
	}
	return v
}
