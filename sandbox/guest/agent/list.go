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

// maxListBytes keeps a page within one frame, however long its names are.
const maxListBytes = guest.MaxFrame - 64<<10

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
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(legible(a), legible(b)), cmp.Compare(a, b)) })
	for _, name := range names {
		rel := path.Join(dir, name)
		before := comparePaths(legible(rel), after)
		within := strings.HasPrefix(after, legible(rel)+"/")
		if after != "" && before < 0 && !within {
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

// legible is a name as JSON can carry it. Names that are no UTF-8 are listed so,
// and sorted so, or a cursor made from one would never be passed.
func legible(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

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
	size := 0
	err = s.walk(rel, req.Recursive, after, func(p string, fi fs.FileInfo) error {
		e := entryOf(legible(p), fi, legible(s.linkTarget(p, fi)))
		// A byte of a name takes up to six in JSON.
		size += 6*(len(e.Path)+len(e.Target)) + 256
		if len(res.Entries) == req.Limit || (len(res.Entries) > 0 && size > maxListBytes) {
			res.More = true
			return errStop
		}
		res.Entries = append(res.Entries, e)
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fileError(req.Path, err)
	}
	return res, nil
}
