package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents/internal/agentsdb"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

func init() {
	postgres.RegisterConstraint("agents_name", fault.New(fault.Conflict, "state_conflict", "This project has an agent of that name already."))
}

// Service keeps agents. Its methods work in the caller's transaction, which must be the organisation's.
type Service struct {
	catalogue Catalogue
	clock     clock.Clock
	onCreate  func(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) error
}

// New makes the service.
func New(catalogue Catalogue, c clock.Clock) *Service {
	return &Service{catalogue: catalogue, clock: c}
}

// OnCreate sets what else is made with an agent, in its transaction: its key. It is called before the service is used.
func (s *Service) OnCreate(fn func(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) error) {
	s.onCreate = fn
}

// Catalogue says which models and tools a definition may name.
func (s *Service) Catalogue() Catalogue { return s.catalogue }

// CreateInput is what an agent begins with.
type CreateInput struct {
	Project     id.Project
	Name        string
	Description string
	Metadata    map[string]string
	Definition  journal.Definition
}

// Create makes an agent and its first version.
func (s *Service) Create(ctx context.Context, tx pgx.Tx, org id.Org, in CreateInput) (Agent, error) {
	name, err := checkName(in.Name)
	if err != nil {
		return Agent{}, err
	}
	if err := CheckMetadata("/metadata", in.Metadata); err != nil {
		return Agent{}, err
	}
	definition, err := s.catalogue.Check("", in.Definition)
	if err != nil {
		return Agent{}, err
	}
	if len(in.Description) > 2000 {
		return Agent{}, fault.InvalidField("/description", "too_large", "A description has at most 2000 bytes.")
	}
	if in.Metadata == nil {
		in.Metadata = map[string]string{}
	}
	metadata, err := json.Marshal(in.Metadata)
	if err != nil {
		return Agent{}, fmt.Errorf("write the metadata: %w", err)
	}
	now, agent, by := s.clock.Now(), id.New[id.Agent](), principal.From(ctx).ID
	q := agentsdb.New(tx)
	err = q.InsertAgent(ctx, agentsdb.InsertAgentParams{
		OrgID: org, ID: agent, ProjectID: in.Project, Name: name, Description: in.Description, Metadata: metadata, CreatedBy: by, CreatedAt: now,
	})
	if err != nil {
		return Agent{}, fmt.Errorf("insert the agent: %w", err)
	}
	if err := insertVersion(ctx, q, org, Version{Agent: agent, Version: 1, Definition: definition, CreatedBy: by, CreatedAt: now}); err != nil {
		return Agent{}, err
	}
	if s.onCreate != nil {
		if err := s.onCreate(ctx, tx, org, agent); err != nil {
			return Agent{}, err
		}
	}
	return s.Get(ctx, tx, org, agent)
}

// UpdateInput changes an agent; nil leaves a field as it is.
type UpdateInput struct {
	Name        *string
	Description *string
	Metadata    *map[string]string
	Definition  *journal.Definition
	// IfVersion, when above zero, must be the newest version, or the change is refused with 412: somebody else changed the agent first.
	IfVersion int
}

// Update changes an agent. A definition that differs from the newest makes a new version; one that does not makes none.
func (s *Service) Update(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, in UpdateInput) (Agent, error) {
	q := agentsdb.New(tx)
	row, err := lockAgent(ctx, q, org, agent)
	if err != nil {
		return Agent{}, err
	}
	if row.ArchivedAt != nil {
		return Agent{}, fault.New(fault.Conflict, "archived", "This agent is archived; it can be read but not changed.")
	}
	if in.IfVersion > 0 && in.IfVersion != int(row.LatestVersion) {
		return Agent{}, fault.Newf(fault.PreconditionFailed, "precondition_failed", "The agent is at version %d now, not %d. Read it again and repeat your change.", row.LatestVersion, in.IfVersion)
	}
	now := s.clock.Now()
	params := agentsdb.UpdateAgentParams{OrgID: org, ID: agent, Name: row.Name, Description: row.Description, Metadata: row.Metadata, LatestVersion: row.LatestVersion, UpdatedAt: now}
	if in.Name != nil {
		if params.Name, err = checkName(*in.Name); err != nil {
			return Agent{}, err
		}
	}
	if in.Description != nil {
		if params.Description = *in.Description; len(params.Description) > 2000 {
			return Agent{}, fault.InvalidField("/description", "too_large", "A description has at most 2000 bytes.")
		}
	}
	if in.Metadata != nil {
		if err := CheckMetadata("/metadata", *in.Metadata); err != nil {
			return Agent{}, err
		}
		if params.Metadata, err = json.Marshal(*in.Metadata); err != nil {
			return Agent{}, fmt.Errorf("write the metadata: %w", err)
		}
	}
	if in.Definition != nil {
		if params.LatestVersion, err = s.nextVersion(ctx, q, org, row, *in.Definition); err != nil {
			return Agent{}, err
		}
	}
	if err := q.UpdateAgent(ctx, params); err != nil {
		return Agent{}, fmt.Errorf("update agent %s: %w", agent, err)
	}
	return s.Get(ctx, tx, org, agent)
}

func (s *Service) nextVersion(ctx context.Context, q *agentsdb.Queries, org id.Org, row agentsdb.Agent, d journal.Definition) (int32, error) {
	d, err := s.catalogue.Check("", d)
	if err != nil {
		return 0, err
	}
	newest, err := q.GetVersion(ctx, agentsdb.GetVersionParams{OrgID: org, AgentID: row.ID, Version: row.LatestVersion})
	if err != nil {
		return 0, fmt.Errorf("read version %d of %s: %w", row.LatestVersion, row.ID, err)
	}
	have, err := versionFromRow(newest)
	if err != nil {
		return 0, err
	}
	if same(have.Definition, d) {
		return row.LatestVersion, nil
	}
	v := Version{Agent: row.ID, Version: int(row.LatestVersion) + 1, Definition: d, CreatedBy: principal.From(ctx).ID, CreatedAt: s.clock.Now()}
	return row.LatestVersion + 1, insertVersion(ctx, q, org, v)
}

// Archive ends an agent: it can be read, and not invoked or changed. Archiving twice is harmless.
func (s *Service) Archive(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) (Agent, error) {
	q := agentsdb.New(tx)
	row, err := lockAgent(ctx, q, org, agent)
	if err != nil {
		return Agent{}, err
	}
	if row.ArchivedAt == nil {
		now := s.clock.Now()
		err := q.UpdateAgent(ctx, agentsdb.UpdateAgentParams{
			OrgID: org, ID: agent, Name: row.Name, Description: row.Description, Metadata: row.Metadata, LatestVersion: row.LatestVersion, UpdatedAt: now, ArchivedAt: &now,
		})
		if err != nil {
			return Agent{}, fmt.Errorf("archive agent %s: %w", agent, err)
		}
	}
	return s.Get(ctx, tx, org, agent)
}

// Get reads an agent with its newest definition.
func (s *Service) Get(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) (Agent, error) {
	q := agentsdb.New(tx)
	row, err := q.GetAgent(ctx, agentsdb.GetAgentParams{OrgID: org, ID: agent})
	if errors.Is(err, pgx.ErrNoRows) {
		return Agent{}, fault.NotFound()
	}
	if err != nil {
		return Agent{}, fmt.Errorf("read agent %s: %w", agent, err)
	}
	v, err := s.GetVersion(ctx, tx, org, agent, int(row.LatestVersion))
	if err != nil {
		return Agent{}, err
	}
	return agentFromRow(row, v.Definition)
}

// ListFilter says which agents to list, newest first.
type ListFilter struct {
	Project         id.Project
	NameContains    string
	IncludeArchived bool
	After           id.Agent
	Limit           int
}

// List lists agents with their newest definitions.
func (s *Service) List(ctx context.Context, tx pgx.Tx, org id.Org, f ListFilter) ([]Agent, error) {
	q := agentsdb.New(tx)
	rows, err := q.ListAgents(ctx, agentsdb.ListAgentsParams{
		OrgID: org, ProjectID: string(f.Project), IncludeArchived: f.IncludeArchived, NameLike: escapeLike(f.NameContains), BeforeID: string(f.After), RowLimit: int32(f.Limit), //nolint:gosec // at most a page
	})
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = string(r.ID)
	}
	versions, err := q.LatestDefinitions(ctx, agentsdb.LatestDefinitionsParams{OrgID: org, AgentIds: ids})
	if err != nil {
		return nil, fmt.Errorf("read the agents' definitions: %w", err)
	}
	definitions := map[id.Agent]journal.Definition{}
	for _, r := range versions {
		v, err := versionFromRow(r)
		if err != nil {
			return nil, err
		}
		definitions[v.Agent] = v.Definition
	}
	out := make([]Agent, len(rows))
	for i, r := range rows {
		if out[i], err = agentFromRow(r, definitions[r.ID]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// GetVersion reads one version.
func (s *Service) GetVersion(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, version int) (Version, error) {
	row, err := agentsdb.New(tx).GetVersion(ctx, agentsdb.GetVersionParams{OrgID: org, AgentID: agent, Version: int32(version)}) //nolint:gosec // checked where it is read
	if errors.Is(err, pgx.ErrNoRows) {
		return Version{}, fault.NotFound()
	}
	if err != nil {
		return Version{}, fmt.Errorf("read version %d of %s: %w", version, agent, err)
	}
	return versionFromRow(row)
}

// ListVersions lists versions newest first, below the given one when it is above zero.
func (s *Service) ListVersions(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, before, limit int) ([]Version, error) {
	if _, err := s.Get(ctx, tx, org, agent); err != nil {
		return nil, err
	}
	rows, err := agentsdb.New(tx).ListVersions(ctx, agentsdb.ListVersionsParams{OrgID: org, AgentID: agent, BeforeVersion: int32(before), RowLimit: int32(limit)}) //nolint:gosec // small
	if err != nil {
		return nil, fmt.Errorf("list the versions of %s: %w", agent, err)
	}
	out := make([]Version, len(rows))
	for i, r := range rows {
		if out[i], err = versionFromRow(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PutAlias makes an alias or moves it. ifRevision is the revision that it must have: 0 for one that must not exist yet, -1 to not care.
func (s *Service) PutAlias(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, name string, version int, ifRevision int64) (Alias, error) {
	if !aliasShape.MatchString(name) {
		return Alias{}, fault.InvalidField("/name", "malformed", "An alias has 1 to 63 characters: a lower-case letter, then letters, digits and hyphens.")
	}
	q := agentsdb.New(tx)
	row, err := lockAgent(ctx, q, org, agent)
	if err != nil {
		return Alias{}, err
	}
	if row.ArchivedAt != nil {
		return Alias{}, fault.New(fault.Conflict, "archived", "This agent is archived; its aliases can't be moved.")
	}
	if version < 1 || version > int(row.LatestVersion) {
		return Alias{}, fault.InvalidField("/version", "unknown_version", "The agent has versions 1 to "+strconv.Itoa(int(row.LatestVersion))+".")
	}
	have, err := q.GetAlias(ctx, agentsdb.GetAliasParams{OrgID: org, AgentID: agent, Name: name})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Alias{}, fmt.Errorf("read alias %s of %s: %w", name, agent, err)
	}
	if ifRevision >= 0 && have.Revision != ifRevision { // no row has revision 0
		return Alias{}, fault.New(fault.PreconditionFailed, "precondition_failed", "The alias was moved by somebody else. Read it again and repeat your change.")
	}
	put, err := q.PutAlias(ctx, agentsdb.PutAliasParams{OrgID: org, AgentID: agent, Name: name, Version: int32(version), UpdatedAt: s.clock.Now()}) //nolint:gosec // checked above
	if err != nil {
		return Alias{}, fmt.Errorf("put alias %s of %s: %w", name, agent, err)
	}
	return aliasFromRow(put), nil
}

// GetAlias reads one alias.
func (s *Service) GetAlias(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, name string) (Alias, error) {
	row, err := agentsdb.New(tx).GetAlias(ctx, agentsdb.GetAliasParams{OrgID: org, AgentID: agent, Name: name})
	if errors.Is(err, pgx.ErrNoRows) {
		return Alias{}, fault.NotFound()
	}
	if err != nil {
		return Alias{}, fmt.Errorf("read alias %s of %s: %w", name, agent, err)
	}
	return aliasFromRow(row), nil
}

// ListAliases lists an agent's aliases by name.
func (s *Service) ListAliases(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) ([]Alias, error) {
	rows, err := agentsdb.New(tx).ListAliases(ctx, agentsdb.ListAliasesParams{OrgID: org, AgentID: agent})
	if err != nil {
		return nil, fmt.Errorf("list the aliases of %s: %w", agent, err)
	}
	out := make([]Alias, len(rows))
	for i, r := range rows {
		out[i] = aliasFromRow(r)
	}
	return out, nil
}

// AliasesOf lists the aliases of several agents in one query.
func (s *Service) AliasesOf(ctx context.Context, tx pgx.Tx, org id.Org, agents []id.Agent) (map[id.Agent][]Alias, error) {
	names := make([]string, len(agents))
	for i, a := range agents {
		names[i] = string(a)
	}
	rows, err := agentsdb.New(tx).AliasesOf(ctx, agentsdb.AliasesOfParams{OrgID: org, AgentIds: names})
	if err != nil {
		return nil, fmt.Errorf("list the aliases of %d agents: %w", len(agents), err)
	}
	out := map[id.Agent][]Alias{}
	for _, r := range rows {
		out[r.AgentID] = append(out[r.AgentID], aliasFromRow(r))
	}
	return out, nil
}

// DeleteAlias removes an alias; the versions stay.
func (s *Service) DeleteAlias(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, name string) error {
	n, err := agentsdb.New(tx).DeleteAlias(ctx, agentsdb.DeleteAliasParams{OrgID: org, AgentID: agent, Name: name})
	if err != nil {
		return fmt.Errorf("delete alias %s of %s: %w", name, agent, err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// Ref names an agent in an invoke: a version, an alias, or neither for the newest version.
type Ref struct {
	Agent   id.Agent
	Version int
	Alias   string
}

// Resolve turns a reference into the snapshot that a session runs on. An archived agent is refused.
func (s *Service) Resolve(ctx context.Context, tx pgx.Tx, org id.Org, ref Ref) (journal.Snapshot, id.Project, error) {
	a, err := s.Get(ctx, tx, org, ref.Agent)
	if err != nil {
		return journal.Snapshot{}, "", err
	}
	if a.ArchivedAt != nil {
		return journal.Snapshot{}, "", fault.New(fault.Conflict, "archived", "This agent is archived and can't be invoked.")
	}
	version := a.Version
	switch {
	case ref.Version > 0:
		version = ref.Version
	case ref.Alias != "":
		alias, err := s.GetAlias(ctx, tx, org, ref.Agent, ref.Alias)
		if err != nil {
			return journal.Snapshot{}, "", err
		}
		version = alias.Version
	}
	v, err := s.GetVersion(ctx, tx, org, ref.Agent, version)
	if err != nil {
		return journal.Snapshot{}, "", err
	}
	return journal.Snapshot{ID: a.ID, Name: a.Name, Version: v.Version, Definition: v.Definition}, a.Project, nil
}

func lockAgent(ctx context.Context, q *agentsdb.Queries, org id.Org, agent id.Agent) (agentsdb.Agent, error) {
	row, err := q.LockAgent(ctx, agentsdb.LockAgentParams{OrgID: org, ID: agent})
	if errors.Is(err, pgx.ErrNoRows) {
		return agentsdb.Agent{}, fault.NotFound()
	}
	if err != nil {
		return agentsdb.Agent{}, fmt.Errorf("lock agent %s: %w", agent, err)
	}
	return row, nil
}

func insertVersion(ctx context.Context, q *agentsdb.Queries, org id.Org, v Version) error {
	definition, err := json.Marshal(v.Definition)
	if err != nil {
		return fmt.Errorf("write the definition: %w", err)
	}
	err = q.InsertVersion(ctx, agentsdb.InsertVersionParams{
		OrgID: org, AgentID: v.Agent, Version: int32(v.Version), Definition: definition, CreatedBy: v.CreatedBy, CreatedAt: v.CreatedAt, //nolint:gosec // counts from 1
	})
	if err != nil {
		return fmt.Errorf("insert version %d of %s: %w", v.Version, v.Agent, err)
	}
	return nil
}

func same(a, b journal.Definition) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// escapeLike keeps a person's % and _ from being wild cards.
func escapeLike(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == '%' || s[i] == '_' || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(out)
}
