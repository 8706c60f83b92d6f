package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

func agentsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "agents", Short: "List, show and create agents", Args: cobra.NoArgs}
	list := listAgents()
	cmd.RunE = list.RunE
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, getAgent(), createAgent(), agentKeys())
	return cmd
}

func listAgents() *cobra.Command {
	var asJSON, archived bool
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List agents, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				query := url.Values{}
				if archived {
					query.Set("include_archived", "true")
				}
				raw, err := list(ctx, c, "/v1/agents", query, limit)
				if err != nil || asJSON {
					return printRaw(cmd, raw, err)
				}
				var rows [][]string
				for _, one := range raw {
					var a apiclient.Agent
					if err := json.Unmarshal(one, &a); err != nil {
						return fmt.Errorf("read an agent: %w", err)
					}
					rows = append(rows, []string{a.ID, clip(a.Name, 32), strconv.Itoa(a.Version), a.Model, strings.Join(a.Tools, ","), ago(a.UpdatedAt)})
				}
				if len(rows) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "There are no agents yet. Make one: ambit agents create --name helper --model ambit/scripted --tool bash")
					return nil
				}
				return table(cmd.OutOrStdout(), "ID\tNAME\tVERSION\tMODEL\tTOOLS\tCHANGED", rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&archived, "archived", false, "archived ones too")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many at most")
	return cmd
}

// list follows pages until it has enough.
func list(ctx context.Context, c *apiclient.Client, path string, query url.Values, limit int) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for len(out) < limit {
		query.Set("limit", strconv.Itoa(min(limit-len(out), 100)))
		var page apiclient.Page[json.RawMessage]
		if err := c.Call(ctx, http.MethodGet, path, query, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Data...)
		if page.NextPage == nil {
			break
		}
		query.Set("page", *page.NextPage)
	}
	return out, nil
}

func printRaw(cmd *cobra.Command, v any, err error) error {
	if err != nil {
		return err
	}
	return printJSON(cmd.OutOrStdout(), v)
}

func getAgent() *cobra.Command {
	return &cobra.Command{
		Use: "get AGENT", Short: "Show an agent, by its id or name, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				agent, err := agentByName(ctx, c, args[0])
				if err != nil {
					return err
				}
				var out json.RawMessage
				err = c.Call(ctx, http.MethodGet, "/v1/agents/"+url.PathEscape(agent), nil, nil, &out)
				return printRaw(cmd, out, err)
			})
		},
	}
}

func createAgent() *cobra.Command {
	var name, model, system, description string
	var tools []string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "create", Short: "Create an agent", Args: cobra.NoArgs,
		Example: `  ambit agents create --name helper --model ambit/scripted --tool bash --tool read_file`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				body := map[string]any{"name": name, "model": model, "system": system, "description": description, "tools": append([]string{}, tools...)}
				var raw json.RawMessage
				err := c.Call(ctx, http.MethodPost, "/v1/agents", nil, body, &raw)
				if err != nil || asJSON {
					return printRaw(cmd, raw, err)
				}
				var a apiclient.Agent
				if err := json.Unmarshal(raw, &a); err != nil {
					return fmt.Errorf("read the agent: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Created %s (%s), version %d.\nTry it: ambit invoke --agent %s \"…\"\n", a.ID, oneLine(a.Name), a.Version, a.ID)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "its name, unique in the project")
	cmd.Flags().StringVar(&model, "model", "", "its model, such as ambit/scripted")
	cmd.Flags().StringVar(&system, "system", "", "the system prompt")
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	cmd.Flags().StringArrayVar(&tools, "tool", nil, "a built-in tool; may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.MarkFlagRequired("model")
	return cmd
}

// agentByName returns an id as it is, and finds the id of a name.
func agentByName(ctx context.Context, c *apiclient.Client, name string) (string, error) {
	if strings.HasPrefix(name, "agt_") {
		return name, nil
	}
	raw, err := list(ctx, c, "/v1/agents", url.Values{"name": {name}}, 200)
	if err != nil {
		return "", err
	}
	for _, one := range raw {
		var a apiclient.Agent
		if err := json.Unmarshal(one, &a); err != nil {
			return "", fmt.Errorf("read an agent: %w", err)
		}
		if strings.EqualFold(a.Name, name) {
			return a.ID, nil
		}
	}
	return "", fmt.Errorf("there is no agent named %q: see ambit agents", name)
}
