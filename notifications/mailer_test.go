package notifications

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications/mailtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

type fixture struct {
	db    *postgres.DB
	owner string
	hands *clock.Offset
	smtp  *mailtest.Server
	mail  *Mailer
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	f := fixture{hands: clock.NewOffset(0), smtp: mailtest.New(t)}
	f.db, f.owner = dbtest.NewWithOwner(t)
	f.mail = f.mailer(t, f.smtp.URL())
	return f
}

func (f fixture) mailer(t *testing.T, smtpURL string) *Mailer {
	t.Helper()
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	m, err := New(f.db, Deps{Sealer: sealer, Clock: f.hands, Logger: slog.New(slog.DiscardHandler)}, Config{SMTPURL: smtpURL, From: "Ambit <ambit@example.com>"})
	require.NoError(t, err)
	return m
}

func (f fixture) queue(t *testing.T, m *Mailer, subject string) {
	t.Helper()
	require.NoError(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		return m.SendTx(t.Context(), tx, Mail{Kind: "test", To: "ada@example.com", Subject: subject, Text: "Open http://x.test/?t=secret-link\n"})
	}))
}

// column reads one text column of the only mail, with the owner's eyes.
func (f fixture) column(t *testing.T, expression string) (v string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // read only
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT coalesce(("+expression+")::text, '') FROM outgoing_mail").Scan(&v))
	return v
}

func TestMailIsSentOnceAfterItsTransaction(t *testing.T) {
	f := newFixture(t)
	f.queue(t, f.mail, "Zürich – good news")
	require.NotContains(t, f.column(t, "encode(sealed, 'escape')"), "secret-link", "the link lies sealed")

	require.NoError(t, f.mail.runOnce(t.Context()))
	got := f.smtp.Next(t, 0)
	require.Equal(t, "ada@example.com", got.To)
	require.Equal(t, "Zürich – good news", got.Subject)
	require.Equal(t, "http://x.test/?t=secret-link", got.Link())
	require.Equal(t, "true", f.column(t, "sent_at IS NOT NULL AND sealed IS NULL"), "what was sent is not kept")

	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Len(t, f.smtp.Messages(), 1)
}

func TestMailOfARolledBackTransactionIsNeverSent(t *testing.T) {
	f := newFixture(t)
	undone := errors.New("undone")
	require.ErrorIs(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		require.NoError(t, f.mail.SendTx(t.Context(), tx, Mail{Kind: "test", To: "a@example.com", Subject: "s", Text: "t"}))
		return undone
	}), undone)
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Empty(t, f.smtp.Messages())
}

func TestAFailureIsTriedAgainLaterUnderTheSameMessageID(t *testing.T) {
	f := newFixture(t)
	f.smtp.Fail("451 4.3.0 try later")
	f.queue(t, f.mail, "again")
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Empty(t, f.smtp.Messages())
	require.Contains(t, f.column(t, "last_error"), "451")

	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Empty(t, f.smtp.Messages(), "not before its pause is over")
	f.hands.Advance(pauses[0] + time.Second)
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Equal(t, "<"+f.column(t, "id")+"@example.com>", f.smtp.Next(t, 0).MessageID)
}

func TestAServerThatIsAwayIsTriedUntilTheAttemptsEnd(t *testing.T) {
	f := newFixture(t)
	away := f.mailer(t, "smtp://127.0.0.1:1?tls=none")
	f.queue(t, away, "lost")
	for _, pause := range pauses {
		require.NoError(t, away.runOnce(t.Context()))
		require.Empty(t, f.column(t, "failed_at"))
		f.hands.Advance(pause + time.Second)
	}
	require.NoError(t, away.runOnce(t.Context()))
	require.Equal(t, "true", f.column(t, "failed_at IS NOT NULL AND sealed IS NULL"))
}

func TestARefusalForGoodIsNotRepeated(t *testing.T) {
	f := newFixture(t)
	f.smtp.Fail("550 5.1.1 no such person")
	f.queue(t, f.mail, "nobody")
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Contains(t, f.column(t, "last_error"), "550")
	require.NotEmpty(t, f.column(t, "failed_at"))
}

func TestMailClaimedByACourierThatDiedIsTakenUp(t *testing.T) {
	f := newFixture(t)
	f.queue(t, f.mail, "orphan")
	claimed, err := f.mail.claim(t.Context())
	require.NoError(t, err)
	require.Len(t, claimed, 1)
	require.NoError(t, f.mail.runOnce(t.Context()))
	require.Empty(t, f.smtp.Messages(), "another's claim holds")
	f.hands.Advance(claimFor + time.Second)
	require.NoError(t, f.mail.runOnce(t.Context()))
	f.smtp.Next(t, 0)
}

func TestTheServiceSendsWhatIsQueued(t *testing.T) {
	f := newFixture(t)
	f.mail.Start(t.Context())
	<-f.mail.Started()
	f.queue(t, f.mail, "soon")
	f.mail.Wake()
	f.smtp.Next(t, 0)
	require.NoError(t, f.mail.Stop(t.Context()))
}

func TestTheApplicationCannotReadTheQueue(t *testing.T) {
	f := newFixture(t)
	require.ErrorContains(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT * FROM outgoing_mail")
		return err
	}), "permission denied")
}

func TestNoServer(t *testing.T) {
	m, err := New(nil, Deps{}, Config{})
	require.NoError(t, err)
	require.False(t, m.Enabled())
	require.False(t, (*Mailer)(nil).Enabled())
	require.ErrorIs(t, m.SendTx(t.Context(), nil, Mail{}), ErrNoServer)
	require.NoError(t, m.Stop(t.Context()))
}

func TestABadConfigurationIsToldWithoutItsPassword(t *testing.T) {
	for _, url := range []string{"smtp://", "http://u:hunter2@h", "smtp://u:hunter2@h:port", "smtp://u:hunter2@h?tls=maybe", "smtp://u:hunter2@h:99999", "smtp://u:hunter2@h:1 2"} {
		_, err := New(nil, Deps{}, Config{SMTPURL: url, From: "a@example.com"})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := New(nil, Deps{}, Config{SMTPURL: "smtp://h", From: "nobody"})
	require.Error(t, err)
	for _, url := range []string{"smtps://u:p@h", "smtp://h:2525", "smtp://u:p@h?tls=opportunistic"} {
		_, err := New(nil, Deps{}, Config{SMTPURL: url, From: "a@example.com"})
		require.NoError(t, err, url)
	}
}

func TestALineBreakCannotSmuggleAHeader(t *testing.T) {
	f := newFixture(t)
	for _, m := range []Mail{{To: "a@example.com\r\nBcc: b@example.com", Subject: "s"}, {To: "a@example.com", Subject: "s\nBcc: b@example.com"}, {To: strings.Repeat("x", 9), Subject: "s"}} {
		require.Error(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error { return f.mail.SendTx(t.Context(), tx, m) }))
	}
}
