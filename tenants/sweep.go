package tenants

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

const (
	// endedKept is how long an ended sign-in, link or invitation is kept, for questions about it.
	endedKept = 30 * 24 * time.Hour
	// attemptsKept is longer than any guard remembers.
	attemptsKept = 48 * time.Hour
)

// sweepOnce deletes what ended long ago, for all people.
func (s *Service) sweepOnce(ctx context.Context) error {
	now := s.clock.Now()
	return s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := tenantsdb.New(tx)
		if _, err := q.SweepSignIns(ctx, now.Add(-endedKept)); err != nil {
			return fmt.Errorf("delete old sign-ins: %w", err)
		}
		if _, err := q.SweepMailTokens(ctx, now.Add(-endedKept)); err != nil {
			return fmt.Errorf("delete old links: %w", err)
		}
		if _, err := q.SweepInvitations(ctx, now.Add(-endedKept)); err != nil {
			return fmt.Errorf("delete old invitations: %w", err)
		}
		if _, err := q.SweepThrottles(ctx, now.Add(-attemptsKept)); err != nil {
			return fmt.Errorf("delete old attempts: %w", err)
		}
		return nil
	})
}
