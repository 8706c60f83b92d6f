package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/tracecontext"
)

// The parts of an OpenAPI 3.1 document that this API needs.
type (
	document struct {
		OpenAPI    string              `json:"openapi"`
		Info       docInfo             `json:"info"`
		Servers    []docServer         `json:"servers"`
		Tags       []docTag            `json:"tags"`
		Security   []map[string][]any  `json:"security"`
		Paths      map[string]pathItem `json:"paths"`
		Components docComponents       `json:"components"`
	}
	docInfo struct {
		Title       string     `json:"title"`
		Version     string     `json:"version"`
		Description string     `json:"description"`
		License     docLicense `json:"license"`
	}
	docLicense struct {
		Name       string `json:"name"`
		Identifier string `json:"identifier"`
	}
	docServer struct {
		URL string `json:"url"`
	}
	docTag struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	pathItem      map[string]*docOperation
	docComponents struct {
		Schemas         map[string]*schema.Schema `json:"schemas"`
		SecuritySchemes map[string]docSecurity    `json:"securitySchemes"`
		Headers         map[string]docHeader      `json:"headers"`
		Responses       map[string]docResponse    `json:"responses"`
	}
	docSecurity struct {
		Type        string `json:"type"`
		Scheme      string `json:"scheme"`
		Description string `json:"description"`
	}
	docOperation struct {
		ID          string                 `json:"operationId"`
		Summary     string                 `json:"summary"`
		Description string                 `json:"description,omitempty"`
		Tags        []string               `json:"tags"`
		Parameters  []docParameter         `json:"parameters,omitempty"`
		Body        *docBody               `json:"requestBody,omitempty"`
		Responses   map[string]docResponse `json:"responses"`
		Security    *[]map[string][]any    `json:"security,omitempty"`
		Permission  string                 `json:"x-ambit-permission,omitempty"`
		MaxBody     int64                  `json:"x-ambit-max-body-bytes,omitempty"`
		Errors      []string               `json:"x-ambit-errors,omitempty"`
	}
	docParameter struct {
		Name        string         `json:"name"`
		In          string         `json:"in"`
		Required    bool           `json:"required"`
		Description string         `json:"description,omitempty"`
		Style       string         `json:"style,omitempty"`
		Explode     *bool          `json:"explode,omitempty"`
		Schema      *schema.Schema `json:"schema"`
	}
	docBody struct {
		Required bool                `json:"required"`
		Content  map[string]docMedia `json:"content"`
	}
	docMedia struct {
		Schema *schema.Schema `json:"schema,omitempty"`
	}
	docResponse struct {
		Ref         string               `json:"$ref,omitempty"`
		Description string               `json:"description,omitempty"`
		Headers     map[string]docHeader `json:"headers,omitempty"`
		Content     map[string]docMedia  `json:"content,omitempty"`
	}
	docHeader struct {
		Ref         string         `json:"$ref,omitempty"`
		Description string         `json:"description,omitempty"`
		Schema      *schema.Schema `json:"schema,omitempty"`
	}
)

var tags = []docTag{
	{"Invoke", "Give an agent something to do, and get its answer at once, as a stream, or later."},
	{"Quotes", "What work would cost, beforehand, at prices that bind."},
	{"Agents", "Definitions of agents, their immutable versions, and the aliases that point at versions."},
	{"Sessions", "Running agents: their state, journal, steps and files; how to talk to them and how to stop them."},
	{"Models", "The models that can be used here, with their prices."},
	{"Projects", "Where an organisation keeps its agents and sessions apart."},
	{"Keys", "API keys: made, limited, rotated, revoked."},
	{"Budgets", "Limits on what the organisation, a project, an agent, a key, a member or a session spends."},
	{"Mandates", "What a person has signed that an agent may spend: on what, how much, with whom, until when, and what it may hand on."},
	{"Usage", "What was spent, on what, and when."},
	{"Ledger", "The double-entry record of all money, to the nano-dollar."},
	{"Identity", "What agents sign with and where it is published, and what members confirm with."},
	{"Stops", "Orders to stop all that works: of an agent, an API key, a project or the organisation."},
	{"Webhooks", "Endpoints of yours that are told of what happens, by signed messages."},
	{"Permissions", "What agents may do: rules, presets, explanations, and rules tried on the past."},
	{"Approvals", "What people decide on: what waits for them, and the rules that ask."},
	{"Members", "Who belongs to the organisation, and what their roles allow."},
	{"Organisation", "The organisation and who is asking."},
}

const overview = `The API of Ambit, a control plane for autonomous agents.

Errors are application/problem+json (RFC 9457); their type is a page that this instance serves. Lists are pages with a cursor. Money is a decimal string with a point. Times are RFC 3339 in UTC. Clients ignore members, event types and enumeration values that they do not know.`

func (a *API) buildDocument() ([]byte, error) {
	problem := a.builder.Of(reflect.TypeFor[problemBody](), schema.Out)
	doc := document{
		OpenAPI: "3.1.0",
		Info: docInfo{
			Title: "Ambit", Version: Version, Description: overview,
			License: docLicense{Name: "Apache License 2.0", Identifier: "Apache-2.0"},
		},
		Servers:  []docServer{{URL: a.cfg.BaseURL}},
		Tags:     tags,
		Security: []map[string][]any{{"key": {}}},
		Paths:    map[string]pathItem{},
		Components: docComponents{
			Schemas: a.builder.Defs,
			SecuritySchemes: map[string]docSecurity{
				"key": {Type: "http", Scheme: "bearer", Description: "An API key: amb_…. A key of a whole organisation also names a project in the header Ambit-Project where the route needs one."},
			},
			Headers: map[string]docHeader{
				"RateLimit":            {Description: `What is left of each quota that binds the request, and in how many seconds it is whole: "default";r=412;t=18, "organization";r=5801;t=2.`, Schema: text()},
				"RateLimit-Policy":     {Description: `The quotas that bind the request, over all processes: "default";q=600;w=60, "organization";q=6000;w=60.`, Schema: text()},
				"Request-Id":           {Description: "The request's id, for questions about it.", Schema: schema.IDSchema("req")},
				"Retry-After":          {Description: "Whole seconds until it is worth trying again.", Schema: &schema.Schema{Type: schema.Types{"integer"}}},
				"ETag":                 {Description: `A strong entity tag: the version in double quotes.`, Schema: text()},
				"Location":             {Description: "Where to find what was made.", Schema: text()},
				"Idempotency-Replayed": {Description: "true when the answer is that of an earlier request with the same Idempotency-Key.", Schema: text()},
			},
			Responses: map[string]docResponse{
				"Problem": {Description: "What went wrong, and what to do about it.", Content: map[string]docMedia{problemType: {Schema: problem}}},
			},
		},
	}
	for _, m := range a.routes {
		if doc.Paths[m.Path] == nil {
			doc.Paths[m.Path] = pathItem{}
		}
		doc.Paths[m.Path][strings.ToLower(m.Method)] = a.operation(m)
	}
	return json.MarshalIndent(doc, "", " ")
}

func text() *schema.Schema { return &schema.Schema{Type: schema.Types{"string"}} }

func (a *API) operation(m *mounted) *docOperation {
	op := &docOperation{
		ID: m.ID, Summary: m.Summary, Description: m.Description, Tags: []string{m.Tag}, Permission: string(m.Permission), Errors: m.Errors,
		Responses: map[string]docResponse{"default": {Ref: "#/components/responses/Problem"}},
	}
	if m.Permission == "" {
		op.Security = &[]map[string][]any{}
	}
	for _, p := range m.allParams() {
		dp := docParameter{Name: p.name, In: p.in, Required: p.required, Description: p.doc, Schema: p.schema}
		if p.schema == nil { // created_at[gt] and its kin
			dp.Schema = &schema.Schema{Type: schema.Types{"object"}, Properties: rangeProperties()}
		}
		if dp.Schema.Description == dp.Description {
			bare := *dp.Schema
			bare.Description = ""
			dp.Schema = &bare
		}
		if p.typ == timeRangeType || p.typ == stringMapType {
			explode := true
			dp.Style, dp.Explode = "deepObject", &explode
		}
		op.Parameters = append(op.Parameters, dp)
	}
	if m.binding.body != nil {
		op.Body = &docBody{Required: !m.binding.optional, Content: map[string]docMedia{jsonType: {Schema: m.binding.body}}}
		op.MaxBody = m.maxBody()
	}
	ok := docResponse{Description: "Done.", Headers: map[string]docHeader{}, Content: map[string]docMedia{m.Endpoint.media: {Schema: m.out}}}
	for _, name := range m.answerHeaders() {
		ok.Headers[name] = docHeader{Ref: "#/components/headers/" + name}
	}
	op.Responses[strconv.Itoa(m.Endpoint.status)] = ok
	return op
}

// allParams is what the types say, and the headers that hold for whole classes of routes.
func (m *mounted) allParams() []param {
	out := slices.Clone(m.binding.params)
	if m.Endpoint.keyed && m.Method == http.MethodPost {
		key := text()
		key.MinLength, key.MaxLength = schema.Int(1), schema.Int(257)
		out = append(out, param{name: "Idempotency-Key", in: "header", schema: key, doc: "Makes the request safe to repeat: within 24 hours the same key with the same body has its effect once and gets the first answer again."})
	}
	if m.ID == "invoke" {
		out = append(out, param{name: tracecontext.Header, in: "header", schema: text(), doc: "The caller's span, as the W3C's Trace Context writes it. The session has a trace of its own, whose first span names this one (ambit.caller.trace_id, ambit.caller.span_id); a malformed value is ignored."})
	}
	if m.Permission != "" {
		out = append(out, param{name: "Ambit-Project", in: "header", schema: schema.IDSchema("prj"), doc: "The project, for a key of the whole organisation."})
	}
	return out
}

func (m *mounted) answerHeaders() []string {
	names := []string{"Request-Id"}
	if m.Permission != "" {
		names = append(names, "RateLimit", "RateLimit-Policy")
	}
	if m.Endpoint.out != nil && m.Endpoint.out.Implements(reflect.TypeFor[versioned]()) {
		names = append(names, "ETag")
	}
	if m.Endpoint.keyed && m.Method == http.MethodPost {
		names = append(names, replayedHeader)
	}
	return names
}

func rangeProperties() (out schema.Properties) {
	docs := map[string]string{"gt": "after", "gte": "at or after", "lt": "before", "lte": "at or before"}
	for _, op := range slices.Sorted(maps.Keys(docs)) {
		out = append(out, schema.Property{Name: op, Schema: &schema.Schema{Type: schema.Types{"string"}, Format: "date-time", Description: docs[op]}})
	}
	return out
}

// problemBody describes what problem.go writes.
type problemBody struct {
	Type      string         `json:"type" format:"uri" doc:"The error type: a page that explains it."`
	Title     string         `json:"title" doc:"The same for every occurrence of the type."`
	Status    int            `json:"status"`
	Detail    string         `json:"detail" doc:"What happened this time."`
	Code      string         `json:"code" doc:"The type's last part, to switch on."`
	RequestID string         `json:"request_id,omitempty" doc:"Left out of a 404."`
	Retryable bool           `json:"retryable" doc:"Whether the same request may succeed later without a change."`
	Errors    []problemField `json:"errors"`
}

type problemField struct {
	Pointer string `json:"pointer" doc:"A JSON pointer into the body, or query/… or header/…."`
	Code    string `json:"code"`
	Message string `json:"message"`
}
