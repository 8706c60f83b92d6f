package agents

import (
	"net/url"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants"
)

type tag struct {
	Name string
	// Rules is the list of the rules that are about it.
	Rules string
}

// tagsView is an agent's tags, with a form for who may change them.
type tagsView struct {
	Tags    []tag
	Action  string
	Typed   string
	Problem string
}

func newTags(p page.Place, w whole) *tagsView {
	v := &tagsView{Typed: strings.Join(w.tags, " ")}
	for _, name := range w.tags {
		v.Tags = append(v.Tags, tag{Name: name, Rules: p.Path("permissions", "rules") + "?" + url.Values{"subject": {policy.TagPrefix + name}}.Encode()})
	}
	if p.Can(tenants.PermissionsWrite) && w.agent.ArchivedAt == nil {
		v.Action = p.Path("agents", string(w.agent.ID), "tags")
	}
	return v
}

// setTags gives an agent just the tags that were typed. It is a change of what rules bind, so it takes the permission for that.
func (h *Handler) setTags(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	if w.agent.ArchivedAt != nil {
		return fault.New(fault.Conflict, "archived", "This agent is archived; it can be read but not changed.")
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	typed := c.FormValue("tags")
	names := strings.FieldsFunc(typed, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Policies.SetTags(ctx, tx, p.Org, w.agent.ID, names)
		return err
	})
	if err == nil {
		page.Flash(c, "The tags are saved. Rules about them bind from now on.")
		return page.Redirect(c, p.Path("agents", string(w.agent.ID)))
	}
	problems, status, err := page.FormProblems(err, nil)
	if err != nil {
		return err
	}
	v, err := newShow(p, w, "")
	if err != nil {
		return err
	}
	v.Tags.Typed, v.Tags.Problem = typed, problems[0].Message
	return h.drawShow(c, status, w, v)
}
