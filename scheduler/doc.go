// Package scheduler owns sessions at work: it makes them, gives them input, wakes them, runs their steps under a lease, resolves what a
// lost worker left open, and ends them.
//
// A worker runs a session's steps one after another: the loop proposes, the gate decides, a gateway executes, and each step is written
// before its effect (intended, with the hold) and after it (settled, with the capture). River only wakes a session; whoever holds its
// lease runs it. All state is in the journal, so any worker can die at any instant and another goes on.
//
// It stops them, too: a session with all below it in one transaction, and an agent's, a key's, a project's or an organisation's by an order
// that is recorded first and carried out tree by tree. What a stop did stands on signed receipts.
//
// It owns the orders to stop; all other tables are those of journal and billing. It imports agents, models, connectors, sandbox, governance, billing and journal.
package scheduler
