// Package processes starts, watches and stops child processes.
//
// It owns: launching a child in a process group of its own that does not
// outlive its parent, prefixing what the child prints, waiting until it is
// ready, starting it again when it dies unexpectedly, stopping several of them
// in order within a deadline, and clearing away what an earlier run that was
// killed has left behind.
//
// It does not own: what the children are. The engines (internal/engines) and
// the commands (internal/app) describe them.
//
// It may import the standard library and golang.org/x/sys.
package processes
