package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// Roles that log in. Neither owns anything, neither bypasses row-level security.
const (
	RoleApp    = "ambit_app"
	RoleWorker = "ambit_worker"
)

// Passwords are those of the two roles that log in. They are derived from the master key, so that every replica knows them and nobody
// stores them.
type Passwords struct {
	App    string
	Worker string
}

// Config says where the database is.
type Config struct {
	// OwnerURL is the connection string of the role that runs migrations. Only its address and parameters are used for work.
	OwnerURL  string
	Passwords Passwords
	// MaxConns bounds each of the two pools; 0 means 24.
	MaxConns int32
	// TimeZone is the zone of the connections, for tests that prove that nothing depends on it; empty means UTC.
	TimeZone string
}

// DB is two pools on one database. It is safe for concurrent use.
type DB struct {
	app     *pgxpool.Pool
	worker  *pgxpool.Pool
	courier *courier
}

// Open connects with both roles and proves each by a query.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	app, err := openPool(ctx, cfg, RoleApp, cfg.Passwords.App)
	if err != nil {
		return nil, err
	}
	worker, err := openPool(ctx, cfg, RoleWorker, cfg.Passwords.Worker)
	if err != nil {
		app.Close()
		return nil, err
	}
	return &DB{app: app, worker: worker, courier: startCourier(app)}, nil
}

func openPool(ctx context.Context, cfg Config, role, password string) (*pgxpool.Pool, error) {
	dsn, err := urlFor(cfg.OwnerURL, role, password)
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The parser's message may quote the address with its password.
		return nil, errors.New("the Postgres address is not a valid connection URL")
	}
	pc.MaxConns = cfg.MaxConns
	if pc.MaxConns == 0 {
		pc.MaxConns = 24
	}
	pc.MaxConnIdleTime = 5 * time.Minute
	if cfg.TimeZone == "" {
		cfg.TimeZone = "UTC"
	}
	pc.ConnConfig.RuntimeParams["timezone"] = cfg.TimeZone
	pc.ConnConfig.RuntimeParams["application_name"] = "ambit " + role
	// A transaction that a stuck process left open would hold row locks for ever.
	pc.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "60000"
	pc.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		// Times come out in UTC, whatever the zone of the machine: pgx would give them in the local one.
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open a pool as %s: %w", role, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("reach Postgres as %s: %w", role, err)
	}
	return pool, nil
}

// urlFor puts another role and password into a connection URL.
func urlFor(ownerURL, role, password string) (string, error) {
	u, err := url.Parse(ownerURL)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return "", errors.New(`the Postgres address must be a URL such as "postgres://user:password@host:5432/database"`)
	}
	u.User = url.UserPassword(role, password)
	q := u.Query()
	q.Del("user")
	q.Del("password")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Close sends what is still to be told, and closes both pools once their connections are back.
func (db *DB) Close() {
	db.courier.stop()
	db.app.Close()
	db.worker.Close()
}

// Ping proves that the database answers.
func (db *DB) Ping(ctx context.Context) error { return db.app.Ping(ctx) }

// Worker is the pool of the worker's role, for the job queue, which runs its own transactions.
func (db *DB) Worker() *pgxpool.Pool { return db.worker }

// App is the pool of the application's role. Outside InTx it sees no tenant's row; it serves look-ups through definer functions and
// tables without a tenant.
func (db *DB) App() *pgxpool.Pool { return db.app }

// InTx runs fn in a transaction that sees and writes only rows of org. It commits when fn returns nil; a violated constraint comes back
// as a fault. fn may be run once only: a serialisation failure is returned, not retried.
func (db *DB) InTx(ctx context.Context, org id.Org, fn func(tx pgx.Tx) error) error {
	if org == "" {
		return errors.New("a transaction needs its organisation")
	}
	// One way to the database for both statements. The id is a literal: BEGIN takes no parameters.
	begin := "begin; select set_config('app.org_id', " + quoteLiteral(string(org)) + ", true)"
	return db.inTx(ctx, db.app, pgx.TxOptions{BeginQuery: begin}, fn)
}

// quoteLiteral quotes for standard_conforming_strings, which is on: pools here never turn it off.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// InPlatformTx runs fn as ambit_app with no organisation: it reaches tables without a tenant and definer functions, and no tenant's row
// until SetOrg is called, as sign-up does once it has made the organisation.
func (db *DB) InPlatformTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return db.inTx(ctx, db.app, pgx.TxOptions{}, fn)
}

// InWorkerTx runs fn in a transaction of the worker's role, which sees all organisations on the audited tables and nothing else.
func (db *DB) InWorkerTx(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return db.inTx(ctx, db.worker, pgx.TxOptions{}, fn)
}

// SetOrg names the organisation of a transaction of ambit_app, until its end.
func SetOrg(ctx context.Context, tx pgx.Tx, org id.Org) error {
	if _, err := tx.Exec(ctx, "SELECT set_config('app.org_id', $1, true)", string(org)); err != nil {
		return fmt.Errorf("name the organisation of the transaction: %w", err)
	}
	return nil
}

func (db *DB) inTx(ctx context.Context, pool *pgxpool.Pool, options pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	begun, err := pool.BeginTx(ctx, options)
	if err != nil {
		return unavailable(fmt.Errorf("begin a transaction: %w", err))
	}
	tx := &noticeTx{Tx: begun}
	// After a commit this does nothing; on a panic in fn it frees the locks. The context may have ended, so it gets one of its own.
	defer func() {
		rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(rollback)
	}()
	if err := fn(tx); err != nil {
		return translate(err)
	}
	if err := tx.Commit(ctx); err != nil {
		return translate(fmt.Errorf("commit: %w", err))
	}
	for _, fn := range tx.after {
		fn()
	}
	db.courier.take(tx.notices)
	return nil
}

func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fault.New(fault.Unavailable, "unavailable", "The database does not answer. Nothing was changed; try again shortly.").
		After(time.Second).Because(err)
}
