// Package pgcluster makes, starts and stops a Postgres cluster of Ambit's own.
//
// It owns: finding the server's binaries on this machine, the cluster's folder
// (data, generated password, port, log, socket), the settings that it runs
// with, the operating-system account that it runs as (the server refuses to run
// as root), mending what a killed run has left, and the cluster that the test
// binaries of one machine share.
//
// It does not own: obtaining the binaries (internal/engines), migrations and
// roles inside the database (internal/postgres), or restarting a server that
// died (internal/processes does, given Cluster.Command).
//
// It may import internal/config, internal/processes and pgx.
package pgcluster
