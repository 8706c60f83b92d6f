package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Draft is a session as this process knows it, with what it is about to append. It is plain memory: whoever writes the rows makes sure
// that the journal still ends where the draft began, and calls Written once they are committed.
type Draft struct {
	Session

	rows    Rows
	spans   []Span
	notices []string // channels, besides Channel, on which the commit is announced
}

// Rows is what a draft writes to the database.
type Rows struct {
	// One element an event.
	Seqs     []int64
	IDs      []string
	Types    []string
	Steps    []string // empty for an event of no step
	Payloads []string

	Intended []IntendedRow
	Settled  []SettledRow
	Spans    []string // JSON

	// The session's projection. StopReason is nil when it has none.
	StopReason json.RawMessage
	Usage      json.RawMessage
	Limits     json.RawMessage
	// Quote is nil unless the session has begun to run by one.
	Quote json.RawMessage
}

// IntendedRow is the row of a step that begins.
type IntendedRow struct {
	ID        id.Step
	Kind      string
	EffectKey string
	Name      string
	Hold      id.Hold
	Seq       int64
}

// SettledRow is what settling adds to the row of a step.
type SettledRow struct {
	ID      id.Step
	Seq     int64
	Outcome string
	Usage   json.RawMessage
	Cost    money.Nanos
	Error   json.RawMessage
}

// NewDraft begins a draft on a session as it was read or last written.
func NewDraft(s Session) *Draft { return &Draft{Session: s} }

// Append adds events to the draft, in order and without a gap, and folds them into its session.
func (d *Draft) Append(now time.Time, entries ...Entry) ([]Event, error) {
	events := make([]Event, len(entries))
	for i, entry := range entries {
		payload, err := json.Marshal(entry.Payload)
		if err != nil {
			return nil, fmt.Errorf("write a %s: %w", entry.Payload.EventType(), err)
		}
		if entry.ID == "" {
			entry.ID = id.New[id.Event]()
		}
		e := Event{
			ID: entry.ID, Type: entry.Payload.EventType(), Seq: d.LastSeq + 1, Session: d.ID, Step: entry.Step, Epoch: d.Epoch,
			SchemaVersion: SchemaVersion, CreatedAt: now, Payload: payload,
		}
		if err := d.Apply(e); err != nil {
			return nil, err
		}
		events[i] = e
		d.rows.Seqs = append(d.rows.Seqs, e.Seq)
		d.rows.IDs = append(d.rows.IDs, string(e.ID))
		d.rows.Types = append(d.rows.Types, e.Type)
		d.rows.Steps = append(d.rows.Steps, string(e.Step))
		d.rows.Payloads = append(d.rows.Payloads, withoutNull(payload))
		if err := d.project(e, entry.Payload); err != nil {
			return nil, err
		}
	}
	d.LastActiveAt, d.UpdatedAt = now, now
	return events, nil
}

// PutSpan puts a finished span into the outbox, together with the events that are appended with or after it.
func (d *Draft) PutSpan(span Span) {
	span.OrgID, span.ProjectID, span.SessionID = string(d.Org), string(d.Project), string(d.ID)
	d.spans = append(d.spans, span)
}

// Rows returns what the draft writes.
func (d *Draft) Rows() (Rows, error) {
	rows := d.rows
	var err error
	if rows.Usage, err = json.Marshal(d.Usage); err != nil {
		return Rows{}, fmt.Errorf("write the usage: %w", err)
	}
	if rows.Limits, err = json.Marshal(d.Limits); err != nil {
		return Rows{}, fmt.Errorf("write the limits: %w", err)
	}
	if d.StopReason != nil {
		if rows.StopReason, err = json.Marshal(d.StopReason); err != nil {
			return Rows{}, fmt.Errorf("write the stop reason: %w", err)
		}
	}
	for _, span := range d.spans {
		payload, err := json.Marshal(span)
		if err != nil {
			return Rows{}, fmt.Errorf("write a span: %w", err)
		}
		rows.Spans = append(rows.Spans, string(payload))
	}
	return rows, nil
}

// Written says that the rows are in the database: announce is called for each channel on which other processes learn of it, and the draft
// goes on from there.
func (d *Draft) Written(announce func(channel, payload string)) {
	announce(Channel, string(d.ID))
	for _, channel := range d.notices {
		announce(channel, string(d.ID))
	}
	if len(d.spans) > 0 {
		announce(OutboxChannel, "")
	}
	d.rows, d.spans, d.notices = Rows{}, nil, nil
	d.Version++
}

// project notes what an event changes in the table of steps, and who must hear of it.
func (d *Draft) project(e Event, payload Payload) error {
	switch p := payload.(type) {
	case StepIntended:
		row := IntendedRow{ID: e.Step, Kind: p.Kind, EffectKey: p.EffectKey, Name: p.Name, Seq: e.Seq}
		if p.Hold != nil {
			row.Hold = p.Hold.ID
		}
		d.rows.Intended = append(d.rows.Intended, row)
	case StepSettled:
		row := SettledRow{ID: e.Step, Seq: e.Seq, Outcome: p.Outcome, Cost: p.Cost}
		var err error
		if row.Usage, err = json.Marshal(p.Usage); err != nil {
			return fmt.Errorf("write the step's usage: %w", err)
		}
		if p.Error != nil {
			failure, err := json.Marshal(p.Error)
			if err != nil {
				return fmt.Errorf("write the step's error: %w", err)
			}
			row.Error = json.RawMessage(withoutNull(failure))
		}
		d.rows.Settled = append(d.rows.Settled, row)
	case SessionQuoted:
		var err error
		if d.rows.Quote, err = json.Marshal(p.Quoted); err != nil {
			return fmt.Errorf("write the quote: %w", err)
		}
	case UserInterrupt:
		d.notices = append(d.notices, InterruptChannel)
	case StatusTerminated:
		d.notices = append(d.notices, InterruptChannel, RestChannel)
	case StatusIdle:
		d.notices = append(d.notices, RestChannel)
	}
	return nil
}
