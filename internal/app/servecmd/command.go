// Package servecmd is "ambit serve" and "ambit migrate": one process of Ambit on engines that are there.
package servecmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/config"
)

// Commands are "serve" and "migrate".
func Commands() []*cobra.Command {
	var role string
	serve := &cobra.Command{
		Use:   "serve",
		Short: "Run the API, the console, a worker, or all three, on engines that are there",
		Long: "Serves on AMBIT_LISTEN, with the engines at AMBIT_POSTGRES_URL, AMBIT_CLICKHOUSE_URL and AMBIT_NOMAD_ADDR. Both databases are brought to this\n" +
			"release's schema first; replicas that start at once take turns. SIGTERM or Ctrl-C drains: work under way is put down where another worker can take it up.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := server.ParseRole(role)
			if err != nil {
				return err
			}
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, r)
		},
	}
	serve.Flags().StringVar(&role, "role", "all", "all, api, console or worker")
	migrate := &cobra.Command{
		Use:   "migrate",
		Short: "Bring both databases to this release's schema",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			log := server.NewLogger(cfg, os.Stderr)
			return errors.Join(server.Migrate(cmd.Context(), cfg, log), server.MigrateTraces(cmd.Context(), cfg, log))
		},
	}
	return []*cobra.Command{serve, migrate}
}

func run(ctx context.Context, cfg config.Config, role server.Role) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := server.NewLogger(cfg, os.Stderr)
	slog.SetDefault(log)
	if err := server.Migrate(ctx, cfg, log); err != nil {
		return err
	}
	s, err := server.New(ctx, cfg, role, log)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return errors.Join(fmt.Errorf("start: %w", err), s.Stop(context.WithoutCancel(ctx)))
	}
	<-ctx.Done()
	log.InfoContext(ctx, "draining")
	if err := s.Stop(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	log.InfoContext(ctx, "stopped")
	return nil
}
