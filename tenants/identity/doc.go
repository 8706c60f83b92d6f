// Package identity holds the keys by which instance, organisations, agents and people are known: it signs for the first three, and has
// people confirm dangerous acts.
//
// # The instance
//
// The instance's own keys sign the one-minute tokens that admit an operation to a sandbox, receipts, and what the platform states about a
// person's confirmation. They are Ed25519 (EdDSA, RFC 8037): signatures are deterministic, so that a bad random source cannot give the key
// away, they are small, and every node checks them in a tenth of a millisecond. The first key is made at the first start. Keys rotate by
// themselves: the next key is published before it signs, and a key that signs no more stays published, so that old receipts can be checked
// for ever; only its private half is destroyed.
//
// # Agents
//
// Each agent has keys of its own, distinct from those of the people on whose behalf it acts; so has each session of an agent that was written
// into the invoke, and each organisation. They are ES256, as what they sign is read by others: mandates and tokens for outbound calls. An
// agent's keys are published as a JWK set and under did:web, by the agent's id, and tell nothing else. A rotated key overlaps with
// its successor; one that became known is retired at once.
//
// # People
//
// A person enrols passkeys (WebAuthn) and gets recovery codes with the first. A step-up asks for one act: the challenge is the digest of
// what is shown, the answer counts once, and the proof of it can be checked offline. Who has a passkey confirms with it alone; who has none, with the
// password. Nobody is shut out: signing in may use a passkey and never needs one, the last recovery code makes new ones and does nothing else, and
// without any passkey the password confirms again.
//
// Private halves lie in Postgres, sealed under the master key; of recovery codes there is a keyed digest.
//
// It owns the tables signing_keys, agent_keys, passkeys, passkey_bars, step_up_challenges, used_sign_in_challenges and
// recovery_codes. It does not decide who may do
// what, what is signed, nor what a confirmation is good for. It imports internal plumbing only; passwords are checked by whoever is given to it.
package identity
