package ledger

import (
	"net/url"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
)

const pageSize = 50

// Handler serves the page about the ledger.
type Handler struct {
	DB *postgres.DB
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/ledger", h.show, page.Need(tenants.LedgerRead))
}

// query is what the address of the page says.
type query struct {
	Account, Kind, Session, After string
	// wrong is what was typed for a session and is the id of none.
	wrong bool
}

func queryOf(c echo.Context) query {
	q := query{Account: c.QueryParam("account"), Kind: c.QueryParam("kind"), Session: c.QueryParam("session"), After: c.QueryParam("after")}
	if !slices.Contains(billing.Accounts(), billing.Account(q.Account)) {
		q.Account = ""
	}
	if !slices.Contains(billing.TransferKinds(), q.Kind) {
		q.Kind = ""
	}
	if _, err := id.Parse[id.Entry](q.After); err != nil {
		q.After = ""
	}
	if q.Session != "" {
		_, err := id.Parse[id.Session](q.Session)
		q.wrong = err != nil
	}
	return q
}

func (q query) with(change func(*query)) string {
	change(&q)
	v := url.Values{}
	for name, value := range map[string]string{"account": q.Account, "kind": q.Kind, "session": q.Session, "after": q.After} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func (q query) filtered() bool { return q.Account+q.Kind+q.Session != "" }

func (h *Handler) show(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	q := queryOf(c)
	var v view
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		balances, err := billing.AccountBalances(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		unsettled, holds, err := billing.Unsettled(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		var found []billing.Transfer
		if !q.wrong {
			found, err = billing.Entries(ctx, tx, p.Org, billing.EntryFilter{
				Account: billing.Account(q.Account), Kind: q.Kind, Session: id.Session(q.Session), After: id.Entry(q.After), Limit: pageSize + 1,
			})
			if err != nil {
				return err
			}
		}
		var ids []string
		for _, t := range found {
			if t.Session != "" {
				ids = append(ids, string(t.Session))
			}
		}
		slices.Sort(ids)
		names, err := billing.Names(ctx, tx, p.Org, slices.Compact(ids))
		if err != nil {
			return err
		}
		v = newView(p, q, balances, found, names)
		if holds > 0 {
			v.Unsettled = unsettled.Display() + " of what is held is for " + ui.Plural(holds, "effect", "effects") + " of which nothing was heard in time. It still counts, until an answer settles it."
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "ledger", "Ledger", page.Crumb{Label: "Ledger"})
	return page.Render(c, 200, Page(v))
}
