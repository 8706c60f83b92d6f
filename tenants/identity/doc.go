// Package identity holds the instance's own signing keys: it signs the one-minute tokens that admit an operation to a sandbox, and
// receipts, and publishes the public halves for everybody to check them by (/.well-known/jwks.json).
//
// The keys are Ed25519 (EdDSA, RFC 8037): signatures are deterministic, so that a bad random source cannot give the key away, they are
// small, and every node checks them in a tenth of a millisecond. Mandates, which other systems must be able to read, want ES256; they get
// keys of their own, as a key is for one purpose.
//
// The first key is made at the first start. Keys rotate by themselves: the next key is published before it signs, and a key that signs no
// more stays published, so that old receipts can be checked for ever; only its private half is destroyed. A private half lies in Postgres,
// sealed under the master key.
//
// It owns the table signing_keys. It does not decide what is signed, nor read what it verified. It imports internal plumbing only.
package identity
