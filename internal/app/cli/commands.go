package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
)

// Commands are the commands of whoever uses an Ambit.
func Commands() []*cobra.Command {
	return []*cobra.Command{loginCommand(), agentsCommand(), invokeCommand(), quoteCommand(), sessionsCommand(), logsCommand(), stopCommand(), receiptCommand(), mandateCommand()}
}

// withClient runs fn with a client of the login, until it is done or the person has had enough (Ctrl-C).
func withClient(cmd *cobra.Command, fn func(ctx context.Context, c *apiclient.Client) error) error {
	c, err := connect()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return fn(ctx, c)
}

// table writes rows in columns. Cells are one line each: a name with a line break must not look like two rows.
func table(w io.Writer, head string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, row := range rows {
		for i := range row {
			row[i] = oneLine(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// oneLine takes out what would move the cursor: text of agents and people is not trusted with the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// plainText keeps line breaks and tabs, and takes out all else that a terminal would obey.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\n' && r != '\t') || (r >= 0x7f && r < 0xa0) {
			return -1
		}
		return r
	}, s)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func clip(s string, most int) string {
	r := []rune(oneLine(s))
	if len(r) <= most {
		return string(r)
	}
	return string(r[:most-1]) + "…"
}
