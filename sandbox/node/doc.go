// Package node is what runs on a compute node: the node service, one a machine,
// and the process of each allocation, one a sandbox.
//
// It owns: building or opening the sandbox template and keeping its sealed
// memory in the node service, handing it to allocations over a unix socket,
// cloning and pausing a machine in an allocation, answering its bridge (tokens,
// epochs, seals), phoning home, and clearing away what a killed allocation left.
//
// It does not own: how a machine is made (sandbox/driver and its drivers), the
// protocol to the guest (sandbox/guest), the tokens' form (sandbox/bridge), nor
// which session gets a sandbox (package sandbox, in the control plane).
//
// It may import sandbox/driver, sandbox/guest, sandbox/bridge, x/sys and the
// standard library; neither the gate nor Postgres, which a node does not link.
package node
