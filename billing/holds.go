package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// HoldStates are what a hold can be: held, unsettled when its time ran out before its effect was settled, captured when something of it was
// spent, or released whole.
var HoldStates = []string{"held", "unsettled", "captured", "released"}

// HoldRecord is a hold with its history.
type HoldRecord struct {
	Hold

	PriceVersion string
	ExpiresAt    time.Time
	CreatedAt    time.Time
	// SettledAt is nil while the hold is open.
	SettledAt *time.Time
}

// HoldFilter selects holds. What is empty does not restrict.
type HoldFilter struct {
	Session id.Session
	Project id.Project
	States  []string
	// After is the last one seen.
	After id.Hold
	Limit int
}

// Holds lists holds, newest first.
func Holds(ctx context.Context, tx pgx.Tx, org id.Org, f HoldFilter) ([]HoldRecord, error) {
	if f.States == nil {
		f.States = []string{}
	}
	rows, err := billingdb.New(tx).ListHolds(ctx, billingdb.ListHoldsParams{
		OrgID: org, BeforeID: string(f.After), SessionID: string(f.Session), States: f.States, ProjectID: string(f.Project), RowLimit: int32(f.Limit), //nolint:gosec // at most a page
	})
	if err != nil {
		return nil, fmt.Errorf("list the holds: %w", err)
	}
	out := make([]HoldRecord, len(rows))
	for i, r := range rows {
		out[i] = holdRecord(r)
	}
	return out, nil
}

// FindHold reads one hold and the project of its session.
func FindHold(ctx context.Context, tx pgx.Tx, org id.Org, hold id.Hold) (HoldRecord, id.Project, error) {
	r, err := billingdb.New(tx).HoldAndProject(ctx, billingdb.HoldAndProjectParams{OrgID: org, ID: hold})
	if errors.Is(err, pgx.ErrNoRows) {
		return HoldRecord{}, "", fault.NotFound()
	}
	if err != nil {
		return HoldRecord{}, "", fmt.Errorf("read hold %s: %w", hold, err)
	}
	return holdRecord(billingdb.ListHoldsRow{
		ID: r.ID, ParentID: r.ParentID, SessionID: r.SessionID, StepID: r.StepID, AmountNanos: r.AmountNanos, CarvedNanos: r.CarvedNanos, CapturedNanos: r.CapturedNanos,
		ReleasedNanos: r.ReleasedNanos, State: r.State, PriceVersion: r.PriceVersion, ExpiresAt: r.ExpiresAt, CreatedAt: r.CreatedAt, SettledAt: r.SettledAt,
	}), id.Project(r.ProjectID), nil
}

func holdRecord(r billingdb.ListHoldsRow) HoldRecord {
	return HoldRecord{
		Hold: Hold{
			ID: r.ID, Parent: id.Hold(deref(r.ParentID)), Session: r.SessionID, Step: id.Step(deref(r.StepID)), Amount: r.AmountNanos, Carved: r.CarvedNanos,
			Captured: r.CapturedNanos, Released: r.ReleasedNanos, State: r.State,
		},
		PriceVersion: r.PriceVersion, ExpiresAt: r.ExpiresAt.UTC(), CreatedAt: r.CreatedAt.UTC(), SettledAt: r.SettledAt,
	}
}

// Unsettled is what is held for effects of which nothing was heard in time, and for how many. It is a part of what is held.
func Unsettled(ctx context.Context, tx pgx.Tx, org id.Org) (money.Nanos, int64, error) {
	r, err := billingdb.New(tx).Unsettled(ctx, org)
	if err != nil {
		return 0, 0, fmt.Errorf("sum what is unsettled: %w", err)
	}
	return money.Nanos(r.OpenNanos), r.Holds, nil
}
