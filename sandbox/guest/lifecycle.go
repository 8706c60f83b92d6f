package guest

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// Info asks the guest who it is. It works before Configure.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	info := &Info{}
	if err := c.unary(ctx, OpInfo, struct{}{}, info); err != nil {
		return nil, err
	}
	return info, nil
}

// Configure gives a fresh clone its clock, random numbers, identity and epoch.
// It may be repeated, by the same sandbox id only; the epoch never goes down.
func (c *Client) Configure(ctx context.Context, cfg Configuration) (*Info, error) {
	if len(cfg.Entropy) == 0 {
		cfg.Entropy = make([]byte, 64)
		if _, err := rand.Read(cfg.Entropy); err != nil {
			return nil, fmt.Errorf("gather entropy for the guest: %w", err)
		}
	}
	if cfg.Now.IsZero() {
		cfg.Now = time.Now()
	}
	info := &Info{}
	if err := c.unary(ctx, OpConfigure, cfg, info); err != nil {
		return nil, err
	}
	return info, nil
}

// Warm has the guest run, once and as the commands' user, programs that commands
// mostly begin with, so that the first real one finds them in the page cache
// and, under a software CPU, translated. It works before Configure and touches no
// tenant's data. A pool calls it with WarmShell before it pauses a clone.
func (c *Client) Warm(ctx context.Context, what Warmth) error {
	return c.unary(ctx, OpWarm, WarmRequest{What: what}, nil)
}

// SetClock sets the guest's wall clock to the host's. Call it after a machine
// was resumed from a pause.
func (c *Client) SetClock(ctx context.Context) error {
	return c.unary(ctx, OpClock, ClockRequest{Now: time.Now()}, nil)
}

// Metrics asks what the guest sees of its own memory, disk and processes.
func (c *Client) Metrics(ctx context.Context) (*Metrics, error) {
	m := &Metrics{}
	if err := c.unary(ctx, OpMetrics, struct{}{}, m); err != nil {
		return nil, err
	}
	return m, nil
}

// Shutdown asks the guest to end all commands and power off. It returns when
// the guest has agreed; the machine's Done tells when it is gone.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.unary(ctx, OpShutdown, struct{}{}, nil)
}
