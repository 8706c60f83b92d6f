package embedded

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deadlySignals are those whose handlers the engine puts back to "die", even
// when asked to leave signals alone. Go needs its own: without SIGSEGV's a
// recovered nil dereference ends the process.
var deadlySignals = []unix.Signal{
	unix.SIGABRT, unix.SIGSEGV, unix.SIGILL, unix.SIGBUS,
	unix.SIGSYS, unix.SIGFPE, unix.SIGTSTP, unix.SIGTRAP,
	unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP,
	unix.SIGPIPE, unix.SIGURG, unix.SIGPROF,
}

// kernelSigaction is the kernel's struct sigaction on 64-bit Linux, kept as
// bytes because it is only carried from one call to the next: handler, flags,
// restorer, mask.
type kernelSigaction [32]byte

// signalGuard remembers the handlers that Go's runtime had installed before the
// engine was loaded.
type signalGuard struct {
	saved map[unix.Signal]kernelSigaction
}

func snapshotSignals() *signalGuard {
	g := &signalGuard{saved: make(map[unix.Signal]kernelSigaction, len(deadlySignals))}
	for _, sig := range deadlySignals {
		var act kernelSigaction
		if rtSigaction(sig, nil, &act) {
			g.saved[sig] = act
		}
	}
	return g
}

// restore puts back every handler that has changed since the snapshot. It must
// run after each call that can reach the engine's signal code: dlopen, the
// switch that turns its handlers off, and each connect.
func (g *signalGuard) restore() {
	for sig, want := range g.saved {
		var now kernelSigaction
		if rtSigaction(sig, nil, &now) && !bytes.Equal(now[:], want[:]) {
			rtSigaction(sig, &want, nil)
		}
	}
}

// rtSigaction calls the kernel directly: glibc's wrapper would replace the
// restorer that Go's handlers return through.
func rtSigaction(sig unix.Signal, set, old *kernelSigaction) bool {
	const maskBytes = 8
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), maskBytes, 0, 0)
	return errno == 0
}
