package journal

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Finished is what a session used that ended by itself.
type Finished struct {
	Session id.Session
	Used    []UsedOf
}

// Steps counts the session's steps; time that passed in its sandbox is none.
func (f Finished) Steps() (n int64) {
	for _, u := range f.Used {
		if u.Kind != KindSandbox {
			n += u.Calls
		}
	}
	return n
}

// UsedOf is the sum over a session's steps of one kind and name.
type UsedOf struct {
	Kind  string
	Name  string
	Calls int64
	Usage Usage
}

// LastFinished lists what an agent's latest finished sessions used, at most as many as asked for, newest first: those on this model that came to
// the end of their turn, or were archived after it. Sessions that were stopped, failed or ran into a limit are not among them.
func LastFinished(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, model string, sessions int) ([]Finished, error) {
	rows, err := journaldb.New(tx).FinishedSteps(ctx, journaldb.FinishedStepsParams{OrgID: org, AgentID: string(agent), Model: model, Sessions: int32(sessions)}) //nolint:gosec // a few
	if err != nil {
		return nil, fmt.Errorf("read what %s used before: %w", agent, err)
	}
	var out []Finished
	for _, r := range rows {
		if len(out) == 0 || out[len(out)-1].Session != r.SessionID {
			out = append(out, Finished{Session: r.SessionID})
		}
		f := &out[len(out)-1]
		f.Used = append(f.Used, UsedOf{Kind: r.Kind, Name: r.Name, Calls: r.Calls, Usage: Usage{
			InputTokens: r.InputTokens, CacheReadTokens: r.CacheReadTokens, CacheWriteTokens: r.CacheWriteTokens,
			OutputTokens: r.OutputTokens, ReasoningTokens: r.ReasoningTokens, SandboxMillis: r.SandboxMs, Steps: r.Calls,
		}})
	}
	return out, nil
}
