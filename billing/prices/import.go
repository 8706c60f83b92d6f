package prices

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// ImportOptions say what to take from a foreign price list and how to name it.
type ImportOptions struct {
	// Version of the file that is made.
	Version string
	// EffectiveFrom is the moment from which the prices count; foreign lists have none.
	EffectiveFrom time.Time
	// Providers maps the list's names of providers to ours, such as "anthropic" to "anthropic". Others are left out.
	Providers map[string]string
}

// Note says of one model what was not taken over as it stood.
type Note struct {
	Ref  string
	What string
}

// draft collects a model's prices as decimal dollars.
type draft struct {
	ref   string
	units map[Unit]json.Number
	tiers map[int64]map[Unit]json.Number // by the prompt's length above which they count
}

// entry makes a table's entry of a draft; per is how many units the list's prices are for.
func (d draft) entry(o ImportOptions, per int64) (Entry, []Note, error) {
	var notes []Note
	convert := func(in map[Unit]json.Number, base Prices) (Prices, error) {
		out := Prices{}
		for u, n := range base {
			out[u] = n
		}
		for u, decimal := range in {
			n, rounded, err := toNanos(decimal, per)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", u, err)
			}
			if rounded {
				notes = append(notes, Note{d.ref, fmt.Sprintf("the price of %s is no whole number of nano-dollars and was rounded up to %d", u, n)})
			}
			out[u] = n
		}
		return out, nil
	}
	e := Entry{Kind: Model, Ref: d.ref, EffectiveFrom: o.EffectiveFrom}
	var err error
	if e.Nanos, err = convert(d.units, nil); err != nil {
		return Entry{}, nil, err
	}
	if err := e.Nanos.validate(Model); err != nil {
		return Entry{}, nil, err
	}
	for above, units := range d.tiers {
		// A tier that leaves out a unit leaves its price as it was.
		nanos, err := convert(units, e.Nanos)
		if err != nil {
			return Entry{}, nil, fmt.Errorf("above %d tokens: %w", above, err)
		}
		e.Tiers = append(e.Tiers, Tier{AbovePromptTokens: above, Nanos: nanos})
	}
	slices.SortFunc(e.Tiers, func(a, b Tier) int { return cmp.Compare(a.AbovePromptTokens, b.AbovePromptTokens) })
	return e, notes, nil
}

// collect makes a file of drafts, in the order of their refs.
func collect(drafts []draft, o ImportOptions, per int64) (File, []Note, error) {
	f := File{Version: o.Version, Currency: "USD"}
	var notes []Note
	slices.SortFunc(drafts, func(a, b draft) int { return cmp.Compare(a.ref, b.ref) })
	for _, d := range drafts {
		e, more, err := d.entry(o, per)
		if err != nil {
			notes = append(notes, Note{d.ref, "left out: " + err.Error()})
			continue
		}
		f.Entries = append(f.Entries, e)
		notes = append(notes, more...)
	}
	return f, notes, f.validate()
}
