package agent

import (
	"errors"
	"io/fs"
	"syscall"

	"ambit.dev/ambit/sandbox/guest"
)

// asError turns any error into one for the wire. Errors of the file system have
// codes of their own; the rest is internal, and its text is logged, not sent.
func (s *Server) asError(op guest.Op, err error) *guest.Error {
	var ge *guest.Error
	if errors.As(err, &ge) {
		return ge
	}
	s.log.Warn("operation failed", "op", op, "error", err)
	return guest.Errorf(guest.CodeInternal, "the guest failed in %s", op)
}

// fileError gives an error about path its code. Paths in errors are as the
// client wrote them.
func fileError(path string, err error) error {
	if err == nil {
		return nil
	}
	var ge *guest.Error
	if errors.As(err, &ge) {
		return ge
	}
	code, what := guest.CodeInternal, "failed"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code, what = guest.CodeNotFound, "does not exist"
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY):
		code, what = guest.CodeExists, "exists or is not empty"
	case errors.Is(err, syscall.EISDIR):
		code, what = guest.CodeIsDirectory, "is a directory"
	case errors.Is(err, syscall.ENOTDIR):
		code, what = guest.CodeNotDirectory, "is not a directory, or lies below a file"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.ENOMEM):
		code, what = guest.CodeNoSpace, "does not fit: the working directory is full"
	case errors.Is(err, syscall.ENAMETOOLONG):
		code, what = guest.CodeInvalid, "is too long a name"
	case errors.Is(err, syscall.ELOOP):
		code, what = guest.CodeInvalid, "has too many links"
	case escapes(err):
		code, what = guest.CodeOutsideWork, "leaves the working directory"
	}
	return guest.Errorf(code, "%.200q %s", path, what)
}

// escapes reports whether os.Root refused a path. Its refusals, unlike the
// kernel's, carry no errno.
func escapes(err error) bool {
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		return false
	}
	var no syscall.Errno
	return !errors.As(pe.Err, &no)
}
