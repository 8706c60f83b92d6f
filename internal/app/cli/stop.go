package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

func stopCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop", Short: "Stop a session with all below it, or all that works of an agent, a key, a project or the organisation", Args: cobra.NoArgs,
		Long: "From the stop's commit on nothing that is stopped can write, spend or reach a sandbox. What it did stands on signed receipts: see ambit receipt.",
	}
	cmd.AddCommand(
		stopSession(),
		stopScope("agent AGENT", "Stop all sessions of an agent, by its id or name", func(ctx context.Context, c *apiclient.Client, name string) (string, error) {
			agent, err := agentByName(ctx, c, name)
			return "/v1/agents/" + url.PathEscape(agent) + "/stop", err
		}),
		stopScope("key KEY", "Stop all sessions that an API key began, by the key's id", func(_ context.Context, _ *apiclient.Client, key string) (string, error) {
			return "/v1/api_keys/" + url.PathEscape(key) + "/stop", nil
		}),
		stopScope("project PROJECT", "Stop all sessions of a project, by its id", func(_ context.Context, _ *apiclient.Client, project string) (string, error) {
			return "/v1/projects/" + url.PathEscape(project) + "/stop", nil
		}),
		stopEverything(),
	)
	return cmd
}

func stopSession() *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "session SESSION", Short: "Stop a session for good, with all sessions below it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var raw json.RawMessage
				if err := c.Call(ctx, http.MethodPost, sessionPath(args[0], "/kill"), nil, map[string]any{"reason": reason}, &raw); err != nil || asJSON {
					return printRaw(cmd, raw, err)
				}
				var r struct {
					ID       string
					Complete bool
					Children []json.RawMessage
				}
				if err := json.Unmarshal(raw, &r); err != nil {
					return fmt.Errorf("read the receipt: %w", err)
				}
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "Stopped %s and %s below it. Receipt %s", args[0], plural(len(r.Children), "session"), r.ID)
				if r.Complete {
					fmt.Fprintf(out, ", signed.\nKeep it: ambit receipt get %s --out receipt.json\n", args[0])
					return nil
				}
				fmt.Fprintf(out, ": the sandbox is still ending. See ambit receipt get %s\n", args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the receipt and the journal")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the receipt as JSON")
	return cmd
}

// stopFlags are what every order to stop takes.
type stopFlags struct {
	reason      string
	includeIdle bool
	asJSON      bool
}

func (f *stopFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the receipts and the journals")
	cmd.Flags().BoolVar(&f.includeIdle, "include-idle", false, "end idle sessions too; they take no more input afterwards")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print the order, with its receipt, as JSON")
}

func stopScope(use, short string, path func(ctx context.Context, c *apiclient.Client, name string) (string, error)) *cobra.Command {
	var f stopFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				to, err := path(ctx, c, args[0])
				if err != nil {
					return err
				}
				return f.order(ctx, cmd, c, to)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func stopEverything() *cobra.Command {
	var f stopFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "everything", Short: "Stop all sessions of the organisation", Args: cobra.NoArgs,
		Long: "Asks for the organisation's name first, unless --yes is given. It needs a key of the whole organisation.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				if !yes {
					var org struct{ Name string }
					if err := c.Call(ctx, http.MethodGet, "/v1/organization", nil, nil, &org); err != nil {
						return err
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "This stops every session of %s. Type its name to go on: ", oneLine(org.Name))
					typed, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
					if strings.TrimSpace(typed) != org.Name {
						return errors.New("that is not its name: nothing was stopped")
					}
				}
				return f.order(ctx, cmd, c, "/v1/organization/stop")
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// stopped is an order as the API gives it.
type stopped struct {
	ID       string
	Status   string
	Scope    struct{ Type, ID string }
	Stopped  int        `json:"sessions_stopped"`
	At       time.Time  `json:"requested_at"`
	FencedAt *time.Time `json:"fenced_at"`
}

// order gives the order and follows it until it is complete.
func (f *stopFlags) order(ctx context.Context, cmd *cobra.Command, c *apiclient.Client, path string) error {
	var raw json.RawMessage
	if err := c.Call(ctx, http.MethodPost, path, nil, map[string]any{"reason": f.reason, "include_idle": f.includeIdle}, &raw); err != nil {
		return err
	}
	var s stopped
	for {
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		if s.Status == "complete" {
			break
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s stopped so far, %s\n", s.ID, plural(s.Stopped, "session"), map[string]string{"running": "more to come", "fenced": "sandboxes are ending"}[s.Status])
		select {
		case <-ctx.Done():
			return fmt.Errorf("the order stands and goes on without you; see it with ambit receipt get %s", s.ID)
		case <-time.After(time.Second):
		}
		if err := c.Call(ctx, http.MethodGet, "/v1/stops/"+url.PathEscape(s.ID), nil, nil, &raw); err != nil {
			return err
		}
	}
	if f.asJSON {
		return printRaw(cmd, raw, nil)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Stopped %s of %s %s.", plural(s.Stopped, "session"), s.Scope.Type, s.Scope.ID)
	if s.FencedAt != nil && s.Stopped > 0 {
		fmt.Fprintf(out, " None could work any more %s after the order.", s.FencedAt.Sub(s.At).Round(time.Millisecond))
	}
	fmt.Fprintf(out, "\nThe receipt is signed. Keep it: ambit receipt get %s --out receipt.json\n", s.ID)
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
