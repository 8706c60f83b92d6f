package server

import (
	"io"
	"log/slog"

	"ambit.dev/ambit/internal/config"
)

// NewLogger is the process's log, in the form and from the level that the configuration says.
func NewLogger(cfg config.Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
