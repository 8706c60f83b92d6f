package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/config"
)

// Command is "ambit doctor".
func Command() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine each part, and say what is wrong and what mends it",
		Long:  "Examines the machine, the data directory, each engine and, when an instance runs here or outside engines are configured, whether they answer. It changes nothing. The exit status is 1 when something fails.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			out := cmd.OutOrStdout()
			show := textReport(out)
			if asJSON {
				show = jsonReport(out)
			}
			failed := 0
			cfg, err := config.Load()
			if err != nil {
				show(Finding{Part: "configuration", State: Failed, Text: err.Error(), Remedy: "correct these variables; ambit config explains each"})
				return errors.New("the configuration is wrong")
			}
			show(Finding{Part: "configuration", State: OK, Text: "every setting can be read; ambit config shows them"})
			for f := range Examine(ctx, cfg) {
				show(f)
				if f.State == Failed {
					failed++
				}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("%d of the parts have a problem", failed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a finding")
	return cmd
}

// State is how a part is.
type State string

// The states. A warning does not fail the examination.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Finding is what was found out about one part.
type Finding struct {
	Part   string `json:"part"`
	State  State  `json:"state"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

func textReport(w io.Writer) func(Finding) {
	f, isFile := w.(*os.File)
	colour := isFile && isatty.IsTerminal(f.Fd()) && !config.PlainTerminal()
	marks := map[State]string{OK: "ok", Warning: "warn", Failed: "FAIL", Skipped: "-"}
	colours := map[State]string{OK: "\x1b[32m", Warning: "\x1b[33m", Failed: "\x1b[31m", Skipped: "\x1b[2m"}
	return func(f Finding) {
		before, after := "", ""
		if colour {
			before, after = colours[f.State], "\x1b[0m"
		}
		fmt.Fprintf(w, "%s%-4s%s  %-18s %s\n", before, marks[f.State], after, f.Part, f.Text)
		if f.Remedy != "" {
			fmt.Fprintf(w, "      %-18s → %s\n", "", f.Remedy)
		}
	}
}

func jsonReport(w io.Writer) func(Finding) {
	enc := json.NewEncoder(w)
	return func(f Finding) { _ = enc.Encode(f) }
}

// check is one examination. It returns one finding, or several.
type check func(ctx context.Context, e *examination) []Finding
