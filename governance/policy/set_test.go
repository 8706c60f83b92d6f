package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

func setOf(t testing.TB, tags map[id.Agent][]string, rules ...policy.Rule) *policy.Set {
	t.Helper()
	stored := make([]policy.Stored, len(rules))
	for i, r := range rules {
		stored[i].Rule = r
	}
	s, err := policy.NewSet(time.UTC, stored, tags)
	require.NoError(t, err)
	return s
}

func TestWithoutRulesTheDefinitionDecides(t *testing.T) {
	agent := id.New[id.Agent]()
	for _, c := range []struct {
		kind, name, rule string
		want             policy.Effect
	}{
		{policy.ModelCall, "ambit/scripted", policy.ByDefault, policy.Allow},
		{policy.ModelCall, "anthropic/x", policy.ByModel, policy.Deny},
		{policy.ToolCall, "bash", policy.ByDefault, policy.Allow},
		{policy.ToolCall, "Bash", policy.ByTools, policy.Deny},
		{policy.ToolCall, "python", policy.ByTools, policy.Deny},
		{policy.Sandbox, "", policy.ByDefault, policy.Allow},
		{policy.Exec, "bash", policy.NoRule, policy.Deny},
		{policy.OutboundRequest, "", policy.NoRule, policy.Deny},
		{policy.Hire, "", policy.NoRule, policy.Deny},
		{"teleport", "", policy.ByKind, policy.Deny},
		{"", "", policy.ByKind, policy.Deny},
		{"*", "*", policy.ByKind, policy.Deny},
	} {
		d := policy.Empty.Decide(asking(agent, c.kind, c.name))
		require.Equal(t, c.want, d.Effect, "%s %s", c.kind, c.name)
		require.Equal(t, c.rule, d.Rule, "%s %s", c.kind, c.name)
		require.NotEmpty(t, d.Reason().Message)
	}
	none := asking(agent, policy.Sandbox, "")
	none.Tools = nil
	require.Equal(t, policy.Deny, policy.Empty.Decide(none).Effect)
}

func TestARuleAllowsOnlyWithinTheDefinition(t *testing.T) {
	agent := id.New[id.Agent]()
	s := setOf(t, nil, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: "*"})
	require.True(t, s.Decide(asking(agent, policy.ToolCall, "bash")).Allowed())
	require.Equal(t, policy.ByTools, s.Decide(asking(agent, policy.ToolCall, "python")).Rule)
	require.True(t, s.Decide(asking(agent, policy.Exec, "")).Allowed(), "what no definition speaks of, a rule can allow")
}

func TestDenyWinsWhoeverItIsAbout(t *testing.T) {
	agent, other, project := id.New[id.Agent](), id.New[id.Agent](), id.New[id.Project]()
	for _, subject := range []string{"*", string(agent), string(project), "tag:careful"} {
		s := setOf(t, map[id.Agent][]string{agent: {"careful"}},
			policy.Rule{Subject: string(agent), Effect: policy.Allow, Kind: policy.ToolCall, Name: "*"},
			policy.Rule{Subject: subject, Effect: policy.Deny, Kind: policy.ToolCall, Name: "ba*", Description: "Shells are for people"},
			policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"})
		r := asking(agent, policy.ToolCall, "bash")
		r.Project = project
		d := s.Decide(r)
		require.Equal(t, policy.Deny, d.Effect, subject)
		require.Equal(t, "proposed_1", d.Rule)
		require.Contains(t, d.Reason().Message, "Shells are for people.")
		r.Name = "read_file"
		require.True(t, s.Decide(r).Allowed())
		if subject != "*" {
			require.True(t, s.Decide(asking(other, policy.ToolCall, "bash")).Allowed(), "%s is not about another agent", subject)
		}
	}
}

// TestWhatIsAllowedGovernsItsKind: the first rule that allows an agent something of a kind ends the default for that kind, and for no other.
func TestWhatIsAllowedGovernsItsKind(t *testing.T) {
	agent := id.New[id.Agent]()
	for _, subject := range []string{"*", string(agent)} {
		s := setOf(t, nil, policy.Rule{Subject: subject, Effect: policy.Allow, Kind: policy.ToolCall, Name: "read_file"})
		require.True(t, s.Decide(asking(agent, policy.ToolCall, "read_file")).Allowed())
		d := s.Decide(asking(agent, policy.ToolCall, "bash"))
		require.Equal(t, policy.NoRule, d.Rule)
		require.Equal(t, "No rule allows this agent the tool bash. It may use: read_file.", d.Reason().Message)
		require.Equal(t, policy.ByDefault, s.Decide(asking(agent, policy.ModelCall, "ambit/scripted")).Rule)
	}
	s := setOf(t, nil, policy.Rule{Subject: string(id.New[id.Agent]()), Effect: policy.Allow, Kind: policy.ToolCall, Name: "read_file"})
	require.Equal(t, policy.ByDefault, s.Decide(asking(agent, policy.ToolCall, "bash")).Rule, "another agent's rule governs nothing here")
	s = setOf(t, nil, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash"})
	require.Equal(t, policy.ByDefault, s.Decide(asking(agent, policy.ToolCall, "read_file")).Rule, "nor does one that denies")
	inline := asking("", policy.ToolCall, "bash")
	require.Equal(t, policy.Deny, s.Decide(inline).Effect, "an agent that was written into the invoke is under the rules for all")
}

func TestApprovalWinsOverAllowAndNotOverDeny(t *testing.T) {
	agent := id.New[id.Agent]()
	ask := policy.Rule{Subject: "*", Effect: policy.Approve, Kind: policy.ToolCall, Name: "bash"}
	s := setOf(t, nil, ask, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"})
	require.Equal(t, policy.Approve, s.Decide(asking(agent, policy.ToolCall, "bash")).Effect)
	s = setOf(t, nil, ask)
	require.Equal(t, policy.Approve, s.Decide(asking(agent, policy.ToolCall, "bash")).Effect)
	require.Equal(t, policy.ByDefault, s.Decide(asking(agent, policy.ToolCall, "read_file")).Rule)
	s = setOf(t, nil, ask, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash"})
	require.Equal(t, policy.Deny, s.Decide(asking(agent, policy.ToolCall, "bash")).Effect)
}

func TestConditions(t *testing.T) {
	dime := money.Dollar / 10
	madrid, err := time.LoadLocation("Europe/Madrid")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		condition policy.Condition
		change    func(r *policy.Request)
		want      bool
	}{
		"at most, at the limit":      {policy.Condition{AmountAtMost: &dime}, func(r *policy.Request) { r.Amount = dime }, true},
		"at most, above":             {policy.Condition{AmountAtMost: &dime}, func(r *policy.Request) { r.Amount = dime + 1 }, false},
		"over, at the limit":         {policy.Condition{AmountOver: &dime}, func(r *policy.Request) { r.Amount = dime }, false},
		"over":                       {policy.Condition{AmountOver: &dime}, func(r *policy.Request) { r.Amount = dime + 1 }, true},
		"hours":                      {policy.Condition{Hours: &policy.Hours{From: 540, To: 1080}}, nil, true},
		"hours end before their end": {policy.Condition{Hours: &policy.Hours{From: 540, To: 720}}, nil, false},
		"hours begin":                {policy.Condition{Hours: &policy.Hours{From: 720, To: 721}}, nil, true},
		"another day":                {policy.Condition{Hours: &policy.Hours{From: 0, To: 1440, Days: 1 << time.Tuesday}}, nil, false},
		"over midnight, after it":    {policy.Condition{Hours: &policy.Hours{From: 1320, To: 781, Days: 1 << time.Sunday}}, nil, true},
		"over midnight, other day":   {policy.Condition{Hours: &policy.Hours{From: 1320, To: 781, Days: 1 << time.Monday}}, nil, false},
		"by the zone's clock":        {policy.Condition{Hours: &policy.Hours{From: 720, To: 721}}, func(r *policy.Request) { r.At = monday.In(madrid) }, true},
		"domain":                     {policy.Condition{Domains: []string{"Example.COM."}}, func(r *policy.Request) { r.Domain = "example.com" }, true},
		"domain in capitals":         {policy.Condition{Domains: []string{"example.com"}}, func(r *policy.Request) { r.Domain = "EXAMPLE.com." }, true},
		"domain below":               {policy.Condition{Domains: []string{"*.example.com"}}, func(r *policy.Request) { r.Domain = "a.b.example.com" }, true},
		"not the domain itself":      {policy.Condition{Domains: []string{"*.example.com"}}, func(r *policy.Request) { r.Domain = "example.com" }, false},
		"not one that ends alike":    {policy.Condition{Domains: []string{"*.example.com"}}, func(r *policy.Request) { r.Domain = "badexample.com" }, false},
		"no domain known":            {policy.Condition{Domains: []string{"*"}}, nil, false},
		"any domain":                 {policy.Condition{Domains: []string{"*"}}, func(r *policy.Request) { r.Domain = "x.test" }, true},
		"address in IPv6":            {policy.Condition{Domains: []string{"10.0.0.1"}}, func(r *policy.Request) { r.Domain = "::ffff:10.0.0.1" }, true},
		"environment":                {policy.Condition{Environments: []string{"default", "test"}}, func(r *policy.Request) { r.Environment = "test" }, true},
		"another environment":        {policy.Condition{Environments: []string{"test"}}, func(r *policy.Request) { r.Environment = "production" }, false},
		"no environment known":       {policy.Condition{Environments: []string{"test"}}, nil, false},
	} {
		s := setOf(t, nil, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "http_request", Condition: c.condition})
		r := asking(id.New[id.Agent](), policy.ToolCall, "http_request")
		if c.change != nil {
			c.change(&r)
		}
		require.Equal(t, c.want, s.Decide(r).Allowed(), name)
	}
}

func TestAHostInAnotherSpellingIsNoWayRound(t *testing.T) {
	s := setOf(t, nil,
		policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "*"},
		policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "http_request", Condition: policy.Condition{Domains: []string{"evil.test", "*.evil.test", "127.0.0.1", "xn--bcher-kva.test"}}})
	for _, host := range []string{
		"evil.test", "EVIL.test", "evil.test.", "a.Evil.Test", "127.0.0.1", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "127.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001",
		"127.0.0.1.", "bücher.test", "BÜCHER.test", "evil。test", "ｅｖｉｌ.test", "evil.test:80", "evil.test/x", "a@evil.test", "evil.test%00", "fe80::1%eth0", " evil.test", "",
	} {
		r := asking(id.New[id.Agent](), policy.ToolCall, "http_request")
		r.Domain = host
		require.Equal(t, host == "", s.Decide(r).Allowed(), "%q", host)
	}
	r := asking(id.New[id.Agent](), policy.ToolCall, "http_request")
	for _, host := range []string{"good.test", "GOOD.test", "devil.test", "127.0.0.2", "::1", "a-b.test", "1password.com", "b--c.test"} {
		r.Domain = host
		require.True(t, s.Decide(r).Allowed(), "%q: %s", host, s.Decide(r).Reason().Message)
	}
}

func TestExplainNamesTheNearestRule(t *testing.T) {
	agent, dime := id.New[id.Agent](), money.Dollar/10
	s := setOf(t, nil,
		policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "read_file"},
		policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "http_request", Action: "GET", Condition: policy.Condition{Domains: []string{"api.test"}, AmountAtMost: &dime}},
		policy.Rule{Subject: string(id.New[id.Agent]()), Effect: policy.Allow, Kind: policy.ToolCall, Name: "http_request"})
	r := asking(agent, policy.ToolCall, "http_request")
	r.Action, r.Domain, r.Amount = "POST", "api.test", dime
	e := s.Explain(r)
	require.Equal(t, policy.Deny, e.Decision.Effect)
	require.Equal(t, "No rule allows this agent the tool http_request with the action POST to api.test. It may use it for the tool http_request with the action GET, at a cost of at most $0.10, to api.test.", e.Reason.Message)
	require.NotNil(t, e.Nearest)
	require.EqualValues(t, "proposed_1", e.Nearest.ID)
	require.Equal(t, []policy.Difference{{Part: "action", Wants: "GET", Has: "POST"}}, e.Nearest.Missing)
	r.Action = "GET"
	e = s.Explain(r)
	require.True(t, e.Decision.Allowed())
	require.Nil(t, e.Nearest)
	require.Len(t, e.Applied, 1)

	s = setOf(t, nil,
		policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "*"},
		policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "http_request"})
	e = s.Explain(r)
	require.Len(t, e.Applied, 2)
	require.Empty(t, e.Nearest.Missing)
	require.Equal(t, []id.Permission{"proposed_1"}, e.Nearest.DeniedBy)
	require.Equal(t, []string{"bash", "read_file"}, s.MayUse(r))
}

func TestRulesThatAreRefused(t *testing.T) {
	good := policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"}
	minus := money.Nanos(-1)
	long := func(n int) string { return strings.Repeat("a", n) }
	for name, change := range map[string]func(r *policy.Rule){
		"no subject":                     func(r *policy.Rule) { r.Subject = "" },
		"a subject of no kind":           func(r *policy.Rule) { r.Subject = "everybody" },
		"a bad tag":                      func(r *policy.Rule) { r.Subject = "tag:Über" },
		"an injected subject":            func(r *policy.Rule) { r.Subject = `" || true || "` },
		"no effect":                      func(r *policy.Rule) { r.Effect = "" },
		"an unknown effect":              func(r *policy.Rule) { r.Effect = "permit" },
		"an unknown kind":                func(r *policy.Rule) { r.Kind = "magic" },
		"no kind":                        func(r *policy.Rule) { r.Kind = "" },
		"a long name":                    func(r *policy.Rule) { r.Name = long(policy.MaxName + 1) },
		"a long object":                  func(r *policy.Rule) { r.Object = long(policy.MaxObject + 1) },
		"a long action":                  func(r *policy.Rule) { r.Action = long(policy.MaxAction + 1) },
		"a long description":             func(r *policy.Rule) { r.Description = long(policy.MaxDescription + 1) },
		"quotes":                         func(r *policy.Rule) { r.Object = `a"b` },
		"a space":                        func(r *policy.Rule) { r.Object = "a b" },
		"a NUL":                          func(r *policy.Rule) { r.Object = "a\x00b" },
		"invalid UTF-8":                  func(r *policy.Rule) { r.Object = "a\xff" },
		"a negative amount":              func(r *policy.Rule) { r.Condition.AmountAtMost = &minus },
		"hours past the day":             func(r *policy.Rule) { r.Condition.Hours = &policy.Hours{From: 0, To: 1441} },
		"negative hours":                 func(r *policy.Rule) { r.Condition.Hours = &policy.Hours{From: -1, To: 5} },
		"a domain with a port":           func(r *policy.Rule) { r.Condition.Domains = []string{"a.test:80"} },
		"a URL as a domain":              func(r *policy.Rule) { r.Condition.Domains = []string{"https://a.test"} },
		"a star in a domain":             func(r *policy.Rule) { r.Condition.Domains = []string{"a.*.test"} },
		"a separator":                    func(r *policy.Rule) { r.Condition.Domains = []string{"a.test;amount>5"} },
		"an address by another spelling": func(r *policy.Rule) { r.Condition.Domains = []string{"127.1"} },
		"a bad environment":              func(r *policy.Rule) { r.Condition.Environments = []string{"a,b"} },
		"many domains":                   func(r *policy.Rule) { r.Condition.Domains = make([]string, 65) },
	} {
		r := good
		change(&r)
		_, err := r.Check("")
		require.Error(t, err, name)
		_, err = policy.NewSet(time.UTC, []policy.Stored{{Rule: r}}, nil)
		require.Error(t, err, name)
	}
	_, err := good.Check("")
	require.NoError(t, err)
}

func TestPresetsKeepTheirPromises(t *testing.T) {
	agent := id.New[id.Agent]()
	all := []string{"bash", "python", "read_file", "list_files", "write_file", "edit_file", "http_request"}
	may := map[string][]string{
		"model-only": nil, "read-only-researcher": {"read_file", "list_files", "http_request"},
		"write-files-no-network": {"read_file", "list_files", "write_file", "edit_file"}, "full-sandbox-no-network": all[:6],
		"web-client": {"read_file", "list_files", "http_request"}, "small-steps": all, "working-hours": all,
	}
	for _, p := range policy.Presets() {
		want, known := may[p.Name]
		require.True(t, known, "what %s promises is not tested", p.Name)
		rules := append([]policy.Rule{}, p.Rules...)
		for i := range rules {
			rules[i].Subject = string(agent)
		}
		s := setOf(t, nil, rules...)
		r := asking(agent, policy.ModelCall, "ambit/scripted")
		r.Tools = all
		require.True(t, s.Decide(r).Allowed(), "%s: its own model", p.Name)
		var got []string
		for _, tool := range all {
			r := asking(agent, policy.ToolCall, tool)
			r.Tools, r.Action = all, "GET"
			if s.Decide(r).Allowed() {
				got = append(got, tool)
			}
			r.Action = "POST"
			if p.Name == "read-only-researcher" && tool == "http_request" {
				require.False(t, s.Decide(r).Allowed())
			}
		}
		require.ElementsMatch(t, want, got, p.Name)
		r = asking(agent, policy.Hire, "")
		require.False(t, s.Decide(r).Allowed(), "%s: no hire", p.Name)
		r = asking(agent, policy.OutboundRequest, "")
		require.False(t, s.Decide(r).Allowed(), "%s: no request of the sandbox", p.Name)
	}
}
