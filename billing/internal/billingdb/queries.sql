-- name: InsertTransfer :exec
INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, note, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: OpenAccounts :exec
INSERT INTO account_balances (org_id, account, balance_nanos, updated_at)
SELECT @org_id, a, 0, @now::timestamptz FROM unnest(ARRAY['available', 'grants', 'held', 'loss', 'spent']) a
ON CONFLICT (org_id, account) DO NOTHING;

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
SELECT placed::boolean AS placed, coalesce(available, 0)::bigint AS available
FROM ledger_place(@org_id, @hold_id, @parent_id, @session_id, @step_id, @amount, @price_version, @lines, @expires_at, @now, @entry_id);

-- name: SettleHold :one
SELECT state::text AS state, coalesce(captured, 0)::bigint AS captured, coalesce(released, 0)::bigint AS released, coalesce(excess, 0)::bigint AS excess
FROM ledger_settle(@org_id, @hold_id, @used, @now, @capture_id, @release_id, @loss_id);
