// Package background runs a piece of work again and again until it is told to stop: the courier of mail, the sweep of old rows.
//
// It owns the loop: starting, waking early, stopping within a limit, and not dying of a panic. What is run belongs to its domain, which
// keeps a function for one round, so that a test calls that and needs no loop. It imports only the standard library.
package background
