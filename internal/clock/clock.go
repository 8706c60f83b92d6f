// Package clock is where domain code takes the time from, so that a test can turn the hands.
//
// It owns the notion of now and of waiting. Leases are not its business: those use the database's clock, which all replicas share.
package clock

import (
	"context"
	"sync"
	"time"
)

// Clock tells the time and waits.
type Clock interface {
	// Now returns the current time in UTC, to the microsecond, as Postgres keeps it.
	Now() time.Time
	// Sleep waits for d or until the context ends, and then returns the context's error.
	Sleep(ctx context.Context, d time.Duration) error
}

type system struct{}

// System is the machine's own clock.
func System() Clock { return system{} }

func (system) Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func (system) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Offset is a clock that is wrong by a fixed or changing amount: a faulty machine, or a test that jumps ahead.
type Offset struct {
	mu sync.Mutex
	by time.Duration
}

// NewOffset returns a clock that differs from the system's by d.
func NewOffset(d time.Duration) *Offset { return &Offset{by: d} }

// Advance moves the clock by d, which may be negative.
func (o *Offset) Advance(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.by += d
}

// Now implements Clock.
func (o *Offset) Now() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Add(o.by).UTC().Truncate(time.Microsecond)
}

// Sleep implements Clock: durations pass at the system's pace.
func (o *Offset) Sleep(ctx context.Context, d time.Duration) error { return system{}.Sleep(ctx, d) }
