package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

const csvType = "text/csv; charset=utf-8"

func (a *API) usageRoutes() []Route {
	return []Route{{
		ID: "usage.list", Method: http.MethodGet, Path: "/v1/usage", Permission: tenants.LedgerRead, Tag: "Usage",
		Summary: "Sum what was spent",
		Description: "From the ledger's captures: the rows of a range sum to what was captured in it, whatever they are grouped by. Oldest first. " +
			"Days and hours begin in the organisation's time zone. Without created_at the range is the last 30 days and today. " +
			"With Accept: text/csv the answer is one table of all rows, without pages. A request that is bound to a project sees that project's.",
		Errors: []string{slugPage}, Endpoint: Endpoint{
			in: reflect.TypeFor[usageIn](), out: reflect.TypeFor[UsageList](), status: http.StatusOK, media: jsonType, run: a.runUsage,
		},
	}}
}

// UsageList is a page of sums.
type UsageList struct {
	Data     []UsageSum `json:"data"`
	NextPage *string    `json:"next_page"`
	From     Time       `json:"from" doc:"Included."`
	To       Time       `json:"to" doc:"Not included."`
	TimeZone string     `json:"time_zone"`
}

// UsageSum is what was spent on one combination in one unit of time. A part is null where it was not asked for, or does not apply: a tool's
// call has no model.
type UsageSum struct {
	Type      string      `json:"type" const:"usage"`
	StartsAt  *Time       `json:"starts_at" doc:"The beginning of the hour or day; null without bucket."`
	ProjectID *string     `json:"project_id"`
	AgentID   *string     `json:"agent_id" doc:"null too for an agent that was written into its invoke."`
	Model     *string     `json:"model"`
	Tool      *string     `json:"tool" doc:"The name of what was not a model call."`
	KeyID     *string     `json:"key_id" doc:"The key on whose behalf it was spent."`
	UserID    *string     `json:"user_id" doc:"The member on whose behalf it was spent, by the person's id."`
	Spent     money.Nanos `json:"spent"`
	Effects   int64       `json:"effects" doc:"How many ledger entries make it up."`
}

type usageIn struct {
	LongPaging
	projectFilter
	CreatedAt TimeRange `query:"created_at" doc:"created_at[gt], [gte], [lt], [lte]: at most 400 days, and 32 by the hour."`
	Bucket    string    `query:"bucket" enum:"hour,day,none" default:"day"`
	GroupBy   []string  `query:"group_by[]" enum:"project,agent,model,tool,key,member" maxitems:"6"`
	AgentID   id.Agent  `query:"agent_id"`
	Model     string    `query:"model" maxlen:"200"`
	Tool      string    `query:"tool" maxlen:"200"`
	KeyID     id.Key    `query:"key_id"`
	UserID    id.User   `query:"user_id" doc:"A member, by the person's id."`
}

// maxTableRows bounds a table that is answered in one piece.
const maxTableRows = 100_000

func (a *API) runUsage(c *call) error {
	var in usageIn
	if err := c.bind(&in); err != nil {
		return err
	}
	csv := wantsCSV(c.r.Header.Values("Accept"))
	var out UsageList
	var table []byte
	err := c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		q, zone, err := a.usageQuery(ctx, tx, &in)
		if err != nil {
			return err
		}
		if csv {
			table, err = usageTable(ctx, tx, c.who.Org, zone, q)
			return err
		}
		rows, err := billing.Usage(ctx, tx, c.who.Org, zone, q)
		if err != nil {
			return err
		}
		page := pageOf(in.place, rows, usagePosition, func(r billing.UsageRow) UsageSum { return sumFrom(r, q.Bucket) })
		out = UsageList{Data: page.Data, NextPage: page.NextPage, From: Time(q.Since), To: Time(q.Until), TimeZone: zone.String()}
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Vary", "Accept")
	if !csv {
		return c.answer(http.StatusOK, out)
	}
	h := c.w.Header()
	h.Set("Content-Type", csvType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", `attachment; filename="usage.csv"`)
	h.Set("Content-Length", strconv.Itoa(len(table)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(table) // the reader is gone; nothing was changed
	return nil
}

// usageQuery fills in what the request left out.
func (a *API) usageQuery(ctx context.Context, tx pgx.Tx, in *usageIn) (q billing.UsageQuery, zone *time.Location, err error) {
	if zone, err = billing.Zone(ctx, tx, principal.From(ctx).Org); err != nil {
		return q, nil, err
	}
	q = billing.UsageQuery{By: in.GroupBy, Agent: in.AgentID, Model: in.Model, Tool: in.Tool, Key: in.KeyID, Member: string(in.UserID), Limit: in.place.fetch()}
	if in.Bucket != "none" {
		q.Bucket = in.Bucket
	}
	if q.Project, err = in.project(ctx); err != nil {
		return q, nil, err
	}
	since, until := in.CreatedAt.halfOpen()
	today := billing.DayOf(a.cfg.Clock.Now(), zone)
	q.Until = today.AddDate(0, 0, 1)
	if until != nil {
		q.Until = *until
	}
	q.Since = q.Until.In(zone).AddDate(0, 0, -31)
	if since != nil {
		q.Since = *since
	}
	if in.place.position == "" {
		return q, zone, nil
	}
	q.After = &billing.UsageRow{}
	if err := json.Unmarshal([]byte(in.place.position), q.After); err != nil {
		return q, nil, invalidPosition()
	}
	return q, zone, nil
}

func usagePosition(r billing.UsageRow) string {
	raw, _ := json.Marshal(r) // text and a time can't fail
	return string(raw)
}

func sumFrom(r billing.UsageRow, bucket string) UsageSum {
	out := UsageSum{
		Type: "usage", ProjectID: idPtr(r.Project), AgentID: idPtr(r.Agent), Model: idPtr(r.Model), Tool: idPtr(r.Tool), KeyID: idPtr(r.Key), UserID: idPtr(r.Member),
		Spent: r.Spent, Effects: r.Effects,
	}
	if bucket != "" {
		out.StartsAt = timePtr(&r.StartsAt)
	}
	return out
}

// usageTable is all rows as one CSV: ids with their names, amounts exact in dollars.
func usageTable(ctx context.Context, tx pgx.Tx, org id.Org, zone *time.Location, q billing.UsageQuery) ([]byte, error) {
	q.Limit, q.After = maxTableRows+1, nil
	rows, err := billing.Usage(ctx, tx, org, zone, q)
	if err != nil {
		return nil, err
	}
	if len(rows) > maxTableRows {
		return nil, fault.InvalidField("query/group_by[]", "out_of_range", "This is more than "+strconv.Itoa(maxTableRows)+" rows. Ask for a shorter range or fewer groups.")
	}
	names, err := billing.UsageNames(ctx, tx, org, rows)
	if err != nil {
		return nil, err
	}
	return billing.UsageCSV(rows, q.Bucket, q.By, zone, names), nil
}

// wantsCSV reads Accept: CSV where it is preferred to JSON.
func wantsCSV(accept []string) bool {
	best, csv := -1.0, false
	for one := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(one))
		if err != nil || !slices.Contains([]string{"text/csv", "text/*", jsonType, "*/*", "application/*"}, media) {
			continue
		}
		weight := 1.0
		if given, ok := params["q"]; ok {
			if weight, err = strconv.ParseFloat(given, 64); err != nil {
				continue
			}
		}
		if weight > best {
			best, csv = weight, media == "text/csv" || media == "text/*"
		}
	}
	return csv && best > 0
}
