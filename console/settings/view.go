package settings

import (
	"strings"
	"time"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/tenants"
)

type signInRow struct {
	ID       string
	Browser  string
	Address  string
	Created  time.Time
	LastSeen time.Time
	Current  bool
	Revoke   string
}

type projectRow struct {
	Name, Slug, Href string
	Current          bool
	Archived         bool
	Created          time.Time
}

type view struct {
	Frame       page.Frame
	Base        string
	Tab         string
	Tabs        []ui.Segment
	Email, Name string
	Verified    bool
	SignIns     []signInRow
	OrgName     string
	OrgVersion  string
	OrgZone     string
	OrgID       string
	Projects    []projectRow
	// Members leads to the page of members; empty for who may not see them.
	Members string
	// What the viewer's role lets be shown, or offered.
	CanRename, CanAddProjects bool

	Problems     ui.Problems
	ProjectInput string
	// StopProject and StopEverything lead to the question before the red button; empty for who may not.
	StopProject, StopEverything, Stops string
	MailEnabled                        bool

	Security securityView
}

// tabs name the permission that each needs; one's own account needs none.
var tabs = []struct {
	key, label string
	needs      tenants.Permission
}{{"you", "You", ""}, {"security", "Security", ""}, {"organisation", "Organisation", tenants.OrganizationRead}, {"projects", "Projects", tenants.ProjectsRead}}

// tabSegments leaves out what the viewer may not see.
func tabSegments(p page.Place, base, current string) []ui.Segment {
	var out []ui.Segment
	for _, t := range tabs {
		if t.needs == "" || p.Can(t.needs) {
			out = append(out, ui.Segment{Label: t.label, Href: base + "?tab=" + t.key, Current: t.key == current})
		}
	}
	return out
}

// zones are offered as one types; any other name of the IANA database is taken too.
var zones = []string{
	"UTC", "Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi", "America/Bogota", "America/Buenos_Aires", "America/Chicago", "America/Denver",
	"America/Los_Angeles", "America/Mexico_City", "America/New_York", "America/Sao_Paulo", "America/Toronto", "Asia/Bangkok", "Asia/Dubai", "Asia/Hong_Kong",
	"Asia/Jakarta", "Asia/Jerusalem", "Asia/Karachi", "Asia/Kolkata", "Asia/Manila", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tokyo",
	"Australia/Melbourne", "Australia/Sydney", "Europe/Amsterdam", "Europe/Berlin", "Europe/Helsinki", "Europe/Istanbul", "Europe/Lisbon", "Europe/London",
	"Europe/Madrid", "Europe/Paris", "Europe/Rome", "Europe/Stockholm", "Europe/Warsaw", "Europe/Zurich", "Pacific/Auckland", "Pacific/Honolulu",
}

// browserOf names a browser and its system from what it says of itself, well enough to recognise one's own.
func browserOf(agent string) string {
	browser, system := "", ""
	for _, b := range []struct{ mark, name string }{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"}} {
		if strings.Contains(agent, b.mark) {
			browser = b.name
			break
		}
	}
	for _, s := range []struct{ mark, name string }{{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Mac OS X", "macOS"}, {"Windows", "Windows"}, {"Linux", "Linux"}} {
		if strings.Contains(agent, s.mark) {
			system = s.name
			break
		}
	}
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	case agent != "":
		return "Another browser"
	}
	return "Unknown browser"
}

func signInRows(found []tenants.SignIn, v page.Viewer, base string) []signInRow {
	out := make([]signInRow, len(found))
	for i, s := range found {
		out[i] = signInRow{ID: string(s.ID), Browser: browserOf(s.UserAgent), Address: s.Address, Created: s.CreatedAt, LastSeen: s.LastSeenAt, Current: s.ID == v.SignIn, Revoke: base + "/sign-ins/" + string(s.ID) + "/revoke"}
	}
	return out
}
