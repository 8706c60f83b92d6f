package idempotency_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
)

func newStore(t *testing.T) (*postgres.DB, *idempotency.Store, *clock.Offset, idempotency.Scope) {
	db := dbtest.New(t)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	c := clock.NewOffset(0)
	scope := idempotency.Scope{Org: newOrg(t, db), Principal: "key_1", Method: "POST", Path: "/v1/agents", Key: "k"}
	return db, idempotency.NewStore(sealer, c), c, scope
}

func newOrg(t *testing.T, db *postgres.DB) id.Org {
	org := id.New[id.Org]()
	require.NoError(t, db.InTx(context.Background(), org, func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'O', lower(replace($1, '_', '-')), now(), now())`, org)
		return err
	}))
	return org
}

var answer = idempotency.Record{Status: 201, Header: map[string]string{"ETag": `"1"`}, Body: []byte(`{"secret":"amb_planted"}`)}

func TestTheSecondRequestGetsTheFirstAnswer(t *testing.T) {
	ctx := context.Background()
	db, store, c, scope := newStore(t)
	body := []byte(`{"name":"a"}`)
	first := func(tx pgx.Tx) error {
		rec, err := store.BeginTx(ctx, tx, scope, body)
		require.NoError(t, err)
		require.Nil(t, rec)
		return store.SaveTx(ctx, tx, scope, body, answer, idempotency.Kept)
	}
	require.NoError(t, db.InTx(ctx, scope.Org, first))

	begin := func(scope idempotency.Scope, body string) (rec *idempotency.Record, err error) {
		txErr := db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
			rec, err = store.BeginTx(ctx, tx, scope, []byte(body))
			return nil
		})
		require.NoError(t, txErr)
		return rec, err
	}
	rec, err := begin(scope, string(body))
	require.NoError(t, err)
	require.Equal(t, &answer, rec)

	_, err = begin(scope, `{"name":"b"}`)
	require.True(t, fault.IsCode(err, "idempotency_key_reused"), err)

	for name, change := range map[string]func(*idempotency.Scope){
		"principal": func(s *idempotency.Scope) { s.Principal = "key_2" },
		"method":    func(s *idempotency.Scope) { s.Method = "PUT" },
		"path":      func(s *idempotency.Scope) { s.Path = "/v1/agentsk" },
		"key":       func(s *idempotency.Scope) { s.Key = "K" },
	} {
		other := scope
		change(&other)
		rec, err := begin(other, `{}`)
		require.NoError(t, err, name)
		require.Nil(t, rec, "another %s is another scope", name)
	}

	// After a day the key is as new, whether the sweep has come or not; and the sweep takes it away.
	c.Advance(idempotency.Kept + time.Second)
	rec, err = begin(scope, `{"name":"b"}`)
	require.NoError(t, err)
	require.Nil(t, rec)
	require.NoError(t, db.InTx(ctx, scope.Org, first), "an expired record gives way to a new one")
	c.Advance(idempotency.Kept + time.Second)
	n, err := idempotency.NewSweeper(db, c, nil).RunOnce(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestARecordLivesAndDiesWithItsTransaction(t *testing.T) {
	ctx := context.Background()
	db, store, _, scope := newStore(t)
	failed := errors.New("the effect failed")
	err := db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
		_, err := store.BeginTx(ctx, tx, scope, nil)
		require.NoError(t, err)
		require.NoError(t, store.SaveTx(ctx, tx, scope, nil, answer, idempotency.Kept))
		return failed
	})
	require.ErrorIs(t, err, failed)
	require.NoError(t, db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
		rec, err := store.BeginTx(ctx, tx, scope, nil)
		require.NoError(t, err)
		require.Nil(t, rec)
		return nil
	}))
}

func TestWhileTheFirstRunsTheSecondIsToldToWait(t *testing.T) {
	ctx := context.Background()
	db, store, _, scope := newStore(t)
	require.NoError(t, db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
		_, err := store.BeginTx(ctx, tx, scope, nil)
		require.NoError(t, err)
		err = db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
			_, err := store.BeginTx(ctx, tx, scope, nil)
			return err
		})
		f := fault.As(err)
		require.Equal(t, "idempotency_in_progress", f.Code)
		require.Equal(t, time.Second, f.RetryAfter)
		return nil
	}))
}

func TestAnswersAreSealedAndStayInTheirOrganisation(t *testing.T) {
	ctx := context.Background()
	db, store, _, scope := newStore(t)
	require.NoError(t, db.InTx(ctx, scope.Org, func(tx pgx.Tx) error {
		_, err := store.BeginTx(ctx, tx, scope, nil)
		require.NoError(t, err)
		require.NoError(t, store.SaveTx(ctx, tx, scope, nil, answer, idempotency.Kept))
		var n int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM idempotency_records WHERE position('planted'::bytea IN sealed) > 0`).Scan(&n))
		require.Zero(t, n)
		return nil
	}))
	other := newOrg(t, db)
	require.NoError(t, db.InTx(ctx, other, func(tx pgx.Tx) error {
		var n int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM idempotency_records`).Scan(&n))
		require.Zero(t, n)
		return nil
	}))
}

func TestParseKey(t *testing.T) {
	for in, want := range map[string]string{
		"a": "a", `"a"`: "a", `"a b\"c\\"`: `a b"c\`, strings.Repeat("x", 255): strings.Repeat("x", 255), `a"b`: `a"b`,
	} {
		got, err := idempotency.ParseKey(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"", `""`, strings.Repeat("x", 256), "a\x00", "ü", `"a"b"`, `"a\"`, `"a\n"`} {
		_, err := idempotency.ParseKey(in)
		require.True(t, fault.IsCode(err, "invalid_request"), "%q", in)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(`"a\"b"`)
	f.Fuzz(func(t *testing.T, in string) {
		key, err := idempotency.ParseKey(in)
		if err == nil && (key == "" || len(key) > idempotency.MaxKey) {
			t.Fatalf("%q gave %q", in, key)
		}
	})
}
