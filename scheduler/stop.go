package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// StopOrder is an order to stop all that works in a scope, and how far it is.
type StopOrder struct {
	ID          id.Stop
	Scope       Scope
	By          journal.Actor
	Reason      string
	IncludeIdle bool
	RequestedAt time.Time
	// FencedAt is from when on no session of the scope could work; nil until then.
	FencedAt *time.Time
	// CompletedAt is when every sandbox was gone and the receipt signed; nil until then.
	CompletedAt *time.Time
	// Stopped counts the sessions that were stopped so far, Finished those of them whose receipts are complete.
	Stopped, Finished int64
	// Receipt is nil until the order is complete.
	Receipt *StopReceipt
}

// StopReceipt is the receipt of an order to stop a scope. Each session that it lists has a receipt of its own, which says more.
type StopReceipt struct {
	Type        string        `json:"type" const:"stop_receipt"`
	ID          id.Stop       `json:"id"`
	Scope       Scope         `json:"scope"`
	By          journal.Actor `json:"by"`
	Reason      string        `json:"reason"`
	IncludeIdle bool          `json:"include_idle"`
	RequestedAt time.Time     `json:"requested_at"`
	FencedAt    time.Time     `json:"fenced_at"`
	// GoneAt is when the last sandbox was gone; null when there was none.
	GoneAt        *time.Time `json:"gone_at"`
	ReleasedNanos int64      `json:"released_nanos"`
	// LastBilledAt is the last charge to any of the sessions.
	LastBilledAt *time.Time       `json:"last_billed_at"`
	Sessions     []StoppedSession `json:"sessions"`
	Signature    string           `json:"signature,omitempty"`
}

// StoppedSession is a line of a StopReceipt.
type StoppedSession struct {
	Session       id.Session `json:"session_id"`
	Receipt       id.Receipt `json:"receipt_id"`
	Epoch         int64      `json:"epoch"`
	FencedAt      *time.Time `json:"fenced_at"`
	SandboxGoneAt *time.Time `json:"sandbox_gone_at"`
	ReleasedNanos int64      `json:"released_nanos"`
	LastBilledAt  *time.Time `json:"last_billed_at"`
	Unsettled     int        `json:"unsettled_steps"`
}

// StopInput is what is to be stopped, and why.
type StopInput struct {
	Scope  Scope
	Reason string
	// IncludeIdle also ends the sessions that do nothing: they take no more input afterwards. Without it they stay, and lose only a machine
	// that they may have, after a save.
	IncludeIdle bool
}

const (
	// carryFor is how long a process may be silent before another carries its order on.
	carryFor = 15 * time.Second
	// stopBatch bounds how many sessions are looked for at a time, stopLanes how many trees are ended at a time, and finishLanes the trees
	// whose sandboxes are ended at a time.
	stopBatch   = 100
	stopLanes   = 4
	finishLanes = 8
)

// StopScope records an order to stop a scope, in the caller's transaction. From its commit on nothing of the scope begins to work; what works is
// then stopped, tree by tree, in the background, and a crash in the middle is taken up again. FinishStop waits for it. While an order is not
// fenced, another for the same scope is that one; and when nothing has begun since the last one, that one is the answer too.
//
// The caller must have locked no session, and must end its transaction soon: until then no session of the organisation begins work.
func (s *Service) StopScope(ctx context.Context, tx pgx.Tx, org id.Org, in StopInput) (StopOrder, error) {
	if err := in.Scope.valid(org); err != nil {
		return StopOrder{}, err
	}
	q := stopdb.New(tx)
	if err := q.LockStops(ctx, string(org)); err != nil {
		return StopOrder{}, fmt.Errorf("wait for those who begin work: %w", err)
	}
	last, err := q.LastStop(ctx, stopdb.LastStopParams{OrgID: org, ScopeType: in.Scope.Type, ScopeID: in.Scope.ID})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return StopOrder{}, fmt.Errorf("look for an order to stop: %w", err)
	}
	if err == nil {
		same := last.FencedAt == nil
		if !same {
			working, err := working(ctx, tx, org, in.Scope, 1)
			if err != nil {
				return StopOrder{}, err
			}
			same = len(working) == 0 && (last.IncludeIdle || !in.IncludeIdle)
			if same && in.IncludeIdle {
				idle, err := idle(ctx, tx, org, in.Scope, true, nil, 1)
				if err != nil {
					return StopOrder{}, err
				}
				same = len(idle) == 0
			}
		}
		if same {
			return orderFromRow(ctx, tx, last)
		}
	}
	by, err := json.Marshal(principal.From(ctx))
	if err != nil {
		return StopOrder{}, fmt.Errorf("write who stops: %w", err)
	}
	row, err := q.InsertStop(ctx, stopdb.InsertStopParams{
		OrgID: org, ID: id.New[id.Stop](), ScopeType: in.Scope.Type, ScopeID: in.Scope.ID, ProjectID: in.Scope.Project, IncludeIdle: in.IncludeIdle,
		RequestedBy: by, Reason: in.Reason, RequestedAt: s.clock.Now(), CarrySeconds: carryFor.Seconds(),
	})
	if err != nil {
		return StopOrder{}, fmt.Errorf("record an order to stop: %w", err)
	}
	postgres.AfterCommit(tx, func() {
		s.inBackground(ctx, func(ctx context.Context) {
			if err := s.carryOut(ctx, org, row.ID); err != nil {
				s.log.ErrorContext(ctx, "an order to stop is not carried out yet; it is taken up again", "stop", row.ID, "error", err)
			}
		})
	})
	return orderFromRow(ctx, tx, row)
}

// GetStop reads an order.
func (s *Service) GetStop(ctx context.Context, tx pgx.Tx, org id.Org, order id.Stop) (StopOrder, error) {
	row, err := stopdb.New(tx).GetStop(ctx, stopdb.GetStopParams{OrgID: org, ID: order})
	if errors.Is(err, pgx.ErrNoRows) {
		return StopOrder{}, fault.NotFound()
	}
	if err != nil {
		return StopOrder{}, fmt.Errorf("read order %s: %w", order, err)
	}
	return orderFromRow(ctx, tx, row)
}

// ListStops lists orders, newest first, after the given one; with a project, those of that project only.
func (s *Service) ListStops(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, after id.Stop, limit int) ([]StopOrder, error) {
	rows, err := stopdb.New(tx).ListStops(ctx, stopdb.ListStopsParams{OrgID: org, ProjectID: string(project), BeforeID: string(after), RowLimit: int32(limit)}) //nolint:gosec // at most a page
	if err != nil {
		return nil, fmt.Errorf("list the orders to stop: %w", err)
	}
	out := make([]StopOrder, len(rows))
	for i, row := range rows {
		if out[i], err = orderFromRow(ctx, tx, row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// FinishStop waits, until ctx ends, for an order to be complete, and returns it as it is then.
func (s *Service) FinishStop(ctx context.Context, org id.Org, order id.Stop) (StopOrder, error) {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		var o StopOrder
		reading := context.WithoutCancel(ctx)
		err := s.db.InTx(reading, org, func(tx pgx.Tx) (err error) {
			o, err = s.GetStop(reading, tx, org, order)
			return err
		})
		if err != nil || o.CompletedAt != nil {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, nil
		case <-poll.C:
		}
	}
}

func orderFromRow(ctx context.Context, tx pgx.Tx, row stopdb.Stop) (StopOrder, error) {
	o := StopOrder{
		ID: row.ID, Scope: Scope{Type: row.ScopeType, ID: row.ScopeID, Project: row.ProjectID}, Reason: row.Reason, IncludeIdle: row.IncludeIdle,
		RequestedAt: row.RequestedAt.UTC(), FencedAt: inUTC(row.FencedAt), CompletedAt: inUTC(row.CompletedAt),
	}
	if err := json.Unmarshal(row.RequestedBy, &o.By); err != nil {
		return StopOrder{}, fmt.Errorf("read who gave order %s: %w", row.ID, err)
	}
	if row.CompletedAt != nil {
		if err := json.Unmarshal(row.Body, &o.Receipt); err != nil {
			return StopOrder{}, fmt.Errorf("read the receipt of order %s: %w", row.ID, err)
		}
		o.Stopped, o.Finished = int64(len(o.Receipt.Sessions)), int64(len(o.Receipt.Sessions))
		return o, nil
	}
	n, err := stopdb.New(tx).CountStopReceipts(ctx, stopdb.CountStopReceiptsParams{OrgID: row.OrgID, StopID: string(row.ID)})
	if err != nil {
		return StopOrder{}, fmt.Errorf("count what order %s has stopped: %w", row.ID, err)
	}
	o.Stopped, o.Finished = n.Stopped, n.Completed
	return o, nil
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

func working(ctx context.Context, tx pgx.Tx, org id.Org, scope Scope, limit int32) ([]id.Session, error) {
	project, agent, key, mandate := scope.matches()
	found, err := stopdb.New(tx).WorkingInScope(ctx, stopdb.WorkingInScopeParams{OrgID: org, ProjectID: project, AgentID: agent, KeyID: key, MandateID: mandate, RowLimit: limit})
	if err != nil {
		return nil, fmt.Errorf("find what works: %w", err)
	}
	return found, nil
}

// CountWorking counts the sessions of a scope that work now: what an order to stop it would begin with.
func (s *Service) CountWorking(ctx context.Context, tx pgx.Tx, org id.Org, scope Scope) (int64, error) {
	project, agent, key, mandate := scope.matches()
	n, err := stopdb.New(tx).CountWorking(ctx, stopdb.CountWorkingParams{OrgID: org, ProjectID: project, AgentID: agent, KeyID: key, MandateID: mandate})
	if err != nil {
		return 0, fmt.Errorf("count what works: %w", err)
	}
	return n, nil
}

// idle finds sessions of the scope that do nothing: all, or those among some.
func idle(ctx context.Context, tx pgx.Tx, org id.Org, scope Scope, everyone bool, among []string, limit int32) ([]id.Session, error) {
	project, agent, key, mandate := scope.matches()
	if among == nil {
		among = []string{}
	}
	found, err := stopdb.New(tx).IdleInScope(ctx, stopdb.IdleInScopeParams{
		OrgID: org, Everyone: everyone, Among: among, ProjectID: project, AgentID: agent, KeyID: key, MandateID: mandate, RowLimit: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("find what is idle: %w", err)
	}
	return found, nil
}
