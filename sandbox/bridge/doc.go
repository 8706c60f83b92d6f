// Package bridge is what passes between a worker and a sandbox's allocation,
// both ends: the token that admits one operation, the connection that carries
// it to the guest, and the reports by which allocations and node services phone
// home.
//
// It owns: the token's claims and their check against the instance's published
// keys, the greeting of a connection, the control operations that an allocation
// answers itself (claim, seal, end…), and the shapes of the HTTP reports with
// the client that sends them.
//
// It does not own: what happens at either end (package sandbox and package
// sandbox/node), nor the protocol to the guest, which runs inside a connection
// untouched (package sandbox/guest).
//
// It may import sandbox/guest, go-jose and the standard library: a compute node
// links it, so neither the gate nor Postgres.
package bridge
