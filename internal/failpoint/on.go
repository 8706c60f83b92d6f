//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	chosen string
	left   atomic.Int64
)

// FAILPOINT is "place:n": the n-th time that the process is there, it kills itself.
func init() {
	name, n, _ := strings.Cut(os.Getenv("FAILPOINT"), ":")
	times, err := strconv.ParseInt(n, 10, 64)
	if err == nil {
		chosen = name
		left.Store(times)
	}
}

// Hit says that the process is at the named place.
func Hit(place string) {
	if place == chosen && left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal is there
	}
}
