package permissions

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/money"
)

// form is what was typed, so that a refused form comes back unchanged.
type form struct {
	Subject, Effect, Kind, Name, Action, Object, Description string
	AtMost, Over, From, To, Domains, Environments            string
	Days                                                     []string
	Version                                                  string
}

var weekdays = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

// conditional reports whether the part about conditions is in use.
func (f form) conditional() bool {
	return f.AtMost+f.Over+f.From+f.To+f.Domains+f.Environments != "" || len(f.Days) > 0
}

func formFrom(v url.Values) form {
	get := func(name string) string { return strings.TrimSpace(v.Get(name)) }
	return form{
		Subject: get("subject"), Effect: get("effect"), Kind: get("kind"), Name: get("name"), Action: get("action"), Object: get("object"), Description: get("description"),
		AtMost: strings.TrimPrefix(get("amount_at_most"), "$"), Over: strings.TrimPrefix(get("amount_over"), "$"), From: get("hours_from"), To: get("hours_to"),
		Domains: get("domains"), Environments: get("environments"), Days: v["days"], Version: get("version"),
	}
}

func formOf(r policy.Stored) form {
	plain := func(pattern string) string {
		if pattern == policy.Any {
			return ""
		}
		return pattern
	}
	f := form{
		Subject: r.Subject, Effect: string(r.Effect), Kind: r.Kind, Name: plain(r.Name), Action: plain(r.Action), Object: plain(r.Object), Description: r.Description,
		Domains: strings.Join(r.Condition.Domains, "\n"), Environments: strings.Join(r.Condition.Environments, "\n"), Version: strconv.FormatInt(r.Version, 10),
	}
	if a := r.Condition.AmountAtMost; a != nil {
		f.AtMost = a.Decimal()
	}
	if a := r.Condition.AmountOver; a != nil {
		f.Over = a.Decimal()
	}
	if hours := r.Condition.Hours; hours != nil {
		f.From, f.To = clock(hours.From), clock(hours.To%(24*60))
		for i, day := range weekdays {
			if hours.Days&(1<<((i+1)%7)) != 0 {
				f.Days = append(f.Days, day)
			}
		}
		if len(f.Days) == len(weekdays) {
			f.Days = nil
		}
	}
	return f
}

func clock(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }

// rule reads the typed texts. What it refuses is only what is no money and no time; the rest is the domain's to judge.
func (f form) rule() (policy.Rule, ui.Problems) {
	list := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	}
	r := policy.Rule{
		Subject: f.Subject, Effect: policy.Effect(f.Effect), Kind: f.Kind, Name: f.Name, Action: f.Action, Object: f.Object, Description: f.Description,
		Condition: policy.Condition{Domains: list(f.Domains), Environments: list(f.Environments)},
	}
	var problems ui.Problems
	if r.Effect != policy.Allow && r.Effect != policy.Deny {
		problems = append(problems, ui.Problem{Field: "effect", Message: "Choose whether the rule denies or allows."})
	}
	for _, one := range []struct {
		name, text string
		to         **money.Nanos
	}{{"amount_at_most", f.AtMost, &r.Condition.AmountAtMost}, {"amount_over", f.Over, &r.Condition.AmountOver}} {
		if one.text == "" {
			continue
		}
		n, err := page.Dollars(one.text)
		if err != nil {
			problems = append(problems, ui.Problem{Field: one.name, Message: "Write dollars, such as 0.50."})
			continue
		}
		*one.to = &n
	}
	if f.From+f.To == "" && len(f.Days) == 0 {
		return r, problems
	}
	hours := policy.Hours{To: 24 * 60}
	for _, one := range []struct {
		name, text string
		to         *int
	}{{"hours_from", f.From, &hours.From}, {"hours_to", f.To, &hours.To}} {
		if one.text == "" {
			continue
		}
		t, err := time.Parse("15:04", one.text)
		if err != nil {
			problems = append(problems, ui.Problem{Field: one.name, Message: "Write a time of day such as 09:00."})
			continue
		}
		*one.to = t.Hour()*60 + t.Minute()
	}
	if hours.To == 0 {
		hours.To = 24 * 60 // until midnight
	}
	for _, day := range f.Days {
		if i := slices.Index(weekdays, day); i >= 0 {
			hours.Days |= 1 << ((i + 1) % 7)
		}
	}
	r.Condition.Hours = &hours
	return r, problems
}

// refused turns the fault of a rule into the problems of its form: each of a list's entries has a place of its own, and all have one input.
func refused(err error) (ui.Problems, int, error) {
	problems, status, err := page.FormProblems(err, nil)
	for i, one := range problems {
		name := strings.TrimPrefix(strings.TrimPrefix(one.Field, "rules-0-"), "condition-")
		for _, list := range []string{"domains", "environments"} {
			if strings.HasPrefix(name, list) {
				name = list
			}
		}
		if name == "hours" {
			name = "hours_from"
		}
		problems[i].Field = name
	}
	return problems, status, err
}

var kindOptions = []ui.Option{
	{Value: policy.ToolCall, Label: "Calls of a tool"},
	{Value: policy.ModelCall, Label: "Calls of a model"},
	{Value: policy.Sandbox, Label: "Time in a sandbox"},
	{Value: policy.OutboundRequest, Label: "Requests to the outside"},
	{Value: policy.Exec, Label: "A person's own commands"},
	{Value: policy.Session, Label: "Starting a session"},
	{Value: policy.Hire, Label: "Hiring an agent"},
	{Value: policy.MemoryWrite, Label: "Writing to memory"},
	{Value: policy.Any, Label: "Everything"},
}

func dayChoices(f form) []ui.Choice {
	out := make([]ui.Choice, len(weekdays))
	for i, day := range weekdays {
		out[i] = ui.Choice{Name: "days", Value: day, Label: strings.ToUpper(day[:1]) + day[1:3], Checked: slices.Contains(f.Days, day)}
	}
	return out
}
