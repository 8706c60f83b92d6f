package sandbox

import (
	"context"
	"sync"
	"time"
)

// line is where the sessions of this process wait for a machine, first come
// first served: only the first in line tries to claim, so that nobody who came
// later gets a machine before it. Several processes have a line each; between
// their heads the row lock decides.
type line struct {
	most int

	mu      sync.Mutex
	waiting []*place
}

// place is one session's place in the line.
type place struct {
	// turn is closed when the place is the first.
	turn chan struct{}
	// hint has something when a machine may have come free.
	hint chan struct{}
}

// lookEvery is how often the first in line looks without a hint: machines come
// free in other processes too.
const lookEvery = 200 * time.Millisecond

// empty says whether nobody waits.
func (l *line) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0
}

// length is how many wait.
func (l *line) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// join takes the last place, or says that the line is full.
func (l *line) join() (*place, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= l.most {
		return nil, false
	}
	p := &place{turn: make(chan struct{}), hint: make(chan struct{}, 1)}
	l.waiting = append(l.waiting, p)
	if len(l.waiting) == 1 {
		close(p.turn)
	}
	return p, true
}

// leave gives a place up, wherever it is.
func (l *line) leave(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.waiting {
		if q != p {
			continue
		}
		l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
		if i == 0 && len(l.waiting) > 0 {
			close(l.waiting[0].turn)
		}
		return
	}
}

// poke hints to the first in line.
func (l *line) poke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		select {
		case l.waiting[0].hint <- struct{}{}:
		default:
		}
	}
}

// wait stands in line and calls try, once it is its turn, whenever something may
// have changed, until it reports that it is done or fails. It returns
// ErrNoCapacity when the line is full or the time is over.
func (l *line) wait(ctx context.Context, limit time.Duration, try func() (done bool, err error)) error {
	p, ok := l.join()
	if !ok {
		return ErrNoCapacity
	}
	defer l.leave(p)
	over := time.NewTimer(limit)
	defer over.Stop()
	select {
	case <-p.turn:
	case <-over.C:
		return ErrNoCapacity
	case <-ctx.Done():
		return ctx.Err()
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case <-p.hint:
		case <-look.C:
		case <-over.C:
			return ErrNoCapacity
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
