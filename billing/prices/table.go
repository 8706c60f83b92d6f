package prices

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

// Kind is the sort of thing that has a price.
type Kind string

// The kinds. Their refs: a model's gateway id, a tool's "mount/name", a sandbox's size.
const (
	Model   Kind = "model"
	Tool    Kind = "tool"
	Sandbox Kind = "sandbox"
)

// Unit is what a price or a quantity counts.
type Unit string

// The units.
const (
	InputToken      Unit = "input_token"
	CacheReadToken  Unit = "cache_read_token"
	CacheWriteToken Unit = "cache_write_token"
	OutputToken     Unit = "output_token"
	ReasoningToken  Unit = "reasoning_token"
	Call            Unit = "call"
	// Second is a unit of price only; quantities of time are in Millisecond.
	Second      Unit = "second"
	Millisecond Unit = "millisecond"
)

// Prices are nano-dollars for one of each unit. A file holds plain integers, not amounts with a currency.
type Prices map[Unit]int64

// Tier replaces all prices of a model when a request's prompt (input, cache reads and cache writes) is longer than AbovePromptTokens.
type Tier struct {
	AbovePromptTokens int64  `json:"above_prompt_tokens"`
	Nanos             Prices `json:"nanos"`
}

// Entry is the price of one thing from a moment on, until a later entry of the same ref.
type Entry struct {
	Kind Kind   `json:"kind"`
	Ref  string `json:"ref"`
	// Aliases are further refs of the same price, such as a model's dated name.
	Aliases       []string  `json:"aliases,omitempty"`
	EffectiveFrom time.Time `json:"effective_from"`
	Nanos         Prices    `json:"nanos"`
	Tiers         []Tier    `json:"tiers,omitempty"`
}

// File is the table as it is written.
type File struct {
	Version  string  `json:"version"`
	Currency string  `json:"currency"`
	Entries  []Entry `json:"entries"`
}

// Table answers what things cost. It never changes once made, and is safe for concurrent use.
type Table struct {
	version  string
	exact    map[key][]Entry // newest first
	patterns []Entry         // longest prefix first, then newest first
}

type key struct {
	kind Kind
	ref  string
}

//go:embed table.json
var shipped []byte

// Shipped is the table that comes with this release, with the operator's own files on top of it.
func Shipped(own ...File) (*Table, error) {
	f, err := Read(bytes.NewReader(shipped))
	if err != nil {
		return nil, fmt.Errorf("the shipped price table: %w", err)
	}
	return New(append([]File{f}, own...)...)
}

// Read reads a table's file. Unknown fields are refused: a mistyped price would otherwise be no price.
func Read(r io.Reader) (File, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var f File
	if err := d.Decode(&f); err != nil {
		return File{}, fmt.Errorf("read the price file: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return File{}, errors.New("read the price file: more follows the table")
	}
	return f, f.validate()
}

// mostExpensive bounds a price, so that a misplaced decimal point does not pass: a dollar a token, a call or a second.
const mostExpensive = int64(money.Dollar)

var unitsOf = map[Kind][]Unit{
	Model:   {InputToken, CacheReadToken, CacheWriteToken, OutputToken, ReasoningToken},
	Tool:    {Call, Second},
	Sandbox: {Second},
}

var requiredOf = map[Kind][]Unit{Model: {InputToken, OutputToken}, Tool: {Call}, Sandbox: {Second}}

func (f File) validate() error {
	if f.Version == "" || len(f.Version) > 100 {
		return errors.New("the price file needs a version of 1 to 100 characters")
	}
	if f.Currency != money.Currency {
		return fmt.Errorf("the price file's currency is %q, want %q", f.Currency, money.Currency)
	}
	type moment struct {
		key
		at time.Time
	}
	seen := map[moment]bool{}
	for i, e := range f.Entries {
		at := fmt.Sprintf("price entry %d (%s %q)", i, e.Kind, e.Ref)
		if unitsOf[e.Kind] == nil {
			return fmt.Errorf("%s: kind must be model, tool or sandbox", at)
		}
		if e.EffectiveFrom.IsZero() {
			return fmt.Errorf("%s: effective_from is missing", at)
		}
		for _, ref := range append([]string{e.Ref}, e.Aliases...) {
			star := strings.IndexByte(ref, '*')
			if ref == "" || star == 0 || (star > 0 && star != len(ref)-1) {
				return fmt.Errorf("%s: a ref is a name, or the beginning of one followed by a single *", at)
			}
			m := moment{key{e.Kind, ref}, e.EffectiveFrom}
			if seen[m] {
				return fmt.Errorf("%s: there is another price of %q from the same moment", at, ref)
			}
			seen[m] = true
		}
		if err := e.Nanos.validate(e.Kind); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		above := int64(0)
		for _, t := range e.Tiers {
			if e.Kind != Model || t.AbovePromptTokens <= above {
				return fmt.Errorf("%s: tiers are a model's, each above the one before", at)
			}
			above = t.AbovePromptTokens
			if err := t.Nanos.validate(e.Kind); err != nil {
				return fmt.Errorf("%s, above %d tokens: %w", at, above, err)
			}
		}
	}
	return nil
}

func (p Prices) validate(kind Kind) error {
	for unit, n := range p {
		if !slices.Contains(unitsOf[kind], unit) {
			return fmt.Errorf("a %s has no price for a %q", kind, unit)
		}
		if n < 0 || n > mostExpensive {
			return fmt.Errorf("%s: want 0 to %d nano-dollars, got %d", unit, mostExpensive, n)
		}
	}
	for _, unit := range requiredOf[kind] {
		if _, ok := p[unit]; !ok {
			return fmt.Errorf("the price of %s is missing", unit)
		}
	}
	return nil
}

// New makes a table of files. A later file replaces, for each ref that it names, everything that earlier ones say of that very ref. Its
// version names all of them.
func New(files ...File) (*Table, error) {
	t := &Table{exact: map[key][]Entry{}}
	patterns := map[key][]Entry{}
	var versions []string
	for _, f := range files {
		if err := f.validate(); err != nil {
			return nil, err
		}
		versions = append(versions, f.Version)
		fresh := map[key]bool{}
		for _, e := range f.Entries {
			for _, ref := range append([]string{e.Ref}, e.Aliases...) {
				k, into := key{e.Kind, ref}, t.exact
				if strings.HasSuffix(ref, "*") {
					into = patterns
				}
				if !fresh[k] {
					into[k], fresh[k] = nil, true
				}
				named := e
				named.Ref = ref
				into[k] = append(into[k], named)
			}
		}
	}
	newestFirst := func(es []Entry) {
		sort.SliceStable(es, func(i, j int) bool { return es[i].EffectiveFrom.After(es[j].EffectiveFrom) })
	}
	for _, es := range t.exact {
		newestFirst(es)
	}
	for _, es := range patterns {
		newestFirst(es)
		t.patterns = append(t.patterns, es...)
	}
	sort.SliceStable(t.patterns, func(i, j int) bool {
		a, b := t.patterns[i], t.patterns[j]
		if len(a.Ref) != len(b.Ref) {
			return len(a.Ref) > len(b.Ref)
		}
		return a.Ref < b.Ref // the stable sort keeps the newest first within one ref
	})
	t.version = strings.Join(versions, "+")
	return t, nil
}

// Version names the table in quotes, holds and entries.
func (t *Table) Version() string { return t.version }

// Lookup finds the price that is in force at the given time: an entry of the ref itself, or else of the longest pattern.
func (t *Table) Lookup(at time.Time, kind Kind, ref string) (Entry, error) {
	for _, e := range t.exact[key{kind, ref}] {
		if !e.EffectiveFrom.After(at) {
			return e, nil
		}
	}
	for _, e := range t.patterns {
		if e.Kind == kind && strings.HasPrefix(ref, strings.TrimSuffix(e.Ref, "*")) && !e.EffectiveFrom.After(at) {
			return e, nil
		}
	}
	return Entry{}, Unknown(kind, ref)
}

// Known reports whether there is a price at the given time.
func (t *Table) Known(at time.Time, kind Kind, ref string) bool {
	_, err := t.Lookup(at, kind, ref)
	return err == nil
}

// Unknown is the fault for a thing without a price.
func Unknown(kind Kind, ref string) *fault.Error {
	return fault.Newf(fault.Unprocessable, "price_unknown",
		"There is no price for the %s %q, so it can't be used. The operator can name one in the file that AMBIT_PRICES_FILE points to.", kind, ref).
		With("kind", string(kind)).With("ref", ref)
}
