package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

// workFlags say who is to do something, and within which limits: what an invoke and a quote of one have in common.
type workFlags struct {
	agent, model, system, session, maxCost string
	tools                                  []string
	maxSteps, maxTokens                    int64
}

// on adds the flags to a command.
func (f *workFlags) on(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.agent, "agent", "", "the agent, by id or name; @version or @alias may follow")
	fl.StringVar(&f.model, "model", "", "a model, in place of a stored agent")
	fl.StringVar(&f.system, "system", "", "a system prompt; with --agent it replaces the agent's for this session")
	fl.StringArrayVar(&f.tools, "tool", nil, "a built-in tool; may be repeated; with --agent they replace the agent's")
	fl.StringVar(&f.session, "session", "", "continue this session")
	fl.StringVar(&f.maxCost, "max-cost", "", "the most that it may cost, in dollars, such as 0.50; held before anything begins")
	fl.Int64Var(&f.maxSteps, "max-steps", 0, "the most steps")
	fl.Int64Var(&f.maxTokens, "max-tokens", 0, "the most tokens of the session")
}

// readMessage is the arguments as one message, or the standard input for a single -.
func readMessage(cmd *cobra.Command, args []string) (string, error) {
	message := strings.Join(args, " ")
	if message != "-" {
		return message, nil
	}
	raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxPrompt+1))
	if err != nil {
		return "", fmt.Errorf("read the message: %w", err)
	}
	if len(raw) > maxPrompt {
		return "", fmt.Errorf("the message is larger than %d bytes: put large input into a file of the session's working directory", maxPrompt)
	}
	return string(raw), nil
}

// body turns the flags into the body of an invoke or a quote.
func (f *workFlags) body(ctx context.Context, c *apiclient.Client, message string) (map[string]any, error) {
	body := map[string]any{"input": message}
	chosen := 0
	for _, s := range []string{f.agent, f.model, f.session} {
		if s != "" {
			chosen++
		}
	}
	if chosen != 1 {
		return nil, errors.New("say who is to do it: one of --agent, --model or --session")
	}
	switch {
	case f.session != "":
		body["session_id"] = f.session
	case f.model != "":
		body["agent"] = map[string]any{"model": f.model, "system": f.system, "tools": append([]string{}, f.tools...)}
	default:
		name, at, _ := strings.Cut(f.agent, "@")
		id, err := agentByName(ctx, c, name)
		if err != nil {
			return nil, err
		}
		choice := map[string]any{"id": id}
		if n, err := strconv.Atoi(at); err == nil {
			choice["version"] = n
		} else if at != "" {
			choice["alias"] = at
		}
		body["agent"] = choice
		over := map[string]any{}
		if f.system != "" {
			over["system"] = f.system
		}
		if len(f.tools) > 0 {
			over["tools"] = f.tools
		}
		if len(over) > 0 {
			body["overrides"] = over
		}
	}
	limits := map[string]any{}
	if f.maxCost != "" {
		limits["max_cost"] = apiclient.Money{Amount: strings.TrimPrefix(f.maxCost, "$"), Currency: "USD"}
	}
	if f.maxSteps > 0 {
		limits["max_steps"] = f.maxSteps
	}
	if f.maxTokens > 0 {
		limits["max_tokens"] = f.maxTokens
	}
	if len(limits) > 0 {
		body["limits"] = limits
	}
	return body, nil
}
