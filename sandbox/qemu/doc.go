// Package qemu is the sandbox driver for QEMU's microvm machine: a real virtual
// machine anywhere, with KVM where KVM can boot and with QEMU's software CPU
// where it cannot.
//
// It owns the command lines, the initramfs, the memory templates and their
// clones, QEMU's monitor protocol, and the isolation of the QEMU process: QEMU
// does not call its software CPU a security boundary, so the process that runs a
// guest is locked in as if the guest had taken it over.
//
// It does not own the guest (sandbox/guest), nor decide when a machine starts
// or ends.
//
// It may import the standard library, sandbox/driver, sandbox/guest and x/sys.
package qemu
