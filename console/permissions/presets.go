package permissions

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

type presetsView struct {
	Frame        page.Frame
	Action, Back string
	Presets      []policy.Preset
	Chosen       string
	Subject      string
	Replace      bool
	Subjects     []ui.Option
	Problems     ui.Problems
	Simulation   *simulation
}

func (h *Handler) presetForm(c echo.Context) error {
	v := presetsView{Chosen: c.QueryParam("preset"), Subject: c.QueryParam("subject"), Replace: true}
	if v.Chosen == "" {
		v.Chosen = policy.Presets()[0].Name
	}
	return h.drawPresets(c, 200, v)
}

func (h *Handler) drawPresets(c echo.Context, status int, v presetsView) error {
	p := page.PlaceOf(c)
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		known, err := h.names(ctx, tx, p)
		v.Subjects = append([]ui.Option{{Value: "", Label: "Choose…"}}, known.options(v.Subject)...)
		return err
	})
	if err != nil {
		return err
	}
	v.Action, v.Back, v.Presets = p.Path("permissions", "presets"), p.Path("permissions", "rules"), policy.Presets()
	v.Frame = page.NewFrame(c, "permissions", "Presets", crumbs(p, page.Crumb{Label: "Rules", Href: v.Back}, page.Crumb{Label: "Presets"})...)
	return page.Render(c, status, Presets(v))
}

func (h *Handler) applyPreset(c echo.Context) error {
	v := presetsView{Chosen: c.FormValue("preset"), Subject: c.FormValue("subject"), Replace: c.FormValue("replace") != ""}
	if v.Subject == "" {
		v.Problems = ui.Problems{{Field: "subject", Message: "Choose whom it is for."}}
		return h.drawPresets(c, 422, v)
	}
	var applied int
	err := h.applyOrTry(c, &v, &applied)
	if err != nil {
		problems, status, err := refused(err)
		if err != nil {
			return err
		}
		v.Problems = problems
		return h.drawPresets(c, status, v)
	}
	if v.Simulation != nil {
		return h.drawPresets(c, 200, v)
	}
	page.Flash(c, ui.Plural(int64(applied), "rule is copied and binds from now on.", "rules are copied and bind from now on."))
	return page.Redirect(c, page.PlaceOf(c).Path("permissions", "rules")+"?subject="+v.Subject)
}

func (h *Handler) applyOrTry(c echo.Context, v *presetsView, applied *int) error {
	org := page.PlaceOf(c).Org
	if c.FormValue("do") != "try" {
		return h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
			made, err := h.Policies.ApplyPreset(ctx, tx, org, v.Chosen, v.Subject, v.Replace)
			*applied = len(made)
			return err
		})
	}
	var proposal policy.Proposal
	title := ""
	for _, p := range policy.Presets() {
		if p.Name != v.Chosen {
			continue
		}
		title = "With the preset " + p.Title
		for _, r := range p.Rules {
			r.Subject = v.Subject
			proposal.Rules = append(proposal.Rules, r)
		}
	}
	if title == "" {
		return fault.NotFound()
	}
	if v.Replace {
		if err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
			var err error
			proposal.Without, err = h.rulesOf(ctx, tx, org, v.Subject)
			return err
		}); err != nil {
			return err
		}
	}
	found, err := h.simulate(c, proposal, title)
	v.Simulation = found
	return err
}

func (h *Handler) rulesOf(ctx context.Context, tx pgx.Tx, org id.Org, subject string) ([]id.Permission, error) {
	have, err := h.Policies.List(ctx, tx, org, policy.ListFilter{Subject: subject, Limit: policy.MaxRules})
	out := make([]id.Permission, len(have))
	for i, r := range have {
		out[i] = r.ID
	}
	return out, err
}
