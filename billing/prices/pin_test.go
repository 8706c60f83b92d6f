package prices_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/money"
)

func TestPinnedPricesStay(t *testing.T) {
	const model = "anthropic/claude-sonnet-5-5"
	before := time.Date(2026, 10, 6, 0, 0, 0, 0, time.UTC) // the day before a cache read became cheaper
	table := shipped(t)
	entry, err := table.InForce(before, prices.Model, model)
	require.NoError(t, err)
	pinned, err := table.Pin(prices.File{Version: "then", Currency: money.Currency, Entries: []prices.Entry{entry}})
	require.NoError(t, err)
	require.Equal(t, "then", pinned.Version())
	q := prices.Quantities{prices.CacheReadToken: 10_000}
	was, _, err := pinned.Cost(now, prices.Model, model, q)
	require.NoError(t, err)
	is, _, err := table.Cost(now, prices.Model, model, q)
	require.NoError(t, err)
	require.Equal(t, "0.002", was.Decimal())
	require.Equal(t, "0.001", is.Decimal(), "the table itself is as before")
	require.True(t, pinned.Known(now, prices.Tool, "builtin/bash"), "of all else it says what the table says")

	own := read(t, `{"version":"mine-1","currency":"USD","entries":[{"kind":"model","ref":"openai/llama*","effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":1,"output_token":2}}]}`)
	wide, err := prices.Shipped(own)
	require.NoError(t, err)
	entry, err = wide.InForce(now, prices.Model, "openai/llama3")
	require.NoError(t, err)
	require.Equal(t, "openai/llama3", entry.Ref, "a pattern is pinned by the name that was asked for")
	_, err = table.InForce(now, prices.Model, "openai/llama3")
	require.Error(t, err)
	_, err = table.Pin(prices.File{Currency: money.Currency})
	require.Error(t, err, "a pin has a version")
}

func TestManyCallsArePricedByTheirMeanPrompt(t *testing.T) {
	q := prices.Quantities{prices.InputToken: 150_000}
	one, _, err := shipped(t).CostOfCalls(now, prices.Model, "anthropic/claude-haiku-5-5", q, 1)
	require.NoError(t, err)
	two, _, err := shipped(t).CostOfCalls(now, prices.Model, "anthropic/claude-haiku-5-5", q, 2)
	require.NoError(t, err)
	require.Less(t, two, one, "two prompts of 75,000 tokens are in the lower tier, one of 150,000 is not")
}
