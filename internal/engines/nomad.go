package engines

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const nomadModule = "github.com/hashicorp/nomad"

func (o *obtaining) nomadPath() string {
	return filepath.Join(o.cache, "nomad", nomadVersion, "nomad")
}

// obtainNomad builds Nomad from the pinned module in tools/nomad: its go.sum
// holds the hash of every module. Nothing else of the source tree is needed.
func obtainNomad(ctx context.Context, o *obtaining, t *task) error {
	source, err := o.sourceDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(source, "tools", "nomad")
	target := o.nomadPath()
	making, err := os.MkdirTemp(mustParent(filepath.Dir(target)), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(making)

	modules, err := countModules(filepath.Join(dir, "go.sum"))
	if err != nil {
		return err
	}
	// Listing the packages fetches all modules that have one, and counts what
	// is to be compiled.
	packages := int64(0)
	fetched := int64(0)
	t.count("fetching modules", stepsCount, 0, modules)
	err = runGo(ctx, dir, []string{"list", "-deps", "-tags", "release", "-f", "{{.ImportPath}}", nomadModule},
		func(string) { packages++ },
		func(line string) {
			if strings.HasPrefix(line, "go: downloading ") {
				fetched++
				t.count("fetching modules", stepsCount, min(fetched, modules), modules)
			}
		})
	if err != nil {
		return fmt.Errorf("fetching Nomad's modules: %w", err)
	}
	compiled := int64(0)
	t.count("compiling packages", stepsCount, 0, packages)
	err = runGo(ctx, dir, []string{
		"build", "-v", "-tags", "release", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w",
		"-o", filepath.Join(making, "nomad"), nomadModule,
	},
		func(string) {},
		func(line string) {
			if !strings.HasPrefix(line, "go: ") {
				compiled++
				t.count("compiling packages", stepsCount, min(compiled, packages), packages)
			}
		})
	if err != nil {
		return fmt.Errorf("building Nomad: %w", err)
	}
	if err := os.Chmod(making, 0o755); err != nil { //nolint:gosec // others may run it
		return err
	}
	return os.Rename(making, filepath.Dir(target))
}

// countModules counts the modules whose archives go.sum knows: about as many
// are fetched.
func countModules(goSum string) (int64, error) {
	b, err := os.ReadFile(goSum)
	if err != nil {
		return 0, err
	}
	var n int64
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 3 && !strings.HasSuffix(fields[1], "/go.mod") {
			n++
		}
	}
	return n, nil
}

// runGo runs the go command in a module of its own and hands on its lines. Its
// last words are in the error.
func runGo(ctx context.Context, dir string, args []string, stdout, stderr func(string)) error {
	goBin, err := exec.LookPath("go")
	if err != nil {
		goBin = "/usr/local/go/bin/go"
		if !isFile(goBin) {
			return errors.New("there is no go command on the PATH")
		}
	}
	cmd := exec.CommandContext(ctx, goBin, args...)
	cmd.Dir = dir
	// Without cgo it needs no C compiler, and comes out the same with and without one.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly", "GOOS=linux", "GOARCH=amd64")
	outPipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	errPipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var last bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		eachLine(errPipe, func(line string) {
			stderr(line)
			if !strings.HasPrefix(line, "go: downloading ") {
				last.WriteString(line + "\n")
			}
		})
	}()
	eachLine(outPipe, stdout)
	<-read
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, lastLines(last.String(), 15))
	}
	return nil
}

func eachLine(r io.Reader, each func(string)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		each(lines.Text())
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
}
