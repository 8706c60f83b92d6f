// Package tracecontext reads the header traceparent of the W3C's Trace Context, by which a caller says of which trace of its own its
// request is a part.
//
// It owns the header's form. It does not own what is done with it: the journal keeps it with who acted, and a session's span names it.
//
// It imports the standard library only.
package tracecontext
