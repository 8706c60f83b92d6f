// Package up is the command "ambit up": the whole of Ambit on one machine.
//
// It owns: that one such command runs on a data directory, obtaining the
// engines, starting Postgres, the ClickHouse engine, a Nomad agent and the
// server in that order, each as a child that is watched, waiting until each is
// truly ready, the demonstration on the first start, readable logs, and stopping
// everything in order within ten seconds.
//
// It does not own: what the server does (internal/app/serve), nor how an engine
// is found or prepared (internal/engines and its sub-packages).
//
// It may import internal/config, internal/engines and internal/processes.
package up
