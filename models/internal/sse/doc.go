// Package sse reads server-sent events as foreign servers really send them: any line ending, comments, fields in any order, a missing last
// blank line, and lines of a size that must be bounded.
//
// It owns the framing only; what an event means is the provider's adapter's. It imports the standard library only.
package sse
