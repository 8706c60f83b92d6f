// Package sdjwt makes and reads selectively disclosable tokens (SD-JWT, RFC 9901) and chains of them, in which each link is signed by the key
// that the link before it confirms (draft-gco-oauth-delegate-sd-jwt-00, as AP2 v0.2 uses it: links are joined by "~~").
//
// One algorithm signs, ES256, and one digests, SHA-256: a token that names another is refused before a key is looked at, so that nobody can
// talk a verifier into a weaker one. Whatever a reader could take in two ways is refused: a member that stands twice, a disclosure that
// stands twice or that nothing refers to, a digest that stands twice, a claim that would hide another.
//
// It owns the form of tokens and chains. What a mandate says, and whether a link may say it, is governance/mandate's; keys are
// tenants/identity's, and come here as a function that signs. It imports a JOSE library and nothing of the platform.
package sdjwt
