package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/receipt"
)

func receiptCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "receipt", Short: "Keep and check the signed receipts of what was stopped", Args: cobra.NoArgs}
	cmd.AddCommand(getReceipt(), receiptKeys(), verifyReceipt())
	return cmd
}

func getReceipt() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "get SESSION|STOP", Short: "Print or keep the receipt of a session's kill (ses_…), or of an order to stop (sto_…)", Args: cobra.ExactArgs(1),
		Long: "Fetches the instance's key document too, so that the receipt can be checked later without the instance.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				path := sessionPath(args[0], "/receipt")
				if strings.HasPrefix(args[0], "sto_") {
					path = "/v1/stops/" + url.PathEscape(args[0])
				}
				var raw json.RawMessage
				if err := c.Call(ctx, http.MethodGet, path, nil, nil, &raw); err != nil {
					return err
				}
				if _, err := fetchKeys(ctx, c); err != nil {
					return err
				}
				if out == "" {
					return printRaw(cmd, raw, nil)
				}
				if err := os.WriteFile(out, append(raw, '\n'), 0o600); err != nil {
					return fmt.Errorf("keep the receipt: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Kept in %s. Check it: ambit receipt verify %s\n", out, out)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the file to keep it in")
	return cmd
}

func receiptKeys() *cobra.Command {
	return &cobra.Command{
		Use: "keys", Short: "Fetch the instance's key document, to check receipts with later", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				path, err := fetchKeys(ctx, c)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "Kept in %s.\n", path)
				}
				return err
			})
		},
	}
}

func verifyReceipt() *cobra.Command {
	var jwks string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check a receipt, offline, and say what it proves", Args: cobra.ExactArgs(1),
		Long:    "FILE is a receipt as the API or the console gives it, or its signature alone; - is the standard input. Without --jwks it is checked against the key document that was fetched last, by ambit receipt get or ambit receipt keys. Nothing is asked of any server.",
		Example: "  ambit receipt verify receipt.json --jwks jwks.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			document, err := readBounded(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("read the receipt: %w", err)
			}
			if jwks == "" {
				if jwks, err = keysPath(); err != nil {
					return err
				}
			}
			keys, err := readBounded(nil, jwks)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no key document at %s: fetch it once with ambit receipt keys, or name one with --jwks", jwks)
			}
			if err != nil {
				return fmt.Errorf("read the key document: %w", err)
			}
			proven, err := receipt.Verify(document, keys)
			if err != nil {
				return err
			}
			return proven.Explain(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&jwks, "jwks", "", "the instance's key document: what it publishes at /.well-known/jwks.json")
	return cmd
}

func readBounded(stdin io.Reader, path string) ([]byte, error) {
	from := stdin
	if stdin == nil || path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // read only
		from = f
	}
	return io.ReadAll(io.LimitReader(from, receipt.MaxBytes+1))
}

// keysPath is where the key document is kept, beside the login.
func keysPath() (string, error) {
	path, err := profilePath()
	return filepath.Join(filepath.Dir(path), "jwks.json"), err
}

// fetchKeys keeps the key document of the login's instance, and when that was.
func fetchKeys(ctx context.Context, c *apiclient.Client) (path string, err error) {
	document := map[string]json.RawMessage{}
	if err := c.Call(ctx, http.MethodGet, "/.well-known/jwks.json", nil, nil, &document); err != nil {
		return "", err
	}
	if document["fetched_at"], err = json.Marshal(time.Now().UTC()); err != nil {
		return "", fmt.Errorf("write the key document: %w", err)
	}
	raw, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the key document: %w", err)
	}
	if path, err = keysPath(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the folder for the key document: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("keep the key document: %w", err)
	}
	return path, nil
}
