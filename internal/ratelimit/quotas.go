package ratelimit

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/ratelimit/internal/ratelimitdb"
)

const (
	// flushEvery is how often what was used is written, and how old what Left says may be.
	flushEvery = time.Second
	// idleAfter is when a slice that nobody asks for is given back.
	idleAfter = 10 * time.Second
	// forgetAfter is when the row of a bucket that nobody asks about is deleted; rows are full again long before.
	forgetAfter = 24 * time.Hour
	forgetEvery = 10 * time.Minute
)

// Quotas counts. Make it with New. It is safe for concurrent use.
type Quotas struct {
	db    *postgres.DB
	clock clock.Clock
	loop  *background.Loop

	mu     sync.Mutex
	slices map[key]*slice
	// flights order the questions to the database: those about one organisation ask one after another, and find what the one before has brought.
	flights [64]sync.Mutex
	seed    maphash.Seed
	swept   time.Time
}

type key struct {
	org             id.Org
	subject, policy string
}

// slice is what this process knows of a bucket.
type slice struct {
	policy Policy
	// have is what this process may give out, left what the bucket had for all besides, at that time.
	have int64
	left float64
	at   time.Time
	// owed was used and is not written yet.
	owed  int64
	asked time.Time
}

// leftAt is what the bucket has for all at a time, as far as this process knows.
func (s *slice) leftAt(now time.Time) float64 {
	return s.left + max(0, now.Sub(s.at).Seconds())*s.policy.perSecond() - float64(s.owed)
}

// New makes the quotas of a process. Without Start they are enforced all the same; what is used or not is written when it is started.
func New(db *postgres.DB, c clock.Clock, log *slog.Logger) *Quotas {
	q := &Quotas{db: db, clock: c, slices: map[key]*slice{}, seed: maphash.MakeSeed()}
	q.loop = background.New("quotas", flushEvery, log, q.FlushOnce)
	return q
}

// Start begins to write once a second what was used, and to give back what is not.
func (q *Quotas) Start(ctx context.Context) { q.loop.Start(ctx) }

// Started is closed after the first round.
func (q *Quotas) Started() <-chan struct{} { return q.loop.Started() }

// Stop writes what was used and gives all slices back.
func (q *Quotas) Stop(ctx context.Context) error {
	if err := q.loop.Stop(ctx); err != nil {
		return err
	}
	return q.flush(ctx, 0)
}

// Take asks for one of each bucket, and takes all or none. It goes to the database only when a slice is used up.
func (q *Quotas) Take(ctx context.Context, org id.Org, asks ...Ask) ([]Decision, error) {
	if out, sure := q.fromSlices(org, asks); sure {
		return out, nil
	}
	flight := &q.flights[maphash.String(q.seed, string(org))%uint64(len(q.flights))]
	flight.Lock()
	defer flight.Unlock()
	if out, sure := q.fromSlices(org, asks); sure {
		return out, nil
	}
	if err := q.refill(ctx, org, asks); err != nil {
		return nil, err
	}
	out, _ := q.fromSlices(org, asks)
	return out, nil
}

// fromSlices answers from memory. sure is false when the database may know better.
func (q *Quotas) fromSlices(org id.Org, asks []Ask) (out []Decision, sure bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	all, sure := true, true
	found := make([]*slice, len(asks))
	for i, a := range asks {
		s := q.slice(org, a, now)
		found[i] = s
		if s.have == 0 {
			all = false
			sure = sure && !s.at.IsZero() && s.leftAt(now) < 1 // else there may be more by now
		}
	}
	for i, s := range found {
		allowed := s.have > 0
		if all {
			s.have--
		}
		out = append(out, asks[i].Policy.decide(float64(s.have)+max(0, s.leftAt(now)), allowed))
		if !allowed {
			out[i] = asks[i].Policy.decide(s.leftAt(now), false)
		}
	}
	return out, all || sure
}

func (q *Quotas) slice(org id.Org, a Ask, now time.Time) *slice {
	k := key{org, a.Subject, a.Policy.Name}
	s := q.slices[k]
	if s == nil {
		s = &slice{}
		q.slices[k] = s
	}
	s.policy, s.asked = a.Policy, now
	return s
}

// refill takes a slice of each bucket of which this process has none.
func (q *Quotas) refill(ctx context.Context, org id.Org, asks []Ask) error {
	q.mu.Lock()
	now := q.clock.Now()
	var changes []change
	for _, a := range asks {
		if s := q.slice(org, a, now); s.have == 0 {
			changes = append(changes, change{key{org, a.Subject, a.Policy.Name}, a.Policy, a.Policy.slice()})
		}
	}
	q.mu.Unlock()
	return q.db.InTx(ctx, org, func(tx pgx.Tx) error { return q.apply(ctx, tx, changes, false) })
}

// Left says what each bucket has left, a second ago or now, and takes nothing: for what is counted when it has been used.
func (q *Quotas) Left(ctx context.Context, org id.Org, asks ...Ask) ([]Decision, error) {
	q.mu.Lock()
	now := q.clock.Now()
	var old []change
	for _, a := range asks {
		if s := q.slice(org, a, now); s.at.IsZero() || now.Sub(s.at) >= flushEvery {
			old = append(old, change{key{org, a.Subject, a.Policy.Name}, a.Policy, 0})
		}
	}
	q.mu.Unlock()
	if len(old) > 0 {
		if err := q.db.InTx(ctx, org, func(tx pgx.Tx) error { return q.apply(ctx, tx, old, false) }); err != nil {
			return nil, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]Decision, len(asks))
	for i, a := range asks {
		left := q.slice(org, a, now).leftAt(now)
		out[i] = a.Policy.decide(left, left >= 1)
	}
	return out, nil
}

// Used counts n as used of each bucket, which may leave less than nothing. It is written with the next round.
func (q *Quotas) Used(org id.Org, n int64, asks ...Ask) {
	if n <= 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for _, a := range asks {
		q.slice(org, a, now).owed += n
	}
}

// change is what is taken of a bucket; below zero is given back.
type change struct {
	key
	policy Policy
	want   int64
}

// apply asks the database, and keeps what it answers.
func (q *Quotas) apply(ctx context.Context, tx pgx.Tx, changes []change, force bool) error {
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.org, b.org), cmp.Compare(a.subject, b.subject), cmp.Compare(a.key.policy, b.key.policy))
	})
	var p ratelimitdb.TakeParams
	p.Force = force
	for _, c := range changes {
		p.Orgs, p.Subjects, p.Policies = append(p.Orgs, string(c.org)), append(p.Subjects, c.subject), append(p.Policies, c.key.policy)
		p.Quotas, p.Windows, p.Wants = append(p.Quotas, int64(c.policy.Quota)), append(p.Windows, c.policy.Window.Seconds()), append(p.Wants, c.want)
	}
	rows, err := ratelimitdb.New(tx).Take(ctx, p)
	if err != nil {
		return fmt.Errorf("take of %d quotas: %w", len(changes), err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for i, r := range rows {
		s := q.slices[changes[i].key]
		if s == nil {
			s = &slice{policy: changes[i].policy, asked: now}
			q.slices[changes[i].key] = s
		}
		s.left, s.at = r.Remaining, now
		if !force {
			s.have += r.Granted
		}
	}
	return nil
}

// FlushOnce writes what was used and gives back the slices that nobody asks for.
func (q *Quotas) FlushOnce(ctx context.Context) error {
	if err := q.flush(ctx, idleAfter); err != nil {
		return err
	}
	if now := q.clock.Now(); now.Sub(q.swept) >= forgetEvery {
		q.swept = now
		return q.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
			_, err := ratelimitdb.New(tx).Forget(ctx, forgetAfter.Seconds())
			return err
		})
	}
	return nil
}

func (q *Quotas) flush(ctx context.Context, idle time.Duration) error {
	q.mu.Lock()
	now := q.clock.Now()
	var changes []change
	for k, s := range q.slices {
		still := now.Sub(s.asked) >= idle
		want := s.owed
		if still {
			want -= s.have
		}
		if want != 0 {
			changes = append(changes, change{k, s.policy, want})
		}
		s.owed = 0
		if still {
			s.have = 0
			if now.Sub(s.asked) >= s.policy.Window { // a full bucket and none at all are the same
				delete(q.slices, k)
			}
		}
	}
	q.mu.Unlock()
	if len(changes) == 0 {
		return nil
	}
	err := q.db.InWorkerTx(ctx, func(tx pgx.Tx) error { return q.apply(ctx, tx, changes, true) })
	if err == nil {
		return nil
	}
	// What was used is counted with the next round; what was to be given back comes back by itself.
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range changes {
		if c.want > 0 {
			q.slice(c.org, Ask{c.subject, c.policy}, now).owed += c.want
		}
	}
	return err
}

// Len is the number of buckets that this process knows of.
func (q *Quotas) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.slices)
}
