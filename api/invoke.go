package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) invokeRoutes() []Route {
	return []Route{{
		ID: "invoke", Method: http.MethodPost, Path: "/v1/invoke", Permission: tenants.SessionsWrite, Tag: "Invoke", MaxBody: inputMaxBody + 512<<10,
		Summary: "Give an agent something to do",
		Description: "Starts a session, or continues the one that session_id names, and gives it the input. limits.max_cost is held before the first step: what can't be held is refused with 402 and nothing is started.\n\n" +
			"mode chooses only the answer, never the work: sync waits until the input is dealt with (200) or wait_seconds are over (202, still running); stream answers with server-sent events and ends with the event that ends the work on this input; async answers at once (202). A client that goes away never cancels anything.\n\n" +
			"With an Idempotency-Key a repeated request does not begin again: sync waits for the first one's session, stream replays its events from the input on.",
		Errors:    []string{"insufficient_funds", "price_unknown", "session_running", "session_terminated", "archived", "state_conflict", "quote_expired", "quote_used", "quote_mismatch", "not_available", slugMoney, slugTooLarge, slugKeyBusy, slugKeyReused},
		GivesWork: true,
		Endpoint:  admit(reflect.TypeFor[InvokeResult](), a.beginInvoke, a.replyInvoke),
	}}
}

type invokeIn struct {
	LastEventID string     `header:"Last-Event-ID" pattern:"^[0-9]{1,18}$" doc:"With mode stream and a repeated Idempotency-Key: replay from the event after this one."`
	Body        invokeBody `body:"json"`
}

type invokeBody struct {
	workBody
	Input   inputBlocks `json:"input" required:"true" example:"What is the capital of France?"`
	QuoteID *id.Quote   `json:"quote_id" doc:"A quote of this very work: its prices bind, and limits.max_cost is its ceiling when it is left out. A quote is good for one invoke."`
}

// workBody is what an invoke and a quote of one have in common.
type workBody struct {
	Agent         *agentChoice `json:"agent" doc:"A stored agent's id; {id} with a version or an alias; or a definition with a model. Left out with session_id."`
	Mode          string       `json:"mode" enum:"sync,stream,async" default:"sync"`
	SessionID     *id.Session  `json:"session_id" doc:"Continues this session."`
	ParentID      *id.Session  `json:"parent_session_id" doc:"Starts the new session below this one: it must live, be of the same project, and allow the depth. It is stopped with it."`
	EnvironmentID *string      `json:"environment_id" doc:"Not available yet."`
	Overrides     *overrides   `json:"overrides" doc:"Replaces parts of a stored agent's definition for this new session."`
	Limits        *Limits      `json:"limits" doc:"May narrow the agent's limits, not widen them."`
	MandateID     *id.Mandate  `json:"mandate_id" doc:"The mandate under which a new session runs: it must be in force, and the agent's. A session keeps it; one below another runs under the same or under one that narrows it."`
	IfRunning     *string      `json:"if_running" enum:"queue,interrupt,reject" doc:"What to do when the session is at work. The agent's own choice when left out."`
	WaitSeconds   *int64       `json:"wait_seconds" min:"1" max:"600" default:"55" doc:"How long sync waits."`
	Title         string       `json:"title" maxlen:"200"`
	Metadata      Metadata     `json:"metadata"`
}

type overrides struct {
	Model     *string   `json:"model" minlen:"1" maxlen:"200"`
	System    *string   `json:"system" maxlen:"262144"`
	Tools     *[]string `json:"tools" maxitems:"64"`
	MaxTokens *int64    `json:"max_tokens" min:"1" max:"128000"`
}

// agentChoice is the three ways to say which agent.
type agentChoice struct {
	stored *agents.Ref
	inline *journal.Definition
}

type storedAgent struct {
	ID      id.Agent `json:"id" required:"true"`
	Version *int     `json:"version" min:"1" max:"1000000000"`
	Alias   *string  `json:"alias" pattern:"^[a-z][a-z0-9-]{0,62}$"`
}

type inlineAgent struct {
	Model     string   `json:"model" required:"true" minlen:"1" maxlen:"200"`
	System    string   `json:"system" maxlen:"262144"`
	Tools     []string `json:"tools" maxitems:"64"`
	MaxTokens *int64   `json:"max_tokens" min:"1" max:"128000"`
	Network   *Network `json:"network"`
}

// JSONSchema implements schema.Provider.
func (agentChoice) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return &schema.Schema{OneOf: []*schema.Schema{
		schema.IDSchema("agt"), b.Of(reflect.TypeFor[storedAgent](), d), b.Of(reflect.TypeFor[inlineAgent](), d),
	}}
}

// UnmarshalJSON implements json.Unmarshaler. The schema has been looked at before.
func (c *agentChoice) UnmarshalJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	if raw[0] == '"' {
		c.stored = &agents.Ref{}
		return json.Unmarshal(raw, &c.stored.Agent)
	}
	var stored storedAgent
	if err := json.Unmarshal(raw, &stored); err == nil && stored.ID != "" {
		c.stored = &agents.Ref{Agent: stored.ID}
		if stored.Version != nil {
			c.stored.Version = *stored.Version
		}
		if stored.Alias != nil {
			c.stored.Alias = *stored.Alias
		}
		return nil
	}
	var inline inlineAgent
	if err := json.Unmarshal(raw, &inline); err != nil {
		return err
	}
	c.inline = &journal.Definition{Model: inline.Model, System: inline.System, Tools: inline.Tools, MaxTokens: orZero(inline.MaxTokens), Network: inline.Network.domain()}
	return nil
}

// inputBlocks is text, or content blocks.
type inputBlocks []journal.Block

// Block is a piece of content.
type Block struct {
	Type string `json:"type" const:"text" required:"true"`
	Text string `json:"text" required:"true" minlen:"1"`
}

// JSONSchema implements schema.Provider.
func (inputBlocks) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return &schema.Schema{Description: "Text, or content blocks.", OneOf: []*schema.Schema{
		{Type: schema.Types{"string"}, MinLength: schema.Int(1)},
		{Type: schema.Types{"array"}, Items: b.Of(reflect.TypeFor[Block](), d), MinItems: schema.Int(1), MaxItems: schema.Int(100)},
	}}
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *inputBlocks) UnmarshalJSON(raw []byte) error {
	if raw = bytes.TrimSpace(raw); raw[0] == '"' {
		var text string
		err := json.Unmarshal(raw, &text)
		*i = journal.Text(text)
		return err
	}
	return json.Unmarshal(raw, (*[]journal.Block)(i))
}

func (in *invokeIn) validate() (wrong []fault.Field) { return in.Body.wrong() }

// wrong lists what contradicts itself.
func (b *workBody) wrong() (wrong []fault.Field) {
	if b.Agent == nil && b.SessionID == nil {
		wrong = append(wrong, fault.Field{Pointer: "/agent", Code: schema.CodeMissing, Message: "Say which agent: agent, or session_id to continue a session."})
	}
	if c := b.Agent; c != nil && c.stored != nil && c.stored.Version > 0 && c.stored.Alias != "" {
		wrong = append(wrong, fault.Field{Pointer: "/agent", Code: schema.CodeValue, Message: "Name a version or an alias, not both."})
	}
	if b.WaitSeconds != nil && b.Mode != "" && b.Mode != "sync" {
		wrong = append(wrong, fault.Field{Pointer: "/wait_seconds", Code: schema.CodeValue, Message: "wait_seconds belongs to mode sync."})
	}
	return wrong
}

// ticket is what an accepted invoke leaves: enough to answer it, now or when the request is repeated.
type ticket struct {
	Session  id.Session  `json:"session_id"`
	Input    id.Event    `json:"input_event_id"`
	InputSeq int64       `json:"input_seq"`
	FirstSeq int64       `json:"first_seq"`
	Held     money.Nanos `json:"held"`
}

func (a *API) beginInvoke(ctx context.Context, tx pgx.Tx, in invokeIn) (ticket, error) {
	who, b := principal.From(ctx), &in.Body
	ask, err := a.asked(ctx, tx, &b.workBody, b.Input)
	if err != nil {
		return ticket{}, err
	}
	if b.QuoteID != nil {
		ask.Quote = *b.QuoteID
	}
	got, err := a.cfg.Domains.Sessions.Invoke(ctx, tx, who.Org, ask)
	if err != nil {
		return ticket{}, err
	}
	if _, err := a.cfg.Domains.Tenants.RequireActiveProjectTx(ctx, tx, who.Org, got.Session.Project); err != nil {
		return ticket{}, err
	}
	t := ticket{Session: got.Session.ID, Input: got.Input.ID, InputSeq: got.Input.Seq, FirstSeq: 1, Held: got.Held}
	if b.SessionID != nil {
		t.FirstSeq = t.InputSeq
	}
	return t, nil
}

// asked is what a body asks of the scheduler.
func (a *API) asked(ctx context.Context, tx pgx.Tx, b *workBody, input inputBlocks) (scheduler.InvokeInput, error) {
	who := principal.From(ctx)
	for _, missing := range []struct {
		name  string
		value *string
	}{{"environment_id", b.EnvironmentID}} {
		if missing.value != nil {
			f := fault.Newf(fault.Invalid, "not_available", "%s is not available on this instance. Leave it out.", missing.name)
			f.Fields = []fault.Field{{Pointer: "/" + missing.name, Code: "not_available", Message: f.Message}}
			return scheduler.InvokeInput{}, f
		}
	}
	ask := scheduler.InvokeInput{Project: who.Project, Input: input, Title: b.Title, Metadata: b.Metadata}
	if b.Agent != nil {
		ask.Agent, ask.Inline = b.Agent.stored, b.Agent.inline
	}
	if ask.Inline != nil && who.Project == "" && b.SessionID == nil {
		_, err := a.workProject(ctx, tx)
		return scheduler.InvokeInput{}, err
	}
	if b.SessionID != nil {
		ask.Session = *b.SessionID
	}
	if b.ParentID != nil {
		ask.Parent = *b.ParentID
	}
	if b.MandateID != nil {
		ask.Mandate = *b.MandateID
	}
	if o := b.Overrides; o != nil {
		ask.Overrides = scheduler.Overrides{Model: o.Model, System: o.System, Tools: o.Tools, MaxTokens: o.MaxTokens}
	}
	if b.Limits != nil {
		l := b.Limits.domain()
		ask.Limits = &l
	}
	if b.IfRunning != nil {
		ask.IfRunning = *b.IfRunning
	}
	return ask, nil
}

func (a *API) replyInvoke(c *call, in invokeIn, t ticket) error {
	c.w.Header().Set("Location", "/v1/sessions/"+string(t.Session))
	switch in.Body.Mode {
	case "stream":
		leave, err := a.open.enter(c.who.ID)
		if err != nil {
			return err
		}
		defer leave()
		f := follow{
			api: a, org: c.who.Org, session: t.Session, after: t.FirstSeq - 1, deltas: []string{"agent.message"},
			ends: func(e journal.Event) bool { return e.Seq > t.InputSeq && answers(e, t.Input) },
		}
		if seen, err := strconv.ParseInt(in.LastEventID, 10, 64); err == nil && seen > f.after {
			f.after = seen
		}
		return f.run(c)
	case "async":
		return a.sendResult(c, t, false)
	default:
		wait := 55 * time.Second
		if s := in.Body.WaitSeconds; s != nil {
			wait = time.Duration(*s) * time.Second
		}
		answered := false
		_, err := c.await(t.Session, wait, func(s journal.Session) bool {
			if s.AtWork() || s.LastSeq <= t.InputSeq {
				return false
			}
			answered = a.wasAnswered(c, t)
			return answered
		})
		if err != nil {
			return err
		}
		return a.sendResult(c, t, answered)
	}
}

// answers says whether an event ends the work on an input.
func answers(e journal.Event, input id.Event) bool {
	switch e.Type {
	case journal.StatusTerminated{}.EventType():
		return true
	case journal.StatusIdle{}.EventType():
		p, err := journal.Decode[journal.StatusIdle](e)
		return err == nil && slices.Contains(p.InputEventIDs, input)
	default:
		return false
	}
}

// wasAnswered looks for the event that ended the work on the ticket's input. An error counts as not yet: the wait goes on and meets it
// again.
func (a *API) wasAnswered(c *call, t ticket) (found bool) {
	after := t.InputSeq
	for {
		var batch []journal.Event
		err := c.inTx(func(ctx context.Context, tx pgx.Tx) (err error) {
			batch, err = journal.Events(ctx, tx, c.who.Org, t.Session, journal.EventFilter{
				After: after, Types: []string{journal.StatusIdle{}.EventType(), journal.StatusTerminated{}.EventType()}, Limit: streamBatch,
			})
			return err
		})
		if err != nil || len(batch) == 0 {
			return false
		}
		for _, e := range batch {
			if answers(e, t.Input) {
				return true
			}
			after = e.Seq
		}
	}
}

// InvokeResult is what became of an input, as far as it is known.
type InvokeResult struct {
	Type       string      `json:"type" const:"invoke_result"`
	SessionID  id.Session  `json:"session_id"`
	Status     string      `json:"status" enum:"running,rescheduling,idle,terminated"`
	StopReason *StopInfo   `json:"stop_reason" doc:"null while it runs."`
	Agent      AgentHandle `json:"agent"`
	Output     []Block     `json:"output" doc:"The agent's last message; empty while it runs."`
	Usage      Usage       `json:"usage" doc:"Of this input's steps."`
	Cost       InvokeCost  `json:"cost"`
	FirstSeq   int64       `json:"first_seq"`
	LastSeq    int64       `json:"last_seq"`
}

// AgentHandle names an agent version; both are null for one that was written into the invoke.
type AgentHandle struct {
	ID      *id.Agent `json:"id"`
	Version *int      `json:"version"`
}

// InvokeCost is the money of one input.
type InvokeCost struct {
	Held     money.Nanos `json:"held" doc:"What the price ceiling held at the start; zero without one."`
	Charged  money.Nanos `json:"charged"`
	Released money.Nanos `json:"released" doc:"What was given back at the end."`
}

// sendResult answers 200 when the input has been dealt with, else 202.
func (a *API) sendResult(c *call, t ticket, answered bool) error {
	out := InvokeResult{Type: "invoke_result", SessionID: t.Session, Output: []Block{}, FirstSeq: t.FirstSeq, Cost: InvokeCost{Held: t.Held}}
	err := c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		s, err := journal.Get(ctx, tx, c.who.Org, t.Session)
		if err != nil {
			return err
		}
		ref := agentRefFrom(s.Agent)
		out.Agent = AgentHandle{ID: ref.ID, Version: ref.Version}
		out.Status, out.LastSeq = string(s.Status), s.LastSeq
		if err := a.sumSteps(ctx, tx, c.who.Org, t, &out); err != nil {
			return err
		}
		if !answered {
			out.Status = string(journal.Running)
			return nil
		}
		if s.StopReason != nil {
			out.StopReason = &StopInfo{*s.StopReason}
		}
		return a.lastWords(ctx, tx, c.who.Org, t, &out)
	})
	if err != nil {
		return err
	}
	// The client may have waited for minutes.
	if err := httpx.ExtendWrite(c.w, writeTimeout); err != nil {
		return err
	}
	if answered {
		return c.answer(http.StatusOK, out)
	}
	return c.answer(http.StatusAccepted, out)
}

func (a *API) sumSteps(ctx context.Context, tx pgx.Tx, org id.Org, t ticket, out *InvokeResult) error {
	const batch = 1000
	var sum journal.Usage
	for after := t.InputSeq; ; {
		steps, err := journal.Steps(ctx, tx, org, t.Session, after, batch)
		if err != nil {
			return err
		}
		for _, s := range steps {
			after = s.IntendedSeq
			if s.SettledSeq == 0 {
				continue
			}
			sum.Add(s.Usage)
			sum.Steps++
			if out.Cost.Charged, err = out.Cost.Charged.Add(s.Cost); err != nil {
				return err
			}
		}
		if len(steps) < batch {
			out.Usage = usageFrom(sum)
			return nil
		}
	}
}

// lastWords fills in what the agent said last after the input, and what was released.
func (a *API) lastWords(ctx context.Context, tx pgx.Tx, org id.Org, t ticket, out *InvokeResult) error {
	last := func(eventType string) (*journal.Event, error) {
		found, err := journal.Events(ctx, tx, org, t.Session, journal.EventFilter{Types: []string{eventType}, Descending: true, Limit: 1})
		if err != nil || len(found) == 0 || found[0].Seq <= t.InputSeq {
			return nil, err
		}
		return &found[0], nil
	}
	said, err := last(journal.AgentMessage{}.EventType())
	if err != nil {
		return err
	}
	if said != nil {
		m, err := journal.Decode[journal.AgentMessage](*said)
		if err != nil {
			return err
		}
		for _, b := range m.Content {
			out.Output = append(out.Output, Block{Type: b.Type, Text: b.Text})
		}
	}
	used, err := last(journal.SessionUsage{}.EventType())
	if err != nil || used == nil {
		return err
	}
	u, err := journal.Decode[journal.SessionUsage](*used)
	out.Cost.Released = u.Cost.Released
	return err
}
