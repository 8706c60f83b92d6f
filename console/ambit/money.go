package ambit

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/money"
)

type budgetRow struct {
	Name, Href, Covers string
	Limit, Spent, Held money.Nanos
	Left               money.Nanos
	Resets             *time.Time
	// Binds is false for one that only tells.
	Binds bool
	// Least marks the one of which the least is left.
	Least bool
}

// purse is what the agent could spend.
type purse struct {
	// Held is reserved for sessions of all agents, besides what is available.
	Available, Held money.Nanos
	Budgets         []budgetRow
	// Most is the most that all of its sessions together could spend now: the least of the balance and of what every budget that binds has left.
	Most   money.Nanos
	MostOf string
	// Session is the most that one session can cost; Ceiling is that of the newest definition, nil when it has none.
	Session   money.Nanos
	Ceiling   *money.Nanos
	SessionOf string
	// Others counts the budgets of members and keys, which bind besides whoever starts a session.
	Others int
}

// covering are the budgets that cover every session of the agent, whoever starts it.
func covering(p page.Place, a agents.Agent) []struct{ scope, words string } {
	return []struct{ scope, words string }{
		{billing.Scope{Type: billing.ScopeOrganization, ID: string(p.Org)}.String(), "the whole organisation"},
		{billing.Scope{Type: billing.ScopeProject, ID: string(a.Project)}.String(), "this project"},
		{billing.Scope{Type: billing.ScopeAgent, ID: string(a.ID)}.String(), "this agent"},
	}
}

const maxBudgets = 1000

func readPurse(ctx context.Context, tx pgx.Tx, p page.Place, a agents.Agent, versions []agents.Version) (purse, error) {
	var out purse
	balances, err := billing.ReadBalances(ctx, tx, p.Org)
	if err != nil {
		return out, err
	}
	out.Available, out.Held, out.Most, out.MostOf = balances.Available, balances.Held, balances.Available, "the balance"
	least := -1
	for _, one := range covering(p, a) {
		found, err := billing.ListBudgets(ctx, tx, p.Org, one.scope, "", maxBudgets)
		if err != nil {
			return out, err
		}
		for _, b := range found {
			row := budgetRow{
				Name: b.Name, Href: p.Path("budgets", string(b.ID)), Covers: one.words, Limit: b.Limit, Spent: b.Spent, Held: b.Held, Left: b.Available(), Binds: b.Action == billing.Block,
			}
			if !b.ResetsAt.IsZero() {
				at := b.ResetsAt
				row.Resets = &at
			}
			if row.Binds && row.Left < out.Most {
				out.Most, out.MostOf, least = row.Left, "the budget "+b.Name, len(out.Budgets)
			}
			out.Budgets = append(out.Budgets, row)
		}
	}
	if least >= 0 {
		out.Budgets[least].Least = true
	}
	all, err := billing.ListBudgets(ctx, tx, p.Org, "", "", maxBudgets)
	if err != nil {
		return out, err
	}
	for _, b := range all {
		if b.Action == billing.Block && (b.Scope.Type == billing.ScopeMember || b.Scope.Type == billing.ScopeKey) {
			out.Others++
		}
	}
	out.session(a, versions)
	return out, nil
}

// session is the widest ceiling of all versions, or all that there is where one of them has none.
func (p *purse) session(a agents.Agent, versions []agents.Version) {
	p.Ceiling = a.Definition.Limits.MaxCost
	p.Session, p.SessionOf = p.Most, "no ceiling of its own: "+p.MostOf
	var widest money.Nanos
	for _, v := range versions {
		ceiling := v.Definition.Limits.MaxCost
		if ceiling == nil {
			if v.Version != a.Version {
				p.SessionOf = "version " + strconv.Itoa(v.Version) + " has no ceiling: " + p.MostOf
			}
			return
		}
		widest = max(widest, *ceiling)
	}
	if widest < p.Most {
		p.Session, p.SessionOf = widest, "its price ceiling"
	} else {
		p.SessionOf = p.MostOf
	}
}
