package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"ambit.dev/ambit/internal/id"
	migrations "ambit.dev/ambit/migrations/postgres"
)

// WakeArgs is the job that wakes a session: ids only. The scheduler works it; whoever gives a session something to do inserts it.
type WakeArgs struct {
	Org     id.Org     `json:"org"`
	Session id.Session `json:"session"`
}

// Kind implements river.JobArgs.
func (WakeArgs) Kind() string { return "wake_session" }

// inserter has no pool: it only ever inserts within a transaction that it is given.
var inserter = func() *river.Client[pgx.Tx] {
	c, err := river.NewClient(riverpgxv5.New(nil), &river.Config{
		Schema: migrations.RiverSchema,
		// An inserter announces at most one job in this time: with River's tenth of a second, a session made just after another would wait
		// for the worker's next poll.
		FetchCooldown: time.Millisecond,
	})
	if err != nil {
		panic(fmt.Sprintf("journal: make the job inserter: %v", err))
	}
	return c
}()

// WakeTx makes sure that a worker looks at the session once the transaction has committed. Waking one that is at work, or has nothing to
// do, is harmless.
func WakeTx(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) error {
	// One attempt: the scan for sessions without a worker is what retries.
	if _, err := inserter.InsertTx(ctx, tx, WakeArgs{Org: org, Session: session}, &river.InsertOpts{MaxAttempts: 1}); err != nil {
		return fmt.Errorf("wake session %s: %w", session, err)
	}
	return nil
}
