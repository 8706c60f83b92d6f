package faults

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

// TestRolesRunApart: the API and the console as processes of their own, beside the worker of the instance. What a model says as it says it
// comes from the worker's process.
func TestRolesRunApart(t *testing.T) {
	p := provider.New(t)
	i := instance.Start(t, p.Environment(t)...)
	a := i.Account("roles")
	apiURL, consoleURL := i.Serve("api"), i.Serve("console")

	get := func(url string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+a.Key)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close() //nolint:errcheck // only its status is wanted
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, get(apiURL+"/v1/me"))
	require.Equal(t, http.StatusNotFound, get(consoleURL+"/v1/me"), "a console serves no API")
	require.Equal(t, http.StatusOK, get(consoleURL+"/sign-in"))
	require.Equal(t, http.StatusNotFound, get(apiURL+"/sign-in"), "an API serves no console")
	require.Equal(t, http.StatusOK, get(apiURL+"/.well-known/jwks.json"))

	hold, before := make(chan struct{}), len(p.Keys())
	p.Set(hold, nil)
	id := invoke(t, a, "openai/parrot", "Say hello.")
	p.WaitForCall(t, before)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL+"/v1/sessions/"+id+"/events/stream?after_seq=0&until=idle&event_deltas[]=agent.message", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+a.Key)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	require.Equal(t, http.StatusOK, resp.StatusCode)
	lines := bufio.NewScanner(resp.Body)
	var deltas, events int
	released := false
	for lines.Scan() {
		switch kind, _ := strings.CutPrefix(lines.Text(), "event: "); kind {
		case "event_delta":
			deltas++
		case "step.intended":
			// The stream is up. What the model says from now on is passed from process to process; a moment is given for the connection,
			// which nothing announces.
			if !released {
				released = true
				time.AfterFunc(time.Second, func() { close(hold) })
			}
			events++
		case "agent.message", "session.status_idle":
			events++
		}
	}
	require.Equal(t, 3, events)
	require.Positive(t, deltas, "no preview came through from the worker's process")
}
