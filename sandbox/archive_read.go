package sandbox

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"ambit.dev/ambit/sandbox/guest"
)

// archiveReader answers, from a saved working directory, what the guest would
// answer from a live one: the same requests, the same entries, the same errors.
// An archive is read from its start each time; it holds one session's files.
type archiveReader struct {
	z   *zstd.Decoder
	tar *tar.Reader
}

// The content of an archive is a tenant's: nothing in it may cost more than this.
const (
	maxArchiveEntries = 500_000
	maxDecoderMemory  = 64 << 20
)

func newArchiveReader(r io.Reader) (*archiveReader, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoderMemory), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("open a saved working directory: %w", err)
	}
	return &archiveReader{z: z, tar: tar.NewReader(z)}, nil
}

func (a *archiveReader) close() { a.z.Close() }

// workPath makes a path relative to the working directory, as the guest does:
// "." is the directory itself, and nothing may lead out of it.
func workPath(p string) (string, error) {
	if strings.ContainsRune(p, 0) {
		return "", guest.Errorf(guest.CodeInvalid, "a path cannot hold a zero byte")
	}
	clean := path.Clean(p)
	if path.IsAbs(clean) {
		rel, ok := strings.CutPrefix(clean+"/", guest.WorkDir+"/")
		if !ok {
			return "", guest.Errorf(guest.CodeOutsideWork, "%s is outside the working directory %s", p, guest.WorkDir)
		}
		clean = path.Clean(rel)
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", guest.Errorf(guest.CodeOutsideWork, "%s is outside the working directory %s", p, guest.WorkDir)
	}
	return clean, nil
}

// each calls fn for every entry until it says stop.
func (a *archiveReader) each(fn func(e guest.Entry, content io.Reader) (stop bool, err error)) error {
	for range maxArchiveEntries {
		h, err := a.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a saved working directory: %w", err)
		}
		e := guest.Entry{
			Path: path.Clean(h.Name), Size: h.Size, Mode: uint32(h.Mode & 0o777), ModTime: h.ModTime.UTC(), Target: h.Linkname, //nolint:gosec // masked
		}
		switch h.Typeflag {
		case tar.TypeReg:
			e.Type, e.Target = guest.TypeFile, ""
		case tar.TypeDir:
			e.Type, e.Target = guest.TypeDirectory, ""
		case tar.TypeSymlink:
			e.Type, e.Size = guest.TypeSymlink, int64(len(h.Linkname))
		default:
			e.Type = guest.TypeOther
		}
		stop, err := fn(e, a.tar)
		if err != nil || stop {
			return err
		}
	}
	return guest.Errorf(guest.CodeTooMany, "the saved working directory has more than %d entries", maxArchiveEntries)
}

func (a *archiveReader) list(req guest.ListRequest) (*guest.ListResult, error) {
	dir, err := workPath(req.Path)
	if err != nil {
		return nil, err
	}
	after := ""
	if req.After != "" {
		if after, err = workPath(req.After); err != nil {
			return nil, err
		}
	}
	limit := req.Limit
	if limit == 0 {
		limit = guest.MaxListPage
	}
	if limit < 1 || limit > guest.MaxListPage {
		return nil, guest.Errorf(guest.CodeInvalid, "a limit is 1 to %d", guest.MaxListPage)
	}
	found := dir == "."
	all := []guest.Entry{}
	err = a.each(func(e guest.Entry, _ io.Reader) (bool, error) {
		if e.Path == "." {
			return false, nil
		}
		if e.Path == dir {
			if e.Type != guest.TypeDirectory {
				return true, guest.Errorf(guest.CodeNotDirectory, "%s is not a directory", req.Path)
			}
			found = true
			return false, nil
		}
		rel := e.Path
		if dir != "." {
			var below bool
			if rel, below = strings.CutPrefix(e.Path, dir+"/"); !below {
				return false, nil
			}
		}
		if (req.Recursive || !strings.Contains(rel, "/")) && comparePaths(e.Path, after) > 0 {
			all = append(all, e)
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	if !found && len(all) == 0 {
		return nil, missing(req.Path)
	}
	slices.SortFunc(all, func(x, y guest.Entry) int { return comparePaths(x.Path, y.Path) })
	res := &guest.ListResult{Entries: all}
	if len(all) > limit {
		res.Entries, res.More = all[:limit], true
	}
	return res, nil
}

func (a *archiveReader) stat(p string) (*guest.Entry, error) {
	want, err := workPath(p)
	if err != nil {
		return nil, err
	}
	var found *guest.Entry
	err = a.each(func(e guest.Entry, _ io.Reader) (bool, error) {
		if e.Path == want {
			found = &e
		}
		return found != nil, nil
	})
	if err == nil && found == nil {
		err = missing(p)
	}
	return found, err
}

func (a *archiveReader) read(req guest.ReadRequest) (*guest.ReadResult, error) {
	want, err := workPath(req.Path)
	if err != nil {
		return nil, err
	}
	limit := req.Limit
	if limit == 0 {
		limit = guest.MaxRead
	}
	if limit < 0 || limit > guest.MaxRead || req.Offset < 0 {
		return nil, guest.Errorf(guest.CodeInvalid, "an offset is not negative, a limit at most %d", guest.MaxRead)
	}
	var res *guest.ReadResult
	err = a.each(func(e guest.Entry, content io.Reader) (bool, error) {
		if e.Path != want {
			return false, nil
		}
		switch e.Type {
		case guest.TypeFile:
		case guest.TypeDirectory:
			return true, guest.Errorf(guest.CodeIsDirectory, "%s is a directory", req.Path)
		default:
			return true, guest.Errorf(guest.CodeNotRegular, "%s is not a regular file", req.Path)
		}
		if _, err := io.CopyN(io.Discard, content, min(req.Offset, e.Size)); err != nil {
			return true, fmt.Errorf("read a saved file: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(content, limit))
		if err != nil {
			return true, fmt.Errorf("read a saved file: %w", err)
		}
		res = &guest.ReadResult{Data: data, Entry: e}
		return true, nil
	})
	if err == nil && res == nil {
		err = missing(req.Path)
	}
	return res, err
}

// comparePaths orders paths component by component, as the guest does.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

func missing(p string) error {
	return guest.Errorf(guest.CodeNotFound, "there is no %s", p)
}
