package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Pipeline collects statements that need no answer before the next one, and sends them as one: a transaction's time is mostly the way to
// the database and back. It has the methods that generated queries want; those that read are refused.
type Pipeline struct {
	batch  pgx.Batch
	expect []expectation
}

type expectation struct {
	rows int64 // -1: any number
	err  error
}

var errReads = errors.New("a pipeline only writes")

// Exec adds a statement. What it reports is not known before Send.
func (p *Pipeline) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	p.batch.Queue(sql, args...)
	p.expect = append(p.expect, expectation{rows: -1})
	return pgconn.CommandTag{}, nil
}

// Query refuses.
func (*Pipeline) Query(context.Context, string, ...any) (pgx.Rows, error) { return nil, errReads }

// QueryRow refuses.
func (*Pipeline) QueryRow(context.Context, string, ...any) pgx.Row { return refusedRow{} }

// Expect makes Send fail with err unless the statement added last affects just so many rows.
func (p *Pipeline) Expect(rows int64, err error) {
	p.expect[len(p.expect)-1] = expectation{rows: rows, err: err}
}

// Send runs the statements in order and stops at the first that fails.
func (p *Pipeline) Send(ctx context.Context, tx pgx.Tx) (err error) {
	if p.batch.Len() == 0 {
		return nil
	}
	results := tx.SendBatch(ctx, &p.batch)
	defer func() { err = errors.Join(err, results.Close()) }()
	for _, want := range p.expect {
		tag, err := results.Exec()
		if err != nil {
			return err
		}
		if want.rows >= 0 && tag.RowsAffected() != want.rows {
			return fmt.Errorf("%w (%d rows)", want.err, tag.RowsAffected())
		}
	}
	return nil
}

type refusedRow struct{}

func (refusedRow) Scan(...any) error { return errReads }
