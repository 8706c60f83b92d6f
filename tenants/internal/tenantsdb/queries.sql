-- Every query on a table of tenants takes the organisation first; row-level security is the second belt.

-- name: ActAs :exec
SELECT set_config('app.user_id', @user_id::text, true);

-- name: FindUser :one
SELECT coalesce(ambit_find_user(@email::text), '')::text AS user_id;

-- name: FindSignIn :one
SELECT coalesce(ambit_find_sign_in(@digest::bytea), '')::text AS user_id;

-- name: FindMailToken :one
SELECT coalesce(ambit_find_mail_token(@digest::bytea), '')::text AS user_id;

-- name: FindKey :one
SELECT coalesce(ambit_find_key(@digest::bytea), '')::text AS org_id;

-- name: InsertUser :exec
INSERT INTO users (id, email, name, must_verify, created_at) VALUES (@id, @email, @name, @must_verify, @created_at);

-- name: GetUser :one
SELECT id, email::text AS email, name, email_verified_at, must_verify, created_at FROM users WHERE id = @id;

-- name: RenameUser :execrows
UPDATE users SET name = @name WHERE id = @id;

-- name: WaiveVerification :exec
UPDATE users SET must_verify = false WHERE id = @id;

-- name: VerifyUser :exec
UPDATE users SET email_verified_at = coalesce(email_verified_at, @now::timestamptz) WHERE id = @id;

-- name: InsertPassword :exec
INSERT INTO passwords (user_id, hash, changed_at) VALUES (@user_id, @hash, @changed_at);

-- name: GetPassword :one
SELECT hash FROM passwords WHERE user_id = @user_id;

-- name: SetPassword :exec
INSERT INTO passwords (user_id, hash, changed_at) VALUES (@user_id, @hash, @changed_at)
ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed_at = excluded.changed_at;

-- The old hash is named, so that a password changed meanwhile is not put back.
-- name: RehashPassword :exec
UPDATE passwords SET hash = @new_hash WHERE user_id = @user_id AND hash = @old_hash;

-- name: InsertSignIn :exec
INSERT INTO sign_ins (id, user_id, token_sha256, created_at, last_seen_at, expires_at, address, user_agent)
VALUES (@id, @user_id, @token_sha256, @created_at, @created_at, @expires_at, @address, @user_agent);

-- name: GetSignInByToken :one
SELECT id, user_id, created_at, last_seen_at, expires_at, address, user_agent, revoked_at
FROM sign_ins WHERE user_id = @user_id AND token_sha256 = @token_sha256;

-- name: ListSignIns :many
SELECT id, user_id, created_at, last_seen_at, expires_at, address, user_agent, revoked_at
FROM sign_ins WHERE user_id = @user_id AND revoked_at IS NULL AND expires_at > @now AND last_seen_at > @idle_since
ORDER BY last_seen_at DESC, id DESC LIMIT 200;

-- name: TouchSignIn :exec
UPDATE sign_ins SET last_seen_at = @now WHERE id = @id AND user_id = @user_id AND last_seen_at < @now;

-- name: RevokeSignIn :execrows
UPDATE sign_ins SET revoked_at = coalesce(revoked_at, @now::timestamptz) WHERE id = @id AND user_id = @user_id;

-- name: RevokeOtherSignIns :execrows
UPDATE sign_ins SET revoked_at = @now::timestamptz WHERE user_id = @user_id AND id <> @keep AND revoked_at IS NULL;

-- name: InsertMailToken :exec
INSERT INTO mail_tokens (token_sha256, user_id, purpose, created_at, expires_at)
VALUES (@token_sha256, @user_id, @purpose, @created_at, @expires_at);

-- name: GetMailToken :one
SELECT purpose FROM mail_tokens
WHERE token_sha256 = @token_sha256 AND user_id = @user_id AND used_at IS NULL AND expires_at > @now::timestamptz;

-- name: UseMailToken :execrows
UPDATE mail_tokens SET used_at = @now::timestamptz
WHERE token_sha256 = @token_sha256 AND user_id = @user_id AND used_at IS NULL AND expires_at > @now::timestamptz;

-- name: VoidMailTokens :exec
UPDATE mail_tokens SET used_at = @now::timestamptz WHERE user_id = @user_id AND used_at IS NULL;

-- name: MyMemberships :many
SELECT id, org_id, role, created_at, org_name, org_slug, coalesce(role_id, '')::text AS role_id, coalesce(role_name, '')::text AS role_name,
  coalesce(role_permissions, '{}')::text[] AS role_permissions
FROM my_memberships WHERE user_id = @user_id ORDER BY org_name, org_id;

-- name: InsertOrganization :exec
INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES (@id, @name, @slug, @created_at, @created_at);

-- name: GetOrganization :one
SELECT id, name, slug, time_zone, version, created_at, updated_at FROM organizations WHERE id = @org_id;

-- name: UpdateOrganization :one
UPDATE organizations SET name = coalesce(sqlc.narg(name), name), time_zone = coalesce(sqlc.narg(time_zone), time_zone), version = version + 1, updated_at = @now
WHERE id = @org_id AND (sqlc.narg(if_version)::bigint IS NULL OR version = sqlc.narg(if_version))
RETURNING id, name, slug, time_zone, version, created_at, updated_at;

-- name: KnowsZone :one
-- Whether the database can reckon in this zone too.
SELECT ambit_knows_zone(@zone::text)::boolean;

-- name: LockOrganization :one
SELECT id FROM organizations WHERE id = @org_id FOR UPDATE;

-- name: InsertMember :exec
INSERT INTO members (org_id, id, user_id, role, created_at) VALUES (@org_id, @id, @user_id, @role, @created_at);

-- name: ListMembers :many
SELECT m.id, m.user_id, m.role, m.role_id, coalesce(r.name, '')::text AS role_name, coalesce(r.permissions, '{}')::text[] AS role_permissions,
  m.created_at, u.email::text AS email, u.name, u.email_verified_at
FROM members m JOIN users u ON u.id = m.user_id LEFT JOIN roles r ON r.org_id = m.org_id AND r.id = m.role_id
WHERE m.org_id = @org_id AND m.id > @after ORDER BY m.id LIMIT @max_rows;

-- name: GetMemberRole :one
SELECT role FROM members WHERE org_id = @org_id AND user_id = @user_id;

-- name: InsertProject :one
INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES (@org_id, @id, @name, @slug, @created_at, @created_at)
RETURNING org_id, id, name, slug, version, created_at, updated_at, archived_at;

-- name: GetProject :one
SELECT org_id, id, name, slug, version, created_at, updated_at, archived_at FROM projects WHERE org_id = @org_id AND id = @id;

-- name: LockProject :one
SELECT org_id, id, name, slug, version, created_at, updated_at, archived_at FROM projects WHERE org_id = @org_id AND id = @id FOR UPDATE;

-- name: GetProjectBySlug :one
SELECT org_id, id, name, slug, version, created_at, updated_at, archived_at FROM projects WHERE org_id = @org_id AND slug = @slug;

-- name: ListProjects :many
SELECT org_id, id, name, slug, version, created_at, updated_at, archived_at FROM projects
WHERE org_id = @org_id AND (@include_archived::bool OR archived_at IS NULL) AND (@before::text = '' OR id < @before)
ORDER BY id DESC LIMIT @max_rows;

-- name: ListProjectsOldestFirst :many
SELECT org_id, id, name, slug, version, created_at, updated_at, archived_at FROM projects
WHERE org_id = @org_id AND (@include_archived::bool OR archived_at IS NULL) AND id > @after
ORDER BY id LIMIT @max_rows;

-- name: UpdateProject :one
UPDATE projects SET name = @name, slug = @slug, version = version + 1, updated_at = @now
WHERE org_id = @org_id AND id = @id
RETURNING org_id, id, name, slug, version, created_at, updated_at, archived_at;

-- name: CountActiveProjects :one
SELECT count(*) FROM projects WHERE org_id = @org_id AND archived_at IS NULL;

-- name: ArchiveProject :one
UPDATE projects SET archived_at = @now::timestamptz, version = version + 1, updated_at = @now::timestamptz
WHERE org_id = @org_id AND id = @id
RETURNING org_id, id, name, slug, version, created_at, updated_at, archived_at;

-- name: InsertKey :one
-- Who answers for a key that a key makes is who answers for that one.
INSERT INTO api_keys (org_id, id, project_id, name, prefix, secret_sha256, scopes, api_version, created_by, created_at, expires_at, user_id)
VALUES (@org_id, @id, @project_id, @name, @prefix, @secret_sha256, @scopes, @api_version, @created_by, @created_at, @expires_at,
  coalesce(sqlc.narg(user_id)::text, (SELECT p.user_id FROM api_keys p WHERE p.org_id = @org_id AND p.id = @created_by)))
RETURNING org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at;

-- name: GetKey :one
SELECT org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at
FROM api_keys WHERE org_id = @org_id AND id = @id;

-- name: LockKey :one
SELECT org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at
FROM api_keys WHERE org_id = @org_id AND id = @id FOR UPDATE;

-- name: GetKeyBySecret :one
-- A key works as long as the person who answers for it is a member.
SELECT k.org_id, k.id, k.project_id, k.name, k.prefix, k.scopes, k.api_version, k.created_by, k.version, k.created_at, k.expires_at, k.last_used_at, k.revoked_at,
  (k.user_id IS NULL OR EXISTS (SELECT FROM members m WHERE m.org_id = k.org_id AND m.user_id = k.user_id))::boolean AS answered_for
FROM api_keys k WHERE k.org_id = @org_id AND k.secret_sha256 = @secret_sha256;

-- name: RevokeKeysOf :execrows
UPDATE api_keys SET revoked_at = @now::timestamptz, version = version + 1 WHERE org_id = @org_id AND user_id = sqlc.arg(user_id)::text AND revoked_at IS NULL;

-- name: ListKeys :many
SELECT org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at
FROM api_keys
WHERE org_id = @org_id
  AND (sqlc.narg(project_id)::text IS NULL OR project_id = sqlc.narg(project_id))
  AND (cardinality(@statuses::text[]) = 0 OR
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= @now::timestamptz THEN 'expired' ELSE 'active' END = ANY (@statuses::text[]))
  AND (@before::text = '' OR id < @before)
ORDER BY id DESC LIMIT @max_rows;

-- name: ListKeysOldestFirst :many
SELECT org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at
FROM api_keys
WHERE org_id = @org_id
  AND (sqlc.narg(project_id)::text IS NULL OR project_id = sqlc.narg(project_id))
  AND (cardinality(@statuses::text[]) = 0 OR
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= @now::timestamptz THEN 'expired' ELSE 'active' END = ANY (@statuses::text[]))
  AND id > @after
ORDER BY id LIMIT @max_rows;

-- name: UpdateKey :one
UPDATE api_keys SET name = @name, scopes = @scopes, expires_at = @expires_at, version = version + 1
WHERE org_id = @org_id AND id = @id
RETURNING org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at;

-- name: RevokeKey :one
UPDATE api_keys SET revoked_at = @now::timestamptz, version = version + 1
WHERE org_id = @org_id AND id = @id
RETURNING org_id, id, project_id, name, prefix, scopes, api_version, created_by, version, created_at, expires_at, last_used_at, revoked_at;

-- As the worker, for all organisations at once. Rows are locked in one order, so that two replicas cannot block each other.
-- name: RecordKeyUses :execrows
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.used_at)
FROM (SELECT o.org_id, o.id, n.used_at
      FROM api_keys o
      JOIN (SELECT unnest(@org_ids::text[]) AS org_id, unnest(@ids::text[]) AS id, unnest(@used_at::timestamptz[]) AS used_at) n ON n.org_id = o.org_id AND n.id = o.id
      ORDER BY o.org_id, o.id FOR UPDATE OF o) u
WHERE k.org_id = u.org_id AND k.id = u.id;

-- An attempt counts when it is made, before it is known to be good: attempts made at once cannot slip past the count together. No row
-- comes back while the subject is blocked.
-- name: TakeAttempt :one
INSERT INTO throttles AS t (subject, attempts, last_at, blocked_until)
VALUES (@subject, 1, @now::timestamptz, 'epoch')
ON CONFLICT (subject) DO UPDATE SET
  attempts = CASE WHEN t.last_at < @forget_before::timestamptz THEN 1 ELSE t.attempts + 1 END,
  last_at = @now::timestamptz,
  blocked_until = ambit_blocked_until(t.attempts, t.last_at, @now::timestamptz, @forget_before::timestamptz, @free_attempts::int, @first_block_seconds::float8, @max_block_seconds::float8)
WHERE t.blocked_until <= @now::timestamptz
RETURNING attempts;

-- name: BlockedUntil :one
SELECT blocked_until FROM throttles WHERE subject = @subject;

-- name: ForgetAttempts :exec
DELETE FROM throttles WHERE subject = @subject;

-- name: GiveAttemptBack :exec
UPDATE throttles SET attempts = greatest(attempts - 1, 0), blocked_until = 'epoch' WHERE subject = @subject;

-- name: SweepSignIns :execrows
DELETE FROM sign_ins WHERE expires_at < @ended_before;

-- name: SweepMailTokens :execrows
DELETE FROM mail_tokens WHERE expires_at < @ended_before;

-- name: SweepThrottles :execrows
DELETE FROM throttles WHERE last_at < @ended_before AND blocked_until < @ended_before;

-- name: LockMembership :one
-- Members and roles of an organisation change one after the other, so that two owners cannot each be the other's last. It does not make
-- those wait who only refer to the organisation.
SELECT id FROM organizations WHERE id = @org_id FOR NO KEY UPDATE;

-- name: GetMember :one
SELECT m.id, m.user_id, m.role, m.role_id, coalesce(r.name, '')::text AS role_name, coalesce(r.permissions, '{}')::text[] AS role_permissions,
  m.created_at, u.email::text AS email, u.name, u.email_verified_at
FROM members m JOIN users u ON u.id = m.user_id LEFT JOIN roles r ON r.org_id = m.org_id AND r.id = m.role_id
WHERE m.org_id = @org_id AND m.id = @id;

-- name: SetMemberRole :exec
UPDATE members SET role = @role, role_id = sqlc.narg('role_id') WHERE org_id = @org_id AND id = @id;

-- name: DeleteMember :execrows
DELETE FROM members WHERE org_id = @org_id AND id = @id;

-- name: CountOwners :one
SELECT count(*) FROM members WHERE org_id = @org_id AND role = 'owner';

-- name: CountMembersWithRole :one
SELECT count(*) FROM members WHERE org_id = @org_id AND role_id = sqlc.arg(role_id)::text;

-- name: InsertRole :one
INSERT INTO roles (org_id, id, name, description, permissions, created_at, updated_at) VALUES (@org_id, @id, @name, @description, @permissions, @now, @now)
RETURNING *;

-- name: UpdateRole :one
UPDATE roles SET name = @name, description = @description, permissions = @permissions, version = version + 1, updated_at = @now
WHERE org_id = @org_id AND id = @id
RETURNING *;

-- name: DeleteRole :execrows
DELETE FROM roles WHERE org_id = @org_id AND id = @id;

-- name: GetRole :one
SELECT * FROM roles WHERE org_id = @org_id AND id = @id;

-- name: ListRoles :many
SELECT * FROM roles WHERE org_id = @org_id AND id > @after ORDER BY id LIMIT @max_rows;

-- name: CountRoles :one
SELECT count(*) FROM roles WHERE org_id = @org_id;

-- name: FindInvitation :one
SELECT coalesce(ambit_find_invitation(@digest::bytea), '')::text AS org_id;

-- name: InsertInvitation :exec
INSERT INTO invitations (org_id, id, email, role, role_id, token_sha256, mailed, by_kind, by_id, created_at, sent_at, expires_at)
VALUES (@org_id, @id, @email, @role, sqlc.narg('role_id'), @token_sha256, @mailed, @by_kind, @by_id, @now, @now, @expires_at);

-- An expired invitation makes room for a new one to the same address.
-- name: EndExpiredInvitation :exec
UPDATE invitations SET revoked_at = @now::timestamptz
WHERE org_id = @org_id AND email = sqlc.arg(email)::text::citext AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at <= @now;

-- name: CountOpenInvitations :one
SELECT count(*) FROM invitations WHERE org_id = @org_id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > @now;

-- name: CountOpenInvitationsWithRole :one
SELECT count(*) FROM invitations
WHERE org_id = @org_id AND role_id = sqlc.arg(role_id)::text AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > @now;

-- name: GetInvitation :one
SELECT i.id, i.email::text AS email, i.role, i.role_id, coalesce(r.name, '')::text AS role_name, coalesce(r.permissions, '{}')::text[] AS role_permissions,
  i.mailed, i.by_kind, i.by_id, i.created_at, i.sent_at, i.expires_at, i.accepted_at, i.revoked_at
FROM invitations i LEFT JOIN roles r ON r.org_id = i.org_id AND r.id = i.role_id
WHERE i.org_id = @org_id AND i.id = @id;

-- name: GetInvitationByToken :one
SELECT id FROM invitations WHERE org_id = @org_id AND token_sha256 = @token_sha256;

-- name: ListInvitations :many
SELECT i.id, i.email::text AS email, i.role, i.role_id, coalesce(r.name, '')::text AS role_name, coalesce(r.permissions, '{}')::text[] AS role_permissions,
  i.mailed, i.by_kind, i.by_id, i.created_at, i.sent_at, i.expires_at, i.accepted_at, i.revoked_at
FROM invitations i LEFT JOIN roles r ON r.org_id = i.org_id AND r.id = i.role_id
WHERE i.org_id = @org_id AND (@before::text = '' OR i.id < @before) AND (NOT @open_only::boolean OR (i.accepted_at IS NULL AND i.revoked_at IS NULL))
ORDER BY i.id DESC LIMIT @max_rows;

-- name: RenewInvitation :exec
UPDATE invitations SET token_sha256 = @token_sha256, mailed = @mailed, by_kind = @by_kind, by_id = @by_id, sent_at = @now, expires_at = @expires_at
WHERE org_id = @org_id AND id = @id;

-- name: RevokeInvitation :exec
UPDATE invitations SET revoked_at = @now::timestamptz WHERE org_id = @org_id AND id = @id AND accepted_at IS NULL AND revoked_at IS NULL;

-- name: AcceptInvitation :exec
UPDATE invitations SET accepted_at = @now::timestamptz, accepted_by = @accepted_by::text WHERE org_id = @org_id AND id = @id;

-- name: InsertMemberWithRole :exec
INSERT INTO members (org_id, id, user_id, role, role_id, created_at) VALUES (@org_id, @id, @user_id, @role, sqlc.narg('role_id'), @created_at);

-- name: GetMemberByUser :one
SELECT m.id, m.user_id, m.role, m.role_id, coalesce(r.name, '')::text AS role_name, coalesce(r.permissions, '{}')::text[] AS role_permissions,
  m.created_at, u.email::text AS email, u.name, u.email_verified_at
FROM members m JOIN users u ON u.id = m.user_id LEFT JOIN roles r ON r.org_id = m.org_id AND r.id = m.role_id
WHERE m.org_id = @org_id AND m.user_id = @user_id;

-- name: HasMemberOfAddress :one
SELECT EXISTS (SELECT FROM members m JOIN users u ON u.id = m.user_id WHERE m.org_id = @org_id AND u.email = sqlc.arg(email)::text::citext)::boolean;

-- name: SweepInvitations :execrows
DELETE FROM invitations WHERE expires_at < @ended_before;
