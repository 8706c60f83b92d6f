// Package ambit is the console's page that says what an agent could do and spend at the worst, right now: its tools, hosts, files, models and
// money.
//
// It owns that page and its words. Everything on it is computed when it is asked for: from the agent's versions, the rules as they are, the
// balance and the budgets. Nothing is described by hand.
package ambit
