package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// HoldRequest asks for money to be reserved before an effect.
type HoldRequest struct {
	Session id.Session
	Step    id.Step // empty for the hold of a session's price ceiling
	// Parent is the hold of the session's price ceiling, from which this one is carved; empty takes it from the balance.
	Parent       id.Hold
	Amount       money.Nanos
	Lines        []prices.Line
	PriceVersion string
	// Expires is when the hold becomes unsettled if its effect was begun and nothing was heard of it.
	Expires time.Time
}

// Hold is money reserved.
type Hold struct {
	ID       id.Hold
	Parent   id.Hold
	Session  id.Session
	Step     id.Step
	Amount   money.Nanos
	Carved   money.Nanos
	Captured money.Nanos
	Released money.Nanos
	State    string
}

// Left is what of a hold is neither carved, captured nor released.
func (h Hold) Left() money.Nanos { return h.Amount - h.Carved - h.Captured - h.Released }

// Short says that a hold can't be had: what it would need and what there is.
type Short struct {
	Required  money.Nanos
	Available money.Nanos
	// Ceiling names the session's hold when that is what is short, Budget and BudgetName the budget; otherwise it is the organisation's balance.
	Ceiling    id.Hold
	Budget     id.Budget
	BudgetName string
}

// ShortOf is what is missing for a hold: of a budget when one is named, of the session's ceiling when it was to be carved from that.
func ShortOf(r HoldRequest, available money.Nanos, budget id.Budget, name string) *Short {
	s := &Short{Required: r.Amount, Available: available, Budget: budget, BudgetName: name}
	if budget == "" {
		s.Ceiling = r.Parent
	}
	return s
}

// Place reserves money. With a nil error either the hold was placed, or Short says what is missing and nothing was written.
func Place(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, r HoldRequest) (id.Hold, *Short, error) {
	if r.Amount < 0 {
		return "", nil, fmt.Errorf("a hold of %s is negative", r.Amount)
	}
	if r.Lines == nil {
		r.Lines = []prices.Line{}
	}
	lines, err := json.Marshal(r.Lines)
	if err != nil {
		return "", nil, fmt.Errorf("write the hold's lines: %w", err)
	}
	hold := id.New[id.Hold]()
	row, err := billingdb.New(tx).PlaceHold(ctx, billingdb.PlaceHoldParams{
		OrgID: string(org), HoldID: string(hold), ParentID: string(r.Parent), SessionID: string(r.Session), StepID: string(r.Step), Amount: int64(r.Amount),
		PriceVersion: r.PriceVersion, Lines: lines, ExpiresAt: r.Expires, Now: now, EntryID: string(id.New[id.Entry]()),
	})
	if err != nil {
		return "", nil, fmt.Errorf("place a hold of %s: %w", r.Amount, err)
	}
	if !row.Placed {
		return "", ShortOf(r, money.Nanos(row.Available), id.Budget(row.Short), row.ShortName), nil
	}
	return hold, nil, nil
}

// Settled is what came of a hold.
type Settled struct {
	// Captured is at most the hold; Released is the rest of it.
	Captured money.Nanos
	Released money.Nanos
	// Excess is what was used above the hold. It is the platform's loss, and a reason to alert: the bound was wrong.
	Excess money.Nanos
	// Entry is the capture's ledger entry; empty when nothing was captured.
	Entry id.Entry
}

// Outcome says what comes of a hold when its effect cost so much, as the ledger will book it.
func Outcome(hold, used money.Nanos) (Settled, error) {
	if used < 0 || hold < 0 {
		return Settled{}, fmt.Errorf("a cost of %s or a hold of %s is negative", used, hold)
	}
	s := Settled{Captured: min(used, hold)}
	s.Released, s.Excess = hold-s.Captured, used-s.Captured
	if s.Captured > 0 {
		s.Entry = id.New[id.Entry]()
	}
	return s, nil
}

// Settle captures what an effect cost, at most the hold, and releases the rest. A hold is settled once; a second time is an error.
func Settle(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, hold id.Hold, used money.Nanos) (Settled, error) {
	if used < 0 {
		return Settled{}, fmt.Errorf("settle hold %s: a cost of %s is negative", hold, used)
	}
	capture := id.New[id.Entry]()
	row, err := billingdb.New(tx).SettleHold(ctx, billingdb.SettleHoldParams{
		OrgID: string(org), HoldID: string(hold), Used: int64(used), Now: now,
		CaptureID: string(capture), ReleaseID: string(id.New[id.Entry]()), LossID: string(id.New[id.Entry]()),
	})
	if err != nil {
		return Settled{}, fmt.Errorf("settle hold %s: %w", hold, err)
	}
	if row.State != "settled" {
		return Settled{}, fmt.Errorf("settle hold %s: it is %s already", hold, row.State)
	}
	s := Settled{Captured: money.Nanos(row.Captured), Released: money.Nanos(row.Released), Excess: money.Nanos(row.Excess)}
	if s.Captured > 0 {
		s.Entry = capture
	}
	return s, nil
}

// ReadHold reads one hold.
func ReadHold(ctx context.Context, tx pgx.Tx, org id.Org, hold id.Hold) (Hold, error) {
	row, err := billingdb.New(tx).GetHold(ctx, billingdb.GetHoldParams{OrgID: org, ID: hold})
	if err != nil {
		return Hold{}, fmt.Errorf("read hold %s: %w", hold, err)
	}
	return holdFromRow(row), nil
}

// OpenHolds lists the holds of a session that are neither captured nor released.
func OpenHolds(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) ([]Hold, error) {
	rows, err := billingdb.New(tx).OpenHolds(ctx, billingdb.OpenHoldsParams{OrgID: org, SessionID: session})
	if err != nil {
		return nil, fmt.Errorf("list the open holds of %s: %w", session, err)
	}
	out := make([]Hold, len(rows))
	for i, r := range rows {
		out[i] = holdFromRow(r)
	}
	return out, nil
}

func holdFromRow(r billingdb.Hold) Hold {
	return Hold{
		ID: r.ID, Parent: id.Hold(deref(r.ParentID)), Session: r.SessionID, Step: id.Step(deref(r.StepID)), Amount: r.AmountNanos,
		Carved: r.CarvedNanos, Captured: r.CapturedNanos, Released: r.ReleasedNanos, State: r.State,
	}
}
