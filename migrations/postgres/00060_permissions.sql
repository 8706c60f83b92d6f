-- +goose Up

-- What an organisation's agents may do: rules, the tags by which rules can name several agents, and the version of both.

CREATE TABLE permissions (
  org_id      text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id          text COLLATE "C" NOT NULL,
  -- Whom the rule is about: '*', an agent's id, a project's id, or 'tag:' and a tag.
  subject     text COLLATE "C" NOT NULL CHECK (length(subject) BETWEEN 1 AND 64),
  effect      text COLLATE "C" NOT NULL CHECK (effect IN ('allow', 'deny', 'approve')),
  kind        text COLLATE "C" NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),
  -- Patterns, in which * stands for any run of characters.
  name        text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
  action      text COLLATE "C" NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object      text COLLATE "C" NOT NULL CHECK (length(object) BETWEEN 1 AND 512),
  -- The condition in the one form that the code writes; empty for none.
  condition   text COLLATE "C" NOT NULL CHECK (length(condition) <= 8192),
  description text NOT NULL CHECK (length(description) <= 500),
  -- The preset that the rule came from, if any. The rule is a copy: a later release's preset does not change it.
  preset      text COLLATE "C" CHECK (length(preset) <= 64),
  version     bigint NOT NULL DEFAULT 1,
  created_by  text COLLATE "C" NOT NULL,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('permissions');
-- Lists the rules of one subject.
CREATE INDEX permissions_by_subject ON permissions (org_id, subject, id);

CREATE TABLE permission_tags (
  org_id   text COLLATE "C" NOT NULL,
  agent_id text COLLATE "C" NOT NULL,
  tag      text COLLATE "C" NOT NULL CHECK (tag ~ '^[a-z][a-z0-9-]{0,39}$'),
  PRIMARY KEY (org_id, agent_id, tag),
  FOREIGN KEY (org_id, agent_id) REFERENCES agents (org_id, id)
);
SELECT ambit_tenant_table('permission_tags');

-- The version of an organisation's rules and tags, changed in each transaction that changes them. It comes from a sequence, so that a
-- version that was rolled back is never given again: rules in memory are known by their version alone.
CREATE SEQUENCE policy_version_numbers;
GRANT USAGE ON SEQUENCE policy_version_numbers TO ambit_app;

CREATE TABLE policy_versions (
  org_id     text COLLATE "C" PRIMARY KEY REFERENCES organizations (id),
  version    bigint NOT NULL CHECK (version > 0),
  changed_at timestamptz NOT NULL
);
SELECT ambit_tenant_table('policy_versions', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('policy_versions', 'SELECT', 'each process asks, for all organisations whose rules it has in memory, whether they changed');

-- +goose Down
DROP TABLE policy_versions;
DROP SEQUENCE policy_version_numbers;
DROP TABLE permission_tags;
DROP TABLE permissions;
