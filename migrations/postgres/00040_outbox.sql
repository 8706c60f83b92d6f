-- +goose Up

-- What has yet to reach ClickHouse. A row is written in the transaction of the journal events that it tells of, and deleted once ClickHouse
-- has acknowledged it: the table is short when all is well, and as long as an outage when not.
CREATE TABLE outbox (
  org_id        text COLLATE "C" NOT NULL,
  id            bigint GENERATED ALWAYS AS IDENTITY,
  project_id    text COLLATE "C" NOT NULL,
  session_id    text COLLATE "C" NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('span')),
  -- json and not jsonb: nobody looks inside here, and jsonb refuses the \u0000 that a tool's output may hold.
  payload       json NOT NULL,
  payload_bytes int NOT NULL GENERATED ALWAYS AS (octet_length(payload::text)) STORED,
  -- The batch in which the row is sent. Once stamped it is never changed: a retry must send the same rows under the same token.
  batch_id      text COLLATE "C",
  -- Why the row cannot be sent, ever. Such a row is in no batch; it stays to be looked at.
  rejected      text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, id)
)
-- Rows live for a second, so dead ones are cleared by number and not by a share of a table that is mostly empty.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_scale_factor = 0,
      autovacuum_vacuum_insert_threshold = 20000);

-- The claim of the oldest waiting rows.
CREATE INDEX outbox_waiting ON outbox (id) WHERE batch_id IS NULL AND rejected IS NULL;
-- The rows of a batch, to send and to delete them.
CREATE INDEX outbox_batch ON outbox (batch_id, id) WHERE batch_id IS NOT NULL;

SELECT ambit_tenant_table('outbox', 'SELECT, INSERT');
SELECT ambit_worker_table('outbox', 'SELECT, UPDATE, DELETE', 'the exporter of spans claims, sends and deletes the rows of all organisations');
GRANT USAGE ON SEQUENCE outbox_id_seq TO ambit_app;

-- A batch that has been claimed and is not known to have arrived. The lease says who may send it: when it runs out, because its holder died
-- or hangs, another replica sends the same rows under the same token.
CREATE TABLE outbox_batches (
  id           text COLLATE "C" PRIMARY KEY,
  attempts     int NOT NULL DEFAULT 0,
  lease_until  timestamptz NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now()
);

SELECT ambit_platform_table('outbox_batches', '', 'SELECT, INSERT, UPDATE, DELETE', 'one batch holds rows of many organisations; it names none of them');

-- +goose Down
DROP TABLE outbox_batches;
DROP TABLE outbox;
