package conformance

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/guest"
)

// testReattach: a command belongs to its effect key, not to a connection.
func testReattach(t *testing.T, s Subject) {
	b := s.open(t)
	req := guest.ExecRequest{EffectKey: "eff_long", Epoch: 1, Script: "echo run >> runs; echo first; while [ ! -e go ]; do sleep 0.05; done; echo second >&2; exit 5"}

	cmd, err := b.client.Exec(b.ctx, req)
	require.NoError(t, err)
	require.False(t, cmd.Reattached)
	chunk, err := cmd.Next()
	require.NoError(t, err)
	require.Equal(t, "first\n", string(chunk.Data))

	t.Run("the client's context ends, the command does not", func(t *testing.T) {
		ctx, cancel := context.WithCancel(b.ctx)
		other, err := b.client.Attach(ctx, guest.AttachRequest{EffectKey: req.EffectKey, Epoch: 1})
		require.NoError(t, err)
		require.True(t, other.Reattached)
		cancel()
		_, err = other.Wait(nil, nil)
		require.ErrorIs(t, err, context.Canceled)
	})

	require.NoError(t, b.client.Close())
	_, err = cmd.Next()
	require.ErrorIs(t, err, guest.ErrDisconnected)
	b.client = b.dial()

	t.Run("the same request attaches instead of running again", func(t *testing.T) {
		again, err := b.client.Exec(b.ctx, req)
		require.NoError(t, err)
		require.True(t, again.Reattached)
		b.write("go", "")
		var stdout, stderr bytes.Buffer
		res, err := again.Wait(&stdout, &stderr)
		require.NoError(t, err)
		require.Equal(t, 5, res.ExitCode)
		require.Equal(t, "first\n", stdout.String(), "output is replayed from the start")
		require.Equal(t, "second\n", stderr.String())
	})
	t.Run("a finished command keeps its result", func(t *testing.T) {
		b.client = b.dial()
		for _, epoch := range []int64{1, 2} {
			req.Epoch = epoch
			out := b.run(req)
			require.Equal(t, 5, out.ExitCode)
			require.Equal(t, "first\n", out.stdout)
			require.Equal(t, "second\n", out.stderr)
		}
		require.Equal(t, "run\n", b.read("runs"), "it ran once")
		data, err := b.client.ReadOutput(b.ctx, req.EffectKey, 6, 3)
		require.NoError(t, err)
		require.Equal(t, "sec", string(data))
	})
	t.Run("another command under the key is refused", func(t *testing.T) {
		req := req
		req.Script += " "
		_, err := b.try(b.client, req)
		requireCode(t, guest.CodeEffectMismatch, err)
	})
	t.Run("an unknown key", func(t *testing.T) {
		_, err := b.client.Attach(b.ctx, guest.AttachRequest{EffectKey: "eff_never", Epoch: 2})
		requireCode(t, guest.CodeEffectUnknown, err)
	})
}

// testFencing: whoever speaks at a lower epoch than the highest seen has lost
// its lease.
func testFencing(t *testing.T, s Subject) {
	m := s.start(t, false)
	b := &box{t: t, ctx: t.Context(), machine: m}
	b.client = b.dial()
	_, err := b.try(b.client, guest.ExecRequest{Script: "true"})
	requireCode(t, guest.CodeUnconfigured, err, "a clone runs nothing before it is somebody's")
	_, err = b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "x"})
	requireCode(t, guest.CodeUnconfigured, err)
	info, err := b.client.Info(b.ctx)
	require.NoError(t, err)
	require.False(t, info.Configured)
	require.Equal(t, guest.ProtocolVersion, info.Protocol)

	b.configure(guest.Configuration{SandboxID: "sbx_a", Epoch: 5})
	_, err = b.client.Configure(b.ctx, guest.Configuration{SandboxID: "sbx_b", Epoch: 6})
	requireCode(t, guest.CodeInvalid, err, "it is another's")
	_, err = b.client.Configure(b.ctx, guest.Configuration{SandboxID: "sbx_a", Epoch: 4})
	requireCode(t, guest.CodeStaleEpoch, err)
	_, err = b.client.Configure(b.ctx, guest.Configuration{SandboxID: "sbx_a", Epoch: 5, Entropy: []byte("short")})
	requireCode(t, guest.CodeInvalid, err)

	require.Zero(t, b.run(guest.ExecRequest{EffectKey: "eff_at_5", Epoch: 5, Script: "true"}).ExitCode)
	require.Zero(t, b.run(guest.ExecRequest{Epoch: 8, Script: "echo kept > file"}).ExitCode, "a higher epoch takes over")
	info, err = b.client.Info(b.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 8, info.Epoch)
	require.Equal(t, "sbx_a", info.SandboxID)

	for name, try := range map[string]func() error{
		"exec": func() error { _, err := b.try(b.client, guest.ExecRequest{Epoch: 7, Script: "rm file"}); return err },
		"the same": func() error {
			_, err := b.try(b.client, guest.ExecRequest{EffectKey: "eff_at_5", Epoch: 5, Script: "true"})
			return err
		},
		"attach": func() error {
			_, err := b.client.Attach(b.ctx, guest.AttachRequest{EffectKey: "eff_at_5", Epoch: 7})
			return err
		},
		"signal": func() error {
			return b.client.Signal(b.ctx, guest.SignalRequest{EffectKey: "eff_at_5", Epoch: 7, Signal: 9})
		},
		"write": func() error {
			_, err := b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "file", Epoch: 7}, []byte("lost"))
			return err
		},
		"remove": func() error { return b.client.Remove(b.ctx, guest.RemoveRequest{Path: "file", Epoch: 7}) },
		"restore": func() error {
			_, err := b.client.Restore(b.ctx, guest.RestoreRequest{Epoch: 7, Bytes: 1, SHA256: "x"}, strings.NewReader("x"))
			return err
		},
		"configure": func() error {
			_, err := b.client.Configure(b.ctx, guest.Configuration{SandboxID: "sbx_a", Epoch: 7})
			return err
		},
	} {
		requireCode(t, guest.CodeStaleEpoch, try(), name)
	}
	require.Equal(t, "kept\n", b.read("file"))
}
