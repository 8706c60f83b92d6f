package overview

import (
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

type view struct {
	Frame                  page.Frame
	Place                  page.Place
	NoRight                bool
	Welcome                bool
	working, needs, failed []journal.Session
	Recent                 []journal.Session
	Balances               billing.Balances
	// Budgets is how many bind, and Near how many of them are nearly used up or over; both are zero for who may not see them.
	Budgets, Near    int
	HasAgent, HasKey bool
	KeyUsed          bool
}

// next is the session that a person should look at first: the oldest of those that wait.
func (v view) next() string {
	if len(v.needs) == 0 {
		return ""
	}
	return v.Place.Path("sessions", string(v.needs[len(v.needs)-1].ID))
}

func waiting(n int) string {
	if n == 1 {
		return "session that waits for a person"
	}
	return "sessions that wait for a person"
}

func (v view) figures() []ui.FigureProps {
	list := v.Place.Path("sessions")
	held := "nothing held"
	if v.Balances.Held > 0 {
		held = v.Balances.Held.Display() + " held"
	}
	figures := []ui.FigureProps{
		{Label: "Needs you", Icon: "hand", Text: counted(len(v.needs)), Note: waiting(len(v.needs)), Href: list + "?group=needs_you"},
		{Label: "Working", Icon: "arc", Text: counted(len(v.working)), Note: "running or queued", Href: list + "?group=working"},
		{Label: "Failed in 24 h", Icon: "warning", Text: counted(len(v.failed)), Note: "of the sessions begun since", Href: list + "?status=failed&since=24h"},
		{Label: "Credit", Icon: "coin", Value: ui.Money(v.Balances.Available), Note: v.Balances.Spent.Display() + " spent, " + held},
	}
	if v.Place.Can(tenants.LedgerRead) {
		figures[3].Href = v.Place.Path("ledger")
	}
	if v.Budgets > 0 {
		figures = append(figures, ui.FigureProps{Label: "Budgets near their limit", Icon: "budget", Text: counted(v.Near), Note: "of " + counted(v.Budgets) + " in force", Href: v.Place.Path("budgets")})
	}
	return figures
}

// started says whether the first steps are all done; then they are not shown any more.
func (v view) started() bool { return len(v.Recent) > 0 && v.HasAgent && v.KeyUsed }
