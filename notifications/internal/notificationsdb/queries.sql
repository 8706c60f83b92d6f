-- A second mail of one name is left out. No conflict target is named: naming one would need the right to read the queue.
-- name: InsertMail :exec
INSERT INTO outgoing_mail (id, kind, recipient, sealed, created_at, due_at, once_key)
VALUES (@id, @kind, @recipient, @sealed, @created_at, @created_at, sqlc.narg('once_key'))
ON CONFLICT DO NOTHING;

-- A claim has an end, so that mail claimed by a process that died is taken up again.
-- name: ClaimMail :many
UPDATE outgoing_mail m SET claimed_until = @claimed_until::timestamptz, attempts = attempts + 1
FROM (SELECT c.id FROM outgoing_mail c
      WHERE c.sent_at IS NULL AND c.failed_at IS NULL AND c.due_at <= @now::timestamptz AND (c.claimed_until IS NULL OR c.claimed_until <= @now::timestamptz)
      ORDER BY c.due_at LIMIT @max_rows FOR UPDATE SKIP LOCKED) due
WHERE m.id = due.id
RETURNING m.id, m.kind, m.recipient, m.sealed, m.created_at, m.attempts;

-- name: MarkSent :exec
UPDATE outgoing_mail SET sent_at = @now::timestamptz, sealed = NULL, claimed_until = NULL, last_error = NULL WHERE id = @id;

-- name: MarkForRetry :exec
UPDATE outgoing_mail SET due_at = @due_at, claimed_until = NULL, last_error = @last_error WHERE id = @id;

-- name: MarkFailed :exec
UPDATE outgoing_mail SET failed_at = @now::timestamptz, sealed = NULL, claimed_until = NULL, last_error = @last_error WHERE id = @id;

-- name: DeleteOldMail :execrows
DELETE FROM outgoing_mail WHERE created_at < @older_than AND (sent_at IS NOT NULL OR failed_at IS NOT NULL);

-- name: InsertWebhook :one
INSERT INTO webhooks (org_id, id, project_id, url, description, event_types, status, sealed_secret, created_by, created_at, updated_at)
VALUES (@org_id, @id, @project_id, @url, @description, @event_types, 'active', @sealed_secret, @created_by, @created_at, @created_at)
RETURNING *;

-- name: GetWebhook :one
SELECT * FROM webhooks WHERE org_id = @org_id AND id = @id;

-- name: LockWebhook :one
SELECT * FROM webhooks WHERE org_id = @org_id AND id = @id FOR UPDATE;

-- name: CountWebhooks :one
SELECT count(*) FROM webhooks WHERE org_id = @org_id;

-- name: ListWebhooks :many
SELECT * FROM webhooks
WHERE org_id = @org_id AND (sqlc.narg('project_id')::text IS NULL OR project_id = sqlc.narg('project_id')) AND (@before::text = '' OR id < @before::text)
ORDER BY id DESC LIMIT @max_rows;

-- name: UpdateWebhook :one
UPDATE webhooks SET url = @url, description = @description, event_types = @event_types, status = @status, disabled_reason = @disabled_reason,
  failing_since = @failing_since, sealed_secret = @sealed_secret, sealed_previous = @sealed_previous, previous_until = @previous_until,
  version = version + 1, updated_at = @now
WHERE org_id = @org_id AND id = @id
RETURNING *;

-- name: DeleteWebhook :execrows
DELETE FROM webhooks WHERE org_id = @org_id AND id = @id;

-- What waits for an endpoint that is disabled is not sent later, when nobody expects it any more.
-- name: CancelDeliveries :exec
UPDATE webhook_deliveries SET status = 'cancelled', ended_at = @now::timestamptz, claimed_until = NULL
WHERE org_id = @org_id AND webhook_id = @webhook_id AND status = 'pending';

-- An organisation that nobody listens to keeps no events.
-- name: InsertWebhookEvent :exec
INSERT INTO webhook_events (org_id, id, type, project_id, data, created_at)
SELECT @org_id, @id, @type, sqlc.narg('project_id'), @data::json, now()
WHERE EXISTS (SELECT FROM webhooks w WHERE w.org_id = @org_id AND w.status = 'active');

-- One event for one endpoint, which nobody else is to hear of.
-- name: InsertSoleEvent :exec
INSERT INTO webhook_events (org_id, id, type, project_id, data, created_at, fanned_at) VALUES (@org_id, @id, @type, sqlc.narg('project_id'), @data::json, @now, @now);

-- name: InsertDelivery :one
INSERT INTO webhook_deliveries (org_id, id, webhook_id, event_id, status, due_at, created_at)
VALUES (@org_id, @id, @webhook_id, @event_id, 'pending', @now::timestamptz, @now::timestamptz)
RETURNING *;

-- name: GetDelivery :one
SELECT d.*, e.type AS event_type, e.data, e.created_at AS event_created_at
FROM webhook_deliveries d JOIN webhook_events e ON e.org_id = d.org_id AND e.id = d.event_id
WHERE d.org_id = @org_id AND d.webhook_id = @webhook_id AND d.id = @id;

-- name: ListDeliveries :many
SELECT d.*, e.type AS event_type, e.data, e.created_at AS event_created_at
FROM webhook_deliveries d JOIN webhook_events e ON e.org_id = d.org_id AND e.id = d.event_id
WHERE d.org_id = @org_id AND d.webhook_id = @webhook_id AND (@before::text = '' OR d.id < @before::text)
  AND (cardinality(@statuses::text[]) = 0 OR d.status = ANY (@statuses::text[]))
ORDER BY d.id DESC LIMIT @max_rows;

-- name: ListAttempts :many
SELECT * FROM webhook_attempts WHERE org_id = @org_id AND delivery_id = ANY (@delivery_ids::text[]) ORDER BY delivery_id, number;

-- name: ClaimEvents :many
SELECT org_id, id, type, project_id, created_at FROM webhook_events WHERE fanned_at IS NULL ORDER BY created_at LIMIT @max_rows FOR UPDATE SKIP LOCKED;

-- Who is to hear of an event: by its type, by its project, and not one that was made after it.
-- name: Listeners :many
SELECT id FROM webhooks
WHERE org_id = @org_id AND status = 'active' AND (@type::text = ANY (event_types) OR '*' = ANY (event_types))
  AND (project_id IS NULL OR project_id = sqlc.narg('project_id')) AND created_at <= @created_at
ORDER BY id;

-- name: MarkFanned :exec
UPDATE webhook_events SET fanned_at = @now::timestamptz WHERE org_id = @org_id AND id = @id;

-- The claim of what is due, from endpoints that fail or from those that do not: the two have places of their own, so that those that hang
-- can't keep the others waiting. No endpoint has more than its share under way, however much waits for it. The outer condition is asked
-- again once the row is locked, so that of two dispatchers one gets it.
-- name: ClaimDeliveries :many
WITH under_way AS (
  SELECT org_id, webhook_id, count(*) AS n FROM webhook_deliveries
  WHERE status = 'pending' AND claimed_until > @now::timestamptz GROUP BY org_id, webhook_id
), due AS (
  SELECT d.org_id, d.id, d.due_at, row_number() OVER (PARTITION BY d.org_id, d.webhook_id ORDER BY d.due_at, d.id) + coalesce(u.n, 0) AS place
  FROM webhook_deliveries d
  JOIN webhooks w ON w.org_id = d.org_id AND w.id = d.webhook_id
  LEFT JOIN under_way u ON u.org_id = d.org_id AND u.webhook_id = d.webhook_id
  WHERE d.status = 'pending' AND d.due_at <= @now::timestamptz AND (d.claimed_until IS NULL OR d.claimed_until <= @now::timestamptz)
    AND (w.failing_since IS NOT NULL) = @failing::boolean
), chosen AS (
  SELECT org_id, id FROM due WHERE place <= @share::int ORDER BY due_at LIMIT @max_rows
)
UPDATE webhook_deliveries d SET claimed_until = @claimed_until::timestamptz, attempts = attempts + 1
FROM chosen c, webhooks w, webhook_events e
WHERE d.org_id = c.org_id AND d.id = c.id AND d.status = 'pending' AND (d.claimed_until IS NULL OR d.claimed_until <= @now::timestamptz)
  AND w.org_id = d.org_id AND w.id = d.webhook_id AND e.org_id = d.org_id AND e.id = d.event_id
RETURNING d.org_id, d.id, d.webhook_id, d.event_id, d.attempts, d.created_at, w.url, w.sealed_secret, w.sealed_previous, w.previous_until,
  w.failing_since, e.type AS event_type, e.data, e.created_at AS event_created_at;

-- name: DropEvent :exec
DELETE FROM webhook_events WHERE org_id = @org_id AND id = @id;

-- name: InsertAttempt :exec
INSERT INTO webhook_attempts (org_id, delivery_id, number, started_at, duration_ms, status, error, response)
VALUES (@org_id, @delivery_id, @number, @started_at, @duration_ms, @status, @error, @response)
ON CONFLICT DO NOTHING;

-- Notes how a try ended. One that was cancelled meanwhile stays so.
-- name: EndAttempt :execrows
UPDATE webhook_deliveries SET status = @status, due_at = @due_at::timestamptz, claimed_until = NULL, ended_at = sqlc.narg('ended_at')
WHERE org_id = @org_id AND id = @id AND status = 'pending' AND attempts = @attempts;

-- name: NoteSuccess :exec
UPDATE webhooks SET failing_since = NULL WHERE org_id = @org_id AND id = @id AND failing_since IS NOT NULL;

-- name: NoteFailure :one
UPDATE webhooks SET failing_since = coalesce(failing_since, @now::timestamptz) WHERE org_id = @org_id AND id = @id RETURNING failing_since::timestamptz;

-- name: DeleteOldEvents :execrows
DELETE FROM webhook_events WHERE (org_id, id) IN (SELECT o.org_id, o.id FROM webhook_events o WHERE o.created_at < @older_than AND o.fanned_at IS NOT NULL LIMIT @max_rows);
