// Package sessions is the console's pages about sessions: the list with its filters, the page of one session with its transcript, its
// inspector and its message box, and the stream that keeps that page up to date.
//
// It owns how a session is shown and steered from the console. What a session is, and whether an act is allowed, are the scheduler's.
package sessions
