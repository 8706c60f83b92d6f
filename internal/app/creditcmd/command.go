// Package creditcmd is "ambit credit": what an operator does with the credit of an organisation. Each act is an entry of its ledger, with a
// note that says why and is kept for ever.
//
// It owns the command's words; the ledger is billing's.
package creditcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

const (
	// maxAmount keeps a slip of the finger below what the sums of an int64 hold.
	maxAmount = 100_000_000 * money.Dollar
	maxNote   = 500
	// listed is how many entries list shows.
	listed = 50
)

// Command is "credit" with its subcommands.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credit",
		Short: "Grant, revoke and list the credit of an organisation",
		Long:  "Works on the database, beside a running 'ambit up' or on its data directory when none runs. ORG is an organisation's id or its short name in the console's addresses.",
	}
	cmd.AddCommand(
		change("grant", "Give an organisation credit", "Granted", billing.Grant),
		change("revoke", "Take back credit that is neither held nor spent", "Revoked", revoke),
		list(),
	)
	return cmd
}

type posting func(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, amount money.Nanos, note string) (id.Entry, error)

func change(use, short, done string, post posting) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use: use + " ORG AMOUNT --note TEXT", Short: short, Args: cobra.ExactArgs(2),
		Example: "  ambit credit " + use + ` ada 25.00 --note "invoice 2026-117"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			amount, err := parseAmount(args[1])
			if err != nil {
				return err
			}
			if note, err = parseNote(note); err != nil {
				return err
			}
			var said string
			err = within(cmd.Context(), args[0], func(ctx context.Context, d *server.Domains, org id.Org, tx pgx.Tx) error {
				entry, err := post(ctx, tx, d.Clock.Now(), org, amount, note)
				if err != nil {
					return err
				}
				b, err := billing.ReadBalances(ctx, tx, org)
				said = fmt.Sprintf("%s %s USD (%s). %s now has %s USD available, %s held and %s spent.",
					done, amount.Decimal(), entry, org, b.Available.Decimal(), b.Held.Decimal(), b.Spent.Decimal())
				return err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said) // only now is it committed
			return err
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why: stands in the ledger for ever (required)")
	return cmd
}

// revoke says beforehand what can't be taken back; the ledger refuses it all the same.
func revoke(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, amount money.Nanos, note string) (id.Entry, error) {
	b, err := billing.ReadBalances(ctx, tx, org)
	if err != nil {
		return "", err
	}
	if amount > b.Available {
		return "", fmt.Errorf("only %s USD can be revoked: %s are held and %s are spent", b.Available.Decimal(), b.Held.Decimal(), b.Spent.Decimal())
	}
	return billing.Revoke(ctx, tx, now, org, amount, note)
}

func list() *cobra.Command {
	return &cobra.Command{
		Use: "list ORG", Short: "Show an organisation's balances and its last grants and revocations", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return within(cmd.Context(), args[0], func(ctx context.Context, _ *server.Domains, org id.Org, tx pgx.Tx) error {
				balances, err := billing.AccountBalances(ctx, tx, org)
				if err != nil {
					return err
				}
				var entries []billing.Transfer
				for _, kind := range []string{"grant", "revocation"} {
					found, err := billing.Entries(ctx, tx, org, billing.EntryFilter{Kind: kind, Limit: listed})
					if err != nil {
						return err
					}
					entries = append(entries, found...)
				}
				return write(cmd.OutOrStdout(), org, balances, newest(entries))
			})
		},
	}
}

// newest sorts by id, which grows with time, and keeps a page.
func newest(entries []billing.Transfer) []billing.Transfer {
	slices.SortFunc(entries, func(a, b billing.Transfer) int { return strings.Compare(string(b.ID), string(a.ID)) })
	return entries[:min(len(entries), listed)]
}

func write(out io.Writer, org id.Org, balances []billing.AccountBalance, entries []billing.Transfer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\n\n", org) //nolint:errcheck // Flush tells
	for _, b := range balances {
		fmt.Fprintf(w, "%s\t%s USD\n", b.Account, b.Balance.Decimal()) //nolint:errcheck // Flush tells
	}
	fmt.Fprintln(w) //nolint:errcheck // Flush tells
	for _, e := range entries {
		sign := "+"
		if e.Kind == "revocation" {
			sign = "-"
		}
		fmt.Fprintf(w, "%s\t%s%s USD\t%s\t%s\n", e.CreatedAt.Format(time.RFC3339), sign, e.Amount.Decimal(), e.ID, e.Note) //nolint:errcheck // Flush tells
	}
	return w.Flush()
}

// within runs fn in a transaction of the organisation that the operator named.
func within(ctx context.Context, name string, fn func(ctx context.Context, d *server.Domains, org id.Org, tx pgx.Tx) error) error {
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
		var org id.Org
		err = d.DB.InPlatformTx(ctx, func(tx pgx.Tx) error {
			org, err = billing.FindOrganization(ctx, tx, name)
			return err
		})
		if err != nil {
			return err
		}
		ctx = principal.With(ctx, principal.NamedSystem("operator"))
		return d.DB.InTx(ctx, org, func(tx pgx.Tx) error { return fn(ctx, d, org, tx) })
	})
}

func parseAmount(text string) (money.Nanos, error) {
	amount, err := money.Parse(text)
	if err != nil {
		return 0, err
	}
	if amount <= 0 || amount > maxAmount {
		return 0, fmt.Errorf("the amount must be more than zero and at most %s", maxAmount.Display())
	}
	return amount, nil
}

func parseNote(note string) (string, error) {
	note = strings.TrimSpace(note)
	switch {
	case note == "":
		return "", errors.New("--note is required: it says why, and stands in the ledger for ever")
	case utf8.RuneCountInString(note) > maxNote:
		return "", fmt.Errorf("the note is longer than %d characters", maxNote)
	case !utf8.ValidString(note) || strings.ContainsFunc(note, func(r rune) bool { return r < ' ' }):
		return "", errors.New("the note must be one line of text")
	}
	return note, nil
}
