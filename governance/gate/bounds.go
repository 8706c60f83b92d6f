package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/gate/internal/gatedb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// BoundBreach is a model that once used more than its bound. It is refused until somebody has mended the bound: what it used above was the
// platform's loss.
type BoundBreach struct {
	Model   string
	Step    id.Step
	Excess  money.Nanos
	NotedAt time.Time
}

// BoundBreaches lists them by model.
func BoundBreaches(ctx context.Context, tx pgx.Tx) ([]BoundBreach, error) {
	rows, err := gatedb.New(tx).BoundBreaches(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the models that broke their bounds: %w", err)
	}
	out := make([]BoundBreach, len(rows))
	for i, r := range rows {
		out[i] = BoundBreach{Model: r.Model, Step: id.Step(r.StepID), Excess: money.Nanos(r.ExcessNanos), NotedAt: r.NotedAt.UTC()}
	}
	return out, nil
}

// MendBound says that a model's bound is right again: by a release that counts better, or by prices that name what was left out.
func MendBound(ctx context.Context, tx pgx.Tx, model string) error {
	n, err := gatedb.New(tx).MendBound(ctx, model)
	if err != nil {
		return fmt.Errorf("mend the bound of %s: %w", model, err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}
