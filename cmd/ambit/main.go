// Command ambit is all of Ambit in one binary: the server and its parts, the
// engines' keeper, and the user's command line.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status: 0, or 1 when the command failed.
func run(args []string) int {
	root := &cobra.Command{
		Use:           "ambit",
		Short:         "A control plane for autonomous agents",
		Long:          "Ambit runs agents as durable sessions, each in a microVM of its own and within the money, permissions and reach that it was given.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.AddCommand(commands()...)
	if err := root.ExecuteContext(context.Background()); err != nil {
		// A list of problems reads better with one prefix each.
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(os.Stderr, "ambit:", strings.TrimRight(line, "\n"))
		}
		return 1
	}
	return 0
}
