-- name: GetVersion :one
SELECT version FROM policy_versions WHERE org_id = @org_id;

-- name: RaiseVersion :one
-- First of all in each change: whoever changes rules holds this row until the commit, so that an organisation's versions are committed in
-- their order. The conflict locks the row before the next number is taken.
INSERT INTO policy_versions (org_id, version, changed_at) VALUES (@org_id, nextval('policy_version_numbers'), @now)
ON CONFLICT (org_id) DO UPDATE SET version = nextval('policy_version_numbers'), changed_at = EXCLUDED.changed_at
RETURNING version;

-- name: VersionsOf :many
-- Across organisations, for the worker's role.
SELECT org_id, version FROM policy_versions WHERE org_id = ANY(@org_ids::text[]);

-- name: Lines :many
-- The version, the zone, the rules and the tags in one statement, and so of one moment.
SELECT v.version, o.time_zone, p.id, p.subject, p.effect, p.kind, p.name, p.action, p.object, p.condition, p.description, ''::text AS agent, ''::text AS tag
FROM policy_versions v JOIN organizations o ON o.id = v.org_id JOIN permissions p ON p.org_id = v.org_id WHERE v.org_id = @org_id
UNION ALL
SELECT v.version, o.time_zone, '', '', '', '', '', '', '', '', '', t.agent_id, t.tag
FROM policy_versions v JOIN organizations o ON o.id = v.org_id JOIN permission_tags t ON t.org_id = v.org_id WHERE v.org_id = @org_id
UNION ALL
SELECT v.version, o.time_zone, '', '', '', '', '', '', '', '', '', '', ''
FROM policy_versions v JOIN organizations o ON o.id = v.org_id WHERE v.org_id = @org_id
ORDER BY 3, 12, 13;

-- name: Mandates :many
-- What binds, and what was revoked and might still be asked: after the version was read, and so never older than it.
SELECT id, coalesce(parent_id, '')::text AS parent_id, agent_id, state, grant_json, budgets FROM mandates
WHERE org_id = @org_id AND state <> 'draft' AND until_at > now() - interval '1 day' ORDER BY cardinality(path), id;

-- name: MandateRequired :one
SELECT required_of FROM mandate_settings WHERE org_id = @org_id;

-- name: InsertPermission :one
INSERT INTO permissions (org_id, id, subject, effect, kind, name, action, object, condition, description, preset, created_by, created_at, updated_at)
VALUES (@org_id, @id, @subject, @effect, @kind, @name, @action, @object, @condition, @description, sqlc.narg('preset'), @created_by, @now, @now)
RETURNING *;

-- name: UpdatePermission :one
UPDATE permissions SET subject = @subject, effect = @effect, kind = @kind, name = @name, action = @action, object = @object, condition = @condition,
  description = @description, version = version + 1, updated_at = @now
WHERE org_id = @org_id AND id = @id
RETURNING *;

-- name: DeletePermission :execrows
DELETE FROM permissions WHERE org_id = @org_id AND id = @id;

-- name: DeletePermissionsOf :execrows
DELETE FROM permissions WHERE org_id = @org_id AND subject = @subject;

-- name: GetPermission :one
SELECT * FROM permissions WHERE org_id = @org_id AND id = @id;

-- name: CountPermissions :one
SELECT count(*) FROM permissions WHERE org_id = @org_id;

-- name: ListPermissions :many
SELECT * FROM permissions
WHERE org_id = @org_id
  AND (@subject::text = '' OR subject = @subject) AND (@effect::text = '' OR effect = @effect) AND (@kind::text = '' OR kind = @kind)
  AND (@after::text = '' OR CASE WHEN @oldest_first::boolean THEN id > @after ELSE id < @after END)
ORDER BY CASE WHEN @oldest_first::boolean THEN id END, CASE WHEN NOT @oldest_first::boolean THEN id END DESC
LIMIT @max_rows;

-- name: AgentExists :one
SELECT EXISTS (SELECT FROM agents WHERE org_id = @org_id AND id = @id);

-- name: ProjectExists :one
SELECT EXISTS (SELECT FROM projects WHERE org_id = @org_id AND id = @id);

-- name: ListTags :many
SELECT p.agent_id, p.tag FROM permission_tags p WHERE p.org_id = @org_id AND p.agent_id IN (
  SELECT DISTINCT t.agent_id FROM permission_tags t WHERE t.org_id = @org_id AND t.agent_id > @after ORDER BY t.agent_id LIMIT @max_rows)
ORDER BY p.agent_id, p.tag;

-- name: TagsOf :many
SELECT tag FROM permission_tags WHERE org_id = @org_id AND agent_id = @agent_id ORDER BY tag;

-- name: ClearTags :exec
DELETE FROM permission_tags WHERE org_id = @org_id AND agent_id = @agent_id;

-- name: InsertTags :exec
INSERT INTO permission_tags (org_id, agent_id, tag) SELECT @org_id, @agent_id, unnest(@tags::text[]);

-- name: Decisions :many
-- The gate's decisions of an organisation, newest first, from the place before which to go on back to the oldest one asked for. Ids of
-- events sort by time, so this reads one range of their index, and at most as many events as are asked for.
SELECT e.id, e.session_id, e.seq, e.created_at, e.type, e.payload, s.project_id, s.agent, i.payload AS intended
FROM (SELECT x.* FROM events x WHERE x.org_id = @org_id AND x.id < @before AND x.id >= @oldest ORDER BY x.id DESC LIMIT @max_scanned) e
JOIN sessions s ON s.org_id = e.org_id AND s.id = e.session_id
LEFT JOIN events i ON i.org_id = e.org_id AND i.session_id = e.session_id AND i.seq = e.seq + 1 AND i.type = 'step.intended'
WHERE e.type = 'gate.decided' AND (@project_id::text = '' OR s.project_id = @project_id)
ORDER BY e.id DESC
LIMIT @max_rows;

-- name: Scanned :one
-- How far a scan of that many events gets, so that the next one can begin there even when it found no decision.
SELECT coalesce(min(e.id), '')::text AS oldest, count(*) AS events FROM (
  SELECT x.id FROM events x WHERE x.org_id = @org_id AND x.id < @before AND x.id >= @oldest ORDER BY x.id DESC LIMIT @max_scanned) e;

-- name: ZoneOf :one
SELECT time_zone FROM organizations WHERE id = @org_id;
