// Package agents owns agents: their definitions, the immutable versions that each change makes, and the aliases that name a version.
//
// It validates a definition against the models and tools that exist, resolves what an invoke names to the snapshot that a session runs
// on, and knows nothing of sessions. Its folder loop holds the reason-act loop. It imports journal for the shape of a definition, and
// plumbing.
package agents
