// Package policy decides what an organisation's agents may do: permissions, which are rules of who (an agent, a project's agents, the
// agents with a tag, or all), what (kind of effect, model or tool, action, object) and under which conditions (amount, hour, domain,
// environment). What denies wins over what allows, and what nothing allows is denied.
//
// It owns the rules and tags, their version, the compiled Set that decides in about a microsecond, and Casbin, from whose answers a Set
// may not differ: the same lines are read by both, and a test compares them. It also owns presets, explanations, and the simulation of
// rules against decisions of the past, for which it reads the journal's events.
//
// It does not hold money, admit anything (governance/gate does, and asks here), or decide what members and API keys may do (tenants
// does). It imports journal and plumbing, and never the gate.
package policy
