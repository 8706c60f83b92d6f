SELECT
    toDateTime(toStartOfMonth(start_time, 'UTC'), 'UTC') AS bucket,
    count() AS spans,
    countIf(s.status = 'error') AS errors,
    countIf(s.decision = 'denied') AS denied,
    sum(s.input_tokens) AS input_tokens,
    sum(s.output_tokens) AS output_tokens,
    sum(s.cache_read_tokens) AS cache_read_tokens,
    sum(s.cache_write_tokens) AS cache_write_tokens,
    sum(s.reasoning_tokens) AS reasoning_tokens,
    sum(s.cost_nanos) AS cost_nanos,
    sum(s.duration_us) AS duration_us,
    toFloat64(quantileTDigest(0.5)(s.duration_us)) AS p50_us,
    toFloat64(quantileTDigest(0.95)(s.duration_us)) AS p95_us,
    toFloat64(quantileTDigest(0.99)(s.duration_us)) AS p99_us
FROM spans AS s FINAL
WHERE org_id = {org:String}
  AND operation != 'invoke_agent'
  AND start_time >= {from:DateTime64(6, 'UTC')}
  AND start_time < {to:DateTime64(6, 'UTC')}
GROUP BY bucket
ORDER BY bucket
LIMIT {max_rows:UInt64}
