package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
)

// TestSandboxOfASession follows sessions through claim, use, save, loss and end.
// The sub-tests share a control plane; each has a tenant of its own.
func TestSandboxOfASession(t *testing.T) {
	r := newRig(t)
	sub := func(name string, f func(t *testing.T, tn *tenant)) {
		t.Run(name, func(t *testing.T) {
			outer := r.t
			r.t = t
			defer func() { r.t = outer }()
			tn := r.tenant()
			defer func() {
				_, err := r.service.Kill(context.WithoutCancel(t.Context()), tn.org, tn.session, sandbox.ReasonReleased)
				require.NoError(t, err)
			}()
			f(t, tn)
		})
	}
	sub("a warm one is claimed and the pool refills", testClaim)
	sub("an admission is needed, once, for this effect", testAdmission)
	sub("files are saved and come back", testSaveAndRestore)
	sub("a machine that dies loses what was not saved, and says so", testMachineKilled)
	sub("an allocation that dies takes its machine along", testAllocationKilled)
	sub("a newer lease takes over", testFencing)
	sub("a new worker attaches to what the old one began", testReattach)
	sub("a kill is proved", testKill)
	sub("a damaged save is an error, not an empty directory", testDamagedArchive)
	sub("another organisation sees nothing", testOtherTenant)
}

func testClaim(t *testing.T, tn *tenant) {
	r := tn.r
	r.awaitWarm(1)
	first := r.warmOnes()[0]
	b, err := tn.acquire(1)
	require.NoError(t, err)
	require.Equal(t, first, string(b.ID))
	require.True(t, b.Fresh)
	require.Equal(t, "hello from /work", tn.must(b, `echo "hello from $PWD"`))

	again, err := tn.acquire(1)
	require.NoError(t, err)
	require.Equal(t, b.ID, again.ID)
	require.False(t, again.Fresh)
	require.Len(t, tn.events("sandbox.started"), 1)
	r.awaitWarm(1)
	require.NotEqual(t, first, r.warmOnes()[0])

	now, err := strconv.ParseInt(tn.must(b, "date +%s"), 10, 64)
	require.NoError(t, err)
	require.InDelta(t, time.Now().Unix(), now, 5, "the clock was set at the claim")
}

func testAdmission(t *testing.T, tn *tenant) {
	b, err := tn.acquire(1)
	require.NoError(t, err)
	_, err = b.Begin(nil, gate.ToolCall, gate.Digest{1})
	require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)
	adm, digest := tn.admit(tn.session, 1, "eff-once", "args")
	_, err = b.Begin(adm, gate.ToolCall, gate.Digest{2})
	require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)
	e, err := b.Begin(adm, gate.ToolCall, digest)
	require.NoError(t, err)
	_, err = b.Begin(adm, gate.ToolCall, digest)
	require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)

	// Of one effect there is one command, however often it is asked for.
	res, err := e.Exec(t.Context(), sandbox.ExecSpec{Script: "echo once >> log"}, nil)
	require.NoError(t, err)
	require.Zero(t, res.ExitCode)
	_, err = e.Exec(t.Context(), sandbox.ExecSpec{Script: "echo once >> log"}, nil)
	require.NoError(t, err)
	_, err = e.Exec(t.Context(), sandbox.ExecSpec{Script: "echo twice >> log"}, nil)
	require.True(t, guest.IsCode(err, guest.CodeEffectMismatch), "%v", err)
	require.Equal(t, "once", tn.must(b, "cat log"))

	other := tn.newSession()
	strange, digest := tn.admit(other, 1, "eff-strange", "args")
	_, err = b.Begin(strange, gate.ToolCall, digest)
	require.ErrorContains(t, err, "another session")
}

func testSaveAndRestore(t *testing.T, tn *tenant) {
	r := tn.r
	_, err := r.service.Files(t.Context(), tn.org, tn.session)
	require.ErrorIs(t, err, sandbox.ErrNoFiles)
	b, err := tn.acquire(1)
	require.NoError(t, err)
	e := tn.begin(b, "eff-files")
	_, err = e.WriteFile(t.Context(), guest.WriteRequest{Path: "notes/a.txt", Parents: true}, []byte("alpha\n"))
	require.NoError(t, err)
	tn.must(b, "ln -s a.txt notes/link; head -c 300000 /dev/urandom > big; chmod 750 notes; sha256sum big > sum")
	sum := tn.must(b, "cat sum")

	live, err := r.service.Files(t.Context(), tn.org, tn.session)
	require.NoError(t, err)
	require.True(t, live.Live())
	fromLive, err := live.List(t.Context(), guest.ListRequest{Path: ".", Recursive: true})
	require.NoError(t, err)

	first, err := r.service.SaveWorkdir(t.Context(), tn.org, tn.session, "checkpoint")
	require.NoError(t, err)
	require.EqualValues(t, 1, first.Seq)
	require.EqualValues(t, 3, first.Files)
	same, err := r.service.SaveWorkdir(t.Context(), tn.org, tn.session, "checkpoint")
	require.NoError(t, err)
	require.Equal(t, first.Seq, same.Seq, "nothing has changed")
	checkpoints := tn.events("checkpoint.created")
	require.Len(t, checkpoints, 1, "what has not changed is no new checkpoint")
	var checkpoint journal.CheckpointCreated
	require.NoError(t, json.Unmarshal(checkpoints[0], &checkpoint))
	_, err = id.Parse[id.Checkpoint](string(checkpoint.Checkpoint))
	require.NoError(t, err)
	checkpoint.Checkpoint = ""
	require.Equal(t, journal.CheckpointCreated{
		Sandbox: b.ID, SHA256: first.Sum.String(), Bytes: first.Bytes, ContentBytes: first.ContentBytes, Files: 3, Reason: "checkpoint",
	}, checkpoint)
	require.Equal(t, map[id.Session]id.Sandbox{tn.session: b.ID}, tn.live())

	require.NoError(t, r.service.Release(t.Context(), tn.org, tn.session, sandbox.ReasonIdle))
	require.Equal(t, "ended", tn.row(b.ID).State)
	require.Equal(t, "idle", tn.row(b.ID).Reason)
	require.True(t, tn.row(b.ID).Gone)
	require.Empty(t, machines(b.ID))
	require.Empty(t, tn.live())
	require.Len(t, tn.events("checkpoint.created"), 1)
	var ended journal.SandboxEnded
	require.NoError(t, json.Unmarshal(tn.events("sandbox.ended")[0], &ended))
	require.Equal(t, first.Sum.String(), ended.SavedSHA256)
	require.Nil(t, ended.LostSince)

	// A person sees the same in the archive as in the machine.
	saved, err := r.service.Files(t.Context(), tn.org, tn.session)
	require.NoError(t, err)
	require.False(t, saved.Live())
	fromArchive, err := saved.List(t.Context(), guest.ListRequest{Path: ".", Recursive: true})
	require.NoError(t, err)
	require.Equal(t, fromLive, fromArchive)
	file, err := saved.Read(t.Context(), guest.ReadRequest{Path: "/work/notes/a.txt", Offset: 2, Limit: 3})
	require.NoError(t, err)
	require.Equal(t, "pha", string(file.Data))
	_, err = saved.Read(t.Context(), guest.ReadRequest{Path: "../etc/passwd"})
	require.True(t, guest.IsCode(err, guest.CodeOutsideWork), "%v", err)
	_, err = saved.Stat(t.Context(), "nothing")
	require.True(t, guest.IsCode(err, guest.CodeNotFound), "%v", err)

	again, err := tn.acquire(2)
	require.NoError(t, err)
	require.NotEqual(t, b.ID, again.ID)
	require.Equal(t, first.Sum, again.Restored.Sum)
	require.Equal(t, sum, tn.must(again, "sha256sum big"))
	require.Equal(t, "alpha", tn.must(again, "cat notes/link"))
	back, err := r.service.SaveWorkdir(t.Context(), tn.org, tn.session, "checkpoint")
	require.NoError(t, err)
	require.Equal(t, first.Sum, back.Sum, "restored byte for byte")
}

func testMachineKilled(t *testing.T, tn *tenant) {
	r := tn.r
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo saved > kept")
	saved, err := r.service.SaveWorkdir(t.Context(), tn.org, tn.session, "checkpoint")
	require.NoError(t, err)
	tn.must(b, "echo unsaved > lost")

	running := make(chan struct{})
	result := make(chan error, 1)
	e := tn.begin(b, "eff-doomed")
	go func() {
		_, err := e.Exec(context.WithoutCancel(t.Context()), sandbox.ExecSpec{Script: "echo begun; sleep 60"}, func(guest.Chunk) error {
			close(running)
			return nil
		})
		result <- err
	}()
	<-running
	kill9(t, r.qemuOf(b.ID))
	require.ErrorIs(t, <-result, sandbox.ErrLost)

	r.eventually(15*time.Second, "the end is recorded", func() bool { return tn.row(b.ID).State == "ended" })
	require.Equal(t, "engine_crash", tn.row(b.ID).Reason)
	var ended journal.SandboxEnded
	require.NoError(t, json.Unmarshal(tn.events("sandbox.ended")[0], &ended))
	require.NotNil(t, ended.LostSince)
	require.WithinDuration(t, saved.CreatedAt, *ended.LostSince, 10*time.Second)
	r.eventually(15*time.Second, "the proof", func() bool { return tn.row(b.ID).Gone })

	next, err := tn.acquire(2)
	require.NoError(t, err)
	require.Equal(t, "kept", tn.must(next, "ls"))
	_, err = next.Attach(t.Context(), "eff-doomed", nil)
	require.Error(t, err, "the new machine never ran it")
}

func testAllocationKilled(t *testing.T, tn *tenant) {
	r := tn.r
	b, err := tn.acquire(1)
	require.NoError(t, err)
	qemu := r.qemuOf(b.ID)
	kill9(t, r.allocationOf(b.ID))
	r.eventually(10*time.Second, "the machine is gone too", func() bool {
		_, err := os.Stat(filepath.Join("/proc", itoa(qemu)))
		return errors.Is(err, os.ErrNotExist)
	})
	r.eventually(20*time.Second, "the end is recorded", func() bool { return tn.row(b.ID).Gone })
	got := tn.row(b.ID)
	require.Equal(t, sandbox.ReasonAllocFailed, got.Reason, got.Detail)
	require.Contains(t, got.Proof, `"nomad"`)
	next, err := tn.acquire(1)
	require.NoError(t, err)
	require.NotEqual(t, b.ID, next.ID)
	tn.must(next, "true")
}

func testFencing(t *testing.T, tn *tenant) {
	old, err := tn.acquire(1)
	require.NoError(t, err)
	begun := make(chan struct{})
	cut := make(chan error, 1)
	e := tn.begin(old, "eff-old")
	late := tn.begin(old, "eff-late")
	go func() {
		_, err := e.Exec(context.WithoutCancel(t.Context()), sandbox.ExecSpec{Script: "echo begun; sleep 600"}, func(guest.Chunk) error {
			close(begun)
			return nil
		})
		cut <- err
	}()
	<-begun
	newer, err := tn.acquire(2)
	require.NoError(t, err)
	require.Equal(t, old.ID, newer.ID)
	require.ErrorIs(t, <-cut, sandbox.ErrFenced, "what the old lease had open was cut off")
	_, err = late.Exec(t.Context(), sandbox.ExecSpec{Script: "echo late > late"}, nil)
	require.ErrorIs(t, err, sandbox.ErrFenced)
	_, err = tn.acquire(1)
	require.ErrorIs(t, err, sandbox.ErrFenced)
	require.Empty(t, tn.must(newer, "ls"), "nothing of the old lease's was done")
	require.NoError(t, newer.Signal(t.Context(), "eff-old", 9))
}

func testReattach(t *testing.T, tn *tenant) {
	b, err := tn.acquire(1)
	require.NoError(t, err)
	e := tn.begin(b, "eff-long")
	ctx, dies := context.WithCancel(t.Context())
	_, err = e.Exec(ctx, sandbox.ExecSpec{Script: "echo one; until [ -e go ]; do sleep 0.05; done; echo two; exit 3"}, func(guest.Chunk) error {
		dies() // the worker is gone
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)

	newer, err := tn.acquire(2)
	require.NoError(t, err)
	go func() { _, _, _ = tn.sh(newer, "touch go") }()
	var out bytes.Buffer
	res, err := newer.Attach(t.Context(), "eff-long", func(c guest.Chunk) error { out.Write(c.Data); return nil })
	require.NoError(t, err)
	require.Equal(t, 3, res.ExitCode)
	require.Equal(t, "one\ntwo\n", out.String())
	again, err := newer.Attach(t.Context(), "eff-long", nil)
	require.NoError(t, err, "the result is kept")
	require.Equal(t, 3, again.ExitCode)
	kept, err := newer.ReadOutput(t.Context(), "eff-long", 4, 0)
	require.NoError(t, err)
	require.Equal(t, "two\n", string(kept))
}

func testKill(t *testing.T, tn *tenant) {
	r := tn.r
	b, err := tn.acquire(1)
	require.NoError(t, err)
	pid := r.qemuOf(b.ID)
	began := time.Now()
	gone, err := r.service.Kill(t.Context(), tn.org, tn.session, sandbox.ReasonKilled)
	require.NoError(t, err)
	t.Logf("killed and proved in %s: %+v", time.Since(began), *gone)
	require.Equal(t, "allocation", gone.By)
	require.NoFileExists(t, filepath.Join("/proc", itoa(pid), "stat"))
	require.Equal(t, "killed", tn.row(b.ID).Reason)
	_, _, err = tn.sh(b, "true")
	require.ErrorIs(t, err, sandbox.ErrLost)
	nothing, err := r.service.Kill(t.Context(), tn.org, tn.session, sandbox.ReasonKilled)
	require.NoError(t, err)
	require.Nil(t, nothing)
}

func testDamagedArchive(t *testing.T, tn *tenant) {
	r := tn.r
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo precious > file")
	require.NoError(t, r.service.Release(t.Context(), tn.org, tn.session, sandbox.ReasonIdle))
	last, err := r.service.LastArchive(t.Context(), tn.org, tn.session)
	require.NoError(t, err)
	path := filepath.Join(r.blobDir, "blobs", string(tn.org), last.Sum.String()[:2], last.Sum.String())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o600))

	_, err = tn.acquire(2)
	require.ErrorContains(t, err, "damaged")
	require.True(t, fault.IsCode(err, "internal"))
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o600))
	again, err := tn.acquire(3)
	require.NoError(t, err)
	require.Equal(t, "precious", tn.must(again, "cat file"))
}

func testOtherTenant(t *testing.T, tn *tenant) {
	r := tn.r
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo secret > file")
	_, err = r.service.SaveWorkdir(t.Context(), tn.org, tn.session, "checkpoint")
	require.NoError(t, err)
	other := r.tenant()
	_, err = r.service.Files(t.Context(), other.org, tn.session)
	require.ErrorIs(t, err, sandbox.ErrNoFiles)
	_, err = r.service.Acquire(t.Context(), sandbox.AcquireInput{Org: other.org, Project: other.project, Session: tn.session, Epoch: 9})
	require.True(t, fault.IsCode(err, "not_found"), "%v", err)
	gone, err := r.service.Kill(t.Context(), other.org, tn.session, sandbox.ReasonKilled)
	require.NoError(t, err)
	require.Nil(t, gone)
	require.Equal(t, "secret", strings.TrimSpace(tn.must(b, "cat file")))
}
