// Package reply builds a canonical response from a provider's stream, and sends the canonical events on the way, so that events and
// response cannot disagree.
//
// It owns that assembly and knows no wire format. It imports models only.
package reply
