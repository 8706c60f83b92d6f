package enginescmd

import (
	"fmt"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
)

// Command is "ambit engines".
func Command() *cobra.Command {
	var forTests, quiet bool
	cmd := &cobra.Command{
		Use:   "engines [name…]",
		Short: "Obtain the engines that Ambit stands on, and show where they are",
		Long:  "Obtains what is missing of Postgres, QEMU, the sandboxes' kernel and root filesystem, the ClickHouse engine and Nomad (with --tests, what the tests need too), and shows where each is. What is on the machine is used; the rest is kept in AMBIT_CACHE_DIR.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			names := engines.ForRunning()
			if forTests {
				names = engines.ForTesting()
			}
			if len(args) > 0 {
				names = nil
				for _, a := range args {
					name, err := engines.ParseName(a)
					if err != nil {
						return err
					}
					names = append(names, name)
				}
			}
			began := time.Now()
			set, err := engines.Obtain(ctx, engines.Options{CacheDir: cfg.CacheDir, Out: cmd.ErrOrStderr()}, names...)
			if err != nil {
				return err
			}
			if quiet {
				return nil
			}
			v := reflect.ValueOf(*set)
			for i := range v.NumField() {
				if path := v.Field(i).String(); path != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "%-16s %s\n", v.Type().Field(i).Name, path)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%-16s %s\n", "took", time.Since(began).Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().BoolVar(&forTests, "tests", false, "obtain what the tests need, too")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "show only the progress")
	return cmd
}
