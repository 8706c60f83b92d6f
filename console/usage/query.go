package usage

import (
	"net/url"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
)

// query is what the address of the page says.
type query struct {
	// By is one of the parts; Since one of the periods; Project is "all" for the whole organisation, and empty for the address's project.
	By, Since, Project, Chart       string
	Agent, Model, Tool, Key, Member string
}

var parts = []struct{ key, label string }{
	{"agent", "Agent"}, {"model", "Model"}, {"tool", "Tool"}, {"project", "Project"}, {"key", "Key"}, {"member", "Member"},
}

var periods = []struct {
	key, label string
	days       int
}{{"24h", "Last 24 hours", 0}, {"7d", "Last 7 days", 7}, {"", "Last 30 days", 30}, {"90d", "Last 90 days", 90}, {"365d", "Last 365 days", 365}}

func queryOf(c echo.Context) query {
	q := query{By: c.QueryParam("by"), Since: c.QueryParam("since"), Model: short(c.QueryParam("model")), Tool: short(c.QueryParam("tool"))}
	if !slices.ContainsFunc(parts, func(p struct{ key, label string }) bool { return p.key == q.By }) {
		q.By = "agent" // an address that was mistyped shows what is asked for most
	}
	if c.QueryParam("project") == "all" {
		q.Project = "all"
	}
	if c.QueryParam("chart") == "lines" {
		q.Chart = "lines"
	}
	if _, err := id.Parse[id.Agent](c.QueryParam("agent")); err == nil {
		q.Agent = c.QueryParam("agent")
	}
	if _, err := id.Parse[id.Key](c.QueryParam("key")); err == nil {
		q.Key = c.QueryParam("key")
	}
	if _, err := id.Parse[id.User](c.QueryParam("member")); err == nil {
		q.Member = c.QueryParam("member")
	}
	return q
}

// short keeps what can name nothing out of the query.
func short(s string) string {
	if len(s) > 200 {
		return ""
	}
	return s
}

// with writes the query as an address has it, changed.
func (q query) with(change func(*query)) string {
	if change != nil {
		change(&q)
	}
	v := url.Values{}
	for name, value := range map[string]string{
		"by": q.By, "since": q.Since, "project": q.Project, "chart": q.Chart, "agent": q.Agent, "model": q.Model, "tool": q.Tool, "key": q.Key, "member": q.Member,
	} {
		if value != "" && (name != "by" || value != "agent") {
			v.Set(name, value)
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// filtered says whether anything is left out.
func (q query) filtered() bool { return q.Agent+q.Model+q.Tool+q.Key+q.Member != "" }

// span is a range with its units of time.
type span struct {
	since, until time.Time
	bucket       string
	zone         *time.Location
	starts       []time.Time
}

// span is the range that the query asks for, of whole hours or days in the organisation's zone, the present one included.
func (q query) span(now time.Time, zone *time.Location) span {
	days := 30
	for _, p := range periods {
		if p.key == q.Since {
			days = p.days
		}
	}
	s := span{zone: zone, bucket: "day"}
	if days == 0 {
		s.bucket = "hour"
		local := now.In(zone)
		hour := now.Truncate(time.Second).Add(-time.Duration(local.Minute())*time.Minute - time.Duration(local.Second())*time.Second)
		s.since, s.until = hour.Add(-23*time.Hour), hour.Add(time.Hour)
		for at := s.since; at.Before(s.until); at = at.Add(time.Hour) {
			s.starts = append(s.starts, at)
		}
		return s
	}
	today := billing.DayOf(now, zone)
	y, m, d := today.Date()
	for back := days - 1; back >= 0; back-- {
		s.starts = append(s.starts, time.Date(y, m, d-back, 0, 0, 0, 0, zone))
	}
	s.since, s.until = s.starts[0], time.Date(y, m, d+1, 0, 0, 0, 0, zone)
	return s
}

func (s span) label(t time.Time) string {
	if s.bucket == "hour" {
		return t.In(s.zone).Format("2 Jan, 15:04")
	}
	return t.In(s.zone).Format("2 Jan")
}

func (q query) usage(p page.Place, s span, limit int) billing.UsageQuery {
	in := billing.UsageQuery{
		Since: s.since, Until: s.until, Bucket: s.bucket, By: []string{q.By}, Agent: id.Agent(q.Agent), Model: q.Model, Tool: q.Tool, Key: id.Key(q.Key), Member: q.Member, Limit: limit,
	}
	if q.Project == "" {
		in.Project = p.Project
	}
	return in
}

func (q query) bySegments(base string) []ui.Segment {
	var out []ui.Segment
	for _, part := range parts {
		out = append(out, ui.Segment{Label: part.label, Href: base + q.with(func(q *query) { q.By = part.key }), Current: part.key == q.By})
	}
	return out
}

func (q query) periodOptions() []ui.Option {
	var out []ui.Option
	for _, p := range periods {
		out = append(out, ui.Option{Value: p.key, Label: p.label, Selected: p.key == q.Since})
	}
	return out
}
