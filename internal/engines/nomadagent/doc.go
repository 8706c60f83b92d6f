// Package nomadagent keeps a Nomad agent of Ambit's own: server and client in
// one process, on loopback, for one machine.
//
// It owns: the agent's folder (state, configuration, ports, token), its first
// start (access control switched on, the keyring made), and knowing when it can
// take work.
//
// It does not own: the binary (internal/engines), jobs and allocations (package
// nomad), or restarting an agent that died (internal/processes does, given
// Agent.Command).
//
// It may import internal/processes and the standard library. It speaks the few
// HTTP calls that it needs itself: only package nomad imports Nomad's client.
package nomadagent
