package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) quoteRoutes() []Route {
	const tag = "Quotes"
	return []Route{
		{
			ID: "quotes.create", Method: http.MethodPost, Path: "/v1/quotes", Permission: tenants.SessionsWrite, Tag: tag, MaxBody: inputMaxBody + 512<<10,
			Summary: "Price work beforehand",
			Description: "Takes the body of an invoke and answers what that would cost, or, with effect in its place, what one model call or tool call would. Nothing is started and nothing is held.\n\n" +
				"low and likely are estimates: of a stored agent with at least three finished sessions on its model they are the cheapest tenth and the middle one of these at today's prices, otherwise they are reckoned from the tokens of the first request and from what basis.assumptions says. " +
				"ceiling is what the work may cost at most under the quote: what its steps can cost where they are bounded, otherwise three times likely and room for one more effect to be held, and never more than limits.max_cost. lines are what likely is made of; of an effect, the ceiling.\n\n" +
				"Sent as quote_id with the invoke before it expires, the quote binds its prices for the whole session, and its ceiling is held unless limits.max_cost names another.",
			Errors:   []string{"price_unknown", "session_running", "session_terminated", "archived", "not_available", slugMoney, slugTooLarge},
			Endpoint: write(http.StatusCreated, a.createQuote),
		},
		{
			ID: "quotes.get", Method: http.MethodGet, Path: "/v1/quotes/{quote_id}", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "Get a quote", Description: "One that nobody used is forgotten a week after it expired.", Endpoint: read(a.getQuote),
		},
	}
}

type quoteIn struct {
	Body quoteBody `body:"json"`
}

type quoteBody struct {
	workBody
	Input  *inputBlocks `json:"input" doc:"As of an invoke; needed unless effect is given."`
	Effect *quoteEffect `json:"effect" doc:"Prices one effect in place of a session; nothing else may be given then."`
}

// quoteEffect is one model call, or calls of one tool, and its quantities at most.
type quoteEffect struct {
	Kind             string `json:"kind" required:"true" enum:"model_call,tool_call"`
	Name             string `json:"name" required:"true" minlen:"1" maxlen:"200" example:"bash" doc:"The model or the tool."`
	InputTokens      int64  `json:"input_tokens" min:"0" max:"1000000000"`
	CacheReadTokens  int64  `json:"cache_read_tokens" min:"0" max:"1000000000"`
	CacheWriteTokens int64  `json:"cache_write_tokens" min:"0" max:"1000000000"`
	OutputTokens     int64  `json:"output_tokens" min:"0" max:"1000000000"`
	ReasoningTokens  int64  `json:"reasoning_tokens" min:"0" max:"1000000000" doc:"A part of the output tokens."`
	Calls            int64  `json:"calls" min:"0" max:"1000000" doc:"Of a tool; one when left out."`
	SandboxMillis    int64  `json:"sandbox_ms" min:"0" max:"604800000" doc:"A tool's time in a sandbox, in milliseconds."`
}

func (in *quoteIn) validate() (wrong []fault.Field) {
	b := &in.Body
	if b.Effect == nil {
		if b.Input == nil {
			wrong = append(wrong, fault.Field{Pointer: "/input", Code: schema.CodeMissing, Message: "Say what is to be done, as in an invoke; or give an effect."})
		}
		return append(wrong, b.wrong()...)
	}
	if b.Input != nil || b.Agent != nil || b.SessionID != nil || b.ParentID != nil || b.Overrides != nil || b.Limits != nil {
		wrong = append(wrong, fault.Field{Pointer: "/effect", Code: schema.CodeValue, Message: "An effect is priced by itself: leave agent, input, session, overrides and limits out."})
	}
	e := b.Effect
	tokens := e.InputTokens + e.CacheReadTokens + e.CacheWriteTokens + e.OutputTokens
	switch {
	case e.Kind == journal.KindModelCall && tokens == 0:
		wrong = append(wrong, fault.Field{Pointer: "/effect", Code: schema.CodeMissing, Message: "Say how many tokens the model call has."})
	case e.Kind == journal.KindModelCall && e.Calls+e.SandboxMillis > 0, e.Kind == journal.KindToolCall && tokens+e.ReasoningTokens > 0:
		wrong = append(wrong, fault.Field{Pointer: "/effect", Code: schema.CodeValue, Message: "A model call has tokens; a tool call has calls and sandbox_ms."})
	}
	return wrong
}

// Quote is an offer.
type Quote struct {
	ID           id.Quote    `json:"id"`
	Type         string      `json:"type" const:"quote"`
	Kind         string      `json:"kind" enum:"session,effect" doc:"What was priced."`
	Status       string      `json:"status" enum:"open,used,expired"`
	ProjectID    *id.Project `json:"project_id" doc:"null for an effect that a key of the whole organisation asked for."`
	Low          money.Nanos `json:"low" doc:"What it costs at the least, roughly."`
	Likely       money.Nanos `json:"likely"`
	Ceiling      money.Nanos `json:"ceiling" doc:"What it may cost at most under this quote."`
	Lines        []QuoteLine `json:"lines" doc:"What likely is made of; of an effect, the ceiling."`
	Basis        QuoteBasis  `json:"basis"`
	PriceVersion string      `json:"price_table_version" doc:"The price table that binds."`
	SessionID    *id.Session `json:"session_id" doc:"The session that used it; null until then."`
	CreatedAt    Time        `json:"created_at"`
	ExpiresAt    Time        `json:"expires_at" doc:"Until when it can be used."`
	UsedAt       *Time       `json:"used_at"`
}

// QuoteLine is a row of a quote: quantity units at unit_price for each per of them.
type QuoteLine struct {
	Kind      string      `json:"kind" enum:"model,tool,sandbox"`
	Ref       string      `json:"ref" doc:"The model, the tool with its mount, or the sandbox's size."`
	Unit      string      `json:"unit" enum:"input_token,cache_read_token,cache_write_token,output_token,reasoning_token,call,millisecond"`
	UnitPrice money.Nanos `json:"unit_price"`
	Per       int64       `json:"per"`
	Quantity  int64       `json:"quantity"`
	Amount    money.Nanos `json:"amount"`
}

// QuoteBasis says what a quote counts and what it assumes.
type QuoteBasis struct {
	From        string   `json:"from" enum:"history,assumptions,quantities"`
	Sessions    int      `json:"sessions" doc:"From how many finished sessions of the agent it was reckoned."`
	Assumptions []string `json:"assumptions"`
}

func (a *API) createQuote(ctx context.Context, tx pgx.Tx, in quoteIn) (Quote, error) {
	who, sessions := principal.From(ctx), a.cfg.Domains.Sessions
	if e := in.Body.Effect; e != nil {
		q, err := sessions.QuoteEffect(ctx, tx, who.Org, who.Project, scheduler.EffectQuantities{
			Kind: e.Kind, Name: e.Name, Calls: e.Calls, Tokens: journal.Usage{
				InputTokens: e.InputTokens, CacheReadTokens: e.CacheReadTokens, CacheWriteTokens: e.CacheWriteTokens,
				OutputTokens: e.OutputTokens, ReasoningTokens: e.ReasoningTokens, SandboxMillis: e.SandboxMillis,
			},
		})
		return a.quoteFrom(q), err
	}
	ask, err := a.asked(ctx, tx, &in.Body.workBody, *in.Body.Input)
	if err != nil {
		return Quote{}, err
	}
	q, err := sessions.Quote(ctx, tx, who.Org, ask)
	return a.quoteFrom(q), err
}

type quoteByID struct {
	ID id.Quote `path:"quote_id"`
}

func (a *API) getQuote(ctx context.Context, tx pgx.Tx, in quoteByID) (Quote, error) {
	who := principal.From(ctx)
	q, err := billing.GetQuote(ctx, tx, who.Org, who.Project, in.ID)
	return a.quoteFrom(q), err
}

func (a *API) quoteFrom(q billing.Quote) Quote {
	out := Quote{
		ID: q.ID, Type: "quote", Kind: q.Kind, Status: q.Status(a.cfg.Clock.Now()), Low: q.Low, Likely: q.Likely, Ceiling: q.Ceiling, Lines: []QuoteLine{},
		Basis: QuoteBasis(q.Basis), PriceVersion: q.PriceVersion, CreatedAt: Time(q.CreatedAt), ExpiresAt: Time(q.ExpiresAt),
	}
	for _, l := range q.Lines {
		out.Lines = append(out.Lines, QuoteLine{Kind: string(l.Kind), Ref: l.Ref, Unit: string(l.Unit), UnitPrice: l.UnitPrice, Per: l.Per, Quantity: l.Quantity, Amount: l.Amount})
	}
	if q.Project != "" {
		out.ProjectID = &q.Project
	}
	if q.Session != "" {
		out.SessionID = &q.Session
	}
	if q.UsedAt != nil {
		at := Time(*q.UsedAt)
		out.UsedAt = &at
	}
	return out
}
