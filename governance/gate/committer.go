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
// one can wait for the disk while the next is worked on. An organisation's units are in one of them at a time: a second would only wait for
// the lock on its balances, with fewer units than gather meanwhile.
const (
	batchUnits  = 64
	commitLanes = 2
	commitLimit = 30 * time.Second

	// After a batch of at least gatherFrom, a lane waits for as many again: at most gatherTries pauses, less than the disk takes.
	gatherFrom  = 8
	gatherTries = 5
	gatherPause = 50 * time.Microsecond
)

// ErrMoved says that others have appended to the journal since the unit was drafted: it must be drafted again.
var ErrMoved = errors.New("the journal has moved on")

// ErrRuled says that the organisation's rules have changed since the unit was decided: after Gate.Reload it must be drafted again.
var ErrRuled = errors.New("the rules have changed")

// ErrBreached says that the model once used more than its bound: drafted again with it, the unit is a denial.
var ErrBreached = errors.New("the model's bound is not to be relied on")

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
	busy    map[id.Org]bool // those whose units a lane has now
	lanes   int
}

type commit struct {
	rows journal.Rows
	unit *Unit
	err  error
	done chan struct{}
}

// NewCommitter makes a committer.
func NewCommitter(db *postgres.DB) *Committer { return &Committer{db: db, busy: map[id.Org]bool{}} }

// Commit writes the unit and, with a nil error, arms its admission. Nothing was written when the error is ErrMoved, ErrRuled, journal.ErrFenced or a
// *ShortError. Any other error leaves open whether it was: the session is then left to its next worker.
func (c *Committer) Commit(ctx context.Context, u *Unit) error {
	rows, err := u.Rows()
	if err != nil {
		return err
	}
	if len(rows.Intended) > 1 || len(rows.Settled) > 1 {
		return errors.New("a unit begins one step and settles one")
	}
	mine := &commit{rows: rows, unit: u, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, mine)
	if c.lanes < commitLanes && !c.busy[u.Org] {
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

// work commits batch after batch until nothing waits that another lane does not have in hand.
func (c *Committer) work(ctx context.Context) {
	var batch []*commit
	for {
		if batch = c.take(batch); len(batch) == 0 {
			return
		}
		c.commit(ctx, batch)
		c.gather(len(batch))
	}
}

// gather gives those whose units were just committed together a moment to come back with their next, so that they are committed together
// again and not a few at a time. After a small batch it is none: then there is nobody to wait for.
func (c *Committer) gather(last int) {
	if last < gatherFrom {
		return
	}
	for range gatherTries {
		if c.Waiting() >= last*3/4 {
			return
		}
		time.Sleep(gatherPause) //nolint:forbidigo // a quarter of a millisecond at most, whatever happens
	}
}

// take ends a batch and begins the next: the units that have waited longest, of organisations that are in no other lane. Without any, the
// lane is closed.
func (c *Committer) take(ended []*commit) []*commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range ended {
		delete(c.busy, m.unit.Org)
	}
	var batch, rest []*commit
	for _, m := range c.waiting {
		if len(batch) < batchUnits && !c.busy[m.unit.Org] {
			batch = append(batch, m)
		} else {
			rest = append(rest, m)
		}
	}
	c.waiting = rest
	for _, m := range batch {
		c.busy[m.unit.Org] = true
	}
	if len(batch) == 0 {
		c.lanes--
	}
	return batch
}

func (c *Committer) commit(ctx context.Context, batch []*commit) {
	// One order for all processes, so that two batches never wait for each other's accounts crosswise.
	slices.SortStableFunc(batch, func(a, b *commit) int { return strings.Compare(string(a.unit.Org), string(b.unit.Org)) })
	outcomes, err := c.send(ctx, batch, false)
	var alone []*commit
	for i, m := range batch {
		switch {
		case err != nil && !postgres.Refused(err):
			c.fail(m, err) // it may have been written: sent again, it would be taken for somebody else's
		case err != nil || outcomes[i].Outcome == "busy":
			// One of them made the database refuse all, or its session is locked: by itself it may wait, or fail alone.
			alone = append(alone, m)
		default:
			c.finish(m, outcomes[i])
		}
	}
	if len(alone) > 0 {
		go c.alone(ctx, alone) // the lane goes on: who waits for a session holds up nobody else of the organisation
	}
}

// alone commits units each by itself.
func (c *Committer) alone(ctx context.Context, units []*commit) {
	for _, m := range units {
		outcomes, err := c.send(ctx, []*commit{m}, true)
		if err != nil {
			c.fail(m, err)
			continue
		}
		c.finish(m, outcomes[0])
	}
}

func (c *Committer) fail(m *commit, err error) {
	m.err = fmt.Errorf("commit a unit of %s: %w", m.unit.ID, err)
	close(m.done)
}

// send commits a batch, which is sorted by organisation. It is one statement: with an error, nothing of it is written.
func (c *Committer) send(ctx context.Context, batch []*commit, wait bool) ([]gatedb.CommitUnitsRow, error) {
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	p := gatedb.CommitUnitsParams{Wait: wait, SchemaVersion: journal.SchemaVersion}
	for _, m := range batch {
		if err := m.addTo(&p); err != nil {
			return nil, err
		}
	}
	failpoint.Hit(failpoint.BeforeCommit)
	rows, err := gatedb.New(c.db.App()).CommitUnits(ctx, p)
	if err != nil {
		return nil, postgres.Translate(err)
	}
	outcomes := make([]gatedb.CommitUnitsRow, len(batch))
	for _, row := range rows {
		outcomes[row.Unit-1] = row
	}
	failpoint.Hit(failpoint.AfterCommit)
	return outcomes, nil
}

func (c *Committer) finish(m *commit, row gatedb.CommitUnitsRow) {
	switch row.Outcome {
	case "committed":
		if m.unit.admission != nil {
			m.unit.admission.arm()
		}
		if m.unit.committed != nil {
			m.unit.committed()
		}
		m.unit.Written(c.db.Announce)
		failpoint.Hit(failpoint.Announced)
	case "moved":
		m.err = ErrMoved
	case "ruled":
		m.err = ErrRuled
	case "breached":
		m.err = ErrBreached
	case "fenced":
		m.err = journal.ErrFenced
	case "short":
		m.err = &ShortError{*billing.ShortOf(*m.unit.place, money.Nanos(row.Available), id.Budget(row.Short), row.ShortName)}
	default:
		m.err = fmt.Errorf("commit a unit of %s: the database answered %q", m.unit.ID, row.Outcome)
	}
	close(m.done)
}

// addTo adds the unit to the others, as the database's function takes them: an element to each list, and its events and spans with its
// number.
func (m *commit) addTo(p *gatedb.CommitUnitsParams) error {
	u, rows := m.unit, &m.rows
	if org := string(u.Org); len(p.Orgs) == 0 || p.Orgs[len(p.Orgs)-1] != org {
		p.Orgs = append(p.Orgs, org)
	}
	p.Of = append(p.Of, int32(len(p.Orgs))) //nolint:gosec // at most batchUnits
	p.Sessions, p.Projects, p.Owners = append(p.Sessions, string(u.ID)), append(p.Projects, string(u.Project)), append(p.Owners, u.lease.Owner)
	p.Epochs, p.Seen, p.Policies, p.Nows = append(p.Epochs, u.lease.Epoch), append(p.Seen, u.seen), append(p.Policies, u.policy), append(p.Nows, u.Now)
	unit := int32(len(p.Sessions)) //nolint:gosec // at most batchUnits

	settle := u.settle
	if settle == nil {
		settle = &settlement{}
	}
	p.SettleHolds, p.SettleAmounts, p.Used = append(p.SettleHolds, string(settle.hold.ID)), append(p.SettleAmounts, int64(settle.hold.Amount)), append(p.Used, int64(settle.used))
	p.CaptureEntries = append(p.CaptureEntries, string(settle.result.Entry))
	p.ReleaseEntries, p.LossEntries = append(p.ReleaseEntries, string(id.New[id.Entry]())), append(p.LossEntries, string(id.New[id.Entry]()))

	hold, lines := u.place, []byte("[]")
	if hold == nil {
		hold = &billing.HoldRequest{Expires: u.Now}
	} else {
		var err error
		if lines, err = json.Marshal(hold.Lines); err != nil {
			return fmt.Errorf("write the hold's lines: %w", err)
		}
	}
	p.Holds, p.Parents, p.HoldSteps = append(p.Holds, string(u.hold)), append(p.Parents, string(hold.Parent)), append(p.HoldSteps, string(hold.Step))
	p.Amounts, p.PriceVersions, p.Lines = append(p.Amounts, int64(hold.Amount)), append(p.PriceVersions, hold.PriceVersion), append(p.Lines, string(lines))
	p.Expires, p.HoldEntries = append(p.Expires, hold.Expires), append(p.HoldEntries, string(id.New[id.Entry]()))

	for range rows.Seqs {
		p.EventUnits = append(p.EventUnits, unit)
	}
	p.Seqs, p.Ids, p.Types = append(p.Seqs, rows.Seqs...), append(p.Ids, rows.IDs...), append(p.Types, rows.Types...)
	p.StepIds, p.Payloads = append(p.StepIds, rows.Steps...), append(p.Payloads, rows.Payloads...)

	var intended journal.IntendedRow
	if len(rows.Intended) > 0 {
		intended = rows.Intended[0]
	}
	p.IntendedSteps, p.IntendedKinds = append(p.IntendedSteps, string(intended.ID)), append(p.IntendedKinds, intended.Kind)
	p.IntendedKeys, p.IntendedSeqs = append(p.IntendedKeys, intended.EffectKey), append(p.IntendedSeqs, intended.Seq)
	p.IntendedNames = append(p.IntendedNames, intended.Name)

	settled := journal.SettledRow{Usage: json.RawMessage("{}")}
	if len(rows.Settled) > 0 {
		settled = rows.Settled[0]
	}
	p.SettledSteps, p.SettledSeqs = append(p.SettledSteps, string(settled.ID)), append(p.SettledSeqs, settled.Seq)
	p.SettledOutcomes, p.SettledUsages = append(p.SettledOutcomes, settled.Outcome), append(p.SettledUsages, string(settled.Usage))
	p.SettledCosts, p.SettledErrors = append(p.SettledCosts, int64(settled.Cost)), append(p.SettledErrors, string(settled.Error))

	p.LastSeqs, p.Statuses, p.StopReasons = append(p.LastSeqs, u.LastSeq), append(p.Statuses, string(u.Status)), append(p.StopReasons, string(rows.StopReason))
	p.Usages, p.Charged, p.Limits = append(p.Usages, string(rows.Usage)), append(p.Charged, int64(u.Charged)), append(p.Limits, string(rows.Limits))
	p.ReleaseLeases = append(p.ReleaseLeases, u.releaseLease)

	for _, span := range rows.Spans {
		p.SpanUnits, p.Spans = append(p.SpanUnits, unit), append(p.Spans, span)
	}
	return nil
}
