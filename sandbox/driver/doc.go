// Package driver is the contract between Ambit and whatever runs a sandbox.
//
// It owns the words of that contract (Driver, Machine, Template, Exit and
// its reasons), the manifest that keys a template on disk, and, in the
// conformance sub-package, the suite that every driver must pass.
//
// It does not own any virtualisation: a driver lives in its own package
// (sandbox/qemu, …) and imports this one, never the other way round. It knows
// nothing of organisations, sessions, money, the gate, Nomad or Postgres, so
// that a compute node links none of them.
//
// It may import the standard library and sandbox/guest.
package driver
