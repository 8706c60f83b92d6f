package sandbox

import (
	"bytes"
	"context"
	"errors"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
)

// ReadFile reads part of a file for an admitted effect.
func (e *Effect) ReadFile(ctx context.Context, req guest.ReadRequest) (res *guest.ReadResult, err error) {
	done := e.b.using(ctx)
	defer done()
	err = e.b.withGuest(ctx, bridge.UseWrite, e.grant.Epoch, "", func(c *guest.Client) error {
		res, err = c.ReadFile(ctx, req)
		return err
	})
	return res, err
}

// WriteFile makes or replaces a file for an admitted effect. The request's size
// and epoch are set here.
func (e *Effect) WriteFile(ctx context.Context, req guest.WriteRequest, content []byte) (entry *guest.Entry, err error) {
	done := e.b.using(ctx)
	defer done()
	req.Epoch, req.Size = e.grant.Epoch, int64(len(content))
	err = e.b.withGuest(ctx, bridge.UseWrite, e.grant.Epoch, "", func(c *guest.Client) error {
		entry, err = c.WriteFile(ctx, req, bytes.NewReader(content))
		return err
	})
	return entry, err
}

// List lists a directory for an admitted effect.
func (e *Effect) List(ctx context.Context, req guest.ListRequest) (res *guest.ListResult, err error) {
	done := e.b.using(ctx)
	defer done()
	err = e.b.withGuest(ctx, bridge.UseWrite, e.grant.Epoch, "", func(c *guest.Client) error {
		res, err = c.List(ctx, req)
		return err
	})
	return res, err
}

// Stat describes a path for an admitted effect.
func (e *Effect) Stat(ctx context.Context, path string) (entry *guest.Entry, err error) {
	err = e.b.withGuest(ctx, bridge.UseWrite, e.grant.Epoch, "", func(c *guest.Client) error {
		entry, err = c.Stat(ctx, path)
		return err
	})
	return entry, err
}

// Remove removes a file or directory for an admitted effect.
func (e *Effect) Remove(ctx context.Context, path string, recursive bool) error {
	done := e.b.using(ctx)
	defer done()
	return e.b.withGuest(ctx, bridge.UseWrite, e.grant.Epoch, "", func(c *guest.Client) error {
		return c.Remove(ctx, guest.RemoveRequest{Path: path, Epoch: e.grant.Epoch, Recursive: recursive})
	})
}

// Files is a session's working directory as a person looks at it: in the live
// machine, or without one in the last save. Looking changes nothing and keeps no
// machine alive; who may look is decided before.
type Files struct {
	s       *Service
	org     id.Org
	session id.Session
	b       *Sandbox // nil: from archive
	archive *Archive
}

// Files opens a session's working directory for looking. ErrNoFiles when the
// session never had a sandbox, or lost its first one before any save.
func (s *Service) Files(ctx context.Context, org id.Org, session id.Session) (*Files, error) {
	f := &Files{s: s, org: org, session: session}
	row, err := s.live(ctx, org, session)
	if err != nil {
		return nil, err
	}
	if row != nil && row.State == "running" {
		f.b = s.handle(*row)
		return f, nil
	}
	f.archive, err = s.LastArchive(ctx, org, session)
	if err != nil {
		return nil, err
	}
	if f.archive == nil {
		return nil, ErrNoFiles
	}
	return f, nil
}

// Live says whether the files are those of a running machine; otherwise they are
// as they were saved in Archive.
func (f *Files) Live() bool { return f.b != nil }

// Archive is the save that is being looked at, nil when a machine is.
func (f *Files) Archive() *Archive { return f.archive }

// List lists a directory.
func (f *Files) List(ctx context.Context, req guest.ListRequest) (res *guest.ListResult, err error) {
	err = f.look(ctx, func(c *guest.Client) error {
		res, err = c.List(ctx, req)
		return err
	}, func(a *archiveReader) error {
		res, err = a.list(req)
		return err
	})
	return res, err
}

// Stat describes a path.
func (f *Files) Stat(ctx context.Context, path string) (entry *guest.Entry, err error) {
	err = f.look(ctx, func(c *guest.Client) error {
		entry, err = c.Stat(ctx, path)
		return err
	}, func(a *archiveReader) error {
		entry, err = a.stat(path)
		return err
	})
	return entry, err
}

// Read reads part of a file.
func (f *Files) Read(ctx context.Context, req guest.ReadRequest) (res *guest.ReadResult, err error) {
	err = f.look(ctx, func(c *guest.Client) error {
		res, err = c.ReadFile(ctx, req)
		return err
	}, func(a *archiveReader) error {
		res, err = a.read(req)
		return err
	})
	return res, err
}

// look asks the machine, or the archive. A machine that ended between Files and
// now has left its last save.
func (f *Files) look(ctx context.Context, live func(*guest.Client) error, saved func(*archiveReader) error) error {
	if f.b != nil {
		err := f.b.withGuest(ctx, bridge.UseRead, 0, "", live)
		if !errors.Is(err, ErrLost) {
			return err
		}
		last, lastErr := f.s.LastArchive(ctx, f.org, f.session)
		if lastErr != nil {
			return lastErr
		}
		if last == nil {
			return err
		}
		f.b, f.archive = nil, last
	}
	blob, err := f.s.blobs.Get(ctx, f.org, f.archive.Sum)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // read only
	r, err := newArchiveReader(blob)
	if err != nil {
		return err
	}
	defer r.close()
	return saved(r)
}
