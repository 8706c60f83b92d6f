package agent

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/guest"
)

// hashing passes on what is written and hashes it.
type hashing struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (h *hashing) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	_, _ = h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

// save streams the working directory. Commands are frozen meanwhile: an archive
// is of one moment.
func (s *Server) save(x *exchange, _ struct{}) (any, error) {
	s.archive.Lock()
	defer s.archive.Unlock()
	thaw := s.freeze()
	defer thaw()
	out := &hashing{w: frameWriter{x.w}, h: sha256.New()}
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("start the compressor: %w", err)
	}
	defer z.Close() //nolint:errcheck // closed below when all is well
	res := guest.Archive{}
	tw := tar.NewWriter(z)
	err = s.walk(".", true, "", func(rel string, fi fs.FileInfo) error {
		return s.archiveEntry(tw, rel, fi, &res)
	})
	if err == nil {
		err = tw.Close()
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("archive the working directory: %w", err)
	}
	res.SHA256, res.Bytes = hex.EncodeToString(out.h.Sum(nil)), out.n
	return res, nil
}

// writeLeftover matches files that replaceFile had not renamed yet.
var writeLeftover = regexp.MustCompile(`^\.ambit-[0-9a-f]{16}$`)

// archiveEntry writes one file. Sockets, FIFOs and devices have no content to
// keep and are left out.
func (s *Server) archiveEntry(tw *tar.Writer, rel string, fi fs.FileInfo, res *guest.Archive) error {
	if writeLeftover.MatchString(fi.Name()) {
		return nil
	}
	hdr := &tar.Header{
		Name: rel, Mode: int64(fi.Mode().Perm()), ModTime: fi.ModTime().UTC(),
		Uid: s.cfg.UID, Gid: s.cfg.GID, Format: tar.FormatPAX,
	}
	switch {
	case fi.IsDir():
		hdr.Typeflag, hdr.Name = tar.TypeDir, rel+"/"
		return tw.WriteHeader(hdr)
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := s.root.Readlink(rel)
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
		return tw.WriteHeader(hdr)
	case !fi.Mode().IsRegular():
		return nil
	}
	f, fi, err := s.openRegular(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	hdr.Typeflag, hdr.Size = tar.TypeReg, fi.Size()
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	// Nothing changes under us while commands are frozen; where there is no
	// freezer a file that shrank is an error, and one that grew is cut.
	n, err := io.Copy(tw, io.LimitReader(f, hdr.Size))
	if err != nil {
		return err
	}
	if n != hdr.Size {
		return fmt.Errorf("%q shrank from %d to %d bytes while it was read", rel, hdr.Size, n)
	}
	res.Files++
	res.ContentBytes += n
	return nil
}

// restore replaces the working directory. Everything is unpacked first and the
// hash compared last, because the archive streams; on any failure the directory
// is emptied, so that half an archive never looks like a whole one.
func (s *Server) restore(x *exchange, req guest.RestoreRequest) (any, error) {
	if req.Bytes < 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "bytes must not be negative")
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	s.archive.Lock()
	defer s.archive.Unlock()
	if n := s.runningCommands(); n > 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "%d commands are running in the working directory", n)
	}
	if err := s.emptyWork(); err != nil {
		return nil, fmt.Errorf("empty the working directory: %w", err)
	}
	res, err := s.unpack(x, req)
	if err != nil {
		if wipe := s.emptyWork(); wipe != nil {
			s.log.Error("a failed restore could not be taken back", "error", wipe)
		}
		return nil, err
	}
	return res, nil
}

func (s *Server) unpack(x *exchange, req guest.RestoreRequest) (*guest.Archive, error) {
	pr, pw := io.Pipe()
	in := &hashing{w: pw, h: sha256.New()}
	received := make(chan error, 1)
	go func() {
		err := receive(x.fr, req.Bytes, in)
		_ = pw.CloseWithError(err) // nil is the end
		received <- err
	}()
	res := &guest.Archive{}
	untarErr := s.untar(pr, res)
	if untarErr == nil {
		// Behind the tar's end only padding may follow; hash it too.
		_, untarErr = io.Copy(io.Discard, pr)
	}
	_ = pr.CloseWithError(errors.New("restore ended"))
	var ge *guest.Error
	recvErr := <-received
	if untarErr != nil && errors.As(untarErr, &ge) {
		return nil, untarErr
	}
	if untarErr != nil {
		return nil, guest.Errorf(guest.CodeInvalid, "the archive cannot be read: %v", untarErr)
	}
	if recvErr != nil {
		return nil, recvErr
	}
	res.SHA256, res.Bytes = hex.EncodeToString(in.h.Sum(nil)), in.n
	if res.SHA256 != req.SHA256 {
		return nil, guest.Errorf(guest.CodeHashMismatch, "the archive has hash %s, not %.64s", res.SHA256, req.SHA256)
	}
	return res, nil
}

func (s *Server) untar(r io.Reader, res *guest.Archive) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(16<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	type stamp struct {
		rel  string
		mode fs.FileMode
		at   time.Time
	}
	var dirs []stamp
	tr := tar.NewReader(z)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rel := filepath.Clean(hdr.Name)
		if !filepath.IsLocal(rel) || rel == "." {
			return guest.Errorf(guest.CodeOutsideWork, "the archive names %.200q", hdr.Name)
		}
		mode := fs.FileMode(hdr.Mode) & fs.ModePerm //nolint:gosec // masked
		switch hdr.Typeflag {
		case tar.TypeDir:
			if err := s.root.Mkdir(rel, 0o700); err != nil {
				return fileError(rel, err)
			}
			dirs = append(dirs, stamp{rel, mode, hdr.ModTime})
		case tar.TypeSymlink:
			if err := s.root.Symlink(hdr.Linkname, rel); err != nil {
				return fileError(rel, err)
			}
			if err := s.touchLink(rel, hdr.ModTime); err != nil {
				return fileError(rel, err)
			}
		case tar.TypeReg:
			if err := s.untarFile(tr, rel, mode); err != nil {
				return fileError(rel, err)
			}
			if err := s.root.Chtimes(rel, hdr.ModTime, hdr.ModTime); err != nil {
				return fileError(rel, err)
			}
			res.Files++
			res.ContentBytes += hdr.Size
		default:
			return guest.Errorf(guest.CodeInvalid, "the archive has an entry of type %q", hdr.Typeflag)
		}
		if err := s.chown(rel); err != nil {
			return fileError(rel, err)
		}
	}
	// Directories last, deepest first: making a file in one changes its time.
	for i := len(dirs) - 1; i >= 0; i-- {
		d := dirs[i]
		if err := s.root.Chmod(d.rel, d.mode); err != nil {
			return fileError(d.rel, err)
		}
		if err := s.root.Chtimes(d.rel, d.at, d.at); err != nil {
			return fileError(d.rel, err)
		}
	}
	return nil
}

// touchLink sets the time of a link itself, which os.Root cannot.
func (s *Server) touchLink(rel string, at time.Time) error {
	dir, err := s.root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // a directory
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(rel), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (s *Server) untarFile(r io.Reader, rel string, mode fs.FileMode) error {
	f, err := s.root.OpenFile(rel, createNew, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // closed below when all is well
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Close()
}

// emptyWork removes everything in the working directory.
func (s *Server) emptyWork() error {
	return s.walk(".", false, "", func(rel string, _ fs.FileInfo) error { return s.root.RemoveAll(rel) })
}
