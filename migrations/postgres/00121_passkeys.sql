-- +goose Up

-- Passkeys of people (WebAuthn credentials).
CREATE TABLE passkeys (
  id            text COLLATE "C" PRIMARY KEY,
  user_id       text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
  -- What the authenticator calls it. One credential belongs to one person.
  credential_id bytea NOT NULL CONSTRAINT passkeys_credential UNIQUE CHECK (octet_length(credential_id) BETWEEN 1 AND 1023),
  -- In COSE form, as the authenticator gave it.
  public_key    bytea NOT NULL CHECK (octet_length(public_key) <= 4096),
  algorithm     integer NOT NULL,
  -- The authenticator's own count of signatures; 0 for ever where it keeps none. It never goes back.
  sign_count    bigint NOT NULL CHECK (sign_count >= 0),
  aaguid        bytea NOT NULL CHECK (octet_length(aaguid) = 16),
  transports    text[] NOT NULL DEFAULT '{}',
  backed_up     boolean NOT NULL,
  name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  created_at    timestamptz NOT NULL,
  last_used_at  timestamptz,
  revoked_at    timestamptz
);
SELECT ambit_platform_table('passkeys', 'SELECT, INSERT, UPDATE', '', 'belongs to a person; row policies show it to that person and to fellow members');
ALTER TABLE passkeys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON passkeys TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());
-- An organisation sees whether its members have passkeys, and changes none of them.
CREATE POLICY fellow_member ON passkeys FOR SELECT TO ambit_app USING (EXISTS (SELECT FROM members m WHERE m.user_id = passkeys.user_id));
-- Lists a person's passkeys.
CREATE INDEX passkeys_by_user ON passkeys (user_id, id);

-- A passkey that an organisation does not accept any more. The passkey is the person's own and works elsewhere: an organisation has no say there.
CREATE TABLE passkey_bars (
  org_id     text COLLATE "C" NOT NULL REFERENCES organizations (id),
  passkey_id text COLLATE "C" NOT NULL REFERENCES passkeys (id) ON DELETE CASCADE,
  barred_by  text COLLATE "C" NOT NULL,
  barred_at  timestamptz NOT NULL,
  reason     text NOT NULL DEFAULT '' CHECK (length(reason) <= 500),
  PRIMARY KEY (org_id, passkey_id)
);
SELECT ambit_tenant_table('passkey_bars', 'SELECT, INSERT');

-- What a person was asked to confirm. The challenge is 32 bytes: random, or the digest of what is confirmed.
CREATE TABLE step_up_challenges (
  user_id    text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
  challenge  bytea NOT NULL CHECK (octet_length(challenge) = 32),
  purpose    text NOT NULL CHECK (length(purpose) BETWEEN 1 AND 200),
  -- The organisation for which it is confirmed; empty where it is the person's own affair.
  org_id     text COLLATE "C" NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at    timestamptz,
  -- Used ones stay: a digest that was confirmed once is never asked for again, so an old answer is good for nothing.
  PRIMARY KEY (user_id, challenge)
);
SELECT ambit_platform_table('step_up_challenges', 'SELECT, INSERT, UPDATE', '', 'belongs to a person; a row policy shows it to that person''s transactions alone');
ALTER TABLE step_up_challenges ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON step_up_challenges TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());
SELECT ambit_worker_table('step_up_challenges', 'SELECT, DELETE', 'the sweep deletes what was asked and never answered');
-- Finds what the sweep deletes.
CREATE INDEX step_up_challenges_unused ON step_up_challenges (expires_at) WHERE used_at IS NULL;

-- Codes for whoever lost a passkey, as keyed digests: what is here opens nothing.
CREATE TABLE recovery_codes (
  user_id    text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
  digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
  created_at timestamptz NOT NULL,
  used_at    timestamptz,
  PRIMARY KEY (user_id, digest)
);
SELECT ambit_platform_table('recovery_codes', 'SELECT, INSERT, UPDATE, DELETE', '', 'belongs to a person; a row policy shows it to that person''s transactions alone');
ALTER TABLE recovery_codes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON recovery_codes TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());

-- +goose Down
DROP TABLE recovery_codes, step_up_challenges, passkey_bars, passkeys CASCADE;
