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

-- The balance follows the transfer by a trigger, so that no code can write one without the other. Whoever posts has locked the accounts in
-- the order of their names, so that two transfers never wait for each other crosswise.
-- +goose StatementBegin
CREATE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  touched int;
BEGIN
  UPDATE account_balances
    SET balance_nanos = balance_nanos + CASE WHEN account = NEW.credit_account THEN NEW.amount_nanos ELSE -NEW.amount_nanos END, updated_at = NEW.created_at
    WHERE org_id = NEW.org_id AND account IN (NEW.debit_account, NEW.credit_account);
  GET DIAGNOSTICS touched = ROW_COUNT;
  IF touched <> 2 THEN
    -- The first transfer of an account that was never opened: it begins with this very amount.
    INSERT INTO account_balances (org_id, account, balance_nanos, updated_at)
      VALUES (NEW.org_id, NEW.credit_account, NEW.amount_nanos, NEW.created_at), (NEW.org_id, NEW.debit_account, -NEW.amount_nanos, NEW.created_at)
      ON CONFLICT (org_id, account) DO NOTHING;
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

-- ledger_place reserves an amount: out of the parent, or out of the balance. It locks, compares and writes in one call, as an admission's
-- time is mostly the way to the database and back. placed is false when there is not that much; available then says what there is.
-- +goose StatementBegin
CREATE FUNCTION ledger_place(
  p_org text, p_hold text, p_parent text, p_session text, p_step text, p_amount bigint, p_price_version text, p_lines jsonb,
  p_expires timestamptz, p_now timestamptz, p_entry text, OUT placed boolean, OUT available bigint
) LANGUAGE plpgsql AS $$
BEGIN
  IF p_parent <> '' THEN
    UPDATE holds SET carved_nanos = carved_nanos + p_amount
      WHERE org_id = p_org AND id = p_parent AND state = 'held' AND amount_nanos - carved_nanos - captured_nanos - released_nanos >= p_amount;
    placed := FOUND;
    IF NOT placed THEN
      SELECT CASE WHEN h.state = 'held' THEN h.amount_nanos - h.carved_nanos - h.captured_nanos - h.released_nanos ELSE 0 END INTO available
        FROM holds h WHERE h.org_id = p_org AND h.id = p_parent;
      IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no hold % to carve from', p_parent;
      END IF;
      RETURN;
    END IF;
  ELSE
    PERFORM 1 FROM account_balances b WHERE b.org_id = p_org ORDER BY b.account FOR UPDATE;
    SELECT b.balance_nanos INTO available FROM account_balances b WHERE b.org_id = p_org AND b.account = 'available';
    available := coalesce(available, 0); -- no row: nothing was ever granted
    placed := available >= p_amount;
    IF NOT placed THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at)
    VALUES (p_org, p_hold, nullif(p_parent, ''), p_session, nullif(p_step, ''), p_amount, 'held', p_price_version, p_lines, p_expires, p_now);
  IF p_parent = '' AND p_amount > 0 THEN
    INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, created_at)
      VALUES (p_org, p_entry, 'available', 'held', p_amount, 'hold', p_hold, p_session, nullif(p_step, ''), p_now);
  END IF;
END $$;
-- +goose StatementEnd

-- ledger_settle captures what an effect used, at most its hold, and releases the rest; what was used above the hold is booked as the
-- platform's loss. A hold is settled once: state says what a second call found. Locks go parent, child, accounts, as in ledger_place.
-- +goose StatementBegin
CREATE FUNCTION ledger_settle(
  p_org text, p_hold text, p_used bigint, p_now timestamptz, p_capture text, p_release text, p_loss text,
  OUT state text, OUT captured bigint, OUT released bigint, OUT excess bigint
) LANGUAGE plpgsql AS $$
DECLARE
  h holds;
  parent text;
  parent_open boolean := false;
  left_over bigint;
BEGIN
  SELECT x.parent_id INTO parent FROM holds x WHERE x.org_id = p_org AND x.id = p_hold;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no hold %', p_hold;
  END IF;
  IF parent IS NOT NULL THEN
    SELECT x.state IN ('held', 'unsettled') INTO parent_open FROM holds x WHERE x.org_id = p_org AND x.id = parent FOR UPDATE;
  END IF;
  SELECT * INTO h FROM holds x WHERE x.org_id = p_org AND x.id = p_hold FOR UPDATE;
  IF h.state NOT IN ('held', 'unsettled') THEN
    state := h.state;
    RETURN;
  END IF;
  PERFORM 1 FROM account_balances b WHERE b.org_id = p_org ORDER BY b.account FOR UPDATE;
  left_over := h.amount_nanos - h.carved_nanos - h.captured_nanos - h.released_nanos;
  captured := least(p_used, left_over);
  released := left_over - captured;
  excess := p_used - captured;
  state := 'settled';
  UPDATE holds x SET captured_nanos = x.captured_nanos + captured, released_nanos = x.released_nanos + released, settled_at = p_now,
      state = CASE WHEN x.captured_nanos + captured = 0 THEN 'released' ELSE 'captured' END
    WHERE x.org_id = p_org AND x.id = p_hold;
  IF parent IS NOT NULL THEN
    -- What a child releases stays with its parent while that is open. A parent that was settled before can't give it back any more.
    UPDATE holds x SET carved_nanos = x.carved_nanos - h.amount_nanos, captured_nanos = x.captured_nanos + captured,
        released_nanos = x.released_nanos + CASE WHEN parent_open THEN 0 ELSE released END
      WHERE x.org_id = p_org AND x.id = parent;
  END IF;
  INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at)
    SELECT p_org, t.id, t.debit, t.credit, t.amount, t.kind, p_hold, h.session_id, h.step_id, t.note, p_now
    FROM (VALUES
      (p_capture, 'held', 'spent', captured, 'capture', ''),
      (p_release, 'held', 'available', CASE WHEN parent_open THEN 0 ELSE released END, 'release', ''),
      (p_loss, 'loss', 'spent', excess, 'loss', 'used above the hold')) t (id, debit, credit, amount, kind, note)
    WHERE t.amount > 0;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION ledger_settle(text, text, bigint, timestamptz, text, text, text);
DROP FUNCTION ledger_place(text, text, text, text, text, bigint, text, jsonb, timestamptz, timestamptz, text);
DROP TABLE holds;
DROP TABLE account_balances;
DROP TABLE ledger_transfers;
DROP FUNCTION ledger_apply();
