-- +goose Up

-- The zone in which an organisation's days, weeks and months begin.
ALTER TABLE organizations ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC' CHECK (now() AT TIME ZONE time_zone IS NOT NULL);

-- What a session's spending counts against, as type:id: its organisation, project, agent, key or member, itself, and the sessions above it.
ALTER TABLE sessions ADD COLUMN budget_scopes text[] NOT NULL DEFAULT '{}';
UPDATE sessions SET budget_scopes = array_remove(ARRAY['organization:' || org_id, 'project:' || project_id, CASE WHEN agent_id <> '' THEN 'agent:' || agent_id END,
  CASE principal ->> 'type' WHEN 'api_key' THEN 'key:' || (principal ->> 'id') WHEN 'user' THEN 'member:' || (principal ->> 'id') END, 'session:' || id,
  CASE WHEN parent_session_id IS NOT NULL THEN 'session:' || parent_session_id END], NULL);

CREATE TABLE budgets (
  org_id      text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id          text COLLATE "C" NOT NULL,
  -- A refusal names the budget by it.
  name        text NOT NULL CHECK (name <> ''),
  -- type:id of what it covers.
  scope       text COLLATE "C" NOT NULL,
  limit_nanos bigint NOT NULL CHECK (limit_nanos >= 0),
  period      text NOT NULL CHECK (period IN ('total', 'hour', 'day', 'week', 'month')),
  -- block refuses what does not fit; warn only tells.
  action      text NOT NULL CHECK (action IN ('block', 'warn')),
  -- Percentages of the limit at which somebody is told, once a period each.
  alerts      int[] NOT NULL DEFAULT '{}',
  version     bigint NOT NULL DEFAULT 1,
  created_by  jsonb NOT NULL DEFAULT '{}',
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  archived_at timestamptz,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('budgets', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('budgets', 'SELECT', 'alerts of all organisations are sent by one pass');
-- The budgets that cover a session.
CREATE INDEX budgets_by_scope ON budgets (org_id, scope) WHERE archived_at IS NULL;

-- One period of a budget: what is held and spent in it, moved by the ledger's own transfers and by nothing else, but for what was there
-- when the budget was made.
CREATE TABLE budget_periods (
  org_id              text COLLATE "C" NOT NULL,
  budget_id           text COLLATE "C" NOT NULL,
  starts_at           timestamptz NOT NULL,
  held_nanos          bigint NOT NULL DEFAULT 0 CONSTRAINT budget_held_not_negative CHECK (held_nanos >= 0),
  spent_nanos         bigint NOT NULL DEFAULT 0 CONSTRAINT budget_spent_not_negative CHECK (spent_nanos >= 0),
  opening_held_nanos  bigint NOT NULL DEFAULT 0,
  opening_spent_nanos bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (org_id, budget_id, starts_at),
  FOREIGN KEY (org_id, budget_id) REFERENCES budgets (org_id, id)
) WITH (fillfactor = 50);
SELECT ambit_tenant_table('budget_periods', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('budget_periods', 'SELECT', 'alerts of all organisations are sent by one pass');

-- A threshold that was reached: once a budget, period and percentage. It is told after the commit, by a pass that marks it as sent.
CREATE TABLE budget_alerts (
  org_id     text COLLATE "C" NOT NULL,
  budget_id  text COLLATE "C" NOT NULL,
  starts_at  timestamptz NOT NULL,
  percent    int NOT NULL,
  spent_nanos bigint NOT NULL,
  limit_nanos bigint NOT NULL,
  reached_at timestamptz NOT NULL DEFAULT now(),
  sent_at    timestamptz,
  PRIMARY KEY (org_id, budget_id, starts_at, percent),
  FOREIGN KEY (org_id, budget_id) REFERENCES budgets (org_id, id)
);
SELECT ambit_tenant_table('budget_alerts', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('budget_alerts', 'SELECT, UPDATE', 'alerts of all organisations are sent by one pass');
-- What is still to be told.
CREATE INDEX budget_alerts_unsent ON budget_alerts (reached_at) WHERE sent_at IS NULL;

-- The period of a budget in which a transfer counts.
CREATE TYPE budget_ref AS (budget text, starts timestamptz);
ALTER TABLE holds ADD COLUMN budgets budget_ref[] NOT NULL DEFAULT '{}';
ALTER TABLE ledger_transfers ADD COLUMN budgets budget_ref[] NOT NULL DEFAULT '{}';

SELECT ambit_worker_table('holds', 'SELECT, UPDATE (state)', 'holds that ran out under a step that was begun are marked by one pass');
-- The pass that marks holds that ran out.
CREATE INDEX holds_expiring ON holds (expires_at) WHERE state = 'held';

-- budget_period_start is when the period that holds a moment began, in a zone. Days of a change of the clocks have 23 or 25 hours.
-- +goose StatementBegin
CREATE FUNCTION budget_period_start(p_period text, p_zone text, p_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p_period = 'total' THEN '-infinity'::timestamptz ELSE date_trunc(p_period, p_at, p_zone) END
$$;
-- +goose StatementEnd

-- budget_room says which periods a hold would count in, and whether each blocking budget has room for it. Periods go by the database's
-- clock, so that no replica whose own clock is wrong finds a period that is not. What is pending was decided in the same transaction and is not
-- written yet; what a ceiling holds already is not asked for again, but a budget that was lowered below what it holds refuses.
-- +goose StatementBegin
CREATE FUNCTION budget_room(p_org text, p_scopes text[], p_amount bigint, p_counted budget_ref[], p_pending budget_ref[], p_pending_amounts bigint[],
  OUT refs budget_ref[], OUT short text, OUT short_name text, OUT available bigint) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  b record;
  ref budget_ref;
  room bigint;
  counted boolean;
BEGIN
  refs := '{}';
  FOR b IN SELECT x.id, x.name, x.limit_nanos, x.action, budget_period_start(x.period, o.time_zone, clock_timestamp()) AS starts
           FROM budgets x JOIN organizations o ON o.id = x.org_id
           WHERE x.org_id = p_org AND x.scope = ANY (p_scopes) AND x.archived_at IS NULL ORDER BY x.id LOOP
    ref := ROW (b.id, b.starts)::budget_ref;
    counted := EXISTS (SELECT FROM unnest(p_counted) c WHERE c.budget = b.id);
    INSERT INTO budget_periods (org_id, budget_id, starts_at) VALUES (p_org, b.id, b.starts) ON CONFLICT DO NOTHING;
    SELECT b.limit_nanos - p.spent_nanos - p.held_nanos INTO room FROM budget_periods p
      WHERE p.org_id = p_org AND p.budget_id = b.id AND p.starts_at = b.starts FOR NO KEY UPDATE;
    room := room - coalesce((SELECT sum(w.amount) FROM unnest(p_pending, p_pending_amounts) w (budget, starts, amount) WHERE w.budget = b.id AND w.starts = b.starts), 0);
    IF b.action = 'block' AND room < (CASE WHEN counted THEN 0 ELSE p_amount END) THEN
      short := b.id;
      short_name := b.name;
      available := greatest(room, 0);
      RETURN;
    END IF;
    IF NOT counted THEN
      refs := refs || ref;
    END IF;
  END LOOP;
END $$;
-- +goose StatementEnd

-- The balances and the budgets follow all transfers of a statement at once, by a trigger, so that no code can write one without the other.
DROP TRIGGER ledger_apply ON ledger_transfers;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  wanted int;
  touched int;
BEGIN
  UPDATE account_balances b SET balance_nanos = b.balance_nanos + m.amount, updated_at = m.at
    FROM (SELECT p.org_id, a.account, sum(a.amount)::bigint AS amount, max(p.created_at) AS at
          FROM posted p, LATERAL (VALUES (p.credit_account, p.amount_nanos), (p.debit_account, -p.amount_nanos)) a (account, amount)
          GROUP BY p.org_id, a.account) m
    WHERE b.org_id = m.org_id AND b.account = m.account;
  GET DIAGNOSTICS touched = ROW_COUNT;
  SELECT count(DISTINCT (p.org_id, a.account)) INTO wanted FROM posted p, LATERAL (VALUES (p.credit_account), (p.debit_account)) a (account);
  IF touched <> wanted THEN
    -- An account that was never opened begins with this very amount.
    INSERT INTO account_balances (org_id, account, balance_nanos, updated_at)
      SELECT p.org_id, a.account, sum(a.amount), max(p.created_at)
      FROM posted p, LATERAL (VALUES (p.credit_account, p.amount_nanos), (p.debit_account, -p.amount_nanos)) a (account, amount)
      GROUP BY p.org_id, a.account
      ON CONFLICT (org_id, account) DO NOTHING;
  END IF;
  IF EXISTS (SELECT FROM posted p WHERE p.budgets <> '{}') THEN
    UPDATE budget_periods b SET held_nanos = b.held_nanos + m.held, spent_nanos = b.spent_nanos + m.spent
      FROM (SELECT p.org_id, r.budget, r.starts,
                   sum(CASE WHEN p.credit_account = 'held' THEN p.amount_nanos WHEN p.debit_account = 'held' THEN -p.amount_nanos ELSE 0 END)::bigint AS held,
                   sum(CASE WHEN p.kind = 'capture' THEN p.amount_nanos ELSE 0 END)::bigint AS spent
            FROM posted p, LATERAL unnest(p.budgets) r GROUP BY p.org_id, r.budget, r.starts) m
      WHERE b.org_id = m.org_id AND b.budget_id = m.budget AND b.starts_at = m.starts;
    INSERT INTO budget_alerts (org_id, budget_id, starts_at, percent, spent_nanos, limit_nanos)
      SELECT DISTINCT b.org_id, b.id, q.starts_at, t.percent, q.spent_nanos, b.limit_nanos
      FROM posted p, LATERAL unnest(p.budgets) r
        JOIN budgets b ON b.id = r.budget
        JOIN budget_periods q ON q.budget_id = r.budget AND q.starts_at = r.starts, LATERAL unnest(b.alerts) t (percent)
      WHERE p.kind = 'capture' AND b.org_id = p.org_id AND q.org_id = p.org_id AND q.spent_nanos::numeric * 100 >= b.limit_nanos::numeric * t.percent
      ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_apply AFTER INSERT ON ledger_transfers REFERENCING NEW TABLE AS posted FOR EACH STATEMENT EXECUTE FUNCTION ledger_apply();

DROP FUNCTION ledger_place(text, text, text, text, text, bigint, text, jsonb, timestamptz, timestamptz, text);
DROP FUNCTION ledger_settle(text, text, bigint, timestamptz, text, text, text);

-- ledger_place reserves an amount: out of the parent, or out of the balance and of every budget that covers the session. placed is false
-- when there is not that much; available then says what there is, and short names the budget, or nothing where it is the parent or the
-- balance.
-- +goose StatementBegin
CREATE FUNCTION ledger_place(
  p_org text, p_hold text, p_parent text, p_session text, p_step text, p_amount bigint, p_price_version text, p_lines jsonb,
  p_expires timestamptz, p_now timestamptz, p_entry text, OUT placed boolean, OUT available bigint, OUT short text, OUT short_name text
) LANGUAGE plpgsql AS $$
DECLARE
  scopes text[];
  counted budget_ref[] := '{}';
  refs budget_ref[] := '{}';
  parent holds;
  room record;
BEGIN
  PERFORM 1 FROM account_balances b WHERE b.org_id = p_org ORDER BY b.account FOR NO KEY UPDATE;
  IF p_parent <> '' THEN
    SELECT x.* INTO parent FROM holds x WHERE x.org_id = p_org AND x.id = p_parent FOR NO KEY UPDATE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no hold % to carve from', p_parent;
    END IF;
    available := CASE WHEN parent.state IN ('held', 'unsettled') THEN parent.amount_nanos - parent.carved_nanos - parent.captured_nanos - parent.released_nanos ELSE 0 END;
    counted := parent.budgets;
  END IF;
  IF p_parent = '' THEN
    SELECT b.balance_nanos INTO available FROM account_balances b WHERE b.org_id = p_org AND b.account = 'available';
    available := coalesce(available, 0); -- no row: nothing was ever granted
  END IF;
  placed := available >= p_amount;
  IF NOT placed THEN
    RETURN;
  END IF;
  SELECT s.budget_scopes INTO scopes FROM sessions s WHERE s.org_id = p_org AND s.id = p_session;
  SELECT * INTO room FROM budget_room(p_org, scopes, p_amount, counted, '{}', '{}');
  IF room.short IS NOT NULL THEN
    placed := false;
    available := room.available;
    short := room.short;
    short_name := room.short_name;
    RETURN;
  END IF;
  IF p_parent <> '' THEN
    UPDATE holds SET carved_nanos = carved_nanos + p_amount WHERE org_id = p_org AND id = p_parent;
  ELSE
    refs := room.refs;
  END IF;
  INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at, budgets)
    VALUES (p_org, p_hold, nullif(p_parent, ''), p_session, nullif(p_step, ''), p_amount, 'held', p_price_version, p_lines, p_expires, p_now, refs);
  IF p_parent = '' AND p_amount > 0 THEN
    INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, created_at, budgets)
      VALUES (p_org, p_entry, 'available', 'held', p_amount, 'hold', p_hold, p_session, nullif(p_step, ''), p_now, refs);
  END IF;
END $$;
-- +goose StatementEnd

-- ledger_settle captures what an effect used, at most its hold, and releases the rest; what was used above the hold is booked as the
-- platform's loss. A hold is settled once: state says what a second call found. Locks go balances, ceiling, hold, as everywhere.
-- +goose StatementBegin
CREATE FUNCTION ledger_settle(
  p_org text, p_hold text, p_used bigint, p_now timestamptz, p_capture text, p_release text, p_loss text,
  OUT state text, OUT captured bigint, OUT released bigint, OUT excess bigint
) LANGUAGE plpgsql AS $$
DECLARE
  h holds;
  parent holds;
  parent_open boolean := false;
  left_over bigint;
  counts budget_ref[];
BEGIN
  PERFORM 1 FROM account_balances b WHERE b.org_id = p_org ORDER BY b.account FOR NO KEY UPDATE;
  SELECT p.* INTO parent FROM holds p WHERE p.org_id = p_org AND p.id = (SELECT c.parent_id FROM holds c WHERE c.org_id = p_org AND c.id = p_hold) FOR NO KEY UPDATE;
  SELECT x.* INTO h FROM holds x WHERE x.org_id = p_org AND x.id = p_hold FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no hold %', p_hold;
  END IF;
  IF h.state NOT IN ('held', 'unsettled') THEN
    state := h.state;
    RETURN;
  END IF;
  parent_open := coalesce(parent.state IN ('held', 'unsettled'), false);
  counts := CASE WHEN h.parent_id IS NULL THEN h.budgets ELSE parent.budgets END;
  left_over := h.amount_nanos - h.carved_nanos - h.captured_nanos - h.released_nanos;
  captured := least(p_used, left_over);
  released := left_over - captured;
  excess := p_used - captured;
  state := 'settled';
  UPDATE holds x SET captured_nanos = x.captured_nanos + captured, released_nanos = x.released_nanos + released, settled_at = p_now,
      state = CASE WHEN x.captured_nanos + captured = 0 THEN 'released' ELSE 'captured' END
    WHERE x.org_id = p_org AND x.id = p_hold;
  IF h.parent_id IS NOT NULL THEN
    -- What a child releases stays with its parent while that is open. A parent that was settled before can't give it back any more.
    UPDATE holds x SET carved_nanos = x.carved_nanos - h.amount_nanos, captured_nanos = x.captured_nanos + captured,
        released_nanos = x.released_nanos + CASE WHEN parent_open THEN 0 ELSE released END
      WHERE x.org_id = p_org AND x.id = parent.id;
  END IF;
  INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at, budgets)
    SELECT p_org, t.id, t.debit, t.credit, t.amount, t.kind, p_hold, h.session_id, h.step_id, t.note, p_now, t.counts
    FROM (VALUES
      (p_capture, 'held', 'spent', captured, 'capture', '', counts),
      (p_release, 'held', 'available', CASE WHEN parent_open THEN 0 ELSE released END, 'release', '', counts),
      (p_loss, 'loss', 'spent', excess, 'loss', 'used above the hold', '{}'::budget_ref[])) t (id, debit, credit, amount, kind, note, counts)
    WHERE t.amount > 0;
END $$;
-- +goose StatementEnd

-- budget_open begins a budget's current period with what was spent and is held in it already by the sessions that it covers, and makes the
-- open holds count in it from here on. The accounts are locked first, as every hold's placing does, so that none is missed.
-- +goose StatementBegin
CREATE FUNCTION budget_open(p_org text, p_budget text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  b budgets;
  starts timestamptz;
  held bigint;
  spent bigint;
BEGIN
  PERFORM 1 FROM account_balances a WHERE a.org_id = p_org ORDER BY a.account FOR NO KEY UPDATE;
  SELECT x.* INTO b FROM budgets x WHERE x.org_id = p_org AND x.id = p_budget;
  SELECT budget_period_start(b.period, o.time_zone, clock_timestamp()) INTO starts FROM organizations o WHERE o.id = p_org;
  WITH counted AS (
    UPDATE holds h SET budgets = h.budgets || ROW (p_budget, starts)::budget_ref
      FROM sessions s
      WHERE h.org_id = p_org AND s.org_id = p_org AND s.id = h.session_id AND b.scope = ANY (s.budget_scopes)
        AND h.parent_id IS NULL AND h.state IN ('held', 'unsettled')
      RETURNING h.amount_nanos - h.captured_nanos - h.released_nanos AS open
  )
  SELECT coalesce(sum(open), 0) INTO held FROM counted;
  SELECT coalesce(sum(t.amount_nanos), 0) INTO spent
    FROM ledger_transfers t JOIN sessions s ON s.org_id = t.org_id AND s.id = t.session_id
    WHERE t.org_id = p_org AND t.kind = 'capture' AND t.created_at >= starts AND b.scope = ANY (s.budget_scopes);
  INSERT INTO budget_periods (org_id, budget_id, starts_at, held_nanos, spent_nanos, opening_held_nanos, opening_spent_nanos)
    VALUES (p_org, p_budget, starts, held, spent, held, spent);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION budget_open(text, text);
DROP FUNCTION ledger_settle(text, text, bigint, timestamptz, text, text, text);
DROP FUNCTION ledger_place(text, text, text, text, text, bigint, text, jsonb, timestamptz, timestamptz, text);
DROP TRIGGER ledger_apply ON ledger_transfers;
DROP FUNCTION budget_room(text, text[], bigint, budget_ref[], budget_ref[], bigint[]);
DROP FUNCTION budget_period_start(text, text, timestamptz);
DROP INDEX holds_expiring;
DROP POLICY worker ON holds;
ALTER TABLE ledger_transfers DROP COLUMN budgets;
ALTER TABLE holds DROP COLUMN budgets;
DROP TYPE budget_ref;
DROP TABLE budget_alerts;
DROP TABLE budget_periods;
DROP TABLE budgets;
ALTER TABLE sessions DROP COLUMN budget_scopes;
ALTER TABLE organizations DROP COLUMN time_zone;
