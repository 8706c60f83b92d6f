// Package cli is the user's side of the ambit command: login, agents, invoke, sessions and logs. It speaks to a running Ambit through
// its public API alone, as any program could.
//
// It owns the arguments, the tables and the words on the terminal, and the file that login writes. It imports internal/apiclient and
// internal/config; no domain.
package cli
