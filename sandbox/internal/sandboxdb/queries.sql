-- Warm machines -----------------------------------------------------------------------------------------------------------------------

-- LockPool makes the decision how many to start one replica's at a time.
-- name: LockPool :exec
SELECT pg_advisory_xact_lock(hashtext('ambit sandbox pool'));

-- CountMachines counts warm machines of an environment, all warm ones, and those that sessions have.
-- name: CountMachines :one
SELECT
  (SELECT count(*) FROM warm_sandboxes w WHERE w.environment = sqlc.arg(environment) AND w.build = sqlc.arg(build)) AS warm,
  (SELECT count(*) FROM warm_sandboxes) AS all_warm,
  (SELECT count(*) FROM sandboxes WHERE state <> 'ended') AS live;

-- name: InsertWarm :exec
INSERT INTO warm_sandboxes (id, environment, build, secret_hash) VALUES ($1, $2, $3, $4);

-- name: SetWarmJob :exec
UPDATE warm_sandboxes SET job_id = $2 WHERE id = $1;

-- MarkReady takes an allocation's first report. A repeated report (its answer was lost) matches by the token that it chose the first
-- time; another allocation with the same secret does not.
-- name: MarkReady :execrows
UPDATE warm_sandboxes SET
  state = 'ready', job_id = sqlc.arg(job_id)::text, alloc_id = sqlc.arg(alloc_id)::text, node_id = sqlc.arg(node_id)::text, address = sqlc.arg(address)::text,
  driver = sqlc.arg(driver), accelerator = sqlc.arg(accelerator), token_hash = sqlc.arg(token_hash)::bytea,
  ready_at = coalesce(ready_at, now()), heartbeat_at = now()
WHERE id = sqlc.arg(id) AND secret_hash = sqlc.arg(secret_hash)
  AND (state = 'pending' OR (alloc_id = sqlc.arg(alloc_id)::text AND token_hash = sqlc.arg(token_hash)::bytea));

-- ClaimWarm takes the machine that has waited longest and that nobody else is taking.
-- name: ClaimWarm :one
DELETE FROM warm_sandboxes WHERE id = (
  SELECT w.id FROM warm_sandboxes w
  WHERE w.state = 'ready' AND w.environment = $1 AND w.build = $2
  ORDER BY w.ready_at, w.id
  LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *;

-- name: BeatWarm :execrows
UPDATE warm_sandboxes SET heartbeat_at = now() WHERE id = $1 AND token_hash = $2;

-- name: ListWarm :many
SELECT * FROM warm_sandboxes ORDER BY created_at, id;

-- name: DeleteWarm :execrows
DELETE FROM warm_sandboxes WHERE id = $1;

-- EndWarm removes a machine that reports its own end, before or after it was ready.
-- name: EndWarm :execrows
DELETE FROM warm_sandboxes WHERE id = sqlc.arg(id) AND (token_hash = sqlc.arg(proof)::bytea OR secret_hash = sqlc.arg(proof)::bytea);

-- Machines of sessions ----------------------------------------------------------------------------------------------------------------

-- name: InsertSandbox :one
INSERT INTO sandboxes (org_id, id, project_id, session_id, environment, epoch, job_id, alloc_id, node_id, address, driver, accelerator,
  token_hash, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
RETURNING *;

-- name: LiveSandbox :one
SELECT * FROM sandboxes WHERE org_id = $1 AND session_id = $2 AND state <> 'ended';

-- name: LiveSandboxes :many
SELECT session_id, id, state, driver, accelerator, node_id FROM sandboxes
WHERE org_id = sqlc.arg(org_id) AND session_id = ANY (sqlc.arg(session_ids)::text[]) AND state <> 'ended';

-- name: SessionsWithMachine :many
SELECT session_id::text FROM sandboxes WHERE org_id = $1 AND state <> 'ended' ORDER BY session_id;

-- HoldUntil notes for how long the machine's time is held from now on.
-- name: HoldUntil :execrows
UPDATE sandboxes SET held_until = now() + make_interval(secs => sqlc.arg(seconds)::float8)
WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id) AND state <> 'ended';

-- Held says whether the machine's time is held for so long yet, and locks it against another's renewal.
-- name: Held :one
SELECT coalesce(held_until > now() + make_interval(secs => sqlc.arg(seconds)::float8), false)::boolean FROM sandboxes
WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id) AND state <> 'ended' FOR UPDATE;

-- RaiseEpoch lets a session's newer lease take its machine over. No row: a newer one has it.
-- name: RaiseEpoch :one
UPDATE sandboxes SET epoch = $3, used_at = now() WHERE org_id = $1 AND id = $2 AND state <> 'ended' AND epoch <= $3
RETURNING *;

-- name: MarkRunning :execrows
UPDATE sandboxes SET state = 'running', started_at = coalesce(started_at, now()), used_at = now(), restored_seq = $3
WHERE org_id = $1 AND id = $2 AND state = 'pending';

-- name: SetPaused :execrows
UPDATE sandboxes SET state = sqlc.arg(state), used_at = now()
WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id) AND state IN ('running', 'paused');

-- name: TouchUsed :exec
UPDATE sandboxes SET used_at = now() WHERE org_id = $1 AND id = $2 AND state <> 'ended';

-- name: MarkSaved :exec
UPDATE sandboxes SET last_saved_at = sqlc.arg(saved_at)::timestamptz WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id);

-- EndSandbox is the only way to the state 'ended', and happens once: the first reason stays.
-- name: EndSandbox :one
UPDATE sandboxes SET state = 'ended', ended_at = now(), end_reason = sqlc.arg(end_reason)::text, end_detail = sqlc.arg(end_detail)
WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id) AND state <> 'ended'
RETURNING *;

-- name: MarkGone :exec
UPDATE sandboxes SET gone_at = sqlc.arg(gone_at)::timestamptz, gone_proof = sqlc.arg(gone_proof)::jsonb
WHERE org_id = sqlc.arg(org_id) AND id = sqlc.arg(id) AND gone_at IS NULL;

-- name: GetSandbox :one
SELECT * FROM sandboxes WHERE org_id = $1 AND id = $2;

-- name: ListSessionSandboxes :many
SELECT * FROM sandboxes WHERE org_id = $1 AND session_id = $2 ORDER BY claimed_at DESC, id DESC LIMIT $3;

-- Across organisations, by the worker's role ------------------------------------------------------------------------------------------

-- BeatSandbox notes that a machine lives, and that it is in use when something runs in it.
-- name: BeatSandbox :one
UPDATE sandboxes SET heartbeat_at = now(), used_at = CASE WHEN sqlc.arg(busy)::boolean THEN now() ELSE used_at END
WHERE id = sqlc.arg(id) AND token_hash = sqlc.arg(token_hash)
RETURNING state;

-- name: FindSandbox :one
SELECT * FROM sandboxes WHERE id = $1;

-- name: FindByToken :one
SELECT * FROM sandboxes WHERE id = $1 AND token_hash = $2;

-- name: ListLive :many
SELECT * FROM sandboxes WHERE state <> 'ended' ORDER BY used_at, id;

-- ListDue finds machines whose time is not held for so long yet, the most urgent first. Those of sessions that have ended are ended, not held.
-- name: ListDue :many
SELECT b.* FROM sandboxes b JOIN sessions s ON s.org_id = b.org_id AND s.id = b.session_id
WHERE b.state <> 'ended' AND s.status <> 'terminated' AND (b.held_until IS NULL OR b.held_until < now() + make_interval(secs => sqlc.arg(seconds)::float8))
ORDER BY b.held_until NULLS FIRST LIMIT sqlc.arg(most)::int;

-- name: ListIdle :many
SELECT * FROM sandboxes
WHERE state IN ('running', 'paused') AND used_at < now() - make_interval(secs => sqlc.arg(idle_seconds)::float8)
ORDER BY used_at, id LIMIT sqlc.arg(most)::int;

-- ListAtRest finds machines whose sessions wait for their next input: the ones that can make room, the longest unused first.
-- name: ListAtRest :many
SELECT b.* FROM sandboxes b JOIN sessions s ON s.org_id = b.org_id AND s.id = b.session_id
WHERE b.state IN ('running', 'paused') AND s.status NOT IN ('running', 'rescheduling')
ORDER BY b.used_at, b.id LIMIT sqlc.arg(most)::int;

-- ListOfTerminated finds machines whose sessions are over; a minute of grace is for whoever ends both.
-- name: ListOfTerminated :many
SELECT b.* FROM sandboxes b JOIN sessions s ON s.org_id = b.org_id AND s.id = b.session_id
WHERE b.state <> 'ended' AND s.status = 'terminated' AND s.updated_at < now() - interval '1 minute'
ORDER BY b.id LIMIT 100;

-- Saved working directories -----------------------------------------------------------------------------------------------------------

-- The caller holds the lock on the session's live sandbox row, so that numbers do not race.
-- name: InsertArchive :one
INSERT INTO workdir_archives (org_id, session_id, seq, sandbox_id, epoch, sha256, size_bytes, content_bytes, files, reason)
SELECT sqlc.arg(org_id), sqlc.arg(session_id), coalesce(max(a.seq), 0) + 1, sqlc.arg(sandbox_id), sqlc.arg(epoch), sqlc.arg(sha256),
  sqlc.arg(size_bytes), sqlc.arg(content_bytes), sqlc.arg(files), sqlc.arg(reason)
FROM workdir_archives a WHERE a.org_id = sqlc.arg(org_id) AND a.session_id = sqlc.arg(session_id)
RETURNING *;

-- name: LockLive :one
SELECT * FROM sandboxes WHERE org_id = $1 AND id = $2 AND state <> 'ended' FOR UPDATE;

-- name: LastArchive :one
SELECT * FROM workdir_archives WHERE org_id = $1 AND session_id = $2 ORDER BY seq DESC LIMIT 1;

-- name: GetArchive :one
SELECT * FROM workdir_archives WHERE org_id = $1 AND session_id = $2 AND seq = $3;

-- name: ListArchives :many
SELECT * FROM workdir_archives WHERE org_id = $1 AND session_id = $2 ORDER BY seq DESC LIMIT $3;

-- Machines of the operator ------------------------------------------------------------------------------------------------------------

-- name: ReportNode :exec
INSERT INTO sandbox_nodes (node_id, name, driver, accelerator, driver_version, detail, template_key, template_state, template_phase,
  template_progress, error, started_at, reported_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now())
ON CONFLICT (node_id) DO UPDATE SET name = excluded.name, driver = excluded.driver, accelerator = excluded.accelerator,
  driver_version = excluded.driver_version, detail = excluded.detail, template_key = excluded.template_key,
  template_state = excluded.template_state, template_phase = excluded.template_phase, template_progress = excluded.template_progress,
  error = excluded.error, started_at = excluded.started_at, reported_at = now();

-- name: ListNodes :many
SELECT * FROM sandbox_nodes ORDER BY name, node_id;

-- name: DeleteNode :exec
DELETE FROM sandbox_nodes WHERE node_id = $1;
