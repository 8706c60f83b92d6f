package scheduler_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/scheduler"
)

func TestPreviewsReachAnotherReplica(t *testing.T) {
	here := scheduler.NewPreviews("http://worker", nil)
	server := httptest.NewServer(here.PreviewsHandler("secret"))
	defer server.Close()
	session := id.New[id.Session]()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan scheduler.Preview, 8)
	read := make(chan error, 1)
	go func() {
		read <- scheduler.FetchPreviews(http.DefaultClient, "secret")(ctx, server.URL, session, func(p scheduler.Preview) { got <- p })
	}()
	require.Eventually(t, func() bool { return here.Watched(session) }, 5*time.Second, time.Millisecond)
	want := scheduler.Preview{Event: id.New[id.Event](), Type: "agent.message", Delta: "Hel"}
	here.Publish(session, want)
	require.Equal(t, want, <-got)

	cancel()
	<-read //nolint:errcheck // it was cancelled: how it ended does not matter
	require.Eventually(t, func() bool { return !here.Watched(session) }, 5*time.Second, time.Millisecond, "a reader that leaves is forgotten")

	err := scheduler.FetchPreviews(http.DefaultClient, "guess")(t.Context(), server.URL, session, func(scheduler.Preview) {})
	require.ErrorContains(t, err, "401")
}
