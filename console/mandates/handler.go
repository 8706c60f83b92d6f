package mandates

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

const (
	pageSize  = 30
	maxAgents = 200
)

// Handler serves the pages about mandates.
type Handler struct {
	DB       *postgres.DB
	Agents   *agents.Service
	Mandates *register.Service
	Sessions *scheduler.Service
	StepUp   *identity.StepUp
	// Issuer is where the public keys are published.
	Issuer string
	Tools  []string
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.MandatesRead), page.Need(tenants.MandatesWrite)
	g.GET("/mandates", h.list, read)
	g.GET("/mandates/new", h.newForm, write)
	g.POST("/mandates/new", h.create, write)
	g.GET("/mandates/settings", h.settings, page.Need(tenants.OrganizationWrite))
	g.POST("/mandates/settings", h.setSettings, page.Need(tenants.OrganizationWrite))
	g.GET("/mandates/:mandate", h.show, read)
	g.GET("/mandates/:mandate/export", h.export, read)
	g.GET("/mandates/:mandate/sign", h.signForm, write)
	g.POST("/mandates/:mandate/sign", h.sign, write)
	g.GET("/mandates/:mandate/narrow", h.narrowForm, write)
	g.POST("/mandates/:mandate/narrow", h.narrow, write)
	g.GET("/mandates/:mandate/revoke", h.revokeForm, write)
	g.POST("/mandates/:mandate/revoke", h.revoke, write)
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	after, _ := id.Parse[id.Mandate](c.QueryParam("after"))
	v := listView{New: p.Path("mandates", "new"), CanWrite: p.Can(tenants.MandatesWrite)}
	if p.Can(tenants.OrganizationWrite) {
		v.Settings = p.Path("mandates", "settings")
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		roots, err := h.Mandates.List(ctx, tx, p.Org, register.Filter{Project: p.Project, Roots: true, After: after, Limit: pageSize + 1})
		if err != nil {
			return err
		}
		if len(roots) > pageSize {
			roots = roots[:pageSize]
			v.Pager.Next = p.Path("mandates") + "?after=" + string(roots[pageSize-1].ID)
		}
		ids := make([]id.Mandate, len(roots))
		for i, m := range roots {
			ids[i] = m.ID
		}
		all, err := h.Mandates.Trees(ctx, tx, p.Org, ids)
		if err != nil {
			return err
		}
		slices.SortStableFunc(all, func(a, b register.Mandate) int { // the newest tree first, each tree in its order
			return slices.Index(ids, a.Path[0]) - slices.Index(ids, b.Path[0])
		})
		v.Rows, err = h.rows(ctx, tx, p, all)
		return err
	})
	if err != nil {
		return err
	}
	if after != "" {
		v.Pager.First = p.Path("mandates")
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "mandates"
	v.Frame = page.NewFrame(c, "mandates", "Mandates", page.Crumb{Label: "Mandates"})
	return page.Render(c, http.StatusOK, List(v))
}

func (h *Handler) rows(ctx context.Context, tx pgx.Tx, p page.Place, all []register.Mandate) ([]row, error) {
	spent, err := h.Mandates.Spent(ctx, tx, p.Org, all...)
	if err != nil {
		return nil, err
	}
	names, err := h.names(ctx, tx, p, all)
	if err != nil {
		return nil, err
	}
	now, out := time.Now(), make([]row, len(all))
	for i, m := range all {
		out[i] = newRow(p, m, spent[m.ID], names, now)
	}
	return out, nil
}

func (h *Handler) names(ctx context.Context, tx pgx.Tx, p page.Place, all []register.Mandate) (map[id.Agent]string, error) {
	out := map[id.Agent]string{}
	for _, m := range all {
		if _, known := out[m.Agent]; known {
			continue
		}
		a, err := h.Agents.Get(ctx, tx, p.Org, m.Agent)
		if err != nil {
			return nil, err
		}
		out[m.Agent] = a.Name
	}
	return out, nil
}

// of reads the mandate that the address names, in this project.
func (h *Handler) of(c echo.Context, tx pgx.Tx) (register.Mandate, error) {
	p := page.PlaceOf(c)
	of, err := id.Parse[id.Mandate](c.Param("mandate"))
	if err != nil {
		return register.Mandate{}, fault.NotFound()
	}
	m, err := h.Mandates.Get(c.Request().Context(), tx, p.Org, of)
	if err == nil && m.Project != p.Project {
		return register.Mandate{}, fault.NotFound()
	}
	return m, err
}

func crumbs(p page.Place, r row, last string) []page.Crumb {
	out := []page.Crumb{{Label: "Mandates", Href: p.Path("mandates")}}
	if last == "" {
		return append(out, page.Crumb{Label: r.Intent})
	}
	return append(out, page.Crumb{Label: r.Intent, Href: r.Href}, page.Crumb{Label: last})
}

func (h *Handler) show(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var v showView
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		m, err := h.of(c, tx)
		if err != nil {
			return err
		}
		tree, err := h.Mandates.Trees(ctx, tx, p.Org, m.Path[:1])
		if err != nil {
			return err
		}
		rows, err := h.rows(ctx, tx, p, tree)
		if err != nil {
			return err
		}
		for i, t := range tree {
			switch {
			case t.ID == m.ID:
				v.Row = rows[i]
			case slices.Contains(m.Path, t.ID):
				v.Above = append(v.Above, rows[i])
			case slices.Contains(t.Path, m.ID):
				rows[i].Level -= len(m.Path)
				v.Tree = append(v.Tree, rows[i])
			}
		}
		v.Body = indented(m.Body)
		lines, err := h.Mandates.Receipts(ctx, tx, p.Org, m.ID, 25)
		v.Receipts = receipts(p, lines)
		return err
	})
	if err != nil {
		return err
	}
	v.CanWrite = p.Can(tenants.MandatesWrite)
	v.Narrow, v.Revoke, v.Export = v.Row.Href+"/narrow", v.Row.Href+"/revoke", v.Row.Href+"/export"
	v.Frame = page.NewFrame(c, "mandates", v.Row.Intent, crumbs(p, v.Row, "")...)
	return page.Render(c, http.StatusOK, Show(v))
}

func receipts(p page.Place, lines []mandate.Line) []receiptRow {
	out := make([]receiptRow, len(lines))
	for i, l := range lines {
		out[i] = receiptRow{
			Refused: l.Type == mandate.Refusal, What: l.Name, Payee: l.Payee, Amount: money.Nanos(l.Amount), Reason: l.Reason, At: l.At, Session: string(l.Session), Href: p.Path("sessions", string(l.Session)),
		}
	}
	return out
}

func indented(body []byte) string {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return string(body)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return string(body)
	}
	return string(out)
}

func (h *Handler) export(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var f mandate.File
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		m, err := h.of(c, tx)
		if err != nil {
			return err
		}
		f, err = h.Mandates.Export(ctx, tx, p.Org, m.ID, h.Issuer)
		return err
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Content-Disposition", `attachment; filename="`+c.Param("mandate")+`.json"`)
	return c.JSON(http.StatusOK, f)
}

// drawSign shows the mandate exactly as it will be signed, and asks the person to confirm it.
func (h *Handler) drawSign(c echo.Context, problems ui.Problems, code int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	var m register.Mandate
	var v signView
	var settings register.Settings
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := h.of(c, tx)
		if err != nil {
			return err
		}
		if m, err = h.Mandates.Prepare(ctx, tx, p.Org, found.ID, viewer.User); err != nil {
			return err
		}
		rows, err := h.rows(ctx, tx, p, []register.Mandate{m})
		if err != nil {
			return err
		}
		v.Row = rows[0]
		settings, err = h.Mandates.Settings(ctx, tx, p.Org)
		return err
	})
	if err != nil {
		return err
	}
	v.Body, v.Action = indented(m.Body), v.Row.Sign
	request, err := h.StepUp.Begin(ctx, h.ask(c, m))
	if err != nil {
		return err
	}
	v.Confirm = confirm.View{
		Request: request, Label: "Sign", Kind: "primary", Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()), Back: v.Row.Href, Problems: problems,
	}
	if request.Method != identity.MethodPasskey && settings.WantsPasskey(m.Grant) {
		v.Passkey, v.Above, v.Enrol = true, settings.PasskeyAbove.Display(), p.Path("settings", "passkeys", "new")
	}
	v.Frame = page.NewFrame(c, "mandates", "Sign", crumbs(p, v.Row, "Sign")...)
	c.Response().Header().Set("Cache-Control", "no-store")
	return page.Render(c, code, Sign(v))
}

func (h *Handler) ask(c echo.Context, m register.Mandate) identity.Ask {
	viewer, _ := page.ViewerOf(c)
	return identity.Ask{User: viewer.User, Org: m.Org, Purpose: register.Purpose(m.ID), Challenge: m.Digest}
}

func (h *Handler) signForm(c echo.Context) error { return h.drawSign(c, nil, http.StatusOK) }

func (h *Handler) sign(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	var m register.Mandate
	answer := confirm.Read(c)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		if m, err = h.of(c, tx); err != nil {
			return err
		}
		settings, err := h.Mandates.Settings(ctx, tx, p.Org)
		if err == nil && answer.Method != identity.MethodPasskey && settings.WantsPasskey(m.Grant) {
			return fault.New(fault.Forbidden, "permission_denied", "This mandate is signed with a passkey.")
		}
		return err
	})
	if err != nil {
		return err
	}
	proof, err := h.StepUp.Finish(ctx, h.ask(c, m), answer)
	if err != nil {
		problems, code, err := confirm.Refused(err)
		if err != nil {
			return err
		}
		return h.drawSign(c, problems, code)
	}
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Mandates.Sign(ctx, tx, p.Org, m.ID, viewer.User, proof)
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, "Signed. The mandate is in force.")
	return page.Redirect(c, p.Path("mandates", string(m.ID)))
}

func (h *Handler) drawRevoke(c echo.Context, v revokeView, code int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		m, err := h.of(c, tx)
		if err != nil {
			return err
		}
		fall, working, err := h.Mandates.Reach(ctx, tx, p.Org, m.ID)
		if err != nil {
			return err
		}
		rows, err := h.rows(ctx, tx, p, append([]register.Mandate{m}, fall...))
		if err != nil {
			return err
		}
		v.Row = rows[0]
		for _, r := range rows[1:] {
			r.Level -= len(m.Path) - 1
			v.Fall = append(v.Fall, r)
		}
		for _, s := range working {
			title := s.Title
			if title == "" {
				title = string(s.ID)
			}
			v.Working = append(v.Working, receiptRow{What: title, Session: string(s.ID), Href: p.Path("sessions", string(s.ID)), Reason: s.Status})
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Action = v.Row.Href + "/revoke"
	v.Frame = page.NewFrame(c, "mandates", "Revoke", crumbs(p, v.Row, "Revoke")...)
	return page.Render(c, code, Revoke(v))
}

func (h *Handler) revokeForm(c echo.Context) error {
	return h.drawRevoke(c, revokeView{}, http.StatusOK)
}

func (h *Handler) revoke(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	reason := c.FormValue("reason")
	var done scheduler.RevokedMandate
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		m, err := h.of(c, tx)
		if err != nil {
			return err
		}
		done, err = h.Sessions.RevokeMandate(ctx, tx, p.Org, m.ID, reason)
		return err
	})
	if err != nil {
		problems, code, err := page.FormProblems(err, nil)
		if err != nil {
			return err
		}
		return h.drawRevoke(c, revokeView{Problems: problems, Reason: reason}, code)
	}
	page.Flash(c, "Revoked. From now on nothing more is admitted under it.")
	if done.Stop != nil {
		return page.Redirect(c, p.Path("stops", string(done.Stop.ID)))
	}
	return page.Redirect(c, p.Path("mandates"))
}
