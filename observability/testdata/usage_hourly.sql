SELECT
    toStartOfDay(hour, 'UTC') AS bucket,
    sum(u.spans) AS spans,
    sum(u.errors) AS errors,
    sum(u.denied) AS denied,
    sum(u.input_tokens) AS input_tokens,
    sum(u.output_tokens) AS output_tokens,
    sum(u.cache_read_tokens) AS cache_read_tokens,
    sum(u.cache_write_tokens) AS cache_write_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.cost_nanos) AS cost_nanos,
    sum(u.duration_us) AS duration_us,
    toFloat64(quantilesTDigestMerge(0.5, 0.95, 0.99)(u.duration_quantiles)[1]) AS p50_us,
    toFloat64(quantilesTDigestMerge(0.5, 0.95, 0.99)(u.duration_quantiles)[2]) AS p95_us,
    toFloat64(quantilesTDigestMerge(0.5, 0.95, 0.99)(u.duration_quantiles)[3]) AS p99_us
FROM usage_hourly AS u
WHERE org_id = {org:String}
  AND project_id = {project:String}
  AND operation != 'invoke_agent'
  AND hour >= toStartOfHour({from:DateTime64(6, 'UTC')}, 'UTC')
  AND hour < {to:DateTime64(6, 'UTC')}
GROUP BY bucket
ORDER BY bucket
LIMIT {max_rows:UInt64}
