package approval

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

// member is somebody of the organisation, as far as approvals look at it.
type member struct {
	user     id.User
	roles    []tenants.Role // the role, and the id of one that the organisation made
	email    string
	name     string
	verified bool
	mailbox  string
	// delegate decides in place of a member who is away just now.
	delegate id.User
	away     bool
}

func (m *member) label() string {
	if m.name != "" {
		return m.name
	}
	return m.email
}

// people are the members of an organisation just now. Whoever is not among them decides nothing.
type people []member

func peopleOf(ctx context.Context, q *approvaldb.Queries, org id.Org) (people, error) {
	rows, err := q.People(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("read who may decide: %w", err)
	}
	out := make(people, len(rows))
	for i, r := range rows {
		out[i] = member{
			user: id.User(r.UserID), roles: []tenants.Role{tenants.Role(r.Role)}, email: r.Email, name: r.Name, verified: r.Verified, mailbox: Mailbox(r.Email),
			delegate: id.User(r.Delegate), away: r.Away,
		}
		if r.RoleID != "" {
			out[i].roles = append(out[i].roles, tenants.Role(r.RoleID))
		}
	}
	return out, nil
}

// Mailbox is whose letters arrive at an address: two accounts of one mailbox are one person. What stands after a plus is the person's own label.
func Mailbox(address string) string {
	local, domain, ok := strings.Cut(strings.ToLower(strings.TrimSpace(address)), "@")
	if !ok {
		return address
	}
	local, _, _ = strings.Cut(local, "+")
	if domain == "googlemail.com" {
		domain = "gmail.com"
	}
	if domain == "gmail.com" {
		local = strings.ReplaceAll(local, ".", "")
	}
	return local + "@" + domain
}

func (p people) find(user id.User) *member {
	for i := range p {
		if p[i].user == user {
			return &p[i]
		}
	}
	return nil
}

// asked reports whether the member is among those who asked for it, by this account or another.
func (p people) asked(askers []id.User, m *member) bool {
	return slices.ContainsFunc(askers, func(u id.User) bool {
		other := p.find(u)
		return u == m.user || other != nil && other.mailbox == m.mailbox
	})
}

func (s *Stage) names(m *member) bool {
	return slices.Contains(s.Members, m.user) || slices.ContainsFunc(m.roles, func(r tenants.Role) bool { return slices.Contains(s.Roles, r) })
}

// standing reports whether the member has a say at a stage of the approval, and why not.
func (p people) standing(a *Approval, stage int, escalated bool, m *member) (bool, string) {
	named := a.Demand.Stages[stage].names(m) || escalated && a.Demand.Escalation != nil && a.Demand.Escalation.names(m)
	if !named {
		return false, notApprover
	}
	if !a.Demand.AskerMay && p.asked(a.Askers, m) {
		return false, ownAsking
	}
	return true, ""
}

const (
	notApprover = "approval.approvers"
	ownAsking   = "approval.asker"
)

// mayDecide says whether the user decides at a stage: for themselves, or for a member who is away and has named them. Who asked for it decides
// for nobody, and nobody decides for who asked for it.
func (p people) mayDecide(a *Approval, stage int, escalated bool, user id.User) (onBehalfOf id.User, ok bool, why string) {
	m := p.find(user)
	if m == nil {
		return "", false, notApprover
	}
	if ok, why = p.standing(a, stage, escalated, m); ok || why == ownAsking {
		return "", ok, why
	}
	if !a.Demand.AskerMay && p.asked(a.Askers, m) {
		return "", false, ownAsking
	}
	for i := range p {
		if p[i].away && p[i].delegate == user {
			if may, _ := p.standing(a, stage, escalated, &p[i]); may {
				return p[i].user, true, ""
			}
		}
	}
	return "", false, why
}

// couldDecide lists who has a say at a stage just now, each person once.
func (p people) couldDecide(a *Approval, stage int, escalated bool) []*member {
	var out []*member
	for i := range p {
		if _, ok, _ := p.mayDecide(a, stage, escalated, p[i].user); ok && !slices.ContainsFunc(out, func(o *member) bool { return o.mailbox == p[i].mailbox }) {
			out = append(out, &p[i])
		}
	}
	return out
}

// seats counts the people who have a say of their own at a stage, however many stand in for them.
func (p people) seats(a *Approval, stage int) int {
	seats := map[string]bool{}
	for i := range p {
		if ok, _ := p.standing(a, stage, true, &p[i]); ok {
			seats[p[i].mailbox] = true
		}
	}
	return len(seats)
}

// counted counts the decisions that still count at a stage: of members who have a say in it now. Who decides in
// another's place has that one's say: together the two count once.
func (p people) counted(a *Approval, stage int, decisions []approvaldb.ApprovalDecision) int {
	seats := map[string]bool{}
	for _, d := range decisions {
		if int(d.Stage) != stage || d.Decision != "approve" {
			continue
		}
		m := p.find(id.User(d.UserID))
		if m == nil || !a.Demand.AskerMay && p.asked(a.Askers, m) {
			continue
		}
		if d.OnBehalfOf != "" { // whether the absence goes on is nothing to what was decided in it
			if m = p.find(id.User(d.OnBehalfOf)); m == nil {
				continue
			}
		}
		if ok, _ := p.standing(a, stage, true, m); ok {
			seats[m.mailbox] = true
		}
	}
	return len(seats)
}
