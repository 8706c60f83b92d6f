package approval

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Question is what is asked about one effect.
type Question struct {
	Org     id.Org
	Project id.Project
	// Seq is the event with which the agent asked for it.
	Seq    int64
	Effect Effect
	Shown  Shown
	// Askers are the people who asked for it.
	Askers []id.User
}

// State is how a question stands.
type State int

const (
	// Clear says that nobody is to be asked.
	Clear State = iota
	// Granted says that it was approved, for this very action, and may be used once.
	Granted
	// Waiting says that somebody is asked.
	Waiting
	// Rejected says that a person refused it, nobody answered, or nobody could.
	Rejected
)

// Answer is how a question stands just now.
type Answer struct {
	State State
	// Approval is nil where nobody is asked.
	Approval *Approval
	// Fresh says that it was asked just now.
	Fresh bool
	// Reason says it in words, for the agent and for people.
	Reason journal.Reason

	question *Question
	digest   [32]byte // of the action that is asked about now
	watched  []Stored
}

// Stand finds out whether somebody must be asked about the effect, and how what was asked stands; it asks if nobody was. The caller's
// transaction has locked the session and decides by set, which it has held still. What an answer Granted or Clear lets through is to be told
// to Admitted in the same transaction.
func Stand(ctx context.Context, tx pgx.Tx, now time.Time, set *policy.Set, question Question) (Answer, error) {
	q := approvaldb.New(tx)
	out := Answer{question: &question}
	fired, watched, err := rulesOf(set).fired(ctx, q, question.Org, set, &question.Effect)
	if err != nil {
		return Answer{}, err
	}
	out.watched = watched
	digest, err := question.Shown.Digest()
	if err != nil {
		return Answer{}, err
	}
	out.digest = digest
	last, err := latest(ctx, q, &question)
	if err != nil {
		return Answer{}, err
	}
	if len(fired) == 0 && (last == nil || last.Status != Refused) { // a person's word stands, whatever the rules say since
		if last != nil && (last.Status == Pending || last.Status == Approved) { // nobody is to decide any more on what is done without them
			out.Approval = last
			return out, out.void(ctx, q, now, "No rule asks for it any more.")
		}
		return out, nil
	}
	demand := demandOf(fired)
	if last != nil {
		settled, err := out.byLast(ctx, q, now, last, digest, demand)
		if err != nil || settled {
			return out, err
		}
	}
	if len(fired) == 0 {
		return out, nil
	}
	return out, out.open(ctx, q, now, digest, demand)
}

// Admitted notes what the effect of an answer Granted or Clear comes to and, if it was granted, uses the approval up. It fails if that can't
// be used: then nothing may be admitted.
func (a *Answer) Admitted(ctx context.Context, tx pgx.Tx, now time.Time, step id.Step) error {
	q := approvaldb.New(tx)
	if a.State == Granted {
		if err := use(ctx, q, a.Approval, a.digest, step); err != nil {
			return err
		}
	}
	return admitted(ctx, q, a.question.Org, &a.question.Effect, a.watched, step, now)
}

// ErrNotGood says that an approval is not one for this action, or not any more.
var ErrNotGood = errors.New("the approval can't be used: it is not one of this action, or was used, or its time is over")

// use marks the approval as used by the step, if it is one of the action with the digest.
func use(ctx context.Context, q *approvaldb.Queries, a *Approval, digest [32]byte, step id.Step) error {
	name := string(step)
	n, err := q.UseApproval(ctx, approvaldb.UseApprovalParams{StepID: &name, OrgID: string(a.Org), ID: string(a.ID), Digest: digest[:]})
	if err != nil {
		return fmt.Errorf("use approval %s: %w", a.ID, err)
	}
	if n != 1 {
		return fmt.Errorf("approval %s: %w", a.ID, ErrNotGood)
	}
	return nil
}

func latest(ctx context.Context, q *approvaldb.Queries, question *Question) (*Approval, error) {
	row, err := q.LatestOf(ctx, approvaldb.LatestOfParams{OrgID: string(question.Org), SessionID: string(question.Shown.Session), ToolUseSeq: question.Seq})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("look for an approval: %w", err)
	}
	a, err := approvalOf(row)
	return &a, err
}

// byLast says how it stands by what was asked before. It is not settled when that is no answer to this question: then it is asked anew.
func (a *Answer) byLast(ctx context.Context, q *approvaldb.Queries, now time.Time, last *Approval, digest [32]byte, demand Demand) (settled bool, err error) {
	clock, err := q.Clock(ctx)
	if err != nil {
		return false, fmt.Errorf("read the database's clock: %w", err)
	}
	a.Approval = last
	same := last.Digest == digest
	switch last.Status {
	case Refused:
		if !same {
			return false, nil
		}
		a.State, a.Reason = Rejected, journal.Reason{Rule: "approval.refused", Message: refusedWords(last)}
		return true, nil
	case Expired:
		if !same {
			return false, nil
		}
		a.State, a.Reason = Rejected, noAnswer(last)
		return true, nil
	case Pending, Approved:
		if !same {
			return false, a.void(ctx, q, now, "Its arguments are not those any more that were decided on.")
		}
		if last.Status == Pending {
			a.State, a.Reason = Waiting, waitingFor(last)
			return true, nil
		}
		if !clock.Before(last.ExpiresAt) {
			return false, a.void(ctx, q, now, "It was not used in time.")
		}
		people, err := peopleOf(ctx, q, a.question.Org)
		if err != nil {
			return false, err
		}
		decisions, err := q.Decisions(ctx, approvaldb.DecisionsParams{OrgID: string(last.Org), ApprovalID: string(last.ID)})
		if err != nil {
			return false, fmt.Errorf("read the decisions on %s: %w", last.ID, err)
		}
		for i, stage := range last.Demand.Stages {
			if people.counted(last, i, decisions) < stage.Need {
				return false, a.void(ctx, q, now, "Who approved it may not decide any more.")
			}
		}
		if a.question.Shown.Amount > last.Shown.Amount {
			return false, a.void(ctx, q, now, "It would cost more than was decided on.")
		}
		if !covers(last.Demand, demand) {
			return false, a.void(ctx, q, now, "The rules ask for more than they did.")
		}
		a.State, a.Reason = Granted, journal.Reason{Rule: "approval", Message: "approved under " + last.Demand.Why()}
		return true, nil
	default: // used, void or edited
		return false, nil
	}
}

// covers reports whether what was passed is all that is demanded now.
func covers(passed, now Demand) bool {
	for _, s := range now.Stages {
		if !slices.ContainsFunc(passed.Stages, func(p Stage) bool {
			return slices.Equal(p.Roles, s.Roles) && slices.Equal(p.Members, s.Members) && p.Need >= s.Need
		}) {
			return false
		}
	}
	return (now.AskerMay || !passed.AskerMay) && (passed.Passkey || !now.Passkey)
}

func (a *Answer) void(ctx context.Context, q *approvaldb.Queries, now time.Time, why string) error {
	_, err := q.DecideApproval(ctx, approvaldb.DecideApprovalParams{Status: string(Void), Now: &now, Reason: why, OrgID: string(a.Approval.Org), ID: string(a.Approval.ID)})
	if err != nil {
		return fmt.Errorf("void approval %s: %w", a.Approval.ID, err)
	}
	a.Approval = nil
	return nil
}

// open asks. What nobody could decide is refused at once: nobody is to wait for an answer that can't come.
func (a *Answer) open(ctx context.Context, q *approvaldb.Queries, now time.Time, digest [32]byte, demand Demand) error {
	asked := Approval{
		Org: a.question.Org, ID: id.New[id.Approval](), Session: a.question.Shown.Session, Project: a.question.Project, Agent: a.question.Shown.Agent, ToolUseSeq: a.question.Seq,
		Digest: digest, Status: Pending, Demand: demand, Shown: a.question.Shown, Askers: a.question.Askers,
	}
	people, err := peopleOf(ctx, q, asked.Org)
	if err != nil {
		return err
	}
	for i, stage := range demand.Stages {
		if could := min(len(people.couldDecide(&asked, i, true)), people.seats(&asked, i)); could < stage.Need {
			a.State = Rejected
			a.Reason = journal.Reason{Rule: "approval.nobody", Message: fmt.Sprintf(
				"Approval is needed under %s, and it can't be had: %s must decide, and there are only %d who may and have not asked for it themselves. Do without it, or say that it is needed.", demand.Why(), persons(stage.Need), could)}
			return nil
		}
	}
	shown, err := json.Marshal(asked.Shown)
	if err != nil {
		return fmt.Errorf("write what is to be approved: %w", err)
	}
	wanted, err := json.Marshal(demand)
	if err != nil {
		return fmt.Errorf("write what is demanded: %w", err)
	}
	askers := make([]string, len(asked.Askers))
	for i, u := range asked.Askers {
		askers[i] = string(u)
	}
	row, err := q.InsertApproval(ctx, approvaldb.InsertApprovalParams{
		OrgID: string(asked.Org), ID: string(asked.ID), SessionID: string(asked.Session), ProjectID: string(asked.Project), AgentID: string(asked.Agent), ToolUseSeq: asked.ToolUseSeq,
		Digest: digest[:], Demand: wanted, Action: shown, Askers: askers, WithinSeconds: demand.Stages[0].Within.Seconds(), Now: now,
	})
	if err != nil {
		return fmt.Errorf("ask for an approval: %w", err)
	}
	opened, err := approvalOf(row)
	if err != nil {
		return err
	}
	a.State, a.Approval, a.Fresh, a.Reason = Waiting, &opened, true, waitingFor(&opened)
	return nil
}

// Requested is the event that says that it is asked.
func (a *Approval) Requested() journal.ApprovalRequested {
	return journal.ApprovalRequested{
		Approval: a.ID, ToolUseID: a.Shown.ToolUseID, Name: a.Shown.Tool, Digest: hex.EncodeToString(a.Digest[:]), Why: a.Demand.Why(), ExpiresAt: a.ExpiresAt,
	}
}

func persons(n int) string {
	if n == 1 {
		return "one person"
	}
	return fmt.Sprintf("%d people", n)
}

func waitingFor(a *Approval) journal.Reason {
	return journal.Reason{Rule: "approval", Message: "Waits for a person's approval under " + a.Demand.Why() + "."}
}

func refusedWords(a *Approval) string {
	text := "A person refused this."
	if a.Reason != "" {
		text += " They say: " + a.Reason
	}
	return text + " Do not try it in another way."
}

// noAnswer tells of silence as what it is: nobody said no.
func noAnswer(a *Approval) journal.Reason {
	return journal.Reason{Rule: "approval.no_answer", Message: "It needed approval under " + a.Demand.Why() + ", and nobody answered in time. That is no refusal by a person; without an answer it is not done. Go on without it, or say that it is needed."}
}
