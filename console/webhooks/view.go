package webhooks

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

type row struct {
	Href, URL, Description string
	Types                  []string
	Where                  string
	Status                 ui.Status
	Changed                time.Time
}

type listView struct {
	Frame    page.Frame
	Base     string
	New      string
	Rows     []row
	CanWrite bool
	Pager    ui.PagerProps
}

// form is what was typed, so that a refused form comes back unchanged.
type form struct {
	URL, Description, Where, Version string
	All                              bool
	Types                            []string
}

func readForm(c echo.Context) (form, error) {
	values, err := c.FormParams()
	if err != nil {
		return form{}, echo.ErrBadRequest.WithInternal(err)
	}
	return form{
		URL: strings.TrimSpace(values.Get("url")), Description: strings.TrimSpace(values.Get("description")), Where: values.Get("where"),
		Version: values.Get("version"), All: values.Get("which") == "all", Types: values["types"],
	}, nil
}

func formOf(w notifications.Webhook) form {
	return form{
		URL: w.URL, Description: w.Description, Version: strconv.FormatInt(w.Version, 10),
		All: slices.Contains(w.EventTypes, notifications.AllEvents), Types: w.EventTypes,
	}
}

func (f form) eventTypes() []string {
	if f.All {
		return []string{notifications.AllEvents}
	}
	return f.Types
}

type editView struct {
	Frame        page.Frame
	New          bool
	Title        string
	Action, Back string
	URL          string
	Project, Org string
	Form         form
	Types        []ui.Choice
	Problems     ui.Problems
}

type secretView struct {
	Frame                           page.Frame
	Title, Note, Host, Secret, Back string
}

type showView struct {
	Frame    page.Frame
	Base     string
	Host     string
	Hook     notifications.Webhook
	Status   ui.Status
	Facts    []ui.Fact
	Active   bool
	CanWrite bool
	Filter   string
	Segments []ui.Segment
	Rows     []deliveryRow
	Pager    ui.PagerProps
	Problems ui.Problems
}

// typeWords say what each type of event tells.
var typeWords = map[string]string{
	notifications.ApprovalRequested: "An agent waits for a person's approval.", notifications.ApprovalDecided: "An approval was answered, or nobody answered it in time.",
	notifications.BudgetThreshold: "A budget has reached one of its alerts.", notifications.InvitationCreated: "Somebody was invited.",
	notifications.SessionIdle: "A session has come to rest.", notifications.SessionTerminated: "A session has ended for good.",
	notifications.WebhookDisabled: "A webhook was disabled, as nothing arrived there.",
}

func typeChoices(f form) []ui.Choice {
	var out []ui.Choice
	for _, t := range notifications.EventTypes() {
		out = append(out, ui.Choice{Name: "types", Value: t, Label: t, Help: typeWords[t], Checked: slices.Contains(f.Types, t)})
	}
	return out
}

// hostOf is what people recognise an endpoint by; the rest of its address may hold a secret.
func hostOf(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return u.Host
	}
	return raw
}

// whereOf says whose events a webhook hears of.
func whereOf(c echo.Context, p page.Place, project id.Project) string {
	switch project {
	case "":
		return "whole organisation"
	case p.Project:
		return p.ProjectName
	}
	if viewer, ok := page.ViewerOf(c); ok {
		for _, o := range viewer.Orgs {
			for _, one := range o.Projects {
				if one.ID == project {
					return one.Name
				}
			}
		}
	}
	return "another project"
}

// statusOf is a webhook in a word, and why it is not sent to.
func statusOf(w notifications.Webhook) ui.Status {
	if w.Status != notifications.WebhookActive {
		s := ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Disabled"}
		switch w.DisabledReason {
		case notifications.DisabledFailing:
			s.Tone, s.Icon, s.Reason = ui.ToneFailed, "octagon", "nothing arrived for five days"
		case notifications.DisabledGone:
			s.Tone, s.Icon, s.Reason = ui.ToneFailed, "octagon", "it answered that it is gone"
		case notifications.DisabledByRequest:
			s.Reason = "as asked"
		}
		return s
	}
	if w.FailingSince != nil {
		return ui.Status{Tone: ui.ToneNeeds, Icon: "warning", Word: "Failing"}
	}
	return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Active"}
}

func typesOf(w notifications.Webhook) []string {
	if slices.Contains(w.EventTypes, notifications.AllEvents) {
		return []string{"all events"}
	}
	return w.EventTypes
}

func newRow(c echo.Context, p page.Place, w notifications.Webhook) row {
	return row{
		Href: p.Path("webhooks", string(w.ID)), URL: w.URL, Description: w.Description, Types: typesOf(w), Where: whereOf(c, p, w.Project), Status: statusOf(w), Changed: w.UpdatedAt,
	}
}

// filters are the statuses by which deliveries can be looked at.
var filters = []struct{ key, label string }{
	{"", "All"},
	{string(notifications.Delivered), "Delivered"},
	{string(notifications.Pending), "Under way"},
	{string(notifications.Failed), "Failed"},
	{string(notifications.Cancelled), "Cancelled"},
}

func newShow(c echo.Context, p page.Place, w notifications.Webhook, filter string) showView {
	v := showView{
		Base: p.Path("webhooks", string(w.ID)), Host: hostOf(w.URL), Hook: w, Status: statusOf(w), Active: w.Status == notifications.WebhookActive, CanWrite: p.Can(tenants.WebhooksWrite),
	}
	for _, s := range filters {
		if s.key == filter {
			v.Filter = filter
		}
	}
	for _, s := range filters {
		href := v.Base
		if s.key != "" {
			href += "?status=" + s.key
		}
		v.Segments = append(v.Segments, ui.Segment{Label: s.label, Href: href, Current: s.key == v.Filter})
	}
	v.Facts = []ui.Fact{
		{Term: "Address", Text: w.URL},
		{Term: "Hears of", Text: strings.Join(typesOf(w), ", ")},
		{Term: "For", Text: whereOf(c, p, w.Project)},
		{Term: "Id", Value: ui.Ident(string(w.ID))},
		{Term: "Made", Value: ui.Date(w.CreatedAt)},
	}
	if w.FailingSince != nil {
		v.Facts = append(v.Facts, ui.Fact{Term: "Failing since", Value: ui.Date(*w.FailingSince)})
	}
	if w.PreviousUntil != nil && w.PreviousUntil.After(time.Now()) {
		v.Facts = append(v.Facts, ui.Fact{Term: "Old secret until", Value: ui.Date(*w.PreviousUntil)})
	}
	return v
}

func (v showView) statuses() []notifications.DeliveryStatus {
	if v.Filter == "" {
		return nil
	}
	return []notifications.DeliveryStatus{notifications.DeliveryStatus(v.Filter)}
}

// filtered is the page's address with its filter, and one parameter more.
func (v showView) filtered(name, value string) string {
	q := url.Values{}
	if v.Filter != "" {
		q.Set("status", v.Filter)
	}
	if name != "" {
		q.Set(name, value)
	}
	if len(q) == 0 {
		return v.Base
	}
	return v.Base + "?" + q.Encode()
}

// graceOptions offer how long the old secret goes on signing.
func graceOptions() []ui.Option {
	out := make([]ui.Option, len(graces))
	for i, g := range graces {
		out[i] = ui.Option{Value: g.value, Label: g.label}
	}
	return out
}
