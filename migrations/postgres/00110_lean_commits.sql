-- +goose Up

-- What a commit of a step costs is mostly the statements that it consists of and what the server prepares for each of them. This makes them
-- fewer and plainer; what was guarded is guarded.

-- The balances of an organisation's accounts, in one row: an effect moves several of them at once, and whoever decides on one locks them all.
-- A projection of the transfers, written with them. The check is the last guard against spending what is not there.
CREATE TABLE ledger_balances (
  org_id          text COLLATE "C" PRIMARY KEY REFERENCES organizations (id),
  grants_nanos    bigint NOT NULL DEFAULT 0,
  available_nanos bigint NOT NULL DEFAULT 0,
  held_nanos      bigint NOT NULL DEFAULT 0,
  spent_nanos     bigint NOT NULL DEFAULT 0,
  loss_nanos      bigint NOT NULL DEFAULT 0,
  updated_at      timestamptz NOT NULL,
  CONSTRAINT account_not_overdrawn CHECK (least(available_nanos, held_nanos, spent_nanos) >= 0)
) WITH (fillfactor = 20); -- written again and again in place: it keeps room for that on its page, so that an update need not touch the index
SELECT ambit_tenant_table('ledger_balances', 'SELECT, INSERT, UPDATE');
INSERT INTO ledger_balances (org_id, grants_nanos, available_nanos, held_nanos, spent_nanos, loss_nanos, updated_at)
  SELECT o.id, coalesce(sum(b.balance_nanos) FILTER (WHERE b.account = 'grants'), 0), coalesce(sum(b.balance_nanos) FILTER (WHERE b.account = 'available'), 0),
         coalesce(sum(b.balance_nanos) FILTER (WHERE b.account = 'held'), 0), coalesce(sum(b.balance_nanos) FILTER (WHERE b.account = 'spent'), 0),
         coalesce(sum(b.balance_nanos) FILTER (WHERE b.account = 'loss'), 0), coalesce(max(b.updated_at), o.created_at)
  FROM organizations o LEFT JOIN account_balances b ON b.org_id = o.id GROUP BY o.id;
DROP TABLE account_balances;
-- The same, a row an account, to be read.
CREATE VIEW account_balances WITH (security_invoker = true) AS
  SELECT b.org_id, a.account::text AS account, a.balance_nanos::bigint AS balance_nanos, b.updated_at
  FROM ledger_balances b, unnest(ARRAY['available', 'grants', 'held', 'loss', 'spent'],
    ARRAY[b.available_nanos, b.grants_nanos, b.held_nanos, b.loss_nanos, b.spent_nanos]) a (account, balance_nanos);
GRANT SELECT, UPDATE ON account_balances TO ambit_app; -- a row of a view is locked by whoever may update it

-- An organisation has the row from its beginning: a lock on what is not there would hold nobody up.
SELECT ambit_definer_table('ledger_balances', 'SELECT, INSERT', 'a new organisation''s accounts are opened with it, whoever makes it');
-- +goose StatementBegin
CREATE FUNCTION ledger_open() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO ledger_balances (org_id, updated_at) VALUES (NEW.id, NEW.created_at) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
-- +goose StatementEnd
ALTER FUNCTION ledger_open() OWNER TO ambit_definer;
CREATE TRIGGER ledger_open AFTER INSERT ON organizations FOR EACH ROW EXECUTE FUNCTION ledger_open();

-- A change of the rules and an admission under the old ones can't both be under way: whoever comes second sees the first. Commits hold the
-- lock on the balances anyway, so a change takes it as well, and a commit only reads the version.
-- +goose StatementBegin
CREATE FUNCTION policy_change_waits_for_commits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM ledger_balances b WHERE b.org_id = NEW.org_id FOR NO KEY UPDATE;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER policy_change_waits_for_commits BEFORE INSERT OR UPDATE ON policy_versions FOR EACH ROW EXECUTE FUNCTION policy_change_waits_for_commits();

-- The balances and the budgets follow all transfers of a statement at once, so that no code can write one without the other. What a transfer
-- must be is looked at here too, for all rows together.
ALTER TABLE ledger_transfers DROP CONSTRAINT ledger_transfers_debit_account_check, DROP CONSTRAINT ledger_transfers_credit_account_check,
  DROP CONSTRAINT ledger_transfers_amount_nanos_check, DROP CONSTRAINT ledger_transfers_kind_check, DROP CONSTRAINT ledger_transfers_check;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  organizations bigint;
  sound boolean;
  budgeted boolean;
  moved bigint;
BEGIN
  WITH sums AS (
    SELECT p.org_id, max(p.created_at) AS at, bool_or(p.budgets <> '{}') AS budgeted,
           bool_and(p.amount_nanos > 0 AND p.debit_account <> p.credit_account AND p.kind IN ('grant', 'revocation', 'hold', 'capture', 'release', 'loss')
                    AND p.debit_account IN ('grants', 'available', 'held', 'spent', 'loss') AND p.credit_account IN ('grants', 'available', 'held', 'spent', 'loss')) AS sound,
           sum(CASE 'grants' WHEN p.credit_account THEN p.amount_nanos WHEN p.debit_account THEN -p.amount_nanos ELSE 0 END)::bigint AS grants,
           sum(CASE 'available' WHEN p.credit_account THEN p.amount_nanos WHEN p.debit_account THEN -p.amount_nanos ELSE 0 END)::bigint AS available,
           sum(CASE 'held' WHEN p.credit_account THEN p.amount_nanos WHEN p.debit_account THEN -p.amount_nanos ELSE 0 END)::bigint AS held,
           sum(CASE 'spent' WHEN p.credit_account THEN p.amount_nanos WHEN p.debit_account THEN -p.amount_nanos ELSE 0 END)::bigint AS spent,
           sum(CASE 'loss' WHEN p.credit_account THEN p.amount_nanos WHEN p.debit_account THEN -p.amount_nanos ELSE 0 END)::bigint AS loss
    FROM posted p GROUP BY p.org_id
  ), moves AS (
    UPDATE ledger_balances b SET grants_nanos = b.grants_nanos + m.grants, available_nanos = b.available_nanos + m.available, held_nanos = b.held_nanos + m.held,
        spent_nanos = b.spent_nanos + m.spent, loss_nanos = b.loss_nanos + m.loss, updated_at = m.at
      FROM sums m WHERE b.org_id = m.org_id AND m.sound
      RETURNING 1
  )
  SELECT count(*), bool_and(m.sound), bool_or(m.budgeted), (SELECT count(*) FROM moves) INTO organizations, sound, budgeted, moved FROM sums m;
  IF organizations = 0 THEN
    RETURN NULL; -- no row was posted
  END IF;
  IF NOT sound THEN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_sound',
      MESSAGE = 'a transfer moves an amount above zero from one known account of an organisation to another, for a known reason';
  END IF;
  IF moved <> organizations THEN
    RAISE EXCEPTION 'an organisation that a transfer is of has no accounts';
  END IF;
  IF budgeted THEN
    UPDATE budget_periods b SET held_nanos = b.held_nanos + x.held, spent_nanos = b.spent_nanos + x.spent
      FROM (SELECT p.org_id, r.budget, r.starts,
                   sum(CASE WHEN p.credit_account = 'held' THEN p.amount_nanos WHEN p.debit_account = 'held' THEN -p.amount_nanos ELSE 0 END)::bigint AS held,
                   sum(CASE WHEN p.kind = 'capture' THEN p.amount_nanos ELSE 0 END)::bigint AS spent
            FROM posted p, LATERAL unnest(p.budgets) r GROUP BY p.org_id, r.budget, r.starts) x
      WHERE b.org_id = x.org_id AND b.budget_id = x.budget AND b.starts_at = x.starts;
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

-- A check is parsed and prepared anew by each statement that writes the table; a call of a function is the shortest that there is.
ALTER TABLE events DROP CONSTRAINT events_seq_check; -- commit_units and append count from the session's own row, and the key is on it
ALTER TABLE outbox DROP CONSTRAINT outbox_kind_check; -- a row of another kind is rejected by its reader, and stays to be looked at
-- +goose StatementBegin
CREATE FUNCTION hold_sound(state text, amount bigint, carved bigint, captured bigint, released bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN carved >= 0 AND captured >= 0 AND released >= 0 AND carved + captured + released <= amount AND state IN ('held', 'unsettled', 'captured', 'released');
END $$;
-- +goose StatementEnd
ALTER TABLE holds DROP CONSTRAINT holds_amount_nanos_check, DROP CONSTRAINT holds_carved_nanos_check, DROP CONSTRAINT holds_captured_nanos_check,
  DROP CONSTRAINT holds_released_nanos_check, DROP CONSTRAINT holds_state_check, DROP CONSTRAINT hold_within_amount,
  ADD CONSTRAINT hold_within_amount CHECK (hold_sound(state, amount_nanos, carved_nanos, captured_nanos, released_nanos));
-- +goose StatementBegin
CREATE FUNCTION step_sound(outcome text, cost bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN cost >= 0 AND (outcome IS NULL OR outcome IN ('succeeded', 'failed', 'unknown', 'cancelled'));
END $$;
-- +goose StatementEnd
ALTER TABLE steps DROP CONSTRAINT steps_outcome_check, DROP CONSTRAINT steps_cost_nanos_check, ADD CONSTRAINT step_sound CHECK (step_sound(outcome, cost_nanos));
-- +goose StatementBegin
CREATE FUNCTION session_sound(status text, charged bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN charged >= 0 AND status IN ('running', 'rescheduling', 'idle', 'terminated');
END $$;
-- +goose StatementEnd
ALTER TABLE sessions DROP CONSTRAINT sessions_status_check, DROP CONSTRAINT sessions_charged_nanos_check, ADD CONSTRAINT session_sound CHECK (session_sound(status, charged_nanos));

-- An index whose condition a settlement changes makes each settlement write all the table's indexes. The open steps of a session are found
-- through steps_of_session, by whoever takes the session up, once.
DROP INDEX steps_open;
ALTER TABLE steps SET (fillfactor = 60);
-- A session's steps in order. The organisation is not in front: a plan made while the table was small might else look up a step by it.
DROP INDEX steps_of_session;
CREATE INDEX steps_of_session ON steps (session_id, intended_seq);
-- No query asks for a hold's transfers without its session.
DROP INDEX ledger_transfers_by_hold;

-- The commits of several organisations are one call. The function that writes them runs as a role of its own, which nobody is and nobody can become: it
-- sees and writes rows of the organisations that the call names, in the tables that a commit writes, and no others.
-- +goose StatementBegin
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ambit_committer') THEN
    CREATE ROLE ambit_committer NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
  END IF;
  IF NOT pg_has_role(current_user, 'ambit_committer', 'MEMBER') THEN
    EXECUTE format('GRANT ambit_committer TO %I', current_user);
  END IF;
END $$;
-- +goose StatementEnd
GRANT USAGE, CREATE ON SCHEMA public TO ambit_committer; -- a role must be able to create in a schema to own a function there
-- ambit_in_batch says whether an organisation is one of those that the running commit names. Ids have one length and no comma.
CREATE FUNCTION ambit_in_batch(org text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT coalesce(strpos(current_setting('app.batch', true), ',' || org || ','), 0) > 0 $$;
-- ambit_committer_table opens a tenant table to the commit of several organisations.
-- +goose StatementBegin
CREATE FUNCTION ambit_committer_table(tbl regclass, privileges text, org_column text DEFAULT 'org_id') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE POLICY committer ON %s TO ambit_committer USING (ambit_in_batch(%I)) WITH CHECK (ambit_in_batch(%I))', tbl, org_column, org_column);
  EXECUTE format('GRANT %s ON %s TO ambit_committer', privileges, tbl);
END $$;
-- +goose StatementEnd
SELECT ambit_committer_table('sessions', 'SELECT, UPDATE'), ambit_committer_table('steps', 'SELECT, INSERT, UPDATE'), ambit_committer_table('holds', 'SELECT, INSERT, UPDATE'),
  ambit_committer_table('events', 'INSERT'), ambit_committer_table('outbox', 'INSERT'), ambit_committer_table('ledger_transfers', 'INSERT'),
  ambit_committer_table('ledger_balances', 'SELECT, UPDATE'), ambit_committer_table('policy_versions', 'SELECT'),
  ambit_committer_table('organizations', 'SELECT', 'id'), ambit_committer_table('budgets', 'SELECT'), ambit_committer_table('budget_periods', 'SELECT, INSERT, UPDATE'),
  ambit_committer_table('budget_alerts', 'SELECT, INSERT'), ambit_committer_table('webhooks', 'SELECT'), ambit_committer_table('webhook_events', 'INSERT');
GRANT SELECT, INSERT ON bound_breaches TO ambit_committer;

DROP FUNCTION commit_units;
-- commit_units writes the next commits of sessions, of the organisations p_orgs, which are in order and each there once; p_of says to which of them a
-- unit belongs. Each unit settles the hold of the effect that ended, places the hold of
-- the effect that follows, and appends the events that say so, all or nothing. All that units have in common is done once: the locks, and one
-- statement that writes all rows of all of them. What can't be is answered and not raised, so that none takes another down:
--   committed  all is written
--   fenced     the worker's lease is over, or the session has ended
--   moved      others have appended: what was decided is out of date
--   ruled      the organisation's rules have changed since the decision was made: it is to be made again
--   breached   the model once used more than its bound, and nobody has mended that since
--   short      the hold can't be had; available says what there is, short names the budget that has too little, or nothing where it is the
--              session's ceiling or the balance
--   busy       the session's row is locked just now, and p_wait was false
-- Except for committed nothing of the unit is written. At a limit, units are admitted in their order, and one that does not fit holds up none
-- behind it that does. Locks are taken in the order sessions, balances (by organisation), holds, budgets; a session's holds are written by whoever has its row.
-- Sessions of a batch are not waited for.
-- Each row that is changed is looked up by its key, one at a time, and changed where it then is; whoever has the session's row has all of them.
-- With joins in their stead a plan made while a table was small would read all of it later.
CREATE TYPE commit_head AS (unit int, at tid, epoch bigint, lease_owner text, live boolean, status text, last_seq bigint, scopes text[], step_at tid,
  settles text, hold_at tid, settled_step text, settled_amount bigint, open boolean, parent text, counts budget_ref[]); -- a session, its step and the hold that its unit settles
CREATE TYPE commit_ceiling AS (id text, at tid, open boolean, free bigint, counts budget_ref[]);                        -- the hold that another is carved from
-- +goose StatementBegin
CREATE FUNCTION commit_units(
  p_orgs text[], p_wait boolean, p_schema_version smallint,
  p_of int[], p_sessions text[], p_projects text[], p_owners text[], p_epochs bigint[], p_seen bigint[], p_policies bigint[], p_nows timestamptz[],
  p_settle_holds text[], p_settle_amounts bigint[], p_used bigint[], p_capture_entries text[], p_release_entries text[], p_loss_entries text[],
  p_holds text[], p_parents text[], p_hold_steps text[], p_amounts bigint[], p_price_versions text[], p_lines text[], p_expires timestamptz[], p_hold_entries text[],
  p_event_units int[], p_seqs bigint[], p_ids text[], p_types text[], p_step_ids text[], p_payloads text[],
  p_intended_steps text[], p_intended_kinds text[], p_intended_keys text[], p_intended_seqs bigint[], p_intended_names text[],
  p_settled_steps text[], p_settled_seqs bigint[], p_settled_outcomes text[], p_settled_usages text[], p_settled_costs bigint[], p_settled_errors text[],
  p_last_seqs bigint[], p_statuses text[], p_stop_reasons text[], p_usages text[], p_charged bigint[], p_limits text[], p_release_leases boolean[],
  p_span_units int[], p_spans text[]
) RETURNS TABLE (unit int, outcome text, available bigint, short text, short_name text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_material = off SET enable_indexscan = on SET jit = off SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  total int := cardinality(p_sessions);
  way text := set_config('app.batch', ',' || array_to_string(p_orgs, ',') || ',', true);
  heads commit_head[];
  head commit_head;
  ceiling commit_ceiling;
  rules bigint[];                         -- of each organisation, by its place in p_orgs: the version of its rules,
  balances bigint[];                      -- what is available,
  budgeted boolean[];                     -- and whether it has budgets
  o int;
  breached text[];
  room record;
  refs budget_ref[];                      -- the periods in which what a unit places counts
  pending budget_ref[] := '{}';           -- what units before have taken from budgets' periods,
  pending_amounts bigint[] := '{}';       -- and how much; below zero is given back
  with_own budget_ref[];                  -- the same with what this unit's own settlement gives back
  with_own_amounts bigint[];
  answered boolean[] := array_fill(false, ARRAY[total]);
  done boolean[] := answered;             -- the units that are written,
  caps bigint[] := array_fill(0::bigint, ARRAY[total]); -- what each captures of what it settles,
  rels bigint[] := caps;                  -- and what it releases;
  backs bigint[] := caps;                 -- how much of that a ceiling gives back with it;
  uncarved bigint[] := caps;              -- and how much the ceiling no longer has carved out
  sessions_at tid[] := array_fill(NULL::tid, ARRAY[total]); -- where the rows are that a unit changes
  steps_at tid[] := sessions_at;
  holds_at tid[] := sessions_at;
  ceilings_at tid[] := sessions_at;
  placed_refs text[];
  posted ledger_transfers[] := '{}';      -- what the ledger gets of all units
  cap bigint;
  rel bigint;
  back bigint;
  free bigint;
  n int;
  holds_to_settle int := 0;
  steps_to_settle int := 0;
  carving boolean := false;
  exceeding boolean := false;
  holds_settled int;
  steps_settled int;
  written int;
BEGIN
  IF p_wait THEN
    PERFORM 1 FROM unnest(p_sessions, p_of) u (session, o) JOIN LATERAL (SELECT FROM sessions x WHERE x.org_id = p_orgs[u.o] AND x.id = u.session FOR NO KEY UPDATE) s ON true;
  END IF;
  SELECT array_agg(l.head) INTO heads FROM (
    SELECT ROW (u.n, s.at, s.epoch, s.lease_owner, s.live, s.status, s.last_seq, s.budget_scopes, (SELECT x.ctid FROM steps x WHERE x.org_id = p_orgs[u.o] AND x.id = nullif(u.step, '')),
        h.id, h.at, h.step_id, h.amount_nanos, h.open, h.parent_id, h.budgets)::commit_head AS head
    FROM unnest(p_sessions, p_of, p_settle_holds, p_settled_steps) WITH ORDINALITY u (session, o, hold, step, n)
      JOIN LATERAL (SELECT x.ctid AS at, x.epoch, x.lease_owner, x.lease_expires_at > clock_timestamp() AS live, x.status, x.last_seq, x.budget_scopes
                    FROM sessions x WHERE x.org_id = p_orgs[u.o] AND x.id = u.session FOR NO KEY UPDATE SKIP LOCKED) s ON true
      LEFT JOIN LATERAL (SELECT x.id, x.ctid AS at, x.step_id, x.amount_nanos, x.state IN ('held', 'unsettled') AND x.carved_nanos + x.captured_nanos + x.released_nanos = 0 AS open,
                           x.parent_id, x.budgets
                         FROM holds x WHERE x.org_id = p_orgs[u.o] AND x.id = nullif(u.hold, '') OFFSET 0) h ON true
    ORDER BY u.n) l;
  -- Whoever changes the rules or the budgets takes this lock too, so that what is read after it holds until the commit.
  SELECT array_agg(coalesce(l.available_nanos, 0)) INTO balances FROM (
    SELECT b.available_nanos FROM unnest(p_orgs) WITH ORDINALITY u (org, o)
      LEFT JOIN LATERAL (SELECT x.available_nanos FROM ledger_balances x WHERE x.org_id = u.org FOR NO KEY UPDATE) b ON true ORDER BY u.o) l;
  SELECT array_agg(l.version), array_agg(l.budgeted), ARRAY (SELECT m.model FROM bound_breaches m) INTO rules, budgeted, breached FROM (
    SELECT coalesce((SELECT v.version FROM policy_versions v WHERE v.org_id = u.org), 0) AS version,
      EXISTS (SELECT FROM budgets b WHERE b.org_id = u.org AND b.archived_at IS NULL) AS budgeted
    FROM unnest(p_orgs) WITH ORDINALITY u (org, o) ORDER BY u.o) l;

  FOREACH head IN ARRAY coalesce(heads, '{}') LOOP
    n := head.unit;
    o := p_of[n];
    answered[n] := true;
    unit := n;
    available := 0;
    short := '';
    short_name := '';
    outcome := CASE
      WHEN head.epoch <> p_epochs[n] OR head.lease_owner IS DISTINCT FROM p_owners[n] OR head.live IS NOT TRUE OR head.status NOT IN ('running', 'rescheduling') THEN 'fenced'
      WHEN head.last_seq <> p_seen[n] THEN 'moved'
      WHEN p_policies[n] >= 0 AND p_policies[n] <> rules[o] THEN 'ruled'
      WHEN p_holds[n] <> '' AND p_intended_kinds[n] = 'model_call' AND p_intended_names[n] = ANY (breached) THEN 'breached'
      ELSE 'committed' END;
    IF outcome <> 'committed' THEN
      RETURN NEXT;
      CONTINUE;
    END IF;

    -- Look, before anything of the unit is noted down.
    cap := 0;
    rel := 0;
    IF p_settle_holds[n] <> '' THEN
      IF head.open IS NOT TRUE OR head.settled_amount <> p_settle_amounts[n] THEN
        RAISE EXCEPTION 'hold % is not open with the amount %', p_settle_holds[n], p_settle_amounts[n];
      END IF;
      cap := least(p_used[n], head.settled_amount);
      rel := head.settled_amount - cap;
    END IF;
    ceiling := NULL;
    IF head.parent IS NOT NULL OR p_parents[n] <> '' THEN
      SELECT h.id, h.ctid, h.state IN ('held', 'unsettled'), h.amount_nanos - h.carved_nanos - h.captured_nanos - h.released_nanos, h.budgets INTO ceiling
        FROM holds h WHERE h.org_id = p_orgs[o] AND h.id = coalesce(head.parent, p_parents[n]);
      IF NOT FOUND OR (p_parents[n] <> '' AND ceiling.id <> p_parents[n]) THEN
        RAISE EXCEPTION 'the unit of % and what it settles have not the same ceiling', p_sessions[n];
      END IF;
      IF head.parent IS NOT NULL THEN
        head.counts := ceiling.counts;
      END IF;
    END IF;
    -- What a child releases stays with its parent while that is open. A parent that was settled before can't give it back any more.
    back := CASE WHEN head.parent IS NOT NULL AND ceiling.open THEN 0 ELSE rel END;
    refs := '{}';
    IF budgeted[o] THEN
      with_own := pending;
      with_own_amounts := pending_amounts;
      IF cardinality(head.counts) > 0 THEN
        with_own := with_own || head.counts;
        with_own_amounts := with_own_amounts || array_fill(-back, ARRAY[cardinality(head.counts)]);
      END IF;
    END IF;
    IF p_holds[n] <> '' THEN
      free := CASE
        WHEN p_parents[n] = '' THEN balances[o] + back
        WHEN ceiling.open THEN ceiling.free + CASE WHEN head.parent IS NULL THEN 0 ELSE rel END
        ELSE 0 END;
      IF free < p_amounts[n] THEN
        outcome := 'short';
        available := free;
        RETURN NEXT;
        CONTINUE;
      END IF;
      IF budgeted[o] THEN
        SELECT * INTO room FROM budget_room(p_orgs[o], head.scopes, p_amounts[n], CASE WHEN p_parents[n] = '' THEN '{}' ELSE ceiling.counts END, with_own, with_own_amounts) r;
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

    -- It is to be written.
    done[n] := true;
    sessions_at[n] := head.at;
    balances[o] := balances[o] + back;
    IF budgeted[o] THEN
      pending := with_own;
      pending_amounts := with_own_amounts;
      IF cardinality(refs) > 0 THEN
        pending := pending || refs;
        pending_amounts := pending_amounts || array_fill(p_amounts[n], ARRAY[cardinality(refs)]);
        placed_refs[n] := refs::text;
      END IF;
    END IF;
    IF p_settle_holds[n] <> '' THEN
      holds_to_settle := holds_to_settle + 1;
      holds_at[n] := head.hold_at;
      caps[n] := cap;
      rels[n] := rel;
      IF cap > 0 THEN
        posted := posted || ROW (p_orgs[o], p_capture_entries[n], 'held', 'spent', cap, 'capture', head.settles, p_sessions[n], head.settled_step, '', p_nows[n], head.counts)::ledger_transfers;
      END IF;
      IF back > 0 THEN
        posted := posted || ROW (p_orgs[o], p_release_entries[n], 'held', 'available', back, 'release', head.settles, p_sessions[n], head.settled_step, '', p_nows[n], head.counts)::ledger_transfers;
      END IF;
      IF p_used[n] > cap THEN
        exceeding := true;
        posted := posted || ROW (p_orgs[o], p_loss_entries[n], 'loss', 'spent', p_used[n] - cap, 'loss', head.settles, p_sessions[n], head.settled_step, 'used above the hold', p_nows[n], '{}')::ledger_transfers;
      END IF;
    END IF;
    IF ceiling.id IS NOT NULL THEN
      carving := true;
      ceilings_at[n] := ceiling.at;
      IF head.parent IS NOT NULL THEN
        backs[n] := back;
        uncarved[n] := head.settled_amount;
      END IF;
    END IF;
    IF p_settled_steps[n] <> '' THEN
      steps_to_settle := steps_to_settle + 1;
      steps_at[n] := head.step_at;
    END IF;
    IF p_holds[n] <> '' AND p_parents[n] = '' AND p_amounts[n] > 0 THEN
      balances[o] := balances[o] - p_amounts[n];
      posted := posted || ROW (p_orgs[o], p_hold_entries[n], 'available', 'held', p_amounts[n], 'hold', p_holds[n], p_sessions[n], p_hold_steps[n], '', p_nows[n], refs)::ledger_transfers;
    END IF;
    RETURN NEXT;
  END LOOP;
  FOR n IN 1..total LOOP
    IF NOT answered[n] THEN
      unit := n;
      outcome := CASE WHEN p_wait THEN 'fenced' ELSE 'busy' END; -- who has waited and finds none looks for a session that is not there
      available := 0;
      short := '';
      short_name := '';
      RETURN NEXT;
    END IF;
  END LOOP;
  IF NOT true = ANY (done) THEN
    RETURN;
  END IF;

  IF exceeding THEN
    INSERT INTO bound_breaches (model, step_id, excess_nanos, noted_at)
      SELECT s.name, s.id, u.used - caps[u.n], p_nows[u.n]
      FROM unnest(p_settle_holds, p_used) WITH ORDINALITY u (hold, used, n)
        JOIN holds h ON h.org_id = p_orgs[p_of[u.n]] AND h.id = u.hold JOIN steps s ON s.org_id = h.org_id AND s.id = h.step_id AND s.kind = 'model_call'
      WHERE done[u.n] AND u.hold <> '' AND u.used > caps[u.n]
      ON CONFLICT (model) DO NOTHING;
  END IF;
  way := set_config('enable_indexscan', 'off', true); -- what is left to the planner is to go where the rows are
  IF carving THEN
    UPDATE holds h SET captured_nanos = h.captured_nanos + CASE WHEN uncarved[u.n] > 0 THEN caps[u.n] ELSE 0 END, released_nanos = h.released_nanos + backs[u.n],
        carved_nanos = h.carved_nanos - uncarved[u.n] + CASE WHEN p_parents[u.n] = '' THEN 0 ELSE p_amounts[u.n] END
      FROM unnest(ceilings_at) WITH ORDINALITY u (at, n) WHERE h.ctid = u.at AND h.org_id = p_orgs[p_of[u.n]];
  END IF;
  WITH settled_holds AS (
    UPDATE holds h SET captured_nanos = caps[u.n], released_nanos = rels[u.n], settled_at = p_nows[u.n], state = CASE WHEN caps[u.n] = 0 THEN 'released' ELSE 'captured' END
      FROM unnest(holds_at) WITH ORDINALITY u (at, n)
      WHERE h.ctid = u.at AND h.org_id = p_orgs[p_of[u.n]] AND h.state IN ('held', 'unsettled')
      RETURNING 1
  ), placed_holds AS (
    INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at, budgets)
      SELECT p_orgs[p_of[u.n]], u.hold, nullif(u.parent, ''), p_sessions[u.n], u.step, u.amount, 'held', u.version, u.lines::jsonb, u.expires, p_nows[u.n], coalesce(placed_refs[u.n]::budget_ref[], '{}')
      FROM unnest(p_holds, p_parents, p_hold_steps, p_amounts, p_price_versions, p_lines, p_expires) WITH ORDINALITY u (hold, parent, step, amount, version, lines, expires, n)
      WHERE done[u.n] AND u.hold <> ''
  ), settled_steps AS (
    UPDATE steps s SET settled_seq = u.seq, outcome = u.result, usage = u.usage::jsonb, cost_nanos = u.cost, error = nullif(u.error, '')::jsonb, settled_at = p_nows[u.n]
      FROM unnest(steps_at, p_settled_seqs, p_settled_outcomes, p_settled_usages, p_settled_costs, p_settled_errors) WITH ORDINALITY u (at, seq, result, usage, cost, error, n)
      WHERE s.ctid = u.at AND s.org_id = p_orgs[p_of[u.n]] AND s.settled_seq IS NULL
      RETURNING 1
  ), intended_steps AS (
    INSERT INTO steps (org_id, session_id, id, kind, effect_key, epoch, intended_seq, name, hold_id, intended_at)
      SELECT p_orgs[p_of[u.n]], p_sessions[u.n], u.step, u.kind, u.key, p_epochs[u.n], u.seq, u.name, nullif(p_holds[u.n], ''), p_nows[u.n]
      FROM unnest(p_intended_steps, p_intended_kinds, p_intended_keys, p_intended_seqs, p_intended_names) WITH ORDINALITY u (step, kind, key, seq, name, n)
      WHERE done[u.n] AND u.step <> ''
  ), moved_sessions AS (
    UPDATE sessions s SET last_seq = u.seq, status = u.status, stop_reason = nullif(u.stop, '')::jsonb, usage = u.usage::jsonb,
        charged_nanos = u.charged, limits = u.limits::jsonb, last_active_at = u.now, updated_at = u.now, version = s.version + 1,
        lease_owner = CASE WHEN u.release THEN NULL ELSE s.lease_owner END, lease_address = CASE WHEN u.release THEN NULL ELSE s.lease_address END,
        lease_expires_at = CASE WHEN u.release THEN NULL ELSE s.lease_expires_at END
      FROM unnest(sessions_at, p_of, p_last_seqs, p_statuses, p_stop_reasons, p_usages, p_charged, p_limits, p_nows, p_release_leases)
        u (at, o, seq, status, stop, usage, charged, limits, now, release)
      WHERE s.ctid = u.at AND s.org_id = p_orgs[u.o]
      RETURNING 1
  ), appended AS (
    INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, step_id, payload, created_at)
      SELECT p_orgs[p_of[e.unit]], p_sessions[e.unit], e.seq, e.id, e.type, p_schema_version, p_epochs[e.unit], nullif(e.step, ''), e.payload::jsonb, p_nows[e.unit]
      FROM unnest(p_event_units, p_seqs, p_ids, p_types, p_step_ids, p_payloads) e (unit, seq, id, type, step, payload)
      WHERE done[e.unit]
  ), transferred AS (
    INSERT INTO ledger_transfers SELECT * FROM unnest(posted)
  ), told AS (
    INSERT INTO outbox (org_id, project_id, session_id, kind, payload)
      SELECT p_orgs[p_of[x.unit]], p_projects[x.unit], p_sessions[x.unit], 'span', x.span::json FROM unnest(p_span_units, p_spans) x (unit, span) WHERE done[x.unit]
  )
  SELECT (SELECT count(*) FROM settled_holds), (SELECT count(*) FROM settled_steps), (SELECT count(*) FROM moved_sessions) INTO holds_settled, steps_settled, written;
  IF holds_settled <> holds_to_settle THEN
    RAISE EXCEPTION 'of % holds to settle % are open', holds_to_settle, holds_settled;
  END IF;
  IF steps_settled <> steps_to_settle THEN
    RAISE EXCEPTION 'of % steps to settle % are open', steps_to_settle, steps_settled;
  END IF;
  IF written <> cardinality(array_positions(done, true)) THEN
    RAISE EXCEPTION 'of % sessions % are where they were', cardinality(array_positions(done, true)), written;
  END IF;
END $$;
-- +goose StatementEnd
ALTER FUNCTION commit_units OWNER TO ambit_committer;
REVOKE EXECUTE ON FUNCTION commit_units FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commit_units TO ambit_app;

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'this migration is not undone: restore a backup that was taken before it'; END $$;
-- +goose StatementEnd
