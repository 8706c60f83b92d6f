package embedded

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSignalGuard takes a handler away, as the engine has done in other releases,
// and gets it back.
func TestSignalGuard(t *testing.T) {
	g := snapshotSignals()
	require.NotZero(t, g.saved[unix.SIGSEGV], "Go's own handler")
	var none, now kernelSigaction
	require.True(t, rtSigaction(unix.SIGSEGV, &none, nil))
	g.restore()
	require.True(t, rtSigaction(unix.SIGSEGV, nil, &now))
	require.Equal(t, g.saved[unix.SIGSEGV], now)

	require.Panics(t, func() {
		var p *int
		*p = 1 //nolint:govet // the fault is what is tested
	})
}
