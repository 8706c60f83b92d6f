package conformance

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// Subject is a driver under test, with a template of a machine that has bash,
// coreutils, grep, procps and python3, and 256 MiB of memory or more.
type Subject struct {
	Driver   driver.Driver
	Template *driver.Template
}

// patience bounds every single step of the suite. It is long because a software
// CPU on a busy machine is slow; nothing waits for it when all is well.
const patience = 2 * time.Minute

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"probe", testProbe},
		{"template", testTemplate},
		{"commands", testCommands},
		{"command trees", testTrees},
		{"re-attachment", testReattach},
		{"fencing", testFencing},
		{"files", testFiles},
		{"paths", testPaths},
		{"archives", testArchives},
		{"misbehaviour", testMisbehaviour},
		{"isolation", testIsolation},
		{"clones", testClones},
		{"channel", testChannel},
		{"ends", testEnds},
		{"nothing leaks", testLeaks},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, s) })
	}
}

// box is a running, configured sandbox of a test.
type box struct {
	t       testing.TB
	ctx     context.Context //nolint:containedctx // a test's
	machine driver.Machine
	client  *guest.Client
	keys    atomic.Int64
}

var serial atomic.Int64

// start clones a machine that ends with the test.
func (s Subject) start(t testing.TB, paused bool) driver.Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := s.Driver.Start(ctx, driver.StartSpec{
		ID: fmt.Sprintf("conformance-%d", serial.Add(1)), Manifest: s.Template.Manifest, Handles: s.Template.Handles,
		RunDir: filepath.Join(t.TempDir(), "run"), Paused: paused,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// open starts a sandbox and configures it.
func (s Subject) open(t testing.TB) *box {
	t.Helper()
	m := s.start(t, false)
	b := &box{t: t, ctx: t.Context(), machine: m}
	b.client = b.dial()
	b.configure(guest.Configuration{SandboxID: m.ID(), Epoch: 1})
	return b
}

// dial opens a connection of its own, which cuts the one before.
func (b *box) dial() *guest.Client {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	c, err := b.machine.Guest(ctx)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *box) configure(cfg guest.Configuration) {
	b.t.Helper()
	_, err := b.client.Configure(b.ctx, cfg)
	require.NoError(b.t, err)
}

// key is an effect key that no other command of this box has.
func (b *box) key() string { return fmt.Sprintf("eff_%d", b.keys.Add(1)) }

// output is what a command said and how it ended.
type output struct {
	*guest.ExecResult
	stdout, stderr string
}

// sh runs a script.
func (b *box) sh(script string) output {
	b.t.Helper()
	return b.run(guest.ExecRequest{Script: script})
}

// run runs a request, under a new key when it has none.
func (b *box) run(req guest.ExecRequest) output {
	b.t.Helper()
	out, err := b.try(b.client, req)
	require.NoError(b.t, err)
	return out
}

func (b *box) try(c *guest.Client, req guest.ExecRequest) (output, error) {
	if req.EffectKey == "" {
		req.EffectKey = b.key()
	}
	if req.Epoch == 0 {
		req.Epoch = 1
	}
	if req.TimeLimit == 0 {
		req.TimeLimit = patience
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience+time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	res, err := c.Run(ctx, req, &stdout, &stderr)
	return output{res, stdout.String(), stderr.String()}, err
}

// alive proves that the sandbox still works.
func (b *box) alive() {
	b.t.Helper()
	out := b.sh("echo still here")
	require.Equal(b.t, "still here\n", out.stdout)
	require.Zero(b.t, out.ExitCode)
}

// attach waits for a command's end.
func (b *box) attach(key string) output {
	b.t.Helper()
	cmd, err := b.client.Attach(b.ctx, guest.AttachRequest{EffectKey: key, Epoch: 1})
	require.NoError(b.t, err)
	var stdout, stderr bytes.Buffer
	res, err := cmd.Wait(&stdout, &stderr)
	require.NoError(b.t, err)
	return output{res, stdout.String(), stderr.String()}
}

func (b *box) write(path, content string) {
	b.t.Helper()
	_, err := b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: path, Epoch: 1, Parents: true}, []byte(content))
	require.NoError(b.t, err)
}

func (b *box) read(path string) string {
	b.t.Helper()
	res, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: path})
	require.NoError(b.t, err)
	return string(res.Data)
}

// requireCode asserts which refusal an error is.
func requireCode(t testing.TB, code guest.Code, err error, msg ...any) {
	t.Helper()
	require.Error(t, err, msg...)
	require.Truef(t, guest.IsCode(err, code), "want %s, got: %v %v", code, err, msg)
}
