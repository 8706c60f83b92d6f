package policy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

func TestAnOutlookSaysWhatAllUsesHaveInCommon(t *testing.T) {
	agent := id.New[id.Agent]()
	cent := money.Dollar / 100
	rule := func(effect policy.Effect, name string, change ...func(*policy.Rule)) policy.Rule {
		r := policy.Rule{Subject: string(agent), Effect: effect, Kind: policy.ToolCall, Name: name}
		for _, c := range change {
			c(&r)
		}
		return r
	}
	get := func(r *policy.Rule) { r.Action = "GET" }
	cheap := func(r *policy.Rule) { r.Condition.AmountAtMost = &cent }
	to := func(hosts ...string) func(*policy.Rule) {
		return func(r *policy.Rule) { r.Condition.Domains = hosts }
	}
	for name, c := range map[string]struct {
		rules  []policy.Rule
		domain string
		want   policy.Verdict
		code   string
	}{
		"no rule":                       {nil, "", policy.Allowed, policy.ByDefault},
		"denied":                        {[]policy.Rule{rule(policy.Deny, "http_*")}, "", policy.Denied, "proposed_0"},
		"denied to do some":             {[]policy.Rule{rule(policy.Deny, "http_request", cheap)}, "", policy.Depends, ""},
		"another is allowed":            {[]policy.Rule{rule(policy.Allow, "bash")}, "", policy.Denied, policy.NoRule},
		"some is allowed":               {[]policy.Rule{rule(policy.Allow, "http_request", get)}, "", policy.Depends, ""},
		"all is allowed":                {[]policy.Rule{rule(policy.Allow, "*")}, "", policy.Allowed, "proposed_0"},
		"asked":                         {[]policy.Rule{rule(policy.Approve, "http_request")}, "", policy.Asks, "proposed_0"},
		"deny wins":                     {[]policy.Rule{rule(policy.Allow, "*"), rule(policy.Approve, "*"), rule(policy.Deny, "*")}, "", policy.Denied, "proposed_2"},
		"a host is denied":              {[]policy.Rule{rule(policy.Deny, "*", to("api.example.com"))}, "api.example.com", policy.Denied, "proposed_0"},
		"another host is denied":        {[]policy.Rule{rule(policy.Deny, "*", to("api.example.com"))}, "example.com", policy.Allowed, policy.ByDefault},
		"a host below is denied":        {[]policy.Rule{rule(policy.Deny, "*", to("a.example.com"))}, "*.example.com", policy.Depends, ""},
		"all below are denied":          {[]policy.Rule{rule(policy.Deny, "*", to("*.example.com"))}, "*.b.example.com", policy.Denied, "proposed_0"},
		"the name is not below itself":  {[]policy.Rule{rule(policy.Deny, "*", to("*.example.com"))}, "example.com", policy.Allowed, policy.ByDefault},
		"only another host is allowed":  {[]policy.Rule{rule(policy.Allow, "*", to("example.org"))}, "example.com", policy.Denied, policy.NoRule},
		"a host is allowed":             {[]policy.Rule{rule(policy.Allow, "*", to("example.com"))}, "example.com", policy.Allowed, "proposed_0"},
		"nobody says which host":        {[]policy.Rule{rule(policy.Deny, "*", to("example.com"))}, "", policy.Depends, ""},
		"a spelling that no host has":   {nil, "exa mple", policy.Denied, policy.ByDomain},
		"all hosts are denied to write": {[]policy.Rule{rule(policy.Deny, "*", to("*"), func(r *policy.Rule) { r.Action = "POST" })}, "example.com", policy.Depends, ""},
	} {
		t.Run(name, func(t *testing.T) {
			set := proposedSet(t, c.rules...)
			got := set.Outlook(policy.Request{Agent: agent, Tools: []string{"http_request"}, Kind: policy.ToolCall, Name: "http_request", Domain: c.domain})
			require.Equal(t, c.want, got.Verdict)
			require.Equal(t, c.code, got.Rule)
		})
	}
	none := proposedSet(t).Outlook(policy.Request{Agent: agent, Kind: policy.ToolCall, Name: "bash"})
	require.Equal(t, policy.Outlook{Verdict: policy.Denied, Rule: policy.ByTools}, none)
	require.Equal(t, policy.Denied, proposedSet(t).Outlook(policy.Request{Agent: agent, Kind: policy.Hire}).Verdict, "no definition speaks of it")
}

func proposedSet(t require.TestingT, rules ...policy.Rule) *policy.Set {
	stored := make([]policy.Stored, len(rules))
	for i, r := range rules {
		stored[i].Rule = r
	}
	set, err := policy.NewSet(time.UTC, stored, nil)
	require.NoError(t, err)
	return set
}

// TestNoDecisionContradictsAnOutlook draws rules and uses: what is said to be allowed in all its uses is allowed in each, and so on.
func TestNoDecisionContradictsAnOutlook(t *testing.T) {
	agent := id.New[id.Agent]()
	cent := money.Dollar / 100
	rapid.Check(t, func(t *rapid.T) {
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
		var rules []policy.Rule
		for range rapid.IntRange(0, 6).Draw(t, "rules") {
			r := policy.Rule{
				Subject: pick("subject", "*", string(agent)), Effect: policy.Effect(pick("effect", "allow", "deny", "approve")), Kind: pick("kind", "tool_call", "*", "model_call"),
				Name: pick("name", "http_request", "http_*", "*", "bash"), Action: pick("action", "*", "GET", "P*"), Object: pick("object", "*", "*", "https://*"),
			}
			if rapid.Bool().Draw(t, "amount") {
				r.Condition.AmountAtMost = &cent
			}
			if rapid.Bool().Draw(t, "hours") {
				r.Condition.Hours = &policy.Hours{From: 8 * 60, To: 18 * 60}
			}
			if rapid.Bool().Draw(t, "domains") {
				r.Condition.Domains = []string{pick("domain", "*", "*.example.com", "a.example.com", "example.com", "*.b.example.com")}
			}
			rules = append(rules, r)
		}
		set := proposedSet(t, rules...)
		hosts := map[string][]string{
			"": {"", "example.com", "a.example.com"}, "example.com": {"example.com"}, "a.example.com": {"a.example.com"},
			"*.example.com": {"a.example.com", "c.b.example.com", "z.example.com"},
		}
		r := policy.Request{Agent: agent, Tools: []string{"http_request"}, Kind: policy.ToolCall, Name: "http_request", Domain: pick("of", "", "example.com", "a.example.com", "*.example.com")}
		outlook := set.Outlook(r)
		r.Domain = rapid.SampledFrom(hosts[r.Domain]).Draw(t, "to")
		r.Action, r.Object = pick("does", "", "GET", "POST"), pick("on", "", "https://example.com/x", "http://x/")
		r.Amount = money.Nanos(rapid.SampledFrom([]int64{0, 1_000_000, 1_000_000_000}).Draw(t, "cost"))
		r.At = time.Date(2026, 11, 20, rapid.IntRange(0, 23).Draw(t, "hour"), 0, 0, 0, time.UTC)
		got := set.Decide(r).Effect
		switch outlook.Verdict {
		case policy.Allowed:
			require.Equal(t, policy.Allow, got)
		case policy.Denied:
			require.Equal(t, policy.Deny, got)
		case policy.Asks:
			require.NotEqual(t, policy.Allow, got)
		case policy.Depends:
		default:
			t.Fatalf("no such verdict: %q", outlook.Verdict)
		}
	})
}
