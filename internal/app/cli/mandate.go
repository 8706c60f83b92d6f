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

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants/identity"
)

func mandateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "mandate", Short: "See, revoke, export and check what persons have signed that agents may spend", Args: cobra.NoArgs}
	cmd.AddCommand(listMandates(), revokeMandate(), getMandate(), verifyMandate())
	return cmd
}

func listMandates() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List mandates, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var page struct {
					Data []struct {
						ID, Status, Sentence string
						Money                *struct{ Spent, Free money.Nanos }
					}
				}
				if err := c.Call(ctx, http.MethodGet, "/v1/mandates", nil, nil, &page); err != nil {
					return err
				}
				for _, m := range page.Data {
					line := m.ID + "  " + m.Status + "  " + m.Sentence
					if m.Money != nil {
						line += " " + m.Money.Spent.Display() + " spent, " + m.Money.Free.Display() + " free."
					}
					fmt.Fprintln(cmd.OutOrStdout(), plainLine(line))
				}
				return nil
			})
		},
	}
}

func revokeMandate() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke MANDATE", Short: "Revoke a mandate and all below it, and stop what works under them", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var done struct {
					Fallen []string
					StopID *string `json:"stop_id"`
				}
				if err := c.Call(ctx, http.MethodPost, "/v1/mandates/"+url.PathEscape(args[0])+"/revoke", nil, map[string]string{"reason": reason}, &done); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Revoked: %s.\n", strings.Join(done.Fallen, ", "))
				if done.StopID != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "What worked under them is stopped by the order %s.\n", *done.StopID)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands on the receipts")
	return cmd
}

func getMandate() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "export MANDATE", Short: "Keep a mandate with its receipts, for anybody to check", Args: cobra.ExactArgs(1),
		Long: "Fetches the public keys too, so that the file can be checked later without the instance.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd, func(ctx context.Context, c *apiclient.Client) error {
				var raw json.RawMessage
				if err := c.Call(ctx, http.MethodGet, "/v1/mandates/"+url.PathEscape(args[0])+"/export", nil, nil, &raw); err != nil {
					return err
				}
				if err := keepMandateKeys(ctx, c); err != nil {
					return err
				}
				if out == "" {
					return printRaw(cmd, raw, nil)
				}
				if err := os.WriteFile(out, append(raw, '\n'), 0o600); err != nil {
					return fmt.Errorf("keep the mandate: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Kept in %s. Check it: ambit mandate verify %s\n", out, out)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the file to keep it in")
	return cmd
}

// mandateKeysPath is where the keys of the login's instance and organisation are kept.
func mandateKeysPath() (string, error) {
	path, err := profilePath()
	return filepath.Join(filepath.Dir(path), "mandate-jwks.json"), err
}

// keepMandateKeys keeps the instance's keys with the organisation's, in whose name mandates are signed.
func keepMandateKeys(ctx context.Context, c *apiclient.Client) error {
	var org struct{ ID string }
	if err := c.Call(ctx, http.MethodGet, "/v1/organization", nil, nil, &org); err != nil {
		return err
	}
	var all jose.JSONWebKeySet
	for _, from := range []string{"/.well-known/jwks.json", "/organizations/" + url.PathEscape(org.ID) + "/jwks.json"} {
		var set jose.JSONWebKeySet
		if err := c.Call(ctx, http.MethodGet, from, nil, nil, &set); err != nil {
			return err
		}
		all.Keys = append(all.Keys, set.Keys...)
	}
	path, err := mandateKeysPath()
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("write the keys: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder for the keys: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the keys: %w", err)
	}
	return nil
}

func verifyMandate() *cobra.Command {
	var jwks []string
	var origin string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check a mandate, its spends and its receipts, offline, and say what it proves", Args: cobra.ExactArgs(1),
		Long: "FILE is what ambit mandate export or the console gives; - is the standard input. Without --jwks it is checked against the keys that were fetched last, by ambit mandate export. " +
			"Nothing is asked of any server.",
		Example: "  ambit mandate verify mandate.json --jwks instance.json --jwks organisation.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readBounded(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("read the mandate: %w", err)
			}
			if len(jwks) == 0 {
				path, err := mandateKeysPath()
				if err != nil {
					return err
				}
				jwks = []string{path}
			}
			keys, err := readKeys(jwks)
			if err != nil {
				return err
			}
			if origin == "" {
				var f struct{ Issuer string }
				_ = json.Unmarshal(raw, &f) // what is wrong with it is told by the check
				origin = f.Issuer
			}
			rp, err := identity.RelyingPartyOf(origin)
			if err != nil {
				return err
			}
			c, err := mandate.VerifyFile(raw, keys, time.Now(), func(proof json.RawMessage, digest [32]byte, keys jose.JSONWebKeySet) error {
				var p identity.Proof
				if err := json.Unmarshal(proof, &p); err != nil {
					return fmt.Errorf("read the proof: %w", err)
				}
				return identity.VerifyProof(p, digest, rp.Origin, rp.ID, keys)
			})
			if err != nil {
				return err
			}
			return explainMandate(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().StringArrayVar(&jwks, "jwks", nil, "a document of public keys: the instance's (/.well-known/jwks.json) and the organisation's (/organizations/…/jwks.json)")
	cmd.Flags().StringVar(&origin, "origin", "", "where the person signed, when the instance has moved since")
	return cmd
}

func readKeys(paths []string) (jose.JSONWebKeySet, error) {
	var all jose.JSONWebKeySet
	for _, path := range paths {
		raw, err := readBounded(nil, path)
		if errors.Is(err, fs.ErrNotExist) {
			return all, fmt.Errorf("there are no keys at %s: fetch them once with ambit mandate export, or name them with --jwks", path)
		}
		if err != nil {
			return all, fmt.Errorf("read the keys: %w", err)
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(raw, &set); err != nil {
			return all, fmt.Errorf("read the keys of %s: %w", path, err)
		}
		all.Keys = append(all.Keys, set.Keys...)
	}
	return all, nil
}

// plainLine makes a stranger's text one line that a terminal does not obey.
func plainLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, text)
}

func explainMandate(w io.Writer, c mandate.Checked) error {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(plainLine(fmt.Sprintf(format, args...)) + "\n") }
	leaf := c.Leaf()
	line("The mandate %s is genuine, and unchanged since it was signed.", leaf.ID)
	for i, t := range c.Terms {
		of := "Signed by the user " + string(t.By)
		if i > 0 {
			of = "Narrowed, no wider on any axis, and signed by the agent " + string(c.Terms[i-1].Agent)
		}
		line("%s%s: %s", strings.Repeat("  ", i+1), of, t.Grant.Sentence(string(t.Agent)))
	}
	for _, t := range c.Below {
		line("  Handed on as %s: %s", t.ID, t.Grant.Sentence(string(t.Agent)))
	}
	line("Receipts: %d effects were spent, %s in all, and %d were refused; %d batches, none missing, each signed by the instance.", len(c.Spends), c.Spent.Display(), len(c.Refusals), c.Batches)
	line("Each spend was within every mandate above it.")
	line("Paid: %s in %d closed mandates, rounded up to the cent.", (money.Nanos(c.PaidCents) * money.Cent).Display(), len(c.Paid))
	line("It does not prove that the mandate was not revoked since: ask the instance.")
	_, err := io.WriteString(w, b.String())
	return err
}
