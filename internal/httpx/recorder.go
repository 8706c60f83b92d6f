package httpx

import "net/http"

// Recorder passes an answer through and remembers its status and size. Flush, deadlines and hijacking reach the connection through
// Unwrap, which http.ResponseController follows.
type Recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Record returns w itself when it is a Recorder already, so that nested middleware share one.
func Record(w http.ResponseWriter) *Recorder {
	if rec, ok := w.(*Recorder); ok {
		return rec
	}
	return &Recorder{ResponseWriter: w}
}

// WriteHeader implements http.ResponseWriter.
func (r *Recorder) WriteHeader(status int) {
	// 1xx answers are notices; the real status is still to come.
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *Recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is followed by http.ResponseController.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Status is the status that was sent, 0 when none was yet.
func (r *Recorder) Status() int { return r.status }

// Bytes is the size of the body that was written so far.
func (r *Recorder) Bytes() int64 { return r.bytes }

// Started says whether the status line has left: after that an error can no longer be a proper answer.
func (r *Recorder) Started() bool { return r.status != 0 }
