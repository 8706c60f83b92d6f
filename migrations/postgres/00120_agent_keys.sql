-- +goose Up

-- Keys that an agent, a session of an agent without a definition of its own, or the organisation signs with: ES256. A key is never changed
-- but in when it retires; its private half is sealed under the master key, and gone once the key signs no more.
CREATE TABLE agent_keys (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  -- The thumbprint of RFC 7638, so that it follows from the key.
  kid            text COLLATE "C" NOT NULL,
  -- Whose key it is: at most one of the two; neither is the organisation's own.
  agent_id       text COLLATE "C",
  session_id     text COLLATE "C",
  -- The same as one word: the references keep one tenant from making a key in the name of another's agent.
  subject        text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(agent_id, session_id, org_id)) STORED,
  public_jwk     jsonb NOT NULL,
  sealed_private bytea,
  created_by     text NOT NULL,
  created_at     timestamptz NOT NULL,
  -- A key that follows another is published before it signs.
  signs_from     timestamptz NOT NULL,
  -- Until when it signs: null while no successor is set.
  signs_until    timestamptz,
  -- When it leaves the published set: later than signs_until by the overlap, or at once when it became known to somebody.
  retires_at     timestamptz,
  compromised    boolean NOT NULL DEFAULT false,
  PRIMARY KEY (org_id, kid),
  UNIQUE (kid),
  CHECK (agent_id IS NULL OR session_id IS NULL),
  CHECK ((signs_until IS NULL) = (retires_at IS NULL)),
  FOREIGN KEY (org_id, agent_id) REFERENCES agents (org_id, id),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id) ON DELETE CASCADE
);
SELECT ambit_tenant_table('agent_keys', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('agent_keys', 'SELECT, UPDATE (sealed_private)', 'private halves that sign no more are destroyed, and others sealed anew under a new master key');
SELECT ambit_definer_table('agent_keys', 'SELECT', 'publishes public keys, by the id of whose they are, to whoever checks a signature');
-- At most one key of a subject has no end: of two processes that make the first one, one does.
CREATE UNIQUE INDEX agent_keys_one_open ON agent_keys (subject) WHERE retires_at IS NULL;
-- Lists a subject's keys, the newest first.
CREATE INDEX agent_keys_by_subject ON agent_keys (subject, signs_from DESC);
-- Finds the private halves that can be destroyed.
CREATE INDEX agent_keys_private ON agent_keys (signs_until) WHERE sealed_private IS NOT NULL;

-- The public halves of a subject's keys that are not retired. It takes an id that one must have been given, and tells keys, nothing more.
CREATE FUNCTION ambit_published_keys(of_subject text, at timestamptz) RETURNS SETOF jsonb
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT public_jwk FROM agent_keys WHERE subject = of_subject AND (retires_at IS NULL OR retires_at > at) ORDER BY signs_from DESC, kid LIMIT 50 $$;
ALTER FUNCTION ambit_published_keys(text, timestamptz) OWNER TO ambit_definer;
REVOKE ALL ON FUNCTION ambit_published_keys(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ambit_published_keys(text, timestamptz) TO ambit_app;

-- +goose Down
DROP FUNCTION ambit_published_keys(text, timestamptz);
DROP TABLE agent_keys;
