// Package receipt checks a signed receipt of an Ambit without asking anybody: against the key document that its instance publishes at
// /.well-known/jwks.json, fetched before or given. It says in words what a receipt proves, and why one is refused.
//
// It owns the check and the words. It does not sign (tenants/identity does), does not make receipts (scheduler does), and reads them as the
// strangers that they may be. It imports internal/money and a JOSE library, so that a program that only verifies links little.
package receipt
