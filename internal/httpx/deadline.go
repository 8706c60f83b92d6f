package httpx

import (
	"errors"
	"net/http"
	"time"
)

// Deadlines gives a client read to send its body and write, from the same moment, to take the answer, so that a slow one holds neither
// a connection nor a goroutine for ever. A handler that streams or waits moves the second deadline itself with ExtendWrite.
func Deadlines(read, write time.Duration) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			now := time.Now()
			// A writer without deadlines (a test's recorder) is no failure; a real connection always has them.
			if r.Body != nil && r.Body != http.NoBody {
				_ = c.SetReadDeadline(now.Add(read))
			}
			_ = c.SetWriteDeadline(now.Add(write))
			next.ServeHTTP(w, r)
		})
	}
}

// BodyRead lifts the deadline for the body once it is read. Left in force it would end the request's context when it passes: net/http
// keeps reading in the background to notice a client that goes away, and takes a time-out there for one.
func BodyRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer without deadlines has none to lift
}

// ExtendWrite moves the answer's deadline to d from now. On a connection that has none it does nothing.
func ExtendWrite(w http.ResponseWriter, d time.Duration) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
