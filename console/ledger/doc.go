// Package ledger is the console's page about the organisation's money: its accounts with their balances, and the transfers between them.
//
// It owns that page and the words for transfers; the ledger is billing's.
package ledger
