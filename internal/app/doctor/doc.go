// Package doctor is the command "ambit doctor": it examines each part that an
// instance stands on, says what is wrong, and what mends it.
//
// It owns the checks and how they are shown. It changes nothing, and what it
// learns it learns by trying: a hash by reading the file, a database by asking
// it, a sandbox by booting one.
//
// It may import internal/config, internal/engines, internal/app/up,
// internal/postgres, internal/clickhouse, internal/seal and sandbox/qemu.
package doctor
