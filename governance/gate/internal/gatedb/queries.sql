-- name: CommitUnits :many
-- The next commits of sessions; see the function.
SELECT u.unit::int AS unit, u.outcome::text AS outcome, u.available::bigint AS available, u.short::text AS short, u.short_name::text AS short_name
FROM commit_units(
  p_orgs => @orgs::text[], p_wait => @wait::boolean, p_schema_version => @schema_version::smallint,
  p_of => @of::int[], p_sessions => @sessions::text[], p_projects => @projects::text[], p_owners => @owners::text[], p_epochs => @epochs::bigint[], p_seen => @seen::bigint[],
  p_policies => @policies::bigint[], p_nows => @nows::timestamptz[],
  p_settle_holds => @settle_holds::text[], p_settle_amounts => @settle_amounts::bigint[], p_used => @used::bigint[],
  p_capture_entries => @capture_entries::text[], p_release_entries => @release_entries::text[], p_loss_entries => @loss_entries::text[],
  p_holds => @holds::text[], p_parents => @parents::text[], p_hold_steps => @hold_steps::text[], p_amounts => @amounts::bigint[],
  p_price_versions => @price_versions::text[], p_lines => @lines::text[], p_expires => @expires::timestamptz[], p_hold_entries => @hold_entries::text[],
  p_event_units => @event_units::int[], p_seqs => @seqs::bigint[], p_ids => @ids::text[], p_types => @types::text[], p_step_ids => @step_ids::text[],
  p_payloads => @payloads::text[],
  p_intended_steps => @intended_steps::text[], p_intended_kinds => @intended_kinds::text[], p_intended_keys => @intended_keys::text[],
  p_intended_seqs => @intended_seqs::bigint[], p_intended_names => @intended_names::text[],
  p_settled_steps => @settled_steps::text[], p_settled_seqs => @settled_seqs::bigint[], p_settled_outcomes => @settled_outcomes::text[],
  p_settled_usages => @settled_usages::text[], p_settled_costs => @settled_costs::bigint[], p_settled_errors => @settled_errors::text[],
  p_last_seqs => @last_seqs::bigint[], p_statuses => @statuses::text[], p_stop_reasons => @stop_reasons::text[], p_usages => @usages::text[],
  p_charged => @charged::bigint[], p_limits => @limits::text[], p_release_leases => @release_leases::boolean[],
  p_span_units => @span_units::int[], p_spans => @spans::text[]
) u;

-- name: BoundBreaches :many
SELECT * FROM bound_breaches ORDER BY model;

-- name: MendBound :execrows
DELETE FROM bound_breaches WHERE model = $1;

-- name: LockRules :exec
-- A change of the rules and an admission under the old ones can't both be under way.
SELECT 1 FROM policy_versions WHERE org_id = @org_id FOR SHARE;

-- name: LockBalances :exec
-- As a commit does: whoever changes the rules or the budgets waits, and so does every other admission of the organisation.
SELECT 1 FROM ledger_balances WHERE org_id = @org_id FOR NO KEY UPDATE;
