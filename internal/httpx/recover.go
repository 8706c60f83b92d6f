package httpx

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// ErrorWriter answers a request with an error, in whatever form its reader understands.
type ErrorWriter func(w http.ResponseWriter, r *http.Request, err error)

// Recover turns a panic into an internal error: the stack goes to the log, the reader gets the same answer as for any other failure.
// When the answer has begun already, the connection is cut, so that half an answer is not taken for a whole one.
func Recover(log *slog.Logger, write ErrorWriter) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := Record(w)
			defer func() {
				v := recover()
				if v == nil {
					return
				}
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v) // net/http's own way to cut a connection
				}
				log.ErrorContext(r.Context(), "a handler panicked", "request_id", string(RequestIDFrom(r.Context())),
					"method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				if rec.Started() {
					panic(http.ErrAbortHandler)
				}
				write(rec, r, fmt.Errorf("panic: %v", v))
			}()
			next.ServeHTTP(rec, r)
		})
	}
}
