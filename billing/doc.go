// Package billing owns money: the ledger's transfers, the balances that follow from them, and holds.
//
// All amounts are integer nano-dollars. A transfer is written once and never changed; a correction is another transfer. Every function
// works within a transaction that it is given, so that money moves together with the journal event that tells of it, or not at all. The
// number that is held here is the number that the gate enforces, that a span shows and that will be invoiced.
//
// It keeps quotes: offers of prices that bind until they expire. It does not decide whether an effect may happen (governance/gate), price one
// (billing/prices) or estimate work (scheduler). It imports the price table's types and plumbing from internal.
package billing
