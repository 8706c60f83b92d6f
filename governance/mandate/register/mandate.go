package register

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity"
)

func init() {
	postgres.RegisterConstraint("mandates_org_id_agent_id_fkey", fault.NotFound())
}

// Bounds of what an organisation keeps: each process has those in force in memory.
const (
	maxDrafts  = 200
	maxInForce = 5000
)

// Mandate is a mandate as it is kept.
type Mandate struct {
	ID      id.Mandate
	Org     id.Org
	Project id.Project
	Parent  id.Mandate
	// Path are all above it and itself, the root first.
	Path  []id.Mandate
	Agent id.Agent
	// State is what is kept; Status says besides whether it has ended by itself.
	State string
	Grant mandate.Grant
	// Body is what is shown and signed, Digest its SHA-256.
	Body   []byte
	Digest [32]byte
	KeyID  string
	Token  string
	Proof  json.RawMessage
	User   id.User
	// SessionsUsed counts the sessions under it where it limits them.
	SessionsUsed int64
	Budgets      []string
	Version      int64
	CreatedBy    principal.Principal
	CreatedAt    time.Time
	UpdatedAt    time.Time
	SignedAt     *time.Time
	RevokedAt    *time.Time
	RevokedBy    principal.Principal
	RevokeReason string
}

// Statuses that are reckoned: see Status.
const (
	Expired   = "expired"
	Waiting   = "not_yet_valid"
	Exhausted = "exhausted"
)

// Status is the state, or that the mandate's time has not come or is over.
func (m Mandate) Status(now time.Time) string {
	switch {
	case m.State == mandate.Revoked:
		return mandate.Revoked
	case !now.Before(m.Grant.Until):
		return Expired
	case m.State == mandate.Active && m.Grant.From != nil && now.Before(*m.Grant.From):
		return Waiting
	}
	return m.State
}

// Money is what a mandate's budgets say.
type Money struct {
	Total     *billing.Budget
	Recurring *billing.Budget
}

// Free is what can be spent at this moment, as far as this mandate alone goes.
func (m Money) Free() money.Nanos {
	switch {
	case m.Total == nil && m.Recurring == nil:
		return 0
	case m.Total == nil:
		return m.Recurring.Available()
	case m.Recurring == nil:
		return m.Total.Available()
	}
	return min(m.Total.Available(), m.Recurring.Available())
}

// Service keeps mandates. Its methods work in the caller's transaction, which is the organisation's. It is safe for concurrent use.
type Service struct {
	keys     *identity.AgentKeys
	instance Instance
	clock    clock.Clock
}

// New makes the service. keys sign for agents and organisations, instance signs the batches of receipts.
func New(keys *identity.AgentKeys, instance Instance, c clock.Clock) *Service {
	return &Service{keys: keys, instance: instance, clock: c}
}

// Get reads a mandate, or not found.
func (s *Service) Get(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate) (Mandate, error) {
	row, err := registerdb.New(tx).GetMandate(ctx, registerdb.GetMandateParams{OrgID: string(org), ID: string(of)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Mandate{}, fault.NotFound()
	}
	if err != nil {
		return Mandate{}, fmt.Errorf("read the mandate %s: %w", of, err)
	}
	return fromRow(row)
}

// Filter selects mandates; what is empty selects all.
type Filter struct {
	Project id.Project
	Agent   id.Agent
	Parent  id.Mandate
	// Roots selects those that narrow no other.
	Roots bool
	State string
	After id.Mandate
	Limit int
}

// List lists mandates, newest first.
func (s *Service) List(ctx context.Context, tx pgx.Tx, org id.Org, f Filter) ([]Mandate, error) {
	rows, err := registerdb.New(tx).ListMandates(ctx, registerdb.ListMandatesParams{
		OrgID: string(org), ProjectID: string(f.Project), AgentID: string(f.Agent), ParentID: string(f.Parent), Roots: f.Roots, State: f.State, AfterID: string(f.After),
		RowLimit: int32(min(max(f.Limit, 1), 1001)), //nolint:gosec // bounded
	})
	if err != nil {
		return nil, fmt.Errorf("list the mandates: %w", err)
	}
	return fromRows(rows)
}

// Trees reads roots with all below them, each after the one that it narrows.
func (s *Service) Trees(ctx context.Context, tx pgx.Tx, org id.Org, roots []id.Mandate) ([]Mandate, error) {
	rows, err := registerdb.New(tx).ListTrees(ctx, registerdb.ListTreesParams{OrgID: string(org), Roots: texts(roots)})
	if err != nil {
		return nil, fmt.Errorf("list the mandates below: %w", err)
	}
	return fromRows(rows)
}

// Spent reads what is granted, held and spent of mandates.
func (s *Service) Spent(ctx context.Context, tx pgx.Tx, org id.Org, of ...Mandate) (map[id.Mandate]Money, error) {
	var all []string
	for _, m := range of {
		all = append(all, m.Budgets...)
	}
	if len(all) == 0 {
		return map[id.Mandate]Money{}, nil
	}
	budgets, err := billing.BudgetsNamed(ctx, tx, org, all)
	if err != nil {
		return nil, err
	}
	out := make(map[id.Mandate]Money, len(of))
	for _, m := range of {
		var sum Money
		for _, of := range m.Budgets {
			if b, ok := budgets[id.Budget(of)]; ok && b.Period == "total" {
				sum.Total = &b
			} else if ok {
				sum.Recurring = &b
			}
		}
		out[m.ID] = sum
	}
	return out, nil
}

// Working are the sessions under a mandate or below it that have not ended: what a revocation stops.
type Working struct {
	ID     id.Session
	Title  string
	Status string
}

// Reach says what a revocation would reach: the mandates that would fall, and the sessions that have not ended.
func (s *Service) Reach(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate) (fall []Mandate, working []Working, err error) {
	q := registerdb.New(tx)
	rows, err := q.Below(ctx, registerdb.BelowParams{OrgID: string(org), ID: string(of)})
	if err != nil {
		return nil, nil, fmt.Errorf("find what is below %s: %w", of, err)
	}
	all, err := fromRows(rows)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range all {
		if m.State == mandate.Active {
			fall = append(fall, m)
		}
	}
	sessions, err := q.WorkingBelow(ctx, registerdb.WorkingBelowParams{OrgID: string(org), ID: string(of)})
	if err != nil {
		return nil, nil, fmt.Errorf("find what works under %s: %w", of, err)
	}
	for _, r := range sessions {
		working = append(working, Working{id.Session(r.ID), r.Title, r.Status})
	}
	return fall, working, nil
}

func fromRows(rows []registerdb.Mandate) ([]Mandate, error) {
	out := make([]Mandate, len(rows))
	for i, r := range rows {
		var err error
		if out[i], err = fromRow(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func fromRow(r registerdb.Mandate) (Mandate, error) {
	m := Mandate{
		ID: id.Mandate(r.ID), Org: id.Org(r.OrgID), Project: id.Project(r.ProjectID), Parent: id.Mandate(text(r.ParentID)), Agent: id.Agent(r.AgentID), State: r.State, Body: []byte(r.Body),
		Digest: [32]byte(r.Digest), KeyID: r.KeyID, Token: text(r.Token), Proof: r.Proof, User: id.User(text(r.UserID)), SessionsUsed: r.SessionsUsed, Budgets: r.Budgets, Version: r.Version,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), SignedAt: utc(r.SignedAt), RevokedAt: utc(r.RevokedAt), RevokeReason: text(r.RevokeReason),
	}
	for _, p := range r.Path {
		m.Path = append(m.Path, id.Mandate(p))
	}
	for _, part := range []struct {
		raw json.RawMessage
		to  any
	}{{r.GrantJson, &m.Grant}, {r.CreatedBy, &m.CreatedBy}, {r.RevokedBy, &m.RevokedBy}} {
		if len(part.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(part.raw, part.to); err != nil {
			return Mandate{}, fmt.Errorf("read the mandate %s: %w", r.ID, err)
		}
	}
	if m.State == mandate.Draft && r.UntilAt.Before(m.Grant.Until) { // it was thrown away, and its page may still be open
		m.Grant.Until = r.UntilAt.UTC()
	}
	return m, nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// Challenge is a digest as a passkey's page and its proof write it.
func Challenge(digest [32]byte) string { return base64.RawURLEncoding.EncodeToString(digest[:]) }
