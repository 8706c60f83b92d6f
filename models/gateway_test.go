package models_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/models"
)

// provider is one that says what it is told to.
type provider struct {
	name  string
	list  []models.Model
	err   error
	asked int
	calls int
}

func (p *provider) Name() string { return p.name }

func (p *provider) Models(context.Context) ([]models.Model, error) {
	p.asked++
	return p.list, p.err
}

func (p *provider) Generate(context.Context, models.Call, func(models.Event)) (models.Response, error) {
	p.calls++
	return models.Response{StopReason: models.EndTurn}, nil
}

func gateway(t *testing.T, c clock.Clock, log *strings.Builder, providers ...models.Provider) *models.Gateway {
	t.Helper()
	g, err := models.New(models.Config{Providers: providers, Clock: c, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	return g
}

func TestGatewayListsAndRemembers(t *testing.T) {
	ctx, hands, log := context.Background(), clock.NewOffset(0), &strings.Builder{}
	local := &provider{name: "local", list: []models.Model{{ID: "local/meta/llama:8b"}, {ID: "local/a"}}}
	g := gateway(t, hands, log, &provider{name: "ambit", list: []models.Model{{ID: "ambit/scripted"}}}, local)

	ids := func() (out []string) {
		for _, m := range g.Models(ctx) {
			out = append(out, m.ID)
		}
		return out
	}
	require.Equal(t, []string{"ambit/scripted", "local/a", "local/meta/llama:8b"}, ids())
	ids()
	require.Equal(t, 1, local.asked, "the list is kept for a while")
	require.True(t, g.Knows(ctx, "local/meta/llama:8b"))

	// A provider that can't be asked keeps its models, and is not asked at every turn.
	local.list, local.err = nil, errors.New("connection refused")
	hands.Advance(6 * time.Minute)
	require.Len(t, ids(), 3)
	ids()
	require.Equal(t, 2, local.asked)
	hands.Advance(time.Minute)
	ids()
	require.Equal(t, 3, local.asked)
	require.Equal(t, 1, strings.Count(log.String(), "can't be asked"), "it is said once")

	// A model that is new is found without waiting for the list to grow old, but not by asking without end.
	local.list, local.err = []models.Model{{ID: "local/new"}}, nil
	hands.Advance(time.Minute)
	require.True(t, g.Knows(ctx, "local/new"))
	asked := local.asked
	for range 10 {
		require.False(t, g.Knows(ctx, "local/nothing"))
	}
	require.LessOrEqual(t, local.asked-asked, 1)
	hands.Advance(11 * time.Second)
	local.list = append(local.list, models.Model{ID: "local/newer"})
	require.True(t, g.Knows(ctx, "local/newer"))
}

func TestGatewayRefusesStrangeNames(t *testing.T) {
	for _, names := range [][]string{{"a", "a"}, {""}, {"a/b"}} {
		var ps []models.Provider
		for _, n := range names {
			ps = append(ps, &provider{name: n})
		}
		_, err := models.New(models.Config{Providers: ps, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
		require.Error(t, err)
	}
}

// Without an admission that the gate armed for this very request, no provider is reached.
func TestGenerateNeedsAnAdmission(t *testing.T) {
	p := &provider{name: "ambit"}
	g := gateway(t, clock.System(), &strings.Builder{}, p)
	for _, adm := range []*gate.Admission{nil, {}} {
		_, err := g.Generate(context.Background(), adm, good(), nil)
		require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)
	}
	bad := good()
	bad.MaxTokens = 0
	_, err := g.Generate(context.Background(), nil, bad, nil)
	require.True(t, fault.IsCode(err, "invalid_request"))
	unknown := good()
	unknown.Model = "nobody/x"
	_, err = g.Generate(context.Background(), nil, unknown, nil)
	require.Equal(t, "unknown_model", fault.As(err).Fields[0].Code)
	require.Zero(t, p.calls)
}

func TestPricedCoversWhatIsUsed(t *testing.T) {
	r := good()
	q := models.Priced(r)
	require.Len(t, q, 1)
	require.Equal(t, r.Model, q[0].Ref)
	require.Equal(t, models.InputBound(r), q[0].Quantities["input_token"])
	require.Equal(t, r.MaxTokens, q[0].Quantities["output_token"])
	u := models.Usage{Input: 1, CacheRead: 2, CacheWrite: 3, Output: 4, Reasoning: 5}
	require.EqualValues(t, 15, u.Total())
	require.EqualValues(t, 9, u.Journal().OutputTokens, "the journal's output includes reasoning")
	require.Equal(t, u.Total(), u.Journal().Tokens())
}

func TestErrorsBecomeFaults(t *testing.T) {
	for kind, want := range map[models.ErrorKind]struct {
		kind fault.Kind
		code string
	}{
		models.Timeout: {fault.GatewayTimeout, "provider_timeout"}, models.BadRequest: {fault.Unprocessable, "provider_failed"},
		models.Overloaded: {fault.BadGateway, "provider_failed"},
	} {
		e := models.NewError(kind, "why", nil)
		f := e.Fault()
		require.Equal(t, want.kind, f.Kind)
		require.Equal(t, want.code, f.Code)
		d := e.Detail()
		require.Equal(t, want.code, d.Code)
		require.Equal(t, string(kind), d.Details["kind"])
		require.Equal(t, e.Retryable, d.Details["retryable"])
	}
}
