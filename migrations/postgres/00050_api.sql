-- +goose Up

-- The answers to requests that carried an Idempotency-Key. A row commits with the effect of its request, so there is one if and only if
-- the effect took place.
CREATE TABLE idempotency_records (
  org_id       text COLLATE "C" NOT NULL REFERENCES organizations (id),
  -- SHA-256 of principal, method, path and key: what a key is scoped to, at a fixed length.
  scope_sha256 bytea NOT NULL CHECK (octet_length(scope_sha256) = 32),
  -- SHA-256 of the request's body.
  fingerprint  bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
  -- The answer: its status, headers and body, sealed, because an answer may hold a secret that is shown once.
  sealed       bytea NOT NULL,
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
  PRIMARY KEY (org_id, scope_sha256)
);
SELECT ambit_tenant_table('idempotency_records');
SELECT ambit_worker_table('idempotency_records', 'SELECT, DELETE', 'the sweep deletes what expired, for all organisations');
-- Finds what the sweep deletes.
CREATE INDEX idempotency_records_by_expiry ON idempotency_records (expires_at);

-- +goose Down
DROP TABLE idempotency_records;
