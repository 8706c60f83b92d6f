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
	// Ceiling names the session's hold when that is what is short; otherwise it is the organisation's balance.
	Ceiling id.Hold
}

// Place reserves money. With a nil error either the hold was placed, or Short says what is missing and nothing was written.
func Place(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, r HoldRequest) (id.Hold, *Short, error) {
	if r.Amount < 0 {
		return "", nil, fmt.Errorf("a hold of %s is negative", r.Amount)
	}
	q := billingdb.New(tx)
	if short, err := reserve(ctx, q, org, r); err != nil || short != nil {
		return "", short, err
	}
	lines, err := json.Marshal(r.Lines)
	if err != nil {
		return "", nil, fmt.Errorf("write the hold's lines: %w", err)
	}
	hold := id.New[id.Hold]()
	err = q.InsertHold(ctx, billingdb.InsertHoldParams{
		OrgID: org, ID: hold, ParentID: ref(string(r.Parent)), SessionID: r.Session, StepID: ref(string(r.Step)), AmountNanos: r.Amount,
		PriceVersion: r.PriceVersion, Lines: lines, ExpiresAt: r.Expires, CreatedAt: now,
	})
	if err != nil {
		return "", nil, fmt.Errorf("insert a hold of %s: %w", r.Amount, err)
	}
	if r.Parent == "" && r.Amount > 0 {
		_, err := post(ctx, tx, org, Transfer{Debit: Available, Credit: Held, Amount: r.Amount, Kind: kindHold, Hold: hold, Session: r.Session, Step: r.Step, CreatedAt: now})
		if err != nil {
			return "", nil, err
		}
	}
	return hold, nil, nil
}

// reserve takes the row's lock and compares, so that two admissions at once can't both see the last of the money.
func reserve(ctx context.Context, q *billingdb.Queries, org id.Org, r HoldRequest) (*Short, error) {
	if r.Parent != "" {
		n, err := q.CarveHold(ctx, billingdb.CarveHoldParams{Amount: r.Amount, OrgID: org, ID: r.Parent})
		if err != nil {
			return nil, fmt.Errorf("carve %s from hold %s: %w", r.Amount, r.Parent, err)
		}
		if n == 1 {
			return nil, nil
		}
		parent, err := q.GetHold(ctx, billingdb.GetHoldParams{OrgID: org, ID: r.Parent})
		if err != nil {
			return nil, fmt.Errorf("read hold %s: %w", r.Parent, err)
		}
		left := money.Nanos(0)
		if parent.State == "held" {
			left = holdFromRow(parent).Left()
		}
		return &Short{Required: r.Amount, Available: left, Ceiling: r.Parent}, nil
	}
	balances, err := q.LockBalances(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("lock the balances: %w", err)
	}
	balance := money.Nanos(0) // no row: nothing was ever granted
	for _, b := range balances {
		if Account(b.Account) == Available {
			balance = b.BalanceNanos
		}
	}
	if balance < r.Amount {
		return &Short{Required: r.Amount, Available: balance}, nil
	}
	return nil, nil
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

// Settle captures what an effect cost, at most the hold, and releases the rest. A hold is settled once; a second time is an error.
func Settle(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, hold id.Hold, used money.Nanos) (Settled, error) {
	if used < 0 {
		return Settled{}, fmt.Errorf("settle hold %s: a cost of %s is negative", hold, used)
	}
	q := billingdb.New(tx)
	// Locks go parent first, as Place takes them, so that siblings that settle and begin never wait for each other crosswise.
	peek, err := q.GetHold(ctx, billingdb.GetHoldParams{OrgID: org, ID: hold})
	if err != nil {
		return Settled{}, fmt.Errorf("read hold %s: %w", hold, err)
	}
	parent, parentOpen := id.Hold(deref(peek.ParentID)), false
	if parent != "" {
		row, err := q.LockHold(ctx, billingdb.LockHoldParams{OrgID: org, ID: parent})
		if err != nil {
			return Settled{}, fmt.Errorf("lock hold %s: %w", parent, err)
		}
		parentOpen = row.State == "held" || row.State == "unsettled"
	}
	row, err := q.LockHold(ctx, billingdb.LockHoldParams{OrgID: org, ID: hold})
	if err != nil {
		return Settled{}, fmt.Errorf("lock hold %s: %w", hold, err)
	}
	if _, err := q.LockBalances(ctx, org); err != nil {
		return Settled{}, fmt.Errorf("lock the balances: %w", err)
	}
	h := holdFromRow(row)
	s := Settled{Captured: min(used, h.Left())}
	s.Released, s.Excess = h.Left()-s.Captured, used-s.Captured
	state := "captured"
	if h.Captured+s.Captured == 0 {
		state = "released"
	}
	n, err := q.SettleHold(ctx, billingdb.SettleHoldParams{Captured: s.Captured, Released: s.Released, State: state, Now: &now, OrgID: org, ID: hold})
	if err != nil {
		return Settled{}, fmt.Errorf("settle hold %s: %w", hold, err)
	}
	if n != 1 {
		return Settled{}, fmt.Errorf("settle hold %s: it is %s already", hold, h.State)
	}
	if parent != "" {
		up := billingdb.UncarveHoldParams{Amount: h.Amount, Captured: s.Captured, OrgID: org, ID: parent}
		if !parentOpen {
			up.Released = s.Released
		}
		if _, err := q.UncarveHold(ctx, up); err != nil {
			return Settled{}, fmt.Errorf("give back to hold %s: %w", parent, err)
		}
	}
	return s, postSettlement(ctx, tx, now, org, h, parentOpen, &s)
}

func postSettlement(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, h Hold, parentOpen bool, s *Settled) error {
	var err error
	if s.Captured > 0 {
		s.Entry, err = post(ctx, tx, org, Transfer{Debit: Held, Credit: Spent, Amount: s.Captured, Kind: kindCapture, Hold: h.ID, Session: h.Session, Step: h.Step, CreatedAt: now})
		if err != nil {
			return err
		}
	}
	// What a child releases stays held by its parent while that is open. A parent that was settled before can't give it back any more.
	if s.Released > 0 && !parentOpen {
		_, err = post(ctx, tx, org, Transfer{Debit: Held, Credit: Available, Amount: s.Released, Kind: kindRelease, Hold: h.ID, Session: h.Session, Step: h.Step, CreatedAt: now})
		if err != nil {
			return err
		}
	}
	if s.Excess > 0 {
		_, err = post(ctx, tx, org, Transfer{Debit: Loss, Credit: Spent, Amount: s.Excess, Kind: kindLoss, Hold: h.ID, Session: h.Session, Step: h.Step, Note: "used above the hold", CreatedAt: now})
		if err != nil {
			return err
		}
	}
	return nil
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
