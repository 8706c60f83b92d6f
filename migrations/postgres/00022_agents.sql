-- +goose Up

CREATE TABLE agents (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id             text COLLATE "C" NOT NULL,
  project_id     text COLLATE "C" NOT NULL,
  name           text NOT NULL,
  description    text NOT NULL DEFAULT '',
  metadata       jsonb NOT NULL DEFAULT '{}',
  latest_version integer NOT NULL,
  created_by     text NOT NULL,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  archived_at    timestamptz,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('agents');
-- Lists of a project's agents, newest first.
CREATE INDEX agents_by_project ON agents (org_id, project_id, id DESC);
-- A name means one agent in its project, until that one is archived.
CREATE UNIQUE INDEX agents_name ON agents (org_id, project_id, lower(name)) WHERE archived_at IS NULL;

-- Each change of an agent makes a row here; no row changes.
CREATE TABLE agent_versions (
  org_id     text COLLATE "C" NOT NULL,
  agent_id   text COLLATE "C" NOT NULL,
  version    integer NOT NULL CHECK (version > 0),
  definition jsonb NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, agent_id, version),
  FOREIGN KEY (org_id, agent_id) REFERENCES agents (org_id, id)
);
SELECT ambit_tenant_table('agent_versions', 'SELECT, INSERT');

CREATE TABLE agent_aliases (
  org_id     text COLLATE "C" NOT NULL,
  agent_id   text COLLATE "C" NOT NULL,
  name       text NOT NULL,
  version    integer NOT NULL,
  revision   bigint NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, agent_id, name),
  FOREIGN KEY (org_id, agent_id, version) REFERENCES agent_versions (org_id, agent_id, version)
);
SELECT ambit_tenant_table('agent_aliases');

-- +goose Down
DROP TABLE agent_aliases;
DROP TABLE agent_versions;
DROP TABLE agents;
