package journal_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// book is one session and its journal on a real database.
type book struct {
	t       *testing.T
	db      *postgres.DB
	org     id.Org
	session id.Session
}

func newBook(t *testing.T) *book {
	t.Helper()
	b := &book{t: t, db: dbtest.New(t), session: id.New[id.Session]()}
	b.org = dbtest.NewOrg(t, b.db)
	require.NoError(t, b.db.InTx(t.Context(), b.org, func(tx pgx.Tx) error {
		_, _, err := journal.Create(t.Context(), tx, now, journal.New{
			Org: b.org, ID: b.session, Project: "prj_test", Title: "Test",
			Agent: journal.Snapshot{Name: "tester", Definition: journal.Definition{Model: "test/model"}},
			By:    principal.Principal{Kind: principal.Key, ID: "key_test", Org: b.org},
		}, journal.Of(message("hello")))
		return err
	}))
	return b
}

func message(text string) journal.UserMessage {
	return journal.UserMessage{Content: journal.Text(text)}
}

func (b *book) tx(fn func(ctx context.Context, tx pgx.Tx) error) error {
	return b.db.InTx(b.t.Context(), b.org, func(tx pgx.Tx) error { return fn(b.t.Context(), tx) })
}

func (b *book) locked(fn func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error) error {
	return b.tx(func(ctx context.Context, tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, b.org, b.session)
		if err != nil {
			return err
		}
		return fn(ctx, tx, l)
	})
}

func (b *book) append(entries ...journal.Entry) error {
	return b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		_, err := l.Append(ctx, now, entries...)
		return err
	})
}

func (b *book) events() (events []journal.Event) {
	b.t.Helper()
	require.NoError(b.t, b.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		events, err = journal.Events(ctx, tx, b.org, b.session, journal.EventFilter{Limit: 10_000})
		return err
	}))
	return events
}

func (b *book) head() (s journal.Session) {
	b.t.Helper()
	require.NoError(b.t, b.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		s, err = journal.Get(ctx, tx, b.org, b.session)
		return err
	}))
	return s
}

func (b *book) claim(owner string, ttl time.Duration) (lease journal.Lease, took bool) {
	b.t.Helper()
	require.NoError(b.t, b.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		lease, took, err = journal.ClaimLease(ctx, tx, b.org, b.session, owner, "", ttl)
		return err
	}))
	return lease, took
}

// expire lets a lease run out, by the database's clock.
func (b *book) expire() {
	b.t.Helper()
	require.NoError(b.t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE sessions SET lease_expires_at = now() - interval '1 second' WHERE id = $1", string(b.session))
		return err
	}))
}
