package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/processes"
)

// addresses tell other commands of this machine where the engines of a running
// instance are. The file holds secrets, and is its owner's alone.
type addresses struct {
	PostgresURL   string `json:"postgres_url"`
	ClickHouseURL string `json:"clickhouse_url"`
	NomadAddr     string `json:"nomad_addr"`
	NomadToken    string `json:"nomad_token"`
}

func addressesPath(dataDir string) string { return filepath.Join(dataDir, "run", "engines.json") }

func (i *Instance) writeAddresses() error {
	b, err := json.Marshal(addresses{
		PostgresURL: i.cfg.PostgresURL.Reveal(), ClickHouseURL: i.cfg.ClickHouseURL.Reveal(),
		NomadAddr: i.cfg.NomadAddr.Reveal(), NomadToken: i.cfg.NomadToken.Reveal(),
	})
	if err != nil {
		return err
	}
	path := addressesPath(i.cfg.DataDir)
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // the folder holds pid files and sockets; this file is 0600
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("noting the engines' addresses: %w", err)
	}
	return os.Rename(path+".new", path)
}

func (i *Instance) removeAddresses() { _ = os.Remove(addressesPath(i.cfg.DataDir)) }

// Running says whether an ambit up runs on the configuration's data directory,
// and returns the configuration with the addresses of its engines filled in, so
// that other commands can work on the running instance.
func Running(cfg config.Config) (config.Config, bool) {
	f, err := os.Open(filepath.Join(cfg.DataDir, "up.lock"))
	if err != nil {
		return cfg, false
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return cfg, false // nobody holds it
	}
	b, err := os.ReadFile(addressesPath(cfg.DataDir))
	if err != nil {
		return cfg, true // it is starting or stopping, or is somebody else's
	}
	var a addresses
	if err := json.Unmarshal(b, &a); err != nil {
		return cfg, true
	}
	cfg.PostgresURL, cfg.ClickHouseURL = config.Address(a.PostgresURL), config.Address(a.ClickHouseURL)
	cfg.NomadAddr, cfg.NomadToken = config.Address(a.NomadAddr), config.Secret(a.NomadToken)
	return cfg, true
}

// ClickHouseConfig is how the ClickHouse of a configuration is reached. A unix
// address may name the database: unix:///path/of.socket?database=name.
func ClickHouseConfig(cfg config.Config) clickhouse.Config {
	u, err := url.Parse(cfg.ClickHouseURL.Reveal())
	if err == nil && u.Scheme == "unix" {
		return clickhouse.Config{Socket: u.Path, Database: u.Query().Get("database")}
	}
	return clickhouse.Config{URL: cfg.ClickHouseURL.Reveal()}
}

// ErrRunning is returned by WithDatabases when it is to have them to itself.
var ErrRunning = errors.New("ambit up runs on this data directory: stop it first")

// WithDatabases calls fn with a configuration whose Postgres and ClickHouse can
// be reached: the outside ones, those of the running instance (unless exclusive,
// which refuses to work beside one), or our own, which are started for the call.
// out takes the logs.
func WithDatabases(ctx context.Context, cfg config.Config, out io.Writer, exclusive bool, fn func(context.Context, config.Config) error) (err error) {
	if cfg.PostgresURL.IsSet() && cfg.ClickHouseURL.IsSet() && !exclusive {
		return fn(ctx, cfg)
	}
	if filled, running := Running(cfg); running {
		if exclusive {
			return ErrRunning
		}
		if !filled.PostgresURL.IsSet() || !filled.ClickHouseURL.IsSet() {
			return errors.New("ambit up is starting or stopping on this data directory: try again when it is ready")
		}
		return fn(ctx, filled)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding our own binary: %w", err)
	}
	i, err := Open(cfg, Options{Binary: self, EnginesOnly: true}, processes.NewOutput(out, false, cfg.LogFormat == config.LogJSON))
	if err != nil {
		return err
	}
	defer i.Close()
	defer func() { err = errors.Join(err, i.Stop()) }()
	if err := i.clearEarlier(ctx); err != nil {
		return err
	}
	set, err := engines.Obtain(ctx, engines.Options{CacheDir: cfg.CacheDir, Out: out}, engines.Postgres, engines.ClickHouse)
	if err != nil {
		return err
	}
	if err := i.startPostgres(ctx, set); err != nil {
		return err
	}
	if err := i.startClickHouse(ctx, set); err != nil {
		return err
	}
	return fn(ctx, i.cfg)
}
