// Package backup is the commands "ambit backup" and "ambit restore": one file
// that holds an instance, and an instance made from it.
//
// The file is a tar archive: Postgres as pg_dump's custom format, the stored
// files, the spans that are in ClickHouse, and a manifest with the SHA-256 of
// each part, which restore checks before it changes anything. The hourly usage
// is not in it: ClickHouse computes it from the spans as they come in. Nomad's
// state is not in it either: jobs come from Ambit, and sandboxes do not outlive
// their machine. The master key is left out unless it is asked for, since with
// it the file opens every secret that the instance keeps.
//
// The parts are taken from a running instance, Postgres first and in one
// snapshot. Files are never changed once written, so those that the snapshot
// speaks of are there when they are copied; spans may be a moment newer.
//
// It owns the archive's form. It does not own the databases' schemas.
//
// It may import internal/config, internal/engines, internal/app/up,
// internal/postgres, internal/clickhouse and internal/seal.
package backup
