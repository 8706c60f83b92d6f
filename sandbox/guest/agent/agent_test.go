package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/sandbox/guest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an agent on this machine, without a virtual one round it: no cgroups,
// no other user. The conformance suite has those.
type rig struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // a test's
	server *Server
	client *guest.Client
	work   string
	keys   int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, work: filepath.Join(dir, "work")}
	for _, d := range []string{"work", "state", "scripts"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r.ctx = ctx
	var err error
	r.server, err = New(Config{
		WorkDir: r.work, StateDir: filepath.Join(dir, "state"), ScriptDir: filepath.Join(dir, "scripts"),
		UID: os.Geteuid(), GID: os.Getegid(), MaxProcesses: 64, Version: "test",
		SetClock: func(time.Time) error { return nil }, AddEntropy: func([]byte) error { return nil },
		SetHostname: func(string) error { return nil }, ResizeWork: func(int) error { return nil }, PowerOff: func() {},
		Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	host, served := r.connect()
	r.client, err = guest.Dial(ctx, host)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = r.client.Close()
		<-served
		require.NoError(t, r.server.Close())
		cancel()
	})
	_, err = r.client.Configure(ctx, guest.Configuration{SandboxID: "sbx_test", Epoch: 1})
	require.NoError(t, err)
	return r
}

// connect serves one connection and returns the host's end of it.
func (r *rig) connect() (net.Conn, <-chan struct{}) {
	r.t.Helper()
	l, err := net.Listen("unix", filepath.Join(r.t.TempDir(), "s"))
	require.NoError(r.t, err)
	defer l.Close() //nolint:errcheck // a test's
	host, err := net.Dial("unix", l.Addr().String())
	require.NoError(r.t, err)
	conn, err := l.Accept()
	require.NoError(r.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer conn.Close() //nolint:errcheck // a test's
		if _, err := guest.AcceptHandshake(conn); err == nil {
			_ = r.server.Serve(conn)
		}
	}()
	return host, served
}

func (r *rig) sh(script string) (string, *guest.ExecResult) {
	r.t.Helper()
	r.keys++
	var out bytes.Buffer
	res, err := r.client.Run(r.ctx, guest.ExecRequest{EffectKey: fmt.Sprintf("eff_%d", r.keys), Epoch: 1, Script: script, TimeLimit: 20 * time.Second}, &out, &out)
	require.NoError(r.t, err)
	return out.String(), res
}

func TestCommandAndItsSession(t *testing.T) {
	r := newRig(t)
	out, res := r.sh("echo one; echo two >&2; sleep 1000 & exit 3")
	require.ElementsMatch(t, []string{"one", "two"}, strings.Fields(out), "the two streams are two pipes: no order between them")
	require.Equal(t, 3, res.ExitCode)

	var stdout bytes.Buffer
	res, err := r.client.Run(r.ctx, guest.ExecRequest{EffectKey: "eff_slow", Epoch: 1, Script: "trap '' TERM; echo up; sleep 1000; sleep 1000", TimeLimit: 100 * time.Millisecond}, &stdout, nil)
	require.NoError(t, err)
	require.True(t, res.TimedOut)
	require.Equal(t, "SIGKILL", res.Signal)
}

func TestOldOutputMakesRoom(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		_, err := r.client.Run(r.ctx, guest.ExecRequest{
			EffectKey: fmt.Sprintf("eff_big_%d", i), Epoch: 1, Script: "head -c 7000000 /dev/zero", OutputLimit: 100,
		}, nil, nil)
		require.NoError(t, err)
	}
	first, err := r.client.ReadOutput(r.ctx, "eff_big_0", 0, 10)
	require.NoError(t, err)
	require.Empty(t, first, "the oldest is gone")
	last, err := r.client.ReadOutput(r.ctx, "eff_big_4", 6_999_995, 10)
	require.NoError(t, err)
	require.Len(t, last, 5)
	cmd, err := r.client.Attach(r.ctx, guest.AttachRequest{EffectKey: "eff_big_0", Epoch: 1})
	require.NoError(t, err)
	res, err := cmd.Wait(nil, nil)
	require.NoError(t, err, "its result is not")
	require.EqualValues(t, 7_000_000, res.StdoutBytes)
	require.EqualValues(t, 7_000_000, res.Dropped)
	require.True(t, res.Truncated)
}

// TestManyCommands: results are small, and stay.
func TestManyCommands(t *testing.T) {
	r := newRig(t)
	for range 100 {
		_, res := r.sh(":")
		require.Zero(t, res.ExitCode)
	}
	require.Len(t, r.server.effects.all(), 100)
	require.Zero(t, r.server.runningCommands())
}

// TestHostileArchives: an archive is bytes from outside like any other.
func TestHostileArchives(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for name, entries := range map[string][]tar.Header{
		"climbing":              {{Name: "../evil", Typeflag: tar.TypeReg}},
		"absolute":              {{Name: "/tmp/evil-ambit-test", Typeflag: tar.TypeReg}},
		"climbing in between":   {{Name: "a/../../evil", Typeflag: tar.TypeReg}},
		"itself":                {{Name: ".", Typeflag: tar.TypeDir}},
		"through a link":        {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: filepath.Dir(outside)}, {Name: "l/outside", Typeflag: tar.TypeReg}},
		"over a link":           {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l", Typeflag: tar.TypeReg}},
		"device":                {{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"hard link":             {{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"the same twice":        {{Name: "f", Typeflag: tar.TypeReg}, {Name: "f", Typeflag: tar.TypeReg}},
		"a file as a directory": {{Name: "f", Typeflag: tar.TypeReg}, {Name: "f/g", Typeflag: tar.TypeReg}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.NoError(t, os.WriteFile(filepath.Join(r.work, "before"), nil, 0o600))
			archive := pack(t, entries)
			sum := sha256.Sum256(archive)
			_, err := r.client.Restore(r.ctx, guest.RestoreRequest{Epoch: 1, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(archive))}, bytes.NewReader(archive))
			require.Error(t, err)
			left, err := os.ReadDir(r.work)
			require.NoError(t, err)
			require.Empty(t, left)
			require.NoFileExists(t, outside)
			require.NoFileExists(t, filepath.Join(filepath.Dir(r.work), "evil"))
		})
	}
}

func pack(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	require.NoError(t, err)
	w := tar.NewWriter(z)
	for _, h := range entries {
		h.Mode = 0o4777 // a set-uid bit must not survive either
		require.NoError(t, w.WriteHeader(&h))
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestRestoreDropsSetUID(t *testing.T) {
	r := newRig(t)
	archive := pack(t, []tar.Header{{Name: "f", Typeflag: tar.TypeReg}})
	sum := sha256.Sum256(archive)
	_, err := r.client.Restore(r.ctx, guest.RestoreRequest{Epoch: 1, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(archive))}, bytes.NewReader(archive))
	require.NoError(t, err)
	fi, err := os.Stat(filepath.Join(r.work, "f"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o777), fi.Mode())
}

// TestBrokenClients: whatever a stream carries, the agent answers the next one.
func TestBrokenClients(t *testing.T) {
	r := newRig(t)
	host, served := r.connect()
	// The raw protocol, below the client: handshake by hand, then yamux.
	nonce := "00112233445566778899aabbccddeeff"
	_, err := io.WriteString(host, "AMBIT 1 HELLO "+nonce+"\nAMBIT 1 GO "+nonce+"\n")
	require.NoError(t, err)
	answer := make([]byte, len("AMBIT 1 HELLO "+nonce+"\nAMBIT 1 OK "+nonce+"\n"))
	_, err = io.ReadFull(host, answer)
	require.NoError(t, err)
	mux, err := yamux.Client(host, guest.MuxConfig())
	require.NoError(t, err)
	defer func() {
		_ = mux.Close()
		<-served
	}()

	for name, in := range map[string][]byte{
		"no frame":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"too long":              {1, 0xff, 0xff, 0xff, 0xff},
		"data first":            {5, 0, 0, 0, 1, 'x'},
		"unknown operation":     request(`{"op":"format_disk"}`),
		"body of another":       request(`{"op":"exec","body":[1,2]}`),
		"body that is no JSON":  request(`{"op":"list","body":{"limit":"many"}}`),
		"negative":              request(`{"op":"read_file","body":{"path":"x","offset":-1}}`),
		"size below content":    append(request(`{"op":"write_file","body":{"path":"x","epoch":1,"size":1}}`), 5, 0, 0, 0, 3, 'a', 'b', 'c'),
		"frame of another kind": append(request(`{"op":"write_file","body":{"path":"x","epoch":1,"size":1}}`), 3, 0, 0, 0, 1, 'a'),
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := mux.OpenStream()
			require.NoError(t, err)
			defer stream.Close() //nolint:errcheck // a test's
			require.NoError(t, stream.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = stream.Write(in)
			require.NoError(t, err)
			typ, p, err := guest.NewFrameReader(stream).Next()
			require.NoError(t, err)
			require.Equal(t, guest.FrameError, typ, string(p))
			require.Contains(t, string(p), string(guest.CodeInvalid))
		})
	}
	t.Run("silence", func(t *testing.T) {
		stream, err := mux.OpenStream()
		require.NoError(t, err)
		require.NoError(t, stream.Close())
	})
	_, err = os.Stat(filepath.Join(r.work, "x"))
	require.ErrorIs(t, err, os.ErrNotExist)
	out, _ := r.sh("echo fine")
	require.Equal(t, "fine\n", out)
}

func request(s string) []byte {
	var b bytes.Buffer
	_ = guest.WriteFrame(&b, guest.FrameRequest, []byte(s))
	return b.Bytes()
}

// TestEarlyRefusal: a guest that refuses an upload at its first byte does not
// leave the client waiting for room to send the rest.
func TestEarlyRefusal(t *testing.T) {
	r := newRig(t)
	require.NoError(t, os.Mkdir(filepath.Join(r.work, "dir"), 0o700))
	_, err := r.client.WriteFile(r.ctx, guest.WriteRequest{Path: "dir", Epoch: 1, Size: 32 << 20}, io.LimitReader(endless{}, 32<<20))
	require.True(t, guest.IsCode(err, guest.CodeNotRegular), err)
	_, err = r.client.WriteFile(r.ctx, guest.WriteRequest{Path: "x", Epoch: 0, Size: 32 << 20}, io.LimitReader(endless{}, 32<<20))
	require.True(t, guest.IsCode(err, guest.CodeStaleEpoch), err)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestWalkOrder(t *testing.T) {
	r := newRig(t)
	for _, p := range []string{"a/x", "a-b/x", "a.b", "b"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(r.work, p)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(r.work, p), nil, 0o600))
	}
	want := []string{"a", "a/x", "a-b", "a-b/x", "a.b", "b"}
	for limit := 1; limit <= len(want); limit++ {
		var got []string
		after := ""
		for {
			page, err := r.client.List(r.ctx, guest.ListRequest{Recursive: true, Limit: limit, After: after})
			require.NoError(t, err)
			for _, e := range page.Entries {
				got = append(got, e.Path)
				after = e.Path
			}
			if !page.More {
				break
			}
		}
		require.Equal(t, want, got, limit)
	}
}

func TestNamesThatAreHardToList(t *testing.T) {
	r := newRig(t)
	want := 0
	for i := range 300 { // longer together than a frame
		name := fmt.Sprintf("%03d", i) + strings.Repeat("\x01", 240)
		require.NoError(t, os.WriteFile(filepath.Join(r.work, name), nil, 0o600))
		want++
	}
	for _, name := range []string{"bad\xff", "bad\xfe", "bad\xffdir/x", "bae"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(r.work, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(r.work, name), nil, 0o600))
	}
	for _, limit := range []int{0, 2, 3} {
		seen := map[string]bool{}
		after, pages := "", 0
		for {
			page, err := r.client.List(r.ctx, guest.ListRequest{Recursive: true, Limit: limit, After: after})
			require.NoError(t, err)
			for _, e := range page.Entries {
				seen[e.Path] = true
				after = e.Path
			}
			if pages++; !page.More {
				break
			}
			require.Less(t, pages, 400, "the cursor moves on")
		}
		require.Len(t, seen, want+4) // "bad\ufffd" stands for two
	}
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	errs := make(chan error, 40)
	for i := range cap(errs) {
		go func() {
			res, err := r.client.Run(r.ctx, guest.ExecRequest{EffectKey: fmt.Sprintf("eff_at_once_%d", i), Epoch: 1, Script: "exit 7"}, nil, nil)
			if err == nil && res.ExitCode != 7 {
				err = fmt.Errorf("exit code %d", res.ExitCode)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}

func TestRequestsThatAreTooLong(t *testing.T) {
	r := newRig(t)
	_, err := r.client.Exec(r.ctx, guest.ExecRequest{EffectKey: "eff_long", Epoch: 1, Script: strings.Repeat("x", guest.MaxFrame)})
	require.True(t, guest.IsCode(err, guest.CodeTooLarge), err)
}

func TestLocal(t *testing.T) {
	s := &Server{cfg: Config{WorkDir: guest.WorkDir}}
	for in, want := range map[string]string{
		"": ".", ".": ".", "/work": ".", "/work/": ".", "a": "a", "./a/": "a", "/work/a/b": "a/b", "a/../b": "b", "/work/./a": "a",
	} {
		got, err := s.local(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"..", "../a", "/", "/etc/passwd", "/work/..", "/workshop", "a/../../b", "/work/../work/../etc", "a\x00b", strings.Repeat("a/", 3000)} {
		_, err := s.local(in)
		require.Error(t, err, in)
	}
}

func FuzzLocal(f *testing.F) {
	for _, s := range []string{"a/b", "/work/../x", "..", "/work/a/../../b", "./..//."} {
		f.Add(s)
	}
	s := &Server{cfg: Config{WorkDir: guest.WorkDir}}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := s.local(in)
		if err == nil {
			require.True(t, filepath.IsLocal(got), got)
		}
	})
}
