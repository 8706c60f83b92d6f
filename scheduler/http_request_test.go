package scheduler_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants/identity"
)

// TestASessionActsOutsideUnderItsEffectKey: a whole session, whose one tool leaves the platform.
func TestASessionActsOutsideUnderItsEffectKey(t *testing.T) {
	w := newWorld(t, money.Dollar)
	var mu sync.Mutex
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		mu.Unlock()
		_, _ = io.WriteString(rw, "done by the other side")
	}))
	t.Cleanup(server.Close)
	tools, err := builtin.Registry(builtin.HTTPRequest(builtin.Outside{Client: egress.New(egress.Config{AllowLoopback: true}), Reach: w.sessions.Reach}))
	require.NoError(t, err)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: w.db, Gate: w.gate, Models: w.models, Tools: tools, Listener: w.listener, Previews: w.previews, Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
		Owner: "test/outside", LeaseTTL: 2 * time.Second,
	})
	worker, err := scheduler.NewWorker(w.db, runner, 4, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, worker.Stop(ctx, 5*time.Second))
	})

	run := func(allowed ...string) []journal.Event {
		script := "```tool name=http_request\n{\"method\":\"POST\",\"url\":\"" + server.URL + "/x\"}\n```\n"
		var in scheduler.Invoked
		ctx := w.ctx(t)
		require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
			in, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{Project: w.project, Input: journal.Text(script), Inline: &journal.Definition{
				Model: "ambit/scripted", Tools: []string{"http_request"}, Network: journal.Network{AllowedHosts: allowed},
			}})
			return err
		}))
		require.Equal(t, journal.StopEndTurn, w.settled(t, in).StopReason.Type)
		return w.events(t, in.Session.ID)
	}
	find := func(events []journal.Event, kind string, has string) journal.Event {
		for _, e := range events {
			if e.Type == kind && strings.Contains(string(e.Payload), has) {
				return e
			}
		}
		t.Fatalf("there is no %s with %s in %v", kind, has, types(events))
		return journal.Event{}
	}

	events := run(strings.TrimPrefix(server.URL, "http://"))
	require.Contains(t, string(find(events, "agent.tool_result", "").Payload), "done by the other side")
	intended, err := journal.Decode[journal.StepIntended](find(events, "step.intended", "http_request"))
	require.NoError(t, err)
	require.Equal(t, []string{intended.EffectKey}, keys)
	settled, err := journal.Decode[journal.StepSettled](find(events, "step.settled", "http_request"))
	require.NoError(t, err)
	require.Equal(t, money.Nanos(10_000), settled.Cost, "the price of the table")

	events = run("api.example.com")
	require.Contains(t, string(find(events, "agent.tool_result", "").Payload), "It may reach: api.example.com")
	events = run()
	require.Contains(t, string(find(events, "agent.tool_result", "").Payload), "It may reach none.")
	require.Len(t, keys, 1)
}

// TestTheOtherSideVerifiesWhoCalls: a whole session calls a real server, which fetches the agent's published keys and checks the token.
func TestTheOtherSideVerifiesWhoCalls(t *testing.T) {
	w := newWorld(t, money.Dollar)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	known := identity.Deps{Clock: clock.System(), Logger: log, Sealer: sealer}
	ring := identity.New(w.db, known)
	var published http.Handler
	platform := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { published.ServeHTTP(rw, r) }))
	t.Cleanup(platform.Close)
	keys, err := identity.NewAgentKeys(w.db, known, platform.URL)
	require.NoError(t, err)
	published = keys.Handler(ring)

	var of identity.Subject
	var claims identity.TokenClaims
	var refused error
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, refused = func() (identity.TokenClaims, error) {
			res, err := http.Get(keys.JWKSURL(of))
			if err != nil {
				return identity.TokenClaims{}, err
			}
			defer res.Body.Close() //nolint:errcheck // read
			var set jose.JSONWebKeySet
			if err := json.NewDecoder(res.Body).Decode(&set); err != nil {
				return identity.TokenClaims{}, err
			}
			return identity.VerifyToken(token, set, keys.DID(of), server.URL, time.Now())
		}()
		_, _ = io.WriteString(rw, "hello "+token)
	}))
	t.Cleanup(server.Close)
	service := scheduler.NewService(scheduler.Deps{DB: w.db, Gate: w.gate, Listener: w.listener, Previews: w.previews, Tokens: keys, Clock: clock.System(), Log: log})
	t.Cleanup(service.Stop)
	tools, err := builtin.Registry(builtin.HTTPRequest(builtin.Outside{
		Client: egress.New(egress.Config{AllowLoopback: true}), Reach: service.Reach, Identify: service.Identify, PlainIdentity: true,
	}))
	require.NoError(t, err)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: w.db, Gate: w.gate, Models: w.models, Tools: tools, Listener: w.listener, Previews: w.previews, Clock: clock.System(), Log: log,
		Owner: "test/identity", LeaseTTL: 2 * time.Second,
	})
	worker, err := scheduler.NewWorker(w.db, runner, 4, log)
	require.NoError(t, err)
	ctx := w.ctx(t)
	var in scheduler.Invoked
	host := strings.TrimPrefix(server.URL, "http://")
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		in, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{Project: w.project, Input: journal.Text("```tool name=http_request\n{\"url\":\"" + server.URL + "/x\"}\n```\n"), Inline: &journal.Definition{
			Model: "ambit/scripted", Tools: []string{"http_request"}, Network: journal.Network{AllowedHosts: []string{host}, IdentityHosts: []string{host}},
		}})
		return err
	}))
	of = identity.OfSession(in.Session.ID) // an agent without an id of its own: the session signs
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, worker.Stop(ctx, 5*time.Second))
	})
	require.Equal(t, journal.StopEndTurn, w.settled(t, in).StopReason.Type)
	require.NoError(t, refused)
	require.Equal(t, keys.DID(identity.OfOrganization(w.org)), claims.Subject)
	require.Equal(t, keys.DID(of), claims.Actor.Subject)
	require.Equal(t, in.Session.By.ID, claims.Actor.Actor.Subject)
	require.Equal(t, string(in.Session.ID), claims.Session)
	for _, e := range w.events(t, in.Session.ID) {
		require.NotContains(t, string(e.Payload), "hello ey", "the token is in no journal")
		if e.Type == "step.intended" && strings.Contains(string(e.Payload), "http_request") {
			intended, err := journal.Decode[journal.StepIntended](e)
			require.NoError(t, err)
			require.Equal(t, intended.EffectKey, claims.EffectKey, "and names the very effect")
		}
	}
}

// TestWhatAnAdmittedRequestMayReach: the hosts are the session's, and a step of an earlier epoch may have been sent before.
func TestWhatAnAdmittedRequestMayReach(t *testing.T) {
	w := newWorld(t, money.Dollar)
	var in scheduler.Invoked
	ctx := w.ctx(t)
	step := id.New[id.Step]()
	var epoch int64
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		in, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{Project: w.project, Input: journal.Text("x"), Inline: &journal.Definition{
			Model: "ambit/scripted", Network: journal.Network{AllowedHosts: []string{"api.example.com"}},
		}})
		if err != nil {
			return err
		}
		l, err := journal.Lock(ctx, tx, w.org, in.Session.ID)
		if err != nil {
			return err
		}
		epoch = l.Epoch
		_, err = l.Append(ctx, clock.System().Now(), journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindToolCall, Name: "http_request", EffectKey: string(step)}})
		return err
	}))
	grant := gate.Grant{Org: w.org, Session: in.Session.ID, Step: step, EffectKey: string(step), Epoch: epoch}
	reach, err := w.sessions.Reach(t.Context(), grant)
	require.NoError(t, err)
	require.Equal(t, "api.example.com", reach.Hosts.String())
	require.False(t, reach.Repeated)
	grant.Epoch++
	reach, err = w.sessions.Reach(t.Context(), grant)
	require.NoError(t, err)
	require.True(t, reach.Repeated)
	grant.Step = id.New[id.Step]()
	_, err = w.sessions.Reach(t.Context(), grant)
	require.Error(t, err, "a step that is not there")
	grant.Org = id.New[id.Org]()
	_, err = w.sessions.Reach(t.Context(), grant)
	require.Error(t, err, "another organisation's session")
}
