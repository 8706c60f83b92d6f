package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
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

// upRiver goes below database/sql to pgx. Each of River's versions needs a transaction of its own, as one adds a value to an enum and the
// next uses it; River notes how far it came, so that a run that was cut off goes on where it was.
func upRiver(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("take a connection: %w", err)
	}
	defer conn.Close() //nolint:errcheck // returned to the pool
	return conn.Raw(func(driverConn any) error {
		cfg, err := pgxpool.ParseConfig("")
		if err != nil {
			return fmt.Errorf("make a pool's configuration: %w", err)
		}
		cfg.ConnConfig = driverConn.(*stdlib.Conn).Conn().Config()
		cfg.MaxConns = 2
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return fmt.Errorf("open a pool: %w", err)
		}
		defer pool.Close()
		return migrateRiver(ctx, pool)
	})
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+RiverSchema); err != nil {
		return fmt.Errorf("create the job queue's schema: %w", err)
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("prepare the job queue's migrations: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, &rivermigrate.MigrateOpts{TargetVersion: riverVersion}); err != nil {
		return fmt.Errorf("migrate the job queue: %w", err)
	}
	_, err = pool.Exec(ctx, `
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
