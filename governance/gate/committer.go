package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/gate/internal/gatedb"
	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// How units are committed: at most batchUnits in one transaction, and at most commitLanes transactions of one process at a time, so that
// one can wait for the disk while the next is worked on.
const (
	batchUnits  = 64
	commitLanes = 2
	commitLimit = 30 * time.Second
)

// ErrMoved says that others have appended to the journal since the unit was drafted: it must be drafted again.
var ErrMoved = errors.New("the journal has moved on")

// ErrRuled says that the organisation's rules have changed since the unit was decided: after Gate.Reload it must be drafted again.
var ErrRuled = errors.New("the rules have changed")

// ShortError says that the unit's hold can't be had: nothing was written, and the unit is to be drafted again with Short.
type ShortError struct{ Short billing.Short }

func (e *ShortError) Error() string {
	return fmt.Sprintf("a hold of %s can't be had of %s", e.Short.Required, e.Short.Available)
}

// Committer commits units, those that wait at the same time in one transaction: a commit's cost is mostly the way to the database and the
// wait for its disk. Each unit has an outcome of its own, and none takes another down. It is safe for concurrent use.
type Committer struct {
	db *postgres.DB

	mu      sync.Mutex
	waiting []*commit
	lanes   int
}

type commit struct {
	params gatedb.CommitUnitParams
	unit   *Unit
	err    error
	done   chan struct{}
}

// NewCommitter makes a committer.
func NewCommitter(db *postgres.DB) *Committer { return &Committer{db: db} }

// Commit writes the unit and, with a nil error, arms its admission. Nothing was written when the error is ErrMoved, ErrRuled, journal.ErrFenced or a
// *ShortError. Any other error leaves open whether it was: the session is then left to its next worker.
func (c *Committer) Commit(ctx context.Context, u *Unit) error {
	params, err := u.params()
	if err != nil {
		return err
	}
	mine := &commit{params: params, unit: u, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, mine)
	if c.lanes < commitLanes {
		c.lanes++
		go c.work(context.WithoutCancel(ctx))
	}
	c.mu.Unlock()
	<-mine.done
	return mine.err
}

// Waiting is how many units wait for a transaction of this process.
func (c *Committer) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// work commits batch after batch until nothing waits.
func (c *Committer) work(ctx context.Context) {
	for {
		c.mu.Lock()
		n := min(len(c.waiting), batchUnits)
		if n == 0 {
			c.lanes--
			c.mu.Unlock()
			return
		}
		batch := c.waiting[:n:n]
		c.waiting = append([]*commit(nil), c.waiting[n:]...)
		c.mu.Unlock()
		c.commit(ctx, batch)
	}
}

func (c *Committer) commit(ctx context.Context, batch []*commit) {
	// One order for all processes, so that two batches never wait for each other's accounts crosswise.
	slices.SortStableFunc(batch, func(a, b *commit) int { return strings.Compare(a.params.Org, b.params.Org) })
	alone := batch
	if len(batch) > 1 {
		outcomes, err := c.send(ctx, batch, false)
		alone = nil
		for i, m := range batch {
			if err != nil || outcomes[i].Outcome == "busy" {
				// One of them made the database refuse all, or its session is locked: by itself it may wait, or fail alone.
				alone = append(alone, m)
				continue
			}
			c.finish(m, outcomes[i])
		}
	}
	for _, m := range alone {
		outcomes, err := c.send(ctx, []*commit{m}, true)
		if err != nil {
			m.err = fmt.Errorf("commit a unit of %s: %w", m.params.Session, err)
			close(m.done)
			continue
		}
		c.finish(m, outcomes[0])
	}
}

// send commits a batch. It is one implicit transaction: with an error, nothing of it is written.
func (c *Committer) send(ctx context.Context, batch []*commit, wait bool) ([]gatedb.CommitUnitRow, error) {
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	params := make([]gatedb.CommitUnitParams, len(batch))
	for i, m := range batch {
		params[i] = m.params
		params[i].Wait = wait
	}
	outcomes := make([]gatedb.CommitUnitRow, len(batch))
	var failed error
	failpoint.Hit(failpoint.BeforeCommit)
	results := gatedb.New(c.db.App()).CommitUnit(ctx, params)
	results.QueryRow(func(i int, row gatedb.CommitUnitRow, err error) {
		outcomes[i] = row
		failed = errors.Join(failed, err)
	})
	// The transaction commits with the end of the batch: only Close tells whether it did.
	if err := results.Close(); err != nil || failed != nil {
		return nil, postgres.Translate(errors.Join(failed, err))
	}
	failpoint.Hit(failpoint.AfterCommit)
	return outcomes, nil
}

func (c *Committer) finish(m *commit, row gatedb.CommitUnitRow) {
	switch row.Outcome {
	case "committed":
		if m.unit.admission != nil {
			m.unit.admission.arm()
		}
		m.unit.Written(c.db.Announce)
		failpoint.Hit(failpoint.Announced)
	case "moved":
		m.err = ErrMoved
	case "ruled":
		m.err = ErrRuled
	case "fenced":
		m.err = journal.ErrFenced
	case "short":
		m.err = &ShortError{*billing.ShortOf(*m.unit.place, money.Nanos(row.Available), id.Budget(row.Short), row.ShortName)}
	default:
		m.err = fmt.Errorf("commit a unit of %s: the database answered %q", m.params.Session, row.Outcome)
	}
	close(m.done)
}

// params is the unit as the database's function takes it.
func (u *Unit) params() (gatedb.CommitUnitParams, error) {
	rows, err := u.Rows()
	if err != nil {
		return gatedb.CommitUnitParams{}, err
	}
	if len(rows.Intended) > 1 || len(rows.Settled) > 1 {
		return gatedb.CommitUnitParams{}, errors.New("a unit begins one step and settles one")
	}
	p := gatedb.CommitUnitParams{
		Org: string(u.Org), Session: string(u.ID), Project: string(u.Project), Owner: u.lease.Owner, Epoch: u.lease.Epoch, Seen: u.seen, Policy: u.policy, Now: u.Now,
		SchemaVersion: journal.SchemaVersion, Seqs: rows.Seqs, Ids: rows.IDs, Types: rows.Types, StepIds: rows.Steps, Payloads: rows.Payloads,
		LastSeq: u.LastSeq, Status: string(u.Status), StopReason: rows.StopReason, Usage: rows.Usage, Charged: int64(u.Charged), Limits: rows.Limits,
		ReleaseLease: u.releaseLease, Spans: rows.Spans,
		Lines: json.RawMessage("[]"), SettledUsage: json.RawMessage("{}"), Expires: u.Now,
	}
	if s := u.settle; s != nil {
		p.SettleHold, p.SettleAmount, p.Used = string(s.hold.ID), int64(s.hold.Amount), int64(s.used)
		p.CaptureEntry, p.ReleaseEntry, p.LossEntry = string(s.result.Entry), string(id.New[id.Entry]()), string(id.New[id.Entry]())
	}
	if h := u.place; h != nil {
		if p.Lines, err = json.Marshal(h.Lines); err != nil {
			return gatedb.CommitUnitParams{}, fmt.Errorf("write the hold's lines: %w", err)
		}
		p.Hold, p.Parent, p.HoldStep, p.Amount = string(u.hold), string(h.Parent), string(h.Step), int64(h.Amount)
		p.PriceVersion, p.Expires, p.HoldEntry = h.PriceVersion, h.Expires, string(id.New[id.Entry]())
	}
	for _, s := range rows.Intended {
		p.IntendedStep, p.IntendedKind, p.IntendedKey, p.IntendedSeq = string(s.ID), s.Kind, s.EffectKey, s.Seq
		p.IntendedName, p.IntendedHold = s.Name, string(s.Hold)
	}
	for _, s := range rows.Settled {
		p.SettledStep, p.SettledSeq, p.SettledOutcome = string(s.ID), s.Seq, s.Outcome
		p.SettledUsage, p.SettledCost, p.SettledError = s.Usage, int64(s.Cost), s.Error
	}
	return p, nil
}
