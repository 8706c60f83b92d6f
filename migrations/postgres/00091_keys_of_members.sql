-- +goose Up

-- The person who answers for a key: who made it, or who made the key that made it. NULL where that was no person. When that person ceases to be a
-- member, the key ceases to work.
ALTER TABLE api_keys ADD COLUMN user_id text COLLATE "C";

WITH RECURSIVE made AS (
  SELECT k.org_id, k.id, k.created_by AS user_id FROM api_keys k WHERE k.created_by LIKE 'usr\_%'
  UNION ALL
  SELECT k.org_id, k.id, m.user_id FROM api_keys k JOIN made m ON m.org_id = k.org_id AND m.id = k.created_by
)
UPDATE api_keys k SET user_id = m.user_id FROM made m WHERE m.org_id = k.org_id AND m.id = k.id;

-- Finds the keys that end with a membership.
CREATE INDEX api_keys_by_user ON api_keys (org_id, user_id) WHERE revoked_at IS NULL;

-- +goose Down
DROP INDEX api_keys_by_user;
ALTER TABLE api_keys DROP COLUMN user_id;
