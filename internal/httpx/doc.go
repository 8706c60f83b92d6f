// Package httpx is the HTTP plumbing that the API and the console share: request ids, one place where a panic becomes a fault, the
// access log, security headers, body limits, deadlines, server-sent events on the wire, health checks, and a server that drains.
//
// It owns nothing that has a meaning to a tenant: who is asking, what a route is, and what an error looks like to its reader are
// decided by its callers, who hand in a function where one is needed. It imports internal/id and internal/fault, and Prometheus for
// its own counters; never a domain package.
package httpx
