-- name: InsertTransfer :exec
INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: Balances :many
SELECT * FROM account_balances WHERE org_id = $1 ORDER BY account;

-- name: GetHold :one
SELECT * FROM holds WHERE org_id = $1 AND id = $2;

-- name: OpenHolds :many
SELECT * FROM holds WHERE org_id = $1 AND session_id = $2 AND state IN ('held', 'unsettled') ORDER BY id;

-- name: SessionTransfers :many
SELECT * FROM ledger_transfers WHERE org_id = $1 AND session_id = $2 ORDER BY id;

-- name: ListTransfers :many
SELECT * FROM ledger_transfers WHERE org_id = @org_id AND (@before_id::text = '' OR id < @before_id::text) ORDER BY id DESC LIMIT @row_limit;

-- name: SumTransfers :many
-- What the balances must be: for the daily recount and the tests.
SELECT account::text AS account, sum(amount)::bigint AS balance_nanos
FROM (SELECT debit_account AS account, -amount_nanos AS amount FROM ledger_transfers d WHERE d.org_id = @org_id
      UNION ALL SELECT credit_account, amount_nanos FROM ledger_transfers c WHERE c.org_id = @org_id) t
GROUP BY account ORDER BY account;

-- name: PlaceHold :one
SELECT placed::boolean AS placed, coalesce(available, 0)::bigint AS available, coalesce(short, '')::text AS short, coalesce(short_name, '')::text AS short_name
FROM ledger_place(@org_id, @hold_id, @parent_id, @session_id, @step_id, @amount, @price_version, @lines, @expires_at, @now, @entry_id);

-- name: SettleHold :one
SELECT state::text AS state, coalesce(captured, 0)::bigint AS captured, coalesce(released, 0)::bigint AS released, coalesce(excess, 0)::bigint AS excess
FROM ledger_settle(@org_id, @hold_id, @used, @now, @capture_id, @release_id, @loss_id);

-- name: LockAccounts :exec
-- Two that post at once must not wait for each other's accounts crosswise.
SELECT 1 FROM ledger_balances WHERE org_id = $1 FOR NO KEY UPDATE;

-- name: MarkUnsettled :many
-- For the worker's role: what is held for an effect of which nothing was heard in its time still counts, and says so. A row that is being
-- settled just now is not waited for.
WITH expired AS MATERIALIZED (
  SELECT h.org_id, h.id FROM holds h WHERE h.state = 'held' AND h.expires_at < now() ORDER BY h.expires_at LIMIT @row_limit FOR NO KEY UPDATE SKIP LOCKED)
UPDATE holds x SET state = 'unsettled' FROM expired e WHERE x.org_id = e.org_id AND x.id = e.id
RETURNING x.org_id, x.id, x.session_id, x.step_id, (x.amount_nanos - x.carved_nanos - x.captured_nanos - x.released_nanos)::bigint AS open_nanos;

-- name: InsertBudget :exec
INSERT INTO budgets (org_id, id, name, scope, limit_nanos, period, action, alerts, created_by, created_at, updated_at)
VALUES (@org_id, @id, @name, @scope, @limit_nanos, @period, @action, @alerts, @created_by, @now, @now);

-- name: OpenBudget :exec
SELECT budget_open(@org_id::text, @id::text);

-- name: UpdateBudget :execrows
UPDATE budgets SET name = @name, limit_nanos = @limit_nanos, action = @action, alerts = @alerts, updated_at = @now, version = version + 1
WHERE org_id = @org_id AND id = @id AND archived_at IS NULL;

-- name: ArchiveBudget :execrows
UPDATE budgets SET archived_at = @now, updated_at = @now, version = version + 1 WHERE org_id = @org_id AND id = @id AND archived_at IS NULL AND scope NOT LIKE 'mandate:%';

-- name: LockBudget :one
SELECT * FROM budgets WHERE org_id = $1 AND id = $2 AND archived_at IS NULL FOR NO KEY UPDATE;

-- name: GetBudget :one
SELECT b.*, greatest(s.starts, '0001-01-01Z')::timestamptz AS starts_at,
       (CASE b.period WHEN 'total' THEN '0001-01-01Z'::timestamptz WHEN 'hour' THEN s.starts + interval '1 hour'
        ELSE ((s.starts AT TIME ZONE o.time_zone) + ('1 ' || b.period)::interval) AT TIME ZONE o.time_zone END)::timestamptz AS resets_at, coalesce(p.held_nanos, 0)::bigint AS held_nanos, coalesce(p.spent_nanos, 0)::bigint AS spent_nanos
FROM budgets b JOIN organizations o ON o.id = b.org_id
  CROSS JOIN LATERAL (SELECT budget_period_start(b.period, o.time_zone, now()) AS starts) s
  LEFT JOIN budget_periods p ON p.org_id = b.org_id AND p.budget_id = b.id AND p.starts_at = s.starts
WHERE b.org_id = $1 AND b.id = $2;

-- name: ListBudgets :many
SELECT b.*, greatest(s.starts, '0001-01-01Z')::timestamptz AS starts_at,
       (CASE b.period WHEN 'total' THEN '0001-01-01Z'::timestamptz WHEN 'hour' THEN s.starts + interval '1 hour'
        ELSE ((s.starts AT TIME ZONE o.time_zone) + ('1 ' || b.period)::interval) AT TIME ZONE o.time_zone END)::timestamptz AS resets_at, coalesce(p.held_nanos, 0)::bigint AS held_nanos, coalesce(p.spent_nanos, 0)::bigint AS spent_nanos
FROM budgets b JOIN organizations o ON o.id = b.org_id
  CROSS JOIN LATERAL (SELECT budget_period_start(b.period, o.time_zone, now()) AS starts) s
  LEFT JOIN budget_periods p ON p.org_id = b.org_id AND p.budget_id = b.id AND p.starts_at = s.starts
WHERE b.org_id = @org_id AND b.archived_at IS NULL AND (CASE WHEN sqlc.arg(scope)::text = '' THEN b.scope NOT LIKE 'mandate:%' ELSE b.scope = sqlc.arg(scope)::text END) AND (@after_id::text = '' OR b.id < @after_id::text)
ORDER BY b.id DESC LIMIT @row_limit;

-- name: BudgetsOver :many
-- The budgets that a hold of something with these scopes would be checked against, in the order in which it would be.
SELECT b.*, greatest(s.starts, '0001-01-01Z')::timestamptz AS starts_at,
       (CASE b.period WHEN 'total' THEN '0001-01-01Z'::timestamptz WHEN 'hour' THEN s.starts + interval '1 hour'
        ELSE ((s.starts AT TIME ZONE o.time_zone) + ('1 ' || b.period)::interval) AT TIME ZONE o.time_zone END)::timestamptz AS resets_at, coalesce(p.held_nanos, 0)::bigint AS held_nanos, coalesce(p.spent_nanos, 0)::bigint AS spent_nanos
FROM budgets b JOIN organizations o ON o.id = b.org_id
  CROSS JOIN LATERAL (SELECT budget_period_start(b.period, o.time_zone, now()) AS starts) s
  LEFT JOIN budget_periods p ON p.org_id = b.org_id AND p.budget_id = b.id AND p.starts_at = s.starts
WHERE b.org_id = @org_id AND b.archived_at IS NULL AND b.scope = ANY (@scopes::text[])
ORDER BY b.id;

-- name: BudgetMismatches :many
-- What a budget's period says against what the ledger's transfers say: for the daily recount and the tests.
SELECT p.budget_id, greatest(p.starts_at, '0001-01-01Z')::timestamptz AS starts_at, p.held_nanos::bigint AS held_nanos, p.spent_nanos::bigint AS spent_nanos,
       (p.opening_held_nanos + coalesce(t.held, 0))::bigint AS ledger_held, (p.opening_spent_nanos + coalesce(t.spent, 0))::bigint AS ledger_spent
FROM budget_periods p LEFT JOIN LATERAL (
  SELECT sum(CASE WHEN l.credit_account = 'held' THEN l.amount_nanos WHEN l.debit_account = 'held' THEN -l.amount_nanos ELSE 0 END) AS held,
         sum(CASE WHEN l.kind = 'capture' THEN l.amount_nanos ELSE 0 END) AS spent
  FROM ledger_transfers l, LATERAL unnest(l.budgets) r
  WHERE l.org_id = p.org_id AND r.budget = p.budget_id AND r.starts = p.starts_at) t ON true
WHERE p.org_id = @org_id
  AND (p.held_nanos <> p.opening_held_nanos + coalesce(t.held, 0) OR p.spent_nanos <> p.opening_spent_nanos + coalesce(t.spent, 0));

-- name: ScopeExists :one
-- Whether what a budget is to cover is this organisation's.
SELECT EXISTS (
  SELECT FROM organizations o WHERE sqlc.arg(kind)::text = 'organization' AND o.id = sqlc.arg(org_id)::text AND o.id = sqlc.arg(scope_id)::text
  UNION ALL SELECT FROM projects p WHERE sqlc.arg(kind)::text = 'project' AND p.org_id = sqlc.arg(org_id)::text AND p.id = sqlc.arg(scope_id)::text
  UNION ALL SELECT FROM agents a WHERE sqlc.arg(kind)::text = 'agent' AND a.org_id = sqlc.arg(org_id)::text AND a.id = sqlc.arg(scope_id)::text
  UNION ALL SELECT FROM api_keys k WHERE sqlc.arg(kind)::text = 'key' AND k.org_id = sqlc.arg(org_id)::text AND k.id = sqlc.arg(scope_id)::text
  UNION ALL SELECT FROM members m WHERE sqlc.arg(kind)::text = 'member' AND m.org_id = sqlc.arg(org_id)::text AND m.user_id = sqlc.arg(scope_id)::text
  UNION ALL SELECT FROM sessions s WHERE sqlc.arg(kind)::text = 'session' AND s.org_id = sqlc.arg(org_id)::text AND s.id = sqlc.arg(scope_id)::text);

-- name: MemberUser :one
-- A member is named by its own id or by the person's.
SELECT user_id FROM members WHERE org_id = @org_id AND (id = @id::text OR user_id = @id::text);

-- name: CountBudgets :one
SELECT count(*) FROM budgets WHERE org_id = $1 AND archived_at IS NULL AND scope NOT LIKE 'mandate:%';

-- name: SetBudgetTimes :execrows
UPDATE budgets SET from_at = @from_at, ends_at = @ends_at, updated_at = @now WHERE org_id = @org_id AND id = @id;

-- name: EndBudgets :exec
-- From the commit on nothing more is held of these.
UPDATE budgets SET ends_at = least(ends_at, clock_timestamp()), updated_at = @now WHERE org_id = @org_id AND id = ANY (@ids::text[]);

-- name: BudgetsNamed :many
SELECT b.*, greatest(s.starts, '0001-01-01Z')::timestamptz AS starts_at,
       (CASE b.period WHEN 'total' THEN '0001-01-01Z'::timestamptz WHEN 'hour' THEN s.starts + interval '1 hour'
        ELSE ((s.starts AT TIME ZONE o.time_zone) + ('1 ' || b.period)::interval) AT TIME ZONE o.time_zone END)::timestamptz AS resets_at, coalesce(p.held_nanos, 0)::bigint AS held_nanos, coalesce(p.spent_nanos, 0)::bigint AS spent_nanos
FROM budgets b JOIN organizations o ON o.id = b.org_id
  CROSS JOIN LATERAL (SELECT budget_period_start(b.period, o.time_zone, now()) AS starts) s
  LEFT JOIN budget_periods p ON p.org_id = b.org_id AND p.budget_id = b.id AND p.starts_at = s.starts
WHERE b.org_id = @org_id AND b.id = ANY (@ids::text[])
ORDER BY b.id;


-- name: OrganizationsWithAlerts :many
-- For the worker's role: who has thresholds that were reached and not told yet.
SELECT org_id FROM budget_alerts WHERE sent_at IS NULL GROUP BY org_id ORDER BY min(reached_at) LIMIT @row_limit;

-- name: ClaimAlerts :many
-- Thresholds that were reached and not told yet, locked until they are; what another process tells just now is left to it.
SELECT a.budget_id, a.starts_at::text AS starts_text, greatest(a.starts_at, '0001-01-01Z')::timestamptz AS starts_at, a.percent,
       a.spent_nanos::bigint AS spent_nanos, a.limit_nanos::bigint AS limit_nanos, a.reached_at,
       b.name, b.scope, b.period, b.action, o.name AS org_name, o.time_zone,
       coalesce(CASE split_part(b.scope, ':', 1)
         WHEN 'project' THEN split_part(b.scope, ':', 2)
         WHEN 'agent' THEN (SELECT x.project_id FROM agents x WHERE x.org_id = b.org_id AND x.id = split_part(b.scope, ':', 2))
         WHEN 'key' THEN (SELECT x.project_id FROM api_keys x WHERE x.org_id = b.org_id AND x.id = split_part(b.scope, ':', 2))
         WHEN 'session' THEN (SELECT x.project_id FROM sessions x WHERE x.org_id = b.org_id AND x.id = split_part(b.scope, ':', 2)) END, '')::text AS project_id
FROM budget_alerts a JOIN budgets b ON b.org_id = a.org_id AND b.id = a.budget_id JOIN organizations o ON o.id = a.org_id
WHERE a.org_id = @org_id AND a.sent_at IS NULL ORDER BY a.reached_at, a.percent LIMIT @row_limit FOR NO KEY UPDATE OF a SKIP LOCKED;

-- name: NoteReached :exec
-- The thresholds of a budget that what was spent in the present period has reached already, for a limit or thresholds that are new. The
-- accounts are locked, so that a capture came before and counts here, or comes after and sees what is new.
INSERT INTO budget_alerts (org_id, budget_id, starts_at, percent, spent_nanos, limit_nanos)
SELECT b.org_id, b.id, p.starts_at, t.percent, p.spent_nanos, b.limit_nanos
FROM budgets b JOIN organizations o ON o.id = b.org_id
  JOIN budget_periods p ON p.org_id = b.org_id AND p.budget_id = b.id AND p.starts_at = budget_period_start(b.period, o.time_zone, clock_timestamp()),
  LATERAL unnest(b.alerts) t (percent)
WHERE b.org_id = @org_id AND b.id = @id AND b.archived_at IS NULL AND p.spent_nanos > 0 AND p.spent_nanos::numeric * 100 >= b.limit_nanos::numeric * t.percent
ON CONFLICT DO NOTHING;

-- name: AlertSent :execrows
UPDATE budget_alerts SET sent_at = @now WHERE org_id = @org_id AND budget_id = @budget_id AND starts_at = (sqlc.arg(starts_text)::text)::timestamptz AND percent = @percent;

-- name: PresentAlerts :many
-- What was reached in the periods now under way of the budgets named.
SELECT a.budget_id, a.percent, a.spent_nanos::bigint AS spent_nanos, a.limit_nanos::bigint AS limit_nanos, a.reached_at, a.sent_at
FROM budget_alerts a JOIN budgets b ON b.org_id = a.org_id AND b.id = a.budget_id JOIN organizations o ON o.id = a.org_id
WHERE a.org_id = @org_id AND a.budget_id = ANY (@budgets::text[]) AND a.starts_at = budget_period_start(b.period, o.time_zone, now())
ORDER BY a.budget_id, a.percent;

-- name: ListEntries :many
-- The ledger newest first: of one account, one session or one project when they are named.
SELECT t.id, t.debit_account, t.credit_account, t.amount_nanos, t.kind, t.hold_id, t.session_id, t.step_id, t.note, t.created_at FROM ledger_transfers t
WHERE t.org_id = @org_id AND (@before_id::text = '' OR t.id < @before_id::text)
  AND (@account::text = '' OR t.debit_account = @account::text OR t.credit_account = @account::text)
  AND (@session_id::text = '' OR t.session_id = @session_id::text)
  AND (@kind::text = '' OR t.kind = @kind::text)
  AND (@project_id::text = '' OR EXISTS (SELECT FROM sessions s WHERE s.org_id = t.org_id AND s.id = t.session_id AND s.project_id = @project_id::text))
  AND (sqlc.narg(since)::timestamptz IS NULL OR t.created_at >= sqlc.narg(since)) AND (sqlc.narg(until)::timestamptz IS NULL OR t.created_at < sqlc.narg(until))
ORDER BY t.id DESC LIMIT @row_limit;

-- name: ListRareEntries :many
-- ListEntries of kinds that have an index of their own: of an account that few transfers touch, the whole ledger would be read for a page.
SELECT t.id, t.debit_account, t.credit_account, t.amount_nanos, t.kind, t.hold_id, t.session_id, t.step_id, t.note, t.created_at FROM ledger_transfers t
WHERE t.org_id = @org_id AND t.kind IN ('grant', 'revocation', 'loss') AND (@before_id::text = '' OR t.id < @before_id::text)
  AND (@account::text = '' OR t.debit_account = @account::text OR t.credit_account = @account::text)
  AND (@session_id::text = '' OR t.session_id = @session_id::text)
  AND (@kind::text = '' OR t.kind = @kind::text)
  AND (@project_id::text = '' OR EXISTS (SELECT FROM sessions s WHERE s.org_id = t.org_id AND s.id = t.session_id AND s.project_id = @project_id::text))
  AND (sqlc.narg(since)::timestamptz IS NULL OR t.created_at >= sqlc.narg(since)) AND (sqlc.narg(until)::timestamptz IS NULL OR t.created_at < sqlc.narg(until))
ORDER BY t.id DESC LIMIT @row_limit;

-- name: GetEntry :one
SELECT t.id, t.debit_account, t.credit_account, t.amount_nanos, t.kind, t.hold_id, t.session_id, t.step_id, t.note, t.created_at, coalesce(s.project_id, '')::text AS project_id
FROM ledger_transfers t LEFT JOIN sessions s ON s.org_id = t.org_id AND s.id = t.session_id
WHERE t.org_id = @org_id AND t.id = @id;

-- name: Zone :one
SELECT time_zone FROM organizations WHERE id = @org_id;

-- name: Usage :many
-- What was captured, by time and by what it was spent on. A part that is not asked for is empty in every row, and so is one that does not
-- apply: a tool's call has no model. Keys and members are those against whose budgets it counted. The captures of a session are summed
-- before its own columns are looked at, as there are many of one; steps are read only where their names matter.
WITH spend AS (
  SELECT (CASE WHEN @bucket::text = '' THEN @since::timestamptz ELSE date_trunc(@bucket::text, t.created_at, @zone::text) END)::timestamptz AS starts_at,
    t.session_id,
    (CASE WHEN @by_model::bool AND p.kind = 'model_call' THEN p.name ELSE '' END)::text AS model,
    (CASE WHEN @by_tool::bool AND p.kind <> 'model_call' THEN p.name ELSE '' END)::text AS tool,
    sum(t.amount_nanos) AS amount, count(*) AS effects
  FROM ledger_transfers t LEFT JOIN steps p ON @with_steps::bool AND p.org_id = t.org_id AND p.id = t.step_id
  WHERE t.org_id = @org_id AND t.kind = 'capture' AND t.created_at >= @since::timestamptz AND t.created_at < @until::timestamptz
    AND (@model::text = '' OR (p.kind = 'model_call' AND p.name = @model::text))
    AND (@tool::text = '' OR (p.kind <> 'model_call' AND p.name = @tool::text))
  GROUP BY 1, 2, 3, 4)
SELECT u.starts_at, u.project, u.agent, u.model, u.tool, u.key, u.member, sum(u.amount)::bigint AS spent_nanos, sum(u.effects)::bigint AS effects
FROM (
  SELECT x.starts_at, x.model, x.tool, x.amount, x.effects,
    (CASE WHEN @by_project::bool THEN s.project_id ELSE '' END)::text AS project,
    (CASE WHEN @by_agent::bool THEN s.agent_id ELSE '' END)::text AS agent,
    coalesce((SELECT substr(c, 5) FROM unnest(s.budget_scopes) c WHERE @by_key::bool AND c LIKE 'key:%' LIMIT 1), '')::text AS key,
    coalesce((SELECT substr(c, 8) FROM unnest(s.budget_scopes) c WHERE @by_member::bool AND c LIKE 'member:%' LIMIT 1), '')::text AS member
  FROM spend x JOIN sessions s ON s.org_id = @org_id AND s.id = x.session_id
  WHERE (@project_id::text = '' OR s.project_id = @project_id::text)
    AND (@agent_id::text = '' OR s.agent_id = @agent_id::text)
    AND s.budget_scopes @> @scopes::text[]) u
WHERE NOT @after::bool OR (u.starts_at, u.project, u.agent, u.model, u.tool, u.key, u.member)
  > (@after_starts::timestamptz, @after_project::text, @after_agent::text, @after_model::text, @after_tool::text, @after_key::text, @after_member::text)
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7 LIMIT @row_limit;

-- name: ListHolds :many
-- Holds newest first: of one session, one project or some states when they are named.
SELECT h.id, h.parent_id, h.session_id, h.step_id, h.amount_nanos, h.carved_nanos, h.captured_nanos, h.released_nanos, h.state, h.price_version, h.expires_at, h.created_at, h.settled_at
FROM holds h
WHERE h.org_id = @org_id AND (@before_id::text = '' OR h.id < @before_id::text)
  AND (@session_id::text = '' OR h.session_id = @session_id::text)
  AND (cardinality(@states::text[]) = 0 OR h.state = ANY (@states::text[]))
  AND (@project_id::text = '' OR EXISTS (SELECT FROM sessions s WHERE s.org_id = h.org_id AND s.id = h.session_id AND s.project_id = @project_id::text))
ORDER BY h.id DESC LIMIT @row_limit;

-- name: HoldAndProject :one
SELECT h.id, h.parent_id, h.session_id, h.step_id, h.amount_nanos, h.carved_nanos, h.captured_nanos, h.released_nanos, h.state, h.price_version, h.expires_at, h.created_at, h.settled_at,
  coalesce(s.project_id, '')::text AS project_id
FROM holds h LEFT JOIN sessions s ON s.org_id = h.org_id AND s.id = h.session_id
WHERE h.org_id = @org_id AND h.id = @id;

-- name: Unsettled :one
-- What is held for effects of which nothing was heard in time. What is carved from a ceiling is a part of it.
SELECT coalesce(sum(h.amount_nanos - h.captured_nanos - h.released_nanos), 0)::bigint AS open_nanos, count(*)::bigint AS holds
FROM holds h WHERE h.org_id = @org_id AND h.state = 'unsettled' AND NOT EXISTS (
  SELECT FROM holds p WHERE p.org_id = h.org_id AND p.id = h.parent_id AND p.state = 'unsettled');

-- name: Names :many
-- What people call the things of one organisation that are named by id.
SELECT x.id::text AS id, x.name::text AS name FROM (
  SELECT o.id, o.name FROM organizations o WHERE o.id = @org_id
  UNION ALL SELECT p.id, p.name FROM projects p WHERE p.org_id = @org_id
  UNION ALL SELECT a.id, a.name FROM agents a WHERE a.org_id = @org_id
  UNION ALL SELECT k.id, k.name FROM api_keys k WHERE k.org_id = @org_id
  UNION ALL SELECT m.user_id, coalesce(nullif(u.name, ''), u.email::text) FROM members m JOIN users u ON u.id = m.user_id WHERE m.org_id = @org_id
  UNION ALL SELECT s.id, s.title FROM sessions s WHERE s.org_id = @org_id AND s.id = ANY (@ids::text[])) x
WHERE x.id = ANY (@ids::text[]);

-- name: FindOrganization :one
SELECT coalesce(ambit_find_organization(@name::text), '')::text;

-- name: InsertQuote :exec
INSERT INTO quotes (org_id, id, project_id, kind, digest, low_nanos, likely_nanos, ceiling_nanos, lines, basis, price_version, prices, created_by, created_at, expires_at)
VALUES (@org_id, @id, @project_id, @kind, @digest, @low_nanos, @likely_nanos, @ceiling_nanos, @lines, @basis, @price_version, @prices, @created_by, @now, @expires_at);

-- name: GetQuote :one
SELECT * FROM quotes WHERE org_id = @org_id AND id = @id;

-- name: LockQuote :one
-- Whoever uses a quote has its row: of two at once, the second sees that it is used.
SELECT * FROM quotes WHERE org_id = @org_id AND id = @id FOR UPDATE;

-- name: UseQuote :execrows
UPDATE quotes SET used_at = @now::timestamptz, used_by = @session_id::text WHERE org_id = @org_id AND id = @id AND used_at IS NULL;

-- name: ForgetQuotes :exec
-- Those that nobody used and that ran out long ago, a few at a time.
DELETE FROM quotes d WHERE d.org_id = @org_id AND d.id IN (
  SELECT q.id FROM quotes q WHERE q.org_id = @org_id AND q.used_at IS NULL AND q.expires_at < @before LIMIT 100 FOR UPDATE SKIP LOCKED);
