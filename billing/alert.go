package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Reached is a threshold of a budget that was reached in the period now under way.
type Reached struct {
	Percent int32
	// Spent and Limit are those of the moment.
	Spent     money.Nanos
	Limit     money.Nanos
	ReachedAt time.Time
	// ToldAt is nil until mail and webhooks were queued.
	ToldAt *time.Time
}

// ReachedAlerts lists what was reached in the present periods of the budgets, the lowest first.
func ReachedAlerts(ctx context.Context, tx pgx.Tx, org id.Org, budgets ...id.Budget) (map[id.Budget][]Reached, error) {
	out := map[id.Budget][]Reached{}
	if len(budgets) == 0 {
		return out, nil
	}
	ids := make([]string, len(budgets))
	for i, b := range budgets {
		ids[i] = string(b)
	}
	rows, err := billingdb.New(tx).PresentAlerts(ctx, billingdb.PresentAlertsParams{OrgID: org, Budgets: ids})
	if err != nil {
		return nil, fmt.Errorf("read which thresholds were reached: %w", err)
	}
	for _, r := range rows {
		out[id.Budget(r.BudgetID)] = append(out[id.Budget(r.BudgetID)], Reached{
			Percent: r.Percent, Spent: money.Nanos(r.SpentNanos), Limit: money.Nanos(r.LimitNanos), ReachedAt: r.ReachedAt.UTC(), ToldAt: r.SentAt,
		})
	}
	return out, nil
}
