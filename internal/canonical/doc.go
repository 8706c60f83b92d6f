// Package canonical gives a JSON value one byte representation (RFC 8785) and a digest of it, so that two processes agree on what was
// decided, signed or asked for.
//
// It owns that representation and nothing else: it knows no domain. It may import the standard library and a JCS implementation only.
package canonical
