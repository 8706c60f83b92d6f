// Package fault is the one error type whose text is meant for the person or program that asked.
//
// It owns the kinds of failure and their stable codes. It knows no HTTP, no SQL and no domain: the surfaces turn a fault into a
// problem document or a page, at one place each, and the store turns a violated constraint into a fault, at one place. An error that is
// not a fault is internal: its text goes to the log, never to a client.
package fault
