-- name: InsertAgent :exec
INSERT INTO agents (org_id, id, project_id, name, description, metadata, latest_version, created_by, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $8);

-- name: InsertVersion :exec
INSERT INTO agent_versions (org_id, agent_id, version, definition, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: LockAgent :one
SELECT * FROM agents WHERE org_id = $1 AND id = $2 FOR UPDATE;

-- name: GetAgent :one
SELECT * FROM agents WHERE org_id = $1 AND id = $2;

-- name: GetVersion :one
SELECT * FROM agent_versions WHERE org_id = $1 AND agent_id = $2 AND version = $3;

-- name: UpdateAgent :exec
UPDATE agents SET name = $3, description = $4, metadata = $5, latest_version = $6, updated_at = $7, archived_at = $8 WHERE org_id = $1 AND id = $2;

-- name: ListAgents :many
SELECT * FROM agents
WHERE org_id = @org_id AND (@project_id::text = '' OR project_id = @project_id::text)
  AND (@include_archived::boolean OR archived_at IS NULL)
  AND (@name_like::text = '' OR name ILIKE '%' || @name_like::text || '%')
  AND (@before_id::text = '' OR id < @before_id::text)
ORDER BY id DESC LIMIT @row_limit;

-- name: ListVersions :many
SELECT * FROM agent_versions
WHERE org_id = @org_id AND agent_id = @agent_id AND (@before_version::int = 0 OR version < @before_version::int)
ORDER BY version DESC LIMIT @row_limit;

-- name: LatestDefinitions :many
SELECT v.* FROM agent_versions v JOIN agents a ON a.org_id = v.org_id AND a.id = v.agent_id AND a.latest_version = v.version
WHERE v.org_id = @org_id AND v.agent_id = ANY (@agent_ids::text[]);

-- name: GetAlias :one
SELECT * FROM agent_aliases WHERE org_id = $1 AND agent_id = $2 AND name = $3;

-- name: ListAliases :many
SELECT * FROM agent_aliases WHERE org_id = $1 AND agent_id = $2 ORDER BY name;

-- name: PutAlias :one
INSERT INTO agent_aliases (org_id, agent_id, name, version, updated_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (org_id, agent_id, name) DO UPDATE SET version = excluded.version, revision = agent_aliases.revision + 1, updated_at = excluded.updated_at
RETURNING *;

-- name: DeleteAlias :execrows
DELETE FROM agent_aliases WHERE org_id = $1 AND agent_id = $2 AND name = $3;

-- name: AliasesOf :many
SELECT * FROM agent_aliases WHERE org_id = @org_id AND agent_id = ANY (@agent_ids::text[]) ORDER BY agent_id, name;
