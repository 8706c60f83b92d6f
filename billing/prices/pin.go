package prices

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// InForce is the price of one thing at a moment, as an entry of its own: by the name that was asked for, without aliases or patterns. It fails
// with price_unknown.
func (t *Table) InForce(at time.Time, kind Kind, ref string) (Entry, error) {
	e, err := t.Lookup(at, kind, ref)
	if err != nil {
		return Entry{}, err
	}
	e.Ref, e.Aliases = ref, nil
	return e, nil
}

// Pin returns a table with the file's version in which the file's entries, and no later ones, are the prices of what they name. Of all else it
// says what t says.
func (t *Table) Pin(f File) (*Table, error) {
	if f.Version == "" {
		return nil, errors.New("pin prices: they need a version")
	}
	// The version of a table made of several files is longer than a file's own may be.
	if err := (File{Version: "pinned", Currency: f.Currency, Entries: f.Entries}).validate(); err != nil {
		return nil, fmt.Errorf("pin prices: %w", err)
	}
	out := &Table{version: f.Version, exact: maps.Clone(t.exact), patterns: t.patterns}
	for _, e := range f.Entries {
		out.exact[key{e.Kind, e.Ref}] = []Entry{e}
	}
	return out, nil
}
