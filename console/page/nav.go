package page

import "ambit.dev/ambit/tenants"

// navItem is a place that the sidebar leads to.
type navItem struct {
	Key   string
	Label string
	Icon  string
	// Go is the key that follows g.
	Go    string
	Parts []string
	// Needs are the permissions of the page; who has not all of them is not led to it.
	Needs []tenants.Permission
	// Phone puts it into the bar at the bottom of a phone.
	Phone bool
}

// navGroup is a part of the sidebar.
type navGroup struct {
	Title string
	Items []navItem
}

// navigation lists what is built. What is not built yet is absent, not greyed out.
var navigation = []navGroup{
	{Items: []navItem{
		{Key: "overview", Label: "Overview", Icon: "overview", Go: "o", Phone: true},
		{Key: "approvals", Label: "Approvals", Icon: "hand", Go: "v", Parts: []string{"approvals"}, Needs: []tenants.Permission{tenants.ApprovalsRead}, Phone: true},
	}},
	{Title: "Build", Items: []navItem{
		{Key: "agents", Label: "Agents", Icon: "agent", Go: "a", Parts: []string{"agents"}, Needs: []tenants.Permission{tenants.AgentsRead}},
		{Key: "playground", Label: "Playground", Icon: "playground", Go: "p", Parts: []string{"playground"}, Needs: []tenants.Permission{tenants.SessionsRead}},
	}},
	{Title: "Run", Items: []navItem{
		{Key: "sessions", Label: "Sessions", Icon: "session", Go: "s", Parts: []string{"sessions"}, Needs: []tenants.Permission{tenants.SessionsRead}, Phone: true},
		{Key: "traces", Label: "Traces", Icon: "trace", Go: "t", Parts: []string{"traces"}, Needs: []tenants.Permission{tenants.TracesRead}},
	}},
	{Title: "Govern", Items: []navItem{
		{Key: "mandates", Label: "Mandates", Icon: "mandate", Go: "d", Parts: []string{"mandates"}, Needs: []tenants.Permission{tenants.MandatesRead}},
		{Key: "permissions", Label: "Permissions", Icon: "shield", Go: "r", Parts: []string{"permissions"}, Needs: []tenants.Permission{tenants.PermissionsRead, tenants.AgentsRead}},
		{Key: "identity", Label: "Identity", Icon: "fingerprint", Go: "i", Parts: []string{"identity"}, Needs: []tenants.Permission{tenants.AgentsRead}},
		{Key: "members", Label: "Members", Icon: "user", Go: "m", Parts: []string{"members"}, Needs: []tenants.Permission{tenants.MembersRead}},
	}},
	{Title: "Money", Items: []navItem{
		{Key: "budgets", Label: "Budgets", Icon: "budget", Go: "b", Parts: []string{"budgets"}, Needs: []tenants.Permission{tenants.BudgetsRead}},
		{Key: "usage", Label: "Usage", Icon: "chart", Go: "u", Parts: []string{"usage"}, Needs: []tenants.Permission{tenants.LedgerRead}},
		{Key: "ledger", Label: "Ledger", Icon: "ledger", Go: "l", Parts: []string{"ledger"}, Needs: []tenants.Permission{tenants.LedgerRead}},
	}},
}

var navigationFoot = []navItem{
	{Key: "keys", Label: "Keys", Icon: "key", Go: "k", Parts: []string{"keys"}, Needs: []tenants.Permission{tenants.KeysRead}},
	{Key: "webhooks", Label: "Webhooks", Icon: "link", Go: "w", Parts: []string{"webhooks"}, Needs: []tenants.Permission{tenants.WebhooksRead}},
	{Key: "settings", Label: "Settings", Icon: "settings", Go: "e", Parts: []string{"settings"}},
}

// seen leaves out what the viewer may not read.
func seen(p Place, items []navItem) []navItem {
	var out []navItem
	for _, i := range items {
		may := true
		for _, one := range i.Needs {
			may = may && p.Can(one)
		}
		if may {
			out = append(out, i)
		}
	}
	return out
}

// groupsFor are the sidebar's groups for the viewer, without those that nothing is left of.
func groupsFor(p Place) []navGroup {
	var out []navGroup
	for _, g := range navigation {
		if g.Items = seen(p, g.Items); len(g.Items) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func allNav(p Place) []navItem {
	var out []navItem
	for _, g := range groupsFor(p) {
		out = append(out, g.Items...)
	}
	return append(out, seen(p, navigationFoot)...)
}

func phoneNav(p Place) []navItem {
	var out []navItem
	for _, i := range allNav(p) {
		if i.Phone {
			out = append(out, i)
		}
	}
	return out
}
