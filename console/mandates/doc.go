// Package mandates is the pages of mandates: what persons have signed that agents may spend, as a tree with what is granted, held, spent and
// free; the page on which a person signs one, which no agent and no key reaches; handing on; and revoking, with all that falls shown before.
//
// It owns no rules: governance/mandate says what a grant means and register keeps them. It imports those, scheduler, tenants/identity, page,
// confirm and ui.
package mandates
