package clickhouse

import (
	"database/sql"
	"embed"

	"github.com/pressly/goose/v3"
)

// Files are the SQL migrations.
//
//go:embed *.sql
var Files embed.FS

// Provider returns goose's provider over the embedded migrations. The database
// must have been opened with clickhouse-go.
func Provider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectClickHouse, db, Files)
}
