package prices_test

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func shipped(t interface{ Fatal(...any) }) *prices.Table {
	table, err := prices.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func read(t *testing.T, s string) prices.File {
	t.Helper()
	f, err := prices.Read(strings.NewReader(s))
	require.NoError(t, err)
	return f
}

func TestShippedTable(t *testing.T) {
	b, err := os.ReadFile("table.json")
	require.NoError(t, err)
	f := read(t, string(b))
	modelsSeen := 0
	for _, e := range f.Entries {
		require.False(t, strings.HasSuffix(e.Ref, "*"), "the shipped table names what it prices")
		for unit, n := range e.Nanos {
			require.Positive(t, n, "%s %s", e.Ref, unit)
		}
		if e.Kind == prices.Model {
			modelsSeen++
			require.Greater(t, e.Nanos[prices.OutputToken], e.Nanos[prices.InputToken], e.Ref)
		}
	}
	require.GreaterOrEqual(t, modelsSeen, 20)
	for _, name := range []string{"bash", "python", "read_file", "write_file", "edit_file", "list_files", "http_request"} {
		require.True(t, shipped(t).Known(now, prices.Tool, "builtin/"+name))
	}
}

func TestCostOfAKnownCall(t *testing.T) {
	// $2, $0.10, $2.50 and $10 a million: 1,000 in, 10,000 read, 2,000 written, 500 out.
	total, lines, err := shipped(t).Cost(now, prices.Model, "anthropic/claude-sonnet-5-5", prices.Quantities{
		prices.InputToken: 1000, prices.CacheReadToken: 10_000, prices.CacheWriteToken: 2000, prices.OutputToken: 500, prices.ReasoningToken: 0,
	})
	require.NoError(t, err)
	require.Equal(t, "0.013", total.Decimal())
	require.Len(t, lines, 4)
	require.Equal(t, prices.Line{
		Kind: prices.Model, Ref: "anthropic/claude-sonnet-5-5", Unit: prices.CacheReadToken, UnitPrice: 100, Per: 1, Quantity: 10_000, Amount: 1_000_000,
	}, lines[1])
	// Before 7 October a cache read was twice that.
	total, _, err = shipped(t).Cost(time.Date(2026, 10, 6, 0, 0, 0, 0, time.UTC), prices.Model, "anthropic/claude-sonnet-5-5", prices.Quantities{prices.CacheReadToken: 10_000})
	require.NoError(t, err)
	require.Equal(t, "0.002", total.Decimal())
	_, err = shipped(t).Lookup(time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC), prices.Model, "anthropic/claude-sonnet-5-5")
	require.Error(t, err, "no price before the first one")
}

func TestTiersCountTheWholePrompt(t *testing.T) {
	cost := func(input, read, out int64) string {
		total, _, err := shipped(t).Cost(now, prices.Model, "anthropic/claude-haiku-5-5", prices.Quantities{prices.InputToken: input, prices.CacheReadToken: read, prices.OutputToken: out})
		require.NoError(t, err)
		return total.Decimal()
	}
	require.Equal(t, "0.0105", cost(100_000, 0, 1000))
	require.Equal(t, "0.0525005", cost(100_001, 0, 1000))
	require.Equal(t, "0.0075005", cost(1, 100_000, 1000)) // 500 + 5,000,000 + 2,500,000 nano-dollars
}

func TestSecondsAreRoundedUpOnce(t *testing.T) {
	table, err := prices.New(read(t, `{"version":"1","currency":"USD","entries":[{"kind":"sandbox","ref":"s","effective_from":"2026-01-01T00:00:00Z","nanos":{"second":7}}]}`))
	require.NoError(t, err)
	for ms, want := range map[int64]money.Nanos{0: 0, 1: 1, 142: 1, 143: 2, 1000: 7, 1001: 8} {
		total, _, err := table.Cost(now, prices.Sandbox, "s", prices.Quantities{prices.Millisecond: ms})
		require.NoError(t, err)
		require.Equal(t, want, total, "%d ms", ms)
	}
}

func TestUnknownPriceIsRefused(t *testing.T) {
	for _, ref := range []string{"openai/llama3", "anthropic/claude-opus-5-5-20991231", "", "ambit/scripted2"} {
		_, _, err := shipped(t).Bound(now, prices.Model, ref, prices.Quantities{prices.InputToken: 1})
		require.True(t, fault.IsCode(err, "price_unknown"), ref)
		require.Equal(t, fault.Unprocessable, fault.As(err).Kind)
	}
	_, _, err := shipped(t).Cost(now, prices.Tool, "builtin/bash", prices.Quantities{prices.Millisecond: 1})
	require.True(t, fault.IsCode(err, "price_unknown"), "a unit without a price")
}

func TestNonsenseIsRefused(t *testing.T) {
	table := shipped(t)
	_, _, err := table.Cost(now, prices.Model, "ambit/scripted", prices.Quantities{prices.InputToken: -1})
	require.Error(t, err)
	_, _, err = table.Bound(now, prices.Model, "ambit/scripted", prices.Quantities{prices.InputToken: math.MaxInt64})
	require.ErrorIs(t, err, money.ErrOverflow)
	_, _, err = table.Cost(now, prices.Model, "ambit/scripted", prices.Quantities{prices.InputToken: math.MaxInt64, prices.CacheReadToken: 1})
	require.ErrorIs(t, err, money.ErrOverflow)
	_, _, err = table.Cost(now, prices.Model, "ambit/scripted", prices.Quantities{"inputs": 1})
	require.Error(t, err)
	const head = `{"version":"1","currency":"USD","entries":[`
	const from = `"effective_from":"2026-01-01T00:00:00Z"`
	for _, bad := range []string{
		``, `{}`, `{"version":"1","currency":"EUR","entries":[]}`, head + `]} {}`, head + `],"extra":1}`,
		head + `{"kind":"model","ref":"x","effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":1}}]}`,
		head + `{"kind":"model","ref":"x","nanos":{"input_token":1,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"*",` + from + `,"nanos":{"input_token":1,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"a*b",` + from + `,"nanos":{"input_token":1,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"x",` + from + `,"nanos":{"input_token":-1,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"x",` + from + `,"nanos":{"input_token":1.5,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"x",` + from + `,"nanos":{"input_token":2000000000,"output_token":1}}]}`,
		head + `{"kind":"model","ref":"x",` + from + `,"nanos":{"input_tokens":1,"output_token":1}}]}`,
		head + `{"kind":"tool","ref":"x",` + from + `,"nanos":{"call":1},"tiers":[{"above_prompt_tokens":1,"nanos":{"call":1}}]}]}`,
		head + `{"kind":"tool","ref":"x",` + from + `,"nanos":{"call":1}},{"kind":"tool","ref":"x",` + from + `,"nanos":{"call":2}}]}`,
	} {
		_, err := prices.Read(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
}

func TestOperatorsFileComesOnTop(t *testing.T) {
	own := read(t, `{"version":"mine-1","currency":"USD","entries":[
	  {"kind":"model","ref":"openai/llama*","effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":1,"output_token":2}},
	  {"kind":"model","ref":"openai/llama3.1:70b*","effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":5,"output_token":9}},
	  {"kind":"model","ref":"ambit/scripted","effective_from":"2026-02-01T00:00:00Z","nanos":{"input_token":1,"output_token":1}}]}`)
	table, err := prices.Shipped(own)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(table.Version(), "+mine-1"), table.Version())
	for ref, want := range map[string]int64{"openai/llama3": 1, "openai/llama3.1:70b-q4": 5, "ambit/scripted": 1, "openai/gpt-6-luna": 100} {
		e, err := table.Lookup(now, prices.Model, ref)
		require.NoError(t, err)
		require.Equal(t, want, e.Nanos[prices.InputToken], ref)
	}
	require.False(t, table.Known(now, prices.Tool, "openai/llama3"), "a pattern is of its kind")
	require.False(t, table.Known(time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC), prices.Model, "ambit/scripted"), "what the operator names is the operator's alone")
}

// The heart of a hold: however a call's tokens turn out to be divided, it costs no more than was held.
func TestNothingCostsMoreThanItsBound(t *testing.T) {
	table := shipped(t)
	refs := []string{"ambit/scripted", "anthropic/claude-haiku-5-5", "anthropic/claude-opus-5-5", "openai/gpt-6-astra", "openai/gpt-5-mini", "openai/gpt-5.5"}
	rapid.Check(t, func(t *rapid.T) {
		ref := rapid.SampledFrom(refs).Draw(t, "ref")
		q := prices.Quantities{
			prices.InputToken: rapid.Int64Range(0, 400_000).Draw(t, "input"), prices.CacheReadToken: rapid.Int64Range(0, 400_000).Draw(t, "read"),
			prices.CacheWriteToken: rapid.Int64Range(0, 400_000).Draw(t, "write"), prices.OutputToken: rapid.Int64Range(0, 100_000).Draw(t, "output"),
			prices.ReasoningToken: rapid.Int64Range(0, 100_000).Draw(t, "reasoning"),
		}
		ceiling := prices.Quantities{
			prices.InputToken:  q[prices.InputToken] + q[prices.CacheReadToken] + q[prices.CacheWriteToken] + rapid.Int64Range(0, 300_000).Draw(t, "slack"),
			prices.OutputToken: q[prices.OutputToken] + q[prices.ReasoningToken] + rapid.Int64Range(0, 1000).Draw(t, "slack out"),
		}
		cost, lines, err := table.Cost(now, prices.Model, ref, q)
		require.NoError(t, err)
		bound, _, err := table.Bound(now, prices.Model, ref, ceiling)
		require.NoError(t, err)
		require.LessOrEqual(t, cost, bound)
		var sum money.Nanos
		for _, l := range lines {
			sum += l.Amount
		}
		require.Equal(t, cost, sum, "the lines add up")
	})
}

func TestCostNeverFallsAsUseGrows(t *testing.T) {
	table := shipped(t)
	rapid.Check(t, func(t *rapid.T) {
		q := prices.Quantities{prices.InputToken: rapid.Int64Range(0, 300_000).Draw(t, "in"), prices.OutputToken: rapid.Int64Range(0, 10_000).Draw(t, "out")}
		before, _, err := table.Cost(now, prices.Model, "anthropic/claude-haiku-5-5", q)
		require.NoError(t, err)
		q[rapid.SampledFrom([]prices.Unit{prices.InputToken, prices.OutputToken}).Draw(t, "unit")] += rapid.Int64Range(0, 1000).Draw(t, "more")
		after, _, err := table.Cost(now, prices.Model, "anthropic/claude-haiku-5-5", q)
		require.NoError(t, err)
		require.GreaterOrEqual(t, after, before)
	})
}
