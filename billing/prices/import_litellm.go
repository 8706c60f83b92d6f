package prices

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// liteLLMUnits are the fields of a model in LiteLLM's list, in dollars a token. Other fields with a price (images, audio, priority and batch
// tiers, an hour's cache) are for what Ambit does not call.
var liteLLMUnits = map[string]Unit{
	"input_cost_per_token":            InputToken,
	"output_cost_per_token":           OutputToken,
	"cache_read_input_token_cost":     CacheReadToken,
	"cache_creation_input_token_cost": CacheWriteToken,
	"output_cost_per_reasoning_token": ReasoningToken,
}

var liteLLMTier = regexp.MustCompile(`^(.+)_above_([0-9]{1,6})k_tokens$`)

// ImportLiteLLM reads LiteLLM's model_prices_and_context_window.json.
func ImportLiteLLM(r io.Reader, o ImportOptions) (File, []Note, error) {
	var list map[string]map[string]json.RawMessage
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return File{}, nil, fmt.Errorf("read LiteLLM's price list: %w", err)
	}
	var drafts []draft
	for name, fields := range list {
		var from, mode string
		_ = json.Unmarshal(fields["litellm_provider"], &from) // a field that is no string is none
		_ = json.Unmarshal(fields["mode"], &mode)
		ours, wanted := o.Providers[from]
		if !wanted || (mode != "chat" && mode != "responses" && mode != "completion") {
			continue
		}
		d := draft{ref: ours + "/" + strings.TrimPrefix(name, from+"/"), units: map[Unit]json.Number{}, tiers: map[int64]map[Unit]json.Number{}}
		for field, raw := range fields {
			above := int64(0)
			if m := liteLLMTier.FindStringSubmatch(field); m != nil {
				thousands, err := strconv.ParseInt(m[2], 10, 64)
				if err != nil {
					continue
				}
				field, above = m[1], thousands*1000
			}
			unit, known := liteLLMUnits[field]
			var n json.Number
			if !known || json.Unmarshal(raw, &n) != nil || n == "" {
				continue
			}
			if above == 0 {
				d.units[unit] = n
				continue
			}
			if d.tiers[above] == nil {
				d.tiers[above] = map[Unit]json.Number{}
			}
			d.tiers[above][unit] = n
		}
		drafts = append(drafts, d)
	}
	return collect(dedupe(drafts), o, 1)
}

// dedupe keeps one draft of each ref: LiteLLM lists some models with and without the provider's name.
func dedupe(drafts []draft) []draft {
	seen := map[string]int{}
	var out []draft
	for _, d := range drafts {
		if i, twice := seen[d.ref]; twice {
			if len(d.units)+len(d.tiers) > len(out[i].units)+len(out[i].tiers) {
				out[i] = d
			}
			continue
		}
		seen[d.ref] = len(out)
		out = append(out, d)
	}
	return out
}
