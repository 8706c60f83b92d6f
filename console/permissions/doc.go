// Package permissions is the console's pages about what agents may do: the matrix of agents and tools, the rules with their editor and presets,
// the question whether an agent may do something, and what a change would have done to the decisions of the last days.
//
// It owns those pages and their words. What is shown is decided by governance/policy, from the rules as they are now.
package permissions
