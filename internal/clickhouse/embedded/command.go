package embedded

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Command is the hidden command that is the engine's process. It runs until
// SIGTERM or SIGINT, and then ends with status 0 within three seconds.
//
// With --parent-pipe it also ends when its standard input does, so that it
// cannot outlive the process that holds the other end.
func Command() *cobra.Command {
	var (
		o          Options
		parentPipe bool
	)
	cmd := &cobra.Command{
		Use:           "embedded-clickhouse",
		Short:         "Run the embedded ClickHouse engine on a unix socket",
		Hidden:        true,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			if parentPipe {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
				go func() {
					_, _ = io.Copy(io.Discard, cmd.InOrStdin())
					cancel()
				}()
			}
			o.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil))
			return Serve(ctx, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.DataDir, "data", "", "directory of the engine's data")
	flags.StringVar(&o.Socket, "socket", "", "unix socket to serve on")
	flags.StringVar(&o.Lib, "lib", "", "path of libchdb.so")
	flags.Int64Var(&o.MaxMemory, "max-memory", DefaultMaxMemory, "bound of the engine's memory, in bytes")
	flags.Int64Var(&o.MarkCache, "mark-cache", DefaultMarkCache, "bound of the index mark cache, in bytes")
	flags.IntVar(&o.MaxQueries, "max-queries", DefaultMaxQueries, "queries under way at once")
	flags.BoolVar(&parentPipe, "parent-pipe", false, "end when standard input ends")
	flags.BoolVar(&o.Ephemeral, "ephemeral", false, "remove the data directory at the end")
	for _, name := range []string{"data", "socket", "lib"} {
		// Fails only for a flag that does not exist.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}
