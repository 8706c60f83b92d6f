// Package usage is the console's page about what was spent: by agent, model, tool, project, key or member over time, as a chart with its
// table beside it and as CSV.
//
// It owns that page; the sums are billing's, from the ledger's captures.
package usage
