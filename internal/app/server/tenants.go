package server

import (
	"context"
	"errors"
	"log/slog"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/postgres"
)

// OpenTenants opens the accounts for an operator's command, without the other engines. Call the returned function when done.
func OpenTenants(ctx context.Context, cfg config.Config, log *slog.Logger) (*Domains, func(), error) {
	if !cfg.PostgresURL.IsSet() {
		return nil, nil, errors.New("this needs AMBIT_POSTGRES_URL and the master key of the instance")
	}
	d := &Domains{Config: cfg, Log: log, Clock: clock.System()}
	var err error
	if d.Sealer, err = OpenSealer(ctx, cfg); err != nil {
		return nil, nil, err
	}
	if d.DB, err = postgres.Open(ctx, postgres.Config{OwnerURL: string(cfg.PostgresURL), Passwords: Passwords(d.Sealer), MaxConns: 4}); err != nil {
		return nil, nil, err
	}
	if err := d.openTenants(); err != nil {
		d.Close()
		return nil, nil, err
	}
	return d, d.Close, nil
}
