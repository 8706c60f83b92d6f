package main

import (
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/enginescmd"
	"ambit.dev/ambit/internal/app/showconfig"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse/embedded"
)

// commands is the one list of what the binary can do. Each package below
// internal/app exports Command() *cobra.Command, or Commands().
func commands() []*cobra.Command {
	return []*cobra.Command{
		// The operator's.
		up.Command(),
		enginescmd.Command(),
		showconfig.Command(),
		// Children of ours.
		embedded.Command(),
	}
}
