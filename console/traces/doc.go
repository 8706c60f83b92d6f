// Package traces is the console's pages about traces: the list, and one session's trace as a waterfall with an inspector.
//
// It owns how spans are ordered into a tree and shown. Spans are read from observability; when ClickHouse is away these pages say so, and
// all others go on.
package traces
