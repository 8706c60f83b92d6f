package approval_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/notifications/mailtest"
)

// TestWhoMayDecideIsMailedOnceAndNotTooOften: one mail a stage, whose link opens a page; beyond the limit the rule's owner hears of it instead.
func TestWhoMayDecideIsMailedOnceAndNotTooOften(t *testing.T) {
	b := newBench(t)
	box := mailtest.New(t)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	mailer, err := notifications.New(b.db, notifications.Deps{Sealer: sealer, Clock: clock.System(), Logger: log}, notifications.Config{SMTPURL: box.URL(), From: "Ambit <ambit@example.com>"})
	require.NoError(t, err)
	mailer.Start(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, mailer.Stop(ctx))
	})
	b.service = approval.NewService(approval.Deps{Clock: clock.System(), Mail: mailer, PublicURL: "https://ambit.example.com/"})
	for _, user := range []string{string(b.owner), string(b.admin)} {
		require.NoError(t, b.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `SELECT set_config('app.user_id', $1, true)`, user); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `UPDATE users SET email_verified_at = now() WHERE id = $1`, user)
			return err
		}))
	}
	b.in(t, b.owner, func(tx pgx.Tx) error {
		_, err := b.service.SetSettings(b.ctx(t, b.owner), tx, b.org, approval.Settings{TaintAsks: true, AsksPerDay: 2}, nil)
		return err
	})
	ask := func(seq int64) approval.Approval {
		var a approval.Answer
		b.in(t, b.owner, func(tx pgx.Tx) error {
			a = b.stand(t, tx, seq, fmt.Sprintf(`{"cups":%d}`, seq))
			return nil
		})
		for range 2 { // the keeper of every process may look
			b.in(t, b.owner, func(tx pgx.Tx) error { return b.service.Tell(b.ctx(t, b.owner), tx, b.org, a.Approval.ID) })
		}
		return *a.Approval
	}
	first := ask(7)
	mailer.Wake()
	mail := box.Next(t, 0)
	require.Equal(t, "admin@example.com", mail.To)
	require.Contains(t, mail.Text, "https://ambit.example.com/x/"+string(first.ID))
	require.Contains(t, mail.Text, "opening the page decides nothing")
	require.NotContains(t, mail.Text, "cups", "what is asked is shown to who signs in")
	ask(8)
	ask(9)
	ask(10)
	mailer.Wake()
	require.Eventually(t, func() bool { return len(box.Messages()) >= 3 }, 20*time.Second, 20*time.Millisecond)
	var owner, admin int
	for _, m := range box.Messages() {
		switch {
		case m.To == "owner@example.com":
			owner++
			require.Contains(t, m.Subject+m.Text, "asks too often")
		case strings.Contains(m.Text, "Why you are asked"):
			admin++
		}
	}
	require.Equal(t, 2, admin, "the limit is two")
	require.Equal(t, 1, owner, "and the owner hears of it once a day")
}
