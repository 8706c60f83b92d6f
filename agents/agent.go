package agents

import (
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/agents/internal/agentsdb"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Agent is a named definition with its newest version.
type Agent struct {
	ID          id.Agent
	Project     id.Project
	Name        string
	Description string
	Metadata    map[string]string
	// Version is the newest version, Definition what it says.
	Version    int
	Definition journal.Definition
	CreatedBy  string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ArchivedAt *time.Time
}

// Version is one immutable state of an agent's definition. Versions count from 1.
type Version struct {
	Agent      id.Agent
	Version    int
	Definition journal.Definition
	CreatedBy  string
	CreatedAt  time.Time
}

// Alias is a name that points to a version and can be moved. Revision counts its moves; it is the alias's ETag.
type Alias struct {
	Agent     id.Agent
	Name      string
	Version   int
	Revision  int64
	UpdatedAt time.Time
}

func agentFromRow(r agentsdb.Agent, definition journal.Definition) (Agent, error) {
	a := Agent{
		ID: r.ID, Project: r.ProjectID, Name: r.Name, Description: r.Description, Version: int(r.LatestVersion), Definition: definition,
		CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	if r.ArchivedAt != nil {
		at := r.ArchivedAt.UTC()
		a.ArchivedAt = &at
	}
	if err := json.Unmarshal(r.Metadata, &a.Metadata); err != nil {
		return Agent{}, fmt.Errorf("read the metadata of %s: %w", r.ID, err)
	}
	return a, nil
}

func versionFromRow(r agentsdb.AgentVersion) (Version, error) {
	v := Version{Agent: r.AgentID, Version: int(r.Version), CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC()}
	if err := json.Unmarshal(r.Definition, &v.Definition); err != nil {
		return Version{}, fmt.Errorf("read version %d of %s: %w", r.Version, r.AgentID, err)
	}
	return v, nil
}

func aliasFromRow(r agentsdb.AgentAlias) Alias {
	return Alias{Agent: r.AgentID, Name: r.Name, Version: int(r.Version), Revision: r.Revision, UpdatedAt: r.UpdatedAt.UTC()}
}
