-- +goose Up

-- One row a finished span. Written once from Postgres' outbox; a row that comes twice (a retry beyond the window of the deduplication
-- token) has the same sorting key, and merges and reads keep the one with the highest seq.
--
-- The sorting key. Organisation and project first: nothing is ever read across them. Then the session, whose ids grow with time, so that
-- one session's trace is one short range on disk and recent sessions lie together; then the start, which is the order in which a trace is
-- read and paged. span_id ends it, since two spans may start in one microsecond. An hour or a trace id before the session would scatter a
-- long session over the table; a question about a span of time is served by the monthly partitions and the minmax index below.
--
-- The partition depends on start_time alone, which is part of the key: copies of a row always meet in one partition, where alone they can
-- be merged.
CREATE TABLE IF NOT EXISTS spans
(
    org_id                 String CODEC(ZSTD(1)),
    project_id             String CODEC(ZSTD(1)),
    session_id             String CODEC(ZSTD(1)),
    start_time             DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    span_id                FixedString(16) CODEC(ZSTD(1)),

    end_time               DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    duration_us            UInt64 MATERIALIZED toUInt64(greatest(0, dateDiff('microsecond', start_time, end_time))) CODEC(ZSTD(1)),
    trace_id               FixedString(32) CODEC(ZSTD(1)),
    -- Empty at the root of a trace.
    parent_span_id         String CODEC(ZSTD(1)),
    name                   LowCardinality(String),
    operation              LowCardinality(String),
    step_id                String CODEC(ZSTD(1)),
    seq                    UInt64 CODEC(ZSTD(1)),

    agent_id               LowCardinality(String),
    agent_name             LowCardinality(String),
    agent_version          UInt32,
    principal              LowCardinality(String),

    status                 LowCardinality(String),
    error_type             LowCardinality(String),
    error_message          String CODEC(ZSTD(1)),

    provider               LowCardinality(String),
    request_model          LowCardinality(String),
    response_model         LowCardinality(String),
    input_tokens           UInt64,
    output_tokens          UInt64,
    cache_read_tokens      UInt64,
    cache_write_tokens     UInt64,
    reasoning_tokens       UInt64,
    -- Whatever else a provider counts, under its own name.
    usage_other            Map(LowCardinality(String), UInt64),
    -- A copy of the ledger's number, to be shown beside the span. The ledger is the truth about money.
    cost_nanos             Int64,
    hold_id                String CODEC(ZSTD(1)),
    ledger_entry_id        String CODEC(ZSTD(1)),

    tool_name              LowCardinality(String),
    decision               LowCardinality(String),
    decision_reasons       Array(LowCardinality(String)),

    -- JSON, or its beginning when cut; *_bytes is the size of the whole.
    input                  String CODEC(ZSTD(3)),
    input_truncated        Bool,
    input_bytes            UInt64,
    output                 String CODEC(ZSTD(3)),
    output_truncated       Bool,
    output_bytes           UInt64,

    attributes             Map(LowCardinality(String), String) CODEC(ZSTD(1)),

    time_queued_ms         UInt32,
    time_gate_ms           UInt32,
    time_to_first_token_ms UInt32,

    inserted_at            DateTime DEFAULT now() CODEC(Delta, ZSTD(1)),

    -- A span or a trace by its id alone, as a link from outside names it.
    INDEX idx_span_id span_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    -- The span that a ledger entry was charged for.
    INDEX idx_ledger_entry_id ledger_entry_id TYPE bloom_filter(0.01) GRANULARITY 1,
    -- A stretch of time within a project: sessions near in time are near on disk, so whole granules fall out.
    INDEX idx_start_time start_time TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(seq)
PARTITION BY toYYYYMM(start_time)
PRIMARY KEY (org_id, project_id, session_id, start_time)
ORDER BY (org_id, project_id, session_id, start_time, span_id)
-- Whole partitions fall away, which costs nothing, instead of rows being rewritten.
TTL toDateTime(start_time) + INTERVAL 13 MONTH DELETE
SETTINGS ttl_only_drop_parts = 1,
         -- How many batches' tokens are remembered: a batch that is sent again within these is dropped by the server.
         non_replicated_deduplication_window = 10000,
         replicated_deduplication_window = 10000;

-- Usage and cost an hour, for charts. Each batch is counted once as long as its token is remembered; beyond that a batch sent again
-- counts twice here (and not in spans), which is why no bill and no limit ever reads it.
CREATE TABLE IF NOT EXISTS usage_hourly
(
    org_id             String CODEC(ZSTD(1)),
    project_id         String CODEC(ZSTD(1)),
    hour               DateTime('UTC') CODEC(Delta, ZSTD(1)),
    operation          LowCardinality(String),
    agent_id           LowCardinality(String),
    agent_version      UInt32,
    provider           LowCardinality(String),
    request_model      LowCardinality(String),
    tool_name          LowCardinality(String),

    spans              SimpleAggregateFunction(sum, UInt64),
    errors             SimpleAggregateFunction(sum, UInt64),
    denied             SimpleAggregateFunction(sum, UInt64),
    input_tokens       SimpleAggregateFunction(sum, UInt64),
    output_tokens      SimpleAggregateFunction(sum, UInt64),
    cache_read_tokens  SimpleAggregateFunction(sum, UInt64),
    cache_write_tokens SimpleAggregateFunction(sum, UInt64),
    reasoning_tokens   SimpleAggregateFunction(sum, UInt64),
    cost_nanos         SimpleAggregateFunction(sum, Int64),
    duration_us        SimpleAggregateFunction(sum, UInt64),
    duration_quantiles AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (org_id, project_id, hour, operation, agent_id, agent_version, provider, request_model, tool_name)
TTL hour + INTERVAL 25 MONTH DELETE
SETTINGS ttl_only_drop_parts = 1,
         non_replicated_deduplication_window = 10000,
         replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_hourly_mv TO usage_hourly AS
SELECT
    org_id,
    project_id,
    toStartOfHour(toDateTime(start_time, 'UTC')) AS hour,
    operation,
    agent_id,
    agent_version,
    provider,
    request_model,
    tool_name,
    count() AS spans,
    countIf(status = 'error') AS errors,
    countIf(decision = 'denied') AS denied,
    sum(s.input_tokens) AS input_tokens,
    sum(s.output_tokens) AS output_tokens,
    sum(s.cache_read_tokens) AS cache_read_tokens,
    sum(s.cache_write_tokens) AS cache_write_tokens,
    sum(s.reasoning_tokens) AS reasoning_tokens,
    sum(s.cost_nanos) AS cost_nanos,
    sum(s.duration_us) AS duration_us,
    quantilesTDigestState(0.5, 0.95, 0.99)(toFloat64(s.duration_us)) AS duration_quantiles
FROM spans AS s
GROUP BY org_id, project_id, hour, operation, agent_id, agent_version, provider, request_model, tool_name;

-- +goose Down
DROP VIEW IF EXISTS usage_hourly_mv;
DROP TABLE IF EXISTS usage_hourly;
DROP TABLE IF EXISTS spans;
