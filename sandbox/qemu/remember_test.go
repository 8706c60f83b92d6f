package qemu

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/driver"
)

// TestVerdictsHoldForTheirCircumstancesOnly: whatever a verdict depends on, another value of it is another key.
func TestVerdictsHoldForTheirCircumstancesOnly(t *testing.T) {
	base := circumstances{QEMU: "a", BootID: "b", Release: "c", KHz: 1}
	seen := map[string]string{base.key(): "base"}
	for i := range reflect.TypeFor[circumstances]().NumField() {
		c := base
		f := reflect.ValueOf(&c).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "other")
		case reflect.Int:
			f.SetInt(f.Int() + 7)
		case reflect.Bool:
			f.SetBool(!f.Bool())
		default:
			t.Fatalf("a circumstance of kind %s", f.Kind())
		}
		name := reflect.TypeFor[circumstances]().Field(i).Name
		require.Empty(t, seen[c.key()], "%s does not count", name)
		seen[c.key()] = name
	}
}

func TestVerdictsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "templates", ProbeFile)
	open := func(anew bool) *Driver {
		d, err := New(Config{Binary: "/bin/true", ProbeCache: file, ProbeAnew: anew})
		require.NoError(t, err)
		return d
	}
	d := open(false)
	_, ok := d.recallProbe("0")
	require.False(t, ok)
	for i := range keepVerdicts + 3 {
		d.rememberProbe(strconv.Itoa(i), driver.ProbeResult{Accelerator: driver.AcceleratorTCG, Took: time.Duration(i)})
	}
	d = open(false)
	for i := range keepVerdicts + 3 {
		r, ok := d.recallProbe(strconv.Itoa(i))
		require.Equal(t, i >= 3, ok, "the newest %d are kept, not %d", keepVerdicts, i)
		if ok {
			require.EqualValues(t, i, r.Took)
		}
	}
	_, ok = open(true).recallProbe("5")
	require.False(t, ok, "whoever asks anew believes nothing")
	open(true).rememberProbe("5", driver.ProbeResult{Accelerator: driver.AcceleratorKVM})
	r, ok := d.recallProbe("5")
	require.True(t, ok)
	require.Equal(t, driver.AcceleratorKVM, r.Accelerator, "and what it finds replaces what was known")
	all, err := readVerdicts(file)
	require.NoError(t, err)
	require.Len(t, all.Verdicts, keepVerdicts)

	require.NoError(t, os.WriteFile(file, []byte("{torn"), 0o600))
	_, ok = d.recallProbe("5")
	require.False(t, ok)
	d.rememberProbe("6", driver.ProbeResult{})
	_, ok = d.recallProbe("6")
	require.True(t, ok, "a damaged file is replaced")
	leftovers, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".probe-*"))
	require.NoError(t, err)
	require.Empty(t, leftovers)
}

func TestCircumstancesOfThisMachine(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	require.NoError(t, os.WriteFile(kernel, []byte("a kernel"), 0o600))
	d, err := New(Config{Binary: "/bin/true", Kernel: kernel, ProbeCache: "x"})
	require.NoError(t, err)
	before, err := d.circumstances("7.2")
	require.NoError(t, err)
	require.NotEmpty(t, before.BootID)
	require.NotEmpty(t, before.Release)
	require.NotEmpty(t, before.KVM)

	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(kernel, later, later))
	same, err := d.circumstances("7.2")
	require.NoError(t, err)
	require.Equal(t, before.key(), same.key(), "a file that was copied or built again is the same file")

	require.NoError(t, os.WriteFile(kernel, []byte("A kernel"), 0o600))
	require.NoError(t, os.Chtimes(kernel, later, later))
	other, err := d.circumstances("7.2")
	require.NoError(t, err)
	require.NotEqual(t, before.key(), other.key())
}
