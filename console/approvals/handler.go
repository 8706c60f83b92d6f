package approvals

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

const (
	inboxSize   = 50
	historySize = 50
)

// Handler serves the pages about approvals.
type Handler struct {
	DB       *postgres.DB
	Tenants  *tenants.Service
	Sessions *scheduler.Service
	StepUp   *identity.StepUp
	// Tools are the names of the tools that rules can be about.
	Tools []string
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, decide := page.Need(tenants.ApprovalsRead), page.Need(tenants.ApprovalsDecide)
	rules, write := page.Need(tenants.ApprovalRulesRead), page.Need(tenants.ApprovalRulesWrite)
	g.GET("/approvals", h.list, read)
	g.POST("/approvals/:approval/decide", h.decide, decide)
	g.GET("/approvals/rules", h.rules, rules)
	g.GET("/approvals/rules/new", h.newRule, write)
	g.POST("/approvals/rules/new", h.saveRule, write)
	g.GET("/approvals/rules/:rule", h.editRule, write)
	g.POST("/approvals/rules/:rule", h.saveRule, write)
	g.POST("/approvals/rules/:rule/delete", h.deleteRule, write)
	g.POST("/approvals/settings", h.saveSettings, write)
	g.GET("/approvals/absence", h.absence, decide)
	g.POST("/approvals/absence", h.saveAbsence, decide)
	g.POST("/approvals/absence/end", h.endAbsence, decide)
}

func (h *Handler) list(c echo.Context) error { return h.draw(c, http.StatusOK, nil, "") }

// draw shows the list and the approval that is open, with what is wrong with a decision on it.
func (h *Handler) draw(c echo.Context, status int, problems ui.Problems, typed string) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	history := c.QueryParam("show") == "history"
	v := listView{Base: p.Path("approvals"), History: history, Problems: problems, CanDecide: p.Can(tenants.ApprovalsDecide), CanWrite: p.Can(tenants.ApprovalRulesWrite)}
	wanted := c.QueryParam("open")
	if c.Param("approval") != "" {
		wanted = c.Param("approval")
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		names, err := h.names(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		f := approval.Filter{Project: p.Project, Limit: inboxSize}
		f.Statuses, f.OldestFirst = []string{string(approval.Pending)}, true
		if history {
			f.Statuses, f.OldestFirst, f.Limit = []string{"approved", "refused", "edited", "expired", "void", "used"}, false, historySize+1
			f.After, _ = id.Parse[id.Approval](c.QueryParam("after"))
		}
		found, err := approval.List(ctx, tx, p.Org, f)
		if err != nil {
			return err
		}
		if history && len(found) > historySize {
			found = found[:historySize]
			v.Pager.Next = v.Base + "?show=history&after=" + string(found[historySize-1].ID)
		}
		for i := range found {
			mine, _, err := approval.MayDecide(ctx, tx, &found[i], viewer.User)
			if err != nil {
				return err
			}
			v.Rows = append(v.Rows, rowOf(v.Base, &found[i], mine && v.CanDecide, history))
		}
		// What the viewer decides on stands first, what has waited longest before the rest.
		slices.SortStableFunc(v.Rows, func(a, b row) int {
			if a.Mine == b.Mine {
				return 0
			}
			if a.Mine {
				return -1
			}
			return 1
		})
		v.Named = wanted != ""
		if wanted == "" && len(v.Rows) > 0 {
			wanted = v.Rows[0].ID
		}
		if wanted == "" {
			return nil
		}
		return h.open(ctx, tx, p, viewer.User, wanted, names, &v)
	})
	if err != nil {
		return err
	}
	if v.Open != nil && typed != "" {
		v.Open.Typed = typed
	}
	for i := range v.Rows {
		v.Rows[i].Current = v.Rows[i].ID == wanted || v.Open != nil && v.Rows[i].ID == v.Open.ID
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "approvals"
	v.Frame = page.NewFrame(c, "approvals", "Approvals", page.Crumb{Label: "Approvals"})
	return page.Render(c, status, List(v))
}

func (h *Handler) open(ctx context.Context, tx pgx.Tx, p page.Place, user id.User, wanted string, names map[id.User]string, v *listView) error {
	asked, err := id.Parse[id.Approval](wanted)
	if err != nil {
		return fault.NotFound()
	}
	a, err := approval.Get(ctx, tx, p.Org, asked)
	if err != nil {
		return err
	}
	if a.Project != p.Project {
		return fault.NotFound()
	}
	mine, why, err := approval.MayDecide(ctx, tx, &a, user)
	if err != nil {
		return err
	}
	said, err := approval.Decisions(ctx, tx, p.Org, a.ID)
	if err != nil {
		return err
	}
	v.Open = detailOf(p, &a, said, names)
	v.Open.Named = v.Named
	v.Open.Mine, v.Open.WhyNot = mine && v.CanDecide, why
	return nil
}

// names are the members' names, by their user ids.
func (h *Handler) names(ctx context.Context, tx pgx.Tx, org id.Org) (map[id.User]string, error) {
	members, err := h.Tenants.ListMembersTx(ctx, tx, org, "", 1000)
	if err != nil {
		return nil, err
	}
	out := map[id.User]string{}
	for _, m := range members {
		out[m.UserID] = m.Email
		if m.Name != "" {
			out[m.UserID] = m.Name
		}
	}
	return out, nil
}

// decide takes a decision. Where the rule asks for a passkey, the viewer confirms it on a page of its own first.
func (h *Handler) decide(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	asked, err := id.Parse[id.Approval](c.Param("approval"))
	if err != nil {
		return fault.NotFound()
	}
	d := approval.Decision{Verb: approval.Verb(c.FormValue("verb")), Digest: c.FormValue("digest"), Reason: c.FormValue("reason")}
	if d.Verb == approval.Edit {
		d.Arguments = json.RawMessage(c.FormValue("arguments"))
		if !json.Valid(d.Arguments) {
			return h.draw(c, http.StatusUnprocessableEntity, ui.Problems{{Field: "arguments", Message: "The arguments are not JSON."}}, c.FormValue("arguments"))
		}
	}
	var after approval.Approval
	asks, err := h.confirmed(c, act{
		purpose: "approval.decide:" + string(asked), title: map[approval.Verb]string{approval.Approve: "Approve once", approval.Refuse: "Refuse", approval.Edit: "Propose these arguments"}[d.Verb],
		what: "Your decision on " + c.FormValue("what") + ". The rule asks you to confirm who you are.", back: p.Path("approvals") + "?open=" + string(asked),
	}, func(proof json.RawMessage) error {
		d.Proof = proof
		return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
			a, err := approval.Get(ctx, tx, p.Org, asked)
			if err != nil {
				return err
			}
			if a.Project != p.Project {
				return fault.NotFound()
			}
			after, err = h.Sessions.Decide(ctx, tx, p.Org, asked, d)
			return err
		})
	})
	if asks {
		return err
	}
	if err != nil {
		problems, status, err := page.FormProblems(err, map[string]string{"/reason": "reason", "/arguments": "arguments"})
		if err != nil {
			return err
		}
		return h.draw(c, status, problems, c.FormValue("arguments"))
	}
	page.Flash(c, told(after))
	if c.FormValue("remember") != "" && after.Status != approval.Pending {
		return page.Redirect(c, p.Path("approvals", "rules", "new")+"?like="+string(asked))
	}
	return page.Redirect(c, p.Path("approvals"))
}

func told(a approval.Approval) string {
	switch a.Status {
	case approval.Approved, approval.Used:
		return "Approved once: " + a.Shown.Tool + " goes on."
	case approval.Refused:
		return "Refused. The agent reads your reason and goes on without it."
	case approval.Edited:
		return "Your arguments are proposed. Somebody else decides on them."
	case approval.Pending, approval.Expired, approval.Void:
	}
	return "Your decision is noted; others must decide, too."
}
