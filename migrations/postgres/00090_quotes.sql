-- +goose Up

-- An offer: what a session or an effect would cost, at prices that hold until it runs out. What it says of money never changes; it is used once.
CREATE TABLE quotes (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id             text COLLATE "C" NOT NULL,
  -- Empty for an effect that was priced for the whole organisation.
  project_id     text COLLATE "C" NOT NULL,
  -- What was priced: a session that an invoke would start or continue, or one effect.
  kind           text NOT NULL CHECK (kind IN ('session', 'effect')),
  -- The digest of what the price depends on: an invoke with the quote must have the same.
  digest         bytea NOT NULL CHECK (octet_length(digest) = 32),
  low_nanos      bigint NOT NULL CHECK (low_nanos >= 0),
  likely_nanos   bigint NOT NULL,
  ceiling_nanos  bigint NOT NULL,
  lines          jsonb NOT NULL,
  basis          jsonb NOT NULL,
  price_version  text NOT NULL,
  -- The entries of the price table that were in force, as the session that uses the quote goes on being priced by them.
  prices         jsonb NOT NULL,
  created_by     jsonb NOT NULL,
  created_at     timestamptz NOT NULL,
  expires_at     timestamptz NOT NULL,
  used_at        timestamptz,
  -- The session that used it.
  used_by        text COLLATE "C",
  PRIMARY KEY (org_id, id),
  CONSTRAINT quotes_order CHECK (low_nanos <= likely_nanos AND likely_nanos <= ceiling_nanos),
  CONSTRAINT quotes_use CHECK ((used_at IS NULL) = (used_by IS NULL))
);
SELECT ambit_tenant_table('quotes', 'SELECT, INSERT, DELETE, UPDATE (used_at, used_by)');
-- Finds an organisation's quotes that nobody used, to be deleted when they are old.
CREATE INDEX quotes_unused ON quotes (org_id, expires_at) WHERE used_at IS NULL;

-- The quote that a session runs by, with its prices; NULL where the price table of each moment counts.
ALTER TABLE sessions ADD COLUMN quote jsonb;

-- +goose Down
ALTER TABLE sessions DROP COLUMN quote;
DROP TABLE quotes;
