package prices

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/pelletier/go-toml/v2"
)

const perMillion = 1_000_000

// exactNumber takes a number as its text, in TOML and in JSON, so that it never is a float.
type exactNumber string

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *exactNumber) UnmarshalText(b []byte) error {
	*n = exactNumber(b)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *exactNumber) UnmarshalJSON(b []byte) error {
	if string(b) != "null" {
		*n = exactNumber(b)
	}
	return nil
}

// devCost is a models.dev cost, in dollars a million tokens.
type devCost struct {
	Input      exactNumber `toml:"input" json:"input"`
	Output     exactNumber `toml:"output" json:"output"`
	CacheRead  exactNumber `toml:"cache_read" json:"cache_read"`
	CacheWrite exactNumber `toml:"cache_write" json:"cache_write"`
	Reasoning  exactNumber `toml:"reasoning" json:"reasoning"`
	// Tiers name their threshold in one of two ways; the older form is ContextOver200K.
	Tiers           []devTier `toml:"tiers" json:"tiers"`
	ContextOver200K *devCost  `toml:"context_over_200k" json:"context_over_200k"`
}

type devTier struct {
	Tier struct {
		Size int64 `toml:"size" json:"size"`
	} `toml:"tier" json:"tier"`
	Context struct {
		Min int64 `toml:"min" json:"min"`
	} `toml:"context" json:"context"`
	Input      exactNumber `toml:"input" json:"input"`
	Output     exactNumber `toml:"output" json:"output"`
	CacheRead  exactNumber `toml:"cache_read" json:"cache_read"`
	CacheWrite exactNumber `toml:"cache_write" json:"cache_write"`
	Reasoning  exactNumber `toml:"reasoning" json:"reasoning"`
}

func (c devCost) units() map[Unit]json.Number {
	return present(c.Input, c.Output, c.CacheRead, c.CacheWrite, c.Reasoning)
}

func present(input, output, cacheRead, cacheWrite, reasoning exactNumber) map[Unit]json.Number {
	out := map[Unit]json.Number{}
	for u, n := range map[Unit]exactNumber{InputToken: input, OutputToken: output, CacheReadToken: cacheRead, CacheWriteToken: cacheWrite, ReasoningToken: reasoning} {
		if n != "" {
			out[u] = json.Number(n)
		}
	}
	return out
}

func (c devCost) draft(ref string) draft {
	d := draft{ref: ref, units: c.units(), tiers: map[int64]map[Unit]json.Number{}}
	if c.ContextOver200K != nil {
		d.tiers[200_000] = c.ContextOver200K.units()
	}
	for _, t := range c.Tiers {
		if above := max(t.Tier.Size, t.Context.Min); above > 0 {
			d.tiers[above] = present(t.Input, t.Output, t.CacheRead, t.CacheWrite, t.Reasoning)
		}
	}
	return d
}

// ImportModelsDevJSON reads the whole list of models.dev, its api.json.
func ImportModelsDevJSON(r io.Reader, o ImportOptions) (File, []Note, error) {
	var list map[string]struct {
		Models map[string]struct {
			Cost *devCost `json:"cost"`
		} `json:"models"`
	}
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return File{}, nil, fmt.Errorf("read the price list of models.dev: %w", err)
	}
	var drafts []draft
	for from, provider := range list {
		ours, wanted := o.Providers[from]
		if !wanted {
			continue
		}
		for name, m := range provider.Models {
			if m.Cost != nil {
				drafts = append(drafts, m.Cost.draft(ours+"/"+name))
			}
		}
	}
	return collect(drafts, o, perMillion)
}

// ImportModelsDevTOML reads one model's file of models.dev's repository. The file does not say which model it is: ref does.
func ImportModelsDevTOML(r io.Reader, ref string, o ImportOptions) (File, []Note, error) {
	var m struct {
		Cost *devCost `toml:"cost"`
	}
	if err := toml.NewDecoder(r).Decode(&m); err != nil {
		return File{}, nil, fmt.Errorf("read the models.dev file of %s: %w", ref, err)
	}
	if m.Cost == nil {
		return File{}, nil, fmt.Errorf("the models.dev file of %s has no cost", ref)
	}
	return collect([]draft{m.Cost.draft(ref)}, o, perMillion)
}
