-- +goose Up

-- The challenges with which somebody signed in by a passkey. A challenge says itself, under a key, when it was made, so that asking for one
-- writes nothing; what is here was used, and is used no more.
CREATE TABLE used_sign_in_challenges (
  challenge  bytea PRIMARY KEY CHECK (octet_length(challenge) = 32),
  expires_at timestamptz NOT NULL
);
SELECT ambit_platform_table('used_sign_in_challenges', 'SELECT, INSERT', 'SELECT, DELETE', 'written before anybody is known; holds random bytes and times only');
-- Finds what the sweep deletes.
CREATE INDEX used_sign_in_challenges_by_expiry ON used_sign_in_challenges (expires_at);

SELECT ambit_definer_table('passkeys', 'SELECT', 'finds the person of a passkey that answers at sign-in');
CREATE FUNCTION ambit_find_passkey(credential bytea) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT user_id FROM passkeys WHERE credential_id = credential AND revoked_at IS NULL $$;
ALTER FUNCTION ambit_find_passkey(bytea) OWNER TO ambit_definer;
REVOKE ALL ON FUNCTION ambit_find_passkey(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ambit_find_passkey(bytea) TO ambit_app;

-- +goose Down
DROP FUNCTION ambit_find_passkey(bytea);
DROP TABLE used_sign_in_challenges;
