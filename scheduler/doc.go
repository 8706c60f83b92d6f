// Package scheduler owns sessions at work: it makes them, gives them input, wakes them, runs their steps under a lease, resolves what a
// lost worker left open, and ends them.
//
// A worker runs a session's steps one after another: the loop proposes, the gate decides, a gateway executes, and each step is written
// before its effect (intended, with the hold) and after it (settled, with the capture). River only wakes a session; whoever holds its
// lease runs it. All state is in the journal, so any worker can die at any instant and another goes on.
//
// It owns no table: journal and billing do. It imports agents, models, connectors, sandbox, governance, billing and journal.
package scheduler
