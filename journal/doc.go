// Package journal owns a session's append-only journal: the types of event and their schema versions, the lock and the fence under which
// events are appended, the projection that follows from them, the outbox rows that become spans, and the job that wakes a session.
//
// A session is its journal. What a session's row says of it (status, stop reason, usage) is folded from the events by Apply, in the
// transaction that appends them, and from nothing else. Step events are appended only under the session's lease at its epoch; inputs, by
// anybody who holds the row's lock.
//
// It does not decide what happens next (agents/loop), nor whether it may (governance), nor run anything (scheduler). It imports plumbing
// from internal only.
package journal
