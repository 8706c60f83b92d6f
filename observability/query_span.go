package observability

import (
	"context"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// SpanDetail is a span with its bodies.
type SpanDetail struct {
	SpanSummary

	UsageOther map[string]uint64 `ch:"usage_other"`

	// Input and Output are JSON, or its beginning when truncated; their sizes are
	// those of the whole.
	Input           string `ch:"input"`
	InputTruncated  bool   `ch:"input_truncated"`
	Output          string `ch:"output"`
	OutputTruncated bool   `ch:"output_truncated"`

	Attributes map[string]string `ch:"attributes"`
}

// Span returns one span of a session, with its bodies.
func (r *Reader) Span(ctx context.Context, scope Scope, session id.Session, spanID string) (SpanDetail, error) {
	if !isHex(spanID, 16) {
		// No span can have this id, and the answer must not tell that apart.
		return SpanDetail{}, fault.NotFound()
	}
	var spans []SpanDetail
	if err := r.run(ctx, scope, spanQuery(scope, session, spanID), &spans); err != nil {
		return SpanDetail{}, err
	}
	if len(spans) == 0 {
		return SpanDetail{}, fault.NotFound()
	}
	return spans[0], nil
}

// spanQuery reads within one session, whose rows lie together. The newest record
// is taken by its number and not by FINAL, which would read the bodies of all
// candidates.
func spanQuery(scope Scope, session id.Session, spanID string) query {
	return query{
		sql: `SELECT ` + summaryColumns + `,
    usage_other, input, input_truncated, output, output_truncated, attributes
FROM spans
WHERE org_id = {org:String}
  AND project_id = {project:String}
  AND session_id = {session:String}
  AND span_id = toFixedString({span:String}, 16)
ORDER BY seq DESC
LIMIT 1`,
		params: map[string]any{"org": string(scope.Org), "project": string(scope.Project), "session": string(session), "span": spanID},
	}
}
