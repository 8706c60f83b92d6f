-- name: Children :many
-- The sessions that these started, in the order in which rows are locked.
SELECT id, coalesce(parent_session_id, '')::text AS parent_id, status FROM sessions
WHERE org_id = @org_id AND parent_session_id = ANY (@parents::text[])
ORDER BY id;

-- name: Ancestors :many
-- A session and those above it, the nearest first, with how deep each lets sessions start sessions. A chain is bounded where it is made.
WITH RECURSIVE up AS (
  SELECT s.org_id, s.id, s.parent_session_id, s.limits, 0 AS distance FROM sessions s WHERE s.org_id = @org_id AND s.id = @id
  UNION ALL
  SELECT p.org_id, p.id, p.parent_session_id, p.limits, up.distance + 1 FROM sessions p JOIN up ON p.org_id = up.org_id AND p.id = up.parent_session_id
  WHERE up.distance < 1000
)
SELECT id, coalesce((limits ->> 'max_depth')::bigint, 0)::bigint AS max_depth, distance::bigint AS distance FROM up ORDER BY distance;

-- name: LastCapture :one
-- The last that a session was charged.
SELECT id, coalesce(step_id, '')::text AS step_id, amount_nanos, created_at FROM ledger_transfers
WHERE org_id = @org_id AND session_id = @session_id AND credit_account = 'spent' AND debit_account = 'held'
ORDER BY created_at DESC, id DESC LIMIT 1;

-- name: TagReceipt :exec
UPDATE receipts SET stop_id = @stop_id, root_session_id = @root_session_id WHERE org_id = @org_id AND id = @id;

-- name: LockReceipts :many
-- The receipts of one tree, in one order.
SELECT id, session_id, body, completed_at FROM receipts WHERE org_id = @org_id AND root_session_id = @root_session_id ORDER BY id FOR UPDATE;

-- name: TreeReceipts :many
SELECT id, session_id, body, completed_at FROM receipts WHERE org_id = @org_id AND root_session_id = @root_session_id ORDER BY id;

-- name: UnfinishedReceipts :many
-- For the worker's role: trees whose receipts nobody completes. Those that were just made are left to the process that made them.
SELECT DISTINCT org_id, root_session_id FROM receipts
WHERE completed_at IS NULL AND root_session_id IS NOT NULL AND created_at < now() - make_interval(secs => @grace_seconds::float8)
LIMIT 50;

-- name: StopOver :one
SELECT coalesce(stop_over(@org_id, @session_id, @project_id, @agent_id, @key_id, @mandate_id), '')::text AS stop_id;

-- name: LockStops :exec
-- Whoever begins work holds this lock shared until its transaction ends: what it began is visible from here on.
SELECT pg_advisory_xact_lock(hashtextextended('ambit/stop/' || @org_id::text, 0));

-- name: InsertStop :one
INSERT INTO stops (org_id, id, scope_type, scope_id, project_id, include_idle, requested_by, reason, requested_at, carried_until)
VALUES (@org_id, @id, @scope_type, @scope_id, @project_id, @include_idle, @requested_by, @reason, @requested_at, now() + make_interval(secs => @carry_seconds::float8))
RETURNING *;

-- name: LastStop :one
SELECT * FROM stops WHERE org_id = @org_id AND scope_type = @scope_type AND scope_id = @scope_id ORDER BY id DESC LIMIT 1;

-- name: GetStop :one
SELECT * FROM stops WHERE org_id = @org_id AND id = @id;

-- name: ListStops :many
SELECT * FROM stops
WHERE org_id = @org_id AND (@project_id::text = '' OR project_id = @project_id::text) AND (@before_id::text = '' OR id < @before_id::text)
ORDER BY id DESC LIMIT @row_limit;

-- name: CarryStop :execrows
-- Takes an order that nobody carries out, or prolongs one's own.
UPDATE stops SET carried_until = now() + make_interval(secs => @carry_seconds::float8)
WHERE org_id = @org_id AND id = @id AND completed_at IS NULL AND (@mine::boolean OR carried_until IS NULL OR carried_until <= now());

-- name: FenceStop :exec
UPDATE stops SET fenced_at = @now WHERE org_id = @org_id AND id = @id AND fenced_at IS NULL;

-- name: CompleteStop :exec
UPDATE stops SET body = @body, signature = @signature, completed_at = @now WHERE org_id = @org_id AND id = @id AND completed_at IS NULL;

-- name: UnfinishedStops :many
-- For the worker's role: orders that nobody carries out.
SELECT org_id, id FROM stops WHERE completed_at IS NULL AND (carried_until IS NULL OR carried_until <= now()) LIMIT 20;

-- name: StopReceipts :many
SELECT id, session_id, coalesce(root_session_id, '')::text AS root_session_id, body, completed_at FROM receipts
WHERE org_id = @org_id AND stop_id = @stop_id::text ORDER BY id;

-- name: CountStopReceipts :one
SELECT count(*)::bigint AS stopped, count(completed_at)::bigint AS completed FROM receipts WHERE org_id = @org_id AND stop_id = @stop_id::text;

-- name: WorkingInScope :many
SELECT id FROM sessions
WHERE org_id = @org_id AND status IN ('running', 'rescheduling')
  AND (@project_id::text = '' OR project_id = @project_id::text) AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@key_id::text = '' OR principal ->> 'id' = @key_id::text)
  AND (@mandate_id::text = '' OR budget_scopes @> ARRAY['mandate:' || @mandate_id::text])
ORDER BY id LIMIT @row_limit;

-- name: CountWorking :one
SELECT count(*)::bigint FROM sessions
WHERE org_id = @org_id AND status IN ('running', 'rescheduling')
  AND (@project_id::text = '' OR project_id = @project_id::text) AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@key_id::text = '' OR principal ->> 'id' = @key_id::text)
  AND (@mandate_id::text = '' OR budget_scopes @> ARRAY['mandate:' || @mandate_id::text]);

-- name: IdleInScope :many
SELECT id FROM sessions
WHERE org_id = @org_id AND status = 'idle' AND (@everyone::boolean OR id = ANY (@among::text[]))
  AND (@project_id::text = '' OR project_id = @project_id::text) AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@key_id::text = '' OR principal ->> 'id' = @key_id::text)
  AND (@mandate_id::text = '' OR budget_scopes @> ARRAY['mandate:' || @mandate_id::text])
ORDER BY id LIMIT @row_limit;

-- name: LockRoom :exec
-- Who counts an organisation's sessions at work and adds one does so one after another.
SELECT pg_advisory_xact_lock(hashtextextended('sessions at work of ' || sqlc.arg(org)::text, 0));

-- name: SessionsAtWork :one
SELECT count(*) AS of_organization, count(*) FILTER (WHERE principal ->> 'id' = sqlc.arg(key_id)::text) AS of_key
FROM sessions WHERE org_id = @org_id AND status IN ('running', 'rescheduling');
