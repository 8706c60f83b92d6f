// Package hostile sets a wholly hostile model against a whole instance with real machines: it names any tool with any arguments, several at once,
// malformed, under names and ids that it made up, and goes on when it should have ended. What must not happen is looked for where it would be seen:
// in the log of the server that it was after, in files, in the ledger, in the provider's own log. Each attack must leave its reason in the journal,
// and each has an honest twin, the nearest thing that is allowed, which must be done.
//
// The table of attacks is in the files named for their kinds; stage_test.go has what they happen on. It imports test/instance and test/provider, and
// of Ambit itself only what opens an instance's database.
package hostile
