package identity

import (
	"context"
	"io"
	"net/http"

	"github.com/a-h/templ"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

func (h *Handler) members(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := membersView{Tabs: tabs(p, "members"), Own: p.Path("settings") + "?tab=security"}
	viewer, _ := page.ViewerOf(c)
	after, _ := id.Parse[id.Member](c.QueryParam("after"))
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := h.Tenants.ListMembersTx(ctx, tx, p.Org, after, pageSize+1)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = p.Path("identity", "members") + "?after=" + string(found[pageSize-1].ID)
		}
		for _, m := range found {
			keys, err := h.StepUp.PasskeysOfTx(ctx, tx, p.Org, m.UserID)
			if err != nil {
				return err
			}
			v.Rows = append(v.Rows, memberRowOf(p, m, keys, m.UserID == viewer.User))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if after != "" {
		v.Pager.First = p.Path("identity", "members")
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "members"
	v.Frame = page.NewFrame(c, "identity", "Identity", page.Crumb{Label: "Identity", Href: p.Path("identity")}, page.Crumb{Label: "Members"})
	return page.Render(c, http.StatusOK, Members(v))
}

// inMember finds the member of the address, with the passkeys.
func (h *Handler) inMember(c echo.Context) (m tenants.Member, keys []identity.Passkey, err error) {
	mid, err := id.Parse[id.Member](c.Param("member"))
	if err != nil {
		return m, nil, fault.NotFound()
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		if m, err = h.Tenants.GetMemberTx(ctx, tx, p.Org, mid); err != nil {
			return err
		}
		keys, err = h.StepUp.PasskeysOfTx(ctx, tx, p.Org, m.UserID)
		return err
	})
	return m, keys, err
}

func (h *Handler) member(c echo.Context) error {
	m, keys, err := h.inMember(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	v := memberView{memberRow: memberRowOf(p, m, keys, m.UserID == viewer.User), Org: p.OrgName, Own: p.Path("settings") + "?tab=security"}
	for _, k := range keys {
		v.Keys = append(v.Keys, passkeyRow{
			Name: k.Name, Created: k.CreatedAt, LastUsed: k.LastUsedAt, Barred: k.Barred,
			Bar: p.Path("identity", "members", string(m.ID), "passkeys", string(k.ID), "bar"), CanBar: !k.Barred && !v.You && mayBar(p, m),
		})
	}
	v.Frame = page.NewFrame(c, "identity", v.label(), page.Crumb{Label: "Identity", Href: p.Path("identity")}, page.Crumb{Label: "Members", Href: p.Path("identity", "members")}, page.Crumb{Label: v.label()})
	return page.Render(c, http.StatusOK, Member(v))
}

// mayBar: whoever changes members, and may do all that this one may.
func mayBar(p page.Place, m tenants.Member) bool {
	for _, one := range m.Permissions {
		if !p.Can(one) {
			return false
		}
	}
	return p.Can(tenants.MembersWrite)
}

// barred finds what is to be barred, and the page that asks for it.
func (h *Handler) barred(c echo.Context) (m tenants.Member, k identity.Passkey, v confirm.PageView, err error) {
	m, keys, err := h.inMember(c)
	if err != nil {
		return m, k, v, err
	}
	for _, one := range keys {
		if string(one.ID) == c.Param("passkey") && !one.Barred {
			k = one
		}
	}
	if k.ID == "" {
		return m, k, v, fault.NotFound()
	}
	p := page.PlaceOf(c)
	if !mayBar(p, m) {
		return m, k, v, fault.New(fault.Forbidden, "permission_denied", "You can bar a passkey of somebody who may do no more than you.")
	}
	row := memberRowOf(p, m, nil, false)
	v = confirm.PageView{
		Title: "Stop accepting " + k.Name + "?", Action: p.Path("identity", "members", string(m.ID), "passkeys", string(k.ID), "bar"),
		Frame: page.NewFrame(c, "identity", "Bar a passkey", page.Crumb{Label: "Identity", Href: p.Path("identity")}, page.Crumb{Label: row.label(), Href: row.Href}, page.Crumb{Label: "Bar a passkey"}),
		View:  confirm.View{Label: "Stop accepting it", Kind: "danger", Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()), Back: row.Href},
	}
	return m, k, v, nil
}

func (h *Handler) askBar(c echo.Context) error {
	m, k, v, err := h.barred(c)
	if err != nil {
		return err
	}
	return h.drawBar(c, m, k, v, http.StatusOK)
}

func (h *Handler) drawBar(c echo.Context, m tenants.Member, k identity.Passkey, v confirm.PageView, status int) (err error) {
	viewer, _ := page.ViewerOf(c)
	p := page.PlaceOf(c)
	if v.View.Request, err = h.StepUp.Begin(c.Request().Context(), h.StepUp.AskBar(viewer.User, p.Org, k.ID)); err != nil {
		return err
	}
	what := barText(p.OrgName, memberRowOf(p, m, nil, false).label(), c.FormValue("reason"))
	return page.Render(c, status, templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		return confirm.Page(v).Render(templ.WithChildren(ctx, what), w)
	}))
}

func (h *Handler) bar(c echo.Context) error {
	m, k, v, err := h.barred(c)
	if err != nil {
		return err
	}
	viewer, _ := page.ViewerOf(c)
	p := page.PlaceOf(c)
	err = h.StepUp.Bar(c.Request().Context(), viewer.User, p.Org, m.UserID, k.ID, c.FormValue("reason"), confirm.Read(c))
	if err != nil {
		var status int
		if v.View.Problems, status, err = confirm.Refused(err); err != nil {
			return err
		}
		return h.drawBar(c, m, k, v, status)
	}
	page.Flash(c, p.OrgName+" accepts "+k.Name+" no more.")
	return page.Redirect(c, v.View.Back)
}
