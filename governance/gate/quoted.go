package gate

import (
	"encoding/json"
	"fmt"
	"sync"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// quotedTables keeps the price tables of quotes that sessions run by. A quote's prices never change, so a table is right for ever.
type quotedTables struct {
	mu    sync.Mutex
	byKey map[id.Quote]*prices.Table
}

// mostQuotedTables bounds what is kept; beyond it all are forgotten, and made anew as they are asked for.
const mostQuotedTables = 1024

// tableOf is the price table that a session's effects are held and captured by: its quote's, or the present one.
func (g *Gate) tableOf(session *journal.Session) (*prices.Table, error) {
	q := session.Quote
	if q == nil {
		return g.prices, nil
	}
	g.quoted.mu.Lock()
	defer g.quoted.mu.Unlock()
	if t := g.quoted.byKey[q.Quote]; t != nil {
		return t, nil
	}
	f := prices.File{Version: q.PriceVersion, Currency: money.Currency}
	if err := json.Unmarshal(q.Prices, &f.Entries); err != nil {
		return nil, fmt.Errorf("read the prices of quote %s: %w", q.Quote, err)
	}
	t, err := g.prices.Pin(f)
	if err != nil {
		return nil, fmt.Errorf("price by quote %s: %w", q.Quote, err)
	}
	if g.quoted.byKey == nil || len(g.quoted.byKey) >= mostQuotedTables {
		g.quoted.byKey = map[id.Quote]*prices.Table{}
	}
	g.quoted.byKey[q.Quote] = t
	return t, nil
}

// Bound is the most that the quantities can cost a session, or one that runs by no quote where session is nil: what a proposal of them would
// hold. It decides and holds nothing.
func (g *Gate) Bound(session *journal.Session, quantity []Priced) (money.Nanos, []prices.Line, error) {
	table := g.prices
	if session != nil {
		var err error
		if table, err = g.tableOf(session); err != nil {
			return 0, nil, err
		}
	}
	return bound(table, g.clock.Now(), quantity)
}
