-- Each query takes the organisation first; row-level security is the second belt.

-- name: TryLock :one
-- One request of a scope at a time, until its transaction ends. Two scopes whose numbers collide wait for each other's retry, no more.
SELECT pg_try_advisory_xact_lock(@number::bigint);

-- name: Find :one
SELECT fingerprint, sealed FROM idempotency_records
WHERE org_id = @org_id AND scope_sha256 = @scope_sha256 AND expires_at > @now;

-- name: Save :exec
-- The scope's lock is held, so the only row that can be in the way is one that expired.
INSERT INTO idempotency_records (org_id, scope_sha256, fingerprint, sealed, created_at, expires_at)
VALUES (@org_id, @scope_sha256, @fingerprint, @sealed, @created_at, @expires_at)
ON CONFLICT (org_id, scope_sha256) DO UPDATE
SET fingerprint = excluded.fingerprint, sealed = excluded.sealed, created_at = excluded.created_at, expires_at = excluded.expires_at;

-- name: DeleteExpired :execrows
DELETE FROM idempotency_records WHERE ctid IN (
  SELECT r.ctid FROM idempotency_records r WHERE r.expires_at <= @now ORDER BY r.expires_at LIMIT @most
);
