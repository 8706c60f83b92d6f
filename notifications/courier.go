package notifications

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

const (
	// claimFor must outlast the sending of a batch, or a second courier sends the same mail again.
	claimFor  = 10 * time.Minute
	batchSize = 10
	// keepFor is how long a row without its content is kept, for the question whether a mail was sent.
	keepFor = 30 * 24 * time.Hour
)

// pauses are the waits after the first, second, … failed attempt. After the last one a mail is given up.
var pauses = []time.Duration{
	30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour,
}

// runOnce sends all mail that is due.
func (m *Mailer) runOnce(ctx context.Context) error {
	for {
		claimed, err := m.claim(ctx)
		if err != nil {
			return err
		}
		for _, c := range claimed {
			if err := m.deliver(ctx, c); err != nil {
				return err
			}
		}
		if len(claimed) < batchSize {
			return m.deleteOld(ctx)
		}
	}
}

func (m *Mailer) claim(ctx context.Context) (claimed []notificationsdb.ClaimMailRow, err error) {
	now := m.deps.Clock.Now()
	err = m.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		claimed, err = notificationsdb.New(tx).ClaimMail(ctx, notificationsdb.ClaimMailParams{
			Now: now, ClaimedUntil: now.Add(claimFor), MaxRows: batchSize,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim mail that is due: %w", err)
	}
	return claimed, nil
}

// deliver tries once. Its error is one of the database, never of the mail server: that is noted in the row.
func (m *Mailer) deliver(ctx context.Context, c notificationsdb.ClaimMailRow) error {
	log := m.deps.Logger.With("mail", c.ID, "kind", c.Kind, "attempt", c.Attempts)
	sendErr := m.open(c, func(text content) error { return m.server.send(ctx, c.ID, c.Recipient, c.CreatedAt, text) })
	if ctx.Err() != nil && sendErr != nil {
		return ctx.Err() // stopping: the claim runs out and the mail is tried again
	}
	now := m.deps.Clock.Now()
	note := func(q *notificationsdb.Queries) error {
		return q.MarkSent(ctx, notificationsdb.MarkSentParams{ID: c.ID, Now: now})
	}
	var refusal *refusedError
	switch {
	case sendErr == nil:
		log.InfoContext(ctx, "mail sent")
	case errors.As(sendErr, &refusal) || int(c.Attempts) > len(pauses):
		log.ErrorContext(ctx, "mail given up", "error", sendErr)
		note = func(q *notificationsdb.Queries) error {
			return q.MarkFailed(ctx, notificationsdb.MarkFailedParams{ID: c.ID, Now: now, LastError: short(sendErr)})
		}
	default:
		pause := pauses[c.Attempts-1]
		log.WarnContext(ctx, "mail not sent yet", "error", sendErr, "again_in", pause)
		note = func(q *notificationsdb.Queries) error {
			return q.MarkForRetry(ctx, notificationsdb.MarkForRetryParams{ID: c.ID, DueAt: now.Add(pause), LastError: short(sendErr)})
		}
	}
	if err := m.db.InWorkerTx(ctx, func(tx pgx.Tx) error { return note(notificationsdb.New(tx)) }); err != nil {
		return fmt.Errorf("note what became of mail %s: %w", c.ID, err)
	}
	return nil
}

func (m *Mailer) open(c notificationsdb.ClaimMailRow, use func(content) error) error {
	plain, err := m.deps.Sealer.Unseal(c.Sealed, purposeOf(c.ID))
	if err != nil {
		return err
	}
	var text content
	if err := json.Unmarshal(plain, &text); err != nil {
		return &refusedError{fmt.Errorf("decode the mail: %w", err)}
	}
	return use(text)
}

func (m *Mailer) deleteOld(ctx context.Context) error {
	err := m.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		_, err := notificationsdb.New(tx).DeleteOldMail(ctx, m.deps.Clock.Now().Add(-keepFor))
		return err
	})
	if err != nil {
		return fmt.Errorf("delete old mail: %w", err)
	}
	return nil
}

func short(err error) *string {
	s := err.Error()
	if len(s) > 300 {
		s = s[:300]
	}
	return &s
}
