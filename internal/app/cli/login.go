package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/config"
)

func loginCommand() *cobra.Command {
	var url, key, project string
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Remember an Ambit and an API key",
		Long:  "Tries the key and keeps it, readable by you alone. Without --key the key is asked for, or read from the standard input when that is no terminal; so it stays out of the shell's history.",
		Example: `  ambit login --url http://127.0.0.1:8080
  ambit login --url https://ambit.example.com < key.txt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				cfg, err := config.Load()
				if err != nil {
					return err
				}
				if url = string(cfg.APIURL); url == "" {
					url = string(cfg.PublicURL)
				}
			}
			if key == "" {
				var err error
				if key, err = askKey(cmd); err != nil {
					return err
				}
			}
			return login(cmd, profile{URL: strings.TrimRight(url, "/"), Key: key, Project: project})
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "where the Ambit is (default: AMBIT_API_URL, else AMBIT_PUBLIC_URL)")
	cmd.Flags().StringVar(&key, "key", "", "the API key; better left out, and typed when asked")
	cmd.Flags().StringVar(&project, "project", "", "the project (prj_…) to work in, for a key of the whole organisation")
	return cmd
}

func login(cmd *cobra.Command, p profile) error {
	c, err := apiclient.New(p.URL, p.Key, p.Project)
	if err != nil {
		return err
	}
	defer c.Close()
	var me apiclient.Me
	if err := c.Call(cmd.Context(), http.MethodGet, "/v1/me", nil, nil, &me); err != nil {
		return err
	}
	path, err := profilePath()
	if err != nil {
		return err
	}
	if err := p.write(path); err != nil {
		return err
	}
	where := "the whole organisation; name a project with --project for what is made in one"
	if me.ProjectID != nil {
		where = "project " + *me.ProjectID
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Logged in to %s at %s with the key %q (%s).\n", me.OrganizationName, p.URL, me.Key.Name, where)
	return nil
}

// askKey reads the key without showing it.
func askKey(cmd *cobra.Command) (string, error) {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), "API key: ")
		raw, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the key: %w", err)
		}
		return strings.TrimSpace(string(raw)), nil
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the key: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.New("no key was given: pass it on the standard input, or with --key")
	}
	return line, nil
}
