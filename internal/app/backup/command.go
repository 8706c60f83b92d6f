package backup

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/config"
)

// Commands are "ambit backup" and "ambit restore".
func Commands() []*cobra.Command { return []*cobra.Command{backupCommand(), restoreCommand()} }

func backupCommand() *cobra.Command {
	var includeKey bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole instance to one file",
		Long: "Writes Postgres, the stored files and the spans to one file, with a hash of each part, and reads it through once more. The instance may run meanwhile. " +
			"The master key is left out unless --include-master-key is given: without it the file's sealed secrets can't be opened, so keep a copy of the key apart from the backups.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			if includeKey {
				fmt.Fprintln(cmd.ErrOrStderr(), "the backup will hold the master key in clear: whoever reads it can open every secret of this instance")
			}
			m, err := Make(ctx, cfg, args[0], Options{IncludeMasterKey: includeKey, Out: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			printSummary(cmd, args[0], m)
			return nil
		},
	}
	cmd.Flags().BoolVar(&includeKey, "include-master-key", false, "put the master key into the file, in clear")
	return cmd
}

func restoreCommand() *cobra.Command {
	var force, verifyOnly bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the instance from a backup",
		Long:  "Checks the whole file against its hashes, and then makes the instance of this data directory (or of the outside engines that are configured) from it. It refuses to replace an instance that is there, unless --force is given, and to work while ambit up runs.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			if verifyOnly {
				if force {
					return errors.New("--verify-only changes nothing, so --force means nothing with it")
				}
				m, err := Verify(ctx, args[0])
				if err != nil {
					return err
				}
				printSummary(cmd, args[0], m)
				return nil
			}
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			m, err := Restore(ctx, cfg, args[0], RestoreOptions{Force: force, Out: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			printSummary(cmd, args[0], m)
			fmt.Fprintln(cmd.OutOrStdout(), "restored; start it with: ambit up")
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the instance that is there")
	cmd.Flags().BoolVar(&verifyOnly, "verify-only", false, "check the file, and change nothing")
	return cmd
}

func printSummary(cmd *cobra.Command, file string, m Manifest) {
	var size int64
	files := 0
	for name, p := range m.Parts {
		size += p.Bytes
		if len(name) > len(partBlobs) && name[:len(partBlobs)] == partBlobs {
			files++
		}
	}
	_, withKey := m.Parts[partMasterKey]
	key := "without the master key " + m.MasterKey
	if withKey {
		key = "with the master key " + m.MasterKey
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %.1f MB, %d files, %d spans, %s, made at %s; every hash is right\n",
		file, float64(size)/1e6, files, m.Spans, key, m.Made.Format("2006-01-02 15:04:05 UTC"))
}
