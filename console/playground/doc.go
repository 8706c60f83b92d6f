// Package playground is the console's page for trying an agent: which version, what to do, how much it may cost, and the session that
// comes of it, live, beside the same request as a curl line.
//
// It owns that page. Sessions are started by the scheduler and shown by console/sessions.
package playground
