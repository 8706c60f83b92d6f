package page

// navItem is a place that the sidebar leads to.
type navItem struct {
	Key   string
	Label string
	Icon  string
	// Go is the key that follows g.
	Go    string
	Parts []string
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
	{Items: []navItem{{Key: "overview", Label: "Overview", Icon: "overview", Go: "o", Phone: true}}},
	{Title: "Build", Items: []navItem{
		{Key: "agents", Label: "Agents", Icon: "agent", Go: "a", Parts: []string{"agents"}, Phone: true},
		{Key: "playground", Label: "Playground", Icon: "playground", Go: "p", Parts: []string{"playground"}},
	}},
	{Title: "Run", Items: []navItem{
		{Key: "sessions", Label: "Sessions", Icon: "session", Go: "s", Parts: []string{"sessions"}, Phone: true},
		{Key: "traces", Label: "Traces", Icon: "trace", Go: "t", Parts: []string{"traces"}},
	}},
	{Title: "Govern", Items: []navItem{
		{Key: "permissions", Label: "Permissions", Icon: "shield", Go: "r", Parts: []string{"permissions"}},
		{Key: "members", Label: "Members", Icon: "user", Go: "m", Parts: []string{"members"}},
	}},
	{Title: "Money", Items: []navItem{
		{Key: "budgets", Label: "Budgets", Icon: "budget", Go: "b", Parts: []string{"budgets"}},
		{Key: "usage", Label: "Usage", Icon: "chart", Go: "u", Parts: []string{"usage"}},
		{Key: "ledger", Label: "Ledger", Icon: "ledger", Go: "l", Parts: []string{"ledger"}},
	}},
}

var navigationFoot = []navItem{
	{Key: "keys", Label: "Keys", Icon: "key", Go: "k", Parts: []string{"keys"}},
	{Key: "settings", Label: "Settings", Icon: "settings", Go: "e", Parts: []string{"settings"}},
}

func allNav() []navItem {
	var out []navItem
	for _, g := range navigation {
		out = append(out, g.Items...)
	}
	return append(out, navigationFoot...)
}

func phoneNav() []navItem {
	var out []navItem
	for _, i := range allNav() {
		if i.Phone {
			out = append(out, i)
		}
	}
	return out
}
