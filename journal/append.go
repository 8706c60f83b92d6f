package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Channel is the Postgres channel on which each commit to a journal is announced, with the session's id.
const Channel = "ambit_journal"

// InterruptChannel announces, besides, what must end the effect under way: an interrupt, or the session's end. A worker need not look after
// every commit.
const InterruptChannel = "ambit_interrupt"

// RestChannel announces, besides, that a session is at rest: idle or ended. Who waits for that need not look after every commit either.
const RestChannel = "ambit_rest"

// ErrFenced is what a worker gets whose lease is gone: it must stop and may write nothing more.
var ErrFenced = fault.New(fault.Conflict, "fenced", "This worker's lease on the session has ended; another may have it.")

// Entry is an event to be appended.
type Entry struct {
	Step    id.Step
	Payload Payload
	// ID is the event's id where it was given out before, with a preview; empty makes a new one.
	ID id.Event
}

// Of makes an entry that belongs to no step.
func Of(p Payload) Entry { return Entry{Payload: p} }

// New is what a session begins with.
type New struct {
	Org      id.Org
	ID       id.Session
	Project  id.Project
	Agent    Snapshot
	Parent   id.Session
	By       Actor
	Title    string
	Metadata map[string]string
	Limits   Limits
	// Mandates are that under which the session runs and all above it, the root first; none for a session without one.
	Mandates []id.Mandate
}

// Mandate is that under which the session runs, or empty.
func (n New) Mandate() id.Mandate {
	if len(n.Mandates) == 0 {
		return ""
	}
	return n.Mandates[len(n.Mandates)-1]
}

// Create makes a session with its first events, session.created and whatever is given besides, and returns it locked.
func Create(ctx context.Context, tx pgx.Tx, now time.Time, n New, first ...Entry) (*Locked, []Event, error) {
	agent, err := json.Marshal(n.Agent)
	if err != nil {
		return nil, nil, fmt.Errorf("write the agent: %w", err)
	}
	by, err := json.Marshal(n.By)
	if err != nil {
		return nil, nil, fmt.Errorf("write the principal: %w", err)
	}
	if n.Metadata == nil {
		n.Metadata = map[string]string{}
	}
	metadata, err := json.Marshal(n.Metadata)
	if err != nil {
		return nil, nil, fmt.Errorf("write the metadata: %w", err)
	}
	limits, err := json.Marshal(n.Limits)
	if err != nil {
		return nil, nil, fmt.Errorf("write the limits: %w", err)
	}
	err = journaldb.New(tx).InsertSession(ctx, journaldb.InsertSessionParams{
		OrgID: n.Org, ID: n.ID, ProjectID: n.Project, AgentID: n.Agent.ID, AgentVersion: int32(n.Agent.Version), //nolint:gosec // versions are small
		Agent: agent, ParentSessionID: ref(string(n.Parent)), Principal: by, Title: n.Title, Metadata: metadata, Limits: limits, Now: now,
		MandateID: ref(string(n.Mandate())), BudgetScopes: n.BudgetScopes(),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("insert the session: %w", err)
	}
	l, err := Lock(ctx, tx, n.Org, n.ID)
	if err != nil {
		return nil, nil, err
	}
	created := SessionCreated{
		Agent: n.Agent, Project: n.Project, Limits: n.Limits, By: n.By, Title: n.Title, Metadata: metadata,
		TraceID: TraceID(string(n.ID)), RootSpan: SpanID(string(n.ID)),
	}
	if n.Parent != "" {
		created.Parent = &n.Parent
	}
	if m := n.Mandate(); m != "" {
		created.Mandate = &m
	}
	events, err := l.Append(ctx, now, append([]Entry{Of(created)}, first...)...)
	return l, events, err
}

// BudgetScopes says what the spending of a session made so counts against: type:id of each thing that a budget may cover. What a session below
// another counts against besides, the database adds.
func (n New) BudgetScopes() []string {
	scopes := []string{"organization:" + string(n.Org), "project:" + string(n.Project), "session:" + string(n.ID)}
	if n.Agent.ID != "" {
		scopes = append(scopes, "agent:"+string(n.Agent.ID))
	}
	switch n.By.Kind {
	case principal.Key:
		scopes = append(scopes, "key:"+n.By.ID)
	case principal.User:
		scopes = append(scopes, "member:"+n.By.ID)
	default: // an agent's spending is the agent's above, the platform's own is nobody's besides
	}
	if n.By.OnBehalfOf != "" && n.By.OnBehalfOf != n.By.ID {
		scopes = append(scopes, "member:"+n.By.OnBehalfOf)
	}
	for _, m := range n.Mandates {
		scopes = append(scopes, "mandate:"+string(m))
	}
	return scopes
}

// Locked is a session whose row this transaction has locked: nobody else appends to its journal until the transaction ends.
type Locked struct {
	Draft
	// LeaseLive says that a worker holds a lease that has not expired, by the database's clock.
	LeaseLive bool

	tx pgx.Tx
}

// Lock locks the session's row. A session that is not there, or is another organisation's, is not found.
func Lock(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (*Locked, error) {
	row, err := journaldb.New(tx).LockSession(ctx, journaldb.LockSessionParams{OrgID: org, ID: session})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.NotFound()
	}
	if err != nil {
		return nil, fmt.Errorf("lock session %s: %w", session, err)
	}
	s, err := sessionFromRow(journaldb.Session{
		OrgID: row.OrgID, ID: row.ID, ProjectID: row.ProjectID, AgentID: row.AgentID, AgentVersion: row.AgentVersion, Agent: row.Agent,
		ParentSessionID: row.ParentSessionID, Principal: row.Principal, Title: row.Title, Metadata: row.Metadata, Limits: row.Limits,
		LastSeq: row.LastSeq, Epoch: row.Epoch, LeaseOwner: row.LeaseOwner, LeaseAddress: row.LeaseAddress, LeaseExpiresAt: row.LeaseExpiresAt,
		Status: row.Status, StopReason: row.StopReason, Usage: row.Usage, ChargedNanos: row.ChargedNanos, LastActiveAt: row.LastActiveAt,
		CeilingHoldID: row.CeilingHoldID, Version: row.Version, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt, ArchivedAt: row.ArchivedAt,
		Quote: row.Quote, MandateID: row.MandateID,
	})
	if err != nil {
		return nil, err
	}
	return &Locked{Draft: Draft{Session: s}, LeaseLive: row.LeaseLive, tx: tx}, nil
}

// Fence refuses a worker that no longer holds the session: another epoch, another owner, or a lease that ran out.
func (l *Locked) Fence(lease Lease) error {
	if l.Epoch != lease.Epoch || l.LeaseOwner != lease.Owner || !l.LeaseLive || !l.AtWork() {
		return ErrFenced
	}
	return nil
}

// Supersede begins a new epoch, so that whoever works on the session is fenced from here on. The next Append writes it.
func (l *Locked) Supersede() { l.Epoch++ }

// Append adds events to the journal, in order and without a gap, folds them into the projection, and announces the commit. The entries
// and the session's row are written together or not at all. A step is begun once and settled once.
func (l *Locked) Append(ctx context.Context, now time.Time, entries ...Entry) ([]Event, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	events, err := l.Draft.Append(now, entries...)
	if err != nil {
		return nil, err
	}
	if err := l.write(ctx, now); err != nil {
		return nil, fmt.Errorf("append %d events to %s: %w", len(events), l.ID, err)
	}
	return events, nil
}

// write sends what was drafted, in one way to the database.
func (l *Locked) write(ctx context.Context, now time.Time) error {
	rows, err := l.Rows()
	if err != nil {
		return err
	}
	var pipeline postgres.Pipeline
	q := journaldb.New(&pipeline)
	// What a pipeline takes can't fail before it is sent.
	_ = q.InsertEvents(ctx, journaldb.InsertEventsParams{
		OrgID: l.Org, SessionID: l.ID, SchemaVersion: SchemaVersion, Epoch: l.Epoch, Now: now,
		Seqs: rows.Seqs, Ids: rows.IDs, Types: rows.Types, StepIds: rows.Steps, Payloads: rows.Payloads,
	})
	for _, s := range rows.Intended {
		_ = q.InsertStep(ctx, journaldb.InsertStepParams{
			OrgID: l.Org, SessionID: l.ID, ID: s.ID, Kind: s.Kind, EffectKey: s.EffectKey, Epoch: l.Epoch, IntendedSeq: s.Seq, Name: s.Name,
			HoldID: ref(string(s.Hold)), IntendedAt: now,
		})
	}
	for _, s := range rows.Settled {
		_ = q.SettleStep(ctx, journaldb.SettleStepParams{
			SettledSeq: &s.Seq, Outcome: &s.Outcome, Usage: s.Usage, CostNanos: s.Cost, Error: s.Error, Now: &now, OrgID: l.Org, ID: s.ID,
		})
		pipeline.Expect(1, fmt.Errorf("settle step %s: it is not open", s.ID))
	}
	_ = q.AdvanceSession(ctx, journaldb.AdvanceSessionParams{
		LastSeq: l.LastSeq, Status: string(l.Status), StopReason: rows.StopReason, Usage: rows.Usage, ChargedNanos: l.Charged, Limits: rows.Limits,
		Epoch: l.Epoch, Now: now, OrgID: l.Org, ID: l.ID,
	})
	pipeline.Expect(1, fmt.Errorf("advance session %s: it is not one row", l.ID))
	if rows.Quote != nil {
		_ = q.SetQuote(ctx, journaldb.SetQuoteParams{Quote: rows.Quote, OrgID: l.Org, ID: l.ID})
		pipeline.Expect(1, fmt.Errorf("note the quote of session %s: it is not one row", l.ID))
	}
	for _, span := range rows.Spans {
		_ = q.InsertOutbox(ctx, journaldb.InsertOutboxParams{OrgID: l.Org, ProjectID: l.Project, SessionID: l.ID, Kind: OutboxSpan, Payload: []byte(span)})
	}
	if err := pipeline.Send(ctx, l.tx); err != nil {
		return err
	}
	l.Written(func(channel, payload string) { postgres.Notify(l.tx, channel, payload) })
	return nil
}

// withoutNull replaces the one character that JSON can hold and jsonb cannot. It comes from the output of programs; the replacement
// character stands in its place.
func withoutNull(payload []byte) string {
	s := string(payload)
	if !strings.Contains(s, `\u0000`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], `\u0000`):
			b.WriteString(`\ufffd`)
			i += 6
		case s[i] == '\\' && i+1 < len(s):
			b.WriteString(s[i : i+2])
			i += 2
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String()
}
