package agents

import (
	"strings"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/journal"
)

// change is a field of two definitions, as each says it.
type change struct {
	Label         string
	Before, After string
	Changed       bool
}

func limitText(n int64, unit string) string {
	if n == 0 {
		return "no limit"
	}
	return ui.Count(n) + " " + unit
}

func ceilingText(d journal.Definition) string {
	if d.Limits.MaxCost == nil {
		return "none"
	}
	return d.Limits.MaxCost.Display()
}

func toolsText(tools []string) string {
	if len(tools) == 0 {
		return "none"
	}
	return strings.Join(tools, ", ")
}

var ifRunningWords = map[string]string{"queue": "queued", "interrupt": "interrupts", "reject": "refused"}

// compare lists all fields of two definitions but the prompt, which is compared line by line.
func compare(a, b journal.Definition) []change {
	out := []change{
		{Label: "Model", Before: a.Model, After: b.Model},
		{Label: "Tools", Before: toolsText(a.Tools), After: toolsText(b.Tools)},
		{Label: "Hosts that it may reach", Before: toolsText(a.Network.AllowedHosts), After: toolsText(b.Network.AllowedHosts)},
		{Label: "Identity shown to", Before: toolsText(a.Network.IdentityHosts), After: toolsText(b.Network.IdentityHosts)},
		{Label: "Longest answer", Before: limitText(a.MaxTokens, "tokens"), After: limitText(b.MaxTokens, "tokens")},
		{Label: "Price ceiling", Before: ceilingText(a), After: ceilingText(b)},
		{Label: "Tokens of a session", Before: limitText(a.Limits.MaxTokens, "tokens"), After: limitText(b.Limits.MaxTokens, "tokens")},
		{Label: "Steps of a session", Before: limitText(a.Limits.MaxSteps, "steps"), After: limitText(b.Limits.MaxSteps, "steps")},
		{Label: "Time of a session", Before: limitText(a.Limits.MaxWallSeconds, "s"), After: limitText(b.Limits.MaxWallSeconds, "s")},
		{Label: "A message while at work", Before: ifRunningWords[a.IfRunning], After: ifRunningWords[b.IfRunning]},
	}
	for i := range out {
		out[i].Changed = out[i].Before != out[i].After
	}
	return out
}

func anyChange(changes []change, a, b journal.Definition) bool {
	for _, c := range changes {
		if c.Changed {
			return true
		}
	}
	return a.System != b.System
}
