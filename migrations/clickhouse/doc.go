// Package clickhouse holds the migrations of the ClickHouse tables, embedded, in
// the order of their numbers.
//
// It owns the tables' shape. Each statement can be run twice (IF NOT EXISTS),
// because ClickHouse has no transactional DDL: a migration that was cut off is
// run again from its start. Names are without a database, which the connection
// chooses. It imports goose and nothing of Ambit.
package clickhouse
