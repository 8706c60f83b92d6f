package conformance

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/guest"
)

func testFiles(t *testing.T, s Subject) {
	b := s.open(t)

	t.Run("write, read, replace", func(t *testing.T) {
		content := bytes.Repeat([]byte("0123456789abcdef"), 20000) // several frames
		e, err := b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "dir/new.bin", Epoch: 1, Parents: true, Mode: 0o750}, content)
		require.NoError(t, err)
		require.Equal(t, "dir/new.bin", e.Path)
		require.EqualValues(t, len(content), e.Size)
		require.EqualValues(t, 0o750, e.Mode)
		require.Equal(t, string(content), b.read("dir/new.bin"))
		require.Equal(t, string(content[5:25]), func() string {
			r, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: guest.WorkDir + "/dir/new.bin", Offset: 5, Limit: 20})
			require.NoError(t, err)
			require.EqualValues(t, len(content), r.Size, "the size is the file's")
			return string(r.Data)
		}())
		past, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "dir/new.bin", Offset: 1 << 40})
		require.NoError(t, err)
		require.Empty(t, past.Data)

		b.write("dir/new.bin", "short")
		e, err = b.client.Stat(b.ctx, "dir/new.bin")
		require.NoError(t, err)
		require.EqualValues(t, 0o750, e.Mode, "the mode stays unless it is asked for")
		require.WithinDuration(t, time.Now(), e.ModTime, patience)
	})
	t.Run("files belong to the commands' user", func(t *testing.T) {
		b.write("made/by/host.txt", "from the host\n")
		out := b.sh("cd made/by && cat host.txt && echo more >> host.txt && mkdir sub && mv host.txt sub/ && rmdir ../by 2>/dev/null; stat -c %U sub/host.txt .")
		require.Equal(t, "from the host\nagent\nagent\n", out.stdout)
		require.Equal(t, "from the host\nmore\n", b.read("made/by/sub/host.txt"))
	})
	t.Run("exclusive", func(t *testing.T) {
		_, err := b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "only", Epoch: 1, Exclusive: true}, []byte("first"))
		require.NoError(t, err)
		_, err = b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "only", Epoch: 1, Exclusive: true}, []byte("second"))
		requireCode(t, guest.CodeExists, err)
		require.Equal(t, "first", b.read("only"))
	})
	t.Run("refusals have codes", func(t *testing.T) {
		_, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "nowhere"})
		requireCode(t, guest.CodeNotFound, err)
		_, err = b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "dir"})
		requireCode(t, guest.CodeIsDirectory, err)
		_, err = b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "only/below"})
		requireCode(t, guest.CodeNotDirectory, err)
		_, err = b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "only", Limit: guest.MaxRead + 1})
		requireCode(t, guest.CodeTooLarge, err)
		_, err = b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "no/parents", Epoch: 1}, nil)
		requireCode(t, guest.CodeNotFound, err)
		_, err = b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: "dir", Epoch: 1}, nil)
		requireCode(t, guest.CodeNotRegular, err)
		_, err = b.client.WriteFile(b.ctx, guest.WriteRequest{Path: "big", Epoch: 1, Size: guest.MaxWrite + 1}, nil)
		requireCode(t, guest.CodeTooLarge, err)
		requireCode(t, guest.CodeExists, b.client.Remove(b.ctx, guest.RemoveRequest{Path: "made", Epoch: 1}), "it is not empty")
		requireCode(t, guest.CodeNotFound, b.client.Remove(b.ctx, guest.RemoveRequest{Path: "nowhere", Epoch: 1}))
		requireCode(t, guest.CodeInvalid, b.client.Remove(b.ctx, guest.RemoveRequest{Path: ".", Epoch: 1, Recursive: true}))
	})
	t.Run("content that breaks off changes nothing", func(t *testing.T) {
		_, err := b.client.WriteFile(b.ctx, guest.WriteRequest{Path: "only", Epoch: 1, Size: 1 << 20}, strings.NewReader("too little"))
		require.Error(t, err)
		require.Equal(t, "first", b.read("only"))
		require.Equal(t, "0\n", b.sh("ls -A | grep -c '^.ambit-'").stdout, "nothing half-written stays")
	})
	t.Run("listing", func(t *testing.T) {
		b.sh("mkdir -p list/b list/a.d && cd list && touch a b/1 b/2 a.d/x && ln -s b link && mkfifo pipe")
		page, err := b.client.List(b.ctx, guest.ListRequest{Path: "list"})
		require.NoError(t, err)
		var flat []string
		for _, e := range page.Entries {
			flat = append(flat, string(e.Type)+" "+e.Path)
		}
		require.Equal(t, []string{"file list/a", "directory list/a.d", "directory list/b", "symlink list/link", "other list/pipe"}, flat)
		require.Equal(t, "b", page.Entries[3].Target)

		var all []string
		after := ""
		for range 20 {
			page, err := b.client.List(b.ctx, guest.ListRequest{Path: "list", Recursive: true, After: after, Limit: 2})
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Entries), 2)
			for _, e := range page.Entries {
				all = append(all, strings.TrimPrefix(e.Path, "list/"))
				after = e.Path
			}
			if !page.More {
				break
			}
		}
		require.Equal(t, []string{"a", "a.d", "a.d/x", "b", "b/1", "b/2", "link", "pipe"}, all, "pages join without gap or repeat")
	})
	t.Run("removing", func(t *testing.T) {
		require.NoError(t, b.client.Remove(b.ctx, guest.RemoveRequest{Path: "list", Epoch: 1, Recursive: true}))
		_, err := b.client.Stat(b.ctx, "list")
		requireCode(t, guest.CodeNotFound, err)
	})
}

// testPaths: no path leads out of the working directory, however it is spelt and
// whatever a command has put there.
func testPaths(t *testing.T, s Subject) {
	b := s.open(t)
	b.sh(`
		ln -s /etc/passwd abs; ln -s ../etc/passwd up; ln -s / rootdir; ln -s .. parent
		mkdir -p in/side; ln -s ../../../etc/passwd in/side/far; ln -s /proc/self/root magic
		ln -s loop1 loop2; ln -s loop2 loop1; ln -s /etc/passwd dangling-out; ln -s in/side good; mkfifo fifo`)
	for _, path := range []string{
		"../etc/passwd", "in/../../etc/passwd", "/etc/passwd", "/work/../etc/passwd", "/workx", "/work/../workx",
		"abs", "up", "rootdir/etc/passwd", "parent/etc/passwd", "in/side/far", "magic/etc/passwd", "loop1", "/", "..",
	} {
		t.Run(strings.ReplaceAll(path, "/", "∕"), func(t *testing.T) {
			_, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: path})
			require.Error(t, err)
			_, err = b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: path, Epoch: 1}, []byte("owned"))
			require.Error(t, err)
			_, err = b.client.WriteBytes(b.ctx, guest.WriteRequest{Path: path + "/deeper/file", Epoch: 1, Parents: true}, []byte("owned"))
			require.Error(t, err)
			if strings.Contains(path, "etc/passwd") || path == ".." || path == "/" {
				requireCode(t, guest.CodeOutsideWork, func() error { _, err := b.client.Stat(b.ctx, path); return err }())
				requireCode(t, guest.CodeOutsideWork, b.client.Remove(b.ctx, guest.RemoveRequest{Path: path, Epoch: 1, Recursive: true}))
			}
		})
	}
	_, err := b.client.List(b.ctx, guest.ListRequest{Path: "rootdir", Recursive: true})
	require.Error(t, err)
	require.Equal(t, "0\n", b.sh("grep -c owned /etc/passwd").stdout)

	t.Run("links that stay inside work", func(t *testing.T) {
		b.write("good/file", "through the link")
		require.Equal(t, "through the link", b.read("in/side/file"))
		b.sh("ln -s side/file in/alias")
		b.write("in/alias", "changed")
		require.Equal(t, "changed", b.read("in/side/file"), "writing to a link changes what it points to")
		require.Equal(t, "side/file\n", b.sh("readlink in/alias").stdout)
	})
	t.Run("removing a link removes the link", func(t *testing.T) {
		require.NoError(t, b.client.Remove(b.ctx, guest.RemoveRequest{Path: "rootdir", Epoch: 1, Recursive: true}))
		require.NoError(t, b.client.Remove(b.ctx, guest.RemoveRequest{Path: "good", Epoch: 1, Recursive: true}))
		require.Equal(t, "changed", b.read("in/side/file"))
		require.Zero(t, b.sh("test -e /etc/passwd").ExitCode)
	})
	t.Run("a FIFO does not hang", func(t *testing.T) {
		_, err := b.client.ReadFile(b.ctx, guest.ReadRequest{Path: "fifo"})
		requireCode(t, guest.CodeNotRegular, err)
	})
	t.Run("a link put in the way of kept output", func(t *testing.T) {
		b.sh("rm -rf .ambit; ln -s /tmp .ambit")
		out := b.run(guest.ExecRequest{Script: "seq 1 1000", OutputLimit: 100})
		require.Empty(t, out.OutputPath)
		require.Equal(t, "0\n", b.sh("ls /tmp | wc -l").stdout)
	})
}

// testArchives: a working directory outlives its machine.
func testArchives(t *testing.T, s Subject) {
	b := s.open(t)
	b.sh(`
		mkdir -p a/b empty; for i in $(seq 200); do echo "file $i" > a/b/$i.txt; done
		head -c 300000 /dev/urandom > a/noise.bin; ln -s a/b/1.txt link; ln -s /etc/hosts outward; mkfifo fifo
		echo '#!/bin/bash' > run.sh; chmod 755 run.sh; chmod 700 empty; touch -d '2021-03-04 05:06:07.123456789 UTC' a/b/7.txt
		touch 'name with spaces' $'new\nline' .hidden`)
	list := "find . -mindepth 1 ! -type p -printf '%P %y %m %U %l %T@\\n' | LC_ALL=C sort; find . -type f -exec sha256sum {} + | LC_ALL=C sort"
	before := b.sh(list).stdout

	var archive, second bytes.Buffer
	saved, err := b.client.Save(b.ctx, &archive)
	require.NoError(t, err)
	require.EqualValues(t, archive.Len(), saved.Bytes)
	require.EqualValues(t, 205, saved.Files)
	again, err := b.client.Save(b.ctx, &second)
	require.NoError(t, err)
	require.Equal(t, saved, again, "the same files give the same archive")

	c := s.open(t)
	c.write("old", "what was here goes")
	restored, err := c.client.Restore(c.ctx, guest.RestoreRequest{Epoch: 1, SHA256: saved.SHA256, Bytes: saved.Bytes}, bytes.NewReader(archive.Bytes()))
	require.NoError(t, err)
	require.Equal(t, saved, restored)
	require.Empty(t, differingLines(before, c.sh(list).stdout))
	var third bytes.Buffer
	third1, err := c.client.Save(c.ctx, &third)
	require.NoError(t, err)
	require.Equal(t, saved.SHA256, third1.SHA256, "saved again elsewhere it is still the same")

	t.Run("a wrong hash leaves nothing", func(t *testing.T) {
		_, err := c.client.Restore(c.ctx, guest.RestoreRequest{Epoch: 1, SHA256: strings.Repeat("0", 64), Bytes: saved.Bytes}, bytes.NewReader(archive.Bytes()))
		requireCode(t, guest.CodeHashMismatch, err)
		require.Empty(t, c.sh("ls -A").stdout)
	})
	t.Run("a damaged archive leaves nothing", func(t *testing.T) {
		bad := bytes.Clone(archive.Bytes())
		bad[len(bad)/2] ^= 0x40
		_, err := c.client.Restore(c.ctx, guest.RestoreRequest{Epoch: 1, SHA256: saved.SHA256, Bytes: saved.Bytes}, bytes.NewReader(bad))
		require.Error(t, err)
		require.Empty(t, c.sh("ls -A").stdout)
		_, err = c.client.Restore(c.ctx, guest.RestoreRequest{Epoch: 1, SHA256: saved.SHA256, Bytes: saved.Bytes}, bytes.NewReader(bad[:len(bad)/3]))
		require.Error(t, err)
		require.Empty(t, c.sh("ls -A").stdout)
	})
	t.Run("while a command runs", func(t *testing.T) {
		cmd, err := c.client.Exec(c.ctx, guest.ExecRequest{EffectKey: "eff_writer", Epoch: 1, Script: "i=0; while :; do i=$((i+1)); echo $i > x; cp x y; echo go; sleep 0.01; done"})
		require.NoError(t, err)
		_, err = cmd.Next()
		require.NoError(t, err)
		_, err = c.client.Restore(c.ctx, guest.RestoreRequest{Epoch: 1, SHA256: saved.SHA256, Bytes: saved.Bytes}, bytes.NewReader(archive.Bytes()))
		requireCode(t, guest.CodeInvalid, err, "a working directory is not replaced under a command")
		var live bytes.Buffer
		_, err = c.client.Save(c.ctx, &live)
		require.NoError(t, err)
		_, err = cmd.Next()
		require.NoError(t, err, "and it goes on afterwards")
		require.NoError(t, c.client.Signal(c.ctx, guest.SignalRequest{EffectKey: "eff_writer", Epoch: 1, Signal: 9}))
		_, err = cmd.Wait(nil, nil)
		require.NoError(t, err)
	})
	t.Run("a client that leaves in the middle of it", func(t *testing.T) {
		require.Zero(t, c.sh("head -c 20000000 /dev/urandom > big").ExitCode)
		_, err := c.client.Save(c.ctx, failingWriter{})
		require.ErrorContains(t, err, "no more room")
		c.alive()
	})
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("no more room") }

// differingLines are those that only one of two texts has, for a failure that
// can be read.
func differingLines(a, b string) []string {
	inA, inB := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(a) {
		inA[line] = true
	}
	var out []string
	for line := range strings.Lines(b) {
		inB[line] = true
		if !inA[line] {
			out = append(out, "+ "+line)
		}
	}
	for line := range strings.Lines(a) {
		if !inB[line] {
			out = append(out, "- "+line)
		}
	}
	return out
}
