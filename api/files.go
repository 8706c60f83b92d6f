package api

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"path"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/tenants"
)

func (a *API) fileRoutes() []Route {
	const tag = "Sessions"
	return []Route{
		{
			ID: "sessions.files.list", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/files", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "List a session's files", Description: "What is in a directory of the working directory, in order of path: as it is now while the sandbox runs, else as it was last saved.",
			Errors: []string{slugPage, slugUnavailable}, Endpoint: plain(a.listFiles),
		},
		{
			ID: "sessions.files.content", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/files/content", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "Download a file of a session", Errors: []string{slugUnavailable}, Endpoint: serve(bytesType, a.fileContent),
		},
	}
}

// File is an entry of a working directory.
type File struct {
	Type       string  `json:"type" enum:"file,directory,symlink,other"`
	Path       string  `json:"path" doc:"Relative to the working directory."`
	SizeBytes  int64   `json:"size_bytes"`
	Mode       string  `json:"mode" doc:"Permission bits in octal."`
	ModifiedAt Time    `json:"modified_at"`
	Target     *string `json:"target" doc:"Of a symbolic link, as written."`
}

// Files is a page of a directory.
type Files struct {
	Page[File]
	// Live says where the entries come from.
	Live    bool  `json:"live" doc:"Whether the sandbox runs and this is its directory now; else it is the last save."`
	SavedAt *Time `json:"saved_at" doc:"When it was saved; null while it is live, and when there never was a sandbox."`
}

type listFilesIn struct {
	Session id.Session `path:"session_id"`
	LongPaging
	Path      string `query:"path" maxlen:"4096" default:"." doc:"The directory."`
	Recursive bool   `query:"recursive" doc:"Directories below it too."`
}

func (a *API) listFiles(c *call, in listFilesIn) (Files, error) {
	out := Files{Page: Page[File]{Data: []File{}}}
	files, err := a.filesOf(c, in.Session)
	if errors.Is(err, sandbox.ErrNoFiles) && files == nil {
		return out, a.knownSession(c, in.Session)
	}
	if err != nil {
		return out, err
	}
	ctx := c.r.Context()
	limit := min(in.place.limit, guest.MaxListPage)
	list, err := files.List(ctx, guest.ListRequest{Path: in.Path, Recursive: in.Recursive, After: in.place.position, Limit: limit})
	if err != nil {
		return out, fileFault(err)
	}
	entries := list.Entries
	if list.More {
		// One more than the limit is how a page tells that there is another.
		entries = append(entries, guest.Entry{})
	}
	in.place.limit = len(list.Entries)
	out.Page = pageOf(in.place, entries, func(e guest.Entry) string { return e.Path }, fileFrom)
	out.Live = files.Live()
	if saved := files.Archive(); saved != nil {
		at := Time(saved.CreatedAt)
		out.SavedAt = &at
	}
	return out, nil
}

func fileFrom(e guest.Entry) File {
	f := File{Type: "other", Path: e.Path, SizeBytes: e.Size, Mode: "0" + strconv.FormatUint(uint64(e.Mode), 8), ModifiedAt: Time(e.ModTime)}
	switch e.Type {
	case guest.TypeFile:
		f.Type = "file"
	case guest.TypeDirectory:
		f.Type = "directory"
	case guest.TypeSymlink:
		f.Type, f.Target = "symlink", &e.Target
	case guest.TypeOther:
	}
	return f
}

type fileContentIn struct {
	Session id.Session `path:"session_id"`
	Path    string     `query:"path" required:"true" minlen:"1" maxlen:"4096" doc:"The file, relative to the working directory."`
}

// fileContent sends a file as something to be saved, never as something to be shown: an agent wrote it.
func (a *API) fileContent(c *call, in fileContentIn) error {
	files, err := a.filesOf(c, in.Session)
	if err != nil {
		return err
	}
	ctx := c.r.Context()
	part, err := files.Read(ctx, guest.ReadRequest{Path: in.Path})
	if err != nil {
		return fileFault(err)
	}
	h := c.w.Header()
	h.Set("Content-Type", bytesType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(part.Path)}))
	h.Set("Cache-Control", "no-store")
	whole := part.Size
	if whole == int64(len(part.Data)) {
		h.Set("Content-Length", strconv.FormatInt(whole, 10))
	}
	for sent := int64(0); ; {
		if err := httpx.ExtendWrite(c.w, writeTimeout); err != nil {
			return err
		}
		if _, err := c.w.Write(part.Data); err != nil {
			return nil //nolint:nilerr // the reader is gone; there is nobody to tell
		}
		if sent += int64(len(part.Data)); sent >= whole || len(part.Data) == 0 {
			return nil
		}
		if part, err = files.Read(ctx, guest.ReadRequest{Path: in.Path, Offset: sent}); err != nil {
			// The status has left: a cut connection is the only way to say that this is not all.
			httpx.NoteFrom(ctx).Err = err
			panic(http.ErrAbortHandler)
		}
	}
}

func (a *API) knownSession(c *call, session id.Session) error {
	return c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		_, err := seenSession(ctx, tx, session)
		return err
	})
}

// filesOf opens the working directory of a session that the caller may see.
func (a *API) filesOf(c *call, session id.Session) (*sandbox.Files, error) {
	if err := a.knownSession(c, session); err != nil {
		return nil, err
	}
	if a.cfg.Domains.Sandboxes == nil {
		return nil, fault.New(fault.Unavailable, slugUnavailable, "This process has no way to the sandboxes.")
	}
	return a.cfg.Domains.Sandboxes.Files(c.r.Context(), c.who.Org, session)
}

// fileFault turns what the guest or the archive reader refuses into words for the API's reader.
func fileFault(err error) error {
	var ge *guest.Error
	if !errors.As(err, &ge) {
		return err
	}
	switch ge.Code {
	case guest.CodeNotFound:
		return fault.NotFound()
	case guest.CodeInvalid, guest.CodeOutsideWork, guest.CodeIsDirectory, guest.CodeNotDirectory, guest.CodeNotRegular:
		return fault.InvalidField("query/path", string(ge.Code), ge.Message)
	case guest.CodeTooLarge, guest.CodeTooMany:
		return fault.New(fault.TooLarge, slugTooLarge, ge.Message)
	default:
		return err
	}
}
