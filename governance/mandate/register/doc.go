// Package register keeps an organisation's mandates: drafts, what a person signed, what was handed on below it, what was revoked, and the
// receipts of what was spent.
//
// A mandate is drafted, shown on a page that no agent can reach, and signed there: the person's passkey signs the digest of the very bytes
// that are shown, and the organisation's key signs the token that carries them and that proof. A sub-mandate is signed by the key of its
// parent's agent, and is no wider. What is spent under a mandate is counted by budgets that are opened with it, so that the commit of an
// effect holds its money of every ancestor at once; whatever changes here raises the version of the rules, so that nothing is admitted under
// what was.
//
// It owns the tables mandates, mandate_settings, mandate_batches, mandate_receipts and mandate_settlements. What a grant means is
// governance/mandate's, and whether an effect is admitted the gate's. It imports billing, governance/policy, tenants/identity and plumbing;
// who stops the work of what was revoked is above it.
package register
