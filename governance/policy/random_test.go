package policy_test

import (
	"math/rand/v2"
	"time"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// chance makes rules and requests of a small world, in which they often meet.
type chance struct {
	*rand.Rand
	agents  []id.Agent
	project id.Project
}

var (
	tools        = []string{"bash", "python", "read_file", "write_file", "http_request"}
	nanos        = []money.Nanos{0, 1, 1<<53 - 1, 1 << 53, 1<<53 + 1, money.Dollar, 5 * money.Dollar}
	hosts        = []string{"a.test", "b.a.test", "r.a.test", "p.test", "10.0.0.1", "2001:db8::1", "xn--bcher-kva.test"}
	environments = []string{"default", "test", "r.x"}
	objects      = []string{"reports/2026/a.txt", "reports/b.txt", "r.sub", "https://a.test/x", "", "+(x)[y].z"}
)

func pick[T any](c *chance, from []T) T { return from[c.IntN(len(from))] }

func (c *chance) one(in int) bool { return c.IntN(in) == 0 }

func (c *chance) rule() policy.Rule {
	r := policy.Rule{
		Subject: pick(c, []string{"*", string(pick(c, c.agents)), string(pick(c, c.agents)), string(c.project), "tag:a", "tag:b"}),
		Effect:  pick(c, []policy.Effect{policy.Allow, policy.Allow, policy.Allow, policy.Deny, policy.Approve}),
		Kind:    pick(c, []string{"*", policy.ToolCall, policy.ToolCall, policy.ToolCall, policy.ModelCall, policy.Sandbox, policy.Exec, policy.Hire}),
		Name:    pick(c, []string{"*", "bash", "python", "read_file", "*_file", "http_*", "b*s*h", "ambit/*", "ambit/scripted"}),
		Action:  pick(c, []string{"", "", "*", "GET", "P*T", "write"}),
		Object:  pick(c, []string{"", "", "*", "reports/*", "*.txt", "*2026*", "r.sub", "+(x)*", "[y]"}),
	}
	amount := pick(c, nanos)
	switch c.IntN(12) {
	case 0:
		r.Condition.AmountAtMost = &amount
	case 1:
		r.Condition.AmountOver = &amount
	case 2:
		r.Condition.Hours = &policy.Hours{From: c.IntN(1440), To: c.IntN(1441), Days: uint8(c.IntN(128))} //nolint:gosec // below 128
	case 3:
		for range 1 + c.IntN(3) {
			r.Condition.Domains = append(r.Condition.Domains, pick(c, []string{"*", "*.a.test", "*.test", "p.test", "r.a.test", "10.0.0.1", "2001:db8::1", "bücher.test"}))
		}
	case 4:
		r.Condition.Environments = []string{pick(c, environments), pick(c, environments)}
	}
	return r
}

func (c *chance) request() policy.Request {
	r := policy.Request{
		Agent: pick(c, append([]id.Agent{""}, c.agents...)), Model: "ambit/scripted", Tools: tools[:c.IntN(len(tools)+1)],
		Kind: policy.ToolCall,
		Name: pick(c, tools), Action: pick(c, []string{"", "GET", "GET", "POST", "PUT", "write"}), Object: pick(c, objects), Amount: pick(c, nanos),
		At:          time.Unix(c.Int64N(4e9), 0).In(time.FixedZone("", c.IntN(86400)-43200)),
		Environment: pick(c, append([]string{""}, environments...)),
	}
	if c.one(3) {
		r.Kind = pick(c, []string{policy.ModelCall, policy.ModelCall, policy.Sandbox, policy.Exec, policy.Hire, policy.MemoryWrite, "*", "nonsense"})
	}
	if !c.one(3) {
		r.Tools = tools
	}
	if !c.one(3) {
		r.Project = c.project
	}
	if r.Kind == policy.ModelCall && !c.one(5) {
		r.Name = r.Model
	}
	if !c.one(3) {
		r.Domain = pick(c, append(hosts, "A.TEST.", "::ffff:10.0.0.1"))
	}
	if c.one(40) {
		r.Domain = pick(c, []string{"127.1", "bad host"})
	}
	return r
}
