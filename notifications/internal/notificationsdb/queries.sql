-- name: InsertMail :exec
INSERT INTO outgoing_mail (id, kind, recipient, sealed, created_at, due_at) VALUES (@id, @kind, @recipient, @sealed, @created_at, @created_at);

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
