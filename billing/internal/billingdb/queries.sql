-- name: InsertTransfer :exec
INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: OpenAccounts :exec
INSERT INTO account_balances (org_id, account, balance_nanos, updated_at)
SELECT @org_id, a, 0, @now::timestamptz FROM unnest(ARRAY['available', 'grants', 'held', 'loss', 'spent']) a
ON CONFLICT (org_id, account) DO NOTHING;

-- name: LockBalances :many
-- All of the organisation's accounts, always in the same order, so that two transactions that move money never wait for each other crosswise.
SELECT account, balance_nanos FROM account_balances WHERE org_id = $1 ORDER BY account FOR UPDATE;

-- name: Balances :many
SELECT * FROM account_balances WHERE org_id = $1 ORDER BY account;

-- name: InsertHold :exec
INSERT INTO holds (org_id, id, parent_id, session_id, step_id, amount_nanos, state, price_version, lines, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, 'held', $7, $8, $9, $10);

-- name: LockHold :one
SELECT * FROM holds WHERE org_id = $1 AND id = $2 FOR UPDATE;

-- name: GetHold :one
SELECT * FROM holds WHERE org_id = $1 AND id = $2;

-- name: CarveHold :execrows
-- Takes an amount for a child out of what is left of the parent. Zero rows: there is not that much left.
UPDATE holds SET carved_nanos = carved_nanos + @amount
WHERE org_id = @org_id AND id = @id AND state = 'held' AND amount_nanos - carved_nanos - captured_nanos - released_nanos >= @amount;

-- name: UncarveHold :execrows
-- A child is settled: its whole amount is no longer carved, what it captured is captured of the parent. What it released is left of the
-- parent, or released of it where the parent was settled before.
UPDATE holds SET carved_nanos = carved_nanos - @amount, captured_nanos = captured_nanos + @captured, released_nanos = released_nanos + @released
WHERE org_id = @org_id AND id = @id;

-- name: SettleHold :execrows
UPDATE holds SET captured_nanos = captured_nanos + @captured, released_nanos = released_nanos + @released, state = @state, settled_at = @now
WHERE org_id = @org_id AND id = @id AND state IN ('held', 'unsettled');

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
