// Package engines finds, obtains and checks the foreign programs and files that
// Ambit stands on: Postgres, QEMU, the sandboxes' kernel and root filesystem,
// the ClickHouse library, Nomad, and what only tests need (Node, a mock of the
// model providers, axe-core, Chromium, curl, a C compiler for the race detector).
//
// It owns: which version of each, where it is found on a machine that has it,
// where it is had from, the hash that it must have, its place in the cache, and
// the progress that people see meanwhile. What is already on the machine is
// used; what is in the cache is not fetched again; several processes may ask at
// once; an interrupted download goes on where it stopped; nothing half-made is
// ever in its final place.
//
// It does not own: running the engines (internal/engines/pgcluster,
// internal/app/up, internal/clickhouse, sandbox/qemu do), nor the guest's
// initramfs, which sandbox/qemu assembles.
//
// It may import internal/config, internal/engines/pgcluster, and libraries.
package engines
