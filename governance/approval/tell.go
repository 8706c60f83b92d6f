package approval

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications"
)

// Ref names an approval of any organisation.
type Ref struct {
	Org      id.Org
	Approval id.Approval
}

// Due lists approvals whose time is over and those whose approvers are to be told, of all organisations. The transaction is the worker's.
func Due(ctx context.Context, tx pgx.Tx, limit int) ([]Ref, error) {
	rows, err := approvaldb.New(tx).Due(ctx, int32(limit)) //nolint:gosec // a batch
	if err != nil {
		return nil, fmt.Errorf("find approvals that are due: %w", err)
	}
	out := make([]Ref, len(rows))
	for i, r := range rows {
		out[i] = Ref{Org: id.Org(r.OrgID), Approval: id.Approval(r.ID)}
	}
	return out, nil
}

// Tell mails those who may decide at the present stage, once a stage and once more when it was escalated. Who was asked too often lately is not
// mailed: the owners of the rules hear of that instead, once a day, as people who are asked too often approve everything. What waits stands
// in the inbox of all who may decide, mailed or not. A mail has a link that opens the page, and decides nothing.
func (s *Service) Tell(ctx context.Context, tx pgx.Tx, org id.Org, approval id.Approval) error {
	q := approvaldb.New(tx)
	row, err := q.LockApproval(ctx, approvaldb.LockApprovalParams{OrgID: string(org), ID: string(approval)})
	if err != nil {
		return fmt.Errorf("lock approval %s: %w", approval, err)
	}
	a, err := approvalOf(row)
	if err != nil {
		return err
	}
	stage := a.Stage * 2
	if a.Escalated {
		stage++
	}
	if a.Status != Pending || a.told >= stage {
		return nil
	}
	people, err := peopleOf(ctx, q, org)
	if err != nil {
		return err
	}
	settings, err := readSettings(ctx, q, org)
	if err != nil {
		return err
	}
	now := s.clock.Now()
	lately, err := q.AskedLately(ctx, approvaldb.AskedLatelyParams{OrgID: string(org), Since: now.Add(-24 * time.Hour)})
	if err != nil {
		return fmt.Errorf("count how often people were asked: %w", err)
	}
	asks := map[id.User]int64{}
	for _, l := range lately {
		asks[id.User(l.UserID)] = l.Asks
	}
	for _, m := range people.couldDecide(&a, a.Stage, a.Escalated) {
		if m.away { // whoever decides in their place is told
			continue
		}
		if asks[m.user] >= int64(settings.AsksPerDay) {
			if err := s.tellOwners(ctx, tx, &a, people, m, settings.AsksPerDay, now); err != nil {
				return err
			}
			continue
		}
		if err := q.InsertAsk(ctx, approvaldb.InsertAskParams{OrgID: string(org), ApprovalID: string(approval), UserID: string(m.user), Stage: int32(stage), At: now}); err != nil { //nolint:gosec // a few
			return fmt.Errorf("note who was asked: %w", err)
		}
		if err := s.send(ctx, tx, m, askMail(&a, m, org, stage, s.public+"/x/"+string(a.ID))); err != nil {
			return err
		}
	}
	if err := q.MarkTold(ctx, approvaldb.MarkToldParams{Told: int32(stage), OrgID: string(org), ID: string(approval)}); err != nil { //nolint:gosec // a few
		return fmt.Errorf("note that it was told: %w", err)
	}
	return nil
}

func (s *Service) send(ctx context.Context, tx pgx.Tx, to *member, mail notifications.Mail) error {
	if !s.mail.Enabled() || !to.verified {
		return nil
	}
	return s.mail.SendTx(ctx, tx, mail)
}

// tellOwners tells whoever answers for the rules; for the platform's own, the organisation's owners.
func (s *Service) tellOwners(ctx context.Context, tx pgx.Tx, a *Approval, people people, asked *member, most int, now time.Time) error {
	for _, r := range a.Demand.Rules {
		for i := range people {
			m := &people[i]
			if m.user != r.Owner && (r.Owner != "" && people.find(r.Owner) != nil || m.roles[0] != "owner") {
				continue
			}
			err := s.send(ctx, tx, m, notifications.Mail{
				Kind: "approval_limit", To: m.email, Subject: oneLine("The approval rule " + r.Name + " asks too often"),
				Text: fmt.Sprintf("%s was asked for %d approvals within 24 hours, and is sent no more of them today. The rule “%s” asks about %s.\n\nPeople who are asked all the time approve everything. Narrow the rule, name more people, or let what is always approved go without asking:\n\n%s\n",
					asked.label(), most, r.Name, r.Words, s.rulesLink(r.ID)),
				Once: string(a.Org) + "/approval_limit/" + string(r.ID) + "/" + string(asked.user) + "/" + now.Format("2006-01-02") + "/" + string(m.user),
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rulesLink leads to the rules; the platform's own has no page of its own.
func (s *Service) rulesLink(rule id.ApprovalRule) string {
	if rule == Taint {
		return s.public + "/home"
	}
	return s.public + "/x/" + string(rule)
}

func askMail(a *Approval, to *member, org id.Org, stage int, link string) notifications.Mail {
	agent := a.Shown.AgentName
	if agent == "" {
		agent = "An agent"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s asks to call %s", oneLine(agent), oneLine(a.Shown.Tool))
	// Of the arguments no more than the host: the agent wrote them, and mails are kept by others.
	if what := strings.TrimSpace(a.Shown.Does + " " + a.Shown.Domain); what != "" {
		fmt.Fprintf(&b, " (%s)", oneLine(what))
	}
	fmt.Fprintf(&b, ", for at most %s.\n\nWhy you are asked: %s.\n", a.Shown.Amount.Display(), a.Demand.Why())
	if a.Escalated {
		b.WriteString("Nobody answered in the time that there was, so you are asked as well.\n")
	}
	fmt.Fprintf(&b, "It waits until %s. If nobody answers, it is not done.\n\nLook at it and decide here; opening the page decides nothing:\n\n%s\n", a.ExpiresAt.Format("2 January 2006, 15:04 UTC"), link)
	return notifications.Mail{
		Kind: "approval_requested", To: to.email, Subject: oneLine(agent + " asks for your approval: " + a.Shown.Tool), Text: b.String(),
		Once: fmt.Sprintf("%s/approval/%s/%d/%s", org, a.ID, stage, to.user),
	}
}

// oneLine keeps what an agent or a member named from ending a mail's header.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 150 {
		s = strings.ToValidUTF8(s[:150], "") + "…"
	}
	return s
}
