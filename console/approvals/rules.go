package approvals

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants"
)

type rulesView struct {
	Frame    page.Frame
	Base     string
	Rows     []ruleRow
	Settings approval.Settings
	CanWrite bool
}

func (v rulesView) tabs() []ui.Segment {
	return []ui.Segment{{Label: "Waiting", Href: v.Base}, {Label: "History", Href: v.Base + "?show=history"}, {Label: "Rules", Href: v.Base + "/rules", Current: true}}
}

type ruleRow struct {
	ID, Name, When, Who, After, Href, Delete string
	Waives                                   bool
	Until                                    *time.Time
	Owner                                    string
}

func (h *Handler) rules(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := rulesView{Base: p.Path("approvals"), CanWrite: p.Can(tenants.ApprovalRulesWrite)}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		names, err := h.names(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		found, err := h.Sessions.Approvals().Rules(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		known := map[string]string{approval.Taint: "Content from outside"}
		for _, r := range found {
			known[string(r.ID)] = r.Name
		}
		for _, r := range found {
			out := ruleRow{
				ID: string(r.ID), Name: r.Name, When: r.Words() + subjectWords(r.Subject), Waives: r.Outcome == approval.Waive, Until: r.Until, Owner: names[r.Owner],
				Href: p.Path("approvals", "rules", string(r.ID)), Delete: p.Path("approvals", "rules", string(r.ID), "delete"),
			}
			var stages []string
			for _, s := range r.Stages {
				stages = append(stages, stage{Who: whoOf(s, names), Need: s.Need}.text()+" within "+approval.Span(s.Within))
			}
			out.Who = strings.Join(stages, ", then ")
			if out.Waives {
				out.Who = "nobody: “" + known[r.Waives] + "” does not ask"
			}
			if r.Escalation != nil {
				out.After = "without an answer " + whoOf(*r.Escalation, names) + " are asked as well"
			}
			v.Rows = append(v.Rows, out)
		}
		v.Settings, err = h.Sessions.Approvals().SettingsOf(ctx, tx, p.Org)
		return err
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "approvals", "Approval rules", page.Crumb{Label: "Approvals", Href: v.Base}, page.Crumb{Label: "Rules"})
	return page.Render(c, http.StatusOK, Rules(v))
}

func subjectWords(subject string) string {
	switch {
	case subject == "*":
		return ""
	case strings.HasPrefix(subject, "tag:"):
		return ", of agents with the tag " + strings.TrimPrefix(subject, "tag:")
	}
	return ", of " + subject
}

type ruleForm struct {
	Frame             page.Frame
	Title, Back, Save string
	New, Waive        bool
	Waives            string
	WaivesName        string
	Values            map[string]string
	Roles, Escalation []string
	Members           []string
	Risks             []string
	Tainted, AskerMay bool
	Passkey           bool
	People            []ui.Choice
	Tools             []string
	Problems          ui.Problems
	Words             string
}

func (f ruleForm) has(list []string, value string) bool { return slices.Contains(list, value) }

func blank() approval.Rule {
	return approval.Rule{Outcome: approval.Ask, Subject: "*", Stages: []approval.Stage{{Roles: []tenants.Role{tenants.RoleAdmin, tenants.RoleOwner}, Need: 1, Within: 24 * time.Hour}}}
}

func (h *Handler) newRule(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	rule := blank()
	if like, err := id.Parse[id.Approval](c.QueryParam("like")); err == nil {
		err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
			a, err := approval.Get(ctx, tx, p.Org, like)
			if err != nil {
				return err
			}
			if a.Project != p.Project {
				return fault.NotFound()
			}
			rule = approval.Remember(&a, time.Now())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return h.drawRule(c, http.StatusOK, rule, true, nil)
}

func (h *Handler) ruleOf(c echo.Context, tx pgx.Tx) (approval.Stored, error) {
	rule, err := id.Parse[id.ApprovalRule](c.Param("rule"))
	if err != nil {
		return approval.Stored{}, fault.NotFound()
	}
	return h.Sessions.Approvals().GetRule(c.Request().Context(), tx, page.PlaceOf(c).Org, rule)
}

func (h *Handler) editRule(c echo.Context) error {
	var rule approval.Stored
	err := h.DB.InTx(c.Request().Context(), page.PlaceOf(c).Org, func(tx pgx.Tx) (err error) {
		rule, err = h.ruleOf(c, tx)
		return err
	})
	if err != nil {
		return err
	}
	return h.drawRule(c, http.StatusOK, rule.Rule, false, nil)
}

func (h *Handler) drawRule(c echo.Context, status int, r approval.Rule, isNew bool, problems ui.Problems) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f := ruleForm{
		Title: "New approval rule", Back: p.Path("approvals", "rules"), Save: c.Request().URL.Path, New: isNew, Waive: r.Outcome == approval.Waive, Waives: r.Waives, Risks: r.Risks,
		Tainted: r.Tainted, AskerMay: r.AskerMay, Passkey: r.Passkey, Tools: h.Tools, Problems: problems,
		Values: map[string]string{"name": r.Name, "description": r.Description, "subject": r.Subject, "tool": pattern(r.Tool), "action": pattern(r.Action), "object": pattern(r.Object), "first_use": r.FirstUse},
	}
	if !isNew {
		f.Title = "Change " + r.Name
	}
	if f.Waive {
		f.WaivesName = "“Content from outside”"
		if isNew {
			f.Title = "Let this go without asking"
		}
	}
	if a := r.Condition.AmountOver; a != nil {
		f.Values["amount_over"] = a.Decimal()
	}
	if a := r.Condition.AmountAtMost; a != nil {
		f.Values["amount_at_most"] = a.Decimal()
	}
	f.Values["domains"] = strings.Join(r.Condition.Domains, ", ")
	if r.SumOver != nil {
		f.Values["sum_over"], f.Values["sum_hours"] = r.SumOver.Decimal(), strconv.Itoa(int(r.SumWindow/time.Hour))
	}
	if r.Until != nil {
		f.Values["until"] = r.Until.Format("2006-01-02")
	}
	chosen := map[string]bool{}
	if len(r.Stages) > 0 {
		s := r.Stages[0]
		f.Roles = rolesOf(s)
		for _, m := range s.Members {
			chosen[string(m)] = true
		}
		f.Values["need"], f.Values["within_hours"] = strconv.Itoa(s.Need), hours(s.Within)
	}
	if len(r.Stages) > 1 {
		f.Values["second"], f.Values["second_need"] = first(rolesOf(r.Stages[1])), strconv.Itoa(r.Stages[1].Need)
	}
	if r.Escalation != nil {
		f.Values["escalation"], f.Values["escalation_hours"] = first(rolesOf(*r.Escalation)), hours(r.Escalation.Within)
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		members, err := h.Tenants.ListMembersTx(ctx, tx, p.Org, "", 200)
		if err != nil {
			return err
		}
		for _, m := range members {
			name := m.Email
			if m.Name != "" {
				name = m.Name + ", " + m.Email
			}
			f.People = append(f.People, ui.Choice{Name: "members", Value: string(m.UserID), Label: name, Checked: chosen[string(m.UserID)]})
		}
		if f.Waive && r.Waives != approval.Taint {
			rule, err := h.Sessions.Approvals().GetRule(ctx, tx, p.Org, id.ApprovalRule(r.Waives))
			if err != nil {
				return err
			}
			f.WaivesName = "“" + rule.Name + "”"
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.Frame = page.NewFrame(c, "approvals", f.Title, page.Crumb{Label: "Approvals", Href: p.Path("approvals")}, page.Crumb{Label: "Rules", Href: f.Back}, page.Crumb{Label: f.Title})
	return page.Render(c, status, Form(f))
}

func pattern(s string) string {
	if s == "*" {
		return ""
	}
	return s
}

func hours(d time.Duration) string { return strconv.FormatFloat(d.Hours(), 'f', -1, 64) }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func rolesOf(s approval.Stage) []string {
	var out []string
	for _, r := range s.Roles {
		out = append(out, string(r))
	}
	return out
}

// readRule puts what the form says over a rule, whose other conditions stay.
func readRule(c echo.Context, r approval.Rule) (approval.Rule, ui.Problems) {
	var problems ui.Problems
	bad := func(name, message string) { problems = append(problems, ui.Problem{Field: name, Message: message}) }
	form, _ := c.FormParams()
	r.Name, r.Description, r.Subject = c.FormValue("name"), c.FormValue("description"), c.FormValue("subject")
	r.Tool, r.Action, r.Object = c.FormValue("tool"), c.FormValue("action"), c.FormValue("object")
	r.Tainted = c.FormValue("tainted") != ""
	r.Condition.Domains = strings.FieldsFunc(c.FormValue("domains"), func(x rune) bool { return x == ',' || x == ' ' || x == '\n' })
	amount := func(name string) *money.Nanos {
		text := strings.TrimSpace(strings.TrimPrefix(c.FormValue(name), "$"))
		if text == "" {
			return nil
		}
		if !strings.Contains(text, ".") {
			text += ".00"
		}
		n, err := money.Parse(text)
		if err != nil {
			bad(name, "Write dollars, such as 5.00.")
			return nil
		}
		return &n
	}
	span := func(name string) time.Duration {
		if c.FormValue(name) == "" {
			return 24 * time.Hour
		}
		n, err := strconv.ParseFloat(c.FormValue(name), 64)
		if err != nil || n <= 0 || n > 24*400 {
			bad(name, "Write a number of hours.")
			return time.Hour
		}
		return time.Duration(n * float64(time.Hour)).Round(time.Second)
	}
	if r.Outcome == approval.Waive { // what was drafted for so much is not to be kept for any amount
		r.Condition.AmountAtMost = amount("amount_at_most")
	} else {
		r.Condition.AmountOver = amount("amount_over")
	}
	r.Until = nil
	if day := c.FormValue("until"); day != "" {
		if t, err := time.Parse("2006-01-02", day); err == nil {
			r.Until = &t
		} else {
			bad("until", "Write a day, such as 2026-12-31.")
		}
	}
	r.Risks = slices.Clone(form["risks"])
	if r.Outcome == approval.Waive {
		return r, problems
	}
	r.FirstUse, r.AskerMay, r.Passkey = c.FormValue("first_use"), c.FormValue("asker_may") != "", c.FormValue("passkey") != ""
	if r.SumOver = amount("sum_over"); r.SumOver != nil {
		r.SumWindow = span("sum_hours")
	} else {
		r.SumWindow = 0
	}
	stageOf := func(roles, members []string, need, within string) approval.Stage {
		s := approval.Stage{Within: span(within)}
		for _, role := range roles {
			s.Roles = append(s.Roles, tenants.Role(role))
		}
		for _, m := range members {
			s.Members = append(s.Members, id.User(m))
		}
		if text := c.FormValue(need); text != "" {
			if s.Need, _ = strconv.Atoi(text); s.Need == 0 {
				s.Need = -1 // what is no number is refused by the rule's own check
			}
		}
		return s
	}
	r.Stages = []approval.Stage{stageOf(form["roles"], form["members"], "need", "within_hours")}
	if second := c.FormValue("second"); second != "" {
		r.Stages = append(r.Stages, stageOf([]string{second}, nil, "second_need", "within_hours"))
	}
	r.Escalation = nil
	if e := c.FormValue("escalation"); e != "" {
		s := stageOf([]string{e}, nil, "", "escalation_hours")
		r.Escalation = &s
	}
	return r, problems
}

var ruleFields = map[string]string{
	"/name": "name", "/description": "description", "/subject": "subject", "/tool": "tool", "/action": "action", "/object": "object", "/condition/amount_over": "amount_over",
	"/sum_over": "sum_over", "/stages/0": "roles", "/stages/0/need": "need", "/stages/0/within_seconds": "within_hours", "/stages/1/need": "second_need",
	"/escalation/within_seconds": "escalation_hours", "/condition/domains/0": "domains", "/condition/amount_at_most": "amount_at_most",
}

func (h *Handler) saveRule(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	base, isNew := blank(), c.Param("rule") == ""
	var stored approval.Stored
	if isNew {
		if c.FormValue("waives") != "" {
			base = approval.Rule{Outcome: approval.Waive, Waives: c.FormValue("waives")}
		}
	} else {
		err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
			stored, err = h.ruleOf(c, tx)
			return err
		})
		if err != nil {
			return err
		}
		base = stored.Rule
	}
	rule, problems := readRule(c, base)
	if len(problems) > 0 {
		return h.drawRule(c, http.StatusUnprocessableEntity, rule, isNew, problems)
	}
	asks, err := h.confirmed(c, act{
		purpose: "approval_rules.save", title: "Save the rule", back: p.Path("approvals", "rules"),
		what: "“" + rule.Name + "” as you wrote it lets more happen without a person, or with fewer: " + rule.Words() + ".",
	}, func(proof json.RawMessage) error {
		return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
			if isNew {
				_, err = h.Sessions.Approvals().CreateRule(ctx, tx, p.Org, rule, proof)
				return err
			}
			_, err = h.Sessions.Approvals().UpdateRule(ctx, tx, p.Org, stored.ID, &stored.Version, func(approval.Rule) approval.Rule { return rule }, proof)
			return err
		})
	})
	if asks {
		return err
	}
	if err != nil {
		problems, status, err := page.FormProblems(err, ruleFields)
		if err != nil {
			return err
		}
		return h.drawRule(c, status, rule, isNew, problems)
	}
	page.Flash(c, rule.Name+" binds from now on.")
	return page.Redirect(c, p.Path("approvals", "rules"))
}

func (h *Handler) deleteRule(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var rule approval.Stored
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		rule, err = h.ruleOf(c, tx)
		return err
	})
	if err != nil {
		return err
	}
	asks, err := h.confirmed(c, act{
		purpose: "approval_rules.delete:" + string(rule.ID), title: "Delete the rule", danger: true, back: p.Path("approvals", "rules"),
		what: "“" + rule.Name + "” will not ask anybody any more about " + rule.Words() + ".",
	}, func(proof json.RawMessage) error {
		return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
			return h.Sessions.Approvals().DeleteRule(ctx, tx, p.Org, rule.ID, proof)
		})
	})
	if asks || err != nil {
		return err
	}
	page.Flash(c, rule.Name+" is deleted.")
	return page.Redirect(c, p.Path("approvals", "rules"))
}

func (h *Handler) saveSettings(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	n, err := strconv.Atoi(c.FormValue("asks_per_day"))
	if err != nil {
		return fault.InvalidField("/asks_per_day", "invalid_value", "Write a number.")
	}
	next := approval.Settings{TaintAsks: c.FormValue("taint") != "", AsksPerDay: n}
	asks, err := h.confirmed(c, act{
		purpose: "approval_settings.save", title: "Save the settings", back: p.Path("approvals", "rules"),
		what: "With these settings more happens without a person, or people are asked more often.",
	}, func(proof json.RawMessage) error {
		return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
			_, err := h.Sessions.Approvals().SetSettings(ctx, tx, p.Org, next, proof)
			return err
		})
	})
	if asks || err != nil {
		return err
	}
	page.Flash(c, "The settings are saved.")
	return page.Redirect(c, p.Path("approvals", "rules"))
}

type absenceView struct {
	Frame    page.Frame
	Base     string
	Mine     *approval.Absence
	MineTo   string
	Others   []absent
	People   []ui.Option
	Problems ui.Problems
	Values   map[string]string
}

type absent struct {
	Who, To     string
	From, Until time.Time
}

func (h *Handler) absence(c echo.Context) error { return h.drawAbsence(c, http.StatusOK, nil) }

func (h *Handler) drawAbsence(c echo.Context, status int, problems ui.Problems) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	v := absenceView{Base: p.Path("approvals"), Problems: problems, Values: map[string]string{
		"from": time.Now().Format("2006-01-02"), "until": time.Now().AddDate(0, 0, 14).Format("2006-01-02"), "delegate": c.FormValue("delegate"),
	}}
	for _, name := range []string{"from", "until"} {
		if given := c.FormValue(name); given != "" {
			v.Values[name] = given
		}
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		names, err := h.names(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		list, err := h.Sessions.Approvals().Absences(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		for _, a := range list {
			to := names[a.Delegate]
			if a.Delegate == "" {
				to = "nobody"
			}
			if a.User == viewer.User {
				v.Mine, v.MineTo = &a, to
				continue
			}
			v.Others = append(v.Others, absent{Who: label(a.User, names), To: to, From: a.From, Until: a.Until})
		}
		v.People = []ui.Option{{Value: "", Label: "Nobody"}}
		for user, name := range names {
			if user != viewer.User {
				v.People = append(v.People, ui.Option{Value: string(user), Label: name})
			}
		}
		slices.SortFunc(v.People[1:], func(a, b ui.Option) int { return strings.Compare(a.Label, b.Label) })
		return nil
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "approvals", "Absence", page.Crumb{Label: "Approvals", Href: v.Base}, page.Crumb{Label: "Absence"})
	return page.Render(c, status, Away(v))
}

func (h *Handler) saveAbsence(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	from, err := time.Parse("2006-01-02", c.FormValue("from"))
	until, other := time.Parse("2006-01-02", c.FormValue("until"))
	if err != nil || other != nil {
		return h.drawAbsence(c, http.StatusUnprocessableEntity, ui.Problems{{Field: "from", Message: "Write days, such as 2026-12-31."}})
	}
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		return h.Sessions.Approvals().SetAbsence(ctx, tx, p.Org, viewer.User, approval.Absence{From: from, Until: until.AddDate(0, 0, 1), Delegate: id.User(c.FormValue("delegate"))})
	})
	if err != nil {
		problems, status, err := page.FormProblems(err, map[string]string{"/ends_at": "until", "/delegate": "delegate"})
		if err != nil {
			return err
		}
		return h.drawAbsence(c, status, problems)
	}
	page.Flash(c, "Your absence is noted.")
	return page.Redirect(c, p.Path("approvals", "absence"))
}

func (h *Handler) endAbsence(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error { return h.Sessions.Approvals().EndAbsence(ctx, tx, p.Org, viewer.User) })
	if err != nil {
		return err
	}
	page.Flash(c, "Welcome back.")
	return page.Redirect(c, p.Path("approvals"))
}

func roleOptions(none string) []ui.Option {
	return []ui.Option{{Value: "", Label: none}, {Value: "owner", Label: "an owner"}, {Value: "admin", Label: "an admin"}, {Value: "billing", Label: "a billing member"}, {Value: "developer", Label: "a developer"}}
}
