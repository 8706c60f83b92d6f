// Package confirm is the part of a form in which a person confirms one act: with a passkey, a recovery code or the password. Any page
// takes it into a form of its own.
//
// It owns what such a form looks like and how its answer is read. It decides nothing: identity.StepUp asks and checks. It imports page, ui
// and tenants/identity.
package confirm
