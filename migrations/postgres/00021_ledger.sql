-- +goose Up

-- One row a transfer from one account to another of the same organisation. Accounts are credit-normal: a transfer takes from the debited
-- account and adds to the credited one, so the sum over all accounts of an organisation is always zero.
--   grants     where credit comes from; its balance is minus all that was granted
--   available  what can still be held
--   held       what is reserved for effects under way
--   spent      what was captured: the platform's revenue from this organisation
--   loss       what an effect used above its hold: the platform's, never the organisation's
CREATE TABLE ledger_transfers (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id             text COLLATE "C" NOT NULL,
  debit_account  text NOT NULL CHECK (debit_account IN ('grants', 'available', 'held', 'spent', 'loss')),
  credit_account text NOT NULL CHECK (credit_account IN ('grants', 'available', 'held', 'spent', 'loss')),
  amount_nanos   bigint NOT NULL CHECK (amount_nanos > 0),
  kind           text NOT NULL CHECK (kind IN ('grant', 'revocation', 'hold', 'capture', 'release', 'loss')),
  hold_id        text COLLATE "C",
  -- Empty where no session has to do with it.
  session_id     text COLLATE "C" NOT NULL DEFAULT '',
  step_id        text COLLATE "C",
  note           text NOT NULL DEFAULT '',
  created_at     timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  CHECK (debit_account <> credit_account)
);
SELECT ambit_tenant_table('ledger_transfers', 'SELECT, INSERT');
-- A hold's transfers, and a session's.
CREATE INDEX ledger_transfers_by_hold ON ledger_transfers (org_id, hold_id);
CREATE INDEX ledger_transfers_by_session ON ledger_transfers (org_id, session_id);

-- A projection of the transfers, written with them. The checks are the last guard against spending what is not there.
CREATE TABLE account_balances (
  org_id        text COLLATE "C" NOT NULL REFERENCES organizations (id),
  account       text NOT NULL,
  balance_nanos bigint NOT NULL,
  updated_at    timestamptz NOT NULL,
  PRIMARY KEY (org_id, account),
  CONSTRAINT account_not_overdrawn CHECK (balance_nanos >= 0 OR account IN ('grants', 'loss'))
);
SELECT ambit_tenant_table('account_balances', 'SELECT, INSERT, UPDATE');

-- The balance follows the transfer by a trigger, so that no code can write one without the other.
-- +goose StatementBegin
CREATE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO account_balances (org_id, account, balance_nanos, updated_at)
    VALUES (NEW.org_id, NEW.debit_account, 0, NEW.created_at), (NEW.org_id, NEW.credit_account, 0, NEW.created_at)
    ON CONFLICT (org_id, account) DO NOTHING;
  -- In the order of their names, so that two transfers never wait for each other crosswise.
  IF NEW.debit_account < NEW.credit_account THEN
    UPDATE account_balances SET balance_nanos = balance_nanos - NEW.amount_nanos, updated_at = NEW.created_at WHERE org_id = NEW.org_id AND account = NEW.debit_account;
    UPDATE account_balances SET balance_nanos = balance_nanos + NEW.amount_nanos, updated_at = NEW.created_at WHERE org_id = NEW.org_id AND account = NEW.credit_account;
  ELSE
    UPDATE account_balances SET balance_nanos = balance_nanos + NEW.amount_nanos, updated_at = NEW.created_at WHERE org_id = NEW.org_id AND account = NEW.credit_account;
    UPDATE account_balances SET balance_nanos = balance_nanos - NEW.amount_nanos, updated_at = NEW.created_at WHERE org_id = NEW.org_id AND account = NEW.debit_account;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_apply AFTER INSERT ON ledger_transfers FOR EACH ROW EXECUTE FUNCTION ledger_apply();

-- Money reserved before an effect. A hold with a parent is carved from it and moves nothing on the ledger until it is captured.
CREATE TABLE holds (
  org_id         text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id             text COLLATE "C" NOT NULL,
  parent_id      text COLLATE "C",
  session_id     text COLLATE "C" NOT NULL,
  step_id        text COLLATE "C",
  amount_nanos   bigint NOT NULL CHECK (amount_nanos >= 0),
  -- Of a parent: what its open children hold. Never more than is left.
  carved_nanos   bigint NOT NULL DEFAULT 0 CHECK (carved_nanos >= 0),
  captured_nanos bigint NOT NULL DEFAULT 0 CHECK (captured_nanos >= 0),
  released_nanos bigint NOT NULL DEFAULT 0 CHECK (released_nanos >= 0),
  state          text NOT NULL CHECK (state IN ('held', 'unsettled', 'captured', 'released')),
  price_version  text NOT NULL DEFAULT '',
  lines          jsonb NOT NULL DEFAULT '[]',
  expires_at     timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  settled_at     timestamptz,
  PRIMARY KEY (org_id, id),
  CONSTRAINT hold_within_amount CHECK (carved_nanos + captured_nanos + released_nanos <= amount_nanos)
);
SELECT ambit_tenant_table('holds', 'SELECT, INSERT, UPDATE');
-- One hold a step, whatever is retried.
CREATE UNIQUE INDEX holds_one_a_step ON holds (org_id, step_id) WHERE step_id IS NOT NULL;
-- A session's open holds.
CREATE INDEX holds_open ON holds (org_id, session_id) WHERE state IN ('held', 'unsettled');

-- +goose Down
DROP TABLE holds;
DROP TABLE account_balances;
DROP TABLE ledger_transfers;
DROP FUNCTION ledger_apply();
