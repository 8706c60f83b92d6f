package agents

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/journal"
)

// Model is a model that an agent can be given.
type Model struct {
	ID       string
	Provider string
	// Note is said beside it, such as its price.
	Note string
}

// Tool is a built-in tool that an agent can be given.
type Tool struct {
	Name        string
	Description string
}

// summary is the first sentence of a tool's description, which is Markdown for a model.
func (t Tool) summary() string {
	text := strings.Join(strings.Fields(strings.ReplaceAll(t.Description, "`", "")), " ")
	if end := strings.Index(text, ". "); end > 0 {
		return text[:end+1]
	}
	return text
}

// form is what the editor holds: texts as they were typed, so that a refused form comes back unchanged.
type form struct {
	Name, Description, Model, System, IfRunning, Hosts        string
	IdentityHosts                                             string
	Tools                                                     []string
	MaxOutput, MaxCost, MaxTokens, MaxSteps, MaxWall, Version string
}

func readForm(c echo.Context) (form, error) {
	values, err := c.FormParams()
	if err != nil {
		return form{}, echo.ErrBadRequest.WithInternal(err)
	}
	get := func(name string) string { return strings.TrimSpace(values.Get(name)) }
	return form{
		Name: get("name"), Description: get("description"), Model: get("model"), IfRunning: get("if_running"), Tools: values["tools"],
		Hosts: strings.ReplaceAll(get("hosts"), "\r\n", "\n"), IdentityHosts: strings.ReplaceAll(get("identity_hosts"), "\r\n", "\n"),
		// Browsers send line ends as CR LF; a prompt that was not touched must not become a new version.
		System:    strings.ReplaceAll(values.Get("system"), "\r\n", "\n"),
		MaxOutput: get("max_output"), MaxCost: strings.TrimPrefix(get("max_cost"), "$"), MaxTokens: get("max_tokens"), MaxSteps: get("max_steps"), MaxWall: get("max_wall"), Version: get("version"),
	}, nil
}

// formOf fills the editor from a definition.
func formOf(name, description string, d journal.Definition, version int) form {
	f := form{
		Name: name, Description: description, Model: d.Model, System: d.System, Tools: d.Tools, IfRunning: d.IfRunning,
		MaxOutput: number(d.MaxTokens), MaxTokens: number(d.Limits.MaxTokens), MaxSteps: number(d.Limits.MaxSteps), MaxWall: number(d.Limits.MaxWallSeconds),
		Hosts: strings.Join(d.Network.AllowedHosts, "\n"), IdentityHosts: strings.Join(d.Network.IdentityHosts, "\n"),
		Version: strconv.Itoa(version),
	}
	if d.Limits.MaxCost != nil {
		f.MaxCost = d.Limits.MaxCost.Decimal()
	}
	return f
}

// number writes a limit; none is written as nothing.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// definition reads the typed texts. What it refuses is only what is no number and no money; the rest is the domain's to judge.
func (f form) definition() (journal.Definition, ui.Problems) {
	d := journal.Definition{Model: f.Model, System: f.System, Tools: f.Tools, IfRunning: f.IfRunning}
	apart := func(r rune) bool { return r == ',' || unicode.IsSpace(r) }
	d.Network.AllowedHosts, d.Network.IdentityHosts = strings.FieldsFunc(f.Hosts, apart), strings.FieldsFunc(f.IdentityHosts, apart)
	var problems ui.Problems
	for _, one := range []struct {
		name, label, text string
		to                *int64
	}{
		{"max_output", "Longest answer", f.MaxOutput, &d.MaxTokens},
		{"max_tokens", "Tokens", f.MaxTokens, &d.Limits.MaxTokens},
		{"max_steps", "Steps", f.MaxSteps, &d.Limits.MaxSteps},
		{"max_wall", "Time", f.MaxWall, &d.Limits.MaxWallSeconds},
	} {
		if one.text == "" {
			continue
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(one.text, ",", ""), 10, 64)
		if err != nil {
			problems = append(problems, ui.Problem{Field: one.name, Label: one.label, Message: one.label + ": write a whole number."})
			continue
		}
		*one.to = n
	}
	if f.MaxCost != "" {
		cost, err := page.Dollars(f.MaxCost)
		if err != nil {
			problems = append(problems, ui.Problem{Field: "max_cost", Label: "Price ceiling", Message: "Price ceiling: write dollars, such as 0.50."})
		} else {
			d.Limits.MaxCost = &cost
		}
	}
	return d, problems
}

// fieldNames maps the pointers of the domain's faults to the editor's inputs.
var fieldNames = map[string]string{
	"/max_tokens": "max_output", "/limits/max_cost": "max_cost", "/limits/max_tokens": "max_tokens", "/limits/max_steps": "max_steps", "/limits/max_wall_seconds": "max_wall",
}

func modelOptions(models []Model, current string) []ui.Option {
	var out []ui.Option
	known := false
	for _, m := range models {
		label := m.ID
		if m.Note != "" {
			label += " (" + m.Note + ")"
		}
		known = known || m.ID == current
		out = append(out, ui.Option{Value: m.ID, Label: label, Group: m.Provider})
	}
	if current != "" && !known { // a model that is not there any more stays chosen until somebody changes it
		out = append(out, ui.Option{Value: current, Label: current + " (not available now)", Group: "Unknown"})
	}
	return out
}

func hasTool(tools []string, name string) bool { return slices.Contains(tools, name) }
