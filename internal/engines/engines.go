package engines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"ambit.dev/ambit/internal/config"
)

// Name is one engine or tool.
type Name string

// The engines that an instance stands on, and those that only tests need.
const (
	Postgres   Name = "postgres"
	QEMU       Name = "qemu"
	Kernel     Name = "kernel"
	Rootfs     Name = "rootfs"
	ClickHouse Name = "clickhouse"
	Nomad      Name = "nomad"

	Compiler Name = "compiler" // the race detector links with it
	Chromium Name = "chromium"
	Curl     Name = "curl" // the lines that the console shows are pasted into a shell
	Node     Name = "node"
	AIMock   Name = "aimock"
	AxeCore  Name = "axe-core"
)

// ForRunning are the engines of an instance.
func ForRunning() []Name { return []Name{Postgres, QEMU, Kernel, Rootfs, ClickHouse, Nomad} }

// ForTesting are the engines and what the tests need besides.
func ForTesting() []Name {
	return append(ForRunning(), Compiler, Chromium, Curl, Node, AIMock, AxeCore)
}

// Set tells where the engines are. A field is empty unless its engine was asked
// for.
type Set struct {
	PostgresBinDir string // folder with postgres, initdb, pg_dump, pg_restore
	QEMU           string // qemu-system-x86_64
	KernelVersion  string // "6.1.0-56-cloud-amd64"
	Vmlinux        string // that kernel's uncompressed ELF image
	KernelModules  string // folder of its .ko files, in their folders below kernel/
	RootfsErofs    string // read-only image of the sandboxes' root filesystem
	LibChdb        string // libchdb.so, the ClickHouse engine
	Nomad          string // the nomad binary

	Compiler  string // gcc
	Chromium  string
	Curl      string
	Node      string // node ≥ 20.15
	AIMockDir string // the unpacked npm package @copilotkit/aimock; it needs no other
	AxeJS     string // axe.min.js
}

// Options say where to look and where to tell.
type Options struct {
	// CacheDir is where engines are kept; default config.CacheDir().
	CacheDir string
	// Out is where progress is shown; nil shows none. Moving lines are drawn
	// when it is a terminal.
	Out io.Writer
	// SourceDir is the source tree, which holds tools/nomad; default: looked for
	// upwards from the working directory and from the binary.
	SourceDir string
}

// MissingError says what is not there and could not be had.
type MissingError struct {
	Names []Name
	// Packages are Debian packages that somebody with root's rights must install.
	Packages []string
	// Others are the reasons for what no package mends.
	Others []error
}

// Error says it with the line to paste.
func (e *MissingError) Error() string {
	var s strings.Builder
	if len(e.Packages) > 0 {
		fmt.Fprintf(&s, "these need root's rights; run:\n\n    %s\n", installLine(e.Packages))
	}
	for _, err := range e.Others {
		if s.Len() > 0 {
			s.WriteString("\n")
		}
		s.WriteString(err.Error())
	}
	return strings.TrimRight(s.String(), "\n")
}

// Unwrap gives the single reasons.
func (e *MissingError) Unwrap() []error { return e.Others }

// obtaining is one call of Obtain.
type obtaining struct {
	cache  string
	source string
	board  *board

	mu  sync.Mutex // guards set: engines are obtained side by side
	set Set
}

// Find fills the set with what is there, without obtaining anything, and names
// what is not.
func Find(ctx context.Context, opts Options, names ...Name) (*Set, []Name) {
	o := newObtaining(opts)
	var missing []Name
	for _, n := range names {
		if !o.find(ctx, catalogue[n]) {
			missing = append(missing, n)
		}
	}
	return &o.set, missing
}

// Obtain finds the named engines and obtains those that are missing, telling
// its progress. When some can't be had it obtains the others, and returns what
// there is with a *MissingError.
func Obtain(ctx context.Context, opts Options, names ...Name) (*Set, error) {
	o := newObtaining(opts)
	missing := o.missing(ctx, names)
	if len(missing) == 0 {
		return &o.set, nil
	}

	out := opts.Out
	if out == nil {
		out = io.Discard
	}
	unlock, err := lockCache(ctx, o.cache, out)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have brought them while we waited.
	if missing = o.missing(ctx, missing); len(missing) == 0 {
		return &o.set, nil
	}

	o.board = newBoard(out)
	defer o.board.close()
	problem := &MissingError{}
	var packages []string
	for _, n := range missing {
		packages = append(packages, catalogue[n].packages...)
	}
	packages = uninstalled(ctx, packages)
	if len(packages) > 0 && os.Geteuid() != 0 {
		problem.Packages, packages = packages, nil
	}

	// Postgres's and QEMU's packages come with apt; ClickHouse and Nomad come
	// over other roads meanwhile. The kernel and the root filesystem need apt.
	var mu sync.Mutex // guards problem
	failed := func(n Name, err error) {
		mu.Lock()
		defer mu.Unlock()
		problem.Names = append(problem.Names, n)
		if err != nil {
			problem.Others = append(problem.Others, fmt.Errorf("%s: %w", catalogue[n].title, err))
		}
	}
	var group errgroup.Group
	group.Go(func() error {
		aptErr := o.installPackages(ctx, packages)
		for _, n := range missing {
			e := catalogue[n]
			if !e.usesApt {
				continue
			}
			switch {
			case aptErr != nil && len(e.packages) > 0:
				failed(n, aptErr)
			case needsAny(e.packages, problem.Packages):
				failed(n, nil)
			default:
				if err := o.obtain(ctx, e); err != nil {
					failed(n, err)
				}
			}
		}
		return nil
	})
	for _, n := range missing {
		if e := catalogue[n]; !e.usesApt {
			group.Go(func() error {
				if err := o.obtain(ctx, e); err != nil {
					failed(n, err)
				}
				return nil
			})
		}
	}
	_ = group.Wait() // each tells through failed
	if err := ctx.Err(); err != nil {
		return &o.set, err
	}
	if len(problem.Names) > 0 {
		return &o.set, problem
	}
	return &o.set, nil
}

// Require is Obtain for tests and tools: the default cache, progress to stderr.
func Require(ctx context.Context, names ...Name) (*Set, error) {
	return Obtain(ctx, Options{Out: os.Stderr}, names...)
}

func newObtaining(opts Options) *obtaining {
	if opts.CacheDir == "" {
		opts.CacheDir = config.CacheDir()
	}
	return &obtaining{cache: opts.CacheDir, source: opts.SourceDir}
}

func (o *obtaining) missing(ctx context.Context, names []Name) []Name {
	var out []Name
	for _, n := range names {
		if e, ok := catalogue[n]; ok && !o.find(ctx, e) {
			out = append(out, n)
		}
	}
	return out
}

func (o *obtaining) find(ctx context.Context, e engine) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return e.find(ctx, o, &o.set)
}

func (o *obtaining) obtain(ctx context.Context, e engine) error {
	if e.obtain == nil { // its package is all
		if !o.find(ctx, e) {
			return fmt.Errorf("not found although %s is installed", strings.Join(e.packages, ", "))
		}
		return nil
	}
	t := o.board.begin(e.title)
	err := e.obtain(ctx, o, t)
	if err == nil && !o.find(ctx, e) {
		err = errors.New("obtained, and yet not found: the cache was changed meanwhile")
	}
	t.end(err, "")
	return err
}

func needsAny(packages, missing []string) bool {
	return slices.ContainsFunc(packages, func(p string) bool { return slices.Contains(missing, p) })
}

// sourceDir finds the source tree by its tools/nomad.
func (o *obtaining) sourceDir() (string, error) {
	starts := []string{o.source}
	if o.source == "" {
		starts = nil
		if wd, err := os.Getwd(); err == nil {
			starts = append(starts, wd)
		}
		if exe, err := os.Executable(); err == nil {
			starts = append(starts, filepath.Dir(exe))
		}
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if isFile(filepath.Join(dir, "tools", "nomad", "go.mod")) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("Ambit's source tree, whose tools/nomad says what to build, is not here: run ambit from it, or put a nomad binary on the PATH") //nolint:staticcheck // a name begins it
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// ParseName reads an engine's name.
func ParseName(s string) (Name, error) {
	if _, ok := catalogue[Name(s)]; ok {
		return Name(s), nil
	}
	known := make([]string, 0, len(catalogue))
	for _, n := range ForTesting() {
		known = append(known, string(n))
	}
	return "", fmt.Errorf("there is no engine %q; there are %s", s, strings.Join(known, ", "))
}
