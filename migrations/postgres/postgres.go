package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Files are the SQL migrations.
//
//go:embed *.sql
var Files embed.FS

// RiverSchema is the schema that the job queue has to itself: its tables have no tenant, and its jobs' arguments are ids only.
const RiverSchema = "river"

// riverVersion is the schema version of the pinned River release. A newer release brings a new Go migration here.
const riverVersion = 8

// riverMigration is number 2: it lets River make its tables, and opens them to the two roles that log in.
var riverMigration = goose.NewGoMigration(2, &goose.GoFunc{RunDB: upRiver}, &goose.GoFunc{RunDB: downRiver})

// Provider returns goose's provider over the embedded migrations. The database must have been opened with pgx's driver.
func Provider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, Files, goose.WithGoMigrations(riverMigration))
}

// upRiver goes below database/sql to pgx, as River's migrator takes a pgx transaction.
func upRiver(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("take a connection: %w", err)
	}
	defer conn.Close() //nolint:errcheck // returned to the pool; the transaction has ended before
	return conn.Raw(func(driverConn any) error {
		return pgx.BeginFunc(ctx, driverConn.(*stdlib.Conn).Conn(), func(tx pgx.Tx) error { return migrateRiver(ctx, tx) })
	})
}

func migrateRiver(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+RiverSchema); err != nil {
		return fmt.Errorf("create the job queue's schema: %w", err)
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(nil), &rivermigrate.Config{Schema: RiverSchema})
	if err != nil {
		return fmt.Errorf("prepare the job queue's migrations: %w", err)
	}
	if _, err := migrator.MigrateTx(ctx, tx, rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: riverVersion}); err != nil {
		return fmt.Errorf("migrate the job queue: %w", err)
	}
	_, err = tx.Exec(ctx, `
		GRANT USAGE ON SCHEMA `+RiverSchema+` TO ambit_app, ambit_worker;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+RiverSchema+` TO ambit_worker;
		GRANT SELECT, INSERT, UPDATE ON `+RiverSchema+`.river_job TO ambit_app;
		GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA `+RiverSchema+` TO ambit_app, ambit_worker;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA `+RiverSchema+` TO ambit_app, ambit_worker;`)
	if err != nil {
		return fmt.Errorf("open the job queue to its users: %w", err)
	}
	return nil
}

func downRiver(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+RiverSchema+" CASCADE")
	return err
}
