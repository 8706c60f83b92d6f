// Package sandbox gives each session that needs one a microVM of its own.
//
// It owns: the pool of warm machines and the claim of one by a row lock, the
// time of each claimed machine, which is held tick by tick, the record of every
// machine from claim to end with the reason of its end, what is executed and
// written in one (each under an admission of the gate), the saved working
// directories and their restore, the idle reaper, the drain, and the
// reconciliation of its records with Nomad's.
//
// It does not own: how a machine is made (sandbox/driver, sandbox/qemu), what
// runs on the nodes (sandbox/node), the protocol to the guest (sandbox/guest),
// placement (Nomad), nor when a session needs a sandbox (the scheduler and the
// built-in tools). A session that needs none never comes here.
//
// It may import governance/gate, billing, journal, nomad, sandbox/bridge,
// sandbox/guest and plumbing from internal.
package sandbox
