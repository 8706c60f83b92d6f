package scheduler

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// ExplainInput asks whether an agent may have an effect, and whether there is the money for it.
type ExplainInput struct {
	// Agent would do it, in its newest version: in the session, or in one that the caller would start. It must be the session's own.
	Agent   agents.Agent
	Session *journal.Session

	Kind        string
	Name        string
	Action      string
	Object      string // a web address is taken in its one spelling, with its host as the domain
	Domain      string
	Environment string
	// Used are the quantities that it would have at most. Where they are empty and Amount is nil, those of the least that could be proposed are taken:
	// a model call with an empty message, one call of a tool, a minute of a sandbox.
	Used   EffectQuantities
	Amount *money.Nanos
	At     *time.Time
}

// Explain says what the gate would decide. It has no side effect.
func (s *Service) Explain(ctx context.Context, tx pgx.Tx, org id.Org, in ExplainInput) (gate.Answer, error) {
	q := gate.Question{
		Org: org, Kind: gate.Kind(in.Kind), Name: in.Name, Action: in.Action, Object: in.Object, Domain: in.Domain, Environment: in.Environment, At: s.clock.Now().UTC(),
	}
	if in.At != nil {
		q.At = *in.At
	}
	if strings.Contains(q.Object, "://") {
		if to, err := egress.ParseURL(q.Object); err == nil {
			q.Object, q.Domain = to.WithoutQuery(), to.Host.String()
		}
	}
	if in.Session != nil {
		q.Session = *in.Session
		var err error
		if q.Scopes, err = journal.BudgetScopesOf(ctx, tx, org, in.Session.ID); err != nil {
			return gate.Answer{}, err
		}
	} else {
		snapshot := journal.Snapshot{ID: in.Agent.ID, Name: in.Agent.Name, Version: in.Agent.Version, Definition: in.Agent.Definition}
		q.Session = journal.Session{Org: org, Project: in.Agent.Project, Agent: snapshot, Limits: snapshot.Limits, By: principal.From(ctx)}
		q.Scopes = journal.New{Org: org, Project: in.Agent.Project, Agent: snapshot, By: q.Session.By}.BudgetScopes()
	}
	if in.Amount != nil {
		q.Amount = *in.Amount
	} else {
		q.Quantity = s.quantities(q.Session.Agent, in)
	}
	return s.gate.Explain(ctx, tx, q)
}

// quantities are those that were named, or of the least that could be proposed.
func (s *Service) quantities(agent journal.Snapshot, in ExplainInput) []gate.Priced {
	named := in.Used.Tokens != (journal.Usage{}) || in.Used.Calls > 0
	switch in.Kind {
	case journal.KindModelCall:
		if named {
			return []gate.Priced{modelQuantities(in.Name, in.Used.Tokens)}
		}
		r := models.Request{Model: in.Name, System: agent.System, MaxTokens: agent.MaxTokens, Messages: []models.Message{{Role: models.User}}}
		if s.tools != nil {
			r.Tools = s.tools.Definitions(agent.Tools)
		}
		return models.Priced(r)
	case journal.KindToolCall:
		out := toolQuantities(in.Name)
		out[0].Quantities = prices.Quantities{prices.Call: max(1, in.Used.Calls)}
		return out // the time of its sandbox is held by itself
	case journal.KindSandbox:
		millis := in.Used.Tokens.SandboxMillis
		if millis == 0 {
			millis = sandbox.MaxTick.Milliseconds()
		}
		return []gate.Priced{{Kind: prices.Sandbox, Ref: sandbox.Size, Quantities: prices.Quantities{prices.Millisecond: millis}}}
	}
	return nil
}

// limitOf is how long a call of a tool may take whose arguments name no limit.
func (p prospect) limitOf(name string) time.Duration {
	if t, ok := p.tool(name); ok {
		return t.Limit(json.RawMessage("{}"))
	}
	return time.Minute
}
