-- +goose Up

-- What persons have signed that agents may spend. The row says what was signed; what is spent under it is counted by budgets of the scope
-- 'mandate', which a session under a mandate has for it and for each above it.
CREATE TABLE mandates (
  org_id        text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id            text COLLATE "C" NOT NULL,
  project_id    text COLLATE "C" NOT NULL,
  -- The mandate that this one narrows, and all above it and itself, the root first.
  parent_id     text COLLATE "C",
  path          text[] COLLATE "C" NOT NULL CHECK (cardinality(path) BETWEEN 1 AND 9),
  -- Who may spend under it.
  agent_id      text COLLATE "C" NOT NULL,
  state         text COLLATE "C" NOT NULL CHECK (state IN ('draft', 'active', 'revoked')),
  intent        text NOT NULL,
  grant_json    jsonb NOT NULL,
  from_at       timestamptz,
  until_at      timestamptz NOT NULL,
  -- What is shown and signed, in canonical JSON, and its SHA-256: the passkey's challenge.
  body          text NOT NULL,
  digest        bytea NOT NULL CHECK (length(digest) = 32),
  -- The agent's key that it confirms.
  key_id        text COLLATE "C" NOT NULL,
  -- The signed token, once it is; and what shows that a person signed the body.
  token         text,
  proof         jsonb,
  -- The person who signed the root, on whose behalf all below it is spent.
  user_id       text COLLATE "C",
  sessions_used bigint NOT NULL DEFAULT 0 CHECK (sessions_used >= 0),
  budgets       text[] COLLATE "C" NOT NULL DEFAULT '{}',
  version       bigint NOT NULL DEFAULT 1,
  created_by    jsonb NOT NULL,
  created_at    timestamptz NOT NULL,
  updated_at    timestamptz NOT NULL,
  signed_at     timestamptz,
  revoked_at    timestamptz,
  revoked_by    jsonb,
  revoke_reason text,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, parent_id) REFERENCES mandates (org_id, id),
  FOREIGN KEY (org_id, agent_id) REFERENCES agents (org_id, id),
  CONSTRAINT mandate_signed CHECK (state = 'draft' OR (token IS NOT NULL AND signed_at IS NOT NULL AND user_id IS NOT NULL))
);
SELECT ambit_tenant_table('mandates', 'SELECT, INSERT, UPDATE');
-- Lists those of a project, and those of an agent.
CREATE INDEX mandates_of_project ON mandates (org_id, project_id, id);
-- Finds all below one: what a revocation reaches.
CREATE INDEX mandates_by_path ON mandates USING gin (path);
-- Finds those that bind: what each process has in memory.
CREATE INDEX mandates_in_force ON mandates (org_id, until_at) WHERE state <> 'draft';

-- What was signed stays as it was signed, and what was revoked stays revoked.
-- +goose StatementBegin
CREATE FUNCTION mandate_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state = 'revoked' AND NEW.state <> 'revoked' THEN
    RAISE EXCEPTION 'mandate % was revoked, and stays so', OLD.id;
  END IF;
  IF OLD.state <> 'draft' AND (NEW.body, NEW.digest, NEW.token, NEW.proof, NEW.path, NEW.agent_id, NEW.grant_json, NEW.until_at, NEW.user_id, NEW.budgets)
      IS DISTINCT FROM (OLD.body, OLD.digest, OLD.token, OLD.proof, OLD.path, OLD.agent_id, OLD.grant_json, OLD.until_at, OLD.user_id, OLD.budgets) THEN
    RAISE EXCEPTION 'mandate % was signed, and stays as it was signed', OLD.id;
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER mandate_stays BEFORE UPDATE ON mandates FOR EACH ROW EXECUTE FUNCTION mandate_stays();

-- Above which amount a mandate is signed with a passkey, and who must run under one: '*', a project, an agent or an API key.
CREATE TABLE mandate_settings (
  org_id              text COLLATE "C" PRIMARY KEY REFERENCES organizations (id),
  passkey_above_nanos bigint NOT NULL CHECK (passkey_above_nanos >= 0),
  required_of         text[] COLLATE "C" NOT NULL DEFAULT '{}',
  version             bigint NOT NULL DEFAULT 1,
  updated_at          timestamptz NOT NULL
);
SELECT ambit_tenant_table('mandate_settings', 'SELECT, INSERT, UPDATE');

ALTER TABLE sessions ADD COLUMN mandate_id text COLLATE "C";
-- The sessions under a mandate: what its revocation stops, and what it has spent. A session's own writes leave it alone.
CREATE INDEX sessions_of_mandate ON sessions (org_id, mandate_id) WHERE mandate_id IS NOT NULL;

-- A budget that counts a mandate's money ends with it, by the database's clock and within the commit that would spend.
ALTER TABLE budgets ADD COLUMN from_at timestamptz, ADD COLUMN ends_at timestamptz;

-- As before, and a budget that has not begun or has ended has no room, whatever it blocks or what a ceiling holds of it already.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION budget_room(p_org text, p_scopes text[], p_amount bigint, p_counted budget_ref[], p_pending budget_ref[], p_pending_amounts bigint[],
  OUT refs budget_ref[], OUT short text, OUT short_name text, OUT available bigint) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  b record;
  ref budget_ref;
  room bigint;
  counted boolean;
BEGIN
  refs := '{}';
  FOR b IN SELECT x.id, x.name, x.limit_nanos, x.action, budget_period_start(x.period, o.time_zone, clock_timestamp()) AS starts,
                  (x.ends_at <= clock_timestamp() OR x.from_at > clock_timestamp()) IS TRUE AS over
           FROM budgets x JOIN organizations o ON o.id = x.org_id
           WHERE x.org_id = p_org AND x.scope = ANY (p_scopes) AND x.archived_at IS NULL ORDER BY x.id LOOP
    IF b.over THEN
      short := b.id;
      short_name := b.name;
      available := 0;
      RETURN;
    END IF;
    ref := ROW (b.id, b.starts)::budget_ref;
    counted := EXISTS (SELECT FROM unnest(p_counted) c WHERE c.budget = b.id);
    INSERT INTO budget_periods (org_id, budget_id, starts_at) VALUES (p_org, b.id, b.starts) ON CONFLICT DO NOTHING;
    SELECT b.limit_nanos - p.spent_nanos - p.held_nanos INTO room FROM budget_periods p
      WHERE p.org_id = p_org AND p.budget_id = b.id AND p.starts_at = b.starts FOR NO KEY UPDATE;
    room := room - coalesce((SELECT sum(w.amount) FROM unnest(p_pending, p_pending_amounts) w (budget, starts, amount) WHERE w.budget = b.id AND w.starts = b.starts), 0);
    IF b.action = 'block' AND room < (CASE WHEN counted THEN 0 ELSE p_amount END) THEN
      short := b.id;
      short_name := b.name;
      available := greatest(room, 0);
      RETURN;
    END IF;
    IF NOT counted THEN
      refs := refs || ref;
    END IF;
  END LOOP;
END $$;
-- +goose StatementEnd

-- A revocation stops what works under the mandate and under those below it: an order to stop, as for an agent or a key.
ALTER TABLE stops DROP CONSTRAINT stops_scope_type_check;
ALTER TABLE stops ADD CONSTRAINT stops_scope_type_check CHECK (scope_type IN ('agent', 'api_key', 'project', 'organization', 'mandate'));
DROP FUNCTION stop_over(text, text, text, text, text);
-- +goose StatementBegin
CREATE FUNCTION stop_over(p_org text, p_session text, p_project text, p_agent text, p_key text, p_mandate text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found_id text;
  project text := p_project;
  agent text := p_agent;
  mandate text := p_mandate;
  made_by text := '';
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('ambit/stop/' || p_org, 0));
  IF p_session <> '' THEN
    SELECT s.project_id, s.agent_id, coalesce(s.principal ->> 'id', ''), coalesce(s.mandate_id, '') INTO project, agent, made_by, mandate
      FROM sessions s WHERE s.org_id = p_org AND s.id = p_session;
  END IF;
  SELECT o.id INTO found_id FROM stops o
    WHERE o.org_id = p_org AND o.fenced_at IS NULL AND (
      o.scope_type = 'organization' OR (o.scope_type = 'project' AND o.scope_id = project) OR (o.scope_type = 'agent' AND o.scope_id = agent AND agent <> '')
      OR (o.scope_type = 'api_key' AND o.scope_id IN (p_key, made_by))
      OR (o.scope_type = 'mandate' AND mandate <> '' AND o.scope_id IN (SELECT unnest(m.path) FROM mandates m WHERE m.org_id = p_org AND m.id = mandate)))
    LIMIT 1;
  RETURN found_id;
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'this migration is not undone: restore a backup that was taken before it'; END $$;
-- +goose StatementEnd
