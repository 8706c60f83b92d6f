package httpx

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Note collects what a request's log line should say and only inner layers know: the route's pattern, who asked, the internal error.
type Note struct {
	Route     string
	Principal string
	Err       error
}

type noteKey struct{}

// NoteFrom returns the request's note, or a throw-away one outside of AccessLog.
func NoteFrom(ctx context.Context) *Note {
	if n, ok := ctx.Value(noteKey{}).(*Note); ok {
		return n
	}
	return &Note{}
}

// AccessLog writes one line a request when it ends, and counts it in m when m is not nil. The line has the path and never the query,
// the headers or the body, where secrets and prompts travel.
func AccessLog(log *slog.Logger, m *Metrics) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := time.Now()
			rec := Record(w)
			note := &Note{}
			ctx := context.WithValue(r.Context(), noteKey{}, note)
			done := m.begin()
			// Deferred, so that a handler that aborts its connection (http.ErrAbortHandler) is logged and counted too.
			defer func() {
				took := time.Since(began)
				status := rec.Status()
				if status == 0 {
					status = http.StatusOK
				}
				done(note.Route, r.Method, status, took)
				level := slog.LevelInfo
				switch {
				case isProbe(r.URL.Path):
					level = slog.LevelDebug // whoever asks knows the answer; not ready is no failure of the request
				case status >= 500:
					level = slog.LevelError
				}
				attrs := []slog.Attr{
					slog.String("request_id", string(RequestIDFrom(ctx))),
					slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status),
					slog.Int64("bytes", rec.Bytes()), slog.Duration("took", took),
				}
				if note.Principal != "" {
					attrs = append(attrs, slog.String("principal", note.Principal))
				}
				if note.Err != nil {
					attrs = append(attrs, slog.String("err", note.Err.Error()))
				}
				log.LogAttrs(ctx, level, "request", attrs...)
			}()
			next.ServeHTTP(rec, r.WithContext(ctx))
		})
	}
}

func isProbe(path string) bool {
	return path == "/healthz" || path == "/readyz" || path == "/metrics" || strings.HasPrefix(path, "/assets/")
}
