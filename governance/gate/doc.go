// Package gate is the one place where an effect is admitted: a model call, a tool call, later a hire. It prices the proposal, checks
// permission, takes the hold, and says admitted, denied with a reason, or waiting for a person, all in the caller's transaction, so that
// the decision, the hold and the journal's events are one commit.
//
// What may have an effect takes an *Admission, which only this package can make. It is armed by the commit, bound to the digest of what
// was proposed, to the session's epoch and to a moment of expiry, and is consumed once. There is no second path to an effect.
//
// It does not run anything, append to a journal (its caller does, with the decision), or keep prices (billing/prices). It imports
// billing, journal and plumbing.
package gate
