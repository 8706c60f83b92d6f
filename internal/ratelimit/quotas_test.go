package ratelimit_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/ratelimit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

// processes are quotas of several processes on one database.
func processes(t *testing.T, n int) (*postgres.DB, id.Org, *clock.Offset, []*ratelimit.Quotas) {
	t.Helper()
	db := dbtest.New(t)
	c := clock.NewOffset(0)
	out := make([]*ratelimit.Quotas, n)
	for i := range out {
		out[i] = ratelimit.New(db, c, slog.New(slog.DiscardHandler))
	}
	return db, dbtest.NewOrg(t, db), c, out
}

func ask(quota int, window time.Duration) ratelimit.Ask {
	return ratelimit.Ask{Subject: "key:one", Policy: ratelimit.Policy{Name: "default", Quota: quota, Window: window}}
}

// gone is a context in which the database can't be asked.
func gone(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestProcessesShareOneQuota(t *testing.T) {
	_, org, _, two := processes(t, 3)
	a := ask(500, 24*time.Hour) // nothing to speak of comes back meanwhile
	var allowed atomic.Int64
	var all sync.WaitGroup
	for _, q := range two {
		for range 8 {
			all.Go(func() {
				for range 40 {
					d, err := q.Take(t.Context(), org, a)
					if err != nil {
						t.Error(err)
						return
					}
					if d[0].Allowed {
						allowed.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	require.Equal(t, int64(500), allowed.Load(), "960 asked, at three processes")
}

// TestATakeSeesWhatTheOneBeforeItTook: two transactions want more of one bucket than there is for both, at the same moment.
func TestATakeSeesWhatTheOneBeforeItTook(t *testing.T) {
	db, org, _, _ := processes(t, 0)
	granted := make(chan int, 2)
	take := func() {
		n := -1
		_ = db.InTx(t.Context(), org, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT granted FROM rate_take(ARRAY[$1], ARRAY['key:one'], ARRAY['default'], ARRAY[500::bigint], ARRAY[86400::double precision], ARRAY[400::bigint], false)`,
				string(org)).Scan(&n)
		})
		granted <- n
	}
	require.NoError(t, db.InTx(t.Context(), org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO rate_buckets (org_id, subject, policy, tokens, at) VALUES ($1, 'key:one', 'default', 500, now())`, string(org))
		return err
	}))
	// A third has the row locked, so that both have begun before either can end.
	require.NoError(t, db.InTx(t.Context(), org, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT FROM rate_buckets FOR UPDATE`); err != nil {
			return err
		}
		go take()
		go take()
		require.Eventually(t, func() bool {
			waits := 0
			err := db.App().QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waits)
			return err == nil && waits == 2
		}, 10*time.Second, 5*time.Millisecond, "both wait")
		return nil
	}))
	require.Equal(t, 500, <-granted+<-granted, "what one took the other can't have")
}

func TestASliceIsGivenOutFromMemory(t *testing.T) {
	_, org, _, q := processes(t, 2)
	a := ask(100, 24*time.Hour) // slices of two
	d, err := q[0].Take(t.Context(), org, a)
	require.NoError(t, err)
	require.True(t, d[0].Allowed)
	require.Equal(t, 99, d[0].Remaining)
	d, err = q[0].Take(gone(t), org, a)
	require.NoError(t, err, "the second of a slice asks nobody")
	require.True(t, d[0].Allowed)
	_, err = q[0].Take(gone(t), org, a)
	require.Error(t, err, "the third has to")

	for range 98 {
		d, err = q[1].Take(t.Context(), org, a)
		require.NoError(t, err)
		require.True(t, d[0].Allowed)
	}
	d, err = q[1].Take(t.Context(), org, a)
	require.NoError(t, err)
	require.False(t, d[0].Allowed)
	require.InDelta(t, (24 * time.Hour / 100).Seconds(), d[0].RetryAfter.Seconds(), 30)
	d, err = q[1].Take(gone(t), org, a)
	require.NoError(t, err, "who is refused and asks again costs nothing")
	require.False(t, d[0].Allowed)
	require.Zero(t, d[0].Remaining)
}

func TestAllBucketsOrNone(t *testing.T) {
	_, org, _, q := processes(t, 1)
	narrow := ratelimit.Ask{Subject: "organization", Policy: ratelimit.Policy{Name: "organization", Quota: 1, Window: 24 * time.Hour}}
	wide := ask(2, 24*time.Hour)
	d, err := q[0].Take(t.Context(), org, wide, narrow)
	require.NoError(t, err)
	require.True(t, d[0].Allowed && d[1].Allowed)
	for range 3 {
		d, err = q[0].Take(t.Context(), org, wide, narrow)
		require.NoError(t, err)
		require.True(t, d[0].Allowed)
		require.False(t, d[1].Allowed)
	}
	d, err = q[0].Take(t.Context(), org, wide)
	require.NoError(t, err)
	require.True(t, d[0].Allowed, "what was refused was not taken")
	d, err = q[0].Take(t.Context(), org, wide)
	require.NoError(t, err)
	require.False(t, d[0].Allowed)
}

func TestAnIdleSliceIsGivenBack(t *testing.T) {
	_, org, c, q := processes(t, 2)
	a := ask(100, 24*time.Hour)
	_, err := q[0].Take(t.Context(), org, a)
	require.NoError(t, err)
	require.NoError(t, q[0].FlushOnce(t.Context()))
	left := func() int {
		d, err := q[1].Left(t.Context(), org, a)
		require.NoError(t, err)
		return d[0].Remaining
	}
	require.Equal(t, 98, left(), "the other process has one more")
	c.Advance(11 * time.Second)
	require.NoError(t, q[0].FlushOnce(t.Context()))
	require.Equal(t, 99, left())
	c.Advance(25 * time.Hour)
	require.NoError(t, q[0].FlushOnce(t.Context()))
	require.Zero(t, q[0].Len(), "and it is forgotten")
}

func TestUsedTokensCountInEachProcess(t *testing.T) {
	_, org, c, q := processes(t, 2)
	a := ask(1000, time.Hour)
	left := func(q *ratelimit.Quotas) ratelimit.Decision {
		c.Advance(2 * time.Second)
		d, err := q.Left(t.Context(), org, a)
		require.NoError(t, err)
		return d[0]
	}
	require.True(t, left(q[1]).Allowed)
	q[0].Used(org, 1500, a)
	require.False(t, left(q[0]).Allowed, "at once where it was counted")
	require.NoError(t, q[0].FlushOnce(t.Context()))
	d := left(q[1])
	require.False(t, d.Allowed, "and in the next second elsewhere")
	require.Zero(t, d.Remaining)
	require.InDelta(t, 1801, d.RetryAfter.Seconds(), 10, "until the deficit of 500 has come back, and one more")

	// A process that can't write keeps the count for the next round.
	q[1].Used(org, 100, a)
	require.Error(t, q[1].FlushOnce(gone(t)))
	require.NoError(t, q[1].Stop(t.Context()))
	require.InDelta(t, 2161, left(q[0]).RetryAfter.Seconds(), 30)
}

func TestWhatWasTakenComesBackEvenly(t *testing.T) {
	_, org, _, q := processes(t, 1)
	a := ask(10, time.Second)
	took := 0
	require.Eventually(t, func() bool {
		d, err := q[0].Take(t.Context(), org, a)
		require.NoError(t, err)
		if d[0].Allowed {
			took++
		}
		return took >= 20
	}, 10*time.Second, 5*time.Millisecond)
}

func TestAnotherOrganisationsBucketIsAnother(t *testing.T) {
	db, org, _, q := processes(t, 1)
	a := ask(1, 24*time.Hour)
	for _, who := range []id.Org{org, dbtest.NewOrg(t, db)} {
		d, err := q[0].Take(t.Context(), who, a)
		require.NoError(t, err)
		require.True(t, d[0].Allowed)
		d, err = q[0].Take(t.Context(), who, a)
		require.NoError(t, err)
		require.False(t, d[0].Allowed)
	}
	require.NoError(t, db.InTx(t.Context(), org, func(tx pgx.Tx) error {
		var n int
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT count(*) FROM rate_buckets`).Scan(&n))
		require.Equal(t, 1, n)
		return nil
	}))
}
