package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

// maxPrompt bounds what is read from the standard input: the API takes 4 MiB of text.
const maxPrompt = 4 << 20

type invokeFlags struct {
	workFlags
	quote, mandate, title, ifRunning string
	quiet, asJSON                    bool
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
  ambit invoke --session ses_… "and now in French"
  ambit invoke --agent helper --quote quo_… - < task.md`,
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
				f.complete(body)
				return watch(ctx, cmd, c, body, f)
			})
		},
	}
	f.workFlags.on(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.mandate, "mandate", "", "the mandate under which the new session runs")
	fl.StringVar(&f.quote, "quote", "", "a quote of this very work (ambit quote): its prices bind, and its ceiling is held unless --max-cost names another")
	fl.StringVar(&f.ifRunning, "if-running", "", "when the session is at work: queue, interrupt or reject")
	fl.StringVar(&f.title, "title", "", "the session's title")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print only what the agent says")
	fl.BoolVar(&f.asJSON, "json", false, "print each event as a line of JSON")
	return cmd
}

// complete adds what an invoke has besides the work.
func (f *invokeFlags) complete(body map[string]any) {
	for name, value := range map[string]string{"title": f.title, "if_running": f.ifRunning, "quote_id": f.quote, "mandate_id": f.mandate} {
		if value != "" {
			body[name] = value
		}
	}
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
	if v.stop.Type == "budget_reached" && v.stop.Reason != "" {
		why += ": " + oneLine(v.stop.Reason)
	}
	if v.stop.Error != nil {
		why += ": " + oneLine(v.stop.Error.Message)
	}
	return fmt.Errorf("%s stopped with %s", v.session, why)
}
