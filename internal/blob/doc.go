// Package blob keeps immutable bytes under the hash of their content.
//
// It owns: the key layout (organisation first, then SHA-256), writing without a
// half-written blob ever being visible, and checking the hash on every read.
//
// It does not own: who may read a blob, what it means, or when it may be
// forgotten; the tables that refer to it do.
//
// It may import gocloud.dev/blob, internal/id and the standard library.
package blob
