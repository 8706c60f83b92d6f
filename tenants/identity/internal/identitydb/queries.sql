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

-- The keys of agents, their sessions and organisations are tenants' rows: the organisation stands first in each query.

-- name: OpenAgentKey :one
-- The key that signs at this moment.
SELECT kid, public_jwk, sealed_private FROM agent_keys
WHERE org_id = @org_id AND subject = @subject AND sealed_private IS NOT NULL AND NOT compromised AND signs_from <= @now AND (signs_until IS NULL OR signs_until > @now)
ORDER BY signs_from DESC, kid LIMIT 1;

-- name: LockAgentKeys :exec
-- Of several processes, one at a time changes the keys of a subject.
SELECT pg_advisory_xact_lock(hashtextextended('ambit agent keys ' || @subject::text, 0));

-- name: InsertAgentKey :exec
INSERT INTO agent_keys (org_id, kid, agent_id, session_id, public_jwk, sealed_private, created_by, created_at, signs_from)
VALUES (@org_id, @kid, sqlc.narg(agent_id), sqlc.narg(session_id), @public_jwk, @sealed_private, @created_by, @created_at, @signs_from);

-- name: ListAgentKeys :many
SELECT kid, public_jwk, created_by, created_at, signs_from, signs_until, retires_at, compromised FROM agent_keys
WHERE org_id = @org_id AND subject = @subject ORDER BY signs_from DESC, kid LIMIT 100;

-- name: EndAgentKey :exec
UPDATE agent_keys SET signs_until = @signs_until, retires_at = @retires_at WHERE org_id = @org_id AND kid = @kid;

-- name: BeginAgentKey :exec
UPDATE agent_keys SET signs_from = @signs_from WHERE org_id = @org_id AND kid = @kid;

-- name: RetireAgentKey :exec
UPDATE agent_keys SET signs_until = least(signs_until, @now::timestamptz), retires_at = least(retires_at, @now::timestamptz), compromised = true, sealed_private = NULL
WHERE org_id = @org_id AND kid = @kid;

-- name: PublishedKeys :many
SELECT k::jsonb AS public_jwk FROM ambit_published_keys(@subject::text, @now::timestamptz) AS k;

-- name: DropAgentPrivateHalves :execrows
UPDATE agent_keys SET sealed_private = NULL WHERE sealed_private IS NOT NULL AND signs_until < @ended_before::timestamptz;

-- name: AgentKeysToReseal :many
-- By the first bytes of the sealed value, which name the master key.
SELECT kid, sealed_private FROM agent_keys WHERE sealed_private IS NOT NULL AND substr(sealed_private, 2, 4) <> @master_key::bytea ORDER BY kid LIMIT 200;

-- name: ResealAgentKey :exec
UPDATE agent_keys SET sealed_private = @sealed_private WHERE kid = @kid AND sealed_private IS NOT NULL;

-- Passkeys, challenges and codes belong to a person; their policies look at the person of the transaction.

-- name: ActAs :exec
SELECT set_config('app.user_id', @user_id::text, true);

-- name: ActForOrganization :exec
SELECT set_config('app.org_id', @org_id::text, true);

-- name: LockPerson :exec
-- What a person may lose or gain is decided one change at a time.
SELECT pg_advisory_xact_lock(hashtextextended('ambit passkeys of ' || @user_id::text, 0));

-- name: InsertPasskey :exec
INSERT INTO passkeys (id, user_id, credential_id, public_key, algorithm, sign_count, aaguid, transports, backed_up, name, created_at)
VALUES (@id, @user_id, @credential_id, @public_key, @algorithm, @sign_count, @aaguid, @transports, @backed_up, @name, @created_at);

-- name: ListPasskeys :many
SELECT p.*, (b.passkey_id IS NOT NULL)::boolean AS barred
FROM passkeys p LEFT JOIN passkey_bars b ON b.passkey_id = p.id AND b.org_id = @org_id
WHERE p.user_id = @user_id AND p.revoked_at IS NULL ORDER BY p.id;

-- name: CountPasskeys :one
SELECT count(*) FROM passkeys WHERE user_id = @user_id AND revoked_at IS NULL;

-- name: GetPasskeyByCredential :one
SELECT p.*, (b.passkey_id IS NOT NULL)::boolean AS barred
FROM passkeys p LEFT JOIN passkey_bars b ON b.passkey_id = p.id AND b.org_id = @org_id
WHERE p.user_id = @user_id AND p.credential_id = @credential_id;

-- name: UsePasskey :execrows
-- The count is compared again in the statement: of two answers made at once with one count, one is accepted.
UPDATE passkeys SET sign_count = @sign_count, backed_up = @backed_up, last_used_at = @now::timestamptz
WHERE id = @id AND user_id = @user_id AND revoked_at IS NULL AND (sign_count < @sign_count OR (sign_count = 0 AND @sign_count = 0));

-- name: RenamePasskey :execrows
UPDATE passkeys SET name = @name WHERE id = @id AND user_id = @user_id AND revoked_at IS NULL;

-- name: RevokePasskey :execrows
UPDATE passkeys SET revoked_at = @now::timestamptz WHERE id = @id AND user_id = @user_id AND revoked_at IS NULL;

-- name: BarPasskey :execrows
INSERT INTO passkey_bars (org_id, passkey_id, barred_by, barred_at, reason) VALUES (@org_id, @passkey_id, @barred_by, @barred_at, @reason) ON CONFLICT DO NOTHING;

-- name: InsertChallenge :execrows
-- Asking again for the same thing is the same challenge, as long as it was not confirmed.
INSERT INTO step_up_challenges (user_id, challenge, purpose, org_id, created_at, expires_at) VALUES (@user_id, @challenge, @purpose, @org_id, @created_at, @expires_at)
ON CONFLICT (user_id, challenge) DO UPDATE SET created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE step_up_challenges.used_at IS NULL AND step_up_challenges.purpose = excluded.purpose AND step_up_challenges.org_id = excluded.org_id;

-- name: GetChallenge :one
SELECT challenge, purpose, org_id, expires_at, used_at FROM step_up_challenges WHERE user_id = @user_id AND challenge = @challenge;

-- name: UseChallenge :execrows
UPDATE step_up_challenges SET used_at = @now::timestamptz
WHERE user_id = @user_id AND challenge = @challenge AND purpose = @purpose AND org_id = @org_id AND used_at IS NULL AND expires_at > @now::timestamptz;

-- name: SweepChallenges :execrows
DELETE FROM step_up_challenges WHERE used_at IS NULL AND expires_at < @expired_before;

-- name: InsertRecoveryCode :exec
INSERT INTO recovery_codes (user_id, digest, created_at) VALUES (@user_id, @digest, @created_at);

-- name: DeleteRecoveryCodes :exec
DELETE FROM recovery_codes WHERE user_id = @user_id;

-- name: CountRecoveryCodes :one
SELECT count(*) FILTER (WHERE used_at IS NULL) AS unused, count(*) AS total, max(created_at)::timestamptz AS created_at FROM recovery_codes WHERE user_id = @user_id HAVING count(*) > 0;

-- name: UseRecoveryCode :execrows
UPDATE recovery_codes SET used_at = @now::timestamptz WHERE user_id = @user_id AND digest = @digest AND used_at IS NULL;

-- name: FindPasskey :one
SELECT coalesce(ambit_find_passkey(@credential_id::bytea), '')::text AS user_id;

-- name: UseSignInChallenge :execrows
INSERT INTO used_sign_in_challenges (challenge, expires_at) VALUES (@challenge, @expires_at) ON CONFLICT DO NOTHING;

-- name: SweepSignInChallenges :execrows
DELETE FROM used_sign_in_challenges WHERE expires_at < @expired_before;
