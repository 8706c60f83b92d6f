package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

// maxPrompt bounds what is read from the standard input: the API takes 4 MiB of text.
const maxPrompt = 4 << 20

type invokeFlags struct {
	agent, model, system, session, maxCost, title, ifRunning string
	tools                                                    []string
	maxSteps, maxTokens                                      int64
	quiet, asJSON                                            bool
}

func invokeCommand() *cobra.Command {
	var f invokeFlags
	cmd := &cobra.Command{
		Use:   "invoke [flags] MESSAGE",
		Short: "Give an agent something to do and watch it work",
		Long:  "Sends the message to an agent, a model, or a session that there is, and prints what the agent does as it does it. With - the message is read from the standard input. Ctrl-C stops watching; the session goes on.",
		Example: `  ambit invoke --agent helper "What is in this folder?"
  ambit invoke --agent helper@prod --max-cost 0.50 - < task.md
  ambit invoke --model ambit/scripted --tool bash "hello"
  ambit invoke --session ses_… "and now in French"`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			message := strings.Join(args, " ")
			if message == "-" {
				raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxPrompt+1))
				if err != nil {
					return fmt.Errorf("read the message: %w", err)
				}
				if len(raw) > maxPrompt {
					return fmt.Errorf("the message is larger than %d bytes: put large input into a file of the session's working directory", maxPrompt)
				}
				message = string(raw)
			}
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				body, err := f.body(ctx, c, message)
				if err != nil {
					return err
				}
				return watch(ctx, cmd, c, body, f)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.agent, "agent", "", "the agent, by id or name; @version or @alias may follow")
	fl.StringVar(&f.model, "model", "", "a model, in place of a stored agent")
	fl.StringVar(&f.system, "system", "", "a system prompt; with --agent it replaces the agent's for this session")
	fl.StringArrayVar(&f.tools, "tool", nil, "a built-in tool; may be repeated; with --agent they replace the agent's")
	fl.StringVar(&f.session, "session", "", "continue this session")
	fl.StringVar(&f.ifRunning, "if-running", "", "when the session is at work: queue, interrupt or reject")
	fl.StringVar(&f.maxCost, "max-cost", "", "the most that it may cost, in dollars, such as 0.50; held before anything begins")
	fl.Int64Var(&f.maxSteps, "max-steps", 0, "the most steps")
	fl.Int64Var(&f.maxTokens, "max-tokens", 0, "the most tokens of the session")
	fl.StringVar(&f.title, "title", "", "the session's title")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print only what the agent says")
	fl.BoolVar(&f.asJSON, "json", false, "print each event as a line of JSON")
	return cmd
}

// body turns the flags into an invoke.
func (f *invokeFlags) body(ctx context.Context, c *apiclient.Client, message string) (map[string]any, error) {
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
	if f.title != "" {
		body["title"] = f.title
	}
	if f.ifRunning != "" {
		body["if_running"] = f.ifRunning
	}
	return body, nil
}

// watch follows an invoke on the terminal. What the agent says goes to the standard output, all else to the standard error, so that the
// answer can be piped on.
func watch(ctx context.Context, cmd *cobra.Command, c *apiclient.Client, body map[string]any, f invokeFlags) error {
	v := &viewer{out: cmd.OutOrStdout(), note: cmd.ErrOrStderr(), quiet: f.quiet, asJSON: f.asJSON}
	err := c.Invoke(ctx, body, apiclient.Handler{
		Event: v.event, Preview: v.preview,
		Lost: func(err error, again time.Duration) {
			fmt.Fprintf(v.note, "The connection was lost (%v); again in %s.\n", err, again.Round(100*time.Millisecond))
		},
	})
	v.endLine()
	if errors.Is(err, context.Canceled) {
		if v.session == "" {
			return errors.New("stopped before the session was known; ambit sessions tells whether it began")
		}
		return fmt.Errorf("you stopped watching; %s goes on. Follow it: ambit logs -f %s   Stop it: ambit sessions interrupt %s", v.session, v.session, v.session)
	}
	if err != nil {
		return err
	}
	return v.finish(ctx, c)
}

// viewer shows a stream to a person.
type viewer struct {
	out, note     io.Writer
	quiet, asJSON bool
	session       string
	stop          *apiclient.StopReason
	shown         string // the event whose text is on the terminal already, from previews
	sofar         string // that text
	open          bool   // the last line of text has no end yet
}

func (v *viewer) preview(p apiclient.Preview) error {
	if v.asJSON || p.Type != "event_delta" || p.Delta == nil {
		return nil
	}
	if v.shown != p.EventID {
		v.endLine()
		v.shown, v.sofar = p.EventID, ""
	}
	v.sofar += p.Delta.Content.Text
	return v.text(p.Delta.Content.Text)
}

func (v *viewer) event(e apiclient.Event) error {
	v.session = e.SessionID
	if e.Type == "session.status_idle" || e.Type == "session.status_terminated" {
		v.stop = e.StopReason
	}
	if v.asJSON {
		_, err := fmt.Fprintf(v.out, "%s\n", e.Raw)
		return err
	}
	switch e.Type {
	case "session.created":
		v.say("session %s", e.SessionID)
	case "agent.message":
		whole := textOf(e.Content)
		if v.shown == e.ID {
			// Previews may have been lost: what is missing at the end is added; a hole in the middle takes the whole once more.
			if rest, ok := strings.CutPrefix(whole, v.sofar); ok {
				whole = rest
			} else {
				v.endLine()
			}
		}
		err := v.text(whole)
		v.endLine()
		return err
	case "agent.tool_use":
		v.say("→ %s", e.Name)
	case "agent.tool_result":
		mark := "←"
		if e.IsError {
			mark = "✗"
		}
		v.say("%s %s", mark, clip(textOf(e.Content), 200))
	case "gate.decided":
		if e.Decision != "admitted" {
			v.say("%s: %s %s", e.Decision, e.Kind, e.Name)
		}
	case "session.status_rescheduled":
		v.say("waiting for a worker: %s", e.Reason)
	}
	return nil
}

func (v *viewer) text(s string) error {
	if s == "" {
		return nil
	}
	v.open = !strings.HasSuffix(s, "\n")
	_, err := io.WriteString(v.out, plainText(s))
	return err
}

func (v *viewer) endLine() {
	if v.open {
		fmt.Fprintln(v.out)
		v.open = false
	}
}

func (v *viewer) say(format string, args ...any) {
	if v.quiet {
		return
	}
	v.endLine()
	fmt.Fprintln(v.note, oneLine(fmt.Sprintf(format, args...)))
}

// finish tells how it ended and what it cost. Anything but a proper end is an error, so that scripts notice.
func (v *viewer) finish(ctx context.Context, c *apiclient.Client) error {
	var s apiclient.Session
	if err := c.Call(ctx, http.MethodGet, sessionPath(v.session, ""), nil, nil, &s); err != nil {
		return err
	}
	v.say("%s · the session has cost $%s so far · %s", state(s.Status, v.stop), s.Cost.Charged.Amount, s.URL)
	if v.stop == nil || v.stop.Type == "end_turn" {
		return nil
	}
	why := v.stop.Type
	if v.stop.Limit != "" {
		why += " (" + v.stop.Limit + ")"
	}
	if v.stop.Error != nil {
		why += ": " + oneLine(v.stop.Error.Message)
	}
	return fmt.Errorf("%s stopped with %s", v.session, why)
}
