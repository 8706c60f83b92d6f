-- name: InsertSession :exec
-- A child's spending counts against the sessions above it, too.
INSERT INTO sessions (org_id, id, project_id, agent_id, agent_version, agent, parent_session_id, principal, title, metadata, limits, status, last_active_at, created_at, updated_at, mandate_id, budget_scopes)
VALUES (@org_id, @id, @project_id, @agent_id, @agent_version, @agent, @parent_session_id, @principal, @title, @metadata, @limits, 'rescheduling', @now, @now, @now, @mandate_id,
  @budget_scopes::text[] || coalesce((SELECT array_agg(scope) FROM sessions p, unnest(p.budget_scopes) scope WHERE p.org_id = @org_id AND p.id = @parent_session_id AND scope LIKE 'session:%'), '{}'));

-- name: LockSession :one
-- The row's lock orders all writers of one journal. Whether the lease is live is judged by the database's clock.
SELECT *, coalesce(lease_expires_at > now(), false)::boolean AS lease_live
FROM sessions WHERE org_id = $1 AND id = $2 FOR UPDATE;

-- name: GetSession :one
SELECT * FROM sessions WHERE org_id = $1 AND id = $2;

-- name: ListSessions :many
SELECT * FROM sessions
WHERE org_id = @org_id
  AND (@project_id::text = '' OR project_id = @project_id::text)
  AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@parent_session_id::text = '' OR parent_session_id = @parent_session_id::text)
  AND (cardinality(@statuses::text[]) = 0 OR status = ANY (@statuses::text[]))
  AND (cardinality(@stop_reasons::text[]) = 0 OR stop_reason ->> 'type' = ANY (@stop_reasons::text[]))
  AND (@metadata::jsonb = '{}'::jsonb OR metadata @> @metadata::jsonb)
  AND (@include_archived::boolean OR archived_at IS NULL)
  AND (sqlc.narg(created_after)::timestamptz IS NULL OR created_at > sqlc.narg(created_after)::timestamptz)
  AND (sqlc.narg(created_before)::timestamptz IS NULL OR created_at < sqlc.narg(created_before)::timestamptz)
  AND (@before_id::text = '' OR id < @before_id::text)
ORDER BY id DESC
LIMIT @row_limit;

-- name: ListSessionsAscending :many
SELECT * FROM sessions
WHERE org_id = @org_id
  AND (@project_id::text = '' OR project_id = @project_id::text)
  AND (@agent_id::text = '' OR agent_id = @agent_id::text)
  AND (@parent_session_id::text = '' OR parent_session_id = @parent_session_id::text)
  AND (cardinality(@statuses::text[]) = 0 OR status = ANY (@statuses::text[]))
  AND (cardinality(@stop_reasons::text[]) = 0 OR stop_reason ->> 'type' = ANY (@stop_reasons::text[]))
  AND (@metadata::jsonb = '{}'::jsonb OR metadata @> @metadata::jsonb)
  AND (@include_archived::boolean OR archived_at IS NULL)
  AND (sqlc.narg(created_after)::timestamptz IS NULL OR created_at > sqlc.narg(created_after)::timestamptz)
  AND (sqlc.narg(created_before)::timestamptz IS NULL OR created_at < sqlc.narg(created_before)::timestamptz)
  AND (@after_id::text = '' OR id > @after_id::text)
ORDER BY id
LIMIT @row_limit;

-- name: AdvanceSession :exec
-- Writes the head and the projection after events were appended.
UPDATE sessions
SET last_seq = @last_seq, status = @status, stop_reason = @stop_reason, usage = @usage, charged_nanos = @charged_nanos,
    limits = @limits, epoch = @epoch, last_active_at = @now, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND id = @id;

-- name: ClaimLease :one
-- Takes the lease of a session that has work and no live lease, one epoch up. No row: somebody else has it, or there is nothing to do.
UPDATE sessions
SET epoch = epoch + 1, lease_owner = @owner, lease_address = @address, lease_expires_at = now() + make_interval(secs => @ttl_seconds::float8)
WHERE org_id = @org_id AND id = @id AND status IN ('running', 'rescheduling') AND (lease_expires_at IS NULL OR lease_expires_at <= now())
RETURNING epoch;

-- name: RenewLease :execrows
UPDATE sessions SET lease_expires_at = now() + make_interval(secs => @ttl_seconds::float8)
WHERE org_id = @org_id AND id = @id AND epoch = @epoch AND lease_owner = @owner AND lease_expires_at > now();

-- name: ReleaseLease :execrows
UPDATE sessions SET lease_owner = NULL, lease_address = NULL, lease_expires_at = NULL
WHERE org_id = @org_id AND id = @id AND epoch = @epoch AND lease_owner = @owner;

-- name: SetCeilingHold :exec
UPDATE sessions SET ceiling_hold_id = @ceiling_hold_id WHERE org_id = @org_id AND id = @id;

-- name: SetQuote :exec
UPDATE sessions SET quote = @quote WHERE org_id = @org_id AND id = @id;

-- name: UpdateSession :execrows
UPDATE sessions SET title = @title, metadata = @metadata, archived_at = @archived_at, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND id = @id;

-- name: SessionsWithoutWorker :many
-- For the worker's role: sessions that ought to be at work and whose lease is gone. Those that were just made are left to their job.
SELECT org_id, id FROM sessions
WHERE status IN ('running', 'rescheduling')
  AND ((lease_expires_at IS NULL AND last_active_at < now() - make_interval(secs => @grace_seconds::float8)) OR lease_expires_at <= now())
ORDER BY lease_expires_at NULLS LAST
LIMIT @row_limit;

-- name: InsertEvents :exec
INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, step_id, payload, created_at)
SELECT @org_id, @session_id, unnest(@seqs::bigint[]), unnest(@ids::text[]), unnest(@types::text[]), @schema_version, @epoch,
       nullif(unnest(@step_ids::text[]), ''), unnest(@payloads::text[])::jsonb, @now;

-- name: ListEvents :many
SELECT * FROM events
WHERE org_id = @org_id AND session_id = @session_id AND seq > @after_seq
  AND (cardinality(@types::text[]) = 0 OR type = ANY (@types::text[]))
ORDER BY seq LIMIT @row_limit;

-- name: ListEventsDescending :many
SELECT * FROM events
WHERE org_id = @org_id AND session_id = @session_id AND (@before_seq::bigint = 0 OR seq < @before_seq::bigint)
  AND (cardinality(@types::text[]) = 0 OR type = ANY (@types::text[]))
ORDER BY seq DESC LIMIT @row_limit;

-- name: GetEvent :one
SELECT * FROM events WHERE org_id = $1 AND id = $2;

-- name: InsertStep :exec
INSERT INTO steps (org_id, session_id, id, kind, effect_key, epoch, intended_seq, name, hold_id, intended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: SettleStep :exec
UPDATE steps SET settled_seq = @settled_seq, outcome = @outcome, usage = @usage, cost_nanos = @cost_nanos, error = @error, settled_at = @now
WHERE org_id = @org_id AND id = @id AND settled_seq IS NULL;

-- name: OpenSteps :many
SELECT * FROM steps WHERE org_id = $1 AND session_id = $2 AND settled_seq IS NULL ORDER BY intended_seq;

-- name: ListSteps :many
SELECT * FROM steps WHERE org_id = @org_id AND session_id = @session_id AND intended_seq > @after_seq ORDER BY intended_seq LIMIT @row_limit;

-- name: GetStep :one
SELECT * FROM steps WHERE org_id = $1 AND id = $2;

-- name: InsertOutbox :exec
INSERT INTO outbox (org_id, project_id, session_id, kind, payload) VALUES ($1, $2, $3, $4, $5);

-- name: InsertReceipt :exec
INSERT INTO receipts (org_id, id, session_id, kind, body, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: GetReceipt :one
SELECT * FROM receipts WHERE org_id = $1 AND session_id = $2 AND kind = 'kill';

-- name: CompleteReceipt :execrows
UPDATE receipts SET body = $3, signature = $4, completed_at = $5 WHERE org_id = $1 AND id = $2 AND completed_at IS NULL;

-- name: AgentActivity :many
-- What each of some agents has done since a time. An id begins with the time of its making, so that sessions_by_agent has the stretch of
-- time as a range.
SELECT agent_id, count(*)::bigint AS runs,
       count(*) FILTER (WHERE stop_reason ->> 'type' IN ('failed', 'retries_exhausted'))::bigint AS failed,
       sum(charged_nanos)::bigint AS charged_nanos,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY charged_nanos)::bigint AS median_nanos
FROM sessions
WHERE org_id = @org_id AND agent_id = ANY (@agent_ids::text[]) AND id >= @since_id
GROUP BY agent_id;

-- name: FinishedSteps :many
-- What an agent's latest finished sessions used, by step kind and name: sessions that ended by themselves on the given model.
SELECT st.session_id, st.kind, st.name, count(*) AS calls,
       coalesce(sum((st.usage ->> 'input_tokens')::bigint), 0)::bigint AS input_tokens,
       coalesce(sum((st.usage ->> 'cache_read_tokens')::bigint), 0)::bigint AS cache_read_tokens,
       coalesce(sum((st.usage ->> 'cache_write_tokens')::bigint), 0)::bigint AS cache_write_tokens,
       coalesce(sum((st.usage ->> 'output_tokens')::bigint), 0)::bigint AS output_tokens,
       coalesce(sum((st.usage ->> 'reasoning_tokens')::bigint), 0)::bigint AS reasoning_tokens,
       coalesce(sum((st.usage ->> 'sandbox_ms')::bigint), 0)::bigint AS sandbox_ms
FROM (
  SELECT s.id FROM sessions s
  WHERE s.org_id = @org_id AND s.agent_id = @agent_id::text AND s.agent ->> 'model' = @model::text
    AND ((s.status = 'idle' AND s.stop_reason ->> 'type' = 'end_turn') OR (s.status = 'terminated' AND s.stop_reason ->> 'type' = 'archived'))
  ORDER BY s.id DESC LIMIT @sessions
) latest JOIN steps st ON st.org_id = @org_id AND st.session_id = latest.id AND st.settled_seq IS NOT NULL
GROUP BY st.session_id, st.kind, st.name
ORDER BY st.session_id DESC, st.kind, st.name;

-- name: BudgetScopes :one
SELECT budget_scopes FROM sessions WHERE org_id = @org_id AND id = @id;
