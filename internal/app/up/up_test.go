package up

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/processes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ambit-up-test-")
	if err != nil {
		return "", err
	}
	// As it is shipped: the ClickHouse library can't be loaded into a binary
	// with the race detector.
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "ambit"), "./testdata/ambit") //nolint:noctx // a build
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(dir, "ambit"), nil
})

// rig is one ambit up as a process of its own.
type rig struct {
	t      *testing.T
	binary string
	cfg    config.Config
	env    []string

	cmd  *exec.Cmd
	done chan error
	out  *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	_, err := engines.Require(t.Context(), engines.ForRunning()...)
	require.NoError(t, err)
	binary, err := built()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "ambit-up-") // Postgres's account must be able to enter it
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711)) //nolint:gosec // see above
	vars := map[string]string{"AMBIT_DATA_DIR": dir, "AMBIT_LISTEN": freeAddress(t), "AMBIT_NODE_LISTEN": freeAddress(t)}
	cfg, err := config.LoadFrom(vars)
	require.NoError(t, err)
	r := &rig{t: t, binary: binary, cfg: cfg, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}}
	for k, v := range vars {
		r.env = append(r.env, k+"="+v)
	}
	t.Cleanup(func() {
		if r.cmd != nil {
			_ = r.cmd.Process.Kill()
			t.Log("ambit up was killed: ", <-r.done)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := processes.Sweep(ctx, Marker(dir), 0)
		require.NoError(t, err)
		require.NoError(t, processes.UnmountBelow(dir))
		require.NoError(t, os.RemoveAll(dir))
		if t.Failed() && r.out != nil {
			t.Logf("ambit up said:\n%s", r.out)
		}
	})
	return r
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (r *rig) start(args ...string) {
	r.t.Helper()
	r.out = &buffer{}
	r.cmd = exec.Command(r.binary, append([]string{"up"}, args...)...) //nolint:noctx // stopped below
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = r.env, r.out, r.out
	require.NoError(r.t, r.cmd.Start())
	r.done = make(chan error, 1)
	go func(c *exec.Cmd, done chan error) { done <- c.Wait() }(r.cmd, r.done)
}

func (r *rig) waitFor(text string) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for !strings.Contains(r.out.String(), text) {
		select {
		case err := <-r.done:
			r.done <- err
			require.FailNow(r.t, "it has ended", "without saying %q: %v", text, err)
		case <-deadline:
			require.FailNow(r.t, "it does not say "+text)
		case <-tick.C:
		}
	}
}

// end sends a signal and returns how long the end took.
func (r *rig) end(sig syscall.Signal) (time.Duration, error) {
	r.t.Helper()
	began := time.Now()
	require.NoError(r.t, r.cmd.Process.Signal(sig))
	var err error
	select {
	case err = <-r.done:
	case <-time.After(30 * time.Second):
		r.t.Fatal("it does not end")
	}
	r.cmd = nil
	return time.Since(began), err
}

func (r *rig) pid(name string) int {
	b, err := os.ReadFile(filepath.Join(r.cfg.DataDir, "run", name+".pid"))
	if err != nil {
		return 0
	}
	var id struct{ PID int }
	if json.Unmarshal(b, &id) != nil || syscall.Kill(id.PID, 0) != nil {
		return 0
	}
	return id.PID
}

func (r *rig) query(sql string) string {
	r.t.Helper()
	cfg, running := Running(r.cfg)
	require.True(r.t, running)
	var out string
	require.Eventually(r.t, func() bool {
		conn, err := pgx.Connect(r.t.Context(), cfg.PostgresURL.Reveal())
		if err != nil {
			return false
		}
		defer conn.Close(context.Background())
		return conn.QueryRow(r.t.Context(), sql).Scan(&out) == nil
	}, 20*time.Second, 50*time.Millisecond, sql)
	return out
}

func (r *rig) keepSomething() {
	r.t.Helper()
	cfg, _ := Running(r.cfg)
	conn, err := pgx.Connect(r.t.Context(), cfg.PostgresURL.Reveal())
	require.NoError(r.t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(r.t.Context(), "CREATE TABLE kept AS SELECT 'before'::text AS v")
	require.NoError(r.t, err)
}

func (r *rig) nothingIsLeft() {
	r.t.Helper()
	left, err := processes.FindMarked(Marker(r.cfg.DataDir))
	require.NoError(r.t, err)
	require.Empty(r.t, left)
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(r.t, err)
	require.NotContains(r.t, string(mounts), r.cfg.DataDir)
}

// job runs a task under Nomad that has left its process group and emptied its
// environment, as a sandbox's machine may.
func (r *rig) job() {
	r.t.Helper()
	cfg, _ := Running(r.cfg)
	body := `{"Job":{"ID":"t","Name":"t","Type":"service","Datacenters":["*"],"TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"raw_exec",
		"Config":{"command":"/bin/sh","args":["-c","setsid env -i sleep 1000 & touch ` + r.cfg.DataDir + `/task; exec sleep 1000"]},"Resources":{"CPU":20,"MemoryMB":20}}]}]}}`
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPut, cfg.NomadAddr.Reveal()+"/v1/jobs", strings.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("X-Nomad-Token", cfg.NomadToken.Reveal())
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	require.Equal(r.t, http.StatusOK, resp.StatusCode)
	require.Eventually(r.t, func() bool {
		_, err := os.Stat(filepath.Join(r.cfg.DataDir, "task"))
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "the task runs")
}

func TestUpStartsMendsAndStopsEverything(t *testing.T) {
	r := newRig(t)
	r.start()
	r.waitFor("THE DEMONSTRATION")
	r.keepSomething()
	r.job()

	// A second one on the same data is refused, and says whom to stop.
	second := exec.Command(r.binary, "up") //nolint:noctx // it ends at once
	second.Env = r.env
	said, err := second.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), fmt.Sprintf("another ambit up (process %d) runs on %s", r.cmd.Process.Pid, r.cfg.DataDir))

	for _, name := range []string{clickhouseName, postgresName, nomadName, nomadClientName, serverName} {
		was := r.pid(name)
		require.NotZero(t, was, name)
		require.NoError(t, syscall.Kill(was, syscall.SIGKILL))
		r.waitFor(name + " was killed (signal: killed); restarting")
		r.waitFor(name + " runs again")
		require.NotEqual(t, was, r.pid(name), name)
	}
	require.Equal(t, "1", r.query("SELECT count(*)::text FROM kept"), "what was committed is there after the kill")

	took, err := r.end(syscall.SIGINT)
	require.NoError(t, err, r.out)
	require.Less(t, took, stopDeadline)
	t.Log("the stop took", took)
	r.nothingIsLeft()
	state, err := os.ReadFile(filepath.Join(r.cfg.DataDir, "drained"))
	require.NoError(t, err)
	require.Contains(t, string(state), "drained", "the server was asked first")

	began := time.Now()
	r.start()
	r.waitFor("Ctrl-C")
	t.Log("the second start took", time.Since(began))
	require.NotContains(t, r.out.String(), "THE DEMONSTRATION", "only on the first start")
	require.Equal(t, "1", r.query("SELECT count(*)::text FROM kept"))
	_, err = r.end(syscall.SIGTERM)
	require.NoError(t, err, r.out)
	r.nothingIsLeft()
}

func TestWhatAKilledUpLeavesIsClearedByTheNext(t *testing.T) {
	r := newRig(t)
	r.start("--engines-only")
	r.waitFor("export AMBIT_POSTGRES_URL=")
	r.keepSomething()
	r.job()
	_, err := r.end(syscall.SIGKILL)
	require.Error(t, err)
	_, running := Running(r.cfg)
	require.False(t, running)
	left, err := processes.FindMarked(Marker(r.cfg.DataDir))
	require.NoError(t, err)
	require.NotEmpty(t, left, "Nomad's task outlives everything")

	r.start("--engines-only")
	r.waitFor("export AMBIT_POSTGRES_URL=")
	require.Contains(t, r.out.String(), "an earlier run was killed and had left processes")
	require.Equal(t, "1", r.query("SELECT count(*)::text FROM kept"))
	_, err = r.end(syscall.SIGINT)
	require.NoError(t, err, r.out)
	r.nothingIsLeft()
}

func TestATakenAddressIsToldBeforeAnythingStarts(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", r.cfg.Listen) //nolint:noctx // closed below
	require.NoError(t, err)
	defer l.Close()
	r.start()
	err = <-r.done
	r.cmd = nil
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, r.out.String(), "AMBIT_LISTEN is "+r.cfg.Listen)
	require.NoDirExists(t, filepath.Join(r.cfg.DataDir, "postgres"))
}

func TestAnInterruptDuringTheStartStopsWhatWasStarted(t *testing.T) {
	r := newRig(t)
	r.start()
	r.waitFor("postgres is ready")
	_, err := r.end(syscall.SIGINT)
	require.NoError(t, err, r.out)
	r.nothingIsLeft()
}

func TestTwoSignalsAtOnceAreOneWish(t *testing.T) {
	r := newRig(t)
	r.start("--engines-only")
	r.waitFor("export AMBIT_POSTGRES_URL=")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	_, err := r.end(syscall.SIGTERM)
	require.NoError(t, err, r.out)
	require.NotContains(t, r.out.String(), "asked again")
	r.nothingIsLeft()
}

func TestOutsideEnginesAreUsed(t *testing.T) {
	r := newRig(t)
	r.start("--engines-only")
	r.waitFor("export AMBIT_POSTGRES_URL=")
	engines, running := Running(r.cfg)
	require.True(t, running)

	other := newRig(t)
	for name, value := range map[string]string{
		"AMBIT_POSTGRES_URL": engines.PostgresURL.Reveal(), "AMBIT_CLICKHOUSE_URL": engines.ClickHouseURL.Reveal(),
		"AMBIT_NOMAD_ADDR": engines.NomadAddr.Reveal(), "AMBIT_NOMAD_TOKEN": engines.NomadToken.Reveal(),
	} {
		other.env = append(other.env, name+"="+value)
	}
	other.start("--no-demonstration")
	other.waitFor("Ctrl-C")
	require.Contains(t, other.out.String(), "using the outside Postgres")
	require.NotContains(t, other.out.String(), "postgres is ready")
	for _, secret := range []string{engines.NomadToken.Reveal(), strings.Split(strings.TrimPrefix(engines.PostgresURL.Reveal(), "postgres://postgres:"), "@")[0]} {
		require.NotContains(t, other.out.String(), secret)
	}
	_, err := other.end(syscall.SIGINT)
	require.NoError(t, err, other.out)
	require.NotZero(t, r.pid(postgresName), "what was not started is not stopped")

	// Other commands work on the running instance, or start the databases.
	seen := ""
	require.NoError(t, WithDatabases(t.Context(), r.cfg, io.Discard, false, func(_ context.Context, cfg config.Config) error {
		seen = cfg.PostgresURL.Reveal()
		return nil
	}))
	require.Equal(t, engines.PostgresURL.Reveal(), seen)
	require.ErrorIs(t, WithDatabases(t.Context(), r.cfg, io.Discard, true, nil), ErrRunning)
	_, err = r.end(syscall.SIGINT)
	require.NoError(t, err, r.out)
}
