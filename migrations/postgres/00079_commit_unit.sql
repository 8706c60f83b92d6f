-- +goose Up

-- Rows that are written again and again in place keep room for it on their page, so that an update need not touch the indexes.
ALTER TABLE sessions SET (fillfactor = 70);
ALTER TABLE account_balances SET (fillfactor = 20);
ALTER TABLE holds SET (fillfactor = 80);
ALTER TABLE steps SET (fillfactor = 80);

-- A row of these is only ever written together with its session's row or its organisation's balances, which carry the reference. Proving
-- it once more for each row took a lock on the parent that made all sessions of an organisation wait for one another.
ALTER TABLE events DROP CONSTRAINT events_org_id_session_id_fkey;
ALTER TABLE steps DROP CONSTRAINT steps_org_id_session_id_fkey;
ALTER TABLE ledger_transfers DROP CONSTRAINT ledger_transfers_org_id_fkey;
ALTER TABLE holds DROP CONSTRAINT holds_org_id_fkey;

-- commit_unit is one session's next commit: it settles the hold of the effect that ended, places the hold of the effect that follows, and
-- appends the events that say so, all or nothing. It answers and never raises where a unit can't be, so that many units share one
-- transaction and none takes another down:
--   committed  all is written
--   fenced     the worker's lease is over, or the session has ended
--   moved      others have appended: what was decided is out of date
--   short      the hold can't be had; available says what there is, short names the budget that has too little, or nothing where it is the
--              session's ceiling or the balance
--   ruled      the organisation's rules have changed since the decision was made: it is to be made again
--   busy       the session's row is locked just now, and p_wait was false
-- Except for committed nothing of the unit was written. Locks are taken in the order session, rules, holds, accounts, budgets; sessions of a batch are not waited for,
-- so a batch holds nothing that somebody waits for who holds what it wants.
-- +goose StatementBegin
CREATE FUNCTION commit_unit(
  p_org text, p_session text, p_project text, p_owner text, p_epoch bigint, p_seen bigint, p_policy bigint, p_wait boolean, p_now timestamptz,
  p_settle_hold text, p_settle_amount bigint, p_used bigint, p_capture_entry text, p_release_entry text, p_loss_entry text,
  p_hold text, p_parent text, p_hold_step text, p_amount bigint, p_price_version text, p_lines jsonb, p_expires timestamptz, p_hold_entry text,
  p_schema_version smallint, p_seqs bigint[], p_ids text[], p_types text[], p_step_ids text[], p_payloads text[],
  p_intended_step text, p_intended_kind text, p_intended_key text, p_intended_seq bigint, p_intended_name text, p_intended_hold text,
  p_settled_step text, p_settled_seq bigint, p_settled_outcome text, p_settled_usage jsonb, p_settled_cost bigint, p_settled_error jsonb,
  p_last_seq bigint, p_status text, p_stop_reason jsonb, p_usage jsonb, p_charged bigint, p_limits jsonb, p_release_lease boolean,
  p_spans text[],
  OUT outcome text, OUT available bigint, OUT short text, OUT short_name text
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  head record;
  settled holds;
  parent holds;
  parent_open boolean := false;
  carved boolean := false; -- what is settled was carved from the parent
  captured bigint := 0;
  released bigint := 0;
  excess bigint := 0;
  rules bigint;
  counts budget_ref[] := '{}'; -- the periods in which what is settled counts
  refs budget_ref[] := '{}'; -- and what is placed
  room record;
BEGIN
  PERFORM set_config('app.org_id', p_org, true);
  IF p_wait THEN
    SELECT epoch, lease_owner, lease_expires_at > clock_timestamp() AS live, status, last_seq, budget_scopes INTO head
      FROM sessions WHERE org_id = p_org AND id = p_session FOR NO KEY UPDATE;
  ELSE
    SELECT epoch, lease_owner, lease_expires_at > clock_timestamp() AS live, status, last_seq, budget_scopes INTO head
      FROM sessions WHERE org_id = p_org AND id = p_session FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      outcome := 'busy';
      RETURN;
    END IF;
  END IF;
  IF head.epoch IS DISTINCT FROM p_epoch OR head.lease_owner IS DISTINCT FROM p_owner OR head.live IS NOT TRUE OR head.status NOT IN ('running', 'rescheduling') THEN
    outcome := 'fenced';
    RETURN;
  END IF;
  IF head.last_seq <> p_seen THEN
    outcome := 'moved';
    RETURN;
  END IF;

  -- A change of the rules and an admission under the old ones can't both be under way: whoever comes second sees the first.
  IF p_policy >= 0 THEN
    SELECT version INTO rules FROM policy_versions WHERE org_id = p_org FOR SHARE;
    IF coalesce(rules, 0) <> p_policy THEN
      outcome := 'ruled';
      RETURN;
    END IF;
  END IF;

  -- Look, before anything is written.
  IF p_settle_hold <> '' THEN
    SELECT * INTO settled FROM holds WHERE org_id = p_org AND id = p_settle_hold FOR NO KEY UPDATE;
    IF NOT FOUND OR settled.state NOT IN ('held', 'unsettled') OR settled.amount_nanos <> p_settle_amount OR settled.carved_nanos + settled.captured_nanos + settled.released_nanos <> 0 THEN
      RAISE EXCEPTION 'hold % is not open with the amount %', p_settle_hold, p_settle_amount;
    END IF;
    captured := least(p_used, settled.amount_nanos);
    released := settled.amount_nanos - captured;
    excess := p_used - captured;
  END IF;
  IF p_parent <> '' OR settled.parent_id IS NOT NULL THEN
    SELECT * INTO parent FROM holds WHERE org_id = p_org AND id = coalesce(nullif(p_parent, ''), settled.parent_id) FOR NO KEY UPDATE;
    IF NOT FOUND OR settled.parent_id <> parent.id THEN
      RAISE EXCEPTION 'hold % and what is settled have not the same ceiling', p_parent;
    END IF;
    parent_open := parent.state IN ('held', 'unsettled');
    carved := settled.parent_id IS NOT NULL;
  END IF;
  IF p_settle_hold <> '' THEN
    counts := CASE WHEN carved THEN parent.budgets ELSE settled.budgets END;
  END IF;
  IF p_settle_hold <> '' OR p_hold <> '' THEN
    SELECT max(b.balance_nanos) INTO available
      FROM (SELECT account, balance_nanos FROM account_balances WHERE org_id = p_org ORDER BY account FOR NO KEY UPDATE) b WHERE b.account = 'available';
    available := coalesce(available, 0); -- no row: nothing was ever granted
  END IF;
  IF p_hold <> '' THEN
    IF p_parent <> '' THEN
      available := CASE WHEN parent_open THEN parent.amount_nanos - parent.carved_nanos - parent.captured_nanos - parent.released_nanos
        + CASE WHEN carved THEN released ELSE 0 END ELSE 0 END;
    ELSIF NOT (carved AND parent_open) THEN
      available := available + released;
    END IF;
    IF available < p_amount THEN
      outcome := 'short';
      RETURN;
    END IF;
    IF EXISTS (SELECT FROM budgets b WHERE b.org_id = p_org AND b.scope = ANY (head.budget_scopes) AND b.archived_at IS NULL) THEN
      SELECT * INTO room FROM budget_room(p_org, head.budget_scopes, p_amount, CASE WHEN p_parent = '' THEN '{}' ELSE parent.budgets END,
        CASE WHEN carved THEN '{}' ELSE counts END, released);
      IF room.short IS NOT NULL THEN
        outcome := 'short';
        available := room.available;
        short := room.short;
        short_name := room.short_name;
        RETURN;
      END IF;
      IF p_parent = '' THEN
        refs := room.refs;
      END IF;
    END IF;
  END IF;

  -- Write.
  IF p_settle_hold <> '' THEN
    UPDATE holds h SET captured_nanos = captured, released_nanos = released, settled_at = p_now, state = CASE WHEN captured = 0 THEN 'released' ELSE 'captured' END
      WHERE h.org_id = p_org AND h.id = p_settle_hold;
  END IF;
  IF parent.id IS NOT NULL THEN
    -- What a child releases stays with its parent while that is open. A parent that was settled before can't give it back any more.
    UPDATE holds h SET captured_nanos = h.captured_nanos + CASE WHEN carved THEN captured ELSE 0 END,
        carved_nanos = h.carved_nanos - CASE WHEN carved THEN settled.amount_nanos ELSE 0 END + CASE WHEN p_parent = '' THEN 0 ELSE p_amount END,
        released_nanos = h.released_nanos + CASE WHEN carved AND NOT parent_open THEN released ELSE 0 END
      WHERE h.org_id = p_org AND h.id = parent.id;
  END IF;
  IF p_hold <> '' THEN
    INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at, budgets)
      VALUES (p_org, p_hold, nullif(p_parent, ''), p_session, p_hold_step, p_amount, 'held', p_price_version, p_lines, p_expires, p_now, refs);
  END IF;
  INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at, budgets)
    SELECT p_org, t.id, t.debit, t.credit, t.amount, t.kind, t.hold, p_session, t.step, t.note, p_now, t.counts
    FROM (VALUES
      (p_capture_entry, 'held', 'spent', captured, 'capture', p_settle_hold, settled.step_id, '', counts),
      (p_release_entry, 'held', 'available', CASE WHEN carved AND parent_open THEN 0 ELSE released END, 'release', p_settle_hold, settled.step_id, '', counts),
      (p_loss_entry, 'loss', 'spent', excess, 'loss', p_settle_hold, settled.step_id, 'used above the hold', '{}'),
      (p_hold_entry, 'available', 'held', CASE WHEN p_hold <> '' AND p_parent = '' THEN p_amount ELSE 0 END, 'hold', p_hold, p_hold_step, '', refs)
    ) t (id, debit, credit, amount, kind, hold, step, note, counts)
    WHERE t.amount > 0;
  INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, step_id, payload, created_at)
    SELECT p_org, p_session, e.seq, e.id, e.type, p_schema_version, p_epoch, nullif(e.step, ''), e.payload::jsonb, p_now
    FROM unnest(p_seqs, p_ids, p_types, p_step_ids, p_payloads) e (seq, id, type, step, payload);
  IF p_settled_step <> '' THEN
    UPDATE steps SET settled_seq = p_settled_seq, outcome = p_settled_outcome, usage = p_settled_usage, cost_nanos = p_settled_cost, error = p_settled_error, settled_at = p_now
      -- Not IS NULL: the planner would then look through the session's open steps, dead rows and all, and not at the one row.
      WHERE org_id = p_org AND id = p_settled_step AND settled_seq IS NOT DISTINCT FROM NULL;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'step % is not open', p_settled_step;
    END IF;
  END IF;
  IF p_intended_step <> '' THEN
    INSERT INTO steps (org_id, session_id, id, kind, effect_key, epoch, intended_seq, name, hold_id, intended_at)
      VALUES (p_org, p_session, p_intended_step, p_intended_kind, p_intended_key, p_epoch, p_intended_seq, p_intended_name, nullif(p_intended_hold, ''), p_now);
  END IF;
  UPDATE sessions SET last_seq = p_last_seq, status = p_status, stop_reason = p_stop_reason, usage = p_usage, charged_nanos = p_charged, limits = p_limits,
      last_active_at = p_now, updated_at = p_now, version = version + 1,
      lease_owner = CASE WHEN p_release_lease THEN NULL ELSE lease_owner END, lease_address = CASE WHEN p_release_lease THEN NULL ELSE lease_address END,
      lease_expires_at = CASE WHEN p_release_lease THEN NULL ELSE lease_expires_at END
    WHERE org_id = p_org AND id = p_session;
  INSERT INTO outbox (org_id, project_id, session_id, kind, payload) SELECT p_org, p_project, p_session, 'span', s::json FROM unnest(p_spans) s;
  outcome := 'committed';
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION commit_unit;
ALTER TABLE events ADD FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id);
ALTER TABLE steps ADD FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id);
ALTER TABLE ledger_transfers ADD FOREIGN KEY (org_id) REFERENCES organizations (id);
ALTER TABLE holds ADD FOREIGN KEY (org_id) REFERENCES organizations (id);
