package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/processes"
)

// Command is "ambit up".
func Command() *cobra.Command {
	var enginesOnly, noDemonstration bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run all of Ambit on this machine",
		Long: "Obtains what is missing, starts Postgres, the ClickHouse engine, a Nomad agent and the server on loopback, " +
			"and stays in the foreground. On the first start it runs a demonstration session. Ctrl-C stops everything. " +
			"With AMBIT_POSTGRES_URL, AMBIT_CLICKHOUSE_URL or AMBIT_NOMAD_ADDR set, that engine is not started and the outside one is used.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding our own binary: %w", err)
			}
			return run(cmd.Context(), cfg, Options{
				Binary: self, EnginesOnly: enginesOnly, Demonstrate: !noDemonstration && !enginesOnly,
			})
		},
	}
	cmd.Flags().BoolVar(&enginesOnly, "engines-only", false, "start only the engines, and print how to point a server at them")
	cmd.Flags().BoolVar(&noDemonstration, "no-demonstration", false, "leave the demonstration session out on the first start")
	return cmd
}

// run starts everything, stays until a signal or a child that is given up, and
// stops everything.
func run(ctx context.Context, cfg config.Config, opts Options) error {
	out := os.Stdout
	colour := isatty.IsTerminal(out.Fd()) && !config.PlainTerminal()
	output := processes.NewOutput(out, colour, cfg.LogFormat == config.LogJSON)

	// The first signal ends the start, or the running; a second one all patience.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	instance, err := Open(cfg, opts, output)
	if err != nil {
		return err
	}
	defer instance.Close()

	started := make(chan error, 1)
	go func() { started <- instance.Start(ctx) }()
	var startErr, failure error
	var asked time.Time // when the first signal came
	select {
	case startErr = <-started:
		if startErr == nil {
			select {
			case sig := <-signals:
				asked = time.Now()
				instance.log.InfoContext(ctx, "stopping", "because", sig.String())
			case failure = <-instance.Failed():
			}
		}
	case sig := <-signals:
		asked = time.Now()
		cancel(errInterrupted)
		instance.log.InfoContext(ctx, "stopping before everything was started", "because", sig.String())
		startErr = <-started
	}
	if errors.Is(startErr, errInterrupted) || errors.Is(startErr, context.Canceled) {
		startErr = nil
	}
	if startErr != nil {
		failure = startErr
	}

	stopped := make(chan error, 1)
	go func() { stopped <- instance.Stop() }()
	for {
		select {
		case err := <-stopped:
			return errors.Join(failure, err)
		case <-signals:
			// A terminal, timeout and make may each send one for the same wish.
			if time.Since(asked) > sameWish {
				instance.log.WarnContext(ctx, "asked again: ending everything at once")
				instance.killAll()
			}
		}
	}
}

// sameWish is how soon after the first signal another one says the same.
const sameWish = 1500 * time.Millisecond

var errInterrupted = errors.New("interrupted")

// stopDeadline is what a stop may take in all.
const stopDeadline = 10 * time.Second
