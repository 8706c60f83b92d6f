// Package conformance is the suite that every sandbox driver must pass. A
// driver's test builds a template and calls Run.
//
// It owns what a sandbox promises to the rest of Ambit: commands and their
// results, re-attachment, fencing, files, archives, what happens when a command
// misbehaves, what a clone may not share with its siblings, and that a machine
// that ended leaves nothing behind. It says nothing of how a driver does it.
//
// It may import the standard library, testify, sandbox/driver and sandbox/guest.
package conformance
