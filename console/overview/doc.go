// Package overview is the console's first page about a project: what needs somebody, what runs, what was spent, what failed, and the last
// sessions. For a project without sessions it is the first steps.
//
// It owns that page and reads through the domains' services; each figure opens the list that it counts.
package overview
