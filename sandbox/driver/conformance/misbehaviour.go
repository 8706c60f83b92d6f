package conformance

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/guest"
)

// testMisbehaviour: whatever a command does, the agent answers afterwards.
func testMisbehaviour(t *testing.T, s Subject) {
	b := s.open(t)

	t.Run("a fork bomb", func(t *testing.T) {
		const key = "eff_bomb"
		cmd, err := b.client.Exec(b.ctx, guest.ExecRequest{EffectKey: key, Epoch: 1, Script: ":(){ :|:& };: ; sleep 1000", TimeLimit: patience})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			m, err := b.client.Metrics(b.ctx)
			return err == nil && m.Processes > 200
		}, patience, 50*time.Millisecond, "the agent answers while the bomb goes off")
		require.NoError(t, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: key, Epoch: 1, Signal: 9}))
		out, err := cmd.Wait(nil, nil)
		require.NoError(t, err)
		require.True(t, out.Killed)
		b.alive()
		m, err := b.client.Metrics(b.ctx)
		require.NoError(t, err)
		require.Zero(t, m.Commands)
		require.Zero(t, m.Processes)
	})
	t.Run("too many processes", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"python3", "-c", "import os, time\nfor i in range(5000):\n  if os.fork() == 0: time.sleep(1000)"}})
		require.NotZero(t, out.ExitCode)
		require.Contains(t, out.stderr, "BlockingIOError")
		require.True(t, out.ProcessesRefused)
		b.alive()
	})
	t.Run("a full disk", func(t *testing.T) {
		out := b.sh("head -c 10G /dev/zero > fill; echo status $?")
		require.Contains(t, out.stderr, "No space left on device")
		require.Contains(t, out.stdout, "status 1")
		_, err := b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "more", Epoch: 1}, make([]byte, 1<<20))
		requireCode(t, guest.CodeNoSpace, err)
		out = b.run(guest.ExecRequest{EffectKey: "eff_full", Script: "seq 1 50000", OutputLimit: 1000})
		require.Zero(t, out.ExitCode)
		require.True(t, out.Truncated)
		data, err := b.client.ReadOutput(b.ctx, "eff_full", 0, 0)
		require.NoError(t, err)
		require.Len(t, data, int(out.StdoutBytes), "output is kept even so")
		m, err := b.client.Metrics(b.ctx)
		require.NoError(t, err)
		require.Greater(t, m.DiskUsed, m.DiskTotal*9/10)
		require.Zero(t, b.sh("rm fill && echo ok > small").ExitCode)
		require.Contains(t, b.sh("head -c 10G /dev/zero > /tmp/fill").stderr, "No space left on device")
		require.Contains(t, b.sh("rm /tmp/fill; head -c 10G /dev/zero > /dev/shm/fill").stderr, "No space left on device")
		b.sh("rm /dev/shm/fill")
		b.alive()
	})
	t.Run("output without end", func(t *testing.T) {
		out := b.run(guest.ExecRequest{EffectKey: "eff_yes", Script: "yes abcdefg", TimeLimit: time.Second, OutputLimit: 10_000, KeepLimit: 100_000})
		require.True(t, out.TimedOut)
		require.True(t, out.Truncated)
		require.Len(t, out.stdout, 10_000)
		require.EqualValues(t, 10_000, out.Streamed)
		require.Positive(t, out.Dropped)
		require.Equal(t, out.StdoutBytes, 100_000+out.Dropped)
		require.Contains(t, string(out.Tail), "abcdefg")
		require.LessOrEqual(t, len(out.Tail), 4<<10)
		require.Equal(t, guest.OutputDir+"/eff_yes.txt", out.OutputPath)
		kept := b.read(out.OutputPath)
		require.Equal(t, strings.Repeat("abcdefg\n", 12_500), kept[:100_000])
		require.Contains(t, kept[100_000:], "were not kept")
		b.alive()
	})
	t.Run("long output is a file as well", func(t *testing.T) {
		out := b.run(guest.ExecRequest{EffectKey: "eff_seq", Script: "seq 1 20000; echo the end", OutputLimit: 500})
		require.True(t, out.Truncated)
		require.Zero(t, out.Dropped)
		require.Len(t, out.stdout, 500)
		require.True(t, strings.HasSuffix(string(out.Tail), "20000\nthe end\n"))
		require.Len(t, b.read(out.OutputPath), int(out.StdoutBytes))
		require.Equal(t, "20001\n", b.sh("wc -l < "+out.OutputPath).stdout, "commands can read it too")
	})
	t.Run("too much memory", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"python3", "-c", "x = bytearray(10**10)\nx[::4096] = b'1' * len(x[::4096])"}})
		require.NotZero(t, out.ExitCode, "a plain refusal")
		out = b.sh("tail /dev/zero")
		require.True(t, out.OutOfMemory)
		require.NotZero(t, out.ExitCode)
		b.alive()
	})
	t.Run("memory and disk together", func(t *testing.T) {
		b.sh("head -c 10G /dev/zero > fill; head -c 10G /dev/zero > /tmp/fill; head -c 10G /dev/zero > /dev/shm/fill; tail /dev/zero")
		require.Zero(t, b.sh("rm -f fill /tmp/fill /dev/shm/fill").ExitCode)
		b.alive()
	})
	t.Run("too many open files and arguments", func(t *testing.T) {
		out := b.run(guest.ExecRequest{Argv: []string{"python3", "-c", "import os\nwhile True: os.dup(1)"}})
		require.Contains(t, out.stderr, "Too many open files")
		_, err := b.try(b.client, guest.ExecRequest{Argv: make([]string, 5000)})
		require.Error(t, err)
		b.alive()
	})
	t.Run("killing everything in sight", func(t *testing.T) {
		b.sh("kill -9 -1")
		b.sh("kill -9 1; kill -15 1; kill -2 1")
		b.alive()
	})
}
