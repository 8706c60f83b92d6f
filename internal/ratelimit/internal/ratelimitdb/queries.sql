-- name: Take :many
SELECT granted::bigint AS granted, remaining::float8 AS remaining
FROM rate_take(@orgs::text[], @subjects::text[], @policies::text[], @quotas::bigint[], @windows::float8[], @wants::bigint[], @force::boolean);

-- name: Forget :execrows
-- What nobody has asked about for so long is full again, and so as good as not there.
DELETE FROM rate_buckets WHERE ctid IN (SELECT r.ctid FROM rate_buckets r WHERE r.at < now() - make_interval(secs => @idle_seconds::float8) AND r.tokens >= 0 LIMIT 1000 FOR UPDATE SKIP LOCKED);
