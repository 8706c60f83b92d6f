-- +goose Up

-- An offer to somebody, by e-mail address, to become a member. Whether the address has an account is nobody's business but its owner's: a row
-- names the address and no person, until somebody has accepted.
CREATE TABLE invitations (
  org_id       text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id           text COLLATE "C" NOT NULL,
  email        citext NOT NULL CHECK (length(email::text) BETWEEN 3 AND 254),
  role         text NOT NULL,
  -- No foreign key: what has ended must not keep a role from being deleted. What is open does, by a count under the members' lock.
  role_id      text COLLATE "C",
  token_sha256 bytea NOT NULL CONSTRAINT invitations_token UNIQUE CHECK (octet_length(token_sha256) = 32),
  -- Whether the link of this token went to the mailbox and to nobody else: only then does its use prove the address.
  mailed       boolean NOT NULL,
  -- Who invited, or sent the link again last, and answers for the role.
  by_kind      text NOT NULL CHECK (by_kind IN ('user', 'api_key', 'system')),
  by_id        text COLLATE "C" NOT NULL,
  created_at   timestamptz NOT NULL,
  sent_at      timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  accepted_at  timestamptz,
  accepted_by  text COLLATE "C",
  revoked_at   timestamptz,
  PRIMARY KEY (org_id, id),
  CONSTRAINT invitations_role_check CHECK (
    (role IN ('owner', 'admin', 'billing', 'developer', 'viewer') AND role_id IS NULL) OR (role = 'custom' AND role_id IS NOT NULL)),
  CONSTRAINT invitations_end_check CHECK (accepted_at IS NULL OR revoked_at IS NULL)
);
SELECT ambit_tenant_table('invitations', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('invitations', 'SELECT (org_id, id, expires_at), DELETE', 'the sweep deletes what ended a month ago');
SELECT ambit_definer_table('invitations', 'SELECT', 'finds the organisation of an invitation''s link');
-- An address has one open invitation to an organisation.
CREATE UNIQUE INDEX invitations_address_is_invited ON invitations (org_id, email) WHERE accepted_at IS NULL AND revoked_at IS NULL;
-- Finds what the sweep deletes.
CREATE INDEX invitations_by_expiry ON invitations (expires_at);

CREATE FUNCTION ambit_find_invitation(digest bytea) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT org_id FROM invitations WHERE token_sha256 = digest $$;
ALTER FUNCTION ambit_find_invitation(bytea) OWNER TO ambit_definer;
REVOKE ALL ON FUNCTION ambit_find_invitation(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ambit_find_invitation(bytea) TO ambit_app;

-- +goose Down
DROP FUNCTION ambit_find_invitation(bytea);
DROP TABLE invitations;
