package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

func logsCommand() *cobra.Command {
	var follow, asJSON bool
	var after int64
	cmd := &cobra.Command{
		Use:   "logs SESSION",
		Short: "Print a session's journal, and follow it with -f",
		Long:  "Prints the journal from its beginning, or from after --after. With -f it goes on until the session ends; a broken connection is made again and continues where it was, without a gap or a repeat.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				out := cmd.OutOrStdout()
				show := func(e apiclient.Event) error {
					var err error
					if asJSON {
						_, err = fmt.Fprintf(out, "%s\n", e.Raw)
					} else {
						_, err = fmt.Fprintln(out, line(e))
					}
					return err
				}
				if !follow {
					return printJournal(ctx, c, args[0], after, show)
				}
				err := c.Logs(ctx, args[0], after, "terminated", apiclient.Handler{Event: show, Lost: func(err error, again time.Duration) {
					fmt.Fprintf(cmd.ErrOrStderr(), "The connection was lost (%v); again in %s.\n", err, again.Round(100*time.Millisecond))
				}})
				if errors.Is(err, context.Canceled) {
					return nil // Ctrl-C is how one stops following
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the session ends")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as a line of JSON")
	cmd.Flags().Int64Var(&after, "after", 0, "begin after the event of this number")
	return cmd
}

func printJournal(ctx context.Context, c *apiclient.Client, session string, after int64, show func(apiclient.Event) error) error {
	query := url.Values{"limit": {"1000"}}
	for {
		var page apiclient.Page[json.RawMessage]
		if err := c.Call(ctx, http.MethodGet, sessionPath(session, "/events"), query, nil, &page); err != nil {
			return err
		}
		for _, raw := range page.Data {
			e := apiclient.Event{Raw: raw}
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("read an event: %w", err)
			}
			if e.Seq <= after {
				continue
			}
			if err := show(e); err != nil {
				return err
			}
		}
		if page.NextPage == nil {
			return nil
		}
		query.Set("page", *page.NextPage)
	}
}
