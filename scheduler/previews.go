package scheduler

import (
	"context"
	"sync"

	"ambit.dev/ambit/internal/id"
)

// Preview is a piece of an event that is still being made. It has no number: the event itself follows, whole.
type Preview struct {
	// Start is set on the first piece; the others carry Delta.
	Start bool     `json:"start"`
	Event id.Event `json:"event_id"`
	Type  string   `json:"type"` // agent.message or agent.thinking
	Index int      `json:"index"`
	Delta string   `json:"delta,omitempty"`
}

// Previews passes pieces of model calls from the worker that has a session to whoever watches it, within this process and, through the
// address in the session's lease, from others. It is lossy by design.
type Previews struct {
	mu     sync.Mutex
	subs   map[id.Session]map[chan Preview]struct{}
	remote RemotePreviews
	self   string
}

// RemotePreviews reads the previews of a session from another process and hands each on, until ctx or the connection ends.
type RemotePreviews func(ctx context.Context, address string, session id.Session, to func(Preview)) error

// NewPreviews makes an exchange for the process that serves previews at address self. remote may be nil where there is only one process.
func NewPreviews(self string, remote RemotePreviews) *Previews {
	return &Previews{subs: map[id.Session]map[chan Preview]struct{}{}, remote: remote, self: self}
}

// Publish passes a piece on to those who watch. It never waits.
func (p *Previews) Publish(session id.Session, piece Preview) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ch := range p.subs[session] {
		select {
		case ch <- piece:
		default: // a slow reader misses this piece
		}
	}
}

// Watched reports whether anybody in this process watches the session.
func (p *Previews) Watched(session id.Session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.subs[session]) > 0
}

// Watch subscribes to a session's pieces in this process. The channel is closed when ctx ends.
func (p *Previews) Watch(ctx context.Context, session id.Session) <-chan Preview {
	ch := make(chan Preview, 256)
	p.mu.Lock()
	if p.subs[session] == nil {
		p.subs[session] = map[chan Preview]struct{}{}
	}
	p.subs[session][ch] = struct{}{}
	p.mu.Unlock()
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.subs[session], ch)
		if len(p.subs[session]) == 0 {
			delete(p.subs, session)
		}
		close(ch)
	})
	return ch
}
