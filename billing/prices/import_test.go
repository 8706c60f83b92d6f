package prices_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
)

var options = prices.ImportOptions{
	Version: "import-1", EffectiveFrom: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	Providers: map[string]string{"openai": "openai", "anthropic": "anthropic"},
}

func TestImportLiteLLM(t *testing.T) {
	f, notes, err := prices.ImportLiteLLM(strings.NewReader(`{
	  "sample_spec": {"mode": "one of: chat, …", "litellm_provider": "…", "input_cost_per_token": 0.0},
	  "gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
	    "cache_read_input_token_cost": 1.25e-07, "input_cost_per_token_above_272k_tokens": 2.5e-06, "output_cost_per_token_above_272k_tokens": 0.000015,
	    "input_cost_per_token_priority": 1, "supports_vision": true, "max_input_tokens": "many"},
	  "openai/gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 9e-06, "output_cost_per_token": 9e-05},
	  "claude-x": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 0.0000000001, "output_cost_per_token": 1e-9},
	  "tts": {"litellm_provider": "openai", "mode": "audio_speech", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6},
	  "free-output": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-6},
	  "huge": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e300, "output_cost_per_token": 1},
	  "elsewhere": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
	}`), options)
	require.NoError(t, err)
	require.Len(t, f.Entries, 2)
	require.Equal(t, "anthropic/claude-x", f.Entries[0].Ref)
	require.Equal(t, prices.Prices{prices.InputToken: 1, prices.OutputToken: 1}, f.Entries[0].Nanos)
	require.Equal(t, "openai/gpt-x", f.Entries[1].Ref)
	require.Equal(t, prices.Prices{prices.InputToken: 1250, prices.OutputToken: 10_000, prices.CacheReadToken: 125}, f.Entries[1].Nanos)
	require.Equal(t, []prices.Tier{{AbovePromptTokens: 272_000, Nanos: prices.Prices{prices.InputToken: 2500, prices.OutputToken: 15_000, prices.CacheReadToken: 125}}}, f.Entries[1].Tiers)
	said := map[string]string{}
	for _, n := range notes {
		said[n.Ref] = n.What
	}
	require.Contains(t, said["anthropic/claude-x"], "rounded up to 1")
	require.Contains(t, said["openai/free-output"], "left out")
	require.Contains(t, said["openai/huge"], "left out")
	_, err = prices.New(f)
	require.NoError(t, err)
}

func TestImportModelsDev(t *testing.T) {
	const file = "# prices\nname = \"X\"\n[cost]\ninput = 10.00\noutput = 50\ncache_read = 0.1\ncache_write = 12.5\n\n[[cost.tiers]]\ntier = { size = 272_000 }\n" +
		"input = 20.00\noutput = 75.0\n\n[[rate_limits]]\ntier = \"Start\"\nrpm = 1_000\n"
	f, notes, err := prices.ImportModelsDevTOML(strings.NewReader(file), "openai/x", options)
	require.NoError(t, err)
	require.Empty(t, notes)
	want := prices.Entry{
		Kind: prices.Model, Ref: "openai/x", EffectiveFrom: options.EffectiveFrom,
		Nanos: prices.Prices{prices.InputToken: 10_000, prices.OutputToken: 50_000, prices.CacheReadToken: 100, prices.CacheWriteToken: 12_500},
		Tiers: []prices.Tier{{AbovePromptTokens: 272_000, Nanos: prices.Prices{prices.InputToken: 20_000, prices.OutputToken: 75_000, prices.CacheReadToken: 100, prices.CacheWriteToken: 12_500}}},
	}
	require.Equal(t, []prices.Entry{want}, f.Entries)

	f, notes, err = prices.ImportModelsDevJSON(strings.NewReader(`{
	  "openai": {"models": {
	    "x": {"cost": {"input": 10, "output": 50.0, "cache_read": 0.1, "cache_write": 12.5, "tiers": [{"context": {"min": 272000}, "input": 20, "output": 75}]}},
	    "open-weights": {}, "odd": {"cost": {"input": 0.0001, "output": 0.3}}}},
	  "other": {"models": {"y": {"cost": {"input": 1, "output": 1}}}}}`), options)
	require.NoError(t, err)
	require.Len(t, f.Entries, 2)
	require.Equal(t, want, f.Entries[1])
	require.Len(t, notes, 1)
	require.Contains(t, notes[0].What, "rounded up to 1")

	for _, bad := range []string{"[cost]\ninput = \"ten\"\noutput = 1", "[cost]\ninput = nan\noutput = 1", "[cost]\ninput = -1\noutput = 1", "name = 1", "[cost"} {
		f, notes, err := prices.ImportModelsDevTOML(strings.NewReader(bad), "openai/x", options)
		require.True(t, err != nil || (len(f.Entries) == 0 && len(notes) == 1), bad)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(`{"gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05}}`)
	f.Add("[cost]\ninput = 1_0.5e-3\noutput = 0x10\n")
	f.Add(`{"openai": {"models": {"x": {"cost": {"input": 1e999999999, "output": 5}}}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, imported := range []func() (prices.File, []prices.Note, error){
			func() (prices.File, []prices.Note, error) { return prices.ImportLiteLLM(strings.NewReader(s), options) },
			func() (prices.File, []prices.Note, error) {
				return prices.ImportModelsDevJSON(strings.NewReader(s), options)
			},
			func() (prices.File, []prices.Note, error) {
				return prices.ImportModelsDevTOML(strings.NewReader(s), "openai/x", options)
			},
		} {
			file, _, err := imported()
			if err != nil {
				continue
			}
			if _, err := prices.New(file); err != nil {
				t.Fatalf("what was imported is no table: %v", err)
			}
		}
	})
}
