package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

// MandateLimit is what may be spent under a mandate, in all or in each period, from when until when.
type MandateLimit struct {
	Mandate id.Mandate
	// Name is what a refusal calls it: the mandate's intent.
	Name string
	// Period is day, week, month, or total.
	Period string
	Limit  money.Nanos
	From   *time.Time
	Until  time.Time
}

// OpenMandate makes the budget that counts and holds what is spent under a mandate. It binds from the commit on, for every session whose spending
// counts against the mandate: those under it, and those under a mandate that narrows it.
func OpenMandate(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, in MandateLimit) (id.Budget, error) {
	q := billingdb.New(tx)
	by, err := json.Marshal(principal.From(ctx))
	if err != nil {
		return "", fmt.Errorf("write the principal: %w", err)
	}
	name := in.Name
	if utf8.RuneCountInString(name) > maxBudgetName {
		name = strings.TrimSpace(string([]rune(name)[:maxBudgetName-1])) + "…"
	}
	budget := id.New[id.Budget]()
	err = q.InsertBudget(ctx, billingdb.InsertBudgetParams{
		OrgID: org, ID: string(budget), Name: name, Scope: Scope{ScopeMandate, string(in.Mandate)}.String(), LimitNanos: int64(in.Limit), Period: in.Period,
		Action: Block, Alerts: []int32{}, CreatedBy: by, Now: now,
	})
	if err != nil {
		return "", fmt.Errorf("make the budget of %s: %w", in.Mandate, err)
	}
	n, err := q.SetBudgetTimes(ctx, billingdb.SetBudgetTimesParams{FromAt: in.From, EndsAt: &in.Until, Now: now, OrgID: org, ID: string(budget)})
	if err != nil || n != 1 {
		return "", fmt.Errorf("say when the budget of %s ends (%d rows): %w", in.Mandate, n, err)
	}
	if err := q.OpenBudget(ctx, billingdb.OpenBudgetParams{OrgID: string(org), ID: string(budget)}); err != nil {
		return "", fmt.Errorf("open the budget of %s: %w", in.Mandate, err)
	}
	return budget, nil
}

// EndMandates makes these budgets end now: nothing more is held of them, by the database's own clock.
func EndMandates(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, budgets []string) error {
	if err := billingdb.New(tx).EndBudgets(ctx, billingdb.EndBudgetsParams{Now: now, OrgID: org, Ids: budgets}); err != nil {
		return fmt.Errorf("end the budgets of mandates: %w", err)
	}
	return nil
}

// BudgetsNamed reads budgets with their present periods, by id.
func BudgetsNamed(ctx context.Context, tx pgx.Tx, org id.Org, budgets []string) (map[id.Budget]Budget, error) {
	rows, err := billingdb.New(tx).BudgetsNamed(ctx, billingdb.BudgetsNamedParams{OrgID: org, Ids: budgets})
	if err != nil {
		return nil, fmt.Errorf("read budgets: %w", err)
	}
	out := make(map[id.Budget]Budget, len(rows))
	for _, r := range rows {
		b, err := budgetFromRow(billingdb.ListBudgetsRow(r))
		if err != nil {
			return nil, err
		}
		out[b.ID] = b
	}
	return out, nil
}
