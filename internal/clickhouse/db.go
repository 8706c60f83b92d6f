package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is the database that holds Ambit's tables.
const DefaultDatabase = "ambit"

const (
	dialTimeout = 5 * time.Second
	// readTimeout bounds the wait for the first byte of an answer. Callers bound
	// their queries more tightly by context.
	readTimeout = 60 * time.Second
)

// Config says which ClickHouse to use. Exactly one of URL and Socket is set.
type Config struct {
	// URL is a ClickHouse address with credentials:
	// clickhouse://user:password@host:9000/database for the native protocol,
	// http:// or https:// for HTTP.
	URL string
	// Socket is the unix socket of an embedded engine.
	Socket string
	// Database overrides the one of URL; without either it is DefaultDatabase. It
	// is made when it does not exist.
	Database string
	// MaxConns bounds the connections; 0 means 8.
	MaxConns int
}

// DB is a pool of connections to Ambit's database. It is safe for use by
// several goroutines at once.
type DB struct {
	conn    driver.Conn
	options *clickhouse.Options
}

// databaseName keeps names to what needs no quoting anywhere.
var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Connect returns a pool without asking whether anything answers: whoever must
// start while ClickHouse is away uses this, and Migrate once it is back. An error
// is one of the configuration, and never quotes the URL, which holds a password.
func Connect(cfg Config) (*DB, error) {
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open ClickHouse: %w", err)
	}
	return &DB{conn: conn, options: options}, nil
}

// Open is Connect for those who need ClickHouse to be there: it makes the
// database if need be, and returns once that answers.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	db, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	if err := db.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := db.Ping(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (cfg Config) options() (*clickhouse.Options, error) {
	var options *clickhouse.Options
	switch {
	case cfg.URL != "" && cfg.Socket != "":
		return nil, errors.New("ClickHouse is given both by address and by socket")
	case cfg.URL != "":
		parsed, err := clickhouse.ParseDSN(cfg.URL)
		if err != nil {
			// The parser's message may quote the address, and so the password.
			return nil, errors.New("the ClickHouse address is not valid")
		}
		options = parsed
		if options.Compression == nil {
			options.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
		}
	case cfg.Socket != "":
		options = &clickhouse.Options{
			Protocol: clickhouse.HTTP,
			// Never looked up: every connection goes to the socket.
			Addr: []string{"localhost:80"},
			DialContext: func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", cfg.Socket)
			},
		}
	default:
		return nil, errors.New("ClickHouse is given neither by address nor by socket")
	}

	if cfg.Database != "" {
		options.Auth.Database = cfg.Database
	}
	if options.Auth.Database == "" || options.Auth.Database == "default" && cfg.Database == "" {
		options.Auth.Database = DefaultDatabase
	}
	if !databaseName.MatchString(options.Auth.Database) {
		return nil, fmt.Errorf("%q cannot be the name of a ClickHouse database", options.Auth.Database)
	}
	if options.DialTimeout == 0 {
		options.DialTimeout = dialTimeout
	}
	if options.ReadTimeout == 0 {
		options.ReadTimeout = readTimeout
	}
	options.MaxOpenConns = cfg.MaxConns
	if options.MaxOpenConns == 0 {
		options.MaxOpenConns = 8
	}
	options.MaxIdleConns = options.MaxOpenConns
	options.ConnMaxLifetime = 10 * time.Minute
	options.ClientInfo.Products = append(options.ClientInfo.Products, struct{ Name, Version string }{"ambit", "1"})
	if options.Settings == nil {
		options.Settings = clickhouse.Settings{}
	}
	// An acknowledged insert is one that is in the table.
	options.Settings["async_insert"] = 0
	return options, nil
}

// createDatabase makes the database over a connection that does not name it yet.
func (db *DB) createDatabase(ctx context.Context) (err error) {
	bare := *db.options
	bare.Auth.Database = ""
	bare.MaxOpenConns, bare.MaxIdleConns = 1, 1
	conn, err := clickhouse.Open(&bare)
	if err != nil {
		return fmt.Errorf("open ClickHouse: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// The name is of letters, digits and underscores only. The engine is named
	// because the embedded one would else take a kind that only overlays files.
	query := "CREATE DATABASE IF NOT EXISTS " + db.Database() + " ENGINE = Atomic"
	if err := conn.Exec(ctx, query); err != nil {
		return fmt.Errorf("make the ClickHouse database: %w", err)
	}
	return nil
}

// Conn is the driver's connection pool.
func (db *DB) Conn() driver.Conn { return db.conn }

// Database is the name of the database that the tables are in.
func (db *DB) Database() string { return db.options.Auth.Database }

// Ping reports whether ClickHouse answers a query.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.conn.Ping(ctx); err != nil {
		return fmt.Errorf("reach ClickHouse: %w", err)
	}
	return nil
}

// Version is what the server calls its version.
func (db *DB) Version() (string, error) {
	v, err := db.conn.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("ask ClickHouse for its version: %w", err)
	}
	return v.Version.String(), nil
}

// Close gives the connections back.
func (db *DB) Close() error {
	if err := db.conn.Close(); err != nil {
		return fmt.Errorf("close ClickHouse: %w", err)
	}
	return nil
}
