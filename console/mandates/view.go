package mandates

import (
	"fmt"
	"time"

	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// purse is one axis of money.
type purse struct {
	Label                      string
	Granted, Held, Spent, Free money.Nanos
	ResetsAt                   *time.Time
}

func (p purse) words() string {
	text := p.Spent.Display() + " spent"
	if p.Held > 0 {
		text += ", " + p.Held.Display() + " held"
	}
	return text + ", " + p.Free.Display() + " free of " + p.Granted.Display()
}

func (p purse) exact() string {
	return p.Spent.Decimal() + " spent, " + p.Held.Decimal() + " held, " + p.Free.Decimal() + " free of " + p.Granted.Decimal() + " USD"
}

// row is a mandate as the pages show it.
type row struct {
	ID, Intent, Href string
	// Level is how deep it stands below its root; at most eight.
	Level      int
	Agent      string
	AgentHref  string
	Status     ui.Status
	Purses     []purse
	Until      time.Time
	Draft      bool
	Sign       string
	Sentence   string
	Axes       []ui.Fact
	Digest     string
	User       string
	SignedAt   *time.Time
	RevokedAt  *time.Time
	Why        string
	Depth      int
	InForce    bool
	OnlyAP2    bool
	Parent     string
	ParentHref string
}

func (r row) indent() string { return fmt.Sprintf("tree-%d", min(r.Level, 8)) }

func newRow(p page.Place, m register.Mandate, sum register.Money, agents map[id.Agent]string, now time.Time) row {
	name := agents[m.Agent]
	if name == "" {
		name = string(m.Agent)
	}
	r := row{
		ID: string(m.ID), Intent: m.Grant.Intent, Href: p.Path("mandates", string(m.ID)), Level: len(m.Path) - 1, Agent: name, AgentHref: p.Path("agents", string(m.Agent)),
		Until: m.Grant.Until, Draft: m.State == mandate.Draft, Sign: p.Path("mandates", string(m.ID), "sign"), Sentence: m.Grant.Sentence(name), Digest: register.Challenge(m.Digest),
		User: string(m.User), SignedAt: m.SignedAt, RevokedAt: m.RevokedAt, Why: m.RevokeReason, Depth: m.Grant.Depth, OnlyAP2: m.Grant.OnlyAP2(),
	}
	if m.Parent != "" {
		r.Parent, r.ParentHref = string(m.Parent), p.Path("mandates", string(m.Parent))
	}
	if b := sum.Total; b != nil {
		r.Purses = append(r.Purses, purse{Label: "In all", Granted: b.Limit, Held: b.Held, Spent: b.Spent, Free: b.Available()})
	}
	if b := sum.Recurring; b != nil {
		at := b.ResetsAt
		r.Purses = append(r.Purses, purse{Label: "This " + b.Period, Granted: b.Limit, Held: b.Held, Spent: b.Spent, Free: b.Available(), ResetsAt: &at})
	}
	at := m.Status(now)
	r.InForce = at == mandate.Active || at == register.Waiting
	if at == mandate.Active && sum.Total != nil && sum.Total.Spent >= sum.Total.Limit {
		at = register.Exhausted
	}
	r.Status = status(at)
	g := m.Grant
	for _, axis := range []struct{ name, label string }{
		{mandate.AxisTotal, "In all"},
		{mandate.AxisRecurring, "Each period"},
		{mandate.AxisPerAction, "An action"},
		{mandate.AxisTools, "Tools"},
		{mandate.AxisPayees, "May pay"},
		{mandate.AxisFrom, "Begins"},
		{mandate.AxisUntil, "Ends"},
		{mandate.AxisDepth, "May hand on"},
		{mandate.AxisSessions, "Sessions"},
	} {
		text := g.Show(axis.name)
		if axis.name == mandate.AxisSessions && g.Sessions != nil {
			text = fmt.Sprintf("%d of %d begun", m.SessionsUsed, *g.Sessions)
		}
		r.Axes = append(r.Axes, ui.Fact{Term: axis.label, Text: text})
	}
	return r
}

func status(of string) ui.Status {
	switch of {
	case mandate.Draft:
		return ui.Status{Tone: ui.ToneNeeds, Icon: "hand", Word: "To be signed"}
	case mandate.Active:
		return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "In force"}
	case register.Waiting:
		return ui.Status{Tone: ui.ToneAsleep, Icon: "clock", Word: "Begins later"}
	case register.Exhausted:
		return ui.Status{Tone: ui.ToneExhausted, Icon: "empty-coin", Word: "Used up"}
	case mandate.Revoked:
		return ui.Status{Tone: ui.ToneFailed, Icon: "barred", Word: "Revoked"}
	}
	return ui.Status{Tone: ui.ToneStopped, Icon: "clock", Word: "Ended"}
}

type listView struct {
	Frame    page.Frame
	New      string
	Settings string
	Rows     []row
	CanWrite bool
	Pager    ui.PagerProps
}

type receiptRow struct {
	Refused bool
	What    string
	Payee   string
	Amount  money.Nanos
	Reason  string
	At      time.Time
	Session string
	Href    string
}

type showView struct {
	Frame    page.Frame
	Row      row
	Above    []row
	Tree     []row
	Receipts []receiptRow
	CanWrite bool
	Narrow   string
	Revoke   string
	Export   string
	Body     string
}

type signView struct {
	Frame   page.Frame
	Row     row
	Action  string
	Body    string
	Confirm confirm.View
	// Passkey says that only a passkey will do, and the person has none.
	Passkey bool
	Above   string
	Enrol   string
}

type revokeView struct {
	Frame    page.Frame
	Row      row
	Fall     []row
	Working  []receiptRow
	Action   string
	Problems ui.Problems
	Reason   string
}
