// Package guest is the protocol between Ambit and the agent inside a sandbox:
// frames, handshake, the messages, and the client that speaks it.
//
// It owns the wire format and its version, Client (safe for concurrent use,
// over any byte channel), and Relay, which lets several clients share one
// guest. The other end, which runs as PID 1 inside each sandbox, is in the
// sub-packages agent (what the operations do) and boot (mounts, modules and
// the channel).
//
// It does not own machines (sandbox/driver), nor decide who may run what: that
// is the gate's, and a command only reaches a Client after its admission.
//
// It may import the standard library, yamux and x/sys.
package guest
