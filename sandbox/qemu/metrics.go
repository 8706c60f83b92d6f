package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/sandbox/driver"
)

// clockTick is the unit of times in /proc, fixed at 100 Hz for programs.
const clockTick = 10 * time.Millisecond

// Metrics implements driver.Machine.
func (m *machine) Metrics(context.Context) (driver.Metrics, error) {
	select {
	case <-m.p.done:
		return driver.Metrics{}, m.p.endedError()
	default:
	}
	out, err := readMetrics(m.p.pid)
	if err != nil {
		return driver.Metrics{}, fmt.Errorf("metrics of machine %s: %w", m.id, err)
	}
	return out, nil
}

func readMetrics(pid int) (driver.Metrics, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return driver.Metrics{}, err
	}
	// The name in parentheses may contain anything; fields count from behind it.
	_, rest, ok := bytes.Cut(stat, []byte(") "))
	f := strings.Fields(string(rest))
	if !ok || len(f) < 22 {
		return driver.Metrics{}, fmt.Errorf("cannot read %s/stat", dir)
	}
	num := func(i int) int64 { n, _ := strconv.ParseInt(f[i-3], 10, 64); return n }
	out := driver.Metrics{
		CPU:      time.Duration(num(14)+num(15)) * clockTick,
		Threads:  int(num(20)),
		RSSBytes: num(24) * int64(os.Getpagesize()),
	}
	// Not every kernel tells; then PSS stays zero.
	if b, err := os.ReadFile(dir + "/smaps_rollup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				out.PSSBytes = n << 10
			}
		}
	}
	return out, nil
}
