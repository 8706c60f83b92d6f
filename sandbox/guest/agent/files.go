package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"ambit.dev/ambit/sandbox/guest"
)

// Every operation on files goes through s.root, which resolves a path one
// component at a time and refuses whatever would leave the working directory:
// "..", absolute links, links that climb out, and races between the two.

// local makes a client's path relative to the working directory. Absolute paths
// below it are accepted, because that is how commands see them.
func (s *Server) local(p string) (string, error) {
	if strings.ContainsRune(p, 0) || len(p) > 4096 {
		return "", guest.Errorf(guest.CodeInvalid, "a path has at most 4096 bytes and no zero byte")
	}
	rel := p
	if path.IsAbs(p) {
		clean := path.Clean(p)
		var ok bool
		if clean == s.cfg.WorkDir || clean == guest.WorkDir {
			return ".", nil
		}
		if rel, ok = strings.CutPrefix(clean, guest.WorkDir+"/"); !ok {
			if rel, ok = strings.CutPrefix(clean, s.cfg.WorkDir+"/"); !ok {
				return "", guest.Errorf(guest.CodeOutsideWork, "%.200q is not in the working directory %s", p, guest.WorkDir)
			}
		}
	}
	rel = path.Clean("./" + rel)
	if !filepath.IsLocal(rel) {
		return "", guest.Errorf(guest.CodeOutsideWork, "%.200q leaves the working directory", p)
	}
	return rel, nil
}

func entryOf(rel string, fi fs.FileInfo, target string) guest.Entry {
	e := guest.Entry{Path: rel, Size: fi.Size(), Mode: uint32(fi.Mode().Perm()), ModTime: fi.ModTime().UTC(), Target: target}
	switch {
	case fi.Mode().IsRegular():
		e.Type = guest.TypeFile
	case fi.IsDir():
		e.Type, e.Size = guest.TypeDirectory, 0
	case fi.Mode()&fs.ModeSymlink != 0:
		e.Type = guest.TypeSymlink
	default:
		e.Type = guest.TypeOther
	}
	return e
}

// openRegular opens a file for reading. Opening must not hang on a FIFO that a
// command left behind.
func (s *Server) openRegular(rel string) (*os.File, fs.FileInfo, error) {
	f, err := s.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		code := guest.CodeNotRegular
		if fi.IsDir() {
			code = guest.CodeIsDirectory
		}
		err = guest.Errorf(code, "%.200q is not a regular file", rel)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

func (s *Server) readFile(x *exchange, req guest.ReadRequest) (any, error) {
	if req.Offset < 0 || req.Limit < 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "offset and limit must not be negative")
	}
	if req.Limit > guest.MaxRead {
		return nil, guest.Errorf(guest.CodeTooLarge, "one read returns at most %d bytes", guest.MaxRead)
	}
	if req.Limit == 0 {
		req.Limit = guest.MaxRead
	}
	rel, err := s.local(req.Path)
	if err != nil {
		return nil, err
	}
	f, fi, err := s.openRegular(rel)
	if err != nil {
		return nil, fileError(req.Path, err)
	}
	defer f.Close() //nolint:errcheck // read only
	if _, err := io.Copy(frameWriter{x.w}, io.NewSectionReader(f, req.Offset, req.Limit)); err != nil {
		return nil, fileError(req.Path, err)
	}
	return entryOf(rel, fi, ""), nil
}

func (s *Server) stat(_ *exchange, req guest.PathRequest) (any, error) {
	rel, err := s.local(req.Path)
	if err != nil {
		return nil, err
	}
	fi, err := s.root.Lstat(rel)
	if err != nil {
		return nil, fileError(req.Path, err)
	}
	return entryOf(rel, fi, s.linkTarget(rel, fi)), nil
}

func (s *Server) linkTarget(rel string, fi fs.FileInfo) string {
	if fi.Mode()&fs.ModeSymlink == 0 {
		return ""
	}
	t, _ := s.root.Readlink(rel)
	return t
}

func (s *Server) writeFile(x *exchange, req guest.WriteRequest) (any, error) {
	if req.Size < 0 || req.Size > guest.MaxWrite {
		return nil, guest.Errorf(guest.CodeTooLarge, "a file is written with at most %d bytes", guest.MaxWrite)
	}
	if req.Mode&^uint32(0o777) != 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "mode has permission bits only")
	}
	rel, err := s.local(req.Path)
	if err != nil {
		return nil, err
	}
	if rel == "." {
		return nil, guest.Errorf(guest.CodeIsDirectory, "the working directory is not a file")
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	if req.Parents {
		if err := s.makeParents(rel); err != nil {
			return nil, fileError(req.Path, err)
		}
	}
	mode := fs.FileMode(req.Mode)
	if !req.Exclusive {
		if rel, err = s.finalTarget(rel); err != nil {
			return nil, fileError(req.Path, err)
		}
		if fi, err := s.root.Lstat(rel); err == nil {
			if !fi.Mode().IsRegular() {
				return nil, guest.Errorf(guest.CodeNotRegular, "%.200q is not a regular file", req.Path)
			}
			if mode == 0 {
				mode = fi.Mode().Perm()
			}
		}
	}
	if mode == 0 {
		mode = 0o644
	}
	err = s.replaceFile(rel, mode, req.Exclusive, func(w io.Writer) error { return receive(x.fr, req.Size, w) })
	if err != nil {
		return nil, fileError(req.Path, err)
	}
	fi, err := s.root.Lstat(rel)
	if err != nil {
		return nil, fileError(req.Path, err)
	}
	return entryOf(rel, fi, ""), nil
}

// finalTarget follows links at the end of a path, so that writing to a link
// changes what it points to, as writing in place would.
func (s *Server) finalTarget(rel string) (string, error) {
	for range 16 {
		fi, err := s.root.Lstat(rel)
		if errors.Is(err, fs.ErrNotExist) {
			return rel, nil
		}
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			return rel, nil
		}
		target, err := s.root.Readlink(rel)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(rel), target)
		}
		if rel, err = s.local(target); err != nil {
			return "", err
		}
	}
	return "", syscall.ELOOP
}

// receive takes exactly size bytes of data frames, and the end mark.
func receive(fr *guest.FrameReader, size int64, w io.Writer) error {
	var got int64
	for {
		t, p, err := fr.Next()
		if err != nil {
			return guest.Errorf(guest.CodeInvalid, "the content broke off after %d of %d bytes", got, size)
		}
		switch t { //nolint:exhaustive // the others have no place here
		case guest.FrameData:
			if got += int64(len(p)); got > size {
				return guest.Errorf(guest.CodeInvalid, "more content than the %d bytes announced", size)
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
		case guest.FrameEnd:
			if got != size {
				return guest.Errorf(guest.CodeInvalid, "%d bytes of content, %d announced", got, size)
			}
			return nil
		default:
			return guest.Errorf(guest.CodeInvalid, "unexpected frame in the content")
		}
	}
}

// makeParents makes the directories above rel, for the commands' user.
func (s *Server) makeParents(rel string) error {
	dir := path.Dir(rel)
	if dir == "." {
		return nil
	}
	for i := 0; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		err := s.root.Mkdir(dir[:i], 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.chown(dir[:i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) chown(rel string) error {
	if s.cfg.UID == os.Geteuid() && s.cfg.GID == os.Getegid() {
		return nil
	}
	return s.root.Lchown(rel, s.cfg.UID, s.cfg.GID)
}

// replaceFile writes beside the file and renames over it.
func (s *Server) replaceFile(rel string, mode fs.FileMode, exclusive bool, fill func(io.Writer) error) (err error) {
	suffix := make([]byte, 8)
	if _, err := rand.Read(suffix); err != nil {
		return err
	}
	tmp := path.Join(path.Dir(rel), ".ambit-"+hex.EncodeToString(suffix))
	f, err := s.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = s.root.Remove(tmp)
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.chown(tmp); err != nil {
		return err
	}
	if exclusive {
		// A hard link fails where a rename would replace.
		if err := s.root.Link(tmp, rel); err != nil {
			return err
		}
		return s.root.Remove(tmp)
	}
	return s.root.Rename(tmp, rel)
}

func (s *Server) remove(_ *exchange, req guest.RemoveRequest) (any, error) {
	rel, err := s.local(req.Path)
	if err != nil {
		return nil, err
	}
	if rel == "." {
		return nil, guest.Errorf(guest.CodeInvalid, "the working directory itself cannot be removed")
	}
	if err := s.identity.fence(req.Epoch); err != nil {
		return nil, err
	}
	if _, err := s.root.Lstat(rel); err != nil {
		return nil, fileError(req.Path, err)
	}
	if req.Recursive {
		return struct{}{}, fileError(req.Path, s.root.RemoveAll(rel))
	}
	return struct{}{}, fileError(req.Path, s.root.Remove(rel))
}
