package conformance

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/guest"
)

// testIsolation: what a command may not be, see or reach.
func testIsolation(t *testing.T, s Subject) {
	b := s.open(t)

	require.Equal(t, "lo\n", b.sh("ls /sys/class/net").stdout, "there is no network")
	require.Equal(t, "1000 1000 1000\n", b.sh("echo $(id -u) $(id -g) $(id -G)").stdout)
	require.Contains(t, b.sh("cat /proc/self/status").stdout, "NoNewPrivs:\t1")
	require.Contains(t, b.sh("cat /proc/self/status").stdout, "CapEff:\t0000000000000000")

	out := b.sh("cp /bin/true /tmp/x && chmod +x /tmp/x && /tmp/x")
	require.Equal(t, 126, out.ExitCode, "nothing runs in /tmp")
	out = b.sh("cp /bin/true ./x && ./x")
	require.Zero(t, out.ExitCode, "programs run in the working directory")
	for _, script := range []string{
		"ls /run/ambit/effects", "cat /proc/1/environ", "cat /proc/1/cmdline", "kill -0 1", "dmesg", "echo x > /etc/passwd", "rm -f /bin/bash",
		"touch /x", "echo c > /proc/sysrq-trigger", "hostname other", "date -s 2001-01-01", "cat /dev/vda", "echo x > /dev/console",
		"for p in /dev/vport*; do echo x > $p || exit 1; done", "echo 1 > /sys/fs/cgroup/commands/pids.max", "unshare -Ur true",
		"echo $$ > /sys/fs/cgroup/cgroup.procs", "su -c true", "python3 -c 'import os; os.setuid(0)'",
		"python3 -c 'import socket; socket.create_connection((\"10.0.2.2\", 80), 2)'",
	} {
		require.NotZero(t, b.sh(script).ExitCode, script)
	}
	require.Equal(t, "ok\n", b.run(guest.ExecRequest{Argv: []string{
		"python3", "-c",
		"import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); print('ok')",
	}}).stdout, "the loopback is the command's own")
	b.alive()

	t.Run("metrics", func(t *testing.T) {
		m, err := b.machine.Metrics(b.ctx)
		require.NoError(t, err)
		require.Positive(t, m.RSSBytes)
		require.Positive(t, m.CPU)
		require.Positive(t, m.Threads)
		g, err := b.client.Metrics(b.ctx)
		require.NoError(t, err)
		require.Positive(t, g.MemoryTotal)
		require.Positive(t, g.MemoryAvailable)
		require.Positive(t, g.DiskTotal)
	})
}

// testClones: clones share a memory image and nothing else.
func testClones(t *testing.T, s Subject) {
	t.Run("random numbers differ", func(t *testing.T) {
		script := "head -c 16 /dev/urandom | od -An -tx8; cat /proc/sys/kernel/random/uuid; python3 -c 'import random, os; print(random.random(), os.urandom(8).hex(), hash(\"x\"))'"
		one, two := s.open(t).sh(script), s.open(t).sh(script)
		require.Zero(t, one.ExitCode)
		seen := map[string]bool{}
		for _, line := range append(strings.Split(strings.TrimSpace(one.stdout), "\n"), strings.Split(strings.TrimSpace(two.stdout), "\n")...) {
			require.False(t, seen[line], "drawn twice: %s", line)
			seen[line] = true
		}
		require.Len(t, seen, 6)
	})
	t.Run("what one writes the other does not see", func(t *testing.T) {
		one, two := s.open(t), s.open(t)
		one.sh("echo secret > file; echo secret > /tmp/file")
		require.Empty(t, two.sh("cat file /tmp/file 2>/dev/null").stdout)
		require.Empty(t, s.open(t).sh("ls -A .; ls -A /tmp").stdout, "nor does a later one")
	})
	t.Run("the clock is the host's", func(t *testing.T) {
		b := s.open(t)
		skew := func() time.Duration {
			before := time.Now()
			out := b.sh("date +%s.%N")
			after := time.Now()
			sec, err := strconv.ParseFloat(strings.TrimSpace(out.stdout), 64)
			require.NoError(t, err)
			at := time.Unix(0, int64(sec*1e9))
			switch {
			case at.Before(before):
				return before.Sub(at)
			case at.After(after):
				return at.Sub(after)
			}
			return 0
		}
		require.Less(t, skew(), 500*time.Millisecond)
		require.NoError(t, b.machine.Pause(b.ctx))
		require.NoError(t, b.machine.Pause(b.ctx), "pausing twice is no error")
		<-time.After(1500 * time.Millisecond) // time passes for the host alone
		require.NoError(t, b.machine.Resume(b.ctx))
		require.NoError(t, b.machine.Resume(b.ctx))
		require.NoError(t, b.client.SetClock(b.ctx))
		require.Less(t, skew(), 500*time.Millisecond)
	})
	t.Run("a paused clone waits", func(t *testing.T) {
		m := s.start(t, true)
		before, err := m.Metrics(t.Context())
		require.NoError(t, err)
		<-time.After(300 * time.Millisecond) // long enough to be seen in its CPU time
		after, err := m.Metrics(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, after.CPU-before.CPU, 50*time.Millisecond)
		require.NoError(t, m.Resume(t.Context()))
		b := &box{t: t, ctx: t.Context(), machine: m}
		b.client = b.dial()
		b.configure(guest.Configuration{SandboxID: m.ID(), Epoch: 1})
		b.alive()
	})
}
