package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/ratelimit"
)

func TestTheQuotaIsTold(t *testing.T) {
	tn := newRig(t, func(c *api.Config) {
		c.Rates = api.Rates{Requests: ratelimit.Policy{Quota: 3, Window: 6 * time.Second}}
	}).newTenant("Ada")
	res := tn.ask("GET", "/v1/me", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, `"default";q=3;w=6, "organization";q=30;w=6`, res.Header.Get("RateLimit-Policy"))
	require.Equal(t, `"default";r=2;t=2, "organization";r=29;t=1`, res.Header.Get("RateLimit"))
	tn.ask("GET", "/v1/me", "")
	tn.ask("GET", "/v1/me", "")
	res = tn.ask("POST", "/v1/agents", `{"name":"a","model":"ambit/scripted"}`, "Idempotency-Key", "k")
	require.Equal(t, 429, res.StatusCode)
	require.Equal(t, "rate_limited", res.code(t))
	require.Equal(t, []any{"default"}, res.field(t, "violated_policies"))
	require.Equal(t, true, res.field(t, "retryable"))
	require.Regexp(t, `^[12]$`, res.Header.Get("Retry-After"))
	require.Contains(t, res.raw, "This key may ask 3 times in 6 seconds. There is room again in")
	require.Equal(t, 200, tn.askWith(tn.orgKey, "GET", "/v1/me", "").StatusCode, "each key has its own quota")
	require.Eventually(t, func() bool { // two seconds later there is room for one
		res = tn.ask("POST", "/v1/agents", `{"name":"a","model":"ambit/scripted"}`, "Idempotency-Key", "k")
		return res.StatusCode != 429
	}, 10*time.Second, 100*time.Millisecond)
	require.Equal(t, 201, res.StatusCode, "a 429 is not kept for the Idempotency-Key")
	require.Empty(t, res.Header.Get("Idempotency-Replayed"))
}

// TestTheDocumentIsWhatServes checks the OpenAPI document: that every schema in it is one (draft 2020-12, by another implementation's
// meta-schema), that it has every route, and that every reference leads somewhere.
func TestTheDocumentIsWhatServes(t *testing.T) {
	r := newRig(t)
	res := r.get("/openapi.json")
	require.Equal(t, 200, res.StatusCode)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In string
				Required bool
				Schema   json.RawMessage
			}
			RequestBody *struct{ Content map[string]json.RawMessage }
			Responses   map[string]json.RawMessage
		}
		Components struct {
			Schemas map[string]json.RawMessage
		}
	}
	res.into(t, &doc)
	require.Equal(t, "3.1.0", doc.OpenAPI)

	n := 0
	for _, route := range r.api.Routes() {
		op, ok := doc.Paths[route.Path][strings.ToLower(route.Method)]
		require.True(t, ok, "%s %s is not in the document", route.Method, route.Path)
		require.Equal(t, route.ID, op.OperationID)
		inPath := map[string]bool{}
		for _, p := range op.Parameters {
			if p.In == "path" {
				require.True(t, p.Required, p.Name)
				inPath[p.Name] = true
			}
		}
		for _, m := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(route.Path, -1) {
			require.True(t, inPath[m[1]], "%s does not describe %s", route.ID, m[1])
			delete(inPath, m[1])
		}
		require.Empty(t, inPath, route.ID)
		n++
	}
	total := 0
	for _, ops := range doc.Paths {
		total += len(ops)
	}
	require.Equal(t, n, total, "the document has no route that is not served")

	// A schema that is none does not compile: the compiler holds each against the meta-schema.
	whole, err := jsonschema.UnmarshalJSON(strings.NewReader(res.raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, c.AddResource("mem:///openapi.json", whole))
	for name := range doc.Components.Schemas {
		_, err := c.Compile("mem:///openapi.json#/components/schemas/" + name)
		require.NoError(t, err, name)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/components/(\w+)/([\w-]+)"`).FindAllStringSubmatch(res.raw, -1) {
		var components struct {
			Components map[string]map[string]json.RawMessage
		}
		res.into(t, &components)
		require.Contains(t, components.Components[m[1]], m[2])
	}
}

// TestAnswersAreWhatTheDocumentSays asks every route for something that there is and holds its answer against the document.
func TestAnswersAreWhatTheDocumentSays(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada").newWorld()
	whole, err := jsonschema.UnmarshalJSON(strings.NewReader(r.get("/openapi.json").raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	require.NoError(t, c.AddResource("mem:///openapi.json", whole))
	problem, err := c.Compile("mem:///openapi.json#/components/responses/Problem/content/" + escape("application/problem+json") + "/schema")
	require.NoError(t, err)
	checked := 0
	for _, route := range r.api.Routes() {
		switch route.ID {
		case "sessions.kill", "sessions.archive", "projects.archive", "agents.archive", "api_keys.revoke",
			"agents.stop", "api_keys.stop", "projects.stop", "organization.stop":
			continue // they end what the others ask for
		case "sessions.events.stream":
			continue // no JSON, and no end while the session runs
		}
		headers := []string{"If-Match", "*"}
		if of, _, _ := strings.Cut(route.ID, "."); of != "permissions" && of != "approval_rules" && of != "approval_settings" && of != "roles" && of != "members" && of != "invitations" && of != "budgets" && of != "ledger" && of != "mandate_settings" { // those are the whole organisation's
			headers = append(headers, "Ambit-Project", string(ada.project))
		}
		res := ada.askWith(ada.orgKey, route.Method, fill(route.Path, ada.ids)+cases[route.ID].query, fill(cases[route.ID].body, ada.ids), headers...)
		body, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(res.raw)))
		if res.StatusCode >= 400 {
			require.NoError(t, err, res.raw)
			require.NoError(t, problem.Validate(body), "%s: %s", route.ID, res.raw)
			require.Contains(t, []string{"mandates.sub_mandates", "mandates.import", "agents.aliases.put", "sessions.files.list", "sessions.files.content", "sessions.receipt", "projects.create", "organization.update", "agents.aliases.get", "agents.aliases.delete", "webhooks.deliveries.redeliver", "members.update", "members.delete", "invitations.create", "approvals.refuse", "approvals.edit", "approval_rules.delete"}, route.ID, "%s: %s", route.ID, res.raw)
			continue
		}
		if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
			continue
		}
		require.NoError(t, err, res.raw)
		at := fmt.Sprintf("mem:///openapi.json#/paths/%s/%s/responses/", escape(route.Path), strings.ToLower(route.Method))
		status := res.StatusCode
		if status == http.StatusAccepted {
			status = http.StatusOK // the same shape
		}
		s, err := c.Compile(at + fmt.Sprint(status) + "/content/application~1json/schema")
		require.NoError(t, err, "%s answered %d, which the document does not know", route.ID, res.StatusCode)
		require.NoError(t, s.Validate(body), "%s: %s", route.ID, res.raw)
		checked++
	}
	require.Greater(t, checked, 25)
}

// escape writes a key as a pointer in a URL fragment.
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B").Replace(key)
}

func TestErrorsHavePages(t *testing.T) {
	asked := ""
	r := newRig(t, func(c *api.Config) {
		c.ErrorPage = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.URL.Path
			w.Header().Set("Content-Type", "text/html")
		})
	})
	for _, e := range api.ErrorTypes() {
		res := r.get("/errors/" + e.Slug)
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, e.Slug, res.field(t, "code"))
		require.NotEmpty(t, e.Title)
		require.NotEmpty(t, e.Meaning, e.Slug)
		require.NotEmpty(t, e.Action, e.Slug)
		require.Equal(t, "text/html", r.get("/errors/"+e.Slug, "Accept", "text/html,application/xhtml+xml,*/*;q=0.8").Header.Get("Content-Type"))
		require.Equal(t, "/errors/"+e.Slug, asked)
	}
	require.Equal(t, 404, r.get("/errors/none").StatusCode)
	require.Equal(t, 404, r.get("/errors/none", "Accept", "text/html").StatusCode)
}

func TestWhatIsNotThereIsTheOne404(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	want := tn.ask("GET", "/v1/agents/"+never()["agent_id"], "").raw
	for _, c := range [][2]string{
		{"GET", "/v1"},
		{"GET", "/v1/"},
		{"GET", "/v2/agents"},
		{"GET", "/"},
		{"PATCH", "/v1/agents"},
		{"DELETE", "/v1/agents"},
		{"GET", "/v1/agents/"},
		{"GET", "/v1//agents"},
		{"GET", "/v1/agents/x/y/z"},
		{"POST", "/openapi.json"},
		{"GET", "/metrics"},
		{"GET", "/debug/pprof/"},
	} {
		res := tn.ask(c[0], c[1], "")
		require.Equal(t, 404, res.StatusCode, c)
		require.Equal(t, want, res.raw, c)
	}
	require.Equal(t, `{"type":"http://ambit.test/errors/not_found","title":"Not found","status":404,"detail":"There is nothing here, or you may not see it.","code":"not_found","retryable":false,"errors":[]}`+"\n", want)
}

func TestTheReferenceHasEveryRoute(t *testing.T) {
	r := newRig(t)
	ref := r.api.Reference()
	n := 0
	for _, g := range ref.Groups {
		for _, op := range g.Operations {
			n++
			require.Contains(t, op.Curl, "curl http://ambit.test"+op.Path)
			if op.Method != http.MethodGet && len(op.Request) > 0 {
				require.Contains(t, op.Curl, "-d '")
			}
		}
	}
	require.Equal(t, len(r.api.Routes()), n)
}

func TestTheVersionIsTold(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	res := tn.ask("GET", "/v1/me", "", "Ambit-Version", api.Version)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, api.Version, res.Header.Get("Ambit-Version"))
	require.Equal(t, 400, tn.ask("GET", "/v1/me", "", "Ambit-Version", "2020-01-01").StatusCode)
}
