package observability

import (
	"context"
	"fmt"
	"strings"

	"ambit.dev/ambit/internal/fault"
)

var hourlyBucketStart = map[UsageBucket]string{
	BucketNone:  "toStartOfHour({from:DateTime64(6, 'UTC')}, 'UTC')",
	BucketHour:  "hour",
	BucketDay:   "toStartOfDay(hour, 'UTC')",
	BucketWeek:  "toDateTime(toStartOfWeek(hour, 1, 'UTC'), 'UTC')",
	BucketMonth: "toDateTime(toStartOfMonth(hour, 'UTC'), 'UTC')",
}

// UsageHourly is Usage from the hourly roll-up: for charts over weeks and months,
// at a cost that does not grow with the number of spans. From and To are widened
// to whole hours. Should a batch have been sent twice beyond the memory of its
// token, it is counted twice here; money is asked of the ledger.
//
// It knows neither minutes nor single sessions.
func (r *Reader) UsageHourly(ctx context.Context, scope Scope, filter UsageFilter) ([]UsageRow, error) {
	if err := filter.validate(); err != nil {
		return nil, err
	}
	if _, ok := hourlyBucketStart[filter.Bucket]; !ok {
		return nil, fault.InvalidField("bucket", "unknown_value", fmt.Sprintf("There is no bucket %q in hourly usage.", filter.Bucket))
	}
	if filter.SessionID != "" {
		return nil, fault.InvalidField("session_id", "not_supported", "Hourly usage does not know sessions.")
	}
	var rows []UsageRow
	if err := r.run(ctx, scope, usageHourlyQuery(scope, filter), &rows); err != nil {
		return nil, err
	}
	return inUTC(rows), nil
}

func usageHourlyQuery(scope Scope, filter UsageFilter) query {
	q := query{params: map[string]any{
		"org": string(scope.Org), "from": microTime(filter.From), "to": microTime(filter.To), "max_rows": uint64(MaxUsageRows),
	}}
	groups := usageGroups(filter.GroupBy)
	q.sql = `SELECT
    ` + hourlyBucketStart[filter.Bucket] + ` AS bucket,` + selectGroups(groups) + `
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
WHERE ` + q.usageConditions(scope, filter) + `
  AND hour >= toStartOfHour({from:DateTime64(6, 'UTC')}, 'UTC')
  AND hour < {to:DateTime64(6, 'UTC')}
GROUP BY ` + strings.Join(append([]string{"bucket"}, groups...), ", ") + `
ORDER BY ` + strings.Join(append([]string{"bucket"}, groups...), ", ") + `
LIMIT {max_rows:UInt64}`
	return q
}
