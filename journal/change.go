package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// SetCeilingHold notes the hold that the session's price ceiling has open; empty when it has none.
func (l *Locked) SetCeilingHold(ctx context.Context, hold id.Hold) error {
	if err := journaldb.New(l.tx).SetCeilingHold(ctx, journaldb.SetCeilingHoldParams{CeilingHoldID: ref(string(hold)), OrgID: l.Org, ID: l.ID}); err != nil {
		return fmt.Errorf("note the ceiling's hold of %s: %w", l.ID, err)
	}
	l.CeilingHold = hold
	return nil
}

// Describe writes the session's title, metadata and archive time, which are no part of the journal: they describe it and steer nothing.
func (l *Locked) Describe(ctx context.Context, now time.Time) error {
	metadata, err := json.Marshal(l.Metadata)
	if err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	n, err := journaldb.New(l.tx).UpdateSession(ctx, journaldb.UpdateSessionParams{
		Title: l.Title, Metadata: metadata, ArchivedAt: l.ArchivedAt, Now: now, OrgID: l.Org, ID: l.ID,
	})
	if err != nil || n != 1 {
		return fmt.Errorf("describe session %s (%d rows): %w", l.ID, n, err)
	}
	l.Version++
	l.UpdatedAt = now
	return nil
}

// PutSpan puts a finished span into the outbox together with the events of the next Append, which must follow in the same transaction.
func (l *Locked) PutSpan(span Span) {
	span.OrgID, span.ProjectID, span.SessionID = string(l.Org), string(l.Project), string(l.ID)
	l.spans = append(l.spans, span)
}

func (l *Locked) sendSpans(ctx context.Context, q *journaldb.Queries) error {
	for _, span := range l.spans {
		payload, err := json.Marshal(span)
		if err != nil {
			return fmt.Errorf("write a span: %w", err)
		}
		err = q.InsertOutbox(ctx, journaldb.InsertOutboxParams{OrgID: l.Org, ProjectID: l.Project, SessionID: l.ID, Kind: OutboxSpan, Payload: payload})
		if err != nil {
			return fmt.Errorf("put a span into the outbox: %w", err)
		}
	}
	if len(l.spans) > 0 {
		postgres.Notify(l.tx, OutboxChannel, "")
	}
	l.spans = nil
	return nil
}
