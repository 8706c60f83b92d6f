package api

import (
	"context"

	"ambit.dev/ambit/internal/id"
)

// Domains are the services that the endpoints call.
type Domains struct {
	// Previews follows what a session's worker streams before it is journalled; nil means that there are none to be had here.
	Previews func(ctx context.Context, org id.Org, session id.Session) (<-chan Preview, func())
}

// Preview is a piece of an event that is still being made. It has no number and may be lost.
type Preview struct {
	// Type is event_start or event_delta.
	Type string
	// Event is the id that the event will have, Of its type.
	Event id.Event
	Of    string
	// Data is the preview as clients get it.
	Data []byte
}
