package approval

import (
	"strings"
	"time"
)

// rememberFor is how long what was drafted from an approval lasts, unless whoever saves it says otherwise.
const rememberFor = 30 * 24 * time.Hour

// Remember drafts the rule by which just such an effect would not be asked about again: of this agent, with this tool, doing this to this, at
// this host, for at most what this costs, for 30 days. It is shown to a person and saved by nobody else. Where several rules asked, it is about the
// first; the others still ask.
func Remember(a *Approval, now time.Time) Rule {
	until := now.Add(rememberFor).UTC().Truncate(24 * time.Hour)
	subject := string(a.Agent)
	if subject == "" {
		subject = string(a.Project)
	}
	r := Rule{
		Name: "Without asking: " + clip(a.Shown.Tool+" "+a.Shown.Domain, 80), Outcome: Waive, Subject: subject, Tool: a.Shown.Tool, Action: literal(a.Shown.Does), Object: literal(a.Shown.Object), Until: &until,
	}
	if len(a.Demand.Rules) > 0 {
		r.Waives = string(a.Demand.Rules[0].ID)
	}
	if a.Shown.Domain != "" {
		r.Condition.Domains = []string{a.Shown.Domain}
	}
	if a.Shown.Amount > 0 {
		most := a.Shown.Amount
		r.Condition.AmountAtMost = &most
	}
	return r
}

// literal is a pattern of what the agent named that stands for no more than that: a star of the agent's own would let more go than was looked at.
func literal(s string) string { return strings.ReplaceAll(clip(s, 500), "*", "%2A") }

func clip(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}
