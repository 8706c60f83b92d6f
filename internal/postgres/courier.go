package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// courierPause is for how long notices gather after some were sent: what comes alone leaves at once, what comes thick and fast comes together.
const courierPause = 4 * time.Millisecond

// courier sends notices after their commits, all that have gathered at once, so that no commit waits for them and many commits cost one
// way to the database. What it loses is a hint.
type courier struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	waiting []notice
	known   map[notice]bool
	closed  bool

	wake chan struct{}
	done chan struct{}
}

func startCourier(pool *pgxpool.Pool) *courier {
	c := &courier{pool: pool, known: map[notice]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// take adds notices; the same one twice, while it waits, is one.
func (c *courier) take(notices []notice) {
	if len(notices) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	for _, n := range notices {
		if !c.known[n] {
			c.known[n] = true
			c.waiting = append(c.waiting, n)
		}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *courier) run() {
	defer close(c.done)
	for range c.wake {
		c.mu.Lock()
		batch := c.waiting
		c.waiting, c.known = nil, map[notice]bool{}
		c.mu.Unlock()
		c.send(batch)
		time.Sleep(courierPause) //nolint:forbidigo // short whatever happens, and stop sends what waits
	}
}

func (c *courier) send(notices []notice) {
	if len(notices) == 0 {
		return
	}
	channels, payloads := make([]string, len(notices)), make([]string, len(notices))
	for i, n := range notices {
		channels[i], payloads[i] = n.channel, n.payload
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// A hint need not survive a crash: nobody waits for the disk.
	rows, err := c.pool.Query(ctx, "SELECT pg_notify(c, p) FROM set_config('synchronous_commit', 'off', true), unnest($1::text[], $2::text[]) AS t (c, p)", channels, payloads)
	if err == nil {
		_, _ = pgx.CollectRows(rows, func(pgx.CollectableRow) (struct{}, error) { return struct{}{}, nil })
	}
}

// stop sends what waits and ends.
func (c *courier) stop() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	close(c.wake)
	c.mu.Unlock()
	<-c.done
	c.mu.Lock()
	rest := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	c.send(rest)
}
