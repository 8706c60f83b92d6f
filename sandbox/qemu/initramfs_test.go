package qemu

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// moduleFile is the smallest ELF file that has a .modinfo section.
func moduleFile(t testing.TB, depends string) []byte {
	t.Helper()
	modinfo := "license=GPL\x00depends=" + depends + "\x00name=x\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	le := binary.LittleEndian
	const hdr, sh = 64, 64
	off := uint64(hdr + len(modinfo))
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: off + uint64(len(names)), Ehsize: hdr, Shentsize: sh, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	require.NoError(t, binary.Write(&b, le, h))
	b.WriteString(modinfo)
	b.WriteString(names)
	for _, s := range []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: hdr, Size: uint64(len(modinfo))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: off, Size: uint64(len(names))},
	} {
		require.NoError(t, binary.Write(&b, le, s))
	}
	return b.Bytes()
}

func moduleTree(t testing.TB, mods map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, depends := range mods {
		file := filepath.Join(dir, "kernel", "drivers", name+".ko")
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, moduleFile(t, depends), 0o600))
	}
	return dir
}

func names(mods []module) []string {
	var out []string
	for _, m := range mods {
		out = append(out, m.name)
	}
	return out
}

func TestModulesComeBehindWhatTheyNeed(t *testing.T) {
	dir := moduleTree(t, map[string]string{
		"virtio": "", "virtio-ring": "", "virtio_mmio": "virtio,virtio-ring", "virtio_blk": "virtio_ring,virtio", "unused": "virtio",
	})
	mods, err := findModules(dir, []string{"virtio_blk", "virtio_mmio"})
	require.NoError(t, err)
	got := names(mods)
	require.Len(t, got, 4)
	for _, m := range mods {
		for _, d := range m.depends {
			require.Less(t, slices.Index(got, d), slices.Index(got, m.name), "%s before %s", d, m.name)
		}
	}
	again, err := findModules(dir, []string{"virtio_blk", "virtio_mmio"})
	require.NoError(t, err)
	require.Equal(t, modulesHash(mods), modulesHash(again))

	_, err = findModules(dir, []string{"missing"})
	require.ErrorContains(t, err, "missing (needed by the sandbox)")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/fs/missing.ko\n"), 0o600))
	mods, err = findModules(dir, []string{"missing"})
	require.NoError(t, err)
	require.Empty(t, mods, "what is built in needs no file")

	_, err = findModules(moduleTree(t, map[string]string{"a": "b", "b": "a"}), []string{"a"})
	require.ErrorContains(t, err, "depends on itself")
}

func TestModulesThatAreNone(t *testing.T) {
	for name, content := range map[string][]byte{"empty": nil, "text": []byte("not ELF"), "cut": moduleFile(t, "x")[:80]} {
		_, err := moduleDepends(content)
		require.Error(t, err, name)
	}
}

func FuzzModuleDepends(f *testing.F) {
	f.Add(moduleFile(f, "a,b-c"))
	f.Fuzz(func(_ *testing.T, in []byte) { _, _ = moduleDepends(in) })
}

// TestInitramfs: the kernel's own format, read by an independent program.
func TestInitramfs(t *testing.T) {
	var b bytes.Buffer
	mods := []module{{name: "one", content: []byte("12345")}, {name: "two", content: nil}}
	require.NoError(t, writeInitramfs(&b, []byte("#!guest"), mods))
	require.Zero(t, b.Len()%4)

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "i.cpio"), b.Bytes(), 0o600))
	if _, err := exec.LookPath("cpio"); err == nil {
		cmd := exec.CommandContext(t.Context(), "cpio", "-t", "--quiet")
		cmd.Stdin = bytes.NewReader(b.Bytes())
		out, err := cmd.Output()
		require.NoError(t, err)
		require.Contains(t, strings.Split(string(out), "\n"), "init")
	}
	files := readCPIO(t, b.Bytes())
	require.Equal(t, "#!guest", files["init"])
	require.Equal(t, "12345", files["modules/one.ko"])
	require.Equal(t, "one.ko\ntwo.ko\n", files["modules/order"])
	require.Contains(t, files, "TRAILER!!!")
}

// readCPIO reads the format back, field by field as the kernel documents it.
func readCPIO(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for pos := 0; pos < len(b); {
		require.Equal(t, "070701", string(b[pos:pos+6]))
		field := func(i int) int {
			n := 0
			for _, c := range string(b[pos+6+8*i : pos+14+8*i]) {
				n = n*16 + strings.IndexRune("0123456789abcdef", c)
			}
			return n
		}
		size, nameSize := field(6), field(11)
		name := string(b[pos+110 : pos+110+nameSize-1])
		data := (pos + 110 + nameSize + 3) &^ 3
		out[name] = string(b[data : data+size])
		pos = (data + size + 3) &^ 3
		if name == "TRAILER!!!" {
			require.Equal(t, len(b), pos)
			break
		}
	}
	return out
}
