-- name: AgentOf :one
-- The agent that a mandate is for, with the project that it lies in. One that is archived gets none.
SELECT id, project_id, name FROM agents WHERE org_id = @org_id AND id = @id AND archived_at IS NULL;

-- name: InsertMandate :one
INSERT INTO mandates (org_id, id, project_id, parent_id, path, agent_id, state, intent, grant_json, from_at, until_at, body, digest, key_id, token, proof, user_id, budgets, created_by, created_at, updated_at, signed_at)
VALUES (@org_id, @id, @project_id, sqlc.narg(parent_id), @path, @agent_id, @state, @intent, @grant_json, sqlc.narg(from_at), @until_at, @body, @digest, @key_id, sqlc.narg(token), sqlc.narg(proof),
  sqlc.narg(user_id), @budgets, @created_by, @now, @now, sqlc.narg(signed_at))
RETURNING *;

-- name: GetMandate :one
SELECT * FROM mandates WHERE org_id = @org_id AND id = @id;

-- name: LockMandate :one
SELECT * FROM mandates WHERE org_id = @org_id AND id = @id FOR NO KEY UPDATE;

-- name: CountDrafts :one
SELECT count(*) FROM mandates WHERE org_id = @org_id AND state = 'draft' AND until_at > now();

-- name: CountInForce :one
SELECT count(*) FROM mandates WHERE org_id = @org_id AND state = 'active' AND until_at > now();

-- name: DeleteDraft :execrows
-- A draft that nobody will sign ends at once: it was shown to somebody, perhaps.
UPDATE mandates SET until_at = least(until_at, @now), updated_at = @now WHERE org_id = @org_id AND id = @id AND state = 'draft';

-- name: RewriteDraft :one
UPDATE mandates SET body = @body, digest = @digest, key_id = @key_id, user_id = @user_id, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND id = @id AND state = 'draft' RETURNING *;

-- name: SignMandate :one
UPDATE mandates SET state = 'active', token = @token, proof = @proof, budgets = @budgets, signed_at = @now, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND id = @id AND state = 'draft' AND digest = @digest RETURNING *;

-- name: RevokeBelow :many
-- The mandate and all that narrow it, however deep, but for those that were revoked before.
UPDATE mandates SET state = 'revoked', revoked_at = @now, revoked_by = @revoked_by, revoke_reason = @reason, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND path @> ARRAY[@id::text] AND state = 'active' RETURNING *;

-- name: Below :many
SELECT * FROM mandates WHERE org_id = @org_id AND path @> ARRAY[@id::text] AND state <> 'draft' ORDER BY cardinality(path), id;

-- name: WorkingBelow :many
-- The sessions under a mandate, or under one below it, that have not ended.
SELECT s.id, s.title, s.status FROM sessions s WHERE s.org_id = @org_id AND s.budget_scopes @> ARRAY['mandate:' || @id::text] AND s.mandate_id IS NOT NULL AND s.status <> 'terminated'
ORDER BY s.id DESC LIMIT 200;

-- name: ListMandates :many
SELECT * FROM mandates
WHERE org_id = @org_id AND (@project_id::text = '' OR project_id = @project_id::text) AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@parent_id::text = '' OR parent_id = @parent_id::text) AND (NOT @roots::boolean OR parent_id IS NULL) AND (@state::text = '' OR state = @state::text)
  AND (@after_id::text = '' OR id < @after_id::text)
ORDER BY id DESC LIMIT @row_limit;

-- name: ListTrees :many
-- Roots with all below them.
SELECT m.* FROM mandates m WHERE m.org_id = @org_id AND m.path[1] = ANY (@roots::text[]) ORDER BY m.path;

-- name: LockPath :many
SELECT id, grant_json, sessions_used FROM mandates WHERE org_id = @org_id AND id = ANY (@path::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: UseSession :exec
UPDATE mandates SET sessions_used = sessions_used + 1 WHERE org_id = @org_id AND id = ANY (@path::text[]);

-- name: GetSettings :one
SELECT * FROM mandate_settings WHERE org_id = @org_id;

-- name: PutSettings :one
INSERT INTO mandate_settings (org_id, passkey_above_nanos, required_of, updated_at) VALUES (@org_id, @passkey_above_nanos, @required_of, @now)
ON CONFLICT (org_id) DO UPDATE SET passkey_above_nanos = EXCLUDED.passkey_above_nanos, required_of = EXCLUDED.required_of, updated_at = EXCLUDED.updated_at, version = mandate_settings.version + 1
RETURNING *;

-- name: SubjectExists :one
SELECT EXISTS (
  SELECT FROM agents a WHERE a.org_id = sqlc.arg(org)::text AND a.id = sqlc.arg(subject)::text
  UNION ALL SELECT FROM projects p WHERE p.org_id = sqlc.arg(org)::text AND p.id = sqlc.arg(subject)::text
  UNION ALL SELECT FROM api_keys k WHERE k.org_id = sqlc.arg(org)::text AND k.id = sqlc.arg(subject)::text);

-- name: SpentUnder :many
-- What was captured under each of these mandates, as the ledger has it.
SELECT m.id::text AS id, coalesce(sum(t.amount_nanos), 0)::bigint AS spent_nanos, count(DISTINCT s.id)::bigint AS sessions
FROM unnest(@ids::text[]) m (id) JOIN sessions s ON s.org_id = @org AND s.budget_scopes @> ARRAY['mandate:' || m.id]
  LEFT JOIN ledger_transfers t ON t.org_id = s.org_id AND t.session_id = s.id AND t.kind = 'capture'
GROUP BY m.id;

-- name: UnsealedSpends :many
-- What was captured under a root and has no receipt yet, with the session's own mandate and the decision that admitted it.
SELECT t.id, t.session_id, coalesce(t.step_id, '')::text AS step_id, t.amount_nanos, t.created_at, coalesce(s.mandate_id, '')::text AS mandate_id, s.agent_id,
       st.kind, st.name, h.amount_nanos AS held_nanos, coalesce(up.created_at, h.created_at)::timestamptz AS held_at,
       coalesce((SELECT e.payload -> 'asked' ->> 'domain' FROM events e WHERE e.org_id = t.org_id AND e.session_id = t.session_id
         AND e.seq BETWEEN st.intended_seq - 2 AND st.intended_seq AND e.type = 'gate.decided' AND e.step_id = t.step_id LIMIT 1), '')::text AS domain
FROM sessions s JOIN ledger_transfers t ON t.org_id = s.org_id AND t.session_id = s.id
  JOIN steps st ON st.org_id = t.org_id AND st.id = t.step_id
  JOIN holds h ON h.org_id = t.org_id AND h.id = t.hold_id LEFT JOIN holds up ON up.org_id = h.org_id AND up.id = h.parent_id
WHERE s.org_id = sqlc.arg(org)::text AND s.mandate_id IS NOT NULL AND s.budget_scopes @> ARRAY['mandate:' || sqlc.arg(root)::text]
  AND s.last_active_at > sqlc.arg(since)::timestamptz AND t.kind = 'capture'
  AND NOT EXISTS (SELECT FROM mandate_receipts r WHERE r.org_id = t.org_id AND r.id = t.id)
ORDER BY t.created_at, t.id LIMIT 4096;

-- name: UnsealedRefusals :many
SELECT e.id, e.session_id, e.payload, e.created_at, coalesce(s.mandate_id, '')::text AS mandate_id, s.agent_id
FROM sessions s JOIN events e ON e.org_id = s.org_id AND e.session_id = s.id
WHERE s.org_id = sqlc.arg(org)::text AND s.mandate_id IS NOT NULL AND s.budget_scopes @> ARRAY['mandate:' || sqlc.arg(root)::text]
  AND s.last_active_at > sqlc.arg(since)::timestamptz AND e.type = 'gate.decided' AND e.payload ->> 'decision' = 'denied'
  AND NOT EXISTS (SELECT FROM mandate_receipts r WHERE r.org_id = e.org_id AND r.id = e.id)
ORDER BY e.created_at, e.id LIMIT 1024;

-- name: LastBatch :one
-- With when the last was made that was smaller than what one takes of refusals or spends at most, and so left nothing out.
SELECT b.number, coalesce((SELECT w.created_at FROM mandate_batches w WHERE w.org_id = b.org_id AND w.root_id = b.root_id AND w.size < 1024 ORDER BY w.number DESC LIMIT 1), sqlc.arg(signed_at))::timestamptz AS whole_at
FROM mandate_batches b WHERE b.org_id = @org_id AND b.root_id = @root_id ORDER BY b.number DESC LIMIT 1;

-- name: InsertBatch :exec
INSERT INTO mandate_batches (org_id, id, root_id, number, size, root_hash, statement, created_at) VALUES (@org_id, @id, @root_id, @number, @size, @root_hash, @statement, @now);

-- name: InsertReceipts :exec
INSERT INTO mandate_receipts (org_id, id, batch_id, position, mandate_id, payee, amount_nanos, line)
SELECT @org_id::text, unnest(@ids::text[]), @batch_id::text, unnest(@positions::int[]), unnest(@mandate_ids::text[]), unnest(@payees::text[]), unnest(@amounts::bigint[]), unnest(@lines::text[]);

-- name: ZoneOf :one
SELECT time_zone FROM organizations WHERE id = @id;

-- name: Unsettled :many
-- What each payee was paid under the mandates of a root, by the receipts, and what of it was settled in whole cents.
SELECT r.mandate_id, r.payee, sum(r.amount_nanos)::bigint AS captured_nanos,
       coalesce((SELECT sum(c.cents) FROM mandate_settlements c WHERE c.org_id = r.org_id AND c.mandate_id = r.mandate_id AND c.payee = r.payee), 0)::bigint AS cents
FROM mandate_receipts r JOIN mandates m ON m.org_id = r.org_id AND m.id = r.mandate_id
WHERE r.org_id = sqlc.arg(org)::text AND m.path[1] = sqlc.arg(root)::text AND r.amount_nanos > 0
GROUP BY r.org_id, r.mandate_id, r.payee ORDER BY r.mandate_id, r.payee;

-- name: InsertSettlement :exec
INSERT INTO mandate_settlements (org_id, id, mandate_id, payee, cents, captured_nanos, carried_nanos, token, created_at)
VALUES (@org_id, @id, @mandate_id, @payee, @cents, @captured_nanos, @carried_nanos, @token, @now);

-- name: SettlementsBelow :many
SELECT c.id, c.mandate_id, c.payee, c.cents, c.captured_nanos, c.carried_nanos, c.token, c.created_at
FROM mandate_settlements c JOIN mandates m ON m.org_id = c.org_id AND m.id = c.mandate_id
WHERE c.org_id = sqlc.arg(org)::text AND m.path @> ARRAY[sqlc.arg(id)::text] ORDER BY c.id;

-- name: Batches :many
SELECT id, number, size, statement FROM mandate_batches WHERE org_id = @org_id AND root_id = @root_id ORDER BY number;

-- name: LinesOfBatch :many
SELECT id, position, mandate_id, line FROM mandate_receipts WHERE org_id = @org_id AND batch_id = @batch_id ORDER BY position;

-- name: RecentLines :many
SELECT r.id, r.batch_id, r.position, r.line, b.number FROM mandate_receipts r JOIN mandate_batches b ON b.org_id = r.org_id AND b.id = r.batch_id
  JOIN mandates m ON m.org_id = r.org_id AND m.id = r.mandate_id
WHERE r.org_id = sqlc.arg(org)::text AND m.path @> ARRAY[sqlc.arg(id)::text] ORDER BY b.number DESC, r.position DESC LIMIT sqlc.arg(row_limit);

-- name: RootsToSeal :many
-- For the worker's role.
SELECT org_id, id FROM mandates WHERE cardinality(path) = 1 AND state <> 'draft' AND until_at > now() - interval '2 days' ORDER BY id DESC LIMIT 2000;
