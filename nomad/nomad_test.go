package nomad_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/nomad/nomadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// shell is a job whose process runs a shell script.
func shell(script string) nomad.Task {
	return nomad.Task{
		Command: "/bin/sh", Args: []string{"-c", script}, Build: "1",
		CPUMHz: 20, MemoryMB: 32, KillTimeout: 3 * time.Second,
	}
}

// follower records what a Watch tells.
type follower struct {
	mu        sync.Mutex
	snapshots [][]nomad.Allocation
	last      map[string]nomad.Allocation // by job
}

func follow(t *testing.T, c *nomad.Client) *follower {
	t.Helper()
	f := &follower{last: map[string]nomad.Allocation{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Watch(ctx, nomad.Follower{
			Snapshot: func(_ context.Context, all []nomad.Allocation) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.snapshots = append(f.snapshots, all)
				for _, a := range all {
					f.last[a.JobID] = a
				}
			},
			Allocation: func(_ context.Context, a nomad.Allocation) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.last[a.JobID] = a
			},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *follower) of(jobID string) nomad.Allocation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[jobID]
}

func (f *follower) snapshotCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.snapshots)
}

func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, within, 20*time.Millisecond, what)
}

func TestSandboxJobs(t *testing.T) {
	c := nomadtest.Start(t).Client(logger(t))
	dir := t.TempDir()
	script := fmt.Sprintf(`cp "$NOMAD_TASK_DIR/claim.json" "%s/$NOMAD_META_sandbox"; trap 'exit 7' TERM; while :; do sleep 0.05; done`, dir)
	require.NoError(t, c.RegisterSandboxJob(t.Context(), shell(strings.ReplaceAll(script, "${", "$"))))
	f := follow(t, c)
	eventually(t, 5*time.Second, "first snapshot", func() bool { return f.snapshotCount() > 0 })

	t.Run("a dispatch starts one process with its payload, however often it is sent", func(t *testing.T) {
		d := nomad.Dispatch{Sandbox: "sbx_one", Environment: "default", Payload: []byte(`{"secret":"s"}`)}
		job, err := c.Dispatch(t.Context(), d)
		require.NoError(t, err)
		again, err := c.Dispatch(t.Context(), d)
		require.NoError(t, err)
		require.Equal(t, job, again)

		id, ours := c.SandboxOf(job)
		require.True(t, ours)
		require.Equal(t, "sbx_one", id)
		eventually(t, 10*time.Second, "payload", func() bool {
			b, _ := os.ReadFile(dir + "/sbx_one")
			return string(b) == `{"secret":"s"}`
		})
		eventually(t, 10*time.Second, "running", func() bool { return f.of(job).State == nomad.AllocRunning })

		require.NoError(t, c.Stop(t.Context(), job, false))
		eventually(t, 10*time.Second, "final", func() bool { return f.of(job).State.Final() })
		a := f.of(job)
		require.Equal(t, 7, a.ExitCode)
		require.NotEmpty(t, a.Why)
		list, err := c.JobAllocations(t.Context(), job)
		require.NoError(t, err)
		require.Len(t, list, 1, "nothing was started in its place")
	})

	t.Run("a killed process is told, and not started again", func(t *testing.T) {
		job, err := c.Dispatch(t.Context(), nomad.Dispatch{Sandbox: "sbx_two", Payload: []byte("{}")})
		require.NoError(t, err)
		eventually(t, 10*time.Second, "payload", func() bool { _, err := os.Stat(dir + "/sbx_two"); return err == nil })
		killBy(t, "sbx_two")
		eventually(t, 10*time.Second, "final", func() bool { return f.of(job).State == nomad.AllocFailed })
		require.Equal(t, 9, f.of(job).Signal)
		jobs, err := c.SandboxJobs(t.Context())
		require.NoError(t, err)
		for _, j := range jobs {
			require.True(t, j.Dead, j.ID)
		}
		require.NoError(t, c.Stop(t.Context(), job, true))
		_, err = c.JobAllocations(t.Context(), job)
		require.NoError(t, err)
	})
	require.NoError(t, c.CollectGarbage(t.Context()))
	require.NoError(t, c.Stop(t.Context(), "no-such-job", false))
}

// killBy kills the process whose environment names a sandbox.
func killBy(t *testing.T, sandbox string) {
	t.Helper()
	procs, err := os.ReadDir("/proc")
	require.NoError(t, err)
	killed := 0
	for _, p := range procs {
		env, err := os.ReadFile("/proc/" + p.Name() + "/environ")
		if err != nil || !strings.Contains(string(env), "NOMAD_META_sandbox="+sandbox+"\x00") {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		if strings.HasPrefix(string(cmdline), "/bin/sh") {
			var pid int
			_, err := fmt.Sscan(p.Name(), &pid)
			require.NoError(t, err)
			proc, err := os.FindProcess(pid)
			require.NoError(t, err)
			require.NoError(t, proc.Kill())
			killed++
		}
	}
	require.Equal(t, 1, killed)
}

func TestNodeJobRestartsAndKnowsItsNode(t *testing.T) {
	c := nomadtest.Start(t).Client(logger(t))
	dir := t.TempDir()
	task := shell(`echo "$AMBIT_NODE_ID $AMBIT_NODE_NAME" >> ` + dir + `/starts; sleep 0.1; exit 1`)
	require.NoError(t, c.RegisterNodeJob(t.Context(), task))
	require.NoError(t, c.RegisterNodeJob(t.Context(), task))
	lines := func() []string {
		b, _ := os.ReadFile(dir + "/starts")
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	eventually(t, 15*time.Second, "restarts", func() bool { return len(lines()) >= 2 })
	nodes, err := c.Nodes(t.Context())
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	require.Equal(t, nodes[0].ID+" "+nodes[0].Name, lines()[0])

	require.NoError(t, c.SetEligible(t.Context(), nodes[0].ID, false))
	require.ErrorContains(t, c.Ready(t.Context()), "not eligible")
	require.NoError(t, c.SetEligible(t.Context(), nodes[0].ID, true))
	require.NoError(t, c.Ready(t.Context()))
	require.NoError(t, c.Stop(t.Context(), c.NodeJobID(), true))
}

func TestTextThatNomadWouldReadAsAnExpressionIsRefused(t *testing.T) {
	c, err := nomad.New(nomad.Config{Address: "http://127.0.0.1:1"}, logger(t))
	require.NoError(t, err)
	defer c.Close()
	for name, spoil := range map[string]func(*nomad.Task){
		"argument": func(task *nomad.Task) { task.Args = []string{"${env.HOME}"} },
		"value":    func(task *nomad.Task) { task.Env = map[string]string{"A": "%{if true}"} },
		"name":     func(task *nomad.Task) { task.Env = map[string]string{"A B": "x"} },
		"command":  func(task *nomad.Task) { task.Command = "bin/sh" },
		"newline":  func(task *nomad.Task) { task.Env = map[string]string{"A": "x\ny"} },
	} {
		t.Run(name, func(t *testing.T) {
			task := shell("true")
			spoil(&task)
			err := c.RegisterSandboxJob(t.Context(), task)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "connection refused", "it was sent")
		})
	}
	_, err = c.Dispatch(t.Context(), nomad.Dispatch{Sandbox: "${x}", Payload: []byte("{}")})
	require.ErrorContains(t, err, "cannot name a job")
	_, err = c.Dispatch(t.Context(), nomad.Dispatch{Sandbox: "sbx_1", Payload: make([]byte, 16<<10+1)})
	require.ErrorContains(t, err, "at most")
}

func FuzzSandboxOf(f *testing.F) {
	c, err := nomad.New(nomad.Config{Address: "http://127.0.0.1:1"}, slog.New(slog.DiscardHandler))
	require.NoError(f, err)
	f.Add("ambit-sandbox/dispatch-sbx_x-1700000000-0a1b2c3d")
	f.Add("ambit-sandbox/dispatch--")
	f.Fuzz(func(t *testing.T, job string) {
		id, ok := c.SandboxOf(job)
		require.Equal(t, ok, id != "")
		require.True(t, !ok || strings.Contains(job, id))
	})
}
