package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ClickHouse/clickhouse-go/v2"

	migrations "ambit.dev/ambit/migrations/clickhouse"
)

// Migrate makes the database, if need be, and brings its tables to the newest
// version that this program knows. The statements can be repeated, so that a
// migration that was cut off goes on from where it was, and replicas that
// migrate at once do each other no harm.
func (db *DB) Migrate(ctx context.Context, log *slog.Logger) (err error) {
	if err := db.createDatabase(ctx); err != nil {
		return err
	}
	sqlDB := clickhouse.OpenDB(db.migrationOptions())
	defer func() { err = errors.Join(err, sqlDB.Close()) }()
	provider, err := migrations.Provider(sqlDB)
	if err != nil {
		return fmt.Errorf("read ClickHouse's migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate ClickHouse: %w", err)
	}
	for _, r := range results {
		log.InfoContext(ctx, "migrated", "database", "clickhouse", "version", r.Source.Version, "took", r.Duration)
	}
	return nil
}

// SchemaVersion returns the version that the tables have and the newest that
// this program knows.
func (db *DB) SchemaVersion(ctx context.Context) (have, want int64, err error) {
	sqlDB := clickhouse.OpenDB(db.migrationOptions())
	defer func() { err = errors.Join(err, sqlDB.Close()) }()
	provider, err := migrations.Provider(sqlDB)
	if err != nil {
		return 0, 0, fmt.Errorf("read ClickHouse's migrations: %w", err)
	}
	have, want, err = provider.GetVersions(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read ClickHouse's schema version: %w", err)
	}
	return have, want, nil
}

// migrationOptions are those of the pool less its bounds, which the database/sql
// wrapper has its own methods for and warns about.
func (db *DB) migrationOptions() *clickhouse.Options {
	options := *db.options
	options.MaxOpenConns, options.MaxIdleConns, options.ConnMaxLifetime = 0, 0, 0
	return &options
}
