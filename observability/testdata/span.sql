SELECT project_id, session_id, trace_id, span_id, parent_span_id, name, operation, step_id, seq,
    agent_id, agent_name, agent_version, principal, start_time, end_time, duration_us, status, error_type, error_message,
    provider, request_model, response_model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
    cost_nanos, hold_id, ledger_entry_id, tool_name, decision, decision_reasons, input_bytes, output_bytes,
    time_queued_ms, time_gate_ms, time_to_first_token_ms,
    usage_other, input, input_truncated, output, output_truncated, attributes
FROM spans
WHERE org_id = {org:String}
  AND project_id = {project:String}
  AND session_id = {session:String}
  AND span_id = toFixedString({span:String}, 16)
ORDER BY seq DESC
LIMIT 1
