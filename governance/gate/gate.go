package gate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// Priced is a quantity, at most, of something that has a price.
type Priced struct {
	Kind       prices.Kind
	Ref        string
	Quantities prices.Quantities
}

// Proposal is an effect that somebody wants: who, what, with which arguments, how much at most. The gate prices it, not the caller.
type Proposal struct {
	Step      id.Step
	Kind      Kind
	Name      string // the model or the tool
	Digest    Digest
	EffectKey string
	Quantity  []Priced
	// Within is how long the effect may take: the admission and the hold end with it.
	Within time.Duration
	// ToolUseID is the model's tool use that is proposed, if it is one.
	ToolUseID string
	// Action and Object are what is done and to what, Domain the host that the effect goes to; each empty where it has none.
	Action string
	Object string
	Domain string

	// Risk is the tool's class of risk; Tainted says that the session has read what came from outside.
	Risk    string
	Tainted bool
	// Asked says that people were asked about it before: what they said is looked at, though no rule asks any more.
	Asked bool

	// environment is asked about in questions only: there is one.
	environment string
}

// Decision is the gate's answer.
type Decision struct {
	Outcome   string // journal.Admitted, journal.Denied or journal.Waiting
	Reasons   []journal.Reason
	Shortfall *journal.Shortfall
	// Asked is what permissions looked at; nil where none were asked.
	Asked *journal.Asked
	// Hold is what was reserved; nil unless admitted.
	Hold *journal.HoldRef
	// Admission is nil unless admitted. It is of no use before the transaction has committed.
	Admission *Admission
	// Approval is what is waited for, or what was used; nil where nobody is asked. Fresh: it was asked for by this very decision.
	Approval *approval.Approval
	Fresh    bool
}

// Event is the decision as the journal keeps it.
func (d Decision) Event(p Proposal) journal.GateDecided {
	return journal.GateDecided{
		Decision: d.Outcome, Kind: string(p.Kind), Name: p.Name, Digest: hex.EncodeToString(p.Digest[:]), Reasons: d.Reasons,
		ToolUseID: p.ToolUseID, Shortfall: d.Shortfall, Asked: d.Asked,
	}
}

// Gate decides. It is safe for concurrent use.
type Gate struct {
	prices   *prices.Table
	policies *policy.Cache
	clock    clock.Clock
	log      *slog.Logger
	quoted   quotedTables
}

// New makes a gate over a price table and the organisations' rules.
func New(table *prices.Table, policies *policy.Cache, c clock.Clock, log *slog.Logger) *Gate {
	approval.Extend(policies)
	return &Gate{prices: table, policies: policies, clock: c, log: log}
}

// Reload reads an organisation's rules as they are now, after ErrRuled.
func (g *Gate) Reload(ctx context.Context, tx pgx.Tx, org id.Org) error {
	_, err := g.policies.Now(ctx, tx, org)
	return err
}

// Prices is the table that the gate prices with.
func (g *Gate) Prices() *prices.Table { return g.prices }

// permitted asks the rules. reason is nil when they allow the effect.
func permitted(rules *policy.Set, now time.Time, session *journal.Session, p Proposal, amount money.Nanos) (reason *journal.Reason, asked *journal.Asked) {
	if p.Kind == Exec {
		return &journal.Reason{Rule: "exec", Message: "A person's own commands in a sandbox are not permitted."}, nil
	}
	d := rules.Decide(policy.Request{
		Agent: session.Agent.ID, Project: session.Project, Model: session.Agent.Model, Tools: session.Agent.Tools,
		Kind: string(p.Kind), Name: p.Name, Action: p.Action, Object: p.Object, Amount: amount, At: now, Domain: p.Domain, Environment: p.environment,
	})
	if !d.Allowed() {
		r := d.Reason()
		return &r, d.Asked()
	}
	if reason := reachable(session.Agent, p); reason != nil {
		return reason, d.Asked()
	}
	return nil, d.Asked()
}

// reachable refuses an address outside of the platform that the agent's definition does not name.
func reachable(agent journal.Snapshot, p Proposal) *journal.Reason {
	if p.Domain == "" {
		return nil
	}
	hosts, _, err := egress.ParseRules(agent.Network.AllowedHosts)
	if err == nil {
		var to egress.Target
		if to, err = egress.ParseURL(p.Object); err == nil && hosts.Allow(to) {
			return nil
		}
	}
	may := "It may reach none."
	if len(agent.Network.AllowedHosts) > 0 {
		may = "It may reach: " + strings.Join(agent.Network.AllowedHosts, ", ") + "."
	}
	return &journal.Reason{Rule: "agent.network", Message: fmt.Sprintf("The host %s is not among those that this agent may reach. %s", p.Domain, may)}
}

func bound(table *prices.Table, now time.Time, quantity []Priced) (money.Nanos, []prices.Line, error) {
	var total money.Nanos
	var lines []prices.Line
	if len(quantity) == 0 {
		return 0, nil, errors.New("a proposal needs at least one priced quantity")
	}
	for _, q := range quantity {
		amount, more, err := table.Bound(now, q.Kind, q.Ref, q.Quantities)
		if err != nil {
			return 0, nil, err
		}
		if total, err = total.Add(amount); err != nil {
			return 0, nil, fmt.Errorf("price the proposal: %w", err)
		}
		lines = append(lines, more...)
	}
	return total, lines, nil
}

// Used is what an effect really used, for settlement.
type Used struct {
	Quantity []Priced
	// At is when the effect was admitted: a price that changed since does not count.
	At time.Time
}

// SettleTx is Settle in a transaction that has locked the session: for what is settled by others than its worker.
func (g *Gate) SettleTx(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked, hold id.Hold, used Used) (billing.Settled, error) {
	cost, err := g.cost(&session.Session, used)
	if err != nil {
		return billing.Settled{}, err
	}
	settled, err := billing.Settle(ctx, tx, now, session.Org, hold, cost)
	if err != nil {
		return billing.Settled{}, err
	}
	postgres.AfterCommit(tx, func() { g.reportExcess(ctx, session.Org, session.ID, hold, settled) })
	return settled, nil
}

func (g *Gate) cost(session *journal.Session, used Used) (cost money.Nanos, err error) {
	table, err := g.tableOf(session)
	if err != nil {
		return 0, err
	}
	for _, q := range used.Quantity {
		amount, _, err := table.Cost(used.At, q.Kind, q.Ref, q.Quantities)
		if err != nil {
			return 0, fmt.Errorf("price what was used: %w", err)
		}
		if cost, err = cost.Add(amount); err != nil {
			return 0, fmt.Errorf("price what was used: %w", err)
		}
	}
	return cost, nil
}

func (g *Gate) reportExcess(ctx context.Context, org id.Org, session id.Session, hold id.Hold, s billing.Settled) {
	if s.Excess > 0 {
		g.log.ErrorContext(ctx, "an effect used more than its hold; the excess is booked as the platform's loss",
			"org", org, "session", session, "hold", hold, "excess_nanos", int64(s.Excess))
	}
}

// Ceiling holds a session's price ceiling at once. It fails with 402 insufficient_funds, which names the shortfall, and then nothing is held.
func (g *Gate) Ceiling(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked, amount money.Nanos) error {
	if session.CeilingHold != "" {
		return fmt.Errorf("session %s has a ceiling held already", session.ID)
	}
	table, err := g.tableOf(&session.Session)
	if err != nil {
		return err
	}
	hold, short, err := billing.Place(ctx, tx, now, session.Org, billing.HoldRequest{
		Session: session.ID, Amount: amount, PriceVersion: table.Version(), Expires: now.AddDate(0, 0, 30),
	})
	if err != nil {
		return err
	}
	if short != nil {
		s, err := g.shortOf(ctx, tx, &session.Session, *short)
		if err != nil {
			return err
		}
		return insufficient(s)
	}
	return session.SetCeilingHold(ctx, hold)
}

// ReleaseCeiling gives back what is left of the session's ceiling. It returns what was released.
func (g *Gate) ReleaseCeiling(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked) (money.Nanos, error) {
	if session.CeilingHold == "" {
		return 0, nil
	}
	settled, err := billing.Settle(ctx, tx, now, session.Org, session.CeilingHold, 0)
	if err != nil {
		return 0, err
	}
	return settled.Released, session.SetCeilingHold(ctx, "")
}

// Covered refuses work for an organisation that has nothing left at all, before a session is made for it.
func (g *Gate) Covered(ctx context.Context, tx pgx.Tx, org id.Org) error {
	b, err := billing.ReadBalances(ctx, tx, org)
	if err != nil {
		return err
	}
	if b.Available > 0 {
		return nil
	}
	return insufficient(journal.Shortfall{Required: 1, Available: b.Available, Shortfall: 1 - b.Available, Scope: "organization", ID: string(org)})
}

func shortfall(org id.Org, session id.Session, s billing.Short) journal.Shortfall {
	out := journal.Shortfall{Required: s.Required, Available: s.Available, Shortfall: s.Required - s.Available, Scope: "organization", ID: string(org)}
	switch {
	case s.Budget != "":
		out.Scope, out.ID, out.Name = "budget", string(s.Budget), s.BudgetName
	case s.Ceiling != "":
		out.Scope, out.ID = "session", string(session)
	}
	return out
}

func insufficient(s journal.Shortfall) error {
	code := "insufficient_funds"
	if s.Scope == billing.ScopeMandate {
		code = "mandate_exceeded"
	}
	return fault.New(fault.PaymentRequired, code, s.Sentence()).
		With("required", s.Required).With("available", s.Available).With("shortfall", s.Shortfall).
		With("limiting", []map[string]any{{"scope": s.Scope, "id": s.ID, "available": s.Available}})
}
