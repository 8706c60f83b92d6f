package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"ambit.dev/ambit/migrations/postgres"
)

// migrationLock keeps two replicas that start at once from migrating at once. The number is arbitrary and must never change.
const migrationLock = 0x616d626974 // "ambit"

// Migrate brings the database to the newest schema and gives the two roles that log in their passwords. It may be run by several
// processes at once; one works, the others wait.
func Migrate(ctx context.Context, ownerURL string, passwords Passwords, log *slog.Logger) error {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return errors.New("the Postgres address is not a valid connection URL")
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close() //nolint:errcheck // nothing was left to flush
	lock, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("reach Postgres as the owner: %w", err)
	}
	defer lock.Close() //nolint:errcheck // closing the session frees the lock
	if _, err := lock.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return fmt.Errorf("wait for the migration lock: %w", err)
	}
	provider, err := postgres.Provider(db)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate Postgres: %w", err)
	}
	for _, r := range results {
		log.InfoContext(ctx, "migrated", "database", "postgres", "version", r.Source.Version, "took", r.Duration)
	}
	return setPasswords(ctx, lock, passwords)
}

func setPasswords(ctx context.Context, conn *sql.Conn, passwords Passwords) error {
	for role, password := range map[string]string{RoleApp: passwords.App, RoleWorker: passwords.Worker} {
		if password == "" {
			return fmt.Errorf("role %s has no password", role)
		}
		// ALTER ROLE takes no parameters: the server itself quotes the literal.
		var statement string
		err := conn.QueryRowContext(ctx, "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)", role, password).Scan(&statement)
		if err != nil {
			return fmt.Errorf("prepare the password of %s: %w", role, err)
		}
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("set the password of %s: %w", role, err)
		}
	}
	return nil
}

// SchemaVersion returns the version that the database has and the newest that this program knows.
func SchemaVersion(ctx context.Context, ownerURL string) (have, want int64, err error) {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return 0, 0, errors.New("the Postgres address is not a valid connection URL")
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close() //nolint:errcheck // read only
	provider, err := postgres.Provider(db)
	if err != nil {
		return 0, 0, fmt.Errorf("read the migrations: %w", err)
	}
	return provider.GetVersions(ctx)
}
