// Package failpoint lets a proof kill a process at a chosen place of the code. In a build without the tag "failpoints" it does nothing and
// costs nothing; no release is built with it.
package failpoint

// The places, in the order in which one effect passes them.
const (
	// BeforeCommit is before a batch of units is sent to the database.
	BeforeCommit = "commit.before"
	// AfterCommit is after a batch was committed and before anybody in this process knows.
	AfterCommit = "commit.after"
	// BeforeEffect is after the admission and before the effect.
	BeforeEffect = "effect.before"
	// AfterEffect is after the effect and before its settlement is sent.
	AfterEffect = "effect.after"
	// Announced is after a committed unit's admission was armed and before the next is.
	Announced = "commit.armed"
	// BeforeAsk is before the transaction that finds out whether people are asked, and asks them.
	BeforeAsk = "ask.before"
	// AfterAsk is after it was committed and before anybody in this process knows.
	AfterAsk = "ask.after"
)
