package members

import (
	"strings"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/tenants"
)

type memberRow struct {
	ID, User, Name, Email string
	Role                  string
	You                   bool
	Since                 time.Time
	// CanChange: the viewer has all that the member's role allows.
	CanChange       bool
	Choices         []ui.Option
	SetRole, Remove string
}

func (r memberRow) label() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Email
}

type invitationRow struct {
	ID, Email, Role, By string
	Status              ui.Status
	Sent, Expires       time.Time
	CanChange           bool
	Resend, Revoke      string
}

type listView struct {
	Frame       page.Frame
	Base        string
	Invite      string
	Tabs        []ui.Segment
	Rows        []memberRow
	Invitations []invitationRow
	Pager       ui.PagerProps
	CanWrite    bool
	MailEnabled bool
	Problems    ui.Problems
}

type inviteView struct {
	Frame        page.Frame
	Action, Back string
	Org          string
	Email, Role  string
	Roles        []ui.Option
	About        []ui.Fact
	MailEnabled  bool
	Problems     ui.Problems
}

type handoverView struct {
	Frame             page.Frame
	Email, Link, Back string
	Expires           time.Time
}

func tabs(p page.Place, current string) []ui.Segment {
	return []ui.Segment{
		{Label: "Members", Href: p.Path("members"), Current: current == "members"},
		{Label: "Roles", Href: p.Path("roles"), Current: current == "roles"},
	}
}

// mayGive reports whether the viewer has all of a role's permissions; tenants decides again when it is given.
func mayGive(p page.Place, permissions []tenants.Permission) bool {
	for _, one := range permissions {
		if !p.Can(one) {
			return false
		}
	}
	return len(permissions) > 0
}

// roleLabel writes a built-in role as a heading does; the organisation's own are as they were named.
func roleLabel(name string) string {
	for _, r := range tenants.Roles() {
		if string(r) == name {
			return strings.ToUpper(name[:1]) + name[1:]
		}
	}
	return name
}

func memberRowOf(p page.Place, m tenants.Member, you bool, choices []ui.Option) memberRow {
	at := p.Path("members", string(m.ID))
	r := memberRow{
		ID: string(m.ID), User: string(m.UserID), Name: m.Name, Email: m.Email, Role: roleLabel(m.RoleName), You: you, Since: m.CreatedAt,
		CanChange: p.Can(tenants.MembersWrite) && mayGive(p, m.Permissions), SetRole: at + "/role", Remove: at + "/remove",
	}
	has := string(m.Role)
	if m.CustomRole != "" {
		has = string(m.CustomRole)
	}
	for _, c := range choices {
		c.Selected = c.Value == has
		r.Choices = append(r.Choices, c)
	}
	return r
}

func invitationRowOf(p page.Place, i tenants.Invitation, names map[string]string) invitationRow {
	at := p.Path("invitations", string(i.ID))
	r := invitationRow{
		ID: string(i.ID), Email: i.Email, Role: roleLabel(i.RoleName), By: names[i.InvitedBy], Sent: i.SentAt, Expires: i.ExpiresAt,
		CanChange: p.Can(tenants.MembersWrite) && mayGive(p, i.Permissions), Resend: at + "/resend", Revoke: at + "/revoke",
		Status: ui.Status{Tone: ui.ToneQueued, Icon: "ring-dotted", Word: "Pending"},
	}
	if i.Status == tenants.InvitationExpired {
		r.Status = ui.Status{Tone: ui.ToneStopped, Icon: "clock", Word: "Expired"}
	}
	if r.By == "" {
		r.By = i.InvitedBy
	}
	return r
}
