package billing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// UsageParts are what spending can be told apart by. tool is every effect but a model call, by its name. key and member are those against
// whose budgets it counted.
var UsageParts = []string{"project", "agent", "model", "tool", "key", "member"}

// UsageBuckets are the units of time in which spending is summed; an empty bucket sums the whole range.
var UsageBuckets = []string{"hour", "day"}

const (
	maxUsageDays  = 400
	maxUsageHours = 32 * 24
)

// UsageQuery asks what was spent.
type UsageQuery struct {
	// Since is included, Until is not. Days and hours begin in the organisation's zone.
	Since, Until time.Time
	// Bucket is one of UsageBuckets, or empty.
	Bucket string
	// By is some of UsageParts.
	By []string
	// What is empty does not restrict. Member is the person's id.
	Project id.Project
	Agent   id.Agent
	Model   string
	Tool    string
	Key     id.Key
	Member  string
	// After is the last row seen; nil begins at the first.
	After *UsageRow
	Limit int
}

// UsageRow is what was spent on one combination in one unit of time. Parts that were not asked for are empty, and so are those that do not
// apply: a tool's call has no model.
type UsageRow struct {
	StartsAt time.Time   `json:"t"`
	Project  string      `json:"p,omitempty"`
	Agent    string      `json:"a,omitempty"`
	Model    string      `json:"m,omitempty"`
	Tool     string      `json:"o,omitempty"`
	Key      string      `json:"k,omitempty"`
	Member   string      `json:"u,omitempty"`
	Spent    money.Nanos `json:"-"`
	// Effects is how many captures make it up.
	Effects int64 `json:"-"`
}

// Part is the row's value of one of UsageParts.
func (r UsageRow) Part(part string) string {
	switch part {
	case "project":
		return r.Project
	case "agent":
		return r.Agent
	case "model":
		return r.Model
	case "tool":
		return r.Tool
	case "key":
		return r.Key
	case "member":
		return r.Member
	}
	return ""
}

// Zone is the zone in which an organisation's days begin.
func Zone(ctx context.Context, tx pgx.Tx, org id.Org) (*time.Location, error) {
	name, err := billingdb.New(tx).Zone(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("read the organisation's zone: %w", err)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("load the organisation's zone: %w", err)
	}
	return zone, nil
}

// DayOf is when the day that holds a moment began in a zone.
func DayOf(t time.Time, zone *time.Location) time.Time {
	y, m, d := t.In(zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, zone)
}

// UsageNames finds what people call the things that the rows name by id.
func UsageNames(ctx context.Context, tx pgx.Tx, org id.Org, rows []UsageRow) (map[string]string, error) {
	known := map[string]bool{}
	for _, r := range rows {
		for _, one := range []string{r.Project, r.Agent, r.Key, r.Member} {
			if one != "" {
				known[one] = true
			}
		}
	}
	return Names(ctx, tx, org, slices.Sorted(maps.Keys(known)))
}

// Usage sums the ledger's captures, the earliest first. All rows of a range sum to what was captured in it, whatever they are grouped by.
func Usage(ctx context.Context, tx pgx.Tx, org id.Org, zone *time.Location, in UsageQuery) ([]UsageRow, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	by := func(part string) bool { return slices.Contains(in.By, part) }
	p := billingdb.UsageParams{
		OrgID: org, Zone: zone.String(), Bucket: in.Bucket, Since: in.Since, Until: in.Until,
		ByProject: by("project"), ByAgent: by("agent"), ByModel: by("model"), ByTool: by("tool"), ByKey: by("key"), ByMember: by("member"), WithSteps: by("model") || by("tool") || in.Model != "" || in.Tool != "",
		ProjectID: string(in.Project), AgentID: string(in.Agent), Model: in.Model, Tool: in.Tool, RowLimit: int32(in.Limit), //nolint:gosec // at most a page
	}
	if in.Key != "" {
		p.Scopes = append(p.Scopes, Scope{ScopeKey, string(in.Key)}.String())
	}
	if in.Member != "" {
		p.Scopes = append(p.Scopes, Scope{ScopeMember, in.Member}.String())
	}
	if p.Scopes == nil {
		p.Scopes = []string{}
	}
	if a := in.After; a != nil {
		p.After, p.AfterStarts, p.AfterProject, p.AfterAgent, p.AfterModel, p.AfterTool, p.AfterKey, p.AfterMember = true, a.StartsAt, a.Project, a.Agent, a.Model, a.Tool, a.Key, a.Member
	}
	rows, err := billingdb.New(tx).Usage(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("sum what was spent: %w", err)
	}
	out := make([]UsageRow, len(rows))
	for i, r := range rows {
		out[i] = UsageRow{
			StartsAt: r.StartsAt.UTC(), Project: r.Project, Agent: r.Agent, Model: r.Model, Tool: r.Tool, Key: r.Key, Member: r.Member,
			Spent: money.Nanos(r.SpentNanos), Effects: r.Effects,
		}
	}
	return out, nil
}

func (in UsageQuery) check() error {
	if !in.Since.Before(in.Until) {
		return fault.InvalidField("query/created_at", "out_of_range", "The range must end after it begins.")
	}
	length := in.Until.Sub(in.Since)
	if length > maxUsageDays*24*time.Hour {
		return fault.InvalidField("query/created_at", "out_of_range", fmt.Sprintf("The range may be %d days long at most.", maxUsageDays))
	}
	if in.Bucket == "hour" && length > maxUsageHours*time.Hour {
		return fault.InvalidField("query/bucket", "out_of_range", fmt.Sprintf("By the hour the range may be %d days long at most.", maxUsageHours/24))
	}
	return nil
}
