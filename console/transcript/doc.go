// Package transcript turns a session's journal into what a person reads: messages, model calls and tool calls, in the order in which they
// happened, each updated in place as its later events arrive.
//
// It owns the projection from events to entries and how an entry is drawn, for the session's page, its stream, the playground and the
// landing page alike. It reads nothing: events are given to it. It imports journal for their types, console/markdown and
// console/ui.
package transcript
