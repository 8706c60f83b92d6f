// Package controls proves that the proofs can fail: each patch removes one guard from a copy of the sources, and the test that is there for
// that guard must then fail, on the assertion that names it.
package controls
