// Package clickhouse is the connection to ClickHouse: a real server by its
// address, or the engine that Ambit brings along, on its unix socket. Both are
// reached through the same driver and look the same from here on.
//
// It owns opening and closing the connection, Ambit's own database in it, the
// running of migrations, and health. It does not own tables or queries: those
// are migrations/clickhouse and observability.
//
// ClickHouse is never the truth about anything. Whoever uses this package must
// be able to do without it for an hour.
//
// It may import the driver, goose, migrations/clickhouse and the standard
// library.
package clickhouse
