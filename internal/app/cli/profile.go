package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/config"
)

// profile is what login writes: where, with which key, in which project.
type profile struct {
	URL     string `json:"url"`
	Key     string `json:"key"`
	Project string `json:"project,omitempty"`
}

// profilePath is ~/.config/ambit/cli.json, or where the system keeps such files.
func profilePath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the folder for settings: %w", err)
	}
	return filepath.Join(dir, "ambit", "cli.json"), nil
}

func readProfile(path string) (profile, error) {
	var p profile
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read the login: %w", err)
	}
	// The parser's own error could show a part of the key.
	if json.Unmarshal(raw, &p) != nil {
		return p, fmt.Errorf("%s is damaged: run ambit login again", path)
	}
	return p, nil
}

// write replaces the file at once: a half-written one would lock its owner out, and a wider mode would show the key.
func (p profile) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder for the login: %w", err)
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("write the login: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".cli-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the login: %w", err)
	}
	_, err = tmp.Write(append(raw, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the login: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// connect makes a client from the environment, which comes first, and the login.
func connect() (*apiclient.Client, error) {
	cfg, err := config.Load()
	if err != nil {
		return nil, err
	}
	path, err := profilePath()
	if err != nil {
		return nil, err
	}
	p, err := readProfile(path)
	if err != nil {
		return nil, err
	}
	if cfg.APIURL != "" {
		// The key of one Ambit is not for another: it goes along only when it was named together with the address.
		if p.URL != string(cfg.APIURL) {
			p = profile{}
		}
		p.URL = string(cfg.APIURL)
	}
	if cfg.APIKey != "" {
		p.Key = cfg.APIKey.Reveal()
	}
	if p.URL == "" {
		p.URL = string(cfg.PublicURL)
	}
	if p.Key == "" {
		return nil, errors.New("you are not logged in: run ambit login, or set AMBIT_API_URL and AMBIT_API_KEY")
	}
	return apiclient.New(p.URL, p.Key, p.Project)
}
