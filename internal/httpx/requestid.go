package httpx

import (
	"context"
	"net/http"

	"ambit.dev/ambit/internal/id"
)

// RequestIDHeader carries the request's id out.
const RequestIDHeader = "Request-Id"

type requestIDKey struct{}

// RequestID gives each request an id, in its context and in the answer's header. An id that a client sends is not taken over: two
// clients could send the same one, and support would read the wrong log lines.
func RequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rid := id.New[id.Request]()
		w.Header().Set(RequestIDHeader, string(rid))
		next.ServeHTTP(w, r.WithContext(WithRequestID(r.Context(), rid)))
	})
}

// WithRequestID returns a context that carries rid.
func WithRequestID(ctx context.Context, rid id.Request) context.Context {
	return context.WithValue(ctx, requestIDKey{}, rid)
}

// RequestIDFrom returns the id of the request that ctx belongs to, or "" outside of one.
func RequestIDFrom(ctx context.Context) id.Request {
	rid, _ := ctx.Value(requestIDKey{}).(id.Request)
	return rid
}
