package permissions

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
)

const (
	simulatedDays = 7
	// maxChanges is how many changed decisions a page shows, and maxRounds how many pages of decisions it looks at for them.
	maxChanges = 50
	maxRounds  = 10
)

type changeRow struct {
	At           time.Time
	Agent, What  string
	Session      string
	Was, Would   ui.Status
	Reason       string
	Certain      bool
	SessionTitle string
}

// simulation is what a proposal would have changed in the last days.
type simulation struct {
	Title    string
	Rows     []changeRow
	Examined int
	Since    time.Time
	// Denied and Allowed count the changes by what they would have become.
	Denied, Allowed int
	// Cut says that there are older decisions that were not looked at, or not shown.
	Cut bool
}

func (h *Handler) simulate(c echo.Context, proposal policy.Proposal, title string) (*simulation, error) {
	p := page.PlaceOf(c)
	out := &simulation{Title: title}
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		known, err := h.names(ctx, tx, p)
		if err != nil {
			return err
		}
		ask := policy.Simulate{Proposal: proposal, Days: simulatedDays, Limit: maxChanges}
		for range maxRounds {
			found, err := h.Policies.Simulate(ctx, tx, p.Org, ask)
			if err != nil {
				return err
			}
			out.Since = found.Since
			out.Examined += found.Examined
			for _, one := range found.Changes {
				out.add(p, known, one)
			}
			ask.Before, ask.Limit = found.Next, maxChanges-len(out.Rows)
			if out.Cut = found.Next != ""; !out.Cut || ask.Limit <= 0 {
				return nil
			}
		}
		return nil
	})
	return out, err
}

func (s *simulation) add(p page.Place, known names, change policy.Change) {
	name := known.agents[string(change.Agent)]
	if name == "" {
		name = string(change.Agent)
	}
	if name == "" {
		name = "an agent of its own"
	}
	s.Rows = append(s.Rows, changeRow{
		At: change.At, Agent: name, What: (policy.Rule{Kind: change.Kind, Name: change.Name, Action: policy.Any, Object: policy.Any}).What(),
		Session: p.Path("sessions", string(change.Session)), SessionTitle: string(change.Session), Was: ui.Effect(string(change.Was)), Would: ui.Effect(string(change.Would)),
		Reason: change.Reason.Message, Certain: change.Certain,
	})
	if change.Would == policy.Allow {
		s.Allowed++
	} else {
		s.Denied++
	}
}
