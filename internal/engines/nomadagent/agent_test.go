package nomadagent

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
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

	p, err := Prepare(t.Context(), set.Nomad, dir, env)
	require.NoError(t, err)
	firstToken := p.Token()
	run(t, p, func() {
		require.Error(t, NodeReady(t.Context(), p.URL(), ""), "not without the token")
		var refused *statusError
		err := call(t.Context(), http.MethodGet, p.URL(), "/v1/jobs", "", nil, nil)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, http.StatusForbidden, refused.status)
		version, err := Version(t.Context(), p.URL(), p.Token())
		require.NoError(t, err)
		require.NotEmpty(t, version)
	})

	again, err := Prepare(t.Context(), set.Nomad, dir, env)
	require.NoError(t, err)
	require.Equal(t, p.URL(), again.URL(), "the ports are kept")
	require.Equal(t, firstToken, again.Token())
	for range 4 { // a race, if there is one, shows after some
		run(t, again, func() {})
	}

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

// run starts the pair, waits until it can take work, and stops it.
func run(t *testing.T, p *Pair, check func()) {
	t.Helper()
	began := time.Now()
	stopServer := start(t, p.ServerCommand(), p.ServerReady)
	stopClient := start(t, p.ClientCommand(), p.ClientReady)
	t.Log("ready after", time.Since(began))
	check()
	stopClient()
	stopServer()
}

func start(t *testing.T, cmd *exec.Cmd, ready func(context.Context) error) (stop func()) {
	t.Helper()
	child, err := processes.Launch(cmd, syscall.SIGKILL)
	require.NoError(t, err)
	// Less than the time after which a refused client asks again.
	require.Eventually(t, func() bool { return ready(t.Context()) == nil }, 12*time.Second, 50*time.Millisecond)
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, child.Stop(ctx, StopSignal))
	}
}
