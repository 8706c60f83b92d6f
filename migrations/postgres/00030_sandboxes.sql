-- +goose Up

-- What each node service says of its machine. The control plane shows it and waits for a ready template; nothing is decided by it alone.
CREATE TABLE sandbox_nodes (
  node_id           text COLLATE "C" PRIMARY KEY,
  name              text NOT NULL,
  driver            text NOT NULL DEFAULT '',
  accelerator       text NOT NULL DEFAULT '',
  driver_version    text NOT NULL DEFAULT '',
  detail            text NOT NULL DEFAULT '',
  template_key      text COLLATE "C" NOT NULL DEFAULT '',
  template_state    text NOT NULL CHECK (template_state IN ('absent', 'building', 'ready', 'failed')),
  template_phase    text NOT NULL DEFAULT '',
  template_progress real NOT NULL DEFAULT 0,
  error             text NOT NULL DEFAULT '',
  started_at        timestamptz NOT NULL,
  reported_at       timestamptz NOT NULL DEFAULT now()
);
SELECT ambit_platform_table('sandbox_nodes', 'SELECT', 'SELECT, INSERT, UPDATE, DELETE',
  'machines belong to the operator; they hold nothing of a tenant');

-- Machines that wait, cloned and paused, for the first session that needs one. A row is made before its allocation is dispatched and
-- leaves when a session claims it (it becomes a row of sandboxes) or when its machine ends.
CREATE TABLE warm_sandboxes (
  id           text COLLATE "C" PRIMARY KEY,
  environment  text COLLATE "C" NOT NULL,
  -- The content of the programs that it was started with. After an upgrade those of the old build are ended, not claimed.
  build        text COLLATE "C" NOT NULL,
  state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'ready')),
  job_id       text COLLATE "C",
  alloc_id     text COLLATE "C",
  node_id      text COLLATE "C",
  address      text,
  driver       text NOT NULL DEFAULT '',
  accelerator  text NOT NULL DEFAULT '',
  -- SHA-256 of the one-time secret that the allocation phones home with, and of the token that it chooses then for all later reports.
  secret_hash  bytea NOT NULL,
  token_hash   bytea,
  created_at   timestamptz NOT NULL DEFAULT now(),
  ready_at     timestamptz,
  heartbeat_at timestamptz,
  CHECK (state = 'pending' OR (job_id IS NOT NULL AND alloc_id IS NOT NULL AND address IS NOT NULL AND token_hash IS NOT NULL AND ready_at IS NOT NULL))
);
-- The claim takes the one that has waited longest.
CREATE INDEX warm_sandboxes_claim ON warm_sandboxes (environment, build, ready_at) WHERE state = 'ready';
SELECT ambit_platform_table('warm_sandboxes', 'SELECT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE, DELETE',
  'a warm machine belongs to nobody until a session claims it, and holds nothing of a tenant');

-- The machine of a session, from its claim on. Rows are kept after the end: they are the record of what ran and why it ended.
CREATE TABLE sandboxes (
  org_id        text COLLATE "C" NOT NULL,
  id            text COLLATE "C" NOT NULL,
  project_id    text COLLATE "C" NOT NULL,
  session_id    text COLLATE "C" NOT NULL,
  environment   text COLLATE "C" NOT NULL,
  state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'paused', 'ended')),
  -- The highest lease epoch that has used it. A lower one is refused here, by the allocation and by the guest.
  epoch         bigint NOT NULL,
  job_id        text COLLATE "C" NOT NULL,
  alloc_id      text COLLATE "C" NOT NULL,
  node_id       text COLLATE "C" NOT NULL,
  address       text NOT NULL,
  driver        text NOT NULL,
  accelerator   text NOT NULL,
  token_hash    bytea NOT NULL,
  created_at    timestamptz NOT NULL,
  claimed_at    timestamptz NOT NULL DEFAULT now(),
  started_at    timestamptz,
  heartbeat_at  timestamptz NOT NULL DEFAULT now(),
  -- The end of the last operation in it, for the idle reaper.
  used_at       timestamptz NOT NULL DEFAULT now(),
  restored_seq  bigint,
  last_saved_at timestamptz,
  ended_at      timestamptz,
  end_reason    text,
  end_detail    text NOT NULL DEFAULT '',
  -- When the machine was seen to be gone, and by whom: {"by": "allocation" | "nomad", …}.
  gone_at       timestamptz,
  gone_proof    jsonb,
  PRIMARY KEY (org_id, id),
  CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
  CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
SELECT ambit_tenant_table('sandboxes', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('sandboxes', 'SELECT, UPDATE',
  'reports from allocations and from Nomad name a sandbox, not its organisation; the reaper looks for idle ones everywhere');
-- A session has at most one machine at a time: two workers that race for it meet here.
CREATE UNIQUE INDEX sandboxes_one_live ON sandboxes (org_id, session_id) WHERE state <> 'ended';
-- A session's machines, newest first, for its page.
CREATE INDEX sandboxes_session ON sandboxes (org_id, session_id, claimed_at DESC);
-- Reports from allocations come with the id alone.
CREATE UNIQUE INDEX sandboxes_id ON sandboxes (id);
-- The reaper and the reconciliation walk through what lives; what ended is many times more.
CREATE INDEX sandboxes_live ON sandboxes (used_at) WHERE state <> 'ended';

-- The saved working directories of a session, numbered. The bytes are in the blob store under their SHA-256.
CREATE TABLE workdir_archives (
  org_id        text COLLATE "C" NOT NULL,
  session_id    text COLLATE "C" NOT NULL,
  seq           bigint NOT NULL CHECK (seq > 0),
  sandbox_id    text COLLATE "C" NOT NULL,
  epoch         bigint NOT NULL,
  sha256        text COLLATE "C" NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes    bigint NOT NULL CHECK (size_bytes >= 0),
  content_bytes bigint NOT NULL CHECK (content_bytes >= 0),
  files         bigint NOT NULL CHECK (files >= 0),
  reason        text NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, session_id, seq),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id)
);
SELECT ambit_tenant_table('workdir_archives', 'SELECT, INSERT, DELETE');

-- +goose Down
DROP TABLE workdir_archives;
DROP TABLE sandboxes;
DROP TABLE warm_sandboxes;
DROP TABLE sandbox_nodes;
