-- +goose Up

-- An order to stop all that works in a scope. It is recorded first; then the sessions are stopped, tree by tree, and each one's receipt
-- names the order. Until it is fenced nothing of the scope begins to work: whatever would give a session work asks stop_over() first.
CREATE TABLE stops (
  org_id        text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id            text COLLATE "C" NOT NULL,
  scope_type    text NOT NULL CHECK (scope_type IN ('agent', 'api_key', 'project', 'organization')),
  scope_id      text COLLATE "C" NOT NULL,
  -- The project that the scope lies in; empty when it is of the whole organisation.
  project_id    text COLLATE "C" NOT NULL DEFAULT '',
  include_idle  boolean NOT NULL,
  requested_by  jsonb NOT NULL,
  reason        text NOT NULL,
  requested_at  timestamptz NOT NULL,
  -- No session of the scope could work any more, and new ones may begin again.
  fenced_at     timestamptz,
  -- A process carries the order out, and says so again before this time.
  carried_until timestamptz,
  -- The receipt, once every sandbox is known to be gone.
  body          jsonb,
  signature     text,
  completed_at  timestamptz,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('stops', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('stops', 'SELECT (org_id, id, completed_at, carried_until)', 'an order whose process died is carried out by another');
-- A scope has one order that is not fenced; stop_over() reads these rows only.
CREATE UNIQUE INDEX stops_open ON stops (org_id, scope_type, scope_id) WHERE fenced_at IS NULL;
-- The last order of a scope, and the list.
CREATE INDEX stops_of_scope ON stops (org_id, scope_type, scope_id, id DESC);
-- Orders that somebody has to carry out.
CREATE INDEX stops_unfinished ON stops (carried_until) WHERE completed_at IS NULL;

-- A receipt says which order it carries out, and which other receipt covers it: that of the session at the root of the tree.
ALTER TABLE receipts ADD COLUMN stop_id text COLLATE "C", ADD COLUMN root_session_id text COLLATE "C";
SELECT ambit_worker_table('receipts', 'SELECT (org_id, session_id, root_session_id, created_at, completed_at)', 'a receipt whose process died is completed by another');
-- The receipts of an order.
CREATE INDEX receipts_of_stop ON receipts (org_id, stop_id) WHERE stop_id IS NOT NULL;
-- Receipts that somebody has to complete.
CREATE INDEX receipts_unfinished ON receipts (created_at) WHERE completed_at IS NULL;
-- What is at work in a scope.
CREATE INDEX sessions_working ON sessions (org_id, id) WHERE status IN ('running', 'rescheduling');

-- stop_over answers the order that forbids a session to begin work, or NULL. It takes the organisation's stop lock, shared, until the
-- transaction ends, and only then looks: an order is recorded under the same lock, alone. So a session either began before the order, and the
-- order finds it, or sees the order. Ask before any session's row is locked: who holds a row must not queue for this lock.
-- +goose StatementBegin
CREATE FUNCTION stop_over(p_org text, p_session text, p_project text, p_agent text, p_key text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found_id text;
  project text := p_project;
  agent text := p_agent;
  made_by text := '';
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('ambit/stop/' || p_org, 0));
  IF p_session <> '' THEN
    SELECT s.project_id, s.agent_id, coalesce(s.principal ->> 'id', '') INTO project, agent, made_by FROM sessions s WHERE s.org_id = p_org AND s.id = p_session;
  END IF;
  SELECT o.id INTO found_id FROM stops o
    WHERE o.org_id = p_org AND o.fenced_at IS NULL AND (
      o.scope_type = 'organization' OR (o.scope_type = 'project' AND o.scope_id = project) OR (o.scope_type = 'agent' AND o.scope_id = agent AND agent <> '')
      OR (o.scope_type = 'api_key' AND o.scope_id IN (p_key, made_by)))
    LIMIT 1;
  RETURN found_id;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION stop_over;
DROP INDEX sessions_working;
DROP INDEX receipts_unfinished;
DROP INDEX receipts_of_stop;
DROP POLICY worker ON receipts;
REVOKE ALL ON receipts FROM ambit_worker;
ALTER TABLE receipts DROP COLUMN root_session_id, DROP COLUMN stop_id;
DROP TABLE stops;
