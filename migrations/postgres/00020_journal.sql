-- +goose Up

-- A session's row is the head of its journal: the last number given, who may append, and a projection of the events (status, stop reason,
-- usage) that is written in the same transaction as they are and can be computed from them again.
CREATE TABLE sessions (
  org_id            text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id                text COLLATE "C" NOT NULL,
  project_id        text COLLATE "C" NOT NULL,
  -- Empty for an agent that was written into the invoke.
  agent_id          text COLLATE "C" NOT NULL DEFAULT '',
  agent_version     integer NOT NULL DEFAULT 0,
  -- The definition that the session began with and runs to its end on.
  agent             jsonb NOT NULL,
  parent_session_id text COLLATE "C",
  principal         jsonb NOT NULL,
  title             text NOT NULL DEFAULT '',
  metadata          jsonb NOT NULL DEFAULT '{}',
  limits            jsonb NOT NULL DEFAULT '{}',

  -- The journal's head.
  last_seq          bigint NOT NULL DEFAULT 0,
  epoch             bigint NOT NULL DEFAULT 0,
  lease_owner       text,
  lease_address     text,
  lease_expires_at  timestamptz,

  -- The projection.
  status            text NOT NULL CHECK (status IN ('running', 'rescheduling', 'idle', 'terminated')),
  stop_reason       jsonb,
  usage             jsonb NOT NULL DEFAULT '{}',
  charged_nanos     bigint NOT NULL DEFAULT 0 CHECK (charged_nanos >= 0),
  last_active_at    timestamptz NOT NULL,

  -- The hold of the session's own price ceiling, when it has one that is open.
  ceiling_hold_id   text COLLATE "C",
  version           bigint NOT NULL DEFAULT 1,
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  archived_at       timestamptz,
  PRIMARY KEY (org_id, id),
  UNIQUE (id)
);
SELECT ambit_tenant_table('sessions');
SELECT ambit_worker_table('sessions', 'SELECT', 'the lease scan finds sessions of any organisation whose worker is gone');
-- Lists of a project's sessions, newest first.
CREATE INDEX sessions_by_project ON sessions (org_id, project_id, id DESC);
-- The lists of one agent's sessions and of one parent's children.
CREATE INDEX sessions_by_agent ON sessions (org_id, agent_id, id DESC);
CREATE INDEX sessions_by_parent ON sessions (org_id, parent_session_id) WHERE parent_session_id IS NOT NULL;
-- The scan for expired leases reads only sessions that ought to be at work.
CREATE INDEX sessions_at_work ON sessions (lease_expires_at) WHERE status IN ('running', 'rescheduling');

-- The journal. Rows are inserted and read; nobody updates or deletes one.
CREATE TABLE events (
  org_id         text COLLATE "C" NOT NULL,
  session_id     text COLLATE "C" NOT NULL,
  seq            bigint NOT NULL CHECK (seq > 0),
  id             text COLLATE "C" NOT NULL,
  type           text NOT NULL,
  schema_version smallint NOT NULL,
  epoch          bigint NOT NULL,
  step_id        text COLLATE "C",
  payload        jsonb NOT NULL,
  created_at     timestamptz NOT NULL,
  PRIMARY KEY (org_id, session_id, seq),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
SELECT ambit_tenant_table('events', 'SELECT, INSERT');
-- An event is looked up by its own id when a client names one.
CREATE UNIQUE INDEX events_by_id ON events (org_id, id);

-- A projection of step.intended and step.settled: one row a step. It carries the constraint that an effect key is unique for ever.
CREATE TABLE steps (
  org_id       text COLLATE "C" NOT NULL,
  session_id   text COLLATE "C" NOT NULL,
  id           text COLLATE "C" NOT NULL,
  kind         text NOT NULL,
  effect_key   text COLLATE "C" NOT NULL,
  epoch        bigint NOT NULL,
  intended_seq bigint NOT NULL,
  settled_seq  bigint,
  outcome      text CHECK (outcome IN ('succeeded', 'failed', 'unknown', 'cancelled')),
  name         text NOT NULL DEFAULT '',
  hold_id      text COLLATE "C",
  usage        jsonb NOT NULL DEFAULT '{}',
  cost_nanos   bigint NOT NULL DEFAULT 0 CHECK (cost_nanos >= 0),
  error        jsonb,
  intended_at  timestamptz NOT NULL,
  settled_at   timestamptz,
  PRIMARY KEY (org_id, id),
  CONSTRAINT steps_effect_key UNIQUE (effect_key),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
SELECT ambit_tenant_table('steps', 'SELECT, INSERT, UPDATE');
-- A session's steps in order.
CREATE INDEX steps_of_session ON steps (org_id, session_id, intended_seq);
-- What a new lease-holder must resolve: intended and not settled.
CREATE INDEX steps_open ON steps (org_id, session_id) WHERE settled_seq IS NULL;

-- +goose Down
DROP TABLE steps;
DROP TABLE events;
DROP TABLE sessions;
