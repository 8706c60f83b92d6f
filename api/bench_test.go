package api_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

// BenchmarkAddedLatency measures what the API adds to the work itself: an invoke (async) and a read of a session over HTTP, with the key,
// the quota, the checks and the answer, beside the same call of the domain in its own transaction, in turns within the same run.
func BenchmarkAddedLatency(b *testing.B) {
	r := newRig(b)
	tn := r.newTenant("Bench")
	ctx := principal.With(context.Background(), principal.Principal{Kind: principal.Key, ID: string(tn.keyID), Org: tn.org, Project: tn.project, Scopes: []string{"*"}})
	sessions := scheduler.NewService(scheduler.Deps{DB: r.db, Agents: agents.New(agents.Catalogue{KnowsModel: func(string) bool { return true }, KnowsTool: func(string) bool { return true }}, r.clock), Gate: r.gate, Listener: r.listener, Previews: r.previews, Clock: r.clock, Log: r.logger})
	var last scheduler.Invoked
	direct := func() {
		require.NoError(b, r.db.InTx(ctx, tn.org, func(tx pgx.Tx) (err error) {
			last, err = sessions.Invoke(ctx, tx, tn.org, scheduler.InvokeInput{Project: tn.project, Inline: &journal.Definition{Model: "ambit/scripted"}, Input: journal.Text("hello")})
			return err
		}))
	}
	direct()
	call := func(method, path, body string) {
		req, err := http.NewRequestWithContext(ctx, method, r.server.URL+path, strings.NewReader(body))
		require.NoError(b, err)
		req.Header.Set("Authorization", "Bearer "+tn.key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(b, err)
		require.NoError(b, resp.Body.Close())
		require.Less(b, resp.StatusCode, 300)
	}
	for _, c := range []struct {
		name         string
		over, direct func()
	}{
		{"invoke", func() {
			call(http.MethodPost, "/v1/invoke", `{"agent":{"model":"ambit/scripted"},"input":"hello","mode":"async"}`)
		}, direct},
		{
			"read", func() { call(http.MethodGet, "/v1/sessions/"+string(last.Session.ID), "") },
			func() {
				_, err := sessions.Get(ctx, tn.org, last.Session.ID)
				require.NoError(b, err)
			},
		},
	} {
		b.Run(c.name, func(b *testing.B) {
			var over, floor []time.Duration
			for range b.N {
				over, floor = append(over, timed(c.over)), append(floor, timed(c.direct))
			}
			slices.Sort(over)
			slices.Sort(floor)
			p50 := func(d []time.Duration) float64 { return float64(d[len(d)/2].Microseconds()) }
			b.ReportMetric(p50(over), "p50-µs")
			b.ReportMetric(p50(floor), "floor-p50-µs")
			b.ReportMetric(p50(over)-p50(floor), "added-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(fn func()) time.Duration {
	began := time.Now()
	fn()
	return time.Since(began)
}
