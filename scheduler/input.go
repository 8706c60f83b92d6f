package scheduler

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

// MaxInputs bounds the events of one Send.
const MaxInputs = 50

// Input is an event that a client may send: a message or an interrupt.
type Input struct {
	Type    string // user.message or user.interrupt
	Content []journal.Block
	Reason  string
}

// Send appends inputs to a session, all or none, and wakes it. An interrupt of a session that does nothing is refused with 409.
func (s *Service) Send(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, inputs []Input) ([]journal.Event, error) {
	if len(inputs) == 0 || len(inputs) > MaxInputs {
		return nil, fault.InvalidField("/events", "out_of_range", fmt.Sprintf("Send 1 to %d events at a time.", MaxInputs))
	}
	for i, in := range inputs {
		switch in.Type {
		case journal.UserMessage{}.EventType():
			if err := checkInput(in.Content); err != nil {
				f := fault.As(err)
				for j := range f.Fields {
					f.Fields[j].Pointer = fmt.Sprintf("/events/%d/content%s", i, f.Fields[j].Pointer[len("/input"):])
				}
				return nil, f
			}
		case journal.UserInterrupt{}.EventType():
			if len(in.Reason) > 2000 {
				return nil, fault.InvalidField(fmt.Sprintf("/events/%d/reason", i), "too_large", "A reason has at most 2000 bytes.")
			}
		default:
			return nil, fault.InvalidField(fmt.Sprintf("/events/%d/type", i), "unknown_type", `An event is of type "user.message" or "user.interrupt".`)
		}
	}
	if err := mayBegin(ctx, tx, org, session, "", "", ""); err != nil {
		return nil, err
	}
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return nil, err
	}
	if err := takesInput(&l.Session); err != nil {
		return nil, err
	}
	by := principal.From(ctx)
	var entries []journal.Entry
	work := l.AtWork()
	for i, in := range inputs {
		if in.Type == (journal.UserInterrupt{}).EventType() {
			if !work && !asks(&l.Session) {
				return nil, fault.New(fault.Conflict, "state_conflict", fmt.Sprintf("events[%d]: the session is idle; there is nothing to interrupt.", i))
			}
			entries = append(entries, journal.Of(journal.UserInterrupt{By: by, Reason: in.Reason}))
			continue
		}
		if !work {
			if err := s.cover(ctx, tx, l); err != nil {
				return nil, err
			}
		}
		work = true
		entries = append(entries, journal.Of(journal.UserMessage{Content: in.Content, By: by}))
	}
	began := work && !l.AtWork()
	if !work { // what it waited for is not asked any more
		entries = append(entries, journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopInterrupted, By: by.ID}, InputEventIDs: []id.Event{}}))
	}
	events, err := l.Append(ctx, s.clock.Now(), entries...)
	if err != nil {
		return nil, err
	}
	if !work {
		return events[:len(inputs)], nil
	}
	if err := journal.WakeTx(ctx, tx, org, session); err != nil {
		return nil, err
	}
	if began {
		if err := s.inRoom(ctx, tx, &l.Session); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// asks reports whether the session rests until people have decided.
func asks(s *journal.Session) bool {
	return s.Status == journal.Idle && s.StopReason != nil && s.StopReason.Type == journal.StopRequiresAction
}

// SetLimits replaces the limits that are given and keeps the others. A session that stopped because it had reached a limit goes on.
func (s *Service) SetLimits(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, given journal.Limits) (journal.Session, error) {
	if err := agents.CheckLimits("/limits", given); err != nil {
		return journal.Session{}, err
	}
	if err := mayBegin(ctx, tx, org, session, "", "", ""); err != nil {
		return journal.Session{}, err
	}
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return journal.Session{}, err
	}
	if err := takesInput(&l.Session); err != nil {
		return journal.Session{}, err
	}
	now, by := s.clock.Now(), principal.From(ctx)
	if given.MaxCost != nil && l.CeilingHold != "" {
		return journal.Session{}, fault.New(fault.Conflict, "session_running", "The price ceiling can be changed while the session is idle.")
	}
	limits := merge(l.Limits, given)
	entries := []journal.Entry{journal.Of(journal.SessionLimits{Limits: limits, By: by})}
	stopped := l.Status == journal.Idle && l.StopReason != nil && l.StopReason.Type == journal.StopBudgetReached
	if stopped {
		entries = append(entries, journal.Of(journal.StatusRescheduled{Reason: "its limits were changed"}))
	}
	if _, err := l.Append(ctx, now, entries...); err != nil {
		return journal.Session{}, err
	}
	if stopped {
		if err := s.cover(ctx, tx, l); err != nil {
			return journal.Session{}, err
		}
		if err := journal.WakeTx(ctx, tx, org, session); err != nil {
			return journal.Session{}, err
		}
		if err := s.inRoom(ctx, tx, &l.Session); err != nil {
			return journal.Session{}, err
		}
	}
	return l.Session, nil
}

// Resume lets a session that stopped at a limit go on where it was: when its organisation's balance or a budget was raised since, for one.
// If the limit still holds, it stops again.
func (s *Service) Resume(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (journal.Session, error) {
	if err := mayBegin(ctx, tx, org, session, "", "", ""); err != nil {
		return journal.Session{}, err
	}
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return journal.Session{}, err
	}
	if err := takesInput(&l.Session); err != nil {
		return journal.Session{}, err
	}
	if l.AtWork() {
		return l.Session, nil
	}
	if l.StopReason == nil || l.StopReason.Type != journal.StopBudgetReached {
		return journal.Session{}, fault.New(fault.Conflict, "state_conflict", "Only a session that stopped at a limit can be resumed. Send it a message to give it more to do.")
	}
	if _, err := l.Append(ctx, s.clock.Now(), journal.Of(journal.StatusRescheduled{Reason: "resumed"})); err != nil {
		return journal.Session{}, err
	}
	if err := s.cover(ctx, tx, l); err != nil {
		return journal.Session{}, err
	}
	if err := journal.WakeTx(ctx, tx, org, session); err != nil {
		return journal.Session{}, err
	}
	return l.Session, s.inRoom(ctx, tx, &l.Session)
}

// Archive ends an idle session for good: it can be read, and takes no more input. Archiving twice is harmless.
func (s *Service) Archive(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (journal.Session, error) {
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return journal.Session{}, err
	}
	if l.AtWork() {
		return journal.Session{}, fault.New(fault.Conflict, "session_running", "The session is at work. Interrupt or kill it before you archive it.")
	}
	if l.ArchivedAt != nil {
		return l.Session, nil
	}
	now := s.clock.Now()
	if l.Status == journal.Idle {
		l.Supersede()
		stop := journal.StopReason{Type: journal.StopArchived, By: principal.From(ctx).ID}
		if _, err := l.Append(ctx, now, journal.Of(journal.StatusTerminated{StopReason: stop})); err != nil {
			return journal.Session{}, err
		}
	}
	l.ArchivedAt = &now
	if err := l.Describe(ctx, now); err != nil {
		return journal.Session{}, err
	}
	return l.Session, nil
}
