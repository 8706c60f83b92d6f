package sessions

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// limit is what a session stopped at: in words, and where it can be changed.
type limit struct {
	Sentence string
	// Link and Href lead to what has to be raised; empty where no page can.
	Link, Href string
}

var limitSentences = map[string]string{
	journal.LimitCost: "Its price ceiling is used up.", journal.LimitTokens: "It has used all its tokens.", journal.LimitSteps: "It has taken all its steps.",
	journal.LimitWallTime: "Its time is over.", journal.LimitDepth: "It is as deep as sessions may start sessions.",
}

// limitOf says what stopped the session, or nil when no limit did. The stop reason names the budget; in journals from before it did, the decision
// that refused the next effect does.
func (h *Handler) limitOf(ctx context.Context, p page.Place, s journal.Session) (*limit, error) {
	if s.Status != journal.Idle || s.StopReason == nil || s.StopReason.Type != journal.StopBudgetReached {
		return nil, nil
	}
	l := &limit{Sentence: s.StopReason.Reason}
	if l.Sentence == "" {
		l.Sentence = limitSentences[s.StopReason.Limit]
	}
	switch s.StopReason.Scope {
	case "organization":
		if p.Can(tenants.LedgerRead) {
			l.Link, l.Href = "Look at the ledger", p.Path("ledger")
		}
	case "mandate":
		if s.StopReason.ScopeID != "" && p.Can(tenants.MandatesRead) {
			l.Link, l.Href = "Look at the mandate “"+s.StopReason.ScopeName+"”", p.Path("mandates", s.StopReason.ScopeID)
		}
	case "budget":
		of, name := s.StopReason.ScopeID, s.StopReason.ScopeName
		if of == "" {
			short, err := h.lastShortfall(ctx, s)
			if err != nil {
				return nil, err
			}
			if short != nil && short.Scope == "budget" {
				of, name = short.ID, short.Name
			}
		}
		if of != "" && p.Can(tenants.BudgetsRead) {
			l.Link, l.Href = "Look at the budget “"+name+"”", p.Path("budgets", of)
		}
	}
	return l, nil
}

// lastShortfall is that of the newest decision which was refused for want of money.
func (h *Handler) lastShortfall(ctx context.Context, s journal.Session) (*journal.Shortfall, error) {
	events, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{Types: []string{journal.GateDecided{}.EventType()}, Descending: true, Limit: 5})
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		var d journal.GateDecided
		if err := json.Unmarshal(e.Payload, &d); err != nil {
			return nil, fmt.Errorf("read event %d of session %s: %w", e.Seq, s.ID, err)
		}
		if d.Shortfall != nil {
			return d.Shortfall, nil
		}
	}
	return nil, nil
}

// resume lets a session that stopped at a limit go on.
func (h *Handler) resume(c echo.Context) error {
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	err = h.DB.InTx(c.Request().Context(), s.Org, func(tx pgx.Tx) error {
		_, err := h.Sessions.Resume(c.Request().Context(), tx, s.Org, s.ID)
		return err
	})
	return h.answer(c, s, err, "Not resumed.")
}
