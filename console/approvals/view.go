package approvals

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

type listView struct {
	Frame               page.Frame
	Base                string
	History             bool
	CanDecide, CanWrite bool
	Rows                []row
	Open                *detail
	// Named says that the address names the one that is open: a phone then shows it in place of the list.
	Named    bool
	Problems ui.Problems
	Pager    ui.PagerProps
}

func (v listView) tabs() []ui.Segment {
	tabs := []ui.Segment{{Label: "Waiting", Href: v.Base, Current: !v.History}, {Label: "History", Href: v.Base + "?show=history", Current: v.History}}
	return append(tabs, ui.Segment{Label: "Rules", Href: v.Base + "/rules"})
}

// listHref is the list without the one that is open.
func (v listView) listHref() string {
	if v.History {
		return v.Base + "?show=history"
	}
	return v.Base
}

func (v listView) counted() string {
	return fmt.Sprintf("%d for you, %d for others.", v.mine(), len(v.Rows)-v.mine())
}

func (v listView) mine() int {
	n := 0
	for _, r := range v.Rows {
		if r.Mine {
			n++
		}
	}
	return n
}

type row struct {
	ID, Title, Agent, Why, Href string
	Status                      ui.Status
	Amount                      money.Nanos
	Mine, Current               bool
	Expires, At                 time.Time
	Ended                       bool
}

func rowOf(base string, a *approval.Approval, mine, history bool) row {
	r := row{
		ID: string(a.ID), Title: titleOf(a), Agent: agentOf(a), Why: a.Demand.Why(), Status: Word(a), Amount: a.Shown.Amount, Mine: mine, Expires: a.ExpiresAt, At: a.AskedAt,
		Href: base + "?open=" + string(a.ID), Ended: a.Status != approval.Pending,
	}
	if history {
		r.Href = base + "?show=history&open=" + string(a.ID)
	}
	return r
}

func agentOf(a *approval.Approval) string {
	name := a.Shown.AgentName
	if name == "" {
		name = "an agent"
	}
	if a.Shown.AgentVersion > 0 {
		name = fmt.Sprintf("%s@%d", name, a.Shown.AgentVersion)
	}
	return name
}

// titleOf says in a line what will be done.
func titleOf(a *approval.Approval) string {
	if a.Shown.Object != "" {
		return strings.TrimSpace(a.Shown.Does + " " + a.Shown.Object)
	}
	var args struct{ Command, Code string }
	_ = json.Unmarshal(a.Shown.Arguments, &args)
	if line, _, _ := strings.Cut(args.Command+args.Code, "\n"); line != "" {
		return a.Shown.Tool + ": " + line
	}
	return a.Shown.Tool
}

// Word is an approval's status for people.
func Word(a *approval.Approval) ui.Status {
	switch a.Status {
	case approval.Pending:
		if a.Escalated {
			return ui.Status{Tone: ui.ToneNeeds, Icon: "hand", Word: "Waiting", Reason: "escalated"}
		}
		return ui.Status{Tone: ui.ToneNeeds, Icon: "hand", Word: "Waiting"}
	case approval.Approved:
		return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Approved", Reason: "not used yet"}
	case approval.Used:
		return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Approved", Reason: "done once"}
	case approval.Refused:
		return ui.Status{Tone: ui.ToneFailed, Icon: "barred", Word: "Refused"}
	case approval.Edited:
		return ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Changed", Reason: "asked anew"}
	case approval.Expired:
		return ui.Status{Tone: ui.ToneStopped, Icon: "clock", Word: "No answer", Reason: "not done"}
	case approval.Void:
	}
	return ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Void"}
}

// detail is one approval at full size.
type detail struct {
	ID, Title, Tool, Agent, Digest string
	Status                         ui.Status
	Session, SessionHref           string
	For                            string
	Action                         action
	Amount                         money.Nanos
	Risk                           string
	Undo                           string
	Mandate                        string
	Said                           string
	Read                           []journal.Tainted
	Rules                          []approval.Fired
	Stages                         []stage
	Votes                          []vote
	Expires, Asked                 time.Time
	Pending, Mine, Passkey         bool
	WhyNot                         string
	Arguments                      string
	Typed                          string
	EditedBy                       string
	Outcome                        string
	Decide                         string
	Expired, Named                 bool
	CanRemember                    bool
}

type stage struct {
	Who   string
	Need  int
	State string // past, now or later
}

type vote struct {
	Who, What, Reason string
	At                time.Time
}

// action is what will be done, as a person reads it.
type action struct {
	// Kind is request, diff, file, program or json.
	Kind            string
	Method, Address string
	Headers         []ui.Fact
	Body            string
	Path            string
	Before, After   string
	All             bool
	Text, Language  string
}

func actionOf(tool string, arguments json.RawMessage) action {
	var a struct {
		Method, URL, Body, Path, Content, Command, Code string
		Headers                                         map[string]string
		OldText                                         *string `json:"old_text"`
		NewText                                         string  `json:"new_text"`
		ReplaceAll                                      bool    `json:"replace_all"`
	}
	whole := action{Kind: "json", Text: ui.Indent(arguments)}
	if json.Unmarshal(arguments, &a) != nil {
		return whole
	}
	switch tool {
	case "http_request":
		out := action{Kind: "request", Method: a.Method, Address: a.URL, Body: a.Body}
		if out.Method == "" {
			out.Method = "GET"
		}
		for _, name := range slices.Sorted(maps.Keys(a.Headers)) {
			out.Headers = append(out.Headers, ui.Fact{Term: name, Text: a.Headers[name]})
		}
		return out
	case "edit_file":
		if a.OldText != nil {
			return action{Kind: "diff", Path: a.Path, Before: *a.OldText, After: a.NewText, All: a.ReplaceAll}
		}
	case "write_file":
		return action{Kind: "file", Path: a.Path, Text: a.Content}
	case "bash":
		return action{Kind: "program", Text: a.Command, Language: "Command"}
	case "python":
		return action{Kind: "program", Text: a.Code, Language: "Program"}
	}
	return whole
}

func detailOf(p page.Place, a *approval.Approval, said []approval.Said, names map[id.User]string) *detail {
	d := &detail{
		ID: string(a.ID), Title: titleOf(a), Tool: a.Shown.Tool, Agent: agentOf(a), Digest: a.DigestText(), Status: Word(a), Session: string(a.Session), SessionHref: p.Path("sessions", string(a.Session)),
		Action: actionOf(a.Shown.Tool, a.Shown.Arguments), Amount: a.Shown.Amount, Risk: a.Shown.Risk, Mandate: a.Shown.Mandate, Said: a.Shown.Said, Read: a.Shown.Read, Rules: a.Demand.Rules,
		Expires: a.ExpiresAt, Asked: a.AskedAt, Pending: a.Status == approval.Pending, Passkey: a.Demand.Passkey, Arguments: ui.Indent(a.Shown.Arguments), Typed: ui.Indent(a.Shown.Arguments),
		Decide: p.Path("approvals", string(a.ID), "decide"), For: nameOf(a.Shown.By, names), Expired: a.Status == approval.Expired,
		CanRemember: p.Can(tenants.ApprovalRulesWrite),
	}
	d.Undo = "It can't be undone from here."
	if a.Shown.Reversible {
		d.Undo = "It changes files of the session only, whose state before can be had back."
	}
	if a.Shown.EditedBy != nil {
		d.EditedBy = nameOf(*a.Shown.EditedBy, names)
	}
	for i, s := range a.Demand.Stages {
		out := stage{Who: whoOf(s, names), Need: s.Need, State: "later"}
		if i < a.Stage || !d.Pending && (a.Status == approval.Approved || a.Status == approval.Used) {
			out.State = "past"
		} else if i == a.Stage && d.Pending {
			out.State = "now"
		}
		d.Stages = append(d.Stages, out)
	}
	if a.Escalated && a.Demand.Escalation != nil {
		d.Stages = append(d.Stages, stage{Who: "escalated to " + whoOf(*a.Demand.Escalation, names), State: "now"})
	}
	for _, v := range said {
		what := map[approval.Verb]string{approval.Approve: "approved", approval.Refuse: "refused", approval.Edit: "proposed other arguments"}[v.Verb]
		if v.OnBehalfOf != "" {
			what += " for " + label(v.OnBehalfOf, names)
		}
		d.Votes = append(d.Votes, vote{Who: label(v.User, names), What: what, Reason: v.Reason, At: v.At})
	}
	switch a.Status {
	case approval.Expired:
		d.Outcome = "Nobody answered in time. That is no refusal by a person; without an answer it was not done."
	case approval.Void:
		d.Outcome = "It is not asked any more. " + a.Reason
	case approval.Pending, approval.Approved, approval.Refused, approval.Edited, approval.Used:
	}
	return d
}

func label(u id.User, names map[id.User]string) string {
	if n := names[u]; n != "" {
		return n
	}
	return "a former member"
}

func nameOf(by journal.Actor, names map[id.User]string) string {
	behind := by.ID
	if by.OnBehalfOf != "" {
		behind = by.OnBehalfOf
	}
	if id.PrefixOf(behind) == id.User("").Prefix() {
		return label(id.User(behind), names)
	}
	if by.Kind == principal.Key {
		return "the API key " + by.ID
	}
	return behind
}

var roleWords = map[tenants.Role]string{
	tenants.RoleOwner: "owners", tenants.RoleAdmin: "admins", tenants.RoleBilling: "billing members", tenants.RoleDeveloper: "developers", tenants.RoleViewer: "viewers",
}

func whoOf(s approval.Stage, names map[id.User]string) string {
	var parts []string
	for _, r := range s.Roles {
		if w := roleWords[r]; w != "" {
			parts = append(parts, w)
		} else {
			parts = append(parts, "the role "+string(r))
		}
	}
	for _, m := range s.Members {
		parts = append(parts, label(m, names))
	}
	return strings.Join(parts, ", ")
}

func (s stage) text() string {
	switch {
	case s.Need == 0:
		return s.Who
	case s.Need == 1:
		return "one of " + s.Who
	}
	return fmt.Sprintf("%d of %s", s.Need, s.Who)
}

func (s stage) status() ui.Status {
	switch s.State {
	case "past":
		return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Passed"}
	case "now":
		return ui.Status{Tone: ui.ToneNeeds, Icon: "hand", Word: "Now"}
	}
	return ui.Status{Tone: ui.ToneAsleep, Icon: "clock", Word: "Later"}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
