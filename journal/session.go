package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Session is the head of a journal: what its row says.
type Session struct {
	Org      id.Org
	ID       id.Session
	Project  id.Project
	Agent    Snapshot
	Parent   id.Session // empty for a session that no session started
	Mandate  id.Mandate // empty for a session that runs under none
	By       Actor
	Title    string
	Metadata map[string]string
	Limits   Limits
	// Quote is nil where the price table of each moment counts.
	Quote *Quoted

	LastSeq      int64
	Epoch        int64
	LeaseOwner   string
	LeaseAddress string // where the lease-holder serves previews; empty when there is none

	Status       Status
	StopReason   *StopReason
	Usage        Usage
	Charged      money.Nanos
	LastActiveAt time.Time
	// CeilingHold is the open hold of the session's price ceiling, or empty.
	CeilingHold id.Hold

	// Version changes with each write; it is the ETag.
	Version    int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ArchivedAt *time.Time
}

// AtWork reports whether a worker has the session or ought to.
func (s *Session) AtWork() bool { return s.Status == Running || s.Status == Rescheduling }

// Apply folds one event into the projection. Folding all events of a journal into a Session that has only its identity gives the status,
// stop reason, usage, charge and limits that the row holds.
func (s *Session) Apply(e Event) error {
	switch e.Type {
	case SessionCreated{}.EventType():
		p, err := Decode[SessionCreated](e)
		if err != nil {
			return err
		}
		s.Status, s.Limits = Rescheduling, p.Limits
	case UserMessage{}.EventType():
		if s.Status == Idle { // input to a session at rest gives it work
			s.Status, s.StopReason = Rescheduling, nil
		}
	case StatusRescheduled{}.EventType():
		s.Status, s.StopReason = Rescheduling, nil
	case ApprovalDecided{}.EventType():
		if s.Status == Idle && s.StopReason != nil && s.StopReason.Type == StopRequiresAction { // what it waited for is there
			s.Status, s.StopReason = Rescheduling, nil
		}
	case StatusRunning{}.EventType():
		s.Status, s.StopReason = Running, nil
	case StatusIdle{}.EventType():
		p, err := Decode[StatusIdle](e)
		if err != nil {
			return err
		}
		s.Status, s.StopReason = Idle, &p.StopReason
	case StatusTerminated{}.EventType():
		p, err := Decode[StatusTerminated](e)
		if err != nil {
			return err
		}
		s.Status, s.StopReason = Terminated, &p.StopReason
	case StepSettled{}.EventType():
		p, err := Decode[StepSettled](e)
		if err != nil {
			return err
		}
		s.Usage.Add(p.Usage)
		if p.Kind != KindSandbox { // time that passes is no step of the agent's: a limit on steps is not used up by waiting
			s.Usage.Steps++
		}
		charged, err := s.Charged.Add(p.Cost)
		if err != nil {
			return fmt.Errorf("sum the session's cost: %w", err)
		}
		s.Charged = charged
	case SessionLimits{}.EventType():
		p, err := Decode[SessionLimits](e)
		if err != nil {
			return err
		}
		s.Limits = p.Limits
	case SessionQuoted{}.EventType():
		p, err := Decode[SessionQuoted](e)
		if err != nil {
			return err
		}
		s.Quote = &p.Quoted
	}
	s.LastSeq = e.Seq
	return nil
}

func sessionFromRow(r journaldb.Session) (Session, error) {
	s := Session{
		Org: r.OrgID, ID: r.ID, Project: r.ProjectID, Title: r.Title,
		LastSeq: r.LastSeq, Epoch: r.Epoch, LeaseOwner: deref(r.LeaseOwner), LeaseAddress: deref(r.LeaseAddress),
		Status: Status(r.Status), Charged: r.ChargedNanos, LastActiveAt: r.LastActiveAt.UTC(), Version: r.Version,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Parent: id.Session(deref(r.ParentSessionID)),
		CeilingHold: id.Hold(deref(r.CeilingHoldID)), Mandate: id.Mandate(deref(r.MandateID)),
	}
	if r.ArchivedAt != nil {
		at := r.ArchivedAt.UTC()
		s.ArchivedAt = &at
	}
	for _, part := range []struct {
		raw json.RawMessage
		to  any
	}{{r.Agent, &s.Agent}, {r.Principal, &s.By}, {r.Metadata, &s.Metadata}, {r.Limits, &s.Limits}, {r.Usage, &s.Usage}, {r.StopReason, &s.StopReason}, {r.Quote, &s.Quote}} {
		if len(part.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(part.raw, part.to); err != nil {
			return Session{}, fmt.Errorf("read session %s: %w", r.ID, err)
		}
	}
	return s, nil
}

func eventFromRow(r journaldb.Event) Event {
	return Event{
		ID: id.Event(r.ID), Type: r.Type, Seq: r.Seq, Session: r.SessionID, Step: id.Step(deref(r.StepID)), Epoch: r.Epoch,
		SchemaVersion: int(r.SchemaVersion), CreatedAt: r.CreatedAt.UTC(), Payload: r.Payload,
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func ref(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
