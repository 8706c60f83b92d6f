package ledger

import (
	"time"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants"
)

type row struct {
	ID       string
	Words    string
	From, To string
	// Amount is signed as the chosen account sees it; without one it is what moved.
	Amount      money.Nanos
	Signed      bool
	Session     string
	SessionHref string
	StepHref    string
	Hold        string
	Note        string
	At          time.Time
}

type view struct {
	Frame    page.Frame
	Base     string
	Query    query
	Figures  []ui.FigureProps
	Segments []ui.Segment
	Kinds    []ui.Option
	Rows     []row
	Filtered bool
	Clear    string
	Problem  string
	// Unsettled says what is held for effects of which nothing was heard, empty when there is nothing.
	Unsettled string
	Pager     ui.PagerProps
	Account   string
}

var accountWords = map[billing.Account]string{
	billing.Grants: "Granted", billing.Available: "Available", billing.Held: "Held", billing.Spent: "Spent", billing.Loss: "Loss",
}

var accountNotes = map[billing.Account]string{
	billing.Grants: "given by the operator", billing.Available: "can still be held", billing.Held: "for effects under way", billing.Spent: "captured",
	billing.Loss: "above holds, charged to nobody",
}

var kindWords = map[string]string{
	"grant": "Credit granted", "revocation": "Credit revoked", "hold": "Held before an effect", "capture": "Captured after an effect", "release": "Released to the balance", "loss": "Used above the hold",
}

func newView(p page.Place, q query, balances []billing.AccountBalance, found []billing.Transfer, names map[string]string) view {
	base := p.Path("ledger")
	v := view{Base: base, Query: q, Filtered: q.filtered(), Clear: base, Account: accountWords[billing.Account(q.Account)]}
	v.Segments = append(v.Segments, ui.Segment{Label: "All", Href: base + q.with(func(q *query) { q.Account, q.After = "", "" }), Current: q.Account == ""})
	for _, b := range balances {
		if b.Account == billing.Loss && b.Balance == 0 && q.Account != string(billing.Loss) {
			continue // there was none
		}
		href := base + q.with(func(q *query) { q.Account, q.After = string(b.Account), "" })
		v.Segments = append(v.Segments, ui.Segment{Label: accountWords[b.Account], Href: href, Current: q.Account == string(b.Account)})
		shown := b.Balance
		if b.Account == billing.Grants || b.Account == billing.Loss {
			shown = -shown // people think of what was given, not of what the account owes
		}
		v.Figures = append(v.Figures, ui.FigureProps{Label: accountWords[b.Account], Value: ui.Money(shown), Note: accountNotes[b.Account], Href: href})
	}
	v.Kinds = []ui.Option{{Value: "", Label: "Any kind"}}
	for _, k := range billing.TransferKinds() {
		v.Kinds = append(v.Kinds, ui.Option{Value: k, Label: kindWords[k]})
	}
	if q.wrong {
		v.Problem = "This is not the id of a session. It begins with ses_ and is shown on the session's page."
	}
	if len(found) > pageSize {
		found = found[:pageSize]
		v.Pager.Next = base + q.with(func(q *query) { q.After = string(found[pageSize-1].ID) })
	}
	if q.After != "" {
		v.Pager.First = base + q.with(func(q *query) { q.After = "" })
	}
	for _, t := range found {
		v.Rows = append(v.Rows, newRow(p, q, t, names))
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "entries"
	return v
}

func newRow(p page.Place, q query, t billing.Transfer, names map[string]string) row {
	r := row{
		ID: string(t.ID), Words: kindWords[t.Kind], From: accountWords[t.Debit], To: accountWords[t.Credit], Amount: t.Amount, Note: t.Note, Hold: string(t.Hold), At: t.CreatedAt,
	}
	if q.Account != "" {
		r.Signed = true
		if string(t.Debit) == q.Account {
			r.Amount = -t.Amount
		}
	}
	if t.Session == "" {
		return r
	}
	r.Session = names[string(t.Session)]
	if r.Session == "" {
		r.Session = "Session"
	}
	if p.Can(tenants.SessionsRead) {
		// The ledger is the organisation's: the session may be another project's, which the finder knows.
		r.SessionHref = "/x/" + string(t.Session)
		if t.Step != "" {
			r.StepHref = "/x/" + string(t.Step)
		}
	}
	return r
}

// sign writes what an account gained or lost.
func sign(n money.Nanos) string {
	if n > 0 {
		return "+"
	}
	return ""
}
