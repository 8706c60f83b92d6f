package models

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/journal"
)

// Config of a Gateway.
type Config struct {
	// Providers are those that are configured; their names must differ.
	Providers []Provider
	Clock     clock.Clock
	Log       *slog.Logger
	// RefreshEvery is how old a provider's list of models may get; zero means five minutes.
	RefreshEvery time.Duration
}

// Gateway finds a model's provider and makes the call. It is safe for concurrent use.
type Gateway struct {
	clock   clock.Clock
	log     *slog.Logger
	every   time.Duration
	routes  map[string]*route
	ordered []*route
}

type route struct {
	provider Provider
	mu       sync.Mutex // held while the list is fetched, so that it is fetched once
	list     []Model
	next     time.Time // when the list is due
	tried    time.Time
	failing  bool
}

const (
	refreshEvery = 5 * time.Minute
	retryEvery   = 30 * time.Second
	missEvery    = 10 * time.Second
	listLimit    = 5 * time.Second
)

// New makes a gateway. It asks no provider anything yet.
func New(c Config) (*Gateway, error) {
	g := &Gateway{clock: c.Clock, log: c.Log, every: c.RefreshEvery, routes: map[string]*route{}}
	if g.every <= 0 {
		g.every = refreshEvery
	}
	for _, p := range c.Providers {
		name := p.Name()
		if name == "" || strings.ContainsAny(name, "/ ") {
			return nil, fmt.Errorf("a model provider's name is one word without a slash, not %q", name)
		}
		if g.routes[name] != nil {
			return nil, fmt.Errorf("there are two model providers named %q", name)
		}
		r := &route{provider: p}
		g.routes[name] = r
		g.ordered = append(g.ordered, r)
	}
	return g, nil
}

// route finds the provider of a gateway id.
func (g *Gateway) route(model string) (*route, error) {
	name, rest, ok := strings.Cut(model, "/")
	if r := g.routes[name]; ok && rest != "" && r != nil {
		return r, nil
	}
	return nil, fault.InvalidField("/model", "unknown_model",
		fmt.Sprintf("There is no model %q here. GET /v1/models lists those that there are.", clip(model, 200)))
}

// Models lists what can be called, the built-in model first, each provider's in order of id. A provider that can't be asked
// contributes what it last said.
func (g *Gateway) Models(ctx context.Context) []Model {
	var all []Model
	for _, r := range g.ordered {
		all = append(all, g.models(ctx, r, g.clock.Now())...)
	}
	return all
}

// Lookup describes one model. A provider whose list lacks it is asked once more, at most every ten seconds, for it may be new.
func (g *Gateway) Lookup(ctx context.Context, id string) (Model, bool) {
	r, err := g.route(id)
	if err != nil {
		return Model{}, false
	}
	find := func(list []Model) (Model, bool) {
		i := slices.IndexFunc(list, func(m Model) bool { return m.ID == id })
		if i < 0 {
			return Model{}, false
		}
		return list[i], true
	}
	now := g.clock.Now()
	if m, ok := find(g.models(ctx, r, now)); ok {
		return m, true
	}
	r.mu.Lock()
	if now.Sub(r.tried) >= missEvery {
		r.next = time.Time{}
	}
	r.mu.Unlock()
	return find(g.models(ctx, r, now))
}

// Knows reports whether there is such a model.
func (g *Gateway) Knows(ctx context.Context, id string) bool {
	_, ok := g.Lookup(ctx, id)
	return ok
}

func (g *Gateway) models(ctx context.Context, r *route, now time.Time) []Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		return r.list
	}
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	list, err := r.provider.Models(ctx)
	r.tried, r.next = now, now.Add(g.every)
	if err != nil {
		r.next = now.Add(min(retryEvery, g.every))
		if !r.failing { // once, not at each attempt
			g.log.WarnContext(ctx, "a model provider can't be asked for its models; going on with those known", "provider", r.provider.Name(), "error", err)
		}
		if len(list) <= len(r.list) {
			list = r.list
		}
	}
	r.failing = err != nil
	list = slices.Clone(list)
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	r.list = list
	return list
}

// Generate calls the model under an admission, which it consumes: it must be for a model call with this very request, current and unused.
// The call ends at the latest when the admission does. It is one attempt: after an error, another attempt is another step.
//
// The error is an *Error from the provider, or a fault when no provider was reached.
func (g *Gateway) Generate(ctx context.Context, adm *gate.Admission, r Request, sink func(Event)) (Response, error) {
	if err := r.Validate(); err != nil {
		return Response{}, err
	}
	route, err := g.route(r.Model)
	if err != nil {
		return Response{}, err
	}
	grant, err := adm.Consume(gate.ModelCall, Digest(r))
	if err != nil {
		return Response{}, err
	}
	ctx, cancel := context.WithDeadline(ctx, grant.ExpiresAt)
	defer cancel()
	return route.provider.Generate(ctx, Call{Request: r, EffectKey: grant.EffectKey}, sink)
}

// Priced is the most that the request can use, for a proposal.
func Priced(r Request) []gate.Priced {
	return []gate.Priced{{Kind: prices.Model, Ref: r.Model, Quantities: prices.Quantities{prices.InputToken: InputBound(r), prices.OutputToken: r.MaxTokens}}}
}

// Used is what a reply used, for settlement.
func Used(r Request, u Usage) []gate.Priced {
	return []gate.Priced{{Kind: prices.Model, Ref: r.Model, Quantities: u.Quantities()}}
}

// Journal is the usage as the journal keeps it, where output includes reasoning.
func (u Usage) Journal() journal.Usage {
	return journal.Usage{
		InputTokens: u.Input, OutputTokens: u.Completion(), CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, ReasoningTokens: u.Reasoning,
	}
}

// Detail is the error as the journal keeps it. Its details hold kind, retryable and, where there was one, status.
func (e *Error) Detail() journal.ErrorDetail {
	d := journal.ErrorDetail{Code: e.Fault().Code, Message: e.Error(), Details: map[string]any{"kind": string(e.Kind), "retryable": e.Retryable}}
	if e.Status != 0 {
		d.Details["status"] = e.Status
	}
	return d
}
