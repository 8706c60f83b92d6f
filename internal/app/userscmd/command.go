// Package userscmd is "ambit users": what an operator does for a person who can't sign in.
package userscmd

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/config"
)

// Command is "users" with its subcommands.
func Command() *cobra.Command {
	cmd := &cobra.Command{Use: "users", Short: "Help a person who can't sign in"}
	cmd.AddCommand(&cobra.Command{
		Use:   "reset EMAIL",
		Short: "Print a link with which this person chooses a new password",
		Long:  "Prints a link that works once, for a day. Hand it to the person over a channel that you trust. It works beside a running 'ambit up', and on its data directory when none runs.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			return up.WithDatabases(cmd.Context(), cfg, os.Stderr, false, func(ctx context.Context, cfg config.Config) error {
				t, closing, err := server.OpenTenants(ctx, cfg, server.NewLogger(cfg, os.Stderr))
				if err != nil {
					return err
				}
				defer closing()
				link, err := t.Tenants.OperatorResetLink(ctx, args[0])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), link)
				return err
			})
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "forget-passkeys EMAIL",
		Short: "Revoke all passkeys and recovery codes of a person who lost both",
		Long:  "From then on the person's password confirms what matters, until another passkey is enrolled. Make sure that it is the person who asks. It works beside a running 'ambit up', and on its data directory when none runs.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			return up.WithDatabases(cmd.Context(), cfg, os.Stderr, false, func(ctx context.Context, cfg config.Config) error {
				t, closing, err := server.OpenTenants(ctx, cfg, server.NewLogger(cfg, os.Stderr))
				if err != nil {
					return err
				}
				defer closing()
				user, err := t.Tenants.OperatorFindUser(ctx, args[0])
				if err != nil {
					return err
				}
				n, err := t.StepUp.OperatorForget(ctx, user)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d passkeys revoked, and the recovery codes are void.\n", n)
				return err
			})
		},
	})
	return cmd
}
