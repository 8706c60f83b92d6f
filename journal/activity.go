package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Activity is what an agent has done in a stretch of time.
type Activity struct {
	// Runs counts the sessions that were begun; Failed those of them that failed or gave up after retries.
	Runs, Failed int64
	// Charged is what they have cost so far, and Median the cost of the middle one.
	Charged, Median money.Nanos
}

// ActivityOf sums up the sessions that the agents have begun since a time, in one query. An agent without any is not in the answer.
func ActivityOf(ctx context.Context, tx pgx.Tx, org id.Org, agents []id.Agent, since time.Time) (map[id.Agent]Activity, error) {
	names := make([]string, len(agents))
	for i, a := range agents {
		names[i] = string(a)
	}
	rows, err := journaldb.New(tx).AgentActivity(ctx, journaldb.AgentActivityParams{OrgID: org, AgentIds: names, SinceID: id.FirstAt[id.Session](since)})
	if err != nil {
		return nil, fmt.Errorf("sum up what agents have done: %w", err)
	}
	out := make(map[id.Agent]Activity, len(rows))
	for _, r := range rows {
		out[r.AgentID] = Activity{Runs: r.Runs, Failed: r.Failed, Charged: money.Nanos(r.ChargedNanos), Median: money.Nanos(r.MedianNanos)}
	}
	return out, nil
}
