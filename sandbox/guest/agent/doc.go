// Package agent is what answers inside a sandbox: it runs commands, keeps their
// results by effect key, and reads and writes the working directory.
//
// It owns the operations of the guest protocol and the bounds that keep the
// agent alive whatever a command does: output, processes, memory and disk. It
// trusts the channel (only the host can write to it) and nothing that a command
// can touch: every path is resolved inside the working directory, without
// following a link out of it.
//
// It does not own the machine's start (sandbox/guest/boot), the wire format
// (sandbox/guest), or any decision about who may run what.
//
// It may import the standard library, sandbox/guest, yamux, zstd and x/sys.
package agent
