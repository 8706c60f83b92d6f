// Package nomadagent keeps a Nomad of Ambit's own: a server and a client, two
// agents on loopback, for one machine.
//
// They are two processes because a client that starts together with its server
// may be refused while the server still opens its keyring, and then asks again
// only after 15 to 30 seconds.
//
// It owns: their folder (state, configuration, ports, token), switching access
// control on, and knowing when each is ready.
//
// It does not own: the binary (internal/engines), jobs and allocations (package
// nomad), or restarting an agent that died (internal/processes does, given
// the commands).
//
// It may import internal/processes and the standard library. It speaks the few
// HTTP calls that it needs itself: only package nomad imports Nomad's client.
package nomadagent
