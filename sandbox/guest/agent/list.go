package agent

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"ambit.dev/ambit/sandbox/guest"
)

// errStop ends a walk early.
var errStop = errors.New("stop")

// walk visits what is below dir, ordered by path, component by component: a
// directory right before its content. after skips everything up to that path.
func (s *Server) walk(dir string, recursive bool, after string, visit func(rel string, fi fs.FileInfo) error) error {
	f, err := s.root.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	_ = f.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		rel := path.Join(dir, name)
		before := comparePaths(rel, after)
		within := strings.HasPrefix(after, rel+"/")
		if after != "" && before <= 0 && !within && rel != after {
			continue
		}
		fi, err := s.root.Lstat(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the directory was read
		}
		if err != nil {
			return err
		}
		if after == "" || before > 0 {
			if err := visit(rel, fi); err != nil {
				return err
			}
		}
		if recursive && fi.IsDir() {
			err := s.walk(rel, true, after, visit)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// comparePaths orders paths component by component.
func comparePaths(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "/"), strings.Split(b, "/"), cmp.Compare[string])
}

func (s *Server) list(_ *exchange, req guest.ListRequest) (any, error) {
	if req.Limit < 0 || req.Limit > guest.MaxListPage {
		return nil, guest.Errorf(guest.CodeInvalid, "a page has 1 to %d entries", guest.MaxListPage)
	}
	if req.Limit == 0 {
		req.Limit = guest.MaxListPage
	}
	rel, err := s.local(req.Path)
	if err != nil {
		return nil, err
	}
	after := ""
	if req.After != "" {
		if after, err = s.local(req.After); err != nil {
			return nil, err
		}
	}
	res := guest.ListResult{Entries: []guest.Entry{}}
	err = s.walk(rel, req.Recursive, after, func(p string, fi fs.FileInfo) error {
		if len(res.Entries) == req.Limit {
			res.More = true
			return errStop
		}
		res.Entries = append(res.Entries, entryOf(p, fi, s.linkTarget(p, fi)))
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fileError(req.Path, err)
	}
	return res, nil
}
