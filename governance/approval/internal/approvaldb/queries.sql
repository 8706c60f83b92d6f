-- name: RaiseVersion :one
-- First of all in each change of rules: they are read together with the permissions, under one version.
INSERT INTO policy_versions (org_id, version, changed_at) VALUES (@org_id, nextval('policy_version_numbers'), @now)
ON CONFLICT (org_id) DO UPDATE SET version = nextval('policy_version_numbers'), changed_at = EXCLUDED.changed_at
RETURNING version;

-- name: Rules :many
SELECT * FROM approval_rules WHERE org_id = @org_id ORDER BY id;

-- name: GetRule :one
SELECT * FROM approval_rules WHERE org_id = @org_id AND id = @id;

-- name: CountRules :one
SELECT count(*) FROM approval_rules WHERE org_id = @org_id;

-- name: InsertRule :one
INSERT INTO approval_rules (org_id, id, spec, owner_id, created_by, created_at, updated_at) VALUES (@org_id, @id, @spec, @owner_id, @created_by, @now, @now) RETURNING *;

-- name: UpdateRule :one
UPDATE approval_rules SET spec = @spec, version = version + 1, updated_at = @now WHERE org_id = @org_id AND id = @id RETURNING *;

-- name: DeleteRule :execrows
DELETE FROM approval_rules WHERE org_id = @org_id AND id = @id;

-- name: GetSettings :one
SELECT * FROM approval_settings WHERE org_id = @org_id;

-- name: PutSettings :one
INSERT INTO approval_settings (org_id, taint, asks_per_day, updated_by, updated_at) VALUES (@org_id, @taint, @asks_per_day, @updated_by, @now)
ON CONFLICT (org_id) DO UPDATE SET taint = EXCLUDED.taint, asks_per_day = EXCLUDED.asks_per_day, updated_by = EXCLUDED.updated_by, updated_at = EXCLUDED.updated_at,
  version = approval_settings.version + 1
RETURNING *;

-- name: InsertChange :exec
INSERT INTO approval_changes (org_id, rule_id, by_id, before, after, proof, at) VALUES (@org_id, @rule_id, @by_id, @before, @after, @proof, @now);

-- name: LockBalances :exec
-- Held until the commit: what is summed up and looked for under it can't be out of date when the effect is admitted.
SELECT 1 FROM ledger_balances WHERE org_id = @org_id FOR NO KEY UPDATE;

-- name: SumOver :one
SELECT coalesce(sum(amount_nanos), 0)::bigint FROM approval_sums WHERE org_id = @org_id AND rule_id = @rule_id AND at > @since;

-- name: InsertSum :exec
INSERT INTO approval_sums (org_id, rule_id, step_id, agent_id, amount_nanos, at) VALUES (@org_id, @rule_id, @step_id, @agent_id, @amount_nanos, @at) ON CONFLICT DO NOTHING;

-- name: Seen :one
SELECT EXISTS (SELECT FROM approval_seen WHERE org_id = @org_id AND agent_id = @agent_id AND host = @host);

-- name: InsertSeen :exec
INSERT INTO approval_seen (org_id, agent_id, host, at) VALUES (@org_id, @agent_id, @host, @at) ON CONFLICT DO NOTHING;

-- name: InsertApproval :one
-- The time that there is counts by the database's clock, as everywhere.
INSERT INTO approvals (org_id, id, session_id, project_id, agent_id, tool_use_seq, digest, status, demand, action, askers, expires_at, asked_at)
VALUES (@org_id, @id, @session_id, @project_id, @agent_id, @tool_use_seq, @digest, 'pending', @demand, @action, @askers::text[], now() + make_interval(secs => @within_seconds::float8), @now)
RETURNING *;

-- name: LatestOf :one
-- What became of the last question about a tool use. Its row stays locked until the commit.
SELECT * FROM approvals WHERE org_id = @org_id AND session_id = @session_id AND tool_use_seq = @tool_use_seq ORDER BY id DESC LIMIT 1 FOR UPDATE;

-- name: GetApproval :one
SELECT * FROM approvals WHERE org_id = @org_id AND id = @id;

-- name: LockApproval :one
SELECT * FROM approvals WHERE org_id = @org_id AND id = @id FOR UPDATE;

-- name: UseApproval :execrows
-- Once: what is not approved, not in time, or of another action than was decided on is no row.
UPDATE approvals SET status = 'used', used_step = @step_id, version = version + 1
WHERE org_id = @org_id AND id = @id AND status = 'approved' AND digest = @digest AND expires_at > clock_timestamp();

-- name: DecideApproval :one
UPDATE approvals SET status = @status, decided_at = @now, decided_by = @decided_by, reason = @reason, edited = @edited,
  expires_at = CASE WHEN @status = 'approved' THEN clock_timestamp() + make_interval(secs => @good_seconds::float8) ELSE expires_at END, version = version + 1
WHERE org_id = @org_id AND id = @id AND status IN ('pending', 'approved')
RETURNING *;

-- name: NextStage :one
UPDATE approvals SET stage = stage + 1, escalated = false, expires_at = clock_timestamp() + make_interval(secs => @within_seconds::float8), version = version + 1
WHERE org_id = @org_id AND id = @id AND status = 'pending'
RETURNING *;

-- name: Escalate :one
UPDATE approvals SET escalated = true, expires_at = clock_timestamp() + make_interval(secs => @within_seconds::float8), version = version + 1
WHERE org_id = @org_id AND id = @id AND status = 'pending'
RETURNING *;

-- name: MarkTold :exec
UPDATE approvals SET told = @told WHERE org_id = @org_id AND id = @id;

-- name: ListApprovals :many
SELECT * FROM approvals
WHERE org_id = @org_id AND (@project_id::text = '' OR project_id = @project_id) AND (@session_id::text = '' OR session_id = @session_id)
  AND (cardinality(@statuses::text[]) = 0 OR status = ANY (@statuses::text[]))
  AND (@after::text = '' OR CASE WHEN @oldest_first::boolean THEN id > @after ELSE id < @after END)
ORDER BY CASE WHEN @oldest_first::boolean THEN id END, CASE WHEN NOT @oldest_first::boolean THEN id END DESC
LIMIT @row_limit;

-- name: Due :many
-- Across organisations, for the worker's role: whose approvers are to be told, and whose time is over.
SELECT org_id, id FROM approvals
WHERE status = 'pending' AND (expires_at <= clock_timestamp() OR told < stage * 2 + CASE WHEN escalated THEN 1 ELSE 0 END)
ORDER BY expires_at LIMIT @row_limit;

-- name: InsertDecision :execrows
INSERT INTO approval_decisions (org_id, approval_id, user_id, person, stage, decision, reason, on_behalf_of, by, proof, at)
VALUES (@org_id, @approval_id, @user_id, @person, @stage, @decision, @reason, @on_behalf_of, @by, @proof, @now)
ON CONFLICT DO NOTHING;

-- name: Decisions :many
SELECT * FROM approval_decisions WHERE org_id = @org_id AND approval_id = @approval_id ORDER BY at, user_id;

-- name: People :many
-- The members, what they are, and who stands in for them just now.
SELECT m.user_id, m.role, coalesce(m.role_id, '')::text AS role_id, u.email::text AS email, u.name, (u.email_verified_at IS NOT NULL)::boolean AS verified, coalesce(a.delegate, '')::text AS delegate,
       (a.user_id IS NOT NULL)::boolean AS away
FROM members m JOIN users u ON u.id = m.user_id
LEFT JOIN approval_absences a ON a.org_id = m.org_id AND a.user_id = m.user_id AND a.starts_at <= clock_timestamp() AND a.ends_at > clock_timestamp()
WHERE m.org_id = @org_id ORDER BY m.user_id;

-- name: PersonOfKey :one
SELECT coalesce(user_id, '')::text FROM api_keys WHERE org_id = @org_id AND id = @id AND revoked_at IS NULL;

-- name: AskedLately :many
SELECT user_id, count(*) AS asks FROM approval_asks WHERE org_id = @org_id AND at > @since GROUP BY user_id;

-- name: InsertAsk :exec
INSERT INTO approval_asks (org_id, approval_id, user_id, stage, at) VALUES (@org_id, @approval_id, @user_id, @stage, @at) ON CONFLICT DO NOTHING;

-- name: PutAbsence :exec
INSERT INTO approval_absences (org_id, user_id, starts_at, ends_at, delegate, updated_at) VALUES (@org_id, @user_id, @starts_at, @ends_at, @delegate, @now)
ON CONFLICT (org_id, user_id) DO UPDATE SET starts_at = EXCLUDED.starts_at, ends_at = EXCLUDED.ends_at, delegate = EXCLUDED.delegate, updated_at = EXCLUDED.updated_at;

-- name: EndAbsence :execrows
DELETE FROM approval_absences WHERE org_id = @org_id AND user_id = @user_id;

-- name: Absences :many
SELECT * FROM approval_absences WHERE org_id = @org_id AND ends_at > clock_timestamp() ORDER BY starts_at, user_id;

-- name: Clock :one
-- Times are compared by the database's clock.
SELECT clock_timestamp()::timestamptz;

-- name: AnswersForKey :one
-- Of a key that was revoked since, too: what it asked for, its person asked for.
SELECT coalesce(user_id, '')::text FROM api_keys WHERE org_id = @org_id AND id = @id;
