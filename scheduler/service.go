package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
)

// Service is what the surfaces do with sessions. Methods that take a transaction work in it, and it must be the organisation's; their
// effects on the world follow its commit. It is safe for concurrent use.
type Service struct {
	db        *postgres.DB
	agents    *agents.Service
	gate      *gate.Gate
	listener  *postgres.Listener
	previews  *Previews
	sandboxes *sandbox.Service
	tools     *connectors.Registry
	signer    Signer
	tokens    Tokens
	approvals *approval.Service
	mandates  *register.Service
	limits    SessionLimits
	clock     clock.Clock
	log       *slog.Logger
	// finishKills are the kills and orders to stop that are being carried out; running ends when they are to be cut short.
	finishKills sync.WaitGroup
	running     context.Context
	cut         context.CancelFunc
}

// Signer signs a statement of the instance.
type Signer interface {
	Sign(ctx context.Context, claims any) (string, error)
}

// Deps are what a service needs. Sandboxes may be nil where there are none, and Tools where no agent has any, as in some tests.
type Deps struct {
	DB        *postgres.DB
	Agents    *agents.Service
	Gate      *gate.Gate
	Listener  *postgres.Listener
	Previews  *Previews
	Sandboxes *sandbox.Service
	Tools     *connectors.Registry
	Signer    Signer
	// Tokens makes agents' tokens for outbound calls; nil makes none.
	Tokens Tokens
	// Approvals may be nil: then nobody is mailed.
	Approvals *approval.Service
	Limits    SessionLimits
	Clock     clock.Clock
	Log       *slog.Logger
	// Mandates may be nil where nothing runs under one, as in some tests.
	Mandates *register.Service
}

// NewService makes the service.
func NewService(d Deps) *Service {
	s := &Service{db: d.DB, agents: d.Agents, gate: d.Gate, listener: d.Listener, previews: d.Previews, sandboxes: d.Sandboxes, tools: d.Tools, signer: d.Signer, tokens: d.Tokens, approvals: d.Approvals, mandates: d.Mandates, limits: d.Limits, clock: d.Clock, log: d.Log}
	if s.approvals == nil {
		s.approvals = approval.NewService(approval.Deps{Clock: d.Clock})
	}
	s.running, s.cut = context.WithCancel(context.Background())
	return s
}

// Get reads a session.
func (s *Service) Get(ctx context.Context, org id.Org, session id.Session) (journal.Session, error) {
	var out journal.Session
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		out, err = journal.Get(ctx, tx, org, session)
		return err
	})
	return out, err
}

// List lists sessions.
func (s *Service) List(ctx context.Context, org id.Org, f journal.SessionFilter) ([]journal.Session, error) {
	var out []journal.Session
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		out, err = journal.List(ctx, tx, org, f)
		return err
	})
	return out, err
}

// Events lists a session's events. A session that is not there is not found; one without further events gives an empty list.
func (s *Service) Events(ctx context.Context, org id.Org, session id.Session, f journal.EventFilter) ([]journal.Event, error) {
	var out []journal.Event
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		if out, err = journal.Events(ctx, tx, org, session, f); err != nil || len(out) > 0 {
			return err
		}
		_, err = journal.Get(ctx, tx, org, session)
		return err
	})
	return out, err
}

// Steps lists a session's steps in order.
func (s *Service) Steps(ctx context.Context, org id.Org, session id.Session, after int64, limit int) ([]journal.Step, error) {
	var out []journal.Step
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		if out, err = journal.Steps(ctx, tx, org, session, after, limit); err != nil || len(out) > 0 {
			return err
		}
		_, err = journal.Get(ctx, tx, org, session)
		return err
	})
	return out, err
}

// Step reads one step of a session.
func (s *Service) Step(ctx context.Context, org id.Org, session id.Session, step id.Step) (journal.Step, error) {
	var out journal.Step
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		if out, err = journal.GetStep(ctx, tx, org, step); err == nil && out.Session != session {
			err = fault.NotFound()
		}
		return err
	})
	return out, err
}

// Watch returns a channel that receives a hint after each commit to the session's journal; several may arrive as one, and one may be
// missed while the connection to the database is down, so a reader also polls. The returned function ends the watch.
func (s *Service) Watch(session id.Session) (<-chan struct{}, func()) {
	return s.listener.Subscribe(journal.Channel, string(session))
}

// WatchPreviews subscribes to the streamed pieces of the session's model calls. They are lossy: a slow reader misses some. The channel is
// closed when ctx ends.
func (s *Service) WatchPreviews(ctx context.Context, session journal.Session) <-chan Preview {
	local := s.previews.Watch(ctx, session.ID)
	if s.previews.remote == nil {
		return local
	}
	all := make(chan Preview, cap(local))
	pass := func(piece Preview) {
		select {
		case all <- piece:
		default: // a slow reader misses this piece
		}
	}
	go func() {
		defer close(all)
		var elsewhere sync.WaitGroup
		elsewhere.Go(func() { s.follow(ctx, session, pass) })
		for piece := range local {
			pass(piece)
		}
		elsewhere.Wait()
	}()
	return all
}

// WaitUntilIdle waits until the input with the given number has been dealt with, that is, until the session is idle or terminated and its
// journal goes beyond that number, or until ctx ends; then it returns the session as it is, without an error.
func (s *Service) WaitUntilIdle(ctx context.Context, org id.Org, session id.Session, after int64) (journal.Session, error) {
	hints, done := s.listener.Subscribe(journal.RestChannel, string(session))
	defer done()
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	for {
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		got, err := s.Get(reading, org, session)
		cancel()
		if err != nil {
			return journal.Session{}, err
		}
		if !got.AtWork() && got.LastSeq > after {
			return got, nil
		}
		select {
		case <-ctx.Done():
			return got, nil
		case <-hints:
		case <-poll.C:
		}
	}
}

// Describe changes what describes a session and steers nothing; nil leaves a field as it is.
type Describe struct {
	Title    *string
	Metadata *map[string]string
}

// Update changes a session's title and metadata. ifVersion above zero must be the session's version.
func (s *Service) Update(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, d Describe, ifVersion int64) (journal.Session, error) {
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return journal.Session{}, err
	}
	if ifVersion > 0 && l.Version != ifVersion {
		return journal.Session{}, fault.New(fault.PreconditionFailed, "precondition_failed", "The session has changed since you read it. Read it again and repeat your change.")
	}
	if d.Title != nil {
		if l.Title, err = checkTitle(*d.Title); err != nil {
			return journal.Session{}, err
		}
	}
	if d.Metadata != nil {
		if err := agents.CheckMetadata("/metadata", *d.Metadata); err != nil {
			return journal.Session{}, err
		}
		l.Metadata = *d.Metadata
	}
	if err := l.Describe(ctx, s.clock.Now()); err != nil {
		return journal.Session{}, err
	}
	return l.Session, nil
}
