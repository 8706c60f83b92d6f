-- +goose Up

-- What was spent in a time: usage is summed from the captures, and a new budget begins with them.
CREATE INDEX ledger_captures ON ledger_transfers (org_id, created_at) WHERE kind = 'capture';

-- Credit and losses are few among many: a page of them must not read the whole ledger.
CREATE INDEX ledger_rare ON ledger_transfers (org_id, id) WHERE kind IN ('grant', 'revocation', 'loss');

-- What is held for effects of which nothing was heard in time: it is looked for on each page about the ledger, and there is little of it.
CREATE INDEX holds_unsettled ON holds (org_id, id) WHERE state = 'unsettled';

-- The pass that tells of alerts only finds the organisations that have some; it writes as each of them.
REVOKE UPDATE ON budget_alerts FROM ambit_worker;

-- budget_reopen brings a budget's current period in line with what the sessions that it covers spent in it and hold now, when the period
-- is another one than before. A period that was there already, from an earlier time in that zone, is corrected and not begun anew. The
-- accounts are locked first, as every hold's placing does, so that none is missed.
-- +goose StatementBegin
CREATE FUNCTION budget_reopen(p_org text, p_budget text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  b budgets;
  ref budget_ref;
  held bigint;
  spent bigint;
BEGIN
  PERFORM 1 FROM account_balances a WHERE a.org_id = p_org ORDER BY a.account FOR NO KEY UPDATE;
  SELECT x.* INTO b FROM budgets x WHERE x.org_id = p_org AND x.id = p_budget;
  SELECT b.id, budget_period_start(b.period, o.time_zone, clock_timestamp()) INTO ref FROM organizations o WHERE o.id = p_org;
  -- The period before keeps its count of these too, so that it is right if the zone is changed back.
  UPDATE holds h SET budgets = h.budgets || ref
    FROM sessions s
    WHERE h.org_id = p_org AND s.org_id = p_org AND s.id = h.session_id AND b.scope = ANY (s.budget_scopes)
      AND h.parent_id IS NULL AND h.state IN ('held', 'unsettled') AND NOT ref = ANY (h.budgets);
  SELECT coalesce(sum(h.amount_nanos - h.captured_nanos - h.released_nanos), 0) INTO held
    FROM holds h WHERE h.org_id = p_org AND h.parent_id IS NULL AND h.state IN ('held', 'unsettled') AND ref = ANY (h.budgets);
  SELECT coalesce(sum(t.amount_nanos), 0) INTO spent
    FROM ledger_transfers t JOIN sessions s ON s.org_id = t.org_id AND s.id = t.session_id
    WHERE t.org_id = p_org AND t.kind = 'capture' AND t.created_at >= (ref).starts AND b.scope = ANY (s.budget_scopes);
  INSERT INTO budget_periods AS p (org_id, budget_id, starts_at, held_nanos, spent_nanos, opening_held_nanos, opening_spent_nanos)
    VALUES (p_org, p_budget, (ref).starts, held, spent, held, spent)
    ON CONFLICT (org_id, budget_id, starts_at) DO UPDATE SET
      held_nanos = excluded.held_nanos, spent_nanos = excluded.spent_nanos,
      opening_held_nanos = p.opening_held_nanos + excluded.held_nanos - p.held_nanos,
      opening_spent_nanos = p.opening_spent_nanos + excluded.spent_nanos - p.spent_nanos;
END $$;
-- +goose StatementEnd

-- A change of the zone moves the beginnings of days, weeks and months. Without this a budget would begin the new period with nothing spent.
-- +goose StatementBegin
CREATE FUNCTION ambit_zone_changes_budgets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  b record;
BEGIN
  FOR b IN SELECT x.id FROM budgets x
           WHERE x.org_id = NEW.id AND x.archived_at IS NULL
             AND budget_period_start(x.period, OLD.time_zone, clock_timestamp()) <> budget_period_start(x.period, NEW.time_zone, clock_timestamp())
           ORDER BY x.id LOOP
    PERFORM budget_reopen(NEW.id, b.id);
  END LOOP;
  RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER zone_changes_budgets AFTER UPDATE OF time_zone ON organizations
  FOR EACH ROW WHEN (OLD.time_zone IS DISTINCT FROM NEW.time_zone) EXECUTE FUNCTION ambit_zone_changes_budgets();

-- Whether a name is one of the zones by which the database reckons.
CREATE FUNCTION ambit_knows_zone(zone text) RETURNS boolean LANGUAGE sql STABLE
  AS $$ SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = zone) $$;

-- For an operator's command, which names an organisation by its id or by its short name.
CREATE FUNCTION ambit_find_organization(wanted text) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
  AS $$ SELECT id FROM organizations o WHERE o.id = wanted OR o.slug = wanted $$;
-- +goose StatementBegin
DO $$
BEGIN
  ALTER FUNCTION ambit_find_organization(text) OWNER TO ambit_definer;
  REVOKE ALL ON FUNCTION ambit_find_organization(text) FROM PUBLIC;
  GRANT EXECUTE ON FUNCTION ambit_find_organization(text) TO ambit_app;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION ambit_knows_zone(text);
DROP FUNCTION ambit_find_organization(text);
DROP TRIGGER zone_changes_budgets ON organizations;
DROP FUNCTION ambit_zone_changes_budgets();
DROP FUNCTION budget_reopen(text, text);
GRANT UPDATE ON budget_alerts TO ambit_worker;
DROP INDEX holds_unsettled;
DROP INDEX ledger_rare;
DROP INDEX ledger_captures;
