package qemu

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// wantedModules are what a sandbox's machine needs; what they depend on is
// found in the modules themselves. virtio_mmio finds devices through ACPI.
var wantedModules = []string{"virtio_mmio", "virtio_blk", "virtio_console", "erofs", "overlay"}

// module is a kernel module file.
type module struct {
	name    string // with underscores, as the kernel has it
	content []byte
	depends []string
}

// findModules returns the wanted modules that exist below dir with all that they
// depend on, each behind its dependencies. A kernel may have some of them built
// in; a wanted name that is neither a file nor listed as built in is an error.
func findModules(dir string, wanted []string) ([]module, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := strings.CutSuffix(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			files[moduleName(name)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for kernel modules: %w", err)
	}
	builtin, err := builtinModules(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var out []module
	state := map[string]int{} // 1 being visited, 2 done
	var visit func(name, by string) error
	visit = func(name, by string) error {
		switch {
		case state[name] == 2 || builtin[name]:
			return nil
		case state[name] == 1:
			return fmt.Errorf("kernel modules: %s depends on itself", name)
		}
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel modules: %s (needed by %s) is not below %s; compressed modules are not supported", name, by, dir)
		}
		state[name] = 1
		m, err := readModule(name, path)
		if err != nil {
			return err
		}
		for _, d := range m.depends {
			if err := visit(d, name); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, m)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name, "the sandbox"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

func builtinModules(file string) (map[string]bool, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a nil map has no members
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of built-in modules: %w", err)
	}
	out := map[string]bool{}
	for _, line := range strings.Fields(string(b)) {
		out[moduleName(strings.TrimSuffix(filepath.Base(line), ".ko"))] = true
	}
	return out, nil
}

// readModule reads a module's dependencies from its .modinfo section: a tree
// that was unpacked and never installed has no modules.dep.
func readModule(name, path string) (module, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return module{}, fmt.Errorf("read kernel module: %w", err)
	}
	deps, err := moduleDepends(content)
	if err != nil {
		return module{}, fmt.Errorf("kernel module %s: %w", path, err)
	}
	return module{name: name, content: content, depends: deps}, nil
}

func moduleDepends(content []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("read ELF: %w", err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read .modinfo: %w", err)
	}
	var out []string
	for _, field := range strings.Split(string(info), "\x00") {
		list, ok := strings.CutPrefix(field, "depends=")
		if !ok {
			continue
		}
		for _, d := range strings.Split(list, ",") {
			if d != "" {
				out = append(out, moduleName(d))
			}
		}
	}
	return out, nil
}

// modulesHash is over the modules that would be used, in order.
func modulesHash(mods []module) string {
	h := sha256.New()
	for _, m := range mods {
		sum := sha256.Sum256(m.content)
		fmt.Fprintf(h, "%s %x\n", m.name, sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// writeInitramfs writes an archive with the guest agent as /init, the modules
// and the order in which to load them.
func writeInitramfs(w io.Writer, guestBinary []byte, mods []module) error {
	c := &cpio{w: w}
	for _, dir := range []string{"dev", "proc", "sys", "modules", "lower", "upper", "newroot"} {
		c.add(dir, modeDir|0o755, 0, 0, nil)
	}
	// The kernel opens /dev/console for /init before anything is mounted.
	c.add("dev/console", modeChar|0o600, 5, 1, nil)
	c.add("init", modeFile|0o755, 0, 0, guestBinary)
	var order strings.Builder
	for _, m := range mods {
		c.add("modules/"+m.name+".ko", modeFile|0o644, 0, 0, m.content)
		order.WriteString(m.name + ".ko\n")
	}
	c.add("modules/order", modeFile|0o644, 0, 0, []byte(order.String()))
	return c.close()
}

// Types of file in an archive.
const (
	modeFile = 0o100000
	modeDir  = 0o040000
	modeChar = 0o020000
)

// cpio writes the "newc" format that the kernel unpacks.
type cpio struct {
	w   io.Writer
	ino int
	off int64
	err error
}

func (c *cpio) write(b []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(b)
	c.off += int64(n)
	c.err = err
}

func (c *cpio) pad() {
	if r := c.off % 4; r != 0 {
		c.write(make([]byte, 4-r))
	}
}

func (c *cpio) add(name string, mode, major, minor int, content []byte) {
	c.ino++
	nlink := 1
	if mode&modeDir == modeDir {
		nlink = 2
	}
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, dev major and minor,
	// rdev major and minor, namesize (with the zero), check
	hdr := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, nlink, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	c.write([]byte(hdr))
	c.write(append([]byte(name), 0))
	c.pad()
	c.write(content)
	c.pad()
}

func (c *cpio) close() error {
	c.add("TRAILER!!!", 0, 0, 0, nil)
	if c.err != nil {
		return fmt.Errorf("write the initramfs: %w", c.err)
	}
	return nil
}
