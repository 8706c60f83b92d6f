-- name: CommitUnit :batchone
-- One session's next commit; see the function. As a batch is one implicit transaction, all units of it are written at one commit.
SELECT u.outcome::text AS outcome, coalesce(u.available, 0)::bigint AS available, coalesce(u.short, '')::text AS short, coalesce(u.short_name, '')::text AS short_name
FROM commit_unit(
  p_org => @org, p_session => @session, p_project => @project, p_owner => @owner, p_epoch => @epoch, p_seen => @seen, p_policy => @policy, p_wait => @wait, p_now => @now,
  p_settle_hold => @settle_hold, p_settle_amount => @settle_amount, p_used => @used, p_capture_entry => @capture_entry,
  p_release_entry => @release_entry, p_loss_entry => @loss_entry,
  p_hold => @hold, p_parent => @parent, p_hold_step => @hold_step, p_amount => @amount, p_price_version => @price_version, p_lines => @lines,
  p_expires => @expires, p_hold_entry => @hold_entry,
  p_schema_version => @schema_version, p_seqs => @seqs::bigint[], p_ids => @ids::text[], p_types => @types::text[], p_step_ids => @step_ids::text[],
  p_payloads => @payloads::text[],
  p_intended_step => @intended_step, p_intended_kind => @intended_kind, p_intended_key => @intended_key, p_intended_seq => @intended_seq,
  p_intended_name => @intended_name, p_intended_hold => @intended_hold,
  p_settled_step => @settled_step, p_settled_seq => @settled_seq, p_settled_outcome => @settled_outcome, p_settled_usage => @settled_usage,
  p_settled_cost => @settled_cost, p_settled_error => sqlc.narg(settled_error),
  p_last_seq => @last_seq, p_status => @status, p_stop_reason => sqlc.narg(stop_reason), p_usage => @usage, p_charged => @charged, p_limits => @limits,
  p_release_lease => @release_lease, p_spans => @spans::text[]
) u;
