package approval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// spec is a rule as it is kept.
type spec struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Outcome     Outcome      `json:"outcome"`
	Waives      string       `json:"waives,omitempty"`
	Subject     string       `json:"subject"`
	Kind        string       `json:"kind"`
	Tool        string       `json:"tool"`
	Action      string       `json:"action"`
	Object      string       `json:"object"`
	Condition   string       `json:"condition,omitempty"`
	SumOver     *money.Nanos `json:"sum_over,omitempty"`
	SumSeconds  int64        `json:"sum_seconds,omitempty"`
	Risks       []string     `json:"risks,omitempty"`
	FirstUse    string       `json:"first_use,omitempty"`
	Tainted     bool         `json:"tainted,omitempty"`
	Stages      []Stage      `json:"stages,omitempty"`
	Escalation  *Stage       `json:"escalation,omitempty"`
	AskerMay    bool         `json:"asker_may,omitempty"`
	Passkey     bool         `json:"passkey,omitempty"`
	Until       *time.Time   `json:"until,omitempty"`
}

func specOf(r *Rule) ([]byte, error) {
	raw, err := json.Marshal(spec{
		Name: r.Name, Description: r.Description, Outcome: r.Outcome, Waives: r.Waives, Subject: r.Subject, Kind: r.Kind, Tool: r.Tool, Action: r.Action, Object: r.Object,
		Condition: r.Condition.Text(), SumOver: r.SumOver, SumSeconds: int64(r.SumWindow / time.Second), Risks: r.Risks, FirstUse: r.FirstUse, Tainted: r.Tainted,
		Stages: r.Stages, Escalation: r.Escalation, AskerMay: r.AskerMay, Passkey: r.Passkey, Until: r.Until,
	})
	if err != nil {
		return nil, fmt.Errorf("write an approval rule: %w", err)
	}
	return raw, nil
}

// ruleOf reads what specOf wrote. A member that it does not know is an error: a rule that is not understood must not be left out.
func ruleOf(raw []byte) (Rule, error) {
	var s spec
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Rule{}, fmt.Errorf("read an approval rule: %w", err)
	}
	condition, err := policy.ParseCondition(s.Condition)
	if err != nil {
		return Rule{}, err
	}
	r, err := Rule{
		Name: s.Name, Description: s.Description, Outcome: s.Outcome, Waives: s.Waives, Subject: s.Subject, Kind: s.Kind, Tool: s.Tool, Action: s.Action, Object: s.Object,
		Condition: condition, SumOver: s.SumOver, SumWindow: time.Duration(s.SumSeconds) * time.Second, Risks: s.Risks, FirstUse: s.FirstUse, Tainted: s.Tainted,
		Stages: s.Stages, Escalation: s.Escalation, AskerMay: s.AskerMay, Passkey: s.Passkey, Until: s.Until,
	}.Check()
	if err != nil {
		return Rule{}, fmt.Errorf("read an approval rule: %w", err)
	}
	return r, nil
}

func storedOf(row approvaldb.ApprovalRule) (Stored, error) {
	r, err := ruleOf(row.Spec)
	if err != nil {
		return Stored{}, fmt.Errorf("read the approval rule %s: %w", row.ID, err)
	}
	out := Stored{ID: id.ApprovalRule(row.ID), Rule: r, Version: row.Version, CreatedBy: row.CreatedBy, CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC()}
	if row.OwnerID != nil {
		out.Owner = id.User(*row.OwnerID)
	}
	return out, nil
}

// extension is the name under which a policy.Set carries the approval rules.
const extension = "approvals"

// rules are an organisation's approval rules as a policy.Set carries them.
type rules struct {
	asks     []Stored
	waives   []Stored
	settings Settings
}

// Extend has the cache read approval rules together with permissions. Without it, the defaults hold alone.
func Extend(cache *policy.Cache) {
	cache.Extend(extension, func(ctx context.Context, tx pgx.Tx, org id.Org) (any, error) { return load(ctx, tx, org) })
}

func load(ctx context.Context, tx pgx.Tx, org id.Org) (*rules, error) {
	q := approvaldb.New(tx)
	rows, err := q.Rules(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("read the approval rules: %w", err)
	}
	out := &rules{settings: DefaultSettings}
	for _, row := range rows {
		r, err := storedOf(row)
		if err != nil {
			return nil, err
		}
		if r.Outcome == Waive {
			out.waives = append(out.waives, r)
		} else {
			out.asks = append(out.asks, r)
		}
	}
	if out.settings, err = readSettings(ctx, q, org); err != nil {
		return nil, err
	}
	return out, nil
}

func readSettings(ctx context.Context, q *approvaldb.Queries, org id.Org) (Settings, error) {
	row, err := q.GetSettings(ctx, string(org))
	if errors.Is(err, pgx.ErrNoRows) {
		return DefaultSettings, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read the settings of approvals: %w", err)
	}
	return Settings{TaintAsks: row.Taint == "ask", AsksPerDay: int(row.AsksPerDay), Version: row.Version}, nil
}

// none are the rules of an organisation that has none.
var none = &rules{settings: DefaultSettings}

func rulesOf(set *policy.Set) *rules {
	if r, ok := set.Extension(extension).(*rules); ok {
		return r
	}
	return none
}
