package approval

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// Status is what became of an approval.
type Status string

// The statuses. Edited: a person put other arguments in its place. Void: nobody needs an answer any more, or what was decided no longer counts.
const (
	Pending  Status = "pending"
	Approved Status = "approved"
	Refused  Status = "refused"
	Edited   Status = "edited"
	Expired  Status = "expired"
	Void     Status = "void"
	Used     Status = "used"
)

// Statuses lists them.
func Statuses() []Status { return []Status{Pending, Approved, Refused, Edited, Expired, Void, Used} }

// GoodFor is how long an approval that was given may be used.
const GoodFor = time.Hour

// Action is one exact effect. What its digest covers is what a person decides on; anything else about it is for looking at.
type Action struct {
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Agent     id.Agent        `json:"agent"`
	Session   id.Session      `json:"session"`
	// Principal is for whom the agent acts.
	Principal string `json:"principal"`
	// Mandate is the one under which the session runs, or empty.
	Mandate string `json:"mandate"`
}

// Digest is the SHA-256 of the action in canonical JSON (RFC 8785).
func (a Action) Digest() ([32]byte, error) {
	d, err := canonical.Digest(a)
	if err != nil {
		return [32]byte{}, fmt.Errorf("digest an action: %w", err)
	}
	return d, nil
}

// Shown is what a person sees of an action besides what is decided on.
type Shown struct {
	Action
	AgentName    string        `json:"agent_name"`
	AgentVersion int           `json:"agent_version,omitempty"`
	By           journal.Actor `json:"by"`
	ToolUseID    string        `json:"tool_use_id"`
	// Does and Object are what it does and to what, as rules name it; Domain is the host that it goes to.
	Does       string      `json:"does,omitempty"`
	Object     string      `json:"object,omitempty"`
	Domain     string      `json:"domain,omitempty"`
	Amount     money.Nanos `json:"amount"`
	Risk       string      `json:"risk,omitempty"`
	Reversible bool        `json:"reversible,omitempty"`
	// Said is what the agent said with it; Read is what it had read from outside.
	Said string            `json:"said,omitempty"`
	Read []journal.Tainted `json:"read,omitempty"`
	// EditedBy wrote these arguments in place of the agent's.
	EditedBy *journal.Actor `json:"edited_by,omitempty"`
}

// Approval is a question about one action, and what became of it.
type Approval struct {
	Org        id.Org
	ID         id.Approval
	Session    id.Session
	Project    id.Project
	Agent      id.Agent
	ToolUseSeq int64
	Digest     [32]byte
	Status     Status
	Demand     Demand
	Shown      Shown
	// Askers are the people who asked for it.
	Askers    []id.User
	Stage     int
	Escalated bool
	ExpiresAt time.Time
	AskedAt   time.Time
	DecidedAt *time.Time
	DecidedBy *journal.Actor
	Reason    string
	Edited    json.RawMessage
	UsedStep  id.Step
	Version   int64

	told int
}

// DigestText is the digest in hexadecimal.
func (a *Approval) DigestText() string { return hex.EncodeToString(a.Digest[:]) }

func approvalOf(r approvaldb.Approval) (Approval, error) {
	a := Approval{
		Org: id.Org(r.OrgID), ID: id.Approval(r.ID), Session: id.Session(r.SessionID), Project: id.Project(r.ProjectID), Agent: id.Agent(r.AgentID), ToolUseSeq: r.ToolUseSeq,
		Status: Status(r.Status), Stage: int(r.Stage), Escalated: r.Escalated, ExpiresAt: r.ExpiresAt.UTC(), AskedAt: r.AskedAt.UTC(), DecidedAt: r.DecidedAt, Reason: r.Reason,
		Edited: r.Edited, Version: r.Version, told: int(r.Told),
	}
	copy(a.Digest[:], r.Digest)
	for _, u := range r.Askers {
		a.Askers = append(a.Askers, id.User(u))
	}
	if r.UsedStep != nil {
		a.UsedStep = id.Step(*r.UsedStep)
	}
	for _, part := range []struct {
		raw json.RawMessage
		to  any
	}{{r.Demand, &a.Demand}, {r.Action, &a.Shown}, {r.DecidedBy, &a.DecidedBy}} {
		if len(part.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(part.raw, part.to); err != nil {
			return Approval{}, fmt.Errorf("read approval %s: %w", r.ID, err)
		}
	}
	return a, nil
}
