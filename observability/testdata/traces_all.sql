SELECT
    s.project_id AS project_id,
    s.session_id AS session_id,
    argMin(s.trace_id, s.start_time) AS trace_id,
    min(s.start_time) AS start_time,
    max(s.end_time) AS end_time,
    count() AS spans,
    countIf(s.operation = 'chat') AS model_calls,
    countIf(s.operation = 'execute_tool') AS tool_calls,
    greatest(countIf(s.status = 'error' AND s.operation != 'invoke_agent'), toUInt64(countIf(s.status = 'error') > 0)) AS errors,
    countIf(s.decision = 'denied') AS denied,
    sumIf(s.input_tokens, s.operation != 'invoke_agent') AS input_tokens,
    sumIf(s.output_tokens, s.operation != 'invoke_agent') AS output_tokens,
    sumIf(s.cost_nanos, s.operation != 'invoke_agent') AS cost_nanos,
    argMin(s.agent_id, (s.agent_id = '', s.start_time)) AS agent_id,
    argMin(s.agent_name, (s.agent_name = '', s.start_time)) AS agent_name,
    argMin(s.agent_version, (s.agent_id = '', s.start_time)) AS agent_version,
    groupUniqArrayIf(100)(s.request_model, s.request_model != '') AS models,
    groupUniqArrayIf(100)(s.tool_name, s.tool_name != '') AS tools,
    max(s.seq) AS last_seq
FROM spans AS s FINAL
WHERE s.org_id = {org:String}
  AND s.project_id = {project:String}
  AND s.session_id IN (
    SELECT session_id
    FROM spans FINAL
    WHERE org_id = {org:String}
      AND project_id = {project:String}
      AND session_id != ''
      AND session_id >= {from:String}
      AND session_id < {to:String}
      AND session_id < {before:String}
    GROUP BY session_id
    HAVING countIf(agent_id = {agent:String}) > 0 AND countIf(request_model = {model:String}) > 0 AND countIf(tool_name = {tool:String}) > 0 AND countIf(status = 'error') > 0 AND countIf(decision = 'denied') > 0
    ORDER BY session_id DESC
    LIMIT {limit:UInt64}
  )
GROUP BY s.project_id, s.session_id
ORDER BY s.session_id DESC
LIMIT {limit:UInt64}
