// Package loop is the reason-act loop as a pure function of the journal: given the events so far, what is the session's next effect?
//
// It keeps no state and reads no clock: the same events give the same answer on any worker, which is what lets one worker go on where
// another stopped. It decides what to do, never whether it may be done (the gate) or how (the gateways).
package loop
