package conformance

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

func testProbe(t *testing.T, s Subject) {
	r, err := s.Driver.Probe(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, s.Driver.Name())
	require.Contains(t, []driver.Accelerator{driver.AcceleratorKVM, driver.AcceleratorTCG}, r.Accelerator)
	require.NotEmpty(t, r.Version)
	require.NotEmpty(t, r.Detail)
	again, err := s.Driver.Probe(t.Context())
	require.NoError(t, err)
	require.Equal(t, r, again, "a probe is made once")
}

func testCommands(t *testing.T, s Subject) {
	b := s.open(t)

	t.Run("both streams and the exit code", func(t *testing.T) {
		out := b.sh("echo to stdout; echo to stderr >&2; exit 7")
		require.Equal(t, "to stdout\n", out.stdout)
		require.Equal(t, "to stderr\n", out.stderr)
		require.Equal(t, 7, out.ExitCode)
		require.Empty(t, out.Signal)
		require.EqualValues(t, 10, out.StdoutBytes)
		require.EqualValues(t, 10, out.StderrBytes)
		require.False(t, out.Truncated)
		require.Positive(t, out.Duration)
		require.Positive(t, out.CPU)
	})
	t.Run("arguments are passed as they are", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"printf", "%s|", "a b", "$HOME", "", "ü"}})
		require.Equal(t, "a b|$HOME||ü|", out.stdout)
	})
	t.Run("standard input", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"cat"}, Stdin: []byte("line\n\x00binary\xff")})
		require.Equal(t, "line\n\x00binary\xff", out.stdout)
		require.Empty(t, b.sh("cat").stdout, "without any, it is empty")
	})
	t.Run("environment and directory", func(t *testing.T) {
		b.configure(guest.Configuration{SandboxID: b.machine.ID(), Epoch: 1, Env: map[string]string{"FROM_SESSION": "s", "BOTH": "session"}})
		out := b.run(guest.ExecRequest{Script: "echo $FROM_SESSION $BOTH $FROM_CALL $HOME; pwd", Env: map[string]string{"FROM_CALL": "c", "BOTH": "call"}})
		require.Equal(t, "s call c "+guest.WorkDir+"\n"+guest.WorkDir+"\n", out.stdout)
		b.write("deep/er/file", "x")
		require.Equal(t, guest.WorkDir+"/deep/er\n", b.run(guest.ExecRequest{Script: "pwd", Cwd: "deep/er"}).stdout)
		require.Equal(t, "/usr\n", b.run(guest.ExecRequest{Script: "pwd", Cwd: "/usr"}).stdout)
	})
	t.Run("a script for another interpreter", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"python3", "-I"}, Script: "import sys\nprint(6 * 7)\nsys.exit(3)\n"})
		require.Equal(t, "42\n", out.stdout)
		require.Equal(t, 3, out.ExitCode)
	})
	t.Run("a script longer than an argument may be", func(t *testing.T) {
		out := b.sh("# " + strings.Repeat("x", 200<<10) + "\necho end")
		require.Equal(t, "end\n", out.stdout)
	})
	t.Run("what cannot be run", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"no-such-program"}})
		require.Equal(t, 127, out.ExitCode)
		require.Contains(t, out.stderr, "not found")
		b.write("plain.txt", "not a program")
		require.Equal(t, 126, b.run(guest.ExecRequest{Argv: []string{"./plain.txt"}}).ExitCode)
		require.Equal(t, 126, b.run(guest.ExecRequest{Script: "true", Cwd: "/no/such/dir"}).ExitCode)
	})
	t.Run("malformed requests are refused", func(t *testing.T) {
		for name, req := range map[string]guest.ExecRequest{
			"no command":        {},
			"bad key":           {EffectKey: "a/b", Script: "true"},
			"zero byte":         {Argv: []string{"echo", "a\x00b"}},
			"bad variable":      {Script: "true", Env: map[string]string{"A=B": "c"}},
			"negative limit":    {Script: "true", TimeLimit: -1},
			"too much to keep":  {Script: "true", KeepLimit: guest.MaxKeepLimit + 1},
			"empty program":     {Argv: []string{""}},
			"time limit of eon": {Script: "true", TimeLimit: 1000 * time.Hour},
		} {
			_, err := b.try(b.client, req)
			requireCode(t, guest.CodeInvalid, err, name)
		}
	})
	t.Run("signals", func(t *testing.T) {
		out := b.sh("kill -TERM $$")
		require.Equal(t, "SIGTERM", out.Signal)
		require.Equal(t, 143, out.ExitCode)
		require.False(t, out.Killed)

		key := b.key()
		cmd, err := b.client.Exec(b.ctx, guest.ExecRequest{EffectKey: key, Epoch: 1, Script: "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.05; done"})
		require.NoError(t, err)
		chunk, err := cmd.Next()
		require.NoError(t, err)
		require.Equal(t, "ready\n", string(chunk.Data))
		require.NoError(t, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: key, Epoch: 1, Signal: 10}))
		var rest strings.Builder
		res, err := cmd.Wait(&rest, nil)
		require.NoError(t, err)
		require.Contains(t, rest.String(), "caught")
		require.Equal(t, 9, res.ExitCode)
		require.NoError(t, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: key, Epoch: 1, Signal: 10}), "it has ended, and that is no error")
		requireCode(t, guest.CodeEffectUnknown, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: "never", Epoch: 1, Signal: 9}))
	})
	t.Run("several at once", func(t *testing.T) {
		var wg sync.WaitGroup
		outs := make([]output, 8)
		errs := make([]error, len(outs))
		for i := range outs {
			wg.Go(func() {
				outs[i], errs[i] = b.try(b.client, guest.ExecRequest{Argv: []string{"bash", "-c", "echo $0; sleep 0.2; echo $0", string(rune('a' + i))}})
			})
		}
		wg.Wait()
		for i := range outs {
			require.NoError(t, errs[i])
			want := string(rune('a'+i)) + "\n"
			require.Equal(t, want+want, outs[i].stdout)
		}
	})
}

// testTrees: a command's end is the end of everything that it started.
func testTrees(t *testing.T, s Subject) {
	b := s.open(t)
	none := func(t *testing.T, pattern string) {
		t.Helper()
		out := b.sh("pgrep -fc -- '" + pattern + "'")
		require.Equal(t, "0\n", out.stdout, "nothing of it may live on")
	}

	t.Run("what it leaves in the background", func(t *testing.T) {
		at := time.Now()
		out := b.sh("sleep 7771 & setsid sleep 7771 & (setsid nohup sleep 7771 >/dev/null 2>&1 &) ; sleep 0.1; echo done")
		require.Equal(t, "done\n", out.stdout)
		require.Zero(t, out.ExitCode)
		require.Less(t, time.Since(at), patience/2, "it does not wait for them")
		none(t, "slee[p] 7771")
	})
	t.Run("its time limit", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Script: "trap '' TERM; echo begun; setsid sleep 7772 & sleep 7772; sleep 7772", TimeLimit: 500 * time.Millisecond})
		require.True(t, out.TimedOut)
		require.False(t, out.Killed)
		require.Equal(t, "begun\n", out.stdout)
		require.NotZero(t, out.ExitCode)
		none(t, "slee[p] 7772")
	})
	t.Run("a politely taken time limit", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Script: "trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done", TimeLimit: 500 * time.Millisecond})
		require.True(t, out.TimedOut)
		require.Equal(t, "bye\n", out.stdout)
		require.Equal(t, 4, out.ExitCode)
	})
	t.Run("a kill", func(t *testing.T) {
		key := b.key()
		cmd, err := b.client.Exec(b.ctx, guest.ExecRequest{EffectKey: key, Epoch: 1, Script: "trap '' TERM INT; setsid sleep 7773 & echo up; sleep 7773; sleep 7773"})
		require.NoError(t, err)
		_, err = cmd.Next()
		require.NoError(t, err)
		require.NoError(t, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: key, Epoch: 1, Signal: 9}))
		res, err := cmd.Wait(nil, nil)
		require.NoError(t, err)
		require.True(t, res.Killed)
		require.Equal(t, "SIGKILL", res.Signal)
		require.Equal(t, 137, res.ExitCode)
		none(t, "slee[p] 7773")
	})
	t.Run("no zombies", func(t *testing.T) {
		out := b.sh("for i in 1 2 3 4 5; do (sleep 0.01 &); done; sleep 0.3; ps -eo stat= | grep -c Z")
		require.Equal(t, "0\n", out.stdout)
	})
}
