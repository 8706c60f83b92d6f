-- The signing keys belong to the instance: they are read and written as the worker.

-- name: ListSigningKeys :many
SELECT id, public_jwk, sealed_private, created_at, signs_from, signs_until, revoked_at FROM signing_keys ORDER BY signs_from DESC, id DESC;

-- name: LockSigningKeys :exec
SELECT pg_advisory_xact_lock(hashtext('ambit signing keys'));

-- name: InsertSigningKey :exec
INSERT INTO signing_keys (id, public_jwk, sealed_private, created_at, signs_from) VALUES (@id, @public_jwk, @sealed_private, @created_at, @signs_from);

-- name: EndSigningKey :exec
UPDATE signing_keys SET signs_until = @signs_until WHERE id = @id;

-- name: BeginSigningKey :exec
UPDATE signing_keys SET signs_from = @signs_from WHERE id = @id;

-- name: ResealSigningKey :exec
UPDATE signing_keys SET sealed_private = @sealed_private WHERE id = @id;

-- name: DropPrivateHalves :execrows
UPDATE signing_keys SET sealed_private = NULL WHERE sealed_private IS NOT NULL AND signs_until < @ended_before::timestamptz;

-- name: RevokeSigningKey :execrows
UPDATE signing_keys SET revoked_at = coalesce(revoked_at, @now::timestamptz), sealed_private = NULL WHERE id = @id;
