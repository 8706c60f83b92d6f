// Command ambit, as far as the tests of ambit up need it.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse/embedded"
	"ambit.dev/ambit/internal/config"
)

func main() {
	root := &cobra.Command{Use: "ambit", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(up.Command(), embedded.Command(), serve(), demonstrate())
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "ambit:", err)
		os.Exit(1)
	}
}

// serve stands for the server: it is ready after a moment, and notes in a file
// that it was asked to drain while its engines still ran.
func serve() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", RunE: func(*cobra.Command, []string) error {
		cfg, err := config.Load()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		ready := time.Now().Add(200 * time.Millisecond)
		srv := &http.Server{Addr: cfg.Listen, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if time.Now().Before(ready) {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, `{"status":"failed","checks":[{"name":"sandboxes","status":"failed","error":"none yet"}]}`)
			}
		})}
		go func() { _ = srv.ListenAndServe() }()
		<-ctx.Done()
		state := "engines gone"
		if _, running := up.Running(cfg); running && cfg.PostgresURL.IsSet() && cfg.ClickHouseURL.IsSet() && cfg.NomadAddr.IsSet() && cfg.NomadToken.IsSet() {
			state = "drained"
		}
		return os.WriteFile(cfg.DataDir+"/drained", []byte(state), 0o600)
	}}
	cmd.Flags().String("role", "", "")
	return cmd
}

func demonstrate() *cobra.Command {
	return &cobra.Command{Use: "demonstrate", RunE: func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintln(cmd.OutOrStdout(), "THE DEMONSTRATION")
		return nil
	}}
}
