package processes

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "launch-and-wait" {
		launchAndWait(os.Args[2])
	}
	goleak.VerifyTestMain(m)
}

// launchAndWait is this test binary as a parent that will be killed.
func launchAndWait(file string) {
	child, err := Launch(exec.Command("sleep", "60"), syscall.SIGTERM) //nolint:noctx // it must not end with a context
	if err != nil {
		os.Exit(1)
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(child.PID())), 0o600); err != nil {
		os.Exit(1)
	}
	select {}
}

// buffer is a bytes.Buffer for several goroutines.
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

func shell(script string) func(context.Context) (*exec.Cmd, error) {
	return func(context.Context) (*exec.Cmd, error) {
		return exec.Command("/bin/sh", "-c", script), nil //nolint:noctx // the supervisor ends it
	}
}

func fileThere(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

func newSupervisor(t *testing.T) (*Supervisor, *buffer) {
	t.Helper()
	seen := &buffer{}
	s := NewSupervisor(filepath.Join(t.TempDir(), "run"), NewOutput(seen, false, false).Logger("up", slog.LevelDebug))
	t.Cleanup(func() { _ = s.StopAll() })
	return s, seen
}

func alive(pid int) bool {
	_, err := startTicks(pid)
	return err == nil
}

func eventually(t *testing.T, cond func() bool, what string) {
	t.Helper()
	require.Eventually(t, cond, 20*time.Second, 10*time.Millisecond, what)
}

func TestAChildThatDiesIsNamedAndStartedAgain(t *testing.T) {
	s, seen := newSupervisor(t)
	require.NoError(t, s.Start(t.Context(), Spec{Name: "engine", Command: shell("exec sleep 60")}))
	first := s.PID("engine")
	require.NotZero(t, first)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	eventually(t, func() bool { pid := s.PID("engine"); return pid != 0 && pid != first }, "it runs again")
	eventually(t, func() bool { return strings.Contains(seen.String(), "engine runs again") }, "and that is told")
	require.Contains(t, seen.String(), "engine was killed (signal: killed); restarting")
	require.NoError(t, s.Stop("engine"))
	require.Zero(t, s.PID("engine"))
}

func TestAChildThatKeepsDyingIsGivenUpWithItsLastWords(t *testing.T) {
	s, _ := newSupervisor(t)
	out := NewOutput(&buffer{}, false, false).Stream("engine", slog.LevelInfo, nil)
	flag := filepath.Join(t.TempDir(), "once")
	starts := 0
	require.NoError(t, s.Start(t.Context(), Spec{
		Name: "engine", Output: out, Ready: fileThere(flag),
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			if starts++; starts == 1 { // once it gets ready
				return shell("touch " + flag + "; sleep 0.3; exit 3")(ctx)
			}
			return shell("echo my disk is full; exit 3")(ctx)
		},
	}))
	select {
	case err := <-s.Failed():
		var gaveUp *GaveUpError
		require.ErrorAs(t, err, &gaveUp)
		require.Equal(t, "engine", gaveUp.Name)
		require.Contains(t, err.Error(), "my disk is full")
	case <-time.After(30 * time.Second):
		t.Fatal("it was not given up")
	}
	require.NoError(t, s.Stop("engine"))
}

func TestAChildThatDoesNotGetReadyIsEndedAndSaysWhy(t *testing.T) {
	s, _ := newSupervisor(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	out := NewOutput(&buffer{}, false, false).Stream("engine", slog.LevelInfo, nil)
	err := s.Start(t.Context(), Spec{
		Name: "engine", Output: out, ReadyWithin: 300 * time.Millisecond,
		Command: shell("echo waiting for a key; echo $$ > " + pidFile + "; exec sleep 60"),
		Ready:   fileThere("/nonexistent"),
	})
	require.ErrorContains(t, err, "engine was not ready after")
	require.ErrorContains(t, err, "waiting for a key")
	b, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	eventually(t, func() bool { return !alive(pid) }, "nothing of it is left")

	err = s.Start(t.Context(), Spec{Name: "engine", Command: shell("exit 4"), Ready: fileThere("/nonexistent")})
	require.ErrorContains(t, err, "engine exited with code 4 before it was ready")
}

func TestStopKillsAChildThatDoesNotListenAndItsGroup(t *testing.T) {
	s, _ := newSupervisor(t)
	file := filepath.Join(t.TempDir(), "grandchild")
	require.NoError(t, s.Start(t.Context(), Spec{
		Name: "deaf", StopWithin: 200 * time.Millisecond, Ready: fileThere(file),
		Command: shell("trap '' TERM; sleep 60 & echo $! > " + file + ".new; mv " + file + ".new " + file + "; while :; do wait; done"),
	}))
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	pid := s.PID("deaf")
	began := time.Now()
	require.ErrorContains(t, s.Stop("deaf"), "did not end on terminated in time and was killed")
	require.Less(t, time.Since(began), 5*time.Second)
	eventually(t, func() bool { return !alive(pid) && !alive(grandchild) }, "nothing of its group is left")
}

func TestStopDuringARestartLeavesNothing(t *testing.T) {
	s, _ := newSupervisor(t)
	file := filepath.Join(t.TempDir(), "ready")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, s.Start(t.Context(), Spec{Name: "engine", Command: shell("exec sleep 60"), Ready: fileThere(file)}))
	require.NoError(t, os.Remove(file)) // the next start will not get ready
	first := s.PID("engine")
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	var second int
	eventually(t, func() bool { second = s.PID("engine"); return second != 0 && second != first }, "a restart is under way")
	require.NoError(t, s.Stop("engine"))
	eventually(t, func() bool { return !alive(second) }, "and was ended")
}

func TestAChildEndsWithItsParent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	parent := exec.Command(os.Args[0], "launch-and-wait", file) //nolint:noctx // killed below
	require.NoError(t, parent.Start())
	var pid int
	eventually(t, func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(string(b))
		return err == nil
	}, "the parent has started its child")
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	eventually(t, func() bool { return !alive(pid) }, "the child was told")
}

func TestWhatAnEarlierRunLeftIsEnded(t *testing.T) {
	s, seen := newSupervisor(t)
	// A child of a supervisor that never stopped it.
	old, err := Launch(exec.Command("sleep", "60"), 0) //nolint:noctx // ended below
	require.NoError(t, err)
	require.NoError(t, pidFile(filepath.Join(s.dir, "engine.pid")).write(old.PID()))
	require.NoError(t, s.Start(t.Context(), Spec{Name: "engine", Command: shell("exec sleep 60")}))
	eventually(t, func() bool { return !old.Alive() }, "the old one was ended")
	require.Contains(t, seen.String(), "an earlier run has left a process")
	require.NoError(t, s.Stop("engine"))
}

func TestAPidThatWasGivenToAnotherProgramIsLeftAlone(t *testing.T) {
	s, _ := newSupervisor(t)
	other, err := Launch(exec.Command("sleep", "60"), 0) //nolint:noctx // ended below
	require.NoError(t, err)
	file := pidFile(filepath.Join(s.dir, "engine.pid"))
	require.NoError(t, file.write(other.PID()))
	b, err := os.ReadFile(string(file))
	require.NoError(t, err)
	id, err := identify(other.PID())
	require.NoError(t, err)
	forged := strings.Replace(string(b), fmt.Sprint(id.Start), fmt.Sprint(id.Start-1), 1)
	require.NoError(t, os.WriteFile(string(file), []byte(forged), 0o600))
	require.NoError(t, s.Start(t.Context(), Spec{Name: "engine", Command: shell("exec sleep 60")}))
	require.True(t, other.Alive())
	require.NoError(t, s.Stop("engine"))
	require.NoError(t, other.KillGroup())
	<-other.Done()
}

func TestSweepFindsWhatLeftItsGroup(t *testing.T) {
	variable := fmt.Sprintf("AMBIT_TEST_SWEEP=%d", os.Getpid())
	file := filepath.Join(t.TempDir(), "pid")
	// The daemon has a session of its own, and an emptied environment below.
	cmd := exec.Command("/bin/sh", "-c", "setsid sh -c 'env -i sleep 60 & echo $! > "+file+"; wait' & exec sleep 60") //nolint:noctx // swept below
	cmd.Env = append(os.Environ(), variable)
	child, err := Launch(cmd, 0)
	require.NoError(t, err)
	var pid int
	eventually(t, func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	}, "the daemon runs")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	met, err := Sweep(ctx, variable, 200*time.Millisecond)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(met), 3)
	require.False(t, alive(pid))
	<-child.Done()
	left, err := FindMarked(variable)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOutputShowsLinesUnderTheirNames(t *testing.T) {
	var b buffer
	out := NewOutput(&b, false, false)
	out.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	var file bytes.Buffer
	pg := out.Stream("postgres", slog.LevelWarn, &file)
	server := out.Stream("server", slog.LevelInfo, nil)
	write := func(s *Stream, text string) {
		for piece := range strings.SplitSeq(text, "|") { // lines arrive in pieces
			_, err := s.Write([]byte(piece))
			require.NoError(t, err)
		}
	}
	write(pg, "2026-11-20 14:00:00.000 UTC [7] LOG:  database system is ready\n")
	write(pg, "2026-11-20 14:00:00.000 UTC [7] ER|ROR:  disk is full\n")
	write(pg, "2026-11-20 14:00:00.000 UTC [7] FATAL:  the database system is starting up\n")
	write(server, `{"time":"2026-01-01T00:00:00Z","level":"WARN","ms|g":"slow query","took":"1.5s","session":"ses_1","note":"two words"}`+"\n")
	write(server, `{"@level":"error","@message":"no leader","@timestamp":"x","@module":"client"}`+"\n")
	write(server, "panic: oh\n{not json\n")
	require.Equal(t, strings.Join([]string{
		`03:04:05 postgres     ERROR disk is full`,
		`03:04:05 server       WARN  slow query  took=1.5s session=ses_1 note="two words"`,
		`03:04:05 server       ERROR no leader`,
		`03:04:05 server       INFO  panic: oh`,
		`03:04:05 server       INFO  {not json`,
		``,
	}, "\n"), b.String())
	require.Equal(t, 3, strings.Count(file.String(), "\n"), "the file has all lines")
	require.Len(t, pg.Last(), 3)

	long := strings.Repeat("x", 3*longestLine)
	write(server, long)
	require.Less(t, len(server.partial), longestLine)
}

func TestOutputForMachinesIsJSON(t *testing.T) {
	var b buffer
	out := NewOutput(&b, false, true)
	_, err := out.Stream("nomad", slog.LevelInfo, nil).Write([]byte(`{"@level":"warn","@message":"m","job":"j"}` + "\n"))
	require.NoError(t, err)
	require.Contains(t, b.String(), `"process":"nomad"`)
	require.Contains(t, b.String(), `"level":"WARN"`)
	require.Contains(t, b.String(), `"job":"j"`)
}

func FuzzParseLine(f *testing.F) {
	f.Add(`{"level":"INFO","msg":"x","a":{"b":[1]}}`)
	f.Add(`{"level":`)
	f.Add("2026 [1] LOG:  x")
	f.Fuzz(func(t *testing.T, line string) { _ = parseLine(line) })
}
