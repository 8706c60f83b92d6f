package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// SessionLimits bound how many sessions are at work at a time, over all processes; zero is no limit.
type SessionLimits struct {
	// PerKey is of the sessions that one API key began, PerOrganization of all.
	PerKey          int
	PerOrganization int
}

// CountTokens is told what a model call used, once that is committed, and for whom the session was made.
type CountTokens func(org id.Org, by principal.Principal, tokens int64)

// roomRetry is what a caller is told to wait: when a session ends nobody knows.
const roomRetry = 5 * time.Second

// inRoom refuses, with 429, that a session is at work besides those that are. It is asked last, with the session at work in this transaction: who
// asks holds a lock of the organisation from here to the commit, so that two can't both be the last.
func (s *Service) inRoom(ctx context.Context, tx pgx.Tx, l *journal.Session) error {
	if s.limits == (SessionLimits{}) {
		return nil
	}
	key := ""
	if l.By.Kind == principal.Key {
		key = l.By.ID
	}
	q := stopdb.New(tx)
	if err := q.LockRoom(ctx, string(l.Org)); err != nil {
		return fmt.Errorf("wait for the sessions of %s: %w", l.Org, err)
	}
	n, err := q.SessionsAtWork(ctx, stopdb.SessionsAtWorkParams{OrgID: l.Org, KeyID: key})
	if err != nil {
		return fmt.Errorf("count the sessions at work of %s: %w", l.Org, err)
	}
	var violated []string
	message := ""
	if most := s.limits.PerOrganization; most > 0 && n.OfOrganization > int64(most) {
		violated = append(violated, "organization-sessions")
		message = fmt.Sprintf("This organisation may have %d sessions at work at a time, and has as many.", most)
	}
	if most := s.limits.PerKey; most > 0 && key != "" && n.OfKey > int64(most) {
		violated = append(violated, "sessions")
		message = fmt.Sprintf("This key may have %d sessions at work at a time, and has as many.", most)
	}
	if violated == nil {
		return nil
	}
	return fault.New(fault.TooMany, "concurrency_limited", message+" Wait until some have ended their work; nothing was started.").
		With("violated_policies", violated).After(roomRetry)
}
