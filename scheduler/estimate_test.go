package scheduler

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// Whatever is asked for, an offer is in order, its lines add up, and its ceiling covers the first model call's hold unless a limit says less.
func TestAnOfferIsInOrder(t *testing.T) {
	table, err := prices.Shipped()
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		agent := journal.Snapshot{Definition: journal.Definition{
			Model:     rapid.SampledFrom([]string{"ambit/scripted", "anthropic/claude-haiku-5-5", "openai/gpt-6-astra"}).Draw(t, "model"),
			Tools:     rapid.SampledFrom([][]string{nil, {"bash"}, {"bash", "http_request", "unpriced"}}).Draw(t, "tools"),
			MaxTokens: rapid.Int64Range(1, 128_000).Draw(t, "max tokens"),
		}}
		p := prospect{table: table, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), agent: agent}
		p.tools = func(name string) (connectors.Tool, bool) {
			return connectors.Tool{Name: name, ControlPlane: name == "http_request", Limit: func(json.RawMessage) time.Duration { return time.Minute }}, true
		}
		p.request = models.Request{Model: agent.Model, MaxTokens: agent.MaxTokens, Messages: []models.Message{{
			Role: models.User, Content: []models.Block{models.TextBlock(strings.Repeat("word ", rapid.IntRange(1, 20_000).Draw(t, "words")))},
		}}}
		p.limits.MaxSteps = rapid.SampledFrom([]int64{0, 1, 2, 7, 5000}).Draw(t, "max steps")
		if rapid.Bool().Draw(t, "limited") {
			most := money.Nanos(rapid.Int64Range(1, int64(money.Dollar)).Draw(t, "max cost"))
			p.limits.MaxCost = &most
		}
		for range rapid.IntRange(0, 12).Draw(t, "finished") {
			calls := rapid.Int64Range(1, 40).Draw(t, "calls")
			p.history = append(p.history, journal.Finished{Used: []journal.UsedOf{
				{Kind: journal.KindModelCall, Name: agent.Model, Calls: calls, Usage: journal.Usage{InputTokens: rapid.Int64Range(0, 1_000_000).Draw(t, "input"), OutputTokens: rapid.Int64Range(0, 50_000).Draw(t, "output")}},
				{Kind: journal.KindToolCall, Name: "bash", Calls: calls},
				{Kind: journal.KindSandbox, Name: "sandbox", Calls: 3, Usage: journal.Usage{SandboxMillis: rapid.Int64Range(0, 100_000).Draw(t, "ms")}},
			}})
		}
		q, err := p.offer()
		if err != nil {
			t.Fatal(err)
		}
		if q.Low > q.Likely || q.Likely > q.Ceiling || q.Low < 0 {
			t.Fatalf("%s, %s, %s are not in order", q.Low, q.Likely, q.Ceiling)
		}
		var sum money.Nanos
		for _, l := range q.Lines {
			sum += l.Amount
		}
		if p.limits.MaxCost != nil && q.Ceiling > *p.limits.MaxCost {
			t.Fatalf("the ceiling %s is above max_cost %s", q.Ceiling, *p.limits.MaxCost)
		}
		if q.Likely < q.Ceiling && sum != q.Likely {
			t.Fatalf("the lines sum to %s and not to %s", sum, q.Likely)
		}
		first, err := p.worstCall(0)
		if err != nil {
			t.Fatal(err)
		}
		if p.limits.MaxCost == nil && q.Ceiling < first {
			t.Fatalf("the ceiling %s does not cover the first hold of %s", q.Ceiling, first)
		}
		tick, err := p.sandboxed(sandbox.MaxTick)
		if err != nil {
			t.Fatal(err)
		}
		if agent.Tools != nil && tick == 0 {
			t.Fatal("the time of its sandbox costs nothing")
		}
		if p.limits.MaxCost == nil && p.limits.MaxSteps != 1 && q.Ceiling < first+tick {
			t.Fatalf("the ceiling %s does not cover the first hold of %s with the time of a sandbox, %s", q.Ceiling, first, tick)
		}
		if len(q.Basis.Assumptions) == 0 {
			t.Fatal("a quote says what it assumes")
		}
	})
}
