-- +goose Up

-- Who there is: organisations, their projects, members and API keys, which belong to a tenant; people, their passwords, sign-ins and
-- one-time links, which do not, as a person may be in several organisations or in none.

-- ambit_user is the person for whom the transaction acts. Rows about a person are seen by that person's transactions alone.
CREATE FUNCTION ambit_user() RETURNS text
  LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT nullif(current_setting('app.user_id', true), '') $$;

CREATE TABLE organizations (
  id         text COLLATE "C" PRIMARY KEY,
  name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  slug       text COLLATE "C" NOT NULL CONSTRAINT organizations_slug_is_taken UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  version    bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
SELECT ambit_tenant_table('organizations', 'SELECT, INSERT, UPDATE', 'id');

CREATE TABLE users (
  id                text COLLATE "C" PRIMARY KEY,
  email             citext NOT NULL CONSTRAINT users_email_is_taken UNIQUE CHECK (length(email::text) BETWEEN 3 AND 254),
  name              text NOT NULL CHECK (length(name) <= 100),
  -- Set when a link that was mailed to the address came back, and by nothing else.
  email_verified_at timestamptz,
  -- Whether this account may sign in only once its address is verified: so it is when mail could be sent at its sign-up, until an
  -- operator vouches for it.
  must_verify       boolean NOT NULL,
  created_at        timestamptz NOT NULL
);
SELECT ambit_platform_table('users', 'SELECT, INSERT, UPDATE', '', 'a person may be a member of several organisations; row policies show it to that person and to fellow members');
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE TABLE passwords (
  user_id    text COLLATE "C" PRIMARY KEY REFERENCES users ON DELETE CASCADE,
  -- argon2id in its own text form, with its parameters and salt.
  hash       text NOT NULL,
  changed_at timestamptz NOT NULL
);
SELECT ambit_platform_table('passwords', 'SELECT, INSERT, UPDATE', '', 'belongs to a person; a row policy shows it to that person''s transactions alone');
ALTER TABLE passwords ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON passwords TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());

CREATE TABLE projects (
  org_id      text COLLATE "C" NOT NULL REFERENCES organizations,
  id          text COLLATE "C" NOT NULL,
  name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  slug        text COLLATE "C" NOT NULL CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (org_id, id),
  CONSTRAINT projects_slug_is_taken UNIQUE (org_id, slug)
);
SELECT ambit_tenant_table('projects', 'SELECT, INSERT, UPDATE');

CREATE TABLE members (
  org_id     text COLLATE "C" NOT NULL REFERENCES organizations,
  id         text COLLATE "C" NOT NULL,
  user_id    text COLLATE "C" NOT NULL REFERENCES users,
  role       text NOT NULL CHECK (role IN ('owner', 'admin', 'billing', 'developer', 'viewer')),
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  CONSTRAINT members_user_is_member UNIQUE (org_id, user_id)
);
SELECT ambit_tenant_table('members');
-- Finds the organisations of a person who signs in.
CREATE INDEX members_by_user ON members (user_id);

CREATE POLICY self ON users TO ambit_app USING (id = ambit_user()) WITH CHECK (id = ambit_user());
-- members is itself under its tenant's policy, so this shows fellow members of the transaction's organisation.
CREATE POLICY fellow_member ON users FOR SELECT TO ambit_app USING (EXISTS (SELECT FROM members m WHERE m.user_id = users.id));

CREATE TABLE sign_ins (
  id           text COLLATE "C" PRIMARY KEY,
  user_id      text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
  token_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
  created_at   timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  address      text NOT NULL,
  user_agent   text NOT NULL CHECK (length(user_agent) <= 400),
  revoked_at   timestamptz
);
SELECT ambit_platform_table('sign_ins', 'SELECT, INSERT, UPDATE', '', 'belongs to a person; a row policy shows it to that person''s transactions alone');
ALTER TABLE sign_ins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON sign_ins TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());
SELECT ambit_worker_table('sign_ins', 'SELECT, DELETE', 'the sweep deletes what ended a month ago');
-- Lists a person's sign-ins.
CREATE INDEX sign_ins_by_user ON sign_ins (user_id, id);
-- Finds what the sweep deletes.
CREATE INDEX sign_ins_by_expiry ON sign_ins (expires_at);

CREATE TABLE mail_tokens (
  token_sha256 bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
  user_id      text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
  purpose      text NOT NULL CHECK (purpose IN ('verify', 'reset', 'operator_reset')),
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  used_at      timestamptz
);
SELECT ambit_platform_table('mail_tokens', 'SELECT, INSERT, UPDATE', '', 'belongs to a person; a row policy shows it to that person''s transactions alone');
ALTER TABLE mail_tokens ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON mail_tokens TO ambit_app USING (user_id = ambit_user()) WITH CHECK (user_id = ambit_user());
SELECT ambit_worker_table('mail_tokens', 'SELECT, DELETE', 'the sweep deletes what expired');
-- Voids the other links of a person.
CREATE INDEX mail_tokens_by_user ON mail_tokens (user_id, purpose) WHERE used_at IS NULL;
-- Finds what the sweep deletes.
CREATE INDEX mail_tokens_by_expiry ON mail_tokens (expires_at);

-- How often a guarded thing was tried: by whom is a digest, so that this table tells nobody's address.
CREATE TABLE throttles (
  subject       bytea PRIMARY KEY CHECK (octet_length(subject) = 32),
  attempts      integer NOT NULL CHECK (attempts >= 0),
  last_at       timestamptz NOT NULL,
  blocked_until timestamptz NOT NULL
);
SELECT ambit_platform_table('throttles', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT, DELETE', 'counts attempts made before anybody is known; holds digests and times only');
-- Finds what the sweep deletes.
CREATE INDEX throttles_by_age ON throttles (last_at);

-- Until when a subject is refused after one more attempt: not at all for the free ones, then twice as long each time, up to a bound. It is
-- never for ever.
CREATE FUNCTION ambit_blocked_until(attempts_before integer, last_at timestamptz, now timestamptz, forget_before timestamptz,
                                    free_attempts integer, first_seconds double precision, max_seconds double precision) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT CASE
    -- Not "now": of two attempts at once, the one with the earlier clock would find itself blocked.
    WHEN last_at < forget_before OR attempts_before + 1 < free_attempts THEN timestamptz 'epoch'
    ELSE now + interval '1 second' * least(max_seconds, first_seconds * power(2, least(attempts_before + 1 - free_attempts, 30))) END $$;

CREATE TABLE api_keys (
  org_id        text COLLATE "C" NOT NULL REFERENCES organizations,
  id            text COLLATE "C" NOT NULL,
  -- Null for a key of the whole organisation.
  project_id    text COLLATE "C",
  name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  -- The first characters of the secret, to recognise it by.
  prefix        text NOT NULL,
  secret_sha256 bytea NOT NULL CONSTRAINT api_keys_secret UNIQUE CHECK (octet_length(secret_sha256) = 32),
  scopes        text[] NOT NULL CHECK (cardinality(scopes) BETWEEN 1 AND 64),
  -- The API version that requests with this key speak unless they say otherwise.
  api_version   date NOT NULL,
  created_by    text COLLATE "C" NOT NULL,
  version       bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL,
  expires_at    timestamptz,
  last_used_at  timestamptz,
  revoked_at    timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, project_id) REFERENCES projects
);
SELECT ambit_tenant_table('api_keys', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('api_keys', 'SELECT (org_id, id, last_used_at), UPDATE (last_used_at)', 'last use is written in batches for all organisations');
-- Lists a project's keys, newest first.
CREATE INDEX api_keys_by_project ON api_keys (org_id, project_id, id);

-- The instance's own keys. The private half is sealed under the master key, and gone once the key no longer signs.
CREATE TABLE signing_keys (
  id             text COLLATE "C" PRIMARY KEY,
  public_jwk     jsonb NOT NULL,
  sealed_private bytea,
  created_at     timestamptz NOT NULL,
  signs_from     timestamptz NOT NULL,
  -- Null while no successor is set.
  signs_until    timestamptz CHECK (signs_until > signs_from),
  -- Set when the key must not be trusted any more; it then leaves the published set at once.
  revoked_at     timestamptz
);
SELECT ambit_platform_table('signing_keys', '', 'SELECT, INSERT, UPDATE', 'belongs to the instance');
-- At most one key without an end: of two replicas that start at once, one makes the first key.
CREATE UNIQUE INDEX signing_keys_one_open ON signing_keys ((true)) WHERE signs_until IS NULL AND revoked_at IS NULL;

-- Mail that waits to be sent. Written in the transaction that it tells of, so it is sent if and only if that was committed.
CREATE TABLE outgoing_mail (
  id            text COLLATE "C" PRIMARY KEY,
  kind          text NOT NULL,
  recipient     text NOT NULL,
  -- Subject and text hold one-time links: sealed under the master key, and removed once sent or given up.
  sealed        bytea,
  created_at    timestamptz NOT NULL,
  due_at        timestamptz NOT NULL,
  attempts      integer NOT NULL DEFAULT 0,
  claimed_until timestamptz,
  sent_at       timestamptz,
  failed_at     timestamptz,
  last_error    text
);
SELECT ambit_platform_table('outgoing_mail', 'INSERT', 'SELECT, UPDATE, DELETE', 'mail of sign-up and reset goes to people, before any organisation is known');
-- Finds the mail that is due.
CREATE INDEX outgoing_mail_due ON outgoing_mail (due_at) WHERE sent_at IS NULL AND failed_at IS NULL;

-- Look-ups before anybody is known. Each takes a secret or an address and gives one id, nothing more; all else is then read under the
-- policies of that organisation or person.
SELECT ambit_definer_table('users', 'SELECT', 'finds the id of a person by e-mail address at sign-in and sign-up');
SELECT ambit_definer_table('sign_ins', 'SELECT', 'finds the person of a sign-in token');
SELECT ambit_definer_table('mail_tokens', 'SELECT', 'finds the person of a mailed link');
SELECT ambit_definer_table('api_keys', 'SELECT', 'finds the organisation of an API key');
SELECT ambit_definer_table('members', 'SELECT', 'lists the organisations of the signed-in person');
SELECT ambit_definer_table('organizations', 'SELECT', 'lists the organisations of the signed-in person');

CREATE FUNCTION ambit_find_user(address text) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT id FROM users WHERE email = address::citext $$;

CREATE FUNCTION ambit_find_sign_in(digest bytea) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT user_id FROM sign_ins WHERE token_sha256 = digest $$;

CREATE FUNCTION ambit_find_mail_token(digest bytea) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT user_id FROM mail_tokens WHERE token_sha256 = digest $$;

CREATE FUNCTION ambit_find_key(digest bytea) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT org_id FROM api_keys WHERE secret_sha256 = digest $$;

-- The signed-in person's organisations, across tenants. A view runs with its owner's rights, and the barrier keeps a caller's own
-- functions from seeing rows before the condition has.
CREATE VIEW my_memberships WITH (security_barrier) AS
  SELECT m.id, m.org_id, m.user_id, m.role, m.created_at, o.name AS org_name, o.slug AS org_slug
  FROM members m JOIN organizations o ON o.id = m.org_id
  WHERE m.user_id = ambit_user();

-- +goose StatementBegin
DO $$
DECLARE f text;
BEGIN
  FOREACH f IN ARRAY ARRAY['ambit_find_user(text)', 'ambit_find_sign_in(bytea)', 'ambit_find_mail_token(bytea)', 'ambit_find_key(bytea)'] LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO ambit_definer', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ambit_app', f);
  END LOOP;
  EXECUTE 'ALTER VIEW my_memberships OWNER TO ambit_definer';
  EXECUTE 'GRANT SELECT ON my_memberships TO ambit_app';
END $$;
-- +goose StatementEnd

-- +goose Down
DROP VIEW my_memberships;
DROP FUNCTION ambit_find_key(bytea);
DROP FUNCTION ambit_find_mail_token(bytea);
DROP FUNCTION ambit_find_sign_in(bytea);
DROP FUNCTION ambit_find_user(text);
DROP TABLE outgoing_mail, signing_keys, api_keys, throttles, mail_tokens, sign_ins, members, projects, passwords, users, organizations CASCADE;
DROP FUNCTION ambit_blocked_until(integer, timestamptz, timestamptz, timestamptz, integer, double precision, double precision);
DROP FUNCTION ambit_user();
