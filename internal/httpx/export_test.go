package httpx

import (
	"testing"
	"time"
)

// SetStreamWriteTimeout shortens the patience with slow readers for one test.
func SetStreamWriteTimeout(t *testing.T, d time.Duration) {
	before := streamWriteTimeout
	streamWriteTimeout = d
	t.Cleanup(func() { streamWriteTimeout = before })
}
