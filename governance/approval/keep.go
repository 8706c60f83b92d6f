package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
)

// changing raises the version that approval rules share with permissions, and announces the change after the commit. Each change begins with
// it, so that changes of one organisation wait for each other, and for admissions under the old rules.
func (s *Service) changing(ctx context.Context, tx pgx.Tx, org id.Org) (*approvaldb.Queries, error) {
	q := approvaldb.New(tx)
	if _, err := q.RaiseVersion(ctx, approvaldb.RaiseVersionParams{OrgID: string(org), Now: s.clock.Now()}); err != nil {
		return nil, fmt.Errorf("raise the version of the rules: %w", err)
	}
	postgres.Notify(tx, policy.Channel, policy.Changed)
	return q, nil
}

// note keeps what was changed, by whom, and by which proof.
func (s *Service) note(ctx context.Context, q *approvaldb.Queries, org id.Org, what string, before, after, proof json.RawMessage) error {
	err := q.InsertChange(ctx, approvaldb.InsertChangeParams{OrgID: string(org), RuleID: what, ByID: principal.From(ctx).ID, Before: before, After: after, Proof: proof, Now: s.clock.Now()})
	if err != nil {
		return fmt.Errorf("note a change of approval rules: %w", err)
	}
	return nil
}

// StepUpRequired is the fault of a change that weakens what people decide on, made without proof of who makes it.
func StepUpRequired() error {
	return fault.New(fault.Forbidden, "step_up_required", "This lets more happen without a person: confirm in the console who you are.").With("rule", "approval.weaker")
}

// CreateRule adds a rule. One that waives another is weaker than none: it takes proof. Its faults: invalid_request, state_conflict when there
// are too many, step_up_required.
func (s *Service) CreateRule(ctx context.Context, tx pgx.Tx, org id.Org, rule Rule, proof json.RawMessage) (Stored, error) {
	rule, err := rule.Check()
	if err != nil {
		return Stored{}, err
	}
	if rule.Outcome == Waive && len(proof) == 0 {
		return Stored{}, StepUpRequired()
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Stored{}, err
	}
	n, err := q.CountRules(ctx, string(org))
	if err != nil {
		return Stored{}, fmt.Errorf("count the approval rules: %w", err)
	}
	if n >= MaxRules {
		return Stored{}, fault.Newf(fault.Conflict, "state_conflict", "An organisation has at most %d approval rules.", MaxRules)
	}
	if err := s.checkNames(ctx, q, org, rule); err != nil {
		return Stored{}, err
	}
	raw, err := specOf(&rule)
	if err != nil {
		return Stored{}, err
	}
	owner, err := PersonOf(ctx, tx, org, principal.From(ctx))
	if err != nil {
		return Stored{}, err
	}
	in := approvaldb.InsertRuleParams{OrgID: string(org), ID: string(id.New[id.ApprovalRule]()), Spec: raw, CreatedBy: principal.From(ctx).ID, Now: s.clock.Now()}
	if owner != "" {
		name := string(owner)
		in.OwnerID = &name
	}
	row, err := q.InsertRule(ctx, in)
	if err != nil {
		return Stored{}, fmt.Errorf("insert an approval rule: %w", err)
	}
	if err := s.note(ctx, q, org, row.ID, nil, raw, proof); err != nil {
		return Stored{}, err
	}
	return storedOf(row)
}

// checkNames refuses stages that name nobody of the organisation, and a waiver of a rule that there is not.
func (s *Service) checkNames(ctx context.Context, q *approvaldb.Queries, org id.Org, r Rule) error {
	if r.Outcome == Waive && r.Waives != Taint {
		if _, err := q.GetRule(ctx, approvaldb.GetRuleParams{OrgID: string(org), ID: r.Waives}); errors.Is(err, pgx.ErrNoRows) {
			return fault.InvalidField("/waives", "unknown_rule", "There is no such rule.")
		} else if err != nil {
			return fmt.Errorf("look for the rule %s: %w", r.Waives, err)
		}
	}
	people, err := peopleOf(ctx, q, org)
	if err != nil {
		return err
	}
	var wrong []fault.Field
	check := func(at string, stage Stage) {
		for _, m := range stage.Members {
			if people.find(m) == nil {
				wrong = append(wrong, fault.Field{Pointer: at + "/members", Code: "unknown_member", Message: string(m) + " is not a member of this organisation."})
			}
		}
	}
	for i, stage := range r.Stages {
		check(fmt.Sprintf("/stages/%d", i), stage)
	}
	if r.Escalation != nil {
		check("/escalation", *r.Escalation)
	}
	if len(wrong) > 0 {
		return fault.InvalidFields(wrong...)
	}
	return nil
}

// UpdateRule replaces a rule. ifVersion may be nil. A change that asks fewer people, about less, or later takes proof; all but a plain
// tightening counts as weaker. Its faults: not_found, precondition_failed, invalid_request, step_up_required.
func (s *Service) UpdateRule(ctx context.Context, tx pgx.Tx, org id.Org, rule id.ApprovalRule, ifVersion *int64, change func(Rule) Rule, proof json.RawMessage) (Stored, error) {
	if _, err := s.GetRule(ctx, tx, org, rule); err != nil {
		return Stored{}, err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Stored{}, err
	}
	have, err := s.GetRule(ctx, tx, org, rule) // now that nobody else changes it
	if err != nil {
		return Stored{}, err
	}
	if ifVersion != nil && *ifVersion != have.Version {
		return Stored{}, fault.New(fault.PreconditionFailed, "precondition_failed", "This was changed since you read it. Read it again, then decide.")
	}
	next, err := change(have.Rule).Check()
	if err != nil {
		return Stored{}, err
	}
	if err := s.checkNames(ctx, q, org, next); err != nil {
		return Stored{}, err
	}
	if len(proof) == 0 && Weaker(have.Rule, next) {
		return Stored{}, StepUpRequired()
	}
	before, err := specOf(&have.Rule)
	if err != nil {
		return Stored{}, err
	}
	after, err := specOf(&next)
	if err != nil {
		return Stored{}, err
	}
	row, err := q.UpdateRule(ctx, approvaldb.UpdateRuleParams{Spec: after, Now: s.clock.Now(), OrgID: string(org), ID: string(rule)})
	if err != nil {
		return Stored{}, fmt.Errorf("update the approval rule %s: %w", rule, err)
	}
	if err := s.note(ctx, q, org, string(rule), before, after, proof); err != nil {
		return Stored{}, err
	}
	return storedOf(row)
}

// Weaker reports whether a change lets more happen without a person, or with fewer. What it can't tell counts as weaker: only the name, the
// description, more people needed, a passkey more, the asker no more, less time and an earlier end of a waiver are not.
func Weaker(before, after Rule) bool {
	tightened := before
	tightened.Name, tightened.Description = after.Name, after.Description
	if before.Outcome == Ask && len(before.Stages) <= len(after.Stages) {
		tightened.Stages = append([]Stage{}, before.Stages...)
		for i := range tightened.Stages {
			tightened.Stages[i].Need = max(tightened.Stages[i].Need, after.Stages[i].Need)
			tightened.Stages[i].Within = min(tightened.Stages[i].Within, after.Stages[i].Within)
		}
		tightened.Stages = append(tightened.Stages, after.Stages[len(before.Stages):]...)
		tightened.Passkey = before.Passkey || after.Passkey
		tightened.AskerMay = before.AskerMay && after.AskerMay
		if after.Escalation == nil {
			tightened.Escalation = nil
		}
		if before.SumOver != nil && after.SumOver != nil && *after.SumOver < *before.SumOver {
			tightened.SumOver = after.SumOver
		}
		if over, less := before.Condition.AmountOver, after.Condition.AmountOver; over != nil && (less == nil || *less < *over) {
			tightened.Condition.AmountOver = less
		}
	}
	if before.Outcome == Waive && after.Until != nil && (before.Until == nil || after.Until.Before(*before.Until)) {
		tightened.Until = after.Until
	}
	a, err := specOf(&tightened)
	if err != nil {
		return true
	}
	b, err := specOf(&after)
	return err != nil || string(a) != string(b)
}

// DeleteRule removes a rule. One that asks takes proof; one that waives does not.
func (s *Service) DeleteRule(ctx context.Context, tx pgx.Tx, org id.Org, rule id.ApprovalRule, proof json.RawMessage) error {
	if _, err := s.GetRule(ctx, tx, org, rule); err != nil {
		return err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return err
	}
	have, err := s.GetRule(ctx, tx, org, rule)
	if err != nil {
		return err
	}
	if have.Outcome == Ask && len(proof) == 0 {
		return StepUpRequired()
	}
	before, err := specOf(&have.Rule)
	if err != nil {
		return err
	}
	if _, err := q.DeleteRule(ctx, approvaldb.DeleteRuleParams{OrgID: string(org), ID: string(rule)}); err != nil {
		return fmt.Errorf("delete the approval rule %s: %w", rule, err)
	}
	return s.note(ctx, q, org, string(rule), before, nil, proof)
}

// GetRule returns a rule, or not found.
func (s *Service) GetRule(ctx context.Context, tx pgx.Tx, org id.Org, rule id.ApprovalRule) (Stored, error) {
	row, err := approvaldb.New(tx).GetRule(ctx, approvaldb.GetRuleParams{OrgID: string(org), ID: string(rule)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Stored{}, fault.NotFound()
	}
	if err != nil {
		return Stored{}, fmt.Errorf("read the approval rule %s: %w", rule, err)
	}
	return storedOf(row)
}

// Rules returns all rules, the oldest first.
func (s *Service) Rules(ctx context.Context, tx pgx.Tx, org id.Org) ([]Stored, error) {
	rows, err := approvaldb.New(tx).Rules(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("list the approval rules: %w", err)
	}
	out := make([]Stored, len(rows))
	for i, r := range rows {
		if out[i], err = storedOf(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// SettingsOf returns an organisation's settings; the defaults where it has set none.
func (s *Service) SettingsOf(ctx context.Context, tx pgx.Tx, org id.Org) (Settings, error) {
	return readSettings(ctx, approvaldb.New(tx), org)
}

// SetSettings replaces the settings. To let tainted sessions act outside without asking, or to ask people more often, takes proof.
func (s *Service) SetSettings(ctx context.Context, tx pgx.Tx, org id.Org, next Settings, proof json.RawMessage) (Settings, error) {
	if next.AsksPerDay < 1 || next.AsksPerDay > 10000 {
		return Settings{}, fault.InvalidField("/asks_per_day", "out_of_range", "One person is asked 1 to 10000 times a day.")
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Settings{}, err
	}
	have, err := readSettings(ctx, q, org)
	if err != nil {
		return Settings{}, err
	}
	if len(proof) == 0 && (have.TaintAsks && !next.TaintAsks || next.AsksPerDay > have.AsksPerDay) {
		return Settings{}, StepUpRequired()
	}
	taint := "allow"
	if next.TaintAsks {
		taint = "ask"
	}
	row, err := q.PutSettings(ctx, approvaldb.PutSettingsParams{OrgID: string(org), Taint: taint, AsksPerDay: int32(next.AsksPerDay), UpdatedBy: principal.From(ctx).ID, Now: s.clock.Now()}) //nolint:gosec // bounded above
	if err != nil {
		return Settings{}, fmt.Errorf("write the settings of approvals: %w", err)
	}
	before, _ := json.Marshal(have) //nolint:errchkjson // plain values
	after, _ := json.Marshal(next)  //nolint:errchkjson // plain values
	if err := s.note(ctx, q, org, "settings", before, after, proof); err != nil {
		return Settings{}, err
	}
	return Settings{TaintAsks: row.Taint == "ask", AsksPerDay: int(row.AsksPerDay), Version: row.Version}, nil
}

// Absence is when a member is away, and who decides in their place.
type Absence struct {
	User        id.User
	From, Until time.Time
	// Delegate is empty where nobody does.
	Delegate id.User
}

// SetAbsence says that a member is away. The delegate must be another member.
func (s *Service) SetAbsence(ctx context.Context, tx pgx.Tx, org id.Org, user id.User, a Absence) error {
	if !a.From.Before(a.Until) {
		return fault.InvalidField("/ends_at", "invalid_value", "An absence ends after it begins.")
	}
	q := approvaldb.New(tx)
	people, err := peopleOf(ctx, q, org)
	if err != nil {
		return err
	}
	if people.find(user) == nil {
		return fault.NotFound()
	}
	if a.Delegate == user || a.Delegate != "" && people.find(a.Delegate) == nil {
		return fault.InvalidField("/delegate", "unknown_member", "The delegate is another member of this organisation.")
	}
	err = q.PutAbsence(ctx, approvaldb.PutAbsenceParams{OrgID: string(org), UserID: string(user), StartsAt: a.From, EndsAt: a.Until, Delegate: string(a.Delegate), Now: s.clock.Now()})
	if err != nil {
		return fmt.Errorf("write an absence: %w", err)
	}
	return nil
}

// EndAbsence says that a member is back.
func (s *Service) EndAbsence(ctx context.Context, tx pgx.Tx, org id.Org, user id.User) error {
	n, err := approvaldb.New(tx).EndAbsence(ctx, approvaldb.EndAbsenceParams{OrgID: string(org), UserID: string(user)})
	if err != nil {
		return fmt.Errorf("end an absence: %w", err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// Absences lists who is or will be away.
func (s *Service) Absences(ctx context.Context, tx pgx.Tx, org id.Org) ([]Absence, error) {
	rows, err := approvaldb.New(tx).Absences(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("list absences: %w", err)
	}
	out := make([]Absence, len(rows))
	for i, r := range rows {
		out[i] = Absence{User: id.User(r.UserID), From: r.StartsAt.UTC(), Until: r.EndsAt.UTC(), Delegate: id.User(r.Delegate)}
	}
	return out, nil
}

// Filter selects approvals; what is empty selects all.
type Filter struct {
	Project  id.Project
	Session  id.Session
	Statuses []string
	// After is the last one seen, in the same order, which is newest first unless OldestFirst.
	After       id.Approval
	OldestFirst bool
	Limit       int
}

// List returns approvals.
func List(ctx context.Context, tx pgx.Tx, org id.Org, f Filter) ([]Approval, error) {
	if f.Statuses == nil {
		f.Statuses = []string{}
	}
	rows, err := approvaldb.New(tx).ListApprovals(ctx, approvaldb.ListApprovalsParams{
		OrgID: string(org), ProjectID: string(f.Project), SessionID: string(f.Session), Statuses: f.Statuses, After: string(f.After), OldestFirst: f.OldestFirst,
		RowLimit: int32(min(max(f.Limit, 1), 1001)), //nolint:gosec // bounded
	})
	if err != nil {
		return nil, fmt.Errorf("list approvals: %w", err)
	}
	out := make([]Approval, len(rows))
	for i, r := range rows {
		if out[i], err = approvalOf(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Said is one person's decision on an approval.
type Said struct {
	User       id.User
	Stage      int
	Verb       Verb
	Reason     string
	OnBehalfOf id.User
	At         time.Time
}

// Decisions are those that people have made on an approval, in their order.
func Decisions(ctx context.Context, tx pgx.Tx, org id.Org, a id.Approval) ([]Said, error) {
	rows, err := approvaldb.New(tx).Decisions(ctx, approvaldb.DecisionsParams{OrgID: string(org), ApprovalID: string(a)})
	if err != nil {
		return nil, fmt.Errorf("read the decisions on %s: %w", a, err)
	}
	out := make([]Said, len(rows))
	for i, r := range rows {
		out[i] = Said{User: id.User(r.UserID), Stage: int(r.Stage), Verb: Verb(r.Decision), Reason: r.Reason, OnBehalfOf: id.User(r.OnBehalfOf), At: r.At.UTC()}
	}
	return out, nil
}
