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

-- commit_units writes the next commits of sessions of one organisation. Each unit settles the hold of the effect that ended, places the hold of
-- the effect that follows, and appends the events that say so, all or nothing. All that units have in common is done once: the lock on the
-- balances, and the inserts. What can't be is answered and not raised, so that none takes another down:
--   committed  all is written
--   fenced     the worker's lease is over, or the session has ended
--   moved      others have appended: what was decided is out of date
--   ruled      the organisation's rules have changed since the decision was made: it is to be made again
--   breached   the model once used more than its bound, and nobody has mended that since
--   short      the hold can't be had; available says what there is, short names the budget that has too little, or nothing where it is the
--              session's ceiling or the balance
--   busy       the session's row is locked just now, and p_wait was false
-- Except for committed nothing of the unit is written. At a limit, units are admitted in their order, and one that does not fit holds up none
-- behind it that does. Locks are taken in the order sessions, rules, balances, holds, budgets; a session's holds are written by whoever has its row.
-- Sessions of a batch are not waited for, so a batch holds nothing that somebody waits for who holds what it wants.
-- +goose StatementBegin
CREATE FUNCTION commit_units(
  p_org text, p_wait boolean, p_schema_version smallint,
  p_sessions text[], p_projects text[], p_owners text[], p_epochs bigint[], p_seen bigint[], p_policies bigint[], p_nows timestamptz[],
  p_settle_holds text[], p_settle_amounts bigint[], p_used bigint[], p_capture_entries text[], p_release_entries text[], p_loss_entries text[],
  p_holds text[], p_parents text[], p_hold_steps text[], p_amounts bigint[], p_price_versions text[], p_lines text[], p_expires timestamptz[], p_hold_entries text[],
  p_event_units int[], p_seqs bigint[], p_ids text[], p_types text[], p_step_ids text[], p_payloads text[],
  p_intended_steps text[], p_intended_kinds text[], p_intended_keys text[], p_intended_seqs bigint[], p_intended_names text[],
  p_settled_steps text[], p_settled_seqs bigint[], p_settled_outcomes text[], p_settled_usages text[], p_settled_costs bigint[], p_settled_errors text[],
  p_last_seqs bigint[], p_statuses text[], p_stop_reasons text[], p_usages text[], p_charged bigint[], p_limits text[], p_release_leases boolean[],
  p_span_units int[], p_spans text[]
) RETURNS TABLE (unit int, outcome text, available bigint, short text, short_name text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  head record;
  settle holds;
  parent holds;
  rules bigint;
  balance bigint;
  budgeted boolean;
  parent_open boolean;
  carved boolean;
  room record;
  counts budget_ref[];                    -- the periods in which what a unit settles counts
  refs budget_ref[];                      -- and what it places
  pending budget_ref[] := '{}';           -- what units before have taken from budgets' periods,
  pending_amounts bigint[] := '{}';       -- and how much; below zero is given back
  with_own budget_ref[];                  -- the same with what this unit's own settlement gives back
  with_own_amounts bigint[];
  done int[] := '{}';
  captured bigint[] := '{}';              -- by unit, zero for those that settle nothing or are not committed
  freed bigint[] := '{}';                 -- of what is released, what goes back to the balance and not to a ceiling
  excess bigint[] := '{}';
  settles_step text[] := '{}';            -- the step whose hold it settles
  count_units int[] := '{}';
  count_refs budget_ref[] := '{}';
  hold_units int[] := '{}';
  hold_refs budget_ref[] := '{}';
  cap bigint;
  rel bigint;
  back bigint;
  free bigint;
  n int;
BEGIN
  PERFORM set_config('app.org_id', p_org, true);
  IF p_wait THEN
    PERFORM 1 FROM sessions s WHERE s.org_id = p_org AND s.id = ANY (p_sessions) ORDER BY s.id FOR NO KEY UPDATE;
  END IF;
  -- A change of the rules and an admission under the old ones can't both be under way: whoever comes second sees the first.
  SELECT v.version INTO rules FROM policy_versions v WHERE v.org_id = p_org FOR SHARE;
  rules := coalesce(rules, 0);
  SELECT coalesce(max(b.balance_nanos) FILTER (WHERE b.account = 'available'), 0) INTO balance -- no row: nothing was ever granted
    FROM (SELECT a.account, a.balance_nanos FROM account_balances a WHERE a.org_id = p_org ORDER BY a.account FOR NO KEY UPDATE) b;
  budgeted := EXISTS (SELECT FROM budgets b WHERE b.org_id = p_org AND b.archived_at IS NULL);

  FOR n IN 1..cardinality(p_sessions) LOOP
    unit := n;
    available := 0;
    short := '';
    short_name := '';
    captured[n] := 0;
    freed[n] := 0;
    excess[n] := 0;
    settles_step[n] := '';
    -- One row by its key at a time, here and below: a plan for many at once, made while a table was small, would read all of it later.
    SELECT s.epoch, s.lease_owner, s.lease_expires_at > clock_timestamp() AS live, s.status, s.last_seq, s.budget_scopes INTO head
      FROM sessions s WHERE s.org_id = p_org AND s.id = p_sessions[n] FOR NO KEY UPDATE SKIP LOCKED;
    outcome := CASE
      WHEN NOT FOUND THEN CASE WHEN p_wait THEN 'fenced' ELSE 'busy' END -- who has waited and finds none looks for a session that is not there
      WHEN head.epoch <> p_epochs[n] OR head.lease_owner IS DISTINCT FROM p_owners[n] OR head.live IS NOT TRUE OR head.status NOT IN ('running', 'rescheduling') THEN 'fenced'
      WHEN head.last_seq <> p_seen[n] THEN 'moved'
      WHEN p_policies[n] >= 0 AND p_policies[n] <> rules THEN 'ruled'
      WHEN p_holds[n] <> '' AND p_intended_kinds[n] = 'model_call' AND EXISTS (SELECT FROM bound_breaches b WHERE b.model = p_intended_names[n]) THEN 'breached'
      ELSE 'committed' END;
    IF outcome <> 'committed' THEN
      RETURN NEXT;
      CONTINUE;
    END IF;

    -- Look, before anything of the unit is written.
    cap := 0;
    rel := 0;
    back := 0;
    carved := false;
    parent_open := false;
    counts := '{}';
    refs := '{}';
    IF p_settle_holds[n] <> '' THEN
      SELECT h.* INTO settle FROM holds h WHERE h.org_id = p_org AND h.id = p_settle_holds[n];
      IF NOT FOUND OR settle.state NOT IN ('held', 'unsettled') OR settle.amount_nanos <> p_settle_amounts[n] OR settle.carved_nanos + settle.captured_nanos + settle.released_nanos <> 0 THEN
        RAISE EXCEPTION 'hold % is not open with the amount %', p_settle_holds[n], p_settle_amounts[n];
      END IF;
      cap := least(p_used[n], settle.amount_nanos);
      rel := settle.amount_nanos - cap;
      carved := settle.parent_id IS NOT NULL;
      counts := settle.budgets;
    END IF;
    IF carved OR p_parents[n] <> '' THEN
      SELECT h.* INTO parent FROM holds h WHERE h.org_id = p_org AND h.id = CASE WHEN carved THEN settle.parent_id ELSE p_parents[n] END;
      IF NOT FOUND OR (p_parents[n] <> '' AND parent.id <> p_parents[n]) THEN
        RAISE EXCEPTION 'the unit of % and what it settles have not the same ceiling', p_sessions[n];
      END IF;
      parent_open := parent.state IN ('held', 'unsettled');
      IF carved THEN
        counts := parent.budgets;
      END IF;
    END IF;
    back := CASE WHEN carved AND parent_open THEN 0 ELSE rel END;
    with_own := pending;
    with_own_amounts := pending_amounts;
    IF cardinality(counts) > 0 THEN
      with_own := with_own || counts;
      with_own_amounts := with_own_amounts || array_fill(-back, ARRAY[cardinality(counts)]);
    END IF;
    IF p_holds[n] <> '' THEN
      free := CASE
        WHEN p_parents[n] = '' THEN balance + back
        WHEN parent_open THEN parent.amount_nanos - parent.carved_nanos - parent.captured_nanos - parent.released_nanos + CASE WHEN carved THEN rel ELSE 0 END
        ELSE 0 END;
      IF free < p_amounts[n] THEN
        outcome := 'short';
        available := free;
        RETURN NEXT;
        CONTINUE;
      END IF;
      IF budgeted THEN
        SELECT * INTO room FROM budget_room(p_org, head.budget_scopes, p_amounts[n], CASE WHEN p_parents[n] = '' THEN '{}' ELSE parent.budgets END, with_own, with_own_amounts) r;
        IF room.short IS NOT NULL THEN
          outcome := 'short';
          available := room.available;
          short := room.short;
          short_name := room.short_name;
          RETURN NEXT;
          CONTINUE;
        END IF;
        IF p_parents[n] = '' THEN
          refs := room.refs;
        END IF;
      END IF;
    END IF;

    -- It is to be written. What is new is inserted below, for all units at once.
    done := done || n;
    captured[n] := cap;
    freed[n] := back;
    balance := balance + back - CASE WHEN p_holds[n] <> '' AND p_parents[n] = '' THEN p_amounts[n] ELSE 0 END;
    pending := with_own;
    pending_amounts := with_own_amounts;
    IF cardinality(refs) > 0 THEN
      pending := pending || refs;
      pending_amounts := pending_amounts || array_fill(p_amounts[n], ARRAY[cardinality(refs)]);
      hold_refs := hold_refs || refs;
      hold_units := hold_units || array_fill(n, ARRAY[cardinality(refs)]);
    END IF;
    IF cardinality(counts) > 0 THEN
      count_refs := count_refs || counts;
      count_units := count_units || array_fill(n, ARRAY[cardinality(counts)]);
    END IF;
    IF p_settle_holds[n] <> '' THEN
      excess[n] := p_used[n] - cap;
      settles_step[n] := coalesce(settle.step_id, '');
      IF excess[n] > 0 THEN
        INSERT INTO bound_breaches (model, step_id, excess_nanos, noted_at)
          SELECT s.name, s.id, excess[n], p_nows[n] FROM steps s WHERE s.org_id = p_org AND s.id = settle.step_id AND s.kind = 'model_call'
          ON CONFLICT (model) DO NOTHING;
      END IF;
      UPDATE holds h SET captured_nanos = cap, released_nanos = rel, settled_at = p_nows[n], state = CASE WHEN cap = 0 THEN 'released' ELSE 'captured' END
        WHERE h.org_id = p_org AND h.id = p_settle_holds[n];
    END IF;
    IF carved OR p_parents[n] <> '' THEN
      -- What a child releases stays with its parent while that is open. A parent that was settled before can't give it back any more.
      UPDATE holds h SET captured_nanos = h.captured_nanos + CASE WHEN carved THEN cap ELSE 0 END,
          carved_nanos = h.carved_nanos - CASE WHEN carved THEN settle.amount_nanos ELSE 0 END + CASE WHEN p_parents[n] = '' THEN 0 ELSE p_amounts[n] END,
          released_nanos = h.released_nanos + CASE WHEN carved THEN back ELSE 0 END
        WHERE h.org_id = p_org AND h.id = parent.id;
    END IF;
    IF p_settled_steps[n] <> '' THEN
      UPDATE steps s SET settled_seq = p_settled_seqs[n], outcome = p_settled_outcomes[n], usage = p_settled_usages[n]::jsonb, cost_nanos = p_settled_costs[n],
          error = nullif(p_settled_errors[n], '')::jsonb, settled_at = p_nows[n]
        -- Not IS NULL: the planner would then look through the open steps, dead rows and all, and not at the one row.
        WHERE s.org_id = p_org AND s.id = p_settled_steps[n] AND s.settled_seq IS NOT DISTINCT FROM NULL;
      IF NOT FOUND THEN
        RAISE EXCEPTION 'step % is not open', p_settled_steps[n];
      END IF;
    END IF;
    UPDATE sessions s SET last_seq = p_last_seqs[n], status = p_statuses[n], stop_reason = nullif(p_stop_reasons[n], '')::jsonb, usage = p_usages[n]::jsonb,
        charged_nanos = p_charged[n], limits = p_limits[n]::jsonb, last_active_at = p_nows[n], updated_at = p_nows[n], version = s.version + 1,
        lease_owner = CASE WHEN p_release_leases[n] THEN NULL ELSE s.lease_owner END, lease_address = CASE WHEN p_release_leases[n] THEN NULL ELSE s.lease_address END,
        lease_expires_at = CASE WHEN p_release_leases[n] THEN NULL ELSE s.lease_expires_at END
      WHERE s.org_id = p_org AND s.id = p_sessions[n];
    RETURN NEXT;
  END LOOP;
  IF cardinality(done) = 0 THEN
    RETURN;
  END IF;

  INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at, budgets)
    SELECT p_org, x.hold, nullif(x.parent, ''), x.session, x.step, x.amount, 'held', x.version, x.lines::jsonb, x.expires, x.now,
           CASE WHEN budgeted THEN coalesce((SELECT array_agg(ROW (r.budget, r.starts)::budget_ref) FROM unnest(hold_units, hold_refs) r (n, budget, starts) WHERE r.n = x.n), '{}') ELSE '{}' END
    FROM unnest(p_holds, p_parents, p_sessions, p_hold_steps, p_amounts, p_price_versions, p_lines, p_expires, p_nows)
      WITH ORDINALITY x (hold, parent, session, step, amount, version, lines, expires, now, n)
    WHERE x.hold <> '' AND x.n = ANY (done);
  INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at, budgets)
    SELECT p_org, t.id, t.debit, t.credit, t.amount, t.kind, t.hold, x.session, nullif(t.step, ''), t.note, x.now,
           CASE WHEN NOT budgeted OR t.kind = 'loss' THEN '{}'
             WHEN t.kind = 'hold' THEN coalesce((SELECT array_agg(ROW (r.budget, r.starts)::budget_ref) FROM unnest(hold_units, hold_refs) r (n, budget, starts) WHERE r.n = x.n), '{}')
             ELSE coalesce((SELECT array_agg(ROW (r.budget, r.starts)::budget_ref) FROM unnest(count_units, count_refs) r (n, budget, starts) WHERE r.n = x.n), '{}') END
    FROM unnest(p_sessions, p_nows, p_settle_holds, settles_step, captured, freed, excess, p_capture_entries, p_release_entries, p_loss_entries,
                p_holds, p_parents, p_hold_steps, p_amounts, p_hold_entries)
           WITH ORDINALITY x (session, now, settle, settle_step, captured, freed, excess, capture_entry, release_entry, loss_entry, hold, parent, step, amount, hold_entry, n),
      LATERAL (VALUES
        (x.capture_entry, 'held', 'spent', x.captured, 'capture', x.settle, x.settle_step, ''),
        (x.release_entry, 'held', 'available', x.freed, 'release', x.settle, x.settle_step, ''),
        (x.loss_entry, 'loss', 'spent', x.excess, 'loss', x.settle, x.settle_step, 'used above the hold'),
        (x.hold_entry, 'available', 'held', CASE WHEN x.hold <> '' AND x.parent = '' THEN x.amount ELSE 0 END, 'hold', x.hold, x.step, '')
      ) t (id, debit, credit, amount, kind, hold, step, note)
    WHERE t.amount > 0 AND x.n = ANY (done);
  INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, step_id, payload, created_at)
    SELECT p_org, p_sessions[e.unit], e.seq, e.id, e.type, p_schema_version, p_epochs[e.unit], nullif(e.step, ''), e.payload::jsonb, p_nows[e.unit]
    FROM unnest(p_event_units, p_seqs, p_ids, p_types, p_step_ids, p_payloads) e (unit, seq, id, type, step, payload)
    WHERE e.unit = ANY (done);
  INSERT INTO steps (org_id, session_id, id, kind, effect_key, epoch, intended_seq, name, hold_id, intended_at)
    SELECT p_org, x.session, x.step, x.kind, x.key, x.epoch, x.seq, x.name, nullif(x.hold, ''), x.now
    FROM unnest(p_sessions, p_intended_steps, p_intended_kinds, p_intended_keys, p_epochs, p_intended_seqs, p_intended_names, p_holds, p_nows)
      WITH ORDINALITY x (session, step, kind, key, epoch, seq, name, hold, now, n)
    WHERE x.step <> '' AND x.n = ANY (done);
  INSERT INTO outbox (org_id, project_id, session_id, kind, payload)
    SELECT p_org, p_projects[x.unit], p_sessions[x.unit], 'span', x.span::json FROM unnest(p_span_units, p_spans) x (unit, span) WHERE x.unit = ANY (done);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION commit_units;
ALTER TABLE events ADD FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id);
ALTER TABLE steps ADD FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id);
ALTER TABLE ledger_transfers ADD FOREIGN KEY (org_id) REFERENCES organizations (id);
ALTER TABLE holds ADD FOREIGN KEY (org_id) REFERENCES organizations (id);
