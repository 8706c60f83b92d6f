package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

func testTemplate(t *testing.T, s Subject) {
	m := s.Template.Manifest
	require.Equal(t, s.Driver.Name(), m.Driver)
	require.NotEmpty(t, m.Key)
	require.Equal(t, driver.ManifestFormat, m.Format)
	t.Run("nobody can change it", func(t *testing.T) {
		_, err := s.Template.Handles.Memory.WriteAt([]byte("x"), 0)
		require.Error(t, err)
		require.Error(t, s.Template.Handles.Memory.Truncate(0))
	})
	t.Run("a template of another kind is refused", func(t *testing.T) {
		other := m
		other.Driver = "another"
		_, err := s.Driver.Start(t.Context(), driver.StartSpec{ID: "x", Manifest: other, Handles: s.Template.Handles, RunDir: t.TempDir()})
		require.ErrorIs(t, err, driver.ErrTemplateStale)
	})
	t.Run("a directory without one", func(t *testing.T) {
		_, err := s.Driver.OpenTemplate(t.Context(), t.TempDir())
		require.ErrorIs(t, err, driver.ErrTemplateDamaged)
	})
	t.Run("an id that is none", func(t *testing.T) {
		for _, id := range []string{"", "a b", "../x", strings.Repeat("x", 65), "a,b=c"} {
			_, err := s.Driver.Start(t.Context(), driver.StartSpec{ID: id, Manifest: m, Handles: s.Template.Handles, RunDir: t.TempDir()})
			require.Error(t, err, id)
		}
	})
}

// testChannel: whoever had the channel before, and whatever was left in it, the
// next client gets through.
func testChannel(t *testing.T, s Subject) {
	b := s.open(t)
	for i := range 5 {
		conn, err := b.machine.Channel(b.ctx)
		require.NoError(t, err)
		junk := make([]byte, 1+i*3000)
		_, err = rand.Read(junk)
		require.NoError(t, err)
		_, _ = conn.Write([]byte("AMBIT 1 GO 00112233445566778899aabbccddeeff\n"))
		_, _ = conn.Write(junk)
		require.NoError(t, conn.Close())
		b.client = b.dial()
		b.alive()
	}
	t.Run("a client that dies in mid-sentence", func(t *testing.T) {
		var keys []string
		for range 10 {
			c := b.dial()
			keys = append(keys, b.key())
			cmd, err := c.Exec(b.ctx, guest.ExecRequest{EffectKey: keys[len(keys)-1], Epoch: 1, Script: "yes | head -c 1000000; sleep 1000", OutputLimit: 1 << 30})
			require.NoError(t, err)
			_, err = cmd.Next()
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
		b.client = b.dial()
		for _, key := range keys {
			require.NoError(t, b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: key, Epoch: 1, Signal: 9}))
			out := b.attach(key)
			require.True(t, out.Killed)
		}
		b.alive()
	})
	t.Run("a directory with a long name", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), strings.Repeat("long-name-", 15), "run")
		m, err := s.Driver.Start(b.ctx, driver.StartSpec{ID: "long", Manifest: s.Template.Manifest, Handles: s.Template.Handles, RunDir: dir})
		require.NoError(t, err)
		defer m.Close() //nolint:errcheck // a test's
		c, err := m.Guest(b.ctx)
		require.NoError(t, err)
		_, err = c.Info(b.ctx)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
	t.Run("several clients through a relay", func(t *testing.T) {
		holder := b.dial()
		var clients []*guest.Client
		for range 3 {
			near, far := net.Pipe()
			go func() { _ = holder.Relay(b.ctx, far) }()
			c, err := guest.Dial(b.ctx, near)
			require.NoError(t, err)
			clients = append(clients, c)
		}
		for i, c := range clients {
			out, err := b.try(c, guest.ExecRequest{Script: fmt.Sprintf("echo client %d", i)})
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("client %d\n", i), out.stdout)
		}
		big := bytes.Repeat([]byte("relay"), 100_000)
		_, err := clients[0].WriteBytes(b.ctx, guest.WriteRequest{Path: "big", Epoch: 1}, big)
		require.NoError(t, err)
		res, err := clients[1].ReadFile(b.ctx, guest.ReadRequest{Path: "big"})
		require.NoError(t, err)
		require.True(t, bytes.Equal(big, res.Data))
		require.NoError(t, clients[0].Close())
		out, err := b.try(clients[2], guest.ExecRequest{Script: "echo others stay"})
		require.NoError(t, err)
		require.Equal(t, "others stay\n", out.stdout)
		require.NoError(t, holder.Close())
		_, err = b.try(clients[2], guest.ExecRequest{Script: "true"})
		require.ErrorIs(t, err, guest.ErrDisconnected)
	})
}

// testEnds: a machine's end always has a reason.
func testEnds(t *testing.T, s Subject) {
	end := func(t *testing.T, m driver.Machine) driver.Exit {
		t.Helper()
		select {
		case <-m.Done():
		case <-time.After(patience):
			require.Fail(t, "the machine did not end")
		}
		e := m.Exit()
		require.False(t, e.At.IsZero())
		require.NotEmpty(t, e.Detail)
		_, err := m.Metrics(t.Context())
		require.ErrorIs(t, err, driver.ErrMachineEnded)
		require.ErrorIs(t, m.Resume(t.Context()), driver.ErrMachineEnded)
		_, err = m.Guest(t.Context())
		require.ErrorIs(t, err, driver.ErrMachineEnded)
		require.NoError(t, m.Kill(t.Context()), "killing what has ended is no error")
		require.Equal(t, e, m.Exit(), "the reason stays")
		require.NoError(t, m.Close())
		require.NoError(t, m.Close())
		return e
	}
	t.Run("killed", func(t *testing.T) {
		b := s.open(t)
		cmd, err := b.client.Exec(b.ctx, guest.ExecRequest{EffectKey: "eff_x", Epoch: 1, Script: "sleep 1000"})
		require.NoError(t, err)
		require.NoError(t, b.machine.Kill(b.ctx))
		_, err = cmd.Wait(nil, nil)
		require.ErrorIs(t, err, guest.ErrDisconnected)
		require.Equal(t, driver.ReasonKilled, end(t, b.machine).Reason)
	})
	t.Run("killed while paused", func(t *testing.T) {
		m := s.start(t, true)
		require.NoError(t, m.Kill(t.Context()))
		require.Equal(t, driver.ReasonKilled, end(t, m).Reason)
	})
	t.Run("shut down", func(t *testing.T) {
		b := s.open(t)
		_, err := b.client.Exec(b.ctx, guest.ExecRequest{EffectKey: "eff_x", Epoch: 1, Script: "trap '' TERM; sleep 1000"})
		require.NoError(t, err)
		require.NoError(t, b.client.Shutdown(b.ctx))
		require.Equal(t, driver.ReasonGuestShutdown, end(t, b.machine).Reason)
	})
	t.Run("the engine dies", func(t *testing.T) {
		m := s.start(t, false)
		require.NoError(t, syscall.Kill(m.PID(), syscall.SIGKILL))
		require.Equal(t, driver.ReasonEngineCrash, end(t, m).Reason, "a kill that nobody asked for")
	})
	t.Run("a start that is given up", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := s.Driver.Start(ctx, driver.StartSpec{ID: "hasty", Manifest: s.Template.Manifest, Handles: s.Template.Handles, RunDir: filepath.Join(t.TempDir(), "run")})
		require.Error(t, err)
	})
}

// leakRounds is how many clones are made one after another.
const leakRounds = 20

// testLeaks: machines that ended leave no process, no file descriptor and no
// file behind.
func testLeaks(t *testing.T, s Subject) {
	dir := t.TempDir()
	round := func(i int) {
		m, err := s.Driver.Start(t.Context(), driver.StartSpec{
			ID: fmt.Sprintf("leak-%d", i), Manifest: s.Template.Manifest, Handles: s.Template.Handles, RunDir: filepath.Join(dir, strconv.Itoa(i)),
		})
		require.NoError(t, err)
		c, err := m.Guest(t.Context())
		require.NoError(t, err)
		_, err = c.Info(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, m.Close())
	}
	round(0) // whatever is made once is made now
	fds, children := openFiles(t), childProcesses(t)
	for i := range leakRounds {
		round(i + 1)
	}
	require.Eventually(t, func() bool { return openFiles(t) <= fds && childProcesses(t) <= children }, 10*time.Second, 50*time.Millisecond,
		"%d open files and %d processes before", fds, children)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func openFiles(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

// childProcesses counts this process's children.
func childProcesses(t testing.TB) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	n := 0
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			n++
		}
	}
	return n
}
