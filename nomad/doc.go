// Package nomad is Ambit's only door to HashiCorp Nomad: it registers the two
// jobs that Ambit runs on a cluster, dispatches and stops sandbox allocations,
// and follows what becomes of them.
//
// It owns the job specifications (the system job that keeps one node service a
// machine, and the parameterised batch job whose every dispatch is one sandbox),
// the translation of Nomad's allocations and nodes into Ambit's few words about
// them, and the watch that survives a restarted server.
//
// It does not own what a sandbox is, which session has it, or the pool: those
// are package sandbox's. Nothing here waits for Nomad's "running" event, which
// comes about a second late by design; allocations report to the control plane
// by themselves.
//
// No tenant's text may reach a job specification: Nomad interpolates strings of
// a task's configuration on the client. Every string that enters one is checked
// and refused when it could be read as an expression.
//
// It may import hashicorp/nomad/api and the standard library only.
package nomad
