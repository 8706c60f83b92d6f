package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/driver"
)

// templates holds the one template of this node and how far it is.
type templates struct {
	drv  driver.Driver
	spec driver.TemplateSpec
	dir  string
	log  *slog.Logger

	mu      sync.Mutex
	report  bridge.NodeReport
	ready   *driver.Template
	changed chan struct{} // closed and replaced at each change
}

func newTemplates(drv driver.Driver, spec driver.TemplateSpec, dir string, report bridge.NodeReport, log *slog.Logger) *templates {
	report.TemplateState = bridge.TemplateAbsent
	report.Driver = drv.Name()
	return &templates{drv: drv, spec: spec, dir: dir, log: log, report: report, changed: make(chan struct{})}
}

func (t *templates) update(fn func(r *bridge.NodeReport)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.report)
	close(t.changed)
	t.changed = make(chan struct{})
}

// state returns what is known, and a channel that closes when it changes.
func (t *templates) state() (bridge.NodeReport, *driver.Template, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.report, t.ready, t.changed
}

// prepare makes the template ready, trying again after a failure, and returns
// when it is or ctx ends.
func (t *templates) prepare(ctx context.Context) {
	pause := 2 * time.Second
	for {
		err := t.prepareOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		t.log.ErrorContext(ctx, "the sandbox template is not ready", "error", err, "again_in", pause)
		t.update(func(r *bridge.NodeReport) { r.TemplateState, r.Error = bridge.TemplateFailed, err.Error() })
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
	}
}

func (t *templates) prepareOnce(ctx context.Context) error {
	t.phase("probe", 0)
	probe, err := t.drv.Probe(ctx)
	if err != nil {
		return fmt.Errorf("probe the driver: %w", err)
	}
	t.log.InfoContext(ctx, "driver probed", "driver", t.drv.Name(), "accelerator", probe.Accelerator, "version", probe.Version,
		"took", probe.Took, "detail", probe.Detail)
	t.update(func(r *bridge.NodeReport) {
		r.Accelerator, r.DriverVersion, r.Detail = string(probe.Accelerator), probe.Version, probe.Detail
	})
	key, err := t.drv.TemplateKey(ctx, t.spec)
	if err != nil {
		return fmt.Errorf("compute the template's key: %w", err)
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()

	spec := t.spec
	spec.Dir = filepath.Join(t.dir, key)
	started := time.Now()
	tpl, err := t.drv.OpenTemplate(ctx, spec.Dir)
	if err != nil {
		if !buildable(err) {
			return fmt.Errorf("open the template: %w", err)
		}
		t.log.InfoContext(ctx, "building the sandbox template", "key", key, "because", err)
		tpl, err = t.drv.BuildTemplate(ctx, spec, t.phase)
		if err != nil {
			return fmt.Errorf("build the template: %w", err)
		}
	}
	t.log.InfoContext(ctx, "sandbox template ready", "key", key, "took", time.Since(started).Round(time.Millisecond))
	t.mu.Lock()
	t.ready = tpl
	t.mu.Unlock()
	t.update(func(r *bridge.NodeReport) {
		r.TemplateKey, r.TemplateState, r.Phase, r.Progress, r.Error = key, bridge.TemplateReady, "", 1, ""
	})
	t.removeOthers(key)
	return nil
}

// buildable says whether building anew mends what opening met.
func buildable(err error) bool {
	return errors.Is(err, driver.ErrTemplateStale) || errors.Is(err, driver.ErrTemplateDamaged) || errors.Is(err, os.ErrNotExist)
}

func (t *templates) phase(phase string, done float64) {
	t.log.Info("preparing the sandbox template", "phase", phase, "done", fmt.Sprintf("%.0f%%", done*100))
	t.update(func(r *bridge.NodeReport) {
		r.TemplateState, r.Phase, r.Progress, r.Error = bridge.TemplateBuilding, phase, done, ""
	})
}

// lock keeps two node services of one machine (an old one that is being
// replaced, or another installation's) from building into one folder.
func (t *templates) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(t.dir, 0o755); err != nil { //nolint:gosec // the engine's account must be able to pass
		return nil, fmt.Errorf("make the templates' folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(t.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the templates' lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor is small
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock the templates: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// keepTemplates is how many templates stay on disk: the current one and the one
// before, so that going back after an upgrade builds nothing.
const keepTemplates = 2

func (t *templates) removeOthers(key string) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	type old struct {
		path string
		at   time.Time
	}
	var olds []old
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && e.Name() != key {
			olds = append(olds, old{filepath.Join(t.dir, e.Name()), info.ModTime()})
		}
	}
	for len(olds) > keepTemplates-1 {
		first := 0
		for i := range olds {
			if olds[i].at.Before(olds[first].at) {
				first = i
			}
		}
		if err := os.RemoveAll(olds[first].path); err != nil {
			t.log.Warn("an old sandbox template could not be removed", "path", olds[first].path, "error", err)
		}
		olds = append(olds[:first], olds[first+1:]...)
	}
}

// close gives the template back. Machines that were started from it live on.
func (t *templates) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready != nil {
		_ = t.ready.Close()
		t.ready = nil
	}
}
