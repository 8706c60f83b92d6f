package api_test

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// world is one of each thing that a route can name, in one organisation.
type world struct {
	*tenant
	ids map[string]string
}

func (tn *tenant) newWorld() *world {
	tn.t.Helper()
	w := &world{tenant: tn, ids: map[string]string{"version": "1", "name": "prod", "project_id": string(tn.project), "key_id": string(tn.keyID)}}
	w.ids["agent_id"] = tn.newAgent("helper")
	require.Equal(tn.t, 200, tn.ask("PUT", "/v1/agents/"+w.ids["agent_id"]+"/aliases/prod", `{"version":1}`).StatusCode)
	session, _ := tn.newSession(`{"agent":"` + w.ids["agent_id"] + `","input":"hello","mode":"async"}`)
	w.ids["session_id"] = string(session)
	step := id.New[id.Step]()
	tn.work(session, journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindModelCall, Name: "ambit/scripted", EffectKey: string(step)}})
	w.ids["step_id"] = string(step)
	tn.stopped(w)
	var keys struct{ Data []struct{ KID string } }
	tn.ask("POST", "/v1/agents/"+w.ids["agent_id"]+"/keys/rotate", "").into(tn.t, &keys)
	w.ids["kid"] = keys.Data[0].KID
	w.addRules()
	res := tn.ask("POST", "/v1/webhooks", `{"url":"https://example.com/hook","event_types":["*"]}`)
	require.Equal(tn.t, 201, res.StatusCode, res.raw)
	w.ids["webhook_id"], _ = res.field(tn.t, "id").(string)
	res = tn.ask("POST", "/v1/webhooks/"+w.ids["webhook_id"]+"/test", "")
	require.Equal(tn.t, 201, res.StatusCode, res.raw)
	w.ids["delivery_id"], _ = res.field(tn.t, "id").(string)
	w.addMoney()
	w.addApprovals()
	return w
}

// addApprovals makes a rule, and a question of the session's.
func (w *world) addApprovals() {
	w.t.Helper()
	res := w.askWith(w.orgKey, "POST", "/v1/approval_rules", approvalRule)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["approval_rule_id"], _ = res.field(w.t, "id").(string)
	w.ids["approval_id"] = string(id.New[id.Approval]())
	w.ids["approval_digest"] = fmt.Sprintf("%x", sha256.Sum256([]byte(w.ids["approval_id"])))
	require.NoError(w.t, w.db.InTx(w.t.Context(), w.org, func(tx pgx.Tx) error {
		_, err := tx.Exec(w.t.Context(), `INSERT INTO approvals (org_id, id, session_id, project_id, tool_use_seq, digest, status, demand, action, askers, expires_at, asked_at)
			VALUES ($1, $2::text, $3, $4, 1, sha256(convert_to($2::text, 'UTF8')), 'pending', '{"rules":[],"stages":[{"roles":["owner"],"members":[],"need":1,"within":60000000000}]}', '{"arguments":{}}', '{}', now() + interval '1 hour', $5)`,
			string(w.org), w.ids["approval_id"], w.ids["session_id"], string(w.project), w.clock.Now())
		return err
	}))
}

const approvalRule = `{"name":"Purchases","subject":"*","tool":"bash","stages":[{"roles":["admin","owner"],"within_seconds":3600}]}`

// addRules makes what is the whole organisation's.
func (w *world) addRules() {
	w.t.Helper()
	res := w.askWith(w.orgKey, "POST", "/v1/permissions", `{"subject":"`+w.ids["agent_id"]+`","effect":"deny","kind":"tool_call","name":"python"}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["permission_id"], _ = res.field(w.t, "id").(string)
	res = w.askWith(w.orgKey, "POST", "/v1/roles", `{"name":"Auditor","permissions":["traces:read"]}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["role_id"], _ = res.field(w.t, "id").(string)
	var members struct{ Data []struct{ ID string } }
	w.askWith(w.orgKey, "GET", "/v1/members", "").into(w.t, &members)
	res = w.askWith(w.orgKey, "POST", "/v1/invitations", `{"email":"invited@example.com","role":"viewer"}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["invitation_id"], _ = res.field(w.t, "id").(string)
	w.ids["member_id"], w.ids["preset"] = members.Data[0].ID, "web-client"
}

// stopped adds an order to stop an agent, and its receipt.
func (tn *tenant) stopped(w *world) {
	res := tn.ask("POST", "/v1/agents/"+tn.newAgent("stopped")+"/stop", `{"reason":"a drill"}`)
	require.Equal(tn.t, 200, res.StatusCode, res.raw)
	w.ids["stop_id"], _ = res.field(tn.t, "id").(string)
}

// addMoney makes a budget, and finds an entry of the ledger.
func (w *world) addMoney() {
	w.t.Helper()
	res := w.askWith(w.orgKey, "POST", "/v1/budgets", `{"name":"All","scope":{"type":"organization"},"limit":{"amount":"3.00","currency":"USD"},"period":"month","alerts":[50]}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["budget_id"], _ = res.field(w.t, "id").(string)
	res = w.ask("POST", "/v1/mandates", `{"agent_id":"`+w.ids["agent_id"]+`","intent":"research","total":{"amount":"5.00","currency":"USD"},"expires_at":"2036-01-01T00:00:00Z","depth":2}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["mandate_id"], _ = res.field(w.t, "id").(string)
	w.signMandate(id.Mandate(w.ids["mandate_id"]))
	var entries struct{ Data []struct{ ID string } }
	w.askWith(w.orgKey, "GET", "/v1/ledger/entries?kind=grant", "").into(w.t, &entries)
	w.ids["entry_id"] = entries.Data[0].ID
	_, begun := w.newSession(`{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async","limits":{"max_cost":{"amount":"0.10","currency":"USD"}}}`)
	res = w.ask("POST", "/v1/quotes", `{"agent":"`+w.ids["agent_id"]+`","input":"x"}`)
	require.Equal(w.t, 201, res.StatusCode, res.raw)
	w.ids["quote_id"], _ = res.field(w.t, "id").(string)
	var holds struct{ Data []struct{ ID string } }
	w.ask("GET", "/v1/ledger/holds?session_id="+string(begun.SessionID), "").into(w.t, &holds)
	w.ids["hold_id"] = holds.Data[0].ID
}

// fill puts ids into a route's path.
func fill(path string, ids map[string]string) string {
	return regexp.MustCompile(`{(\w+)}`).ReplaceAllStringFunc(path, func(m string) string { return ids[m[1:len(m)-1]] })
}

// never returns ids of the right form that nothing has.
func never() map[string]string {
	return map[string]string{
		"agent_id": string(id.New[id.Agent]()), "stop_id": string(id.New[id.Stop]()), "session_id": string(id.New[id.Session]()), "step_id": string(id.New[id.Step]()),
		"project_id": string(id.New[id.Project]()), "key_id": string(id.New[id.Key]()), "version": "1", "name": "prod", "kid": strings.Repeat("x", 43),
		"approval_id": string(id.New[id.Approval]()), "approval_digest": strings.Repeat("0", 64), "approval_rule_id": string(id.New[id.ApprovalRule]()),
		"permission_id": string(id.New[id.Permission]()), "role_id": string(id.New[id.Role]()), "member_id": string(id.New[id.Member]()), "preset": "web-client", "invitation_id": string(id.New[id.Invitation]()),
		"webhook_id": string(id.New[id.Webhook]()), "delivery_id": string(id.New[id.Delivery]()),
		"budget_id": string(id.New[id.Budget]()), "entry_id": string(id.New[id.Entry]()),
		"mandate_id": string(id.New[id.Mandate]()),
		"hold_id":    string(id.New[id.Hold]()), "quote_id": string(id.New[id.Quote]()),
	}
}

// cases says for every route what a good request has, and which of its parts are another organisation's in the sweep. A route that is
// missing here fails the accounting.
var cases = map[string]struct {
	query string
	body  string // {agent_id} and its kin are filled in
	// foreign is what another organisation's request gets: 404, or 200 with nothing of the first organisation in it ("own").
	foreign string
}{
	"invoke":                        {body: `{"agent":"{agent_id}","input":"x","mode":"async"}`, foreign: "404"},
	"quotes.create":                 {body: `{"agent":"{agent_id}","input":"x"}`, foreign: "404"},
	"quotes.get":                    {foreign: "404"},
	"agents.create":                 {body: `{"name":"new","model":"ambit/scripted"}`, foreign: "own"},
	"agents.list":                   {foreign: "own"},
	"agents.get":                    {foreign: "404"},
	"agents.update":                 {body: `{"name":"renamed"}`, foreign: "404"},
	"agents.archive":                {foreign: "404"},
	"agents.versions.list":          {foreign: "404"},
	"agents.versions.get":           {foreign: "404"},
	"agents.aliases.list":           {foreign: "404"},
	"agents.aliases.put":            {body: `{"version":1}`, foreign: "404"},
	"agents.aliases.get":            {foreign: "404"},
	"agents.aliases.delete":         {foreign: "404"},
	"agents.identity":               {foreign: "404"},
	"agents.keys.list":              {foreign: "404"},
	"agents.keys.rotate":            {foreign: "404"},
	"agents.keys.retire":            {foreign: "404"},
	"members.passkeys.list":         {foreign: "404"},
	"sessions.list":                 {foreign: "own"},
	"sessions.get":                  {foreign: "404"},
	"sessions.update":               {body: `{"title":"t"}`, foreign: "404"},
	"sessions.archive":              {foreign: "404"},
	"sessions.kill":                 {foreign: "404"},
	"sessions.receipt":              {foreign: "404"},
	"agents.stop":                   {foreign: "404"},
	"api_keys.stop":                 {foreign: "404"},
	"projects.stop":                 {foreign: "404"},
	"organization.stop":             {foreign: "own"},
	"stops.list":                    {foreign: "own"},
	"stops.get":                     {foreign: "404"},
	"sessions.resume":               {foreign: "404"},
	"sessions.events.list":          {foreign: "404"},
	"sessions.events.send":          {body: `{"events":[{"type":"user.message","content":"x"}]}`, foreign: "404"},
	"sessions.events.stream":        {query: "?after_seq=0&until=idle", foreign: "404"},
	"sessions.steps.list":           {foreign: "404"},
	"sessions.steps.get":            {foreign: "404"},
	"sessions.files.list":           {foreign: "404"},
	"sessions.files.content":        {query: "?path=a", foreign: "404"},
	"models.list":                   {foreign: "own"},
	"projects.create":               {body: `{"name":"new"}`, foreign: "own"},
	"projects.list":                 {foreign: "own"},
	"projects.get":                  {foreign: "404"},
	"projects.update":               {body: `{"name":"renamed"}`, foreign: "404"},
	"projects.archive":              {foreign: "404"},
	"api_keys.create":               {body: `{"name":"new","scopes":["agents:read"],"project_id":"{project_id}"}`, foreign: "404"},
	"api_keys.list":                 {foreign: "own"},
	"api_keys.get":                  {foreign: "404"},
	"api_keys.update":               {body: `{"name":"renamed"}`, foreign: "404"},
	"api_keys.rotate":               {foreign: "404"},
	"api_keys.revoke":               {foreign: "404"},
	"budgets.create":                {body: `{"name":"New","scope":{"type":"agent","id":"{agent_id}"},"limit":{"amount":"1.00","currency":"USD"},"period":"day"}`, foreign: "own"},
	"budgets.list":                  {foreign: "own"},
	"budgets.get":                   {foreign: "404"},
	"budgets.update":                {body: `{"name":"renamed"}`, foreign: "404"},
	"budgets.delete":                {foreign: "404"},
	"usage.list":                    {foreign: "own"},
	"mandates.create":               {body: `{"agent_id":"{agent_id}","intent":"research","total":{"amount":"5.00","currency":"USD"},"expires_at":"2036-01-01T00:00:00Z"}`, foreign: "own"},
	"mandates.list":                 {foreign: "own"},
	"mandates.get":                  {foreign: "404"},
	"mandates.sub_mandates":         {body: `{"agent_id":"{agent_id}"}`, foreign: "404"},
	"mandates.revoke":               {foreign: "404"},
	"mandates.import":               {body: `{"agent_id":"{agent_id}","chain":"x","keys":"x"}`, foreign: "own"},
	"mandates.export":               {foreign: "404"},
	"mandate_settings.get":          {foreign: "own"},
	"mandate_settings.set":          {body: `{"passkey_above":{"amount":"5.00","currency":"USD"},"required_of":[]}`, foreign: "own"},
	"ledger.entries.list":           {foreign: "own"},
	"ledger.entries.get":            {foreign: "404"},
	"ledger.accounts.list":          {foreign: "own"},
	"ledger.holds.list":             {foreign: "own"},
	"ledger.holds.get":              {foreign: "404"},
	"webhooks.create":               {body: `{"url":"https://example.com/hook","event_types":["*"],"project_id":"{project_id}"}`, foreign: "404"},
	"webhooks.list":                 {foreign: "own"},
	"webhooks.get":                  {foreign: "404"},
	"webhooks.update":               {body: `{"description":"renamed"}`, foreign: "404"},
	"webhooks.delete":               {foreign: "404"},
	"webhooks.rotate_secret":        {foreign: "404"},
	"webhooks.test":                 {foreign: "404"},
	"webhooks.deliveries.list":      {foreign: "404"},
	"webhooks.deliveries.get":       {foreign: "404"},
	"webhooks.deliveries.redeliver": {foreign: "404"},
	"me":                            {foreign: "own"},
	"permissions.create":            {body: `{"subject":"{agent_id}","effect":"deny","kind":"tool_call","name":"bash"}`, foreign: "own"},
	"permissions.list":              {foreign: "own"},
	"permissions.get":               {foreign: "404"},
	"permissions.update":            {body: `{"description":"changed"}`, foreign: "404"},
	"permissions.delete":            {foreign: "404"},
	"permissions.presets.list":      {foreign: "own"},
	"permissions.presets.apply":     {body: `{"subject":"{agent_id}"}`, foreign: "own"},
	"permissions.explain":           {body: `{"agent":"{agent_id}","kind":"tool_call","name":"bash"}`, foreign: "404"},
	"permissions.simulate":          {body: `{"rules":[{"subject":"{agent_id}","effect":"deny","kind":"*"}]}`, foreign: "own"},
	"permissions.tags.list":         {foreign: "own"},
	"permissions.tags.put":          {body: `{"tags":["a"]}`, foreign: "404"},
	"approvals.list":                {foreign: "own"},
	"approvals.get":                 {foreign: "404"},
	"approvals.approve":             {body: `{"digest":"{approval_digest}"}`, foreign: "404"},
	"approvals.refuse":              {body: `{"digest":"{approval_digest}"}`, foreign: "404"},
	"approvals.edit":                {body: `{"digest":"{approval_digest}","arguments":{}}`, foreign: "404"},
	"approval_rules.create":         {body: approvalRule, foreign: "own"},
	"approval_rules.list":           {foreign: "own"},
	"approval_rules.get":            {foreign: "404"},
	"approval_rules.update":         {body: approvalRule, foreign: "404"},
	"approval_rules.delete":         {foreign: "404"},
	"approval_settings.get":         {foreign: "own"},
	"approval_settings.update":      {body: `{"asks_per_day":40}`, foreign: "own"},
	"members.list":                  {foreign: "own"},
	"members.update":                {body: `{"role":"viewer"}`, foreign: "404"},
	"members.delete":                {foreign: "404"},
	"invitations.create":            {body: `{"email":"new@example.com","role":"viewer"}`, foreign: "own"},
	"invitations.list":              {foreign: "own"},
	"invitations.resend":            {foreign: "404"},
	"invitations.delete":            {foreign: "404"},
	"roles.create":                  {body: `{"name":"New","permissions":["traces:read"]}`, foreign: "own"},
	"roles.list":                    {foreign: "own"},
	"roles.get":                     {foreign: "404"},
	"roles.update":                  {body: `{"description":"changed"}`, foreign: "404"},
	"roles.delete":                  {foreign: "404"},
	"organization.get":              {foreign: "own"},
	"organization.update":           {body: `{"name":"Renamed"}`, foreign: "own"},
}

func TestEveryRouteIsAccountedFor(t *testing.T) {
	r := newRig(t)
	known := map[string]bool{}
	paths := map[string]bool{}
	for _, route := range r.api.Routes() {
		known[route.ID] = true
		_, ok := cases[route.ID]
		require.True(t, ok, "%s has no case in the tenancy sweep", route.ID)
		require.NotEmpty(t, route.Permission, "%s has no permission", route.ID)
		if route.Permission != "any key" {
			require.True(t, route.Permission.Known(), "%s asks for %s, which nobody can have", route.ID, route.Permission)
		}
		require.NotEmpty(t, route.Summary, route.ID)
		require.False(t, paths[route.Method+route.Path], "%s %s stands twice", route.Method, route.Path)
		paths[route.Method+route.Path] = true
		for _, slug := range route.Errors {
			res := r.get("/errors/" + slug)
			require.Equal(t, 200, res.StatusCode, "%s names the error %s, which has no page", route.ID, slug)
		}
	}
	for route := range cases {
		require.True(t, known[route], "%s is in the sweep and not in the table", route)
	}
}

// TestAnotherOrganisationsIDIsAnIDThatNeverWas asks every route, as a second organisation, for what is the first one's: the answer must
// be that for an id that never was, byte for byte, and nothing may have happened.
func TestAnotherOrganisationsIDIsAnIDThatNeverWas(t *testing.T) {
	r := newRig(t)
	ada, eve := r.newTenant("Ada").newWorld(), r.newTenant("Eve").newWorld()
	before := ada.snapshot()
	for _, key := range []string{eve.key, eve.orgKey} {
		for _, route := range r.api.Routes() {
			c := cases[route.ID]
			ask := func(ids map[string]string) reply {
				return eve.askWith(key, route.Method, fill(route.Path, ids)+c.query, fill(c.body, ids))
			}
			theirs := ask(ada.ids)
			if c.foreign == "404" {
				none := ask(never())
				require.Equal(t, 404, theirs.StatusCode, "%s: %s", route.ID, theirs.raw)
				require.Equal(t, 404, none.StatusCode, "%s: %s", route.ID, none.raw)
				require.Equal(t, none.raw, theirs.raw, route.ID)
				require.Equal(t, headersThatCount(none), headersThatCount(theirs), route.ID)
				require.NotContains(t, theirs.raw, "request_id")
				continue
			}
			require.Less(t, theirs.StatusCode, 500, "%s: %s", route.ID, theirs.raw)
			for name, value := range ada.ids {
				if strings.Contains(value, "_") {
					require.NotContains(t, theirs.raw, value, "%s shows the other organisation's %s", route.ID, name)
				}
			}
			require.NotContains(t, theirs.raw, string(ada.org), route.ID)
		}
	}
	// A project of the other organisation in the header is as missing as one that never was.
	for _, path := range []string{"/v1/agents", "/v1/me"} {
		theirs := eve.askWith(eve.orgKey, "GET", path, "", "Ambit-Project", string(ada.project))
		none := eve.askWith(eve.orgKey, "GET", path, "", "Ambit-Project", string(id.New[id.Project]()))
		require.Equal(t, 404, theirs.StatusCode)
		require.Equal(t, none.raw, theirs.raw)
	}
	for _, filter := range []string{"/v1/agents?project_id=" + string(ada.project), "/v1/sessions?agent_id=" + ada.ids["agent_id"], "/v1/sessions?project_id=" + string(ada.project)} {
		res := eve.askWith(eve.orgKey, "GET", filter, "")
		require.Equal(t, 200, res.StatusCode, res.raw)
		require.JSONEq(t, `{"data":[],"next_page":null}`, res.raw)
	}
	require.Equal(t, before, ada.snapshot(), "nothing of the first organisation changed")
}

// TestAProjectsKeySeesItsProjectOnly does the same between two projects of one organisation.
func TestAProjectsKeySeesItsProjectOnly(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada").newWorld()
	res := ada.askWith(ada.orgKey, "POST", "/v1/projects", `{"name":"second"}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	second, _ := res.field(t, "id").(string)
	key, _ := ada.newKey(tenants.CreateKey{Name: "second", Project: id.Project(second), Scopes: []string{"*"}})
	before := ada.snapshot()
	for _, route := range r.api.Routes() {
		c := cases[route.ID]
		if c.foreign != "404" {
			continue
		}
		for _, headers := range [][]string{nil, {"Ambit-Project", second}} {
			asking := key
			if headers != nil {
				asking = ada.orgKey // bound to the second project by the header
			}
			theirs := ada.askWith(asking, route.Method, fill(route.Path, ada.ids)+c.query, fill(c.body, ada.ids), headers...)
			none := ada.askWith(asking, route.Method, fill(route.Path, never())+c.query, fill(c.body, never()), headers...)
			require.Equal(t, 404, theirs.StatusCode, "%s: %s", route.ID, theirs.raw)
			require.Equal(t, none.raw, theirs.raw, route.ID)
		}
	}
	require.Equal(t, before, ada.snapshot())
	require.Equal(t, 403, ada.askWith(key, "POST", "/v1/projects", `{"name":"third"}`).StatusCode)
	require.Equal(t, 403, ada.askWith(key, "POST", "/v1/organization", `{"name":"Mine"}`).StatusCode)
	res = ada.askWith(key, "POST", "/v1/api_keys", `{"name":"mine","scopes":["*"]}`)
	require.Equal(t, 201, res.StatusCode)
	require.Equal(t, second, res.field(t, "project_id"), "a project's key makes keys of its project")
}

// snapshot is everything that the first organisation can see of itself and that a request could have changed.
func (w *world) snapshot() string {
	var b strings.Builder
	for _, path := range []string{
		"/v1/agents?include_archived=true", "/v1/sessions?include_archived=true", "/v1/projects?include_archived=true", "/v1/organization",
		"/v1/agents/" + w.ids["agent_id"] + "/aliases", "/v1/agents/" + w.ids["agent_id"] + "/keys", "/v1/sessions/" + w.ids["session_id"] + "/events",
		"/v1/permissions", "/v1/permissions/tags", "/v1/approvals", "/v1/approval_rules", "/v1/approval_settings", "/v1/roles", "/v1/members", "/v1/invitations",
		"/v1/mandates", "/v1/mandate_settings", "/v1/budgets", "/v1/ledger/entries", "/v1/ledger/accounts", "/v1/ledger/holds",
		"/v1/quotes/" + w.ids["quote_id"], "/v1/webhooks", "/v1/webhooks/" + w.ids["webhook_id"] + "/deliveries",
	} {
		res := w.askWith(w.orgKey, "GET", path, "")
		require.Equal(w.t, 200, res.StatusCode, res.raw)
		b.WriteString(res.raw)
	}
	var keys struct {
		Data []struct{ ID, Name, Status string }
	}
	w.askWith(w.orgKey, "GET", "/v1/api_keys", "").into(w.t, &keys)
	fmt.Fprint(&b, keys)
	return b.String()
}

// headersThatCount leaves out what differs between any two answers.
func headersThatCount(r reply) map[string]string {
	out := map[string]string{}
	for name, values := range r.Header {
		if !slices.Contains([]string{"Date", "Request-Id", "Ratelimit"}, name) {
			out[name] = strings.Join(values, "|")
		}
	}
	return out
}

// TestWithoutThePermission asks every route with a key that was given every other permission: a change is refused, a list too, and one
// thing is not there.
func TestWithoutThePermission(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada").newWorld()
	keys := map[tenants.Permission]string{}
	for _, route := range r.api.Routes() {
		if route.Permission == "any key" {
			continue
		}
		if keys[route.Permission] == "" {
			var scopes []string
			for _, p := range tenants.Permissions() {
				if p != route.Permission {
					scopes = append(scopes, string(p))
				}
			}
			keys[route.Permission], _ = ada.newKey(tenants.CreateKey{Name: "all but " + string(route.Permission), Scopes: scopes})
		}
		c := cases[route.ID]
		res := ada.askWith(keys[route.Permission], route.Method, fill(route.Path, ada.ids)+c.query, fill(c.body, ada.ids))
		if route.Method == http.MethodGet && strings.Contains(route.Path, "{") {
			none := ada.askWith(ada.key, http.MethodGet, "/v1/agents/"+never()["agent_id"], "")
			require.Equal(t, 404, res.StatusCode, "%s: %s", route.ID, res.raw)
			require.Equal(t, none.raw, res.raw, route.ID)
			continue
		}
		require.Equal(t, 403, res.StatusCode, "%s: %s", route.ID, res.raw)
		require.Equal(t, "permission_denied", res.code(t))
		require.Equal(t, string(route.Permission), res.field(t, "rule"))
	}
}

// TestWithoutAGoodKey asks every route with no key, and with bad ones of every sort.
func TestWithoutAGoodKey(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada").newWorld()
	soon := r.clock.Now().Add(time.Hour)
	expired, _ := ada.newKey(tenants.CreateKey{Name: "expired", Scopes: []string{"*"}, ExpiresAt: &soon})
	revoked, revokedID := ada.newKey(tenants.CreateKey{Name: "revoked", Scopes: []string{"*"}})
	require.Equal(t, 200, ada.askWith(revoked, "GET", "/v1/me", "").StatusCode)
	require.Equal(t, 200, ada.askWith(ada.orgKey, "POST", "/v1/api_keys/"+string(revokedID)+"/revoke", "").StatusCode)
	r.clock.Advance(2 * time.Hour)
	mistyped := []byte(ada.key)
	mistyped[10] ^= 1
	forged := newForgedKey()
	before := ada.snapshot()
	for _, bad := range []struct{ name, header, code string }{
		{"none", "", "unauthenticated"},
		{"no scheme", ada.key, "unauthenticated"},
		{"basic", "Basic " + ada.key, "unauthenticated"},
		{"empty", "Bearer ", "unauthenticated"},
		{"mistyped", "Bearer " + string(mistyped), "unauthenticated"},
		{"cut off", "Bearer " + ada.key[:20], "unauthenticated"},
		{"forged", "Bearer " + forged, "unauthenticated"},
		{"another system's", "Bearer sk-1234567890", "unauthenticated"},
		{"expired", "Bearer " + expired, "key_expired"},
		{"revoked", "Bearer " + revoked, "key_revoked"},
	} {
		for _, route := range r.api.Routes() {
			c := cases[route.ID]
			var headers []string
			if bad.header != "" {
				headers = []string{"Authorization", bad.header}
			}
			res := ada.askWith("", route.Method, fill(route.Path, ada.ids)+c.query, fill(c.body, ada.ids), headers...)
			require.Equal(t, 401, res.StatusCode, "%s with a key that is %s: %s", route.ID, bad.name, res.raw)
			require.Equal(t, bad.code, res.code(t), bad.name)
			require.NotEmpty(t, res.Header.Get("WWW-Authenticate"))
		}
	}
	require.Equal(t, before, ada.snapshot())
	for _, secret := range []string{ada.key, ada.orgKey, expired, revoked, string(mistyped), forged} {
		require.NotContains(t, r.log.String(), secret, "keys never reach the log")
	}
}

// newForgedKey is well formed, with the right checksum, and was never made.
func newForgedKey() string {
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := "amb_" + strings.Repeat("A", 34)
	sum := crc32.ChecksumIEEE([]byte(body))
	out := make([]byte, 6)
	for i := 5; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return body + string(out)
}

// TestMalformedRequests sends each route what it can't take. Whatever comes, the answer is a 4xx problem with a known code, never a 5xx,
// and nothing has happened.
func TestMalformedRequests(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada").newWorld()
	before := ada.snapshot()
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	bodies := map[string]struct {
		body    string
		headers []string
		status  int
	}{
		"not JSON":         {body: `{"name":`, status: 400},
		"two values":       {body: `{}{}`, status: 400},
		"an array":         {body: `[]`, status: 400},
		"null":             {body: `null`, status: 400},
		"invalid UTF-8":    {body: "{\"name\":\"\xff\"}", status: 400},
		"a NUL":            {body: `{"name":"a\u0000b"}`, status: 400},
		"an unknown field": {body: `{"nonsense":1}`, status: 400},
		"a field twice":    {body: `{"name":"a","name":"b"}`, status: 400},
		"too deep":         {body: deep, status: 400},
		"too large":        {body: `{"name":"` + strings.Repeat("x", 5<<20) + `"}`, status: 413},
		"a form":           {body: "name=a", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415},
		"another charset":  {body: `{}`, headers: []string{"Content-Type", "application/json; charset=utf-16"}, status: 415},
	}
	for _, route := range r.api.Routes() {
		path := fill(route.Path, ada.ids)
		if route.Method != http.MethodGet {
			for _, name := range slices.Sorted(maps.Keys(bodies)) {
				b := bodies[name]
				res := ada.askWith(ada.orgKey, route.Method, path, b.body, append(b.headers, "If-Match", "*")...)
				require.Equal(t, b.status, res.StatusCode, "%s with a body that is %s: %s", route.ID, name, res.raw)
				require.NotEmpty(t, res.code(t))
			}
		}
		res := ada.askWith(ada.orgKey, route.Method, path+"?nonsense=1", cases[route.ID].body)
		require.Equal(t, 400, res.StatusCode, "%s with an unknown parameter: %s", route.ID, res.raw)
		res = ada.askWith(ada.orgKey, route.Method, path+"?a=%zz", cases[route.ID].body)
		require.Equal(t, 400, res.StatusCode, "%s with a broken query: %s", route.ID, res.raw)

		// Ids of a wrong form name nothing.
		if !strings.Contains(route.Path, "{") {
			continue
		}
		none := ada.ask("GET", "/v1/agents/"+never()["agent_id"], "")
		for _, bad := range []string{"x", "agt_", "ses_01", strings.Repeat("9", 3000), "%00", "..", "%2e%2e%2fetc", "*", "'; DROP TABLE agents; --", "agt_01M7WNFM1QF37BYB4Q7V2M6F57"} {
			wrong := maps.Clone(ada.ids)
			for name := range wrong {
				wrong[name] = strings.ReplaceAll(strings.ReplaceAll(bad, " ", "%20"), "'", "%27")
			}
			res := ada.askWith(ada.orgKey, route.Method, fill(route.Path, wrong)+cases[route.ID].query, fill(cases[route.ID].body, ada.ids))
			require.Equal(t, 404, res.StatusCode, "%s with the id %.20q: %s", route.ID, bad, res.raw)
			require.Equal(t, none.raw, res.raw)
		}
	}
	require.Equal(t, before, ada.snapshot())
}

func (r *rig) get(path string, headers ...string) reply {
	return (&tenant{rig: r}).askWith("", "GET", path, "", headers...)
}
