package engines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockCache lets one process at a time obtain engines into the cache. The lock
// ends with its process.
func lockCache(ctx context.Context, cache string, out io.Writer) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // other accounts read the engines
		return nil, fmt.Errorf("making the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cache, "obtain.lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // no content
	if err != nil {
		return nil, fmt.Errorf("opening the cache's lock: %w", err)
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the cache: %w", err), f.Close())
		}
		if !told {
			told = true
			fmt.Fprintln(out, "another process is obtaining engines into", cache, "- waiting for it")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
