// Package mandate is what a person has signed that an agent may spend: on what, how much, with whom, until when, and whether others may be
// hired under it.
//
// A Grant says it on axes. A sub-mandate is no wider than its parent on any of them (Narrow). Its written form is the open Payment mandate of
// AP2 v0.2: AP2's own constraints where they say exactly this, and constraints named ambit.* where there is none; a reader that does not
// know one refuses the mandate, and so does this one. Standing is a mandate in force with those above it, as the gate asks them. File is a
// mandate with its spends and receipts, which anybody checks with the public keys alone.
//
// Everything here is decided from its arguments. Which mandates there are, who signed them and what is spent under them is
// governance/mandate/register's; the form of tokens is governance/mandate/sdjwt's. It imports neither a database nor a clock.
package mandate
