package upstream

import (
	"net/http"
	"strconv"
	"time"
)

// longestWait bounds what a server may ask for: an hour, after which another attempt costs little.
const longestWait = time.Hour

// RetryAfter reads how long the server asks to wait: OpenAI's retry-after-ms, or Retry-After in seconds or as a date. It is zero when
// there is none or it makes no sense.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if h == nil {
		return 0
	}
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		return bounded(ms / 1000)
	}
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(v, 64); err == nil {
		return bounded(seconds)
	}
	if at, err := http.ParseTime(v); err == nil {
		return bounded(at.Sub(now).Seconds())
	}
	return 0
}

func bounded(seconds float64) time.Duration {
	switch {
	case !(seconds > 0): // NaN too
		return 0
	case seconds > longestWait.Seconds():
		return longestWait
	default:
		return time.Duration(seconds * float64(time.Second))
	}
}
