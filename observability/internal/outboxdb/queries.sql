-- name: TakeExpiredBatch :one
-- TakeExpiredBatch leases the oldest batch that nobody is sending: its first sender failed, hung or died.
UPDATE outbox_batches SET attempts = attempts + 1, lease_until = now() + make_interval(secs => @lease_seconds::double precision)
WHERE id = (SELECT b.id FROM outbox_batches b WHERE b.lease_until < now() ORDER BY b.created_at, b.id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, attempts;

-- name: AddBatch :exec
INSERT INTO outbox_batches (id, attempts, lease_until) VALUES (@id, 1, now() + make_interval(secs => @lease_seconds::double precision));

-- name: StampRows :execrows
-- StampRows puts the oldest waiting rows into a batch: at most @max_rows, and no more than fit in @max_bytes, but always one. Rows that
-- another replica is stamping at this moment are passed over.
WITH locked AS (
  SELECT o.org_id, o.id, o.payload_bytes FROM outbox o
  WHERE o.batch_id IS NULL AND o.rejected IS NULL
  ORDER BY o.id LIMIT @max_rows FOR UPDATE SKIP LOCKED
), fitting AS (
  SELECT l.org_id, l.id FROM (SELECT org_id, id, sum(payload_bytes) OVER (ORDER BY id) - payload_bytes AS before FROM locked) l
  WHERE l.before < @max_bytes::bigint
)
UPDATE outbox o SET batch_id = @batch_id::text FROM fitting f WHERE o.org_id = f.org_id AND o.id = f.id;

-- name: BatchRows :many
-- BatchRows reads a batch in the one order in which it is always sent.
SELECT id, org_id, project_id, session_id, payload, created_at FROM outbox WHERE batch_id = @batch_id::text ORDER BY id;

-- name: RejectRow :exec
UPDATE outbox SET batch_id = NULL, rejected = @reason::text WHERE org_id = @org_id AND id = @id;

-- name: DeleteBatchRows :execrows
DELETE FROM outbox WHERE batch_id = @batch_id::text;

-- name: DeleteBatch :exec
DELETE FROM outbox_batches WHERE id = @id;

-- name: ReleaseBatch :exec
-- ReleaseBatch lets a batch that could not be sent be tried again after a while, by whoever comes first.
UPDATE outbox_batches SET lease_until = now() + make_interval(secs => @wait_seconds::double precision) WHERE id = @id;

-- name: Backlog :one
-- Backlog is how much waits, counted up to @up_to rows so that it stays cheap in an outage, and for how long the oldest has.
SELECT
  (SELECT count(*) FROM (SELECT 1 FROM outbox w WHERE w.batch_id IS NULL AND w.rejected IS NULL LIMIT @up_to) waiting)::bigint AS waiting,
  (SELECT count(*) FROM outbox_batches)::bigint AS batches,
  greatest(0, extract(epoch FROM now() - least(
    (SELECT w.created_at FROM outbox w WHERE w.batch_id IS NULL AND w.rejected IS NULL ORDER BY w.id LIMIT 1),
    (SELECT min(b.created_at) FROM outbox_batches b)
  )))::double precision AS oldest_seconds;
