package mandates

import (
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
)

type settingsView struct {
	Frame    page.Frame
	Action   string
	Base     string
	Above    string
	All      bool
	Agents   []toolChoice
	IDs      map[string]string
	Problems ui.Problems
}

// drawSettings shows how the organisation wants its mandates.
func (h *Handler) drawSettings(c echo.Context, v settingsView, code int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v.Base, v.Action, v.IDs = p.Path("mandates"), p.Path("mandates", "settings"), map[string]string{}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		s, err := h.Mandates.Settings(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		if v.Above == "" {
			v.Above = s.PasskeyAbove.Decimal()
		}
		v.All = slices.Contains(s.RequiredOf, policy.Any)
		found, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, Limit: maxAgents})
		for _, a := range found {
			v.Agents = append(v.Agents, toolChoice{a.Name, slices.Contains(s.RequiredOf, string(a.ID))})
			v.IDs[a.Name] = string(a.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "mandates", "How mandates are wanted", page.Crumb{Label: "Mandates", Href: v.Base}, page.Crumb{Label: "Settings"})
	return page.Render(c, code, Settings(v))
}

func (h *Handler) settings(c echo.Context) error {
	return h.drawSettings(c, settingsView{}, http.StatusOK)
}

func (h *Handler) setSettings(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	values, err := c.FormParams()
	if err != nil {
		return err
	}
	above, err := page.Dollars(c.FormValue("passkey_above"))
	if err != nil {
		return h.drawSettings(c, settingsView{Above: c.FormValue("passkey_above"), Problems: ui.Problems{{Field: "passkey_above", Message: "Write an amount in dollars, such as 100.00."}}}, http.StatusUnprocessableEntity)
	}
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		have, err := h.Mandates.Settings(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		shown, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, Limit: maxAgents})
		if err != nil {
			return err
		}
		// Who is not on this page stays as it was: keys, projects, and the agents of other projects.
		of := slices.DeleteFunc(slices.Clone(have.RequiredOf), func(subject string) bool {
			return subject == policy.Any || slices.ContainsFunc(shown, func(a agents.Agent) bool { return string(a.ID) == subject })
		})
		if c.FormValue("all") != "" {
			of = append(of, policy.Any)
		}
		_, err = h.Mandates.SetSettings(ctx, tx, p.Org, register.Settings{PasskeyAbove: above, RequiredOf: append(of, values["agent"]...)})
		return err
	})
	if err != nil {
		problems, code, err := page.FormProblems(err, nil)
		if err != nil {
			return err
		}
		return h.drawSettings(c, settingsView{Above: c.FormValue("passkey_above"), Problems: problems}, code)
	}
	page.Flash(c, "Saved. It binds from now on, running sessions too.")
	return page.Redirect(c, p.Path("mandates"))
}
