package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
)

func init() {
	postgres.RegisterConstraint("permission_tags_org_id_agent_id_fkey", fault.NotFound())
}

// Catalogue says which models and tools there are. A rule that names one in full must name one of these.
type Catalogue struct {
	KnowsModel func(model string) bool
	KnowsTool  func(tool string) bool
}

// Service changes rules and tags, and answers questions about them. Its methods work in the caller's transaction, which must be the
// organisation's and come from internal/postgres.
type Service struct {
	cache     *Cache
	catalogue Catalogue
	clock     clock.Clock
}

// NewService makes the service. cache is what it explains and simulates by.
func NewService(cache *Cache, catalogue Catalogue, c clock.Clock) *Service {
	return &Service{cache: cache, catalogue: catalogue, clock: c}
}

// Cache is the rules in memory.
func (s *Service) Cache() *Cache { return s.cache }

// changing raises the version, and announces the change after the commit. Each change begins with it, so that changes of one
// organisation wait for each other.
func (s *Service) changing(ctx context.Context, tx pgx.Tx, org id.Org) (*policydb.Queries, error) {
	return policydb.New(tx), Raise(ctx, tx, s.clock.Now(), org)
}

// Raise raises the version of all that binds an organisation's agents, rules and mandates, and announces it after the commit. Whoever changes
// one of them begins with it: changes of one organisation then wait for each other, and from the commit on nothing is admitted under what was.
func Raise(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org) error {
	if _, err := policydb.New(tx).RaiseVersion(ctx, policydb.RaiseVersionParams{OrgID: string(org), Now: now}); err != nil {
		return fmt.Errorf("raise the version of the rules: %w", err)
	}
	postgres.Notify(tx, Channel, Changed)
	return nil
}

// checkKnown refuses what names nothing in this organisation or this instance.
func (s *Service) checkKnown(ctx context.Context, q *policydb.Queries, org id.Org, r Rule, at string) error {
	var wrong []fault.Field
	if !strings.Contains(r.Name, Any) {
		switch {
		case r.Kind == ToolCall && s.catalogue.KnowsTool != nil && !s.catalogue.KnowsTool(r.Name):
			wrong = append(wrong, fault.Field{Pointer: at + "/name", Code: "unknown_tool", Message: fmt.Sprintf("There is no tool %q. A pattern with * may also fit tools to come.", truncate(r.Name, 80))})
		case r.Kind == ModelCall && s.catalogue.KnowsModel != nil && !s.catalogue.KnowsModel(r.Name):
			wrong = append(wrong, fault.Field{Pointer: at + "/name", Code: "unknown_model", Message: fmt.Sprintf("There is no model %q. A pattern with * may also fit models to come.", truncate(r.Name, 80))})
		}
	}
	if bad, err := s.checkSubject(ctx, q, org, r.Subject, at); err != nil {
		return err
	} else if bad != nil {
		wrong = append(wrong, *bad)
	}
	if len(wrong) > 0 {
		return fault.InvalidFields(wrong...)
	}
	return nil
}

func (s *Service) checkSubject(ctx context.Context, q *policydb.Queries, org id.Org, subject, at string) (*fault.Field, error) {
	var exists bool
	var err error
	switch id.PrefixOf(subject) {
	case id.Agent("").Prefix():
		exists, err = q.AgentExists(ctx, policydb.AgentExistsParams{OrgID: string(org), ID: subject})
	case id.Project("").Prefix():
		exists, err = q.ProjectExists(ctx, policydb.ProjectExistsParams{OrgID: string(org), ID: subject})
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the subject of a rule: %w", err)
	}
	if !exists {
		return &fault.Field{Pointer: at + "/subject", Code: "unknown_subject", Message: "There is no such agent or project."}, nil
	}
	return nil, nil
}

func (s *Service) room(ctx context.Context, q *policydb.Queries, org id.Org, more int) error {
	have, err := q.CountPermissions(ctx, string(org))
	if err != nil {
		return fmt.Errorf("count the rules: %w", err)
	}
	if have+int64(more) > MaxRules {
		return fault.Newf(fault.Conflict, "state_conflict", "An organisation has at most %d rules. Join some by a tag or a pattern, or delete those that are not needed.", MaxRules)
	}
	return nil
}

// Create adds a rule. Its faults: invalid_request, state_conflict when there are too many.
func (s *Service) Create(ctx context.Context, tx pgx.Tx, org id.Org, rule Rule) (Stored, error) {
	rule, err := rule.Check("")
	if err != nil {
		return Stored{}, err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Stored{}, err
	}
	if err := s.checkKnown(ctx, q, org, rule, ""); err != nil {
		return Stored{}, err
	}
	if err := s.room(ctx, q, org, 1); err != nil {
		return Stored{}, err
	}
	return s.insert(ctx, q, org, rule, "")
}

func (s *Service) insert(ctx context.Context, q *policydb.Queries, org id.Org, r Rule, preset string) (Stored, error) {
	in := policydb.InsertPermissionParams{
		OrgID: string(org), ID: string(id.New[id.Permission]()), Subject: r.Subject, Effect: string(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action,
		Object: r.Object, Condition: r.Condition.text(), Description: r.Description, CreatedBy: principal.From(ctx).ID, Now: s.clock.Now(),
	}
	if preset != "" {
		in.Preset = &preset
	}
	row, err := q.InsertPermission(ctx, in)
	if err != nil {
		return Stored{}, fmt.Errorf("insert a rule: %w", err)
	}
	return storedOf(row)
}

// Update replaces a rule. ifVersion may be nil; when it is another than the present one, the fault is precondition_failed.
func (s *Service) Update(ctx context.Context, tx pgx.Tx, org id.Org, rule id.Permission, ifVersion *int64, change func(Rule) Rule) (Stored, error) {
	// Before the version is raised: a rule that is not there leaves nothing changed, and asks nobody to read again.
	if _, err := s.Get(ctx, tx, org, rule); err != nil {
		return Stored{}, err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Stored{}, err
	}
	have, err := s.Get(ctx, tx, org, rule) // now that nobody else changes it
	if err != nil {
		return Stored{}, err
	}
	if ifVersion != nil && *ifVersion != have.Version {
		return Stored{}, fault.New(fault.PreconditionFailed, "precondition_failed", "This was changed since you read it. Read it again, then decide.")
	}
	r, err := change(have.Rule).Check("")
	if err != nil {
		return Stored{}, err
	}
	if err := s.checkKnown(ctx, q, org, r, ""); err != nil {
		return Stored{}, err
	}
	row, err := q.UpdatePermission(ctx, policydb.UpdatePermissionParams{
		OrgID: string(org), ID: string(rule), Subject: r.Subject, Effect: string(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object,
		Condition: r.Condition.text(), Description: r.Description, Now: s.clock.Now(),
	})
	if err != nil {
		return Stored{}, fmt.Errorf("update the rule %s: %w", rule, err)
	}
	return storedOf(row)
}

// Delete removes a rule; not found when there is none.
func (s *Service) Delete(ctx context.Context, tx pgx.Tx, org id.Org, rule id.Permission) error {
	if _, err := s.Get(ctx, tx, org, rule); err != nil {
		return err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return err
	}
	n, err := q.DeletePermission(ctx, policydb.DeletePermissionParams{OrgID: string(org), ID: string(rule)})
	if err != nil {
		return fmt.Errorf("delete the rule %s: %w", rule, err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// Get returns a rule, or not found.
func (s *Service) Get(ctx context.Context, tx pgx.Tx, org id.Org, rule id.Permission) (Stored, error) {
	row, err := policydb.New(tx).GetPermission(ctx, policydb.GetPermissionParams{OrgID: string(org), ID: string(rule)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Stored{}, fault.NotFound()
	}
	if err != nil {
		return Stored{}, fmt.Errorf("read the rule %s: %w", rule, err)
	}
	return storedOf(row)
}

// ListFilter selects rules; what is empty selects all.
type ListFilter struct {
	Subject string
	Effect  Effect
	Kind    string
	// OldestFirst turns the order round, which is newest first.
	OldestFirst bool
	// After is the last one seen, in the same order.
	After id.Permission
	Limit int
}

// List returns rules.
func (s *Service) List(ctx context.Context, tx pgx.Tx, org id.Org, f ListFilter) ([]Stored, error) {
	rows, err := policydb.New(tx).ListPermissions(ctx, policydb.ListPermissionsParams{
		OrgID: string(org), Subject: f.Subject, Effect: string(f.Effect), Kind: f.Kind, After: string(f.After), OldestFirst: f.OldestFirst,
		MaxRows: int32(min(max(f.Limit, 1), MaxRules+1)), //nolint:gosec // bounded
	})
	if err != nil {
		return nil, fmt.Errorf("list the rules: %w", err)
	}
	out := make([]Stored, len(rows))
	for i, r := range rows {
		if out[i], err = storedOf(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Explain says what the rules, as this transaction sees them, would decide, and why. Casbin is asked too: should the two ever differ, the
// answer is an error.
func (s *Service) Explain(ctx context.Context, tx pgx.Tx, org id.Org, r Request) (Explanation, error) {
	return s.cache.Explain(ctx, tx, org, r)
}

// Explain is Service.Explain.
func (c *Cache) Explain(ctx context.Context, tx pgx.Tx, org id.Org, r Request) (Explanation, error) {
	set, err := c.Now(ctx, tx, org)
	if err != nil {
		return Explanation{}, err
	}
	out := set.Explain(r)
	ref, err := NewReference(ctx, tx, org)
	if err != nil {
		return Explanation{}, err
	}
	want, err := ref.Decide(r)
	if err != nil {
		return Explanation{}, err
	}
	// A change that was committed between the two reads is no difference.
	if now, err := Version(ctx, tx, org); err != nil {
		return Explanation{}, err
	} else if now == set.version && want != out.Decision.Effect {
		return Explanation{}, fmt.Errorf("the compiled rules of %s at version %d say %s and Casbin says %s", org, set.version, out.Decision.Effect, want)
	}
	return out, nil
}

func storedOf(r policydb.Permission) (Stored, error) {
	condition, err := parseCondition(r.Condition)
	if err != nil {
		return Stored{}, fmt.Errorf("read the rule %s: %w", r.ID, err)
	}
	out := Stored{
		ID: id.Permission(r.ID), Version: r.Version, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		Rule: Rule{
			Subject: r.Subject, Effect: Effect(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object, Condition: condition, Description: r.Description,
		},
	}
	if r.Preset != nil {
		out.Preset = *r.Preset
	}
	return out, nil
}

// Tagged is an agent with its tags.
type Tagged struct {
	Agent id.Agent
	Tags  []string
}

// SetTags gives an agent just these tags. Rules whose subject is "tag:" and one of them are then about this agent.
func (s *Service) SetTags(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, tags []string) (Tagged, error) {
	tags = sortedSet(append([]string{}, tags...))
	if len(tags) > MaxTags {
		return Tagged{}, fault.InvalidField("/tags", "too_long", fmt.Sprintf("An agent has at most %d tags.", MaxTags))
	}
	for i, t := range tags {
		if !tagForm.MatchString(t) {
			return Tagged{}, fault.InvalidField(fmt.Sprintf("/tags/%d", i), "invalid_value", "A tag begins with a lower-case letter and has at most 40 lower-case letters, digits and hyphens.")
		}
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return Tagged{}, err
	}
	if err := q.ClearTags(ctx, policydb.ClearTagsParams{OrgID: string(org), AgentID: string(agent)}); err != nil {
		return Tagged{}, fmt.Errorf("clear the tags of %s: %w", agent, err)
	}
	if err := q.InsertTags(ctx, policydb.InsertTagsParams{OrgID: string(org), AgentID: string(agent), Tags: tags}); err != nil {
		return Tagged{}, fmt.Errorf("tag %s: %w", agent, err)
	}
	return Tagged{Agent: agent, Tags: tags}, nil
}

// TagsOf returns an agent's tags, in their order.
func (s *Service) TagsOf(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) (Tagged, error) {
	tags, err := policydb.New(tx).TagsOf(ctx, policydb.TagsOfParams{OrgID: string(org), AgentID: string(agent)})
	if err != nil {
		return Tagged{}, fmt.Errorf("read the tags of %s: %w", agent, err)
	}
	return Tagged{Agent: agent, Tags: append([]string{}, tags...)}, nil
}

// ListTags returns the agents that have tags, after the one given, in the order of their ids.
func (s *Service) ListTags(ctx context.Context, tx pgx.Tx, org id.Org, after id.Agent, limit int) ([]Tagged, error) {
	rows, err := policydb.New(tx).ListTags(ctx, policydb.ListTagsParams{OrgID: string(org), After: string(after), MaxRows: int32(min(max(limit, 1), 1001))}) //nolint:gosec // bounded
	if err != nil {
		return nil, fmt.Errorf("list the tags: %w", err)
	}
	var out []Tagged
	for _, r := range rows {
		if len(out) == 0 || out[len(out)-1].Agent != id.Agent(r.AgentID) {
			out = append(out, Tagged{Agent: id.Agent(r.AgentID)})
		}
		last := &out[len(out)-1]
		last.Tags = append(last.Tags, r.Tag)
	}
	return out, nil
}
