package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

func quoteCommand() *cobra.Command {
	var f workFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "quote [flags] MESSAGE",
		Short: "Say what it would cost to give an agent something to do",
		Long:  "Takes what ambit invoke takes, starts nothing, and prints what it would cost: at the least, likely, and at most. The quote's prices bind when it is named with ambit invoke --quote before it expires.",
		Example: `  ambit quote --agent helper "What is in this folder?"
  ambit quote --model ambit/scripted --max-cost 0.50 - < task.md`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			message, err := readMessage(cmd, args)
			if err != nil {
				return err
			}
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				body, err := f.body(ctx, c, message)
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := c.Call(ctx, http.MethodPost, "/v1/quotes", nil, body, &raw); err != nil {
					return err
				}
				if asJSON {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", raw)
					return err
				}
				return showQuote(cmd, raw)
			})
		},
	}
	f.on(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the quote as JSON")
	return cmd
}

func showQuote(cmd *cobra.Command, raw []byte) error {
	var q apiclient.Quote
	if err := json.Unmarshal(raw, &q); err != nil {
		return fmt.Errorf("read the quote: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s  likely $%s, at least about $%s, at most $%s\n", q.ID, q.Likely.Amount, q.Low.Amount, q.Ceiling.Amount)
	rows := make([][]string, len(q.Lines))
	for i, l := range q.Lines {
		price := "$" + l.UnitPrice.Amount
		if l.Per != 1 {
			price += " for " + strconv.FormatInt(l.Per, 10)
		}
		rows[i] = []string{l.Ref, strconv.FormatInt(l.Quantity, 10), l.Unit, price, "$" + l.Amount.Amount}
	}
	if err := table(out, "WHAT\tQUANTITY\tUNIT\tPRICE\tAMOUNT", rows); err != nil {
		return err
	}
	for _, a := range q.Basis.Assumptions {
		fmt.Fprintln(out, oneLine(a))
	}
	fmt.Fprintf(out, "Good until %s, for one: ambit invoke --quote %s …\n", q.ExpiresAt.Local().Format(time.TimeOnly), q.ID)
	return nil
}
