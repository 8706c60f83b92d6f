package nomadagent

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/processes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAgentIsReadySoonAndAsksForItsToken(t *testing.T) {
	set, err := engines.Require(t.Context(), engines.Nomad)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "nomadagent")
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, processes.UnmountBelow(dir))
		require.NoError(t, os.RemoveAll(dir))
	})
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

	a, err := Prepare(t.Context(), set.Nomad, dir, env)
	require.NoError(t, err)
	firstToken := a.Token()
	run(t, a, func() {
		require.Error(t, NodeReady(t.Context(), a.URL(), ""), "not without the token")
		var refused *statusError
		err := call(t.Context(), http.MethodGet, a.URL(), "/v1/jobs", "", nil, nil)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, http.StatusForbidden, refused.status)
		version, err := Version(t.Context(), a.URL(), a.Token())
		require.NoError(t, err)
		require.NotEmpty(t, version)
	})

	again, err := Prepare(t.Context(), set.Nomad, dir, env)
	require.NoError(t, err)
	require.Equal(t, a.URL(), again.URL(), "the ports are kept")
	require.Equal(t, firstToken, again.Token())
	run(t, again, func() {})

	// Another program takes a port: the agent is made anew elsewhere.
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(again.ports.RPC))) //nolint:noctx // closed below
	require.NoError(t, err)
	defer l.Close()
	moved, err := Prepare(t.Context(), set.Nomad, dir, env)
	require.NoError(t, err)
	require.NotEqual(t, again.URL(), moved.URL())
	run(t, moved, func() {})
	st, err := os.Stat(filepath.Join(dir, "token"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
}

// run starts the agent, waits until it can take work, and stops it.
func run(t *testing.T, a *Agent, check func()) {
	t.Helper()
	child, err := processes.Launch(a.Command(), syscall.SIGKILL)
	require.NoError(t, err)
	began := time.Now()
	require.Eventually(t, func() bool { return a.Ready(t.Context()) == nil }, 30*time.Second, 50*time.Millisecond)
	t.Log("ready after", time.Since(began))
	check()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, child.Stop(ctx, StopSignal))
}
