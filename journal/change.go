package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
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
