-- +goose Up

-- Signed statements of what happened. A receipt of a kill is written with the kill and completed once, when the sandbox is known to be gone.
CREATE TABLE receipts (
  org_id       text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id           text COLLATE "C" NOT NULL,
  session_id   text COLLATE "C" NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('kill')),
  body         jsonb NOT NULL,
  signature    text,
  created_at   timestamptz NOT NULL,
  completed_at timestamptz,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('receipts', 'SELECT, INSERT, UPDATE');
-- A session is killed once.
CREATE UNIQUE INDEX receipts_one_kill ON receipts (org_id, session_id) WHERE kind = 'kill';

-- +goose Down
DROP TABLE receipts;
