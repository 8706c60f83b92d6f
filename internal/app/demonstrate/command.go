// Package demonstrate makes the demonstration organisation of a first start and runs one session through the instance's own API, as
// anybody would.
package demonstrate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

// Email is the demonstration's sign-in.
const Email = "demo@ambit.example"

// task is what the demonstration session is asked to do. ambit/scripted turns each block into one tool call.
const task = "Write a small program, run it, and look at what it left behind.\n\n" +
	"```write_file path=primes.py\n" +
	"def primes(n):\n    found = []\n    for c in range(2, n):\n        if all(c % p for p in found if p * p <= c):\n            found.append(c)\n    return found\n\n" +
	"found = primes(1000)\nprint(f\"{len(found)} primes below 1000; the largest is {found[-1]}\")\n```\n\n" +
	"```bash\nuname -sr; python3 primes.py | tee result.txt\n```\n\n" +
	"```read_file path=result.txt\n```\n"

// answer is what the session must have found out, in its sandbox.
const answer = "168 primes below 1000; the largest is 997"

// Command is the hidden "demonstrate", which ambit up runs once.
func Command() *cobra.Command {
	return &cobra.Command{
		Use: "demonstrate", Hidden: true, Args: cobra.NoArgs,
		Short: "Make the demonstration organisation and run its session",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
}

func run(ctx context.Context, cfg config.Config, out io.Writer) error {
	t, closing, err := server.OpenTenants(ctx, cfg, server.NewLogger(cfg, os.Stderr))
	if err != nil {
		return err
	}
	defer closing()
	password := rand.Text()
	account, err := t.Tenants.CreateAccount(ctx, tenants.SignUp{Email: Email, Password: password, Name: "Demonstration", OrganizationName: "Demonstration"})
	if fault.IsCode(err, "email_is_taken") {
		return errors.New("the demonstration's account exists already; sign in with it, or reset its password with: ambit users reset " + Email)
	}
	if err != nil {
		return fmt.Errorf("make the demonstration's account: %w", err)
	}
	by := principal.Principal{Kind: principal.User, ID: string(account.User.ID), Org: account.Organization.ID, Project: account.Project.ID, Role: string(tenants.RoleOwner)}
	var secret string
	err = t.DB.InTx(ctx, by.Org, func(tx pgx.Tx) error {
		_, secret, err = t.Tenants.CreateKeyTx(principal.With(ctx, by), tx, by, tenants.CreateKey{Name: "Demonstration", Project: account.Project.ID, Scopes: []string{"*"}})
		return err
	})
	if err != nil {
		return fmt.Errorf("make an API key: %w", err)
	}
	c := &caller{base: string(cfg.PublicURL), key: secret}
	result, err := c.demonstrate(ctx)
	if err != nil {
		return err
	}
	console := fmt.Sprintf("%s/o/%s/p/%s", c.base, account.Organization.Slug, account.Project.Slug)
	fmt.Fprintf(out, `
    Demonstration: agent %s ran %d steps in a microVM and said
%s
    It cost   %s (exactly %s)
    Trace     %s/traces/%s
    Session   %s/sessions/%s

    Console   %s
    Sign in   %s  with password  %s
    API key   %s   (shown this once)

    Try it:
    curl -sS %s/v1/invoke -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' \
      -d '{"agent":"%s","input":"`+"```bash\\ndate; uname -a\\n```"+`"}'

`, result.Agent.ID, result.Usage.Steps, indent(result.text(), "      | "), result.Cost.Charged.Display(), result.Cost.Charged.Decimal(),
		console, result.Session, console, result.Session, c.base, Email, password, secret, c.base, secret, result.Agent.ID)
	return nil
}

type caller struct {
	base, key string
}

type invoked struct {
	Session    string `json:"session_id"`
	Status     string `json:"status"`
	StopReason *struct {
		Type string `json:"type"`
	} `json:"stop_reason"`
	Agent struct {
		ID string `json:"id"`
	} `json:"agent"`
	Output []struct {
		Text string `json:"text"`
	} `json:"output"`
	Usage struct {
		Steps int `json:"steps"`
	} `json:"usage"`
	Cost struct {
		Charged money.Nanos `json:"charged"`
	} `json:"cost"`
}

func (r invoked) text() string {
	parts := make([]string, len(r.Output))
	for i, o := range r.Output {
		parts[i] = o.Text
	}
	return strings.Join(parts, "\n")
}

func (c *caller) demonstrate(ctx context.Context) (invoked, error) {
	var agent struct {
		ID string `json:"id"`
	}
	err := c.post(ctx, "/v1/agents", map[string]any{
		"name": "Demonstration", "model": "ambit/scripted",
		"system": "You do what the blocks of the message say, one after another.",
		"tools":  []string{"bash", "python", "read_file", "write_file", "edit_file", "list_files"},
	}, &agent)
	if err != nil {
		return invoked{}, fmt.Errorf("make the demonstration's agent: %w", err)
	}
	var result invoked
	err = c.post(ctx, "/v1/invoke", map[string]any{
		"agent": agent.ID, "input": task, "title": "Demonstration", "wait_seconds": 120,
		"limits": map[string]any{"max_cost": 50 * money.Cent},
	}, &result)
	if err != nil {
		return invoked{}, fmt.Errorf("invoke the demonstration's agent: %w", err)
	}
	if result.StopReason == nil || result.StopReason.Type != "end_turn" {
		return result, fmt.Errorf("the demonstration session %s is %s instead of finished", result.Session, result.Status)
	}
	if !strings.Contains(result.text(), answer) {
		return result, fmt.Errorf("the demonstration session %s did not do its work; it said: %s", result.Session, result.text())
	}
	return result, nil
}

func (c *caller) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 150*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end below
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answered %s: %s", path, resp.Status, answer)
	}
	return json.Unmarshal(answer, out)
}

func indent(s, by string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return by + strings.Join(lines, "\n"+by)
}
