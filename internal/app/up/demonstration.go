package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"ambit.dev/ambit/internal/processes"
)

// demonstrationWithin bounds the demonstration session.
const demonstrationWithin = 3 * time.Minute

// demonstrateOnce runs the demonstration if it never was, and shows what it
// prints. When it fails the platform runs on, and the next start tries again.
func (i *Instance) demonstrateOnce(ctx context.Context) error {
	done := i.path("demonstrated")
	_, err := os.Stat(done)
	if err == nil || !i.opts.Demonstrate {
		i.output.Print(fmt.Sprintf("\n    Console  %s\n    Stop     Ctrl-C\n\n", i.cfg.PublicURL))
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i.log.InfoContext(ctx, "running the demonstration session")
	if err := i.demonstrate(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		i.log.ErrorContext(ctx, "the demonstration failed; the platform runs on, and the next start tries it again", "error", err)
		return nil
	}
	return os.WriteFile(done, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600)
}

func (i *Instance) demonstrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demonstrationWithin)
	defer cancel()
	stream, err := i.stream("demonstration", i.cfg.LogLevel)
	if err != nil {
		return err
	}
	cmd := exec.Command(i.opts.Binary, "demonstrate") //nolint:noctx // ended below, with its group
	cmd.Env = i.serverEnvironment()
	cmd.Stdout, cmd.Stderr = printer{i.output}, stream
	child, err := processes.Launch(cmd, syscall.SIGTERM)
	if err != nil {
		return err
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer stop()
		return errors.Join(ctx.Err(), child.Stop(stopCtx, syscall.SIGTERM))
	}
	if child.ExitCode() != 0 {
		return fmt.Errorf("it %s; see %s", child.Ending(), i.path("logs", "demonstration.log"))
	}
	return nil
}

// printer shows text for people between the log lines.
type printer struct{ out *processes.Output }

func (p printer) Write(b []byte) (int, error) {
	p.out.Print(string(b))
	return len(b), nil
}
