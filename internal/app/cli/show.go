package cli

import (
	"fmt"
	"strings"
	"time"

	"ambit.dev/ambit/internal/apiclient"
)

// ago is a time as people say it.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return t.Local().Format(time.DateOnly)
	}
}

// state is a status with its reason: "idle (end_turn)".
func state(status string, stop *apiclient.StopReason) string {
	if stop == nil {
		return status
	}
	why := stop.Type
	if stop.Limit != "" {
		why += ": " + stop.Limit
	}
	return status + " (" + why + ")"
}

// line shows an event on one line.
func line(e apiclient.Event) string {
	what := ""
	switch e.Type {
	case "user.message", "agent.message":
		what = textOf(e.Content)
	case "agent.thinking":
		what = e.Summary
	case "agent.tool_use":
		what = e.Name
	case "agent.tool_result":
		what = textOf(e.Content)
		if e.IsError {
			what = "error: " + what
		}
	case "step.intended":
		what = e.Kind + " " + e.Name
	case "step.settled":
		what = e.Kind + " " + e.Name + " " + e.Outcome
	case "gate.decided":
		what = e.Decision + " " + e.Kind + " " + e.Name
	case "session.status_idle", "session.status_terminated":
		if e.StopReason != nil {
			what = e.StopReason.Type
			if e.StopReason.Error != nil {
				what += ": " + e.StopReason.Error.Message
			}
		}
	default:
		what = e.Reason
	}
	return fmt.Sprintf("%s %5d  %-26s %s", e.CreatedAt.Local().Format("15:04:05.000"), e.Seq, e.Type, clip(what, 160))
}

func textOf(blocks []apiclient.Block) string {
	var out []string
	for _, b := range blocks {
		out = append(out, b.Text)
	}
	return strings.Join(out, "\n")
}
