package showconfig

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/config"
)

// Command is "ambit config".
func Command() *cobra.Command {
	var asJSON, short bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration, secrets hidden",
		Long:  "Prints each setting as it is in force, with its meaning and its default. Settings are environment variables; a wrong one is refused with one line that names it.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), cfg)
			}
			printText(cmd.OutOrStdout(), cfg, short)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object of names and values")
	cmd.Flags().BoolVar(&short, "short", false, "leave the meanings out")
	return cmd
}

func printJSON(w io.Writer, cfg config.Config) error {
	values := map[string]string{}
	for _, s := range cfg.Settings() {
		values[s.Name] = s.Value
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(values)
}

func printText(w io.Writer, cfg config.Config, short bool) {
	for _, s := range cfg.Settings() {
		if s.Internal {
			continue
		}
		if !short {
			for _, line := range wrap(s.Doc, 96) {
				fmt.Fprintf(w, "# %s\n", line)
			}
			if s.Default != "" {
				fmt.Fprintf(w, "# Default: %s\n", s.Default)
			}
		}
		fmt.Fprintf(w, "%s=%s\n", s.Name, s.Value)
		if !short {
			fmt.Fprintln(w)
		}
	}
}

// wrap breaks a text at spaces into lines of at most width characters.
func wrap(text string, width int) []string {
	var lines []string
	var line string
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
