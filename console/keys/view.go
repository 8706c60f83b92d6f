package keys

import (
	"slices"
	"strings"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

type row struct {
	ID       string
	Name     string
	Prefix   string
	Where    string
	Scopes   string
	Status   ui.Status
	LastUsed *time.Time
	Expires  *time.Time
	Created  time.Time
	Active   bool
	Revoke   string
	Stop     string
}

type listView struct {
	Frame    page.Frame
	Base     string
	New      string
	Rows     []row
	All      bool
	CanWrite bool
	Pager    ui.PagerProps
}

// form is what the page for a new key holds.
type form struct {
	Name, Expires, Scopes, Where string
	Chosen                       []string
}

type createView struct {
	Frame        page.Frame
	Base         string
	Project, Org string
	Form         form
	Problems     ui.Problems
	Permissions  []ui.Choice
}

type createdView struct {
	Frame     page.Frame
	Name      string
	Secret    string
	Curl      string
	Base      string
	Sessions  string
	CanInvoke bool
}

// expiries are the choices of how long a key works, in days; 0 is for ever.
var expiries = map[string]int{"7": 7, "30": 30, "90": 90, "365": 365, "never": 0}

var expiryOptions = []ui.Option{{Value: "7", Label: "7 days"}, {Value: "30", Label: "30 days"}, {Value: "90", Label: "90 days"}, {Value: "365", Label: "1 year"}, {Value: "never", Label: "Never"}}

func scopesText(scopes []string) string {
	if slices.Contains(scopes, tenants.AllScopes) {
		return "everything"
	}
	if len(scopes) > 3 {
		return strings.Join(scopes[:3], ", ") + " and " + ui.Count(int64(len(scopes)-3)) + " more"
	}
	return strings.Join(scopes, ", ")
}

func newList(p page.Place, found []tenants.Key, all bool, now time.Time) listView {
	v := listView{Base: p.Path("keys"), New: p.Path("keys", "new"), All: all, CanWrite: p.Can(tenants.KeysWrite)}
	if len(found) > pageSize {
		found = found[:pageSize]
		v.Pager.Next = v.Base + "?after=" + string(found[pageSize-1].ID)
	}
	for _, k := range found {
		r := row{
			ID: string(k.ID), Name: k.Name, Prefix: k.Prefix, Scopes: scopesText(k.Scopes), Status: ui.Key(string(k.Status(now))), LastUsed: k.LastUsedAt,
			Expires: k.ExpiresAt, Created: k.CreatedAt, Active: k.Status(now) == tenants.KeyActive, Revoke: p.Path("keys", string(k.ID), "revoke"), Stop: p.Path("stop", "keys", string(k.ID)), Where: "another project",
		}
		switch k.Project {
		case "":
			r.Where = "whole organisation"
		case p.Project:
			r.Where = p.ProjectName
		}
		v.Rows = append(v.Rows, r)
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "keys"
	return v
}

// permissionChoices are the scopes that the viewer may give away: those that the viewer has.
func permissionChoices(p principal.Principal, chosen []string) []ui.Choice {
	var out []ui.Choice
	for _, perm := range tenants.Permissions() {
		if tenants.Allowed(p, perm) {
			out = append(out, ui.Choice{Name: "scope", Value: string(perm), Label: string(perm), Checked: slices.Contains(chosen, string(perm))})
		}
	}
	return out
}

// everythingOf are the scopes of a key that may do all that its maker may: for who may do everything that also means what comes later.
func everythingOf(p principal.Principal) []string {
	var out []string
	for _, perm := range tenants.Permissions() {
		if tenants.Allowed(p, perm) {
			out = append(out, string(perm))
		}
	}
	if len(out) == len(tenants.Permissions()) {
		return []string{tenants.AllScopes}
	}
	return out
}

// curl is a request that works when it is pasted: the built-in model runs the command in a microVM, so that no provider's key is needed.
func curl(api, secret string, p page.Place, wholeOrg bool) string {
	s := "curl -sS " + api + "/v1/invoke \\\n  -H 'Authorization: Bearer " + secret + "' \\\n"
	if wholeOrg {
		s += "  -H 'Ambit-Project: " + string(p.Project) + "' \\\n"
	}
	return s + "  -H 'Content-Type: application/json' \\\n" +
		`  -d '{"agent": {"model": "ambit/scripted", "tools": ["bash"]}, "input": "` + "```bash\\nuname -a\\n```" + `", "limits": {"max_cost": {"amount": "0.05", "currency": "USD"}}}'`
}
