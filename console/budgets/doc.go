// Package budgets is the console's pages about budgets: the list with what is spent and held of each, one budget with what it reached, and
// the form that sets or changes one.
//
// It owns those pages and their words; all rules are billing's.
package budgets
