// Package boundscmd is "ambit bounds": the models that once used more than was held for them, which the gate refuses until an operator says
// that their bound is right again.
//
// It owns the command's words; the gate keeps the list.
package boundscmd

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/fault"
)

// Command is "bounds" with its subcommands.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bounds",
		Short: "List and mend the models that used more than was held for them",
		Long:  "A model that once used more than its hold is refused: what it may cost at most is not known any more. Mend it once a release counts it right, or the prices name what was left out.",
	}
	cmd.AddCommand(list(), mend())
	return cmd
}

func list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the models that are refused for it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var broken []gate.BoundBreach
			err := within(cmd.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
				broken, err = gate.BoundBreaches(ctx, tx)
				return err
			})
			if err != nil {
				return err
			}
			if len(broken) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "No model has used more than was held for it.")
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "MODEL\tABOVE ITS HOLD\tSTEP\tNOTED") //nolint:errcheck // Flush tells
			for _, b := range broken {
				fmt.Fprintf(w, "%s\t%s USD\t%s\t%s\n", b.Model, b.Excess.Decimal(), b.Step, b.NotedAt.Format(time.RFC3339)) //nolint:errcheck // Flush tells
			}
			return w.Flush()
		},
	}
}

func mend() *cobra.Command {
	return &cobra.Command{
		Use: "mend MODEL", Short: "Say that a model's bound is right again", Args: cobra.ExactArgs(1), Example: "  ambit bounds mend openai/gpt-5",
		RunE: func(cmd *cobra.Command, args []string) error {
			err := within(cmd.Context(), func(ctx context.Context, tx pgx.Tx) error { return gate.MendBound(ctx, tx, args[0]) })
			if fault.IsCode(err, "not_found") {
				return fmt.Errorf("no model named %q has used more than was held for it; ambit bounds list shows those that have", args[0])
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is held for again.\n", args[0])
			return err
		},
	}
}

// within runs fn in a transaction on the instance's database.
func within(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	cfg, err := config.Load()
	if err != nil {
		return err
	}
	return up.WithDatabases(ctx, cfg, os.Stderr, false, func(ctx context.Context, cfg config.Config) error {
		d, closing, err := server.OpenTenants(ctx, cfg, server.NewLogger(cfg, os.Stderr))
		if err != nil {
			return err
		}
		defer closing()
		return d.DB.InPlatformTx(ctx, func(tx pgx.Tx) error { return fn(ctx, tx) })
	})
}
