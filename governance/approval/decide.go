package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/notifications"
)

// Deps are what the service works with. Mail may be nil or without a server: then only webhooks and the console tell.
type Deps struct {
	Clock clock.Clock
	Mail  *notifications.Mailer
	// PublicURL is where people reach the console; mails lead there.
	PublicURL string
}

// Service lets people decide, and keeps the rules. Its methods work in the caller's transaction, which must be the organisation's and come
// from internal/postgres.
type Service struct {
	clock  clock.Clock
	mail   *notifications.Mailer
	public string
}

// NewService makes the service.
func NewService(d Deps) *Service {
	return &Service{clock: d.Clock, mail: d.Mail, public: strings.TrimRight(d.PublicURL, "/")}
}

// Verb is what a person decides.
type Verb string

// The verbs. Edit refuses the agent's arguments and proposes others in their place, which are asked about anew.
const (
	Approve Verb = "approve"
	Refuse  Verb = "refuse"
	Edit    Verb = "edit"
)

// Decision is a person's decision on an approval.
type Decision struct {
	Verb Verb
	// Digest is that of the action which the person has seen, in hexadecimal.
	Digest string
	// Reason is read by the agent when it is refused.
	Reason string
	// Arguments are what Edit puts in place.
	Arguments json.RawMessage
	// Proof is of the step-up, for approvals that ask for one.
	Proof json.RawMessage
}

// Decided is what a decision, or the end of the time, has led to.
type Decided struct {
	Approval Approval
	// Final says that the question is answered; otherwise more people must decide.
	Final bool
}

// Event is what the journal gets of an answered question.
func (d Decided) Event() journal.ApprovalDecided {
	a := d.Approval
	decision := string(a.Status)
	return journal.ApprovalDecided{
		Approval: a.ID, ToolUseID: a.Shown.ToolUseID, ToolUseSeq: a.ToolUseSeq, Digest: a.DigestText(), Decision: decision, By: a.DecidedBy, Reason: a.Reason, Input: a.Edited,
	}
}

// Get returns an approval, or not found.
func Get(ctx context.Context, tx pgx.Tx, org id.Org, approval id.Approval) (Approval, error) {
	row, err := approvaldb.New(tx).GetApproval(ctx, approvaldb.GetApprovalParams{OrgID: string(org), ID: string(approval)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Approval{}, fault.NotFound()
	}
	if err != nil {
		return Approval{}, fmt.Errorf("read approval %s: %w", approval, err)
	}
	return approvalOf(row)
}

// who is the person who decides: a member who is signed in, or the one who answers for a key. Nobody else decides, an agent least of all.
func who(ctx context.Context, q *approvaldb.Queries, org id.Org) (id.User, error) {
	p := principal.From(ctx)
	refused := fault.New(fault.Forbidden, "permission_denied", "Only a member of the organisation decides on approvals.").With("rule", notApprover)
	switch p.Kind {
	case principal.User:
		return id.User(p.ID), nil
	case principal.Key:
		user, err := q.PersonOfKey(ctx, approvaldb.PersonOfKeyParams{OrgID: string(org), ID: p.ID})
		if errors.Is(err, pgx.ErrNoRows) || err == nil && user == "" {
			return "", refused
		}
		if err != nil {
			return "", fmt.Errorf("find who answers for a key: %w", err)
		}
		return id.User(user), nil
	default:
		return "", refused
	}
}

// PersonOf is the person behind whoever acts: who is signed in, who answers for the key, or for whom an agent acts. Empty where there is none.
func PersonOf(ctx context.Context, tx pgx.Tx, org id.Org, p journal.Actor) (id.User, error) {
	behind := p.ID
	if p.OnBehalfOf != "" {
		behind = p.OnBehalfOf
	}
	switch id.PrefixOf(behind) {
	case id.User("").Prefix():
		return id.User(behind), nil
	case id.Key("").Prefix():
		user, err := approvaldb.New(tx).AnswersForKey(ctx, approvaldb.AnswersForKeyParams{OrgID: string(org), ID: behind})
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return "", fmt.Errorf("find who answers for a key: %w", err)
		}
		return id.User(user), nil
	}
	return "", nil
}

// Decide takes a member's decision. The caller has locked the session. The same decision twice is once. Its faults: not_found, already_decided
// (409), digest_mismatch (409), approval_expired (409), permission_denied for who may not decide, step_up_required.
func (s *Service) Decide(ctx context.Context, tx pgx.Tx, org id.Org, approval id.Approval, in Decision) (Decided, error) {
	q := approvaldb.New(tx)
	row, err := q.LockApproval(ctx, approvaldb.LockApprovalParams{OrgID: string(org), ID: string(approval)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Decided{}, fault.NotFound()
	}
	if err != nil {
		return Decided{}, fmt.Errorf("lock approval %s: %w", approval, err)
	}
	a, err := approvalOf(row)
	if err != nil {
		return Decided{}, err
	}
	user, err := who(ctx, q, org)
	if err != nil {
		return Decided{}, err
	}
	people, err := peopleOf(ctx, q, org)
	if err != nil {
		return Decided{}, err
	}
	me := people.find(user)
	if me == nil {
		return Decided{}, fault.New(fault.Forbidden, "permission_denied", "Only a member of the organisation decides on approvals.").With("rule", notApprover)
	}
	decisions, err := q.Decisions(ctx, approvaldb.DecisionsParams{OrgID: string(org), ApprovalID: string(approval)})
	if err != nil {
		return Decided{}, fmt.Errorf("read the decisions on %s: %w", approval, err)
	}
	if in.Digest != a.DigestText() {
		return Decided{}, fault.New(fault.Conflict, "digest_mismatch", "What you decided on is not what is asked: the digest is another. Look at it again.")
	}
	for _, d := range decisions {
		if id.User(d.UserID) == user || d.Person == me.mailbox {
			if d.Decision == string(in.Verb) { // a link that is used twice decides nothing twice
				return Decided{Approval: a}, nil
			}
			return Decided{}, fault.New(fault.Conflict, "already_decided", "You have decided on this already; one person decides once.")
		}
	}
	if a.Status != Pending {
		return Decided{}, alreadyDecided(&a, people)
	}
	clock, err := q.Clock(ctx)
	if err != nil {
		return Decided{}, fmt.Errorf("read the database's clock: %w", err)
	}
	if !clock.Before(a.ExpiresAt) {
		return Decided{}, fault.New(fault.Conflict, "approval_expired", "The time in which this could be decided is over. It was not done; the agent may ask again.")
	}
	onBehalfOf, ok, why := people.mayDecide(&a, a.Stage, a.Escalated, user)
	if !ok {
		return Decided{}, notYours(why)
	}
	if len(in.Reason) > 2000 {
		return Decided{}, fault.InvalidField("/reason", "too_long", "A reason has at most 2000 bytes.")
	}
	if a.Demand.Passkey && len(in.Proof) == 0 {
		return Decided{}, fault.New(fault.Forbidden, "step_up_required", "This takes a confirmation: decide in the console, and confirm there who you are.").With("rule", "approval.passkey")
	}
	by := journal.Actor{Kind: principal.From(ctx).Kind, ID: principal.From(ctx).ID}
	if by.Kind == principal.Key {
		by.OnBehalfOf = string(user)
	} else if onBehalfOf != "" {
		by.OnBehalfOf = string(onBehalfOf)
	}
	actor, err := json.Marshal(by)
	if err != nil {
		return Decided{}, fmt.Errorf("write who decides: %w", err)
	}
	now := s.clock.Now()
	n, err := q.InsertDecision(ctx, approvaldb.InsertDecisionParams{
		OrgID: string(org), ApprovalID: string(approval), UserID: string(user), Person: me.mailbox, Stage: int32(a.Stage), Decision: string(in.Verb), Reason: in.Reason, //nolint:gosec // a few
		OnBehalfOf: string(onBehalfOf), By: actor, Proof: in.Proof, Now: now,
	})
	if err != nil {
		return Decided{}, fmt.Errorf("write a decision on %s: %w", approval, err)
	}
	if n != 1 {
		return Decided{}, fault.New(fault.Conflict, "already_decided", "You have decided on this already; one person decides once.")
	}
	end := approvaldb.DecideApprovalParams{Now: &now, DecidedBy: actor, Reason: in.Reason, OrgID: string(org), ID: string(approval), GoodSeconds: GoodFor.Seconds()}
	switch in.Verb {
	case Refuse:
		end.Status = string(Refused)
	case Edit:
		var object map[string]json.RawMessage
		if json.Unmarshal(in.Arguments, &object) != nil {
			return Decided{}, fault.InvalidField("/arguments", "invalid_value", "The arguments are a JSON object.")
		}
		end.Status, end.Edited = string(Edited), in.Arguments
	case Approve:
		if decisions, err = q.Decisions(ctx, approvaldb.DecisionsParams{OrgID: string(org), ApprovalID: string(approval)}); err != nil {
			return Decided{}, fmt.Errorf("count the decisions on %s: %w", approval, err)
		}
		if people.counted(&a, a.Stage, decisions) < a.Demand.Stages[a.Stage].Need {
			return Decided{Approval: a}, nil
		}
		if a.Stage+1 < len(a.Demand.Stages) {
			row, err := q.NextStage(ctx, approvaldb.NextStageParams{OrgID: string(org), ID: string(approval), WithinSeconds: a.Demand.Stages[a.Stage+1].Within.Seconds()})
			if err != nil {
				return Decided{}, fmt.Errorf("begin the next stage of %s: %w", approval, err)
			}
			a, err = approvalOf(row)
			return Decided{Approval: a}, err
		}
		end.Status = string(Approved)
	default:
		return Decided{}, fault.InvalidField("/decision", "invalid_value", "Approve, refuse or edit.")
	}
	return finish(ctx, q, end)
}

func finish(ctx context.Context, q *approvaldb.Queries, end approvaldb.DecideApprovalParams) (Decided, error) {
	row, err := q.DecideApproval(ctx, end)
	if err != nil {
		return Decided{}, fmt.Errorf("write what became of %s: %w", end.ID, err)
	}
	a, err := approvalOf(row)
	return Decided{Approval: a, Final: true}, err
}

func alreadyDecided(a *Approval, people people) error {
	by := ""
	if a.DecidedBy != nil {
		user := a.DecidedBy.ID
		if a.DecidedBy.Kind == principal.Key {
			user = a.DecidedBy.OnBehalfOf
		}
		if m := people.find(id.User(user)); m != nil {
			by = " by " + m.label()
		}
	}
	word := map[Status]string{
		Approved: "This was approved" + by + ".", Used: "This was approved" + by + ", and is done.", Refused: "This was refused" + by + ".", Edited: "This was changed" + by + "; what is asked now is another question.",
		Expired: "Nobody answered this in time.", Void: "This is not asked any more. " + a.Reason,
	}[a.Status]
	code := "already_decided"
	if a.Status == Expired {
		code = "approval_expired"
	}
	return fault.New(fault.Conflict, code, word).With("status", string(a.Status))
}

func notYours(why string) error {
	message := "This is not yours to decide: the rule names others."
	if why == ownAsking {
		message = "You asked for this yourself, so somebody else must decide."
	}
	return fault.New(fault.Forbidden, "permission_denied", message).With("rule", why)
}

// MayDecide says whether a user decides on the approval just now; why tells what stands against it, in words.
func MayDecide(ctx context.Context, tx pgx.Tx, a *Approval, user id.User) (ok bool, why string, err error) {
	q := approvaldb.New(tx)
	people, err := peopleOf(ctx, q, a.Org)
	if err != nil {
		return false, "", err
	}
	if a.Status != Pending {
		return false, fault.As(alreadyDecided(a, people)).Message, nil
	}
	decisions, err := q.Decisions(ctx, approvaldb.DecisionsParams{OrgID: string(a.Org), ApprovalID: string(a.ID)})
	if err != nil {
		return false, "", fmt.Errorf("read the decisions on %s: %w", a.ID, err)
	}
	if m := people.find(user); m != nil {
		for _, d := range decisions {
			if d.Person == m.mailbox {
				return false, "You have decided; others must, too.", nil
			}
		}
	}
	_, ok, code := people.mayDecide(a, a.Stage, a.Escalated, user)
	if !ok {
		return false, fault.As(notYours(code)).Message, nil
	}
	return true, "", nil
}

// Lapse is what follows when the time of a stage is over: it is escalated if it can be, and is expired if not. Nothing follows while there is
// time. The caller has locked the session.
func (s *Service) Lapse(ctx context.Context, tx pgx.Tx, org id.Org, approval id.Approval) (Decided, error) {
	q := approvaldb.New(tx)
	row, err := q.LockApproval(ctx, approvaldb.LockApprovalParams{OrgID: string(org), ID: string(approval)})
	if err != nil {
		return Decided{}, fmt.Errorf("lock approval %s: %w", approval, err)
	}
	a, err := approvalOf(row)
	if err != nil {
		return Decided{}, err
	}
	clock, err := q.Clock(ctx)
	if err != nil {
		return Decided{}, fmt.Errorf("read the database's clock: %w", err)
	}
	if a.Status != Pending || clock.Before(a.ExpiresAt) {
		return Decided{Approval: a}, nil
	}
	if a.Demand.Escalation != nil && !a.Escalated {
		row, err := q.Escalate(ctx, approvaldb.EscalateParams{OrgID: string(org), ID: string(approval), WithinSeconds: a.Demand.Escalation.Within.Seconds()})
		if err != nil {
			return Decided{}, fmt.Errorf("escalate approval %s: %w", approval, err)
		}
		a, err = approvalOf(row)
		return Decided{Approval: a}, err
	}
	now := s.clock.Now()
	return finish(ctx, q, approvaldb.DecideApprovalParams{Status: string(Expired), Now: &now, Reason: "Nobody answered in time.", OrgID: string(org), ID: string(approval)})
}
