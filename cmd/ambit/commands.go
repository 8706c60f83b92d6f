package main

import (
	"github.com/spf13/cobra"

	"ambit.dev/ambit/internal/app/backup"
	"ambit.dev/ambit/internal/app/boundscmd"
	"ambit.dev/ambit/internal/app/cli"
	"ambit.dev/ambit/internal/app/creditcmd"
	"ambit.dev/ambit/internal/app/demonstrate"
	"ambit.dev/ambit/internal/app/doctor"
	"ambit.dev/ambit/internal/app/enginescmd"
	"ambit.dev/ambit/internal/app/servecmd"
	"ambit.dev/ambit/internal/app/showconfig"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/app/userscmd"
	"ambit.dev/ambit/internal/clickhouse/embedded"
)

// commands is the one list of what the binary can do. Each package below
// internal/app exports Command() *cobra.Command, or Commands().
func commands() []*cobra.Command {
	operators := []*cobra.Command{up.Command(), doctor.Command(), enginescmd.Command(), showconfig.Command(), userscmd.Command(), creditcmd.Command(), boundscmd.Command()}
	operators = append(operators, servecmd.Commands()...)
	operators = append(operators, backup.Commands()...)
	// Children of ours.
	operators = append(operators, embedded.Command(), demonstrate.Command())
	return append(operators, cli.Commands()...)
}
