package scheduler

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// effect is what was intended, held and admitted, and is to be done now.
type effect interface {
	run(base context.Context, w *work) outcome
}

// outcome is what is known when an effect has ended. settle drafts how it is settled; it may be asked more than once.
type outcome interface {
	settle(ctx context.Context, w *work, d *draft) error
	// stop says that the session's work ends with this outcome; nil lets it go on.
	stop() *journal.StopReason
}

// draft is a unit together with the history as it will be once the unit is committed.
type draft struct {
	*gate.Unit
	history *loop.History
	// decided is what the gate decided on, for the metrics: a draft that is not committed counts for nothing.
	decided []prometheus.Counter
	// tokens are those of the model call that the draft settles.
	tokens int64
}

// append adds events to the unit, and folds them into the history at once, so that what follows from them can be part of the same unit.
func (d *draft) append(entries ...journal.Entry) error {
	events, err := d.Append(d.Now, entries...)
	if err != nil {
		return err
	}
	return d.history.Apply(events...)
}

// following is what follows from a commit: an effect to be done, or a wait before the next decision, or the end of this stretch of work.
type following struct {
	effect effect
	wait   *loop.ModelCall
	finish *journal.StopReason
	rests  bool          // the end is committed already
	ask    *loop.ToolUse // people may have to be asked about it
}

// steps runs one effect after another until the session is idle. What ended is settled and what follows is intended in one commit.
func (w *work) steps(base context.Context) error {
	var ended outcome
	var waited *loop.ModelCall
	for {
		next, err := w.advance(base, ended, waited)
		if err != nil {
			return err
		}
		ended, waited = nil, nil
		if next.ask != nil {
			if next, err = w.ask(base, *next.ask); err != nil {
				return err
			}
			if next == (following{}) {
				continue // it is answered, or there is more input: decide anew
			}
		}
		switch {
		case next.rests:
			return nil
		case next.finish != nil:
			idle, err := w.finish(base, *next.finish)
			if err != nil || idle {
				return err
			}
		case next.wait != nil:
			if err := w.backOff(base, *next.wait); err != nil {
				return err
			}
			waited = next.wait
		case next.effect != nil:
			failpoint.Hit(failpoint.BeforeEffect)
			ended = next.effect.run(base, w)
			failpoint.Hit(failpoint.AfterEffect)
		default: // it was settled, and this worker is to do no more
			if base.Err() != nil {
				return stopped(context.Cause(base))
			}
			return errDraining
		}
	}
}

// advance settles what ended, if anything did, and intends what follows, in one commit. waited is the model call whose back-off is over.
func (w *work) advance(base context.Context, ended outcome, waited *loop.ModelCall) (next following, err error) {
	var unreadable error
	err = w.commit(base, func(ctx context.Context, d *draft) error {
		next, unreadable = following{}, nil
		if !w.running {
			if err := d.append(w.runningEntry(&d.Draft)); err != nil {
				return err
			}
		}
		if ended != nil {
			if err := ended.settle(ctx, w, d); err != nil {
				return err
			}
			next.finish = ended.stop()
		}
		for next == (following{}) && base.Err() == nil && !w.draining() {
			decision, err := d.history.Next(loop.Input{
				Agent: d.Agent, Limits: d.Limits, Usage: d.Usage, Tools: w.tools.Definitions(d.Agent.Tools), Now: w.clock.Now(),
			})
			if err != nil {
				unreadable = err
				return nil //nolint:nilerr // it is dealt with after the commit, which it does not undo
			}
			switch {
			case decision.Model != nil && decision.Model.Attempt > 1 && (waited == nil || waited.Attempt != decision.Model.Attempt):
				next.wait = decision.Model
			case decision.Model != nil:
				next, err = w.intendModel(d, *decision.Model)
			case len(decision.Tools) > 0:
				next, err = w.intendTool(d, decision.Tools[0])
			default:
				next.finish = decision.Finish
			}
			if err != nil {
				return err
			}
		}
		if next.finish != nil && d.CeilingHold == "" {
			next.rests = true
			d.ReleaseLease()
			return d.append(w.idleEntries(&d.Draft, *next.finish, 0)...)
		}
		return nil
	})
	if err == nil && unreadable != nil {
		return following{}, w.fail(base, unreadable)
	}
	return next, err
}

// commit drafts a unit and sends it to the committer: again when others have appended meanwhile, or when the hold that it wants can't be
// had, until it is drafted from the journal as it is.
func (w *work) commit(ctx context.Context, write func(ctx context.Context, d *draft) error) error {
	ctx = context.WithoutCancel(ctx)
	var refusal error
	for {
		d := &draft{Unit: gate.Draft(w.clock.Now(), w.session, w.lease, refusal), history: w.history.Clone()}
		if err := write(ctx, d); err != nil {
			return err
		}
		if d.LastSeq == w.session.LastSeq {
			return nil // nothing is to be written
		}
		err := w.committer.Commit(ctx, d.Unit)
		var wanting *gate.ShortError
		switch {
		case err == nil:
			w.session, w.history, w.running = d.Session, d.history, true
			for _, c := range d.decided {
				c.Inc()
			}
			w.tokens(w.session.Org, w.session.By, d.tokens)
			return nil
		case errors.As(err, &wanting), errors.Is(err, gate.ErrBreached):
			refusal = err
		case errors.Is(err, gate.ErrMoved):
			refusal = nil
			if err := w.commitTx(ctx, func(pgx.Tx, *journal.Locked) ([]journal.Entry, error) { return nil, nil }); err != nil {
				return err
			}
		case errors.Is(err, gate.ErrRuled):
			if err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error { return w.gate.Reload(ctx, tx, w.lease.Org) }); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// commitTx is a commit whose events follow from what else it reads and writes: a transaction of its own. Events that others appended since
// the last commit are folded in first.
func (w *work) commitTx(ctx context.Context, write func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error)) error {
	ctx = context.WithoutCancel(ctx)
	var folded []journal.Event
	var after journal.Session
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, w.lease.Org, w.lease.Session)
		if err != nil {
			return err
		}
		if err := l.Fence(w.lease); err != nil {
			return err
		}
		if folded, err = journal.EventsUpTo(ctx, tx, w.lease.Org, w.lease.Session, w.history.LastSeq(), l.LastSeq); err != nil {
			return err
		}
		w.noteInputs(folded)
		entries, err := write(tx, l)
		if err != nil {
			return err
		}
		appended, err := l.Append(ctx, w.clock.Now(), entries...)
		if err != nil {
			return err
		}
		folded = append(folded, appended...)
		after = l.Session
		return nil
	})
	if err != nil {
		return err
	}
	w.session = after
	return w.history.Apply(folded...)
}

// intend asks the gate and, if it admits, drafts the step that begins. The decision is journalled either way.
func (w *work) intend(d *draft, p gate.Proposal, intended journal.StepIntended) (gate.Decision, error) {
	decision, err := w.gate.Admit(d.Unit, p)
	if err != nil {
		return gate.Decision{}, err
	}
	if decision.Outcome == journal.Waiting {
		return decision, nil
	}
	d.decided = append(d.decided, w.metrics.decisions.WithLabelValues(string(p.Kind), decision.Outcome))
	if decision.Outcome != journal.Admitted {
		return decision, d.append(journal.Of(decision.Event(p))) // no step was begun
	}
	intended.EffectKey, intended.Digest, intended.Hold, intended.ToolUseID = p.EffectKey, hex.EncodeToString(p.Digest[:]), decision.Hold, p.ToolUseID
	return decision, d.append(journal.Entry{Step: p.Step, Payload: decision.Event(p)}, journal.Entry{Step: p.Step, Payload: intended})
}

// outOfFunds is the end of work whose next effect can't be held.
func outOfFunds(s journal.Shortfall) following {
	return following{finish: &journal.StopReason{Type: journal.StopBudgetReached, Limit: journal.LimitCost, Scope: s.Scope, ScopeID: s.ID, ScopeName: s.Name, Reason: s.Sentence()}}
}

// errMoreInput says that something was appended after the decision that was about to be committed.
var errMoreInput = errors.New("there is more input")

// finish makes a session with a price ceiling idle: what is left of the ceiling is given back in the same commit.
func (w *work) finish(ctx context.Context, stop journal.StopReason) (idle bool, err error) {
	seen := w.history.LastSeq()
	err = w.commitTx(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		if l.LastSeq > seen {
			return nil, errMoreInput
		}
		released, err := w.gate.ReleaseCeiling(context.WithoutCancel(ctx), tx, w.clock.Now(), l)
		if err != nil {
			return nil, err
		}
		if err := journal.ReleaseLease(context.WithoutCancel(ctx), tx, w.lease); err != nil {
			return nil, err
		}
		return w.idleEntries(&l.Draft, stop, released), nil
	})
	if errors.Is(err, errMoreInput) {
		// What was decided may no longer be what follows: read what came, and decide again.
		return false, w.commitTx(ctx, func(pgx.Tx, *journal.Locked) ([]journal.Entry, error) { return nil, nil })
	}
	return err == nil, err
}

// idleEntries are the events with which a stretch of work ends.
func (w *work) idleEntries(d *journal.Draft, stop journal.StopReason, released money.Nanos) []journal.Entry {
	d.StopReason = &stop // for the span; the event below says the same
	d.PutSpan(rootSpan(d, w.clock.Now()))
	w.metrics.stops.WithLabelValues(stop.Type).Inc()
	return []journal.Entry{
		journal.Of(journal.SessionUsage{Usage: d.Usage, Cost: journal.SessionCost{Charged: d.Charged, Released: released}}),
		journal.Of(journal.StatusIdle{StopReason: stop, InputEventIDs: w.inputs}),
	}
}
