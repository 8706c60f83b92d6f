-- +goose Up

-- How much of a quota is left: of requests or tokens, of an API key or an organisation, over all processes. A process takes slices of it and gives them
-- out itself, so that not each request writes here. Unlogged: after a crash of Postgres every bucket is full again, which is no harm, and no write
-- waits for the disk.
CREATE UNLOGGED TABLE rate_buckets (
  org_id  text COLLATE "C" NOT NULL,
  -- "organization", or "key:" and its id.
  subject text COLLATE "C" NOT NULL,
  policy  text COLLATE "C" NOT NULL,
  -- What was left at that time. Below zero where more was used than there was: tokens are counted when they have been used.
  tokens  double precision NOT NULL,
  at      timestamptz NOT NULL,
  PRIMARY KEY (org_id, subject, policy)
);
SELECT ambit_tenant_table('rate_buckets');
SELECT ambit_worker_table('rate_buckets', 'SELECT, INSERT, UPDATE, DELETE', 'slices that were not used are given back, and used tokens counted, for all organisations at once');
-- Finds what nobody has asked about for long: a bucket that is full again need not be kept.
CREATE INDEX rate_buckets_by_age ON rate_buckets (at);

-- rate_take takes from buckets, for each element of its arguments: as many of p_wants as there are, or with p_force all of them, even if nothing is left
-- then; a negative number gives back, zero only looks. A bucket holds p_quotas and is full again after p_windows seconds, by the database's clock.
-- Callers name buckets in one order, so that two can't wait for each other.
-- +goose StatementBegin
CREATE FUNCTION rate_take(p_orgs text[], p_subjects text[], p_policies text[], p_quotas bigint[], p_windows double precision[], p_wants bigint[], p_force boolean)
  RETURNS TABLE (granted bigint, remaining double precision) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  b record;
  now_at timestamptz;
  have double precision;
BEGIN
  FOR n IN 1..cardinality(p_orgs) LOOP
    INSERT INTO rate_buckets (org_id, subject, policy, tokens, at) VALUES (p_orgs[n], p_subjects[n], p_policies[n], p_quotas[n], clock_timestamp())
      ON CONFLICT DO NOTHING;
    SELECT r.tokens, r.at INTO b FROM rate_buckets r WHERE r.org_id = p_orgs[n] AND r.subject = p_subjects[n] AND r.policy = p_policies[n] FOR UPDATE;
    now_at := greatest(clock_timestamp(), b.at); -- a clock that steps back gives nothing and takes nothing
    have := least(p_quotas[n]::double precision, b.tokens + extract(epoch FROM now_at - b.at) * p_quotas[n] / p_windows[n]);
    granted := CASE WHEN p_force OR p_wants[n] <= 0 THEN p_wants[n] ELSE least(p_wants[n], greatest(0, floor(have))::bigint) END;
    remaining := least(p_quotas[n]::double precision, have - granted);
    UPDATE rate_buckets r SET tokens = remaining, at = now_at WHERE r.org_id = p_orgs[n] AND r.subject = p_subjects[n] AND r.policy = p_policies[n];
    RETURN NEXT;
  END LOOP;
END $$;
-- +goose StatementEnd

-- Counts the sessions of an organisation, or of who began them, that are at work now.
CREATE INDEX sessions_at_work_by_principal ON sessions (org_id, (principal ->> 'id')) WHERE status IN ('running', 'rescheduling');

-- +goose Down
DROP INDEX sessions_at_work_by_principal;
DROP FUNCTION rate_take(text[], text[], text[], bigint[], double precision[], bigint[], boolean);
DROP TABLE rate_buckets;
