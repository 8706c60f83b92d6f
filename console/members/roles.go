package members

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

type roleRow struct {
	Name, Description, Href string
	Permissions             int
	All                     bool
	BuiltIn                 bool
}

type rolesView struct {
	Frame    page.Frame
	Tabs     []ui.Segment
	New      string
	Rows     []roleRow
	Own      int
	CanWrite bool
}

// permissionGroup is what can be done with one noun.
type permissionGroup struct {
	Noun    string
	Choices []ui.Choice
}

type roleView struct {
	Frame             page.Frame
	Action, Back      string
	Delete            string
	New               bool
	BuiltIn           bool
	Name, Description string
	Version           string
	Groups            []permissionGroup
	CanWrite          bool
	Problems          ui.Problems
}

func (h *Handler) roles(c echo.Context) error {
	p := page.PlaceOf(c)
	v := rolesView{Tabs: tabs(p, "roles"), New: p.Path("roles", "new"), CanWrite: p.Can(tenants.MembersWrite)}
	all := len(tenants.Permissions())
	for _, r := range tenants.Roles() {
		n := len(tenants.PermissionsOf(r))
		v.Rows = append(v.Rows, roleRow{Name: roleLabel(string(r)), Description: tenants.DescribeRole(r), Href: p.Path("roles", string(r)), Permissions: n, All: n == all, BuiltIn: true})
	}
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		own, err := h.Tenants.ListRolesTx(ctx, tx, by.Org, "", maxRoles)
		for _, r := range own {
			v.Rows = append(v.Rows, roleRow{Name: r.Name, Description: r.Description, Href: p.Path("roles", string(r.ID)), Permissions: len(r.Permissions), All: len(r.Permissions) == all})
			v.Own++
		}
		return err
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "members", "Roles", page.Crumb{Label: "Members", Href: p.Path("members")}, page.Crumb{Label: "Roles"})
	return page.Render(c, 200, Roles(v))
}

// groups lays the permissions out by noun. What the viewer may not give is shown and can't be ticked.
func groups(p page.Place, has []string, frozen bool) []permissionGroup {
	var out []permissionGroup
	for _, one := range tenants.Permissions() {
		noun, verb, _ := strings.Cut(string(one), ":")
		if len(out) == 0 || out[len(out)-1].Noun != noun {
			out = append(out, permissionGroup{Noun: noun})
		}
		c := ui.Choice{Name: "permissions", Value: string(one), Label: verbWords[verb], Checked: slices.Contains(has, string(one)), Attrs: templAttrs{}}
		if frozen {
			c.Attrs["disabled"] = true
		} else if !p.Can(one) {
			c.Attrs["disabled"], c.Help = true, "You do not have it yourself."
		}
		last := &out[len(out)-1]
		last.Choices = append(last.Choices, c)
	}
	return out
}

// nounLabel writes what a permission is about as a heading does.
func nounLabel(noun string) string {
	if noun == "organization" {
		return "Organisation"
	}
	return strings.ToUpper(noun[:1]) + noun[1:]
}

var verbWords = map[string]string{"read": "See", "write": "Change", "decide": "Decide"}

func (h *Handler) newRole(c echo.Context) error {
	return h.drawRole(c, 200, roleView{New: true}, nil)
}

func (h *Handler) drawRole(c echo.Context, status int, v roleView, has []string) error {
	p := page.PlaceOf(c)
	v.Back = p.Path("roles")
	title := "New role"
	switch {
	case v.New:
		v.Action, v.CanWrite = p.Path("roles", "new"), true
	default:
		v.Action = p.Path("roles", c.Param("role"))
		v.Delete, title = v.Action+"/delete", roleLabel(v.Name)
	}
	v.Groups = groups(p, has, !v.CanWrite)
	v.Frame = page.NewFrame(c, "members", title, page.Crumb{Label: "Members", Href: p.Path("members")}, page.Crumb{Label: "Roles", Href: v.Back}, page.Crumb{Label: title})
	return page.Render(c, status, Role(v))
}

func roleForm(c echo.Context) (tenants.SaveRole, error) {
	form, err := c.FormParams()
	if err != nil {
		return tenants.SaveRole{}, fault.New(fault.Invalid, "invalid_request", "The form could not be read. Go back and try again.").Because(err)
	}
	return tenants.SaveRole{Name: form.Get("name"), Description: form.Get("description"), Permissions: form["permissions"]}, nil
}

// refusedRole shows the form with what is wrong; permissions have one place, whichever of them is meant.
func (h *Handler) refusedRole(c echo.Context, err error, v roleView, in tenants.SaveRole) error {
	problems, status, err := page.FormProblems(err, nil)
	if err != nil {
		return err
	}
	for i, one := range problems {
		if strings.HasPrefix(one.Field, "permissions") {
			problems[i].Field = "permissions"
		}
	}
	v.Problems, v.Name, v.Description = problems, in.Name, in.Description
	return h.drawRole(c, status, v, in.Permissions)
}

func (h *Handler) createRole(c echo.Context) error {
	in, err := roleForm(c)
	if err != nil {
		return err
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		_, err := h.Tenants.CreateRoleTx(ctx, tx, by, in)
		return err
	})
	if err != nil {
		return h.refusedRole(c, err, roleView{New: true}, in)
	}
	page.Flash(c, "The role "+in.Name+" is made. Give it to a member.")
	return page.Redirect(c, page.PlaceOf(c).Path("roles"))
}

func (h *Handler) showRole(c echo.Context) error {
	p := page.PlaceOf(c)
	if r := tenants.Role(c.Param("role")); slices.Contains(tenants.Roles(), r) {
		return h.drawRole(c, 200, roleView{BuiltIn: true, Name: string(r), Description: tenants.DescribeRole(r)}, names(tenants.PermissionsOf(r)))
	}
	role, err := id.Parse[id.Role](c.Param("role"))
	if err != nil {
		return fault.NotFound()
	}
	var found tenants.CustomRole
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		found, err = h.Tenants.GetRoleTx(ctx, tx, by.Org, role)
		return err
	})
	if err != nil {
		return err
	}
	return h.drawRole(c, 200, roleView{
		Name: found.Name, Description: found.Description, Version: strconv.FormatInt(found.Version, 10), CanWrite: p.Can(tenants.MembersWrite) && mayGive(p, found.Permissions),
	}, names(found.Permissions))
}

func names(list []tenants.Permission) []string {
	out := make([]string, len(list))
	for i, one := range list {
		out[i] = string(one)
	}
	return out
}

func (h *Handler) updateRole(c echo.Context) error {
	role, err := id.Parse[id.Role](c.Param("role"))
	if err != nil {
		return fault.NotFound()
	}
	in, err := roleForm(c)
	if err != nil {
		return err
	}
	var ifVersion *int64
	if n, err := strconv.ParseInt(c.FormValue("version"), 10, 64); err == nil {
		ifVersion = &n
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		_, err := h.Tenants.UpdateRoleTx(ctx, tx, by, role, ifVersion, func(tenants.SaveRole) tenants.SaveRole { return in })
		return err
	})
	if err != nil {
		return h.refusedRole(c, err, roleView{CanWrite: true, Version: c.FormValue("version")}, in)
	}
	page.Flash(c, "The role "+in.Name+" is saved, for all who have it.")
	return page.Redirect(c, page.PlaceOf(c).Path("roles"))
}

func (h *Handler) deleteRole(c echo.Context) error {
	role, err := id.Parse[id.Role](c.Param("role"))
	if err != nil {
		return fault.NotFound()
	}
	var was tenants.CustomRole
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		if was, err = h.Tenants.GetRoleTx(ctx, tx, by.Org, role); err != nil {
			return err
		}
		return h.Tenants.DeleteRoleTx(ctx, tx, by, role)
	})
	if err != nil {
		if was.ID == "" {
			return err
		}
		in := tenants.SaveRole{Name: was.Name, Description: was.Description, Permissions: names(was.Permissions)}
		return h.refusedRole(c, err, roleView{CanWrite: true, Version: strconv.FormatInt(was.Version, 10)}, in)
	}
	page.Flash(c, "The role "+was.Name+" is deleted.")
	return page.Redirect(c, page.PlaceOf(c).Path("roles"))
}
