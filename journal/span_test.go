package journal_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/journal"
)

// outbox reads the names of the spans that wait for this session.
func (b *book) outbox() (names []string) {
	b.t.Helper()
	require.NoError(b.t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT payload FROM outbox WHERE session_id = $1 ORDER BY id", string(b.session))
		if err != nil {
			return err
		}
		payloads, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		for _, p := range payloads {
			var s journal.Span
			require.NoError(b.t, json.Unmarshal(p, &s))
			require.Equal(b.t, string(b.org), s.OrgID)
			require.Equal(b.t, string(b.session), s.SessionID)
			names = append(names, s.Name)
		}
		return err
	}))
	return names
}

func TestASpanIsWrittenOnceWithTheEventsThatItTellsOf(t *testing.T) {
	b := newBook(t)
	require.NoError(t, b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		l.PutSpan(journal.Span{Name: "first"})
		if _, err := l.Append(ctx, now, journal.Of(message("one"))); err != nil {
			return err
		}
		l.PutSpan(journal.Span{Name: "second"})
		_, err := l.Append(ctx, now, journal.Of(message("two")))
		return err
	}))
	require.Equal(t, []string{"first", "second"}, b.outbox())
}

func TestASpanGoesWithItsTransaction(t *testing.T) {
	b := newBook(t)
	require.Error(t, b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		l.PutSpan(journal.Span{Name: "never"})
		if _, err := l.Append(ctx, now, journal.Of(message("one"))); err != nil {
			return err
		}
		return context.Canceled
	}))
	require.Empty(t, b.outbox())
}

// The null character stays: the outbox holds json, not jsonb.
func TestASpanHoldsWhatAProgramPrinted(t *testing.T) {
	b := newBook(t)
	require.NoError(t, b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		l.PutSpan(journal.Span{Name: "a\x00b"})
		_, err := l.Append(ctx, now, journal.Of(message("one")))
		return err
	}))
	require.Equal(t, []string{"a\x00b"}, b.outbox())
}
