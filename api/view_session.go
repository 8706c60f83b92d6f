package api

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
)

// Session is a session on the wire.
type Session struct {
	ID              id.Session  `json:"id"`
	Type            string      `json:"type" const:"session"`
	ProjectID       id.Project  `json:"project_id"`
	Agent           AgentRef    `json:"agent" doc:"The agent as the session took it."`
	Status          string      `json:"status" enum:"running,rescheduling,idle,terminated" doc:"What it is doing. A new session is rescheduling: it waits for a worker."`
	StopReason      *StopInfo   `json:"stop_reason" doc:"Why it is idle or terminated; null while it works."`
	Title           string      `json:"title"`
	ParentID        *id.Session `json:"parent_session_id"`
	Sandbox         *id.Sandbox `json:"sandbox_id" doc:"The sandbox that it has now; null while it has none."`
	Environment     *string     `json:"environment_id" doc:"null: the installation's default environment."`
	ForkedFrom      *ForkOrigin `json:"forked_from" doc:"null unless it was forked from another."`
	Mandate         *id.Mandate `json:"mandate_id" doc:"null without a mandate."`
	QuoteID         *id.Quote   `json:"quote_id" doc:"The quote by whose prices it runs; null where those of the moment count."`
	RequiredActions []id.Event  `json:"required_actions" doc:"The events that wait for an answer."`
	Hibernated      bool        `json:"hibernated"`
	Principal       Actor       `json:"principal" doc:"Who began it."`
	Limits          Limits      `json:"limits"`
	Usage           Usage       `json:"usage"`
	Cost            Cost        `json:"cost"`
	LastSeq         int64       `json:"last_seq" doc:"The number of the newest event."`
	Metadata        Metadata    `json:"metadata"`
	Version         int64       `json:"version"`
	CreatedAt       Time        `json:"created_at"`
	UpdatedAt       Time        `json:"updated_at"`
	ArchivedAt      *Time       `json:"archived_at"`
	TraceID         string      `json:"trace_id"`
	URL             string      `json:"url" doc:"Its page in the console."`
}

func (s Session) entityTag() string { return quoteTag(s.Version) }

// ForkOrigin is where a forked session began.
type ForkOrigin struct {
	SessionID    id.Session     `json:"session_id"`
	Seq          int64          `json:"seq"`
	CheckpointID *id.Checkpoint `json:"checkpoint_id"`
}

// AgentRef is the agent of a session: which one, and the definition that the session runs on.
type AgentRef struct {
	ID        *id.Agent `json:"id" doc:"null for an agent that was written into the invoke."`
	Name      string    `json:"name"`
	Version   *int      `json:"version"`
	Model     string    `json:"model"`
	System    string    `json:"system"`
	Tools     []string  `json:"tools"`
	MaxTokens int64     `json:"max_tokens"`
	Network   Network   `json:"network"`
}

// Actor is who did something.
type Actor struct {
	Type       string  `json:"type" doc:"user, api_key, agent or system."`
	ID         string  `json:"id"`
	OnBehalfOf *string `json:"on_behalf_of"`
}

// StopInfo says why a session is idle or terminated.
type StopInfo struct{ journal.StopReason }

// JSONSchema implements schema.Provider.
func (StopInfo) JSONSchema(b *schema.Builder, _ schema.Direction) *schema.Schema {
	return &schema.Schema{
		Type: schema.Types{"object"}, Required: []string{"type"},
		Properties: schema.Properties{
			{Name: "type", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "end_turn, interrupted, budget_reached, max_tokens, refusal, retries_exhausted, archived, killed, failed, expired…"}},
			{Name: "limit", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "Of a budget_reached: cost, tokens, steps, wall_time or depth."}},
			{Name: "scope", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "Whose limit it was: session (its own limits), budget or organization (its balance)."}},
			{Name: "scope_id", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "The budget's id, or that of whatever else the scope is; left out where it is the session's limit of tokens, steps or time."}},
			{Name: "scope_name", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "The budget's name."}},
			{Name: "reason", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "In words: what was short and by how much, or why it was interrupted or ended."}},
			{Name: "receipt_id", Schema: schema.IDSchema("rcp")},
			{Name: "error", Schema: &schema.Schema{Type: schema.Types{"object"}, Description: "Of a failure: code, message, details."}},
		},
	}
}

// MarshalJSON implements json.Marshaler: the journal's own form is the wire's.
func (s StopInfo) MarshalJSON() ([]byte, error) { return json.Marshal(s.StopReason) }

// Limits bound a session. null is no limit beyond the platform's own.
type Limits struct {
	MaxCost        *money.Nanos `json:"max_cost" money:"positive" doc:"The most that it may cost; held before the first step."`
	MaxTokens      *int64       `json:"max_tokens" min:"1" max:"1000000000" doc:"The most tokens, of all kinds together."`
	MaxSteps       *int64       `json:"max_steps" min:"1" max:"1000000" doc:"The most steps: model calls and tool calls."`
	MaxWallSeconds *int64       `json:"max_wall_seconds" min:"1" max:"31622400" doc:"The longest time since its creation."`
	MaxDepth       *int64       `json:"max_depth" min:"1" max:"64" doc:"How deep sessions may start sessions."`
}

func limitsFrom(l journal.Limits) Limits {
	return Limits{
		MaxCost: l.MaxCost, MaxTokens: positive(l.MaxTokens), MaxSteps: positive(l.MaxSteps),
		MaxWallSeconds: positive(l.MaxWallSeconds), MaxDepth: positive(l.MaxDepth),
	}
}

func (l Limits) domain() journal.Limits {
	return journal.Limits{
		MaxCost: l.MaxCost, MaxTokens: orZero(l.MaxTokens), MaxSteps: orZero(l.MaxSteps),
		MaxWallSeconds: orZero(l.MaxWallSeconds), MaxDepth: orZero(l.MaxDepth),
	}
}

func positive(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func orZero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// Usage counts what was used. Each token is in one count only.
type Usage struct {
	InputTokens      int64 `json:"input_tokens" doc:"Without cached ones."`
	CacheReadTokens  int64 `json:"cache_read_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
	OutputTokens     int64 `json:"output_tokens"`
	Steps            int64 `json:"steps"`
}

func usageFrom(u journal.Usage) Usage {
	return Usage{
		InputTokens: u.InputTokens, CacheReadTokens: u.CacheReadTokens, CacheWriteTokens: u.CacheWriteTokens,
		OutputTokens: u.OutputTokens, Steps: u.Steps,
	}
}

// Cost is the money of a session.
type Cost struct {
	Held    money.Nanos `json:"held" doc:"What its price ceiling holds now."`
	Charged money.Nanos `json:"charged" doc:"What it has cost so far: the sum of the ledger's captures."`
}

func (a *API) showSession(ctx context.Context, tx pgx.Tx, s journal.Session) (Session, error) {
	shown, err := a.showSessions(ctx, tx, s.Org, s)
	if err != nil {
		return Session{}, err
	}
	return shown[0], nil
}

// showSessions adds to sessions what stands elsewhere: the hold of the price ceiling, the sandbox.
func (a *API) showSessions(ctx context.Context, tx pgx.Tx, org id.Org, sessions ...journal.Session) ([]Session, error) {
	ids := make([]id.Session, len(sessions))
	for i, s := range sessions {
		ids[i] = s.ID
	}
	live, err := sandbox.LiveOf(ctx, tx, org, ids...)
	if err != nil {
		return nil, err
	}
	out := make([]Session, len(sessions))
	for i, s := range sessions {
		held, err := heldBy(ctx, tx, s)
		if err != nil {
			return nil, err
		}
		out[i] = a.sessionFrom(s, held)
		if b, has := live[s.ID]; has {
			out[i].Sandbox = &b.ID
		}
	}
	return out, nil
}

func (a *API) sessionFrom(s journal.Session, held money.Nanos) Session {
	out := Session{
		ID: s.ID, Type: "session", ProjectID: s.Project, Status: string(s.Status), Title: s.Title, Principal: actorFrom(s.By),
		Agent: agentRefFrom(s.Agent), Limits: limitsFrom(s.Limits), Usage: usageFrom(s.Usage),
		Cost: Cost{Held: held, Charged: s.Charged}, LastSeq: s.LastSeq, Metadata: s.Metadata, Version: s.Version,
		CreatedAt: Time(s.CreatedAt), UpdatedAt: Time(s.UpdatedAt), ArchivedAt: timePtr(s.ArchivedAt),
		TraceID: journal.TraceID(string(s.ID)), URL: a.cfg.BaseURL + "/x/" + string(s.ID),
	}
	if out.Metadata == nil {
		out.Metadata = Metadata{}
	}
	out.RequiredActions = []id.Event{}
	if s.StopReason != nil {
		out.StopReason = &StopInfo{*s.StopReason}
		out.RequiredActions = append(out.RequiredActions, s.StopReason.EventIDs...)
	}
	if s.Parent != "" {
		out.ParentID = &s.Parent
	}
	if s.Quote != nil {
		out.QuoteID = &s.Quote.Quote
	}
	if s.Mandate != "" {
		out.Mandate = &s.Mandate
	}
	return out
}

func agentRefFrom(s journal.Snapshot) AgentRef {
	out := AgentRef{Name: s.Name, Model: s.Model, System: s.System, Tools: s.Tools, MaxTokens: s.MaxTokens, Network: networkFrom(s.Network)}
	if s.ID != "" {
		out.ID, out.Version = &s.ID, &s.Version
	}
	if out.Tools == nil {
		out.Tools = []string{}
	}
	return out
}

func actorFrom(by journal.Actor) Actor {
	out := Actor{Type: string(by.Kind), ID: by.ID}
	if by.OnBehalfOf != "" {
		out.OnBehalfOf = &by.OnBehalfOf
	}
	return out
}

// Event is an event of a journal on the wire; its payload's members stand beside its own.
type Event struct{ journal.Event }

// MarshalJSON implements json.Marshaler.
func (e Event) MarshalJSON() ([]byte, error) { return e.Event.MarshalJSON() }

// JSONSchema implements schema.Provider.
func (Event) JSONSchema(b *schema.Builder, _ schema.Direction) *schema.Schema {
	return &schema.Schema{
		Type: schema.Types{"object"}, Required: []string{"id", "type", "seq", "session_id", "step_id", "epoch", "created_at"},
		Description: "One event of a session's journal. What its type says stands beside these members.",
		Properties: schema.Properties{
			{Name: "id", Schema: schema.IDSchema("evt")},
			{Name: "type", Schema: &schema.Schema{Type: schema.Types{"string"}, Description: "user.message, agent.message, agent.tool_use, step.settled, session.status_idle…"}},
			{Name: "seq", Schema: &schema.Schema{Type: schema.Types{"integer"}, Minimum: schema.Int(1), Description: "1, 2, 3… within the session, without a gap."}},
			{Name: "session_id", Schema: schema.IDSchema("ses")},
			{Name: "step_id", Schema: &schema.Schema{Type: schema.Types{"string", "null"}}},
			{Name: "epoch", Schema: &schema.Schema{Type: schema.Types{"integer"}}},
			{Name: "created_at", Schema: &schema.Schema{Type: schema.Types{"string"}, Format: "date-time"}},
		},
	}
}

// Step is one durable effect on the wire.
type Step struct {
	ID          id.Step              `json:"id"`
	Type        string               `json:"type" const:"step"`
	SessionID   id.Session           `json:"session_id"`
	Kind        string               `json:"kind" doc:"model_call, tool_call, exec or sandbox."`
	Name        string               `json:"name" doc:"The model or the tool."`
	Status      string               `json:"status" enum:"intended,settled,unknown"`
	Outcome     *string              `json:"outcome" doc:"succeeded, failed, unknown or cancelled; null while it is open."`
	EffectKey   string               `json:"effect_key"`
	HoldID      *id.Hold             `json:"hold_id"`
	Usage       Usage                `json:"usage"`
	Cost        money.Nanos          `json:"cost"`
	Error       *journal.ErrorDetail `json:"error"`
	IntendedSeq int64                `json:"intended_seq"`
	SettledSeq  *int64               `json:"settled_seq"`
	IntendedAt  Time                 `json:"intended_at"`
	SettledAt   *Time                `json:"settled_at"`
}

func stepFrom(s journal.Step) Step {
	out := Step{
		ID: s.ID, Type: "step", SessionID: s.Session, Kind: s.Kind, Name: s.Name, Status: "intended", EffectKey: s.EffectKey,
		Usage: usageFrom(s.Usage), Cost: s.Cost, Error: s.Error, IntendedSeq: s.IntendedSeq, SettledSeq: positive(s.SettledSeq),
		IntendedAt: Time(s.IntendedAt), SettledAt: timePtr(s.SettledAt),
	}
	if s.Outcome != "" {
		out.Outcome, out.Status = &s.Outcome, "settled"
	}
	if s.Outcome == journal.Unknown {
		out.Status = "unknown"
	}
	if s.Hold != "" {
		out.HoldID = &s.Hold
	}
	return out
}

func (Session) exactTag() {}
