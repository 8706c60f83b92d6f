package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/tenants/identity"
)

// agentKey is what the API tells of a key.
type agentKey struct {
	KID         string     `json:"kid"`
	State       string     `json:"state"`
	Compromised bool       `json:"compromised"`
	SignsFrom   time.Time  `json:"signs_from"`
	RetiresAt   *time.Time `json:"retires_at"`
}

func agentKeys() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Show, rotate and retire what an agent signs with", Args: cobra.NoArgs}
	cmd.AddCommand(
		changeKeys("list AGENT", "List an agent's keys and where they are published", http.MethodGet, func([]string) string { return "" }, 1),
		changeKeys("rotate AGENT", "Publish a successor, which signs in a quarter of an hour", http.MethodPost, func([]string) string { return "/rotate" }, 1),
		changeKeys("retire AGENT KID", "Retire a key that somebody else may have, now and for good", http.MethodPost,
			func(args []string) string { return "/" + url.PathEscape(args[1]) + "/retire" }, 2),
		verifyAgentToken(),
	)
	return cmd
}

func changeKeys(use, short, method string, suffix func(args []string) string, n int) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(n),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				agent, err := agentByName(ctx, c, args[0])
				if err != nil {
					return err
				}
				path := "/v1/agents/" + url.PathEscape(agent)
				var page apiclient.Page[json.RawMessage]
				if err := c.Call(ctx, method, path+"/keys"+suffix(args), nil, nil, &page); err != nil || asJSON {
					return printRaw(cmd, page.Data, err)
				}
				return printKeys(ctx, cmd, c, path, page.Data)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printKeys(ctx context.Context, cmd *cobra.Command, c *apiclient.Client, path string, keys []json.RawMessage) error {
	var known struct {
		DID  string `json:"did"`
		JWKS string `json:"jwks_url"`
	}
	if err := c.Call(ctx, http.MethodGet, path+"/identity", nil, nil, &known); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n\n", known.DID, known.JWKS)
	if len(keys) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "It has no key yet: its first is made when it first signs.")
		return nil
	}
	var rows [][]string
	for _, raw := range keys {
		var k agentKey
		if err := json.Unmarshal(raw, &k); err != nil {
			return fmt.Errorf("read a key: %w", err)
		}
		state, until := k.State, "-"
		if k.Compromised {
			state += " (compromised)"
		}
		if k.RetiresAt != nil {
			until = k.RetiresAt.UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{k.KID, state, k.SignsFrom.UTC().Format(time.RFC3339), until})
	}
	return table(cmd.OutOrStdout(), "KID\tSTATE\tSIGNS FROM\tPUBLISHED UNTIL", rows)
}

// verifyAgentToken is what a called service does, at a shell.
func verifyAgentToken() *cobra.Command {
	var jwks, issuer, audience string
	cmd := &cobra.Command{
		Use: "verify-token FILE", Short: "Check the token with which an agent called a service, offline", Args: cobra.ExactArgs(1),
		Long: "FILE holds what stood after Bearer; - is the standard input. The key set is what the agent publishes at jwks.json. Nothing is asked of any server.",
		Example: "  curl -so jwks.json https://ambit.example.com/agents/agt_…/jwks.json\n" +
			"  ambit agents keys verify-token token.txt --jwks jwks.json --issuer did:web:ambit.example.com:agents:agt_… --audience https://api.example.com",
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := readBounded(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("read the token: %w", err)
			}
			document, err := readBounded(nil, jwks)
			if err != nil {
				return fmt.Errorf("read the key set: %w", err)
			}
			var keys jose.JSONWebKeySet
			if err := json.Unmarshal(document, &keys); err != nil {
				return fmt.Errorf("read the key set: %w", err)
			}
			claims, err := identity.VerifyToken(strings.TrimSpace(string(token)), keys, issuer, audience, time.Now())
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), claims)
		},
	}
	cmd.Flags().StringVar(&jwks, "jwks", "", "the agent's key set")
	cmd.Flags().StringVar(&issuer, "issuer", "", "the agent's DID")
	cmd.Flags().StringVar(&audience, "audience", "", "the origin that was called")
	for _, name := range []string{"jwks", "issuer", "audience"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}
