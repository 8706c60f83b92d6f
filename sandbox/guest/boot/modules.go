package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OrderFile lists the modules of an initramfs, one file name a line, in the
// order in which they must be loaded.
const OrderFile = "order"

// loadModules loads what the initramfs carries.
func loadModules(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, OrderFile))
	if err != nil {
		return fmt.Errorf("read the list of modules: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return fmt.Errorf("open module %s: %w", name, err)
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}
