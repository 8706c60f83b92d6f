-- +goose Up

-- Receipts of what was spent under mandates and of what was refused: each a line of a batch, under one signed Merkle root (RFC 6962).
CREATE TABLE mandate_batches (
  org_id     text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id         text COLLATE "C" NOT NULL,
  -- The mandate that all lines of the batch descend from, and the batch's number among its batches, from 1.
  root_id    text COLLATE "C" NOT NULL,
  number     bigint NOT NULL CHECK (number > 0),
  size       int NOT NULL CHECK (size > 0),
  root_hash  bytea NOT NULL CHECK (length(root_hash) = 32),
  -- What the instance signed of it: a compact JWS.
  statement  text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, root_id, number),
  FOREIGN KEY (org_id, root_id) REFERENCES mandates (org_id, id)
);
SELECT ambit_tenant_table('mandate_batches', 'SELECT, INSERT');

CREATE TABLE mandate_receipts (
  org_id     text COLLATE "C" NOT NULL REFERENCES organizations (id),
  -- The ledger's entry or the journal's event that it is the receipt of: there is one of each.
  id         text COLLATE "C" NOT NULL,
  batch_id   text COLLATE "C" NOT NULL,
  position   int NOT NULL CHECK (position >= 0),
  mandate_id text COLLATE "C" NOT NULL,
  -- Whom it paid, and how much; nothing of a refusal.
  payee      text COLLATE "C" NOT NULL,
  amount_nanos bigint NOT NULL CHECK (amount_nanos >= 0),
  -- The line itself, in canonical JSON: its hash is the leaf.
  line       text NOT NULL,
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, batch_id, position),
  FOREIGN KEY (org_id, batch_id) REFERENCES mandate_batches (org_id, id)
);
SELECT ambit_tenant_table('mandate_receipts', 'SELECT, INSERT');
-- Sums what each payee was paid under a mandate.
CREATE INDEX mandate_receipts_of_mandate ON mandate_receipts (org_id, mandate_id, payee);

-- What each payee was paid under a mandate, closed: whole cents, rounded up once; what was rounded is carried on to the next.
CREATE TABLE mandate_settlements (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id             text COLLATE "C" NOT NULL,
  mandate_id     text COLLATE "C" NOT NULL,
  payee          text COLLATE "C" NOT NULL,
  cents          bigint NOT NULL CHECK (cents > 0),
  -- Of all that was settled with this payee until then: what the ledger captured, and what was paid beyond it.
  captured_nanos bigint NOT NULL CHECK (captured_nanos >= 0),
  carried_nanos  bigint NOT NULL CHECK (carried_nanos BETWEEN 0 AND 9999999),
  token          text NOT NULL,
  created_at     timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, mandate_id) REFERENCES mandates (org_id, id)
);
SELECT ambit_tenant_table('mandate_settlements', 'SELECT, INSERT');
-- What was settled with a payee so far.
CREATE INDEX mandate_settlements_of_payee ON mandate_settlements (org_id, mandate_id, payee, id);

SELECT ambit_worker_table('mandates', 'SELECT (org_id, id, path, state, until_at)', 'one pass seals what was spent under the mandates of all organisations');

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'this migration is not undone: restore a backup that was taken before it'; END $$;
-- +goose StatementEnd
