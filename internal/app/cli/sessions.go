package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

func sessionsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sessions", Short: "List, show, interrupt and kill sessions", Args: cobra.NoArgs}
	list := listSessions()
	cmd.RunE = list.RunE
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, getSession(), interruptSession(), killSession())
	return cmd
}

func listSessions() *cobra.Command {
	var asJSON bool
	var limit int
	var statuses []string
	var agent string
	cmd := &cobra.Command{
		Use: "list", Short: "List sessions, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				query := url.Values{"statuses[]": statuses}
				if agent != "" {
					id, err := agentByName(ctx, c, agent)
					if err != nil {
						return err
					}
					query.Set("agent_id", id)
				}
				raw, err := list(ctx, c, "/v1/sessions", query, limit)
				if err != nil || asJSON {
					return printRaw(cmd, raw, err)
				}
				var rows [][]string
				for _, one := range raw {
					var s apiclient.Session
					if err := json.Unmarshal(one, &s); err != nil {
						return fmt.Errorf("read a session: %w", err)
					}
					rows = append(rows, []string{s.ID, clip(s.Agent.Name, 24), state(s.Status, s.StopReason), "$" + s.Cost.Charged.Amount, ago(s.CreatedAt), clip(s.Title, 40)})
				}
				if len(rows) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), `There are no sessions. Begin one: ambit invoke --model ambit/scripted "hello"`)
					return nil
				}
				return table(cmd.OutOrStdout(), "ID\tAGENT\tSTATUS\tCOST\tBEGUN\tTITLE", rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many at most")
	cmd.Flags().StringArrayVar(&statuses, "status", nil, "only these: running, rescheduling, idle, terminated; may be repeated")
	cmd.Flags().StringVar(&agent, "agent", "", "only this agent's, by id or name")
	return cmd
}

func getSession() *cobra.Command {
	return &cobra.Command{
		Use: "get SESSION", Short: "Show a session as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var out json.RawMessage
				err := c.Call(ctx, http.MethodGet, sessionPath(args[0], ""), nil, nil, &out)
				return printRaw(cmd, out, err)
			})
		},
	}
}

func interruptSession() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "interrupt SESSION", Short: "Stop what a session does; it stays, and takes new messages", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				body := map[string]any{"events": []any{map[string]any{"type": "user.interrupt", "reason": reason}}}
				if err := c.Call(ctx, http.MethodPost, sessionPath(args[0], "/events"), nil, body, nil); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "Interrupted", args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the journal")
	return cmd
}

func killSession() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "kill SESSION", Short: "End a session at once and for good, and print the receipt", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var receipt json.RawMessage
				err := c.Call(ctx, http.MethodPost, sessionPath(args[0], "/kill"), nil, map[string]any{"reason": reason}, &receipt)
				return printRaw(cmd, receipt, err)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the receipt")
	return cmd
}

func sessionPath(id, rest string) string { return "/v1/sessions/" + url.PathEscape(id) + rest }
